"""The volume a candidate will roughly relax to: atoms as soft spheres in contact.

Atom i of element Z carries the radius r_i = a_Z + b_Z x_i + c_Z x_i², where x_i is the mean Pauling electronegativity of the compound minus
its own: positive on what gives electrons away, near zero in a metal, negative on anions. One smooth radius thus covers the ionic, covalent
and metallic cases and follows the oxidation state (iron in Fe2O3 is smaller than in FeO) without any guess of it, so nothing has to be
charge-balanced. With repulsion ∝ (r_i + r_j)ⁿ / dⁿ against a cohesion that does not depend on the number of neighbours, the length factor
that brings a structure into contact is

    f = [ (1 / 6N) Σ_i Σ_{j≠i} ((r_i + r_j) / d_ij)ⁿ ]^(1/n),

which also gives the growth of bonds with coordination (d ∝ CN^(1/n), Pauling's rule). Radii and n ≈ 7 are fitted to the volumes of known
crystals by ``benchmarks/calibrate_volume.py``; they and their errors on formulas held out of the fit are in ``volume_radii.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import table

REACH = 2.2
"""Pairs counted: up to this many cube roots of the volume per atom (about 45 neighbours), so that scaling a crystal keeps its pairs."""
_TYPICAL_NEIGHBOURS = 6.0
_SHORTEST_CONTACT = 0.3  # Å; keeps the fitted parabola from crossing zero
_NOBLE = {2: 4.16, 10: 4.79, 18: 3.24}  # Allen's scale, where Pauling gave no electronegativity


@dataclass(frozen=True)
class Contacts:
    """Pairs of near atoms: receivers i, senders j (m,), distances d (m,) in Å, and the number of atoms of the cell."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    d: NDArray[np.float64]
    n_atoms: int


@dataclass(frozen=True)
class _Radii:
    hardness: float
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    c: NDArray[np.float64]
    x_low: NDArray[np.float64]
    x_high: NDArray[np.float64]
    electronegativity: NDArray[np.float64]


@cache
def electronegativities() -> NDArray[np.float64]:
    """(104,) Pauling electronegativity by atomic number (index 0 unused); Allen's value for He, Ne and Ar."""
    values = [e.electronegativity if e.electronegativity is not None else _NOBLE[e.number] for e in table()]
    return np.array([np.nan, *values])


@cache
def _radii() -> _Radii:
    """The fitted radii by atomic number; elements the fit never saw (Po to Ra, Am and on) take those of their lighter homologue, Z − 32."""
    raw: dict[str, Any] = json.loads((files("naica.discover") / "volume_radii.json").read_text())
    rows = np.zeros((104, 5))
    for e in table():
        rows[e.number] = raw["radii"][e.symbol][:5] if e.symbol in raw["radii"] else rows[e.number - 32]
    a, b, c, low, high = rows.T
    return _Radii(raw["hardness"], a, b, c, low, high, electronegativities())


def contacts(crystal: Crystal) -> Contacts:
    """All pairs of a crystal closer than `REACH` cube roots of its volume per atom.

    Raises
    ------
    InputError
        If the structure has no full cell.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    if not crystal.pbc.all():
        raise InputError(f"{crystal!r} has no full cell; a volume can only be predicted for a structure periodic in three directions")
    # the kernel wants writable contiguous arrays
    points, cell = np.array(crystal.positions), np.array(crystal.cell)
    reach = REACH * (crystal.volume / len(crystal)) ** (1 / 3)
    i, j, _, d = find_points_in_spheres(points, points, float(reach), np.ones(3, dtype=np.int64), cell, 1e-8)
    apart = d > 1e-6
    return Contacts(i[apart], j[apart], d[apart], len(crystal))


def contact_radii(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) radius in Å of each atom of a compound of these atoms (n,): they give way to each other as their electronegativities say."""
    r = _radii()
    own = r.electronegativity[numbers]
    x = np.clip(own.mean() - own, r.x_low[numbers], r.x_high[numbers])
    radius: NDArray[np.float64] = r.a[numbers] + x * (r.b[numbers] + x * r.c[numbers])
    return radius


def contact_factor(pairs: Contacts, numbers: NDArray[np.int64]) -> float:
    """Factor on the volume that brings atoms of these elements (n,) on these sites into contact."""
    radius = contact_radii(numbers)
    touching = np.maximum(radius[pairs.i] + radius[pairs.j], _SHORTEST_CONTACT)
    hardness = _radii().hardness
    repulsion = np.sum((touching / pairs.d) ** hardness) / (_TYPICAL_NEIGHBOURS * pairs.n_atoms)
    return float(repulsion ** (3.0 / hardness))


def guess_volume(crystal: Crystal) -> float:
    """The factor by which the volume of a crystal should change so that its atoms are in contact; invariant cell × factor = prediction.

    Raises
    ------
    InputError
        If the structure has no full cell.
    """
    return contact_factor(contacts(crystal), crystal.numbers)
