"""CHGNet 0.3.0 (Deng et al., Nat. Mach. Intell. 5, 1031, 2023) as a quiet ASE calculator; its package brings the weights."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

from naica import runtime

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

_GPA = 1 / 160.21766208  # eV/Å³


def make() -> Calculator:
    """CHGNet on the CPU: energy, forces, stress. Loading takes about 3 s, most of it imports.

    Leaving out the magnetic moments, which no relaxation needs, saves their part of the network.
    """
    runtime.tune()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from ase.calculators.calculator import Calculator, all_changes
        from chgnet.model.model import CHGNet
        from pymatgen.core import Structure

        class Unwritten(Structure):
            """A structure that is never written: CHGNet leaves a file in the current folder when a graph cannot be made."""

            def to(self, filename: Any = "", fmt: Any = "", **kwargs: Any) -> str:  # type: ignore[override]
                return ""

        class QuietCHGNet(Calculator):
            """CHGNet without prints, warnings, files and magnetic moments. Atoms out of each other's reach are an error."""

            implemented_properties = ("energy", "free_energy", "forces", "stress")  # type: ignore[assignment]

            def __init__(self) -> None:
                super().__init__()
                self.network = CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
                self.network.graph_converter.set_isolated_atom_response("error")

            def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
                super().calculate(atoms, properties or ["energy"], system_changes)
                assert self.atoms is not None
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    structure = Unwritten(
                        self.atoms.cell.array, self.atoms.get_chemical_symbols(), self.atoms.get_positions(), coords_are_cartesian=True
                    )
                    told: Any = self.network.predict_graph(self.network.graph_converter(structure), task="efs")
                energy = float(told["e"]) * len(structure)
                stress = told["s"].astype(float) * _GPA
                voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
                self.results = {"energy": energy, "free_energy": energy, "forces": told["f"].astype(float), "stress": voigt}

        return QuietCHGNet()
