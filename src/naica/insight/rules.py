"""Design rules: "A in groups 13 to 15, B in groups 4 to 6", found by searching all such conditions.

A rule asks one condition of each kind of site: a range of groups, a range of periods, both at once, a block, or one of the elements with
the lowest site contributions. All pairs of conditions are tried: hits and sizes of every one are two matrix products.
Many rules are tried and the best is kept, so its success in the searched rows flatters it; therefore the score is a lower bound at a level
corrected for their number (Bonferroni), and rows that had no part in the search say what the rule is worth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.insight.intervals import Interval, clopper_pearson, nested_enrichment
from naica.structure.elements import element

Kinds = Mapping[str, NDArray[np.str_]]
"""For each kind of site, the element on it in every row."""


@dataclass(frozen=True)
class Condition:
    """Something asked of the element on a site; `facts` counts how much it asks (0: nothing)."""

    words: str
    elements: frozenset[str]
    facts: int


@dataclass(frozen=True)
class Rule:
    """A condition for each kind of site."""

    conditions: Mapping[str, Condition]

    @property
    def facts(self) -> int:
        """How much it asks in all."""
        return sum(c.facts for c in self.conditions.values())

    def __str__(self) -> str:
        asked = [f"{site} {c.words}" for site, c in self.conditions.items() if c.facts]
        return ", ".join(asked) if asked else "anything"

    def holds(self, kinds: Kinds) -> NDArray[np.bool_]:
        """In which rows it holds."""
        return np.logical_and.reduce([np.isin(kinds[site], sorted(c.elements)) for site, c in self.conditions.items()])


@dataclass(frozen=True)
class Judged:
    """A rule on some rows: how many rows follow it and hit, beside all rows; with 95 % intervals."""

    rule: Rule
    hits: int
    size: int
    all_hits: int
    all_size: int
    rate: Interval
    enrichment: Interval | None


@dataclass(frozen=True)
class Mined:
    """The best rule on the rows searched, how many were tried, and the best of each number of facts (simplest first)."""

    best: Judged
    tried: int
    level: float
    by_facts: tuple[Judged, ...]
    scores: tuple[float, ...] = field(default=())


def judge(rule: Rule, kinds: Kinds, hit: NDArray[np.bool_]) -> Judged:
    """A rule on rows with these elements and hits (n,)."""
    holds = rule.holds(kinds)
    hits, size, all_hits, all_size = int(hit[holds].sum()), int(holds.sum()), int(hit.sum()), len(hit)
    return Judged(rule, hits, size, all_hits, all_size, clopper_pearson(hits, size), nested_enrichment(hits, size, all_hits, all_size))


def written(asked: Mapping[str, str], elements: Sequence[str]) -> Rule:
    """A rule from words such as ``{"A": "groups 13-15 periods 5-6", "B": "groups 4-6"}``; also ``block d`` and ``elements Sr,Ba``.

    `elements` are those there are on the sites.

    Raises
    ------
    InputError
        For words that are none of these, or that no element there is fulfils.
    """
    return Rule({site: _condition(words, elements) for site, words in asked.items()})


def _condition(text: str, elements: Sequence[str]) -> Condition:
    chosen, words, parts = frozenset(elements), [], text.split()
    for what, which in zip(parts[::2], parts[1::2], strict=False):
        kind = what.lower().removesuffix("s")
        if kind in ("group", "period") and (match := re.fullmatch(r"(\d+)(?:[-–](\d+))?", which)):
            low, high = int(match[1]), int(match[2] or match[1])
            chosen &= frozenset(e for e in elements if low <= getattr(element(e), kind) <= high)
            words.append(_range(kind, low, high))
        elif kind == "block" and which in tuple("spdf"):
            chosen &= frozenset(e for e in elements if element(e).block == which)
            words.append(f"in the {which} block")
        elif kind == "element":
            chosen &= frozenset(element(e).symbol for e in which.split(","))
            words.append(f"one of {which}")
    if len(words) * 2 != len(parts) or not words:
        raise InputError(
            f"cannot read the condition {text!r}; expected, for example, 'groups 13-15 periods 5-6', 'block d' or 'elements Sr,Ba'"
        )
    if not chosen:
        raise InputError(f"the condition {text!r} is fulfilled by none of the elements there are: {', '.join(elements)}")
    return Condition(" and ".join([words[0], *(w.removeprefix("in ") for w in words[1:])]), chosen, len(words))


def _in_groups(elements: Sequence[str], low: int, high: int) -> frozenset[str]:
    return frozenset(e for e in elements if low <= element(e).group <= high)


def _range(what: str, low: int, high: int) -> str:
    return f"in {what} {low}" if low == high else f"in {what}s {low}–{high}"


# --- the search ---------------------------------------------------------------------------------------------------------------------
def mine(
    kinds: Kinds,
    hit: NDArray[np.bool_],
    rankings: Mapping[str, Sequence[str]] | None = None,
    min_share: float = 0.01,
    price: float = 0.1,
    confidence: float = 0.95,
) -> Mined:
    """The rule with the best score on some rows.

    The score is ln(lower bound of the rule's share of hits / share of hits of all rows) − `price` · facts: a condition must raise the
    enrichment that can be vouched for by 10 % (at 0.1) to be worth its words. The bound is Clopper and Pearson's, one-sided, at the level
    ``(1 − confidence) / tried``.

    Parameters
    ----------
    kinds : the element on each of two kinds of site, for each row
    hit : (n,) which rows are what one looks for
    rankings : for a kind of site its elements, best first: lets a rule ask for the first few of them
    min_share : share of all rows that a rule must cover at least
    price : of a fact
    confidence : of the lower bound

    Raises
    ------
    InputError
        If there are not two kinds of site, arrays of different length, no hits, or no rule covers enough rows.
    """
    if len(kinds) != 2 or any(len(k) != len(hit) for k in kinds.values()):
        raise InputError(
            f"expected two kinds of site with {len(hit)} rows each; found {', '.join(f'{k}: {len(v)}' for k, v in kinds.items())}"
        )
    if not hit.any():
        raise InputError(f"none of the {len(hit)} rows searched is a hit: there is nothing to find a rule for; raise the threshold")
    offered = [conditions(sorted(set(k.tolist())), (rankings or {}).get(site, ())) for site, k in kinds.items()]
    sizes, hits = (_counts(list(kinds.values()), offered, weight) for weight in (np.ones(len(hit)), hit.astype(float)))
    allowed = sizes >= max(1.0, min_share * len(hit))
    if not allowed.any():
        raise InputError(f"no rule covers {min_share:.1%} of {len(hit)} rows; lower the smallest share")
    tried = int(allowed.sum())
    level = (1 - confidence) / tried
    facts = np.add.outer([c.facts for c in offered[0]], [c.facts for c in offered[1]])
    base = float(hit.mean())
    with np.errstate(divide="ignore"):
        score = np.where(allowed, np.log(_lower_bound(hits, sizes, level) / base) - price * facts, -np.inf)
    picked = [_best(score, facts == n, sizes) for n in range(int(facts.max()) + 1) if (allowed & (facts == n)).any()]
    rules = [Rule(dict(zip(kinds, (offered[0][i], offered[1][j]), strict=True))) for i, j in picked]
    judged, scores = [judge(rule, kinds, hit) for rule in rules], [float(score[i, j]) for i, j in picked]
    return Mined(judged[int(np.argmax(scores))], tried, level, tuple(judged), tuple(scores))


def _best(score: NDArray[np.float64], among: NDArray[np.bool_], sizes: NDArray[np.float64]) -> tuple[int, int]:
    """Place of the highest score; of equals the one that covers most."""
    masked = np.where(among, score, -np.inf)
    equal = np.argwhere(masked == masked.max())
    return tuple(int(i) for i in equal[np.argmax(sizes[equal[:, 0], equal[:, 1]])])  # type: ignore[return-value]


def _counts(kinds: list[NDArray[np.str_]], offered: list[list[Condition]], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of a weight over the rows that every pair of conditions covers."""
    names = [sorted(set(k.tolist())) for k in kinds]
    grid = np.zeros((len(names[0]), len(names[1])))
    np.add.at(grid, tuple(np.searchsorted(n, k) for n, k in zip(names, kinds, strict=True)), weight)
    first, second = (
        np.array([[e in c.elements for e in n] for c in offers], dtype=float) for n, offers in zip(names, offered, strict=True)
    )
    return np.round(first @ grid @ second.T)


def _lower_bound(hits: NDArray[np.float64], sizes: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Clopper and Pearson's one-sided lower bound; equal counts are worked out once."""
    from scipy.special import betaincinv

    pairs, back = np.unique(np.stack([hits.ravel(), sizes.ravel()]), axis=1, return_inverse=True)
    found = np.zeros(pairs.shape[1])
    some = pairs[0] > 0
    found[some] = betaincinv(pairs[0, some], pairs[1, some] - pairs[0, some] + 1, level)
    return found[back.ravel()].reshape(hits.shape)


# --- what can be asked ----------------------------------------------------------------------------------------------------------------
def conditions(elements: Sequence[str], ranking: Sequence[str] = ()) -> list[Condition]:
    """All that can be asked of an element among `elements`; of conditions that mean the same elements, the one that asks least.

    The elements of `ranking`, best first, offer "among the k best" for every k.
    """
    known: dict[frozenset[str], Condition] = {}
    for one in sorted(_offers(elements, ranking), key=lambda c: (c.facts, len(c.words))):
        if one.elements:
            known.setdefault(one.elements, one)
    return list(known.values())


def _offers(elements: Sequence[str], ranking: Sequence[str]) -> Iterator[Condition]:
    yield Condition("any element", frozenset(elements), 0)
    groups, periods = (sorted({getattr(element(e), what) for e in elements}) for what in ("group", "period"))
    of_groups = [(a, b) for k, a in enumerate(groups) for b in groups[k:]]
    of_periods = [(a, b) for k, a in enumerate(periods) for b in periods[k:]]
    for low, high in of_groups:
        yield Condition(_range("group", low, high), _in_groups(elements, low, high), 1)
    for low, high in of_periods:
        within = frozenset(e for e in elements if low <= element(e).period <= high)
        yield Condition(_range("period", low, high), within, 1)
        for first, last in of_groups:
            words = f"{_range('group', first, last)} and {_range('period', low, high).removeprefix('in ')}"
            yield Condition(words, within & _in_groups(elements, first, last), 2)
    for block in "spdf":
        yield Condition(f"in the {block} block", frozenset(e for e in elements if element(e).block == block), 1)
    chosen = [e for e in ranking if e in set(elements)]
    for k in range(1, len(chosen)):
        yield Condition(f"one of the {k} elements with the lowest contribution ({', '.join(chosen[:k])})", frozenset(chosen[:k]), 1)
