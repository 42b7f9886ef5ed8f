"""Answers about making and judging models: train, evaluate, check, import published weights."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app import sources
from naica.app.answer import Answer, Table, number
from naica.app.requests import EvaluateRequest, ImportRequest, TrainRequest
from naica.errors import ConfigError, InputError, RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from naica.data import CrystalTable
    from naica.training import Ensemble
    from naica.training.config import TrainConfig
    from naica.training.evaluation import Evaluation

_MODELS_OWN = ("architecture", "architecture_config", "head", "kind", "members")
_LOOKED_AT = 500  # rows whose graphs are made again to say why some have none


# --- train -----------------------------------------------------------------------------------------------------------------------
def train(request: TrainRequest) -> Answer:
    """Train an ensemble, or go on from a given one; the model lies in the folder `model` of the run folder.

    Raises
    ------
    InputError
        If the model to start from cannot be trained further, or if settings are given that it brings itself.
    """
    sources.check_element(request.split, request.element)
    fit, state = _from_scratch(request) if request.start is None else _going_on(request, request.start)
    source = sources.labelled(request.source, repeats=bool(state))
    parts = sources.parted(source.table, request.split, request.seed, request.element)
    columns = source.columns[0] if len(source.columns) == 1 else source.columns
    ensemble = fit(source.table, columns, split=parts, out=request.out, resume=request.resume)
    card = _with_split(ensemble, source.table, request).card
    data = {
        "model": str(request.out / "model"),
        "from": request.start,
        "quantity": card.quantity,
        "level": str(card.level) if card.level else None,
        "rows": card.data["rows"],
        "left_out": card.data["left_out"],
        "metrics": card.metrics,
        "rejected": source.rejected,
    } | ({"tasks": list(ensemble.tasks)} if len(ensemble.tasks) > 1 else {})
    notes = (
        *source.notes,
        *_left_out(ensemble, source.table),
        f"model: {request.out / 'model'}; use it with naica predict FILES --model {request.out}",
    )
    return Answer(data, _metrics_tables(card.metrics, ensemble), notes)


def _with_split(ensemble: Ensemble, table: CrystalTable, request: TrainRequest) -> Ensemble:
    """The ensemble whose card, saved again, says how its rows were parted: so that it is judged on the rows it did not learn from."""
    parted = {"by": request.split, "seed": request.seed, "element": request.element, "table": _digest(table)}
    told = replace(ensemble, card=replace(ensemble.card, training={**ensemble.card.training, "split": parted}))
    told.save(request.out / "model")
    return told


def _digest(table: CrystalTable) -> str:
    """Of the ids, in their order: by it a table is known again."""
    return hashlib.sha256("\n".join(table.ids).encode()).hexdigest()[:16]


def _judged_rows(request: EvaluateRequest, ensemble: Ensemble, table: CrystalTable) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The rows to judge on, and which split they are of where nobody said.

    Raises
    ------
    InputError
        If no split was named, and neither the model's own is one of this table nor the table has a published one.
    """
    if request.split is not None or request.part == "all":
        split = request.split or "published"
        return sources.rows_of(table, request.part, split, request.seed, request.element), ()
    own = ensemble.card.training.get("split")
    if own and own["table"] == _digest(table):
        rows = sources.rows_of(table, request.part, own["by"], own["seed"], own["element"])
        drawn = "" if own["by"] == "published" else f", seed {own['seed']}"
        return rows, (f"part {request.part!r} of the split the model was trained with: {own['by']}{drawn}",)
    if "split" in table.columns:
        return sources.rows_of(table, request.part, "published", request.seed), (f"part {request.part!r} of the set's published split",)
    raise InputError(
        f"which rows of {request.source.source} are the {request.part} part? It has no published split, and the model was not trained "
        "on this table: say --part all, or name a split with --split (beware of rows the model has learned from)"
    )


def _left_out(ensemble: Ensemble, table: CrystalTable) -> tuple[str, ...]:
    """What was not learned from although it was read: how many rows, and for those without a graph the first reasons."""
    from naica.graphs.graphset import GraphSet
    from naica.training.conditions import encoded

    told = [f"left out: {count} of {len(table)} rows with {reason}" for reason, count in ensemble.card.data["left_out"].items()]
    if "no graph" in ensemble.card.data["left_out"]:
        first = table.take(range(min(len(table), _LOOKED_AT)))
        refused = GraphSet.build(encoded(first, ensemble.members[0].head_config), ensemble.needs).rejected
        told += [f"      row {row}, {first.ids[row]}: {reason}" for row, reason in list(refused.items())[:3]]
    return ("\n".join(told),) if told else ()


