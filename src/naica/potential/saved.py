"""Potentials on disk: a card in JSON beside weights in safetensors. No pickle is ever read from a user's file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from naica.data import Level
from naica.errors import InputError, LevelError, NaicaError, RunError
from naica.potential.model import PotentialModel, PotentialParts
from naica.structure import Crystal
from naica.structure.elements import symbol
from naica.training.checkpoint import CARD, WEIGHTS

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from naica.potential.learned import Computed, LearnedPotential

KIND = "potential"
FORMAT = 1
"""Version of the card this naica writes."""
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Functions from a card of format n to one of format n + 1; `read_card` applies them in turn."""
_NEEDED = ("format", "kind", "architecture", "architecture_config", "parts", "members")


@dataclass(frozen=True)
class PotentialCard:
    """What is written beside the weights of a potential.

    Parameters
    ----------
    kind, format : ``potential``, and the version of this layout
    name : of the potential
    architecture, architecture_config, parts : how to build it
    members : how many, a committee if more than one
    elements : symbols seen in training; others are refused
    level : level of theory of the labels, None if unknown; of a potential of several levels the one it speaks by default
    levels : names of all levels it speaks, if several
    speaks : place of the level it speaks by default
    ranges : what training covered: ``atoms``, ``volume_per_atom`` (Å³), ``force`` (largest, eV/Å), ``nearest`` (Å), as [low, high]
    metrics : errors by part; see `naica.potential.measure.errors_of`
    error : what it promises: conformal half-widths ``energy`` (eV/atom) and ``force`` (eV/Å, length of the error) that hold 90 % of
        held-out labels
    data : name, rows of each part, hash, rows left out and why
    training : settings and a record of every member
    baked : how many pieces the tables of each member's functions of distance have, none if it is not baked: see `naica.potential.bake`
    licence, citation, note : free text
    lineage : cards this one came from (name, level), oldest first
    versions : packages it was made with
    """

    name: str
    architecture: str
    architecture_config: Mapping[str, Any]
    parts: Mapping[str, Any]
    members: int
    elements: tuple[str, ...] = ()
    level: Mapping[str, Any] | None = None
    levels: tuple[str, ...] = ()
    speaks: int = 0
    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    baked: tuple[int, ...] = ()
    licence: str = ""
    citation: str = ""
    note: str = ""
    lineage: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    kind: str = KIND
    format: int = FORMAT

    @property
    def level_of_theory(self) -> Level | None:
        """Of the energies it was taught; None if unknown."""
        return Level(**self.level) if self.level else None

    @property
    def speaking(self) -> str:
        """The level it speaks by default, as text."""
        return self.levels[self.speaks] if self.levels else str(self.level_of_theory or "unknown")

    def to_json(self) -> str:
        """Readable JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, default=list) + "\n"


@dataclass(frozen=True, eq=False)
class Potential:
    """A potential with its card: what `fit` and `load` return.

    Parameters
    ----------
    members : one model, or a committee
    card : what it is
    """

    members: tuple[PotentialModel, ...]
    card: PotentialCard

    def learned(self, dtype: torch.dtype = torch.float64) -> LearnedPotential:
        """Ready to compute, in a precision."""
        from naica.potential.learned import potential

        return potential(self, dtype)

    def compute(self, crystals: Crystal | Sequence[Crystal], dtype: torch.dtype = torch.float64) -> list[Computed]:
        """Energy, forces and stress of crystals.

        Raises
        ------
        InputError
            If a crystal has elements that the training set had not.
        """
        items = [crystals] if isinstance(crystals, Crystal) else list(crystals)
        for crystal in items:
            self.check_elements(crystal)
        return self.learned(dtype).compute(items)

    def check_elements(self, crystal: Crystal) -> None:
        """InputError if a crystal has elements that the training set had not."""
        unseen = [s for s in dict.fromkeys(symbol(int(z)) for z in crystal.numbers) if s not in self.card.elements]
        if unseen and self.card.elements:
            raise InputError(
                f"{crystal.formula}: the potential never saw {', '.join(unseen)}; it was trained on {', '.join(self.card.elements)}. "
                "Take a universal potential (chgnet), or train one with frames of these elements"
            )

    def calculator(self, dtype: torch.dtype = torch.float64) -> Calculator:
        """As an ASE calculator."""
        from naica.potential.learned import make

        return make(self, dtype)

    def at_level(self, level: int | str) -> Potential:
        """The same, speaking another of its levels.

        Raises
        ------
        LevelError
            If it does not speak that one.
        """
        from copy import deepcopy
        from dataclasses import replace

        names = self.card.levels or (self.card.speaking,)
        place = names.index(level) if isinstance(level, str) and level in names else level
        if not isinstance(place, int) or not 0 <= place < len(names):
            raise LevelError(f"the potential does not speak {level!r}; it speaks {', '.join(names)}")
        members = tuple(deepcopy(member).at_level(place) for member in self.members)
        return Potential(
            members, replace(self.card, speaks=place, level=asdict(Level(names[place])) if self.card.levels else self.card.level)
        )

    def save(self, folder: str | Path) -> Path:
        """Write weights and card, each in one atomic step, the card last; RunError if that cannot be done."""
        from safetensors.torch import save_file

        folder = Path(folder)
        tensors = {
            f"member{k}.{name}": tensor.detach().cpu().contiguous().clone()
            for k, member in enumerate(self.members)
            for name, tensor in member.state_dict().items()
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, str(folder / f"{WEIGHTS}.tmp"), metadata={"naica": self.card.name})
            os.replace(folder / f"{WEIGHTS}.tmp", folder / WEIGHTS)
            (folder / f"{CARD}.tmp").write_text(self.card.to_json(), encoding="utf-8")
            os.replace(folder / f"{CARD}.tmp", folder / CARD)
        except Exception as error:
            if isinstance(error, OSError) or "I/O error" in str(error):
                raise RunError(f"cannot write the potential to {folder}: {error}; free some space or choose another folder") from error
            raise
        return folder


def is_potential(folder: Path) -> bool:
    """Whether a folder holds a potential (and not a model of a property)."""
    try:
        return bool(json.loads((folder / CARD).read_text(encoding="utf-8")).get("kind") == KIND)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError):
        return False


def folder_of(name: str | Path) -> Path | None:
    """The folder with the card: `name` itself, or ``model`` inside a run folder; None if there is none."""
    return next((folder for folder in (Path(name) / "model", Path(name)) if (folder / CARD).is_file()), None)


def read_potential(name: str | Path) -> Potential:
    """A potential from its folder, or from the run folder around it; ``FOLDER@LEVEL`` lets it speak one of its levels.

    Raises
    ------
    InputError
        If there is none, or its files are damaged, of a newer format or do not fit each other.
    LevelError
        If it does not speak that level.
    """
    folder, level = folder_of(name), None
    if folder is None and "@" in str(name):
        text, _, level = str(name).rpartition("@")
        folder = folder_of(text)
    if folder is None:
        raise InputError(f"no potential {str(name)!r}; expected a folder with {CARD} and {WEIGHTS}")
    if not is_potential(folder):
        raise InputError(f"{folder / CARD} describes a model of a property, not a potential")
    card = read_card(folder / CARD)
    tensors = _tensors(folder / WEIGHTS)
    members = []
    for k in range(card.members):
        prefix = f"member{k}."
        own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        members.append(_member(card, own, folder, k))
    found = Potential(tuple(members), card)
    return found if level is None else found.at_level(level)


def load(name: str | Path) -> Any:
    """The public verb ``load``: a `Potential` from its folder, else whatever `naica.training.load` makes of it."""
    from naica.training.zoo import load as load_property_model

    folder = folder_of(str(name).rpartition("@")[0] or name) or folder_of(name)
    return read_potential(name) if folder is not None and is_potential(folder) else load_property_model(name)


def read_card(path: Path) -> PotentialCard:
    """Read, upgrade and check a card; InputError says what is wrong with it."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no card of a potential: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("format"), int) or raw.get("kind") != KIND:
        raise InputError(f"{path} is no card of a potential")
    if raw["format"] > FORMAT:
        made = raw.get("versions", {}).get("naica", "unknown")
        raise InputError(f"{path} has format {raw['format']} (written by naica {made}); this naica reads up to {FORMAT}: upgrade naica")
    while raw["format"] < FORMAT:
        if raw["format"] not in UPGRADES:
            raise InputError(f"{path} has format {raw['format']}, which no naica ever wrote")
        raw = UPGRADES[raw["format"]](raw)
    missing = [key for key in _NEEDED if key not in raw]
    unknown = sorted(set(raw) - {f.name for f in fields(PotentialCard)})
    if missing or unknown:
        what = f"{', '.join(missing)} missing" if missing else f"unknown entries {', '.join(unknown)}"
        raise InputError(f"{path} is damaged or not from naica: {what}")
    try:
        raw = {"name": "", **raw} | {key: tuple(raw.get(key, ())) for key in ("elements", "levels", "lineage", "baked")}
        return PotentialCard(**raw)
    except TypeError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _member(card: PotentialCard, tensors: dict[str, Tensor], folder: Path, k: int) -> PotentialModel:
    try:
        parts = PotentialParts(**card.parts)
        model = PotentialModel(card.architecture, dict(card.architecture_config), parts)
    except (NaicaError, TypeError) as error:
        raise InputError(f"{folder / CARD}: this naica cannot build the potential: {error}") from error
    wanted = model.state_dict()
    wrong = sorted(set(wanted) ^ set(tensors)) or [n for n in wanted if wanted[n].shape != tensors[n].shape]
    if wrong:
        raise InputError(f"{folder / WEIGHTS} does not fit its card (member {k}: {', '.join(wrong[:3])}); copy both files again")
    bad = next((name for name, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()), None)
    if bad is not None:
        raise InputError(f"{folder / WEIGHTS} holds numbers that are not finite (member {k}, {bad})")
    dtype = next((t.dtype for name, t in tensors.items() if name.startswith("backbone.") and t.is_floating_point()), torch.float32)
    model.to(dtype)
    model.load_state_dict(tensors)
    model.level = card.speaks
    return model.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise InputError(f"no weights {path}; a potential is a folder with {CARD} and {WEIGHTS}")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}); copy it again from where you got it") from error
