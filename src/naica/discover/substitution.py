"""New compounds by replacing ions, ranked by how often nature does the same.

Model (Hautier, Fischer, Ehrlacher, Jain & Ceder, Inorg. Chem. 50, 656 (2011)): each unordered pair of ions (a, b) has a weight λ_ab
mined from ICSD; the probability that a replaces b is P(a|b) = exp λ_ab / p(b) with p(b) = Σ_c exp λ_bc, a pair never seen weighing
`alpha` = −5. The table (230 ions) is the one pymatgen ships. A substitution of a whole compound has the product over its ions as
probability.

GNoME (Merchant et al., Nature 624, 80 (2023), Methods) changed four things, each a switch here and all on by default:

1. `differences_only`: an ion that stays counts as 1, so keeping a rare ion costs nothing;
2. `floor`: no weight below 0;
3. `threshold` = 0.001 on the product;
4. only compositions that are not known already (`known_formulas`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from heapq import merge
from importlib.util import find_spec
from itertools import islice, pairwise
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.discover.recipes import Recipe
from naica.errors import InputError, MissingPart
from naica.structure.composition import format_formula
from naica.structure.crystal import Crystal
from naica.structure.elements import element, symbol

ALPHA = -5.0
THRESHOLD = 1e-3
_SPECIES = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)([+-])")

Ion = tuple[int, int]
"""Atomic number and charge."""


def ion(species: str) -> Ion:
    """Atomic number and charge of ``Mg2+``, ``Cl-``, ``O2-``.

    Raises
    ------
    InputError
        If the text is no ion of an element with whole charge.
    """
    found = _SPECIES.fullmatch(species.strip())
    if found is None:
        raise InputError(f"{species!r} is no ion; expected something like Mg2+, Na+ or O2-")
    name, size, sign = found.groups()
    charge = float(size or 1) * (1 if sign == "+" else -1)
    if charge != int(charge):
        raise InputError(f"ion {species!r} has a broken charge; expected a whole number")
    return element(name).number, int(charge)


def ion_name(ion_: Ion) -> str:
    """``Mg2+`` for (12, 2)."""
    number, charge = ion_
    size = "" if abs(charge) == 1 else str(abs(charge))
    return f"{symbol(number)}{size}{'-' if charge < 0 else '+'}"


@cache
def _shipped_weights() -> tuple[tuple[Ion, ...], NDArray[np.float64]]:
    """Ions of pymatgen's table in order of number and charge, and their weights (n, n); NaN where a pair was never seen."""
    places = (find_spec("pymatgen") or _no_table("pymatgen is not installed")).submodule_search_locations or []
    path = next((p for p in (Path(s) / "core/structure_prediction/data/lambda.json" for s in places) if p.exists()), None)
    if path is None:
        path = next((p for s in places for p in Path(s).rglob("lambda.json")), None) or _no_table(f"no lambda.json below {list(places)}")
    # deuterium is no ion of its own; pymatgen skips it too
    rows = [(ion(a), ion(b), float(w)) for a, b, w in json.loads(path.read_text()) if "D1+" not in (a, b)]
    ions = tuple(sorted({i for a, b, _ in rows for i in (a, b)}))
    index = {i: k for k, i in enumerate(ions)}
    weights = np.full((len(ions), len(ions)), np.nan)
    for a, b, weight in rows:
        weights[index[a], index[b]] = weights[index[b], index[a]] = weight
    return ions, weights


def _no_table(why: str) -> Any:
    raise MissingPart(f"the substitution table of pymatgen was not found: {why}; install it with `pip install pymatgen-core`")


