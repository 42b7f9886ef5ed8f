"""The screen file: what a TOML may say, its defaults, and errors that name the key. Shipped screens lie in ``builtin/``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from naica.discover.config import Section
from naica.errors import ConfigError
from naica.structure.elements import Element, element, table

_RADIOACTIVE = ("Tc", "Pm", "Po", "At", "Rn", "Fr", "Ra")
_TOXIC = ("Pb", "Cd", "Hg", "Tl", "As", "Be")


class Elements(Section):
    """Which elements a row may hold. Names are symbols or groups (`GROUPS`)."""

    require: tuple[str, ...] = Field(default=(), description="all of these")
    any_of: tuple[tuple[str, ...], ...] = Field(default=(), description="one of each list at least")
    exclude: tuple[str, ...] = Field(default=(), description="none of these")
    least: int = Field(default=1, ge=1, description="different elements at least")
    most: int = Field(default=118, ge=1, description="different elements at most")

    @model_validator(mode="after")
    def _known(self) -> Elements:
        for name in (*self.require, *self.exclude, *(n for names in self.any_of for n in names)):
            members(name)
        if any(name in GROUPS for name in self.require):
            raise ValueError("require takes symbols; a group such as 'transition metals' goes into any_of")
        return self


class Rule(Section):
    """One condition on a value: a column of the table, a quantity whose label a column holds, or a descriptor."""

    value: str = Field(description="what is asked")
    min: float | None = None
    max: float | None = None
    equals: str | float | bool | None = None
    one_of: tuple[str | float, ...] = ()
    differs: str | float | bool | None = None
    unit: str | None = Field(default=None, description="unit of the limits; another unit in the table is an error")
    missing: Literal["reject", "keep"] = Field(default="reject", description="what becomes of a row without the value")
    why: str = Field(default="", description="the reason, for people")

    @model_validator(mode="after")
    def _asks(self) -> Rule:
        if self.min is None and self.max is None and self.equals is None and self.differs is None and not self.one_of:
            raise ValueError(f"rule on {self.value!r} asks nothing; give min, max, equals, differs or one_of")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"rule on {self.value!r}: min {self.min:g} is above max {self.max:g}")
        return self

    def says(self) -> str:
        """The condition in words."""
        unit = f" {self.unit}" if self.unit else ""
        parts = [f"≥ {self.min:g}{unit}"] if self.min is not None else []
        parts += [f"≤ {self.max:g}{unit}"] if self.max is not None else []
        parts += [f"= {self.equals}"] if self.equals is not None else []
        parts += [f"≠ {self.differs}"] if self.differs is not None else []
        parts += [f"one of {', '.join(str(v) for v in self.one_of)}"] if self.one_of else []
        return f"{self.value} {' and '.join(parts)}"


class Show(Section):
    """What the answer shows of each row that is left."""

    values: tuple[str, ...] = Field(default=(), description="further columns and descriptors, told but not asked for")
    sort: str = Field(default="", description="value the rows are sorted by")
    descending: bool = False


class ScreenConfig(Section):
    """A whole screen. Rules are asked in their order, and a value is worked out only for rows that are still in."""

    title: str = ""
    about: str = Field(default="", description="what it looks for, by whose criteria")
    elements: Elements = Elements()
    rule: tuple[Rule, ...] = ()
    columns: dict[str, tuple[str, ...]] = Field(default={}, description="columns that may hold a value, first that exists")
    options: dict[str, dict[str, Any]] = Field(default={}, description="settings of descriptors")
    show: Show = Show()


_Elements = tuple[Element, ...]
_GROUP: dict[str, Callable[[_Elements], Iterable[str]]] = {
    # lanthanides and actinides have their own names; zinc's group counts, as in most exclusion lists
    "transition metals": lambda all_: (e.symbol for e in all_ if 3 <= e.group <= 12 and e.block == "d" and e.number not in (57, 89)),
    "lanthanides": lambda all_: (e.symbol for e in all_ if 57 <= e.number <= 71),
    "actinides": lambda all_: (e.symbol for e in all_ if 89 <= e.number <= 103),
    "noble gases": lambda all_: (e.symbol for e in all_ if e.group == 18),
    "radioactive": lambda all_: (*_RADIOACTIVE, *(e.symbol for e in all_ if 89 <= e.number <= 103)),
    "toxic": lambda all_: _TOXIC,
    "metals": lambda all_: (e.symbol for e in all_ if e.is_metal),
    "alkali metals": lambda all_: (e.symbol for e in all_ if e.group == 1 and e.number > 1),
}
GROUPS = tuple(_GROUP)
"""Names that stand for many elements in the lists of a screen."""


@cache
def members(name: str) -> frozenset[str]:
    """The elements a name of `Elements` stands for.

    Raises
    ------
    ValueError
        If it is neither a symbol nor a group; the message says what is known.
    """
    if name in GROUPS:
        return frozenset(_GROUP[name](table()))
    try:
        return frozenset({element(name).symbol})
    except ValueError as error:
        raise ValueError(f"{error}; groups: {', '.join(GROUPS)}") from None


def builtin_screens() -> dict[str, ScreenConfig]:
    """The shipped screens by name."""
    place = files("naica.discover.screens") / "builtin"
    names = sorted(p.name.removesuffix(".toml") for p in place.iterdir() if p.name.endswith(".toml"))
    return {name: _parsed(tomllib.loads((place / f"{name}.toml").read_text(encoding="utf-8")), name) for name in names}


def read_screen(name: str | Path) -> ScreenConfig:
    """A shipped screen by name, or a screen file.

    Raises
    ------
    ConfigError
        If there is no such screen, the file is no TOML, or it holds an unknown key or a value out of range.
    """
    file = Path(name)
    if file.suffix != ".toml":
        known = builtin_screens()
        if str(name) in known:
            return known[str(name)]
        near = get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no screen {str(name)!r}; {hint}shipped: {', '.join(known)}, or give a file ending in .toml")
    if not file.is_file():
        raise ConfigError(f"no screen file {file}")
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    return _parsed(raw, str(file))


def _parsed(raw: dict[str, Any], source: str) -> ScreenConfig:
    try:
        return ScreenConfig(**raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explained(e) for e in error.errors())) from error


def _explained(problem: Any) -> str:
    place = [str(p) for p in problem["loc"]]
    key = ".".join(place) or "file"
    if problem["type"] == "extra_forbidden":
        sections: dict[str, type[Section]] = {"rule": Rule, "elements": Elements, "show": Show}
        section = sections.get(place[0], ScreenConfig) if len(place) > 1 else ScreenConfig
        near = get_close_matches(place[-1], section.model_fields, n=1, cutoff=0.5)
        return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(section.model_fields)}")
    return f"{key}: {problem['msg'].removeprefix('Value error, ')}"
