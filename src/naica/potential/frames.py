"""Labelled frames: structures with energies, forces, stresses, magnetic moments and charges, each possibly missing; bad ones kept aside.

Energies in eV, forces in eV/Å, stress in eV/Å³ (positive under tension), moments in μ_B, charges in e.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from naica.data import CrystalTable, Level
from naica.data.clean import Rejection
from naica.errors import InputError, LevelError
from naica.potential.frame_files import QUANTITIES, read_frames

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

LEAST_DISTANCE = 0.4
"""Å; atoms closer than this in a frame are a broken file, not physics to learn (H2 has 0.74)."""
MOST_FORCE = 300.0
"""eV/Å; forces beyond are refused by default."""
_SHAPES: Mapping[str, tuple[int, ...]] = {"energy": (), "forces": (3,), "stress": (3, 3), "magmom": (), "charge": ()}
_OF_ATOMS = ("forces", "magmom", "charge")
UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Frames:
    """B frames with N atoms.

    Parameters
    ----------
    table : the structures, and all further columns
    labels : ``energy`` (B), ``forces`` (N, 3), ``stress`` (B, 3, 3), ``magmom`` (N), ``charge`` (N); NaN where missing
    levels : levels of theory that occur, as text
    level : (B) which of them each frame has
    level_of_theory : the only level, if there is one and it is known
    rejected : rows of the source that are not here, and why
    """

    table: CrystalTable
    labels: Mapping[str, Array]
    levels: tuple[str, ...] = (UNKNOWN,)
    level: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    level_of_theory: Level | None = None
    rejected: tuple[Rejection, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"<Frames: {len(self)} with {', '.join(f'{name} of {n}' for name, n in self.coverage.items() if n)}>"

    @cached_property
    def counts(self) -> Rows:
        """(B) atoms of each frame."""
        return self.table.flat()[0]

    @cached_property
    def starts(self) -> Rows:
        """Where each frame's atoms start, and the end (B + 1)."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    @cached_property
    def volumes(self) -> Array:
        """(B) Å³; infinite for what does not repeat in three directions."""
        _, _, _, cells, pbc = self.table.flat()
        return np.where(pbc.all(axis=1), np.abs(np.linalg.det(cells)), np.inf)

    @property
    def coverage(self) -> dict[str, int]:
        """Frames that have each label."""
        found = {}
        for name, values in self.labels.items():
            there = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            if name in _OF_ATOMS:
                there = np.bincount(self.owner[there], minlength=len(self)) > 0
            found[name] = int(there.sum())
        return found

    @cached_property
    def owner(self) -> Rows:
        """(N) the frame of each atom."""
        return np.repeat(np.arange(len(self)), self.counts)

    @cached_property
    def given(self) -> tuple[Array | None, Array | None]:
        """What a potential is told and does not learn: columns ``total_charge`` (B), e, and ``moments`` (N), μ_B; 0 where a row has none.

        Raises
        ------
        InputError
            If a row has another number of moments than atoms.
        """
        charges = moments = None
        if "total_charge" in self.table.columns:
            charges = np.nan_to_num(np.asarray(self.table.column("total_charge"), dtype=np.float64))
        if "moments" in self.table.columns:
            moments, wrong = _ragged(self.table, "moments", self.counts)
            if wrong:
                row = next(iter(wrong))
                raise InputError(f"row {row} has {wrong[row]} moments for {self.counts[row]} atoms")
            moments = np.nan_to_num(moments)
        return charges, moments

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur."""
        return tuple(int(z) for z in np.unique(self.table.flat()[1]))

    def text(self, name: str) -> list[str]:
        """A column as text, empty where there is nothing."""
        if name not in self.table.columns:
            return [""] * len(self)
        return ["" if value is None else str(value) for value in self.table.arrow[name].to_pylist()]

    def take(self, rows: Sequence[int] | NDArray[Any]) -> Frames:
        """Some of the frames, in the given order."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        atoms = np.concatenate([np.arange(self.starts[r], self.starts[r + 1]) for r in index]) if len(index) else index
        labels = {name: values[atoms if name in _OF_ATOMS else index] for name, values in self.labels.items()}
        return Frames(self.table.take(index), labels, self.levels, self.level[index], self.level_of_theory, self.rejected)

    def part(self, name: str) -> Frames:
        """Frames of a published split: ``train`` or ``test``."""
        return self.take(np.array([part == name for part in self.text("split")], dtype=bool))

    def ordered(self, levels: tuple[str, ...]) -> Frames:
        """The same with the levels counted in another order."""
        place = np.array([levels.index(name) for name in self.levels])
        return Frames(self.table, self.labels, levels, place[self.level], self.level_of_theory, self.rejected)

    def digest(self) -> str:
        """32 hex digits of structures and labels."""
        sha = hashlib.sha256("\n".join(self.table.ids).encode())
        for array in (*self.table.flat(), *self.labels.values(), self.level):
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()[:32]

    def report(self) -> str:
        """One line: how many frames, what is missing on some, what was left out and why."""
        missing = [f"{len(self) - n} without {name}" for name, n in self.coverage.items() if 0 < n < len(self)]
        reasons = Counter(r.reason.split(" (")[0] for r in self.rejected)
        left = [f"{n} left out: {reason}" for reason, n in reasons.items()]
        return "; ".join([f"{len(self)} frames", *missing, *left])


