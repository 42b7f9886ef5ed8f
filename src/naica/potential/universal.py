"""Published universal potentials, run by naica's own networks: M3GNet MP-2021.2.8 and CHGNet 0.3.0, for any crystal of 89 elements.

They compute in 32 bits, as they were trained; edge vectors are made in the precision of the positions first, so that forces lose nothing to
large coordinates. Many crystals in one call are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from naica import runtime
from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.potential.derivatives import Evaluation
from naica.potential.learned import Computed, LearnedPotential
from naica.potential.model import PotentialModel
from naica.structure import Crystal

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


class UniversalPotential:
    """A published potential that reads edges, in 32 bits whatever it is given.

    Parameters
    ----------
    model : network, scale and references
    lone : whether atoms out of each other's reach have an energy; else they are refused (none were in training)
    """

    def __init__(self, model: PotentialModel, lone: bool) -> None:
        runtime.tune()
        self.single, self.lone = LearnedPotential([model], torch.float32), lone
        self.cutoff = self.single.cutoff

    def evaluate(self, batch: Batch) -> Evaluation:
        """Of a batch made by `Systems.batch`.

        Raises
        ------
        InputError
            If an atom has no neighbour and the potential knows no such atoms.
        """
        self._check(batch)
        return self.single.evaluate(batch.to(dtype=torch.float32))

    def compute(self, crystals: Crystal | Sequence[Crystal]) -> list[Computed]:
        """Energy, forces, stress and what else it says of one crystal or of many in one batch (InputError as `evaluate`)."""
        return self.single.compute(crystals, check=self._check)

    def _check(self, batch: Batch) -> None:
        if self.lone:
            return
        alone = torch.bincount(batch["edge_receiver"], minlength=len(batch["number"])) == 0
        if bool(alone.any()):
            raise InputError(
                f"{int(alone.sum())} isolated atoms (no other within {self.cutoff:g} Å): the potential never saw any; "
                "use m3gnet-mp-2021, which has energies of atoms, or bring the atoms together"
            )


def m3gnet() -> Calculator:
    """M3GNet MP-2021.2.8 as an ASE calculator; its weights are the data set ``m3gnet_pretrained`` (MissingPart if it is not here)."""
    from naica.potential.import_m3gnet import import_m3gnet

    return as_calculator(UniversalPotential(import_m3gnet(), lone=True))


def chgnet(version: str = "0.3.0") -> Calculator:
    """CHGNet as an ASE calculator, magnetic moments included; the package ``chgnet`` brings the weights (MissingPart if it is not here)."""
    from naica.potential.import_chgnet import import_chgnet

    return as_calculator(UniversalPotential(import_chgnet(version), lone=False))


def as_calculator(potential: UniversalPotential) -> Calculator:
    """An ASE calculator: energy, forces, stress, energies of atoms, and magnetic moments where the network has them."""
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

    class Universal(Calculator):
        """`potential` is what computes: relaxation and dynamics take it from here."""

        implemented_properties = ("energy", "free_energy", "energies", "forces", "stress", "magmoms")  # type: ignore[assignment]

        def __init__(self) -> None:
            super().__init__()
            self.potential = potential

        def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties or ["energy"], system_changes)
            assert self.atoms is not None
            crystal = Crystal(self.atoms.numbers, self.atoms.positions, self.atoms.cell.array, self.atoms.pbc)
            found = potential.compute(crystal)[0]
            self.results = {"energy": found.energy, "free_energy": found.energy, "forces": found.forces, "energies": found.atoms["energy"]}
            if found.stress is not None:
                self.results["stress"] = found.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            if "magmom" in found.atoms:
                self.results["magmoms"] = found.atoms["magmom"]
            absent = set(properties or ()) - set(self.results)
            if absent:
                raise PropertyNotImplementedError(
                    f"no {', '.join(absent)}: only what repeats in three directions has a stress, only CHGNet moments"
                )

    return Universal()
