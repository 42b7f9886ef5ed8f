"""Orbital fields: which valence subshells an atom sees around it, each neighbour weighted by its Voronoi face.

The orbital field matrix of a site p is ``X_p = Σ_k w_k O_p O_kᵀ`` (Pham et al., Sci. Technol. Adv. Mater. 18, 756, 2017; as used by
OGCNN, Karamad et al., Phys. Rev. Materials 4, 093801, 2020) with the 32 valence bits O of an element, ``w_k = (θ_k / θ_max) r_k^-p``,
and θ_k the solid angle of the Voronoi face towards neighbour k. O_p is common to all neighbours, so ``X_p = O_p ⊗ Σ_k w_k O_k``: beyond
the element the matrix has 32 numbers, and these, not the 1024, are what is kept for every atom.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naica.graphs.levels import Made, System
from naica.graphs.spec import GraphSpec
from naica.graphs.voronoi import voronoi
from naica.structure.configurations import configuration, orbital_bits


def orbital_field(system: System, spec: GraphSpec) -> Made:
    """The level maker ``orbital_field``: ``Σ_k w_k O_k`` (n, 32) with weights 1/r, in 1/Å."""
    return {"orbital_field": field_of(system, spec.cutoff, 1)}


def orbital_field_square(system: System, spec: GraphSpec) -> Made:
    """The level maker ``orbital_field_square``: weights 1/r², in 1/Å²."""
    return {"orbital_field_square": field_of(system, spec.cutoff, 2)}


def orbital_field_released(system: System, spec: GraphSpec) -> Made:
    """The level maker ``orbital_field_released``: weights 1/r⁴ as in OGCNN's released code, in 1/Å⁴. Bonds to hydrogen dominate it."""
    return {"orbital_field_released": field_of(system, spec.cutoff, 4)}


def field_of(system: System, cutoff: float, power: float) -> NDArray[np.float64]:
    """``Σ_k (θ_k / θ_max) r_k^-power O_k`` of every atom (n, 32); zeros for an atom that no face of its cell connects to another.

    The faces are found here, whatever the edges of the graph are, and none is left out for being small: a face enters with its size.

    Raises
    ------
    InputError
        If an element's configuration is not known (the message says which), or two atoms sit on the same place.
    """
    for number in np.unique(system.numbers):
        configuration(int(number))
    n = len(system.numbers)
    faces = voronoi(system.positions, system.cell, system.pbc, cutoff)
    largest = np.zeros(n)
    np.maximum.at(largest, faces.receiver, faces.solid_angle)
    weight = faces.solid_angle / largest[faces.receiver] * faces.length**-power
    field = np.zeros((n, orbital_bits().shape[1]))
    np.add.at(field, faces.receiver, weight[:, None] * orbital_bits()[system.numbers[faces.sender]])
    return field


def matrix(numbers: NDArray[np.integer], field: NDArray[np.floating]) -> NDArray[np.float64]:
    """The orbital field matrices (n, 32, 33) of atoms: ``O_p ⊗ field`` with O_p as an extra last column."""
    own = orbital_bits()[np.asarray(numbers)].astype(np.float64)
    return np.concatenate([own[:, :, None] * np.asarray(field)[:, None, :], own[:, :, None]], axis=2)
