"""Atomic orbitals: the shells of each species, and the one place where the conventions of codes are translated.

naica keeps every block in one convention ("std"): shells in the order the basis names them, inside a shell m = −l … l, real spherical
harmonics with the usual signs (p: y, z, x; d: xy, yz, z², xz, x² − y²). This is also the order of e3nn. The tables below give, for each
code, the place of every std orbital in the code's own order and its sign; they were verified on matrices of each code by the bond test of
`naica.hamiltonian.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import ConfigError, InputError
from naica.structure.elements import element, symbol

Ints = NDArray[np.int64]
Array = NDArray[np.float64]

SHELL_NAMES = "spdfghi"


@dataclass(frozen=True)
class Basis:
    """The orbitals of one species.

    Parameters
    ----------
    number : atomic number
    shells : l of each shell, in order: two s shells and one p shell are (0, 0, 1)
    name : of the basis set, for example ``DZVP-MOLOPT-SR-GTH``
    electrons : valence electrons of the neutral atom; 0 if unknown
    """

    number: int
    shells: tuple[int, ...]
    name: str = ""
    electrons: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shells", tuple(int(one) for one in self.shells))
        if not self.shells or min(self.shells) < 0 or max(self.shells) >= len(SHELL_NAMES):
            raise InputError(f"shells {self.shells} of {self.symbol}; expected at least one, each l from 0 to {len(SHELL_NAMES) - 1}")

    @classmethod
    def named(cls, species: str, shells: str, name: str = "", electrons: float = 0.0) -> Basis:
        """From words: ``Basis.named("C", "2s2p1d")`` has two s, two p and one d shell, in this order.

        Raises
        ------
        InputError
            If the text is no such list.
        """
        found: list[int] = []
        rest = shells.replace(" ", "")
        while rest:
            digits = len(rest) - len(rest.lstrip("0123456789"))
            count, letter = rest[:digits] or "1", rest[digits : digits + 1]
            if not letter or letter not in SHELL_NAMES:
                raise InputError(f"shells {shells!r} of {species}; expected counts and letters such as 2s2p1d")
            found += [SHELL_NAMES.index(letter)] * int(count)
            rest = rest[digits + 1 :]
        return cls(element(species).number, tuple(found), name, electrons)

    @classmethod
    def named_by_number(cls, number: int, shells: str, name: str = "", electrons: float = 0.0) -> Basis:
        """`named` for an atomic number."""
        return cls.named(symbol(number), shells, name, electrons)

    @property
    def symbol(self) -> str:
        """Of the element."""
        return symbol(self.number)

    @cached_property
    def size(self) -> int:
        """Number of orbitals."""
        return sum(2 * shell + 1 for shell in self.shells)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First orbital of each shell."""
        return tuple(int(k) for k in np.cumsum([0, *(2 * shell + 1 for shell in self.shells[:-1])]))

    @property
    def twice(self) -> Basis:
        """All shells, and all of them again: the orbitals of both spins, spin outside."""
        return Basis(self.number, self.shells * 2, self.name, self.electrons)

    @property
    def text(self) -> str:
        """For example ``2s2p1d``; shells are counted in runs."""
        runs: list[list[int]] = []
        for shell in self.shells:
            if runs and runs[-1][0] == shell:
                runs[-1][1] += 1
            else:
                runs.append([shell, 1])
        return "".join(f"{count}{SHELL_NAMES[shell]}" for shell, count in runs)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"number": self.number, "shells": list(self.shells), "name": self.name, "electrons": self.electrons}


