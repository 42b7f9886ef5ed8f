"""Crystals whose symmetry is in every textbook, and random ones for laws that must hold for all."""

from functools import cache

import numpy as np
from hypothesis import strategies as st

from naica.structure import Crystal


def rock_salt(a=5.64, cation=11, anion=17):
    cell = a / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal.from_fractional([cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]], cell)


def magnesium():
    cell = [[3.21, 0, 0], [-1.605, 3.21 * np.sqrt(3) / 2, 0], [0, 0, 5.21]]
    return Crystal.from_fractional([12, 12], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]], cell)


def rutile():
    u = 0.305
    frac = [[0, 0, 0], [0.5, 0.5, 0.5], [u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
    return Crystal.from_fractional([22, 22, 8, 8, 8, 8], frac, [4.594, 4.594, 2.959])


def perovskite(a=3.905):
    frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal.from_fractional([38, 22, 8, 8, 8], frac, [a, a, a])


@cache
def spinel(a=8.083, u=0.3624, tetrahedral=12, octahedral=13):
    """MgAl2O4, origin at -43m: tetrahedral sites on 8a, octahedral on 16d, oxygen on 32e."""
    from pymatgen.core import Lattice, Structure

    v = u + 0.025
    structure = Structure.from_spacegroup("Fd-3m", Lattice.cubic(a), ["Mg", "Al", "O"], [[0] * 3, [0.625] * 3, [v] * 3])
    big = Crystal.from_pymatgen(structure.get_primitive_structure())
    swap = {12: tetrahedral, 13: octahedral, 8: 8}
    return big.replace(numbers=[swap[int(z)] for z in big.numbers])


def slab():
    """One layer of square Cu with vacuum on top, and a second layer in the hollow."""
    return Crystal([29, 29], [[0, 0, 0], [1.28, 1.28, 1.8]], np.diag([2.56, 2.56, 15.0]), [True, True, False])


def water():
    return Crystal(["O", "H", "H"], [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])


@st.composite
def crystals(draw, max_atoms=5, pbc=(True, True, True)):
    """Random crystals in random triclinic cells (edges 2.5 to 8 Å, angles 50° to 130°, never flat)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    while True:
        lengths = rng.uniform(2.5, 8.0, 3)
        cosines = np.cos(np.radians(rng.uniform(50, 130, 3)))
        gram = np.eye(3)
        gram[[0, 0, 1], [1, 2, 2]] = gram[[1, 2, 2], [0, 0, 1]] = cosines
        if np.linalg.det(gram) > 0.05:
            break
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    cell = np.linalg.cholesky(gram) * lengths[:, None] @ rotation
    n = draw(st.integers(1, max_atoms))
    numbers = rng.integers(1, 95, n)
    return Crystal(numbers, rng.uniform(-0.5, 1.5, (n, 3)) @ cell, cell, list(pbc))
