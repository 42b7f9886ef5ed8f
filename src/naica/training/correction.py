"""Δ-learning: a prior model of one level of theory, corrected by a few labels of another.

For each member m of the prior, the residuals label − f_m(x) are fitted by a Bayesian ridge on the member's frozen pooled features and the
fractions of the elements. Between two ways to compute an energy most of the difference is a sum over elements; the features take the rest.
Values of the two levels are never pooled: the labels only ever meet the prior's predictions, and the card names both levels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.data import CrystalTable, Level
from naica.errors import ConfigError, InputError, LevelError
from naica.graphs.batch import Batch
from naica.graphs.graphset import GraphSet
from naica.graphs.spec import GraphSpec
from naica.runtime import tune
from naica.training.batches import edges_of, plan
from naica.training.calibration import COVERAGE, coverage, ence, spread
from naica.training.card import Card
from naica.training.conditions import encoded
from naica.training.device import device_of
from naica.training.ensemble import Ensemble, checked_factors, lowest
from naica.training.prediction import Array, Prediction
from naica.training.property import PropertyModel
from naica.training.ridge import LeaveOneOut, Ridge, fit_ridge
from naica.training.stream import MAX_EDGES, MAX_SYSTEMS, Source, count, portions
from naica.training.target import labels_of

FEW = 5
"""Fewest labels a correction is fitted to."""
_SHRINK = 10
_ELEMENTS = 104


@dataclass(frozen=True)
class Scaler:
    """Centre and scale of a member's pooled features over the labelled structures, and which elements those contain."""

    centre: Array
    scale: Array
    elements: NDArray[np.int64]

    def __call__(self, pooled: Array, fractions: Array) -> Array:
        """(B, d): standardised features, fractions of the known elements, a constant.

        An element no label contains has no column of its own, so it changes nothing and adds no certainty either.
        """
        standard = np.clip((pooled - self.centre) / self.scale, -10.0, 10.0)
        return np.hstack([standard / np.sqrt(standard.shape[1]), fractions[:, self.elements], np.ones((len(pooled), 1))])

    @property
    def groups(self) -> NDArray[np.int64]:
        """(d,) 0 for features, 1 for elements, 2 for the constant."""
        return np.r_[np.zeros(len(self.centre), int), np.ones(len(self.elements), int), 2]


