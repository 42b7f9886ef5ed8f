"""The geometry under `Hull`: supporting planes of the lower hull by qhull, and the same answers by a linear programme.

Points are formation energies per atom e over atomic fractions x (K of them, summing to 1). A plane is a vector μ of K chemical potentials
with μ·x_k ≤ e_k for every point; the hull is the maximum of all such planes (the dual of the linear programme), so a batch of compositions
costs one matrix product and a row maximum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# planes may cut into points by rounding alone; well below the 1e-8 eV/atom the hull promises
_BELOW = 1e-9
# facets of a lower hull tile the simplex of compositions: the sum of their determinants is 1
_TILING = 1e-7
_FLAT = 1e-14
# below so many planes they are not searched for equal ones, and boxes do not pay; boxes take as long to make as so many queries
_FEW = 32
_MANY_PLANES = 100
_MANY_QUERIES = 20_000
# halvings of the space of compositions by number of elements, and when a list of planes is short enough
_BITS = {3: 5, 4: 4, 5: 3}
_SHORT = 12
_IN_CACHE = 32_768  # numbers of a product that stay in the second-level cache


@dataclass(frozen=True)
class Facets:
    """Lower facets of one hull: `planes` (F, K) distinct chemical potentials, `corners` (G, K) rows of the points that span each simplex,
    `plane_of` (G,) which plane a simplex lies in (coplanar simplices share one).
    """

    planes: Array
    corners: Index
    plane_of: Index

    @cached_property
    def boxes(self) -> Boxes:
        """Which planes can be highest where; made when first asked for."""
        return Boxes.of(self.planes)


@dataclass(frozen=True)
class Boxes:
    """The space of compositions in equal boxes, each with the planes that can be the highest somewhere in it.

    A box spans 2^(−bits) of each of the first K − 1 fractions. A plane is left out of a box only where one other plane lies above it in the
    whole box, so the highest of the rest is exactly the highest of all. `list_of` gives the number in `lists` for a box by its index.
    """

    bits: int
    list_of: NDArray[np.uint16]
    lists: tuple[Index, ...]

    @staticmethod
    def of(planes: Array) -> Boxes:
        """Halve boxes of the whole space again and again, each with what its parent left."""
        k = planes.shape[1]
        bits, free = _BITS[k], k - 1
        slopes, origin = planes[:, :-1] - planes[:, -1:], planes[:, -1]
        list_of = np.zeros((2**bits,) * free, dtype=np.uint16)
        lists: list[Index] = []
        corners = np.array(list(product((0.0, 1.0), repeat=free)))
        open_ = [(np.zeros(free, dtype=np.int64), 0, np.arange(len(planes)))]
        while open_:
            place, level, mine = open_.pop()
            side = 0.5**level
            low = place * side
            if low.sum() > 1 + 1e-9:  # no composition has fractions that sum to more than 1
                continue
            mine = _not_below(slopes[mine], origin[mine], low, side, corners, mine)
            if level == bits or len(mine) <= _SHORT or len(lists) + len(open_) > 60_000:
                width = 2 ** (bits - level)
                list_of[tuple(slice(p * width, (p + 1) * width) for p in place.tolist())] = len(lists)
                lists.append(mine)
            else:
                open_ += [(2 * place + corner.astype(np.int64), level + 1, mine) for corner in corners]
        return Boxes(bits, list_of.reshape(-1), tuple(lists))

    def groups(self, fractions: Array) -> Iterator[tuple[Index, Index]]:
        """Rows of fractions (B, K) that share a list of planes, and those planes."""
        free, width = fractions.shape[1] - 1, 2**self.bits
        cell = np.zeros(len(fractions), dtype=np.int64)
        for column in range(free):
            cell = cell * width + np.minimum((fractions[:, column] * width).astype(np.int64), width - 1)
        number = self.list_of[cell]
        order = np.argsort(number, kind="stable")
        ends = np.cumsum(np.bincount(number, minlength=len(self.lists)))
        for k in np.flatnonzero(np.diff(ends, prepend=0)).tolist():
            yield order[ends[k - 1] if k else 0 : ends[k]], self.lists[k]


def _not_below(slopes: Array, origin: Array, low: Array, side: float, corners: Array, names: Index) -> Index:
    """The names of the planes that are not below one of the planes highest at a corner or in the middle of a box."""
    spots = np.vstack([low + side * corners, low + side / 2])
    kept = np.ones(len(names), dtype=bool)
    for best in np.unique((slopes @ spots.T + origin[:, None]).argmax(axis=0)).tolist():
        ahead = slopes[best] - slopes
        below = (origin[best] - origin) + ahead @ low + side * np.minimum(ahead, 0.0).sum(axis=1) >= 0
        below[best] = False
        kept &= ~below
    return names[kept]


def lower_facets(fractions: Array, energies: Array) -> Facets | None:
    """Lower hull of points, by qhull.

    Parameters
    ----------
    fractions : (n, K) atomic fractions, the K pure elements among them
    energies : (n,) formation energies per atom, ≤ 0, elements 0

    Returns
    -------
    The facets, or None where rounding left a hole in the hull (the facets do not tile the simplex): the linear programme is exact then.
    """
    k = fractions.shape[1]
    if k == 1:
        best = int(np.argmin(energies))
        return Facets(energies[[best], None].copy(), np.array([[best]]), np.zeros(1, np.int64))
    if (simple := _alone(fractions, energies) or _chain(fractions, energies)) is not None:
        return simple
    corners = _simplices(fractions, energies)
    if corners is None:
        return None
    matrices = fractions[corners]
    volume = np.abs(np.linalg.det(matrices))
    solid = volume > _FLAT
    corners, matrices, volume = corners[solid], matrices[solid], volume[solid]
    planes = np.linalg.solve(matrices, energies[corners][..., None])[..., 0]
    supporting = _lies_below(planes, fractions, energies)
    if abs(volume[supporting].sum() - 1.0) > _TILING:
        return None
    planes, corners = np.ascontiguousarray(planes[supporting]), corners[supporting]
    if len(planes) <= _FEW:
        return Facets(planes, corners, np.arange(len(planes)))
    # rounding at 1e-10 merges the planes of coplanar simplices; the representative is one of them, not the rounded one
    _, first, plane_of = np.unique(np.round(planes, 10), axis=0, return_index=True, return_inverse=True)
    return Facets(np.ascontiguousarray(planes[first]), corners, plane_of.reshape(-1))


def _alone(fractions: Array, energies: Array) -> Facets | None:
    """The facets where one compound of all K elements is the only one: it replaces each element in turn. None for other systems."""
    n, k = fractions.shape
    if n != k + 1:
        return None
    pure = fractions.max(axis=1) == 1
    if pure.sum() != k or energies[pure].any():
        return None
    (compound,) = np.flatnonzero(~pure).tolist()
    x = fractions[compound]
    if not x.all() or energies[compound] >= 0:
        return None
    rows = np.flatnonzero(pure)
    elements = np.empty(k, dtype=np.int64)
    elements[fractions[rows].argmax(axis=1)] = rows
    corners = np.repeat(elements[None], k, axis=0)
    np.fill_diagonal(corners, compound)
    return Facets(np.diag(energies[compound] / x), corners, np.arange(k))


def _chain(fractions: Array, energies: Array) -> Facets | None:
    """The lower hull of two elements, by Andrew's monotone chain. None for more elements."""
    if fractions.shape[1] != 2:
        return None
    x, e = fractions[:, 1].tolist(), energies.tolist()
    kept: list[int] = []
    for p in np.lexsort((energies, fractions[:, 1])).tolist():
        if kept and x[kept[-1]] == x[p]:
            continue
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (x[b] - x[a]) * (e[p] - e[a]) - (e[b] - e[a]) * (x[p] - x[a]) > 0:
                break
            kept.pop()
        kept.append(p)
    left, right = np.array(kept[:-1]), np.array(kept[1:])
    slope = (energies[right] - energies[left]) / (fractions[right, 1] - fractions[left, 1])
    # the line's ends at either element, each from the nearer point: no rounding at the elements themselves
    first = energies[left] - slope * fractions[left, 1]
    second = energies[right] + slope * fractions[right, 0]
    return Facets(np.column_stack([first, second]), np.column_stack([left, right]), np.arange(len(left)))


