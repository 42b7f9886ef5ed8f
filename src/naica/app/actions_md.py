"""Answers from molecular dynamics: md, trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from naica.app.answer import Answer, Table, number
from naica.app.requests_md import MdRequest, TrajectoryRequest
from naica.app.structures import read_structures
from naica.errors import InputError

_GPA = 160.21766208


class Report(Protocol):
    """Told how far a run is, and in words how fast."""

    def __call__(self, done: int, total: int, told: str = "") -> None:
        """Done so many of so many."""
        ...


def md(request: MdRequest, progress: Report = lambda done, total, told="": None) -> Answer:
    """Simulate all structures at once; a system that is stopped is a row with its reason. Exit code 2 if none reached the end."""
    from naica.potential.simulate import Pace
    from naica.potential.simulate import md as simulate

    good, bad = read_structures(request.files)
    if not good:
        raise InputError("; ".join(f"{b.name}: {b.reason}" for b in bad))
    if any(k < 1 for k in request.supercell):
        raise InputError(f"supercell {request.supercell}; expected three numbers of at least 1")
    crystals = [n.crystal.supercell(request.supercell) if max(request.supercell) > 1 else n.crystal for n in good]

    def tell(pace: Pace) -> None:
        progress(pace.done, pace.total, f"Simulating ({pace.steps_per_second:.1f} steps/s, {pace.ns_per_day:.2f} ns/day)")

    done = simulate(
        crystals,
        request.model,
        request.ensemble,
        request.temperature,
        request.steps,
        dt=request.dt,
        path=request.out,
        ramp_to=request.ramp_to,
        ramp_steps=request.ramp_steps,
        pressure=request.pressure / _GPA,
        seed=request.seed,
        every=request.every,
        checkpoint=request.checkpoint,
        velocities=request.velocities,
        dtype=request.dtype,
        progress=tell,
        **request.settings,
    )
    rows = _summary(done.trajectory)
    made = (request.steps if done.members else max((s.step for s in done.stopped), default=0)) - done.resumed
    rate = made / done.seconds if made > 0 else None
    data = {
        "model": request.model,
        "ensemble": request.ensemble,
        "trajectory": str(request.out),
        "resumed_at": done.resumed,
        "steps": request.steps,
        "seconds": done.seconds,
        "ns_per_day": None if rate is None else rate * request.dt * 0.0864,
        "systems": rows,
        "unreadable": [{"file": b.name, "reason": b.reason} for b in bad],
    }
    speed = () if rate is None else (f"{rate:.1f} steps/s, {rate * request.dt * 0.0864:.2f} ns/day",)
    notes = (*speed, *((f"resumed at step {done.resumed}",) if done.resumed else ()), f"wrote {request.out}")
    failed = tuple(f"{b.name}: unreadable: {b.reason}" for b in bad)
    return Answer(data, (_table(rows), *failed), notes, exit_code=0 if done.members else 2)


def trajectory(request: TrajectoryRequest) -> Answer:
    """Means over a trajectory; export of one system's frames."""
    from naica.potential.trajectory import Trajectory

    held = Trajectory(request.file)
    if request.stride < 1:
        raise InputError(f"stride {request.stride}; expected at least 1")
    rows = _summary(held, request.first)
    notes: tuple[str, ...] = ()
    if request.out is not None:
        if request.system is None and len(held) > 1:
            raise InputError(f"{request.file} holds {len(held)} systems; say which with --system 0 … {len(held) - 1}")
        frames = held.export(request.out, request.system or 0, request.first, request.stride)
        notes = (f"wrote {frames} frames to {request.out}",)
    data = {"trajectory": str(request.file), "settings": dict(held.settings), "dt": held.header.dt, "systems": rows}
    return Answer(data, (_table(rows),), notes)


def _summary(held: Any, first: int = 0) -> list[dict[str, Any]]:
    """One row per system of a trajectory."""
    stopped = {one.system: one for one in held.stopped}
    rows = []
    for k in range(len(held)):
        row: dict[str, Any] = {"system": k, "name": held.header.names[k], "atoms": int(held.header.n_atoms[k]), "frames": 0}
        row["status"] = f"stopped at step {stopped[k].step}" if k in stopped else "running"
        row["reason"] = stopped[k].reason if k in stopped else ""
        rows.append(row)
        if held.holds(k):
            frames = held.frames(k, first)
            if len(frames):
                row.update(_means(frames, row["atoms"]))
    return rows


def _means(frames: Any, atoms: int) -> dict[str, Any]:
    found = {
        "frames": len(frames),
        "last_step": int(frames.step[-1]),
        "time_ps": float(frames.time[-1]) / 1000,
        "temperature": float(frames.temperature.mean()),
        "temperature_last": float(frames.temperature[-1]),
        "pressure_gpa": float(frames.pressure.mean()) * _GPA if np.isfinite(frames.volume).all() else None,
        "volume_per_atom": float(frames.volume.mean()) / atoms if np.isfinite(frames.volume).all() else None,
        "energy_per_atom": float(frames.energy.mean()) / atoms,
        "conserved_drift": None,
    }
    if len(frames) > 2 and np.isfinite(frames.conserved).all():
        # eV per atom and ps: the slope of what the ensemble conserves
        found["conserved_drift"] = float(np.polyfit(frames.time / 1000, frames.conserved / atoms, 1)[0])
    return found


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    heads = ("name", "atoms", "ps", "T (K)", "P (GPa)", "V (Å³/atom)", "E (eV/atom)", "drift (meV/atom/ps)", "remarks")
    cells = tuple(
        (
            row["name"],
            str(row["atoms"]),
            number(row.get("time_ps"), 2),
            number(row.get("temperature"), 1),
            number(row.get("pressure_gpa"), 2),
            number(row.get("volume_per_atom"), 3),
            number(row.get("energy_per_atom"), 4),
            number(None if row.get("conserved_drift") is None else row["conserved_drift"] * 1000, 3),
            f"{row['status']}: {row['reason']}" if row["reason"] else "",
        )
        for row in rows
    )
    return Table(heads, cells, right=heads[1:-1])
