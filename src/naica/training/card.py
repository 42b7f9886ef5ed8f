"""The card of a model: what it is, what it learned from, how good it is. One JSON file beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from naica.data import Level
from naica.errors import InputError
from naica.fields import FIELDS

FORMAT = 1
"""Version of the card and weights this naica writes."""

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Functions from a card of format n to one of format n + 1; `read_card` applies them in turn."""

_NEEDED = ("format", "architecture", "architecture_config", "head", "target", "members")


@dataclass(frozen=True)
class Calibration:
    """From the spread of an ensemble to an error bar of one standard deviation: σ² = (factor · IQR / 1.349)² + floor².

    IQR is the inter-quartile range of the members; 1.349 of them make a Gaussian's standard deviation. `n` labels were used.
    """

    factor: float = 1.0
    floor: float = 0.0
    n: int = 0


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
        0.1 % and 99.9 %), as [low, high]
    calibration : of the error bars
    metrics : by part
    data : name, rows of each part, hash, rows left out and why
    fields : what a batch must hold
    training : settings, and a record of every member
    licence, citation, note : free text
    lineage : cards this one came from (name and level), oldest first
    versions : packages it was made with
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
    format: int = FORMAT

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
        if raw["target"]["quantity"] not in FIELDS:
            raise InputError(f"{where} predicts {raw['target']['quantity']!r}, a quantity this naica does not know; upgrade naica")
        raw = {**raw, "calibration": Calibration(**raw.get("calibration", {})), "name": raw.get("name", "")}
        raw["elements"], raw["fields"], raw["lineage"] = (tuple(raw.get(key, ())) for key in ("elements", "fields", "lineage"))
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
