"""From the runs of a comparison to scores with error bars, and to ranks with ties; further seeds join a table measured before."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.insight.tasks import Task

Array = NDArray[np.float64]
MAY_MISS = 0.1
"""A network that misses a larger share of a task's test rows is judged on its own rows and takes the last place."""


@dataclass(frozen=True)
class Score:
    """One network on one task.

    Parameters
    ----------
    model, seeds : who, and how many runs ended well
    value, error : the task's metric, mean over seeds, and its standard error (NaN from one seed)
    per_seed : the metric of each seed; empty where only mean and error are known
    normalised : share of the mean predictor's error that is left; for areas, of one half
    rank : place among the networks of the task, ties shared; NaN for baselines
    missing : share of the test rows that it could not judge
    own_rows : whether `value` is on its own rows instead of those that all networks could judge
    reason : why it failed, or which rows it left out
    facts : parameters, speeds, epochs, seconds: means over seeds
    """

    model: str
    seeds: int
    value: float
    error: float
    per_seed: Mapping[int, float]
    normalised: float
    rank: float
    missing: float
    own_rows: bool
    reason: str
    facts: Mapping[str, float]


@dataclass(frozen=True)
class Standing:
    """The scores of one task, best first, baselines last; training rows, judged rows per seed, minutes."""

    task: Task
    scores: tuple[Score, ...]
    train_rows: int
    test_rows: int
    minutes: float

    @property
    def networks(self) -> tuple[Score, ...]:
        """Without the baselines."""
        return tuple(s for s in self.scores if s.model not in ("mean", "composition-ridge"))

    @property
    def seeds(self) -> str:
        """How many seeds the networks have, in words."""
        found = sorted({s.seeds for s in self.networks or self.scores if s.seeds}) or [0]
        many = f"{found[0]} to {found[-1]}" if len(found) > 1 else f"{found[0]}"
        return f"{many} seed{'' if many == '1' else 's'}"

    def score(self, model: str) -> Score | None:
        """That of one network."""
        return next((s for s in self.scores if s.model == model), None)


def metric(task: Task, actual: Array, predicted: Array) -> float:
    """A task's metric on labels and predictions (n, columns), mean over the columns; a column without both classes has no area."""
    from naica.training.evaluation import roc_auc

    found = []
    for a, p in zip(actual.T, predicted.T, strict=True):
        known = np.isfinite(a)
        if task.metric == "auc":
            area = roc_auc(p[known], a[known])
            found += [] if area is None else [area]
        elif known.any():
            off = (a - p)[known]
            found.append(float(np.abs(off).mean()) if task.metric == "mae" else float(np.sqrt(np.mean(off**2))))
    return float(np.mean(found)) if found else float("nan")


def standings(runs: Sequence[Mapping[str, Any]], known: Mapping[str, Task]) -> list[Standing]:
    """The scores of all tasks in runs as `naica.insight.comparison.read_runs` gives them, in the order of the table of tasks.

    Raises
    ------
    InputError
        If runs of one task learned from different rows or labels.
    """
    by_task: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        by_task[run["task"]].append(run)
    return [_standing(task, by_task[name]) for name, task in known.items() if name in by_task]


