"""Paths of atoms: unwrapped positions at equal times, read from any trajectory; what transport and structure functions look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.potential.trajectory import SUFFIX, Trajectory
from naica.structure.elements import symbol

Array = NDArray[np.float64]

# frames whose distances in time differ by more than this share were not written at equal times
_UNEVEN = 1e-3


@dataclass(frozen=True, eq=False)
class Walk:
    """Where the atoms of one system were (K frames, N atoms).

    Parameters
    ----------
    numbers : (N) atomic numbers
    positions : (K, N, 3) Å, unwrapped: an atom that left through one face is outside, not back on the other side
    cell : (K, 3, 3) Å
    pbc : (3)
    interval : fs between frames
    temperature : K, of the run; None where the file does not say
    velocities : (K, N, 3) Å/fs, where they were kept
    energy : (K) eV, where it was kept
    name : what the answer calls it

    Raises
    ------
    InputError
        For shapes that do not fit, numbers that are not finite, or an interval that is not positive.
    """

    numbers: NDArray[np.int64]
    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    interval: float
    temperature: float | None = None
    velocities: Array | None = None
    energy: Array | None = None
    name: str = ""

    def __post_init__(self) -> None:
        k, n = self.positions.shape[:2]
        if self.positions.shape != (k, n, 3) or self.numbers.shape != (n,) or self.cell.shape != (k, 3, 3) or not k or not n:
            raise InputError(
                f"positions {self.positions.shape}, numbers {self.numbers.shape}, cells {self.cell.shape}; "
                "expected (K, N, 3), (N), (K, 3, 3)"
            )
        if not np.isfinite(self.positions).all() or not np.isfinite(self.cell).all():
            raise InputError(f"{self.name or 'the trajectory'}: a position or a cell is not a finite number")
        if not self.interval > 0:
            raise InputError(f"{self.interval} fs between frames; expected a time above 0")

    def __len__(self) -> int:
        """Frames."""
        return len(self.positions)

    @property
    def duration(self) -> float:
        """Time from the first frame to the last, fs."""
        return (len(self) - 1) * self.interval

    @property
    def volume(self) -> float:
        """Å³, mean over the frames.

        Raises
        ------
        InputError
            If the system does not repeat in three directions.
        """
        if not self.pbc.all():
            raise InputError(f"{self.name or 'the system'} does not repeat in three directions: it has no volume")
        return float(np.abs(np.linalg.det(self.cell)).mean())

    @property
    def species(self) -> tuple[str, ...]:
        """Elements in it, by atomic number."""
        return tuple(symbol(int(z)) for z in np.unique(self.numbers))

    def atoms_of(self, species: str) -> NDArray[np.int64]:
        """Indices of an element's atoms.

        Raises
        ------
        InputError
            If there are none.
        """
        found = np.flatnonzero([symbol(int(z)) == species for z in self.numbers])
        if not len(found):
            raise InputError(f"{self.name or 'the trajectory'} has no {species}; it has {', '.join(self.species)}")
        return found

    def after(self, time: float) -> Walk:
        """Without its first `time` fs.

        Raises
        ------
        InputError
            If nothing would be left.
        """
        first = int(np.ceil(time / self.interval - 1e-9))
        if first > len(self) - 2:
            raise InputError(
                f"{self.name or 'the trajectory'} lasts {self.duration / 1e3:g} ps; {time / 1e3:g} ps cannot be dropped from it"
            )
        cut: dict[str, Any] = {name: None if (value := getattr(self, name)) is None else value[first:] for name in ("velocities", "energy")}
        return replace(self, positions=self.positions[first:], cell=self.cell[first:], **cut)

    @classmethod
    def of_cells(cls, numbers: Any, fractional: Array, cell: Array, interval: float, pbc: Any = True, **further: Any) -> Walk:
        """From fractional coordinates (K, N, 3) that may be wrapped: between frames each atom took the shortest way.

        Parameters
        ----------
        cell : (3, 3) of all frames, or (K, 3, 3)
        further : of the class
        """
        fractional = np.asarray(fractional, dtype=np.float64)
        repeats = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)).copy()
        steps = np.diff(fractional, axis=0)
        steps -= np.where(repeats, np.rint(steps), 0.0)
        whole = np.concatenate([fractional[:1], fractional[:1] + np.cumsum(steps, axis=0)])
        cells = np.broadcast_to(np.asarray(cell, dtype=np.float64), (len(whole), 3, 3)).copy()
        return cls(np.asarray(numbers, dtype=np.int64), whole @ cells, cells, repeats, float(interval), **further)


def read_walk(path: str | Path, system: int = 0, interval: float | None = None, temperature: float | None = None) -> Walk:
    """The walk in a file.

    Parameters
    ----------
    path : a trajectory of ``naica md`` (.ntr), arrays (.npz: ``numbers``, ``cell``, ``positions`` unwrapped or ``frac`` wrapped, and
        ``time`` in fs or ``step`` and ``dt_fs``), or any trajectory ASE reads (extxyz, traj, XDATCAR …)
    system : which one of a trajectory of several
    interval : fs between frames, for files that do not say
    temperature : K; overrides what the file says

    Raises
    ------
    InputError
        If the file cannot be read, its frames are not equally far apart in time, or it does not say how far and `interval` is missing.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        walk = _of_naica(path, system)
    elif path.suffix == ".npz":
        walk = _of_arrays(path, interval)
    else:
        walk = _of_ase(path, interval)
    return walk if temperature is None else replace(walk, temperature=float(temperature))


