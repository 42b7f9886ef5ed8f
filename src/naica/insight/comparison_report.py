"""A comparison of networks as Markdown, CSV and JSON, and as one picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.errors import InputError
from naica.insight.ranking import FACTS, Place, Score, Standing, places
from naica.insight.tasks import quantity_of, unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"mean": "mean predictor", "composition-ridge": "ridge on composition"}
_METRICS = {"mae": "MAE", "rmse": "RMSE", "auc": "ROC-AUC"}


def write(found: Sequence[Standing], out: Path) -> list[Path]:
    """Write ``report.md``, ``scores.csv``, ``scores.json`` and ``scores.png`` into `out`; returns their paths."""
    import json

    if not found:
        raise InputError("nothing to report: no task has a finished run yet")
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(markdown(found), encoding="utf-8")
    (out / "scores.csv").write_text(table_csv(found), encoding="utf-8")
    (out / "scores.json").write_text(json.dumps(measured(found), indent=1, ensure_ascii=False), encoding="utf-8")
    picture(found).savefig(out / "scores.png")
    return [out / name for name in ("report.md", "scores.csv", "scores.json", "scores.png")]


def markdown(found: Sequence[Standing]) -> str:
    """The ranks, then each task with its baselines and published figures."""
    lines: list[str] = []
    for system in ("crystal", "molecule"):
        mine = [s for s in found if s.task.system == system]
        if not mine:
            continue
        lines += [f"#### Ranks, {system}s", "", *_rank_table(mine, places(mine, system)), ""]
        for standing in mine:
            lines += [*_task_section(standing), ""]
    return "\n".join(lines)


def _rank_table(found: Sequence[Standing], table: Sequence[Place]) -> list[str]:
    names = [s.task.name for s in found]
    lines = [_row("network", "mean rank", "tasks", "first", "error left", *names), _row(*["---"] * (5 + len(names)))]
    for place in table:
        ranks = [s.score(place.model) for s in found]
        cells = ["–" if score is None else f"{score.rank:g}" for score in ranks]
        lines.append(
            _row(place.model, f"**{place.mean_rank:.2f}**", str(place.tasks), str(place.firsts), _percent(place.normalised), *cells)
        )
    lines += [
        "",
        "Ranks share places where the difference of two networks over the seeds is within its standard error. *Error left*: mean share of "
        "the mean predictor's error (for areas: of one half). A network that failed or missed more than 10 % of the test rows takes the "
        "last place.",
    ]
    return lines


def _task_section(standing: Standing) -> list[str]:
    task = standing.task
    name = _METRICS[task.metric] + (f", {unit(task)}" if unit(task) else "")
    by = "by composition" if task.split == "composition" else "at random"
    lines = [
        f"#### {task.title} (`{task.name}`)",
        "",
        f"About {standing.train_rows:,} training rows, judged on {standing.test_rows:,} test rows that every ranked network can do "
        f"(median over seeds); split {by} from the seed, {standing.seeds}; "
        f"{standing.minutes:g} CPU minutes of training per run.",
        "",
        _row("network", name, "error left", "rank", "test rows missing", "parameters", "train /s", "infer /s", "epochs (best)"),
        _row(*["---"] * 9),
    ]
    lines += [_score_row(standing, score) for score in standing.scores]
    remarks = [f"- {s.model}: {_why(s)}" for s in standing.networks if not s.seeds or s.missing > 0 or s.reason]
    lines += ["", *remarks] if remarks else []
    if task.published:
        shown = "; ".join(f"{p.name} {p.value:g} ({p.source}: {p.split})" for p in task.published)
        lines += ["", f"Published, **on other splits**: {shown}."]
    return lines


def _score_row(standing: Standing, score: Score) -> str:
    facts = score.facts
    value = "failed" if not score.seeds else _value(standing, score) + (" (own rows)" if score.own_rows else "")
    best = f" ({facts['best_epoch']:.0f})" if math.isfinite(facts["best_epoch"]) else ""
    epochs = f"{facts['epochs']:.0f}{best}" if math.isfinite(facts["epochs"]) else "–"
    speeds = (_whole(facts[key]) for key in ("parameters", "train_per_second", "infer_per_second"))
    rank = "–" if math.isnan(score.rank) else f"{score.rank:g}"
    return _row(
        NAMES.get(score.model, score.model),
        value,
        _percent(score.normalised),
        rank,
        _percent(score.missing) if score.missing else "",
        *speeds,
        epochs,
    )


def _why(score: Score) -> str:
    left = "failed" if not score.seeds else f"{score.missing:.1%} of the test rows missing" if score.missing else ""
    return f"{left} ({score.reason})" if left and score.reason else left or score.reason


def digits(value: float, error: float) -> int:
    """Decimals that show a value with its error bar: two figures of the bar, or three of the value."""
    scale = error if math.isfinite(error) and error > 0 else abs(value) / 50
    return max(0, 1 - math.floor(math.log10(scale))) if scale > 0 else 3


def _value(standing: Standing, score: Score) -> str:
    decimals = min(digits(score.value, score.error), 4)
    bar = f" ± {score.error:.{decimals}f}" if math.isfinite(score.error) else ""
    best = [s.rank for s in standing.networks]
    text = f"{score.value:.{decimals}f}{bar}"
    return f"**{text}**" if best and score.rank == min(best) else text


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "–"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "–"


def table_csv(found: Sequence[Standing]) -> str:
    """One line per task and network."""
    stream = io.StringIO()
    facts = ("parameters", "train_per_second", "infer_per_second", "epochs", "best_epoch", "cpu_seconds", "graph_cpu_seconds", "train_rows")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            "task",
            "metric",
            "unit",
            "network",
            "seeds",
            "value",
            "standard_error",
            "error_left",
            "rank",
            "missing",
            "own_rows",
            *facts,
            "remark",
        ]
    )
    for s in found:
        for score in s.scores:
            numbers = [_plain(x) for x in (score.value, score.error, score.normalised, score.rank, score.missing)]
            known = [_plain(score.facts[f]) for f in facts]
            writer.writerow(
                [s.task.name, s.task.metric, unit(s.task), score.model, score.seeds, *numbers, score.own_rows, *known, score.reason]
            )
    return stream.getvalue()


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def measured(found: Sequence[Standing]) -> dict[str, Any]:
    """What `naica recommend` reads: per task the rows, budget and scores, and nothing that was not measured."""
    return {
        "format": 1,
        "tasks": [
            {
                "task": s.task.name,
                "title": s.task.title,
                "set": s.task.set,
                "system": s.task.system,
                "quantity": quantity_of(s.task),
                "kind": s.task.kind,
                "metric": s.task.metric,
                "unit": unit(s.task),
                "train_rows": s.train_rows,
                "test_rows": s.test_rows,
                "split": s.task.split,
                "minutes": s.minutes,
                "scores": [_entry(score) for score in s.scores if score.seeds],
            }
            for s in found
        ],
    }


def _entry(score: Score) -> dict[str, Any]:
    return {
        "model": score.model,
        "seeds": score.seeds,
        "value": _plain(score.value),
        "error": _plain(score.error),
        "error_left": _plain(score.normalised),
        "rank": _plain(score.rank),
        "missing": _plain(score.missing),
        "own_rows": score.own_rows,
        "per_seed": {str(seed): _plain(value) for seed, value in sorted(score.per_seed.items())},
        "reason": score.reason,
        **{key: _plain(score.facts[key]) for key in (*FACTS, "best_epoch")},
    }


def picture(found: Sequence[Standing]) -> Figure:
    """A panel per task: error of each network with its error bar; dashed: ridge on the composition; networks in order of mean rank."""
    from matplotlib.figure import Figure

    from naica.insight.style import BLUE, GREY, ORANGE, VERMILION

    order = [p.model for system in ("crystal", "molecule") for p in places(found, system)]
    order = list(dict.fromkeys(order))
    across = min(4, len(found))
    down = math.ceil(len(found) / across)
    figure = Figure(figsize=(2.9 * across + 1.2, down * (0.21 * len(order) + 1.2)), dpi=150, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for k, panel in enumerate(axes.ravel()):
        if k >= len(found):
            panel.set_visible(False)
            continue
        standing = found[k]
        panel.spines[["top", "right"]].set_visible(False)
        best = min((s.rank for s in standing.networks), default=float("nan"))
        for score in standing.networks:
            if not score.seeds:
                continue
            colour = GREY if score.own_rows else ORANGE if score.rank == best else BLUE
            bar = score.error if math.isfinite(score.error) else 0.0
            fill = "white" if score.own_rows else colour
            panel.errorbar(score.value, order.index(score.model), xerr=bar, fmt="o", ms=4.5, color=colour, mfc=fill, lw=1.2, capsize=2)
        ridge = standing.score("composition-ridge")
        if ridge is not None:
            panel.axvline(ridge.value, color=VERMILION, ls="--", lw=0.9)
        panel.grid(axis="y", color="#EEEEEE", lw=0.6)
        panel.set_title(standing.task.title, fontsize=7.5)
        name = _METRICS[standing.task.metric] + (f" ({unit(standing.task)})" if unit(standing.task) else "")
        panel.set_xlabel(name, fontsize=7)
        panel.tick_params(labelsize=7)
        panel.set_yticks(range(len(order)), order)
        panel.set_ylim(len(order) - 0.5, -0.5)
    figure.suptitle(
        "Orange: best, ties included. White: judged on its own rows only. Dashed: ridge on the composition. Order: mean rank",
        fontsize=7.5,
        color=GREY,
    )
    return figure
