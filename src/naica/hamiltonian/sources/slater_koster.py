"""A made-up electronic structure in closed form: two-centre S and H after Slater and Koster, with an environment that matters.

For tests and teaching: it needs no code, takes milliseconds, and has what the real ones have: any shells, an overlap, on-site blocks
split by the neighbours (a crystal field), and hoppings that other atoms screen. Everything is exactly equivariant, short-ranged and smooth.
With ``spin_orbit`` every atom adds λ L·S, weaker where others crowd around it, and hoppings mix spins as the atoms at their ends do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data.labels import Level
from naica.hamiltonian.basis import Basis
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.sources.settings import checked
from naica.hamiltonian.spinors import angular_momentum, with_spin
from naica.hamiltonian.two_centre import block_functions, empty, from_frames
from naica.structure import Crystal

Array = NDArray[np.float64]
DEFAULTS: Mapping[str, Any] = {
    "shells": "1s1p",
    "cutoff": 5.0,  # Å
    "range": 1.1,  # Å, decay of the hoppings
    "overlap": 0.25,
    "hopping": -4.0,  # eV
    "field": 0.6,  # eV, what one near neighbour does to an on-site block
    "screening": 0.15,
    "electrons": 4.0,
    "spin_orbit": 0.0,  # eV, λ of a heavy atom (proportional to the square of the atomic number, 1 at iodine); 0 is without spin
}


def make(crystal: Crystal, settings: Mapping[str, Any]) -> OrbitalMatrices:
    """S, H and H0 (the two-centre part alone) of any structure.

    Parameters
    ----------
    settings : see ``DEFAULTS``: shells of every element (``1s1p1d``), cut-off, strengths, spin–orbit coupling
    """
    told = checked(settings, DEFAULTS, "slater-koster")
    basis = {int(z): Basis.named_by_number(int(z), told["shells"], "slater-koster", told["electrons"]) for z in np.unique(crystal.numbers)}
    bare = empty(crystal, basis, float(told["cutoff"]))
    s, h0 = np.zeros(int(bare.starts[-1])), np.zeros(int(bare.starts[-1]))
    apart = np.flatnonzero(~bare.on_site)
    distances, vectors, numbers = bare.distances[apart], bare.vectors[apart], crystal.numbers
    fade = _fade(distances, told["cutoff"])
    density = np.zeros(len(crystal))
    np.add.at(density, bare.pairs[apart, 0], fade * np.exp(-distances / 2))
    np.add.at(density, bare.pairs[apart, 1], fade * np.exp(-distances / 2))
    h = h0.copy()
    kinds = numbers[bare.pairs[apart]]
    for a, b in np.unique(kinds, axis=0):
        here = np.flatnonzero((kinds == (a, b)).all(axis=1))
        left, right = basis[int(a)], basis[int(b)]
        scale = np.exp(-distances[here] / told["range"]) * np.e ** (2.0 / told["range"]) * fade[here]
        strength = 1 + 0.05 * np.cos(int(a)) + 0.05 * np.cos(int(b))
        shape = _functions(left, right)
        blocks = from_frames(scale[:, None] * shape * strength, vectors[here], left, right)
        places = bare.starts[apart[here]][:, None] + np.arange(left.size * right.size)
        screen = 1 - told["screening"] * np.tanh(density[bare.pairs[apart[here], 0]] + density[bare.pairs[apart[here], 1]])
        s[places] = told["overlap"] * blocks.reshape(len(here), -1) * 0.3
        h0[places] = told["hopping"] * blocks.reshape(len(here), -1) * 0.3
        h[places] = h0[places] * screen[:, None]
    for pair in np.flatnonzero(bare.on_site):
        atom = int(bare.pairs[pair, 0])
        z = int(numbers[atom])
        own = np.diag([-8.0 + 5.0 * shell - 0.3 * np.sqrt(z) for shell in basis[z].shells for _ in range(2 * shell + 1)])
        own = own + 0.4 * _between_equal_shells(basis[z])
        span = slice(bare.starts[pair], bare.starts[pair + 1])
        s[span], h0[span] = np.eye(basis[z].size).ravel(), own.ravel()
        h[span] = (own + told["field"] * _field(bare, apart, atom, basis[z], fade)).ravel()
    electrons = float(sum(basis[int(z)].electrons for z in numbers))
    level = Level("slater-koster (made up)", code="naica")
    whole = bare.with_blocks(H=h, S=s, H0=h0)
    if told["spin_orbit"]:
        whole = with_spin(whole, _spin_orbit(whole, float(told["spin_orbit"]), density))
    return whole.replace(electrons=electrons, level=level, info={"source": "slater-koster", **told})


def _spin_orbit(m: OrbitalMatrices, strength: float, density: Array) -> dict[int, Array]:
    """What spin adds to every pair: on site λ L·S = λ/2 σ·L is λ/2 A (L = i A); a hopping t gets (A t + t A)/2 of its ends, per 10 eV."""
    numbers = m.crystal.numbers
    coupling = {z: angular_momentum(b) * strength / 2 * (z / 53) ** 2 for z, b in m.basis.items()}
    of_atom = [coupling[int(z)] * (1 - 0.3 * np.tanh(x)) for z, x in zip(numbers, density, strict=True)]
    found = {}
    for pair, (i, j) in enumerate(m.pairs):
        if m.on_site[pair]:
            found[pair] = of_atom[i]
        else:
            hopping = m.block("H", pair)
            found[pair] = (of_atom[i] @ hopping + hopping @ of_atom[j]) / 2 / 10.0
    return found


def superposed(crystal: Crystal, settings: Mapping[str, Any]) -> OrbitalMatrices:
    """S and H0 alone."""
    found = make(crystal, settings)
    return found.replace(blocks={kind: found.blocks[kind] for kind in ("S", "H0")})


def _fade(distance: Array, cutoff: float) -> Array:
    x = np.clip(distance / cutoff, 0, 1)
    return np.asarray((1 - x**2) ** 3)


def _functions(left: Basis, right: Basis) -> Array:
    """(f) a number for each function of a pair: σ bonds are strongest, and p–p σ has the other sign."""
    rows = []
    for first, a, second, b, m in block_functions(left, right):
        value = 0.6**m * (-1) ** (b + m) * (1 - 0.1 * first / left.size - 0.1 * second / right.size)
        rows.append(value / (1 + 0.3 * abs(a - b)))
    return np.array(rows)


def _between_equal_shells(basis: Basis) -> Array:
    """Ones between two shells of one l, so that on-site blocks have what basis sets of several zetas have."""
    result = np.zeros((basis.size, basis.size))
    for a, first in zip(basis.shells, basis.offsets, strict=True):
        for b, second in zip(basis.shells, basis.offsets, strict=True):
            if a == b and first != second:
                result[first : first + 2 * a + 1, second : second + 2 * b + 1] = np.eye(2 * a + 1)
    return result


def _field(bare: OrbitalMatrices, apart: NDArray[np.int64], atom: int, basis: Basis, fade: Array) -> Array:
    """What the neighbours do to an atom's own block: a symmetric two-centre block of each bond, summed."""
    shape = _functions(basis, basis)
    total = np.zeros((basis.size, basis.size))
    for end, sign in ((0, 1.0), (1, -1.0)):
        here = np.flatnonzero(bare.pairs[apart, end] == atom)
        if len(here):
            size = fade[here] * np.exp(-bare.distances[apart[here]] / 1.5) * 3.0
            blocks = from_frames(size[:, None] * shape, sign * bare.vectors[apart[here]], basis, basis)
            total += blocks.sum(0)
    return (total + total.T) / 2
