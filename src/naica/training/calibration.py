"""From the spread of an ensemble to an error bar that covers what it says, and to intervals with a promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.training.card import Calibration

IQR_TO_SIGMA = 1 / 1.349
"""A Gaussian's inter-quartile range is 1.349 standard deviations."""

COVERAGE = 0.6827
_LEAST = 10
_EACH, _TOP = 100, 100
_FACTORS = np.concatenate([[0.0], np.geomspace(0.1, 10.0, 61)])


def spread(members: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B,) robust standard deviation of (M, B) member predictions: their inter-quartile range / 1.349; 0 for one member."""
    high, low = np.quantile(members, [0.75, 0.25], axis=0)
    return (high - low) * IQR_TO_SIGMA


def sigma(members: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """(B,) calibrated error bar of one standard deviation for (M, B) member predictions."""
    return np.sqrt((calibration.factor * spread(members)) ** 2 + calibration.floor**2)


def calibrate(members: NDArray[np.float64], actual: NDArray[np.float64]) -> Calibration:
    """Factor and floor of the error bar (`fitted`), and the scores for intervals, on labels (B) the members (M, B) were not trained on.

    Without error bars above zero there are no scores: an error cannot be measured in them.
    """
    found = fitted(members, actual)
    bars = sigma(members, found)
    if not len(actual) or not (bars > 0).all():
        return found
    scores = np.sort(np.abs(np.median(members, axis=0) - actual) / bars)
    return replace(found, scores=tuple(scores[kept_ranks(len(scores)) - 1].tolist()))


def kept_ranks(n: int) -> NDArray[np.int64]:
    """Ranks (from 1) of those of n scores a card keeps: all of 200; of more the largest 100, and 100 evenly over the others."""
    if n <= _EACH + _TOP:
        return np.arange(1, n + 1)
    others = np.ceil(np.arange(1, _EACH + 1) * (n - _TOP) / _EACH - 1e-9).astype(np.int64)
    return np.concatenate([others, np.arange(n - _TOP + 1, n + 1)])


def half_width(calibration: Calibration, confidence: float) -> float:
    """Half-width, in error bars, of the interval that holds a new label with at least this probability; infinite with too few labels.

    Split conformal prediction (Vovk et al. 2005; Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018)): the ⌈(n + 1)·confidence⌉-th smallest
    score, or the next larger one that was kept, which promises a little more. The promise is for a new label exchangeable with those
    of the validation part, whatever the model; of other compounds than those it can fail, and no number here can tell. It holds for
    new labels taken together, not for each kind of them. The same labels have chosen the best epoch and the two numbers of the error
    bar; with few of them the truth can be a few percent less.

    Raises
    ------
    InputError
        For a confidence outside (0, 1), or if the scores are not known.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is out of range; expected a number between 0 and 1, for example 0.9")
    if not calibration.scores:
        raise InputError(
            "this model has no scores to make an interval from: its card is of an earlier naica, of other weights, or its training had no "
            "validation part. The error bar sigma is all there is; train or fine-tune it with a validation part"
        )
    # 1e-9 keeps a product such as 10 × 0.9 from rounding up to the next rank
    rank = int(np.ceil((calibration.n + 1) * confidence - 1e-9))
    kept = kept_ranks(calibration.n)
    place = int(np.searchsorted(kept, rank))
    return float(calibration.scores[place]) if place < len(kept) else float("inf")


def least_labels(confidence: float) -> int:
    """How many labels an interval of this confidence needs to be finite."""
    return int(np.ceil(confidence / (1 - confidence) - 1e-9))


def fitted(members: NDArray[np.float64], actual: NDArray[np.float64]) -> Calibration:
    """Factor and floor of the error bar alone.

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


def class_calibration(probability: NDArray[np.float64], actual: NDArray[np.float64], bins: int = 10) -> float:
    """Expected calibration error of probabilities of class 1: mean over rows of |mean probability − share of class 1| of their bin.

    Bins of equal size, ordered by probability; fewer where there are not two rows for each (Guo et al., ICML 2017, Eq. 3, there with
    bins of equal width). 0 is perfect.
    """
    parts = np.array_split(np.argsort(probability, kind="stable"), max(1, min(bins, len(actual) // 2)))
    return float(sum(len(p) * abs(probability[p].mean() - actual[p].mean()) for p in parts) / len(actual))
