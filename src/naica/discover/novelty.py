"""Whether a structure is new: compared with what is known at three depths (formula, prototype, geometry), and tested for disorder.

A candidate is looked up by reduced formula, then by prototype label (`structure.symmetry.prototype_label`), and only what shares both
meets the matcher, which is slow and not transitive; its distances are kept, not only its verdicts, and near misses too, so that a verdict
that hangs on the tolerance is seen to. ``depth="formula"`` lets the matcher see every known structure of the formula instead, because
relaxation noise can put one phase into two space groups. What a computed structure cannot show is disorder: `disorder.sharings` tests for
it.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from naica.discover.disorder import Sharing, sharings
from naica.errors import InputError
from naica.structure.composition import parse_formula
from naica.structure.crystal import Crystal
from naica.structure.match import LABEL_TOLERANCE, MATCH, smaller_cell, structure_distance
from naica.structure.symmetry import prototype_label

if TYPE_CHECKING:
    from naica.data import CrystalTable
    from naica.discover.ledger import Ledger

Depth = Literal["label", "formula"]
Verdict = Literal["new formula", "new prototype", "new structure", "formula reported", "known"]
NO_LABEL = ""
_SHOWN = 5
# a verdict holds if it stays the same at half and at one and a half times the matcher's tolerance
_TIGHT, _LOOSE = 0.5 * MATCH, 1.5 * MATCH
_SAME_COMPOSITION = 2e-3


@dataclass(frozen=True)
class Near:
    """A known structure the matcher saw: rms and largest displacement in units of (V/N)^(1/3); it matches up to 0.3 of the largest."""

    id: str
    rms: float
    largest: float

    @property
    def matches(self) -> bool:
        """Whether the matcher calls it the same structure."""
        return self.largest <= MATCH


@dataclass(frozen=True)
class Novelty:
    """What is new about a structure, and why that is said.

    Attributes
    ----------
    verdict : "new formula" (nothing of this composition is known), "new prototype" (nothing of this composition has this symmetry label),
        "new structure" (something has, but the geometry does not match), "formula reported" (the composition is on a list that gives no
        structure) or "known"
    formula, label : of the structure; the label is empty where no symmetry is found (molecules, overlapping atoms)
    match : id of the nearest known structure that matches, or None
    distance : rms distance to it in units of (V/N)^(1/3); 0 for identical content
    compared : how many known structures the matcher saw
    near : the nearest of them, matching or not, up to 0.5
    reported : ids of entries that give the composition alone
    disorder : pairs of elements that may share a sublattice, the likeliest first; None if not tested
    motif : tolerance (Å) of the smaller cell it was compared by, where it repeats itself but for small displacements; None if it was not
    """

    verdict: Verdict
    formula: str
    label: str
    match: str | None = None
    distance: float | None = None
    compared: int = 0
    near: tuple[Near, ...] = ()
    reported: tuple[str, ...] = ()
    disorder: tuple[Sharing, ...] | None = None
    motif: float | None = None

    @property
    def is_new(self) -> bool:
        """True unless a known structure matches or the composition is reported."""
        return self.verdict not in ("known", "formula reported")

    @property
    def robust(self) -> bool:
        """Whether a matcher half or one and a half times as tolerant would say the same."""
        if not self.near:
            return True
        nearest = min(n.largest for n in self.near)
        return nearest <= _TIGHT if self.verdict == "known" else nearest > _LOOSE

    @property
    def likely_disordered(self) -> bool:
        """Whether it is more likely one ordering of a disordered alloy than a compound of its own."""
        return any(s.verdict == "likely" for s in self.disorder or ())

    @property
    def claim(self) -> str:
        """What may be said of it: the verdict, or that it is an ordering of a likely alloy."""
        return "ordering of a likely disordered alloy" if self.is_new and self.likely_disordered else self.verdict

    @property
    def evidence(self) -> tuple[str, ...]:
        """One sentence for each piece of evidence."""
        said = []
        if self.match is not None:
            said.append(f"matches {self.match} (rms {self.distance:.3f})")
        elif self.near:
            said.append(f"nearest known {self.near[0].id}: largest displacement {self.near[0].largest:.2f}, a match ends at {MATCH:g}")
        elif self.compared:
            said.append(f"none of {self.compared} known structures is within 0.5")
        if self.motif is not None:
            said.append(f"compared by the smaller cell it repeats to within {self.motif:g} Å")
        if self.reported:
            said.append(f"composition reported: {', '.join(self.reported[:_SHOWN])}")
        if not self.robust:
            said.append("the verdict hangs on the matcher's tolerance")
        return (*said, *(str(s) for s in self.disorder or ()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with what follows from it."""
        return {
            **asdict(self), "is_new": self.is_new, "robust": self.robust, "likely_disordered": self.likely_disordered, "claim": self.claim,
            "evidence": list(self.evidence),
        }  # fmt: skip


