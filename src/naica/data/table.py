"""`CrystalTable`: many crystals and their labels as one Arrow table. Everything that flows in bulk flows as this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from naica.data.labels import Label, joined
from naica.errors import InputError
from naica.structure import Crystal

_STRUCTURE = ("id", "numbers", "positions", "cell", "pbc")
_LABEL_KEY = b"naica.label"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("numbers", pa.large_list(pa.uint8())),
        ("positions", pa.large_list(pa.float64())),
        ("cell", pa.list_(pa.float64(), 9)),
        ("pbc", pa.list_(pa.bool_(), 3)),
    ]
)


class CrystalTable:
    """Crystals in ragged Arrow columns, plus any further columns; columns that are labels say so in their metadata.

    Columns `id`, `numbers` (n), `positions` (3n, Å, Cartesian), `cell` (9, Å, rows), `pbc` (3); then labels and free columns.
    """

    def __init__(self, arrow: pa.Table) -> None:
        missing = [name for name in _STRUCTURE if name not in arrow.column_names]
        if missing:
            raise InputError(f"not a crystal table: column {', '.join(missing)} missing; it has {', '.join(arrow.column_names) or 'none'}")
        self.arrow = arrow

    # --- ways in ---------------------------------------------------------------------------------------------------------
    @classmethod
    def from_crystals(
        cls,
        crystals: Iterable[Crystal],
        columns: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        labels: Mapping[str, Label] | None = None,
        ids: Sequence[str] | None = None,
    ) -> CrystalTable:
        """A table of crystals; `columns` are further columns of the same length, `labels` says what some of them mean.

        Ids default to the crystals' content hashes.
        """
        items = list(crystals)
        names = list(ids) if ids is not None else [c.hash for c in items]
        counts = np.array([len(c) for c in items], dtype=np.int64)
        numbers = np.concatenate([c.numbers for c in items]) if items else np.zeros(0, dtype=np.int64)
        positions = np.concatenate([c.positions for c in items]).ravel() if items else np.zeros(0)
        cells = np.array([c.cell for c in items]).reshape(-1)
        pbc = np.array([c.pbc for c in items], dtype=bool).reshape(-1)
        return cls.from_arrays(names, counts, numbers, positions, cells, pbc, columns, labels)

    @classmethod
    def from_arrays(
        cls,
        ids: Sequence[str],
        counts: NDArray[np.int64],
        numbers: NDArray[Any],
        positions: NDArray[Any],
        cells: NDArray[Any],
        pbc: NDArray[Any],
        columns: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        labels: Mapping[str, Label] | None = None,
    ) -> CrystalTable:
        """A table from flat arrays: atoms per crystal, then all numbers (N), positions (3N) Å, cells (9B) Å, pbc (3B)."""
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        arrays = [
            pa.array(list(ids), pa.string()),
            pa.LargeListArray.from_arrays(offsets, pa.array(np.asarray(numbers, dtype=np.uint8))),
            pa.LargeListArray.from_arrays(offsets * 3, pa.array(np.asarray(positions, dtype=np.float64).ravel())),
            pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(cells, dtype=np.float64).ravel()), 9),
            pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(pbc, dtype=bool).ravel()), 3),
        ]
        table = cls(pa.Table.from_arrays(arrays, schema=SCHEMA))
        for name, values in (columns or {}).items():
            table = table.with_column(name, values, (labels or {}).get(name))
        unknown = set(labels or {}) - set(columns or {})
        if unknown:
            raise InputError(f"labels given for columns that are not there: {', '.join(sorted(unknown))}")
        return table

    @classmethod
    def read(cls, path: str | Path) -> CrystalTable:
        """Read Parquet written by `write`."""
        if not Path(path).exists():
            raise InputError(f"no such table: {path}")
        try:
            return cls(pq.read_table(path))
        except pa.ArrowInvalid as error:
            raise InputError(f"{path} is not a Parquet file: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write Parquet (zstd); labels travel in the column metadata."""
        pq.write_table(self.arrow, path, compression="zstd")

    # --- what it holds ----------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def __repr__(self) -> str:
        labels = ", ".join(f"{n} ({lab.unit})" for n, lab in self.labels.items())
        return f"<CrystalTable of {len(self)} crystals; labels: {labels or 'none'}>"

    def __iter__(self) -> Iterator[Crystal]:
        from naica.data.rows import crystals

        return crystals(self)

    def __getitem__(self, row: int) -> Crystal:
        """The crystal of one row, its id in `info`."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a table of {len(self)}")
        one = self.arrow.slice(row % len(self), 1)
        return Crystal(
            np.asarray(one["numbers"][0].values),
            np.asarray(one["positions"][0].values).reshape(-1, 3),
            np.asarray(one["cell"][0].values).reshape(3, 3),
            np.asarray(one["pbc"][0].as_py()),
            {"id": one["id"][0].as_py()},
        )

    @property
    def columns(self) -> list[str]:
        """All column names."""
        return list(self.arrow.column_names)

    @property
    def ids(self) -> list[str]:
        """The ids, one per row."""
        return self.arrow["id"].to_pylist()

    @property
    def labels(self) -> dict[str, Label]:
        """The columns that are labels, and what they mean."""
        found = {}
        for part in self.arrow.schema:
            if part.metadata and _LABEL_KEY in part.metadata:
                found[part.name] = Label.from_json(part.metadata[_LABEL_KEY].decode())
        return found

    def column(self, name: str) -> NDArray[Any]:
        """One column as a numpy array; missing numbers become NaN.

        Raises
        ------
        InputError
            If there is no such column; the message lists those there are.
        """
        if name not in self.arrow.column_names:
            raise InputError(f"no column {name!r}; the table has {', '.join(self.arrow.column_names)}")
        return self.arrow[name].to_numpy(zero_copy_only=False) if self.arrow[name].num_chunks else np.zeros(0)

    def flat(self) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """All crystals as flat arrays: atoms per crystal (B), numbers (N), positions (N,3) Å, cells (B,3,3) Å, pbc (B,3)."""
        if not len(self):
            empty = np.zeros((0, 3))
            return np.zeros(0, np.int64), np.zeros(0, np.uint8), empty, np.zeros((0, 3, 3)), np.zeros((0, 3), bool)
        whole = self.arrow.select(list(_STRUCTURE)).combine_chunks()
        numbers, positions = (whole[n].chunk(0) for n in ("numbers", "positions"))
        counts = np.diff(numbers.offsets.to_numpy())
        cells = whole["cell"].chunk(0).flatten().to_numpy().reshape(-1, 3, 3)
        pbc = whole["pbc"].chunk(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, 3)
        return counts, numbers.flatten().to_numpy(), positions.flatten().to_numpy().reshape(-1, 3), cells, pbc

    @property
    def formulas(self) -> list[str]:
        """The reduced formula of every row in the pinned format, made in flat arrays."""
        from naica.data.formulas import formulas

        return formulas(self)

    def query(self, sql: str) -> CrystalTable | pa.Table:
        """SQL over this table, called `data` in the statement; see `naica.data.query.query`."""
        from naica.data.query import query

        return query(self, sql)

    # --- tables from tables -------------------------------------------------------------------------------------------------
    def with_column(self, name: str, values: Sequence[Any] | NDArray[Any] | pa.Array, label: Label | None = None) -> CrystalTable:
        """A table with one more (or a replaced) column; `label` makes it a label."""
        array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        if len(array) != len(self):
            raise InputError(f"column {name!r} has {len(array)} values for {len(self)} crystals")
        part = pa.field(name, array.type, metadata={_LABEL_KEY: label.to_json().encode()} if label else None)
        if name in self.arrow.column_names:
            return CrystalTable(self.arrow.set_column(self.arrow.column_names.index(name), part, array))
        return CrystalTable(self.arrow.append_column(part, array))

    def take(self, rows: Sequence[int] | NDArray[Any]) -> CrystalTable:
        """The rows of the given indices, in that order (a boolean mask works too)."""
        index = np.asarray(rows)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return CrystalTable(self.arrow.take(pa.array(index.astype(np.int64))))

    @staticmethod
    def concat(tables: Sequence[CrystalTable], fidelity: bool = False) -> CrystalTable:
        """One table after the other; columns that not all have are filled with nulls.

        Raises
        ------
        LevelError
            If a label column has different levels of theory, unless `fidelity` declares the task multi-fidelity: then a column
            `fidelity` holds each row's level as text and the label's own level becomes unknown.
        """
        from naica.data.mixing import concat

        return concat(list(tables), joined, fidelity)
