"""The geometry under `Hull`: supporting planes of the lower hull by qhull, and the same answers by a linear programme.

Points are formation energies per atom e over atomic fractions x (K of them, summing to 1). A plane is a vector μ of K chemical potentials
with μ·x_k ≤ e_k for every point; the hull is the maximum of all such planes (the dual of the linear programme), so a batch of compositions
costs one matrix product and a row maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# planes may cut into points by rounding alone; well below the 1e-8 eV/atom the hull promises
_BELOW = 1e-9
# facets of a lower hull tile the simplex of compositions: the sum of their determinants is 1
_TILING = 1e-7
_FLAT = 1e-14


@dataclass(frozen=True)
class Facets:
    """Lower facets of one hull: `planes` (F, K) distinct chemical potentials, `corners` (G, K) rows of the points that span each simplex,
    `plane_of` (G,) which plane a simplex lies in (coplanar simplices share one).
    """

    planes: Array
    corners: Index
    plane_of: Index


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
    planes, corners = planes[supporting], corners[supporting]
    # rounding at 1e-10 merges the planes of coplanar simplices; the representative is one of them, not the rounded one
    _, first, plane_of = np.unique(np.round(planes, 10), axis=0, return_index=True, return_inverse=True)
    return Facets(np.ascontiguousarray(planes[first]), corners, plane_of.reshape(-1))


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


def heights(facets: Facets, fractions: Array) -> tuple[Array, Index]:
    """Hull energies (B,) at fractions (B, K), and the plane that gives each."""
    values = np.empty(len(fractions))
    which = np.empty(len(fractions), dtype=np.int64)
    # chunks keep the product in cache and bound the memory of a million queries
    chunk = max(1, 2_000_000 // max(1, len(facets.planes)))
    for start in range(0, len(fractions), chunk):
        product = fractions[start : start + chunk] @ facets.planes.T
        best = product.argmax(axis=1)
        which[start : start + chunk] = best
        values[start : start + chunk] = product[np.arange(len(best)), best]
    return values, which


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