def label_of(crystal: Crystal) -> str:
    """The prototype label at the tolerance used for comparing, empty where there is none."""
    try:
        return prototype_label(crystal, LABEL_TOLERANCE)
    except InputError:
        return NO_LABEL


class Known:
    """The structures something is compared with, in buckets by formula, then label. Grows with `add`, `add_table` and `add_formulas`; the
    order of adding does not matter for verdicts, and of several matches the nearest is named (ties: the smaller id).
    """

    def __init__(self, crystals: Mapping[str, Crystal] | Iterable[Crystal] = ()) -> None:
        self._buckets: dict[str, dict[str, list[tuple[str, Crystal]]]] = defaultdict(lambda: defaultdict(list))
        self._ids: set[str] = set()
        # rows of tables wait by formula: atoms and labels are made when somebody asks for that formula
        self._waiting: dict[str, list[tuple[str, CrystalTable, int]]] = defaultdict(list)
        self._reported: dict[str, list[tuple[str, dict[str, float]]]] = defaultdict(list)
        items = crystals.items() if isinstance(crystals, Mapping) else ((c.hash, c) for c in crystals)
        for id_, crystal in items:
            self.add(id_, crystal)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def formulas(self) -> frozenset[str]:
        """All reduced formulas known with a structure, as the generators take them."""
        return frozenset(self._buckets) | frozenset(self._waiting)

    @property
    def labels(self) -> frozenset[str]:
        """What is known as "formula|label": enough to refuse a decorated prototype without the matcher. Makes every waiting row."""
        for formula in list(self._waiting):
            self._made(formula)
        return frozenset(f"{formula}|{label}" for formula, labels in self._buckets.items() for label in labels)

    def add(self, id_: str, crystal: Crystal) -> None:
        """Know one more structure. The same structure under the same id again changes nothing.

        Raises
        ------
        InputError
            If the id already stands for another structure.
        """
        buckets = self._made(crystal.formula)
        if id_ in self._ids:
            if any(known == id_ and other == crystal for bucket in buckets.values() for known, other in bucket):
                return
            raise InputError(f"id {id_!r} already stands for another structure; ids of known structures must be unique")
        self._ids.add(id_)
        buckets[label_of(crystal)].append((id_, crystal))

    def add_table(self, table: CrystalTable, prefix: str = "") -> None:
        """Know the rows of a table, as ``prefix + id``; costs nothing until one of their formulas is asked for.

        Raises
        ------
        InputError
            If an id is known already, or stands twice.
        """
        for row, (id_, formula) in enumerate(zip(table.ids, table.formulas, strict=True)):
            name = prefix + id_
            if name in self._ids:
                raise InputError(f"id {name!r} already stands for another structure; ids of known structures must be unique")
            self._ids.add(name)
            self._waiting[formula].append((name, table, row))

    def add_formulas(self, formulas: Mapping[str, str]) -> None:
        """Know compositions without structures: id → formula, fractional amounts allowed (``Mg0.9Fe0.1O``).

        Raises
        ------
        InputError
            If a formula cannot be read.
        """
        for id_, text in formulas.items():
            amounts = parse_formula(text)
            whole = sum(amounts.values())
            self._reported["-".join(sorted(amounts))].append((id_, {s: n / whole for s, n in amounts.items()}))

    def find(self, crystal: Crystal) -> str | None:
        """The id of the nearest known structure that matches, of any symmetry label; None if there is none."""
        near, _ = self._seen(crystal, [item for bucket in self._made(crystal.formula).values() for item in bucket])
        return near[0].id if near and near[0].matches else None

    def novelty(self, crystal: Crystal, depth: Depth = "label", disorder: bool = False) -> Novelty:
        """What is new about `crystal`; with `disorder`, also whether two of its elements may share a sublattice.

        Raises
        ------
        InputError
            If `depth` is neither "label" nor "formula".
        """
        if depth not in ("label", "formula"):
            raise InputError(f"unknown depth {depth!r}; expected 'label' or 'formula'")
        found = self._compared(crystal, depth)
        return replace(found, disorder=sharings(crystal, self.find, self._series)) if disorder else found

    def _compared(self, crystal: Crystal, depth: Depth) -> Novelty:
        formula, label = crystal.formula, label_of(crystal)
        reported = self._composition(crystal)
        of_formula = self._made(formula) if formula in self.formulas else {}
        if not of_formula:
            return Novelty("formula reported" if reported else "new formula", formula, label, reported=reported)
        same_label = of_formula.get(label, [])
        if not same_label and (motif := smaller_cell(crystal)) is not None:
            label = label_of(motif[0])
            same_label = of_formula.get(label, [])
        candidates = same_label if depth == "label" else [item for bucket in of_formula.values() for item in bucket]
        near, tolerance = self._seen(crystal, candidates)
        facts: dict[str, Any] = {"compared": len(candidates), "near": tuple(near[:_SHOWN]), "reported": reported, "motif": tolerance}
        if near and near[0].matches:
            return Novelty("known", formula, label, near[0].id, near[0].rms, **facts)
        return Novelty("new structure" if same_label else "new prototype", formula, label, **facts)

    def _made(self, formula: str) -> dict[str, list[tuple[str, Crystal]]]:
        """The buckets of a formula, waiting rows included."""
        for name, table, row in self._waiting.pop(formula, []):
            crystal = table[row]
            self._buckets[formula][label_of(crystal)].append((name, crystal))
        return self._buckets[formula]

    def _seen(self, crystal: Crystal, candidates: Sequence[tuple[str, Crystal]]) -> tuple[list[Near], float | None]:
        """What is near, by the crystal as it is or, if that matches nothing, by the smaller cell it repeats, and the tolerance of that."""
        near = self._near(crystal, candidates)
        if not candidates or (near and near[0].matches) or (motif := smaller_cell(crystal)) is None:
            return near, None
        again = self._near(motif[0], candidates)
        return (again, motif[1]) if again and (not near or again[0].largest < near[0].largest) else (near, None)

    def _near(self, crystal: Crystal, candidates: Iterable[tuple[str, Crystal]]) -> list[Near]:
        """What lies within reach of the matcher: matches first, then by rms, then by id."""
        found = [Near(id_, *d) for id_, other in candidates if (d := structure_distance(crystal, other)) is not None]
        return sorted(found, key=lambda n: (not n.matches, n.rms, n.id))

    def _composition(self, crystal: Crystal) -> tuple[str, ...]:
        """Entries of the composition alone."""
        own = {s: n / len(crystal) for s, n in crystal.composition.items()}
        listed = self._reported.get("-".join(sorted(own)), [])
        return tuple(sorted(i for i, other in listed if all(abs(other[s] - own[s]) <= _SAME_COMPOSITION for s in own)))

    def _series(self, crystal: Crystal, a: str, b: str) -> tuple[str, ...]:
        """Reported compositions of the same elements that differ in the ratio of a to b alone: other members of the series."""
        own = {s: n / len(crystal) for s, n in crystal.composition.items()}

        def alike(other: dict[str, float]) -> bool:
            others = all(abs(other[s] - own[s]) <= _SAME_COMPOSITION for s in own if s not in (a, b))
            return others and abs(other[a] - own[a]) > _SAME_COMPOSITION

        return tuple(sorted(i for i, other in self._reported.get("-".join(sorted(own)), []) if alike(other))[:_SHOWN])


