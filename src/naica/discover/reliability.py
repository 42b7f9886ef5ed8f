"""Probabilities of stability put right by what the campaign's own calls said, round by round.

A model's error bars are calibrated on its own validation part; candidates are other compounds, and those picked are picked because they
look good, so their errors lean upwards. Both show in the results. With z = (actual − predicted) / bar of the picks that had the full look,
a normal error with unknown centre and width and the prior "as the model says" (centre 0, width 1, worth `STRENGTH` results) has the
conjugate update (Gelman et al., Bayesian Data Analysis, 3rd ed., Sec. 3.3)::

    shift = Σ w z / (K + W),   scale² = [ K + Σ w (z − z̄)² + K W / (K + W) z̄² ] / (K + W) · (1 + 1 / (K + W)),   W = Σ w, K = STRENGTH.

Results of earlier rounds count less (`FADE` a round), because another model predicted them. Where there are enough results of both kinds,
and it helps on results left out, the probabilities that follow are mapped once more by isotonic regression on hits and misses, together
with pseudo-results, worth `STRENGTH` too, that say what the probability itself says; so few results change little, and the order of
candidates by probability stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from naica.discover.ledger import Ledger
from naica.errors import InputError
from naica.insight.intervals import wilson

Floats = NDArray[np.float64]
Method = Literal["none", "scale", "isotonic"]

STRENGTH = 10.0
FADE = 0.7
_FARTHEST = 4.0  # robust widths from the median: one blunder must not widen all bars
_FEW_OF_A_KIND = 5
_ISOTONIC_LEAST = 30
_FOLDS = 5
_EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Recalibration:
    """How predictions are read: distance + shift · bar, bar · scale, and a monotone map of the probability that follows.

    `n` results stood behind it; `knots` are pairs (probability, share of hits), empty for no map.
    """

    shift: float = 0.0
    scale: float = 1.0
    knots: tuple[tuple[float, float], ...] = ()
    n: int = 0

    def bars(self, sigma: Floats) -> Floats:
        """Error bars (n) as they have proved to be."""
        return np.asarray(sigma, dtype=np.float64) * self.scale

    def centre(self, value: Floats, sigma: Floats) -> Floats:
        """Predictions (n) as they have proved to be."""
        return np.asarray(value, dtype=np.float64) + self.shift * np.asarray(sigma, dtype=np.float64)

    def probability(self, distance: Floats, sigma: Floats, threshold: float) -> Floats:
        """Probability (n) that the true distance lies at or below the threshold; NaN where a candidate was not predicted."""
        from scipy.special import ndtr

        plain = np.asarray(ndtr((threshold - self.centre(distance, sigma)) / self.bars(sigma)), dtype=np.float64)
        if not self.knots:
            return plain
        x, y = np.array(self.knots).T
        return np.interp(plain, x, y)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the ledger."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any] | None) -> Recalibration:
        """Back from `to_dict`; nothing is the identity (campaigns of earlier versions)."""
        if not raw:
            return AS_PREDICTED
        return cls(float(raw["shift"]), float(raw["scale"]), tuple((float(a), float(b)) for a, b in raw["knots"]), int(raw["n"]))


AS_PREDICTED = Recalibration()


@dataclass(frozen=True, eq=False)
class Past:
    """What was predicted before a call and what it said: value, bar and distance before, label after (n), all eV/atom, and the round."""

    value: Floats
    sigma: Floats
    distance: Floats
    actual: Floats
    round: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.value)

    @property
    def z(self) -> Floats:
        """Errors in units of the predicted bars."""
        return (self.actual - self.value) / self.sigma

    def hits(self, threshold: float) -> NDArray[np.bool_]:
        """Whether the label was within the threshold of the hull that was known at the time of picking."""
        return self.distance + (self.actual - self.value) <= threshold


def recalibrate(past: Past, threshold: float, round_: int, method: Method = "isotonic", least: int = 12) -> Recalibration:
    """How to read the predictions of a round, from the results of earlier ones.

    Parameters
    ----------
    past : results so far; those of `round_` and later do not count
    threshold : what counts as stable, eV/atom
    least : with fewer results, predictions are read as they are

    Raises
    ------
    InputError
        For an unknown method.
    """
    if method not in ("none", "scale", "isotonic"):
        raise InputError(f"unknown recalibration {method!r}; expected 'none', 'scale' or 'isotonic'")
    known = np.flatnonzero((past.round < round_) & np.isfinite(past.z) & (past.sigma > 0))
    if method == "none" or len(known) < least:
        return AS_PREDICTED
    weight = FADE ** (round_ - 1 - past.round[known]).astype(np.float64)
    shift, scale = _centre_and_width(_tamed(past.z[known]), weight)
    found = Recalibration(shift, scale, (), len(known))
    hits = past.hits(threshold)[known]
    if method == "scale" or len(known) < _ISOTONIC_LEAST or min(hits.sum(), (~hits).sum()) < _FEW_OF_A_KIND:
        return found
    plain = found.probability(past.distance[known], past.sigma[known], threshold)
    return replace(found, knots=_isotonic(plain, hits, weight)) if _worth_mapping(plain, hits, weight) else found


def _tamed(z: Floats) -> Floats:
    """The errors with the farthest drawn in."""
    middle = float(np.median(z))
    width = max(1.0, 1.4826 * float(np.median(np.abs(z - middle))))
    return np.clip(z, middle - _FARTHEST * width, middle + _FARTHEST * width)


def _centre_and_width(z: Floats, weight: Floats) -> tuple[float, float]:
    total = float(weight.sum())
    mean = float((weight * z).sum() / total)
    both = STRENGTH + total
    square = (STRENGTH + float((weight * (z - mean) ** 2).sum()) + STRENGTH * total / both * mean**2) / both
    return total * mean / both, float(np.sqrt(square * (1 + 1 / both)))


def _worth_mapping(probability: Floats, hits: NDArray[np.bool_], weight: Floats) -> bool:
    """Whether the map lowers the Brier score of results it was not fitted to (each fifth in turn), by more than one standard error.

    Probabilities that are right already would only be made noisier.
    """
    mapped = np.empty(len(probability))
    for fold in range(_FOLDS):
        aside = np.arange(len(probability)) % _FOLDS == fold
        x, y = np.array(_isotonic(probability[~aside], hits[~aside], weight[~aside])).T
        mapped[aside] = np.interp(probability[aside], x, y)
    gain = weight / weight.mean() * ((probability - hits) ** 2 - (mapped - hits) ** 2)
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))


def _isotonic(probability: Floats, hits: NDArray[np.bool_], weight: Floats) -> tuple[tuple[float, float], ...]:
    """Knots of the monotone map, with the ends kept: 0 stays 0 and 1 stays 1."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(probability, kind="stable")
    p, hit, w = probability[order], hits[order].astype(np.float64), weight[order]
    pseudo = STRENGTH / len(p)
    blended = (w * hit + pseudo * p) / (w + pseudo)
    found = isotonic_regression(blended, weights=w + pseudo)
    ends = np.asarray(found.blocks)
    knots = [(0.0, 0.0)]
    for a, b in pairwise(ends):
        x, y = float(np.average(p[a:b], weights=w[a:b] + pseudo)), float(found.x[a])
        if knots[-1][0] < x < 1.0:
            knots.append((x, min(max(y, knots[-1][1]), 1.0)))
    return (*knots, (1.0, 1.0))


