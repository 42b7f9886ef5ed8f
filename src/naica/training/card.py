"""The card of a model: what it is, what it learned from, how good it is. One JSON file beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from naica.data import Level
from naica.errors import InputError
from naica.fields import FIELDS

FORMAT = 3
"""Version of the card and weights this naica writes."""


def _with_tasks(card: dict[str, Any]) -> dict[str, Any]:
    """From format 1, when a model had one task, to 2."""
    return {**card, "tasks": [], "format": 2}


def _without_scores(card: dict[str, Any]) -> dict[str, Any]:
    """From format 2, when nothing was kept to make intervals from, to 3: such a model gives none."""
    return {**card, "format": 3}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _with_tasks, 2: _without_scores}
"""Functions from a card of format n to one of format n + 1; `read_card` applies them in turn."""

_NEEDED = ("format", "architecture", "architecture_config", "head", "target", "members")


@dataclass(frozen=True)
class Calibration:
    """From the spread of an ensemble to an error bar of one standard deviation: σ² = (factor · IQR / 1.349)² + floor².

    IQR is the inter-quartile range of the members; 1.349 of them make a Gaussian's standard deviation. `n` labels were used.
    `scores` are errors of these labels in error bars, |label − prediction| / σ, from the least to the largest, those whose ranks
    `naica.training.calibration.kept_ranks` names; empty if they are not known. Intervals are made from them.
    """

    factor: float = 1.0
    floor: float = 0.0
    n: int = 0
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", tuple(self.scores))  # JSON gives a list


@dataclass(frozen=True)
class Card:
    """What is written beside the weights.

    Parameters
    ----------
    format : version of this layout
    name : of the model
    architecture, architecture_config, head : how to build it
    target : quantity, kind, mean, std, level of theory (`Target.to_dict`)
    members : how many
    elements : symbols seen in training; empty if unknown
    ranges : what training covered: ``label`` (0.1 % to 99.9 % quantiles, unit of the quantity), ``atoms``, ``volume_per_atom`` (Å³;
        0.1 % and 99.9 %), ``periodic`` (1 for crystals, 0 for what is not periodic in three directions), as [low, high]
    calibration : of the error bars
    metrics : by part
    data : name, rows of each part, hash, rows left out and why
    fields : what a batch must hold
    training : settings, and a record of every member
    licence, citation, note : free text
    lineage : cards this one came from (name and level), oldest first
    versions : packages it was made with
    tasks : of a model with several tasks, for each of them ``target``, ``calibration`` and ``label`` (its entry of `ranges`); `target`
        and `calibration` are then those of the first, and `metrics` of each part has an entry ``tasks`` by name. Empty for one task
    """

    name: str
    architecture: str
    architecture_config: Mapping[str, Any]
    head: Mapping[str, Any]
    target: Mapping[str, Any]
    members: int
    elements: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    note: str = ""
    lineage: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[Mapping[str, Any], ...] = ()
    format: int = FORMAT

    def of_task(self, place: int) -> Card:
        """The card of one task of the model alone, as if it were the only one."""
        if not self.tasks:
            return self
        own = self.tasks[place]
        name = own["target"].get("name") or own["target"]["quantity"]
        ranges = {key: value for key, value in self.ranges.items() if key != "label"}
        return replace(
            self,
            target=own["target"],
            calibration=Calibration(**own["calibration"]),
            ranges=ranges | ({"label": tuple(own["label"])} if own.get("label") else {}),
            metrics={part: found["tasks"][name] for part, found in self.metrics.items() if name in found.get("tasks", {})},
            tasks=(),
        )

    @property
    def targets(self) -> tuple[Mapping[str, Any], ...]:
        """What is predicted, task by task (`Target.to_dict`)."""
        return tuple(own["target"] for own in self.tasks) or (self.target,)

    @property
    def level(self) -> Level | None:
        """Level of theory of the labels, None if unknown."""
        raw = self.target.get("level")
        return Level(**raw) if raw else None

    @property
    def quantity(self) -> str:
        """What is predicted."""
        return str(self.target["quantity"])

    def to_json(self) -> str:
        """Readable JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, default=list) + "\n"


def read_card(path: Path) -> Card:
    """Read, upgrade and check a card.

    Raises
    ------
    InputError
        If it is not there, no JSON, of a newer format, or lacks something.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no model card {path}; a model is a folder with card.json and weights.safetensors") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no model card: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("format"), int):
        raise InputError(f"{path} is no model card: it has no format version")
    return parse_card(raw, str(path))


def parse_card(raw: dict[str, Any], where: str) -> Card:
    """A card from plain data of any format up to `FORMAT`; InputError says what is wrong with it."""
    if raw["format"] > FORMAT:
        made = raw.get("versions", {}).get("naica", "unknown")
        raise InputError(
            f"{where} has card format {raw['format']} (written by naica {made}); this naica reads up to {FORMAT}: upgrade naica"
        )
    while raw["format"] < FORMAT:
        if raw["format"] not in UPGRADES:
            raise InputError(f"{where} has card format {raw['format']}, which no naica ever wrote")
        raw = UPGRADES[raw["format"]](raw)
    missing = [key for key in _NEEDED if key not in raw]
    if missing:
        raise InputError(f"{where} is incomplete: {', '.join(missing)} missing")
    known = {f.name for f in fields(Card)}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise InputError(f"{where} has unknown entries {', '.join(unknown)}; the file is damaged or not from naica")
    try:
        for target in (raw["target"], *(task["target"] for task in raw.get("tasks", ()))):
            if target["quantity"] not in FIELDS:
                raise InputError(f"{where} predicts {target['quantity']!r}, a quantity this naica does not know; upgrade naica")
        raw = {**raw, "calibration": Calibration(**raw.get("calibration", {})), "name": raw.get("name", "")}
        raw |= {key: tuple(raw.get(key, ())) for key in ("elements", "fields", "lineage", "tasks")}
        return Card(**raw)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{where} is damaged: {error!r}") from error


def versions() -> dict[str, str]:
    """Versions of the packages that shape a model."""
    found = {}
    for package in ("naica", "torch", "lightning", "numpy", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
