"""Blocks ↔ irreps: one change of basis for every pair of shells, so that networks speak of tensors of one degree and nothing else.

All species share one padded block: for each l as many shells as the richest species has. A padded block (n, n) becomes, by one orthogonal
matrix, tensors of degree J = |l₁ − l₂| … l₁ + l₂ for each pair of shells; J with l₁ + l₂ + J even are ordinary (parity (−1)^J), the
others are
pseudo-tensors, and both are needed. The transposed block has (−1)^(l₁ + l₂ − J) times the same numbers, so a pair and its reverse agree.

A block of spinors is four padded blocks (`naica.hamiltonian.spinors`): h, whose tensors are those above, and g, whose three are the axial
vector of spin: (l₁ ⊗ ½) ⊗ (l₂ ⊗ ½) = (l₁ ⊗ l₂) ⊗ (0 ⊕ 1). Each J is coupled with 1 to J − 1, J, J + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import InputError
from naica.hamiltonian.basis import Basis

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Channel:
    """One tensor of a padded block: shells (by place in the padded list), its degree, whether it is a pseudo-tensor.

    `orbital` is the degree J of the two shells coupled; for what spin adds, J and the axial vector of spin are coupled to `degree`.
    """

    left: int
    right: int
    degree: int
    pseudo: bool
    orbital: int
    spin: bool = False


class BlockLayout:
    """How the blocks of some species are laid out.

    Parameters
    ----------
    basis : of each species, by atomic number
    spin : whether blocks are of spinors

    Attributes
    ----------
    shells : l of each shell of the padded block
    size : orbitals of the padded block, of one spin
    components : padded blocks of a pair: 1, with spin 4
    channels : of the irreps, in order of (degree, pseudo)
    """

    def __init__(self, basis: Mapping[int, Basis], spin: bool = False) -> None:
        if not basis:
            raise InputError("no species; expected at least one basis")
        self.basis, self.spin, self.components = dict(basis), spin, 4 if spin else 1
        most = max(max(b.shells) for b in basis.values())
        self.shells = [shell for shell in range(most + 1) for _ in range(max(b.shells.count(shell) for b in basis.values()))]
        self.size = sum(2 * shell + 1 for shell in self.shells)
        couplings = [
            (a, b, la + lb, degree)
            for a, la in enumerate(self.shells)
            for b, lb in enumerate(self.shells)
            for degree in range(abs(la - lb), la + lb + 1)
        ]
        found = [Channel(a, b, degree, bool((total + degree) % 2), degree) for a, b, total, degree in couplings]
        if spin:
            # an axial vector has the parity of a scalar
            found += [
                Channel(a, b, whole, bool((total + whole) % 2), degree, True)
                for a, b, total, degree in couplings
                for whole in range(abs(degree - 1), degree + 2)
            ]
        self.channels = sorted(found, key=lambda c: (c.degree, c.pseudo))

    @property
    def width(self) -> int:
        """Numbers of a pair: components times the square of the size."""
        return self.components * self.size**2

    @property
    def most(self) -> int:
        """Largest degree of a tensor."""
        return max(c.degree for c in self.channels)

    @cached_property
    def counts(self) -> dict[tuple[int, bool], int]:
        """Number of channels by (degree, pseudo), in order."""
        found: dict[tuple[int, bool], int] = {}
        for c in self.channels:
            found[c.degree, c.pseudo] = found.get((c.degree, c.pseudo), 0) + 1
        return found

    @cached_property
    def orbitals(self) -> dict[int, NDArray[np.int64]]:
        """By atomic number, the place in the padded block of each of the species' orbitals."""
        starts = np.cumsum([0, *(2 * shell + 1 for shell in self.shells)])
        places = {}
        for z, b in self.basis.items():
            seen: dict[int, int] = {}
            own: list[int] = []
            for shell in b.shells:
                slot = self.shells.index(shell) + seen.get(shell, 0)
                seen[shell] = seen.get(shell, 0) + 1
                own += list(range(starts[slot], starts[slot + 1]))
            places[z] = np.array(own)
        return places

    @cached_property
    def change(self) -> Array:
        """(width, width) orthogonal: flattened padded blocks @ change = irreps, by (degree, pseudo), then m, then channel."""
        starts = np.cumsum([0, *(2 * shell + 1 for shell in self.shells)])
        columns: list[Array] = []
        for group in self.counts:
            own = [c for c in self.channels if (c.degree, c.pseudo) == group]
            parts = np.zeros((len(own), 2 * group[0] + 1, self.components, self.size, self.size))
            for k, c in enumerate(own):
                la, lb = self.shells[c.left], self.shells[c.right]
                span = (slice(starts[c.left], starts[c.left + 1]), slice(starts[c.right], starts[c.right + 1]))
                parts[(k, slice(None), slice(1, None) if c.spin else slice(1), *span)] = _coupling(la, lb, c)
            # m outer, channels inner: a group is then (degree's components, channels) in memory
            columns.append(parts.transpose(1, 0, 2, 3, 4).reshape(-1, self.width))
        return np.concatenate(columns).T

    def mask(self, number: int) -> Array:
        """(n) one where the species has an orbital of the padded list."""
        found = np.zeros(self.size)
        found[self.orbitals[number]] = 1.0
        return found

    def padded(self, blocks: Sequence[Array], left: NDArray[np.integer], right: NDArray[np.integer]) -> Array:
        """Blocks (n_i, n_j) of atoms with these atomic numbers → (P, n, n), zeros where there is no orbital."""
        result = np.zeros((len(blocks), self.size, self.size), dtype=np.result_type(*blocks) if len(blocks) else np.float64)
        for k, block in enumerate(blocks):
            result[k][np.ix_(self.orbitals[int(left[k])], self.orbitals[int(right[k])])] = block
        return result

    def split(self, irreps: Tensor) -> dict[tuple[int, bool], Tensor]:
        """Irreps (P, width) → by (degree, pseudo) tensors (P, 2J + 1, channels)."""
        sizes = [(2 * degree + 1) * count for (degree, _), count in self.counts.items()]
        parts = irreps.split(sizes, dim=1)
        return {key: part.view(len(irreps), 2 * key[0] + 1, -1) for key, part in zip(self.counts, parts, strict=True)}

    def joined(self, tensors: Mapping[tuple[int, bool], Tensor]) -> Tensor:
        """The way back: (P, width)."""
        return torch.cat([tensors[key].reshape(len(tensors[key]), -1) for key in self.counts], dim=1)


# places of spin's axes x, y, z among the components of a vector in std order: y, z, x
_AXES = (2, 0, 1)


def _coupling(left: int, right: int, channel: Channel) -> Array:
    """(degree's components, 1 or 3 spin axes, 2·left + 1, 2·right + 1) of unit norm for each component."""
    from naica.nn.solid import three_j

    orbital = three_j(left, right, channel.orbital) * np.sqrt(2 * channel.orbital + 1)
    if not channel.spin:
        return np.asarray(orbital.transpose(2, 0, 1)[:, None])
    spin = three_j(1, channel.orbital, channel.degree)[list(_AXES)] * np.sqrt(2 * channel.degree + 1)
    return np.asarray(np.einsum("smd,abm->dsab", spin, orbital))
