"""From an energy to forces and stress: one differentiation, whatever the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from naica.graphs.batch import Batch

# the energy (B) of a batch's systems in eV, and whatever is known per atom (energies, magnetic moments, charges …), (N) each
EnergyOf = Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a potential says of a batch (B systems, N atoms).

    Parameters
    ----------
    energy : (B) eV, in 64 bits
    forces : (N, 3) eV/Å
    stress : (B, 3, 3) eV/Å³, positive under tension; zero for what does not repeat in three directions
    atoms : values per atom (N) by name: ``energy`` (eV), ``magmom`` (μ_B), ``charge`` (e), ``moment_field`` (−dE/dm, eV/μ_B),
        ``force_sigma`` (eV/Å, of committees) …
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    atoms: Mapping[str, Tensor] = field(default_factory=dict)


def differentiated(energy_of: EnergyOf, batch: Batch, long_range: bool = False, twice: bool = False, spins: bool = False) -> Evaluation:
    """Energy, forces −dE/dr and stress (1/V) dE/dε of a batch made by `Systems.batch`.

    The energy of a network of edges is differentiated by the edge vectors alone, which spares a gather: ``r_ij = r_j − r_i + S·cell``
    gives forces and stress from them.

    Parameters
    ----------
    energy_of : differentiable in ``edge_vector`` and ``edge_length``, and with `long_range` also in ``positions``, ``cell`` and ``volume``
    long_range : whether positions and cells enter by another way than edges (Ewald sums); they are then differentiated as well
    twice : keep the graph, so that a loss on forces can be differentiated
    spins : differentiate by ``moments`` as well, where the batch has any: ``moment_field`` is then −dE/dm (N), eV/μ_B
    """
    with torch.enable_grad():
        vector = batch["edge_vector"].detach().requires_grad_()
        tensors = {**batch, "edge_vector": vector, "edge_length": torch.linalg.vector_norm(vector, dim=1)}
        leaves = [vector]
        if spins := spins and "moments" in batch:
            tensors["moments"] = batch["moments"].detach().requires_grad_()
            leaves.append(tensors["moments"])
        if long_range:
            positions = batch["positions"].detach().requires_grad_()
            strain = torch.zeros_like(batch["cell"]).requires_grad_()
            leaves += [positions, strain]
            stretch = torch.eye(3, dtype=strain.dtype, device=strain.device) + strain
            tensors["positions"] = torch.einsum("na,nab->nb", positions, stretch[batch["system"]])
            tensors["cell"] = batch["cell"] @ stretch
            tensors["volume"] = batch["volume"] * torch.linalg.det(stretch)
        energy, atoms = energy_of(Batch(tensors, batch.degree))
        slopes = torch.autograd.grad(energy.sum(), leaves, allow_unused=True, create_graph=twice) if energy.requires_grad else ()
    slope, *rest = [torch.zeros_like(leaf) if s is None else s for s, leaf in zip(slopes or [None] * len(leaves), leaves, strict=True)]
    field = -rest.pop(0) if spins else None
    forces = slope.new_zeros(len(batch["number"]), 3).index_add(0, batch["edge_receiver"], slope)
    forces = forces.index_add(0, batch["edge_sender"], slope, alpha=-1)
    outer = (vector.detach()[:, :, None] * slope[:, None, :]).view(-1, 9)
    virial = slope.new_zeros(batch.n_systems, 9).index_add(0, batch.system_of("edge"), outer).view(-1, 3, 3)
    if rest:
        forces = forces - rest[0]
        virial = virial + rest[1]
    # the energy does not change when all is turned: the strain derivative is symmetric but for rounding
    stress = (virial + virial.transpose(1, 2)) / (2 * batch["volume"][:, None, None])
    if not twice:
        energy, atoms = energy.detach(), {name: value.detach() for name, value in atoms.items()}
    return Evaluation(energy, forces, stress, atoms if field is None else {**atoms, "moment_field": field})