def novelties(crystals: Sequence[Crystal], known: Known, depth: Depth = "label") -> Iterator[Novelty]:
    """What is new about each of many structures, each compared with `known` and with those before it (ids: their content hashes).

    `known` grows by those that are new.
    """
    for crystal in crystals:
        found = known.novelty(crystal, depth)
        if found.is_new:
            known.add(crystal.hash, crystal)
        yield found


# --- where known things come from -----------------------------------------------------------------------------------------------------
def known_of(against: Sequence[str], formulas: Sequence[str] = ()) -> Known:
    """What the tables (registered sets, Parquet files) and lists of formulas (CSV) hold.

    Ids are the name of the table and the row's own; a list's are the file's name and the line.

    Raises
    ------
    InputError
        If one of them is not there, or cannot be read; MissingPart for a set that is not on this machine.
    """
    from naica.data import CrystalTable
    from naica.data.registry import load_set

    known = Known()
    for name in dict.fromkeys(against):
        path = Path(name)
        if path.suffix == ".parquet":
            if not path.is_file():
                raise InputError(f"no such table: {name}; give a Parquet table of crystals, or the name of a set (`naica data list`)")
            known.add_table(CrystalTable.read(path), f"{path.stem}:")
        else:
            known.add_table(load_set(name), f"{name}:")
    for name in dict.fromkeys(formulas):
        known.add_formulas(read_formulas(Path(name)))
    return known


