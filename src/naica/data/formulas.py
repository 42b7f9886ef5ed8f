"""Formulas of a whole table at once, in the pinned format, without a `Crystal` per row."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from naica.data.table import CrystalTable
from naica.structure import elements
from naica.structure.composition import format_formula


@cache
def _formula_order() -> tuple[NDArray[np.int64], list[str]]:
    """Rank of each atomic number in formula order, and the symbols by rank; taken from the pinned formatter itself."""
    everything = {e.symbol: 2 for e in elements.table()}
    ordered = format_formula(everything).split("2")[:-1]
    rank = np.zeros(len(ordered) + 1, dtype=np.int64)
    for place, name in enumerate(ordered):
        rank[elements.element(name).number] = place
    return rank, ordered


def amounts(table: CrystalTable) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Reduced compositions as flat arrays: row, rank in formula order, integer amount; sorted by row, then rank."""
    counts, numbers, _, _, _ = table.flat()
    rank, ordered = _formula_order()
    owner = np.repeat(np.arange(len(counts)), counts)
    keys, amount = np.unique(owner * len(ordered) + rank[numbers], return_counts=True)
    rows, ranks = np.divmod(keys, len(ordered))
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    divisor = np.gcd.reduceat(amount, starts) if len(starts) else amount
    return rows, ranks, amount // np.repeat(divisor, np.diff(np.append(starts, len(rows))))


def formulas(table: CrystalTable) -> list[str]:
    """The reduced formula of every row (``LiFePO4``), the same text as ``Crystal.formula``."""
    rows, ranks, amount = amounts(table)
    _, ordered = _formula_order()
    text = [""] * len(table)
    for row, place, n in zip(rows.tolist(), ranks.tolist(), amount.tolist(), strict=True):
        text[row] += ordered[place] if n == 1 else f"{ordered[place]}{n}"
    return text


def contains(table: CrystalTable, symbol: str) -> NDArray[np.bool_]:
    """Which rows hold an element (B,).

    Raises
    ------
    InputError
        If the element is unknown.
    """
    counts, numbers, _, _, _ = table.flat()
    hit = numbers == elements.element(symbol).number
    owner = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(owner[hit], minlength=len(counts)).astype(bool)
