"""Symmetry-aware partial substitutions (SAPS): replace some of the sites of one ion, each distinct pattern once.

Merchant et al., Nature 624, 80 (2023), Methods: for each likely replacement old → new and each number k of the n sites of the old ion, keep
one of every set of choices that the symmetry of the parent makes equal. Ordered compounds such as double perovskites A2BB'O6 come from this
and from nothing else. Charges need not balance (GNoME dropped that condition later); it is a switch.

Patterns are the orbits of k-subsets of the sites under the space group of the supercell, its inner translations included. They are made by
orderly generation (Read, Ann. Discrete Math. 2, 107 (1978)): the representative is the lexicographically smallest image, every prefix of a
representative is one, so only representatives are ever extended. Burnside's lemma counts them independently.

Supercells: the paper states no policy. Here all lattices up to an index are taken, one of each set the parent's point group makes equal
(Hart & Forcade, Phys. Rev. B 77, 224115 (2008)), or diagonal ones only. Patterns that repeat with a smaller cell are left to that cell, so
no compound comes twice from one parent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from naica.discover.recipes import Recipe
from naica.discover.substitution import THRESHOLD, IonicParent, SubstitutionTable, ionic_parents, whole_formula
from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import element, symbol
from naica.structure.symmetry import site_permutations, symmetry

Shapes = Literal["all", "diagonal"]
Supercell = tuple[int, ...]


# --- subsets up to symmetry --------------------------------------------------------------------------------------------------
def orbits(permutations: NDArray[np.int64], k: int) -> Iterator[tuple[int, ...]]:
    """One k-subset of each orbit under a permutation group: the lexicographically smallest, in lexicographic order, made lazily.

    `permutations` (g, n) holds all elements of the group; row r carries site i to ``permutations[r, i]``.

    Raises
    ------
    InputError
        If the rows are no permutations or k is not between 0 and n.
    """
    group = _checked(permutations)
    n = group.shape[1]
    if not 0 <= k <= n:
        raise InputError(f"subsets of {k} among {n} sites; expected 0 to {n}")
    # the first site is the highest bit: among sets of one size, lexicographically smaller = greater number
    bits = np.array([1 << (n - 1 - i) for i in range(n)], dtype=np.uint64 if n <= 64 else object)
    images = bits[group]

    def grow(chosen: tuple[int, ...], own: Any, moved: NDArray[Any]) -> Iterator[tuple[int, ...]]:
        if len(chosen) == k:
            yield chosen
            return
        # enough sites must remain for those still to come
        last = n - (k - len(chosen)) + 1
        nexts = np.arange(chosen[-1] + 1 if chosen else 0, last)
        grown, owns = moved[:, None] + images[:, nexts], own + bits[nexts]
        for at in np.flatnonzero(grown.max(axis=0) <= owns):
            yield from grow((*chosen, int(nexts[at])), owns[at], grown[:, at])

    zero = bits.dtype.type(0) if n <= 64 else 0
    return grow((), zero, np.full(len(group), zero, dtype=bits.dtype))


def count_orbits(permutations: NDArray[np.int64]) -> list[int]:
    """Number of orbits of k-subsets for k = 0 … n by Burnside's lemma: the mean over the group of Π over cycles (1 + x^length).

    Raises
    ------
    InputError
        If the rows are no permutations, or no group (the mean is not whole).
    """
    group = _checked(permutations)
    total = [0] * (group.shape[1] + 1)
    for cycles, times in Counter(tuple(_cycle_lengths(row)) for row in group.tolist()).items():
        polynomial = [1] + [0] * group.shape[1]
        for length in cycles:
            for power in range(group.shape[1], length - 1, -1):
                polynomial[power] += polynomial[power - length]
        total = [t + times * p for t, p in zip(total, polynomial, strict=True)]
    if any(t % len(group) for t in total):
        raise InputError(f"{len(group)} permutations of {group.shape[1]} sites are no group; expected all products among the rows")
    return [t // len(group) for t in total]


def _cycle_lengths(permutation: Sequence[int]) -> list[int]:
    seen, lengths = [False] * len(permutation), []
    for start in range(len(permutation)):
        length, at = 0, start
        while not seen[at]:
            seen[at], at, length = True, permutation[at], length + 1
        if length:
            lengths.append(length)
    return sorted(lengths)


def _checked(permutations: NDArray[np.int64]) -> NDArray[np.int64]:
    group = np.asarray(permutations)
    if (
        group.ndim != 2
        or not group.size
        or not np.array_equal(np.sort(group, axis=1), np.broadcast_to(np.arange(group.shape[1]), group.shape))
    ):
        raise InputError(f"an array of shape {group.shape} is no list of permutations; expected rows that each hold 0 … n − 1 once")
    return group


def restricted(permutations: NDArray[np.int64], sites: NDArray[np.int64]) -> NDArray[np.int64]:
    """(h, m) the distinct permutations of `sites` (m,) by those operations that keep the set of them, numbered 0 … m − 1."""
    place = np.full(permutations.shape[1], -1)
    place[sites] = np.arange(len(sites))
    local = place[permutations[:, sites]]
    kept: NDArray[np.int64] = np.unique(local[(local >= 0).all(axis=1)], axis=0)
    return kept


# --- supercells --------------------------------------------------------------------------------------------------------------
def supercells(crystal: Crystal, max_index: int, max_atoms: int, shapes: Shapes = "all") -> list[Supercell]:
    """Supercells of up to `max_index` cells and `max_atoms` atoms that differ under the point group, smallest first; () is the cell itself.

    ``shapes="diagonal"`` keeps repeats along the given axes only. Matrices are Hermite normal forms, row by row.
    """
    rotations = symmetry(crystal).rotations
    most = min(max_index, max_atoms // len(crystal))
    key = np.unique(rotations.reshape(-1, 9), axis=0)
    found: list[Supercell] = []
    for index in range(1, most + 1):
        found += _distinct_lattices(index, key.tobytes(), shapes)
    return [() if cells == (1, 0, 0, 0, 1, 0, 0, 0, 1) else cells for cells in found]


@lru_cache(maxsize=4096)
def _distinct_lattices(index: int, rotation_bytes: bytes, shapes: Shapes) -> tuple[Supercell, ...]:
    rotations = np.frombuffer(rotation_bytes, dtype=np.int64).reshape(-1, 3, 3)
    forms = np.array([h for h in hermite_forms(index) if shapes == "all" or np.count_nonzero(h) == 3])
    inverses = np.linalg.inv(forms)
    taken = np.zeros(len(forms), dtype=bool)
    chosen = []
    # repeats along the axes come first, so that they stand for their class
    for at in sorted(range(len(forms)), key=lambda f: (np.count_nonzero(forms[f]) != 3, f)):
        if taken[at]:
            continue
        chosen.append(tuple(int(v) for v in forms[at].ravel()))
        # a lattice vector h (fractional row) goes to R h, so the rows of H to H Rᵀ; it is the lattice of K if H Rᵀ K⁻¹ is whole
        moved = forms[at] @ rotations.transpose(0, 2, 1)
        change = moved[:, None] @ inverses[None]
        taken |= (np.abs(change - np.round(change)) < 1e-6).all(axis=(2, 3)).any(axis=0)
    return tuple(chosen)


def hermite_forms(index: int) -> list[NDArray[np.int64]]:
    """All sublattices of an index as upper triangular matrices [[a, d, e], [0, b, f], [0, 0, c]], a b c = index, d < b and e, f < c."""
    return [
        np.array([[a, d, e], [0, b, f], [0, 0, index // a // b]])
        for a in range(1, index + 1)
        if index % a == 0
        for b in range(1, index // a + 1)
        if index // a % b == 0
        for d in range(b)
        for e in range(index // a // b)
        for f in range(index // a // b)
    ]


def inner_translations(parent: Crystal, supercell: Crystal) -> NDArray[np.int64]:
    """(m − 1, m n) permutations of the sites of a supercell by the parent's lattice translations, the identity left out."""
    n, images = len(parent), len(supercell) // len(parent)
    shifts = supercell.positions[::n] - supercell.positions[0]
    # in units of 1/m of the supercell's vectors, translations are whole numbers modulo m
    steps = np.round(np.linalg.solve(supercell.cell.T, shifts.T).T * images).astype(np.int64) % images
    image_of = {tuple(step): image for image, step in enumerate(steps.tolist())}
    rows = [[image_of[tuple(s)] for s in ((steps + by) % images).tolist()] for by in steps[1:]]
    order = np.array(rows, dtype=np.int64).reshape(-1, images)
    moved: NDArray[np.int64] = (order[:, :, None] * n + np.arange(n)).reshape(len(order), -1)
    return moved


