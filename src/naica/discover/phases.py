"""What a hull says about keeping and making a phase: windows of chemical potentials, open systems, and reactions that make it.

Chemical potentials are Δμ in eV/atom, from those of the elements in their lowest entries: 0 is equilibrium with the element, and no Δμ can
be above that. On the hull's planes they come for free: a plane is a set of Δμ at which the phases on it coexist, so the planes through a
phase are the corners of the region of Δμ in which it is stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import comb, gcd, lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.discover.hull import Hull
from naica.errors import InputError
from naica.structure.composition import format_formula

Array = NDArray[np.float64]

ON_HULL = 1e-6
"""eV/atom above the hull up to which a phase has a window."""
_SAME_PLANE = 1e-8
_MOST_SETS = 300_000
_POINTS_ON_LINE = 257
_LISTED = 5  # most elements whose planes a hull can list


# --- windows -------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Window:
    """Where in the chemical potentials of its own elements a phase is stable: the convex hull of `corners`.

    Attributes
    ----------
    id, formula : of the phase
    elements : K symbols
    corners : (n, K) Δμ in eV/atom
    beside : for each corner the formulas of the phases that coexist with it there
    """

    id: str
    formula: str
    elements: tuple[str, ...]
    corners: Array
    beside: tuple[tuple[str, ...], ...]

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest Δμ of each element at which the phase is stable, eV/atom."""
        return {s: (float(self.corners[:, k].min()), float(self.corners[:, k].max())) for k, s in enumerate(self.elements)}

    def pair(self, first: str, second: str) -> Array:
        """(m, 2) corners of the window seen along two elements, in order around it; two points where it is a line.

        Raises
        ------
        InputError
            For elements that are not two of the phase's.
        """
        if first == second or not {first, second} <= set(self.elements):
            raise InputError(f"{self.formula} has no pair of elements {first}, {second}; it holds {', '.join(self.elements)}")
        spots = self.corners[:, [self.elements.index(first), self.elements.index(second)]]
        return _outline(spots)


def window(hull: Hull, id: str) -> Window:
    """The window of a phase on the hull, in the system of its own elements (at most five).

    Raises
    ------
    InputError
        For a phase that is not on the hull, and for more than five elements.
    """
    row = hull.row(id)
    above = float(hull.above_hull[row])
    formula = hull.formula(id)
    if above > ON_HULL:
        raise InputError(f"{formula} ({id}) lies {above:.4f} eV/atom above the hull: no chemical potentials make it stable")
    used = np.flatnonzero(hull.counts[row])
    names = tuple(hull.elements[k] for k in used)
    rows, planes = hull.planes(names)
    x, e = hull.fractions[row, used], float(hull.formation_energies()[row])
    corners = planes[np.abs(planes @ x - e) <= ON_HULL + _SAME_PLANE]
    points, energies = hull.fractions[np.ix_(rows, used)], hull.formation_energies()[rows]
    beside = []
    for corner in corners:
        there = rows[np.abs(points @ corner - energies) <= _SAME_PLANE]
        beside.append(tuple(sorted({hull.formula(hull.ids[r]) for r in there} - {formula})))
    return Window(id, formula, names, corners, tuple(beside))