def _of_naica(path: Path, system: int) -> Walk:
    trajectory = Trajectory(path)
    frames = trajectory.frames(system)
    # a system that was stopped has its last sound state as a frame out of step; the walk ends before it
    gaps = np.diff(frames.step)
    even = len(frames) - 1 if len(gaps) > 1 and gaps[-1] != gaps[0] else len(frames)
    name = f"{path}#{system}" if len(trajectory) > 1 else str(path)
    return Walk(
        trajectory.numbers(system),
        frames.positions[:even],
        frames.cell[:even],
        trajectory.header.pbc[system],
        _interval(frames.time[:even], path),
        float(frames.temperature[:even].mean()),
        None if frames.velocities is None else frames.velocities[:even],
        frames.energy[:even],
        name,
    )


def _of_arrays(path: Path, interval: float | None) -> Walk:
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as arrays: {error}") from error
    missing = [name for name in ("numbers", "cell") if name not in held]
    if missing or not ("positions" in held or "frac" in held):
        raise InputError(f"{path} holds {', '.join(held)}; expected numbers, cell, and positions (unwrapped, Å) or frac")
    if "time" in held:
        interval = _interval(held["time"], path)
    elif "step" in held and "dt_fs" in held:
        interval = _interval(held["step"] * float(held["dt_fs"]), path)
    if interval is None:
        raise InputError(f"{path} does not say how far its frames are apart; give the interval in fs")
    warm = float(held["temperature"].mean()) if "temperature" in held else None
    pbc = held.get("pbc", np.ones(3, dtype=bool))
    if "frac" in held:
        return Walk.of_cells(held["numbers"], held["frac"], held["cell"], interval, pbc, temperature=warm, name=str(path))
    cells = np.broadcast_to(held["cell"], (len(held["positions"]), 3, 3)).astype(np.float64)
    velocities, energy = held.get("velocities"), held.get("energy")
    return Walk(held["numbers"].astype(np.int64), held["positions"], cells, pbc.astype(bool), interval, warm, velocities, energy, str(path))


def _of_ase(path: Path, interval: float | None) -> Walk:
    from ase.io import read

    try:
        frames: Any = read(path, index=":")
    except Exception as error:  # ASE's readers raise whatever the file makes them raise
        raise InputError(f"{path} cannot be read as a trajectory: {error}") from error
    if len(frames) < 2:
        raise InputError(f"{path} holds {len(frames)} frame(s); a trajectory has at least 2")
    if any(len(one) != len(frames[0]) or (one.numbers != frames[0].numbers).any() for one in frames):
        raise InputError(f"{path}: the atoms are not the same in all frames")
    times = [one.info.get("time_fs") for one in frames]
    if all(time is not None for time in times):
        interval = _interval(np.array(times, dtype=np.float64), path)
    if interval is None:
        raise InputError(f"{path} does not say how far its frames are apart; give the interval in fs")
    pbc = frames[0].pbc
    cells = np.stack([one.cell.array if pbc.any() else np.eye(3) for one in frames])
    full = np.stack([one.cell.complete().array if pbc.any() else np.eye(3) for one in frames])
    fractional = np.stack([one.positions @ np.linalg.inv(box) for one, box in zip(frames, full, strict=True)])
    walk = Walk.of_cells(frames[0].numbers, fractional, full, interval, pbc, name=str(path))
    return replace(walk, cell=cells) if pbc.all() else walk


def _interval(times: Sequence[float] | NDArray[Any], path: Path) -> float:
    """Time between frames that are equally far apart, fs."""
    gaps = np.diff(np.asarray(times, dtype=np.float64))
    if not len(gaps):
        raise InputError(f"{path} holds one frame; a trajectory has at least 2")
    if np.ptp(gaps) > _UNEVEN * max(float(np.median(gaps)), 1e-12) or gaps[0] <= 0:
        raise InputError(f"{path}: frames are {gaps.min():g} to {gaps.max():g} fs apart; expected equal times")
    return float(gaps.mean())
