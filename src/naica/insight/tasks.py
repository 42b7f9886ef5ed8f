"""The tasks and recipes of the comparison of networks: literal tables beside this file, and how a task becomes a table and a split."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data import CrystalTable, Label
from naica.data.registry import load_set
from naica.data.splits import Split, split
from naica.errors import ConfigError, InputError
from naica.fields import field as quantity_field
from naica.training.config import HeadConfig, TrainConfig

FRACTIONS = (0.8, 0.1, 0.1)
METRICS = ("mae", "rmse", "auc")
_SMALLEST_BATCH, _STEPS_AT_LEAST = 16, 20


@dataclass(frozen=True)
class Published:
    """A published figure on the same data: whose, the number in the task's unit, where it stands, and on which split it was measured."""

    name: str
    value: float
    source: str
    split: str


@dataclass(frozen=True)
class Task:
    """One thing to learn: of which set which column, parted how, judged by what.

    Parameters
    ----------
    name, title : for tables
    set, column : where the labels are; several columns are one multi-task
    quantity, transform : ``transform="log10"`` gives the column's logarithm as this quantity
    rows : take so many rows; None takes all
    split : ``composition`` or ``random``, drawn from the seed of a run
    metric : ``mae``, ``rmse`` or ``auc``
    system : ``crystal`` or ``molecule``
    published : figures to hold beside
    """

    name: str
    title: str
    set: str
    column: str | tuple[str, ...]
    metric: str
    split: str = "composition"
    system: str = "crystal"
    quantity: str | None = None
    transform: str | None = None
    rows: int | None = None
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ConfigError(f"task {self.name}: metric {self.metric!r}; expected one of {', '.join(METRICS)}")
        if self.transform not in (None, "log10") or (self.transform is None) != (self.quantity is None):
            raise ConfigError(f"task {self.name}: a transform must be log10 and comes with the quantity it gives")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns as a tuple."""
        return (self.column,) if isinstance(self.column, str) else self.column

    @property
    def kind(self) -> str:
        """``class`` or ``regression``."""
        return "class" if self.metric == "auc" else "regression"

    @property
    def larger_is_better(self) -> bool:
        """Whether the metric grows as predictions get better."""
        return self.metric == "auc"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained in the comparison: settings of `TrainConfig`, what it can learn from, most epochs."""

    model: str
    systems: tuple[str, ...]
    max_epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def config(self, rows: int, seed: int, kind: str = "auto") -> TrainConfig:
        """The training settings for a set of `rows` training rows."""
        settings = dict(self.settings)
        most = int(settings.pop("batch_size"))
        batch = int(np.clip(rows // _STEPS_AT_LEAST, min(_SMALLEST_BATCH, most), most))
        head = settings.pop("head", {})
        return TrainConfig.from_dict(
            {**settings, "architecture": self.model, "head": HeadConfig(**head), "batch_size": batch, "seed": seed, "kind": kind}
        )


@cache
def _raw(name: str) -> Mapping[str, Any]:
    return tomllib.loads((files("naica.insight") / name).read_text(encoding="utf-8"))


@cache
def tasks() -> Mapping[str, Task]:
    """All tasks by name, in the order of the table."""
    found = {}
    for name, entry in _raw("benchmark_sets.toml").items():
        column = entry["column"] if isinstance(entry["column"], str) else tuple(entry["column"])
        published = tuple(Published(**figure) for figure in entry["published"])
        found[name] = Task(name=name, **{**entry, "column": column, "published": published})
    return found


def chosen_tasks(names: Sequence[str], rows: int | None = None) -> list[Task]:
    """Tasks by their names, or by the name of a set for all tasks on it; none means all on crystals.

    Parameters
    ----------
    names : of tasks or sets
    rows : overrides how many rows are taken; 0 takes all

    Raises
    ------
    InputError
        For a name that is neither; the message proposes the nearest.
    """
    known, found = tasks(), []
    for name in names or [t.name for t in known.values() if t.system == "crystal"]:
        hits = [known[name]] if name in known else [t for t in known.values() if t.set == name]
        if not hits:
            near = get_close_matches(name, [*known, *(t.set for t in known.values())], n=2, cutoff=0.4)
            raise InputError(f"no task {name!r}; " + (f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"))
        found += [t for t in hits if t not in found]
    return found if rows is None else [replace(t, rows=rows or None) for t in found]


def recipe(model: str) -> Recipe:
    """The recipe of a network; one that the table does not name gets the default.

    Raises
    ------
    ConfigError
        For an unknown network.
    """
    from naica.models import architecture

    architecture(model)
    table = _raw("recipes.toml")
    entry = {**table["default"], **table.get(model, {})}
    return Recipe(model, tuple(entry.pop("systems")), int(entry.pop("max_epochs")), entry)


def compared() -> list[str]:
    """The networks that are compared where nobody chooses: those with a recipe, and those of plug-ins."""
    from naica.models import ARCHITECTURES

    known = _raw("recipes.toml")
    return [name for name, place in ARCHITECTURES.items() if name in known or not place.startswith("naica.")]


def chosen_models(names: Sequence[str]) -> list[str]:
    """Networks by name; none means all `compared`.

    Raises
    ------
    ConfigError
        For an unknown one.
    """
    for name in names:
        recipe(name)
    return list(dict.fromkeys(names or compared()))


@lru_cache(maxsize=4)
def load(task: Task) -> CrystalTable:
    """The rows of a task with its labels; the last few tasks are kept.

    Raises
    ------
    InputError
        If the set has no such column.
    MissingPart
        If its files are not on this machine.
    """
    table = load_set(task.set)
    for column in task.columns:
        if column not in table.labels:
            raise InputError(f"task {task.name}: set {task.set} has no label {column!r}; it has {', '.join(table.labels)}")
    if task.transform == "log10":
        column = task.columns[0]
        values = np.asarray(table.column(column), dtype=np.float64)
        level = table.labels[column].level
        logs = np.log10(values, out=np.full(len(values), np.nan), where=values > 0)
        table = table.with_column(str(task.quantity), logs, Label.of(str(task.quantity), level))
    labelled = np.any([np.isfinite(np.asarray(table.column(c), dtype=np.float64)) for c in learned(task)], axis=0)
    return table.take(_sample(table.ids, np.flatnonzero(labelled), task.rows))


def learned(task: Task) -> tuple[str, ...]:
    """The columns that hold the labels in the table of `load`."""
    return (task.quantity,) if task.quantity else task.columns


def unit(task: Task) -> str:
    """Unit of the task's metric; areas have none."""
    if task.metric == "auc":
        return ""
    quantity = task.quantity or set_labels(task)[task.columns[0]].quantity
    found = quantity_field(quantity).unit
    return "" if found == "1" else found


def set_labels(task: Task) -> Mapping[str, Label]:
    """What the columns of the task's set mean."""
    from naica.data.registry import dataset

    return dataset(task.set).labels


def quantity_of(task: Task) -> str:
    """The quantity a task is about."""
    return task.quantity or set_labels(task)[task.columns[0]].quantity


def _sample(ids: Sequence[str], rows: NDArray[np.int64], count: int | None) -> NDArray[np.int64]:
    """`count` of the rows, those whose ids have the smallest hashes: the same ones on every machine, whatever the seed."""
    if count is None or count >= len(rows):
        return rows
    keys = [hashlib.md5(ids[row].encode(), usedforsecurity=False).digest() for row in rows.tolist()]
    return np.sort(rows[sorted(range(len(rows)), key=keys.__getitem__)[:count]])


def parts(task: Task, table: CrystalTable, seed: int) -> Split:
    """The split of a run: 80 / 10 / 10 by the task's rule."""
    return split(table, by=task.split, fractions=FRACTIONS, seed=seed)  # type: ignore[arg-type]