def _simplices(fractions: Array, energies: Array) -> Index | None:
    """Rows of the points of each simplex of the lower hull (n_simplices, K); None if qhull gives up."""
    from scipy.spatial import ConvexHull, QhullError

    k = fractions.shape[1]
    # one point high above the middle closes the hull from above, so that elements alone are not a flat body
    lid = np.append(np.full(k - 1, 1.0 / k), max(1.0, float(-energies.min())))
    points = np.vstack([np.column_stack([fractions[:, 1:], energies]), lid])
    try:
        simplices = ConvexHull(points).simplices.astype(np.int64)
    except QhullError:
        return None
    return simplices[np.all(simplices != len(fractions), axis=1)]


def _lies_below(planes: Array, fractions: Array, energies: Array, chunk: int = 4096) -> NDArray[np.bool_]:
    below = np.empty(len(planes), dtype=bool)
    for start in range(0, len(planes), chunk):
        part = slice(start, start + chunk)
        below[part] = np.all(planes[part] @ fractions.T <= energies + _BELOW, axis=1)
    return below


def summits(facets: Facets, fractions: Array) -> Array:
    """Hull energies (B,) at fractions (B, K): the highest plane over each."""
    planes = facets.planes
    if len(planes) > _MANY_PLANES and len(fractions) > _MANY_QUERIES and 2 < planes.shape[1] <= max(_BITS):
        values = np.empty(len(fractions))
        for rows, chosen in facets.boxes.groups(fractions):
            values[rows] = _highest(planes[chosen], fractions[rows])
        return values
    return _highest(planes, fractions)


