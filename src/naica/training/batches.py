"""Feeding the loop: which systems make a step, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.graphs.batch import Batch
from naica.graphs.graphset import GraphSet
from naica.training.target import Labels

# Lightning hands its loop whatever the loader yields: graphs, and the labels of each task, (B) or of sites (N), NaN where missing
Step = tuple[Batch, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Labelled:
    """Graphs and the labels of each task, aligned; `rows` are those in use; `groups` (B) numbers rows that are judged apart, if any are."""

    graphs: GraphSet
    tasks: tuple[Labels, ...]
    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: NDArray[np.int64]) -> Labelled:
        """The same graphs, other rows."""
        return replace(self, rows=rows)

    def of(self, task: int) -> NDArray[np.float64]:
        """Labels of one task in the rows in use: one per row, or one per atom."""
        return self.tasks[task].of(self.rows)

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labels of the first task, mostly the only one."""
        return self.of(0)


def edges_of(graphs: GraphSet, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each row costs a step: the items of its largest level, mostly its edges."""
    return graphs.cost(rows)


def plan(cost: NDArray[np.int64], batch_size: int, max_cost: int) -> list[NDArray[np.int64]]:
    """Consecutive positions cut into steps of at most `batch_size` systems and `max_cost` edges (but at least one system)."""
    steps, start, total = [], 0, 0
    for k, c in enumerate(cost.tolist()):
        if k > start and (k - start == batch_size or total + c > max_cost):
            steps.append(np.arange(start, k))
            start, total = k, 0
        total += c
    if start < len(cost):
        steps.append(np.arange(start, len(cost)))
    return steps


class Loader:
    """Steps of one part of a set.

    Parameters
    ----------
    data : graphs, labels and rows
    batch_size, max_edges : size of a step
    seed : order of the rows, together with `epoch`; None keeps their order
    dtype : of the real numbers
    volume_augmentation : standard deviation of a random volume change (drawn per crystal and epoch)
    """

    def __init__(
        self,
        data: Labelled,
        batch_size: int,
        max_edges: int,
        seed: int | None,
        dtype: torch.dtype = torch.float32,
        volume_augmentation: float = 0.0,
    ) -> None:
        self.data, self.batch_size, self.max_edges, self.seed = data, batch_size, max_edges, seed
        self.dtype, self.volume_augmentation = dtype, volume_augmentation
        self.cost = edges_of(data.graphs, data.rows)
        self.epoch = 0

    def steps(self, epoch: int) -> list[NDArray[np.int64]]:
        """Rows of each step of an epoch."""
        order = np.arange(len(self.data))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        return _without_singles(
            [self.data.rows[order[part]] for part in plan(self.cost[order], self.batch_size, self.max_edges)], self.seed
        )

    def __iter__(self) -> Iterator[Step]:
        draw = np.random.default_rng([self.seed or 0, self.epoch, 1])
        for rows in self.steps(self.epoch):
            batch = self.data.graphs.batch(rows)
            if self.volume_augmentation:
                batch = batch.scaled(torch.from_numpy(np.exp(self.volume_augmentation * draw.standard_normal(len(rows)))).float())
            yield batch.to(dtype=self.dtype), tuple(torch.from_numpy(task.of(rows)).to(self.dtype) for task in self.data.tasks)


def _without_singles(steps: list[NDArray[np.int64]], seed: int | None) -> list[NDArray[np.int64]]:
    """In training, a last step of one small system is joined to the one before: batch statistics of one atom do not exist."""
    if seed is not None and len(steps) > 1 and len(steps[-1]) == 1:
        return [*steps[:-2], np.concatenate([steps[-2], steps[-1]])]
    return steps
