"""Kinds of site: which atom of a crystal sits where, from columns of the table that name the element of each kind.

A perovskite table names the elements on A and on B; all other atoms are the rest, X.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import InputError
from naica.structure.elements import element

_BONDS = 6
"""Bonds whose mean length tells two sites of one element apart: those of an octahedron."""


def kinds_of_sites(table: CrystalTable, columns: Sequence[str] = ("A", "B"), rest: str = "X") -> NDArray[np.str_]:
    """The kind of every site (N,) of a table, in the order of its atoms.

    Where several columns of a row name the same element, as in SrSrO3, its atoms are told apart by the mean length of their six shortest
    bonds to the rest: the first of these columns gets the longest bonds. (In ABX3, B is the cation with the shorter bonds.)

    Parameters
    ----------
    table : crystals, with columns that hold element symbols
    columns : one for each kind of site; their names are the names of the kinds, the roomiest first
    rest : name of all other sites

    Raises
    ------
    InputError
        If a column is missing, names no element, or names one which that crystal does not hold, or holds in other numbers than it is named.
    """
    counts, numbers, positions, cells, _ = table.flat()
    named = np.stack([_numbers(table, column) for column in columns], axis=1)
    start = np.concatenate([[0], np.cumsum(counts)])
    owner = np.repeat(np.arange(len(counts)), counts)
    kinds = np.full(len(numbers), rest, dtype=f"<U{max(len(n) for n in (*columns, rest))}")
    found = np.zeros((len(counts), len(columns)), dtype=np.int64)
    for k, column in enumerate(columns):
        here = numbers == named[owner, k]
        kinds[here] = column
        found[:, k] = np.bincount(owner[here], minlength=len(counts))
    if not found.all():
        row, which = np.argwhere(found == 0)[0].tolist()
        raise InputError(
            f"row {row} (id {table.ids[row]}): column {columns[which]!r} names {table.column(columns[which])[row]}, which is not in it"
        )
    for row in np.flatnonzero([len(set(names)) < len(columns) for names in named.tolist()]):
        atoms = slice(start[row], start[row + 1])
        kinds[atoms] = _told_apart(numbers[atoms], positions[atoms], cells[row], named[row], columns, kinds[atoms], rest, int(row))
    return kinds


def _numbers(table: CrystalTable, column: str) -> NDArray[np.int64]:
    symbols = table.column(column)
    known: dict[str, int] = {}
    for name in set(symbols.tolist()):
        if not isinstance(name, str):
            raise InputError(f"column {column!r} holds {name!r}; expected an element symbol in every row")
        known[name] = element(name).number
    return np.array([known[name] for name in symbols.tolist()], dtype=np.int64)


def _told_apart(
    numbers: NDArray[np.uint8],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    named: NDArray[np.int64],
    columns: Sequence[str],
    kinds: NDArray[np.str_],
    rest: str,
    row: int,
) -> NDArray[np.str_]:
    """Kinds of the sites of one crystal, in which several columns name one element."""
    kinds = kinds.copy()
    for number in set(named.tolist()):
        sharing = [c for c, z in zip(columns, named, strict=True) if z == number]
        atoms = np.flatnonzero(numbers == number)
        if len(sharing) == 1:
            continue
        if len(atoms) != len(sharing):
            raise InputError(
                f"row {row}: columns {', '.join(sharing)} name the same element, of which it holds {len(atoms)} atoms; "
                f"expected {len(sharing)}, or other elements"
            )
        lengths = [_bond_length(positions[a], positions[kinds == rest], cell) for a in atoms]
        for column, atom in zip(sharing, atoms[np.argsort(lengths, kind="stable")[::-1]], strict=True):
            kinds[atom] = column
    return kinds


def _bond_length(place: NDArray[np.float64], others: NDArray[np.float64], cell: NDArray[np.float64]) -> float:
    """Mean distance (Å) from a place to the six nearest of other atoms and their images."""
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    distances = np.linalg.norm(others[:, None] + shifts - place, axis=-1).ravel()
    return float(np.sort(distances)[:_BONDS].mean())