def frames(
    source: str | Path | Sequence[str | Path] | CrystalTable,
    level: Level | None = None,
    fidelity: bool = False,
    names: Mapping[str, str] | None = None,
    most_force: float = MOST_FORCE,
) -> Frames:
    """Labelled frames of files, registered sets or a table.

    Parameters
    ----------
    source : see `naica.potential.frame_files`, or a table with columns ``energy``, ``forces`` … in naica's units
    level : level of theory where the source does not say
    fidelity : allow frames of several levels
    names : column by what it holds, where names are unusual
    most_force : eV/Å; frames with a larger force on an atom are left out

    Raises
    ------
    InputError
        If nothing can be read or used.
    LevelError
        If frames of several levels meet without `fidelity`.
    """
    from naica.potential.frame_files import labelled

    table = labelled(source, level, names or {}) if isinstance(source, CrystalTable) else read_frames(source, level, fidelity, names)
    levels, which, only = _levels(table, fidelity)
    labels, odd = _labels(table)
    whole = Frames(table, labels, levels, which, only)
    bad = odd | _bad(whole, most_force)
    if not bad:
        return whole
    kept = whole.take(np.setdiff1d(np.arange(len(table)), list(bad)))
    ids = table.ids
    rejected = tuple(Rejection(row, ids[row], bad[row]) for row in sorted(bad))
    if not len(kept):
        raise InputError(f"no frame of {len(table)} can be used; first reason: {rejected[0].reason}")
    return Frames(kept.table, kept.labels, levels, kept.level, only, rejected)


def _levels(table: CrystalTable, fidelity: bool) -> tuple[tuple[str, ...], Rows, Level | None]:
    known = {str(label.level): label.level for name, label in table.labels.items() if name in QUANTITIES and label.level is not None}
    if "fidelity" in table.columns:
        texts = [str(value or UNKNOWN) for value in table.arrow["fidelity"].to_pylist()]
        levels = tuple(dict.fromkeys(texts))
        if len(levels) > 1 and not fidelity:
            raise LevelError(
                f"frames of {len(levels)} levels of theory ({', '.join(levels)}); their energies do not compare. "
                "Keep one, or declare it: fidelity=True (--fidelity) learns them side by side"
            )
        return levels, np.array([levels.index(text) for text in texts], dtype=np.int64), None
    if len(known) > 1:
        raise LevelError(f"labels of one table are of several levels of theory: {', '.join(known)}; energies and forces must be of one")
    level = next(iter(known.values()), None)
    return (str(level or UNKNOWN),), np.zeros(len(table), np.int64), level


