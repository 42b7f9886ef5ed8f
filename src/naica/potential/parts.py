"""Which frames teach, which choose the weights, and which judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.potential.examples import Examples
from naica.potential.frames import Frames
from naica.potential.settings import FitConfig

Rows = NDArray[np.int64]
_ENOUGH_GROUPS = 10


@dataclass(frozen=True, eq=False)
class Cut:
    """Rows of the three parts, and of frames that are replayed from an older set."""

    train: Rows
    validation: Rows
    test: Rows
    replayed: Rows

    @property
    def sizes(self) -> dict[str, int]:
        """Frames of each part that has any."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test, "replayed": self.replayed}
        return {name: len(rows) for name, rows in parts.items() if len(rows)}


def cut(examples: Examples, config: FitConfig, replayed: Rows) -> Cut:
    """Parts of the usable frames.

    A published split (column ``split``) gives the test part; elsewhere `FitConfig.test` of the frames are drawn. Of what is left,
    `FitConfig.validation` choose the weights. Frames of one trajectory (or group) stay on one side, see `FitConfig.keep_together`. With
    several levels of theory the first one, which has the most frames, is not in the validation part: the weights follow the others' errors.

    Raises
    ------
    InputError
        If nothing is left to learn from.
    """
    frames, rows = examples.frames, np.setdiff1d(examples.rows, replayed)
    names = np.array(frames.text("split"))
    published = bool((names[rows] == "test").any())
    owners = _owners(frames, rows, config)
    draw = np.random.default_rng([config.seed, 7])
    test = rows[names[rows] == "test"] if published else _drawn(rows, owners, config.test, draw)
    chooses = rows[names[rows] == "val"]
    left = np.setdiff1d(rows, np.concatenate([test, chooses]))
    if not len(chooses):
        able = left[frames.level[left] > 0] if len(frames.levels) > 1 else left
        chooses = _drawn(able, owners, config.validation, draw)
    # an isolated atom says what its element is worth, and nothing else
    chooses = chooses[frames.counts[chooses] > 1]
    train = np.setdiff1d(left, chooses)
    if not len(train):
        raise InputError(f"no frames left to learn from: {len(rows)} usable, {len(test)} for the test, {len(chooses)} for validation")
    return Cut(train, chooses, test, replayed)


def _owners(frames: Frames, rows: Rows, config: FitConfig) -> NDArray[np.int64] | None:
    """(B) numbers of what stays together, or None."""
    if config.keep_together == "nothing":
        return None
    column = "group" if config.keep_together == "group" else "trajectory"
    texts = frames.text(column)
    if config.keep_together != "auto" and not any(texts):
        raise InputError(f"keep_together = {config.keep_together}, but the frames have no column {column!r}")
    if not any(texts):
        return None
    keys = [text or f"frame {k}" for k, text in enumerate(texts)]
    _, owner = np.unique(keys, return_inverse=True)
    if config.keep_together == "auto" and len(np.unique(owner[rows])) < _ENOUGH_GROUPS:
        return None
    return owner.astype(np.int64)


def _drawn(rows: Rows, owners: NDArray[np.int64] | None, share: float, draw: np.random.Generator) -> Rows:
    """A share of some rows, whole owners at a time."""
    wanted = round(share * len(rows))
    if not wanted:
        return rows[:0]
    if owners is None:
        return np.sort(draw.permutation(rows)[:wanted])
    found: list[Rows] = []
    for owner in draw.permutation(np.unique(owners[rows])):
        if sum(map(len, found)) >= wanted:
            break
        found.append(rows[owners[rows] == owner])
    return np.sort(np.concatenate(found))
