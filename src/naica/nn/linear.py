"""Linear maps over joined features, without joining them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naica.graphs import Batch


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
        of_edges = torch.nn.functional.linear(edge, on_edge)
        of_edges = of_edges + torch.index_select(torch.nn.functional.linear(sender, at_sender), 0, batch["edge_sender"])
        of_receivers = torch.nn.functional.linear(receiver, at_receiver, bias)
        if batch.degree:
            n, width = of_receivers.shape
            return (of_edges.view(n, batch.degree, width) + of_receivers[:, None]).view(-1, width)
        return of_edges + torch.index_select(of_receivers, 0, batch["edge_receiver"])
