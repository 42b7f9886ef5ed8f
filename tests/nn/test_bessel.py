"""Radial functions: published values, orthonormality, smoothness at the cut-off, slopes."""

import numpy as np
import pytest
import torch
from scipy.special import spherical_jn

from naica.errors import ConfigError
from naica.nn.bessel import Bessel, SmoothBessel, SphericalBessel, envelope, envelope_slope, spherical_roots

# (distance in Å): h_0, h_1, h_2 with a cut-off of 5 Å
PUBLISHED = {1.0: (0.601501, -0.657527, 0.443911), 2.0: (0.352125, 0.085623, -0.328146), 3.0: (0.123916, 0.234812, 0.151916)}


def test_smooth_functions_have_their_published_values():
    found = SmoothBessel(3, 5.0)(torch.tensor(list(PUBLISHED), dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), list(PUBLISHED.values()), atol=5e-7)


def test_smooth_functions_are_orthonormal():
    r, weight = np.polynomial.legendre.leggauss(200)
    r, weight = torch.from_numpy(2.5 * (r + 1)), torch.from_numpy(2.5 * weight)
    h = SmoothBessel(5, 5.0)(r)
    gram = h.T @ (h * (weight * r**2)[:, None])
    torch.testing.assert_close(gram, torch.eye(5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_smooth_functions_vanish_with_two_derivatives():
    r = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    for n in range(3):
        value = SmoothBessel(3, 5.0)(r)[:, n]
        (first,) = torch.autograd.grad(value, r, create_graph=True)
        (second,) = torch.autograd.grad(first, r)
        assert max(abs(float(x)) for x in (value.detach(), first.detach(), second)) < 1e-9


@pytest.mark.parametrize("power", [3, 5, 6, 8])
def test_envelope(power):
    half = {3: 0.5, 5: 0.7734375, 6: 0.85546875, 8: 0.9453125}[power]
    assert float(envelope(torch.tensor([2.5], dtype=torch.float64), 5.0, power)) == pytest.approx(half, abs=1e-12)
    r = torch.linspace(0.1, 5.5, 50, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(envelope(r, 5.0, power).sum(), r)
    torch.testing.assert_close(slope, envelope_slope(r.detach(), 5.0, power), atol=1e-12, rtol=0)
    near = torch.tensor([5.0 - 1e-3], dtype=torch.float32)
    assert 0 <= float(envelope(near, 5.0, power)) < 1e-8


def test_spherical_functions_are_scipys():
    length = torch.tensor([0.05, 0.3, 0.9, 1.7, 3.2, 4.9], dtype=torch.float64)
    found = SphericalBessel(4, 3, 5.0, 4.5)(length).numpy()
    roots, _ = spherical_roots(4, 3)
    cut = envelope(length, 4.5, 3).numpy()
    np.testing.assert_allclose(found[:, -1], cut, atol=1e-15)
    for degree in range(4):
        for n in range(3):
            z = roots[degree, n]
            assert abs(spherical_jn(degree, z)) < 1e-12
            wanted = np.sqrt(2 / 125) / abs(spherical_jn(degree + 1, z)) * spherical_jn(degree, z * length.numpy() / 5) * cut
            np.testing.assert_allclose(found[:, 3 * degree + n], wanted, atol=1e-13)


@pytest.mark.parametrize(
    "functions", [SmoothBessel(4, 5.0), SphericalBessel(3, 3, 5.0, 4.0), Bessel(7, 6.0, 8)], ids=lambda f: type(f).__name__
)
def test_slopes_once_and_twice(functions):
    functions = functions.double().requires_grad_(False)
    length = torch.linspace(0.2, 5.95, 40, dtype=torch.float64, requires_grad=True)
    values, slopes = functions.both(length)
    torch.testing.assert_close(values, functions.plain(length), atol=1e-12, rtol=0)
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=values.shape))
    (ours,) = torch.autograd.grad((functions(length) * weight).sum(), length, create_graph=True)
    (theirs,) = torch.autograd.grad((functions.plain(length) * weight).sum(), length, create_graph=True)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(ours, (slopes * weight).sum(1), atol=1e-10, rtol=1e-10)
    one, two = (torch.autograd.grad(slope.square().sum(), length)[0] for slope in (ours, theirs))
    torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-8)


def test_settings_out_of_range():
    for make in (lambda: SmoothBessel(0, 5.0), lambda: SphericalBessel(0, 3, 5.0, 4.0), lambda: Bessel(3, 5.0, 1)):
        with pytest.raises(ConfigError):
            make()
