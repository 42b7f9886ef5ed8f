"""Compositions as plain mappings symbol → amount; formulas written one way only.

The formatter is pinned, because data splits hash its output: elements by Pauling electronegativity (then alphabetically; elements
without one come last), integer amounts divided by their greatest common divisor, no parentheses: ``LiFePO4``, ``Li3Fe2P3O12``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache, reduce
from math import gcd

from naica.errors import InputError
from naica.structure.elements import element, symbol

_TOKEN = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)|(\()|(\))(\d*\.?\d*)")


def composition(numbers: Iterable[int]) -> dict[str, int]:
    """Counts per symbol of a list of atomic numbers, in formula order."""
    counts = Counter(symbol(int(z)) for z in numbers)
    return {s: counts[s] for s in sorted(counts, key=_order)}


def parse_formula(formula: str) -> dict[str, float]:
    """Amounts per symbol of a formula; parentheses and fractional amounts allowed.

    Raises
    ------
    InputError
        If the text is not a formula or names an unknown element.
    """
    text = formula.strip().replace("[", "(").replace("]", ")")
    stack: list[dict[str, float]] = [{}]
    at = 0
    for match in _TOKEN.finditer(text):
        if match.start() != at:
            break
        at = match.end()
        name, amount, opening, closing, factor = match.groups()
        if name:
            element(name)
            stack[-1][name] = stack[-1].get(name, 0.0) + (float(amount) if amount else 1.0)
        elif opening:
            stack.append({})
        elif closing and len(stack) > 1:
            inner, times = stack.pop(), float(factor) if factor else 1.0
            for s, n in inner.items():
                stack[-1][s] = stack[-1].get(s, 0.0) + n * times
        else:
            break
    if at != len(text) or len(stack) != 1 or not stack[0]:
        raise InputError(f"cannot read {formula!r} as a formula; expected something like LiFePO4 or Ca3(PO4)2")
    return {s: stack[0][s] for s in sorted(stack[0], key=_order)}


def reduced(counts: Mapping[str, float]) -> dict[str, int]:
    """Smallest integer amounts in the same ratio, in formula order.

    Raises
    ------
    InputError
        If the amounts are no ratio of integers up to 1,000.
    """
    from fractions import Fraction

    parts = {s: Fraction(float(n)).limit_denominator(1000) for s, n in counts.items() if n > 0}
    if not parts or any(abs(float(f) - counts[s]) > 1e-6 for s, f in parts.items()):
        raise InputError(f"amounts {dict(counts)} are not a ratio of small integers")
    scale = reduce(lambda a, b: a * b // gcd(a, b), (f.denominator for f in parts.values()), 1)
    whole = {s: int(f * scale) for s, f in parts.items()}
    divisor = reduce(gcd, whole.values())
    return {s: whole[s] // divisor for s in sorted(whole, key=_order)}


def reduced_formula(counts: Mapping[str, float] | str) -> str:
    """The pinned reduced formula, for example ``Li15Si4``. Elements are written bare (``O``, not ``O2``)."""
    if isinstance(counts, str):
        counts = parse_formula(counts)
    return format_formula(reduced(counts))


def format_formula(counts: Mapping[str, int]) -> str:
    """Write integer amounts in formula order without reducing them."""
    ordered = sorted(counts, key=_order)
    return "".join(f"{s}{counts[s] if counts[s] != 1 else ''}" for s in ordered)


def anonymous_formula(counts: Mapping[str, float]) -> str:
    """The formula with elements replaced by A, B, C … in order of growing amount, for example ``AB2C4``."""
    amounts = sorted(reduced(counts).values())
    return "".join(f"{chr(65 + k)}{n if n != 1 else ''}" for k, n in enumerate(amounts))


def chemical_system(counts: Mapping[str, float] | Iterable[str]) -> str:
    """Symbols in alphabetical order joined by dashes, for example ``Al-Mg-O``."""
    return "-".join(sorted(set(counts)))


@cache
def _order(name: str) -> tuple[float, str]:
    x = element(name).electronegativity
    return (x if x is not None else 99.0, name)