def _standing(task: Task, runs: Sequence[Mapping[str, Any]]) -> Standing:
    good = {(r["model"], r["seed"]): r for r in runs if r["status"] == "ok"}
    if len({r["data"] for r in good.values()}) > 1:
        raise InputError(f"the runs of {task.name} did not learn from the same rows and labels; start that task in a fresh folder")
    bases = ("mean", "composition-ridge")
    models = [m for m in dict.fromkeys(r["model"] for r in runs) if m not in bases]
    missing = {m: _missing([r for (name, _), r in good.items() if name == m]) for m in models}
    able = [m for m in models if missing[m] <= MAY_MISS]
    common = {s: _common([r for (m, seed), r in good.items() if seed == s and m in able]) for s in {seed for _, seed in good}}
    values: dict[str, dict[int, float]] = defaultdict(dict)
    parts: dict[str, dict[int, float]] = defaultdict(dict)
    for (model, seed), run in good.items():
        rows = None if model in models and model not in able else common[seed]
        values[model][seed] = _on(task, run, rows)
        parts[model][seed] = _normalised(task, values[model][seed], good.get(("mean", seed)), run, rows)
    ranks = _ranks(task, {m: values[m] for m in able}, [m for m in models if m not in able])
    scores = [
        _score(m, [r for r in runs if r["model"] == m], values[m], parts[m], ranks.get(m, float("nan")), missing.get(m, 0.0), m in able)
        for m in (*models, *bases)
        if m in models or values[m]
    ]
    scores.sort(key=lambda s: (s.model in bases, s.rank, np.nan_to_num(s.normalised, nan=np.inf)))
    trained = [r["rows"]["train"] for r in good.values() if r["model"] not in bases] or [r["rows"]["train"] for r in good.values()] or [0]
    judged = [len(rows) for rows in common.values() if rows is not None] or [0]
    return Standing(task, tuple(scores), int(np.median(trained)), int(np.median(judged)), runs[0]["minutes"])


def _missing(runs: Sequence[Mapping[str, Any]]) -> float:
    if not runs:
        return 1.0
    absent, there = sum(r["missing"]["test"] for r in runs), sum(r["rows"]["test"] for r in runs)
    return absent / max(absent + there, 1)


def _common(runs: Sequence[Mapping[str, Any]]) -> NDArray[np.int64] | None:
    """Test rows that all of these runs judged; None where there are no runs."""
    found = None
    for run in runs:
        rows = np.asarray(run["test"]["rows"], dtype=np.int64)
        found = rows if found is None else np.intersect1d(found, rows)
    return found


def _on(task: Task, run: Mapping[str, Any], rows: NDArray[np.int64] | None) -> float:
    mine = np.asarray(run["test"]["rows"], dtype=np.int64)
    keep = np.ones(len(mine), dtype=bool) if rows is None else np.isin(mine, rows)
    actual, predicted = (np.array(run["test"][key], dtype=np.float64)[keep] for key in ("actual", "predicted"))
    return metric(task, actual, predicted)


def _normalised(task: Task, value: float, mean: Mapping[str, Any] | None, run: Mapping[str, Any], rows: NDArray[np.int64] | None) -> float:
    if task.metric == "auc":
        return 2 * (1 - value)
    if mean is None:
        return float("nan")
    return value / _on(task, mean, np.asarray(run["test"]["rows"], dtype=np.int64) if rows is None else rows)


def _ranks(task: Task, able: Mapping[str, Mapping[int, float]], unable: Sequence[str]) -> dict[str, float]:
    """Places: 1 + networks that are better + half of those that tie; networks that could not do the task share the last places.

    Two networks tie where the mean difference of their metric over shared seeds is within its standard error (one seed: only if equal).
    """

    def compared(model: str, other: str) -> tuple[float, float] | None:
        mine, theirs = able[model], able[other]
        shared = sorted(set(mine) & set(theirs))
        difference = np.array([mine[s] - theirs[s] for s in shared])
        return (float(difference.mean()), _standard_error(difference)) if shared else None

    return _placed(task, list(able), unable, compared)


