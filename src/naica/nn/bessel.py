"""Functions of a distance made of Bessel functions, and the polynomial that brings them to zero at the cut-off."""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise
from math import pi, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naica.errors import ConfigError

Floats = NDArray[np.float64]

# below this the recurrence for spherical Bessel functions loses digits and their series takes over
_SMALL = 1.0
_TERMS = 9


def envelope(length: Tensor, cutoff: float, power: int) -> Tensor:
    """``1 − (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) − p(p+1)/2 x^(p+2)`` of x = d / r_c (E), 0 from the cut-off on.

    Twice continuously differentiable. Computed in 64 bits: near the cut-off the four terms cancel.
    """
    x, p = length.double() / cutoff, power
    value = 1 + x**p * (x * (x * (-p * (p + 1) / 2) + p * (p + 2)) - (p + 1) * (p + 2) / 2)
    return torch.where(x < 1, value, 0.0).to(length.dtype)


class SmoothBessel(nn.Module):
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

    def forward(self, length: Tensor) -> Tensor:
        """(E) Å → (E, number)."""
        x = length[:, None] * self.waves.to(length)
        return (torch.sin(x) / x) @ self.mixing.to(length).T


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


class SphericalBessel(nn.Module):
    """``√(2/r_c³) / |j_{l+1}(z_ln)| · j_l(z_ln r / r_c)``: z_ln is the n-th root of j_l, so all vanish at r_c, with a slope.

    Parameters
    ----------
    degrees, radial : l < degrees, `radial` functions of each
    cutoff : r_c in Å
    """

    def __init__(self, degrees: int, radial: int, cutoff: float) -> None:
        super().__init__()
        if degrees < 1 or radial < 1 or cutoff <= 0:
            raise ConfigError(f"{degrees} degrees of {radial} functions up to {cutoff} Å; expected at least 1, 1 and a positive cut-off")
        roots, heights = spherical_roots(degrees, radial)
        self.roots, self.heights = torch.from_numpy(roots / cutoff), torch.from_numpy(heights * sqrt(2 / cutoff**3))

    def forward(self, length: Tensor) -> Tensor:
        """(E) Å → (E, degrees · radial), degree by degree."""
        x = length[:, None, None] * self.roots.to(length)
        return (_spherical(x) * self.heights.to(length)).flatten(1)


def _spherical(x: Tensor) -> Tensor:
    """j_l(x) for x (E, L, R), of the degree l of its place."""
    degrees = x.shape[1]
    sine, cosine = torch.sin(x), torch.cos(x)
    below, now = sine / x, (sine / x - cosine) / x
    found = [below[:, 0]]
    for degree in range(1, degrees):
        found.append(now[:, degree])
        below, now = now, (2 * degree + 1) / x * now - below
    values = torch.stack(found, dim=1)
    if degrees == 1 or not x.numel() or float(x.detach().min()) >= _SMALL:
        return values
    near = x.clamp(max=_SMALL)
    square, series = near * near, torch.zeros_like(near)
    coefficients = _series(degrees)
    for k in reversed(range(_TERMS)):
        series = series * square + torch.tensor(coefficients[:, k], dtype=x.dtype, device=x.device)[:, None]
    powers = torch.stack([near[:, degree] ** degree for degree in range(degrees)], dim=1)
    return torch.where(x < _SMALL, series * powers, values)


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


class Bessel(nn.Module):
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

    def forward(self, length: Tensor) -> Tensor:
        """(E) Å → (E, number)."""
        height = envelope(length, self.cutoff, self.power) * sqrt(2 / self.cutoff) / length
        return torch.sin((length / self.cutoff)[:, None] * self.frequencies) * height[:, None]


def bessel_functions(length: Tensor, number: int, cutoff: float, power: int) -> Tensor:
    """``sin(nπd / r_c) / d`` times an `envelope`, n = 1 … `number`: lengths (E) in Å → (E, number)."""
    waves = torch.arange(1, number + 1, dtype=length.dtype, device=length.device) * (pi / cutoff)
    return torch.sin(length[:, None] * waves) * (envelope(length, cutoff, power) / length)[:, None]