def _highest(planes: Array, fractions: Array) -> Array:
    values = np.empty(len(fractions))
    # compositions along the rows of the product: the maximum over planes is then a maximum of whole rows, and the product stays in cache
    chunk = int(np.clip(_IN_CACHE // max(1, len(planes)), 16, 8192))
    table = np.empty((len(planes), min(chunk, len(fractions))))
    for start in range(0, len(fractions), chunk):
        part = fractions[start : start + chunk]
        room = table[:, : len(part)]
        np.matmul(planes, part.T, out=room)
        np.maximum.reduce(room, axis=0, out=values[start : start + chunk])
    return values


def heights(facets: Facets, fractions: Array) -> tuple[Array, Index]:
    """Hull energies (B,) at fractions (B, K), and the plane that gives each."""
    table = fractions @ facets.planes.T
    which = table.argmax(axis=1)
    return table[np.arange(len(which)), which], which


def mixture(facets: Facets, fractions: Array, point: Array) -> tuple[Index, Array] | None:
    """The corners (K,) and weights (K,) that make up one composition `point` (K,); `fractions` are those of the points.

    Among coplanar simplices the one that holds the point is chosen. None if rounding leaves no simplex that holds it.
    """
    values = facets.planes @ point
    candidates = np.flatnonzero(values[facets.plane_of] >= values.max() - 1e-9)
    corners = facets.corners[candidates]
    weights = np.linalg.solve(np.swapaxes(fractions[corners], 1, 2), np.broadcast_to(point, corners.shape)[..., None])[..., 0]
    best = int(np.argmax(weights.min(axis=1)))
    return (corners[best], weights[best]) if weights[best].min() > -1e-8 else None


def cheapest_mixture(fractions: Array, energies: Array, point: Array) -> tuple[float, Index, Array, Array]:
    """The linear programme: the cheapest mixture of points (n, K) that gives the composition `point` (K,).

    Returns its energy per atom, the rows used, their weights, and the chemical potentials (K,).

    Raises
    ------
    ValueError
        If no mixture of the points has that composition.
    """
    from scipy.optimize import linprog

    exact = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    answer = linprog(energies, A_eq=fractions.T, b_eq=point, method="highs-ds", options=exact)
    if answer.status != 0:
        raise ValueError(f"no mixture found: {answer.message}")
    used: Index = np.flatnonzero(answer.x > 1e-12).astype(np.int64)
    # the solver stops at its tolerance; the weights on the phases it chose are solved once more, to rounding
    weights: Array = np.linalg.lstsq(fractions[used].T, point, rcond=None)[0].astype(np.float64)
    if weights.min() < -1e-9 or np.abs(weights @ fractions[used] - point).max() > 1e-9:
        weights = answer.x[used]
    return float(weights @ energies[used]), used, weights, np.asarray(answer.eqlin.marginals)
