"""Bayesian linear regression whose scales are set by the evidence.

y = Φ w + ε, w ~ N(0, diag(s²)) with one scale s per group of features, ε ~ N(0, noise²). The scales and the noise maximise the evidence
p(y | s, noise) times a wide log-normal prior on each, which keeps them finite when there are only a few labels (MacKay, Neural Comput. 4,
415 (1992); Bishop, PRML, sections 3.3 and 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError

Array = NDArray[np.float64]
_PRIOR_WIDTH = 1.5
_LOG_RANGE = 9.0
_SHARE_OF_FIRST = 0.4


@dataclass(frozen=True)
class Ridge:
    """The posterior: weights (d), their covariance (d, d), noise (standard deviation), scale of each group."""

    weights: Array
    covariance: Array
    noise: float
    scales: tuple[float, ...]

    def mean(self, features: Array) -> Array:
        """(B,) expected values at features (B, d)."""
        return features @ self.weights

    def variance(self, features: Array) -> Array:
        """(B,) variance of the expected value; the noise is not in it."""
        return np.einsum("bi,ij,bj->b", features, self.covariance, features)


_WORSE_THAN_ANY = 1e12


@dataclass(frozen=True)
class LeaveOneOut:
    """(n,) predictions for each label from all others (at the scales of all), and their variances (noise included)."""

    mean: Array
    variance: Array


def fit_ridge(features: Array, values: Array, groups: NDArray[np.int64], expected: float) -> tuple[Ridge, LeaveOneOut]:
    """Fit features (n, d) to values (n).

    Parameters
    ----------
    features, values : the data
    groups : (d,) which group each feature is in, 0 … G-1; group 0 is expected to explain less than the others
    expected : size of the values one expects beforehand (centre of the priors on scales and noise)

    Raises
    ------
    InputError
        If there are no data or they are not finite.
    """
    if not len(values) or not np.isfinite(features).all() or not np.isfinite(values).all():
        raise InputError(f"cannot fit {len(values)} values: expected at least one, all of them finite")
    gram, moment, square = features.T @ features, features.T @ values, float(values @ values)
    size = np.array([max(np.sqrt(np.mean(np.sum(features[:, groups == g] ** 2, axis=1))), 1e-9) for g in range(groups.max() + 1)])
    # a group with scale expected / size moves a typical value by `expected`; features of a network explain a part of that at first
    share = np.where(np.arange(len(size)) == 0, _SHARE_OF_FIRST, 1.0)
    centre = np.log(np.concatenate([share * expected / size, [0.3 * expected]]))
    best = _maximise(centre, lambda x: _minus_log_evidence(x, gram, moment, square, len(values), groups, centre))
    scales, noise = np.exp(best[:-1]), float(np.exp(best[-1]))
    spread = scales[groups]
    inner = np.eye(len(spread)) + spread[:, None] * gram * spread / noise**2
    covariance = spread[:, None] * np.linalg.inv(inner) * spread
    covariance = (covariance + covariance.T) / 2
    ridge = Ridge(covariance @ moment / noise**2, covariance, noise, tuple(float(s) for s in scales))
    return ridge, _leave_one_out(ridge, features, values)


def _minus_log_evidence(x: Array, gram: Array, moment: Array, square: float, n: int, groups: NDArray[np.int64], centre: Array) -> float:
    spread, noise = np.exp(x[:-1])[groups], np.exp(x[-1])
    inner = np.eye(len(spread)) + spread[:, None] * gram * spread / noise**2
    try:
        lower = np.linalg.cholesky(inner)
    except np.linalg.LinAlgError:
        # signal over noise beyond what double precision can tell: no such fit is worth having
        return _WORSE_THAN_ANY
    half = np.linalg.solve(lower, spread * moment / noise**2)
    misfit = square / noise**2 - float(half @ half)
    log_det = 2 * float(np.log(np.diag(lower)).sum()) + 2 * n * float(x[-1])
    return 0.5 * (misfit + log_det) + 0.5 * float(np.sum(((x - centre) / _PRIOR_WIDTH) ** 2))


def _maximise(centre: Array, minus: object) -> Array:
    """The best of three starts: where we expect, little noise, little signal."""
    from scipy.optimize import minimize

    bounds = [(c - _LOG_RANGE, c + _LOG_RANGE) for c in centre]
    shifts = (0.0, np.r_[np.zeros(len(centre) - 1), -1.5], np.r_[-1.5 * np.ones(len(centre) - 1), 0.5])
    found = [minimize(minus, centre + shift, method="L-BFGS-B", bounds=bounds) for shift in shifts]
    return np.asarray(min(found, key=lambda f: f.fun).x)


def _leave_one_out(ridge: Ridge, features: Array, values: Array) -> LeaveOneOut:
    """In closed form: with hat matrix H = Φ Σ Φᵀ / noise², the residual without point i is e_i / (1 − H_ii)."""
    variance = ridge.variance(features)
    leverage = np.clip(variance / ridge.noise**2, 0.0, 1 - 1e-9)
    residual = (values - ridge.mean(features)) / (1 - leverage)
    return LeaveOneOut(values - residual, ridge.noise**2 / (1 - leverage))
