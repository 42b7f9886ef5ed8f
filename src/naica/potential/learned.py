"""Energy, forces and stress of a property model that learned energies: derivatives by autograd.

The model must be smooth: its graph joins all atoms within a radius, and what an atom gets from another goes to zero there with its first
derivative (the backbone says so by ``smooth = True``). The total energy is differentiated, whatever the model calls its own.

A shift of all energies by a constant per element (formation or atomisation energies) changes neither forces nor stress.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naica.data.labels import Level
from naica.errors import ConfigError, InputError
from naica.graphs.batch import Batch
from naica.graphs.neighbours import within
from naica.structure import Crystal
from naica.training.card import Card
from naica.training.checkpoint import CARD, read
from naica.training.property import PropertyModel

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

Array = NDArray[np.float64]

# quantities whose derivative is a force: total energies up to a constant per element
ENERGIES = ("energy", "energy_per_atom", "formation_energy_per_atom", "atomization_energy")


@dataclass(frozen=True)
class Computed:
    """One system: energy in eV, forces (n, 3) in eV/Å, stress (3, 3) in eV/Å³, positive under tension; None without three periods."""

    energy: float
    forces: Array
    stress: Array | None


class LearnedPotential:
    """One model, or several whose mean counts.

    Parameters
    ----------
    members : property models of one energy
    dtype : precision everything is computed in

    Raises
    ------
    InputError
        If what a member predicts is no energy of atoms, or jumps when an atom crosses the cut-off.
    """

    def __init__(self, members: Sequence[PropertyModel], dtype: torch.dtype = torch.float64) -> None:
        for member in members:
            _check(member)
        self.members = [_copied(member).to(dtype).eval().requires_grad_(False) for member in members]
        self.dtype, self.cutoff = dtype, self.members[0].needs.cutoff

    def compute(self, crystals: Crystal | Sequence[Crystal]) -> list[Computed]:
        """Energy, forces and stress of one crystal or of many in one batch.

        Raises
        ------
        InputError
            If a crystal can have no graph (two atoms on one place).
        """
        items = [crystals] if isinstance(crystals, Crystal) else list(crystals)
        batch = edges_of(items, self.cutoff, self.dtype)
        with torch.enable_grad():
            vector = batch["edge_vector"].requires_grad_()
            batch["edge_length"] = torch.linalg.vector_norm(vector, dim=1)
            energies = torch.stack([_total(member, batch) for member in self.members]).mean(0)
            slope = torch.autograd.grad(energies.sum(), vector, allow_unused=True)[0] if len(vector) else vector
        slope = torch.zeros_like(vector) if slope is None or not len(vector) else slope
        return _computed(items, batch, energies.detach(), slope.detach(), vector.detach())


def _copied(member: PropertyModel) -> PropertyModel:
    """The same network with its own weights: the caller's model keeps its precision and what it learns."""
    new = PropertyModel(member.architecture, member.architecture_config, member.head_config, member.target)
    new.load_state_dict(member.state_dict())
    return new


def _check(member: PropertyModel) -> None:
    quantity, kind = member.target.quantity, member.needs.kind
    if quantity not in ENERGIES or member.target.kind == "class":
        raise InputError(f"a model of {quantity} gives no forces; expected one of {', '.join(ENERGIES)}")
    if kind != "radius":
        raise InputError(
            f"{member.architecture} joins atoms by {kind!r}, so its energy jumps when an atom's neighbours change and has no forces; "
            "train a smooth network (schnet)"
        )
    if member.needs.levels or member.needs.state:
        needed = ", ".join((*member.needs.levels, *member.needs.state))
        raise InputError(f"{member.architecture} needs {needed}, which does not follow the atoms smoothly; train a smooth network (schnet)")
    if not getattr(member.backbone, "smooth", False):
        raise InputError(
            f"{member.architecture} as configured is not smooth: its energy jumps when an atom crosses the cut-off of "
            f"{member.needs.cutoff:g} Å; train a smooth network (schnet with cut = cosine)"
        )


def _total(member: nn.Module, batch: Batch) -> Tensor:
    """(B,) eV of whole systems."""
    values = member(batch)
    return values if member.target.extensive else values * batch["n_atoms"]  # type: ignore[union-attr, operator]


