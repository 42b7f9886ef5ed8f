"""The hull of stable compounds: energies of competing phases, distances to them, decompositions.

With at most five elements the hull is the maximum over its supporting planes (Merchant et al. 2023 use the same quantity as decomposition
energy). With more, each chemical system of up to five elements has planes of its own, made when first asked for, and compositions of six
and more elements are solved as linear programmes over the phases that can still compete. A hull of all elements with tens of thousands of
entries is thus a set of small hulls, and a new phase below the hull costs only those whose elements include all of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naica.discover.facets import Facets, cheapest_mixture, heights, lower_facets, mixture, summits
from naica.discover.proportions import amounts_table
from naica.errors import InputError
from naica.structure.composition import format_formula

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Compositions = Sequence[str | Mapping[str, float]] | NDArray[np.float64] | NDArray[np.int64]

# qhull's cost grows about tenfold per element; above this the linear programme is cheaper
_MOST_ELEMENTS_FOR_PLANES = 5
# formation energies above this cannot be corners: the elements themselves lie at 0
_BOUND = -1e-12


class Hull:
    """The lower convex hull of energies over compositions. Immutable.

    Parameters
    ----------
    formulas : n formulas, or mappings symbol → amount
    energies_per_atom : (n,) eV/atom, total or formation energies, all of one kind and one level of theory
    ids : n distinct names; default ``"0"``, ``"1"`` …
    elements : order of the elements; default alphabetical. Each must be among the entries: its lowest entry is its reference.

    Raises
    ------
    InputError
        For energies that are not finite, formulas that cannot be read, repeated ids and elements without an entry; all named.
    """

    def __init__(
        self,
        formulas: Sequence[str | Mapping[str, float]],
        energies_per_atom: ArrayLike,
        ids: Sequence[str] | None = None,
        elements: Sequence[str] | None = None,
    ) -> None:
        names = [str(k) for k in range(len(formulas))] if ids is None else [str(i) for i in ids]
        found, counts = amounts_table(formulas, elements)
        self._fill(found, counts, _checked(energies_per_atom, formulas, names), names)

    def _fill(self, elements: tuple[str, ...], counts: Index, energies: Array, ids: list[str]) -> None:
        if not len(counts):
            raise InputError("a hull needs entries: at least the pure elements")
        self.elements, self.ids = elements, ids
        self.counts, self.energies = counts, energies
        self.fractions: Array = counts / counts.sum(axis=1, keepdims=True)
        self._row = _rows_of(ids)
        self._lowest = _lowest_per_composition(counts, energies)
        self._finish()

    def _finish(self) -> None:
        """What follows from entries, their fractions and the lowest row of each composition."""
        self.references = self._element_energies()
        self._formation: Array = self.energies - self.fractions @ self.references
        self._faces: dict[int, tuple[Index, Facets | None]] = {}
        self._freeze()

    def _freeze(self) -> None:
        for array in (self.counts, self.energies, self.fractions, self.references, self._formation):
            array.setflags(write=False)

    def _element_energies(self) -> Array:
        alone = np.flatnonzero(np.count_nonzero(self.counts, axis=1) == 1)
        pure: dict[int, int] = {}
        for row in alone[np.argsort(self.energies[alone], kind="stable")].tolist():
            pure.setdefault(int(np.argmax(self.counts[row])), row)
        missing = [symbol for k, symbol in enumerate(self.elements) if k not in pure]
        if missing:
            raise InputError(
                f"no entry for the pure element {', '.join(missing)}; the hull needs one entry per element as its reference "
                f"(elements here: {', '.join(self.elements)})"
            )
        return np.array([self.energies[pure[k]] for k in range(len(self.elements))])

    # --- asking ------------------------------------------------------------------------------------------------------------
    def fractions_of(self, formulas: Compositions) -> Array:
        """Atomic fractions (B, K) in the order of `elements`; an array (B, K) of amounts is normalised.

        Raises
        ------
        InputError
            If a composition holds an element the hull lacks.
        """
        if isinstance(formulas, np.ndarray):
            return self._normalised(formulas, len(self.elements), self.elements)
        items = [formulas] if isinstance(formulas, str | Mapping) else formulas
        amounts = amounts_table(items, self.elements)[1].astype(np.float64)
        return amounts / amounts.sum(axis=1, keepdims=True)

    def energy(self, formulas: Compositions) -> Array:
        """Hull energies (B,) in eV/atom, of the kind the hull was made of (total or formation)."""
        x = self.fractions_of(formulas)
        return self._heights(x) + x @ self.references

    def energy_in(self, elements: Sequence[str], amounts: ArrayLike) -> Array:
        """Hull energies (B,) in eV/atom of compositions of a few elements: `amounts` (B, k) in the order of `elements` (k names).

        The same as `energy`, without a column for every element of the hull: the way to ask a large hull for millions of compositions.

        Raises
        ------
        InputError
            For elements the hull lacks or named twice, amounts of another shape, negative or all 0.
        """
        column = {s: k for k, s in enumerate(self.elements)}
        missing = [s for s in elements if s not in column]
        if missing or len(set(elements)) != len(elements):
            raise InputError(f"elements {', '.join(elements)}: {', '.join(missing) or 'one'} not in this hull, or named twice")
        places = np.array([column[s] for s in elements], dtype=np.int64)
        order = np.argsort(places)
        x = self._normalised(amounts, len(elements), elements)[:, order]
        used = places[order]
        # zeros put a composition into a smaller system; the planes of the larger one hold there too
        facets = self._face(used)[1] if len(used) <= _MOST_ELEMENTS_FOR_PLANES else None
        if facets:
            return summits(facets, x) + x @ self.references[used]
        wide = np.zeros((len(x), len(self.elements)))
        wide[:, used] = x
        return self._heights(wide) + x @ self.references[used]

    @staticmethod
    def _normalised(amounts: ArrayLike, k: int, names: Sequence[str]) -> Array:
        values = np.atleast_2d(np.asarray(amounts, dtype=np.float64))
        total = values.sum(axis=1, keepdims=True) if values.ndim == 2 else np.zeros(1)
        if values.ndim != 2 or values.shape[1] != k or not np.all(values >= 0) or not np.all(total > 0):
            raise InputError(
                f"amounts of shape {values.shape}; expected (B, {k}), none negative and not all 0, in the order {', '.join(names)}"
            )
        return values / total

    def above(self, formulas: Compositions, energies_per_atom: ArrayLike) -> Array:
        """Decomposition energies (B,) in eV/atom: energy less hull energy; negative where a phase would be new on the hull."""
        return np.asarray(energies_per_atom, dtype=np.float64) - self.energy(formulas)

    @cached_property
    def above_hull(self) -> Array:
        """Distances (n,) of the hull's own entries, eV/atom, never negative."""
        unique, back = np.unique(self.counts, axis=0, return_inverse=True)
        levels = self._heights(unique / unique.sum(axis=1, keepdims=True))[back.reshape(-1)]
        return np.maximum(self._formation - levels, 0.0)

    def stable(self, tolerance: float = 1e-8) -> list[str]:
        """Ids of the entries at most `tolerance` eV/atom above the hull, in the order of the entries."""
        return [self.ids[row] for row in np.flatnonzero(self.above_hull <= tolerance)]

    def formation_energies(self) -> Array:
        """Formation energies (n,) of the entries in eV/atom, from the elements of this hull."""
        return self._formation

    def formula(self, id: str) -> str:
        """Reduced formula of an entry."""
        row = self.counts[self._find(id)]
        return format_formula({s: int(n) for s, n in zip(self.elements, row, strict=True) if n})

    def row(self, id: str) -> int:
        """Row of an entry by its id."""
        return self._find(id)

    def lowest(self, formula: str | Mapping[str, float]) -> int:
        """Row of the lowest entry of a composition.

        Raises
        ------
        InputError
            If there is none.
        """
        counts = amounts_table([formula], self.elements)[1][0]
        if (row := self._lowest.get(counts.tobytes())) is None:
            raise InputError(f"{formula} is not among the {len(self.ids)} entries of this hull")
        return row

    def planes(self, elements: Sequence[str]) -> tuple[Index, Array]:
        """Rows of the entries that may be corners of the hull of a few elements, and its planes (F, k) in the order of `elements`.

        A plane is a set of chemical potentials in eV/atom, from those of the elements, at which the phases on it coexist.

        Raises
        ------
        InputError
            For unknown elements, more than five, or a system in which rounding leaves holes.
        """
        missing = [s for s in elements if s not in self.elements]
        if missing or not elements or len(set(elements)) != len(elements):
            raise InputError(f"elements {', '.join(elements)}: {', '.join(missing) or 'one'} not in this hull, or named twice")
        places = np.array([self.elements.index(s) for s in elements])
        order = np.argsort(places)
        rows, facets = self._face(places[order])
        if facets is None:
            raise InputError(f"the hull of {', '.join(elements)} has no list of planes: {len(elements)} elements, at most 5 can be listed")
        return rows, facets.planes[:, np.argsort(order)]

    def decomposition(self, formula: str | Mapping[str, float]) -> dict[str, float]:
        """The phases a composition falls into on the hull: id → share of the atoms; shares sum to 1."""
        x = self.fractions_of([formula])[0]
        used = np.flatnonzero(x > 0)
        rows, facets = self._face(used)
        spot = mixture(facets, self.fractions[np.ix_(rows, used)], x[used]) if facets else None
        if spot is None:
            rows = self._competitors(used)
            _, picked, weights, _ = cheapest_mixture(self.fractions[np.ix_(rows, used)], self._formation[rows], x[used])
            spot = picked, weights
        phases = {self.ids[rows[k]]: float(w) for k, w in zip(*spot, strict=True) if w > 1e-9}
        total = sum(phases.values())
        return {name: w / total for name, w in sorted(phases.items(), key=lambda item: -item[1])}

    def chemical_potentials(self, formula: str | Mapping[str, float]) -> dict[str, float]:
        """Chemical potentials in eV/atom of the elements in a formula, on the scale of the hull's energies.

        Unique inside a facet of the formula's own chemical system; at a corner (a stable phase) they are one of the possible sets.
        """
        x = self.fractions_of([formula])[0]
        used = np.flatnonzero(x > 0)
        rows, facets = self._face(used)
        if facets:
            mu = facets.planes[heights(facets, x[None, used])[1][0]]
        else:
            mu = cheapest_mixture(self.fractions[np.ix_(rows, used)], self._formation[rows], x[used])[3]
        return {self.elements[k]: float(m + self.references[k]) for k, m in zip(used, mu, strict=True)}

    def separation(self, id: str) -> float:
        """Phase-separation energy of an entry in eV/atom: its energy less that of the best mixture of *other* compositions.

        Negative for stable compounds (the depth of the hull there), and defined for every polymorph (Bartel et al. 2020, "decomposition
        enthalpy"). Elements have no other composition to fall into: for them it is the distance to the element's lowest entry.
        """
        row = self._find(id)
        used = np.flatnonzero(self.counts[row])
        if len(used) == 1:
            return float(self._formation[row])
        rivals = self._rivals(row, used)
        x = self.fractions[row, used]
        return float(self._formation[row] - cheapest_mixture(self.fractions[np.ix_(rivals, used)], self._formation[rivals], x)[0])

    def decomposition_without(self, id: str) -> dict[str, float]:
        """The mixture of *other* compositions an entry competes with: id → share of the atoms (itself for elements)."""
        row = self._find(id)
        used = np.flatnonzero(self.counts[row])
        if len(used) == 1:
            return {self.ids[self._lowest[self.counts[row].tobytes()]]: 1.0}
        rivals = self._rivals(row, used)
        _, picked, weights, _ = cheapest_mixture(self.fractions[np.ix_(rivals, used)], self._formation[rivals], self.fractions[row, used])
        return {self.ids[rivals[k]]: float(w) for k, w in sorted(zip(picked, weights, strict=True), key=lambda item: -item[1])}

    # --- growing -----------------------------------------------------------------------------------------------------------
    def with_entries(
        self, formulas: Sequence[str | Mapping[str, float]], energies_per_atom: ArrayLike, ids: Sequence[str] | None = None
    ) -> Hull:
        """A hull with further entries; this one stays as it is.

        Planes are kept for every chemical system that holds no new phase below the present hull, that is for all but the supersets of the
        systems of such phases; what lies on or above the present hull costs no planes at all.
        """
        names = [str(len(self.ids) + k) for k in range(len(formulas))] if ids is None else [str(i) for i in ids]
        energies = _checked(energies_per_atom, formulas, names)
        elements, fresh = amounts_table(formulas)
        order = self.elements + tuple(sorted(set(elements) - set(self.elements)))
        wider = len(order) - len(self.elements)
        news = np.zeros((len(fresh), len(order)), dtype=np.int64)
        news[:, [order.index(s) for s in elements]] = fresh
        known = ~np.any(news[:, len(self.elements) :] > 0, axis=1)
        changes = ~known
        if known.any():
            changes[known] = self.above(news[known][:, : len(self.elements)], energies[known]) < 0
        shares = news / np.maximum(news.sum(axis=1, keepdims=True), 1)
        pure = np.flatnonzero(np.count_nonzero(news, axis=1) == 1)
        place = news[pure].argmax(axis=1)
        if wider or np.any(energies[pure] < self.references[place]):
            # new elements, or new references of old ones
            grown = self._widened(order, news, energies, shares, self.ids + names)
        else:
            grown = self._lengthened(news, energies, shares, names)
        # corners are kept by the row of the entry, and old rows and columns stay where they were
        masks = [_mask(np.flatnonzero(one)) for one in np.unique(news[changes] > 0, axis=0)]
        grown._faces = {key: face for key, face in self._faces.items() if not any(mask & key == mask for mask in masks)}
        return grown

    def _widened(self, elements: tuple[str, ...], news: Index, energies: Array, shares: Array, ids: list[str]) -> Hull:
        """A hull with further entries and all that follows from them, without planes."""
        wider = len(elements) - len(self.elements)
        grown = Hull.__new__(Hull)
        grown.elements, grown.ids = elements, ids
        grown.counts = np.concatenate([np.pad(self.counts, ((0, 0), (0, wider))), news])
        grown.energies = np.concatenate([self.energies, energies])
        grown.fractions = np.concatenate([np.pad(self.fractions, ((0, 0), (0, wider))), shares])
        grown._row = _rows_of(ids)
        grown._lowest = _lowest_per_composition(grown.counts, grown.energies)
        grown._finish()
        return grown

    def _lengthened(self, news: Index, energies: Array, shares: Array, names: list[str]) -> Hull:
        """The same where elements and references stay: only what is new is worked out."""
        old = len(self.counts)
        grown = Hull.__new__(Hull)
        grown.elements, grown.ids, grown.references = self.elements, self.ids + names, self.references
        grown._row = {**self._row, **{name: old + k for k, name in enumerate(names)}}
        if len(grown._row) != len(grown.ids):
            _rows_of(grown.ids)  # says which one
        grown.counts = np.concatenate([self.counts, news])
        grown.energies = np.concatenate([self.energies, energies])
        grown.fractions = np.concatenate([self.fractions, shares])
        fresh = energies - shares @ self.references
        grown._formation = np.concatenate([self._formation, fresh])
        grown._lowest = dict(self._lowest)
        systems = dict(self._systems)
        for k in np.argsort(energies, kind="stable").tolist():
            key = news[k].tobytes()
            before = grown._lowest.get(key)
            if before is not None and energies[k] >= grown.energies[before]:
                continue
            grown._lowest[key] = old + k
            inside = np.flatnonzero(news[k])
            if len(inside) > 1 and fresh[k] >= _BOUND:
                continue
            mine = systems.get(system := tuple(inside.tolist()), np.zeros(0, dtype=np.int64))
            systems[system] = np.append(mine[mine != before] if before is not None else mine, old + k)
        grown.__dict__["_systems"] = systems
        grown._freeze()
        return grown

    # --- inside --------------------------------------------------------------------------------------------------------------
    def _find(self, id: str) -> int:
        if id not in self._row:
            raise InputError(f"no entry {id!r} in this hull of {len(self.ids)} entries")
        return self._row[id]

    def _corner_rows(self, used: Index) -> Index:
        """Rows that may be corners of the hull of some elements: lowest of their composition, and elements or bound."""
        if len(used) <= _MOST_ELEMENTS_FOR_PLANES:
            systems = self._systems
            parts = [systems[key] for key in _subsets(used) if key in systems]
            return np.sort(np.concatenate(parts))
        rows, kinds = self._corners
        allowed = np.zeros((1, len(self.elements)), dtype=bool)
        allowed[0, used] = True
        return rows[~np.any(kinds & ~_packed(allowed), axis=1)]

    @cached_property
    def _corners(self) -> tuple[Index, NDArray[np.uint64]]:
        """Rows that may be corners of any hull, and which elements each holds, one bit per element."""
        rows = np.sort(np.fromiter(self._lowest.values(), dtype=np.int64, count=len(self._lowest)))
        holds = self.counts[rows] > 0
        kept = (np.count_nonzero(holds, axis=1) == 1) | (self._formation[rows] < _BOUND)
        return rows[kept], _packed(holds[kept])

    @cached_property
    def _systems(self) -> dict[tuple[int, ...], Index]:
        """The corner rows of each chemical system by its elements, without those of smaller systems."""
        rows, kinds = self._corners
        found = {}
        for members in _groups(kinds):
            mine = rows[members]
            found[tuple(np.flatnonzero(self.counts[mine[0]]).tolist())] = mine
        return found

    def _rivals(self, row: int, used: Index) -> Index:
        """Corner rows of some elements, without those of the composition of `row`."""
        rows = self._corner_rows(used)
        return rows[np.any(self.counts[rows] != self.counts[row], axis=1)]

    def _face(self, used: Index) -> tuple[Index, Facets | None]:
        """Rows and facets of the hull over some elements; None instead of facets where only the linear programme will do."""
        key = _mask(used)
        if key not in self._faces:
            rows = self._corner_rows(used)
            few = len(used) <= _MOST_ELEMENTS_FOR_PLANES
            self._faces[key] = rows, lower_facets(self.fractions[np.ix_(rows, used)], self._formation[rows]) if few else None
        return self._faces[key]

    def _competitors(self, used: Index) -> Index:
        """Corner rows of some elements, less those that the hulls of their own (smaller) chemical systems already rule out."""
        rows = self._corner_rows(used)
        small = np.count_nonzero(self.counts[rows], axis=1) <= _MOST_ELEMENTS_FOR_PLANES
        ruled_out = np.zeros(len(rows), dtype=bool)
        ruled_out[small] = self._formation[rows[small]] > self._heights(self.fractions[rows[small]]) + 1e-9
        return rows[~ruled_out]

    def _heights(self, x: Array) -> Array:
        """Hull formation energies (B,) at fractions (B, K)."""
        everything = np.arange(len(self.elements))
        if len(self.elements) <= _MOST_ELEMENTS_FOR_PLANES and (facets := self._face(everything)[1]):
            return summits(facets, x)
        values = np.empty(len(x))
        for members in _groups(_packed(x > 0)):
            used = np.flatnonzero(x[members[0]] > 0)
            facets = self._face(used)[1]
            part = x[np.ix_(members, used)]
            values[members] = summits(facets, part) if facets else self._solved(used, part)
        return values

    def _solved(self, used: Index, x: Array) -> Array:
        """Hull formation energies of one chemical system by one linear programme per distinct composition."""
        smaller = len(used) > _MOST_ELEMENTS_FOR_PLANES
        rows = self._competitors(used) if smaller else self._corner_rows(used)
        points, energies = self.fractions[np.ix_(rows, used)], self._formation[rows]
        unique, back = np.unique(x, axis=0, return_inverse=True)
        return np.array([cheapest_mixture(points, energies, one)[0] for one in unique])[back.reshape(-1)]