def _from_scratch(request: TrainRequest) -> tuple[Callable[..., Ensemble], tuple[str, ...]]:
    """What trains, and the state variables it reads."""
    from naica.training import train as train_ensemble

    if request.freeze is not None:
        raise InputError(f"--freeze {request.freeze} needs a model to go on from: give it with --from")
    settings: dict[str, Any] = {**request.settings, "seed": request.seed}
    if request.state:
        settings["head"] = {**_read_settings(request.config).get("head", {}), "state": list(request.state)}
    config = train_config(request.config, settings)
    return partial(train_ensemble, config=config), config.head.state


def _going_on(request: TrainRequest, start: str) -> tuple[Callable[..., Ensemble], tuple[str, ...]]:
    """`fine_tune` with the model and those settings that were given: it has other defaults than a training from scratch."""
    from naica.app.actions_model import load_model
    from naica.training import Ensemble
    from naica.training.run import fine_tune

    given = {**_read_settings(request.config), **request.settings, "seed": request.seed}
    if request.state:
        raise InputError(f"--state cannot be set together with --from: the model {start} brings its own. Leave it out")
    if own := [key for key in _MODELS_OWN if key in given]:
        raise InputError(f"{', '.join(own)} cannot be set together with --from: the model {start} brings its own. Leave them out")
    config = train_config(request.config, {**request.settings, "seed": request.seed})
    if request.out.resolve() in (Path(start).resolve(), Path(start).resolve().parent):
        raise InputError(f"--out {request.out} is the folder of the model to start from; name another folder, so that both are kept")
    ensemble = load_model(start)
    if not isinstance(ensemble, Ensemble):
        raise InputError(f"{start} is a corrected model, whose networks are frozen; go on from the model it corrects")
    chosen = {key: getattr(config, key) for key in given}
    if request.freeze is not None:
        chosen["freeze"] = int(request.freeze) if request.freeze.isdigit() else request.freeze
    return partial(fine_tune, ensemble, **chosen), ensemble.needs.state


def train_config(path: Path | None, settings: Mapping[str, Any]) -> TrainConfig:
    """Training settings from a TOML file and overriding `settings`.

    Raises
    ------
    ConfigError
        If there is no such file, it is no TOML, or has an unknown key; the message names the file.
    """
    from naica.training.config import TrainConfig

    try:
        return TrainConfig.from_dict({**_read_settings(path), **settings})
    except ConfigError as error:
        raise error if path is None else ConfigError(f"{path}: {error}") from error


def _read_settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no training settings {path}; expected a TOML file with keys such as epochs = 100") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _metrics_table(metrics: Mapping[str, Any], unit: str) -> Table:
    """Metrics by part; numbers only."""
    parts = {name: values for name, values in metrics.items() if isinstance(values, Mapping)}
    names = list(dict.fromkeys(k for v in parts.values() for k, x in v.items() if isinstance(x, int | float)))
    rows = tuple((part, *(_metric(values.get(n)) for n in names)) for part, values in parts.items())
    heads = tuple(f"{n} ({unit})" if n in ("mae", "rmse") and unit else n for n in names)
    return Table(("part", *heads), rows, right=heads)


def _metrics_tables(metrics: Mapping[str, Any], ensemble: Ensemble) -> tuple[Table, ...]:
    """Metrics by part, and where there are several tasks by part and task; then those of each level of theory."""
    several = len(ensemble.targets) > 1
    tables = [_metrics_table(metrics, "" if several else ensemble.target.unit)]
    for target in ensemble.targets if several else ():
        own = {part: found["tasks"][target.task] for part, found in metrics.items() if target.task in found.get("tasks", {})}
        tables.append(replace(_metrics_table(own, target.unit), title=target.task))
    for part, found in metrics.items():
        if isinstance(found, Mapping) and found.get("levels"):
            by_level = _metrics_table(found["levels"], ensemble.target.unit)
            tables.append(replace(by_level, title=f"{part}, by level of theory", columns=("level", *by_level.columns[1:])))
    return tuple(table for table in tables if table.rows and len(table.columns) > 1)


