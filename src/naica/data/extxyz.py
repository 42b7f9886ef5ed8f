"""Published extended-XYZ sets (energies, forces, stresses) into `CrystalTable`; a whole file is parsed at once.

`naica.read` reads any user's file; this one is for large sets whose frames all have the same columns.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from naica.data.parquet import add_column
from naica.data.table import CrystalTable
from naica.errors import InputError
from naica.structure.elements import element

if TYPE_CHECKING:
    from naica.data.registry import DataSet

_PAIR = re.compile(r'([^\s=]+)=(?:"([^"]*)"|(\S+))')
_NOT_INFO = ("Lattice", "Properties", "pbc", "id")


@dataclass(frozen=True)
class _Frames:
    """One file: per-frame comments and atom counts, and all atom lines as one array of text (N, width)."""

    counts: NDArray[np.int64]
    comments: list[dict[str, str]]
    cells: NDArray[np.str_]


def load(paths: list[Path], source: DataSet) -> CrystalTable:
    """Several files as one table with columns `file`, `split` (from train/test in the file names), labels and the frames' own fields.

    Raises
    ------
    InputError
        If a file is no extended XYZ or its frames differ in their columns; the message names file and line.
    """
    tables = [_table(path, source) for path in paths]
    return tables[0] if len(tables) == 1 else CrystalTable.concat(tables)


def _table(path: Path, source: DataSet) -> CrystalTable:
    frames = _parse(path)
    layout = _layout(frames.comments, path)
    stem = path.name.split(".")[0]
    unique, inverse = np.unique(frames.cells[:, layout["species"]], return_inverse=True)
    numbers = _atomic_numbers([str(s) for s in unique], path)[inverse.ravel()]
    lattices = np.array([_numbers(c.get("Lattice", "0 " * 9), 9, path) for c in frames.comments])
    periodic = np.array([[flag in ("T", "True", "1") for flag in c.get("pbc", "F F F").split()] for c in frames.comments])
    ids = [f"{stem}-{c.get('id', index)}" for index, c in enumerate(frames.comments)]
    positions = _floats(frames.cells, layout["pos"], 3, path)
    table = CrystalTable.from_arrays(ids, frames.counts, numbers, positions, lattices, periodic)
    table = table.with_column("file", pa.array([stem] * len(table)))
    part = next((p for p in ("train", "test") if p in stem), None)
    if part:
        table = table.with_column("split", pa.array([part] * len(table)))
    if "forces" in layout:
        offsets = np.concatenate([[0], np.cumsum(frames.counts)]) * 3
        forces = pa.LargeListArray.from_arrays(offsets, pa.array(_floats(frames.cells, layout["forces"], 3, path).ravel()))
        table = add_column(table, "forces", forces, source)
    for name in dict.fromkeys(key for c in frames.comments for key in c if key not in _NOT_INFO):
        table = add_column(table, name, _info_column([c.get(name) for c in frames.comments]), source)
    return table


def _atomic_numbers(symbols: list[str], path: Path) -> NDArray[np.int64]:
    try:
        return np.array([element(s).number for s in symbols])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _parse(path: Path) -> _Frames:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt") as handle:
            lines = handle.read().rstrip().split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); pull its set again") from error
    counts, comments, atoms, at = [], [], [], 0
    while at < len(lines) and lines[at].strip():
        if not lines[at].strip().isdigit() or at + 1 + int(lines[at]) >= len(lines):
            raise InputError(f"{path}, line {at + 1}: expected a number of atoms and as many lines after it, found {lines[at][:40]!r}")
        n = int(lines[at])
        counts.append(n)
        comments.append({m[1]: m[2] if m[2] is not None else m[3] for m in _PAIR.finditer(lines[at + 1])})
        atoms.extend(lines[at + 2 : at + 2 + n])
        at += 2 + n
    if not counts:
        raise InputError(f"{path} holds no frames")
    words = " ".join(atoms).split()
    if len(words) % len(atoms):
        raise InputError(f"{path}: atom lines differ in their number of columns")
    return _Frames(np.array(counts, dtype=np.int64), comments, np.array(words).reshape(len(atoms), -1))


def _layout(comments: list[dict[str, str]], path: Path) -> dict[str, int]:
    """First column of each atom property."""
    kinds = {c.get("Properties", "species:S:1:pos:R:3") for c in comments}
    if len(kinds) > 1:
        raise InputError(f"{path}: frames have different atom columns ({' and '.join(sorted(kinds)[:2])}); read it with naica.read")
    parts = kinds.pop().split(":")
    layout, start = {}, 0
    for name, width in zip(parts[::3], parts[2::3], strict=True):
        layout[name] = start
        start += int(width)
    if not {"species", "pos"} <= set(layout):
        raise InputError(f"{path}: Properties has {', '.join(layout)}; expected species and pos")
    return layout


def _floats(cells: NDArray[np.str_], start: int, width: int, path: Path) -> NDArray[np.float64]:
    try:
        return cells[:, start : start + width].astype(np.float64)
    except ValueError as error:
        raise InputError(f"{path}: {error} in the atom lines") from error


def _numbers(text: str, expected: int, path: Path) -> list[float]:
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != expected:
        raise InputError(f"{path}: expected {expected} numbers, found {text[:60]!r}")
    return values


def _info_column(values: list[str | None]) -> pa.Array:
    """Frame fields of one name: numbers if all are, lists of numbers if all are, else text."""
    given = [v for v in values if v is not None]
    try:
        rows: list[Any] = [None if v is None else [float(w) for w in v.split()] for v in values]
    except ValueError:
        return pa.array(values, pa.string())
    if all(len(r) == 1 for r in rows if r is not None) and given:
        return pa.array([None if r is None else r[0] for r in rows], pa.float64())
    return pa.array(rows, pa.large_list(pa.float64()))
