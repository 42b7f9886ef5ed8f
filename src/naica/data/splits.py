"""Splits of a table into training, validation and test rows that cannot leak into one another.

Rows at random; by composition (all polymorphs of a formula on one side: GNoME's MD5 rule, Merchant et al., Nature 624, 80 (2023),
Methods); by structure prototype; by an element that is held out; or as published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from naica.data.formulas import contains, formulas
from naica.data.table import CrystalTable
from naica.errors import InputError
from naica.structure.composition import reduced_formula

Rows = NDArray[np.int64]
Way = Literal["random", "composition", "prototype", "element", "published"]
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts.

    Raises
    ------
    InputError
        If a row stands in two parts, or twice in one.
    """

    train: Rows
    val: Rows
    test: Rows

    def __post_init__(self) -> None:
        for name in PARTS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64).ravel())
        rows = np.concatenate([self.train, self.val, self.test])
        unique, times = np.unique(rows, return_counts=True)
        if len(unique) != len(rows):
            twice = unique[times > 1]
            where = {name for name in PARTS if np.isin(twice, getattr(self, name)).any()}
            raise InputError(
                f"this split is not disjoint: {len(twice)} rows occur more than once "
                f"(row {int(twice[0])} first; in {', '.join(sorted(where))})"
            )
        if len(rows) and rows.min() < 0:
            raise InputError(f"this split holds the negative row number {int(rows.min())}; rows count from 0")

    @property
    def sizes(self) -> dict[str, int]:
        """Rows per part."""
        return {name: len(getattr(self, name)) for name in PARTS}

    def __repr__(self) -> str:
        return f"<Split {', '.join(f'{name} {n}' for name, n in self.sizes.items())}>"


def md5_part(formula: str, seed: int = 0) -> int:
    """GNoME's residue of a formula, 0 to 99: MD5 of the reduced formula in the pinned format, as an integer, modulo 100.

    GNoME trains on residues below 85. A `seed` other than 0 is written before the formula and so gives another, equally stable split.
    """
    return _residue(reduced_formula(formula), seed)


def _residue(reduced: str, seed: int) -> int:
    text = reduced if seed == 0 else f"{seed}:{reduced}"
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16) % 100


def split(
    table: CrystalTable,
    by: Way = "composition",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    element: str | None = None,
) -> Split:
    """Divide the rows of a table.

    Parameters
    ----------
    table : what to divide
    by : ``random`` rows; ``composition`` (whole formulas, by `md5_part`, fractions in whole per cent); ``prototype`` (whole structure
        prototypes, taken from a column `prototype` if there is one); ``element`` (every row with `element` is the test part, the rest is
        divided by composition between training and validation); ``published`` (column `split`; see `published`)
    fractions : of training, validation and test; they add up to 1
    seed : another seed, another split; the same seed, the same split on every machine
    element : symbol to hold out with ``by="element"``

    Raises
    ------
    InputError
        For fractions that do not add up to 1, an unknown way, a missing or unknown element, a missing column `split`.
    """
    parts = _fractions(fractions)
    if by == "random":
        return _from_order(np.random.default_rng(seed).permutation(len(table)), parts)
    if by == "composition":
        return _by_residue(np.array([_residue(f, seed) for f in formulas(table)], dtype=np.int64), parts)
    if by == "prototype":
        return _by_group(_prototypes(table), parts, seed)
    if by == "element":
        return _by_element(table, element, parts, seed)
    if by == "published":
        return published(table)
    raise InputError(f"no way {by!r} to split; known: random, composition, prototype, element, published")


def _fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    values = tuple(float(f) for f in fractions)
    if len(values) != 3 or any(not f >= 0 for f in values) or abs(sum(values) - 1) > 1e-6:
        raise InputError(f"fractions {list(fractions)} must be three numbers (train, validation, test), none negative, that add up to 1")
    return values


def _from_order(order: Rows, parts: tuple[float, float, float]) -> Split:
    ends = np.round(np.cumsum(parts) * len(order)).astype(int)
    return Split(*(np.sort(p) for p in np.split(order, ends[:2])))


def _by_residue(residues: Rows, parts: tuple[float, float, float]) -> Split:
    first, second = np.round(np.cumsum(parts)[:2] * 100)
    train, val = residues < first, (residues >= first) & (residues < second)
    return Split(np.flatnonzero(train), np.flatnonzero(val), np.flatnonzero(~train & ~val))


def _by_group(groups: Sequence[str], parts: tuple[float, float, float], seed: int) -> Split:
    """Whole groups, in an order drawn from the seed, each to the part that still lacks the most rows."""
    names, member, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    lacking = np.array(parts) * len(member)
    part_of = np.zeros(len(names), dtype=np.int64)
    for index in np.random.default_rng(seed).permutation(len(names)):
        part_of[index] = int(np.argmax(lacking))
        lacking[part_of[index]] -= sizes[index]
    return Split(*(np.flatnonzero(part_of[member] == k) for k in range(3)))


def _prototypes(table: CrystalTable) -> list[str]:
    if "prototype" in table.columns:
        return [str(p) for p in table.column("prototype")]
    from naica.structure.symmetry import prototype_label

    labels = []
    for row, crystal in enumerate(table):
        try:
            labels.append(prototype_label(crystal))
        except InputError:
            # a structure without a symmetry is a prototype of its own: it can leak nowhere
            labels.append(f"row {row}")
    return labels


def _by_element(table: CrystalTable, element: str | None, parts: tuple[float, float, float], seed: int) -> Split:
    if element is None:
        raise InputError('splitting by element needs the element to hold out: split(table, by="element", element="Li")')
    held_out = contains(table, element)
    if not held_out.any():
        raise InputError(f"no row of the table holds {element}: nothing to test on")
    rest = np.flatnonzero(~held_out)
    known = parts[0] + parts[1]
    share = (parts[0] / known, parts[1] / known, 0.0) if known else (1.0, 0.0, 0.0)
    inner = split(table.take(rest), "composition", share, seed)
    return Split(rest[inner.train], rest[inner.val], np.flatnonzero(held_out))


def published(table: CrystalTable, column: str = "split", unassigned: Literal["drop", "train"] = "drop") -> Split:
    """The split a set was published with; rows it does not mention are left out, or trained on with ``unassigned="train"``.

    With ``"train"`` such a row is added only if its formula occurs in neither the validation nor the test part.

    Raises
    ------
    InputError
        If the column is missing or holds other words than train, val, test and null.
    """
    if column not in table.columns:
        raise InputError(f"no column {column!r} with a published split; the table has {', '.join(table.columns)}")
    words = np.array([w if w is not None else "" for w in table.arrow[column].to_pylist()], dtype=object)
    if unknown := set(words) - {*PARTS, ""}:
        raise InputError(f"column {column!r} holds {', '.join(sorted(map(repr, unknown)))}; expected train, val, test or null")
    train, val, test = (np.flatnonzero(words == name) for name in PARTS)
    if unassigned == "train":
        text = np.array(formulas(table), dtype=object)
        judged = set(text[val]) | set(text[test])
        free = np.flatnonzero(words == "")
        train = np.concatenate([train, free[[f not in judged for f in text[free]]]])
    return Split(np.sort(train), val, test)


def shared_formulas(table: CrystalTable, parts: Split) -> set[str]:
    """Formulas that stand in the training part and also in validation or test: the leak that a split by rows leaves open."""
    text = np.array(formulas(table), dtype=object)
    return set(text[parts.train]) & (set(text[parts.val]) | set(text[parts.test]))
