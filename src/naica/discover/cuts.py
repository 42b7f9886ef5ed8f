"""What each cut of the filter costs: how many stable candidates it lost, measured on results.

A filter that never looks behind itself cannot know what it loses. The campaign's control arm is drawn at random from everything that was
not picked, whatever the filter said of it, so the share of stable ones among the control calls of a cut's victims, times the number of
victims, is an honest estimate of what that cut lost. Results of the other arms passed all cuts by construction: they count as found, but
say nothing of recall. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.discover.config import Filter
from naica.discover.ledger import Ledger
from naica.insight.intervals import Interval, wilson

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

QUICK, FULL, RELAXED = "quick look", "full look", "relaxed look"


@dataclass(frozen=True)
class Cut:
    """One cut, in the order of the cascade: those that met it, and of the *stable* ones how many it kept and lost.

    `recall` is kept / met of the stable ones that came so far.
    """

    name: str
    met: int
    kept: int
    stable_met: int
    stable_kept: int
    recall: Interval

    @property
    def stable_lost(self) -> int:
        """Stable ones that this cut dropped."""
        return self.stable_met - self.stable_kept

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with what was lost."""
        return {**asdict(self), "stable_lost": self.stable_lost}


def cuts(fates: NDArray[np.int64], stable: Flags, names: Sequence[str]) -> list[Cut]:
    """Each cut on candidates whose truth is known.

    Parameters
    ----------
    fates : (n) number of the cut that dropped the candidate, ``len(names)`` where none did
    stable : (n) whether it is stable
    names : of the cuts
    """
    found = []
    for k, name in enumerate(names):
        met, kept = fates >= k, fates > k
        n, good = int((met & stable).sum()), int((kept & stable).sum())
        found.append(Cut(name, int(met.sum()), int(kept.sum()), n, good, wilson(good, n)))
    return found


def whole(fates: NDArray[np.int64], stable: Flags, names: Sequence[str]) -> Cut:
    """All cuts together."""
    kept = fates == len(names)
    n, good = int(stable.sum()), int((kept & stable).sum())
    return Cut("all cuts", len(fates), int(kept.sum()), n, good, wilson(good, n))


def fates_of(quick: Floats, full: Floats, relaxed: Floats | None, threshold: float, config: Filter) -> tuple[NDArray[np.int64], list[str]]:
    """Which cut dropped each candidate, from its distances (eV/atom, NaN where not looked at), and the names of the cuts.

    With a relaxed look, the full look only decides who is relaxed (`relax_limit`); who was not relaxed after all (more than `relax_most`,
    or the potential failed) is judged by the full look at `limit`.
    """
    names = [QUICK, FULL] + ([RELAXED] if relaxed is not None else [])
    fates = np.full(len(quick), len(names), dtype=np.int64)
    limit = threshold + config.limit
    if relaxed is None:
        fates[~(full <= limit)] = 1
    else:
        looked = np.isfinite(relaxed)
        fates[np.where(looked, ~(relaxed <= limit), ~(full <= limit))] = 2
        fates[~(full <= threshold + config.relax_limit)] = 1
    # what the full look never saw fell at the first
    fates[~np.isfinite(full)] = 0
    return fates, names


