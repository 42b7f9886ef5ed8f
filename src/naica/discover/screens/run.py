"""Running a screen: rows go through the conditions one after the other; who falls out keeps the reason, who stays keeps the numbers.

A value is worked out only for rows that are still in. A structure that cannot be judged is one rejected row with its reason. Conditions
that need a potential come last, within a budget: rows the budget does not reach are neither in nor out, they wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from naica.data.table import CrystalTable
from naica.discover.screens.config import Rule, ScreenConfig, members
from naica.discover.screens.descriptors import FAMILIES, Family, checked_options, family_of, unit_of
from naica.discover.screens.source import Row, Source
from naica.errors import ConfigError, InputError, LevelError, RunError
from naica.structure.composition import parse_formula

Progress = Callable[[int, int, str], None]
_TELL_EVERY = 100


@dataclass(frozen=True)
class Out:
    """A row that fell out: at which condition, and why."""

    id: str
    formula: str
    step: str
    reason: str


@dataclass(frozen=True)
class Step:
    """One condition: rows that came in, that stayed, that had no value, that could not be judged, that wait for a budget; CPU seconds."""

    name: str
    why: str
    came: int
    stayed: int
    missing: int
    failed: int
    waiting: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Screened:
    """What a screen left.

    Parameters
    ----------
    title : of the screen
    table : the rows that stayed, with all values that were asked or shown as columns
    values : the names of those values, in order
    units : of each value
    levels : level of theory of each value that has one
    rejected : the others, with reasons
    waiting : ids the budget did not reach
    steps : the funnel
    n_rows : rows asked
    seconds : CPU time
    """

    title: str
    table: CrystalTable
    values: tuple[str, ...]
    units: Mapping[str, str]
    levels: Mapping[str, str]
    rejected: Sequence[Out]
    waiting: Sequence[str]
    steps: Sequence[Step]
    n_rows: int
    seconds: float

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that stayed, as plain data."""
        names = ["id", "formula", *self.values]
        columns = [self.table.ids, self.table.formulas, *(self.table.arrow[v].to_pylist() for v in self.values)]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def screen(
    config: ScreenConfig,
    table: CrystalTable,
    *,
    where: Sequence[Rule] = (),
    columns: Mapping[str, str] | None = None,
    compute: int = 0,
    progress: Progress | None = None,
) -> Screened:
    """Ask a screen of every row of a table.

    Parameters
    ----------
    config : the screen
    table : crystals with their labels
    where : further conditions, asked after those of the screen that need no potential
    columns : column of a quantity, where labels leave it open
    compute : most rows that go through conditions that need a potential
    progress : called with (rows done, rows in all, condition)

    Raises
    ------
    ConfigError
        For an unknown value or option.
    InputError
        If a quantity is in several columns and none was chosen.
    LevelError
        If a condition's unit is not that of the column.
    """
    return _Run(config, Source(table, columns), tuple(where), compute, progress or (lambda done, total, step: None)).run()


@dataclass
class _Alive:
    """A row still in, and what is known of it."""

    row: Row
    values: dict[str, Any] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)


