"""Gated networks: ``φ(x) ⊙ σ(ψ(x))``, two small networks of one input, computed as one.

The input is often a concatenation of atom and edge features. Its first layer is split (`GatedNetwork.parts`), so that what belongs to an
atom is multiplied once per atom and not once per edge or triplet, and both networks share each matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.graphs import Batch


class GatedNetwork(nn.Module):
    """``φ(x) ⊙ σ(ψ(x))`` with φ and ψ of the same layers, silu between them.

    Weights are kept as one tensor per layer: rows of φ first, then rows of ψ.

    Parameters
    ----------
    parts : widths of the pieces of the input
    layers : widths of the layers, the result's last
    bias : whether layers have one
    value : whether φ ends in a silu; without one its last layer is linear
    norm : whether the last layers of both are normalised (layer norm) before their activations
    glorot : start from Glorot's uniform weights and no bias (Keras), else from torch's own
    """

    def __init__(
        self, parts: Sequence[int], layers: Sequence[int], bias: bool = True, value: bool = True, norm: bool = False, glorot: bool = True
    ) -> None:
        super().__init__()
        self.parts, self.value = tuple(parts), value
        widths = [sum(parts), *layers]
        pairs = [[_layer(a, b, bias, glorot) for _ in range(2)] for a, b in pairwise(widths)]
        self.first = nn.Parameter(torch.cat([one.weight for one in pairs[0]]))
        self.first_bias = nn.Parameter(torch.cat([one.bias for one in pairs[0]])) if bias else None
        # (2, in, out), as products of batches of matrices want them
        self.later = nn.ParameterList(nn.Parameter(torch.stack([one.weight.T for one in pair])) for pair in pairs[1:])
        self.later_bias = nn.ParameterList(nn.Parameter(torch.stack([one.bias for one in pair])[:, None]) for pair in pairs[1:] if bias)
        self.norm = nn.ModuleList(nn.LayerNorm(layers[-1]) for _ in range(2)) if norm else None

    def split(self) -> tuple[Tensor, ...]:
        """The first layer's weights (2H, ·) by part of the input."""
        return self.first.split(self.parts, dim=1)

    def on_edges(self, v: Tensor, e: Tensor, batch: Batch) -> Tensor:
        """Of ``v_i ⊕ v_j ⊕ e_ij``, for atoms (N, ·) and edges (E, ·): (E, C)."""
        receiver, sender, edge = self.split()
        x = F.linear(e, edge)
        x = x + torch.index_select(F.linear(v, receiver, self.first_bias), 0, batch["edge_receiver"])
        return self.after_first(x + torch.index_select(F.linear(v, sender), 0, batch["edge_sender"]))

    def after_first(self, x: Tensor) -> Tensor:
        """What the first layer made (E, 2H), bias included → (E, C)."""
        values, gates = x.chunk(2, dim=1)
        for k, weight in enumerate(self.later):
            hidden = F.silu(values), F.silu(gates)
            if len(self.later_bias):
                values, gates = (torch.addmm(b, h, w) for b, h, w in zip(self.later_bias[k], hidden, weight, strict=True))
            else:
                values, gates = (h @ w for h, w in zip(hidden, weight, strict=True))
        if self.norm is not None:
            values, gates = self.norm[0](values), self.norm[1](gates)
        return (F.silu(values) if self.value else values) * torch.sigmoid(gates)

    def forward(self, x: Tensor) -> Tensor:
        """(E, parts joined) → (E, C)."""
        return self.after_first(F.linear(x, self.first, self.first_bias))


def _layer(inputs: int, out: int, bias: bool, glorot: bool) -> nn.Linear:
    layer = nn.Linear(inputs, out, bias=bias)
    if glorot:
        nn.init.xavier_uniform_(layer.weight)
        if bias:
            nn.init.zeros_(layer.bias)
    return layer
