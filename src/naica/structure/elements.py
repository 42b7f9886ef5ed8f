"""The periodic table as naica uses it: one small table, read once.

Values: Pauling electronegativity, ASE's covalent radii (Cordero et al., Dalton Trans. 2008, 2832), Shannon-type average ionic
radii, common and ICSD oxidation states and how often each occurs in ICSD, collected from pymatgen and ASE into ``elements.csv``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from naica.errors import InputError


@dataclass(frozen=True)
class Element:
    """One element. Radii in Å, mass in amu; `electronegativity` is None where Pauling gave none."""

    number: int
    symbol: str
    name: str
    group: int
    period: int
    block: str
    electronegativity: float | None
    mass: float
    covalent_radius: float
    oxidation_states: tuple[int, ...]
    icsd_oxidation_states: tuple[int, ...]
    ionic_radii: Mapping[int, float]
    icsd_counts: Mapping[int, int]

    @property
    def is_metal(self) -> bool:
        """True for what chemists call a metal: not a non-metal, noble gas or metalloid."""
        return self.symbol not in _NOT_METAL


_NOT_METAL = frozenset("H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Sb Te I Xe At Rn Og Ts".split())  # noqa: SIM905


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(t) for t in text.split())


@cache
def table() -> tuple[Element, ...]:
    """All elements, hydrogen (index 0) to lawrencium (index 102)."""
    with (files("naica.structure") / "elements.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return tuple(
        Element(
            number=int(r["number"]),
            symbol=r["symbol"],
            name=r["name"],
            group=int(r["group"]),
            period=int(r["period"]),
            block=r["block"],
            electronegativity=float(r["electronegativity"]) if r["electronegativity"] else None,
            mass=float(r["mass"]),
            covalent_radius=float(r["covalent_radius"]),
            oxidation_states=_ints(r["oxidation_states"]),
            icsd_oxidation_states=_ints(r["icsd_oxidation_states"]),
            ionic_radii={int(k): float(v) for k, v in (t.split(":") for t in r["ionic_radii"].split())},
            icsd_counts={int(k): int(v) for k, v in (t.split(":") for t in r["icsd_counts"].split())},
        )
        for r in rows
    )


@cache
def _by_symbol() -> dict[str, Element]:
    return {e.symbol: e for e in table()}


def element(key: str | int) -> Element:
    """The element of a symbol or an atomic number.

    Raises
    ------
    InputError
        If there is no such element among the first 103.
    """
    if isinstance(key, str):
        try:
            return _by_symbol()[key]
        except KeyError:
            near = get_close_matches(key, _by_symbol(), n=2, cutoff=0.3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise InputError(f"unknown element symbol {key!r}{hint}") from None
    number = int(key)
    if not 1 <= number <= len(table()):
        raise InputError(f"no element with atomic number {number}; expected 1 to {len(table())}")
    return table()[number - 1]


def symbol(number: int) -> str:
    """The symbol of an atomic number."""
    return element(int(number)).symbol