def read_formulas(path: Path) -> dict[str, str]:
    """Compositions of a CSV: file:line → formula.

    The column is `formula`, or the first whose name holds "formula" or "composition", or the first of the file.

    Raises
    ------
    InputError
        If the file is not there, is empty, or a formula cannot be read; the message names the line.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        names = [n for n in reader.fieldnames or [] if n]
        if not names:
            raise InputError(f"{path} has no heading; expected a column formula")
        named = [n for n in names if n.lower() == "formula"] + [n for n in names if "formula" in n.lower() or "composition" in n.lower()]
        column = (named or names)[0]
        found = {}
        for line, row in enumerate(reader, start=2):
            try:
                parse_formula(row[column] or "")
            except InputError as error:
                raise InputError(f"{path}, line {line}, column {column!r}: {error}") from None
            found[f"{path.stem}:{line}"] = row[column]
    return found


# --- the ledger -----------------------------------------------------------------------------------------------------------------------
_SCHEMA = "create table if not exists novelty (key text primary key, round integer not null, data text not null) without rowid"


def keep_verdicts(ledger: Ledger, verdicts: Mapping[str, Novelty], round_: int) -> None:
    """Write verdicts on computed structures; a later verdict on the same key takes the place of the first."""
    with ledger.write() as db:
        db.execute(_SCHEMA)
        rows = [(key, round_, json.dumps(v.to_dict())) for key, v in verdicts.items()]
        db.executemany("insert or replace into novelty values (?, ?, ?)", rows)


def verdicts_of(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """The verdicts in a ledger, as plain data by key; none in ledgers of earlier versions."""
    if not ledger.rows("select 1 from sqlite_master where type = 'table' and name = 'novelty'"):
        return {}
    return {key: json.loads(data) for key, data in ledger.rows("select key, data from novelty")}
