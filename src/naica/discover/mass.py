"""Candidates by the ten million: generated, made distinct, given a first look and ranked in bounded memory.

A candidate is 17 bytes: which *frame* it fills (a parent crystal or prototype with places for elements), the elements, how probable the
substitution is, and whether its charges balance. Blocks of frames are written as sorted runs::

    frames ──fill──► runs/00000.*  (sorted by key, distinct within the run)
                         │ ranges of the key that fit into memory, merged over all runs
                         ▼
                     distinct ──first look──► distance from the hull ──► the best k of the range ──► the best k of all

The key says what is put where: the number of the prototype label in the high bits, the elements on its places, in the label's own order, in
the low ones. It is a whole number, not a hash, so distinct means distinct. Where the normaliser of the space group exchanges places, the
smallest of the equal keys is taken. Two parents of one label are taken for the same structure type here; free coordinates are compared by
the matcher later, on the few that survive.

Every block and every range is a file, written aside and renamed: what is finished is not done again after a kill. A billion candidates need
the same memory and 17 GB of disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.discover.first_look import BinaryHulls, PairEnergies, shipped
from naica.discover.hull import Hull
from naica.discover.recipes import PROTOTYPE, Recipe
from naica.discover.substitution import THRESHOLD, SubstitutionTable, allowed_ions, ionic_parents
from naica.errors import InputError, RunError
from naica.structure.composition import format_formula, parse_formula, reduced
from naica.structure.crystal import Crystal
from naica.structure.elements import element, symbol
from naica.structure.prototypes import Prototype
from naica.structure.symmetry import prototype_orders

Array = NDArray[np.float64]

PLACES = 6
"""Most different elements of a candidate."""
_BITS = 7
_GROUP_SHIFT = np.uint64(PLACES * _BITS)
_MOST_GROUPS = 1 << (64 - PLACES * _BITS)
_FRAMES_PER_BLOCK = 4096
_REST = np.dtype([("frame", "<u4"), ("likelihood", "<f4"), ("balanced", "u1")])
BYTES = 8 + _REST.itemsize
"""On disk, per candidate."""


@dataclass(frozen=True)
class Frame:
    """A structure with places for elements.

    Attributes
    ----------
    parent : hash of a crystal or ``prototype:<name>``, as in a `Recipe`
    olds : what stands on the places now, in canonical order: atomic numbers for a crystal, labels from 1 for a prototype
    amounts : atoms of each place
    label : prototype label
    orders : further orders of the places that make the same structure, as indices into `olds`; the trivial one is the first
    """

    parent: str
    olds: tuple[int, ...]
    amounts: tuple[int, ...]
    label: str
    orders: tuple[tuple[int, ...], ...]

    def recipe(self, elements: Sequence[int]) -> Recipe:
        """The recipe that puts elements (atomic numbers) on the places."""
        origin = "prototype" if self.parent.startswith(PROTOTYPE) else "substitution"
        return Recipe(self.parent, tuple(zip(self.olds, (int(z) for z in elements), strict=True)), origin=origin)

    def to_json(self) -> list[Any]:
        """As plain lists."""
        return [self.parent, self.olds, self.amounts, self.label, self.orders]

    @classmethod
    def from_json(cls, raw: Sequence[Any]) -> Frame:
        """From `to_json`."""
        parent, olds, amounts, label, orders = raw
        return cls(parent, tuple(olds), tuple(amounts), label, tuple(tuple(o) for o in orders))


@dataclass(frozen=True, eq=False)
class Filled:
    """A frame and what fills it: elements (m, k) atomic numbers by place, likelihood (m,), whether charges balance (m,)."""

    frame: Frame
    elements: NDArray[np.uint8]
    likelihood: NDArray[np.float32]
    balanced: NDArray[np.bool_]


Block = Callable[[], Iterable[Filled]]
"""Makes the candidates of some frames; blocks of one source always come in the same order."""


# --- sources -----------------------------------------------------------------------------------------------------------------
def substitution_blocks(
    parents: Iterable[Crystal],
    elements: Collection[str] | None,
    dropped: Counter[str],
    *,
    threshold: float = THRESHOLD,
    n_elements: Collection[int] = (2, 3, 4),
    max_atoms: int = 40,
    table: SubstitutionTable | None = None,
    block: int = 256,
) -> Iterator[Block]:
    """Ionic substitution into a stream of parents, `block` of them at a time.

    `dropped` counts the parents that could not be used, by reason. Mixed valence on one element is left out: its two states would be two
    places with one element, which the ordinary generator handles by masks.
    """
    chosen = table or SubstitutionTable()
    allowed = allowed_ions(chosen, elements)
    stream = iter(parents)
    while some := list(islice(stream, block)):
        yield lambda some=some: _substituted(some, chosen, allowed, threshold, frozenset(n_elements), max_atoms, dropped)  # type: ignore[misc]


def _substituted(
    parents: Sequence[Crystal], table: SubstitutionTable, allowed: NDArray[np.bool_] | None, threshold: float,
    n_elements: frozenset[int], max_atoms: int, dropped: Counter[str],
) -> Iterator[Filled]:  # fmt: skip
    numbers, charges = np.array([i[0] for i in table.ions], dtype=np.uint8), np.array([i[1] for i in table.ions])
    fitting = {}
    for crystal in parents:
        size = len(crystal.composition)
        if size > PLACES or size not in n_elements or len(crystal) > max_atoms:
            dropped["size or number of elements outside the limits"] += 1
        else:
            fitting[crystal.hash] = crystal
    for parent in ionic_parents(fitting, table, dropped):
        if len({i[0] for i in parent.ions}) < len(parent.ions):
            dropped["mixed valence on one element"] += 1
            continue
        states = {z: float(q) for z, q in parent.ions}
        label, orders = prototype_orders(parent.crystal, states)
        # the ions in the label's order
        place = [next(k for k, i in enumerate(parent.ions) if i[0] == z) for z in orders[0]]
        rows = [parent.rows[k] for k in place]
        found, product_ = table.search(rows, threshold, allowed)
        amounts = tuple(len(parent.sites[k]) for k in place)
        news = numbers[found].reshape(len(found), len(rows))
        # two states of one element, or the parent itself, are no new compound
        fresh = (news != np.array(orders[0], dtype=np.uint8)).any(axis=1)
        for a, b in combinations(range(len(rows)), 2):
            fresh &= news[:, a] != news[:, b]
        if not fresh.any():
            continue
        neutral = (charges[found[fresh]] @ np.array(amounts)) == 0
        # states of one element make the same atoms: the likeliest comes first and speaks for all, and one that balances suffices
        packed = (news[fresh].astype(np.int64) << (_BITS * np.arange(len(rows)))).sum(axis=1)
        _, first, back = np.unique(packed, return_index=True, return_inverse=True)
        balanced = np.bincount(back.reshape(-1), weights=neutral) > 0
        frame = Frame(parent.crystal.hash, orders[0], amounts, label, _as_indices(orders))
        yield Filled(frame, news[fresh][first], product_[fresh][first].astype(np.float32), balanced)


def _as_indices(orders: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(orders[0].index(z) for z in order) for order in orders)


def prototype_blocks(
    prototypes: Iterable[Prototype], elements: Collection[str], *, balanced: bool = True, max_atoms: int = 40
) -> Iterator[Block]:
    """Every decoration of prototypes of up to three elements, one prototype a block; with `balanced` only those whose charges can balance
    with the signs of the example (the rules of `enumeration.is_allowed`, for whole arrays).
    """
    numbers = np.array(sorted({element(s).number for s in elements}), dtype=np.int64)
    for found in prototypes:
        usable = 2 <= len(found.elements) <= 3 and found.n_atoms <= max_atoms and (found.charges is not None or not balanced)
        if usable and not found.is_boxed_molecule:
            yield lambda found=found: _decorated(found, numbers, balanced)  # type: ignore[misc]


def _decorated(found: Prototype, numbers: NDArray[np.int64], balanced: bool) -> Iterator[Filled]:
    by_label = [element(s).number for s in found.elements]
    label, orders = prototype_orders(found.crystal(), dict(zip(by_label, found.charges or (0,) * len(by_label), strict=True)))
    order = [by_label.index(z) for z in orders[0]]
    k, n = len(order), len(numbers)
    neutral = _neutral(found, numbers) if found.charges is not None else np.zeros((n,) * k, dtype=bool)
    wanted = neutral.copy() if balanced else np.ones((n,) * k, dtype=bool)
    for a, b in combinations(range(k), 2):
        wanted &= ~_along(np.eye(n, dtype=bool), a, b, k)
    places = np.argwhere(wanted)
    if len(places):
        amounts = tuple(found.amounts[at] for at in order)
        frame = Frame(PROTOTYPE + found.name, tuple(at + 1 for at in order), amounts, label, _as_indices(orders))
        yield Filled(frame, numbers[places[:, order]].astype(np.uint8), np.zeros(len(places), dtype=np.float32), neutral[wanted])


def _along(pairs: NDArray[np.bool_], a: int, b: int, k: int) -> NDArray[np.bool_]:
    """A table of pairs (n, n) as an array of k axes that varies along a < b only."""
    shape = [1] * k
    shape[a], shape[b] = pairs.shape
    return pairs.reshape(shape)


def _neutral(found: Prototype, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) * k whether elements on the labels of a prototype balance with the signs of its example.

    Sums of charges of all labels but the last are a table of what can be reached; its product with what the last needs is the answer.
    """
    from naica.discover.enumeration import states_like

    charges, n = found.charges or (), len(numbers)
    states = [[states_like(int(z), s, q) for z in numbers] for s, q in zip(found.elements, charges, strict=True)]
    most = 1 + sum(m * max((abs(q) for own in column for q in own), default=0) for m, column in zip(found.amounts, states, strict=True))
    reached = np.zeros((1, 2 * most + 1), dtype=bool)
    reached[0, most] = True
    for m, column in zip(found.amounts[:-1], states[:-1], strict=True):
        grown = np.zeros((len(reached), n, 2 * most + 1), dtype=bool)
        for at, own in enumerate(column):
            for q in own:
                # the span holds every sum, so nothing wraps around
                grown[:, at] |= np.roll(reached, m * q, axis=1)
        reached = grown.reshape(-1, 2 * most + 1)
    needed = np.zeros((2 * most + 1, n), dtype=np.float32)
    for at, own in enumerate(states[-1]):
        needed[[most - found.amounts[-1] * q for q in own], at] = 1
    passed = ((reached.astype(np.float32) @ needed) > 0).reshape((n,) * len(charges))
    chi = np.array([element(int(z)).electronegativity or 0.0 for z in numbers])
    metal = np.array([element(int(z)).is_metal for z in numbers])
    lawful = metal[:, None] | (chi[:, None] <= chi[None])
    for a, b in combinations(range(len(charges)), 2):
        if charges[a] > 0 > charges[b]:
            passed &= _along(lawful, a, b, len(charges))
        if charges[b] > 0 > charges[a]:
            passed &= _along(lawful.T, a, b, len(charges))
    return np.asarray(passed)


