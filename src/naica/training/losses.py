"""What training minimises, and what decides which weights are kept: losses and errors of one task or several, over the labels there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from naica.training.batches import Labelled, Loader
from naica.training.config import TrainConfig
from naica.training.property import PropertyModel
from naica.training.target import Target

_HUBER = 0.1


@dataclass(frozen=True)
class Weight:
    """What the labels of a task weigh in the loss: each one, and those of class 0 and 1."""

    each: float = 1.0
    classes: tuple[float, float] = (1.0, 1.0)


def weights_of(data: Labelled, targets: Sequence[Target], config: TrainConfig) -> tuple[Weight, ...]:
    """Weights from the labels of the training part; see ``class_weights`` and ``task_weights`` of `TrainConfig`."""
    labels = [data.of(k)[np.isfinite(data.of(k))] for k in range(len(targets))]
    covered = [len(known) / max(len(data.of(k)), 1) for k, known in enumerate(labels)]
    found = []
    for target, known, share in zip(targets, labels, covered, strict=True):
        each = 1.0 / sum(covered) if config.task_weights == "labels" else 1.0 / (len(targets) * share)
        ones = float((known == 1).sum())
        both = target.kind == "class" and config.class_weights == "balanced" and 0 < ones < len(known)
        found.append(Weight(each, (len(known) / (2 * (len(known) - ones)), len(known) / (2 * ones)) if both else (1.0, 1.0)))
    return tuple(found)


def joint_loss(
    outputs: Sequence[Tensor],
    labels: Sequence[Tensor],
    n_atoms: Tensor,
    targets: Sequence[Target],
    weights: Sequence[Weight],
    loss: str,
) -> Tensor:
    """Loss of a step over all tasks; labels that are not there count for nothing.

    The weights are those of the whole training part, so that a step with few labels of a task weighs less than one with many: on
    average over steps it is the loss of the whole part.
    """
    total = outputs[0].new_zeros(())
    for raw, given, target, weight in zip(outputs, labels, targets, weights, strict=True):
        known = torch.isfinite(given)
        wanted = target.to_normalised(torch.where(known, given, torch.zeros_like(given)), n_atoms)
        each = _each(raw.to(given.dtype), wanted, loss, target.kind)
        if target.kind == "class":
            each = each * torch.where(wanted == 1, weight.classes[1], weight.classes[0])
        total = total + weight.each * torch.where(known, each, torch.zeros_like(each)).sum() / max(len(given), 1)
    return total


def _each(raw: Tensor, wanted: Tensor, loss: str, kind: str) -> Tensor:
    """Loss of each of the normalised outputs (n, n_out) against normalised labels (n)."""
    if kind == "class":
        return F.cross_entropy(raw, wanted.long(), reduction="none")
    if loss == "mse":
        return F.mse_loss(raw[:, 0], wanted, reduction="none")
    if loss == "l1":
        return F.l1_loss(raw[:, 0], wanted, reduction="none")
    return F.huber_loss(raw[:, 0], wanted, reduction="none", delta=_HUBER) / _HUBER


@torch.no_grad()
def mean_error(model: PropertyModel, loader: Loader, device: torch.device) -> float:
    """The error of a part, leaving the model in training mode as it was.

    Of one task: mean absolute error in the quantity's unit, or mean cross entropy of a class. Of several: the mean over the tasks, errors
    in standard deviations of the training part. Groups of rows (levels of theory) count the same, however many rows they have.
    """
    was, data = model.training, loader.data
    model.eval()
    n_groups = 1 if data.groups is None else int(data.groups[data.rows].max(initial=0)) + 1
    sums, counts = np.zeros((len(model.targets), n_groups)), np.zeros((len(model.targets), n_groups))
    for rows, (batch, labels) in zip(loader.steps(loader.epoch), loader, strict=True):
        moved = batch.to(device)
        for k, (target, raw, given) in enumerate(zip(model.targets, model.outputs(moved), labels, strict=True)):
            error = _errors(target, raw.cpu(), given, batch["n_atoms"]).double().numpy()
            group = np.zeros(len(rows), np.int64) if data.groups is None else data.groups[rows]
            group = np.repeat(group, data.tasks[k].counts(rows))
            known = np.isfinite(given.numpy())
            np.add.at(sums[k], group[known], error[known])
            np.add.at(counts[k], group[known], 1)
    model.train(was)
    return _mean(sums, counts, model.targets)


def _errors(target: Target, raw: Tensor, given: Tensor, n_atoms: Tensor) -> Tensor:
    if target.kind == "class":
        return F.cross_entropy(raw, torch.nan_to_num(given).long(), reduction="none")
    return (target.to_physical(raw, n_atoms) - given).abs()


def _mean(sums: NDArray[np.float64], counts: NDArray[np.float64], targets: Sequence[Target]) -> float:
    with np.errstate(invalid="ignore"):
        of_tasks = [float(np.nanmean(row)) if np.isfinite(row).any() else np.nan for row in sums / counts]
    if len(targets) == 1:
        return of_tasks[0] if np.isfinite(of_tasks[0]) else 0.0
    scaled = [error / (target.std if target.kind == "regression" else 1.0) for error, target in zip(of_tasks, targets, strict=True)]
    return float(np.nanmean(scaled))
