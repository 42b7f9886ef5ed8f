"""Can an ion move through a crystal? The widest endless paths through the framework of the other atoms, and in how many directions.

The framework is everything but the mobile ion, as spheres of ionic radii. φ(r) is the distance from a point to the nearest sphere's
surface: the radius of the largest ball that fits there. A ball of radius R can travel where φ ≥ R. For d = 1, 2, 3 the bottleneck R_d is
the largest R at which one connected region of φ ≥ R that holds a site of the mobile ion is endless in at least d directions. This is what Zeo++ calls
the largest free sphere (Willems et al., Micropor. Mesopor. Mater. 149, 134, 2012), asked of the regions where the ion sits.

Radii are crystal radii (Shannon's with 1.26 Å for O²⁻), anions and cations alike. A window of three oxide ions in an octahedral edge of
LiCoO2 has 0.46 Å, the one across the chains of LiFePO4 0.40 Å: with `PASSABLE` between them olivine conducts along chains, the layered
oxide in layers and the spinel everywhere, as they do. Found on a grid; the bottleneck is low by at most half a grid step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.discover.screens.networks import Network
from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import element
from naica.structure.oxidation import guess_oxidation

Floats = NDArray[np.float64]

STEP = 0.2
"""Å between grid points."""
PASSABLE = 0.43
"""Å a window must leave free for Li⁺."""
_REACH = 6.0
_RESOLUTION = 0.01
_WIDEST = 400_000


@dataclass(frozen=True)
class Paths:
    """The widest paths of an ion.

    Parameters
    ----------
    ion : its symbol
    site : Å, φ at its widest site
    bottleneck : Å, R_1, R_2, R_3; −inf where there is no path at all
    n_sites : of the ion in the cell
    """

    ion: str
    site: float
    bottleneck: tuple[float, float, float]
    n_sites: int

    def dimension(self, radius: float) -> int:
        """Directions in which a ball of `radius` Å can leave for ever."""
        return sum(r >= radius for r in self.bottleneck)


def framework_radii(crystal: Crystal, ion: str, states: Mapping[str, float] | None = None) -> dict[str, float]:
    """Radius in Å of each element of the framework, by its likely oxidation state (or by `states`).

    Raises
    ------
    InputError
        If the composition has no balanced oxidation states, the ion is not positive in it, there is nothing beside the ion, or an element
        has no radius in its state (hydrides, phosphides and the like).
    """
    states = states or guess_oxidation(crystal.composition)
    if states is None or len(states) < 2:
        raise InputError(f"{crystal.formula} has no balanced oxidation states, so its spheres have no ionic radii")
    if ion not in states:
        raise InputError(f"{crystal.formula} has no {ion}")
    if states[ion] <= 0:
        raise InputError(f"{ion} is no cation in {crystal.formula} (state {states[ion]:+g})")
    return {name: _radius(name, q) for name, q in states.items() if name != ion}


def _radius(name: str, state: float) -> float:
    """The tabulated radius of the nearest state of the same sign."""
    known = {q: r for q, r in element(name).ionic_radii.items() if q * state > 0}
    if not known:
        raise InputError(f"no ionic radius is tabulated for {name} in state {state:+g}, so its sphere has no size")
    nearest = min(known, key=lambda q: (abs(q - state), abs(q)))
    return float(known[nearest])


def ion_paths(crystal: Crystal, ion: str = "Li", step: float = STEP, states: Mapping[str, float] | None = None) -> Paths:
    """The widest paths of an ion through a crystal; `states` are oxidation states, by default those the composition suggests.

    Raises
    ------
    InputError
        Without three periodic directions, oxidation states or the ion; or if the cell is too large for the grid.
    """
    if not crystal.pbc.all():
        raise InputError(f"{crystal.formula} repeats in {int(crystal.pbc.sum())} directions; paths are sought in crystals")
    radii = framework_radii(crystal, ion, states)
    field = _free_radius(crystal, radii, step)
    seeds = _site_places(crystal, ion, field)
    top = float(field[tuple(seeds.T)].max())
    lowest = max(float(field.min()), -1.0)
    found = []
    for wanted in (1, 2, 3):
        ceiling = found[-1] if found else top
        found.append(_bottleneck(field, seeds, wanted, lowest, ceiling))
    return Paths(ion, top, (found[0], found[1], found[2]), int(np.sum(np.array(crystal.symbols) == ion)))


def _free_radius(crystal: Crystal, radii: dict[str, float], step: float) -> Floats:
    """φ in Å on the points of a grid over the cell."""
    from scipy.spatial import cKDTree

    lengths = np.linalg.norm(crystal.cell, axis=1)
    shape = np.maximum(np.ceil(lengths / step).astype(int), 2)
    if int(np.prod(shape)) > _WIDEST:
        # large cells take a coarser grid rather than none
        shape = np.maximum((shape * (_WIDEST / np.prod(shape)) ** (1 / 3)).astype(int), 2)
    axes = [np.arange(n) / n for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) @ crystal.cell
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.cell), axis=0)
    repeats = np.ceil(_REACH / heights).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in repeats), indexing="ij"), axis=-1).reshape(-1, 3) @ crystal.cell
    centre, reach = points.mean(axis=0), float(np.linalg.norm(points - points.mean(axis=0), axis=1).max()) + _REACH
    symbols = np.array(crystal.symbols)
    wrapped = crystal.wrapped().positions
    free = np.full(len(points), np.inf)
    for name, radius in radii.items():
        copies = (wrapped[symbols == name][:, None] + shifts[None]).reshape(-1, 3)
        copies = copies[np.linalg.norm(copies - centre, axis=1) <= reach]
        distance, _ = cKDTree(copies).query(points, distance_upper_bound=_REACH)
        free = np.minimum(free, np.minimum(distance, _REACH) - radius)
    return free.reshape(tuple(shape))


def _site_places(crystal: Crystal, ion: str, field: Floats) -> NDArray[np.int64]:
    """For each site of the ion the widest of the eight grid points around it, (n, 3)."""
    sites = crystal.fractional[np.array(crystal.symbols) == ion]
    shape = np.array(field.shape)
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
    around = (np.floor((sites - np.floor(sites)) * shape).astype(np.int64)[:, None] + corners[None]) % shape
    best = field[tuple(np.moveaxis(around, -1, 0))].argmax(axis=1)
    return np.asarray(around[np.arange(len(sites)), best])


def _bottleneck(field: Floats, seeds: NDArray[np.int64], wanted: int, low: float, high: float) -> float:
    """The largest radius at which a region with a seed is endless in `wanted` directions, by bisection; −inf if even `low` has none."""
    if not np.isfinite(high) or _rank(field, seeds, low) < wanted:
        return -np.inf
    if _rank(field, seeds, high) >= wanted:
        return high
    while high - low > _RESOLUTION:
        middle = (low + high) / 2
        if _rank(field, seeds, middle) >= wanted:
            low = middle
        else:
            high = middle
    return low


def _rank(field: Floats, seeds: NDArray[np.int64], radius: float) -> int:
    """Directions in which the regions of φ ≥ `radius` that hold a seed are endless; the best of them counts."""
    from scipy.ndimage import label

    labels, n = label(field >= radius)
    held = np.unique(labels[tuple(seeds.T)])
    held = held[held > 0]
    if not len(held):
        return 0
    network = Network(int(n) + 1)
    for axis in range(3):
        last, first = np.take(labels, -1, axis), np.take(labels, 0, axis)
        meets = (last > 0) & (first > 0)
        image = [0, 0, 0]
        image[axis] = 1
        for a, b in np.unique(np.stack([last[meets], first[meets]], axis=1), axis=0).tolist():
            network.join(a, b, image)
    return max(network.dimension(int(k)) for k in held)
