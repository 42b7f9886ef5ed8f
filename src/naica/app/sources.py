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
    """A table, the label column that was meant, and what was left out on the way."""

    table: CrystalTable
    column: str
    rejected: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def labelled(request: SourceRequest) -> Labelled:
    """Open a source and settle its label column.

    Raises
    ------
    InputError
        If the source is none of the four kinds, or the column is missing or ambiguous.
    LevelError
        If the labels have no unit.
    """
    path = Path(request.source)
    if path.is_dir() or path.suffix.lower() == ".csv":
        return _own(path, request)
    is_file = path.suffix.lower() == ".parquet" or path.is_file()
    table = _read_table(path) if is_file else _registered(request.source)
    return Labelled(_labelled_as(table, request), _column(table, request), [])


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


def _own(path: Path, request: SourceRequest) -> Labelled:
    from naica.data.folder import from_csv, from_folder

    if request.column is None:
        raise InputError(f"{path}: which column holds the labels? Name it with --column (and its --unit, --level)")
    level = parse_level(request.level) if request.level else None
    given: dict[str, Any] = {"column": request.column, "unit": request.unit, "level": level, "quantity": request.quantity}
    cleaned: Cleaned = from_folder(path, request.csv, **given) if path.is_dir() else from_csv(path, **given)
    if not len(cleaned.table):
        raise InputError(f"{path}: no row can be used. {cleaned.report()}")
    rejected = [asdict(r) for r in cleaned.rejected]
    return Labelled(cleaned.table, request.column, rejected, (cleaned.report(),) if rejected else ())


def _column(table: CrystalTable, request: SourceRequest) -> str:
    if request.column is not None:
        table.column(request.column)  # says which there are, if it is not there
        return request.column
    names = list(table.labels)
    if len(names) != 1:
        raise InputError(f"{request.source} has {len(names)} labels ({', '.join(names) or 'none'}); choose one with --column")
    return names[0]


def _labelled_as(table: CrystalTable, request: SourceRequest) -> CrystalTable:
    """The table with the label that the options describe, where they describe one."""
    from naica.data import Label

    column = _column(table, request)
    if not (request.quantity or request.unit or request.level):
        return table
    old = table.labels.get(column)
    quantity = request.quantity or (old.quantity if old else column)
    unit = request.unit or (old.unit if old else "")
    level = parse_level(request.level) if request.level else (old.level if old else None)
    return table.with_column(column, table.arrow[column], Label(quantity, unit, level))


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
