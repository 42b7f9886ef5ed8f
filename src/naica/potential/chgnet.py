"""CHGNet 0.3.0 (Deng et al., Nat. Mach. Intell. 5, 1031, 2023) as a quiet ASE calculator; its package brings the weights."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

from naica import runtime

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def make() -> Calculator:
    """CHGNet on the CPU. Loading takes about 3 s, most of it imports.

    Energies, forces and stress only: leaving out the magnetic moments saves their head.
    """
    runtime.tune()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from chgnet.model.dynamics import CHGNetCalculator
        from chgnet.model.model import CHGNet

        class Quiet(CHGNetCalculator):
            """CHGNet that neither prints nor warns and computes no magnetic moments."""

            implemented_properties = ("energy", "free_energy", "forces", "stress")

            def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None, task: str = "efs") -> None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    super().calculate(atoms, properties, system_changes, task=task)
                self.results["energy"] = self.results["free_energy"] = float(self.results["energy"])

        return Quiet(CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False), use_device="cpu", on_isolated_atoms="error")
