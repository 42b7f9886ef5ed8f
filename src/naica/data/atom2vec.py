"""Atom2Vec: vectors of elements from nothing but a list of formulas.

Zhou, Tang, Yan, Chen & Zhang, PNAS 115, E6411 (2018). Each element of a compound stands in an environment, which is all the rest with its
amounts, and the amount of the element itself in parentheses: Bi in Bi2Se3 stands in ``(2)Se3``, Se in ``(3)Bi2``. What stands in the same
environments is alike. No property and no rule of chemistry enters, and yet the groups of the periodic table come out.

With the amounts kept, a formula puts each of its elements in one environment, so counts differ from zeros and ones only by how often a
formula is listed (its polymorphs, say). ``amounts=False`` leaves out the element's own amount, as a published port does: BiSe3 and Bi2Se3
are then one environment of Bi.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from naica.data.cooccurrence import Cooccurrence, Vectors
from naica.errors import InputError
from naica.structure.composition import format_formula, parse_formula, reduced
from naica.structure.elements import element


def environments(formula: str, amounts: bool = True) -> list[tuple[str, str]]:
    """Each element of a formula with its environment; none for a pure element.

    Raises
    ------
    InputError
        If the text is no formula.
    """
    if not isinstance(formula, str):
        raise InputError(f"{formula!r} is no formula; read formula columns as text, or sodium nitride (NaN) becomes not-a-number")
    parts = reduced(parse_formula(formula))
    if len(parts) < 2:
        return []
    found = []
    for name, amount in parts.items():
        rest = format_formula({s: n for s, n in parts.items() if s != name})
        found.append((name, f"({amount}){rest}" if amounts else rest))
    return found


def cooccurrence(formulas: Iterable[str], binary: bool = False, amounts: bool = True) -> Cooccurrence:
    """How often each element stands in each environment, elements in order of atomic number.

    Raises
    ------
    InputError
        If a row is no formula (its number is named), or no row is a compound.
    """
    found = Cooccurrence.of(_pairs(formulas, amounts), binary, order=lambda symbol: element(symbol).number)
    if not found.names:
        raise InputError("no compounds among the formulas; expected some of two elements or more")
    return found


def _pairs(formulas: Iterable[str], amounts: bool) -> Iterator[tuple[str, str]]:
    for row, formula in enumerate(formulas):
        try:
            yield from environments(formula, amounts)
        except InputError as error:
            raise InputError(f"formula {row + 1}: {error}") from None


def atom2vec(formulas: Iterable[str], size: int = 20, binary: bool = False, amounts: bool = True, rows: str = "normalised") -> Vectors:
    """Vectors of the elements that occur in a list of formulas.

    Parameters
    ----------
    formulas : in any notation; reduced here
    size : numbers per element
    binary : count each environment of an element once, however often the formula is listed
    amounts : keep the element's own amount in the environment
    rows : ``normalised`` or ``raw``, see `Cooccurrence.vectors`
    """
    return cooccurrence(formulas, binary, amounts).vectors(size, rows)


def read_formulas(path: str | Path) -> list[str]:
    """Formulas of a CSV file (``.gz`` too), as text: the first column called formula or composition, or the only column.

    Raises
    ------
    InputError
        If there is no such column.
    """
    path = Path(path)
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    head = [name.strip().lower() for name in rows[0]] if rows else []
    place = next((k for k, name in enumerate(head) if name in ("formula", "composition")), None)
    if place is None:
        raise InputError(f"{path} has no column called formula or composition; it has {', '.join(head) or 'nothing'}")
    return [row[place] for row in rows[1:] if row]


@cache
def shipped() -> Vectors:
    """Vectors of 20 numbers for 86 elements, from 78,929 formulas of the Materials Project (``naica vectors --out atom2vec.csv``)."""
    return Vectors.read(files("naica.data") / "atom2vec.csv")
