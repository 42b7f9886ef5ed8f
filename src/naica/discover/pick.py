"""Which candidates earn an oracle call: most by probability of stability, some where the model is unsure, some at random.

The random ones (control arm) are drawn from *all* candidates of the campaign that were never computed, so the ratio of hit rates is
the true enrichment of filter and ranking together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from naica.discover.config import Pick


@dataclass(frozen=True)
class Option:
    """A candidate that could be computed. `probability` and `sigma` are NaN if it did not pass the filter.

    `balanced` says whether its charges can add up to zero. Networks trained on known compounds have seen few that cannot, and are too
    hopeful about them (docs/results.md, the model inside the package); `Pick.unbalanced` is the price.
    """

    key: str
    formula: str
    prototype: str
    probability: float
    sigma: float
    passed: bool
    balanced: bool = True


Same = Callable[[str, str], bool]


def choose(options: Sequence[Option], config: Pick, number: int, seed: int, same: Same = lambda key, other: False) -> dict[str, str]:
    """Keys of the picks → arm ("exploit", "explore" or "control"), in the order of picking. Deterministic under `seed`.

    `same` says whether two candidates of one formula are one structure; it is asked only when the second of them is about to be picked,
    which then is not. The control arm does not ask: it measures what is there.
    """
    ordered = sorted(options, key=lambda o: o.key)
    rng = np.random.default_rng(seed)
    n_control, n_explore = (_share(number, s) for s in (config.control, config.explore))
    picks: dict[str, str] = {}
    passed = [o for o in ordered if o.passed]
    _greedy(
        passed,
        [o.probability * (1.0 if o.balanced else config.unbalanced) for o in passed],
        config,
        number - n_control - n_explore,
        picks,
        "exploit",
        same,
    )
    _greedy(passed, [o.sigma for o in passed], config, n_explore, picks, "explore", same)
    rest = [o.key for o in ordered if o.key not in picks]
    for at in rng.permutation(len(rest))[:n_control]:
        picks[rest[at]] = "control"
    return picks


def _share(number: int, share: float) -> int:
    """A share of the calls: at least one where asked for and five calls or more are to be had."""
    return max(round(number * share), 1) if share > 0 and number >= 5 else 0


def _greedy(
    options: Sequence[Option], scores: Sequence[float], config: Pick, number: int, picks: dict[str, str], arm: str, same: Same
) -> None:
    """Best first; a score shrinks by `diversity` for every pick that shares the formula or the prototype."""
    formulas = Counter(o.formula for o in options if o.key in picks)
    prototypes = Counter(o.prototype for o in options if o.key in picks)
    # logarithms: with hundreds of picks the shrunken scores themselves would all underflow to zero
    worth = np.log(np.maximum(np.array(scores, dtype=np.float64), 1e-300))
    open_ = np.array([o.key not in picks for o in options], dtype=bool)
    same_formula = np.array([formulas[o.formula] for o in options])
    same_prototype = np.array([prototypes[o.prototype] for o in options])
    names = np.array([o.formula for o in options])
    kinds = np.array([o.prototype for o in options])
    left = number
    while left:
        usable = open_ & (same_formula < config.per_formula)
        if not usable.any():
            return
        score = np.where(usable, worth + np.log(config.diversity) * (same_formula + same_prototype), -np.inf)
        best = int(np.argmax(score))
        open_[best] = False
        alike = [o.key for o in options if o.formula == names[best] and o.key in picks] if same_formula[best] else []
        if any(same(options[best].key, other) for other in alike):
            continue
        picks[options[best].key] = arm
        left -= 1
        same_formula += names == names[best]
        same_prototype += kinds == kinds[best]
