"""The level of motifs: coordination polyhedra as nodes, pairs of them as edges (see `naica.structure.motifs`)."""

from __future__ import annotations

import numpy as np

from naica.graphs.levels import Made, System
from naica.graphs.spec import GraphSpec
from naica.structure import Crystal
from naica.structure import motifs as polyhedra

NEAR = 6.0
"""Å: the reach of ``motifs_near``; it has about a sixth of the edges."""


def motifs(system: System, spec: GraphSpec) -> Made:
    """The level maker ``motifs``: pairs that share ligands, and those that share none within 11 Å (Banjade et al. 2021).

    A motif without any pair gets an edge to itself, of length 0 and sharing nothing. A centre without ligands (a lone atom) is a motif of
    shape ``other`` with coordination 0, so that every system has at least one motif.
    """
    return _made(system, polyhedra.REACH)


def near_motifs(system: System, spec: GraphSpec) -> Made:
    """The level maker ``motifs_near``: the same with pairs that share nothing up to 6 Å only."""
    return _made(system, NEAR)


def _made(system: System, reach: float) -> Made:
    crystal = Crystal(system.numbers, system.positions, system.cell, system.pbc)
    found = polyhedra.motifs(crystal, lone="kept")
    pairs = polyhedra.motif_pairs(crystal, found, reach)
    single = np.setdiff1d(np.arange(len(found)), pairs.receiver)
    receiver = np.concatenate([pairs.receiver, single])
    order = np.argsort(receiver, kind="stable")
    nothing = np.zeros(len(single))
    alone = np.full(len(single), polyhedra.SHARINGS.index("none"))
    return {
        "motif_atom": found.centre,
        "motif_shape": found.shape,
        "motif_measure": found.measure,
        "motif_order": found.order,
        "motif_coordination": found.coordination.astype(np.float64),
        "motif_bond_length": found.bond_length,
        "motif_bond_spread": found.bond_spread,
        "motif_edge_receiver": receiver[order],
        "motif_edge_sender": np.concatenate([pairs.sender, single])[order],
        "motif_edge_length": np.concatenate([pairs.length, nothing])[order],
        "motif_edge_sharing": np.concatenate([pairs.sharing, alone])[order],
        "motif_edge_angle": np.concatenate([pairs.angle, nothing])[order],
    }
