"""Real spherical harmonics and how rotations act on them, in std order (m = −l … l); NumPy alone, for readers and checks."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import sph_harm_y

Array = NDArray[np.float64]


def harmonics(directions: Array, most: int) -> list[Array]:
    """For l = 0 … `most` the real spherical harmonics (n, 2l + 1) of directions (n, 3), orthonormal on the sphere, without (−1)^m."""
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    theta, phi = np.arccos(np.clip(unit[:, 2], -1, 1)), np.arctan2(unit[:, 1], unit[:, 0])
    found = []
    for degree in range(most + 1):
        columns: list[Array] = []
        for m in range(-degree, degree + 1):
            y = sph_harm_y(degree, abs(m), theta, phi) * (-1) ** m  # takes the Condon–Shortley phase off
            columns.append(np.sqrt(2) * (y.imag if m < 0 else y.real) if m else y.real)
        found.append(np.stack(columns, axis=1))
    return found


@cache
def _sample(most: int) -> tuple[Array, list[Array]]:
    """Directions enough to tell all harmonics apart, and the inverse of their values."""
    directions = np.random.default_rng(0).normal(size=(6 * most + 10, 3))
    inverse: list[Array] = [np.linalg.pinv(y).astype(np.float64) for y in harmonics(directions, most)]
    return directions, inverse


def wigner_matrices(turn: Array, most: int) -> list[Array]:
    """For l = 0 … `most` the D (2l + 1, 2l + 1) with Y(Q r) = D Y(r), for a rotation or reflection Q (3, 3)."""
    directions, inverse = _sample(most)
    return [(pinv @ y).T for pinv, y in zip(inverse, harmonics(directions @ turn.T, most), strict=True)]


def wigner_many(turns: Array, most: int) -> list[Array]:
    """`wigner_matrices` of many rotations (n, 3, 3): for l = 0 … `most` an array (n, 2l + 1, 2l + 1)."""
    directions, inverse = _sample(most)
    turned = np.einsum("si,nji->nsj", directions, turns)
    values = harmonics(turned.reshape(-1, 3), most)
    return [
        np.einsum("as,nsb->nba", pinv, y.reshape(len(turns), len(directions), -1), optimize=True)
        for pinv, y in zip(inverse, values, strict=True)
    ]
