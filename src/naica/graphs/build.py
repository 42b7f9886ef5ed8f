"""From crystals to edges in bulk, and the verb `graph`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import InputError
from naica.fields import field as quantity
from naica.graphs.batch import Batch
from naica.graphs.flat import Flat
from naica.graphs.levels import EDGE_MAKERS, Made, System, fields_of, make_all, makers_of
from naica.graphs.neighbours import Edges, enough, nearest, within
from naica.graphs.spec import GraphSpec
from naica.structure import Crystal
from naica.structure.composition import parse_formula
from naica.structure.elements import element

if TYPE_CHECKING:
    from naica.graphs.graphset import GraphSet

_CHUNK_ATOMS = 4096


@dataclass(frozen=True)
class Built:
    """Edges of many crystals: edges per atom (N), sender counted within its crystal (E), vector (E, 3) Å; and rows refused.

    `extras` are the fields of further levels, one crystal after the other, indices counted within their crystal; `counts` says how many
    items of each further level every crystal has (B).
    """

    degrees: NDArray[np.int32]
    senders: NDArray[np.int32]
    vectors: NDArray[np.float32]
    rejected: dict[int, str]
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @cached_property
    def edge_starts(self) -> NDArray[np.int64]:
        """Where each atom's edges start (N + 1)."""
        return np.concatenate([[0], np.cumsum(self.degrees, dtype=np.int64)])


def graph(crystals: Crystal | Sequence[Crystal] | CrystalTable, spec: GraphSpec | None = None) -> Batch:
    """Crystals as one `Batch`: by default each atom with its 12 nearest neighbours within 8 Å.

    Parameters
    ----------
    crystals : one, several, or a table
    spec : which edges to make

    Raises
    ------
    InputError
        If a crystal can have no graph (two atoms on one place, no volume); the message names it.
    """
    from naica.graphs.graphset import GraphSet

    graphs: GraphSet = GraphSet.build(crystals, spec or GraphSpec())
    return graphs.batch(np.arange(len(graphs)))


def composition_graph(formulas: Sequence[str]) -> Batch:
    """Formulas as graphs without edges: one node per element, `fraction` its share of the atoms.

    ``SiO2`` and ``Si2O4`` give the same graph.

    Raises
    ------
    InputError
        If a text is no formula.
    """
    if isinstance(formulas, str):
        formulas = [formulas]
    parts = [parse_formula(formula) for formula in formulas]
    numbers = [element(symbol).number for part in parts for symbol in part]
    fractions = [amount / sum(part.values()) for part in parts for amount in part.values()]
    return composition_batch(np.array([len(p) for p in parts]), np.array(numbers), np.array(fractions))


def composition_batch(counts: NDArray[np.integer], numbers: NDArray[np.integer], fractions: NDArray[np.floating]) -> Batch:
    """A batch without edges from nodes per system (B), their atomic numbers (N) and fractions (N)."""
    n_atoms = torch.as_tensor(counts, dtype=torch.int64)
    none = torch.zeros(0, dtype=torch.int64)
    tensors = {
        "number": torch.as_tensor(numbers, dtype=torch.int64),
        "system": torch.repeat_interleave(torch.arange(len(n_atoms)), n_atoms),
        "fraction": torch.as_tensor(fractions, dtype=torch.float32),
        "n_atoms": n_atoms,
        "edge_receiver": none,
        "edge_sender": none,
        "edge_vector": torch.zeros(0, 3),
        "edge_length": torch.zeros(0),
    }
    return Batch(tensors, degree=0)


def build_levels(flat: Flat, spec: GraphSpec, progress: Callable[[int, int], None] | None = None) -> Built:
    """Edges and all further levels of all crystals; a crystal that can have none is noted and skipped."""
    makers = makers_of(spec)
    if not makers:
        return build_edges(flat, spec, progress)
    made_here = spec.kind in EDGE_MAKERS
    if made_here:
        rejected = flat.complaints()
        built = Built(np.zeros(len(flat.numbers), np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.float32), rejected)
    else:
        built = build_edges(flat, spec)
        rejected = dict(built.rejected)
    rows = [row for row in range(len(flat)) if row not in rejected]
    made = make_all([_system(flat, row, built) for row in rows], makers, spec, progress)
    rejected.update({row: one for row, one in zip(rows, made, strict=True) if isinstance(one, str)})
    good: list[Made | None] = [None] * len(flat)
    for row, one in zip(rows, made, strict=True):
        good[row] = None if isinstance(one, str) else one
    if made_here:
        built = _edges_of(flat, good)
    elif len(rejected) > len(built.rejected):
        built = _without(flat, built, set(rejected))
    return replace(built, rejected=rejected, **_levels_of(flat, good, fields_of(spec)))


def columns_of(spec: GraphSpec) -> list[str]:
    """Table columns that the makers of a spec or its state read."""
    wanted = [name for maker in makers_of(spec) for name in maker.columns]
    return list(dict.fromkeys([*wanted, *spec.state]))