def _outline(spots: Array) -> Array:
    """The corners of the convex hull of points (n, 2), counter-clockwise, by Andrew's monotone chain."""
    points = sorted({(round(float(a), 10), round(float(b), 10)) for a, b in spots})
    if len(points) < 3:
        return np.array(points)

    def half(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for p in line:
            while len(kept) > 1 and _turn(kept[-2], kept[-1], p) <= 1e-12:
                kept.pop()
            kept.append(p)
        return kept[:-1]

    return np.array(half(points) + half(points[::-1]))


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def diagram(hull: Hull, elements: Sequence[str], floor: float | None = None) -> dict[str, Array]:
    """The chemical-potential diagram of three elements: which phase is stable at which Δμ of the first two.

    Parameters
    ----------
    hull : a hull with these elements
    elements : three; the potential of the third follows from the phase that is stable
    floor : lowest Δμ shown, eV/atom; default 1.1 times the lowest at a corner of any window

    Returns
    -------
    Id of each phase with the third element → (m, 2) corners of its region, counter-clockwise. The regions tile the picture down to where
    the third element itself is at equilibrium.

    Raises
    ------
    InputError
        For another number of elements, unknown ones, or a floor that is not negative.
    """
    if len(elements) != 3:
        raise InputError(f"a chemical-potential diagram has three elements, got {len(elements)}: {', '.join(elements)}")
    rows, planes = hull.planes(elements)
    lowest = 1.1 * float(planes.min()) if floor is None else float(floor)
    if lowest >= 0:
        raise InputError(f"lowest chemical potential {lowest:g} eV/atom; expected a negative number")
    used = np.array([hull.elements.index(s) for s in elements])
    x, e = hull.fractions[np.ix_(rows, used)], hull.formation_energies()[rows]
    top = (planes @ x.T).max(axis=0)
    stable = np.flatnonzero(e - top <= ON_HULL)
    found = {}
    for k in stable:
        if x[k, 2] <= 0:
            continue
        region = np.array([[lowest, lowest], [0.0, lowest], [0.0, 0.0], [lowest, 0.0]])
        for q in stable:
            if q != k:
                # x_q · μ ≤ e_q with the third potential given by x_k · μ = e_k
                share = x[q, 2] / x[k, 2]
                region = _clipped(region, x[q, :2] - share * x[k, :2], float(e[q] - share * e[k]))
        if len(region) >= 3:
            found[hull.ids[rows[k]]] = region
    return found


def _clipped(polygon: Array, normal: Array, limit: float) -> Array:
    """The part of a convex polygon (m, 2) where normal · p ≤ limit."""
    if not len(polygon):
        return polygon
    side = polygon @ normal - limit
    kept: list[Array] = []
    for k in range(len(polygon)):
        here, there = polygon[k - 1], polygon[k]
        a, b = float(side[k - 1]), float(side[k])
        if (a < -1e-12 and b > 1e-12) or (a > 1e-12 and b < -1e-12):
            kept.append(here + (there - here) * (a / (a - b)))
        if b <= 1e-12:
            kept.append(there)
    return np.array(kept).reshape(-1, 2)


# --- open systems -------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OpenSystem:
    """Phases in contact with reservoirs of some elements.

    Attributes
    ----------
    potentials : Δμ of the elements of the reservoirs, eV/atom
    hull : over the other elements; its energies are φ = (E − Σ N_i μ_i) / N_other, eV per atom of the other elements
    formulas : whole formula of each id
    """

    potentials: dict[str, float]
    hull: Hull
    formulas: dict[str, str]

    def stable(self, tolerance: float = 1e-8) -> list[str]:
        """Ids of the phases that are stable under these potentials."""
        return self.hull.stable(tolerance)

    def above(self) -> dict[str, float]:
        """Distance of each id from equilibrium, eV per atom of the other elements."""
        return dict(zip(self.hull.ids, self.hull.above_hull.tolist(), strict=True))


def open_system(hull: Hull, potentials: Mapping[str, float]) -> OpenSystem:
    """Fix the chemical potentials of some elements (oxygen of a furnace, lithium of an electrode); `potentials` are Δμ in eV/atom.

    Raises
    ------
    InputError
        For elements the hull lacks, for all of them at once, and for Δμ above 0, at which the element itself would condense.
    """
    unknown = [s for s in potentials if s not in hull.elements]
    if unknown or not potentials:
        raise InputError(f"chemical potential of {', '.join(unknown) or 'nothing'}; this hull has {', '.join(hull.elements)}")
    high = [s for s, mu in potentials.items() if not np.isfinite(mu) or mu > 0]
    if high:
        raise InputError(f"Δμ of {high[0]} is {potentials[high[0]]:g} eV/atom; expected 0 (the element itself) or less")
    rest = [k for k, s in enumerate(hull.elements) if s not in potentials]
    if not rest:
        raise InputError("all elements are given a chemical potential; at least one must be left to the phases")
    x, e = hull.fractions, hull.formation_energies()
    share = x[:, rest].sum(axis=1)
    mu = np.array([potentials.get(s, 0.0) for s in hull.elements])
    kept = np.flatnonzero(share > 0)
    phi = (e[kept] - x[kept] @ mu) / share[kept]
    names = [hull.elements[k] for k in rest]
    parts = [{s: int(n) for s, n in zip(names, hull.counts[row, rest], strict=True) if n} for row in kept]
    ids = [hull.ids[row] for row in kept]
    return OpenSystem(dict(potentials), Hull(parts, phi, ids, names), {i: hull.formula(i) for i in ids})


# --- reactions -----------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Route:
    """A reaction that makes a target from phases on the hull.

    Attributes
    ----------
    reactants, products : (amount, id, formula), amounts whole numbers without a common factor; the target is the first product
    energy : reaction energy, eV per atom of the mixture; negative is downhill
    deepest : of two reactants, the lowest reaction energy of any mixture of them, eV/atom; None for more
    """

    reactants: tuple[tuple[int, str, str], ...]
    products: tuple[tuple[int, str, str], ...]
    energy: float
    deepest: float | None = None

    @property
    def margin(self) -> float | None:
        """How far the target's reaction is from being the deepest of the two reactants, eV/atom: 0 if it is."""
        return None if self.deepest is None else max(0.0, self.energy - self.deepest)

    def __str__(self) -> str:
        return " → ".join(
            " + ".join(f"{n if n > 1 else ''}{formula}" for n, _, formula in side) for side in (self.reactants, self.products)
        )


@dataclass(frozen=True)
class Synthesis:
    """What speaks for and against making a phase.

    `depth` is how far it lies below the best mixture of other phases (eV/atom, the inverse hull energy; negative if it is above), `rivals`
    those phases with their share of the atoms, `routes` the reactions that make it, best first.
    """

    id: str
    formula: str
    depth: float
    rivals: tuple[tuple[float, str, str], ...]
    routes: tuple[Route, ...]


def synthesis(
    hull: Hull, id: str, reactants: int = 2, byproducts: Sequence[str] = (), most: int | None = 20, elements: bool = True
) -> Synthesis:
    """Reactions of phases on the hull that make a target, balanced in exact fractions.

    Ranked as proposed by Chen et al., Nat. Synth. 3, 606 (2024): first those in which the target is the deepest point between two
    reactants, then by driving force. Reactions of the same elements with the same phases in other amounts do not occur: with as many phases
    as needed for a balance, the balance is unique.

    Parameters
    ----------
    hull, id : the target's entry; it need not be on the hull
    reactants : most reactants of a reaction, 1 to 4
    byproducts : formulas of phases that may leave as well, one at a time (``"CO2"``); their lowest entries count
    most : how many routes to keep; None for all
    elements : whether pure elements may be reactants

    Raises
    ------
    InputError
        For unknown ids and byproducts, and when there are too many sets of reactants to try.
    """
    row = hull.row(id)
    if not 1 <= reactants <= 4:
        raise InputError(f"{reactants} reactants; expected 1 to 4")
    extra = [hull.lowest(f) for f in byproducts]
    held = np.any(hull.counts[[row, *extra]] > 0, axis=0)
    target = hull.counts[row]
    stable = [r for r in (hull.row(i) for i in hull.stable(ON_HULL)) if not np.any(hull.counts[r][~held])]
    own = {hull.counts[r].tobytes() for r in (row, *extra)}
    starts, seen = [], set()
    for r in stable:
        key = hull.counts[r].tobytes()
        if key not in own and key not in seen and (elements or np.count_nonzero(hull.counts[r]) > 1):
            seen.add(key)
            starts.append(r)
    sets = sum(comb(len(starts), n) for n in range(1, reactants + 1)) * (1 + len(extra))
    if sets > _MOST_SETS:
        raise InputError(
            f"{sets} sets of up to {reactants} of {len(starts)} phases are too many to try; allow fewer reactants or byproducts"
        )
    routes = []
    for leaving in ([], *([b] for b in extra)):
        for n in range(1, reactants + 1):
            routes += [
                _route(hull, row, chosen, leaving, amounts)
                for chosen, amounts in _balanced(hull.counts[:, held], target[held], starts, leaving, n)
            ]
    routes = _with_depths(hull, routes)
    routes.sort(key=lambda r: (r.margin is not None and r.margin > ON_HULL, r.energy, str(r)))
    rivals = tuple((share, key, hull.formula(key)) for key, share in hull.decomposition_without(id).items())
    return Synthesis(id, hull.formula(id), -hull.separation(id), rivals, tuple(routes[:most]))


def falling_apart(hull: Hull, formula: str | Mapping[str, float]) -> str:
    """The decomposition of a composition on the hull as a reaction in whole numbers: ``MgAl4O7 → MgAl2O4 + Al2O3``.

    Raises
    ------
    InputError
        If the composition holds an element the hull lacks.
    """
    from naica.discover.proportions import amounts_table

    target = amounts_table([formula], hull.elements)[1][0]
    rows = [hull.row(key) for key in hull.decomposition(formula)]
    shares = balance([hull.counts[r].tolist() for r in rows], target.tolist())
    name = format_formula({s: int(n) for s, n in zip(hull.elements, target, strict=True) if n})
    if shares is None:  # phases on one plane in more than one combination: the shares of atoms say all there is to say
        return f"{name} → " + ", ".join(hull.formula(hull.ids[r]) for r in rows)
    scale = lcm(*(a.denominator for a in shares))
    parts = [(int(a * scale), hull.formula(hull.ids[r])) for a, r in zip(shares, rows, strict=True) if a]
    return f"{scale if scale > 1 else ''}{name} → " + " + ".join(f"{n if n > 1 else ''}{f}" for n, f in parts)


def hints(hull: Hull, id: str, most: int = 3) -> dict[str, Any]:
    """Window and best routes of a phase as plain data: `window` (element → lowest and highest Δμ, None off the hull or with more than
    five elements) and `routes` (reaction, energy in eV/atom, margin) of one or two reactants.
    """
    held = int(np.count_nonzero(hull.counts[hull.row(id)]))
    there = held <= _LISTED and float(hull.above_hull[hull.row(id)]) <= ON_HULL
    made = synthesis(hull, id, reactants=2, most=most) if held > 1 else None
    return {
        "window": {s: list(ends) for s, ends in window(hull, id).ranges.items()} if there else None,
        "routes": [{"reaction": str(r), "energy": r.energy, "margin": r.margin} for r in made.routes] if made else [],
    }


def _balanced(
    counts: NDArray[np.int64], target: NDArray[np.int64], starts: Sequence[int], leaving: Sequence[int], n: int
) -> list[tuple[tuple[int, ...], list[Fraction]]]:
    """Sets of n starting rows, with the amounts of each and of what leaves, that make one formula of the target; all amounts positive."""
    sets = np.array(list(combinations(starts, n)), dtype=np.int64).reshape(-1, n)
    found = []
    for at in range(0, len(sets), 20_000):
        part = sets[at : at + 20_000]
        columns = np.swapaxes(counts[part], 1, 2).astype(np.float64)
        if leaving:
            gone = np.broadcast_to(-counts[list(leaving)].T.astype(np.float64), (len(part), len(target), len(leaving)))
            columns = np.concatenate([columns, gone], axis=2)
        amounts = np.linalg.pinv(columns) @ target.astype(np.float64)
        rest = np.abs((columns @ amounts[..., None])[..., 0] - target).max(axis=1)
        # rounding decides only which sets are looked at; whether they balance is decided in fractions
        for k in np.flatnonzero((rest < 1e-6) & (amounts.min(axis=1) > 1e-9)):
            chosen = tuple(part[k].tolist())
            exact = balance([*(counts[r].tolist() for r in chosen), *((-counts[r]).tolist() for r in leaving)], target.tolist())
            if exact is not None and min(exact) > 0:
                found.append((chosen, exact))
    return found


def balance(columns: Sequence[Sequence[int]], target: Sequence[int]) -> list[Fraction] | None:
    """The one solution of Σ amount_k · columns_k = target in exact fractions; None if there is none or more than one."""
    size = len(columns)
    rows = [[Fraction(column[i]) for column in columns] + [Fraction(target[i])] for i in range(len(target))]
    rank = 0
    for k in range(size):
        pivot = next((i for i in range(rank, len(rows)) if rows[i][k]), None)
        if pivot is None:
            return None
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        head = rows[rank][k]
        rows[rank] = [v / head for v in rows[rank]]
        for i in range(len(rows)):
            if i != rank and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[rank], strict=True)]
        rank += 1
    if any(rows[i][size] for i in range(rank, len(rows))):
        return None
    return [rows[k][size] for k in range(size)]