@dataclass(frozen=True, eq=False)
class SubstitutionTable:
    """Probabilities P(new | old) between the ions of the mined table, with GNoME's changes 1 and 2 as switches.

    Parameters
    ----------
    differences_only : an unchanged ion contributes the factor 1
    floor : the least weight of any pair, never-seen pairs included; None for the original model
    alpha : weight of pairs never seen
    """

    differences_only: bool = True
    floor: float | None = 0.0
    alpha: float = ALPHA

    @cached_property
    def ions(self) -> tuple[Ion, ...]:
        """All ions of the table, by atomic number and charge."""
        return _shipped_weights()[0]

    @cached_property
    def index(self) -> dict[Ion, int]:
        """Row of each ion."""
        return {i: k for k, i in enumerate(self.ions)}

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """(n, n) weights λ as used, symmetric."""
        raw = _shipped_weights()[1]
        filled = np.where(np.isnan(raw), self.alpha, raw)
        return filled if self.floor is None else np.maximum(filled, self.floor)

    @cached_property
    def partition(self) -> float:
        """Z, the sum of exp λ over all ordered pairs."""
        return float(np.exp(self.weights).sum())

    @cached_property
    def conditional(self) -> NDArray[np.float64]:
        """(n, n) P(new | old), new along rows; columns add up to one."""
        likelihood = np.exp(self.weights)
        return likelihood / likelihood.sum(axis=0)

    def row(self, species: str | Ion) -> int:
        """Row of an ion in the table.

        Raises
        ------
        InputError
            If the table has no such ion; the message names the states of the element it does have.
        """
        wanted = ion(species) if isinstance(species, str) else species
        if wanted not in self.index:
            have = [ion_name(i) for i in self.ions if i[0] == wanted[0]]
            raise InputError(f"the substitution table has no {ion_name(wanted)}; of this element it has {', '.join(have) or 'nothing'}")
        return self.index[wanted]

    def probability(self, new: str | Ion, old: str | Ion) -> float:
        """P(new | old) as mined (the switch `differences_only` does not touch it)."""
        return float(self.conditional[self.row(new), self.row(old)])

    def factors(self, old: int) -> NDArray[np.float64]:
        """(n,) factor of each ion in place of the ion of row `old`."""
        column = self.conditional[:, old].copy()
        if self.differences_only:
            column[old] = 1.0
        return column

    def search(
        self, old: Sequence[int], threshold: float = THRESHOLD, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All ways to replace the ions of rows `old` by distinct ions with a product of factors above `threshold`.

        Returns (m, k) rows of the new ions and (m,) products, most probable first, ties by row; the identity is among them where it passes.
        Branch and bound, one position at a time for all branches at once: with factors sorted, the children a branch may have are a prefix,
        bounded by threshold / (product so far × best factors of the positions to come).
        """
        columns = [self.factors(b) if allowed is None else np.where(allowed, self.factors(b), 0.0) for b in old]
        ranked = [np.argsort(-c, kind="stable") for c in columns]
        best = np.cumprod([1.0] + [c.max() for c in columns[::-1]])[::-1]
        product, chosen = np.ones(1), np.empty((1, 0), dtype=np.int64)
        for column, order, rest in zip(columns, ranked, best[1:], strict=True):
            # a bound a hair too low cannot lose a result; the last position is decided exactly below
            least = threshold / np.maximum(product * rest, 1e-300) * (1 - 1e-12)
            n_children = np.searchsorted(-column[order], -least, side="left")
            branch = np.repeat(np.arange(len(product)), n_children)
            rank = np.arange(len(branch)) - np.repeat(np.cumsum(n_children) - n_children, n_children)
            new = order[rank]
            distinct = ~(chosen[branch] == new[:, None]).any(axis=1)
            branch, new = branch[distinct], new[distinct]
            product, chosen = product[branch] * column[new], np.column_stack([chosen[branch], new])
        passed = product > threshold
        product, chosen = product[passed], chosen[passed]
        order = np.lexsort((*chosen.T[::-1], -product))
        return chosen[order], product[order]

    def predict(self, species: Sequence[str], threshold: float = THRESHOLD) -> list[tuple[tuple[str, ...], float]]:
        """The ions that may take the place of `species`, in the same order, with their probability; most probable first.

        Raises
        ------
        InputError
            For ions the table does not know, or an ion named twice.
        """
        if len(set(species)) != len(species) or not species:
            raise InputError(f"species {list(species)}; expected each ion once")
        chosen, product = self.search([self.row(s) for s in species], threshold)
        return [(tuple(ion_name(self.ions[k]) for k in new), float(p)) for new, p in zip(chosen, product, strict=True)]


@dataclass(frozen=True, eq=False)
class IonicParent:
    """A parent whose sites have oxidation states the table knows: its ions, their rows in the table and the sites of each."""

    crystal: Crystal
    ions: tuple[Ion, ...]
    rows: tuple[int, ...]
    sites: tuple[NDArray[np.int64], ...]


def ionic_parents(parents: Mapping[str, Crystal], table: SubstitutionTable, dropped: Counter[str]) -> Iterator[IonicParent]:
    """The parents that can be decorated, in order of their hash; `dropped` counts the others by reason."""
    from naica.structure.oxidation import decorate

    for key in sorted(parents):
        crystal = parents[key]
        species = decorate(crystal)
        if species is None:
            dropped["no oxidation states can be assigned"] += 1
            continue
        found = [ion(s) for s in species]
        ions = tuple(sorted(set(found)))
        if any(i not in table.index for i in ions):
            dropped["an ion is not in the substitution table"] += 1
            continue
        sites = tuple(np.flatnonzero([f == i for f in found]) for i in ions)
        yield IonicParent(crystal, ions, tuple(table.index[i] for i in ions), sites)


class Substitutions:
    """Substituted candidates of many parents as pairs (recipe, probability), most probable first.

    Parameters
    ----------
    parents : crystals by key; recipes name them by their content hash
    elements : only compounds of these elements; None for all the table knows
    threshold : accept probabilities above this
    known_formulas : reduced formulas to skip (change 4); the parents' own are always skipped
    balanced : keep only results whose charges add up to zero
    table : the probabilities, with changes 1 and 2 on by default

    `dropped` counts the parents that could not be used, by reason, and the results that no recipe can express: those in which two states
    of one element (mixed valence) become two elements. The order does not depend on the order of `parents`.
    """

    def __init__(
        self,
        parents: Mapping[str, Crystal],
        elements: Collection[str] | None = None,
        *,
        threshold: float = THRESHOLD,
        known_formulas: Collection[str] = frozenset(),
        balanced: bool = False,
        table: SubstitutionTable | None = None,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.table = table or SubstitutionTable()
        self._threshold = threshold
        self._balanced = balanced
        self._known = frozenset(known_formulas)
        self._allowed = allowed_ions(self.table, elements)
        self._parents = list(ionic_parents({c.hash: c for c in parents.values()}, self.table, self.dropped))

    def __iter__(self) -> Iterator[tuple[Recipe, float]]:
        """Recipes and probabilities; parents are searched on the first step, recipes are made as they are asked for."""
        branches = [self._of_parent(at, parent) for at, parent in enumerate(self._parents)]
        for negative, at, new in merge(*branches):
            recipe = self._recipe(self._parents[at], new)
            if recipe is not None:
                yield recipe, -negative

    def _of_parent(self, at: int, parent: IonicParent) -> Iterator[tuple[float, int, tuple[int, ...]]]:
        chosen, product = self.table.search(parent.rows, self._threshold, self._allowed)
        numbers = np.array([i[0] for i in self.table.ions])
        if self._balanced:
            charges = np.array([i[1] for i in self.table.ions])
            neutral = charges[chosen] @ np.array([len(s) for s in parent.sites]) == 0
            chosen, product = chosen[neutral], product[neutral]
        # states of one element make the same atoms: the most probable of them speaks for all
        first: list[int] = sorted(np.unique(numbers[chosen], axis=0, return_index=True)[1].tolist()) if len(chosen) else []
        old = tuple(i[0] for i in parent.ions)
        for k in first:
            new = tuple(int(z) for z in numbers[chosen[k]])
            if new != old:
                yield -float(product[k]), at, new

    def _recipe(self, parent: IonicParent, new: tuple[int, ...]) -> Recipe | None:
        """The recipe of new elements for the parent's ions; None for a known formula or what a recipe cannot say."""
        counts: Counter[str] = Counter()
        for z, sites in zip(new, parent.sites, strict=True):
            counts[symbol(z)] += len(sites)
        formula = whole_formula(counts)
        if formula in self._known or formula == parent.crystal.formula:
            return None
        old = [i[0] for i in parent.ions]
        changed = {(a, b) for a, b in zip(old, new, strict=True) if a != b}
        if any(p[0] == q[0] for p, q in pairwise(sorted(changed))):
            self.dropped["states of one element would become different elements"] += 1
            return None
        # with mixed valence only some sites of an element may change: then the mask says which
        whole = all((a, b) in changed or a not in {p for p, _ in changed} for a, b in zip(old, new, strict=True))
        mask = () if whole else tuple(int(s) for a, b, sites in zip(old, new, parent.sites, strict=True) if a != b for s in sites)
        return Recipe(parent.crystal.hash, tuple(changed), mask, origin="substitution")


class SubstitutionStream:
    """Substituted candidates of any number of parents as pairs (recipe, probability), parent after parent, each parent's likeliest first.

    The parents may be a generator or a table of any length: one is looked at a time, nothing of it is kept. Parameters as in
    `Substitutions`; `limit` is the most recipes of one parent.
    """

    def __init__(
        self,
        parents: Iterable[Crystal],
        elements: Collection[str] | None = None,
        *,
        threshold: float = THRESHOLD,
        known_formulas: Collection[str] = frozenset(),
        balanced: bool = False,
        limit: int | None = None,
        table: SubstitutionTable | None = None,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._parents, self._limit = parents, limit
        self._table = table or SubstitutionTable()
        self._options: dict[str, Any] = {
            "elements": elements,
            "threshold": threshold,
            "known_formulas": known_formulas,
            "balanced": balanced,
        }

    def __iter__(self) -> Iterator[tuple[Recipe, float]]:
        """Recipes and probabilities; `dropped` is complete at the end."""
        for crystal in self._parents:
            one = Substitutions({crystal.hash: crystal}, table=self._table, **self._options)
            yield from islice(iter(one), self._limit)
            self.dropped.update(one.dropped)


def whole_formula(counts: Mapping[str, int]) -> str:
    """The reduced formula of whole amounts, without the detour over fractions that `reduced_formula` takes."""
    divisor = gcd(*counts.values())
    return format_formula({s: n // divisor for s, n in counts.items()})


def allowed_ions(table: SubstitutionTable, elements: Collection[str] | None) -> NDArray[np.bool_] | None:
    """(n,) which ions of the table belong to `elements`; None if all do.

    Raises
    ------
    InputError
        If one of `elements` is none.
    """
    if elements is None:
        return None
    wanted = {element(s).number for s in elements}
    return np.array([i[0] in wanted for i in table.ions])


def substitutions(
    parents: Mapping[str, Crystal],
    elements: Collection[str] | None = None,
    *,
    threshold: float = THRESHOLD,
    known_formulas: Collection[str] = frozenset(),
    balanced: bool = False,
) -> Iterator[Recipe]:
    """The recipes of `Substitutions`, most probable first. Use the class to see probabilities and the parents that were dropped."""
    found = Substitutions(parents, elements, threshold=threshold, known_formulas=known_formulas, balanced=balanced)
    return (recipe for recipe, _ in found)
