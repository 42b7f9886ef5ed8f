"""The way back from electrons to forces: the energy of filled bands of a predicted H and S, and its slopes.

With states c of H(k) c = ε S(k) c filled by f, the free energy of independent electrons ``F = Σ f ε − T·entropy`` changes with positions
by ``Σ f c†(dH − ε dS) c`` alone (Hellmann, Feynman and Pulay): only the predicted blocks need be differentiated, not the states. Those of
networks are differentiated by autograd, two-centre tables by central differences of their splines. F is no total energy: repulsion and
double counting are missing, so it is for what bands decide (a Peierls or Jahn–Teller distortion, a bond that opens a gap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.hamiltonian.bands import Solved, fermi_level, mesh_for, solve
from naica.hamiltonian.graphs import padded, sample
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.model import HamiltonianModel
from naica.hamiltonian.two_centre import TwoCentre
from naica.structure import Crystal

Array = NDArray[np.float64]
_KB = 8.617333262e-5  # eV/K
_STEP = 1e-4  # Å


@dataclass(frozen=True)
class BandEnergy:
    """`energy` eV per cell: Σ f ε less temperature times entropy; `forces` (n, 3) eV/Å; `fermi` eV."""

    energy: float
    forces: Array
    fermi: float


def band_energy(model: HamiltonianModel, crystal: Crystal, kpoints: Array | None = None, temperature: float = 300.0) -> BandEnergy:
    """Free energy of a structure's predicted bands, and the forces that it exerts on the atoms.

    Parameters
    ----------
    kpoints : (K, 3) fractional mesh; default: the usual one
    temperature : of the filling, K

    Raises
    ------
    InputError
        If the model is added to H₀ (whose slopes only its code knows), has spinors, or its basis does not tell the electrons.
    """
    if model.on_h0 or model.layout.spin:
        what = "is added to the Hamiltonian of superposed atoms, whose slopes are unknown" if model.on_h0 else "is one of spinors"
        raise InputError(f"this model {what}; band forces need one of two-centre tables without spin")
    found = model.predict(crystal)
    electrons = found.electrons
    if not electrons:
        raise InputError("the basis of this model does not say how many valence electrons its atoms have")
    points = mesh_for(found) if kpoints is None else np.asarray(kpoints, dtype=np.float64)
    states = [solve(found, k, vectors=True) for k in points]
    energies = np.stack([one.energies for one in states])
    level = fermi_level(energies, electrons, temperature)
    filled = 1 / (1 + np.exp(np.clip((energies - level) / (_KB * temperature), -500, 500)))
    entropy = -float(np.sum(_x_log_x(filled) + _x_log_x(1 - filled))) * _KB
    energy = 2 * (float(np.sum(filled * energies)) - temperature * entropy) / len(points)
    weights = [2 * f / len(points) for f in filled]
    density, weighted = (_density(found, points, states, [w * e for w, e in zip(weights, by, strict=True)]) for by in _both(energies))
    forces = _of_tables(model.baseline, found, density) + _of_network(model, found, density)
    if model.overlap is not None:
        forces = forces - _of_tables(model.overlap, found, weighted)
    return BandEnergy(energy, forces, level)


def _both(energies: Array) -> tuple[Array, Array]:
    return np.ones_like(energies), energies


def _x_log_x(x: Array) -> Array:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)


def _density(matrices: OrbitalMatrices, points: Array, states: Sequence[Solved], weights: Sequence[Array]) -> Array:
    """Flat d(Σ w c† X c) / dX for the stored numbers of X; those of pairs count for both directions."""
    row, column, pair, twice = matrices.elements
    total = np.zeros(len(row))
    for k, one, weight in zip(points, states, weights, strict=True):
        phase = np.exp(2j * np.pi * (matrices.images @ k))[pair]
        assert one.vectors is not None
        used = np.flatnonzero(np.abs(weight) > 1e-14)
        c = one.vectors[:, used]
        total += (phase * np.einsum("es,es,s->e", c[row].conj(), c[column], weight[used], optimize=True)).real
    return total * np.where(twice, 2.0, 1.0)


def _of_tables(table: TwoCentre, matrices: OrbitalMatrices, density: Array) -> Array:
    """(n, 3) forces through a two-centre table."""
    apart = ~matrices.on_site
    slopes = np.zeros((len(matrices.pairs), 3))
    for axis in range(3):
        ends = [table.blocks(matrices, matrices.vectors + sign * _STEP * np.eye(3)[axis] * apart[:, None]) for sign in (1.0, -1.0)]
        slopes[:, axis] = np.add.reduceat(density * (ends[0] - ends[1]) / (2 * _STEP), matrices.starts[:-1])
    forces = np.zeros((len(matrices.crystal), 3))
    np.add.at(forces, matrices.pairs[apart, 0], slopes[apart])
    np.add.at(forces, matrices.pairs[apart, 1], -slopes[apart])
    return forces


def _of_network(model: HamiltonianModel, matrices: OrbitalMatrices, density: Array) -> Array:
    """(n, 3) forces through the network."""
    dtype = next(model.parameters()).dtype
    s = sample(matrices, model.cutoff, model.layout, dtype=dtype)
    wanted = [torch.from_numpy(padded(matrices, model.layout, density, rows)).to(dtype) for rows in (s.rows, s.own)]
    with torch.enable_grad():
        vector = s.batch["edge_vector"].detach().requires_grad_()
        length = torch.linalg.vector_norm(vector, dim=1)
        moved = Batch({**s.batch, "edge_vector": vector, "edge_length": length}, s.batch.degree)
        pair, own = model(type(s)(moved, s.there, s.back, s.rows, s.own))
        value = (pair * wanted[0]).sum() + (own * wanted[1]).sum()
        (slope,) = torch.autograd.grad(value, vector)
    forces = slope.new_zeros(len(matrices.crystal), 3).index_add(0, s.batch["edge_receiver"], slope)
    return np.asarray(forces.index_add(0, s.batch["edge_sender"], slope, alpha=-1).double().numpy())