@dataclass(frozen=True)
class Convention:
    """How a code orders and signs the orbitals inside a shell, and how it counts lattice vectors and energies.

    Parameters
    ----------
    name : of the code
    order : by l, the places in the code's shell of std's m = −l … l; identity where not given
    sign : by l, the factors by which std's orbitals are the code's; ones where not given
    phase : +1 if H(k) = Σ exp(+2πi k·R) H(R), −1 if the code stores R with the opposite sign
    energy : eV per unit of the code
    length : Å per unit of the code
    """

    name: str
    order: Mapping[int, Sequence[int]] = field(default_factory=dict)
    sign: Mapping[int, Sequence[int]] = field(default_factory=dict)
    phase: int = 1
    energy: float = 1.0
    length: float = 1.0

    def permutation(self, basis: Basis) -> tuple[Ints, Array]:
        """(n) places in the code's order of std's orbitals, and (n) their signs: ``std = code[places] * signs``."""
        places, signs = [], []
        for start, shell in zip(basis.offsets, basis.shells, strict=True):
            places += [start + int(p) for p in self.order.get(shell, range(2 * shell + 1))]
            signs += [float(s) for s in self.sign.get(shell, [1] * (2 * shell + 1))]
        return np.array(places), np.array(signs)

    def to_std(self, block: NDArray[Any], left: Basis, right: Basis) -> NDArray[Any]:
        """Blocks (…, n, m) of this code → std, energies not scaled; blocks of spinors have (…, 2n, 2m), spin outside."""
        if block.shape[-2] == 2 * left.size:
            left, right = left.twice, right.twice
        rows, row_signs = self.permutation(left)
        columns, column_signs = self.permutation(right)
        return block[..., rows[:, None], columns[None, :]] * row_signs[:, None] * column_signs[None, :]

    def from_std(self, block: NDArray[Any], left: Basis, right: Basis) -> NDArray[Any]:
        """The way back."""
        if block.shape[-2] == 2 * left.size:
            left, right = left.twice, right.twice
        rows, row_signs = self.permutation(left)
        columns, column_signs = self.permutation(right)
        result = np.empty_like(block)
        result[..., rows[:, None], columns[None, :]] = block * row_signs[:, None] * column_signs[None, :]
        return result


def _alternating(most: int) -> dict[int, list[int]]:
    """Signs (−1)^m for m = −l … l, without the Condon–Shortley phase being taken off."""
    return {shell: [(-1) ** abs(m) for m in range(-shell, shell + 1)] for shell in range(1, most + 1)}


HARTREE = 27.211386245988
RYDBERG = HARTREE / 2
BOHR = 0.529177210903

CONVENTIONS: Mapping[str, Convention] = {
    "std": Convention("std"),
    "pyscf": Convention("pyscf", order={1: (1, 2, 0)}, energy=HARTREE, length=BOHR),
    "cp2k": Convention("cp2k", energy=HARTREE, length=BOHR),
    "gpaw": Convention("gpaw", phase=-1),
    "tblite": Convention("tblite", energy=HARTREE, length=BOHR),
    # OpenMX and ABACUS have constants of their own; files are turned back with those they were written with
    "openmx": Convention(
        "openmx", order={1: (1, 2, 0), 2: (2, 4, 0, 3, 1), 3: (6, 4, 2, 0, 1, 3, 5)}, energy=27.2113845, length=0.529177249
    ),
    "deeph": Convention("deeph", order={1: (1, 2, 0), 2: (2, 4, 0, 3, 1), 3: (6, 4, 2, 0, 1, 3, 5)}),
    "deeph-dock": Convention("deeph-dock"),
    "abacus": Convention(
        "abacus",
        order={1: (2, 0, 1), 2: (4, 2, 0, 1, 3), 3: (6, 4, 2, 0, 1, 3, 5)},
        sign=_alternating(3),
        energy=13.605698,
        length=0.529177,
    ),
    "siesta": Convention("siesta", sign=_alternating(3), energy=RYDBERG, length=BOHR),
    "fhi-aims": Convention(
        "fhi-aims",
        sign={shell: [-1 if m > 0 and m % 2 else 1 for m in range(-shell, shell + 1)] for shell in range(1, 5)},
        phase=-1,
        energy=HARTREE,
        length=BOHR,
    ),
    # x, y, z in every p shell
    "cartesian-p": Convention("cartesian-p", order={1: (1, 2, 0)}),
}


def convention(name: str) -> Convention:
    """A convention by name (ConfigError if there is none)."""
    if name not in CONVENTIONS:
        raise ConfigError(f"unknown convention {name!r}; known: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
