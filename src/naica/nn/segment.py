"""Sums over the edges of an atom and over the atoms of a system."""

from __future__ import annotations

import torch
from torch import Tensor

from naica.graphs import Batch


def sum_edges(messages: Tensor, batch: Batch) -> Tensor:
    """Messages (E, C) summed on their receivers: (N, C). Where all atoms have equally many edges this is a reshape and a sum."""
    n = batch["number"].shape[0]  # len would freeze the size in an exported program
    if batch.degree == 0:
        return messages.new_zeros(n, messages.shape[1])
    if batch.degree is not None:
        return messages.view(n, batch.degree, messages.shape[1]).sum(1)
    return messages.new_zeros(n, messages.shape[1]).index_add(0, batch["edge_receiver"], messages)


def sum_systems(values: Tensor, batch: Batch) -> Tensor:
    """Atom values (N, C) summed over each system: (B, C)."""
    return values.new_zeros(batch.n_systems, values.shape[1]).index_add(0, batch["system"], values)


def mean_systems(values: Tensor, batch: Batch) -> Tensor:
    """Atom values (N, C) averaged over each system: (B, C)."""
    return sum_systems(values, batch) / batch["n_atoms"].to(values.dtype).clamp(min=1)[:, None]


def to_edges(values: Tensor, batch: Batch) -> Tensor:
    """Atom values (N, C) of the receivers, one row per edge (E, C)."""
    if batch.degree:
        n, width = values.shape
        return values[:, None].expand(n, batch.degree, width).reshape(-1, width)
    return torch.index_select(values, 0, batch["edge_receiver"])
