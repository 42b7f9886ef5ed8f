"""Real harmonics in rows, one per component, with derivatives by matrix products: fast where directions are many.

Order, signs and norm are those of e3nn ("component": ``Σ_m Y_lm² = 2l + 1``; l = 1 is √3 (x, y, z)). The gradient of a solid harmonic of
degree l is a sum of solid harmonics of degree l − 1, ``∂_a S_l = G_a S_{l−1}``, so derivatives of any order need no new functions.
"""

from __future__ import annotations

from functools import cache, lru_cache
from math import factorial, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function


def _solid(l_max: int, x: Tensor, y: Tensor, z: Tensor, square: Tensor | float) -> list[Tensor]:
    """Solid harmonics of the points (M), a row for each of the (l_max + 1)² components; `square` is x² + y² + z²."""
    rows: list[Tensor | None] = [None] * (l_max + 1) ** 2
    # around the polar axis, which is y: cos and sin of m times the azimuth, times the sine of the polar angle to the m
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    along = 1.0
    for m in range(l_max + 1):
        before, now = torch.zeros_like(x), torch.full_like(x, along)
        for l in range(m, l_max + 1):  # noqa: E741 - l is what everybody calls it
            if l > m:
                nxt = ((2 * l - 1) * y * now - (l + m - 1) * square * before) / (l - m)
                before, now = now, nxt
            norm = sqrt((2 * l + 1) * (2 if m else 1) * factorial(l - m) / factorial(l + m))
            rows[l * l + l + m] = norm * now * cosine
            if m:
                rows[l * l + l - m] = norm * now * sine
        cosine, sine = z * cosine - x * sine, z * sine + x * cosine
        along *= 2 * m + 1
    return [row for row in rows if row is not None]


@lru_cache(maxsize=32)
def _gradient(l: int) -> Tensor:  # noqa: E741
    """(2l + 1, 3, 2l − 1): ``∂_a S_lm = Σ G[m, a, m'] S_{l−1,m'}``, found from values at points and rounded to its sparse self."""
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        points = torch.randn(3, 40 * l, generator=generator, dtype=torch.float64).requires_grad_()
        rows = _solid(l, points[0], points[1], points[2], points.square().sum(0))
        lower = torch.stack(rows[(l - 1) ** 2 : l**2]).detach()
        slopes = torch.stack([torch.autograd.grad(row.sum(), points, retain_graph=True)[0] for row in rows[l * l :]])
    found = torch.linalg.lstsq(lower.T, slopes.reshape(-1, points.shape[1]).T).solution.T.reshape(2 * l + 1, 3, 2 * l - 1)
    found[found.abs() < 1e-9] = 0.0
    return found


class _Harmonics(Function):
    @staticmethod
    def forward(ctx: Any, unit: Tensor, l_max: int) -> Tensor:
        values = torch.stack(_solid(l_max, unit[0], unit[1], unit[2], 1.0))
        ctx.l_max = l_max
        ctx.save_for_backward(unit, values)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        unit, values = ctx.saved_tensors
        if torch.is_grad_enabled():
            values = harmonics(unit, ctx.l_max)
        slope = torch.zeros_like(unit)
        for l in range(1, ctx.l_max + 1):  # noqa: E741
            lower = values[(l - 1) ** 2 : l**2]
            matrix = _gradient(l).to(grad).reshape(2 * l + 1, -1)
            slope = slope + ((matrix.T @ grad[l * l : (l + 1) ** 2]).view(3, 2 * l - 1, -1) * lower).sum(1)
        return slope, None


def harmonics(unit: Tensor, l_max: int) -> Tensor:
    """Unit vectors (3, M) → ((l_max + 1)², M); the derivative is that of the solid harmonics, so divide by the length outside."""
    return _Harmonics.apply(unit, l_max)  # type: ignore[no-any-return]


def harmonic_slopes(values: Tensor, l_max: int) -> Tensor:
    """From harmonics ((l_max + 1)², M) of unit vectors, the gradient of the solid harmonics (3, (l_max + 1)², M)."""
    slopes = values.new_zeros(3, *values.shape)
    for l in range(1, l_max + 1):  # noqa: E741
        matrix = _gradient(l).to(values).transpose(0, 1)
        slopes[:, l * l : (l + 1) ** 2] = matrix @ values[(l - 1) ** 2 : l**2]
    return slopes


# --- coupling ----------------------------------------------------------------------------------------------------------------------------
@cache
def three_j(a: int, b: int, c: int) -> NDArray[np.float64]:
    """(2a + 1, 2b + 1, 2c + 1) of norm 1: the invariant of a product of three real harmonics; a + b + c odd gives a pseudo-scalar."""
    complex_basis = np.zeros((2 * a + 1, 2 * b + 1, 2 * c + 1))
    for i in range(-a, a + 1):
        for j in range(max(-b, -c - i), min(b, c - i) + 1):
            complex_basis[a + i, b + j, c + i + j] = _clebsch_gordan(a, i, b, j, c)
    turned = np.einsum("ij,kl,mn,ikm->jln", _to_complex(a), _to_complex(b), _to_complex(c).conj(), complex_basis)
    found: NDArray[np.float64] = turned.real / np.linalg.norm(turned.real)
    found[np.abs(found) < 1e-14] = 0.0
    found.setflags(write=False)
    return found


def _to_complex(l: int) -> NDArray[np.complex128]:  # noqa: E741
    """Real harmonics (columns) in terms of complex ones (rows), times (−i)^l so that real couplings come out."""
    matrix = np.zeros((2 * l + 1, 2 * l + 1), dtype=np.complex128)
    matrix[l, l] = 1.0
    for m in range(1, l + 1):
        matrix[l - m, l + m], matrix[l - m, l - m] = sqrt(0.5), -1j * sqrt(0.5)
        matrix[l + m, l + m], matrix[l + m, l - m] = (-1) ** m * sqrt(0.5), 1j * (-1) ** m * sqrt(0.5)
    return (-1j) ** l * matrix


def _clebsch_gordan(a: int, i: int, b: int, j: int, c: int) -> float:
    """⟨a i b j | c i+j⟩ by Racah's sum."""
    k, f = i + j, factorial
    before = (2 * c + 1) * f(c + a - b) * f(c - a + b) * f(a + b - c) / f(a + b + c + 1)
    before *= f(c + k) * f(c - k) * f(a - i) * f(a + i) * f(b - j) * f(b + j)
    total = 0.0
    for t in range(max(0, b - c - i, a - c + j), min(a + b - c, a - i, b + j) + 1):
        total += (-1) ** t / (f(t) * f(a + b - c - t) * f(a - i - t) * f(b + j - t) * f(c - b + i + t) * f(c - a - j + t))
    return sqrt(before) * total