class _Run:
    def __init__(self, config: ScreenConfig, source: Source, where: tuple[Rule, ...], compute: int, progress: Progress) -> None:
        self.config, self.source, self.budget, self.progress = config, source, compute, progress
        self.options = checked_options(config.options)
        rules = (*config.rule, *where)
        shown = (*config.show.values, *([config.show.sort] if config.show.sort else []))
        self.places = {name: self._place(name, strict=name not in shown) for name in dict.fromkeys((*(r.value for r in rules), *shown))}
        dear = [r for r in rules if self._is_dear(r.value)]
        self.rules = [r for r in rules if not self._is_dear(r.value)]
        self.dear = dear
        for rule in rules:
            self._check_unit(rule)
        self.rejected: list[Out] = []
        self.waiting: list[str] = []
        self.steps: list[Step] = []

    # --- where a value comes from --------------------------------------------------------------------------------------------------
    def _place(self, name: str, strict: bool) -> str | Family | None:
        """The column or the family that gives a value.

        Raises
        ------
        ConfigError
            If nothing does (a value that is only shown may be absent).
        """
        column = self.source.column_of(name, self.config.columns.get(name, ()))
        if column is not None:
            return column
        family = family_of(name)
        if family is None and strict:
            from difflib import get_close_matches

            known = [v for f in FAMILIES for v in f.values]
            near = get_close_matches(name, [*known, *self.source.table.columns], n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ConfigError(
                f"nothing gives {name!r}; {hint}columns of this table: {', '.join(self.source.table.columns)}; "
                f"descriptors: {', '.join(known)}"
            )
        return family

    def _is_dear(self, name: str) -> bool:
        place = self.places[name]
        return isinstance(place, Family) and place.needs == "potential"

    def _check_unit(self, rule: Rule) -> None:
        unit = self._unit(rule.value)
        if rule.unit is not None and unit is not None and rule.unit != unit:
            raise LevelError(f"the rule on {rule.value!r} is in {rule.unit}, the value is in {unit}; give its limits in {unit}")

    def _unit(self, name: str) -> str | None:
        place = self.places[name]
        if isinstance(place, Family):
            return unit_of(name)
        label = self.source.label(place) if place is not None else None
        return label.unit if label else None

    def _level(self, name: str) -> str | None:
        """Level of theory of a value: its label's, or for what is made from formation energies theirs."""
        place = self.places[name]
        if isinstance(place, Family):
            if place.needs != "table" or unit_of(name) not in ("V", "eV/atom", "Wh/kg"):
                return None
            place = self.source.formation[0]
            label = self.source.label(place)
            return f"from {place}: {label.level if label and label.level else 'level unknown'}"
        label = self.source.label(place) if place is not None else None
        return None if label is None else str(label.level) if label.level else "level unknown"

    # --- the walk ---------------------------------------------------------------------------------------------------------------------
    def run(self) -> Screened:
        """All conditions in order."""
        began = time.process_time()
        alive = self._by_elements()
        for rule in self.rules:
            alive = self._through(rule, alive)
        if self.dear:
            alive = self._dear_stage(alive)
        self._show(alive)
        return self._answer(alive, time.process_time() - began)

    def _by_elements(self) -> list[_Alive]:
        wanted = self.config.elements
        require = set(wanted.require)
        any_of = [frozenset().union(*(members(n) for n in names)) for names in wanted.any_of]
        banned = frozenset().union(*(members(n) for n in wanted.exclude)) if wanted.exclude else frozenset()
        began = time.process_time()
        judged: dict[str, str] = {}
        alive = []
        for index, formula in enumerate(self.source.formulas):
            if formula not in judged:
                judged[formula] = _elements_say(set(parse_formula(formula)), require, any_of, banned, wanted.least, wanted.most)
            if judged[formula]:
                self.rejected.append(Out(self.source.ids[index], formula, "elements", judged[formula]))
            else:
                alive.append(_Alive(Row(self.source, index)))
        self.steps.append(Step("elements", "", len(self.source), len(alive), 0, 0, 0, time.process_time() - began))
        return alive

    def _through(self, rule: Rule, alive: list[_Alive], waiting: int = 0) -> list[_Alive]:
        began = time.process_time()
        left: list[_Alive] = []
        missing = failed = 0
        for at, one in enumerate(alive):
            if at % _TELL_EVERY == 0:
                self.progress(at, len(alive), rule.value)
            try:
                value = self._value(one, rule.value)
            except (InputError, RunError) as error:
                failed += 1
                self._reject(one, rule, f"{rule.value} cannot be told: {error}")
                continue
            if value is None:
                missing += 1
                if rule.missing == "keep":
                    left.append(one)
                else:
                    self._reject(one, rule, f"no {rule.value}")
            elif (why := _against(rule, value)) is not None:
                self._reject(one, rule, why)
            else:
                left.append(one)
        self.steps.append(Step(rule.says(), rule.why, len(alive), len(left), missing, failed, waiting, time.process_time() - began))
        return left

    def _dear_stage(self, alive: list[_Alive]) -> list[_Alive]:
        """The best rows by the screen's order go on as far as the budget reaches; the others wait."""
        self._fill(alive, [self.config.show.sort] if self.config.show.sort else [])
        ordered = self._sorted(alive)
        alive, later = ordered[: self.budget], ordered[self.budget :]
        self.waiting = [one.row.id for one in later]
        for k, rule in enumerate(self.dear):
            alive = self._through(rule, alive, len(later) if k == 0 else 0)
        return alive + (later if not self.budget else [])

    def _reject(self, one: _Alive, rule: Rule, reason: str) -> None:
        self.rejected.append(Out(one.row.id, one.row.formula, rule.says(), reason))

    def _value(self, one: _Alive, name: str) -> Any:
        if name not in one.values:
            place = self.places[name]
            if isinstance(place, Family):
                if place.name not in one.made:
                    one.made.add(place.name)
                    one.values |= {k: v for k, v in place(one.row, self.options.get(place.name, {})).items() if k not in one.values}
                one.values.setdefault(name, None)
            else:
                one.values[name] = None if place is None else self.source.value(place, one.row.index)
        return one.values[name]

    def _fill(self, alive: list[_Alive], names: Sequence[str]) -> None:
        for one in alive:
            for name in names:
                try:
                    self._value(one, name)
                except (InputError, RunError):
                    one.values.setdefault(name, None)

    def _show(self, alive: list[_Alive]) -> None:
        cheap = [n for n in dict.fromkeys((*self.config.show.values, self.config.show.sort)) if n and not self._is_dear(n)]
        self._fill(alive, cheap)

    def _sorted(self, alive: list[_Alive]) -> list[_Alive]:
        by = self.config.show.sort
        if not by:
            return sorted(alive, key=lambda one: one.row.id)
        have = [one for one in alive if one.values.get(by) is not None]
        bare = [one for one in alive if one.values.get(by) is None]
        ordered = sorted(sorted(have, key=lambda one: one.row.id), key=lambda one: one.values[by], reverse=self.config.show.descending)
        return ordered + sorted(bare, key=lambda one: one.row.id)

    def _answer(self, alive: list[_Alive], seconds: float) -> Screened:
        ordered = self._sorted(alive)
        asked = [r.value for r in (*self.rules, *(self.dear if self.budget else ()))]
        beside = [v for one in ordered[:1] for v in one.values]
        table = self.source.table.take([one.row.index for one in ordered])
        names = []
        for name in dict.fromkeys((*asked, *self.config.show.values, *beside)):
            column = [one.values.get(name) for one in ordered]
            if self.places.get(name, name) is None or (column and all(v is None for v in column)):
                continue
            names.append(name)
            place = self.places.get(name)
            label = self.source.label(place) if isinstance(place, str) else None
            table = table.with_column(name, column, label)
        units = {name: (self._unit(name) if name in self.places else unit_of(name)) or "" for name in names}
        levels = {name: level for name in names if name in self.places and (level := self._level(name)) is not None}
        return Screened(
            self.config.title, table, tuple(names), units, levels, self.rejected, self.waiting, self.steps, len(self.source), seconds
        )


def _elements_say(
    elements: set[str], require: set[str], any_of: Sequence[frozenset[str]], banned: frozenset[str], least: int, most: int
) -> str:
    """Why a set of elements is out; empty if it is in."""
    if require - elements:
        return f"no {', '.join(sorted(require - elements))}"
    if elements & banned:
        return f"holds {', '.join(sorted(elements & banned))}"
    for wanted in any_of:
        if not elements & wanted:
            return f"none of {', '.join(sorted(wanted))}"
    if not least <= len(elements) <= most:
        return f"{len(elements)} elements"
    return ""


def _against(rule: Rule, value: Any) -> str | None:
    """Why a value is out; None if it is in."""
    told = f"{value:.4g}" if isinstance(value, float) else str(value)
    if rule.min is not None or rule.max is not None:
        if isinstance(value, str):
            raise ConfigError(f"the rule on {rule.value!r} has limits, but the value is text ({value!r}); use equals or one_of")
        if (rule.min is not None and value < rule.min) or (rule.max is not None and value > rule.max):
            return f"{rule.value} is {told}"
    if rule.equals is not None and value != rule.equals:
        return f"{rule.value} is {told}"
    if rule.one_of and value not in rule.one_of:
        return f"{rule.value} is {told}"
    if rule.differs is not None and value == rule.differs:
        return f"{rule.value} is {told}"
    return None


def parse_condition(text: str) -> Rule:
    """A condition from a command line: ``band_gap >= 2``, ``dimensionality = 2D``, ``a_site != Cs``, ``crystal_system in cubic,hexagonal``.

    Raises
    ------
    ConfigError
        If it is none.
    """
    import re

    match = re.fullmatch(r"\s*([A-Za-z_][\w.-]*)\s*(>=|<=|==|!=|=|>|<|\bin\b)\s*(.+?)\s*", text)
    if match is None:
        raise ConfigError(f"cannot read the condition {text!r}; expected something like 'band_gap >= 2' or 'dimensionality = 2D'")
    name, sign, told = match.groups()
    try:
        if sign == "in":
            return Rule(value=name, one_of=tuple(_literal(part.strip()) for part in told.split(",")))
        if sign in ("=", "=="):
            return Rule(value=name, equals=_literal(told))
        if sign == "!=":
            return Rule(value=name, differs=_literal(told))
        limit = float(told)
    except ValueError:
        raise ConfigError(f"cannot read the condition {text!r}: {told!r} is no number") from None
    return Rule(value=name, min=limit) if sign in (">", ">=") else Rule(value=name, max=limit)


def _literal(text: str) -> str | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text.strip("'\"")
