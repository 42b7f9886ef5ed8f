"""Many-body features: symmetric products of one atom's components, channel by channel, with weights of its element.

The product basis of MACE (Batatia et al., NeurIPS 2022, eqs. 10 and 11)::

    B_LM[k] = Σ_ν Σ_η w_ν[z, η, k] Σ_{m₁…m_ν} U_ν[η, M; m₁ … m_ν] Π_ξ A[m_ξ, k],      ν = 1 … correlation

U are the couplings of ν components to degree L and its natural parity, one for each way to couple them one after the other. Ways that differ
may give the same polynomial; all have a weight, as published. Factors commute, so the sum over η is done first, on the weights: what is left
is one sparse polynomial of the components for each output, whose coefficients depend on element and channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.nn.equivariant import Kinds
from naica.nn.so3 import Irrep, coupling, natural

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_CORRELATION = 3


@cache
def _coupled(most: int, order: int) -> list[tuple[Irrep, Floats]]:
    """All ways to couple `order` factors, each with the components of degrees 0 … `most`: what comes out, and (2l + 1, M, … M)."""
    size = (most + 1) ** 2
    if order == 1:
        found = []
        for degree in range(most + 1):
            rows = np.zeros((2 * degree + 1, size))
            rows[:, degree**2 : (degree + 1) ** 2] = np.eye(2 * degree + 1)
            found.append((natural(degree), rows))
        return found
    found = []
    for left, tensor in _coupled(most, order - 1):
        for degree in range(most + 1):
            for result in left.times(natural(degree)):
                block = coupling(left.degree, degree, result.degree).numpy()
                full = np.zeros((result.dim, *tensor.shape[1:], size))
                full[..., degree**2 : (degree + 1) ** 2] = np.einsum("a...,abc->c...b", tensor, block)
                found.append((result, full))
    # degrees in turn, odd parity first; ways of one kind keep their order
    return sorted(found, key=lambda one: one[0])


@dataclass(frozen=True, eq=False)
class Terms:
    """Monomials of one order ν that go to the components of one degree L, with the weights' part in their coefficients.

    Parameters
    ----------
    component : (t) M of each term, 0 … 2L
    factors : (t, ν) components of A, never decreasing
    paths : (t, η) coefficients are ``paths @ w``
    """

    component: Ints
    factors: Ints
    paths: Floats


@cache
def terms(most: int, degree: int, order: int) -> Terms:
    """The terms of products of `order` components of degrees 0 … `most`, coupled to `degree`."""
    ways = [tensor for irrep, tensor in _coupled(most, order) if irrep == natural(degree)]
    size = (most + 1) ** 2
    stack = np.stack(ways, axis=-1).reshape(-1, len(ways))
    used = np.flatnonzero(np.abs(stack).max(axis=1) > 1e-12)
    places = np.stack(np.unravel_index(used, (2 * degree + 1,) + (size,) * order), axis=1)
    places[:, 1:].sort(axis=1)
    names, row = np.unique(places, axis=0, return_inverse=True)
    paths = np.zeros((len(names), len(ways)))
    np.add.at(paths, row.reshape(-1), stack[used])
    paths[np.abs(paths) < 1e-12] = 0.0
    kept = np.abs(paths).max(axis=1) > 0
    return Terms(names[kept, 0], names[kept, 1:], paths[kept])


class ProductBasis(nn.Module):
    """Components of degrees 0 … `most` (N, (most + 1)², K) → for each result's degree (N, 2L + 1, K), with natural parity.

    Parameters
    ----------
    most : highest degree that comes in
    results : degrees that go out
    correlation : most factors of a product, 1 to 3
    elements : how many, each with weights of its own
    channels : K
    """

    def __init__(self, most: int, results: Sequence[int], correlation: int, elements: int, channels: int) -> None:
        super().__init__()
        if not 1 <= correlation <= MOST_CORRELATION:
            raise ConfigError(f"correlation {correlation}; expected 1 to {MOST_CORRELATION}")
        self.most, self.results, self.correlation, self.channels = most, tuple(results), correlation, channels
        self.weights = nn.ParameterDict()
        for degree in self.results:
            for order in range(1, correlation + 1):
                if degree <= most or order > 1:
                    paths = terms(most, degree, order).paths.shape[1]
                    self.weights[f"{degree}_{order}"] = nn.Parameter(torch.randn(elements, paths, channels) / paths)

    def forward(self, x: Tensor, kinds: Kinds) -> list[Tensor]:
        """(N, (most + 1)², K) and the atoms' elements → (N, 2L + 1, K) for each result."""
        return [self._of_degree(x, degree, kinds) for degree in self.results]

    def _of_degree(self, x: Tensor, degree: int, kinds: Kinds) -> Tensor:
        if kinds.alone is not None:
            return self._polynomial(x, degree, kinds.alone)
        found = x.new_zeros(len(x), 2 * degree + 1, self.channels)
        for z, members in kinds.members.items():
            found = found.index_copy(0, members, self._polynomial(torch.index_select(x, 0, members), degree, z))
        return found

    def _polynomial(self, x: Tensor, degree: int, z: int) -> Tensor:
        """By powers: ``Σ_a x_a (c_a + Σ_{b ≥ a} x_b (c_ab + Σ_{c ≥ b} c_abc x_c))`` with dense tables of coefficients."""
        size = x.shape[1]
        low, high = _pairs(size)
        tables = self._tables(degree, z, size, x)
        inner: Tensor | None = None
        if 3 in tables:
            # (K, 2L + 1 times pairs, size) times (K, size, N), a product for each channel
            table = tables[3].permute(2, 0, 1)
            inner = torch.bmm(table, x.permute(2, 1, 0)).permute(2, 1, 0).unflatten(1, (2 * degree + 1, len(low)))
        if 2 in tables:
            inner = tables[2] if inner is None else inner + tables[2]
        found = x.new_zeros(len(x), 2 * degree + 1, self.channels)
        if inner is not None:
            pairs = torch.index_select(x, 1, low) * torch.index_select(x, 1, high)
            found = found + (inner * pairs[:, None]).sum(2)
        if 1 in tables:
            found = found + (tables[1] * x[:, None]).sum(2)
        return found

    def _tables(self, degree: int, z: int, size: int, x: Tensor) -> dict[int, Tensor]:
        """Dense coefficients by order: (2L + 1, size, K), (2L + 1, pairs, K), (2L + 1 times pairs, size, K)."""
        found = {}
        pairs = size * (size + 1) // 2
        for order in range(1, self.correlation + 1):
            name = f"{degree}_{order}"
            if name not in self.weights:
                continue
            some = terms(self.most, degree, order)
            values = torch.from_numpy(some.paths).to(x) @ self.weights[name][z]
            shape = (2 * degree + 1, *((size,), (pairs,), (pairs, size))[order - 1], self.channels)
            table = (
                x.new_zeros(shape).flatten(0, -2).index_copy(0, torch.from_numpy(_places(self.most, degree, order)).to(x.device), values)
            )
            found[order] = table.view(-1, size, self.channels) if order == 3 else table.view(shape)
        return found


@cache
def _pairs(size: int) -> tuple[Tensor, Tensor]:
    pairs = torch.tensor(list(combinations_with_replacement(range(size), 2)))
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous()


@cache
def _places(most: int, degree: int, order: int) -> Ints:
    """Where the terms stand in the dense tables."""
    some, size = terms(most, degree, order), (most + 1) ** 2
    place = some.factors[:, 0]
    if order > 1:
        number = np.zeros((size, size), np.int64)
        low, high = np.triu_indices(size)
        number[low, high] = np.arange(len(low))
        place = number[some.factors[:, 0], some.factors[:, 1]]
    if order > 2:
        place = place * size + some.factors[:, 2]
    rows = {1: size, 2: size * (size + 1) // 2, 3: size * (size + 1) // 2 * size}[order]
    found: Ints = some.component * rows + place
    return found
