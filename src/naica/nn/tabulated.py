"""Functions of a distance alone, computed on a grid of distances and not on every edge.

A batch has ten to a hundred times more edges than a grid needs points: with four points around each distance (cubic Lagrange
interpolation) and 32 points to the standard deviation σ of the Gaussians, whose fourth derivative is at most 3 / σ⁴, the error is below
0.0234 · 3 / 32⁴ = 7e-8 of their height, which is the rounding of 32-bit numbers. So networks of distances cost next to nothing.

Where it matters that numbers are exact (64 bits) or twice differentiable (forces), `Grid.of` gives none and the caller computes on edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from naica.graphs import Batch

POINTS_PER_SIGMA = 32
# a grid pays where there are this many edges to a point
_WORTH = 2.0
# edges worked on at a time: what belongs to them fits the second-level cache
_CHUNK = 4096


@dataclass(frozen=True)
class Grid:
    """Points (K) in Å, and for every edge four rows of them (E, 4) with weights (E, 4)."""

    points: Tensor
    rows: Tensor
    weights: Tensor

    @classmethod
    def of(cls, length: Tensor, sigma: float, envelope: Tensor | None = None) -> Grid | None:
        """A grid for lengths (E) in Å, or None where it does not pay or must not be used (see above).

        Parameters
        ----------
        sigma : the least standard deviation of what is tabulated, Å
        envelope : (E) factors for the values at each edge, put into the weights; not interpolated
        """
        exact = length.dtype != torch.float32 or length.requires_grad or torch.compiler.is_compiling()
        if exact or not len(length):
            return None
        step = sigma / POINTS_PER_SIGMA
        low, high = (float(end) for end in torch.aminmax(length))
        first = int(low / step) - 1
        count = int(high / step) + 3 - first
        if _WORTH * count > len(length):
            return None
        place = length / step
        below = place.floor()
        weights = _lagrange(place - below)
        if envelope is not None:
            weights = weights * envelope[:, None]
        rows = (below.long() - 1 - first)[:, None] + torch.arange(4, device=length.device)
        points = (torch.arange(count, device=length.device, dtype=torch.float64) + first).mul_(step).to(length.dtype)
        return cls(points, rows, weights)

    @cached_property
    def by_point(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same by point, for derivatives: edges (4E), where those of each point start (K), weights (4E)."""
        rows = self.rows.view(-1)
        order = stable_order(rows, len(self.points))
        uses = torch.bincount(rows, minlength=len(self.points))
        return order // 4, torch.cumsum(uses, 0) - uses, self.weights.view(-1)[order]

    def __call__(self, table: Tensor) -> Tensor:
        """Values at the points (K, C) → values at the edges (E, C)."""
        return _Interpolation.apply(table, self)

    def filtered_sum(self, values: Tensor, table: Tensor, batch: Batch) -> Tensor:
        """``Σ_j x_j ⊙ W(d_ij)`` for atom values (N, C) and a filter W given at the points (K, C): (N, C)."""
        return _FilteredSum.apply(values, table, self, batch["edge_receiver"], batch["edge_sender"])

    def _at(self, table: Tensor, start: int, stop: int) -> Tensor:
        return embedding_bag(self.rows[start:stop], table, mode="sum", per_sample_weights=self.weights[start:stop])

    def _back(self, gradient: Tensor) -> Tensor:
        """Gradients at the edges (E, C) → at the points (K, C)."""
        edges, starts, weights = self.by_point
        return embedding_bag(edges, gradient, starts, mode="sum", per_sample_weights=weights)


def stable_order(rows: Tensor, count: int) -> Tensor:
    """The order that sorts integers from 0 to below `count`, equal ones as they come; numpy sorts short ones by their digits."""
    if rows.device.type != "cpu" or count >= 2**15:
        return torch.argsort(rows, stable=True)
    return torch.from_numpy(np.argsort(rows.numpy().astype(np.int16), kind="stable"))


def _lagrange(t: Tensor) -> Tensor:
    """Weights (E, 4) of the points −1, 0, 1, 2 for places t (E) between 0 and 1."""
    up, down, far = t + 1, t - 1, t - 2
    return torch.stack([t * down * far / -6, up * down * far / 2, up * t * far / -2, up * t * down / 6], dim=1)


class _Interpolation(torch.autograd.Function):
    """torch's own derivative of the same takes ten times longer."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, grid: Grid) -> Tensor:
        ctx.grid = grid
        return grid._at(table, 0, len(grid.rows))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.grid._back(gradients[0].contiguous()), None


class _FilteredSum(torch.autograd.Function):
    """In pieces that stay in the cache; filters at the edges are made again in the backward pass rather than kept."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, table: Tensor, grid: Grid, receiver: Tensor, sender: Tensor) -> Tensor:
        ctx.save_for_backward(values, table)
        ctx.grid, ctx.ends = grid, (receiver, sender)
        total = torch.zeros_like(values)
        for start, stop in _pieces(len(receiver)):
            messages = grid._at(table, start, stop).mul_(torch.index_select(values, 0, sender[start:stop]))
            total.scatter_add_(0, receiver[start:stop, None].expand_as(messages), messages)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, table = ctx.saved_tensors
        grid, (receiver, sender) = ctx.grid, ctx.ends
        for_values, for_edges = torch.zeros_like(values), values.new_empty(len(receiver), values.shape[1])
        for start, stop in _pieces(len(receiver)):
            upstream = torch.index_select(gradients[0], 0, receiver[start:stop])
            torch.mul(upstream, torch.index_select(values, 0, sender[start:stop]), out=for_edges[start:stop])
            upstream.mul_(grid._at(table, start, stop))
            for_values.scatter_add_(0, sender[start:stop, None].expand_as(upstream), upstream)
        return for_values, grid._back(for_edges), None, None, None


def _pieces(edges: int) -> list[tuple[int, int]]:
    return [(start, min(start + _CHUNK, edges)) for start in range(0, edges, _CHUNK)]
