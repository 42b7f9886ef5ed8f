"""Answers about data: the registry of public sets, labelled sources, graphs of one structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, number
from naica.app.requests import GraphRequest, SourceRequest
from naica.errors import InputError

if TYPE_CHECKING:
    from naica.data import CrystalTable, Level

Report = Callable[[int, int], None]


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
        return Level(functional.strip(), hubbard_u=hubbard.strip("() ") or "yes" if plus else "")
    known = [f.name for f in dataclass_fields(Level)]
    parts: dict[str, str] = {}
    for piece in text.split(","):
        key, _, value = piece.partition("=")
        if key.strip() not in known:
            raise InputError(f"level of theory {text!r}: unknown part {key.strip()!r}; parts: {', '.join(known)}")
        parts[key.strip()] = value.strip()
    if "functional" not in parts:
        raise InputError(f"level of theory {text!r} names no functional; for example functional=PBE,code=VASP")
    return Level(**parts)
