"""How good a model is: errors, calibration of its error bars, a parity plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import InputError, LevelError
from naica.fields import field
from naica.training.batches import Labelled, edges_of, plan
from naica.training.calibration import coverage, ence, sigma
from naica.training.device import device_of
from naica.training.ensemble import Ensemble, entropy
from naica.training.stream import MAX_EDGES, MAX_SYSTEMS
from naica.training.target import labels_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """Errors on n labels, in the quantity's unit.

    For regressions: `mae`, `rmse`, `r2`; `member_mae` of each member alone; `coverage_1`, `coverage_2`: share of errors within one and
    two error bars (68 % and 95 % for a Gaussian); `ence`: expected normalised calibration error. For classes: `roc_auc`, `accuracy` at
    one half, `log_loss` (nats).
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
    accuracy: float | None = None
    log_loss: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without what does not apply."""
        return {k: (list(v) if isinstance(v, tuple) else v) for k, v in asdict(self).items() if v is not None and v != ()}


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and the numbers behind them: ids, labels, predictions and error bars (n)."""

    metrics: Metrics
    ids: tuple[str, ...]
    actual: Array
    predicted: Array
    sigma: Array


@torch.no_grad()
def members_on(ensemble: Ensemble, part: Labelled) -> Array:
    """(M, n) predictions of the members on labelled graphs."""
    device = device_of()
    cost = edges_of(part.graphs, part.rows)
    found = []
    for member in ensemble.members:
        member.to(device).eval()
    for positions in plan(cost, MAX_SYSTEMS, MAX_EDGES):
        batch = part.graphs.batch(part.rows[positions]).to(device)
        found.append(np.stack([m(batch).double().cpu().numpy() for m in ensemble.members]))
    return np.concatenate(found, axis=1)


def judge(ensemble: Ensemble, part: Labelled) -> Metrics:
    """Metrics on labelled graphs."""
    return _measured(ensemble, members_on(ensemble, part), part.labels)


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
        If the column is no label, of another quantity, or has no number in these rows.
    LevelError
        If the labels' level of theory is not the model's and `fidelity` is not declared.
    """
    part = _labelled(ensemble, table, column, rows, fidelity)
    members = members_on(ensemble, part)
    metrics = _measured(ensemble, members, part.labels)
    value, bar = _value(ensemble, members)
    found = Evaluation(metrics, tuple(part.graphs.ids[r] for r in part.rows), part.labels, value, bar)
    if plot is not None:
        from naica.training.parity import parity_plot

        parity_plot(found, Path(plot))
    return found


def _labelled(ensemble: Ensemble, table: CrystalTable, column: str, rows: Any, fidelity: bool) -> Labelled:
    from naica.graphs.graphset import GraphSet

    chosen = table if rows is None else table.take(rows)
    values, quantity, level = labels_of(chosen, column)
    if quantity != ensemble.target.quantity:
        raise InputError(f"column {column!r} holds {quantity}, the model predicts {ensemble.target.quantity}")
    own = ensemble.card.level
    if not fidelity and own is not None and level is not None and not own.same(level):
        raise LevelError(f"the labels are {level}, the model was trained on {own}; pass fidelity=True to compare them all the same")
    graphs = GraphSet.build(chosen, ensemble.needs)
    good = np.isfinite(values)
    good[list(graphs.rejected)] = False
    if not good.any():
        raise InputError(f"none of {len(values)} rows has a number in column {column!r} (and a graph); there is nothing to compare")
    return Labelled(graphs, values, np.flatnonzero(good))


def _value(ensemble: Ensemble, members: Array) -> tuple[Array, Array]:
    if ensemble.target.kind == "class":
        mean = members.mean(axis=0)
        return mean, entropy(mean)
    return np.median(members, axis=0), sigma(members, ensemble.card.calibration)


def _measured(ensemble: Ensemble, members: Array, actual: Array) -> Metrics:
    value, bar = _value(ensemble, members)
    quantity, unit, n = ensemble.target.quantity, ensemble.target.unit, len(actual)
    if ensemble.target.kind == "class":
        sure = np.clip(np.where(actual == 1, value, 1 - value), 1e-12, 1)
        accuracy, loss = float(np.mean((value >= 0.5) == (actual == 1))), float(-np.log(sure).mean())
        return Metrics(quantity, unit, n, roc_auc=roc_auc(value, actual), accuracy=accuracy, log_loss=loss)
    errors = value - actual
    spread = float(np.sum((actual - actual.mean()) ** 2))
    return Metrics(
        quantity,
        field(quantity).unit,
        n,
        mae=float(np.abs(errors).mean()),
        rmse=float(np.sqrt(np.mean(errors**2))),
        r2=1 - float(np.sum(errors**2)) / spread if spread > 0 else None,
        member_mae=tuple(float(e) for e in np.abs(members - actual).mean(axis=1)),
        coverage_1=coverage(errors, bar),
        coverage_2=coverage(errors, bar, 2.0),
        ence=ence(errors, bar) if (bar > 0).any() else None,
    )


def roc_auc(score: Array, actual: Array) -> float | None:
    """Area under the ROC curve: the chance that a random 1 scores above a random 0, ties half; None if a class is absent."""
    from scipy.stats import rankdata

    ones = actual == 1
    n1, n0 = int(ones.sum()), int((~ones).sum())
    if not n1 or not n0:
        return None
    return float((rankdata(score)[ones].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))
