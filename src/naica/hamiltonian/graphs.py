"""Structures with matrices as batches for networks: directed edges within a radius, and where each pair and its reverse lie among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.hamiltonian.layout import BlockLayout
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.spinors import averaged, of_parts, parts_of


@dataclass(frozen=True, eq=False)
class Sample:
    """One structure (n atoms, E directed edges, P kept pairs within the radius, the atoms' own blocks apart).

    `there`, `back` (P) are the edges of a pair and of its reverse; `rows` (P) the pair in the matrices; `own` (n) the on-site pairs. With
    labels: `hopping` (P, w), `on_site` (n, w) padded, eV, w the layout's width; `overlap` (P, w') the same of S, w' = n²; `energy` (B) eV
    and `forces` (n, 3) eV/Å.
    """

    batch: Batch
    there: Tensor
    back: Tensor
    rows: NDArray[np.int64]
    own: NDArray[np.int64]
    hopping: Tensor | None = None
    on_site: Tensor | None = None
    overlap: Tensor | None = None
    energy: Tensor | None = None
    forces: Tensor | None = None


def sample(
    matrices: OrbitalMatrices,
    cutoff: float,
    layout: BlockLayout,
    values: NDArray[Any] | None = None,
    *,
    overlap: bool = False,
    energy: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Sample:
    """A sample of a structure's pairs within `cutoff` (Å), with labels if flat `values` are given.

    Parameters
    ----------
    overlap, energy : whether S, and energy and forces, become labels as well
    dtype : of vectors and labels; energies are kept in 64 bits

    Raises
    ------
    InputError
        If energies and forces are asked for and the structure has none.
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
    vector_tensor = torch.from_numpy(vectors[order]).to(dtype)
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
    hopping, on_site = (torch.from_numpy(padded(matrices, layout, values, chosen)).to(dtype) for chosen in (rows, own))
    found = Sample(batch, there, back, rows, own, hopping, on_site)
    if overlap:
        bare = averaged(matrices, ("S",))
        found = replace(found, overlap=torch.from_numpy(padded(bare, layout, bare.blocks["S"], rows)).to(dtype))
    if energy:
        if matrices.energy is None or matrices.forces is None:
            raise InputError(f"{matrices.crystal.formula} has no energy and forces to learn; make the set with forces = true")
        told = torch.tensor([matrices.energy], dtype=torch.float64), torch.from_numpy(np.asarray(matrices.forces)).to(dtype)
        found = replace(found, energy=told[0], forces=told[1])
    return found


def padded(matrices: OrbitalMatrices, layout: BlockLayout, values: NDArray[Any], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """(P, components · n²) padded blocks of some pairs, kind of species by kind of species."""
    kinds = matrices.crystal.numbers[matrices.pairs[chosen]]
    components = 4 if matrices.spin else 1
    result = np.zeros((len(chosen), components, layout.size, layout.size))
    for a, b in np.unique(kinds, axis=0):
        here = np.flatnonzero((kinds == (a, b)).all(axis=1))
        rows, columns = layout.orbitals[int(a)], layout.orbitals[int(b)]
        flat = values[matrices.starts[chosen[here]][:, None] + np.arange(components * len(rows) * len(columns))]
        if matrices.spin:
            parts = parts_of(flat.reshape(len(here), 2 * len(rows), 2 * len(columns)), len(rows), len(columns)).real
        else:
            parts = flat.reshape(len(here), 1, len(rows), len(columns))
        result[np.ix_(here, np.arange(components), rows, columns)] = parts
    return result.reshape(len(chosen), -1)


def unpadded(
    matrices: OrbitalMatrices, layout: BlockLayout, chosen: NDArray[np.int64], padded: NDArray[np.float64], out: NDArray[Any]
) -> None:
    """Write padded blocks (P, components · n²) of some pairs into flat values, in place."""
    kinds = matrices.crystal.numbers[matrices.pairs[chosen]]
    components = 4 if matrices.spin else 1
    blocks = padded.reshape(len(chosen), components, layout.size, layout.size)
    for a, b in np.unique(kinds, axis=0):
        here = np.flatnonzero((kinds == (a, b)).all(axis=1))
        rows, columns = layout.orbitals[int(a)], layout.orbitals[int(b)]
        places = matrices.starts[chosen[here]][:, None] + np.arange(components * len(rows) * len(columns))
        parts = blocks[np.ix_(here, np.arange(components), rows, columns)]
        out[places] = (of_parts(parts) if matrices.spin else parts).reshape(len(here), -1)


def joined(samples: Sequence[Sample]) -> Sample:
    """Many structures as one sample."""
    if not samples:
        raise InputError("nothing to join; expected at least one structure")
    batches = [s.batch for s in samples]
    starts = [0, *accumulate(b.n_edges for b in batches)][:-1]

    def labels(name: str) -> Tensor | None:
        found = [getattr(s, name) for s in samples]
        return torch.cat(found) if all(one is not None for one in found) else None

    return Sample(
        Batch.collate(batches),
        torch.cat([s.there + k for s, k in zip(samples, starts, strict=True)]),
        torch.cat([s.back + k for s, k in zip(samples, starts, strict=True)]),
        np.concatenate([s.rows for s in samples]),
        np.concatenate([s.own for s in samples]),
        **{name: labels(name) for name in ("hopping", "on_site", "overlap", "energy", "forces")},
    )
