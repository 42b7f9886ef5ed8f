"""Many formulas at once as exact integer proportions, fast enough for hulls and scans of millions of compositions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.composition import parse_formula, reduced
from naica.structure.elements import element

Index = NDArray[np.int64]

_PLAIN = re.compile(r"(?:[A-Z][a-z]?[0-9]*)+")
_PART = re.compile(r"([A-Z][a-z]?)([0-9]*)")


def amounts_table(formulas: Sequence[str | Mapping[str, float]], elements: Sequence[str] | None = None) -> tuple[tuple[str, ...], Index]:
    """Elements (K) and smallest integer amounts (n, K) of formulas or mappings.

    Parameters
    ----------
    formulas : n formulas (``"MgAl2O4"``, brackets and decimals allowed) or mappings symbol → amount
    elements : the allowed elements and their order; default: those found, alphabetically

    Raises
    ------
    InputError
        For text that is no formula, unknown elements, and elements that are not among `elements`; the formula is named.
    """
    parsed = [_amounts(f) for f in formulas]
    order = tuple(elements) if elements is not None else tuple(sorted({s for counts in parsed for s in counts}))
    column = {element(s).symbol: k for k, s in enumerate(order)}
    if len(column) != len(order):
        raise InputError(f"elements {', '.join(order)}: one is named twice")
    counts = np.zeros((len(parsed), len(order)), dtype=np.int64)
    try:
        where = [(row, column[s], n) for row, one in enumerate(parsed) for s, n in one.items()]
    except KeyError:
        row, missing = next((r, s) for r, one in enumerate(parsed) for s in one if s not in column)
        raise InputError(f"{formulas[row]!r} holds {missing}, which this hull lacks; its elements: {', '.join(order)}") from None
    if where:
        rows, columns, values = np.array(where, dtype=np.int64).T
        np.add.at(counts, (rows, columns), values)
        counts //= np.gcd.reduce(counts, axis=1, keepdims=True)
    return order, counts


def _amounts(formula: str | Mapping[str, float]) -> dict[str, int]:
    """Integer amounts, not reduced, of one formula or mapping."""
    if isinstance(formula, str):
        if _PLAIN.fullmatch(formula):
            amounts: dict[str, int] = {}
            for name, number in _PART.findall(formula):
                amounts[name] = amounts.get(name, 0) + (int(number) if number else 1)
            if all(amounts.values()):
                return amounts
        return reduced(parse_formula(formula))
    if not formula:
        raise InputError("an empty composition has no place on a hull; expected at least one element with a positive amount")
    if all(isinstance(n, int | np.integer) and n > 0 for n in formula.values()):
        return {s: int(n) for s, n in formula.items()}
    return reduced(formula)
