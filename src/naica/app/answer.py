"""What comes back from a request: data for programs, blocks for people. Neither knows how it will be shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; columns named in `right` hold numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    right: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """`data` is the whole answer for a program; `blocks` say the same to a person; `notes` are remarks beside it."""

    data: Any
    blocks: tuple[Table | str, ...] = ()
    notes: tuple[str, ...] = ()
    exit_code: int = 0


def plain(value: Any) -> Any:  # noqa: PLR0911  one return per kind of value
    """`value` in the types JSON has: arrays become lists, NaN and infinities null, paths and dates text, dataclasses objects."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Path | date):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, torch tensors, without importing either
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON: {value!r}")


def to_json(value: Any, indent: int | None = 2) -> str:
    """Strict JSON (no NaN) of anything `plain` knows."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def number(value: Any, digits: int = 3) -> str:
    """A number for a person; an en dash where there is none."""
    if value is None or not math.isfinite(float(value)):
        return "–"
    shown = f"{float(value):.{digits}f}"
    # -0.000 would claim a sign that the rounding ate
    return shown.removeprefix("-") if float(shown) == 0 else shown