@dataclass(frozen=True, eq=False)
class Corrected:
    """A prior and its correction; predicts like an `Ensemble`, at the level of theory of the labels."""

    prior: Ensemble
    scalers: tuple[Scaler, ...]
    ridges: tuple[Ridge, ...]
    stretch: float
    card: Card

    @property
    def needs(self) -> GraphSpec:
        """The graphs it reads."""
        return self.prior.needs

    @property
    def members(self) -> tuple[PropertyModel, ...]:
        """Members of the prior."""
        return self.prior.members

    def predict(
        self,
        source: Source,
        volume_factors: Sequence[float] = (1.0,),
        members: int | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Prediction:
        """As `Ensemble.predict`. Each member's best volume is the prior's; the correction is added there.

        The error bar holds the spread of the corrected members, the posterior variance and the noise of the correction.
        """
        tune()
        factors = checked_factors(volume_factors)
        if members is not None and not 1 <= members <= len(self.members):
            raise ConfigError(f"members = {members}; this ensemble has {len(self.members)}")
        used = range(members or len(self.members))
        parts, done, total = [], 0, count(source)
        head = self.members[0].head_config
        for portion in portions(source, self.needs, lambda table: encoded(table, head)):
            scanned = [_scan(self.members[k], portion.batch, factors) for k in used]
            fractions = element_fractions(portion.batch)
            features = [self.scalers[k](scan.pooled, fractions) for k, scan in zip(used, scanned, strict=True)]
            values = np.stack([scan.value + self.ridges[k].mean(f) for k, scan, f in zip(used, scanned, features, strict=True)])
            variance = np.mean(
                [self.ridges[k].variance(f) + self.ridges[k].noise ** 2 for k, f in zip(used, features, strict=True)], axis=0
            )
            best = np.median([scan.factor for scan in scanned], axis=0)
            warnings = self._warnings(portion.batch, portion.volumes * best, np.median(values, axis=0))
            bars = self._bars(values, variance)
            target = self.prior.target
            parts.append(
                Prediction(target.quantity, target.unit, np.median(values, axis=0), bars, values, best, warnings, tuple(portion.ids))
            )
            done += len(best)
            if progress is not None:
                progress(done, total)
        return Prediction.concat(parts)

    def _bars(self, values: Array, variance: Array) -> Array:
        known = self.prior.card.calibration
        spreads = (known.factor * spread(values)) ** 2
        # a handful of labels left out one by one may flatter the correction: it is never surer than the prior was of its own data
        return np.maximum(self.stretch * np.sqrt(spreads + variance), np.sqrt(spreads + known.floor**2))

    def _warnings(self, batch: Batch, volumes: Array, values: Array) -> tuple[tuple[str, ...], ...]:
        return Ensemble(self.members, replace(self.card, elements=self.prior.card.elements)).warnings(batch, volumes, values)

    def save(self, folder: str | Path) -> Path:
        """Write prior, correction and card below `folder`; `load` reads them back."""
        from naica.training.correction_file import write

        return write(self, Path(folder))


@dataclass(frozen=True)
class _Scan:
    value: Array
    pooled: Array
    factor: Array


@torch.no_grad()
def _scan(member: PropertyModel, batch: Batch, factors: Array) -> _Scan:
    """Lowest value (B) of one member over the volume factors, with the pooled features (B, C) and the factor (B) where it is lowest."""
    device = device_of()
    member.to(device).eval()
    moved = batch.to(device)
    found = [member.with_features(moved if f == 1.0 else moved.scaled(float(f))) for f in factors]
    values = np.stack([v.double().cpu().numpy() for v, _ in found])
    pooled = np.stack([p.double().cpu().numpy() for _, p in found])
    best, rows = lowest(values, factors), np.arange(values.shape[1])
    return _Scan(values[best, rows], pooled[best, rows], factors[best])


def element_fractions(batch: Batch) -> Array:
    """(B, 104) fraction of each atomic number in each system."""
    table = torch.zeros(batch.n_systems, _ELEMENTS, dtype=torch.float64)
    table.index_put_((batch["system"].cpu(), batch["number"].cpu()), batch["fraction"].double().cpu(), accumulate=True)
    return table.numpy()


def fit_correction(prior: Ensemble, table: CrystalTable, column: str, seed: int = 0, metrics: bool = True) -> Corrected:
    """Correct a prior with labels of a declared level of theory; works from 5 labels up and is deterministic.

    Parameters
    ----------
    prior : an ensemble for the same quantity, whose card names its level of theory
    table, column : the labels, whose level of theory is declared as well
    seed : recorded; the fit itself draws no random numbers

    Raises
    ------
    LevelError
        If either level of theory is unknown.
    InputError
        If the quantities differ, the model is a classifier, or fewer than 5 labels can be used.
    """
    values, quantity, level = labels_of(table, column)
    _compatible(prior, quantity, level, column)
    graphs = prior.graphs(table)
    good = np.isfinite(values)
    good[list(graphs.rejected)] = False
    rows = np.flatnonzero(good)
    if len(rows) < FEW:
        raise InputError(f"{len(rows)} usable labels in column {column!r}; a correction needs at least {FEW}")
    raw, pooled, fractions = _features(prior, graphs, rows)
    elements = np.flatnonzero(fractions.any(axis=0))
    expected = max(0.05, float(np.median(np.abs(np.median(raw, axis=0) - values[rows]))))
    scalers, ridges, outs = [], [], []
    for k in range(len(prior.members)):
        scaler = Scaler(pooled[k].mean(axis=0), np.maximum(pooled[k].std(axis=0), 1e-3), elements)
        ridge, out = fit_ridge(scaler(pooled[k], fractions), values[rows] - raw[k], scaler.groups, expected)
        scalers.append(scaler)
        ridges.append(ridge)
        outs.append(out)
    left_out = np.stack([raw[k] + out.mean for k, out in enumerate(outs)])
    stretch, found = _judged(prior, left_out, outs, raw, values[rows])
    card = _card(prior, table, column, level, rows, elements, found, seed)
    return Corrected(prior, tuple(scalers), tuple(ridges), stretch, card)


def _compatible(prior: Ensemble, quantity: str, level: Level | None, column: str) -> None:
    if prior.target.kind == "class" or quantity != prior.target.quantity:
        raise InputError(
            f"column {column!r} holds {quantity}, the prior predicts {prior.target.quantity} ({prior.target.kind}); "
            "a correction needs the same real quantity"
        )
    if level is None or prior.card.level is None:
        side = f"the labels in column {column!r}" if level is None else f"the prior {prior.card.name!r}"
        raise LevelError(
            f"the level of theory of {side} is not declared; a correction from one level to another needs both. Give the label a Level(...)"
        )


def _features(prior: Ensemble, graphs: GraphSet, rows: NDArray[np.int64]) -> tuple[Array, list[Array], Array]:
    """Prior values (M, n), pooled features per member (n, C), element fractions (n, 104)."""
    one = np.ones(1)
    scans: list[list[_Scan]] = [[] for _ in prior.members]
    fractions = []
    for part in plan(edges_of(graphs, rows), MAX_SYSTEMS, MAX_EDGES):
        batch = graphs.batch(rows[part])
        fractions.append(element_fractions(batch))
        for k, member in enumerate(prior.members):
            scans[k].append(_scan(member, batch, one))
    raw = np.stack([np.concatenate([s.value for s in scan]) for scan in scans])
    return raw, [np.concatenate([s.pooled for s in scan]) for scan in scans], np.concatenate(fractions)


def _judged(prior: Ensemble, left_out: Array, outs: list[LeaveOneOut], raw: Array, actual: Array) -> tuple[float, dict[str, Any]]:
    """How far to stretch the error bars so that they cover the leave-one-out errors, and what to report."""
    errors = np.median(left_out, axis=0) - actual
    variance = np.mean([out.variance for out in outs], axis=0)
    bars = np.sqrt((prior.card.calibration.factor * spread(left_out)) ** 2 + variance)
    n = len(actual)
    needed = float(np.quantile(np.abs(errors) / bars, COVERAGE))
    # few errors say little: shrink towards no stretch
    stretch = float(np.exp(n / (n + _SHRINK) * np.log(max(needed, 1e-3))))
    before = np.median(raw, axis=0) - actual
    found = {
        "n": n,
        "mae_before": float(np.abs(before).mean()),
        "bias_before": float(before.mean()),
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "coverage_1": coverage(errors, stretch * bars),
        "coverage_2": coverage(errors, stretch * bars, 2.0),
        "ence": ence(errors, stretch * bars),
    }
    return stretch, found


def _card(
    prior: Ensemble,
    table: CrystalTable,
    column: str,
    level: Level | None,
    rows: NDArray[np.int64],
    elements: NDArray[np.int64],
    found: dict[str, Any],
    seed: int,
) -> Card:
    from dataclasses import asdict

    from naica.structure.elements import symbol

    return replace(
        prior.card,
        name=f"{prior.card.name}, corrected",
        target={**prior.card.target, "level": asdict(level) if level else None},
        elements=tuple(symbol(int(z)) for z in elements),
        # the prior's labels say nothing about the range of this level's
        ranges={k: v for k, v in prior.card.ranges.items() if k != "label"},
        metrics={"leave_one_out": found},
        data={"column": column, "rows": {"train": len(rows)}, "left_out": {"no label": len(table) - len(rows)}},
        training={"strategy": "correct", "seed": seed},
        note=f"declared multi-fidelity: prior at {prior.card.level}, labels at {level}",
        lineage=(
            *prior.card.lineage,
            {"name": prior.card.name, "level": json.loads(json.dumps(str(prior.card.level))), "data": dict(prior.card.data)},
        ),
    )
