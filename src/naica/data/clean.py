"""Cleaning: rows that cannot be trusted go out, each with its row number, id and reason; nothing is lost.

One bad structure is one rejected row, never a dead run.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from naica.data import checks
from naica.data.rows import valid_rows
from naica.data.table import CrystalTable
from naica.errors import InputError, NaicaError
from naica.structure import Crystal

OVERLAP = 0.5
EXPLODED = 6.0


@dataclass(frozen=True)
class Rejection:
    """Why one row is out. `row` counts from 0 in what was cleaned (a file with a header: data rows); `kind` groups reasons of one sort."""

    row: int
    id: str
    reason: str
    kind: str = "other"


@dataclass(frozen=True)
class Cleaned:
    """What stayed (`table`), why the rest went (`rejected`), and the rest itself where it was readable at all (`dropped`)."""

    table: CrystalTable
    rejected: list[Rejection] = field(default_factory=list)
    dropped: CrystalTable | None = None

    def report(self, examples: int = 3) -> str:
        """Plain text: how many rows stayed, and for every kind of fault how many rows and the first few of them."""
        total = len(self.table) + len(self.rejected)
        lines = [f"kept {len(self.table)} of {total} rows"]
        if self.rejected:
            lines[0] += f"; rejected {len(self.rejected)}:"
        for kind, times in Counter(r.kind for r in self.rejected).most_common():
            lines.append(f"  {times} × {kind}")
            shown = [r for r in self.rejected if r.kind == kind][:examples]
            lines += [f"      row {r.row}, {r.id}: {r.reason}" for r in shown]
            if times > examples:
                lines.append(f"      … and {times - examples} more")
        return "\n".join(lines)

    def rejections(self) -> pa.Table:
        """The rejections as an Arrow table: row, id, kind, reason."""
        columns = {name: [getattr(r, name) for r in self.rejected] for name in ("row", "id", "kind", "reason")}
        types = {"row": pa.int64(), "id": pa.string(), "kind": pa.string(), "reason": pa.string()}
        return pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})

    def write_rejections(self, path: str | Path) -> None:
        """The rejections as CSV: row, id, kind, reason."""
        with Path(path).open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["row", "id", "kind", "reason"])
            writer.writerows([r.row, r.id, r.kind, r.reason] for r in self.rejected)


def clean(
    source: CrystalTable | Iterable[Crystal | NaicaError],
    columns: Sequence[str] = (),
    *,
    max_atoms: int | None = None,
    min_distance: float = OVERLAP,
    max_volume_ratio: float | None = EXPLODED,
    duplicates: Literal["exact", "structure"] | None = "exact",
    outliers: float | None = None,
) -> Cleaned:
    """Separate rows that can be trusted from those that cannot.

    Looked for, in this order (the first fault found is the reason): structures that are none (no atoms, unknown elements, NaN in
    positions, no volume), too many atoms, exploded cells, overlapping atoms, labels that are NaN or infinite, outliers, repeated ids, and
    duplicates.

    Parameters
    ----------
    source : a table, or crystals; an error among them (as `naica.structure.io.read_many` yields for a broken file) is a rejected row
    columns : number columns that must be finite
    max_atoms : more atoms than this are too many
    min_distance : atoms nearer than this (Å) overlap
    max_volume_ratio : cells larger than this many times the room their atoms need are exploded (`checks.volume_ratios`); None for
        slabs and molecules in a box
    duplicates : ``exact`` drops identical content (later rows), ``structure`` what the structure matcher holds for the same crystal;
        None keeps all
    outliers : drop values further than this many robust standard deviations from the median of each of `columns`; None keeps all

    Raises
    ------
    InputError
        If a column is missing or not of numbers.
    """
    table, faults = _as_table(source)
    kept = np.setdiff1d(np.arange(len(table) + len(faults)), list(faults))
    # `kept` maps rows of the table to rows of the source
    found: dict[int, tuple[str, str]] = {}
    numbers = {name: _numbers(table, name) for name in columns}
    _reject_invalid(table, found)
    _reject_shapes(table, found, max_atoms, max_volume_ratio, min_distance)
    for name, values in numbers.items():
        _reject_values(name, values, found, outliers)
    _reject_repeated_ids(table, found)
    if duplicates:
        _reject_duplicates(table, found, duplicates)
    stay = np.ones(len(table), dtype=bool)
    stay[list(found)] = False
    ids = table.ids
    rejected = [Rejection(int(kept[row]), ids[row], reason, kind) for row, (kind, reason) in found.items()]
    rejected += [Rejection(row, f"row {row}", str(error), "unreadable structure") for row, error in faults.items()]
    return Cleaned(table.take(stay), sorted(rejected, key=lambda r: r.row), table.take(~stay))


def _as_table(source: CrystalTable | Iterable[Crystal | NaicaError]) -> tuple[CrystalTable, dict[int, NaicaError]]:
    if isinstance(source, CrystalTable):
        return source, {}
    items = list(source)
    faults = {row: item for row, item in enumerate(items) if isinstance(item, NaicaError)}
    good = [item for item in items if isinstance(item, Crystal)]
    if len(good) + len(faults) != len(items):
        odd = next(i for i in items if not isinstance(i, Crystal | NaicaError))
        raise InputError(f"expected crystals or a CrystalTable, found {type(odd).__name__}")
    return CrystalTable.from_crystals(good, ids=_ids(good)), faults


def _ids(crystals: list[Crystal]) -> list[str]:
    """The ids crystals bring along, else their hashes, told apart where content repeats."""
    seen: Counter[str] = Counter()
    names = []
    for crystal in crystals:
        given = crystal.info.get("id")
        if given is None:
            seen[crystal.hash] += 1
            given = crystal.hash if seen[crystal.hash] == 1 else f"{crystal.hash}-{seen[crystal.hash]}"
        names.append(str(given))
    return names


def _numbers(table: CrystalTable, name: str) -> np.ndarray:
    values = table.column(name)
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {name!r} holds no numbers ({table.arrow[name].type}); name a column of numbers") from error


def _open_rows(table: CrystalTable, found: dict[int, tuple[str, str]]) -> np.ndarray:
    return np.setdiff1d(np.arange(len(table)), list(found))


def _reject_invalid(table: CrystalTable, found: dict[int, tuple[str, str]]) -> None:
    for row in np.flatnonzero(~valid_rows(*table.flat())).tolist():
        try:
            table[row]
        except InputError as error:
            found[row] = ("no valid structure", str(error))


def _reject_shapes(
    table: CrystalTable, found: dict[int, tuple[str, str]], max_atoms: int | None, max_ratio: float | None, min_distance: float
) -> None:
    counts = table.flat()[0]
    if max_atoms is not None:
        for row in np.flatnonzero(counts > max_atoms).tolist():
            found.setdefault(row, ("too many atoms", f"{counts[row]} atoms; at most {max_atoms} are wanted"))
    if max_ratio is not None:
        ratios = checks.volume_ratios(table)
        for row in np.flatnonzero(np.nan_to_num(ratios) > max_ratio).tolist():
            reason = f"the cell is {ratios[row]:.1f} times as large as its atoms need; at most {max_ratio:g} is believed"
            found.setdefault(row, ("exploded cell", reason))
    for row, distance in sorted(checks.overlapping(table, min_distance, _open_rows(table, found)).items()):
        found[row] = ("overlapping atoms", f"two atoms are {distance:.3f} Å apart; at least {min_distance:g} Å is believed")


def _reject_values(name: str, values: np.ndarray, found: dict[int, tuple[str, str]], outliers: float | None) -> None:
    for row in np.flatnonzero(~np.isfinite(values)).tolist():
        found.setdefault(row, ("label not a finite number", f"{name} is {values[row]}; expected a finite number"))
    if outliers is not None:
        trusted = np.where(np.isfinite(values), values, np.nan)
        for row in np.flatnonzero(checks.outlying(trusted, outliers)).tolist():
            reason = f"{name} = {values[row]:g} is more than {outliers:g} robust standard deviations from the median"
            found.setdefault(row, ("outlier", reason))


def _reject_repeated_ids(table: CrystalTable, found: dict[int, tuple[str, str]]) -> None:
    first: dict[str, int] = {}
    for row, key in enumerate(table.ids):
        if row not in found and first.setdefault(key, row) != row:
            found[row] = ("repeated id", f"row {first[key]} has the same id")


def _reject_duplicates(table: CrystalTable, found: dict[int, tuple[str, str]], way: str) -> None:
    rows = _open_rows(table, found)
    part = table.take(rows)
    if way == "structure":
        from naica.structure.match import duplicates

        keys: list[object] = list(duplicates(list(part)))
    elif way == "exact":
        keys = [crystal.hash for crystal in part]
    else:
        raise InputError(f"duplicates={way!r} is unknown; choose exact, structure or None")
    first: dict[object, int] = {}
    ids = table.ids
    for row, key in zip(rows.tolist(), keys, strict=True):
        if first.setdefault(key, row) != row:
            found[row] = ("duplicate", f"the same structure as row {first[key]}, {ids[first[key]]}")
