"""A Lennard-Jones solid: one line of physics whose forces and stress are written out, to hold engines of dynamics against.

``V(r) = 4 ε [(σ/r)¹² − (σ/r)⁶] S(r)`` with a quintic S that falls from one to zero between `onset` and `cutoff`, so that energy, force and
curvature are continuous.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.potential.derivatives import Evaluation


@dataclass(frozen=True)
class LennardJones:
    """Every atom alike; the defaults are argon's (Rahman 1964).

    Parameters
    ----------
    epsilon : depth, eV
    sigma : Å
    cutoff : Å
    onset : Å, where the fall to zero begins
    """

    epsilon: float = 0.01032
    sigma: float = 3.405
    cutoff: float = 8.5
    onset: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.onset < self.cutoff or not self.sigma > 0:
            raise InputError(f"onset {self.onset} Å, cut-off {self.cutoff} Å, σ {self.sigma} Å; expected 0 < onset < cut-off and σ > 0")

    def evaluate(self, batch: Batch) -> Evaluation:
        """Energy, forces and stress of a batch made by `Systems.batch`; each edge holds half of a pair."""
        r, vector = batch["edge_length"], batch["edge_vector"]
        sixth = (self.sigma / r) ** 2
        sixth = sixth * sixth * sixth
        pair = 4 * self.epsilon * (sixth * sixth - sixth)
        slope = 4 * self.epsilon * (6 * sixth - 12 * sixth * sixth) / r
        width = self.cutoff - self.onset
        x = ((r - self.onset) / width).clamp(0, 1)
        switch = 1 - x * x * x * (10 - 15 * x + 6 * x * x)
        fall = -30 * x * x * (1 - x) * (1 - x) / width
        slope = slope * switch + pair * fall
        along = 0.5 * (slope / r)[:, None] * vector  # dE/dr_ij of this edge alone
        receiver, sender, n = batch["edge_receiver"], batch["edge_sender"], len(batch["number"])
        forces = along.new_zeros(n, 3).index_add(0, receiver, along).index_add(0, sender, along, alpha=-1)
        sites = (0.5 * pair * switch).double()
        atoms = sites.new_zeros(n).index_add(0, receiver, sites)
        energy = atoms.new_zeros(batch.n_systems).index_add(0, batch["system"], atoms)
        outer = (vector[:, :, None] * along[:, None, :]).view(-1, 9)
        virial = outer.new_zeros(batch.n_systems, 9).index_add(0, batch.system_of("edge"), outer).view(-1, 3, 3)
        stress = (virial + virial.transpose(1, 2)) / (2 * batch["volume"][:, None, None])
        return Evaluation(energy, forces, torch.nan_to_num(stress), {"energy": atoms})
