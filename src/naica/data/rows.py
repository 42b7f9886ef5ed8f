"""Rows of a table as crystals, fast: what `Crystal` checks one by one is checked here for all rows at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from naica.data.table import CrystalTable
from naica.structure import Crystal

_LAST_ELEMENT = 103
_SMALLEST_GRAM = 1e-12


def crystals(table: CrystalTable) -> Iterator[Crystal]:
    """All rows in order, ids in `info`; the atoms are read-only views of the table.

    Raises
    ------
    InputError
        At the first row that is no valid crystal.
    """
    counts, numbers, positions, cells, pbc = table.flat()
    good = valid_rows(counts, numbers, positions, cells, pbc)
    wide = numbers.astype(np.int64)
    for array in (wide, positions, cells, pbc):
        array.setflags(write=False)
    ends = np.cumsum(counts).tolist()
    start = 0
    for row, (end, key, fine) in enumerate(zip(ends, table.ids, good.tolist(), strict=True)):
        parts = (wide[start:end], positions[start:end], cells[row], pbc[row], {"id": key})
        yield _checked(*parts) if fine else Crystal(*parts)
        start = end


def valid_rows(
    counts: NDArray[np.int64],
    numbers: NDArray[np.integer],
    positions: NDArray[np.float64],
    cells: NDArray[np.float64],
    pbc: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which rows pass every check of `Crystal` (B,): atoms, known elements, finite numbers, volume along the periodic directions."""
    owner = np.repeat(np.arange(len(counts)), counts)
    bad_atom = (numbers < 1) | (numbers > _LAST_ELEMENT) | ~np.isfinite(positions).all(axis=1)
    finite = np.isfinite(cells.reshape(-1, 9)).all(axis=1)
    bad_atoms = np.bincount(owner[bad_atom], minlength=len(counts))
    spanned = gram(np.nan_to_num(cells, nan=0.0, posinf=0.0, neginf=0.0), pbc)
    return (counts > 0) & (bad_atoms == 0) & finite & (spanned > _SMALLEST_GRAM)


def gram(cells: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Squared volume, area or length spanned by the periodic lattice vectors (B,); 1 for molecules."""
    both = pbc[:, :, None] & pbc[:, None, :]
    products = np.einsum("bij,bkj->bik", cells, cells)
    return np.linalg.det(np.where(both, products, np.eye(3)))


def _checked(
    numbers: NDArray[np.int64], positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], info: dict[str, str]
) -> Crystal:
    """A crystal from arrays that `valid_rows` has passed; skips the constructor's own copies and checks."""
    crystal = object.__new__(Crystal)
    crystal.__dict__.update(numbers=numbers, positions=positions, cell=cell, pbc=pbc, info=info)
    return crystal
