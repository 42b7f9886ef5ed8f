"""Melting point by coexistence: half a crystal is molten, then solid and liquid settle side by side.

At constant energy the two phases find their common temperature by themselves: where it is too hot some of the crystal melts and takes up
heat, where it is too cold some of the liquid freezes (Morris, Wang, Ho, Chan, Phys. Rev. B 49, 3109 (1994)). As long as both are there at
the end, mean temperature and pressure are a point of the melting line. Whether an atom is solid is told from its neighbours' directions
(ten Wolde, Ruiz-Montero, Frenkel, J. Chem. Phys. 104, 9932 (1996)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError, RunError
from naica.graphs.neighbours import within
from naica.potential.md import GPA
from naica.potential.simulate import Pace, Simulation, md
from naica.potential.single_points import whole
from naica.potential.trajectory import Trajectory
from naica.potential.transport import Estimate
from naica.structure import Crystal

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coexistence:
    """Solid and liquid side by side.

    Parameters
    ----------
    temperature : K, mean of the second half of the run at constant energy
    pressure : GPa, likewise
    time : (K) fs, of the frames of that run
    kelvin : (K) temperature in each frame
    solid : (K) share of atoms that are solid
    place, profile : (P) middles of slabs along the long axis, from 0 to 1, and the share of solid atoms in them at the end
    path : of the trajectory
    """

    temperature: Estimate
    pressure: Estimate
    time: Array
    kelvin: Array
    solid: Array
    place: Array
    profile: Array
    path: Path

    @property
    def both(self) -> bool:
        """Whether both phases were there all through the second half."""
        late = self.solid[len(self.solid) // 2 :]
        return bool(late.min() > 0.1 and late.max() < 0.9)


def coexistence(
    crystal: Crystal,
    model: Any,
    guess: float,
    folder: str | Path,
    *,
    repeats: tuple[int, int, int] = (3, 3, 8),
    dt: float = 2.0,
    steps: int = 4000,
    settle: int = 1000,
    hot: float = 4.0,
    seed: int = 0,
    every: int = 20,
    progress: Callable[[str, Pace], None] | None = None,
) -> Coexistence:
    """A point of the melting line at a pressure near zero. Stages that are done are kept in `folder`; an interrupted one goes on.

    Parameters
    ----------
    crystal : a cell of the solid
    model : a name, a folder, a potential, an ASE calculator
    guess : K, of the melting point; the temperature of both phases before they are left alone
    repeats : of the cell; the long axis, which both phases share, last
    dt : fs
    steps : at constant energy
    settle : steps of each stage before: the solid at `guess`, half of it molten, both at `guess` and no pressure
    hot : the liquid half is molten at so many times `guess`

    Raises
    ------
    InputError
        For what is no crystal, or numbers out of range.
    RunError
        If a stage leaves the potential's region.
    """
    whole(crystal)
    if not guess > 0 or steps < 100 or settle < 100 or hot <= 1:
        raise InputError(
            f"guess {guess} K, {steps} and {settle} steps, hot {hot}; expected a guess above 0 K, at least 100 steps, hot above 1"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cell = crystal.supercell(repeats)
    reach = 1.35 * cell.min_distance()

    def stage(name: str, start: Crystal, ensemble: str, kelvin: float, count: int, **further: Any) -> Simulation:
        told = None if progress is None else lambda pace: progress(name, pace)
        done = md(
            start,
            model,
            ensemble,
            kelvin,
            count,
            dt=dt,
            path=folder / f"{name}.ntr",
            seed=seed,
            every=every,
            checkpoint=200,
            progress=told,
            **further,
        )
        if done.state is None:
            raise RunError(f"{name}: stopped at step {done.stopped[0].step}: {done.stopped[0].reason}")
        return done

    def last(done: Simulation) -> Crystal:
        assert done.state is not None
        return done.state.systems.crystals()[0]

    solid = last(stage("1-solid", cell, "npt", guess, settle, relaxation=40 * dt, barostat=400 * dt))
    wide, frozen = widened(solid, _ROOM)
    half = last(stage("2-half", wide, "langevin", hot * guess, settle, friction=0.02, fixed=[frozen]))
    both = last(stage("3-both", half, "npt", guess, settle, relaxation=40 * dt, barostat=400 * dt, shape="axes"))
    stage("4-alone", both, "nve", guess, steps)
    return observed(folder / "4-alone.ntr", reach)


# by which the half to be molten is made longer: liquids take more room, and a confined one stays crystalline far above its melting point
_ROOM = 0.15


def widened(crystal: Crystal, room: float) -> tuple[Crystal, list[int]]:
    """The upper half along the third axis made longer by a share of itself, and the atoms of the lower half, which stay as they are."""
    place = np.mod(crystal.fractional, 1)
    lower = np.flatnonzero(place[:, 2] < 0.5).tolist()
    longer = 1 + room / 2
    # places in units of the old axis, the upper half stretched, then in units of the new one
    place[:, 2] = np.where(place[:, 2] < 0.5, place[:, 2], 0.5 + (place[:, 2] - 0.5) * (1 + room)) / longer
    cell = crystal.cell * np.array([[1.0], [1.0], [longer]])
    return crystal.replace(cell=cell, positions=place @ cell), lower


def observed(path: str | Path, reach: float, slabs: int = 16) -> Coexistence:
    """What a trajectory at constant energy says of its two phases.

    Parameters
    ----------
    reach : Å, of an atom's nearest neighbours
    slabs : of the profile along the third axis
    """
    trajectory = Trajectory(path)
    frames = trajectory.frames()
    pbc = trajectory.header.pbc[0]
    flags = [solid_atoms(r, cell, pbc, reach) for r, cell in zip(frames.positions, frames.cell, strict=True)]
    late = slice(len(frames) // 2, None)
    where = np.mod((frames.positions[-1] @ np.linalg.inv(frames.cell[-1]))[:, 2], 1)
    slab = np.minimum((where * slabs).astype(int), slabs - 1)
    ends = np.mean(flags[-max(len(flags) // 10, 1) :], axis=0)
    count = np.maximum(np.bincount(slab, minlength=slabs), 1)
    return Coexistence(
        blocks(frames.temperature[late]),
        blocks(frames.pressure[late] * GPA),
        np.asarray(frames.time, dtype=np.float64),
        frames.temperature,
        np.array([flag.mean() for flag in flags]),
        (np.arange(slabs) + 0.5) / slabs,
        np.bincount(slab, weights=ends, minlength=slabs) / count,
        Path(path),
    )


def blocks(series: Array) -> Estimate:
    """Mean of a correlated series (K) with its standard error, from blocks doubled in length until it no longer grows.

    Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989).
    """
    part, errors = np.asarray(series, dtype=np.float64), []
    mean = float(part.mean())
    while len(part) >= 4:
        errors.append(part.std(ddof=1) / np.sqrt(len(part)))
        even = len(part) - len(part) % 2
        part = part[:even].reshape(-1, 2).mean(1)
    return Estimate(mean, float(max(errors, default=0.0)))


def solid_atoms(positions: Array, cell: Array, pbc: NDArray[np.bool_], reach: float, links: int = 7) -> NDArray[np.bool_]:
    """(n) which atoms are solid: those whose neighbourhood of sixth-order bond directions is like that of at least `links` neighbours.

    Parameters
    ----------
    reach : Å, of nearest neighbours
    """
    from scipy.special import sph_harm_y

    near = within(positions, cell, pbc, reach)
    length = np.linalg.norm(near.vector, axis=1)
    polar, azimuth = np.arccos(np.clip(near.vector[:, 2] / length, -1, 1)), np.arctan2(near.vector[:, 1], near.vector[:, 0])
    order = np.zeros((len(positions), 13), dtype=np.complex128)
    for m in range(-6, 7):
        np.add.at(order[:, m + 6], near.receiver, sph_harm_y(6, m, polar, azimuth))
    norm = np.linalg.norm(order, axis=1, keepdims=True)
    order = order / np.where(norm > 0, norm, 1)
    alike = (order[near.receiver] * order[near.sender].conj()).sum(1).real > 0.5
    return np.asarray(np.bincount(near.receiver[alike], minlength=len(positions)) >= links)
