"""What can be wrong with many crystals, looked for in flat arrays: each check answers for all rows at once."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from naica.data.rows import valid_rows
from naica.data.table import CrystalTable
from naica.structure import elements

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
_PAIRS_AT_ONCE = 2_000_000
_CONTACT = 0.6
_SMALLEST_RADIUS = 1.1


def volumes(cells: Floats) -> Floats:
    """Cell volumes in Å³ (B,)."""
    return np.abs(np.linalg.det(cells))


@cache
def _room() -> Floats:
    """Generous volume in Å³ an atom of each atomic number takes in a solid: a sphere 0.6 Å larger than its covalent radius."""
    radii = np.array([0.0] + [max(e.covalent_radius, _SMALLEST_RADIUS) + _CONTACT for e in elements.table()])
    return 4 / 3 * np.pi * radii**3


def volume_ratios(table: CrystalTable) -> Floats:
    """Cell volume over the room its atoms need (B,): 0.3 to 1.5 in solids, far more for atoms alone in a box. NaN unless fully periodic."""
    counts, numbers, _, cells, pbc = table.flat()
    needed = np.bincount(np.repeat(np.arange(len(counts)), counts), weights=_room()[np.minimum(numbers, 103)], minlength=len(counts))
    ratio = np.divide(volumes(np.nan_to_num(cells)), needed, out=np.full(len(counts), np.nan), where=needed > 0)
    return np.where(pbc.all(axis=1), ratio, np.nan)


def overlapping(table: CrystalTable, limit: float, rows: NDArray[np.int64] | None = None) -> dict[int, float]:
    """Rows with two atoms nearer than `limit` Å (periodic images included) and that distance; `rows` (valid ones) limits the search.

    Within a cell whose lattice planes are all more than 2 × `limit` apart, two points nearer than `limit` are nearest images under
    rounding of their fractional difference, and no atom is that near its own image: those are done in bulk, the few others one by one.
    """
    counts, numbers, positions, cells, pbc = table.flat()
    chosen = np.flatnonzero(valid_rows(counts, numbers, positions, cells, pbc)) if rows is None else np.asarray(rows, dtype=np.int64)
    molecule = pbc.sum(axis=1) == 0
    full = np.where(molecule[:, None, None], np.eye(3), cells)
    easy = np.zeros(len(counts), dtype=bool)
    candidates = chosen[((pbc.sum(axis=1) == 3) | molecule)[chosen]]
    inverse = np.zeros_like(full)
    inverse[candidates] = np.linalg.inv(full[candidates])
    spacing = 1 / np.linalg.norm(inverse[candidates], axis=1).max(axis=1)
    easy[candidates] = molecule[candidates] | (spacing > 2 * limit)
    starts = np.cumsum(counts) - counts
    found: dict[int, float] = {}
    for n in np.unique(counts[chosen]):
        same = chosen[(counts[chosen] == n) & easy[chosen]]
        if n > 1 and len(same):
            found |= _nearest_in_bulk(int(n), same, starts, positions, full, inverse, pbc, limit)
    for row in chosen[~easy[chosen]].tolist():
        distance = table[row].min_distance()
        if distance < limit:
            found[row] = distance
    return found


def _nearest_in_bulk(
    n: int, rows: NDArray[np.int64], starts: NDArray[np.int64], positions: Floats, cells: Floats, inverse: Floats, pbc: Bools, limit: float
) -> dict[int, float]:
    """Rows of `n` atoms each with a pair nearer than `limit`."""
    first, second = np.triu_indices(n, 1)
    found = {}
    step = max(1, _PAIRS_AT_ONCE // len(first))
    for at in range(0, len(rows), step):
        part = rows[at : at + step]
        points = positions[starts[part][:, None] + np.arange(n)]
        fractional = points @ inverse[part]
        apart = fractional[:, second] - fractional[:, first]
        apart -= np.round(apart) * pbc[part][:, None, :]
        squared = ((apart @ cells[part]) ** 2).sum(axis=-1).min(axis=1)
        for index in np.flatnonzero(squared < limit**2).tolist():
            found[int(part[index])] = float(np.sqrt(squared[index]))
    return found


def outlying(values: Floats, spread: float) -> Bools:
    """Values further from the median than `spread` robust standard deviations (1.4826 × median absolute deviation); NaN never is."""
    middle = np.nanmedian(values) if np.isfinite(values).any() else np.nan
    width = 1.4826 * np.nanmedian(np.abs(values - middle)) if np.isfinite(middle) else np.nan
    return np.abs(values - middle) > spread * width if width > 0 else np.zeros(len(values), dtype=bool)
