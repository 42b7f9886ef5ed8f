"""The gate ``σ(a) ⊙ softplus(c)``, summed over each atom's edges, with a backward pass that computes no exponential again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from naica.graphs import Batch
from naica.nn.segment import sum_edges, to_edges


def gated_sum(values: Tensor, batch: Batch) -> Tensor:
    """``Σ_j σ(a_ij) ⊙ softplus(c_ij)`` for edge values [a ⊕ c] of shape (E, 2C): (N, C).

    Differentiable any number of times if the values depend on lengths that ask for gradients; else, as in training on properties,
    once, and then 1.4 times faster.
    """
    plain = torch.compiler.is_compiling() or not torch.is_grad_enabled() or batch["edge_length"].requires_grad
    if plain or not values.requires_grad:
        gate, core = values.chunk(2, dim=1)
        return sum_edges(torch.sigmoid(gate) * F.softplus(core), batch)
    return _GatedSum.apply(values, batch)


class _GatedSum(torch.autograd.Function):
    """Saves σ(a), softplus(c) and σ(c) = 1 − exp(−softplus(c)), which is all the derivatives need."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, batch: Batch) -> Tensor:
        gate, core = values.chunk(2, dim=1)
        open_share, slope = torch.sigmoid(gate), torch.sigmoid(core)
        soft = F.softplus(core)
        ctx.save_for_backward(open_share, slope, soft)
        ctx.batch = batch
        return sum_edges(open_share * soft, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        open_share, slope, soft = ctx.saved_tensors
        edges, width = open_share.shape
        upstream = to_edges(gradients[0], ctx.batch) * open_share
        result = open_share.new_empty(edges, 2 * width)
        # d/da = upstream · softplus(c) · (1 − σ(a)),  d/dc = upstream · σ(c)
        torch.mul(upstream, slope, out=result[:, width:])
        torch.mul(upstream.mul_(soft), 1 - open_share, out=result[:, :width])
        return result, None