def _metric(value: Any) -> str:
    return str(value) if isinstance(value, int) else number(value, 4)


# --- evaluate ----------------------------------------------------------------------------------------------------------------------
def evaluate(request: EvaluateRequest) -> Answer:
    """Metrics of a model on a part of a labelled source, measured coverage of its intervals, and pictures if asked for.

    Raises
    ------
    InputError
        If the part holds no row, or calibration is to be drawn of classes alone.
    """
    from naica.app.actions_model import load_model
    from naica.training.evaluation import evaluate_tasks, summary

    sources.check_element(request.split or "the model's own", request.element)
    ensemble = load_model(request.model)
    source = sources.labelled(request.source, repeats=bool(ensemble.needs.state))
    rows, told = _judged_rows(request, ensemble, source.table)
    if not len(rows):
        raise InputError(f"part {request.part!r} of {request.source.source} holds no row; choose another --part or --split")
    columns = _columns_of_tasks(ensemble, source.columns)
    evaluated = evaluate_tasks(ensemble, source.table, columns, rows.tolist(), request.fidelity)
    found = summary(evaluated, ensemble.targets)
    if request.plot is not None:
        _draw(evaluated, request.plot)
    if request.calibration is not None:
        _draw_calibration(evaluated, request.calibration)
    data = {
        "model": request.model,
        "source": request.source.source,
        "part": request.part,
        "rows": len(rows),
        "metrics": found,
        "intervals": {name: coverage for name, one in evaluated.items() if (coverage := _coverage(one))},
        "plot": request.plot,
        "calibration": request.calibration,
    }
    wrote = (f"wrote {path}" for path in (request.plot, request.calibration) if path)
    notes = (*source.notes, *told, *_areas(evaluated), *_no_promise(evaluated, request.part), *wrote)
    return Answer(data, (*_metrics_tables({request.part: found}, ensemble), *_coverage_tables(evaluated)), notes)


def _columns_of_tasks(ensemble: Ensemble, columns: tuple[str, ...]) -> dict[str, str]:
    """The column of each task: the one given for a single task, else those that are called like the tasks.

    Raises
    ------
    InputError
        If a task has no column.
    """
    tasks = ensemble.tasks
    if len(tasks) == 1 and len(columns) == 1:
        return {tasks[0]: columns[0]}
    if lacking := [name for name in tasks if name not in columns]:
        raise InputError(f"the model has the tasks {', '.join(tasks)}; columns {', '.join(columns)} lack {', '.join(lacking)}: --column")
    return {name: name for name in tasks}


def _draw(found: Mapping[str, Evaluation], path: Path) -> None:
    """ROC curves of the classes in one picture, or labels against predictions; a picture for each quantity if there are several."""
    from naica.insight.roc import roc_plot
    from naica.training.parity import parity_plot

    classes = {name: one for name, one in found.items() if one.metrics.mae is None}
    numbers = {name: one for name, one in found.items() if one.metrics.mae is not None}
    if classes:
        roc_plot({name: (one.predicted, one.actual) for name, one in classes.items()}, path)
    for name, one in numbers.items():
        alone = len(found) == 1
        parity_plot(one, path if alone else path.with_name(f"{path.stem}-{name}{path.suffix}"))


