"""Energy, forces and stress of learned potentials: `PotentialModel`, or a property model that learned energies; one, or several at once.

The model must be smooth: its graph joins all atoms within a radius, and what an atom gets from another goes to zero there with its first
derivative (the backbone says so by ``smooth = True``). The total energy is differentiated, whatever the model calls its own.

A shift of all energies by a constant per element (formation or atomisation energies) changes neither forces nor stress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.data.labels import Level
from naica.errors import ConfigError, InputError
from naica.graphs.batch import Batch
from naica.potential.derivatives import Evaluation, differentiated
from naica.potential.model import PotentialModel, check_smooth
from naica.potential.saved import Potential, PotentialCard, is_potential, read_potential
from naica.potential.systems import Systems
from naica.structure import Crystal
from naica.training.card import Card
from naica.training.checkpoint import CARD, read
from naica.training.property import PropertyModel

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

Array = NDArray[np.float64]
Member = PropertyModel | PotentialModel

# quantities whose derivative is a force: total energies up to a constant per element
ENERGIES = ("energy", "energy_per_atom", "formation_energy_per_atom", "atomization_energy")


@dataclass(frozen=True)
class Computed:
    """One system: energy in eV, forces (n, 3) in eV/Å, stress (3, 3) in eV/Å³, positive under tension; None without three periods.

    `atoms` are further values per atom by name: ``energy`` (eV), ``magmom`` (μ_B), ``charge`` (e); with several members ``force_sigma``
    (eV/Å), the root mean square spread of the members' forces.
    """

    energy: float
    forces: Array
    stress: Array | None
    atoms: Mapping[str, Array]


class LearnedPotential:
    """One model, or several whose mean counts.

    Parameters
    ----------
    members : potential models, or property models of one energy
    dtype : precision everything is computed in

    Raises
    ------
    InputError
        If what a member predicts is no energy of atoms, or jumps when an atom crosses the cut-off.
    """

    def __init__(self, members: Sequence[Member], dtype: torch.dtype = torch.float64) -> None:
        for member in members:
            _check(member)
        self.members = [deepcopy(member).to(dtype).eval().requires_grad_(False) for member in members]
        self.dtype, self.cutoff = dtype, max(member.needs.cutoff for member in self.members)

    def evaluate(self, batch: Batch) -> Evaluation:
        """Energy, forces and stress of a batch made by `Systems.batch` with this potential's cut-off and precision."""
        return self.mean_of(self.evaluate_members(batch))

    def evaluate_members(self, batch: Batch) -> list[Evaluation]:
        """What every member says of a batch."""
        return [_evaluated(member, batch) for member in self.members]

    def mean_of(self, found: Sequence[Evaluation]) -> Evaluation:
        """The mean of what members say; several have a ``force_sigma`` (eV/Å) per atom, the spread of their forces."""
        if len(found) == 1:
            return found[0]
        forces = torch.stack([one.forces for one in found])
        names = set.intersection(*(set(one.atoms) for one in found))
        atoms = {name: torch.stack([one.atoms[name] for one in found]).mean(0) for name in names}
        atoms["force_sigma"] = forces.var(0).sum(1).sqrt()
        mean = (torch.stack([getattr(one, name) for one in found]).mean(0) for name in ("energy", "stress"))
        energy, stress = mean
        return Evaluation(energy, forces.mean(0), stress, atoms)

    def compute(self, crystals: Crystal | Sequence[Crystal], check: Callable[[Batch], None] | None = None) -> list[Computed]:
        """Energy, forces and stress of one crystal or of many in one batch, which `check` may refuse.

        Raises
        ------
        InputError
            If a crystal can have no graph (two atoms on one place).
        """
        systems = Systems.of(crystals)
        batch = systems.batch(self.cutoff, dtype=self.dtype)
        if check is not None:
            check(batch)
        found = self.evaluate(batch)
        sizes = systems.n_atoms.tolist()
        forces = [part.double().numpy() for part in found.forces.split(sizes)]
        atoms = {name: [part.double().numpy() for part in value.split(sizes)] for name, value in found.atoms.items()}
        whole = systems.pbc.all(dim=1).tolist()
        return [
            Computed(
                float(found.energy[k]),
                forces[k],
                found.stress[k].double().numpy() if whole[k] else None,
                {name: parts[k] for name, parts in atoms.items()},
            )
            for k in range(len(systems))
        ]


def _evaluated(member: Member, batch: Batch) -> Evaluation:
    if isinstance(member, PotentialModel):
        return member.compute(batch)
    return differentiated(lambda local: (_total(member, local), {}), batch)


