"""The volume a candidate will roughly relax to, from radii in contact."""

from __future__ import annotations

import numpy as np

from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import element

_CUTOFF = 2.2  # in units of the cube root of the volume per atom
_HARDNESS = 8.0


def guess_volume(crystal: Crystal) -> float:
    """Factor by which the volume of a crystal should change so that its atoms are in contact.

    Raises
    ------
    InputError
        If the structure has no full cell.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    if not crystal.pbc.all():
        raise InputError(f"{crystal!r} has no full cell; a volume can only be predicted for one")
    reach = _CUTOFF * (crystal.volume / len(crystal)) ** (1 / 3)
    i, j, _, d = find_points_in_spheres(
        np.ascontiguousarray(crystal.positions),
        np.ascontiguousarray(crystal.positions),
        float(reach),
        np.ones(3, dtype=np.int64),
        np.ascontiguousarray(crystal.cell),
        1e-8,
    )
    bonds = d > 1e-6
    radius = np.array([element(int(z)).covalent_radius for z in crystal.numbers])
    ratio = (radius[i] + radius[j])[bonds] / d[bonds]
    return float((np.sum(ratio**_HARDNESS) / len(crystal) / 6.0) ** (3 / _HARDNESS))
