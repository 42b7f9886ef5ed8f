"""Labelled crystals named on a command line: a Parquet table, a CSV, a folder of CIFs with its CSV, or a registered set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.requests import SourceRequest
from naica.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from naica.data import CrystalTable, Level
    from naica.data.clean import Cleaned
    from naica.data.splits import Split


@dataclass(frozen=True)
class Labelled:
    """A table, the label columns that were meant, and what was left out on the way."""

    table: CrystalTable
    columns: tuple[str, ...]
    rejected: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """The only column; InputError if there are several."""
        if len(self.columns) != 1:
            raise InputError(f"columns {', '.join(self.columns)}: one label is needed here")
        return self.columns[0]


def labelled(request: SourceRequest, repeats: bool = False) -> Labelled:
    """Open a source and settle its label columns.

    Parameters
    ----------
    request : which source
    repeats : a structure may stand in several rows: at several temperatures, say

    Raises
    ------
    InputError
        If the source is none of the four kinds, or the column is missing or ambiguous.
    LevelError
        If the labels have no unit.
    """
    path = Path(request.source)
    if path.is_dir() or path.suffix.lower() == ".csv":
        return _own(path, request, repeats)
    is_file = path.suffix.lower() == ".parquet" or path.is_file()
    table = _read_table(path) if is_file else _registered(request.source)
    return Labelled(_labelled_as(table, request), _columns(table, request), [])


def _read_table(path: Path) -> CrystalTable:
    from naica.data import CrystalTable

    return CrystalTable.read(path)


def _registered(name: str) -> CrystalTable:
    from naica.data.registry import load_set, sets

    known = [s.name for s in sets() if s.loads]
    if name not in known and ("/" in name or "." in name):
        raise InputError(
            f"{name}: no such file or folder, nor a registered set; "
            "expected a .parquet, a .csv, a folder of CIFs, or a name from naica data list"
        )
    return load_set(name)


def _own(path: Path, request: SourceRequest, repeats: bool) -> Labelled:
    from naica.data import Label
    from naica.data.folder import from_csv, from_folder

    names = request.columns
    if not names:
        raise InputError(f"{path}: which column holds the labels? Name it with --column (and its --unit, --level)")
    level = parse_level(request.level) if request.level else None
    units, quantities = _each(request.unit, names), _each(request.quantity, names)
    also = {
        name: Label(quantity or name, unit or "", level) for name, unit, quantity in zip(names[1:], units[1:], quantities[1:], strict=True)
    }
    given: dict[str, Any] = {"column": names[0], "unit": units[0], "level": level, "quantity": quantities[0]}
    given |= {"gaps": len(names) > 1, "also": also, "repeats": repeats} | ({"duplicates": None} if repeats else {})
    cleaned: Cleaned = from_folder(path, request.csv, **given) if path.is_dir() else from_csv(path, **given)
    if not len(cleaned.table):
        raise InputError(f"{path}: no row can be used. {cleaned.report()}")
    rejected = [asdict(r) for r in cleaned.rejected]
    return Labelled(_labelled_as(cleaned.table, request), names, rejected, (cleaned.report(),) if rejected else ())


def _columns(table: CrystalTable, request: SourceRequest) -> tuple[str, ...]:
    for name in request.columns:
        table.column(name)  # says which there are, if it is not there
    names = list(table.labels)
    if not request.columns and len(names) != 1:
        raise InputError(f"{request.source} has {len(names)} labels ({', '.join(names) or 'none'}); choose with --column")
    return request.columns or (names[0],)


def _labelled_as(table: CrystalTable, request: SourceRequest) -> CrystalTable:
    """The table with the labels that the options describe, where they describe any."""
    from naica.data import Label

    columns = _columns(table, request)
    for column, quantity, unit in zip(columns, _each(request.quantity, columns), _each(request.unit, columns), strict=True):
        old = table.labels.get(column)
        if old and not (quantity or unit or request.level):
            continue
        if not (old or quantity or unit or request.level or len(columns) > 1):
            continue
        level = parse_level(request.level) if request.level else (old.level if old else None)
        label = Label(quantity or (old.quantity if old else column), unit or (old.unit if old else ""), level)
        table = table.with_column(column, table.arrow[column], label)
    return table


def _each(text: str | None, columns: tuple[str, ...]) -> tuple[str | None, ...]:
    """One for each column: what stands between commas, or the only one for all.

    Raises
    ------
    InputError
        If there are neither one nor as many as columns.
    """
    parts = [part.strip() for part in text.split(",")] if text is not None else [None]
    if len(parts) not in (1, len(columns)):
        raise InputError(f"{text!r} names {len(parts)} for {len(columns)} columns ({', '.join(columns)}); expected one, or one for each")
    return tuple(parts * len(columns) if len(parts) == 1 else parts)


def check_element(by: str, element: str | None) -> None:
    """Refuse a split by element without one, and an element for any other split (InputError); asked before any data is read."""
    if by == "element" and element is None:
        raise InputError("--split element needs the element to hold out: add --element SYMBOL, for example --element Li")
    if by != "element" and element is not None:
        raise InputError(f"--element {element} is for --split element only; this split is {by!r}. Drop it, or add --split element")


def parted(table: CrystalTable, by: str, seed: int, element: str | None = None) -> Split:
    """A split of the table; `element` is the one that a split by element holds out."""
    from naica.data.splits import split

    return split(table, by, seed=seed, element=element)  # type: ignore[arg-type]


def rows_of(table: CrystalTable, part: str, by: str, seed: int, element: str | None = None) -> NDArray[np.int64]:
    """Rows of one part of a split ("all": every row)."""
    import numpy as np

    if part == "all":
        return np.arange(len(table))
    rows: NDArray[np.int64] = getattr(parted(table, by, seed, element), part)
    return rows


def parse_level(text: str) -> Level:
    """A level of theory from text: ``PBE``, ``PBE+U``, or ``functional=PBE,hubbard_u=MP,code=VASP``.

    Raises
    ------
    InputError
        For a part that is none of a level's.
    """
    from naica.data import Level

    if "=" not in text:
        functional, plus, hubbard = text.partition("+U")
        return Level(functional.strip(), hubbard_u=(hubbard.strip("() ") or "yes") if plus else "")
    known = [f.name for f in fields(Level)]
    parts: dict[str, str] = {}
    for piece in text.split(","):
        key, _, value = piece.partition("=")
        if key.strip() not in known:
            raise InputError(f"level of theory {text!r}: unknown part {key.strip()!r}; parts: {', '.join(known)}")
        parts[key.strip()] = value.strip()
    if "functional" not in parts:
        raise InputError(f"level of theory {text!r} names no functional; for example functional=PBE,code=VASP")
    return Level(**parts)


def as_dict(value: Any) -> dict[str, Any]:
    """A result object as plain data."""
    if hasattr(value, "to_dict"):
        return dict(value.to_dict())
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else dict(value)
