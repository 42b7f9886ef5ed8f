"""A user's own labelled structures: a folder of structure files with a CSV of values, or one CSV with structures as text or SMILES."""

from __future__ import annotations

import csv as csv_format
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa

from naica.data.clean import Cleaned, Rejection, clean
from naica.data.labels import Label, Level
from naica.data.table import CrystalTable
from naica.errors import InputError, NaicaError
from naica.fields import FIELDS, field
from naica.structure import Crystal

DEFAULT_CSV = "id_prop.csv"
_STRUCTURE_COLUMNS = ("cif", "structure", "poscar", "file", "path", "filename", "smiles")
_SMILES = "smiles"
_TEXT_COLUMNS = ("id", "smiles", "formula", "composition", "material_id")
_SUFFIXES = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".json")
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rows:
    """A CSV: column names, the cells of each row as text, and the line each row stands on."""

    path: Path
    names: tuple[str, ...]
    cells: list[list[str]]
    lines: list[int]
    header: bool

    def index(self, column: str) -> int:
        """Which column is called so.

        Raises
        ------
        InputError
            If none is; the message lists those there are.
        """
        if column not in self.names:
            why = "" if self.header else " (it has no header, so columns got numbered names)"
            raise InputError(f"{self.path} has no column {column!r}; its columns are {', '.join(self.names)}{why}")
        return self.names.index(column)


def read_csv(path: str | Path, columns: Sequence[str] = ()) -> Rows:
    """A CSV as text, with or without a header; nothing is guessed to be missing, so sodium nitride stays ``NaN``.

    The first line is a header if it names one of `columns` or holds no number beyond its first cell.

    Raises
    ------
    InputError
        If there is no such file, it is empty or no text.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such CSV file: {file}; expected lines of id,value")
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            # a structure written out as text can be longer than the csv module's default limit
            csv_format.field_size_limit(1 << 27)
            reader = csv_format.reader(handle)
            found = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv_format.Error) as error:
        raise InputError(f"{file} is no CSV text: {error}") from error
    if not found:
        raise InputError(f"{file} is empty; expected lines of id,value")
    first = [cell.strip() for cell in found[0][1]]
    header = any(name in first for name in columns) or not any(_number(cell) is not None for cell in first[1:])
    if header:
        names = tuple(first)
        found = found[1:]
    else:
        width = len(first)
        values = [columns[0] if columns and width == 2 else f"value{k}" for k in range(1, width)]
        names = ("id", *values)
    return Rows(file, names, [row for _, row in found], [line for line, _ in found], header)


def from_folder(
    folder: str | Path,
    csv: str | Path | None = None,
    column: str = "value",
    unit: str | None = None,
    level: Level | None = None,
    *,
    quantity: str | None = None,
    progress: Progress | None = None,
    gaps: bool = False,
    also: Mapping[str, Label] | None = None,
    repeats: bool = False,
    **cleaning: Any,
) -> Cleaned:
    """A folder of structure files, one per id, with a CSV of ``id,value[,…]``.

    Parameters
    ----------
    folder : holds ``<id>.cif`` (or .vasp, .poscar, .xyz, .extxyz, .json) for each id of the CSV
    csv : default ``id_prop.csv`` in the folder; with or without a header, the id in column `id` or the first one
    column : name of the value column (what to call it, if a file of two columns has no header)
    unit : unit of the values; naica's own unit of the quantity (`naica.fields`)
    level : level of theory of the values; tables of different levels do not mix
    quantity : which quantity of `naica.fields` the values are; default: the one `column` is named after
    progress : called with (rows done, rows in all)
    gaps : keep rows whose value is empty: they may have labels in other columns
    also : further label columns and what they mean; their cells may be empty
    repeats : an id (or structure) may stand in several rows, at several temperatures, say; from the second on the line is added to the id
    cleaning : passed to `clean`

    Returns
    -------
    The good rows, with every further column of the CSV, and a rejection with reason for every other row.

    Raises
    ------
    InputError
        If folder, CSV or column are missing, or the quantity is not known.
    LevelError
        If the values have no unit, or another than naica keeps.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"no such folder: {place}")
    labels = {column: _label(column, quantity, unit, level), **(also or {})}
    rows = read_csv(csv if csv is not None else place / DEFAULT_CSV, [column])
    files = {p.stem: p for suffix in reversed(_SUFFIXES) for p in place.glob(f"*{suffix}")}

    def structure(_: list[str], key: str) -> Crystal:
        path = files.get(key) or next((place / f for f in (key, f"{key}/POSCAR") if (place / f).is_file()), None)
        if path is None:
            raise InputError(f"no structure file {key}.cif (nor {', '.join(_SUFFIXES[1:])}) in {place}")
        return _read_one(path)

    return _assemble(rows, labels, structure, progress, cleaning, gaps=gaps, repeats=repeats)


