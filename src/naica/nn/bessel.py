"""Functions of a distance made of Bessel functions, and the polynomial that brings them to zero at the cut-off."""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naica.errors import ConfigError

Floats = NDArray[np.float64]

# below this the recurrence for spherical Bessel functions loses digits and their series takes over
_SMALL = 1.0
_TERMS = 9


class RadialFunctions(nn.Module):
    """Functions of a distance alone: `plain` in torch, and `both`, values with slopes, to spare steps where weights are fixed."""

    def plain(self, length: Tensor) -> Tensor:
        """(E) Å → (E, number), differentiable any number of times."""
        raise NotImplementedError

    def both(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """(E) Å → values and slopes (E, number)."""
        raise NotImplementedError

    def forward(self, length: Tensor) -> Tensor:
        """(E) Å → (E, number)."""
        fixed = not any(p.requires_grad for p in self.parameters()) and not torch.compiler.is_compiling()
        return _Radial.apply(length, self) if fixed and length.requires_grad and torch.is_grad_enabled() else self.plain(length)


class _Radial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, length: Tensor, functions: RadialFunctions) -> Tensor:
        values, slopes = functions.both(length)
        ctx.save_for_backward(length, slopes)
        ctx.functions = functions
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        length, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():
            return torch.autograd.grad(ctx.functions.plain(length), length, gradients[0], create_graph=True)[0], None
        return (gradients[0] * slopes).sum(1), None


def envelope(length: Tensor, cutoff: float, power: int) -> Tensor:
    """``1 − (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) − p(p+1)/2 x^(p+2)`` of x = d / r_c (E), 0 from the cut-off on.

    Twice continuously differentiable. Computed in 64 bits: near the cut-off the four terms cancel.
    """
    x, p = length.double() / cutoff, power
    value = 1 + x**p * (x * (x * (-p * (p + 1) / 2) + p * (p + 2)) - (p + 1) * (p + 2) / 2)
    return torch.where(x < 1, value, 0.0).to(length.dtype)


def envelope_slope(length: Tensor, cutoff: float, power: int) -> Tensor:
    """The derivative of `envelope` (E), in 1/Å: ``−p(p+1)(p+2)/2 x^(p−1) (1 − x)² / r_c``."""
    x = (length / cutoff).clamp(max=1)
    return x ** (power - 1) * (1 - x) ** 2 * (-power * (power + 1) * (power + 2) / (2 * cutoff))


