"""The level of orbitals: one node per valence shell of every atom, one edge per pair of shells of neighbouring atoms.

After Bai et al. (half-Heusler band gaps from orbital graphs, 2020), with three changes that make the graph a property of the crystal:
shells instead of single orbitals and couplings in the frame of the bond (σ, π, δ), so that turning the crystal changes nothing; sizes of
couplings, so that the sign convention of the orbitals does not matter; levels against their mean, so that the energy zero does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.graphs.levels import Made, System
from naica.graphs.spec import GraphSpec
from naica.structure.elements import symbol
from naica.structure.orbitals import couplings, valence_shells

FIELDS = (
    "orbital_atom",
    "orbital_shell",
    "orbital_energy",
    "orbital_filling",
    "orbital_edge_receiver",
    "orbital_edge_sender",
    "orbital_edge_coupling",
    "orbital_edge_gap",
)
SHELL_KINDS = 28
"""Kinds of shells: 4 (n − 1) + l for n up to 7."""


def orbitals(system: System, spec: GraphSpec) -> Made:
    """Orbitals and their couplings along the edges of the atom graph.

    Raises
    ------
    InputError
        For an element whose levels are not known. An isolated atom has levels and no couplings.
    """
    shells = [valence_shells(int(number)) for number in system.numbers]
    bare = next((k for k, found in enumerate(shells) if not found), None)
    if bare is not None:
        raise InputError(f"no valence orbitals of {symbol(int(system.numbers[bare]))} are known")
    count = np.array([len(found) for found in shells])
    first = np.cumsum(count) - count
    flat = [shell for found in shells for shell in found]
    energy = np.array([shell.energy for shell in flat])
    energy = energy - energy.mean()
    receiver, sender, coupling = _edges(system, shells, first)
    order = np.argsort(receiver, kind="stable")
    receiver, sender = receiver[order], sender[order]
    return {
        "orbital_atom": np.repeat(np.arange(len(shells)), count),
        "orbital_shell": np.array([4 * (shell.n - 1) + shell.l for shell in flat]),
        "orbital_energy": energy,
        "orbital_filling": np.array([shell.filling for shell in flat]),
        "orbital_edge_receiver": receiver,
        "orbital_edge_sender": sender,
        "orbital_edge_coupling": coupling[order],
        "orbital_edge_gap": np.abs(energy[receiver] - energy[sender]),
    }


def _edges(system: System, shells: list[tuple], first: NDArray[np.int64]) -> tuple[NDArray, NDArray, NDArray]:
    """Every pair of shells of every pair of neighbours; bonds between the same two elements are done together."""
    receivers, senders, values = [], [], []
    pairs = system.numbers[system.receiver] * 128 + system.numbers[system.sender]
    for pair in np.unique(pairs):
        bonds = np.flatnonzero(pairs == pair)
        i, j = system.receiver[bonds], system.sender[bonds]
        for a, one in enumerate(shells[i[0]]):
            for b, other in enumerate(shells[j[0]]):
                receivers.append(first[i] + a)
                senders.append(first[j] + b)
                values.append(np.abs(couplings(one, other, system.length[bonds])))
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *receivers]), np.concatenate([none, *senders]), np.concatenate([np.zeros((0, 3)), *values])
