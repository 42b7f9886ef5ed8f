"""Runs of molecular dynamics: from crystals and a potential to a trajectory file that can be resumed exactly.

A run writes its state into the trajectory at checkpoints. Started again, it goes on from the last one and makes the same numbers as if it
had never been interrupted, to the last bit: random numbers are functions of (seed, step), neighbour lists do not change sums, and
calculators that remember are reset at every checkpoint, in the run that goes on as in the one that is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from naica.errors import InputError
from naica.potential.evaluator import Evaluator, of
from naica.potential.md import Ensemble, State, ensemble_of, init, step
from naica.potential.systems import Systems
from naica.potential.trajectory import Header, Stopped, Trajectory, Writer
from naica.structure import Crystal


@dataclass(frozen=True)
class Limits:
    """What stops a system: it left the region where a potential and a time step mean anything.

    Parameters
    ----------
    force : eV/Å, on any atom
    stride : Å, that an atom may move in one step
    distance : Å, between two atoms
    volume : factor by which the volume may grow or shrink
    temperature : K
    """

    force: float = 1e3
    stride: float = 1.0
    distance: float = 0.3
    volume: float = 3.0
    temperature: float = 1e5


@dataclass(frozen=True)
class Pace:
    """How far a run is: steps made and wanted, steps per second and ns per day of this process, the members that are left."""

    done: int
    total: int
    steps_per_second: float
    ns_per_day: float
    members: int


@dataclass(frozen=True)
class Simulation:
    """A run that ended.

    Parameters
    ----------
    state : of the systems that were not stopped
    members : which of the given systems these are
    stopped : the others, and why
    path : of the trajectory, if one was written
    seconds : wall clock of this process
    resumed : the step it went on from; 0 for a new run
    """

    state: State | None
    members: tuple[int, ...]
    stopped: tuple[Stopped, ...]
    path: Path | None
    seconds: float
    resumed: int

    @property
    def trajectory(self) -> Trajectory:
        """What was written."""
        if self.path is None:
            raise InputError("this run wrote no trajectory; give it a path")
        return Trajectory(self.path)


@dataclass(frozen=True)
class _Plan:
    """How a run is watched and kept."""

    every: int
    checkpoint: int
    limits: Limits
    progress: Callable[[Pace], None] | None
    watch: Callable[[State, tuple[int, ...]], None] | None


def md(
    crystals: Crystal | Sequence[Crystal],
    model: Any = "chgnet",
    ensemble: str | Ensemble = "nvt",
    temperature: float | Sequence[float] = 300.0,
    steps: int = 1000,
    *,
    dt: float = 1.0,
    path: str | Path | None = None,
    ramp_to: float | Sequence[float] | None = None,
    ramp_steps: int = 0,
    pressure: float | Sequence[float] = 0.0,
    seed: int | Sequence[int] = 0,
    fixed: Sequence[Sequence[int]] | None = None,
    dtype: str = "float64",
    every: int = 10,
    checkpoint: int = 1000,
    velocities: bool = False,
    precision: float = 1e-4,
    limits: Limits | None = None,
    progress: Callable[[Pace], None] | None = None,
    watch: Callable[[State, tuple[int, ...]], None] | None = None,
    **settings: Any,
) -> Simulation:
    """Molecular dynamics of one crystal or of many at once; with a `path` that is there, the run goes on where it stopped.

    Parameters
    ----------
    crystals : crystals, slabs, molecules; all are simulated side by side
    model : a potential by name, a model folder, a model of ours or an ASE calculator
    ensemble : ``nve``, ``langevin``, ``nvt`` (Nosé–Hoover chain), ``npt``, ``npt-rescale``, or an ensemble of `naica.potential.md`
    temperature : K, of the start and the thermostat, for all or each
    steps : in all, those of earlier runs included
    dt : fs (an ensemble that is given has its own)
    path : of the trajectory to write
    ramp_to, ramp_steps : the thermostat goes there on a straight line within so many steps, and stays
    pressure : eV/Å³ for barostats
    seed : of velocities and noise; system k has seed + k, or its own
    fixed : for each system the indices of atoms that never move
    dtype : precision of our networks, ``float64`` or ``float32``; dynamics itself is in 64 bits
    every : steps between frames
    checkpoint : steps between states that a run can be resumed from
    velocities : keep them in the frames
    precision : Å, of stored positions
    limits : what stops a system; the others go on
    progress : called at every frame
    watch : called at every frame with the state and the indices of the systems in it
    settings : of the ensemble (``relaxation``, ``friction``, ``barostat``, ``shape`` …)

    Raises
    ------
    ConfigError, MissingPart
        If the model, the ensemble or a setting is unknown, or the model's package is not installed.
    InputError
        For elements the model does not know, numbers out of range, or a trajectory of another run at `path`.
    RunError
        If the trajectory cannot be written.
    """
    items = [crystals] if isinstance(crystals, Crystal) else list(crystals)
    if not items or steps < 0 or every < 1 or checkpoint < 1:
        raise InputError(
            f"{len(items)} systems, {steps} steps, frames every {every}, checkpoints every {checkpoint}; expected at least 1 of each"
        )
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype {dtype!r}; expected float32 or float64")
    evaluator = of(model, getattr(torch, dtype))
    refused = _foreign(items, evaluator)
    way = ensemble_of(ensemble, dt=dt, **settings) if isinstance(ensemble, str) else ensemble
    plan = _Plan(every, checkpoint, limits or Limits(), progress, watch)
    told = {
        "model": str(model) if isinstance(model, str | Path) else type(model).__name__,
        "ensemble": type(way).__name__,
        **_plain(way),
        "temperature": _listed(temperature),
        "ramp_to": _listed(ramp_to),
        "ramp_steps": ramp_steps,
        "pressure": _listed(pressure),
        "seed": _listed(seed),
        "fixed": None if fixed is None else [list(map(int, one)) for one in fixed],
        "dtype": dtype,
    }
    header = _header(items, way, told, plan, velocities, precision)
    if path is not None and Path(path).is_file() and Trajectory.begun(path):
        return _resumed(Path(path), header, evaluator, way, steps, plan)
    flags = None if fixed is None else _flags(items, fixed)
    state = init(
        Systems.of(items), evaluator, way, temperature, ramp_to=ramp_to, ramp_steps=ramp_steps, pressure=pressure, seed=seed, fixed=flags
    )
    writer = None if path is None else Writer(path, header)
    return run(state, evaluator, way, steps, refused=refused, writer=writer, plan=plan)


def run(
    state: State,
    evaluator: Evaluator,
    ensemble: Ensemble,
    steps: int,
    *,
    members: Sequence[int] | None = None,
    stopped: Sequence[Stopped] = (),
    refused: Mapping[int, str] | None = None,
    volume: Tensor | None = None,
    writer: Writer | None = None,
    plan: _Plan | None = None,
) -> Simulation:
    """Go on from a state until its step is `steps`.

    Parameters
    ----------
    members, stopped, volume : of a run that is resumed: which of the systems are left, what became of the others, volumes (B) at the start
    refused : systems that are stopped before the first step, and why
    writer : gets the frames and is closed at the end
    plan : how the run is watched and kept
    """
    plan = plan or _Plan(10, 1000, Limits(), None, None)
    volume = state.systems.volume if volume is None else volume
    going = _Going(state, tuple(range(len(state)) if members is None else members), list(stopped), volume)
    begun, first = time.perf_counter(), state.step
    try:
        if first == 0:
            bad = {**_astray(state, state, volume, ensemble.dt, plan.limits), **(refused or {})}
            going.drop(bad, None, evaluator, writer, ensemble)
            _frame(going, ensemble, writer, plan)
            _checkpoint(going, evaluator, writer)
        while going.members and going.state.step < steps:
            before = going.state
            going.state = step(before, evaluator, ensemble)
            going.drop(_astray(before, going.state, going.volume, ensemble.dt, plan.limits), before, evaluator, writer, ensemble)
            done = going.state.step
            if done % plan.every == 0:
                _frame(going, ensemble, writer, plan)
                _tell(going, begun, first, steps, ensemble, plan)
            if done % plan.checkpoint == 0 or done == steps or not going.members:
                _checkpoint(going, evaluator, writer)
    finally:
        if writer is not None:
            writer.close()
    left = going.state if going.members else None
    path = None if writer is None else writer.path
    return Simulation(left, going.members, tuple(going.stopped), path, time.perf_counter() - begun, first)


@dataclass
class _Going:
    """The systems that are left, with their volumes at the start, and those that were stopped."""

    state: State
    members: tuple[int, ...]
    stopped: list[Stopped]
    volume: Tensor

    def drop(self, bad: Mapping[int, str], before: State | None, evaluator: Evaluator, writer: Writer | None, ensemble: Ensemble) -> None:
        """Stop these; their last sound state becomes their last frame."""
        if not bad:
            return
        rows = sorted(bad)
        sound = self.state if before is None else before
        if writer is not None and before is not None:
            _write(writer, before.take(rows), [self.members[k] for k in rows], ensemble)
        for k in rows:
            what = Stopped(self.members[k], sound.step, bad[k])
            self.stopped.append(what)
            if writer is not None:
                writer.stopped(what)
        kept = [k for k in range(len(self.members)) if k not in bad]
        evaluator.select(kept)
        self.state, self.volume = self.state.take(kept) if kept else self.state, self.volume[kept]
        self.members = tuple(self.members[k] for k in kept)


def _astray(before: State, after: State, volume: Tensor, dt: float, limits: Limits) -> dict[int, str]:
    """Systems that went out of bounds in this step, and how."""
    finite = torch.isfinite(after.energy)
    force = _largest(after, after.forces)
    stride = (
        _largest(after, after.systems.positions - before.systems.positions) if after.systems.n_atoms.equal(before.systems.n_atoms) else None
    )
    hot = after.temperature
    ratio = after.systems.volume / volume
    ratio = torch.where(torch.isnan(ratio), torch.ones_like(ratio), ratio)  # infinite by infinite: no volume, no bound
    bad = ~finite | ~(force <= limits.force) | (after.nearest < limits.distance) | (hot > limits.temperature)
    bad |= (ratio > limits.volume) | (ratio < 1 / limits.volume)
    moved = torch.zeros_like(force) if stride is None else stride
    # a cell that changes carries its atoms along; that is no stride
    bad |= (moved > limits.stride) & (after.systems.cell == before.systems.cell).flatten(1).all(dim=1)
    if not bool(bad.any()):
        return {}
    found = {}
    for k in torch.nonzero(bad)[:, 0].tolist():
        if k in after.complaints:
            found[k] = after.complaints[k]
        elif not finite[k] or not torch.isfinite(force[k]):
            found[k] = "energy or a force is not a finite number"
        elif force[k] > limits.force:
            found[k] = f"a force of {float(force[k]):.3g} eV/Å (limit {limits.force:g})"
        elif after.nearest[k] < limits.distance:
            found[k] = f"two atoms came within {float(after.nearest[k]):.2f} Å (least allowed {limits.distance:g} Å)"
        elif hot[k] > limits.temperature:
            found[k] = f"a temperature of {float(hot[k]):.3g} K (limit {limits.temperature:g})"
        elif moved[k] > limits.stride:
            found[k] = f"an atom moved {float(moved[k]):.2f} Å in one step of {dt:g} fs (limit {limits.stride:g} Å)"
        else:
            found[k] = f"the volume changed by a factor {float(ratio[k]):.3g} (bounds {1 / limits.volume:.2g} to {limits.volume:g})"
    return found


def _largest(state: State, vectors: Tensor) -> Tensor:
    """(B) the longest vector of each system."""
    square = (vectors * vectors).sum(1)
    if len(state) == 1:
        return square.amax()[None].sqrt()
    return torch.zeros(len(state), dtype=square.dtype).scatter_reduce_(0, state.systems.system, square, "amax").sqrt()


# --- the file ---------------------------------------------------------------------------------------------------------------------------
def _frame(going: _Going, ensemble: Ensemble, writer: Writer | None, plan: _Plan) -> None:
    if not going.members:
        return
    if writer is not None:
        _write(writer, going.state, going.members, ensemble)
    if plan.watch is not None:
        plan.watch(going.state, going.members)


def _write(writer: Writer, state: State, members: Sequence[int], ensemble: Ensemble) -> None:
    pressure = state.pressure_tensor.diagonal(dim1=1, dim2=2).mean(1)
    volume = torch.where(torch.isfinite(state.systems.volume), state.systems.volume, torch.nan)
    series = {
        "energy": state.energy,
        "kinetic": state.kinetic,
        "temperature": state.temperature,
        "pressure": pressure,
        "volume": volume,
        "conserved": ensemble.conserved(state),
    }
    further = {"velocities": state.velocities.numpy()} if writer.header.velocities else {}
    plain = {name: value.numpy() for name, value in series.items()}
    writer.frame(state.step, members, state.systems.positions.numpy(), state.systems.cell.numpy(), plain, **further)


_BY_ATOM = ("velocities", "mass", "mobile", "forces")
_BY_SYSTEM = ("energy", "stress", "seed", "schedule", "pressure", "nearest")
_OF_SYSTEMS = ("number", "positions", "cell", "pbc", "n_atoms", "total_charge", "moments")


def _checkpoint(going: _Going, evaluator: Evaluator, writer: Writer | None) -> None:
    """Keep the state, and let calculators forget what a resumed run could not know."""
    evaluator.forget()
    if writer is None:
        return
    state = going.state
    if not going.members:  # nobody is left: nothing to go on from but the reasons
        state = state.take([])
    held = {name: getattr(state.systems, name, None) for name in _OF_SYSTEMS}
    arrays: dict[str, Any] = {name: value.numpy() for name, value in held.items() if value is not None}
    arrays.update((name, getattr(state, name).numpy()) for name in (*_BY_ATOM, *_BY_SYSTEM))
    arrays.update((f"bath.{name}", value.numpy()) for name, value in state.bath.items())
    arrays["step"], arrays["members"] = state.step, list(going.members)
    arrays["volume"] = going.volume.numpy()
    arrays["stopped"] = [[one.system, one.step, one.reason] for one in going.stopped]
    writer.save(arrays)


def _resumed(path: Path, header: Header, evaluator: Evaluator, ensemble: Ensemble, steps: int, plan: _Plan) -> Simulation:
    writer = Writer(path)
    try:
        _same_run(path, writer.header, header)
    except InputError:
        writer.close()
        raise
    arrays = writer.state
    assert arrays is not None
    given = {name: torch.from_numpy(value) for name, value in arrays.items() if isinstance(value, np.ndarray)}
    bath = {name.removeprefix("bath."): value for name, value in given.items() if name.startswith("bath.")}
    state = State(
        Systems(**{name: given[name] for name in _OF_SYSTEMS if name in given}),
        step=int(arrays["step"]),
        bath=bath,
        **{name: given[name] for name in (*_BY_ATOM, *_BY_SYSTEM)},  # type: ignore[arg-type]
    )
    stopped = [Stopped(int(a), int(b), str(c)) for a, b, c in arrays["stopped"]]
    evaluator.forget()
    members = [int(k) for k in arrays["members"]]
    return run(state, evaluator, ensemble, steps, members=members, stopped=stopped, volume=given["volume"], writer=writer, plan=plan)


def _same_run(path: Path, there: Header, asked: Header) -> None:
    """Refuse to go on with another run's file."""
    wrong = [
        what
        for what, a, b in (
            ("atoms", there.numbers, asked.numbers),
            ("systems", there.n_atoms, asked.n_atoms),
            ("periodicity", there.pbc, asked.pbc),
        )
        if not np.array_equal(a, b)
    ]
    known = json_of(there.settings)
    wrong += [
        f"{key} ({known.get(key)} there, {value} asked for)" for key, value in json_of(asked.settings).items() if known.get(key) != value
    ]
    if there.every != asked.every:
        wrong.append(f"frames every {there.every} there, every {asked.every} asked for")
    if wrong:
        raise InputError(f"{path} is the trajectory of another run: different {'; '.join(wrong)}; name another file, or the same settings")