class SmoothBessel(RadialFunctions):
    """Functions h_n on [0, r_c], orthonormal with the weight r², that vanish at r_c with their first and second derivatives.

    Sums of two ``sin(kπr/r_c) / r``, made orthogonal one after the other (Kocer, Mason and Erturk, AIP Adv. 10, 015021, 2020; M3GNet).

    Parameters
    ----------
    number : how many functions
    cutoff : r_c in Å
    """

    def __init__(self, number: int, cutoff: float) -> None:
        super().__init__()
        if number < 1 or cutoff <= 0:
            raise ConfigError(f"{number} radial functions up to {cutoff} Å; expected at least 1 and a positive cut-off")
        # constants keep 64 bits whatever the precision of the weights, so they are no buffers
        self.waves, self.mixing = torch.arange(1, number + 2, dtype=torch.float64) * (pi / cutoff), _smooth_mixing(number, cutoff)

    def plain(self, length: Tensor) -> Tensor:
        """(E) Å → (E, number)."""
        x = length[:, None] * self.waves.to(length)
        return (torch.sin(x) / x) @ self.mixing.to(length).T

    def both(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """(E) Å → values and slopes (E, number)."""
        x = length[:, None] * self.waves.to(length)
        wave, mixing = torch.sin(x).div_(x), self.mixing.to(length).T
        return wave @ mixing, (torch.cos(x).sub_(wave).div_(length[:, None])) @ mixing


def _smooth_mixing(number: int, cutoff: float) -> Tensor:
    """(number, number + 1): h_n as sums of sinc(kπr/r_c), k = 1 … number + 1."""
    rows = np.zeros((number, number + 1))
    d = 1.0
    for n in range(number):
        f = np.zeros(number + 1)
        f[n : n + 2] = (-1) ** n * sqrt(2) * pi * cutoff**-1.5 * (n + 1) * (n + 2) / sqrt(2 * n * n + 6 * n + 5)
        e = n**2 * (n + 2) ** 2 / (4 * (n + 1) ** 4 + 1)
        before, d = d, 1 - e / d if n else 1.0
        rows[n] = (f + (sqrt(e / before) * rows[n - 1] if n else 0.0)) / sqrt(d)
    return torch.from_numpy(rows)


class SphericalBessel(RadialFunctions):
    """``√(2/r_c³) / |j_{l+1}(z_ln)| · j_l(z_ln r / r_c) · u(r)``, and u itself as the last.

    z_ln is the n-th root of j_l, u the `envelope` of power 3.

    Parameters
    ----------
    degrees, radial : l < degrees, `radial` functions of each
    cutoff : r_c in Å
    reach : cut-off of the envelope in Å
    """

    def __init__(self, degrees: int, radial: int, cutoff: float, reach: float) -> None:
        super().__init__()
        if degrees < 1 or radial < 1 or cutoff <= 0:
            raise ConfigError(f"{degrees} degrees of {radial} functions up to {cutoff} Å; expected at least 1, 1 and a positive cut-off")
        self.degrees, self.reach = degrees, reach
        roots, heights = spherical_roots(degrees, radial)
        self.roots, self.heights = torch.from_numpy(roots / cutoff), torch.from_numpy(heights * sqrt(2 / cutoff**3))

    def plain(self, length: Tensor) -> Tensor:
        """(E) Å → (E, degrees · radial + 1), degree by degree, u last."""
        cut = envelope(length, self.reach, 3)[:, None]
        j = _spherical(length[:, None, None] * self.roots.to(length))
        values = torch.stack([j[degree][:, degree] for degree in range(self.degrees)], dim=1)
        return torch.cat([(values * self.heights.to(length)).flatten(1) * cut, cut], dim=1)

    def both(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """(E) Å → values and slopes (E, degrees · radial + 1)."""
        cut, bend = envelope(length, self.reach, 3)[:, None], envelope_slope(length, self.reach, 3)[:, None]
        roots, heights = self.roots.to(length), self.heights.to(length)
        x = length[:, None, None] * roots
        j = _spherical(x)
        values = torch.stack([j[degree][:, degree] for degree in range(self.degrees)], dim=1)
        # j_l' = l / x j_l − j_{l+1}
        above = torch.stack([j[degree + 1][:, degree] for degree in range(self.degrees)], dim=1)
        order = torch.arange(self.degrees, dtype=x.dtype, device=x.device)[:, None]
        slopes = ((order / x * values - above) * (roots * heights)).flatten(1)
        values = (values * heights).flatten(1)
        return torch.cat([values * cut, cut], dim=1), torch.cat([slopes * cut + values * bend, bend], dim=1)


def _spherical(x: Tensor) -> list[Tensor]:
    """j_0(x) … j_L(x) for x (E, L, R): one degree more than x has rows."""
    degrees = x.shape[1] + 1
    sine, cosine = torch.sin(x), torch.cos(x)
    found = [sine / x]
    found.append((found[0] - cosine) / x)
    for degree in range(1, degrees - 1):
        found.append((2 * degree + 1) / x * found[-1] - found[-2])
    if not torch.compiler.is_compiling() and (not x.numel() or float(x.detach().min()) >= _SMALL):
        return found
    small, near = x < _SMALL, x.clamp(max=_SMALL)
    square = near * near
    for degree, coefficients in enumerate(_series(degrees)):
        series = torch.zeros_like(near)
        for coefficient in reversed(coefficients):
            series = series * square + float(coefficient)
        found[degree] = torch.where(small, series * near**degree, found[degree])
    return found


@cache
def _series(degrees: int) -> Floats:
    """(L, terms) coefficients of x^(l + 2k) in j_l."""
    rows = np.zeros((degrees, _TERMS))
    for degree, row in enumerate(rows):
        row[0] = 1 / np.prod(np.arange(1, 2 * degree + 2, 2, dtype=float))
        for k in range(1, _TERMS):
            row[k] = -row[k - 1] / (2 * k * (2 * degree + 2 * k + 1))
    return rows


@cache
def spherical_roots(degrees: int, radial: int) -> tuple[Floats, Floats]:
    """The first roots z_ln of j_l (L, R), and 1 / |j_{l+1}(z_ln)|. Between two roots of one degree lies one of the next."""
    from scipy.optimize import brentq
    from scipy.special import spherical_jn

    between = np.arange(1, radial + degrees + 1) * pi
    rows = []
    for degree in range(degrees):
        roots = between
        if degree:
            roots = np.array([brentq(partial(spherical_jn, degree), a, b, xtol=1e-14) for a, b in pairwise(between)])
        rows.append(roots[:radial])
        between = roots
    z = np.array(rows)
    return z, np.array([1 / np.abs(spherical_jn(degree + 1, row)) for degree, row in enumerate(z)])


class Bessel(RadialFunctions):
    """``√(2/r_c) sin(ω_n d / r_c) / d`` times an `envelope`; the frequencies start at nπ and are learned.

    Parameters
    ----------
    number : how many
    cutoff : r_c in Å
    power : of the envelope
    """

    def __init__(self, number: int, cutoff: float, power: int) -> None:
        super().__init__()
        if number < 1 or cutoff <= 0 or power < 2:
            raise ConfigError(
                f"{number} Bessel functions up to {cutoff} Å, envelope of power {power}; expected at least 1, more than 0, at least 2"
            )
        self.cutoff, self.power = cutoff, power
        self.frequencies = nn.Parameter(torch.arange(1, number + 1, dtype=torch.float32) * pi)

    def plain(self, length: Tensor) -> Tensor:
        """(E) Å → (E, number)."""
        height = envelope(length, self.cutoff, self.power) * sqrt(2 / self.cutoff) / length
        return torch.sin((length / self.cutoff)[:, None] * self.frequencies) * height[:, None]

    def both(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """(E) Å → values and slopes (E, number)."""
        scale = sqrt(2 / self.cutoff) / length
        height = envelope(length, self.cutoff, self.power) * scale
        steeper = envelope_slope(length, self.cutoff, self.power) * scale - height / length
        waves = self.frequencies / self.cutoff
        x = length[:, None] * waves
        sine = torch.sin(x)
        slopes = torch.cos(x).mul_(waves).mul_(height[:, None]).addcmul_(sine, steeper[:, None])
        return sine.mul_(height[:, None]), slopes
