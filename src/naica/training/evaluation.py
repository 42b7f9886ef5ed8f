"""How good a model is: errors, calibration of its error bars, a parity plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import InputError, LevelError
from naica.fields import field
from naica.training.batches import Labelled, edges_of, plan
from naica.training.calibration import class_calibration, coverage, ence, half_width
from naica.training.card import Calibration, Card
from naica.training.conditions import groups_of, levels_of
from naica.training.device import device_of
from naica.training.ensemble import Ensemble, combined
from naica.training.property import only
from naica.training.stream import MAX_EDGES, MAX_SYSTEMS
from naica.training.target import Labels, Target, read_labels

Array = NDArray[np.float64]
CONFIDENCES = (0.68, 0.9, 0.95)
"""Of the intervals whose coverage is measured."""


@dataclass(frozen=True)
class Metrics:
    """Errors on n labels, in the quantity's unit.

    For regressions: `mae`, `rmse`, `r2`; `member_mae` of each member alone; `coverage_1`, `coverage_2`: share of errors within one and
    two error bars (68 % and 95 % for a Gaussian); `ence`: expected normalised calibration error. For classes: `roc_auc` with its 95 %
    bootstrap interval `roc_auc_interval`; at one half `accuracy` and `recall_0`, `recall_1`, the share of each class that is found;
    `log_loss` (nats), and `ece`, the expected calibration error of the probabilities. All are of the labels pooled, not means over
    batches.
    """

    quantity: str
    unit: str
    n: int
    mae: float | None = None
    rmse: float | None = None
    r2: float | None = None
    member_mae: tuple[float, ...] = ()
    coverage_1: float | None = None
    coverage_2: float | None = None
    ence: float | None = None
    roc_auc: float | None = None
    roc_auc_interval: tuple[float, ...] = ()
    accuracy: float | None = None
    recall_0: float | None = None
    recall_1: float | None = None
    log_loss: float | None = None
    ece: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without what does not apply."""
        return {k: (list(v) if isinstance(v, tuple) else v) for k, v in asdict(self).items() if v is not None and v != ()}