_MAX_NUMBER = 104


# --- keys --------------------------------------------------------------------------------------------------------------------
def keys_of(group: int, filled: Filled) -> NDArray[np.uint64]:
    """(m,) what each candidate puts where; equal for equal structures of one label."""
    shifts = np.arange(filled.elements.shape[1], dtype=np.uint64) * np.uint64(_BITS)
    best: NDArray[np.uint64] | None = None
    for order in filled.frame.orders:
        packed = (filled.elements[:, list(order)].astype(np.uint64) << shifts).sum(axis=1, dtype=np.uint64)
        best = packed if best is None else np.minimum(best, packed)
    assert best is not None
    return best | (np.uint64(group) << _GROUP_SHIFT)


def elements_of(keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """(m, PLACES) atomic numbers by place, 0 for places a candidate lacks."""
    shifts = np.arange(PLACES, dtype=np.uint64) * np.uint64(_BITS)
    return ((keys[:, None] >> shifts) & np.uint64(2**_BITS - 1)).astype(np.uint8)


def formula_codes(elements: NDArray[np.uint8], amounts: NDArray[np.integer]) -> NDArray[np.uint64]:
    """(m,) 64-bit fingerprints of reduced formulas, given elements and amounts (m, k) with zeros where there is none.

    Two of ten million formulas share one with a chance of 3 in a million.
    """
    divisor = np.gcd.reduce(amounts, axis=1, keepdims=True)
    codes = elements.astype(np.uint64) * np.uint64(65536) + (amounts // np.maximum(divisor, 1)).astype(np.uint64)
    codes = np.where(amounts > 0, codes, np.uint64(0))
    # a sum of scrambled codes does not depend on the order of the elements
    x = codes + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.where(amounts > 0, x ^ (x >> np.uint64(31)), np.uint64(0)).sum(axis=1, dtype=np.uint64)


# --- the run -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Best:
    """A ranked candidate: its recipe, reduced formula, energies in eV/atom (`distance` is what it is ranked by, the penalty for charges
    that do not balance included) and the probability of its substitution (0 for a decorated prototype).
    """

    recipe: Recipe
    formula: str
    energy: float
    distance: float
    likelihood: float
    balanced: bool


Distance = Callable[[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]], NDArray[np.floating]]
"""(elements (m, k), amounts (m, k), energies (m,)) → (m,) eV/atom above the hull."""


@dataclass(eq=False)
class MassRun:
    """Generation and first look in a folder.

    Parameters
    ----------
    folder : for runs and results; the same call goes on where it was stopped
    distance : from the hull, asked of every candidate (see `Distance`, `binary_distance`); default the formation energy itself
    exact : the same for the best 4 × `keep` only, which are then ranked anew by it (`hull_distance`)
    pairs : the tables of the first look; default those that come with naica
    keep, per_formula : how many candidates to rank, and how many of one formula
    unbalanced : eV/atom added to candidates whose charges do not balance
    known : reduced formulas to leave out
    chunk : candidates in memory at a time
    stamp : says what the distances were made of; ranges ranked under another one are ranked anew

    Raises
    ------
    RunError
        If the folder cannot be written or the disk is full; finished blocks and ranges stay.
    """

    folder: Path
    distance: Distance | None = None
    exact: Distance | None = None
    pairs: PairEnergies = field(default_factory=shipped)
    keep: int = 10_000
    per_formula: int = 3
    unbalanced: float = 0.15
    known: Collection[str] = frozenset()
    chunk: int = 250_000
    stamp: str = ""
    tick: Callable[[str, int], None] = lambda stage, done: None
    _frames: list[Frame | None] = field(default_factory=list)
    _groups: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.keep < 1 or self.per_formula < 1 or self.chunk < 1:
            raise InputError(f"keep {self.keep}, per_formula {self.per_formula}, chunk {self.chunk}; expected numbers from 1")
        self.folder = Path(self.folder)
        try:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
            (self.folder / "best").mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {self.folder}: {error.strerror or error}") from error

    # --- generate ----------------------------------------------------------------------------------------------------------
    def generate(self, blocks: Iterable[Block]) -> dict[str, float]:
        """Write the runs of all blocks that are not there yet; counts and seconds of CPU of all blocks together."""
        total: Counter[str] = Counter()
        for number, block in enumerate(blocks):
            note = self.folder / "runs" / f"{number:06d}.json"
            if note.exists():
                facts = json.loads(note.read_text(encoding="utf-8"))
                self._remember(number, [Frame.from_json(raw) for raw in facts["frames"]])
            else:
                facts = self._fill(number, block)
                # the note is written last: a run without it does not count
                _whole(note, lambda path, facts=facts: path.write_text(json.dumps(facts), encoding="utf-8"))  # type: ignore[misc]
                _remove(self.folder / "best")
            total.update({k: facts[k] for k in ("made", "distinct", "seconds")})
            total["frames"] += len(facts["frames"])
            self.tick("generate", int(total["made"]))
        return {**dict.fromkeys(("made", "distinct", "seconds", "frames"), 0), **total}

    def reload(self) -> dict[str, float]:
        """Read what earlier calls of `generate` wrote, without making anything; the same counts."""
        return self.generate(_Done() for _ in sorted((self.folder / "runs").glob("*.json")))

    def _remember(self, number: int, frames: Sequence[Frame]) -> list[int]:
        """Number the frames of a block and the labels they bring; the numbers of their labels."""
        if len(frames) > _FRAMES_PER_BLOCK:
            raise InputError(f"a block of {len(frames)} frames; expected at most {_FRAMES_PER_BLOCK}")
        self._frames += [None] * (number * _FRAMES_PER_BLOCK - len(self._frames)) + list(frames)
        groups = [self._groups.setdefault(f.label, len(self._groups)) for f in frames]
        if len(self._groups) >= _MOST_GROUPS:
            raise InputError(f"more than {_MOST_GROUPS} prototype labels; split the parents into several runs")
        return groups

    def _fill(self, number: int, block: Block) -> dict[str, Any]:
        began = time.process_time()
        filled = list(block())
        groups = self._remember(number, [f.frame for f in filled])
        first = number * _FRAMES_PER_BLOCK
        keys = [keys_of(group, f) for group, f in zip(groups, filled, strict=True)]
        rest = [np.empty(len(k), dtype=_REST) for k in keys]
        for at, (own, f) in enumerate(zip(rest, filled, strict=True)):
            own["frame"], own["likelihood"], own["balanced"] = first + at, f.likelihood, f.balanced
        key = np.concatenate(keys) if keys else np.empty(0, dtype=np.uint64)
        more = np.concatenate(rest) if rest else np.empty(0, dtype=_REST)
        order = _distinct(key, more)
        place = self.folder / "runs" / f"{number:06d}"
        _whole(place.with_suffix(".keys"), key[order].tofile)
        _whole(place.with_suffix(".rest"), more[order].tofile)
        return {
            "made": len(key), "distinct": len(order), "seconds": time.process_time() - began, "frames": [f.frame.to_json() for f in filled]
        }  # fmt: skip

    # --- rank --------------------------------------------------------------------------------------------------------------
    def rank(self) -> tuple[list[Best], dict[str, float]]:
        """The best candidates of all runs, best first, with counts and CPU seconds of making distinct, looking and ranking."""
        runs = [
            (_mapped(path, np.uint64), _mapped(path.with_suffix(".rest"), _REST)) for path in sorted((self.folder / "runs").glob("*.keys"))
        ]
        amounts = self._amounts()
        known = _codes_of(self.known)
        self._same_ranking(known)
        facts: dict[str, float] = defaultdict(float)
        held: list[NDArray[Any]] = []
        for number, (low, high) in enumerate(self._ranges([k for k, _ in runs])):
            path = self.folder / "best" / f"{number:06d}.npz"
            if path.exists():
                with np.load(path) as raw:
                    best, told = raw["best"], json.loads(str(raw["facts"]))
            else:
                # a hull is nowhere above zero: what is further away than the last one held by its energy alone can be left out at once
                worst = float(held[0]["distance"][-1]) if held and len(held[0]) == 4 * self.keep else np.inf
                best, told = self._look(runs, low, high, amounts, known, worst)
                _whole(path, lambda p, best=best, told=told: _save(p, best, told))  # type: ignore[misc]
            for name, value in told.items():
                facts[name] += value
            held = [_top(np.concatenate([*held, best]), 4 * self.keep)]
            self.tick("rank", int(facts["distinct"]))
        last = held[0] if held else np.empty(0, dtype=_BEST)
        if self.exact is not None and len(last):
            began = time.process_time()
            last = last.copy()
            above = self.exact(elements_of(last["key"]), amounts[last["frame"]], last["energy"])
            last["distance"] = above + np.float32(self.unbalanced) * (last["balanced"] == 0)
            last = _top(last[np.isfinite(last["distance"])], len(last))
            facts["hull"] += len(above)
            facts["hull_seconds"] += time.process_time() - began
        began = time.process_time()
        ranked = self._ranked(last, amounts)
        facts["rank_seconds"] += time.process_time() - began
        zero = ("records", "distinct", "known", "hull", "merge_seconds", "look_seconds", "hull_seconds", "rank_seconds")
        return ranked, {**dict.fromkeys(zero, 0), **facts}

    def _same_ranking(self, known: NDArray[np.uint64]) -> None:
        """Forget the ranges of a ranking with other settings."""
        digest = hashlib.sha256(known.tobytes() + self.pairs.tables.tobytes()).hexdigest()[:16]
        mine = json.dumps([self.keep, self.chunk, self.unbalanced, digest, self.stamp])
        note = self.folder / "best" / "settings.json"
        if not note.exists() or note.read_text(encoding="utf-8") != mine:
            _remove(self.folder / "best")
            _whole(note, lambda path: path.write_text(mine, encoding="utf-8"))

    def _amounts(self) -> NDArray[np.int64]:
        """(frames, PLACES) atoms of each place."""
        out = np.zeros((len(self._frames), PLACES), dtype=np.int64)
        for at, frame in enumerate(self._frames):
            if frame is not None:
                out[at, : len(frame.amounts)] = frame.amounts
        return out

    def _ranges(self, keys: Sequence[NDArray[np.uint64]]) -> Iterator[tuple[int, int]]:
        """Half-open ranges of the key that hold about `chunk` records each, from a sample of every run."""
        total = sum(len(k) for k in keys)
        if not total:
            return
        step = max(1, total // 100_000)
        sample = np.sort(np.concatenate([np.asarray(k[::step]) for k in keys if len(k)]))
        pieces = int(np.ceil(total / self.chunk))
        inner = sorted({int(sample[len(sample) * p // pieces]) for p in range(1, pieces)})
        edges = [0, *inner, 2**64]
        yield from pairwise(edges)

    def _look(
        self, runs: Sequence[tuple[NDArray[np.uint64], NDArray[Any]]], low: int, high: int, amounts: NDArray[np.int64],
        known: NDArray[np.uint64], worst: float,
    ) -> tuple[NDArray[Any], dict[str, float]]:  # fmt: skip
        began = time.process_time()
        keys, rest = [], []
        for key, more in runs:
            a = int(np.searchsorted(key, np.uint64(low))) if low else 0
            b = int(np.searchsorted(key, np.uint64(high))) if high < 2**64 else len(key)
            keys.append(np.asarray(key[a:b]))
            rest.append(np.asarray(more[a:b]))
        key, more = np.concatenate(keys), np.concatenate(rest)
        order = _distinct(key, more)
        facts: dict[str, float] = {"records": len(key), "distinct": len(order)}
        key, more = key[order], more[order]
        facts["merge_seconds"] = time.process_time() - began
        began = time.process_time()
        elements, counts = elements_of(key), amounts[more["frame"]]
        if len(known):
            new = ~np.isin(formula_codes(elements, counts), known)
            facts["known"] = len(key) - int(new.sum())
            key, more, elements, counts = key[new], more[new], elements[new], counts[new]
        energy = self.pairs.energy(elements, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
        near = energy <= worst
        key, more, elements, counts, energy = key[near], more[near], elements[near], counts[near], energy[near]
        above = energy if self.distance is None else np.asarray(self.distance(elements, counts, energy), dtype=np.float32)
        facts["look_seconds"] = time.process_time() - began
        began = time.process_time()
        out = np.empty(len(key), dtype=_BEST)
        out["key"], out["frame"], out["likelihood"], out["balanced"] = key, more["frame"], more["likelihood"], more["balanced"]
        out["energy"] = energy
        out["distance"] = above + np.float32(self.unbalanced) * (more["balanced"] == 0)
        best = _top(out[np.isfinite(out["distance"])], 4 * self.keep)
        facts["rank_seconds"] = time.process_time() - began
        return best, facts

    def _ranked(self, best: NDArray[Any], amounts: NDArray[np.int64]) -> list[Best]:
        chosen: list[Best] = []
        seen: Counter[str] = Counter()
        for row, elements in zip(best, elements_of(best["key"]), strict=True):
            frame = self._frames[int(row["frame"])]
            assert frame is not None
            own = [int(z) for z in elements[: len(frame.olds)]]
            formula = format_formula(reduced({symbol(z): n for z, n in zip(own, frame.amounts, strict=True)}))
            seen[formula] += 1
            if seen[formula] > self.per_formula:
                continue
            facts = float(row["energy"]), float(row["distance"]), float(row["likelihood"]), bool(row["balanced"])
            chosen.append(Best(frame.recipe(own), formula, *facts))
            if len(chosen) == self.keep:
                break
        return chosen


class _Done:
    """A block that is there already."""

    def __call__(self) -> Iterable[Filled]:
        raise RunError("a run of this folder is missing; generate the candidates anew")


_BEST = np.dtype([("key", "<u8"), ("frame", "<u4"), ("likelihood", "<f4"), ("balanced", "u1"), ("energy", "<f4"), ("distance", "<f4")])


def _distinct(key: NDArray[np.uint64], rest: NDArray[Any]) -> NDArray[np.int64]:
    """Rows in order of their key, one of each: the likeliest, then the first frame."""
    order = np.lexsort((rest["frame"], -rest["likelihood"], key))
    ordered = key[order]
    first = np.ones(len(key), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return np.asarray(order[first])


def _top(rows: NDArray[Any], k: int) -> NDArray[Any]:
    """The k nearest to the hull, nearest first; ties by likelihood, then key."""
    if len(rows) > k:
        rows = rows[rows["distance"] <= np.partition(rows["distance"], k - 1)[k - 1]]
    return np.asarray(rows[np.lexsort((rows["key"], -rows["likelihood"], rows["distance"]))[:k]])


def _codes_of(formulas: Collection[str]) -> NDArray[np.uint64]:
    """Sorted fingerprints of formulas."""
    elements, amounts = np.zeros((len(formulas), PLACES), dtype=np.uint8), np.zeros((len(formulas), PLACES), dtype=np.int64)
    for at, formula in enumerate(formulas):
        counts = reduced(parse_formula(formula))
        if len(counts) <= PLACES:
            elements[at, : len(counts)] = [element(s).number for s in counts]
            amounts[at, : len(counts)] = list(counts.values())
    return np.unique(formula_codes(elements, amounts))


def _mapped(path: Path, kind: Any) -> NDArray[Any]:
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, dtype=kind)


def _save(path: Path, best: NDArray[Any], facts: Mapping[str, float]) -> None:
    with path.open("wb") as handle:
        np.savez(handle, best=best, facts=np.array(json.dumps(facts)))


def _remove(folder: Path) -> None:
    """Results of an earlier ranking: other runs, other ranges."""
    for leftover in folder.glob("*.npz"):
        leftover.unlink()


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file aside and rename it: it is whole or absent."""
    aside = path.with_name(path.name + ".part")
    try:
        write(aside)
        os.replace(aside, path)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise RunError(
            f"{path}: {error.strerror or error} ({free / 1e9:.1f} GB free there); finished blocks are kept: give the same command again"
        ) from error


def binary_distance(hull: Hull) -> Distance:
    """A `Distance` from what the binary systems of a hull allow, at table look-up's speed: no more than the distance from the hull itself.

    NaN for candidates with an element that has no reference in the hull.
    """
    binaries = BinaryHulls.of(hull)
    has = np.zeros(_MAX_NUMBER, dtype=bool)
    has[[0, *(element(s).number for s in hull.elements)]] = True

    def distance(elements: NDArray[np.uint8], amounts: NDArray[np.int64], energy: NDArray[np.float32]) -> NDArray[np.floating]:
        above = energy - binaries.bound(elements, amounts / np.maximum(amounts.sum(axis=1, keepdims=True), 1))
        return np.where(has[elements].all(axis=1), above, np.nan).astype(np.float32)

    return distance


def hull_distance(hull: Hull) -> Distance:
    """A `Distance` from a hull of formation energies; NaN (never ranked) for candidates with an element that has no reference in it."""
    order = list(hull.elements)
    column = np.full(_MAX_NUMBER, -1)
    for at, s in enumerate(order):
        column[element(s).number] = at

    def distance(elements: NDArray[np.uint8], amounts: NDArray[np.int64], energy: NDArray[np.float32]) -> NDArray[np.floating]:
        out = np.full(len(energy), np.nan, dtype=np.float32)
        there = amounts > 0
        known = ((column[elements] >= 0) | ~there).all(axis=1)
        fractions = np.zeros((int(known.sum()), len(order)))
        rows, places = np.nonzero(there[known])
        fractions[rows, column[elements[known][rows, places]]] = amounts[known][rows, places]
        fractions /= fractions.sum(axis=1, keepdims=True)
        # formulas repeat over prototypes: each is asked once
        _, first, back = np.unique(formula_codes(elements[known], amounts[known]), return_index=True, return_inverse=True)
        out[known] = energy[known] - hull.energy(fractions[first])[back.reshape(-1)]
        return out

    return distance
