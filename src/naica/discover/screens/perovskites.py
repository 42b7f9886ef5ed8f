"""Perovskites by their network, and whether the size of their ions allows one.

**Recognition** asks the network, not the space group: a cation set B with three anions X each, six of them around every B within
`_STRETCH` of the nearest, every X between exactly two B, linked B sharing one X only (corners), the links endless in three directions,
and every link with another one opposite (the B atoms stand as in a simple cubic net, which tells perovskite from pyrochlore). What is left
over are as many A as B, in the cages: links bent by more than `_BENT` degrees need an A with eight anions about equally near, which tells
MgSiO3 from LiNbO3 and calcite, whose octahedra form the same net. Tilted, Jahn–Teller and off-centre perovskites and double perovskites
pass; ilmenite, post-perovskite, hexagonal polytypes and ReO3 do not.

**Tolerance**: Goldschmidt's t = (r_A + r_X) / √2 (r_B + r_X), and Bartel's τ = r_X/r_B − n_A (n_A − (r_A/r_B) / ln(r_A/r_B)), a perovskite
expected below 4.18 (Bartel et al., Sci. Adv. 5, eaav0693, 2019). Shannon's ionic radii, coordination 12 for A (or the largest tabulated)
and 6 for B and X.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from naica.discover.screens.networks import Network, images
from naica.errors import InputError
from naica.graphs.neighbours import within
from naica.structure.crystal import Crystal
from naica.structure.elements import element
from naica.structure.oxidation import guess_oxidation

TAU_LIMIT = 4.18
_ANIONS = frozenset({"H", "N", "O", "F", "S", "Cl", "Se", "Br", "Te", "I"})
_STRETCH = 1.5
_REACH = 4.5
_OPPOSITE = -0.82  # cosine of 145°
_BENT = 30.0
_CAGE = 8
_EQUAL = 1.36


@dataclass(frozen=True)
class Perovskite:
    """The places of a perovskite.

    Parameters
    ----------
    a, b, x : elements on each place
    tilt : degrees, 180 less the mean angle B–X–B
    distortion : standard deviation of the B–X distances over their mean
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    x: tuple[str, ...]
    tilt: float
    distortion: float


def perovskite(crystal: Crystal) -> Perovskite | None:
    """The places of the perovskite a crystal is, or None.

    Raises
    ------
    InputError
        If two atoms sit on one place.
    """
    if not crystal.pbc.all() or len(crystal) % 5:
        return None
    counts, units = crystal.composition, len(crystal) // 5
    anions = [s for s in counts if s in _ANIONS]
    for x in _subsets(anions, counts, 3 * units):
        cations = [s for s in counts if s not in x]
        for b in _subsets(cations, counts, units):
            a = tuple(s for s in cations if s not in b)
            found = _octahedra(crystal, b, x) if a else None
            if found is not None and (found[0] <= _BENT or _in_cages(crystal, a, x)):
                return Perovskite(a, b, x, *found)
    return None


def _subsets(names: list[str], counts: dict[str, int], total: int) -> list[tuple[str, ...]]:
    """Sets of elements with `total` atoms between them, smallest ions first."""
    sets = [c for k in range(1, len(names) + 1) for c in combinations(names, k) if sum(counts[s] for s in c) == total]
    return sorted(sets, key=lambda c: sum(element(s).covalent_radius for s in c) / len(c))


def _octahedra(crystal: Crystal, b: tuple[str, ...], x: tuple[str, ...]) -> tuple[float, float] | None:
    """Tilt and distortion where the sites of `b` stand in corner-sharing octahedra of `x` on a cubic net; else None."""
    symbols = np.array(crystal.symbols)
    is_b, is_x = np.isin(symbols, b), np.isin(symbols, x)
    edges = within(crystal.positions, crystal.cell, crystal.pbc, _REACH)
    edges = edges.take(is_b[edges.receiver] & is_x[edges.sender])
    edges = edges.take(np.lexsort((edges.length, edges.receiver)))
    centres = np.flatnonzero(is_b)
    start = np.searchsorted(edges.receiver, centres)
    if (np.bincount(edges.receiver, minlength=len(crystal))[centres] < 6).any():
        return None
    six = start[:, None] + np.arange(6)
    length = edges.length[six]
    if (length[:, 5] > _STRETCH * length[:, 0]).any():
        return None
    bonds = edges.take(six.ravel())
    if (np.bincount(bonds.sender, minlength=len(crystal))[is_x] != 2).any():
        return None
    image = images(crystal, bonds)
    by_anion = np.argsort(bonds.sender, kind="stable").reshape(-1, 2)
    first, second = by_anion[:, 0], by_anion[:, 1]
    shift = image[first] - image[second]
    to_second = bonds.vector[first] - bonds.vector[second]
    from_, to = bonds.receiver[first], bonds.receiver[second]
    if _shared_twice(from_, to, shift) or not _cubic_net(len(crystal), centres, from_, to, shift, to_second):
        return None
    cosine = (bonds.vector[first] * bonds.vector[second]).sum(axis=1) / (bonds.length[first] * bonds.length[second])
    tilt = 180.0 - float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean())
    return tilt, float(length.std() / length.mean())


