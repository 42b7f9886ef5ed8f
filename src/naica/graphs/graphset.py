"""`GraphSet`: the graphs of a whole data set in flat arrays, possibly memory-mapped from one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import InputError
from naica.fields import FIELDS
from naica.graphs.batch import Batch, length_power
from naica.graphs.build import build_levels, columns_of, composition_batch
from naica.graphs.flat import Flat, flatten
from naica.graphs.spec import GraphSpec
from naica.structure import Crystal


class GraphSet:
    """Graphs of B crystals with N atoms and E edges in flat arrays.

    Parameters
    ----------
    spec : which edges they have
    ids : one per crystal
    counts : (B) atoms per crystal
    numbers : (N) atomic numbers
    degrees : (N) edges per atom
    senders : (E) sender of each edge counted within its crystal; edges in order of receiver
    vectors : (E, 3) from receiver to sender, Å
    rejected : rows that have no graph, and why
    extras : fields of further levels, one crystal after the other, indices counted within their crystal; ``state`` is (B, S)
    level_counts : (B) items of each further level per crystal
    """

    def __init__(
        self,
        spec: GraphSpec,
        ids: list[str],
        counts: NDArray[Any],
        numbers: NDArray[Any],
        degrees: NDArray[Any],
        senders: NDArray[Any],
        vectors: NDArray[Any],
        rejected: Mapping[int, str] | None = None,
        extras: Mapping[str, NDArray[Any]] | None = None,
        level_counts: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.spec, self.ids, self.counts, self.numbers = spec, ids, counts, numbers
        self.degrees, self.senders, self.vectors = degrees, senders, vectors
        self.rejected = dict(rejected or {})
        self._atom_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        edges_before = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
        self._edge_start = edges_before[self._atom_start]
        self.extras, self.level_counts = dict(extras or {}), dict(level_counts or {})
        starts = {level: np.concatenate([[0], np.cumsum(n)]).astype(np.int64) for level, n in self.level_counts.items()}
        self._starts = {"system": np.arange(len(counts) + 1), "atom": self._atom_start, "edge": self._edge_start, **starts}
        # the common case: all atoms have the same number of edges
        self._uniform = int(degrees[0]) if len(degrees) and (degrees == degrees[0]).all() else None

    @classmethod
    def build(
        cls,
        source: CrystalTable | Sequence[Crystal] | Crystal,
        spec: GraphSpec | None = None,
        cache: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> GraphSet:
        """Build all graphs, or read them from `cache` if that file holds just these.

        A crystal that can have no graph does not stop the others: it is noted in `rejected` with the reason.

        Parameters
        ----------
        source : a table, a sequence of crystals, or one
        spec : which edges; default: 12 nearest within 8 Å
        cache : file to read from and write to; a stale or damaged one is rebuilt with a warning
        progress : called with (crystals done, crystals in all)

        Raises
        ------
        RunError
            If the cache cannot be written.
        """
        from naica.graphs import cache as store

        spec = spec or GraphSpec()
        flat = flatten(source, columns_of(spec))
        digest = flat.digest() if cache is not None else ""
        if cache is not None:
            kept = store.read(Path(cache), spec, digest)
            if kept is not None:
                return kept
        built = build_levels(flat, spec, progress)
        state, unknown = _states(flat, spec, source)
        rejected = {**built.rejected, **{row: reason for row, reason in unknown.items() if row not in built.rejected}}
        edges = (built.degrees, built.senders, built.vectors)
        graphs = cls(spec, flat.ids, flat.counts, flat.numbers, *edges, rejected, {**built.extras, **state}, built.counts)
        if cache is not None:
            store.write(Path(cache), graphs, digest)
        return graphs

    def __len__(self) -> int:
        return len(self.counts)

    def __repr__(self) -> str:
        refused = f", {len(self.rejected)} rejected" if self.rejected else ""
        return f"<GraphSet of {len(self)} crystals, {len(self.numbers)} atoms, {len(self.senders)} edges{refused}>"

    @property
    def usable(self) -> NDArray[np.int64]:
        """The rows that have a graph."""
        return np.setdiff1d(np.arange(len(self)), list(self.rejected)).astype(np.int64)

    def batch(self, rows: Sequence[int] | NDArray[Any]) -> Batch:
        """The graphs of some rows, in that order, as one batch.

        Raises
        ------
        InputError
            If a row does not exist or was rejected; the message says why it was.
        """
        index = self._checked(rows)
        counts = self.counts[index].astype(np.int64)
        atoms = _ranges(self._atom_start[index], counts)
        numbers = self.numbers[atoms]
        if self.spec.kind == "composition":
            composition = _by_element(counts, numbers)
            return Batch({**composition, **self._further(index)}, composition.degree) if self.extras else composition
        edge_counts = self._edge_start[index + 1] - self._edge_start[index]
        edges = _ranges(self._edge_start[index], edge_counts)
        # a slice of a memory map is read-only: batches own their numbers
        vector = torch.from_numpy(self.vectors[edges].copy() if isinstance(edges, slice) else self.vectors[edges])
        first = np.cumsum(counts) - counts
        n = int(counts.sum())
        degrees = self.degrees[atoms]
        n_atoms = torch.from_numpy(counts)
        tensors = {
            "number": torch.from_numpy(numbers.astype(np.int64)),
            "system": torch.repeat_interleave(torch.arange(len(index)), n_atoms),
            "fraction": torch.repeat_interleave(1.0 / n_atoms.float(), n_atoms),
            "n_atoms": n_atoms,
            "edge_receiver": torch.from_numpy(np.repeat(np.arange(n), degrees)),
            "edge_sender": torch.from_numpy(self.senders[edges] + np.repeat(first, edge_counts)),
            "edge_vector": vector,
            "edge_length": torch.linalg.vector_norm(vector, dim=1),
            **self._further(index),
        }
        if self._uniform is not None:
            return Batch(tensors, self._uniform)
        return Batch(tensors, int(degrees[0]) if len(degrees) and (degrees == degrees[0]).all() else None)

    def _further(self, index: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """The fields of further levels for some rows, their indices counted within the batch."""
        sizes = {level: starts[index + 1] - starts[index] for level, starts in self._starts.items()} if self.extras else {}
        found = {}
        for name, values in self.extras.items():
            known = FIELDS[name]
            part = values[_ranges(self._starts[known.level][index], sizes[known.level])]
            if known.kind == "real":
                found[name] = torch.from_numpy(part.copy())
                continue
            part = part.astype(np.int64)
            if known.of is not None:
                part = part + np.repeat(np.cumsum(sizes[known.of]) - sizes[known.of], sizes[known.level])
            found[name] = torch.from_numpy(part)
        for level in self.level_counts:
            found[f"{level}_system"] = torch.from_numpy(np.repeat(np.arange(len(index)), sizes[level]))
        return found

    def cost(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """What each row costs a network: the items of its largest level."""
        levels = [starts[rows + 1] - starts[rows] for level, starts in self._starts.items() if level != "system"]
        return np.max(levels, axis=0)

    def scaled(self, volume_factors: float | Sequence[float] | NDArray[np.floating]) -> GraphSet:
        """The same graphs in cells of another volume, one factor or one per crystal (B): vectors × f^(1/3); the neighbours stay the same.

        Raises
        ------
        InputError
            If there are neither one nor B factors.
        """
        stretch = np.asarray(volume_factors, dtype=np.float64) ** (1 / 3)
        if stretch.ndim and stretch.shape != (len(self),):
            raise InputError(f"{stretch.size} volume factors for {len(self)} crystals; expected one, or one per crystal")
        per_edge = np.repeat(np.broadcast_to(stretch, len(self)), np.diff(self._edge_start)).astype(np.float32)
        vectors = self.vectors * per_edge[:, None]
        extras = {name: self._stretched(name, stretch) for name in self.extras}
        edges = (self.degrees, self.senders, vectors)
        return GraphSet(self.spec, self.ids, self.counts, self.numbers, *edges, self.rejected, extras, self.level_counts)

    def _stretched(self, name: str, stretch: NDArray[np.floating]) -> NDArray[Any]:
        power, values = length_power(name), self.extras[name]
        if power == 0:
            return values
        per_item = np.repeat(np.broadcast_to(stretch, len(self)), np.diff(self._starts[FIELDS[name].level])).astype(np.float32) ** power
        return values * per_item.reshape(-1, *[1] * (values.ndim - 1))

    def _checked(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        index = np.atleast_1d(np.asarray(rows))
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        outside = index[(index < 0) | (index >= len(self))]
        if len(outside):
            raise InputError(f"row {int(outside[0])} of a graph set of {len(self)}")
        if self.rejected:
            bad = next((int(r) for r in index if int(r) in self.rejected), None)
            if bad is not None:
                raise InputError(f"row {bad} (id {self.ids[bad]}) has no graph: {self.rejected[bad]}")
        return index


def _states(flat: Flat, spec: GraphSpec, source: Any) -> tuple[dict[str, NDArray[np.float32]], dict[int, str]]:
    """State variables (B, S), and the rows that lack one, with the reason.

    Raises
    ------
    InputError
        If a table has no such column.
    """
    if not spec.state:
        return {}, {}
    absent = [name for name in spec.state if isinstance(source, CrystalTable) and name not in source.columns]
    if absent:
        raise InputError(f"no column {absent[0]!r}, which is a state variable of this graph; the table has {', '.join(source.columns)}")
    values = np.full((len(flat), len(spec.state)), np.nan, np.float32)
    missing: dict[int, str] = {}
    for place, name in enumerate(spec.state):
        for row, value in enumerate(flat.columns[name]):
            try:
                values[row, place] = np.nan if value is None else float(value)
            except (TypeError, ValueError):
                missing.setdefault(row, f"state variable {name} is {value!r}; expected a number")
    for row, place in np.argwhere(~np.isfinite(values)).tolist():
        missing.setdefault(row, f"no value of the state variable {spec.state[place]} (a table column, or a key of Crystal.info)")
    return {"state": values}, missing


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """The numbers start, start + 1, … of every range in turn; a slice where the ranges follow on each other."""
    if len(starts) and (starts[1:] == starts[:-1] + lengths[:-1]).all():
        return slice(int(starts[0]), int(starts[-1] + lengths[-1]))
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _by_element(counts: NDArray[np.int64], numbers: NDArray[Any]) -> Batch:
    """Nodes of a composition graph: the elements of each crystal in order of atomic number, with their fractions."""
    system = np.repeat(np.arange(len(counts)), counts)
    keys, amounts = np.unique(system * 128 + numbers, return_counts=True)
    return composition_batch(np.bincount(keys // 128, minlength=len(counts)), keys % 128, amounts / counts[keys // 128])
