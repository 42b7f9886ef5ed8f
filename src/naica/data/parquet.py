"""Published Parquet sets (lattice + fractional coordinates, or molecules) into `CrystalTable`, in flat arrays throughout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from naica.data.table import CrystalTable
from naica.errors import InputError

if TYPE_CHECKING:
    from naica.data.registry import DataSet

_GEOMETRY = ("id", "natoms", "numbers", "lattice", "frac", "positions")
_FRACTION_DECIMALS = 5
_SPLIT_NAMES = {"valid": "val", "validation": "val", "": None}


def load(path: Path, source: DataSet) -> CrystalTable:
    """One published Parquet file as a table.

    Single-precision labels come out as the decimal number the source wrote (0.2, not 0.200000003), because thresholds meet them.

    Raises
    ------
    InputError
        If the file cannot be read as Parquet or its structure columns are missing.
    """
    try:
        raw = pq.read_table(path).combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error}); pull the set {source.name!r} again") from error
    geometry = {"numbers", "lattice", "frac"} if "frac" in raw.column_names else {"numbers", "positions"}
    if missing := geometry - set(raw.column_names):
        raise InputError(f"{path} has no column {', '.join(sorted(missing))}; it has {', '.join(raw.column_names)}")
    counts = pc.list_value_length(raw["numbers"]).to_numpy().astype(np.int64)
    positions, cells = _geometry(raw, counts)
    periodic = np.full(3 * len(raw), "frac" in raw.column_names)
    table = CrystalTable.from_arrays(raw["id"].to_pylist(), counts, _flat(raw, "numbers"), positions, cells, periodic)
    for name in raw.column_names:
        if name not in _GEOMETRY:
            table = add_column(table, name, raw[name], source)
    return table


def _flat(raw: pa.Table, name: str) -> NDArray[np.float64]:
    return raw[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)


def _geometry(raw: pa.Table, counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cartesian positions (N, 3) Å and cells (B, 3, 3) Å."""
    if "frac" not in raw.column_names:
        return _flat(raw, "positions").astype(np.float64).reshape(-1, 3), np.zeros((len(raw), 3, 3))
    cells = _decimal(raw["lattice"].combine_chunks().flatten()).reshape(-1, 3, 3)
    # the files hold 1e-5 steps in single precision; rounding in double gives back the number that was written
    fractional = np.round(_flat(raw, "frac").astype(np.float64), _FRACTION_DECIMALS).reshape(-1, 3)
    owner = np.repeat(np.arange(len(counts)), counts)
    return np.einsum("ni,nij->nj", fractional, cells[owner]), cells


def _decimal(values: pa.Array) -> NDArray[np.float64]:
    """Single precision to double through the shortest decimal; nulls become NaN."""
    if pa.types.is_float32(values.type):
        values = values.cast(pa.string()).cast(pa.float64())
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


def add_column(table: CrystalTable, name: str, values: pa.ChunkedArray, source: DataSet) -> CrystalTable:
    """The table with one column of the source: labels in naica's unit, its split column under the name `split`."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if name == source.split:
        return table.with_column("split", pa.array([_SPLIT_NAMES.get(v, v) for v in array.to_pylist()], pa.string()))
    label = source.labels.get(name)
    if label is None:
        return table.with_column(name, array)
    factor = source.factors.get(name, 1.0)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        flat = pa.array(_decimal(array.flatten()) * factor)
        lists = pa.LargeListArray.from_arrays(array.offsets.cast(pa.int64()), flat)
        return table.with_column(name, lists, label)
    return table.with_column(name, _decimal(array) * factor, label)