def _in_cages(crystal: Crystal, a: tuple[str, ...], x: tuple[str, ...]) -> bool:
    """Whether every A has eight anions about equally near."""
    symbols = np.array(crystal.symbols)
    edges = within(crystal.positions, crystal.cell, crystal.pbc, _REACH)
    edges = edges.take(np.isin(symbols, a)[edges.receiver] & np.isin(symbols, x)[edges.sender])
    nearest = np.full(len(crystal), np.inf)
    np.minimum.at(nearest, edges.receiver, edges.length)
    around = np.bincount(edges.receiver[edges.length <= _EQUAL * nearest[edges.receiver]], minlength=len(crystal))
    return bool((around[np.isin(symbols, a)] >= _CAGE).all())


def _shared_twice(a: NDArray[np.int64], b: NDArray[np.int64], shift: NDArray[np.int64]) -> bool:
    """Whether two octahedra share more than one anion: an edge or a face."""
    links = {(i, j, *s) if (i, j, *s) <= (j, i, *(-k for k in s)) else (j, i, *(-k for k in s)) for i, j, s in _rows(a, b, shift)}
    return len(links) < len(a)


def _rows(a: NDArray[np.int64], b: NDArray[np.int64], shift: NDArray[np.int64]) -> list[tuple[int, int, list[int]]]:
    return list(zip(a.tolist(), b.tolist(), shift.tolist(), strict=True))


def _cubic_net(
    n: int, centres: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], shift: NDArray[np.int64], vector: NDArray[np.float64]
) -> bool:
    """Whether the links are endless in three directions and each has another one opposite to it at both its ends."""
    network = Network(n)
    for i, j, s in _rows(a, b, shift):
        network.join(i, j, s)
    if any(network.dimension(int(c)) < 3 for c in centres):
        return False
    ends = np.concatenate([a, b])
    unit = np.concatenate([vector, -vector])
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    for c in centres:
        mine = unit[ends == c]
        if len(mine) != 6 or ((mine @ mine.T).min(axis=1) > _OPPOSITE).any():
            return False
    return True


# --- sizes --------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tolerance:
    """Goldschmidt's `t`, Bartel's `tau` (None where A is not larger than B) and the radii in Å they were made from."""

    t: float
    tau: float | None
    r_a: float
    r_b: float
    r_x: float


def tolerance(places: Perovskite, crystal: Crystal) -> Tolerance:
    """The tolerance factors of a perovskite's ions, mean radii where several elements share a place.

    Raises
    ------
    InputError
        If the composition has no balanced oxidation states or an ion has no tabulated radius.
    """
    counts = crystal.composition
    states = guess_oxidation(counts)
    if states is None:
        raise InputError(f"{crystal.formula} has no balanced oxidation states, so its ions have no radii")
    r_a, r_b, r_x = (
        sum(counts[s] * shannon_radius(s, states[s], coordination) for s in names) / sum(counts[s] for s in names)
        for names, coordination in ((places.a, 12), (places.b, 6), (places.x, 6))
    )
    charge = sum(counts[s] * states[s] for s in places.a) / sum(counts[s] for s in places.a)
    return tolerance_of(r_a, r_b, r_x, charge)


def tolerance_of(r_a: float, r_b: float, r_x: float, charge: float) -> Tolerance:
    """From radii in Å and the charge n_A of A in e."""
    t = (r_a + r_x) / (sqrt(2) * (r_b + r_x))
    tau = r_x / r_b - charge * (charge - (r_a / r_b) / log(r_a / r_b)) if r_a > r_b else None
    return Tolerance(t, tau, r_a, r_b, r_x)


_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")


@cache
def shannon_radius(symbol: str, state: float, coordination: int) -> float:
    """Shannon's ionic radius in Å; of the nearest tabulated state and, where the coordination is not tabulated, the nearest to it.

    Raises
    ------
    InputError
        If nothing of the state's sign is tabulated.
    """
    from pymatgen.core import Element

    table = Element(symbol).data.get("Shannon radii") or {}
    known = {int(q): r for q, r in table.items() if q and int(q) * state > 0}
    if not known:
        raise InputError(f"no Shannon radius for {symbol} in state {state:+g}")
    shells = known[min(known, key=lambda q: (abs(q - state), abs(q)))]
    plain = {_ROMAN.index(name) + 1: spins for name, spins in shells.items() if name in _ROMAN}
    if not plain:
        raise InputError(f"no Shannon radius for {symbol} in state {state:+g} at an ordinary coordination")
    spins = plain[min(plain, key=lambda n: (abs(n - coordination), -n))]
    # high spin where both are tabulated: weak-field ligands are the rule in oxides and halides
    chosen = spins.get("High Spin") or spins.get("") or next(iter(spins.values()))
    return float(chosen["ionic_radius"])