def _check(member: Member) -> None:
    if isinstance(member, PotentialModel):
        return  # it was refused when it was made
    quantity = member.target.quantity
    if quantity not in ENERGIES or member.target.kind == "class":
        raise InputError(f"a model of {quantity} gives no forces; expected one of {', '.join(ENERGIES)}")
    check_smooth(member.architecture, member.backbone)
    if member.needs.state:
        raise InputError(f"{member.architecture} needs {', '.join(member.needs.state)}, which does not follow the atoms smoothly")


def _total(member: PropertyModel, batch: Batch) -> Tensor:
    """(B,) eV of whole systems."""
    values = member(batch)
    return (values if member.target.extensive else values * batch["n_atoms"]).double()


# --- by name -----------------------------------------------------------------------------------------------------------------------------
def is_model(name: str) -> bool:
    """Whether a text is the folder of a saved model, or the run folder around one; ``FOLDER@LEVEL`` is one too."""
    return _card_folder(name) is not None


def _card_folder(name: str) -> Path | None:
    """The folder with the card of ``FOLDER`` or ``FOLDER@LEVEL``."""
    for text in (name, name.rpartition("@")[0]):
        found = next((folder for folder in (Path(text) / "model", Path(text)) if text and (folder / CARD).is_file()), None)
        if found is not None:
            return found
    return None


@cache
def _read(folder: Path, level: str) -> tuple[Sequence[Member], Card | PotentialCard, Potential | None]:
    """Members and card of a model folder, and the potential if it is one."""
    if not is_potential(folder):
        return (*read(folder), None)
    found = read_potential(folder)
    found = found.at_level(level) if level else found
    return found.members, found.card, found


def _opened(name: str) -> tuple[Sequence[Member], Card | PotentialCard, Potential | None]:
    folder = _card_folder(name)
    if folder is None:
        raise ConfigError(f"no model folder {name!r}; expected one with {CARD}")
    plain = any((path / CARD).is_file() for path in (Path(name) / "model", Path(name)))
    return _read(folder.resolve(), "" if plain else name.rpartition("@")[2])


def potential(model: Any, dtype: torch.dtype = torch.float64) -> LearnedPotential:
    """The potential of an `Ensemble`, a `Potential`, a `PotentialModel`, a `PropertyModel`, or the folder of a saved one.

    Raises
    ------
    ConfigError
        If a text is no such folder.
    InputError
        If the model gives no forces; the message says why.
    """
    if isinstance(model, PropertyModel | PotentialModel):
        return LearnedPotential([model], dtype)
    if isinstance(model, str | Path):
        members, card, _ = _opened(str(model))
    else:
        members, card = model.members, model.card
    if isinstance(card, PotentialCard) and card.baked:
        from naica.potential.bake import with_tables

        return with_tables(members, card.baked, dtype)
    return LearnedPotential(members, dtype)


def card_of(name: str) -> Card | PotentialCard:
    """The card of the model in a folder."""
    return _opened(name)[1]


def level_of(name: str) -> Level:
    """The level of theory of a learned potential's energies: an estimate of the one it learned from, never that one itself."""
    card = card_of(name)
    level = card.speaking if isinstance(card, PotentialCard) else card.level or "an unknown level"
    return Level(functional=f"{card.architecture} {card.name or Path(name).name} (estimates {level})", code="naica")


def make(model: Any, dtype: torch.dtype = torch.float64) -> Calculator:
    """An ASE calculator of a learned potential: energy, forces, stress.

    A `Potential` (or its folder) refuses elements its card does not list, with an InputError when it computes.
    """
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

    known = potential(model, dtype)
    guard = model if isinstance(model, Potential) else _opened(str(model))[2] if isinstance(model, str | Path) else None

    class Learned(Calculator):
        """Energy in eV as the model means it (formation energies stay formation energies), times the atoms; forces; stress."""

        implemented_properties = ("energy", "free_energy", "forces", "stress")  # type: ignore[assignment]

        def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties or ["energy"], system_changes)
            assert self.atoms is not None
            crystal = Crystal(self.atoms.numbers, self.atoms.positions, self.atoms.cell.array, self.atoms.pbc)
            if guard is not None:
                guard.check_elements(crystal)
            found = known.compute(crystal)[0]
            if found.stress is None and "stress" in (properties or ()):
                raise PropertyNotImplementedError("only what repeats in three directions has a stress")
            self.results = {"energy": found.energy, "free_energy": found.energy, "forces": found.forces}
            if found.stress is not None:
                self.results["stress"] = found.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    return Learned()
