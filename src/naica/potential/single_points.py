"""Energies, forces and stresses of many crystals as they are, in batches; and how large a supercell has to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError, RunError
from naica.potential.evaluator import of
from naica.potential.systems import Systems
from naica.structure import Crystal

Array = NDArray[np.float64]

# atoms in one batch: more cost memory and gain nothing
_MOST_ATOMS = 2000
_STEPS = 500


@dataclass(frozen=True, eq=False)
class Point:
    """One crystal: energy in eV, forces (n, 3) in eV/Å, stress (3, 3) in eV/Å³, positive under tension."""

    energy: float
    forces: Array
    stress: Array


def computed(crystals: Sequence[Crystal], model: Any) -> list[Point]:
    """Energy, forces and stress of each crystal.

    Parameters
    ----------
    model : whatever `naica.potential.evaluator.of` takes

    Raises
    ------
    InputError
        If the potential does not know an element.
    RunError
        If one of them cannot be computed.
    """
    evaluator = of(model)
    known = evaluator.elements
    foreign = sorted({s for crystal in crystals for s in crystal.composition if known is not None and s not in known})
    if foreign:
        raise InputError(f"the potential does not know {', '.join(foreign)}; it knows {', '.join(known or ())}")
    done: list[Point] = []
    while len(done) < len(crystals):
        taken = [crystals[len(done)]]
        while len(done) + len(taken) < len(crystals) and sum(map(len, taken)) + len(crystals[len(done) + len(taken)]) <= _MOST_ATOMS:
            taken.append(crystals[len(done) + len(taken)])
        evaluator.forget()
        systems = Systems.of(taken)
        found = evaluator.evaluate(systems)
        if found.complaints:
            raise RunError(f"{taken[min(found.complaints)].formula} could not be computed: {found.complaints[min(found.complaints)]}")
        forces = [part.numpy() for part in found.forces.split(systems.n_atoms.tolist())]
        done += [Point(float(found.energy[k]), forces[k], found.stress[k].numpy()) for k in range(len(taken))]
    return done


def repeats_for(crystal: Crystal, width: float) -> tuple[int, int, int]:
    """How often a cell has to be repeated along each axis so that opposite faces are at least `width` Å apart.

    Raises
    ------
    InputError
        If the crystal does not repeat in three directions.
    """
    whole(crystal)
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.cell), axis=0)
    a, b, c = (int(np.ceil(width / height - 1e-6)) or 1 for height in heights)
    return a, b, c


def whole(crystal: Crystal) -> None:
    """Refuse what does not repeat in three directions."""
    if not crystal.pbc.all():
        raise InputError(f"{crystal.formula} repeats in {int(crystal.pbc.sum())} directions; expected a crystal, which repeats in three")


def relaxed(crystal: Crystal, model: Any, fmax: float, cell: bool = True) -> Crystal:
    """The crystal with its forces (and stress) relaxed away.

    Raises
    ------
    RunError
        If it does not converge.
    """
    return relaxed_all([crystal], model, fmax, cell)[0]


def relaxed_all(
    crystals: Sequence[Crystal], model: Any, fmax: float, cell: bool = True, progress: Callable[[int, int], None] | None = None
) -> list[Crystal]:
    """Several crystals relaxed side by side.

    Raises
    ------
    RunError
        If one does not converge.
    """
    from naica.potential.relax import relax

    done = []
    for crystal, found in zip(crystals, relax(crystals, model, fmax=fmax, steps=_STEPS, cell=cell, progress=progress), strict=True):
        if found.status != "converged" or found.crystal is None:
            raise RunError(f"{crystal.formula} did not relax: {found.reason}")
        done.append(found.crystal)
    return done
