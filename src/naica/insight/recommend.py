"""Which network for so much data of this kind: read from the measured table of a comparison, never from an opinion.

The table is ``measured.json`` beside this file; ``naica zoo report FOLDER --ship package`` writes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from naica.errors import InputError, MissingPart

OTHER_QUANTITY = 1.0
"""How far a task of another quantity is, in decades of rows."""
FAR = 0.5
"""Farther than this (a factor 3 in rows, or another quantity), an answer says how far its evidence is, and promises no error."""
_ALIKE = 0.1


@dataclass(frozen=True)
class Need:
    """What is to be learned: labelled rows for training, ``crystal`` or ``molecule``, the quantity of fields.py, regression or class.

    `deviation`: mean absolute deviation of the labels, if known; with it errors can be given in the labels' unit.
    """

    rows: int
    system: str
    quantity: str
    kind: str
    deviation: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A network for a need.

    `behind`: how much more error than the best of each task it leaves (0.1: 10 % more), mean weighted by nearness; `covered`: share of
    the weight on which it was measured.
    """

    model: str
    behind: float
    covered: float


@dataclass(frozen=True)
class Evidence:
    """A measured task, its distance to the need in decades of rows (`OTHER_QUANTITY` more for another quantity), and its weight."""

    task: Mapping[str, Any]
    distance: float
    weight: float

    def score(self, model: str) -> Mapping[str, Any] | None:
        """What a network reached there; None where it was not measured, or not on all rows."""
        return next((s for s in self.task["scores"] if s["model"] == model and not s["own_rows"]), None)


@dataclass(frozen=True)
class Advice:
    """The answer: candidates, best first; the evidence, nearest first; expected error of the best (low, high) with its unit; caveats.

    `far`: nothing near was measured; then `expected` is what the best left elsewhere, and promises nothing here.
    """

    candidates: tuple[Candidate, ...]
    evidence: tuple[Evidence, ...]
    expected: tuple[float, float]
    unit: str
    minutes: float
    epochs: int
    caveats: tuple[str, ...]
    far: bool


def shipped() -> Path:
    """Where the shipped table lies."""
    return Path(str(files("naica.insight") / "measured.json"))


def measured(path: Path | None = None) -> dict[str, Any]:
    """The measured table.

    Raises
    ------
    MissingPart
        If there is none.
    InputError
        If the file is no such table.
    """
    path = path or shipped()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != 1 or not isinstance(found["tasks"], list):
            raise KeyError("format")
    except FileNotFoundError:
        raise MissingPart(f"no measured table at {path}; make one with naica zoo, then naica zoo report FOLDER --ship {path}") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no measured table of naica zoo ({error!r})") from error
    return dict(found)


def advise(need: Need, table: Mapping[str, Any]) -> Advice:
    """The networks for a need, from the tasks of the same kind of system and label.

    Each task counts with weight exp(−2 · distance); a network's figure on a task is how far its error is behind the best network's there.

    Raises
    ------
    InputError
        If no task of that kind was measured.
    """
    evidence = _evidence(need, table["tasks"])
    if not evidence:
        known = sorted({(t["system"], t["kind"]) for t in table["tasks"]})
        shown = ", ".join(f"{kind} on {system}s" for system, kind in known) or "nothing"
        raise InputError(f"no {need.kind} on {need.system}s was measured; the table has {shown}")
    candidates = _candidates(evidence)
    if not candidates:
        raise InputError(f"no network was measured on at least half of the tasks near {need.quantity} with {need.rows} rows")
    best = candidates[0].model
    source = next(e for e in evidence if e.score(best) is not None)
    low, high, unit = _expected(need, evidence, best, source)
    epochs = int((source.score(best) or {}).get("epochs") or 1)
    caveats, far = _caveats(need, source, candidates), source.distance > FAR
    return Advice(tuple(candidates), tuple(evidence), (low, high), unit, float(source.task["minutes"]), epochs, caveats, far)


def _evidence(need: Need, tasks: Sequence[Mapping[str, Any]]) -> list[Evidence]:
    found = []
    for task in tasks:
        if task["system"] != need.system or task["kind"] != need.kind or not any(s["rank"] is not None for s in task["scores"]):
            continue
        distance = abs(math.log10(need.rows / max(task["train_rows"], 1))) + (0.0 if task["quantity"] == need.quantity else OTHER_QUANTITY)
        found.append(Evidence(task, distance, math.exp(-2 * distance)))
    return sorted(found, key=lambda e: e.distance)


