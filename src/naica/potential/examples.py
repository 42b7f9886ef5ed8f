"""Frames with their graphs, in flat arrays that can lie on disk: a step of training takes its rows and does nothing frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.data.clean import Rejection
from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.graphs.graphset import GraphSet
from naica.graphs.spec import GraphSpec
from naica.potential.frames import LEAST_DISTANCE, Frames

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Wanted:
    """Labels of a batch (B frames, N atoms), NaN where missing; energies in 64 bits. None where no frame of the set has any."""

    energy: Tensor | None = None
    forces: Tensor | None = None
    stress: Tensor | None = None
    magmom: Tensor | None = None
    charge: Tensor | None = None

    def to(self, device: torch.device) -> Wanted:
        """On another device."""
        return Wanted(**{name: None if value is None else value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Examples:
    """Frames, their graphs row by row, and the rows that can be learned from.

    Parameters
    ----------
    frames, graphs : of the same rows
    rows : those in use
    rejected : of the source, with the reason
    """

    frames: Frames
    graphs: GraphSet
    rows: Rows
    rejected: tuple[Rejection, ...] = ()

    @classmethod
    def build(
        cls, frames: Frames, spec: GraphSpec, cache: Path | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Examples:
        """Graphs of all frames; those with atoms on top of each other are left out with a reason.

        Parameters
        ----------
        frames : labelled frames
        spec : what the network reads
        cache : file the graphs are kept in and memory-mapped from

        Raises
        ------
        InputError
            If no frame is left.
        """
        graphs = GraphSet.build(frames.table, spec, cache, progress)
        bad = dict(graphs.rejected)
        bad |= {row: reason for row, reason in _too_close(graphs).items() if row not in bad}
        rows = np.setdiff1d(np.arange(len(frames)), list(bad)).astype(np.int64)
        ids = frames.table.ids
        rejected = (*frames.rejected, *(Rejection(row, ids[row], bad[row]) for row in sorted(bad)))
        if not len(rows):
            raise InputError(f"no frame of {len(frames)} can be used; first reason: {rejected[0].reason}")
        return cls(frames, graphs, rows, rejected)

    def __len__(self) -> int:
        return len(self.rows)

    def cost(self, rows: Rows) -> Rows:
        """(rows) edges of each frame."""
        return self.graphs.cost(rows)

    def batch(self, rows: Rows, dtype: torch.dtype = torch.float32) -> tuple[Batch, Wanted]:
        """Some rows as what networks read, and their labels."""
        frames = self.frames
        batch = self.graphs.batch(rows).to(dtype=dtype)
        counts = frames.counts[rows]
        ends = np.cumsum(counts)
        atoms = np.repeat(frames.starts[rows] - (ends - counts), counts) + np.arange(int(counts.sum()))
        _, _, positions, cells, pbc = self._flat
        batch["positions"] = torch.from_numpy(positions[atoms]).to(dtype)
        batch["cell"] = torch.from_numpy(cells[rows]).to(dtype)
        batch["pbc"] = torch.from_numpy(pbc[rows])
        batch["volume"] = torch.from_numpy(frames.volumes[rows]).to(dtype)
        batch["level"] = torch.from_numpy(frames.level[rows])
        charges, moments = frames.given
        if charges is not None:
            batch["total_charge"] = torch.from_numpy(charges[rows]).to(dtype)
        if moments is not None:
            batch["moments"] = torch.from_numpy(moments[atoms]).to(dtype)
        found = {}
        for name, values in frames.labels.items():
            part = torch.from_numpy(values[rows if name in ("energy", "stress") else atoms])
            found[name] = part if name == "energy" else part.to(dtype)
        return batch, Wanted(**found)

    @property
    def _flat(self) -> tuple[Rows, NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        kept = self.__dict__.get("_arrays")
        if kept is None:
            kept = self.frames.table.flat()
            object.__setattr__(self, "_arrays", kept)
        return kept

    @property
    def neighbours(self) -> float:
        """Mean number of edges of the atoms that have any."""
        degrees = np.asarray(self.graphs.degrees)[np.isin(self.frames.owner, self.rows)]
        there = degrees[degrees > 0]
        return float(there.mean()) if len(there) else 1.0

    def of(self, rows: Sequence[int] | Rows) -> Examples:
        """The same with other rows in use."""
        return Examples(self.frames, self.graphs, np.asarray(rows, dtype=np.int64), self.rejected)


def _too_close(graphs: GraphSet) -> dict[int, str]:
    """Frames with two atoms so near that the file must be broken."""
    vectors = np.asarray(graphs.vectors)
    near = np.flatnonzero(np.einsum("ea,ea->e", vectors, vectors) < LEAST_DISTANCE**2)
    if not len(near):
        return {}
    atom = np.searchsorted(np.cumsum(graphs.degrees, dtype=np.int64), near, side="right")
    frame = np.searchsorted(np.cumsum(graphs.counts, dtype=np.int64), atom, side="right")
    found: dict[int, str] = {}
    for row, edge in zip(frame.tolist(), near.tolist(), strict=True):
        found.setdefault(row, f"two atoms within {LEAST_DISTANCE} Å ({float(np.linalg.norm(vectors[edge])):.2f} Å)")
    return found


def steps(cost: Rows, atoms: Rows, batch_size: int, max_edges: int, balanced: bool) -> list[Rows]:
    """Consecutive positions cut into steps.

    Parameters
    ----------
    cost, atoms : edges and atoms of the frames in their order
    batch_size : frames of a step; `balanced`, a step has as many atoms (forces) as so many frames of mean size
    max_edges : a step holds at most so many edges, or one frame
    """
    most_atoms = batch_size * float(atoms.mean()) if balanced else np.inf
    found, start, edges, held = [], 0, 0, 0
    for k, (c, n) in enumerate(zip(cost.tolist(), atoms.tolist(), strict=True)):
        full = held + 0.5 * n > most_atoms if balanced else k - start == batch_size
        if k > start and (full or edges + c > max_edges):
            found.append(np.arange(start, k))
            start, edges, held = k, 0, 0
        edges, held = edges + c, held + n
    if start < len(cost):
        found.append(np.arange(start, len(cost)))
    return found
