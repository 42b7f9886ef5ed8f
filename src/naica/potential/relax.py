"""Relaxation of positions and cell with a potential: one status per crystal, never an exception for a single bad one.

BFGS on positions and the logarithm of the cell's deformation (ASE's ``FrechetCellFilter``). It needs a third of FIRE's calls on near
structures and two thirds on far ones; where it goes astray, the crystal starts again with FIRE, which is slow and hard to upset.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.potential.calculators import calculator, elements_of
from naica.structure import Crystal

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

Array = NDArray[np.float64]

# a relaxation that leaves these bounds has left the basin the structure was meant to describe
MOST_VOLUME_CHANGE = 3.0
LEAST_DISTANCE = 0.5
_FARTHEST_FORCE = 1e3
# a molecule's box: potentials of finite reach see no image across this much vacuum
_VACUUM = 8.0


@dataclass(frozen=True)
class Relaxed:
    """What became of one crystal.

    `energy` in eV for the whole cell, `forces` (n, 3) eV/Å, `stress` (3, 3) eV/Å³ (None for molecules and slabs), `steps` of the optimiser,
    `seconds` of wall clock. `crystal` is the relaxed one, or the last sound one if it did not converge; None if nothing could be computed.
    """

    status: Literal["converged", "not converged", "failed"]
    crystal: Crystal | None
    energy: float | None
    forces: Array | None
    stress: Array | None
    steps: int
    seconds: float
    reason: str = ""


class _Astray(Exception):
    """The structure left the bounds within which the potential means anything."""


class _OutOfTime(Exception):
    """The wall-clock limit passed."""


def relax(
    crystals: Crystal | Sequence[Crystal],
    model: str | Calculator = "chgnet",
    fmax: float = 0.05,
    steps: int = 300,
    cell: bool = True,
    *,
    max_seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Relaxed]:
    """Relax crystals and molecules.

    Parameters
    ----------
    crystals : one or many; fully periodic ones relax cell and positions, slabs and molecules positions only
    model : name of a calculator (``chgnet``, ``emt``, ``package.module:factory``) or an ASE calculator
    fmax : largest force left on any atom (and on the cell, as ASE's filter scales it), eV/Å
    steps : most optimiser steps per crystal; 0 computes energy and forces of the structure as it is
    cell : False keeps every cell
    max_seconds : wall-clock limit per crystal, looked at between steps
    progress : called with (done, total) after each crystal

    Returns
    -------
    One `Relaxed` per crystal, in order. What goes wrong with one crystal is its `reason`, not an exception.

    Raises
    ------
    ConfigError, MissingPart
        If the model is unknown or not installed.
    InputError
        If `fmax` or `steps` make no sense.
    """
    if not fmax > 0 or steps < 0:
        raise InputError(f"fmax = {fmax}, steps = {steps}; expected fmax > 0 (eV/Å) and steps ≥ 0")
    items = [crystals] if isinstance(crystals, Crystal) else list(crystals)
    calc = calculator(model) if isinstance(model, str) else model
    known = elements_of(model) if isinstance(model, str) else None
    task = _Task(calc, known, fmax, steps, cell, max_seconds)
    done = []
    for k, one in enumerate(items):
        done.append(_relax_one(one, task))
        if progress is not None:
            progress(k + 1, len(items))
    return done


@dataclass(frozen=True)
class _Task:
    """What is asked of every crystal."""

    calc: Calculator
    known: tuple[str, ...] | None
    fmax: float
    steps: int
    cell: bool
    max_seconds: float | None


def _relax_one(crystal: Crystal, task: _Task) -> Relaxed:
    start = time.perf_counter()
    foreign = [s for s in crystal.composition if task.known is not None and s not in task.known]
    if foreign:
        return _failed(start, f"the potential does not know {', '.join(foreign)}; it knows {', '.join(task.known or ())}")
    deadline = None if task.max_seconds is None else start + task.max_seconds
    taken, reasons = 0, []
    for method in ("BFGS", "FIRE") if task.steps else ("BFGS",):
        run = _Run(crystal, task, deadline)
        try:
            converged = run.go(method)
        except _OutOfTime:
            return _failed(start, f"not finished within {task.max_seconds:g} s ({taken + run.steps} steps)", taken + run.steps)
        except _Astray as error:
            taken += run.steps
            reasons.append(f"{error} ({method}, step {run.steps})")
            if not run.steps:
                break
        except np.linalg.LinAlgError as error:
            taken += run.steps
            reasons.append(f"the optimiser broke down: {error} ({method}, step {run.steps})")
        except Exception as error:  # whatever a foreign calculator throws is this crystal's failure, not the batch's
            return _failed(start, f"{type(error).__name__}: {error}", taken)
        else:
            return run.outcome(converged, taken, time.perf_counter() - start)
    return _failed(start, "; ".join(reasons), taken)


def _failed(start: float, reason: str, steps: int = 0) -> Relaxed:
    return Relaxed("failed", None, None, None, None, steps, time.perf_counter() - start, reason)


class _Run:
    """One optimisation of one crystal, watched at every step."""

    def __init__(self, crystal: Crystal, task: _Task, deadline: float | None) -> None:
        self.start, self.task = crystal, task
        self.atoms = _boxed(crystal)
        self.atoms.calc = task.calc
        self.cell = task.cell and bool(crystal.pbc.all())
        self.deadline = deadline
        self.steps = 0

    def go(self, method: str) -> bool:
        """Optimise; True if the forces fell below the limit within the steps (or no steps were asked for)."""
        from ase import optimize
        from ase.filters import FrechetCellFilter

        self.watch()
        if not self.task.steps:
            return True
        target: Any = FrechetCellFilter(self.atoms) if self.cell else self.atoms
        optimiser = getattr(optimize, method)(target, logfile=None)
        optimiser.attach(lambda: self.watch(optimiser.nsteps))
        # BFGS divides by the curvature along its step; where that is 0, `watch` sees what comes of it. The cell filter takes matrix
        # logarithms of deformations near one, and SciPy warns of errors of 1e-13 in them
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="logm result may be inaccurate", category=RuntimeWarning)
            return bool(optimiser.run(fmax=self.task.fmax, steps=self.task.steps))

    def watch(self, step: int = 0) -> None:
        """Refuse structures and numbers out of bounds."""
        self.steps = step
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise _OutOfTime
        if not np.all(np.isfinite(self.atoms.positions)) or not np.all(np.isfinite(self.atoms.cell.array)):
            raise _Astray("a position or the cell is not a finite number")
        now = _crystal_of(self.atoms, self.start)
        if self.cell:
            ratio = now.volume / self.start.volume
            if not 1 / MOST_VOLUME_CHANGE <= ratio <= MOST_VOLUME_CHANGE:
                raise _Astray(f"the volume changed by a factor {ratio:.3g} (bounds {1 / MOST_VOLUME_CHANGE:.2g} to {MOST_VOLUME_CHANGE:g})")
        nearest = now.min_distance()
        if nearest < LEAST_DISTANCE:
            raise _Astray(f"two atoms came within {nearest:.2f} Å (least allowed {LEAST_DISTANCE} Å)")
        energy, forces = self.atoms.get_potential_energy(), self.atoms.get_forces()
        if not np.isfinite(energy) or not np.all(np.isfinite(forces)):
            raise _Astray(f"energy {energy} eV or a force is not a finite number")
        if len(forces) and np.abs(forces).max() > _FARTHEST_FORCE:
            raise _Astray(f"a force of {np.abs(forces).max():.3g} eV/Å (limit {_FARTHEST_FORCE:g})")

    def outcome(self, converged: bool, earlier: int, seconds: float) -> Relaxed:
        """The result, with what is left of the forces if they did not vanish."""
        energy, forces = float(self.atoms.get_potential_energy()), np.array(self.atoms.get_forces(), dtype=np.float64)
        stress = np.array(self.atoms.get_stress(voigt=False), dtype=np.float64) if self.start.pbc.all() else None
        left = float(np.linalg.norm(forces, axis=1).max())
        wanted = f"largest force {left:.3f} eV/Å, wanted {self.task.fmax:g} on atoms and cell"
        reason = "" if converged else f"not converged in {self.steps} steps: {wanted}"
        status: Literal["converged", "not converged"] = "converged" if converged else "not converged"
        return Relaxed(status, _crystal_of(self.atoms, self.start), energy, forces, stress, earlier + self.steps, seconds, reason)


def _boxed(crystal: Crystal) -> Atoms:
    """ASE atoms for any calculator: directions without periodicity get a box with vacuum, as some potentials want a full cell."""
    from ase import Atoms

    atoms = Atoms(numbers=crystal.numbers, positions=crystal.positions, cell=crystal.cell, pbc=crystal.pbc)
    open_axes = [axis for axis in range(3) if not crystal.pbc[axis]]
    if open_axes:
        atoms.center(vacuum=_VACUUM, axis=open_axes)
        atoms.pbc = True
    return atoms


def _crystal_of(atoms: Atoms, start: Crystal) -> Crystal:
    """The atoms as they are now, with cell and periodicity as they were where there is no periodicity."""
    if start.pbc.all():
        return start.replace(positions=atoms.get_positions(), cell=atoms.cell.array)
    return start.replace(positions=atoms.get_positions())
