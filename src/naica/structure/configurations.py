"""Valence configurations of the neutral atoms in their ground states, and what it costs to change their charge.

Occupations, first ionisation energies, electron affinities and molar volumes come from pymatgen's periodic table; a test
compares every occupation with the atomic number, because the tables that circulate with orbital field matrices have slips.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.elements import symbol

CAPACITY = {"s": 2, "p": 6, "d": 10, "f": 14}
ORBITAL_BITS = sum(CAPACITY.values())
"""32: s1, s2, p1 … p6, d1 … d10, f1 … f14."""
_SUBSHELL = re.compile(r"([1-7])([spdf])([0-9]+)")


@dataclass(frozen=True)
class Configuration:
    """The electrons of one neutral atom.

    Parameters
    ----------
    number : atomic number
    core : symbol of the noble gas whose electrons are not listed; empty for hydrogen and helium
    valence : (n, l, electrons) of every occupied subshell outside of the core, l as its letter
    ionisation_energy, electron_affinity : eV
    molar_volume : cm³/mol of the element; each of the three None where nobody measured it
    """

    number: int
    core: str
    valence: tuple[tuple[int, str, int], ...]
    ionisation_energy: float | None
    electron_affinity: float | None
    molar_volume: float | None

    @property
    def electrons(self) -> int:
        """Valence electrons, filled d and f subshells outside of the noble gas included."""
        return sum(count for _, _, count in self.valence)

    @property
    def bits(self) -> NDArray[np.float32]:
        """(32) One at each subshell's occupation: 4s2 3d10 4p1 sets s2, p1 and d10."""
        vector = np.zeros(ORBITAL_BITS, np.float32)
        starts = dict(zip(CAPACITY, np.cumsum([0, *CAPACITY.values()]), strict=False))
        for _, letter, count in self.valence:
            vector[starts[letter] + count - 1] = 1.0
        return vector


@cache
def _table() -> dict[int, Configuration]:
    with (files("naica.structure") / "configurations.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return {
        int(r["number"]): Configuration(
            int(r["number"]),
            r["core"],
            _parsed(r["valence"]),
            _number(r["ionisation_energy"]),
            _number(r["electron_affinity"]),
            _number(r["molar_volume"]),
        )
        for r in rows
    }


def _number(text: str) -> float | None:
    return float(text) if text else None


def _parsed(text: str) -> tuple[tuple[int, str, int], ...]:
    shells = [_SUBSHELL.fullmatch(part) for part in text.split()]
    return tuple((int(m[1]), m[2], int(m[3])) for m in shells if m)


def configuration(number: int) -> Configuration:
    """The configuration of an element.

    Raises
    ------
    InputError
        If its configuration is not known here; the message names the element.
    """
    if int(number) not in _table():
        raise InputError(f"no valence configuration of element {_called(int(number))}; known are 1 (H) to {max(_table())} (Lr)")
    return _table()[int(number)]


def _called(number: int) -> str:
    try:
        return f"{symbol(number)} ({number})"
    except InputError:
        return str(number)


@cache
def orbital_bits() -> NDArray[np.float32]:
    """(104, 32) `Configuration.bits` of every element by atomic number; row 0 is zero."""
    table = np.zeros((max(_table()) + 1, ORBITAL_BITS), np.float32)
    for number, found in _table().items():
        table[number] = found.bits
    return table
