"""What counts as stable in a campaign: distance to its own hull, or a label that is such a distance already."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.discover.hull import Hull
from naica.discover.ledger import Entry
from naica.errors import RunError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelJudge:
    """The label is the distance (perovskites after the fact: heat against a pool of reference phases)."""

    threshold: float

    def labels(self, entries: Sequence[Entry]) -> Floats:
        """The label of each entry in eV/atom."""
        return np.array([e.energy / len(e.crystal) for e in entries])

    def distance(self, formulas: Sequence[str], labels: Floats) -> Floats:
        """The labels themselves."""
        return np.asarray(labels, dtype=np.float64)


class HullJudge:
    """Distance to the hull of the entries of a campaign; formation energies refer to its own elemental entries.

    Raises
    ------
    RunError
        If an element of the campaign has no computed reference.
    """

    def __init__(self, entries: Sequence[Entry], elements: Sequence[str], threshold: float) -> None:
        self.threshold = threshold
        self._entries = list(entries)
        self.references: dict[str, float] = {}
        for entry in entries:
            if len(entry.crystal.composition) == 1:
                (name,) = entry.crystal.composition
                self.references[name] = min(self.references.get(name, np.inf), entry.energy / len(entry.crystal))
        missing = [s for s in elements if s not in self.references]
        if missing:
            raise RunError(
                f"no energy for the elemental reference of {', '.join(missing)}: the oracle failed on it (see `naica campaign status`); "
                "change the oracle's options or the [start] section"
            )
        self.hull = Hull([e.crystal.composition for e in entries], self.labels(entries), ids=[e.key for e in entries])

    def grown(self, entries: Sequence[Entry], elements: Sequence[str]) -> HullJudge:
        """A judge that knows further entries too; planes of chemical systems they do not touch are kept."""
        lower = [
            e for e in entries
            if len(e.crystal.composition) == 1 and e.energy / len(e.crystal) < self.references[next(iter(e.crystal.composition))]
        ]  # fmt: skip
        if lower:
            # all formation energies change with the reference
            return HullJudge([*self._entries, *entries], elements, self.threshold)
        more = copy(self)
        more._entries = [*self._entries, *entries]
        if entries:
            more.hull = self.hull.with_entries([e.crystal.composition for e in entries], self.labels(entries), [e.key for e in entries])
        return more

    def labels(self, entries: Sequence[Entry]) -> Floats:
        """Formation energy of each entry in eV/atom."""
        return np.array([self._formation(e) for e in entries])

    def _formation(self, entry: Entry) -> float:
        parts = sum(n * self.references[s] for s, n in entry.crystal.composition.items())
        return (entry.energy - parts) / len(entry.crystal)

    def distance(self, formulas: Sequence[str], labels: Floats) -> Floats:
        """Label minus hull energy in eV/atom."""
        return np.asarray(labels, dtype=np.float64) - self.hull.energy(list(formulas))
