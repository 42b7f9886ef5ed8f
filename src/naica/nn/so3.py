"""Irreducible representations of rotations and inversion: names, harmonics of edges, couplings, matrices of rotations.

A feature of degree l and parity p is a tensor (N, 2l + 1, C): components first, channels last and contiguous, so that a linear map of the
channels is one matrix product. Components are in the order and with the signs of e3nn (``naica.nn.solid``), and so are the couplings.
"""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from naica.errors import ConfigError
from naica.nn.solid import harmonics, three_j


class Irrep(NamedTuple):
    """Degree l and parity p: +1 or −1."""

    degree: int
    parity: int

    @property
    def dim(self) -> int:
        """2l + 1."""
        return 2 * self.degree + 1

    def __str__(self) -> str:
        return f"{self.degree}{'e' if self.parity > 0 else 'o'}"

    def times(self, other: Irrep) -> list[Irrep]:
        """What the product of two is made of, lowest degree first."""
        low, high = abs(self.degree - other.degree), self.degree + other.degree
        return [Irrep(degree, self.parity * other.parity) for degree in range(low, high + 1)]


def natural(degree: int) -> Irrep:
    """The parity harmonics have: (−1)^l."""
    return Irrep(degree, (-1) ** degree)


def edge_harmonics(vector: Tensor, length: Tensor, most: int) -> Tensor:
    """Harmonics up to degree `most` of the directions of edges (E, 3) of length (E): (E, (most + 1)²), ``Σ_m Y_lm² = 2l + 1``."""
    unit = (vector / length[:, None]).t().contiguous()
    return harmonics(unit, most).t()


def coupling(first: int, second: int, result: int) -> Tensor:
    """(2l₁ + 1, 2l₂ + 1, 2l₃ + 1) coupling of degrees in 64 bits, ``√(2l₃ + 1)`` times the 3j symbols: products of components of variance 1
    have components of variance 1.

    Raises
    ------
    ConfigError
        If the degrees do not couple.
    """
    if not abs(first - second) <= result <= first + second:
        raise ConfigError(f"degrees {first} and {second} do not couple to {result}; expected {abs(first - second)} to {first + second}")
    return sqrt(2 * result + 1) * torch.tensor(three_j(first, second, result))


@cache
def _directions(degree: int) -> tuple[Tensor, Tensor]:
    """Directions (s, 3) that tell the harmonics of a degree apart, and the pseudo-inverse (2l + 1, s) of their values."""
    points = torch.randn(8 * degree + 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return points, torch.linalg.pinv(_of_degree(points, degree))


def _of_degree(points: Tensor, degree: int) -> Tensor:
    return edge_harmonics(points, torch.linalg.vector_norm(points, dim=1), degree)[:, degree**2 :]


def turn_matrix(turn: Tensor, irrep: Irrep) -> Tensor:
    """How components of a feature change when space is turned by `turn` (3, 3), with or without inversion: x → D x, D (2l + 1, 2l + 1)."""
    points, inverse = _directions(irrep.degree)
    exact = turn.double()
    found = (inverse @ _of_degree(points @ exact.T, irrep.degree)).T
    improper = bool(torch.linalg.det(exact) < 0)
    # harmonics change sign under inversion by their own parity; the feature may have the other one
    return (-found if improper and irrep.parity != (-1) ** irrep.degree else found).to(turn)
