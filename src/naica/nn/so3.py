"""Irreducible representations of rotations and inversion: names, harmonics of edges, couplings, matrices of rotations.

A feature of degree l and parity p is a tensor (N, 2l + 1, C): components first, channels last and contiguous, so that a linear map of the
channels is one matrix product. Components are in the order and with the signs of e3nn (``naica.nn.solid``), and so are the couplings.
"""

from __future__ import annotations

import ctypes
from functools import cache
from math import factorial, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from naica.errors import ConfigError
from naica.nn.compiled import library
from naica.nn.solid import harmonic_slopes, harmonics, three_j

# of the compiled functions: the highest degree, and what their names end in
_MOST = 10
_SUFFIX = {torch.float32: "_f", torch.float64: "_d"}


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
    unit = vector / length[:, None]
    if (
        unit.device.type == "cpu"
        and unit.dtype in _SUFFIX
        and most <= _MOST
        and not torch.compiler.is_compiling()
        and _functions() is not None
    ):
        return _Harmonics.apply(unit, most)  # type: ignore[no-any-return]
    return harmonics(unit.t().contiguous(), most).t()


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


# --- compiled ----------------------------------------------------------------------------------------------------------------------------
@cache
def _functions() -> ctypes.CDLL | None:
    """``so3.c``: harmonics in rows of edges and their derivatives, each in one call."""
    found = library("so3")
    if found is not None:
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        for suffix in _SUFFIX.values():
            for name, pointers in (
                ("harmonics", (pointer,) * 3),
                ("gradients", (pointer, number, *(pointer,) * 3)),
                ("second", (pointer, number, *(pointer,) * 5)),
            ):
                function = getattr(found, name + suffix)
                function.argtypes, function.restype = (number, number, *pointers), None
    return found


def _call(name: str, unit: Tensor, most: int, *rest: Any) -> None:
    pointers = [one.data_ptr() if isinstance(one, Tensor) else one for one in rest]
    getattr(_functions(), name + _SUFFIX[unit.dtype])(len(unit), most, *pointers)


@cache
def _norms(most: int) -> Tensor:
    """((most + 1)²) factors of the harmonics, the same for ±m."""
    found = torch.zeros((most + 1) ** 2, dtype=torch.float64)
    for degree in range(most + 1):
        for m in range(degree + 1):
            norm = sqrt((2 * degree + 1) * (2 if m else 1) * factorial(degree - m) / factorial(degree + m))
            found[degree * degree + degree + m] = found[degree * degree + degree - m] = norm
    return found


_ENTRY = np.dtype([("axis", np.int32), ("of", np.int32), ("lower", np.int32), ("unused", np.int32), ("factor", np.float64)])


@cache
def _entries(most: int) -> np.ndarray[Any, Any]:
    """Coefficients of the gradients of harmonics in harmonics one degree lower: each is what the gradient is for that one alone."""
    found = []
    for lower in range(most**2):
        values = torch.zeros((most + 1) ** 2, 1, dtype=torch.float64)
        values[lower] = 1.0
        slopes = harmonic_slopes(values, most)[:, :, 0]
        found += [(axis, of, lower, 0, float(slopes[axis, of])) for axis, of in slopes.nonzero().tolist()]
    return np.array(found, dtype=_ENTRY)


class _Harmonics(Function):
    @staticmethod
    def forward(ctx: Any, unit: Tensor, most: int) -> Tensor:
        rows = unit.contiguous()
        values = rows.new_empty(len(rows), (most + 1) ** 2)
        _call("harmonics", rows, most, _norms(most), rows, values)
        ctx.save_for_backward(unit, values)
        ctx.most = most
        return values

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        unit, values = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _Gradients.apply(unit, values.detach(), g[0], ctx.most), None
        return _gradients(values, g[0], ctx.most), None


def _gradients(values: Tensor, g: Tensor, most: int) -> Tensor:
    entries, found = _entries(most), values.new_empty(len(values), 3)
    _call("gradients", values, most, entries.ctypes.data, len(entries), values, g.contiguous(), found)
    return found


class _Gradients(Function):
    """Derivatives by the unit vectors, as functions of those and of the cotangents; `values` are the harmonics of the same vectors."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor, values: Tensor, g: Tensor, most: int) -> Tensor:
        ctx.save_for_backward(unit, values, g)
        ctx.most = most
        return _gradients(values, g, most)

    @staticmethod
    def backward(ctx: Any, *changes: Tensor) -> tuple[Tensor | None, ...]:
        unit, values, g = ctx.saved_tensors
        if torch.is_grad_enabled():
            again = harmonics(unit.t().contiguous(), ctx.most).t()
            (slope,) = torch.autograd.grad((again * g).sum(), unit, create_graph=True)
            g_unit, g_g = torch.autograd.grad((slope * changes[0]).sum(), (unit, g), create_graph=True, allow_unused=True)
            return g_unit, None, g_g, None
        entries, g_g, g_unit = (
            _entries(ctx.most),
            torch.empty_like(values),
            torch.empty_like(changes[0], memory_format=torch.contiguous_format),
        )
        pointers = (entries.ctypes.data, len(entries), values, g.contiguous(), changes[0].contiguous(), g_g, g_unit)
        _call("second", values, ctx.most, *pointers)
        return g_unit, None, g_g, None
