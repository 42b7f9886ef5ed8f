import numpy as np
import pytest

from naica.errors import InputError
from naica.insight.uncertainty import (
    calibration_curve,
    calibration_factor,
    conformal_half_width,
    coverage,
    ence,
    summarise,
)


def honest(n: int = 20_000, seed: int = 0, stretch: float = 1.0):
    """Normal errors whose σ is told as `stretch` times smaller than it is."""
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(0.05, 0.5, n)
    actual = rng.normal(0, 1, n)
    return actual, actual + stretch * sigma * rng.normal(size=n), sigma


def test_honest_error_bars():
    facts = summarise(*honest())
    assert facts.within_1 == pytest.approx(0.683, abs=0.01)
    assert facts.within_2 == pytest.approx(0.954, abs=0.01)
    assert facts.ence < 0.03
    assert facts.factor == pytest.approx(1.0, abs=0.02)
    promised, observed = calibration_curve(*honest())
    assert np.abs(promised - observed).max() < 0.02


def test_too_narrow_error_bars_are_told_and_mended():
    actual, predicted, sigma = honest(stretch=2.5)
    assert coverage(actual, predicted, sigma) < 0.35
    assert ence(actual, predicted, sigma) == pytest.approx(1.5, abs=0.1)
    factor = calibration_factor(actual, predicted, sigma)
    assert factor == pytest.approx(2.5, abs=0.05)
    assert coverage(actual, predicted, factor * sigma) == pytest.approx(0.683, abs=0.01)
    _, observed = calibration_curve(actual, predicted, sigma)
    assert (observed < calibration_curve(actual, predicted, sigma)[0]).all()


def test_ence_by_hand():
    """Two bins of two: RMV 1 against RMSE 2, and RMV 2 against RMSE 1 → (1 + ½)/2."""
    assert ence([2, -2, 1, 1], [0, 0, 0, 0], [1, 1, 2, 2], bins=2) == pytest.approx(0.75)
    assert ence([2.0], [0.0], [1.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [9, 19, 50])
@pytest.mark.parametrize("scaled", [False, True])
def test_conformal_guarantee_holds_for_few_rows(n, scaled):
    """Whatever the errors (here heavy-tailed), a fresh row is inside with at least the asked probability, and hardly more."""
    rng = np.random.default_rng(n)
    inside = []
    for _ in range(4000):
        sigma = rng.uniform(0.1, 1.0, n + 1)
        error = sigma * rng.standard_t(2, n + 1)
        width = conformal_half_width(error[:n], np.zeros(n), 0.9, sigma[:n] if scaled else None)
        inside.append(abs(error[n]) <= width * (sigma[n] if scaled else 1.0))
    assert 0.9 - 0.015 <= np.mean(inside) <= 0.9 + 1 / (n + 1) + 0.015


def test_conformal_ranks():
    errors = np.arange(1.0, 10.0)
    assert conformal_half_width(errors, np.zeros(9), 0.9) == 9
    assert conformal_half_width(errors, np.zeros(9), 0.5) == 5
    assert conformal_half_width(errors, np.zeros(9), 0.95) == np.inf


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([1, 2], [1], [1, 1]), "2, 1 and 2 values"),
        (([], [], []), "at least one"),
        (([np.nan], [1], [1]), "NaN"),
        (([1], [1], [-1]), "negative"),
    ],
)
def test_bad_arrays(arrays, message):
    for judge in (coverage, ence, calibration_curve, calibration_factor, summarise):
        with pytest.raises(InputError, match=message):
            judge(*arrays)


def test_zero_error_bars():
    assert coverage([1, 2], [1, 3], [0, 0]) == 0.5
    with pytest.raises(InputError, match="all zero"):
        ence([1, 2], [1, 3], [0, 0])
    with pytest.raises(InputError, match="floor"):
        calibration_factor([1, 2], [1, 3], [0, 1])
    with pytest.raises(InputError, match="floor"):
        conformal_half_width([1, 2], [1, 3], 0.5, [0, 1])
    with pytest.raises(InputError, match="between 0 and 1"):
        conformal_half_width([1, 2], [1, 3], 90)
