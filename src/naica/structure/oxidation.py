"""Oxidation states guessed from a composition, and given to the sites of a crystal.

Only the formula is asked. Assignments that add up to zero are tried in this order and the first that exists is taken:

1. one common state per element (list of pymatgen);
2. one state per element, ICSD states included;
3. mixed valence: one element in two neighbouring states of the same sign, the others in one state each (Fe3O4: Fe 8/3);
4. peroxides: common states with O at −1.

No assignment in which a more electronegative element is positive while a less electronegative one is negative is taken while any of these
steps offers one without (NH4NO3: N on average +1, not H at −1). Among several in one step the states that are most frequent in ICSD (sum
of log shares) win, then the smaller numbers, so the answer never depends on order.

Alloys (metals only) have no oxidation states and give None; a pure element is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from itertools import pairwise
from math import log

import numpy as np
from numpy.typing import NDArray

from naica.structure.composition import parse_formula, reduced
from naica.structure.convert import image_distances
from naica.structure.crystal import Crystal
from naica.structure.elements import element

_BOND_REACH = 4.0
_BOND_SOFTNESS = 0.37
_RARE = 1.0


@dataclass(frozen=True)
class _Assignment:
    """Average state per element, and the two states that mix in the one element of mixed valence (if any)."""

    states: tuple[Fraction, ...]
    mixed: int | None = None
    low: int = 0
    high: int = 0


def guess_oxidation(composition: str | Mapping[str, float]) -> dict[str, int | float] | None:
    """The likely oxidation state of each element, or None if no assignment is balanced.

    Mixed valence shows as a fraction (Fe3O4: ``{"Fe": 2.666…, "O": -2}``). Alloys give None, pure elements 0.

    Raises
    ------
    InputError
        If the formula cannot be read, or its amounts are not a ratio of integers.
    """
    names, counts = _key(composition)
    found = _assign(names, counts)
    if found is None:
        return None
    return {s: int(q) if q.denominator == 1 else float(q) for s, q in zip(names, found.states, strict=True)}


def is_balanced(composition: str | Mapping[str, float], mixed: bool = True) -> bool:
    """Whether some assignment of known oxidation states adds up to zero; with ``mixed=False`` one integer state per element is asked.

    Pure elements are balanced, alloys are not (see the module's text).
    """
    found = _assign(*_key(composition))
    return found is not None and (mixed or found.mixed is None)


def decorate(crystal: Crystal) -> list[str] | None:
    """A species such as ``Mg2+`` or ``O2-`` for each site (pymatgen's spelling), or None if the composition cannot be balanced.

    An element of mixed valence is split over its sites by bond valence: the sites most tightly bound to the anions, by
    sum of exp((R − d) / 0.37 Å) (Brown & Altermatt, Acta Cryst. B41, 244 (1985)) with covalent radii for R, get the higher state. Where
    equivalent sites have to share two states (octahedra of Fe3O4) the first of them in the crystal's order get the higher, so the charge
    order is one of several possible. If the cell does not hold whole numbers of both states the answer is None.
    """
    names, counts = _key(crystal.composition)
    found = _assign(names, counts)
    if found is None:
        return None
    states = np.zeros(len(crystal), dtype=np.int64)
    symbols = np.array(crystal.symbols)
    for k, (name, average) in enumerate(zip(names, found.states, strict=True)):
        sites = np.flatnonzero(symbols == name)
        if k != found.mixed:
            states[sites] = int(average)
            continue
        n_high = len(sites) * (average - found.low) / (found.high - found.low)
        if n_high.denominator != 1:
            return None
        anions = [s for s, q in zip(names, found.states, strict=True) if q * average < 0]
        order = np.lexsort((sites, -np.round(_bond_valence(crystal, sites, np.isin(symbols, anions)), 3)))
        states[sites] = found.low
        states[sites[order[: int(n_high)]]] = found.high
    return [species(s, int(q)) for s, q in zip(crystal.symbols, states, strict=True)]


def species(symbol: str, state: int) -> str:
    """``Na+``, ``O2-``, ``Fe0+``: the spelling of pymatgen and of the substitution table."""
    size = "" if abs(state) == 1 else str(abs(state))
    return f"{symbol}{size}{'-' if state < 0 else '+'}"


# --- the search --------------------------------------------------------------------------------------------------------------
def _key(composition: str | Mapping[str, float]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    counts = reduced(parse_formula(composition) if isinstance(composition, str) else composition)
    return tuple(counts), tuple(counts.values())


@lru_cache(maxsize=200_000)
def _assign(names: tuple[str, ...], counts: tuple[int, ...]) -> _Assignment | None:
    if len(names) == 1:
        return _Assignment((Fraction(0),))
    if all(element(s).is_metal for s in names):
        return None
    for stage in (_single, _mixed, _peroxide):
        lawful = [a for a in stage(names, counts) if not _inversions(names, a)]
        if lawful:
            return min(lawful, key=lambda a: _rank(names, a))
    for stage in (_single, _mixed, _peroxide):
        found = list(stage(names, counts))
        if found:
            return min(found, key=lambda a: _rank(names, a))
    return None


def _single(names: tuple[str, ...], counts: tuple[int, ...]) -> Iterator[_Assignment]:
    """One state per element: with common states if that works without inversions, else with all known ones."""
    for states_of in (_common, _known):
        found = [_whole(s) for s in _balanced(tuple(states_of(s) for s in names), counts, 0)]
        yield from found
        if any(not _inversions(names, a) for a in found):
            return


def _mixed(names: tuple[str, ...], counts: tuple[int, ...]) -> Iterator[_Assignment]:
    for states_of in (_common, _known):
        found = [a for k in range(len(names)) for a in _mixtures(k, tuple(states_of(s) for s in names), _known(names[k]), counts)]
        yield from found
        if any(not _inversions(names, a) for a in found):
            return


def _peroxide(names: tuple[str, ...], counts: tuple[int, ...]) -> Iterator[_Assignment]:
    if "O" in names:
        yield from map(_whole, _balanced(tuple((-1,) if s == "O" else _common(s) for s in names), counts, 0))


def _whole(states: tuple[int, ...]) -> _Assignment:
    return _Assignment(tuple(Fraction(q) for q in states))


@cache
def _common(symbol: str) -> tuple[int, ...]:
    return tuple(q for q in element(symbol).oxidation_states if q != 0)


@cache
def _known(symbol: str) -> tuple[int, ...]:
    e = element(symbol)
    return tuple(sorted({q for q in (*e.oxidation_states, *e.icsd_oxidation_states) if q != 0}))


def _balanced(choices: tuple[tuple[int, ...], ...], counts: tuple[int, ...], charge: int) -> Iterator[tuple[int, ...]]:
    """All ways to pick one state per element so that `charge` plus their sum is zero."""
    if not all(choices):
        return
    if len(choices) == 1:
        state, rest = divmod(-charge, counts[0])
        if rest == 0 and state in choices[0]:
            yield (state,)
        return
    lowest = sum(min(c) * n for c, n in zip(choices[1:], counts[1:], strict=True))
    highest = sum(max(c) * n for c, n in zip(choices[1:], counts[1:], strict=True))
    for state in choices[0]:
        now = charge + state * counts[0]
        if lowest <= -now <= highest:
            for rest_states in _balanced(choices[1:], counts[1:], now):
                yield (state, *rest_states)


def _mixtures(k: int, others: tuple[tuple[int, ...], ...], states: tuple[int, ...], counts: tuple[int, ...]) -> Iterator[_Assignment]:
    """Assignments in which element k alternates between two neighbouring states of one sign."""
    pairs = [(a, b) for a, b in pairwise(states) if a * b > 0]
    rest_counts = counts[:k] + counts[k + 1 :]
    rest_choices = others[:k] + others[k + 1 :]
    for low, high in pairs:
        for charge in range(low * counts[k] + 1, high * counts[k]):
            for rest in _balanced(rest_choices, rest_counts, charge):
                average = Fraction(charge, counts[k])
                if low < average < high:
                    parts = [Fraction(q) for q in rest]
                    yield _Assignment((*parts[:k], average, *parts[k:]), k, low, high)


def _inversions(names: tuple[str, ...], found: _Assignment) -> int:
    """Pairs in which the more electronegative element is positive and the other negative."""
    chi = [element(s).electronegativity or 0.0 for s in names]
    items = list(zip(chi, found.states, strict=True))
    return sum(1 for a, qa in items for b, qb in items if a < b and qa < 0 < qb)


def _rank(names: tuple[str, ...], found: _Assignment) -> tuple[int, float, tuple[Fraction, ...]]:
    unlikely = 0.0
    for k, (name, state) in enumerate(zip(names, found.states, strict=True)):
        if k == found.mixed:
            unlikely -= (_log_share(name, found.low) + _log_share(name, found.high)) / 2
        else:
            unlikely -= _log_share(name, int(state))
    return _inversions(names, found), round(unlikely, 9), found.states


@cache
def _log_share(symbol: str, state: int) -> float:
    """Log of the share of `state` among the ICSD entries of the element (one entry for states never seen)."""
    counts = element(symbol).icsd_counts
    return log((counts.get(state, 0) + _RARE) / (sum(counts.values()) + _RARE))


def _bond_valence(crystal: Crystal, sites: NDArray[np.int64], partners: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Bond-valence sum of each site from `partners` within 4 Å, up to a factor common to the element."""
    radii = np.array([element(int(z)).covalent_radius for z in crystal.numbers])
    sums = np.zeros(len(sites))
    for k, i in enumerate(sites):
        atoms, distances = image_distances(crystal, int(i), _BOND_REACH)
        bonded = partners[atoms]
        sums[k] = np.exp((radii[i] + radii[atoms[bonded]] - distances[bonded]) / _BOND_SOFTNESS).sum()
    return sums
