"""Would nature order these atoms? Two elements of like size on one sublattice are more likely a disordered alloy.

A computed crystal has whole atoms. If two of its elements take turns on what would be one set of equivalent sites, the structure is one
of many orderings of a solid solution, and often the solution, not the ordering, is what is made; databases then hold it with partial
occupancies, and a matcher calls every ordering new (the dispute over GNoME's and A-Lab's counts). The test has three parts, each kept as
evidence:

1. One sublattice: with the two elements made one, the symmetry joins sites of both into one orbit.
2. Likeness: radii within 15 % (Hume-Rothery; Goldschmidt for ions); ions of equal charge or one apart (double perovskites order where
   charges differ by more than two and mix where they do not: Anderson et al., Prog. Solid State Chem. 22, 197 (1993)); electronegativities
   within 0.4 (ions 0.6).
3. Relatives: both ends of the series (one element on all those sites) are known in the same structure, or another member of it is.

"likely" needs one, two and three, or of two ions of equal charge within 10 %. In alloys relatives count whatever the electronegativities
(Cu3Au). "possible" needs one, and radii within 15 %, of ions within 25 % and two charges: what is found mixed in lithium conductors reaches
that far (benchmarks/novelty.py). The test says what ordering has to compete with, not what wins: the ideal entropy of mixing is given for
comparison with the energy gained. Vacancies, and three elements on one sublattice, are seen only pair by pair or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import Element, element
from naica.structure.oxidation import guess_oxidation
from naica.structure.symmetry import Symmetry, symmetry

Likelihood = Literal["likely", "possible"]
Flags = NDArray[np.bool_]
Finder = Callable[[Crystal], str | None]
"""Looks a structure up: the id of a known one that matches, or None."""

_SIZE, _CLOSE_SIZE, _FAR_SIZE = 0.15, 0.10, 0.25
_CHARGE, _FAR_CHARGE = 1.0, 2.0
_CHI, _CHI_OF_IONS = 0.4, 0.6
# Å; relaxed orderings are a little off the symmetry of their parent
_TOLERANCES = (0.1, 0.25)
_KB = 8.617333e-5  # eV/K


@dataclass(frozen=True)
class Sharing:
    """Two elements on one sublattice, and what speaks for disorder.

    Attributes
    ----------
    elements : the two, the rarer one second
    sites : atoms of both on shared orbits, of `atoms` in the cell
    parent : space group with the two made one, found at `tolerance` (Å); `own` is the ordered one's
    size, charge, chi : relative difference of radii (of the ions where charges are known), difference of charges (None in alloys), of
        electronegativities (None where Pauling gave none)
    ends : ids of the known structures with one element on all those sites, None where there is none
    relatives : ids of known compounds that are other members of the series
    entropy : ideal entropy of mixing in k_B per atom
    verdict : "likely" or "possible"
    """

    elements: tuple[str, str]
    sites: int
    atoms: int
    parent: str
    own: str
    tolerance: float
    size: float
    charge: float | None
    chi: float | None
    ends: tuple[str | None, str | None]
    relatives: tuple[str, ...]
    entropy: float
    verdict: Likelihood

    def worth(self, temperature: float = 1000.0) -> float:
        """T times the ideal entropy of mixing, eV/atom: what an ordering must gain over the disordered alloy at this temperature (K)."""
        return _KB * temperature * self.entropy

    def __str__(self) -> str:
        a, b = self.elements
        charge = "" if self.charge is None else f", charges {self.charge:.3g} apart"
        ends = [f"{s}-only: {i}" for s, i in zip(self.elements, self.ends, strict=True) if i]
        known = f"; known: {', '.join([*ends, *self.relatives])}" if ends or self.relatives else ""
        return (
            f"disorder {self.verdict}: {a} and {b} share {self.sites} of {self.atoms} sites of {self.parent} (ordered: {self.own}), radii "
            f"{self.size:.0%} apart{charge}{known}; mixing is worth {1000 * self.worth():.0f} meV/atom at 1000 K"
        )


def sharings(
    crystal: Crystal, find: Finder = lambda other: None, relatives: Callable[[Crystal, str, str], tuple[str, ...]] = lambda c, a, b: ()
) -> tuple[Sharing, ...]:
    """Pairs of elements that may be disordered over one sublattice, the likeliest first.

    Parameters
    ----------
    crystal : fully periodic; others have no sublattices and give nothing
    find : looks up the ends of the series
    relatives : (crystal, a, b) → ids of known compounds that differ from it in the ratio of a to b alone
    """
    names = sorted(crystal.composition)
    if len(names) < 2 or not crystal.pbc.all():
        return ()
    states = guess_oxidation(crystal.composition)
    try:
        own = symmetry(crystal, _TOLERANCES[0])
    except InputError:
        return ()
    found = []
    for a, b in combinations(names, 2):
        if crystal.composition[a] < crystal.composition[b]:
            a, b = b, a  # noqa: PLW2901  the rarer second
        alike = likeness(element(a), element(b), states)
        if alike is None:
            continue
        place = _shared(crystal, a, b, own)
        if place is not None:
            found.append(_weighed(crystal, (a, b), place, own, alike, find, relatives))
    return tuple(sorted(found, key=lambda s: (s.verdict != "likely", s.size, s.elements)))


def likeness(a: Element, b: Element, states: Mapping[str, int | float] | None) -> tuple[float, float | None, float | None] | None:
    """Differences of size (relative), charge and electronegativity; None if the two are too unlike to take each other's place.

    `states` are oxidation states by symbol, None in alloys.
    """
    charge = None
    radii = (a.covalent_radius, b.covalent_radius)
    if states and states[a.symbol] and states[b.symbol]:
        qa, qb = float(states[a.symbol]), float(states[b.symbol])
        charge = abs(qa - qb)
        if qa * qb < 0 or charge > _FAR_CHARGE:
            return None
        ions = _ion(a, qa), _ion(b, qb)
        if ions[0] is not None and ions[1] is not None:
            radii = ions[0], ions[1]
    size = abs(radii[0] - radii[1]) / max(radii)
    chi = None
    if a.electronegativity is not None and b.electronegativity is not None:
        chi = abs(a.electronegativity - b.electronegativity)
    return (size, charge, chi) if size <= (_SIZE if charge is None else _FAR_SIZE) else None


def _ion(one: Element, state: float) -> float | None:
    """Radius at the nearest known state of the same sign."""
    known = {q: r for q, r in one.ionic_radii.items() if q * state > 0}
    return known[min(known, key=lambda q: abs(q - state))] if known else None


def _shared(crystal: Crystal, a: str, b: str, own: Symmetry) -> tuple[Symmetry, float, Flags] | None:
    """The symmetry with a and b made one, the tolerance it was found at, and which sites lie on orbits that hold both."""
    za, zb = element(a).number, element(b).number
    merged = crystal.replace(numbers=np.where(crystal.numbers == zb, za, crystal.numbers), info={})
    for tolerance in _TOLERANCES:
        try:
            found = symmetry(merged, tolerance)
        except InputError:
            continue
        mixed = [o for o in np.unique(found.orbits) if {za, zb} <= set(crystal.numbers[found.orbits == o].tolist())]
        both = np.isin(found.orbits, mixed)
        # every atom of the rarer element must be there: one stray shared orbit is no solid solution of the two
        if both.any() and not (crystal.numbers[~both] == zb).any():
            return found, tolerance, both
    return None


def _weighed(
    crystal: Crystal,
    pair: tuple[str, str],
    place: tuple[Symmetry, float, Flags],
    own: Symmetry,
    differences: tuple[float, float | None, float | None],
    find: Finder,
    relatives: Callable[[Crystal, str, str], tuple[str, ...]],
) -> Sharing:
    parent, tolerance, both = place
    size, charge, chi = differences
    numbers = [element(s).number for s in pair]
    ends = tuple(find(crystal.replace(numbers=np.where(both, z, crystal.numbers), info={})) for z in numbers)
    others = relatives(crystal, *pair)
    alike = chi is None or chi <= (_CHI if charge is None else _CHI_OF_IONS)
    near = size <= _SIZE and (charge is None or (charge <= _CHARGE and alike))
    known = all(ends) or bool(others)
    likely = near and (known or (charge == 0 and size <= _CLOSE_SIZE))
    sites = int(both.sum())
    share = float((crystal.numbers[both] == numbers[1]).sum()) / sites
    entropy = -sites / len(crystal) * (share * np.log(share) + (1 - share) * np.log(1 - share))
    return Sharing(
        pair, sites, len(crystal), f"{parent.symbol} ({parent.number})", f"{own.symbol} ({own.number})", tolerance, size, charge, chi,
        (ends[0], ends[1]), others, float(entropy), "likely" if likely else "possible",
    )  # fmt: skip
