"""What a number means: its quantity, unit and level of theory. Labels of different levels never mix silently."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from naica.errors import LevelError
from naica.fields import field


@dataclass(frozen=True)
class Level:
    """A level of theory. Two levels are the same only if all parts are.

    `code` and `version` say who computed; they are recorded, but two versions of one code at one method count as one level.
    """

    functional: str
    hubbard_u: str = ""
    pseudo: str = ""
    corrections: str = ""
    code: str = ""
    version: str = ""

    @property
    def method(self) -> tuple[str, str, str, str]:
        """The parts that decide whether two labels may stand in one column."""
        return (self.functional, self.hubbard_u, self.pseudo, self.corrections)

    def same(self, other: Level) -> bool:
        """True if labels of both may be mixed."""
        return self.method == other.method

    def __str__(self) -> str:
        text = self.functional + (f"+U({self.hubbard_u})" if self.hubbard_u else "")
        extra = ", ".join(p for p in (self.pseudo, self.corrections, f"{self.code} {self.version}".strip()) if p)
        return f"{text} [{extra}]" if extra else text


@dataclass(frozen=True)
class Label:
    """What one column of a table holds: a quantity of `fields.FIELDS`, its unit and its level of theory."""

    quantity: str
    unit: str
    level: Level | None = None

    def __post_init__(self) -> None:
        known = field(self.quantity)
        if not self.unit and known.unit:
            raise LevelError(
                f"label {self.quantity!r} has no unit; naica keeps it in {known.unit}: pass unit={known.unit!r} (--unit {known.unit!r}) "
                "or convert the column first"
            )
        if self.unit != known.unit:
            kept = f"naica keeps it in {known.unit!r}; convert the column first" if known.unit else "which has none; leave it out"
            raise LevelError(f"label {self.quantity!r} comes in {self.unit!r}, {kept}")

    @classmethod
    def of(cls, quantity: str, level: Level | None = None) -> Label:
        """The label of a quantity in naica's own unit."""
        return cls(quantity, field(quantity).unit, level)

    def to_json(self) -> str:
        """One line of JSON for Arrow metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Label:
        """Back from `to_json`."""
        raw = json.loads(text)
        return cls(raw["quantity"], raw["unit"], Level(**raw["level"]) if raw.get("level") else None)


def joined(name: str, first: Label, second: Label) -> Label:
    """The label of a column made of two.

    Raises
    ------
    LevelError
        If quantity or level differ; the message names both.
    """
    if first.quantity != second.quantity:
        raise LevelError(f"column {name!r} is {first.quantity} in one table and {second.quantity} in the other; rename one of them")
    if (first.level is None) != (second.level is None) or (first.level and second.level and not first.level.same(second.level)):
        raise LevelError(
            f"column {name!r} has level of theory {first.level or 'unknown'} in one table and {second.level or 'unknown'} in the other; "
            "values of different levels do not compare. Keep them apart, or declare the task multi-fidelity (fidelity=True)"
        )
    if first.level and second.level and (first.level.code, first.level.version) != (second.level.code, second.level.version):
        return replace(first, level=replace(first.level, code="several", version=""))
    return first
