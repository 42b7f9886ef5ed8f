"""Structures with matrices as batches for networks: directed edges within a radius, and where each pair and its reverse lie among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.hamiltonian.layout import BlockLayout
from naica.hamiltonian.matrices import OrbitalMatrices


@dataclass(frozen=True, eq=False)
class Sample:
    """One structure (n atoms, E directed edges, P kept pairs within the radius, the atoms' own blocks apart).

    `there`, `back` (P) are the edges of a pair and of its reverse; `rows` (P) the pair in the matrices; `own` (n) the on-site pairs. With
    labels: `hopping` (P, n²), `on_site` (n, n²) padded, eV.
    """

    batch: Batch
    there: Tensor
    back: Tensor
    rows: NDArray[np.int64]
    own: NDArray[np.int64]
    hopping: Tensor | None = None
    on_site: Tensor | None = None


def sample(matrices: OrbitalMatrices, cutoff: float, layout: BlockLayout, values: NDArray[np.float64] | None = None) -> Sample:
    """A sample of a structure's pairs within `cutoff` (Å), with labels if flat `values` are given.

    Raises
    ------
    InputError
        If a pair within the radius is not among the kept ones: the network would see a bond that it cannot label.
    """
    own = np.flatnonzero(matrices.on_site)
    own = own[np.argsort(matrices.pairs[own, 0])]
    rows = np.flatnonzero(~matrices.on_site & (matrices.distances < cutoff))
    i, j, image, vector = matrices.pairs[rows, 0], matrices.pairs[rows, 1], matrices.images[rows], matrices.vectors[rows]
    receiver, sender = np.concatenate([i, j]), np.concatenate([j, i])
    vectors = np.concatenate([vector, -vector])
    order = np.argsort(receiver, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    n = len(matrices.crystal)
    vector_tensor = torch.from_numpy(vectors[order]).float()
    batch = Batch(
        {
            "number": torch.from_numpy(matrices.crystal.numbers.copy()),
            "system": torch.zeros(n, dtype=torch.long),
            "fraction": torch.full((n,), 1.0 / n),
            "n_atoms": torch.tensor([n]),
            "edge_receiver": torch.from_numpy(receiver[order]),
            "edge_sender": torch.from_numpy(sender[order]),
            "edge_shift": torch.from_numpy(np.concatenate([image, -image])[order].astype(np.float32)),
            "edge_vector": vector_tensor,
            "edge_length": torch.linalg.vector_norm(vector_tensor, dim=1),
        },
        None,
    )
    there, back = torch.from_numpy(place[: len(rows)]), torch.from_numpy(place[len(rows) :])
    if values is None:
        return Sample(batch, there, back, rows, own)
    labels = [torch.from_numpy(_padded(matrices, layout, values, chosen)).float() for chosen in (rows, own)]
    return Sample(batch, there, back, rows, own, *labels)


def _padded(matrices: OrbitalMatrices, layout: BlockLayout, values: NDArray[np.float64], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """(P, n²) padded blocks of some pairs, kind of species by kind of species."""
    kinds = matrices.crystal.numbers[matrices.pairs[chosen]]
    result = np.zeros((len(chosen), layout.size, layout.size))
    for a, b in np.unique(kinds, axis=0):
        here = np.flatnonzero((kinds == (a, b)).all(axis=1))
        rows, columns = layout.orbitals[int(a)], layout.orbitals[int(b)]
        flat = values[matrices.starts[chosen[here]][:, None] + np.arange(len(rows) * len(columns))]
        result[np.ix_(here, rows, columns)] = flat.reshape(len(here), len(rows), len(columns))
    return result.reshape(len(chosen), -1)


def unpadded(
    matrices: OrbitalMatrices, layout: BlockLayout, chosen: NDArray[np.int64], padded: NDArray[np.float64], out: NDArray[np.float64]
) -> None:
    """Write padded blocks (P, n²) of some pairs into flat values, in place."""
    kinds = matrices.crystal.numbers[matrices.pairs[chosen]]
    blocks = padded.reshape(len(chosen), layout.size, layout.size)
    for a, b in np.unique(kinds, axis=0):
        here = np.flatnonzero((kinds == (a, b)).all(axis=1))
        rows, columns = layout.orbitals[int(a)], layout.orbitals[int(b)]
        places = matrices.starts[chosen[here]][:, None] + np.arange(len(rows) * len(columns))
        out[places] = blocks[np.ix_(here, rows, columns)].reshape(len(here), -1)


def joined(samples: Sequence[Sample]) -> Sample:
    """Many structures as one sample."""
    if not samples:
        raise InputError("nothing to join; expected at least one structure")
    batches = [s.batch for s in samples]
    starts = [0, *accumulate(b.n_edges for b in batches)][:-1]
    labelled = all(s.hopping is not None for s in samples)
    return Sample(
        Batch.collate(batches),
        torch.cat([s.there + k for s, k in zip(samples, starts, strict=True)]),
        torch.cat([s.back + k for s, k in zip(samples, starts, strict=True)]),
        np.concatenate([s.rows for s in samples]),
        np.concatenate([s.own for s in samples]),
        torch.cat([s.hopping for s in samples]) if labelled else None,  # type: ignore[misc]
        torch.cat([s.on_site for s in samples]) if labelled else None,  # type: ignore[misc]
    )