def _areas(found: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """A line for each class: area under the ROC curve with its interval."""
    told = []
    for name, one in found.items():
        if one.metrics.roc_auc is not None:
            low, high = one.metrics.roc_auc_interval
            told.append(f"{name}: area under the ROC curve {one.metrics.roc_auc:.3f}, 95 % interval {low:.3f} to {high:.3f} (bootstrap)")
    return tuple(told)


def _coverage(found: Evaluation) -> list[dict[str, Any]]:
    """For each confidence the measured coverage of conformal intervals, with Clopper and Pearson's interval (`low`, `high`, 95 %)."""
    from naica.insight.intervals import clopper_pearson

    told = []
    for one in found.covered():
        share = clopper_pearson(one.inside, one.n)
        told.append({**sources.as_dict(one), "observed": share.value, "low": share.low, "high": share.high})
    return told


def _coverage_tables(found: Mapping[str, Evaluation]) -> tuple[Table, ...]:
    """Promised and measured coverage of each task that has intervals, with the ENCE of its error bars above."""
    tables = []
    for name, one in found.items():
        if not (told := _coverage(one)):
            continue
        heads = ("promised", "observed", "95 % interval", "inside", f"half-width ({one.metrics.unit})".replace(" ()", ""))
        rows = tuple(
            (
                f"{100 * r['confidence']:.0f} %",
                f"{100 * r['observed']:.1f} %",
                f"{100 * r['low']:.1f} to {100 * r['high']:.1f} %",
                f"{r['inside']} of {r['n']}",
                "∞" if r["half_width"] is None else f"{r['half_width']:.4g}",
            )
            for r in told
        )
        title = f"conformal intervals{f' of {name}' if len(found) > 1 else ''}; ENCE of the error bars {number(one.metrics.ence)}"
        tables.append(Table(heads, rows, title, heads))
    return tuple(tables)


def _no_promise(found: Mapping[str, Evaluation], part: str) -> tuple[str, ...]:
    """Where the coverage of intervals cannot be measured, or says nothing."""
    lacking = [name for name, one in found.items() if one.metrics.mae is not None and not one.covered()]
    notes = [f"no conformal intervals of {', '.join(lacking)}: the model has no scores to make them from"] if lacking else []
    if part != "test" and any(one.covered() for one in found.values()):
        notes.append("coverage says something only about rows the model was neither trained nor calibrated on")
    return tuple(notes)


def _draw_calibration(found: Mapping[str, Evaluation], path: Path) -> None:
    """Coverage and binned errors, a picture for each quantity that is no class."""
    from naica.insight.plots import reliability_plot

    numbers = {name: one for name, one in found.items() if one.metrics.mae is not None}
    if not numbers:
        raise InputError("--calibration draws error bars of numbers; this model predicts classes, whose ece is among the metrics")
    for name, one in numbers.items():
        figure = reliability_plot(one.actual, one.predicted, one.sigma, one.metrics.quantity, one.calibration)
        file = path if len(found) == 1 else path.with_name(f"{path.stem}-{name}{path.suffix}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(file)
        except (OSError, ValueError) as error:  # matplotlib refuses an unknown ending with ValueError
            raise RunError(f"cannot write the plot {file}: {error}") from error


# --- check -------------------------------------------------------------------------------------------------------------------------
def check(model: str) -> Answer:
    """The physics contract, test by test, for each task of the model. Exit code 1 if one fails."""
    from naica.app.actions_model import load_model
    from naica.potential.check import check as check_model
    from naica.potential.check import is_of_forces
    from naica.training import Ensemble

    if is_of_forces(model):
        report = check_model(model)
        data = {**sources.as_dict(report), "model": model}
        return Answer(data, (str(report),), exit_code=0 if report.passed else 1)
    found = load_model(model)
    several = isinstance(found, Ensemble) and len(found.tasks) > 1
    reports = {name: check_model(found.task(name)) for name in found.tasks} if several else {"": check_model(found)}
    raw = {name: sources.as_dict(report) for name, report in reports.items()}
    passed = all(report.passed for report in reports.values())
    data = {"model": model, **({"passed": passed, "tasks": raw} if several else raw[""])}
    return Answer(data, tuple(f"{name}\n{report}".lstrip() for name, report in reports.items()), exit_code=0 if passed else 1)


# --- weights of others ---------------------------------------------------------------------------------------------------------------
def import_weights(request: ImportRequest) -> Answer:
    """A naica model folder from a published checkpoint.

    Raises
    ------
    InputError
        If weights of that architecture cannot be imported.
    """
    if request.architecture == "cgcnn":
        from naica.training.import_cgcnn import import_cgcnn

        ensemble = import_cgcnn(request.file, padding=request.padding)
    elif request.architecture == "megnet":
        from naica.training.import_megnet import import_megnet

        ensemble = import_megnet(request.file)
    else:
        raise InputError(f"cannot import weights of {request.architecture!r}; known: cgcnn, megnet")
    ensemble.save(request.out)
    card = ensemble.card
    rows = (
        ("quantity", card.quantity),
        ("architecture", card.architecture),
        ("level of theory", str(card.level or "unknown")),
        *((("padding", request.padding),) if "padding" in card.architecture_config else ()),
    )
    data = {"model": str(request.out), "quantity": card.quantity, "architecture": card.architecture}
    if "padding" in card.architecture_config:
        data["padding"] = request.padding
    return Answer(data, (Table(("imported", ""), rows),), (f"model: {request.out}; use it with naica predict FILES --model {request.out}",))
