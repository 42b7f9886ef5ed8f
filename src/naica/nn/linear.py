"""Linear maps over joined features, without joining them."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from naica.graphs import Batch

_LN2 = log(2.0)


class SplitLinear(nn.Module):
    """``W [x_i ⊕ x_j ⊕ e_ij] + b`` as ``W₁ x_i + W₂ x_j + W₃ e_ij + b``.

    The same map as one linear layer over the joined vector, with the node parts multiplied per node and not per edge: with 64 atom
    features, 41 edge features and 12 edges per atom that is 3.6 times fewer operations.

    Parameters
    ----------
    receiver, sender, edge : widths of the three parts
    out : width of the result
    """

    def __init__(self, receiver: int, sender: int, edge: int, out: int) -> None:
        super().__init__()
        self.parts = (receiver, sender, edge)
        whole = nn.Linear(receiver + sender + edge, out)  # initialised as the joined layer would be
        self.weight, self.bias = whole.weight, whole.bias

    def forward(self, receiver: Tensor, sender: Tensor, edge: Tensor, batch: Batch) -> Tensor:
        """Receiver features (N, ·), sender features (N, ·), edge features (E, ·) → (E, out)."""
        return self.mapped(self.weight, self.bias, receiver, sender, edge, batch)

    def mapped(self, weight: Tensor, bias: Tensor, receiver: Tensor, sender: Tensor, edge: Tensor, batch: Batch) -> Tensor:
        """The same with other weights (out, in) and bias (out), as when a batch norm is folded into them."""
        at_receiver, at_sender, on_edge = weight.split(self.parts, dim=1)
        of_receivers = linear(receiver, at_receiver, bias)
        of_senders = torch.index_select(linear(sender, at_sender), 0, batch["edge_sender"])
        if not batch.degree:
            return linear(edge, on_edge) + of_senders + torch.index_select(of_receivers, 0, batch["edge_receiver"])
        # in place where autograd allows it: the memory traffic of these sums is what is left of the layer's cost
        n, degree, width = len(receiver), batch.degree, len(weight)
        of_edges = linear(edge.view(n, degree, -1), on_edge)
        return of_edges.add_(of_senders.view(n, degree, width)).add_(of_receivers[:, None]).view(-1, width)


def linear_after_softplus(layer: nn.Linear, x: Tensor) -> Tensor:
    """``W (x − ln 2) + b`` for x that comes out of a softplus (shifted softplus): the shift costs a sum over weights, no pass over x."""
    return linear(x, layer.weight, layer.bias - _LN2 * layer.weight.sum(1))


def plain_linear(inputs: int, out: int) -> nn.Linear:
    """A linear layer that starts from Glorot's uniform weights and no bias, as the networks of Keras' time do."""
    layer = nn.Linear(inputs, out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