def _system(flat: Flat, row: int, built: Built) -> System:
    start, stop = flat.offsets[row], flat.offsets[row + 1]
    columns = {name: values[row] for name, values in flat.columns.items()}
    base = System(
        flat.ids[row], flat.numbers[start:stop].astype(np.int64), flat.positions[start:stop], flat.cells[row], flat.pbc[row], columns
    )
    if not len(built.senders):
        return base
    degrees = built.degrees[start:stop]
    first = int(built.edge_starts[start])
    edges = slice(first, first + int(degrees.sum()))
    vector = built.vectors[edges].astype(np.float64)
    receiver = np.repeat(np.arange(stop - start), degrees)
    return replace(
        base, receiver=receiver, sender=built.senders[edges].astype(np.int64), vector=vector, length=np.linalg.norm(vector, axis=1)
    )


def _edges_of(flat: Flat, made: Sequence[Made | None]) -> Built:
    """The edges that edge makers made, as flat arrays."""
    degrees = [
        np.zeros(n, np.int32) if one is None else np.bincount(one["edge_receiver"], minlength=n).astype(np.int32)
        for n, one in zip(flat.counts.tolist(), made, strict=True)
    ]
    good = [one for one in made if one is not None]
    return Built(
        np.concatenate([np.zeros(0, np.int32), *degrees]),
        np.concatenate([np.zeros(0, np.int32), *(one["edge_sender"].astype(np.int32) for one in good)]),
        np.concatenate([np.zeros((0, 3), np.float32), *(one["edge_vector"].astype(np.float32) for one in good)]),
        {},
    )


def _without(flat: Flat, built: Built, rows: set[int]) -> Built:
    """The same edges without those of some rows."""
    keep_atom = np.repeat([row not in rows for row in range(len(flat))], flat.counts)
    keep_edge = np.repeat(keep_atom, built.degrees)
    return Built(np.where(keep_atom, built.degrees, 0).astype(np.int32), built.senders[keep_edge], built.vectors[keep_edge], built.rejected)


def _levels_of(flat: Flat, made: Sequence[Made | None], names: list[str]) -> dict[str, Any]:
    extras: dict[str, NDArray[Any]] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    for name in names:
        known = quantity(name)
        kind = np.float32 if known.kind == "real" else np.int32
        # a refused crystal keeps its place on the levels whose items everybody counts
        absent = {"system": np.ones(len(flat), int), "atom": flat.counts}.get(known.level, np.zeros(len(flat), int))
        parts = [np.zeros((n, *known.shape), kind) if one is None else one[name].astype(kind) for n, one in zip(absent, made, strict=True)]
        extras[name] = np.concatenate([np.zeros((0, *known.shape), kind), *parts])
        if known.level not in ("system", "atom", "edge"):
            counts[known.level] = np.array([len(part) for part in parts], np.int64)
    return {"extras": extras, "counts": counts}


def build_edges(flat: Flat, spec: GraphSpec, progress: Callable[[int, int], None] | None = None) -> Built:
    """The edges of all crystals, in chunks of some thousand atoms; a crystal that can have none is noted and skipped."""
    degrees, senders, vectors = [], [], []
    rejected = flat.complaints() if spec.kind != "composition" else {}
    offsets = flat.offsets
    for first, last in _chunks(flat.counts):
        found = [_of_one(flat, row, offsets, spec, rejected) for row in range(first, last)]
        start, stop = offsets[first], offsets[last]
        shift = np.repeat(offsets[first:last] - start, [len(e.length) for e in found])
        chunk = Edges(
            np.concatenate([e.receiver for e in found]) + shift,
            np.concatenate([e.sender for e in found]) + shift,
            np.concatenate([e.vector for e in found]),
            np.concatenate([e.length for e in found]),
        )
        if spec.kind == "nearest":
            chunk = nearest(chunk, flat.numbers[start:stop], spec.neighbours)
        in_crystal = np.repeat(offsets[first:last] - start, flat.counts[first:last])
        degrees.append(np.bincount(chunk.receiver, minlength=stop - start).astype(np.int32))
        senders.append((chunk.sender - in_crystal[chunk.receiver]).astype(np.int32))
        vectors.append(chunk.vector.astype(np.float32))
        if progress:
            progress(last, len(flat))
    if not degrees:
        return Built(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.float32), {})
    return Built(np.concatenate(degrees), np.concatenate(senders), np.concatenate(vectors), rejected)


def _chunks(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of rows with some thousand atoms each."""
    total = np.cumsum(counts)
    bounds = [0]
    while bounds[-1] < len(counts):
        done = total[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(max(bounds[-1] + 1, int(np.searchsorted(total, done + _CHUNK_ATOMS, side="right"))))
    return list(pairwise(bounds))


_NOTHING = Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0))


def _of_one(flat: Flat, row: int, offsets: NDArray[np.int64], spec: GraphSpec, rejected: dict[int, str]) -> Edges:
    if spec.kind == "composition" or row in rejected:
        return _NOTHING
    positions, pbc = flat.positions[offsets[row] : offsets[row + 1]], flat.pbc[row]
    try:
        if spec.kind == "radius":
            return within(positions, flat.cells[row], pbc, spec.cutoff)
        density = len(positions) / flat.volumes[row] if pbc.all() else None
        return enough(positions, flat.cells[row], pbc, spec.cutoff, spec.neighbours, density)
    except InputError as error:
        rejected[row] = str(error)
        return _NOTHING