def _route(hull: Hull, row: int, chosen: Sequence[int], leaving: Sequence[int], amounts: Sequence[Fraction]) -> Route:
    scale = lcm(*(a.denominator for a in amounts))
    whole = [int(a * scale) for a in amounts]
    shared = gcd(scale, *whole)
    scale, whole = scale // shared, [n // shared for n in whole]
    into, out = whole[: len(chosen)], [scale, *whole[len(chosen) :]]
    e, atoms = hull.formation_energies(), hull.counts.sum(axis=1)
    gain = sum(n * atoms[r] * e[r] for n, r in zip(out, [row, *leaving], strict=True))
    cost = sum(n * atoms[r] * e[r] for n, r in zip(into, chosen, strict=True))
    total = sum(n * atoms[r] for n, r in zip(into, chosen, strict=True))

    def side(counts: Sequence[int], rows: Sequence[int]) -> tuple[tuple[int, str, str], ...]:
        return tuple(
            (n, hull.ids[r], format_formula({s: int(c) for s, c in zip(hull.elements, hull.counts[r], strict=True) if c}))
            for n, r in zip(counts, rows, strict=True)
        )

    return Route(side(into, chosen), side(out, [row, *leaving]), float((gain - cost) / total))


def _with_depths(hull: Hull, routes: Sequence[Route]) -> list[Route]:
    """Reactions of two reactants, with the lowest reaction energy of any mixture of the two."""
    two = [k for k, r in enumerate(routes) if len(r.reactants) == 2]
    out = list(routes)
    if not two:
        return out
    ends = np.array([[hull.row(key) for _, key, _ in routes[k].reactants] for k in two])
    share = np.linspace(0.0, 1.0, _POINTS_ON_LINE)
    energies = hull.formation_energies()
    for k, (a, b) in zip(two, ends, strict=True):
        used = np.flatnonzero((hull.counts[a] > 0) | (hull.counts[b] > 0))
        names = [hull.elements[i] for i in used]
        x = np.outer(1 - share, hull.fractions[a, used]) + np.outer(share, hull.fractions[b, used])
        level = hull.energy_in(names, x) - x @ hull.references[used]
        deepest = float((level - (1 - share) * energies[a] - share * energies[b]).min())
        # the line is sampled; the target itself is a point of it
        mine = routes[k]
        out[k] = Route(mine.reactants, mine.products, mine.energy, min(deepest, mine.energy) if len(mine.products) == 1 else deepest)
    return out
