"""Which structures of a set are trained on, held out, or kept for another purpose: by name, so that a set may grow without moving anyone.

The same split serves training, evaluation and benchmarks; a model's card keeps it, with the names of its members.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from naica.errors import ConfigError, InputError

PARTS = ("train", "test", "larger")


@dataclass(frozen=True)
class Split:
    """Names of the structures of each part, and the recipe they were drawn by.

    Parameters
    ----------
    train, test : names
    larger : names that a pattern sets apart, for example cells too large to train on
    recipe : ``share`` of the test part, ``seed``, pattern ``larger``, and ``by`` what is held out together (``name`` or ``formula``)
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    larger: tuple[str, ...]
    recipe: Mapping[str, Any]

    def names(self, part: str) -> tuple[str, ...]:
        """Names of a part (ConfigError if there is none of this name)."""
        if part not in PARTS:
            raise ConfigError(f"no part {part!r}; expected all, {', '.join(PARTS)}")
        found: tuple[str, ...] = getattr(self, part)
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else dict(v) for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Split:
        """The way back."""
        return cls(tuple(told["train"]), tuple(told["test"]), tuple(told["larger"]), dict(told["recipe"]))


def split(
    names: Sequence[str],
    share: float = 0.2,
    seed: int = 0,
    larger: str = "",
    formulas: Sequence[str] | None = None,
) -> Split:
    """Draw a split.

    Parameters
    ----------
    names : of all structures, each once
    share : of the structures (or formulas) that are held out
    larger : a pattern such as ``*-3x3-*``; structures whose names match are in neither part
    formulas : of all structures; if given, all structures of one formula are on the same side

    Raises
    ------
    InputError
        If two structures have one name, or nothing is left to train on.
    """
    if len(set(names)) < len(names):
        twice = next(n for n in names if list(names).count(n) > 1)
        raise InputError(f"two structures are called {twice!r}; expected names that tell them apart")
    apart = tuple(n for n in names if larger and fnmatch(n, larger))
    rest = [n for n in names if n not in set(apart)]
    group = dict(zip(names, formulas or names, strict=True))
    groups = sorted({group[n] for n in rest})
    order = np.random.default_rng(seed + 1234).permutation(len(groups))
    held = {groups[k] for k in order[: round(share * len(groups))]}
    train, test = (tuple(n for n in rest if (group[n] in held) is side) for side in (False, True))
    if not train:
        raise InputError(f"nothing is left to train on: {len(apart)} of {len(names)} structures are set apart and {len(test)} held out")
    recipe = {"share": share, "seed": seed, "larger": larger, "by": "name" if formulas is None else "formula"}
    return Split(train, test, apart, recipe)


def rows(names: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """Rows of a set (whose structures have `names`) by name, in the order wanted.

    Raises
    ------
    InputError
        If the set has not all of them: it is not the one that was split.
    """
    place = {name: k for k, name in enumerate(names)}
    if missing := [n for n in wanted if n not in place]:
        raise InputError(
            f"{where} has no {missing[0]!r} ({len(missing)} missing of {len(wanted)}); is it the set the model was trained on?"
        )
    return [place[n] for n in wanted]


def agreed(drawn: Split, folder: Path) -> Split:
    """The split a run in `folder` began with, or this one, kept there: a set may have grown since.

    Raises
    ------
    ConfigError
        If the run was split by another recipe.
    """
    path = folder / "split.json"
    if path.exists():
        own = Split.from_dict(json.loads(path.read_text()))
        if own.recipe != drawn.recipe:
            raise ConfigError(f"{folder} was split by {own.recipe}, asked for {drawn.recipe}; choose another folder, or delete it")
        return own
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(drawn.to_dict()))
    os.replace(temporary, path)
    return drawn
