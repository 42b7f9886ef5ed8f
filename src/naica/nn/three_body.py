"""Sums over the pairs of an atom's neighbours without a list of pairs.

A three-body sum over the neighbours k ≠ j of i, with a function of the angle between the two bonds, ::

    t_ij,ln = Σ_{k≠j} x_ik,ln Y_l⁰(cos θ_jik)

falls apart by the addition theorem, ``Y_l⁰(cos θ) = √(4π / (2l + 1)) Σ_m Y_lm(r̂_ij) Y_lm(r̂_ik)``: the sum over k is made once per atom and
read by every bond, ::

    t_ij,ln = Σ_m Y'_lm(r̂_ij) A_i,lmn − Y_l⁰(1) x_ij,ln,   A_i,lmn = Σ_k Y'_lm(r̂_ik) x_ik,ln,

the last term being the pair of a bond with itself. Cost and memory grow with the bonds and not with their pairs (silicon within
4 Å: 16 bonds and 240 pairs to an atom). `naica.nn.triplets` lists the pairs; the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import factorial, pi, prod, sqrt

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NeighbourSums:
    """The angular parts of the bonds (E) of N atoms, made once and used by every layer.

    Parameters
    ----------
    receiver : (E) atom each bond belongs to
    angular : (E, K) Y'_lm of each bond, repeated for every radial function: K = (degrees)² · radial
    spread : (L·R, K) 0 or 1, copies a value of degree l and radial function n to all its m
    itself : (L·R) Y_l⁰(1)
    atoms : N
    """

    receiver: Tensor
    angular: Tensor
    spread: Tensor
    itself: Tensor
    atoms: int

    @classmethod
    def of(cls, direction: Tensor, receiver: Tensor, atoms: int, degrees: int, radial: int) -> NeighbourSums:
        """From unit vectors (E, 3) of the bonds, for degrees l < `degrees` and `radial` functions of each."""
        order = [degree * degree + m for degree in range(degrees) for m in range(2 * degree + 1) for _ in range(radial)]
        copies, itself = _copies(degrees, radial)
        angular = harmonics(direction, degrees, order)
        return cls(receiver, angular, copies.to(direction), itself.to(direction), atoms)

    def __call__(self, x: Tensor) -> Tensor:
        """Bond values x (E, L·R), degree by degree → three-body sums t (E, L·R)."""
        of_atoms = x.new_zeros(self.atoms, self.angular.shape[1]).index_add(0, self.receiver, (x @ self.spread) * self.angular)
        return (torch.index_select(of_atoms, 0, self.receiver) * self.angular) @ self.spread.T - x * self.itself


@cache
def _copies(degrees: int, radial: int) -> tuple[Tensor, Tensor]:
    """`NeighbourSums.spread` and `NeighbourSums.itself`."""
    places = [degree * radial + n for degree in range(degrees) for _ in range(2 * degree + 1) for n in range(radial)]
    itself = torch.tensor([_at_zero(degree) for degree in range(degrees) for _ in range(radial)], dtype=torch.float64)
    return torch.eye(degrees * radial, dtype=torch.float64)[:, places], itself


def harmonics(direction: Tensor, degrees: int, order: Sequence[int] | None = None) -> Tensor:
    """Real spherical harmonics (E, degrees²) of unit vectors (E, 3), scaled so that ``Σ_m Y'_lm(a) Y'_lm(b)`` is Y_l⁰ of the angle between.

    In the order l, then m = −l … l, or the columns `order` of that. Polynomials in x, y and z, so smooth everywhere: a linear map of the
    products ``1, x … z, xx, xy … zz, …``.
    """
    powers = [direction.new_ones(direction.shape[0], 1)]
    for _ in range(degrees - 1):
        powers.append((powers[-1][:, :, None] * direction[:, None, :]).flatten(1))
    columns = tuple(range(degrees * degrees)) if order is None else tuple(order)
    return torch.cat(powers, dim=1) @ _coefficients(degrees, columns).to(direction)


@cache
def _coefficients(degrees: int, columns: tuple[int, ...]) -> Tensor:
    """(products, columns): the harmonics as sums of products of x, y and z, found by least squares from their values at many directions."""
    draw = np.random.default_rng(0).normal(size=(8 * degrees * degrees + 8, 3))
    directions = torch.from_numpy(draw / np.linalg.norm(draw, axis=1, keepdims=True))
    values = _harmonic_values(directions, degrees)
    power, maps = torch.ones(len(directions), 1, dtype=torch.float64), []
    for degree in range(degrees):
        wanted = torch.zeros_like(values)
        wanted[:, degree * degree : (degree + 1) ** 2] = values[:, degree * degree : (degree + 1) ** 2]
        maps.append(torch.linalg.pinv(power, rtol=1e-9) @ wanted)
        power = (power[:, :, None] * directions[:, None, :]).flatten(1)
    return torch.cat(maps)[:, list(columns)]


def _harmonic_values(direction: Tensor, degrees: int) -> Tensor:
    """The harmonics by their recurrences."""
    x, y, z = direction.unbind(1)
    one = torch.ones_like(z)
    cosines, sines = [one], [torch.zeros_like(z)]
    for _ in range(degrees - 1):
        cosines.append(x * cosines[-1] - y * sines[-1])
        sines.append(x * sines[-1] + y * cosines[-2])
    # associated Legendre functions by l and m, without their factor sin^m, which is in x and y above
    legendre: list[list[Tensor]] = []
    for degree in range(degrees):
        row = []
        for m in range(degree + 1):
            if m == degree:
                row.append(one * float(prod(range(1, 2 * m, 2))))
            elif m == degree - 1:
                row.append(z * (2 * m + 1) * legendre[-1][m])
            else:
                row.append(((2 * degree - 1) * z * legendre[-1][m] - (degree + m - 1) * legendre[-2][m]) / (degree - m))
        legendre.append(row)
    found = []
    for degree in range(degrees):
        # the harmonics' own products sum to (2l + 1)/4π P_l = Y_l⁰(1) Y_l⁰
        scale = _at_zero(degree) ** 0.5
        for m in range(-degree, degree + 1):
            a = abs(m)
            height = scale if m == 0 else scale * sqrt(2 * factorial(degree - a) / factorial(degree + a))
            found.append(height * legendre[degree][a] * (sines[a] if m < 0 else cosines[a]))
    return torch.stack(found, dim=1)


def _at_zero(degree: int) -> float:
    """Y_l⁰(1)."""
    return sqrt((2 * degree + 1) / (4 * pi))