def from_csv(
    csv: str | Path,
    column: str = "value",
    unit: str | None = None,
    level: Level | None = None,
    *,
    structure: str | None = None,
    quantity: str | None = None,
    progress: Progress | None = None,
    gaps: bool = False,
    also: Mapping[str, Label] | None = None,
    repeats: bool = False,
    **cleaning: Any,
) -> Cleaned:
    """One CSV whose column `structure` holds structures as text (CIF, POSCAR or JSON) or names of files relative to the CSV.

    Other parameters, results and errors are those of `from_folder`; `structure` defaults to the first column called cif, structure,
    poscar, file, path, filename or smiles. A column called smiles gives molecules: one conformer each, heavy atoms only
    (`naica.data.molecules`), and the column stays in the table.
    """
    labels = {column: _label(column, quantity, unit, level), **(also or {})}
    rows = read_csv(csv, [column])
    name = structure or next((n for n in _STRUCTURE_COLUMNS if n in rows.names), "cif")
    where = rows.index(name)
    if name.lower() == _SMILES:
        found = _molecules(rows, where, progress)
        return _assemble(rows, labels, found, None, cleaning, keep=(name,), gaps=gaps, repeats=repeats)

    def parse(cells: list[str], _: str) -> Crystal:
        return _from_text(cells[where], rows.path.parent)

    return _assemble(rows, labels, parse, progress, cleaning, skip=(name,), gaps=gaps, repeats=repeats)


def _molecules(rows: Rows, at: int, progress: Progress | None) -> Callable[[list[str], str], Crystal]:
    """What finds the molecule of a row; all are embedded here, in one go."""
    from naica.data.molecules import conformers, on_terminal

    texts = list(dict.fromkeys(cells[at].strip() for cells in rows.cells if len(cells) > at))
    found = dict(zip(texts, conformers(texts, progress=progress or on_terminal(rows.path.name)), strict=True))

    def one(cells: list[str], _: str) -> Crystal:
        text = cells[at].strip()
        placed = found[text]
        if isinstance(placed, str):
            raise InputError(placed)
        return Crystal(*placed, info={_SMILES: text})

    return one


def _label(column: str, quantity: str | None, unit: str | None, level: Level | None) -> Label:
    if quantity is None and column not in FIELDS:
        near = get_close_matches(column, _learnable(), n=1, cutoff=0.6)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"cannot tell which quantity column {column!r} is{meant}; pass quantity=… (--quantity), one of {', '.join(_learnable())}"
        )
    meaning = field(quantity or column)
    return Label(meaning.name, unit if unit is not None else "", level)


def _learnable() -> list[str]:
    """Quantities of `naica.fields` that a column of numbers (or of lists, for those of atoms) can hold."""
    inputs = ("state", "cell", "positions", "fraction")
    found = [f for f in FIELDS.values() if f.level in ("system", "atom") and not f.shape and f.name not in inputs]
    return [f.name for f in found if (f.kind == "real" and f.unit) or (f.kind == "class" and f.level == "system")]


def _assemble(
    rows: Rows,
    labels: Mapping[str, Label],
    structure: Callable[[list[str], str], Crystal],
    progress: Progress | None,
    cleaning: dict[str, Any],
    skip: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
    gaps: bool = False,
    repeats: bool = False,
) -> Cleaned:
    """Read every row's structure and values; bad ones become rejections, the rest goes through `clean`."""
    places = {name: rows.index(name) for name in labels}
    id_at = rows.index("id") if "id" in rows.names else 0
    first, good, ids = next(iter(labels)), list[int](), list[str]()
    crystals: list[Crystal] = []
    values: dict[str, list[Any]] = {name: [] for name in labels}
    rejected: list[Rejection] = []
    seen: dict[str, int] = {}
    for row, cells in enumerate(rows.cells):
        key = cells[id_at].strip() if len(cells) > id_at else f"line {rows.lines[row]}"
        own = f"{key} (line {rows.lines[row]})" if repeats and key in seen else key
        try:
            found = {name: _value(rows, row, name, at, labels[name], gaps or name != first) for name, at in places.items()}
            if own in seen:
                raise _Refused("repeated id", f"line {rows.lines[row]}: id {key!r} stands on line {seen[key]} already")
            seen[own] = rows.lines[row]
            crystal = structure(cells, key)
            _fits(found, len(crystal), rows.lines[row])
        except _Refused as refusal:
            rejected.append(Rejection(row, key, str(refusal), refusal.kind))
        except NaicaError as error:
            kind = "missing file" if "no structure file" in str(error) else "unreadable structure"
            rejected.append(Rejection(row, key, str(error), kind))
        else:
            good.append(row)
            ids.append(own)
            crystals.append(crystal)
            for name, value in found.items():
                values[name].append(value)
        if progress:
            progress(row + 1, len(rows.cells))
    table = _table(rows, good, ids, crystals, id_at, skip, keep)
    for name, label in labels.items():
        kind = pa.list_(pa.float64()) if field(label.quantity).level == "atom" else pa.float64()
        table = table.with_column(name, pa.array(values[name], kind), label)
    finite = not gaps and field(labels[first].quantity).level != "atom"
    inner = clean(table, [first] if finite else [], **cleaning)
    rejected += [Rejection(good[r.row], r.id, r.reason, r.kind) for r in inner.rejected]
    return Cleaned(inner.table, sorted(rejected, key=lambda r: r.row), inner.dropped)