@dataclass(frozen=True)
class Covered:
    """Of n labels `inside` lie within intervals that promise to hold `confidence` of them; `half_width`: median, None if infinite."""

    confidence: float
    inside: int
    n: int
    half_width: float | None

    @property
    def observed(self) -> float:
        """Share of labels inside."""
        return self.inside / self.n


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and the numbers behind them: ids, labels, predictions and error bars (n); and the metrics of each level of theory apart.

    For a quantity of sites n counts atoms, and the ids are those of their structures.
    """

    metrics: Metrics
    ids: tuple[str, ...]
    actual: Array
    predicted: Array
    sigma: Array
    levels: Mapping[str, Metrics] = dataclass_field(default_factory=dict)
    calibration: Calibration | None = None

    def covered(self, confidences: Sequence[float] = CONFIDENCES) -> tuple[Covered, ...]:
        """How many labels the conformal intervals hold, for each confidence; empty if the model has none, or is one of classes.

        Of labels that the error bars were calibrated on this says nothing: they hold what they promise there by construction.
        """
        if self.calibration is None or not self.calibration.scores or self.metrics.mae is None:
            return ()
        found, errors = [], np.abs(self.predicted - self.actual)
        for confidence in confidences:
            wide = half_width(self.calibration, confidence) * self.sigma
            middle = float(np.median(wide))
            found.append(Covered(confidence, int((errors <= wide).sum()), len(errors), middle if np.isfinite(middle) else None))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """The metrics as plain JSON types, those of each level under ``levels``, the coverage of intervals under ``intervals``."""
        intervals = [asdict(one) for one in self.covered()]
        levels = {"levels": {name: m.to_dict() for name, m in self.levels.items()}} if self.levels else {}
        return self.metrics.to_dict() | levels | ({"intervals": intervals} if intervals else {})


@torch.no_grad()
def members_on(ensemble: Ensemble, part: Labelled) -> list[Array]:
    """For each task (M, n) predictions of the members on labelled graphs."""
    device = device_of()
    cost = edges_of(part.graphs, part.rows)
    found: list[list[Array]] = [[] for _ in ensemble.targets]
    for member in ensemble.members:
        member.to(device).eval()
    for positions in plan(cost, MAX_SYSTEMS, MAX_EDGES):
        batch = part.graphs.batch(part.rows[positions]).to(device)
        values = [m.values(batch) for m in ensemble.members]
        for k, own in enumerate(found):
            own.append(np.stack([of_member[k].double().cpu().numpy() for of_member in values]))
    return [np.concatenate(own, axis=1) for own in found]


def judge(ensemble: Ensemble, part: Labelled, interval: bool = False) -> dict[str, Evaluation]:
    """Every task on labelled graphs by its name; `interval` asks for bootstrap intervals. Tasks without labels there are left out."""
    members = members_on(ensemble, part)
    levels = levels_of(ensemble.members[0].head_config)
    found = {}
    for k, target in enumerate(ensemble.targets):
        actual, counts = part.of(k), part.tasks[k].counts(part.rows)
        known = np.isfinite(actual)
        if not known.any():
            continue
        card = ensemble.card.of_task(k)
        group = np.repeat(part.groups[part.rows], counts)[known] if part.groups is not None else np.zeros(0, np.int64)
        values, labels = members[k][:, known], actual[known]
        apart = {levels[g]: _measured(target, card, values[:, group == g], labels[group == g]) for g in np.unique(group).tolist()}
        ids = np.repeat(np.array([part.graphs.ids[r] for r in part.rows], dtype=object), counts)[known]
        value, bar = combined(target, card.calibration, values)
        told = _measured(target, card, values, labels, interval)
        found[target.task] = Evaluation(told, tuple(ids), labels, value, bar, apart, card.calibration)
    return found


def summary(found: Mapping[str, Evaluation], targets: Sequence[Target]) -> dict[str, Any]:
    """Metrics as plain JSON types: those of the only task, or of each under ``tasks`` with the means over them.

    `mean_roc_auc` is over the classes, `mean_scaled_mae` over the regressions, each in standard deviations of its training part.
    """
    if len(targets) == 1:
        return next((one.to_dict() for one in found.values()), {})
    aucs = [one.metrics.roc_auc for one in found.values() if one.metrics.roc_auc is not None]
    errors = [found[t.task].metrics.mae / t.std for t in targets if t.task in found and found[t.task].metrics.mae is not None]  # type: ignore[operator]
    means = {"mean_roc_auc": aucs, "mean_scaled_mae": errors}
    return {name: float(np.mean(numbers)) for name, numbers in means.items() if numbers} | {
        "tasks": {name: one.to_dict() for name, one in found.items()}
    }


def evaluate(
    ensemble: Ensemble,
    table: CrystalTable,
    column: str,
    rows: Sequence[int] | Array | None = None,
    plot: str | Path | None = None,
    fidelity: bool = False,
) -> Evaluation:
    """Compare predictions with labels.

    Parameters
    ----------
    ensemble : the model
    table, column : the labels; rows without one are left out
    rows : only these rows (indices or a mask)
    plot : write a parity plot (PNG) here
    fidelity : declare that labels of another level of theory than the model's are meant to be compared

    Raises
    ------
    InputError
        If the column is no label, of another quantity, or has no number in these rows; for a model of several tasks, see
        `evaluate_tasks`.
    LevelError
        If the labels' level of theory is not the model's and `fidelity` is not declared.
    """
    found = evaluate_tasks(ensemble, table, {only(ensemble.targets).task: column}, rows, fidelity)[ensemble.tasks[0]]
    if plot is not None:
        from naica.training.parity import parity_plot

        parity_plot(found, Path(plot))
    return found


def evaluate_tasks(
    ensemble: Ensemble,
    table: CrystalTable,
    columns: Mapping[str, str] | None = None,
    rows: Sequence[int] | Array | None = None,
    fidelity: bool = False,
    state: Mapping[str, Any] | None = None,
) -> dict[str, Evaluation]:
    """Compare the predictions of every task with its labels; tasks without a label in these rows are left out.

    Parameters
    ----------
    ensemble : the model
    table : holds the labels; a row is used for those it has
    columns : the column of each task by its name; default: those called like the tasks
    rows, fidelity : as in `evaluate`
    state : state variables for all rows, instead of the table's columns

    Raises
    ------
    InputError, LevelError
        As `evaluate` does.
    """
    chosen = table if rows is None else table.take(rows)
    columns = columns if columns is not None else {name: name for name in ensemble.tasks}
    labels = tuple(_checked(chosen, columns.get(t.task, t.task), t, fidelity) for t in ensemble.targets)
    graphs = ensemble.graphs(chosen, state)
    good = np.any([one.known for one in labels], axis=0)
    good[[*graphs.rejected, *(row for one in labels for row in one.bad)]] = False
    if not good.any():
        named = ", ".join(repr(one.column) for one in labels)
        raise InputError(f"none of {len(chosen)} rows has a number in column {named} (and a graph); there is nothing to compare")
    groups = groups_of(chosen, ensemble.members[0].head_config) if state is None else None
    return judge(ensemble, Labelled(graphs, labels, np.flatnonzero(good), groups), interval=True)


def _checked(table: CrystalTable, column: str, target: Target, fidelity: bool) -> Labels:
    found = read_labels(table, column)
    if found.quantity != target.quantity:
        raise InputError(f"column {column!r} holds {found.quantity}, the model predicts {target.quantity}")
    own, level = target.level, found.level
    if not fidelity and own is not None and level is not None and not own.same(level):
        raise LevelError(f"the labels are {level}, the model was trained on {own}; pass fidelity=True to compare them all the same")
    return found


def _measured(target: Target, card: Card, members: Array, actual: Array, interval: bool = False) -> Metrics:
    value, bar = combined(target, card.calibration, members)
    n = len(actual)
    if target.kind == "class":
        ones, guess = actual == 1, value >= 0.5
        sure = np.clip(np.where(ones, value, 1 - value), 1e-12, 1)
        return Metrics(
            target.quantity,
            target.unit,
            n,
            roc_auc=roc_auc(value, actual),
            roc_auc_interval=roc_auc_interval(value, actual) if interval else (),
            accuracy=float(np.mean(guess == ones)),
            recall_0=float(np.mean(~guess[~ones])) if not ones.all() else None,
            recall_1=float(np.mean(guess[ones])) if ones.any() else None,
            log_loss=float(-np.log(sure).mean()),
            ece=class_calibration(value, actual),
        )
    errors = value - actual
    return Metrics(
        target.quantity,
        field(target.quantity).unit,
        n,
        mae=float(np.abs(errors).mean()),
        rmse=float(np.sqrt(np.mean(errors**2))),
        r2=r_squared(value, actual),
        member_mae=tuple(float(e) for e in np.abs(members - actual).mean(axis=1)),
        coverage_1=coverage(errors, bar),
        coverage_2=coverage(errors, bar, 2.0),
        ence=ence(errors, bar) if (bar > 0).any() else None,
    )


def r_squared(predicted: Array, actual: Array) -> float | None:
    """Share of the labels' variance that is explained; None if the labels differ by no more than rounding (1e-9 of their size)."""
    if np.ptp(actual) <= 1e-9 * np.abs(actual).max():
        return None
    return 1 - float(np.sum((predicted - actual) ** 2) / np.sum((actual - actual.mean()) ** 2))


