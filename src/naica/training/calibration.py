"""From the spread of an ensemble to an error bar that covers what it says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naica.training.card import Calibration

IQR_TO_SIGMA = 1 / 1.349
"""A Gaussian's inter-quartile range is 1.349 standard deviations."""

COVERAGE = 0.6827
_LEAST = 10
_FACTORS = np.concatenate([[0.0], np.geomspace(0.1, 10.0, 61)])


def spread(members: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B,) robust standard deviation of (M, B) member predictions: their inter-quartile range / 1.349; 0 for one member."""
    high, low = np.quantile(members, [0.75, 0.25], axis=0)
    return (high - low) * IQR_TO_SIGMA


def sigma(members: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """(B,) calibrated error bar of one standard deviation for (M, B) member predictions."""
    return np.sqrt((calibration.factor * spread(members)) ** 2 + calibration.floor**2)


def calibrate(members: NDArray[np.float64], actual: NDArray[np.float64]) -> Calibration:
    """Factor and floor of the error bar, fitted on labels (B) the members (M, B) were not trained on.

    Of all pairs that cover 68.27 % of the errors, the one with the highest likelihood is taken; the likelihood is Laplace's, whose
    longer tails suit prediction errors better than a Gaussian's.
    With fewer than 10 labels nothing can be fitted: the factor stays 1, the floor is the mean absolute error.
    """
    errors, wide = np.abs(np.median(members, axis=0) - actual), spread(members)
    if len(actual) < _LEAST:
        return Calibration(1.0, float(errors.mean()) if len(errors) else 0.0, len(actual))
    best, best_score = Calibration(0.0, float(np.quantile(errors, COVERAGE)), len(actual)), np.inf
    for factor in _FACTORS:
        floor = _floor_that_covers(errors, factor * wide)
        if floor is None:
            break  # this factor alone covers too much, and larger ones more
        bars = np.sqrt((factor * wide) ** 2 + floor**2)
        if (bars > 0).all():
            score = float(np.mean(np.log(bars) + np.sqrt(2) * errors / bars))
            if score < best_score:
                best, best_score = Calibration(float(factor), floor, len(actual)), score
    return best


def _floor_that_covers(errors: NDArray[np.float64], scaled: NDArray[np.float64]) -> float | None:
    """The floor b for which 68.27 % of the errors lie within sqrt(scaled² + b²): a quantile, in closed form. None if 0 is too much."""
    square = float(np.quantile(errors**2 - scaled**2, COVERAGE))
    return float(np.sqrt(square)) if square >= 0 else None


def coverage(errors: NDArray[np.float64], bars: NDArray[np.float64], times: float = 1.0) -> float:
    """Share of absolute errors within `times` error bars."""
    return float(np.mean(np.abs(errors) <= times * bars)) if len(errors) else float("nan")


def ence(errors: NDArray[np.float64], bars: NDArray[np.float64], bins: int = 10) -> float:
    """Expected normalised calibration error: mean over bins of equal size, ordered by error bar, of |RMS bar − RMS error| / RMS bar.

    Levi et al., Sensors 22, 5540 (2022), Eq. 8. 0 is perfect.
    """
    if len(errors) < 2 * bins:
        bins = max(1, len(errors) // 2)
    parts = np.array_split(np.argsort(bars, kind="stable"), bins)
    rms = [(np.sqrt(np.mean(bars[p] ** 2)), np.sqrt(np.mean(errors[p] ** 2))) for p in parts if len(p)]
    return float(np.mean([abs(bar - error) / bar for bar, error in rms if bar > 0]))