# --- recipes -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Replacement:
    """One ion of the parent (its place among the parent's ions) and the elements that may replace it, most probable first."""

    ion: int
    news: tuple[tuple[int, float], ...]


class PartialSubstitutions:
    """Partly substituted candidates of many parents as pairs (recipe, probability of the replacement).

    Parents take turns; of one parent small cells come first, then few replaced sites, then probable replacements, so any beginning of the
    stream is a fair sample.

    Parameters
    ----------
    parents : crystals by key, or any stream of crystals, of which `window` are looked at together and none is kept; recipes name them by
        their content hash
    elements : only compounds of these elements; None for all the table knows
    max_atoms, max_index : largest supercell in atoms and in parent cells
    shapes : all distinct supercell lattices, or diagonal ones only
    threshold : least P(new | old) of a replacement
    same_sign : cations give way to cations and anions to anions only. The floor on the weights lets every ion replace every other with a
        probability just above GNoME's threshold; half of all patterns would put metals on anion sites
    known_formulas : reduced formulas to skip
    balanced : keep only compositions that some set of oxidation states balances
    limit : at most this many recipes per parent
    window : parents of a stream that take turns
    table : the pair probabilities

    `dropped` counts the parents that could not be used, by reason.
    """

    def __init__(
        self,
        parents: Mapping[str, Crystal] | Iterable[Crystal],
        elements: Collection[str] | None = None,
        *,
        max_atoms: int = 40,
        max_index: int = 4,
        shapes: Shapes = "all",
        threshold: float = THRESHOLD,
        same_sign: bool = True,
        known_formulas: Collection[str] = frozenset(),
        balanced: bool = False,
        limit: int | None = None,
        window: int = 256,
        table: SubstitutionTable | None = None,
    ) -> None:
        if window < 1:
            raise InputError(f"window {window}; expected at least 1 parent at a time")
        if max_atoms < 1 or max_index < 1 or shapes not in ("all", "diagonal"):
            raise InputError(
                f"max_atoms {max_atoms}, max_index {max_index}, shapes {shapes!r}; expected numbers from 1 and shapes 'all' or 'diagonal'"
            )
        self.dropped: Counter[str] = Counter()
        self.table = table or SubstitutionTable()
        self._elements = None if elements is None else frozenset(element(s).number for s in elements)
        self._max_atoms, self._max_index, self._shapes = max_atoms, max_index, shapes
        self._threshold, self._same_sign = threshold, same_sign
        self._keeps = _composition_test(frozenset(known_formulas), balanced)
        self._limit = limit
        self._window = window
        self._given: Iterable[Crystal] = parents if not isinstance(parents, Mapping) else ()
        found = {c.hash: c for c in parents.values()} if isinstance(parents, Mapping) else {}
        self._parents = list(ionic_parents(found, self.table, self.dropped))

    def __iter__(self) -> Iterator[tuple[Recipe, float]]:
        """Recipes and probabilities, the parents of a window in turns."""
        yield from self._in_turns(self._parents)
        given = iter(self._given)
        while some := {c.hash: c for c in islice(given, self._window)}:
            yield from self._in_turns(list(ionic_parents(some, self.table, self.dropped)))

    def _in_turns(self, parents: Sequence[IonicParent]) -> Iterator[tuple[Recipe, float]]:
        streams = [islice(self._of_parent(parent), self._limit) for parent in parents]
        while streams:
            alive = []
            for stream in streams:
                item = next(stream, None)
                if item is not None:
                    alive.append(stream)
                    yield item
            streams = alive

    def _of_parent(self, parent: IonicParent) -> Iterator[tuple[Recipe, float]]:
        replacements = [r for r in (self._replacement(parent, at) for at in range(len(parent.ions))) if r.news]
        if not replacements:
            return
        replacements.sort(key=lambda r: -r.news[0][1])
        for cells in supercells(parent.crystal, self._max_index, self._max_atoms, self._shapes):
            frame = parent.crystal.supercell(np.reshape(cells, (3, 3))) if cells else parent.crystal
            for replacement in replacements:
                yield from self._in_cell(parent, cells, frame, replacement)

    def _replacement(self, parent: IonicParent, at: int) -> _Replacement:
        others = {i[0] for k, i in enumerate(parent.ions) if k != at}
        if self._elements is not None and not others <= self._elements:
            return _Replacement(at, ())
        column = self.table.conditional[:, parent.rows[at]]
        old, charge = parent.ions[at]
        best: dict[int, float] = {}
        for row in np.argsort(-column, kind="stable")[: np.count_nonzero(column > self._threshold)]:
            z, q = self.table.ions[row]
            if z != old and (self._elements is None or z in self._elements) and not (self._same_sign and q * charge < 0):
                best.setdefault(z, float(column[row]))
        return _Replacement(at, tuple(best.items()))

    def _in_cell(self, parent: IonicParent, cells: Supercell, frame: Crystal, replacement: _Replacement) -> Iterator[tuple[Recipe, float]]:
        old = parent.ions[replacement.ion][0]
        n_images = len(frame) // len(parent.crystal)
        sites = (np.arange(n_images)[:, None] * len(parent.crystal) + parent.sites[replacement.ion]).ravel()
        group = restricted(site_permutations(frame), sites)
        translations = restricted(inner_translations(parent.crystal, frame), sites) if cells else np.zeros((0, len(sites)), dtype=np.int64)
        stays = self._elements is None or old in self._elements
        whole_element = len(sites) == np.count_nonzero(frame.numbers == old)
        for k in range(1 if stays else len(sites), len(sites) + 1):
            news = [(z, p) for z, p in replacement.news if self._keeps(_counts(frame.composition, old, z, k))]
            if not news:
                continue
            for chosen in orbits(group, k):
                if _repeats(chosen, translations):
                    continue
                mask = () if k == len(sites) and whole_element else tuple(int(s) for s in sites[list(chosen)])
                for z, probability in news:
                    yield Recipe(parent.crystal.hash, ((old, z),), mask, cells, origin="saps"), probability


