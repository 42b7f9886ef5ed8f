"""Relaxation of positions and cell with a potential: one status per crystal, never an exception for a single bad one.

Potentials of ours relax crystals in batches; ASE calculators, which may remember the crystal they saw last, one after the other. The
optimiser is the same (`naica.potential.optimise`): L-BFGS, whose scale follows the latest curvature, needs about half of the calls of
ASE's BFGS; where it goes astray, the crystal starts again with FIRE, which is slow and hard to upset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from naica.errors import InputError
from naica.potential.evaluator import Looped, of
from naica.potential.optimise import LEAST_DISTANCE, MOST_VOLUME_CHANGE, Goal, Method, Relaxed, optimise
from naica.structure import Crystal

__all__ = ["LEAST_DISTANCE", "MOST_VOLUME_CHANGE", "Relaxed", "relax"]


def relax(
    crystals: Crystal | Sequence[Crystal],
    model: Any = "chgnet",
    fmax: float = 0.05,
    steps: int = 300,
    cell: bool = True,
    *,
    pressure: float = 0.0,
    volume: bool = True,
    symmetry: bool = False,
    fixed: Sequence[Sequence[int]] | None = None,
    optimiser: Method = "auto",
    batch_atoms: int = 200,
    dtype: str = "float64",
    max_seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Relaxed]:
    """Relax crystals and molecules.

    Parameters
    ----------
    crystals : one or many; fully periodic ones relax cell and positions, slabs and molecules positions only
    model : name of a potential (``chgnet``, ``emt``, a model folder, ``package.module:factory``), a model of ours, or an ASE calculator
    fmax : largest force left on any atom (and on the logarithm of the cell's deformation, as ASE's Fréchet filter scales it), eV/Å
    steps : most optimiser steps per crystal; 0 computes energy and forces of the structure as it is
    cell : False keeps every cell
    pressure : from outside, eV/Å³
    volume : False keeps volumes; cells change their shape alone
    symmetry : keep the space group each crystal has at the start (to 0.01 Å)
    fixed : for each crystal the indices of atoms whose fractional coordinates stay
    optimiser : ``lbfgs``, ``fire``, or ``auto``: the one, then the other where it goes astray
    batch_atoms : atoms in a batch of potentials of ours at most
    dtype : precision of our networks, ``float64`` or ``float32``; the optimiser itself is in 64 bits
    max_seconds : time limit per crystal, looked at between steps
    progress : called with (done, total) whenever crystals are done

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
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype {dtype!r}; expected float32 or float64")
    goal = Goal(fmax, steps, cell, volume, pressure, symmetry, optimiser, max_seconds, batch_atoms)
    evaluator = of(model, getattr(torch, dtype))
    if isinstance(evaluator, Looped):
        goal = goal.alone()
    items = [crystals] if isinstance(crystals, Crystal) else list(crystals)
    return optimise(items, evaluator, goal, fixed, progress)