def _candidates(evidence: Sequence[Evidence]) -> list[Candidate]:
    whole = sum(e.weight for e in evidence)
    models = list(dict.fromkeys(s["model"] for e in evidence for s in e.task["scores"] if s["rank"] is not None))
    found = []
    for model in models:
        total, weight = 0.0, 0.0
        for e in evidence:
            mine = e.score(model)
            if mine is None or mine["error_left"] is None:
                continue
            best = min(
                s["error_left"] for s in e.task["scores"] if s["rank"] is not None and not s["own_rows"] and s["error_left"] is not None
            )
            total, weight = total + e.weight * (mine["error_left"] / max(best, 1e-9) - 1), weight + e.weight
        if weight >= whole / 2:
            found.append(Candidate(model, total / weight, weight / whole))
    return sorted(found, key=lambda c: c.behind)


def _expected(need: Need, evidence: Sequence[Evidence], model: str, source: Evidence) -> tuple[float, float, str]:
    """Range of the error: as measured on the same quantity (± two standard errors), else shares of the mean predictor's error.

    Tasks of the same quantity, metric and nearly as near as the nearest one all count; where nothing near was measured, all tasks do.
    """
    metric = {"mae": "MAE", "rmse": "RMSE", "auc": "ROC-AUC"}[source.task["metric"]]
    if source.task["quantity"] == need.quantity:
        same = ("quantity", "metric", "unit")
        alike = [e for e in evidence if e.distance <= source.distance + _ALIKE and all(e.task[k] == source.task[k] for k in same)]
        found = [s for e in alike for s in [e.score(model)] if s is not None]
        bars = [2 * (s.get("error") or 0.0) for s in found]
        low = min(s["value"] - bar for s, bar in zip(found, bars, strict=True))
        return low, max(s["value"] + bar for s, bar in zip(found, bars, strict=True)), f"{metric} {source.task['unit']}".strip()
    some = evidence if source.distance > FAR else evidence[:3]
    near = [s["error_left"] for e in some for s in [e.score(model)] if s is not None and s["error_left"] is not None]
    low, high = min(near), max(near)
    if need.kind == "class":
        return 1 - high / 2, 1 - low / 2, "ROC-AUC"
    if need.deviation is not None:
        return low * need.deviation, high * need.deviation, "mean absolute error, in the labels' unit"
    return 100 * low, 100 * high, "% of the mean predictor's error"


def _caveats(need: Need, source: Evidence, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    task, found = source.task, []
    if task["quantity"] != need.quantity:
        found.append(f"{need.quantity} was not measured: the nearest is {task['quantity']} ({task['title']}), so this is an extrapolation")
    factor = max(need.rows / task["train_rows"], task["train_rows"] / need.rows)
    if math.log10(factor) > FAR:
        more = "fewer" if need.rows > task["train_rows"] else "more"
        found.append(f"measured on {task['train_rows']:,} training rows, {factor:.0f} times {more} than yours; the error will differ")
    if (source.score(candidates[0].model) or {}).get("error") is None:
        found.append("measured with one seed there: no error bar")
    close = [c.model for c in candidates[1:] if c.behind < candidates[0].behind + 0.05]
    if close:
        found.append(f"{', '.join(close)} did within 5 % as well")
    ridge, best = source.score("composition-ridge"), source.score(candidates[0].model)
    if ridge and best and ridge["error_left"] <= best["error_left"]:
        found.append("a ridge regression on the composition alone did as well or better there: look at that first")
    return tuple(found)


def settings(model: str, rows: int, epochs: int, kind: str) -> str:
    """The settings for `naica train` as TOML: those the comparison used."""
    from naica.insight.tasks import recipe

    plain = recipe(model).config(rows, 0, kind).to_dict()
    wanted = ("architecture", "batch_size", "learning_rate", "weight_decay", "loss", "ema", "clip")
    lines = [f"{key} = {json.dumps(plain[key])}" for key in wanted] + [f"epochs = {epochs}"]
    if plain["architecture_config"]:
        lines += ["", "[architecture_config]", *(f"{key} = {json.dumps(value)}" for key, value in plain["architecture_config"].items())]
    return "\n".join(lines) + "\n"
