"""Pairs of edges that meet at an atom: the three-body level, made from the batch when it is needed; and edges with their reverse."""

from __future__ import annotations

import torch
from torch import Tensor

from naica.errors import InputError
from naica.graphs import Batch

# edges are matched with their reverse by their place along one of these directions, which no lattice is likely to be perpendicular to
_DIRECTIONS = ((0.8169, 0.5108, 0.2677), (0.2371, -0.6449, 0.7266), (-0.5477, 0.3119, 0.7764))
# of vectors in 32 bits that were made in two ways, Å
_NOISE = 1e-3


def triplets(batch: Batch, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All ordered pairs of different edges with the same receiver: two index tensors (T) into the edges, the first never decreasing.

    Two images of one neighbour are different edges. A receiver with d edges gives d (d − 1) pairs.

    Parameters
    ----------
    batch : graphs
    keep : (E) true for the edges that take part (those within a three-body cut-off, say); all if not given
    """
    receiver = batch["edge_receiver"]
    if keep is None:
        return pairs(receiver, len(batch["number"]))
    kept = keep.nonzero()[:, 0]
    a, b = pairs(receiver[kept], len(batch["number"]))
    return kept[a], kept[b]


def pairs(centre: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
    """All ordered pairs of different edges of one centre: two index tensors (T), the first never decreasing. Edges are sorted."""
    edges = torch.arange(len(centre), device=centre.device)
    degree = torch.bincount(centre, minlength=atoms)
    first = torch.index_select(torch.cumsum(degree, 0) - degree, 0, centre)
    # every edge meets the others of its centre, counted without itself
    others = torch.index_select(degree, 0, centre) - 1
    a = torch.repeat_interleave(edges, others)
    start = torch.cumsum(others, 0) - others
    b = torch.arange(len(a), device=centre.device) + torch.index_select(first - start, 0, a)
    return a, b + (b >= a)


def reverse_edges(receiver: Tensor, sender: Tensor, vector: Tensor, atoms: int) -> Tensor:
    """For every edge i ← j the row of the edge j ← i of the same two atoms (same images): (E).

    Parameters
    ----------
    receiver, sender : (E), in any order
    vector : (E, 3) Å

    Raises
    ------
    InputError
        If an edge has no reverse: the list of edges was cut to the nearest, say.
    """
    low, high = torch.minimum(receiver, sender), torch.maximum(receiver, sender)
    ends = low * atoms + high
    exact = vector.detach().double()
    for direction in _DIRECTIONS:
        along = exact @ torch.tensor(direction, dtype=torch.float64, device=vector.device)
        # both edges of a bond get the same key: the vector as seen from the lower atom, of an atom and its own image the positive one
        along = torch.where(receiver < sender, along, torch.where(receiver > sender, -along, along.abs()))
        order = torch.argsort(along, stable=True)
        order = order[torch.argsort(ends[order], stable=True)]
        if len(order) % 2:
            break
        one, other = order[0::2], order[1::2]
        matched = (receiver[one] == sender[other]) & (sender[one] == receiver[other])
        if bool((matched & ((exact[one] + exact[other]).abs().amax(1) < _NOISE)).all()):
            found = torch.empty_like(order)
            found[one], found[other] = other, one
            return found
    raise InputError("an edge has no reverse: expected a graph of all atoms within a radius (kind 'radius')")
