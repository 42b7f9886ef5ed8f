"""How sure a hit rate is: intervals for a share of successes, and for the ratio of two such shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from naica.errors import InputError

_NODES = 400


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for a summary or a page."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def _check(hits: int, n: int, confidence: float) -> None:
    if n < 0 or not 0 <= hits <= n:
        raise InputError(f"{hits} hits of {n} trials is impossible; expected 0 ≤ hits ≤ trials")
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is out of range; expected a number between 0 and 1, for example 0.95")


def wilson(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share of successes (Wilson, J. Am. Stat. Assoc. 22, 209 (1927)): right on average, also for few trials.

    Without trials the share is NaN and the interval is 0 to 1.

    Raises
    ------
    InputError
        For impossible counts or a confidence outside (0, 1).
    """
    from scipy.stats import norm

    _check(hits, n, confidence)
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0)
    z = float(norm.ppf((1 + confidence) / 2))
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * float(np.sqrt(share * (1 - share) / n + spread / (4 * n)))
    # at the ends the formula is exact only up to rounding
    return Interval(share, 0.0 if hits == 0 else max(0.0, middle - half), 1.0 if hits == n else min(1.0, middle + half))


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval (Biometrika 26, 404 (1934)), from Beta quantiles: never covers less than promised.

    Without trials the share is NaN and the interval is 0 to 1.

    Raises
    ------
    InputError
        For impossible counts or a confidence outside (0, 1).
    """
    from scipy.stats import beta

    _check(hits, n, confidence)
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0)
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return Interval(hits / n, low, high)


def enrichment(hits: int, n: int, control_hits: int, control_n: int, confidence: float = 0.95) -> Interval | None:
    """How many times more often a choice hits than a control, with an interval; None if one of them has no trials.

    The interval holds the middle `confidence` of the ratio of two independent shares with Jeffreys' Beta(hits + ½, misses + ½)
    distributions, found by quadrature; it exists with no hits at all and covers close to what it says. Where the control has no hit the
    plain ratio is undefined and the median of that distribution is given as the value.

    Raises
    ------
    InputError
        For impossible counts or a confidence outside (0, 1).
    """
    from scipy.optimize import brentq
    from scipy.stats import beta

    _check(hits, n, confidence)
    _check(control_hits, control_n, confidence)
    if n == 0 or control_n == 0:
        return None
    chosen = beta(hits + 0.5, n - hits + 0.5)
    control = beta(control_hits + 0.5, control_n - control_hits + 0.5)
    # midpoints of equal shares of probability: an integral over the control's distribution becomes a plain mean
    places = control.ppf((np.arange(_NODES) + 0.5) / _NODES)

    def quantile(share: float) -> float:
        return float(np.exp(brentq(lambda log_ratio: float(np.mean(chosen.cdf(np.exp(log_ratio) * places))) - share, -40, 40, xtol=1e-9)))

    tail = (1 - confidence) / 2
    value = (hits / n) / (control_hits / control_n) if control_hits else quantile(0.5)
    low = 0.0 if hits == 0 else quantile(tail)
    return Interval(value, min(low, value), max(quantile(1 - tail), value))


def nested_enrichment(hits: int, n: int, all_hits: int, all_n: int, confidence: float = 0.95) -> Interval | None:
    """How many times more often a part hits than the whole it belongs to, with an interval; None if the part is empty.

    The part and the rest are independent, the part and the whole are not. With w the part's share of the whole and r the ratio of the
    part's to the rest's share of hits, the enrichment is r / (1 − w + w·r), which never falls as r grows: the ends of r's interval
    (`enrichment`) become those of the enrichment.

    Raises
    ------
    InputError
        For impossible counts, a part that is no part of the whole, or a confidence outside (0, 1).
    """
    _check(hits, n, confidence)
    _check(all_hits, all_n, confidence)
    if n > all_n or hits > all_hits or n - hits > all_n - all_hits:
        raise InputError(f"{hits} hits of {n} are no part of {all_hits} hits of {all_n}")
    if n == 0:
        return None
    if n == all_n:
        return Interval(1.0, 1.0, 1.0)
    ratio = enrichment(hits, n, all_hits - hits, all_n - n, confidence)
    assert ratio is not None
    share = n / all_n
    low, high = (r / (1 - share + share * r) for r in (ratio.low, ratio.high))
    value = (hits / n) / (all_hits / all_n) if all_hits else 1.0
    return Interval(value, min(low, value), max(high, value))
