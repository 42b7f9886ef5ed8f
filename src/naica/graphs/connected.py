"""A condition on graphs: no atom without an edge."""

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