def _placed(
    task: Task, able: Sequence[str], unable: Sequence[str], compared: Callable[[str, str], tuple[float, float] | None]
) -> dict[str, float]:
    """Places from the difference of two networks' metrics and its error bar (zero for a single seed); None where they do not compare."""
    sign = -1.0 if task.larger_is_better else 1.0
    ranks = {}
    for model in able:
        ranks[model] = 1.0
        for other in able:
            found = compared(model, other) if other != model else None
            if found is not None:
                ranks[model] += 0.5 if abs(found[0]) <= found[1] else float(sign * found[0] > 0)
    for model in unable:
        ranks[model] = len(able) + (len(unable) + 1) / 2
    return ranks


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _score(
    model: str,
    runs: Sequence[Mapping[str, Any]],
    values: Mapping[int, float],
    parts: Mapping[int, float],
    rank: float,
    missing: float,
    able: bool,
) -> Score:
    good = [r for r in runs if r["status"] == "ok"]
    numbers = np.array([values[s] for s in sorted(values)])
    bar = float(numbers.std(ddof=1) / np.sqrt(len(numbers))) if len(numbers) > 1 else float("nan")
    reasons = [r["reason"] for r in runs if r["status"] == "failed"]
    rejected: dict[str, int] = {}
    for run in good[:1]:
        rejected = run.get("rejected", {})
    said = reasons[0] if reasons else "; ".join(f"{n} rows: {why}" for why, n in list(rejected.items())[:2])
    if len({json.dumps(r.get("recipe"), sort_keys=True) for r in good}) > 1:
        said = "; ".join(filter(None, [said, "its seeds were trained by different recipes"]))
    facts = {
        "parameters": _mean(r.get("parameters") for r in good),
        "train_per_second": _mean(r.get("train_per_second") for r in good),
        "infer_per_second": _mean(r.get("infer_per_second") for r in good),
        "epochs": _mean(r["epochs"]["done"] for r in good if "epochs" in r),
        "best_epoch": _mean(r["epochs"]["best"] for r in good if "epochs" in r),
        "cpu_seconds": _mean(r["cpu_seconds"] for r in good),
        "graph_cpu_seconds": _mean(r.get("graph_cpu_seconds") for r in good),
        "train_rows": _mean(r["rows"]["train"] for r in good),
    }
    value, share = (float(numbers.mean()), float(np.mean(list(parts.values())))) if len(numbers) else (float("nan"), float("nan"))
    own = not able and bool(good) and model not in ("mean", "composition-ridge")
    return Score(model, len(good), value, bar, dict(values), share, rank, missing, own, said, facts)


# --- further seeds of a table measured before ----------------------------------------------------------------------------------
FACTS = ("parameters", "train_per_second", "infer_per_second", "epochs", "cpu_seconds")
"""What a measured table keeps of a network beside its scores."""


def joined(found: Sequence[Standing], table: Mapping[str, Any], known: Mapping[str, Task]) -> list[Standing]:
    """Standings with those of a measured table (see `naica.insight.recommend.measured`), in the order of the table of tasks.

    A task with the same CPU minutes in both gets the seeds of both, a seed in both counts as it is in the table. A task run here with
    other minutes takes the place of the table's. Where the table keeps no values of single seeds, networks are compared as if theirs were
    independent, which makes more ties than the paired comparison would.

    Raises
    ------
    InputError
        If a task has the same minutes but another split or number of rows.
    """
    here, there = {s.task.name: s for s in found}, {entry["task"]: entry for entry in table["tasks"]}
    result = []
    for name, task in known.items():
        mine, entry = here.get(name), there.get(name)
        if mine is not None and (entry is None or entry["minutes"] != mine.minutes):
            result.append(mine)
        elif entry is not None:
            old = _from_table(task, entry)
            result.append(old if mine is None else _together(old, mine))
    return result


def _from_table(task: Task, entry: Mapping[str, Any]) -> Standing:
    def number(value: float | None) -> float:
        return float("nan") if value is None else float(value)

    scores = []
    for one in entry["scores"]:
        per_seed = {int(seed): value for seed, value in one.get("per_seed", {}).items()}
        if not per_seed and one["seeds"] == 1:
            per_seed = {0: one["value"]}
        facts = {key: number(one.get(key)) for key in (*FACTS, "best_epoch", "graph_cpu_seconds", "train_rows")}
        value, error, left, rank = (number(one[key]) for key in ("value", "error", "error_left", "rank"))
        missing, own, said = float(one["missing"]), bool(one["own_rows"]), str(one.get("reason", ""))
        scores.append(Score(one["model"], one["seeds"], value, error, per_seed, left, rank, missing, own, said, facts))
    return Standing(task, tuple(scores), entry["train_rows"], entry["test_rows"], entry["minutes"])


