"""Going on from a potential: which weights stay, what the elements are worth at the new level, and old frames beside new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import ConfigError, InputError
from naica.graphs.spec import GraphSpec
from naica.potential.examples import Examples
from naica.potential.frames import UNKNOWN, Array, Frames
from naica.potential.measure import tell
from naica.potential.model import PotentialModel
from naica.potential.parts import Cut
from naica.potential.references import amounts, least_squares
from naica.potential.saved import Potential
from naica.potential.settings import FitConfig
from naica.structure.elements import symbol
from naica.training import transfer

Rows = NDArray[np.int64]
_OF_ATOMS = ("forces", "magmom", "charge")


# --- frames ------------------------------------------------------------------------------------------------------------------------------
def joined(new: Frames, old: Frames | None) -> tuple[Frames, Rows]:
    """New frames and behind them the replayed ones; and the rows of those."""
    if old is None:
        return new, np.zeros(0, np.int64)
    levels = tuple(dict.fromkeys((*old.levels, *new.levels)))
    if UNKNOWN in levels and len(levels) > 1:
        raise InputError(
            f"frames to replay and new ones are of levels {', '.join(levels)}: name the unknown one (--level, or @LEVEL behind the source)"
        )
    labels = {}
    for name in dict.fromkeys((*new.labels, *old.labels)):
        labels[name] = np.concatenate([_labels(part, name, old.labels.get(name, new.labels.get(name))) for part in (new, old)])
    bare = [CrystalTable(part.table.arrow.select([*_columns(part)])) for part in (new, old)]
    table = CrystalTable.concat(bare)
    level = np.concatenate([np.array([levels.index(n) for n in part.levels])[part.level] for part in (new, old)])
    only = new.level_of_theory if len(levels) == 1 else None
    return Frames(table, labels, levels, level, only, new.rejected), np.arange(len(new), len(new) + len(old))


def _columns(part: Frames) -> list[str]:
    return ["id", "numbers", "positions", "cell", "pbc", *(n for n in ("split", "group", "trajectory") if n in part.table.columns)]


def _labels(part: Frames, name: str, like: Any) -> Array:
    if name in part.labels:
        return part.labels[name]
    size = int(part.counts.sum()) if name in _OF_ATOMS else len(part)
    return np.full((size, *like.shape[1:]), np.nan)


def order_of_levels(frames: Frames, start: Potential | None) -> tuple[str, ...]:
    """The first level is the one a potential to go on from speaks, else the one with most frames."""
    many = sorted(frames.levels, key=lambda name: -int((frames.level == frames.levels.index(name)).sum()))
    if start is None:
        return tuple(many)
    known = [name for name in (start.card.levels or (start.card.speaking,)) if name in frames.levels]
    return tuple(dict.fromkeys((*known, *many)))


def near(frames: Frames) -> GraphSpec:
    """A graph just large enough to find atoms on top of each other."""
    return GraphSpec("radius", 1.0)


def summed(frames: Frames, energies: Mapping[int, float]) -> Array:
    """(B) Sum of the elements' energies over the atoms of each frame, eV."""
    elements = frames.elements
    table = amounts(frames, np.arange(len(frames)), elements)
    return table @ np.array([energies.get(z, 0.0) for z in elements])


# --- settings and weights --------------------------------------------------------------------------------------------------------------
def taken_over(config: FitConfig, start: Potential) -> FitConfig:
    """Settings with the network of the potential to go on from."""
    from naica.potential.model import PotentialParts

    return config.replace(
        architecture=start.card.architecture,
        architecture_config=dict(start.card.architecture_config),
        parts=PotentialParts(**start.card.parts),
    )


def check_elements(start: Potential, frames: Frames) -> None:
    """InputError if frames have elements that the network of the potential has no place for."""
    known = start.members[0].architecture_config.get("elements")
    if not known:
        return
    names = {symbol(k) if isinstance(k, int) else k for k in known}
    missing = [symbol(z) for z in frames.elements if symbol(z) not in names]
    if missing:
        raise InputError(
            f"the network of {start.card.name} was built for {', '.join(sorted(names))} and has no place for {', '.join(missing)}; "
            "train a new one, or go on from one that knows them"
        )


def continued(start: Potential, member: int, examples: Examples, chosen: Cut, config: FitConfig) -> PotentialModel:
    """A member's network for the new frames: old weights, and the elements' energies fitted to what the old forces leave over.

    At the level the potential already speaks its references stay, except those of elements it never saw.
    """
    from naica.potential.loop import DTYPES

    old = start.members[member % len(start.members)]
    torch.manual_seed(config.seed + member)
    model = PotentialModel(config.architecture, config.architecture_config, config.parts)
    weights = old.state_dict()
    missing, unknown = model.load_state_dict(weights, strict=False)
    if unknown or any(not name.startswith(("differences.", "sites.", "further_references")) for name in missing):
        raise ConfigError(f"the weights of {start.card.name} do not fit the network asked for: {', '.join([*missing, *unknown][:3])}")
    frames = examples.frames
    known = start.card.levels or (start.card.speaking,)
    for place, name in enumerate(frames.levels):
        rows = chosen.train[frames.level[chosen.train] == place]
        same = name in known and name != UNKNOWN
        if not len(rows) or "energy" not in frames.labels:
            continue
        if place:
            model.set_references({z: float(model.references[z]) for z in frames.elements}, place)
        left = np.full(len(frames), np.nan)
        told = tell(model.compute, examples.of(rows), config.max_edges, DTYPES["32"])
        left[rows] = told.wanted["energy"] - told.said["energy"]
        shift = least_squares(frames, rows, left)
        seen = {symbol(z) for z in frames.elements} & set(start.card.elements)
        table = model.references_of(place)
        model.set_references({z: float(table[z]) + e for z, e in shift.items() if not (same and symbol(z) in seen)}, place)
    return model


def hold(model: PotentialModel, freeze: str | int) -> PotentialModel:
    """Mark what is not to be trained; see `naica.training.transfer.hold`."""
    return cast(PotentialModel, transfer.hold(cast(Any, model), transfer.checked_freeze(freeze)))


def shifted(potential: Potential, changes: Mapping[int, float]) -> Potential:
    """The same potential with the elements' energies moved by some eV (by atomic number)."""
    for member in potential.members:
        table = member.references_of(member.level)
        member.set_references({z: float(table[z]) + e for z, e in changes.items()}, member.level)
    return Potential(potential.members, replace(potential.card))
