"""Crystals of any kind as flat arrays, which is all the graph builder sees."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import InputError
from naica.structure import Crystal


@dataclass(frozen=True)
class Flat:
    """B crystals with N atoms: ids, atoms per crystal (B), numbers (N), positions (N, 3) Å, cells (B, 3, 3) Å, pbc (B, 3).

    `columns` holds what else was asked for, by name: one value per crystal, None where there is none.
    """

    ids: list[str]
    counts: NDArray[np.int64]
    numbers: NDArray[np.uint8]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    columns: Mapping[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each crystal's atoms start, and the end (B + 1)."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def digest(self) -> str:
        """32 hex digits of ids and structures."""
        sha = hashlib.sha256()
        for name in self.ids:
            sha.update(name.encode() + b"\0")
        for array, kind in ((self.counts, "<i8"), (self.numbers, "<u1"), (self.positions, "<f8"), (self.cells, "<f8"), (self.pbc, "<u1")):
            sha.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        for name, values in sorted(self.columns.items()):
            sha.update(repr((name, values)).encode())
        return sha.hexdigest()[:32]

    @cached_property
    def volumes(self) -> NDArray[np.float64]:
        """(B) Cell volumes in Å³; 0 where a direction does not repeat and no lattice vector is given."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.abs(np.linalg.det(self.cells))

    def complaints(self) -> dict[int, str]:
        """Rows that can have no graph, and why. Tables hold whatever was written into them, so this is asked here again."""
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(self.cells).all(axis=(1, 2)))
        bad_atoms = np.flatnonzero(~np.isfinite(self.positions).all(axis=1))
        finite[np.searchsorted(self.offsets, bad_atoms, side="right") - 1] = False
        found = {int(row): "positions or cell hold NaN or infinite numbers" for row in np.flatnonzero(~finite)}
        found.update({int(row): "no atoms" for row in np.flatnonzero(self.counts == 0)})
        for row in np.flatnonzero(finite & ((self.volumes <= 1e-6) | ~self.pbc.all(axis=1))):
            periodic = self.cells[row][self.pbc[row]]
            if len(periodic) and np.linalg.det(periodic @ periodic.T) <= 1e-12:
                found[int(row)] = "the periodic cell has no volume"
        return found


def flatten(source: Any, columns: Sequence[str] = ()) -> Flat:
    """Flat arrays of a table, a crystal, or a sequence of crystals; `columns` are columns of the table or keys of ``Crystal.info``.

    Raises
    ------
    InputError
        If `source` is none of these.
    """
    if isinstance(source, CrystalTable):
        there = set(source.columns)
        asked = {name: source.arrow[name].to_pylist() if name in there else [None] * len(source) for name in columns}
        return Flat(source.ids, *source.flat(), asked)
    crystals: Sequence[Crystal] = [source] if isinstance(source, Crystal) else list(source)
    strange = next((c for c in crystals if not isinstance(c, Crystal)), None)
    if strange is not None:
        raise InputError(f"cannot make a graph of {type(strange).__name__}; expected a Crystal, a list of them or a CrystalTable")
    if not crystals:
        return Flat(
            [],
            np.zeros(0, np.int64),
            np.zeros(0, np.uint8),
            np.zeros((0, 3)),
            np.zeros((0, 3, 3)),
            np.zeros((0, 3), bool),
            {c: [] for c in columns},
        )
    return Flat(
        [str(c.info.get("id") or c.hash) for c in crystals],
        np.array([len(c) for c in crystals], dtype=np.int64),
        np.concatenate([c.numbers for c in crystals]).astype(np.uint8),
        np.concatenate([c.positions for c in crystals]),
        np.array([c.cell for c in crystals]),
        np.array([c.pbc for c in crystals], dtype=bool),
        {name: [c.info.get(name) for c in crystals] for name in columns},
    )
