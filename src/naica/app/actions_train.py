"""Answers about making and judging models: train, evaluate, check, import published weights."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app import sources
from naica.app.answer import Answer, Table, number
from naica.app.requests import EvaluateRequest, ImportRequest, TrainRequest
from naica.errors import ConfigError, InputError

if TYPE_CHECKING:
    from naica.training.config import TrainConfig


# --- train -----------------------------------------------------------------------------------------------------------------------
def train(request: TrainRequest) -> Answer:
    """Train an ensemble; the model lies in the folder `model` of the run folder."""
    from naica.training import train as train_ensemble

    config = train_config(request.config, {**request.settings, "seed": request.seed})
    source = sources.labelled(request.source)
    parts = sources.parted(source.table, request.split, request.seed)
    ensemble = train_ensemble(source.table, source.column, config, parts, request.out, request.resume)
    card = ensemble.card
    data = {
        "model": str(request.out / "model"),
        "quantity": card.quantity,
        "level": str(card.level) if card.level else None,
        "rows": {"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)},
        "metrics": card.metrics,
        "rejected": source.rejected,
    }
    notes = (*source.notes, f"model: {request.out / 'model'}; use it with naica predict FILES --model {request.out}")
    return Answer(data, (_metrics_table(card.metrics, ensemble.target.unit),), notes)


def train_config(path: Path | None, settings: Mapping[str, Any]) -> TrainConfig:
    """Training settings from a TOML file and overriding `settings`.

    Raises
    ------
    ConfigError
        If there is no such file, it is no TOML, or has an unknown key; the message names the file.
    """
    from naica.training.config import TrainConfig

    if path is None:
        return TrainConfig.from_dict(dict(settings))
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no training settings {path}; expected a TOML file with keys such as epochs = 100") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    try:
        return TrainConfig.from_dict({**raw, **settings})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _metrics_table(metrics: Mapping[str, Any], unit: str) -> Table:
    """Metrics by part; numbers only."""
    parts = {name: values for name, values in metrics.items() if isinstance(values, Mapping)}
    names = list(dict.fromkeys(k for v in parts.values() for k, x in v.items() if isinstance(x, int | float)))
    rows = tuple((part, *(_metric(values.get(n)) for n in names)) for part, values in parts.items())
    heads = tuple(f"{n} ({unit})" if n in ("mae", "rmse") and unit else n for n in names)
    return Table(("part", *heads), rows, right=heads)


def _metric(value: Any) -> str:
    return str(value) if isinstance(value, int) else number(value, 4)


# --- evaluate ----------------------------------------------------------------------------------------------------------------------
def evaluate(request: EvaluateRequest) -> Answer:
    """Metrics of a model on a part of a labelled source, and a parity plot if asked for.

    Raises
    ------
    InputError
        If the part holds no row.
    """
    from naica.app.actions_model import load_model
    from naica.training.evaluation import evaluate as measure

    source = sources.labelled(request.source)
    rows = sources.rows_of(source.table, request.part, request.split, request.seed)
    if not len(rows):
        raise InputError(f"part {request.part!r} of {request.source.source} holds no row; choose another --part or --split")
    ensemble = load_model(request.model)
    found = measure(ensemble, source.table, source.column, rows.tolist(), request.plot, request.fidelity).metrics.to_dict()
    data = {
        "model": request.model,
        "source": request.source.source,
        "part": request.part,
        "rows": len(rows),
        "metrics": found,
        "plot": request.plot,
    }
    notes = (*source.notes, *((f"wrote {request.plot}",) if request.plot else ()))
    return Answer(data, (_metrics_table({request.part: found}, ensemble.target.unit),), notes)


# --- check -------------------------------------------------------------------------------------------------------------------------
def check(model: str) -> Answer:
    """The physics contract, test by test. Exit code 1 if one fails."""
    from naica.app.actions_model import load_model
    from naica.training.check import check as check_model

    report = check_model(load_model(model))
    raw = sources.as_dict(report)
    return Answer({"model": model, **raw}, (str(report),), exit_code=0 if report.passed else 1)


# --- weights of others ---------------------------------------------------------------------------------------------------------------
def import_weights(request: ImportRequest) -> Answer:
    """A naica model folder from a published checkpoint.

    Raises
    ------
    InputError
        If weights of that architecture cannot be imported.
    """
    if request.architecture != "cgcnn":
        raise InputError(f"cannot import weights of {request.architecture!r}; known: cgcnn")
    from naica.training.import_cgcnn import import_cgcnn

    ensemble = import_cgcnn(request.file, padding=request.padding)
    ensemble.save(request.out)
    card = ensemble.card
    rows = (
        ("quantity", card.quantity),
        ("architecture", card.architecture),
        ("level of theory", str(card.level or "unknown")),
        ("padding", request.padding),
    )
    data = {"model": str(request.out), "quantity": card.quantity, "architecture": card.architecture, "padding": request.padding}
    return Answer(data, (Table(("imported", ""), rows),), (f"model: {request.out}; use it with naica predict FILES --model {request.out}",))
