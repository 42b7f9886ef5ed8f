"""Is a structure new? Compared with what is known at three depths: formula, prototype, geometry.

A candidate is looked up by reduced formula, then by prototype label (`structure.symmetry.prototype_label`), and only what shares both
meets the matcher, which is slow and not transitive; its distances are kept, not only its verdicts. ``depth="formula"`` lets the matcher
see every known structure of the formula instead, because relaxation noise can put one phase into two space groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.match import LABEL_TOLERANCE, same_structure
from naica.structure.symmetry import prototype_label

Depth = Literal["label", "formula"]
Verdict = Literal["new formula", "new prototype", "new structure", "known"]
NO_LABEL = ""


@dataclass(frozen=True)
class Novelty:
    """What is new about a structure.

    Attributes
    ----------
    verdict : "new formula" (nothing of this composition is known), "new prototype" (nothing of this composition has this symmetry label),
        "new structure" (something has, but the geometry does not match) or "known"
    formula, label : of the structure; the label is empty where no symmetry is found (molecules, overlapping atoms)
    match : id of the nearest known structure that matches, or None
    distance : rms distance to it in units of (V/N)^(1/3); 0 for identical content
    compared : how many known structures the matcher saw
    """

    verdict: Verdict
    formula: str
    label: str
    match: str | None = None
    distance: float | None = None
    compared: int = 0

    @property
    def is_new(self) -> bool:
        """True unless a known structure matches."""
        return self.verdict != "known"


def label_of(crystal: Crystal) -> str:
    """The prototype label at the tolerance used for comparing, empty where there is none."""
    try:
        return prototype_label(crystal, LABEL_TOLERANCE)
    except InputError:
        return NO_LABEL


class Known:
    """The structures something is compared with, in buckets by formula, then label. Grows with `add`; the order of adding does not matter
    for verdicts, and of several matches the nearest is named (ties: the smaller id).
    """

    def __init__(self, crystals: Mapping[str, Crystal] | Iterable[Crystal] = ()) -> None:
        self._buckets: dict[str, dict[str, list[tuple[str, Crystal]]]] = defaultdict(lambda: defaultdict(list))
        self._ids: set[str] = set()
        items = crystals.items() if isinstance(crystals, Mapping) else ((c.hash, c) for c in crystals)
        for id_, crystal in items:
            self.add(id_, crystal)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def formulas(self) -> frozenset[str]:
        """All reduced formulas known, as the generators take them."""
        return frozenset(self._buckets)

    @property
    def labels(self) -> frozenset[str]:
        """What is known as "formula|label": enough to refuse a decorated prototype without the matcher."""
        return frozenset(f"{formula}|{label}" for formula, labels in self._buckets.items() for label in labels)

    def add(self, id_: str, crystal: Crystal) -> None:
        """Know one more structure. The same structure under the same id again changes nothing.

        Raises
        ------
        InputError
            If the id already stands for another structure.
        """
        bucket = self._buckets[crystal.formula][label_of(crystal)]
        if id_ in self._ids:
            if any(known == id_ and other == crystal for known, other in bucket):
                return
            raise InputError(f"id {id_!r} already stands for another structure; ids of known structures must be unique")
        self._ids.add(id_)
        bucket.append((id_, crystal))

    def novelty(self, crystal: Crystal, depth: Depth = "label") -> Novelty:
        """What is new about `crystal`.

        Raises
        ------
        InputError
            If `depth` is neither "label" nor "formula".
        """
        if depth not in ("label", "formula"):
            raise InputError(f"unknown depth {depth!r}; expected 'label' or 'formula'")
        formula, label = crystal.formula, label_of(crystal)
        of_formula = self._buckets.get(formula)
        if not of_formula:
            return Novelty("new formula", formula, label)
        same_label = of_formula.get(label, [])
        candidates = same_label if depth == "label" else [item for bucket in of_formula.values() for item in bucket]
        found = sorted((d, id_) for id_, other in candidates if (d := same_structure(crystal, other)) is not None)
        if found:
            return Novelty("known", formula, label, found[0][1], found[0][0], len(candidates))
        return Novelty("new structure" if same_label else "new prototype", formula, label, compared=len(candidates))


def novelties(crystals: Sequence[Crystal], known: Known, depth: Depth = "label") -> Iterator[Novelty]:
    """What is new about each of many structures, each compared with `known` and with those before it (ids: their content hashes).

    `known` grows by those that are new.
    """
    for crystal in crystals:
        found = known.novelty(crystal, depth)
        if found.is_new:
            known.add(crystal.hash, crystal)
        yield found
