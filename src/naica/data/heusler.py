"""Heusler compounds, whose source files are tables of elements and lattice constants: structures made from them."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from naica.data.parquet import add_column
from naica.data.table import CrystalTable
from naica.errors import InputError
from naica.structure import Crystal

if TYPE_CHECKING:
    from naica.data.registry import DataSet

_FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
# elements at 0, 1/4, 1/2, 3/4 of the body diagonal of the cubic cell
_ORDER = {"l21": ("X", "Y", "X", "Z"), "xa": ("X", "X", "Y", "Z")}
_PLACES = np.array([0.0, 0.25, 0.5, 0.75])


def load(path: Path, source: DataSet) -> CrystalTable:
    """A table of Heuslers: half (structures by id from the set `mp_formation`) or full (L2₁ and inverse, made from element and constant).

    Raises
    ------
    InputError
        If the file is not one of the two tables.
    """
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or not ({"centre_element", "symbol_X"} & set(rows[0])):
        raise InputError(f"{path} is no table of Heuslers; pull the set {source.name!r} again")
    half = "centre_element" in rows[0]
    table = _half(rows) if half else CrystalTable.from_crystals([_full(row) for row in rows], ids=_names(rows))
    numbers = ("a_conventional", "e_form", "band_gap") if half else ("lat", "form_en", "tot_mag", "num_valence")
    texts = ("centre_element", "other_elements", "icsd") if half else ("lat_type",)
    for name in numbers:
        table = add_column(table, name, pa.array([float(row[name]) if row[name] else None for row in rows]), source)
    for name in texts:
        table = table.with_column(name, [row[name] for row in rows])
    return table


def _half(rows: list[dict[str, str]]) -> CrystalTable:
    from naica.data.registry import load_set

    found = load_set("mp_formation", ids=[row["id"] for row in rows])
    return CrystalTable(found.arrow.select(["id", "numbers", "positions", "cell", "pbc"]))


def _full(row: dict[str, str]) -> Crystal:
    elements = [row[f"symbol_{site}"] for site in _ORDER[row["lat_type"]]]
    cell = _FCC * float(row["lat"])
    # a quarter of the cubic body diagonal is a quarter along each of the three primitive vectors' sum
    return Crystal.from_fractional(elements, np.repeat(_PLACES[:, None], 3, axis=1), cell)


def _names(rows: list[dict[str, str]]) -> list[str]:
    return [f"{row['formula']}-{row['lat_type']}" for row in rows]