def _repeats(chosen: tuple[int, ...], translations: NDArray[np.int64]) -> bool:
    """True if some translation inside the supercell carries the pattern onto itself: a smaller cell makes it too."""
    own = np.array(chosen, dtype=np.int64)
    return len(translations) > 0 and bool((np.sort(translations[:, own], axis=1) == own).all(axis=1).any())


def _counts(before: Mapping[str, int], old: int, new: int, k: int) -> tuple[tuple[str, int], ...]:
    counts = dict(before)
    counts[symbol(old)] -= k
    counts[symbol(new)] = counts.get(symbol(new), 0) + k
    return tuple((s, n) for s, n in counts.items() if n > 0)


def _composition_test(known: frozenset[str], balanced: bool) -> Callable[[tuple[tuple[str, int], ...]], bool]:
    from naica.structure.oxidation import is_balanced

    @lru_cache(maxsize=100_000)
    def keeps(counts: tuple[tuple[str, int], ...]) -> bool:
        formula = whole_formula(dict(counts))
        return formula not in known and (not balanced or is_balanced(formula))

    return keeps


def saps(
    parents: Mapping[str, Crystal],
    elements: Collection[str] | None = None,
    *,
    max_atoms: int = 40,
    max_index: int = 4,
    known_formulas: Collection[str] = frozenset(),
    limit: int | None = None,
    **options: Any,
) -> Iterator[Recipe]:
    """The recipes of `PartialSubstitutions` (which takes the same options, and also tells probabilities and dropped parents)."""
    found = PartialSubstitutions(
        parents, elements, max_atoms=max_atoms, max_index=max_index, known_formulas=known_formulas, limit=limit, **options
    )
    return (recipe for recipe, _ in found)
