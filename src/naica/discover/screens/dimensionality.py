"""Is it made of molecules, chains, layers or a framework? Bond graphs over all bond criteria, scored.

Two atoms are bonded if their distance is at most k times the sum of their covalent radii. As k grows from 0, components merge and become
endless in more directions. Each kind (``2D``: all components are layers; ``02D``: molecules between layers) is scored by how long it lasts,
Σ f(k_end) − f(k_start) with f(k) = c (k − 1)² / (1 + c (k − 1)²) above k = 1 and 0 below, c = 1/0.15² (Larsen, Pandey, Strange & Jacobsen,
Phys. Rev. Materials 3, 034003, 2019). Scores of all kinds of a crystal add up to 1, and no supercell is made: dimensions are ranks.

Beside it stands the single criterion of Cheon et al., Nano Lett. 17, 1915 (2017), which GNoME used: bonded below the sum of the radii plus
0.45 Å, with the radii of Jmol. There the largest component counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from naica.discover.screens.networks import Network, images
from naica.errors import InputError
from naica.graphs.neighbours import within
from naica.structure.crystal import Crystal
from naica.structure.elements import element, symbol

TOLERANCE = 0.45
"""Å, of Cheon's criterion."""
_SHARPNESS = 1 / 0.15**2
_FIRST_FACTOR = 1.35
_GROWTH = 1.3
_LARGEST_FACTOR = 12.0


@dataclass(frozen=True)
class Dimensionality:
    """The scores of a crystal.

    Parameters
    ----------
    kind : the kind with the highest score: digits of the dimensions that occur, and ``D``
    score : of that kind, 0 to 1
    scores : of every kind that occurs at some k
    start, end : the longest range of k over which `kind` holds
    """

    kind: str
    score: float
    scores: Mapping[str, float]
    start: float
    end: float


def dimensionality(crystal: Crystal) -> Dimensionality:
    """The dimensionality of a crystal.

    Raises
    ------
    InputError
        If nothing repeats, or two atoms sit on one place.
    """
    if not crystal.pbc.any():
        raise InputError(f"{crystal.formula} does not repeat in any direction; dimensionality is a matter of crystals")
    events = _events(crystal)
    scores: dict[str, float] = defaultdict(float)
    longest: dict[str, tuple[float, float, float]] = {}
    for (start, kind), (end, _) in zip(events, [*events[1:], (np.inf, "")], strict=True):
        share = _weight(end) - _weight(start)
        scores[kind] += share
        if share >= longest.get(kind, (-1.0,))[0]:
            longest[kind] = (share, start, end)
    best = max(sorted(scores), key=lambda kind: scores[kind])
    return Dimensionality(best, scores[best], dict(sorted(scores.items(), key=lambda p: -p[1])), *longest[best][1:])


def _weight(k: float) -> float:
    if not np.isfinite(k):
        return 1.0
    above = _SHARPNESS * max(0.0, k - 1.0) ** 2
    return above / (1.0 + above)


def _events(crystal: Crystal) -> list[tuple[float, str]]:
    """Bond criteria k at which components change, each with the kind from there on; the last kind lasts for ever."""
    whole = int(crystal.pbc.sum())
    factor = _FIRST_FACTOR
    while True:
        ratio, pairs, cells = _bonds(crystal, factor)
        network = Network(len(crystal))
        events = [(0.0, "0D")]
        for k, (a, b), image in zip(ratio, pairs, cells, strict=True):
            if network.join(a, b, image):
                dimensions = network.dimensions
                kind = "".join(str(d) for d in sorted(set(dimensions))) + "D"
                if kind != events[-1][1]:
                    events.append((k, kind))
                if dimensions == [whole]:
                    return events
        if factor > _LARGEST_FACTOR:
            raise InputError(f"{crystal.formula}: atoms are so far apart that no bond criterion joins them; expected a condensed crystal")
        factor *= _GROWTH


def _bonds(crystal: Crystal, factor: float) -> tuple[list[float], list[list[int]], list[list[int]]]:
    """Pairs closer than `factor` times the sum of their radii, each once, in order of that ratio."""
    radii = np.array([element(int(z)).covalent_radius for z in crystal.numbers])
    edges = within(crystal.positions, crystal.cell, crystal.pbc, factor * 2 * float(radii.max()))
    ratio = edges.length / (radii[edges.receiver] + radii[edges.sender])
    image = images(crystal, edges)
    keep = (ratio <= factor) & _once(edges.receiver, edges.sender, image)
    order = np.flatnonzero(keep)[np.argsort(ratio[keep], kind="stable")]
    pairs = np.stack([edges.receiver[order], edges.sender[order]], axis=1)
    return ratio[order].tolist(), pairs.tolist(), image[order].tolist()


def _once(receiver: NDArray[np.int64], sender: NDArray[np.int64], image: NDArray[np.int64]) -> NDArray[np.bool_]:
    """One of the two directions of every edge."""
    x, y, z = image.T
    forward = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return (receiver < sender) | ((receiver == sender) & forward)


# --- one criterion ------------------------------------------------------------------------------------------------------------------
def bonded_dimension(crystal: Crystal, tolerance: float = TOLERANCE) -> int:
    """The highest dimension of a component where atoms are bonded below the sum of Jmol's radii plus `tolerance` Å.

    Raises
    ------
    InputError
        If two atoms sit on one place, or an element has no such radius.
    """
    radii = np.array([_jmol_radius(int(z)) for z in crystal.numbers])
    edges = within(crystal.positions, crystal.cell, crystal.pbc, 2 * float(radii.max()) + tolerance)
    keep = edges.length < radii[edges.receiver] + radii[edges.sender] + tolerance
    image = images(crystal, edges)
    keep &= _once(edges.receiver, edges.sender, image)
    network = Network(len(crystal))
    for a, b, cell in zip(edges.receiver[keep].tolist(), edges.sender[keep].tolist(), image[keep].tolist(), strict=True):
        network.join(a, b, cell)
    return max(network.dimensions)


@cache
def _jmol_radii() -> Mapping[str, float]:
    """Radii of Jmol's automatic bonding, as pymatgen ships them."""
    from pymatgen.analysis.local_env import JmolNN

    radii: Mapping[str, float] = JmolNN().el_radius
    return radii


def _jmol_radius(number: int) -> float:
    try:
        return float(_jmol_radii()[symbol(number)])
    except KeyError:
        raise InputError(f"no Jmol radius for {symbol(number)}; the criterion of one tolerance cannot judge it") from None
