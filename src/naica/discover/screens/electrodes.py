"""Intercalation electrodes: theoretical capacity, what the metals' oxidation allows of it, and the average voltage against the metal.

Voltage between a discharged host with x ions and a charged one with y per formula unit, at one level of theory,

    V = − [E(host with x) − E(host with y) − (x − y) μ] / (x − y) z e

with μ the energy per atom of the ion's metal. With formation energies μ is 0, so two labels of one column make a voltage and nothing else
is needed. Capacity is n F / 3.6 M: LiCoO2 274, LiFePO4 170, LiMn2O4 148 mAh/g.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from naica.errors import InputError
from naica.structure.composition import reduced, reduced_formula
from naica.structure.crystal import Crystal
from naica.structure.elements import element
from naica.structure.match import same_structure
from naica.structure.oxidation import guess_oxidation

FARADAY = 96485.33212
"""C/mol."""
_AVOGADRO_DENSITY = 1.66053906660
"""g/cm³ per amu/Å³."""

CHARGE = {"Li": 1, "Na": 1, "K": 1, "Mg": 2, "Ca": 2, "Zn": 2, "Al": 3}
# the highest state a metal reaches in intercalation electrodes, without oxidising the anions
HIGHEST: Mapping[str, int] = {
    "Ti": 4, "V": 5, "Cr": 6, "Mn": 4, "Fe": 3, "Co": 4, "Ni": 4, "Cu": 3, "Nb": 5, "Mo": 6, "Ru": 5, "W": 6, "Sn": 4, "Bi": 5, "Sb": 5,
}  # fmt: skip


def molar_mass(counts: Mapping[str, float]) -> float:
    """g/mol of a composition."""
    return sum(n * element(s).mass for s, n in counts.items())


def capacity(counts: Mapping[str, float], ion: str = "Li", n_ions: float | None = None) -> float:
    """Gravimetric capacity in mAh per gram of the discharged compound, for `n_ions` per formula as written (default: all there are).

    Raises
    ------
    InputError
        If the ion is not in it or is none of `CHARGE`.
    """
    if not counts.get(ion):
        raise InputError(f"{reduced_formula(dict(counts))} has no {ion} to take out")
    if ion not in CHARGE:
        raise InputError(f"no charge known for {ion}; expected one of {', '.join(CHARGE)}")
    n = counts[ion] if n_ions is None else n_ions
    return n * CHARGE[ion] * FARADAY / 3.6 / molar_mass(counts)


def density(crystal: Crystal) -> float:
    """g/cm³.

    Raises
    ------
    InputError
        If the crystal has no volume.
    """
    if not crystal.pbc.all() or not crystal.volume > 0:
        raise InputError(f"{crystal.formula} has no volume, so no density")
    return molar_mass(crystal.composition) * _AVOGADRO_DENSITY / crystal.volume


def removable(counts: Mapping[str, int], ion: str = "Li") -> float:
    """How many ions per formula as written can leave before every metal is in its highest state of `HIGHEST`; at most all.

    Raises
    ------
    InputError
        If the composition has no balanced oxidation states.
    """
    states = guess_oxidation(counts)
    if states is None:
        raise InputError(f"{reduced_formula(dict(counts))} has no balanced oxidation states: how far its metals oxidise cannot be told")
    electrons = sum(n * max(0.0, HIGHEST[s] - states[s]) for s, n in counts.items() if s in HIGHEST and s != ion)
    return min(float(counts.get(ion, 0)), electrons / CHARGE[ion])


def without(crystal: Crystal, ion: str = "Li") -> Crystal:
    """The host left when every ion is gone and nothing else moves.

    Raises
    ------
    InputError
        If there is no such ion, or nothing else.
    """
    stays = np.array(crystal.symbols) != ion
    if stays.all() or not stays.any():
        raise InputError(f"{crystal.formula} has {'no' if stays.all() else 'nothing but'} {ion}; expected a host with {ion} in it")
    return crystal.replace(numbers=crystal.numbers[stays], positions=crystal.positions[stays])


def voltage(discharged: float, charged: float, n_ions: float, metal: float = 0.0, ion: str = "Li") -> float:
    """Average voltage in V from energies in eV of the same host with and without `n_ions` ions; `metal`: eV per atom of the ion's metal.

    With formation energies (eV, of the whole formula) `metal` is 0.
    """
    if not n_ions > 0:
        raise InputError(f"{n_ions} ions between charged and discharged; expected more than none")
    return -(discharged - charged - n_ions * metal) / (n_ions * CHARGE[ion])


# --- from the rows of a table ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Couple:
    """A discharged row and the charged row it is paired with.

    Parameters
    ----------
    voltage : V against the metal
    charged : id of the charged row
    topotactic : whether the discharged host without its ions matches the charged structure; else the charged row is the lowest of its
        composition, and the host would have to rearrange
    distance : of that match, in units of (V/N)^(1/3)
    n_ions : per formula of the host
    """

    voltage: float
    charged: str
    topotactic: bool
    distance: float | None
    n_ions: float


class Hosts:
    """The rows of a table that hold no ions, by formula: what delithiated structures are paired with.

    Parameters
    ----------
    ids, formulas, energies : of all rows; formation energies in eV/atom of one level
    structure : gives the crystal of a row
    """

    def __init__(self, ids: Sequence[str], formulas: Sequence[str], energies: Sequence[float], structure: Any, ion: str = "Li") -> None:
        self.ids, self.energies, self.structure, self.ion = ids, energies, structure, ion
        self._rows: dict[str, list[int]] = defaultdict(list)
        for row, formula in enumerate(formulas):
            if np.isfinite(energies[row]):
                self._rows[formula].append(row)

    def couple(self, crystal: Crystal, energy: float) -> Couple | None:
        """The best couple of a discharged crystal with `energy` eV/atom (formation); None if no row has the charged composition.

        Raises
        ------
        InputError
            If the crystal has no ion, or nothing else.
        """
        host = without(crystal, self.ion)
        rows = self._rows.get(host.formula, [])
        if not rows:
            return None
        matched = [(d, r) for r in rows if (d := same_structure(host, self.structure(r))) is not None]
        distance, row = min(matched) if matched else (None, min(rows, key=lambda r: self.energies[r]))
        counts = reduced(crystal.composition)
        ions = counts[self.ion]
        stays = sum(counts.values()) - ions
        v = voltage(energy * (stays + ions), self.energies[row] * stays, ions, ion=self.ion)
        return Couple(v, self.ids[row], bool(matched), distance, float(ions))


# --- with a potential -----------------------------------------------------------------------------------------------------------------
def computed_voltage(crystal: Crystal, potential: str, ion: str = "Li", fmax: float = 0.05, steps: int = 300) -> float:
    """Average voltage in V for taking out every ion: host with, host without and metal all relaxed with one potential.

    Raises
    ------
    RunError
        If one of the three does not relax.
    """
    from naica.errors import RunError
    from naica.potential.calculators import calculator
    from naica.potential.relax import relax
    from naica.structure.prototypes import reference_structure

    found = relax([crystal, without(crystal, ion), reference_structure(ion)], calculator(potential), fmax=fmax, steps=steps)
    for done in found:
        if done.status != "converged" or done.energy is None:
            raise RunError(f"{crystal.formula}: {done.reason or done.status}")
    full, empty, metal = (float(done.energy or 0.0) for done in found)
    n = len(crystal) - len(without(crystal, ion))
    return voltage(full, empty, n, metal / len(reference_structure(ion)), ion)