def edges_of(crystals: Sequence[Crystal], cutoff: float, dtype: torch.dtype) -> Batch:
    """The batch of some crystals within a radius, with vectors in `dtype` (graph sets keep them in 32 bits)."""
    found = [within(c.positions, c.cell, c.pbc, cutoff) for c in crystals]
    counts = np.array([len(c) for c in crystals])
    shift = np.repeat(np.cumsum(counts) - counts, [len(e.length) for e in found])
    receiver = np.concatenate([np.zeros(0, np.int64), *(e.receiver for e in found)]) + shift
    order = np.argsort(receiver, kind="stable")
    sender = (np.concatenate([np.zeros(0, np.int64), *(e.sender for e in found)]) + shift)[order]
    vector = torch.from_numpy(np.concatenate([np.zeros((0, 3)), *(e.vector for e in found)])[order]).to(dtype)
    n_atoms = torch.from_numpy(counts)
    system = torch.repeat_interleave(torch.arange(len(crystals)), n_atoms)
    tensors = {
        "number": torch.from_numpy(np.concatenate([c.numbers for c in crystals]).astype(np.int64)),
        "system": system,
        "fraction": (1.0 / n_atoms.to(dtype))[system],
        "n_atoms": n_atoms,
        "edge_receiver": torch.from_numpy(receiver[order]),
        "edge_sender": torch.from_numpy(sender),
        "edge_vector": vector,
        "edge_length": torch.linalg.vector_norm(vector, dim=1),
    }
    return Batch(tensors)


def _computed(crystals: Sequence[Crystal], batch: Batch, energies: Tensor, slope: Tensor, vector: Tensor) -> list[Computed]:
    """From the derivative by edge vectors, r_ij = r_j − r_i + S·cell, to forces and to stress = (1/V) dE/dε."""
    forces = slope.new_zeros(len(batch["number"]), 3)
    forces.index_add_(0, batch["edge_receiver"], slope)
    forces.index_add_(0, batch["edge_sender"], slope, alpha=-1)
    strain = slope.new_zeros(batch.n_systems, 9)
    strain.index_add_(0, batch.system_of("edge"), (vector[:, :, None] * slope[:, None, :]).view(-1, 9))
    results = []
    parts = torch.split(forces, batch["n_atoms"].tolist())
    for crystal, energy, force, one in zip(crystals, energies.tolist(), parts, strain.view(-1, 3, 3), strict=True):
        stress = one.double().numpy() / abs(np.linalg.det(crystal.cell)) if crystal.pbc.all() else None
        # the energy depends on distances alone: the strain derivative is symmetric but for rounding
        stress = None if stress is None else (stress + stress.T) / 2
        results.append(Computed(float(energy), force.double().numpy(), stress))
    return results


# --- by name -----------------------------------------------------------------------------------------------------------------------------
def is_model(name: str) -> bool:
    """Whether a text is the folder of a saved model, or the run folder around one."""
    return _card_folder(name) is not None


def _card_folder(name: str) -> Path | None:
    return next((folder for folder in (Path(name) / "model", Path(name)) if (folder / CARD).is_file()), None)


@cache
def _read(folder: Path) -> tuple[list[PropertyModel], Card]:
    return read(folder)


def potential(model: Any, dtype: torch.dtype = torch.float64) -> LearnedPotential:
    """The potential of an `Ensemble`, a `PropertyModel`, or the folder of a saved model.

    Raises
    ------
    ConfigError
        If a text is no such folder.
    InputError
        If the model gives no forces; the message says why.
    """
    if isinstance(model, PropertyModel):
        return LearnedPotential([model], dtype)
    if isinstance(model, str | Path):
        folder = _card_folder(str(model))
        if folder is None:
            raise ConfigError(f"no model folder {str(model)!r}; expected one with {CARD}")
        return LearnedPotential(_read(folder.resolve())[0], dtype)
    return LearnedPotential(model.members, dtype)


def card_of(name: str) -> Card:
    """The card of the model in a folder."""
    folder = _card_folder(name)
    if folder is None:
        raise ConfigError(f"no model folder {name!r}; expected one with {CARD}")
    return _read(folder.resolve())[1]


def level_of(name: str) -> Level:
    """The level of theory of a learned potential's energies: an estimate of the one it learned from, never that one itself."""
    card = card_of(name)
    return Level(
        functional=f"{card.architecture} {card.name or Path(name).name} (estimates {card.level or 'an unknown level'})", code="naica"
    )


def make(model: Any, dtype: torch.dtype = torch.float64) -> Calculator:
    """An ASE calculator of a learned potential: energy, forces, stress."""
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

    known = potential(model, dtype)

    class Learned(Calculator):
        """Energy in eV as the model means it (formation energies stay formation energies), times the atoms; forces; stress."""

        implemented_properties = ("energy", "free_energy", "forces", "stress")  # type: ignore[assignment]

        def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties or ["energy"], system_changes)
            assert self.atoms is not None
            crystal = Crystal(self.atoms.numbers, self.atoms.positions, self.atoms.cell.array, self.atoms.pbc)
            found = known.compute(crystal)[0]
            if found.stress is None and "stress" in (properties or ()):
                raise PropertyNotImplementedError("only what repeats in three directions has a stress")
            self.results = {"energy": found.energy, "free_energy": found.energy, "forces": found.forces}
            if found.stress is not None:
                self.results["stress"] = found.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    return Learned()