def json_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they look after a visit to JSON."""
    import json

    plain: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    return plain


def _header(items: Sequence[Crystal], way: Ensemble, told: Mapping[str, Any], plan: _Plan, velocities: bool, precision: float) -> Header:
    if not precision > 0:
        raise InputError(f"precision {precision} Å; expected a number above 0")
    return Header(
        np.concatenate([c.numbers for c in items]),
        np.array([len(c) for c in items]),
        np.stack([c.pbc for c in items]),
        way.dt,
        plan.every,
        precision,
        tuple(str(c.info.get("id") or c.formula) for c in items),
        told,
        velocities,
    )


def _plain(way: Ensemble) -> dict[str, Any]:
    return asdict(way)  # type: ignore[call-overload, no-any-return]


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else np.asarray(value).tolist()


def _flags(items: Sequence[Crystal], fixed: Sequence[Sequence[int]]) -> Tensor:
    if len(fixed) != len(items):
        raise InputError(f"{len(fixed)} lists of fixed atoms for {len(items)} systems; expected one each")
    flags = []
    for one, rows in zip(items, fixed, strict=True):
        flag = torch.zeros(len(one), dtype=torch.bool)
        if any(not 0 <= k < len(one) for k in rows):
            raise InputError(f"fixed atoms {list(rows)} of a system of {len(one)} atoms; indices start at 0")
        flag[list(rows)] = True
        flags.append(flag)
    return torch.cat(flags)


def _foreign(items: Sequence[Crystal], evaluator: Evaluator) -> dict[int, str]:
    """Systems with elements the potential does not know; an error if there are no others."""
    known = evaluator.elements
    found = {}
    for k, one in enumerate(items):
        foreign = [s for s in one.composition if known is not None and s not in known]
        if foreign:
            found[k] = f"the potential does not know {', '.join(foreign)}; it knows {', '.join(known or ())}"
    if len(found) == len(items):
        raise InputError(found[0])
    return found


def _tell(going: _Going, begun: float, first: int, steps: int, ensemble: Ensemble, plan: _Plan) -> None:
    if plan.progress is None:
        return
    rate = (going.state.step - first) / max(time.perf_counter() - begun, 1e-9)
    plan.progress(Pace(going.state.step, steps, rate, rate * ensemble.dt * 0.0864, len(going.members)))