# --- the ledger ----------------------------------------------------------------------------------------------------------------------
def past_of(ledger: Ledger, judge: Any, before: int | None = None) -> Past:
    """The predictions of all converged picks that had the full look, with their labels by the current judge.

    Parameters
    ----------
    judge : of the campaign, knowing the elemental references
    before : only picks of earlier rounds
    """
    limit = before if before is not None else 2**31
    rows = {
        key: numbers
        for key, *numbers in ledger.rows(
            "select key, value, sigma, distance, picked from candidates where status = 'computed' and picked < ? "
            "and distance is not null and sigma is not null",
            (limit,),
        )
    }
    entries = [e for e in ledger.entries() if e.key in rows]
    table = np.array([rows[e.key] for e in entries], dtype=np.float64).reshape(-1, 4)
    actual = np.asarray(judge.labels(entries), dtype=np.float64) if entries else np.zeros(0)
    return Past(table[:, 0], table[:, 1], table[:, 2], actual, table[:, 3].astype(np.int64))


def reliability(ledger: Ledger, judge: Any, threshold: float) -> dict[str, Any]:
    """How true the probabilities and error bars have been, as the model gave them and as they were read, with the share of hits per bin.

    Keys: n, hits, `by` (as predicted, as read: Brier score, mean difference per bin, coverage of one and two bars, bins with Wilson's
    intervals), rounds (the recalibration each round used).
    """
    past = past_of(ledger, judge)
    used = {
        int(r): Recalibration.from_dict((ledger.stage(r, "judge") or {}).get("recalibration"))
        for (r,) in ledger.rows("select round from stages where stage = 'judge' order by round")
    }
    hits = past.hits(threshold)
    told = {"as predicted": [AS_PREDICTED] * len(past), "as read": [used.get(int(r), AS_PREDICTED) for r in past.round]}
    return {
        "n": len(past),
        "hits": int(hits.sum()),
        "by": {name: scores_of(past, readings, hits, threshold) for name, readings in told.items()},
        "rounds": [{"round": r, "n": c.n, "shift": c.shift, "scale": c.scale, "mapped": bool(c.knots)} for r, c in used.items()],
    }


def scores_of(past: Past, readings: Sequence[Recalibration], hits: NDArray[np.bool_], threshold: float) -> dict[str, Any] | None:
    """Brier score, calibration error, coverage and bins of predictions (n), each read by its own recalibration; None without any."""
    if not len(past):
        return None
    rows: dict[Recalibration, list[int]] = {}
    for k, reading in enumerate(readings):
        rows.setdefault(reading, []).append(k)
    probability, bars, error = np.empty(len(past)), np.empty(len(past)), np.empty(len(past))
    for reading, own in rows.items():
        probability[own] = reading.probability(past.distance[own], past.sigma[own], threshold)
        bars[own] = reading.bars(past.sigma[own])
        error[own] = np.abs(past.actual[own] - reading.centre(past.value[own], past.sigma[own]))
    bins = _bins(probability, hits)
    return {
        "brier": float(np.mean((probability - hits) ** 2)),
        "calibration_error": float(sum(b["n"] * abs(b["predicted"] - b["share"]) for b in bins) / len(past)),
        "coverage_1": float(np.mean(error <= bars)),
        "coverage_2": float(np.mean(error <= 2 * bars)),
        "bins": bins,
    }


def _bins(probability: Floats, hits: NDArray[np.bool_]) -> list[dict[str, Any]]:
    place = np.clip(np.searchsorted(_EDGES, probability, side="right") - 1, 0, len(_EDGES) - 2)
    found = []
    for k in np.unique(place):
        rows = place == k
        share = wilson(int(hits[rows].sum()), int(rows.sum()))
        found.append(
            {"from": _EDGES[k], "to": _EDGES[k + 1], "n": int(rows.sum()), "predicted": float(probability[rows].mean()),
             "share": share.value, "low": share.low, "high": share.high}
        )  # fmt: skip
    return found