def _checked(energies_per_atom: ArrayLike, formulas: Sequence[object], ids: Sequence[str]) -> Array:
    energies = np.array(energies_per_atom, dtype=np.float64).reshape(-1)
    if not len(formulas) == len(energies) == len(ids):
        raise InputError(f"{len(formulas)} formulas, {len(energies)} energies and {len(ids)} ids; their numbers must agree")
    bad = np.flatnonzero(~np.isfinite(energies))
    if len(bad):
        k = int(bad[0])
        more = f" (and {len(bad) - 1} more like it)" if len(bad) > 1 else ""
        raise InputError(
            f"entry {ids[k]!r} ({formulas[k]}) has energy {energies[k]}{more}; a hull needs finite energies: leave such entries out"
        )
    return energies


def _lowest_per_composition(counts: Index, energies: Array) -> dict[bytes, int]:
    """Row of the lowest entry of each composition, by its integer amounts; the first of equals."""
    lowest: dict[bytes, int] = {}
    for row in np.argsort(energies, kind="stable").tolist():
        lowest.setdefault(counts[row].tobytes(), row)
    return lowest


def _packed(holds: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Which elements (n, K) as bits in (n, ceil(K / 64)) words."""
    wide = np.zeros((len(holds), -(-holds.shape[1] // 64) * 64), dtype=bool)
    wide[:, : holds.shape[1]] = holds
    return np.packbits(wide, axis=1).view(np.uint64)


def _groups(words: NDArray[np.uint64]) -> list[Index]:
    """Rows (n, w) that are equal, as index arrays that together hold every row once, in order within."""
    if not len(words):
        return []
    order = np.lexsort(words.T[::-1])
    ordered = words[order]
    new = np.flatnonzero(np.any(ordered[1:] != ordered[:-1], axis=1)) + 1
    return np.split(order, new)


def _mask(used: Index) -> int:
    """A few elements as the bits of one whole number."""
    mask = 0
    for k in used.tolist():
        mask |= 1 << k
    return mask


def _subsets(used: Index) -> list[tuple[int, ...]]:
    """All non-empty subsets of a few elements, each in ascending order."""
    names = used.tolist()
    return [subset for size in range(1, len(names) + 1) for subset in combinations(names, size)]


def _rows_of(ids: list[str]) -> dict[str, int]:
    found = {name: row for row, name in enumerate(ids)}
    if len(found) != len(ids):
        repeated = next(name for name, n in Counter(ids).items() if n > 1)
        raise InputError(f"id {repeated!r} occurs twice among the hull's entries; ids must differ")
    return found