def roc_auc(score: Array, actual: Array) -> float | None:
    """Area under the ROC curve: the chance that a random 1 scores above a random 0, ties half; None if a class is absent."""
    from scipy.stats import rankdata

    ones = actual == 1
    n1, n0 = int(ones.sum()), int((~ones).sum())
    if not n1 or not n0:
        return None
    return float((rankdata(score)[ones].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def roc_auc_interval(score: Array, actual: Array, share: float = 0.95, draws: int = 1000, seed: int = 0) -> tuple[float, ...]:
    """Low and high end of the bootstrap interval of `roc_auc` that holds `share`; empty if a class is absent.

    Rows are drawn with replacement; draws without one of the classes are left out (Efron, Ann. Statist. 7, 1 (1979)).
    """
    if roc_auc(score, actual) is None:
        return ()
    order = np.argsort(score, kind="stable")
    ones = (actual == 1)[order]
    ties = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) > 0]))
    draw, areas = np.random.default_rng(seed), []
    for _ in range(draws):
        times = np.bincount(draw.integers(0, len(score), len(score)), minlength=len(score))
        up, down = (np.add.reduceat(times * chosen, ties) for chosen in (ones, ~ones))
        pairs = int(up.sum()) * int(down.sum())
        if pairs:
            areas.append(float((up * (np.cumsum(down) - down / 2)).sum() / pairs))
    low, high = np.quantile(areas, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
