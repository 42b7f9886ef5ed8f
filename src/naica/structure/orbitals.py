"""Valence orbitals of the elements and how much they couple: a universal tight-binding model for orbital graphs.

Levels are the LDA eigenvalues of free atoms (NIST atomic reference data, by way of pymatgen). Couplings are Harrison's (Electronic
Structure and the Properties of Solids, 1980; those of d orbitals by Eqs. 20-12 and 20-17)::

    V_ll'm = η_ll'm ħ²/(m d²)                          between s and p
    V_ldm  = η_ldm ħ² r_d^{3/2} / (m d^{7/2})          of either with d
    V_ddm  = η_ddm ħ² (r_d r_d')^{3/2} / (m d⁵)        between d and d

The extent r_d of a d orbital is that of a hydrogen-like orbital with Slater's effective charge (Phys. Rev. 36, 57 (1930)), not Harrison's
fitted one. f orbitals sit on their atoms and do not couple. These are features that know quantum numbers and distances, not a
calculation of a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.elements import symbol

HBAR2_OVER_M = 7.61996
"""ħ²/m in eV Å²."""

# (l, l') with l ≤ l' → σ, π, δ coefficients (Harrison 1980, Tables 15-1 and 20-1)
_ETA = {
    (0, 0): (-1.40, 0.0, 0.0),
    (0, 1): (1.84, 0.0, 0.0),
    (1, 1): (3.24, -0.81, 0.0),
    (0, 2): (-3.16, 0.0, 0.0),
    (1, 2): (-2.95, 1.36, 0.0),
    (2, 2): (-16.2, 8.75, 0.0),
}
_BOHR = 0.529177
_CAPACITY = (2, 6, 10, 14)
_EFFECTIVE_N = {1: 1.0, 2: 2.0, 3: 3.0, 4: 3.7, 5: 4.0, 6: 4.2, 7: 4.3}
# eV: a filled d or f shell below this is core
_CORE_BELOW = -25.0
_LAST = 92  # uranium, where the tables of atomic levels end


@dataclass(frozen=True)
class Shell:
    """One valence shell of a free atom: quantum numbers, level in eV, electrons in it, extent in Å (d shells; 0 for the others)."""

    n: int
    l: int  # noqa: E741
    energy: float
    electrons: float
    extent: float

    @property
    def name(self) -> str:
        """``3d``."""
        return f"{self.n}{'spdf'[self.l]}"

    @property
    def filling(self) -> float:
        """Electrons over the room there is."""
        return self.electrons / _CAPACITY[self.l]


@cache
def valence_shells(number: int) -> tuple[Shell, ...]:
    """The valence shells of an element: outermost s and p, the d shell below, the f shell below that, unless core.

    Raises
    ------
    InputError
        If the levels of the element are not known (beyond uranium).
    """
    from pymatgen.core import Element

    if number > _LAST:
        raise InputError(f"no atomic levels of {symbol(number)} are known; orbital graphs end at uranium")
    element = Element.from_Z(number)
    levels = element.atomic_orbitals_eV
    occupied = {(n, "spdf".index(kind)): float(count) for n, kind, count in element.full_electronic_structure}
    outermost = max(n for n, kind in occupied if kind == 0)
    found = []
    for (n, kind), electrons in sorted(occupied.items()):
        level = levels.get(f"{n}{'spdf'[kind]}")
        if n != outermost - max(0, kind - 1) or level is None or (kind > 1 and level < _CORE_BELOW):
            continue
        found.append(Shell(n, kind, float(level), electrons, _extent(number, n, electrons, occupied) if kind == 2 else 0.0))
    return tuple(found)


def _extent(number: int, n: int, electrons: float, occupied: dict[tuple[int, int], float]) -> float:
    """Å: a₀ n*² / Z*, where each other electron of the d shell shields 0.35 and each below it 1."""
    below = sum(count for (m, kind), count in occupied.items() if m < n or (m == n and kind < 2))
    charge = number - below - 0.35 * (electrons - 1)
    return _BOHR * _EFFECTIVE_N[n] ** 2 / charge


def couplings(one: Shell, other: Shell, length: NDArray[np.float64]) -> NDArray[np.float64]:
    """(E, 3) V_σ, V_π, V_δ in eV between two shells at distances `length` (E) in Å; zero with f shells.

    Raises
    ------
    InputError
        For a distance that is not positive.
    """
    if len(length) and length.min() <= 0:
        raise InputError(f"orbitals {length.min():g} Å apart; expected a positive distance")
    low, high = sorted((one, other), key=lambda shell: shell.l)
    if high.l > 2:
        return np.zeros((len(length), 3))
    eta = np.array(_ETA[low.l, high.l])
    if high.l < 2:
        radial = length**-2.0
    elif low.l < 2:
        radial = high.extent**1.5 * length**-3.5
    else:
        radial = (low.extent * high.extent) ** 1.5 * length**-5.0
    return HBAR2_OVER_M * radial[:, None] * eta