def sentences(told: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What a summary's `filter` says, for people: what each cut lost, and how true the error bars were."""
    if not told:
        return ()
    said = []
    now = told["cuts"]["now"]
    if now:
        for cut, held in zip(now["control"]["cuts"], now["lost"], strict=True):
            if cut["stable_met"]:
                r = cut["recall"]
                kept = f"kept {cut['stable_kept']} of {cut['stable_met']} stable control calls ({r['low']:.0%}–{r['high']:.0%})"
            else:
                kept = "no stable control call has met it yet"
            most = f"; holds back at most {held['estimate']['high']:.0f} stable of {held['candidates']}" if held["control"] else ""
            said.append(f"{cut['name']}: {kept}{most}")
    reliable = told["reliability"]["by"]
    if reliable["as read"]:
        before, after = reliable["as predicted"], reliable["as read"]
        said.append(
            f"error bars held {after['coverage_1']:.0%} of {told['reliability']['n']} results (as the model gave them "
            f"{before['coverage_1']:.0%}; 68% is right), Brier score {after['brier']:.3f} ({before['brier']:.3f})"
        )
    return tuple(said)


# --- the ledger ----------------------------------------------------------------------------------------------------------------------
def campaign_cuts(ledger: Ledger, config: Filter, threshold: float, stable: dict[str, bool], up_to: int | None = None) -> dict[str, Any]:
    """What the cuts of a campaign lost so far.

    Parameters
    ----------
    config, threshold : the filter's settings, and what counts as stable (eV/atom)
    stable : converged picks → whether they were hits
    up_to : last round that counts

    Returns
    -------
    Keys: `control` and `computed` (cuts and all cuts together on the control calls, and on all calls), `lost` (for each cut: candidates it
    holds back now, control calls among such, stable ones, their share, and the number of stable ones it is estimated to hold back, with
    intervals) and `left` (the same for what passed every cut and was not picked).
    """
    last = up_to if up_to is not None else 2**31
    rows, fates, names = _fates(ledger, config, threshold)
    called = np.array([r[2] is not None and r[2] <= last and r[0] in stable for r in rows], dtype=bool)
    hit = np.array([stable.get(r[0], False) for r in rows], dtype=bool)
    control = called & np.array([r[1] == "control" for r in rows], dtype=bool)
    waiting = np.array([r[2] is None for r in rows], dtype=bool)
    held = [_held(name, fates == k, waiting, control, hit) for k, name in enumerate((*names, "not picked"))]
    return {
        "control": _both(fates[control], hit[control], names),
        "computed": _both(fates[called], hit[called], names),
        "lost": held[:-1],
        "left": held[-1],
    }


def exact_cuts(ledger: Ledger, config: Filter, threshold: float, labels: Mapping[str, float]) -> dict[str, Any]:
    """What the cuts did to candidates whose labels are all known, as after the fact: key → label that counts as stable up to `threshold`.

    Unlike `campaign_cuts` this is no estimate; how well the control arm does can be seen beside it.
    """
    rows, fates, names = _fates(ledger, config, threshold)
    known = np.array([r[0] in labels for r in rows], dtype=bool)
    stable = np.array([labels.get(r[0], np.inf) <= threshold for r in rows], dtype=bool)
    return _both(fates[known], stable[known], names)


def _fates(ledger: Ledger, config: Filter, threshold: float) -> tuple[list[tuple[Any, ...]], NDArray[np.int64], list[str]]:
    """Key, arm and round of picking of every judged candidate, which cut dropped it, and the names of the cuts."""
    rows = ledger.rows(
        "select c.key, c.arm, c.picked, c.quick, c.distance, l.before, l.after from candidates c "
        "left join looks l on l.key = c.key where c.status in ('computed', 'passed', 'filtered')"
        if _has_looks(ledger)
        else "select key, arm, picked, quick, distance, null, null from candidates where status in ('computed', 'passed', 'filtered')"
    )
    quick, distance, before, after = (np.array([np.nan if r[k] is None else r[k] for r in rows], dtype=np.float64) for k in (3, 4, 5, 6))
    full = np.where(np.isfinite(before), before, distance)
    return rows, *fates_of(quick, full, after if config.relax_with else None, threshold, config)


def _both(fates: NDArray[np.int64], stable: Flags, names: Sequence[str]) -> dict[str, Any]:
    return {"cuts": [c.to_dict() for c in cuts(fates, stable, names)], "all": whole(fates, stable, names).to_dict()}


def _held(name: str, here: Flags, waiting: Flags, control: Flags, hit: Flags) -> dict[str, Any]:
    """What a cut holds back: the stable share of the control calls of such candidates, times their number."""
    n, calls, good = int((here & waiting).sum()), int((here & control).sum()), int((here & control & hit).sum())
    share = wilson(good, calls)
    return {
        "name": name, "candidates": n, "control": calls, "stable": good, "share": share.to_dict(),
        "estimate": {"value": n * share.value if calls else None, "low": n * share.low, "high": n * share.high},
    }  # fmt: skip


def _has_looks(ledger: Ledger) -> bool:
    return bool(ledger.rows("select 1 from sqlite_master where type = 'table' and name = 'looks'"))


def cuts_so_far(ledger: Ledger, config: Filter, threshold: float) -> dict[str, Any]:
    """What each round found out about the cuts, as the stages left it, and the last of them as the campaign's own.

    Keys: rounds (round and what `campaign_cuts` said at its end), now (the last of them; None if no round has finished).
    """
    rounds = []
    for (number,) in ledger.rows("select round from stages where stage = 'compute' and round > 0 order by round"):
        found = (ledger.stage(number, "compute") or {}).get("cuts")
        if found:
            rounds.append({"round": number, **found})
    return {"threshold": threshold, "limits": {k: v for k, v in config.model_dump().items() if "limit" in k}, "rounds": rounds,
            "now": rounds[-1] if rounds else None}  # fmt: skip