def _labels(table: CrystalTable) -> tuple[dict[str, Array], dict[int, str]]:
    """All labels as flat arrays, and the rows whose lists have the wrong length."""
    counts = table.flat()[0]
    found: dict[str, Array] = {}
    odd: dict[int, str] = {}
    for name in (n for n in QUANTITIES if n in table.labels):
        shape = _SHAPES[name]
        width = int(np.prod(shape, dtype=np.int64))
        of_atoms = name in _OF_ATOMS
        wanted = counts * width if of_atoms else np.full(len(table), width)
        if name == "energy":
            found[name] = np.asarray(table.column(name), dtype=np.float64)
            continue
        values, wrong = _ragged(table, name, wanted)
        odd |= {row: f"{name} has {n} numbers for {counts[row]} atoms" for row, n in wrong.items()}
        found[name] = values.reshape(-1, *shape)
        if name == "stress":
            # an open direction has no stress, whatever the file says
            found[name][~table.flat()[4].all(axis=1)] = np.nan
    return found, odd


def _ragged(table: CrystalTable, name: str, wanted: Rows) -> tuple[Array, dict[int, int]]:
    """A column of lists as one flat array with `wanted` numbers per row, NaN where a row has none."""
    column = table.arrow[name].combine_chunks() if table.arrow[name].num_chunks != 1 else table.arrow[name].chunk(0)
    column = column.cast(pa.large_list(pa.float64()))
    lengths = np.nan_to_num(np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), dtype=np.float64)).astype(np.int64)
    flat = np.array(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float64)
    if np.array_equal(lengths, wanted):
        return flat, {}
    out = np.full(int(wanted.sum()), np.nan)
    to, at = np.cumsum(wanted) - wanted, np.cumsum(lengths) - lengths
    wrong = {}
    for row in np.flatnonzero(lengths):
        if lengths[row] != wanted[row]:
            wrong[int(row)] = int(lengths[row])
            continue
        out[to[row] : to[row] + wanted[row]] = flat[at[row] : at[row] + wanted[row]]
    return out, wrong


def _bad(frames: Frames, most_force: float) -> dict[int, str]:
    """Rows that cannot be learned from, and why. Missing labels are no reason, as long as there is an energy or a force."""
    found: dict[int, str] = {}
    there = np.zeros(len(frames), dtype=bool)
    for name, values in frames.labels.items():
        rows = frames.owner if name in _OF_ATOMS else np.arange(len(frames))
        flat = values.reshape(len(values), -1)
        infinite, known = np.isinf(flat).any(axis=1), np.isfinite(flat).all(axis=1)
        found |= {int(row): f"{name} is infinite" for row in np.unique(rows[infinite])}
        if name in _OF_ATOMS:
            share = np.bincount(frames.owner[known], minlength=len(frames))
            partly = np.flatnonzero((share > 0) & (share < frames.counts))
            found |= {int(row): f"{name} holds NaN on some atoms" for row in partly if int(row) not in found}
            known_rows = share == frames.counts
        else:
            partly = np.flatnonzero(np.isfinite(flat).any(axis=1) & ~known)
            found |= {int(row): f"{name} holds NaN" for row in partly if int(row) not in found}
            known_rows = known
        if name in ("energy", "forces"):
            there |= known_rows
    if "forces" in frames.labels:
        with np.errstate(invalid="ignore"):
            largest = np.sqrt((frames.labels["forces"] ** 2).sum(axis=1))
        for atom in np.flatnonzero(largest > most_force):
            found.setdefault(int(frames.owner[atom]), f"a force larger than {most_force:g} eV/Å ({largest[atom]:.4g})")
    found |= {int(row): "neither an energy nor forces" for row in np.flatnonzero(~there) if int(row) not in found}
    return found