def _together(old: Standing, new: Standing) -> Standing:
    if abs(old.train_rows - new.train_rows) > 0.05 * old.train_rows:
        raise InputError(
            f"{new.task.name}: the table was measured with {old.train_rows:,} training rows, these runs with {new.train_rows:,}"
        )
    scores = []
    for name in dict.fromkeys(s.model for s in (*old.scores, *new.scores)):
        one, other = old.score(name), new.score(name)
        if one is None or other is None:
            scores.append(one or other)
            continue
        fresh = {s: v for s, v in other.per_seed.items() if s not in (one.per_seed or range(one.seeds))}
        scores.append(_added(one, other, fresh) if fresh else one)
    both = [s for s in scores if s is not None]
    bases = ("mean", "composition-ridge")
    unable = [s.model for s in both if s.model not in bases and (s.own_rows or not s.seeds)]
    able = {s.model: s for s in both if s.model not in bases and s.model not in unable}
    ranks = _placed(new.task, list(able), unable, lambda a, b: _difference(able[a], able[b]))
    ranked = [replace(s, rank=ranks.get(s.model, float("nan"))) for s in both]
    ranked.sort(key=lambda s: (s.model in bases, s.rank, np.nan_to_num(s.normalised, nan=np.inf)))
    return replace(new, scores=tuple(ranked), train_rows=old.train_rows, test_rows=old.test_rows)


def _difference(one: Score, other: Score) -> tuple[float, float]:
    """Paired over the seeds if those of both are known, else from the two error bars."""
    shared = sorted(set(one.per_seed) & set(other.per_seed))
    if len(one.per_seed) == one.seeds and len(other.per_seed) == other.seeds and shared:
        values = np.array([one.per_seed[s] - other.per_seed[s] for s in shared])
        return float(values.mean()), _standard_error(values)
    return one.value - other.value, float(np.hypot(np.nan_to_num(one.error), np.nan_to_num(other.error)))


def _added(one: Score, other: Score, fresh: Mapping[int, float]) -> Score:
    """A score with the values of further seeds: mean and standard error of all, exactly, from those of the first and the new values."""
    k, values = one.seeds, np.array(list(fresh.values()))
    n = k + len(values)
    mean = (k * one.value + values.sum()) / n
    squares = k * (k - 1) * np.nan_to_num(one.error) ** 2 + k * (one.value - mean) ** 2 + ((values - mean) ** 2).sum()

    def weighted(a: float, b: float) -> float:
        known = [(x, w) for x, w in ((a, k), (b, len(values))) if np.isfinite(x)]
        return sum(x * w for x, w in known) / sum(w for _, w in known) if known else float("nan")

    whole = len(one.per_seed) == k
    return Score(
        one.model,
        n,
        float(mean),
        float(np.sqrt(squares / (n - 1) / n)),
        {**one.per_seed, **fresh} if whole else {},
        weighted(one.normalised, other.normalised),
        float("nan"),
        weighted(one.missing, other.missing),
        one.own_rows or other.own_rows,
        other.reason or one.reason,
        {key: weighted(value, other.facts[key]) for key, value in one.facts.items()},
    )


def _mean(values: Any) -> float:
    known = [float(v) for v in values if v is not None]
    return float(np.mean(known)) if known else float("nan")


@dataclass(frozen=True)
class Place:
    """A network over all tasks of one kind of system: mean rank, on how many tasks, how often first, mean of the normalised errors."""

    model: str
    mean_rank: float
    tasks: int
    firsts: int
    normalised: float


def places(found: Sequence[Standing], system: str) -> list[Place]:
    """Networks by their mean rank over the tasks of a kind of system; those run on fewer tasks come after the others."""
    mine = [s for s in found if s.task.system == system]
    ranks: dict[str, list[float]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    firsts: dict[str, int] = defaultdict(int)
    for standing in mine:
        best = min((s.rank for s in standing.networks), default=float("nan"))
        for score in standing.networks:
            ranks[score.model].append(score.rank)
            firsts[score.model] += score.rank == best
            if not score.own_rows and np.isfinite(score.normalised):
                shares[score.model].append(score.normalised)
    table = [
        Place(m, float(np.mean(r)), len(r), firsts[m], float(np.mean(shares[m])) if shares[m] else float("nan")) for m, r in ranks.items()
    ]
    return sorted(table, key=lambda p: (-p.tasks, p.mean_rank))
