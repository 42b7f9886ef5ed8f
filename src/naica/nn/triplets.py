"""Pairs of edges that meet at an atom: the three-body level, made from the batch when it is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from naica.graphs import Batch


def triplets(batch: Batch, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All ordered pairs of different edges with the same receiver: two index tensors (T) into the edges, the first never decreasing.

    Two images of one neighbour are different edges. A receiver with d edges gives d (d − 1) pairs.

    Parameters
    ----------
    batch : graphs
    keep : (E) true for the edges that take part (those within a three-body cut-off, say); all if not given
    """
    receiver = batch["edge_receiver"]
    kept = torch.arange(len(receiver), device=receiver.device) if keep is None else keep.nonzero()[:, 0]
    centre = receiver[kept]
    degree = torch.bincount(centre, minlength=len(batch["number"]))
    first = torch.cumsum(degree, 0) - degree
    # every kept edge meets each of the d edges of its centre, itself among them
    meets = degree[centre]
    a = torch.repeat_interleave(torch.arange(len(kept), device=receiver.device), meets)
    within = torch.arange(len(a), device=receiver.device) - torch.repeat_interleave(torch.cumsum(meets, 0) - meets, meets)
    b = first[centre[a]] + within
    different = a != b
    return kept[a[different]], kept[b[different]]
