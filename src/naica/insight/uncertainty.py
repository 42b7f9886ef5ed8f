"""Do error bars tell the truth? Coverage, calibration curve, ENCE, and conformal half-widths with a guarantee.

Everywhere: `actual`, `predicted` and `sigma` (one standard deviation) are arrays of one length (n,) and one unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naica.errors import InputError

if TYPE_CHECKING:
    from naica.training.card import Calibration

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationSummary:
    """How honest error bars are: share within 1 σ (ideal 0.683) and 2 σ (0.954), ENCE (0), and the factor that would scale σ right (1)."""

    n: int
    within_1: float
    within_2: float
    ence: float
    factor: float


def _residuals(actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike) -> tuple[Floats, Floats]:
    a, p, s = (np.asarray(x, dtype=np.float64).ravel() for x in (actual, predicted, sigma))
    if not len(a) == len(p) == len(s) or not len(a):
        raise InputError(f"actual, predicted and sigma have {len(a)}, {len(p)} and {len(s)} values; expected as many of each, at least one")
    if not (np.isfinite(a).all() and np.isfinite(p).all() and np.isfinite(s).all()):
        raise InputError("actual, predicted or sigma hold NaN or infinite values; drop those rows first")
    if (s < 0).any():
        raise InputError(f"sigma is negative ({s.min():g}); error bars are at least 0")
    return np.abs(a - p), s


def coverage(actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike, k: float = 1.0) -> float:
    """Share of values within `k` error bars of their prediction.

    Raises
    ------
    InputError
        For arrays that do not fit, are not finite, or negative error bars.
    """
    error, s = _residuals(actual, predicted, sigma)
    return float(np.mean(error <= k * s))


def calibration_curve(
    actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike, levels: Sequence[float] | None = None
) -> tuple[Floats, Floats]:
    """Promised and observed shares inside central normal intervals (Kuleshov et al., ICML 2018): both (m,); honest bars give a diagonal.

    `levels` are the promised shares, default 0.05 to 0.95.

    Raises
    ------
    InputError
        As `coverage`.
    """
    from scipy.stats import norm

    error, s = _residuals(actual, predicted, sigma)
    promised = np.asarray(levels if levels is not None else np.linspace(0.05, 0.95, 19), dtype=np.float64)
    width = norm.ppf((1 + promised) / 2)
    return promised, np.mean(error[None, :] <= width[:, None] * s[None, :], axis=1)


def ence(actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike, bins: int = 10) -> float:
    """Expected normalised calibration error (Levi et al., Sensors 22, 5540 (2022)).

    Rows are sorted by error bar into `bins` of equal size; the mean over bins of |RMV − RMSE| / RMV, where RMV is the root of the mean
    predicted variance and RMSE the root mean squared error. 0 is perfect. Fewer rows than twice the bins use fewer bins.

    Raises
    ------
    InputError
        As `coverage`, and if all error bars of a bin are zero.
    """
    promised, found = error_bins(actual, predicted, sigma, bins)
    if (promised == 0).any():
        raise InputError("the smallest error bars are all zero: a relative calibration error does not exist")
    return float(np.mean(np.abs(promised - found) / promised))


def error_bins(actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike, bins: int = 10) -> tuple[Floats, Floats]:
    """RMV and RMSE (m,) of the bins of `ence`, by rising error bar: what the bars promise and what was found; honest bars make them equal.

    Raises
    ------
    InputError
        As `coverage`.
    """
    error, s = _residuals(actual, predicted, sigma)
    parts = np.array_split(np.argsort(s, kind="stable"), max(1, min(bins, len(s) // 2)))
    promised, found = (np.array([np.sqrt(np.mean(values[rows] ** 2)) for rows in parts]) for values in (s, error))
    return promised, found


def conformal_curve(
    actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike, calibration: Calibration, levels: Sequence[float] | None = None
) -> tuple[Floats, Floats]:
    """As `calibration_curve`, of a model's conformal intervals; shares it has too few calibration labels to promise are left out.

    Raises
    ------
    InputError
        As `coverage`, and if the model has no scores.
    """
    from naica.training.calibration import half_width

    error, s = _residuals(actual, predicted, sigma)
    promised = np.asarray(levels if levels is not None else np.linspace(0.05, 0.95, 19), dtype=np.float64)
    width = np.array([half_width(calibration, float(share)) for share in promised])
    known = np.isfinite(width)
    return promised[known], np.mean(error[None, :] <= width[known, None] * s[None, :], axis=1)


def calibration_factor(actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike) -> float:
    """The one factor on all error bars that makes normal errors most likely: root mean square of error / σ.

    Raises
    ------
    InputError
        As `coverage`, and if an error bar is zero.
    """
    error, s = _residuals(actual, predicted, sigma)
    if (s == 0).any():
        raise InputError("an error bar is zero: no factor can mend it; give σ a floor first")
    return float(np.sqrt(np.mean((error / s) ** 2)))


def summarise(actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike) -> CalibrationSummary:
    """All of the above in one go.

    Raises
    ------
    InputError
        As its parts.
    """
    n = len(np.asarray(actual).ravel())
    return CalibrationSummary(
        n=n,
        within_1=coverage(actual, predicted, sigma, 1.0),
        within_2=coverage(actual, predicted, sigma, 2.0),
        ence=ence(actual, predicted, sigma),
        factor=calibration_factor(actual, predicted, sigma),
    )


def conformal_half_width(actual: ArrayLike, predicted: ArrayLike, confidence: float = 0.9, sigma: ArrayLike | None = None) -> float:
    """Half-width w such that ``|actual − predicted| ≤ w`` (times σ, if given) holds for a new row with at least this probability.

    Split conformal prediction (Vovk et al. 2005; Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018)): the ⌈(n+1)·confidence⌉-th smallest
    residual of n rows that the model was not trained on. The guarantee is exact for finite n if old and new rows are exchangeable,
    whatever the model. With too few rows for the asked confidence the answer is infinite.

    Raises
    ------
    InputError
        As `coverage`, for a confidence outside (0, 1), and for zero error bars.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is out of range; expected a number between 0 and 1, for example 0.9")
    error, s = _residuals(actual, predicted, np.ones(np.size(actual)) if sigma is None else sigma)
    if (s == 0).any():
        raise InputError("an error bar is zero: residuals cannot be measured in it; give σ a floor first")
    scores = np.sort(error / s)
    # 1e-9 keeps a product such as 10 × 0.9 from rounding up to the next rank
    rank = int(np.ceil((len(scores) + 1) * confidence - 1e-9))
    return float(scores[rank - 1]) if rank <= len(scores) else float("inf")
