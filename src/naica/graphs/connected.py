"""Conditions on graphs: no atom without an edge; every pair of atoms joined."""

from __future__ import annotations

import numpy as np

from naica.errors import InputError
from naica.graphs.levels import Made, System
from naica.graphs.spec import GraphSpec
from naica.structure.elements import symbol


def connected(system: System, spec: GraphSpec) -> Made:
    """Nothing, if every atom has an edge. It is a level without fields: networks that never saw lone atoms ask for it.

    Raises
    ------
    InputError
        If an atom has none; the reason names it.
    """
    lone = np.setdiff1d(np.arange(len(system.numbers)), system.receiver)
    if len(lone):
        first = int(lone[0])
        raise InputError(
            f"isolated atom: atom {first} ({symbol(int(system.numbers[first]))}) has no neighbour within {spec.cutoff:g} Å"
            f"{f', and {len(lone) - 1} more' if len(lone) > 1 else ''}; this network was made without such atoms"
        )
    return {}


def complete(system: System, spec: GraphSpec) -> Made:
    """Nothing, if every atom of a molecule is joined with every other: for networks of all pairs of atoms, whatever their distance.

    Raises
    ------
    InputError
        If the system repeats in some direction (all pairs would be infinitely many), or is larger than the cut-off.
    """
    if system.pbc.any():
        raise InputError("a periodic crystal has infinitely many pairs of atoms; this network takes molecules (structures without a cell)")
    n = len(system.numbers)
    if len(system.receiver) != n * (n - 1):
        size = float(np.linalg.norm(system.positions[:, None] - system.positions[None], axis=2).max())
        raise InputError(f"the molecule is {size:.1f} Å long; this network joins all pairs of atoms, at most {spec.cutoff:g} Å apart")
    return {}