class _Refused(Exception):
    """A row that cannot be used, with the kind of fault."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def _value(rows: Rows, row: int, column: str, at: int, label: Label, gaps: bool) -> float | list[float] | None:
    """The label in a cell: a number, a word for a class, or a list for a quantity of atoms. None (of atoms) or NaN where it is empty."""
    cells, line, meaning = rows.cells[row], rows.lines[row], field(label.quantity)
    if len(cells) != len(rows.names):
        raise _Refused("ragged line", f"line {line} has {len(cells)} cells for {len(rows.names)} columns ({', '.join(rows.names)})")
    text = cells[at].strip()
    if gaps and not text:
        return None if meaning.level == "atom" else math.nan
    if meaning.level == "atom":
        return _list(text, f"line {line}: {column}")
    value = _WORDS.get(text.lower()) if meaning.kind == "class" and text.lower() in _WORDS else _number(text)
    if value is None:
        wanted = "0 or 1, or true or false" if meaning.kind == "class" else "a number"
        raise _Refused("label not a finite number", f"line {line}: {column} is {cells[at]!r}; expected {wanted}")
    if not math.isfinite(value):
        raise _Refused("label not a finite number", f"line {line}: {column} is {text}; expected a finite number")
    if meaning.kind == "class" and value not in (0.0, 1.0):
        raise _Refused("label is no class", f"line {line}: {column} is {text}; expected 0 or 1, or true or false")
    return value


def _list(text: str, where: str) -> list[float]:
    """Numbers of atoms: ``[1.0, null, 0.5]``, or the numbers with spaces, commas or semicolons between them; null is missing."""
    plain = text.removeprefix("[").removesuffix("]").replace(",", " ").replace(";", " ").split()
    numbers = [math.nan if part.lower() in ("null", "nan", "none") else _number(part) for part in plain]
    if not numbers or any(n is None or math.isinf(n) for n in numbers):
        raise _Refused("labels of atoms unreadable", f"{where} is {text[:60]!r}; expected a number for each atom, for example [1.0, 0.5]")
    return [float(n) for n in numbers if n is not None]


def _fits(values: Mapping[str, float | list[float] | None], atoms: int, line: int) -> None:
    for name, value in values.items():
        if isinstance(value, list) and len(value) != atoms:
            raise _Refused("labels do not fit the atoms", f"line {line}: {len(value)} values of {name} for {atoms} atoms")


def _table(
    rows: Rows, good: list[int], ids: list[str], crystals: list[Crystal], id_at: int, skip: tuple[str, ...], keep: tuple[str, ...]
) -> CrystalTable:
    """The crystals with the CSV's further columns: numbers where all cells are numbers, else text; formulas and ids always text.

    `keep` are columns that stay even if they are the ids.
    """
    table = CrystalTable.from_crystals(crystals, ids=ids)
    for at, name in enumerate(rows.names):
        if (at == id_at and name not in keep) or name in skip or name in table.columns:
            continue
        text = [rows.cells[r][at].strip() for r in good]
        numbers = [_number(t) if t else math.nan for t in text]
        plain = name.lower() in _TEXT_COLUMNS or any(n is None for n in numbers)
        table = table.with_column(name, pa.array(text, pa.string()) if plain else pa.array(numbers, pa.float64()))
    return table


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_one(path: Path) -> Crystal:
    from naica.structure.io import read

    found = read(path)
    if isinstance(found, list):
        raise InputError(f"{path} holds {len(found)} structures; expected one per file")
    return found


def _from_text(text: str, folder: Path) -> Crystal:
    """A structure from text in a cell: the name of a file, or CIF, JSON or POSCAR itself."""
    content = text.strip()
    if "\n" not in content and not content.startswith("{"):
        path = folder / content
        if not path.is_file():
            raise InputError(f"no structure file {path}")
        return _read_one(path)
    name = "cell.json" if content.startswith("{") else "cell.cif" if "_cell_length_a" in content else "POSCAR"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        path.write_text(content + "\n", encoding="utf-8")
        try:
            return _read_one(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "the structure text")) from error
