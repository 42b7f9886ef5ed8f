"""Answers about networks against each other: zoo, its report, its tasks, and recommend."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from naica.app.answer import Answer, Table, number
from naica.app.requests_zoo import RecommendRequest, ZooReportRequest, ZooRequest
from naica.errors import RunError

Report = Callable[[int, int], None]
_LOOK_EVERY = 1.0


def _silent(done: int, total: int) -> None:
    """For callers that need no progress."""


def compare(request: ZooRequest, progress: Report = _silent) -> Answer:
    """Do the runs that are not there yet, then report all there are.

    Raises
    ------
    InputError, ConfigError
        For unknown tasks or networks.
    MissingPart
        If a set is not on this machine.
    RunError
        If the folder holds another comparison, cannot be written, or a worker process died.
    """
    from naica.data.registry import dataset
    from naica.insight import comparison, tasks

    chosen = tasks.chosen_tasks(request.sets, request.rows)
    for name in dict.fromkeys(task.set for task in chosen):
        # says how to get it; a run would note this as the network's failure
        for file in dataset(name).files:
            dataset(name).path(file.path)
    seeds = tuple(range(request.first_seed, request.first_seed + request.seeds))
    plan = comparison.Plan(tuple(chosen), tuple(tasks.chosen_models(request.models)), seeds, request.minutes)
    comparison.claim(plan, request.out)
    wanted = [run.path(request.out) for run in plan.runs()]
    if request.jobs == 1:
        comparison.work(plan, request.out, lambda result: _tell(result, wanted, progress), request.retry)
    else:
        _with_workers(plan, request, wanted, progress)
    return report(ZooReportRequest(request.out))


def _with_workers(plan: Any, request: ZooRequest, wanted: list[Path], progress: Report) -> None:
    """Worker processes, watched through the files they leave."""
    import json

    from naica.insight.comparison import start_workers

    told = set() if request.retry else {path for path in wanted if path.exists()}
    began = time.time()
    workers = start_workers(plan, request.out, request.jobs, request.retry)
    while True:
        alive = any(worker.is_alive() for worker in workers)
        for path in wanted:
            if path not in told and path.exists() and (not request.retry or path.stat().st_mtime >= began):
                told.add(path)
                _tell(json.loads(path.read_text()), wanted, progress)
        if not alive:
            break
        time.sleep(_LOOK_EVERY)
    dead = [worker.exitcode for worker in workers if worker.exitcode]
    if dead:
        raise RunError(f"{len(dead)} of {len(workers)} worker processes ended with code {dead[0]}; start again: finished runs are kept")


def _tell(result: dict[str, Any], wanted: list[Path], progress: Report) -> None:
    """One line per run on stderr, and the bar."""
    from naica.app.terminal import note

    done = sum(path.exists() for path in wanted)
    how = f"{result['cpu_seconds']:.0f} CPU s" if result["status"] == "ok" else f"failed: {result['reason']}"
    note(f"[{done}/{len(wanted)}] {result['task']} {result['model']} seed {result['seed']}: {how}")
    progress(done, len(wanted))


def report(request: ZooReportRequest) -> Answer:
    """Tables and picture of a comparison, from its runs."""
    import json

    from naica.insight import comparison, comparison_report, ranking, recommend, tasks

    found = ranking.standings(comparison.read_runs(request.out), tasks.tasks())
    if request.join is not None:
        found = ranking.joined(found, recommend.measured(_table(request.join)), tasks.tasks())
    paths = comparison_report.write(found, request.out)
    data = comparison_report.measured(found)
    if request.ship is not None:
        target = _table(request.ship)
        target.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        paths.append(target)
    blocks = [_standing_table(standing) for standing in found]
    return Answer({**data, "files": paths}, (*_rank_tables(found), *blocks), (f"written: {', '.join(map(str, paths))}",))


def _table(name: Path) -> Path:
    """Where a measured table lies; ``package`` is the shipped one."""
    from naica.insight.recommend import shipped

    return shipped() if str(name) == "package" else name


def _rank_tables(found: Any) -> list[Table]:
    from naica.insight.ranking import places

    tables = []
    for system in ("crystal", "molecule"):
        rows = [
            (
                p.model,
                f"{p.mean_rank:.2f}",
                str(p.tasks),
                str(p.firsts),
                f"{100 * p.normalised:.1f} %" if p.normalised == p.normalised else "–",
            )
            for p in places(found, system)
        ]
        if rows:
            columns = ("network", "mean rank", "tasks", "first", "error left")
            tables.append(Table(columns, tuple(rows), f"Networks on {system}s", columns[1:]))
    return tables


def _standing_table(standing: Any) -> Table:
    from naica.insight.comparison_report import NAMES, digits
    from naica.insight.tasks import unit

    metric = standing.task.metric.upper() + (f" ({unit(standing.task)})" if unit(standing.task) else "")
    columns = ("network", metric, "±", "error left", "rank", "parameters", "train /s", "infer /s", "remark")
    rows = []
    for s in standing.scores:
        places = min(digits(s.value, s.error), 4) if s.seeds else 3
        remark = s.reason if not s.seeds else f"{s.missing:.0%} of rows missing" if s.missing else ""
        rows.append(
            (
                NAMES.get(s.model, s.model),
                number(s.value, places),
                number(s.error, places),
                f"{100 * s.normalised:.1f} %" if s.normalised == s.normalised else "",
                number(s.rank, 1) if s.rank == s.rank else "",
                *(number(s.facts[key], 0) for key in ("parameters", "train_per_second", "infer_per_second")),
                remark,
            )
        )
    rows += [(f"published: {p.name}", f"{p.value:g}", *[""] * 6, f"{p.source}: {p.split}") for p in standing.task.published]
    title = f"{standing.task.title}: about {standing.train_rows:,} training rows, {standing.minutes:g} CPU min per run, {standing.seeds}"
    return Table(columns, tuple(rows), title, columns[1:8])


def list_tasks() -> Answer:
    """The tasks, and whether their sets are on this machine."""
    from naica.data.registry import dataset
    from naica.insight.tasks import tasks

    rows, data = [], []
    for task in tasks().values():
        here = dataset(task.set).present
        data.append(
            {"task": task.name, "set": task.set, "columns": task.columns, "system": task.system, "metric": task.metric, "here": here}
        )
        rows.append(
            (task.name, task.set, task.system, task.metric, f"{task.rows:,}" if task.rows else "all", "yes" if here else "no", task.title)
        )
    columns = ("task", "set", "system", "metric", "rows", "here", "what")
    return Answer(data, (Table(columns, tuple(rows), "", ("rows",)),))


def recommend(request: RecommendRequest) -> Answer:
    """Which network to take for a source with labels, or for so many rows of a quantity, from the measured table.

    Raises
    ------
    InputError
        If neither a source nor rows and target are given, or nothing of that kind was measured.
    MissingPart
        If there is no measured table.
    """
    from naica.insight import recommend as measured

    need, column = _need(request)
    advice = measured.advise(need, measured.measured(request.table))
    best = advice.candidates[0].model
    notes = list(advice.caveats)
    if request.config is not None:
        request.config.write_text(measured.settings(best, need.rows, advice.epochs, need.kind), encoding="utf-8")
    where = request.source or "YOURS.parquet"
    settings = f"--config {request.config}" if request.config else f"--architecture {best} --epochs {advice.epochs}"
    split = "composition" if need.system == "crystal" else "random"
    command = f"naica train {where} --column {column} {settings} --split {split} --out runs/{best}"
    if request.config is None:
        notes.append("with --config FILE the settings of the comparison are written there, for naica train --config FILE")
    low, high = advice.expected
    expected = {"low": low, "high": high, "unit": advice.unit, "here": not advice.far}
    data = {"need": need, "recommended": best, "far": advice.far, "expected": expected, "command": command}
    data |= {"cpu_minutes": advice.minutes, "candidates": advice.candidates, "evidence": _evidence_data(advice), "caveats": advice.caveats}
    text = f"{_sentence(best, advice)}; about {advice.minutes:g} CPU minutes per network on one thread.\n{command}"
    return Answer(data, (text, _candidate_table(advice), _evidence_table(advice, best)), tuple(notes))


def _sentence(best: str, advice: Any) -> str:
    """What is known of the error; a promise only where something near was measured."""
    low, high = (f"{x:.3g}" for x in advice.expected)
    between = f"{low} to {high}" if low != high else f"about {low}"
    if not advice.far:
        return f"{best}: expected error {between} ({advice.unit})"
    nearest = advice.evidence[0].task
    return (
        f"A guess: nothing near this was measured, so the error here is not known. {best} did best on what is nearest ({nearest['title']}, "
        f"{nearest['train_rows']:,} training rows); its error there and on the like was {between} ({advice.unit})"
    )


def _need(request: RecommendRequest) -> tuple[Any, str]:
    """What is to be learned, and its column, from the request's source or from its numbers."""
    import numpy as np

    from naica.errors import InputError
    from naica.fields import field
    from naica.insight.recommend import Need

    if request.kind not in ("crystal", "molecule"):
        raise InputError(f"--kind {request.kind!r}; expected crystal or molecule")
    if request.source is None:
        if request.rows is None or request.target is None:
            raise InputError(
                "say how many labelled rows there are and of what: --rows 800 --target band_gap, or name a table that has them"
            )
        learned = field(request.target)
        return Need(request.rows, request.kind, learned.name, "class" if learned.kind == "class" else "regression"), learned.name
    from naica.app import sources
    from naica.app.requests import SourceRequest
    from naica.insight.tasks import FRACTIONS

    found = sources.labelled(SourceRequest(request.source, request.column))
    values = np.asarray(found.table.column(found.column), dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        raise InputError(f"column {found.column!r} of {request.source} holds no number")
    quantity = field(found.table.labels[found.column].quantity)
    periodic = found.table.flat()[4].any()
    rows = request.rows or max(1, round(FRACTIONS[0] * len(values)))
    deviation = float(np.abs(values - values.mean()).mean())
    kind = "class" if quantity.kind == "class" else "regression"
    return Need(rows, "crystal" if periodic else "molecule", quantity.name, kind, deviation), found.column


def _evidence_data(advice: Any) -> list[dict[str, Any]]:
    kept = ("task", "quantity", "train_rows", "minutes")
    return [{**{key: e.task[key] for key in kept}, "distance": e.distance, "weight": e.weight} for e in advice.evidence]


def _candidate_table(advice: Any) -> Table:
    rows = tuple((c.model, f"{100 * c.behind:.1f} %", f"{100 * c.covered:.0f} %") for c in advice.candidates)
    return Table(
        ("network", "behind the best", "of the evidence"),
        rows,
        "Candidates, weighted by nearness of what was measured",
        ("behind the best",),
    )


def _evidence_table(advice: Any, best: str) -> Table:
    from naica.insight.comparison_report import digits

    rows = []
    for e in advice.evidence[:6]:
        s = e.score(best)
        places = min(digits(s["value"], s["error"] or 0.0), 4) if s else 3
        shown = f"{number(s['value'], places)} ± {number(s['error'], places)} {e.task['unit']}" if s else "not measured"
        rows.append((e.task["title"], f"{e.task['train_rows']:,}", f"{e.weight:.2f}", f"{e.task['metric'].upper()} {shown}"))
    return Table(("measured on", "training rows", "weight", best), tuple(rows), "Evidence, nearest first", ("training rows", "weight"))
