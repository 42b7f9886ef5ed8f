"""Potentials of ours inside torch-sim (batched relaxation and dynamics on its states).

torch-sim keeps cells as columns; ours are rows. Energies are eV, forces eV/Å, stresses eV/Å³, positive under tension, on both sides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naica.errors import InputError, MissingPart, RunError
from naica.potential.evaluator import of
from naica.potential.systems import Systems


def torch_sim_model(model: Any, dtype: torch.dtype = torch.float64) -> Any:
    """A torch-sim ``ModelInterface`` of a potential.

    Parameters
    ----------
    model : a name, a folder, a potential, an ASE calculator
    dtype : of positions and forces in torch-sim's states, and the precision of our networks

    Raises
    ------
    MissingPart
        Without torch-sim.
    ConfigError
        If the model is unknown.
    """
    try:
        from torch_sim.models.interface import ModelInterface
    except ImportError as error:
        raise MissingPart(f"torch-sim is not installed ({error}); pip install 'naica[torch-sim]'") from error
    evaluator = of(model, dtype)

    class Naica(ModelInterface):  # type: ignore[misc]
        """Energies, forces and stresses of a state, from a potential of ours."""

        def __init__(self) -> None:
            super().__init__()
            self._device, self._dtype = torch.device("cpu"), dtype
            self._compute_stress = self._compute_forces = True
            self._memory_scales_with = "n_atoms_x_density"

        def forward(self, state: Any, **kwargs: Any) -> dict[str, Tensor]:
            """(B) energies, (N, 3) forces, (B, 3, 3) stresses."""
            evaluator.forget()  # states come in any order and number
            found = evaluator.evaluate(_systems(state))
            if found.complaints:
                which = min(found.complaints)
                raise RunError(f"system {which} could not be computed: {found.complaints[which]}")
            return {name: getattr(found, name).to(dtype) for name in ("energy", "forces", "stress")}

    return Naica()


def _systems(state: Any) -> Systems:
    """Of a torch-sim state, or a dictionary of its tensors."""
    given = state if isinstance(state, dict) else {name: getattr(state, name) for name in ("positions", "cell", "atomic_numbers")}
    index = state["system_idx"] if isinstance(state, dict) else state.system_idx
    pbc = state["pbc"] if isinstance(state, dict) else state.pbc
    if index is None or given["atomic_numbers"] is None:
        raise InputError("the state says neither which system an atom belongs to nor its element; make it with torch_sim.initialize_state")
    count = torch.bincount(index)
    repeats = torch.as_tensor(pbc, dtype=torch.bool).expand(3).expand(len(count), 3)
    rows = given["cell"].detach().double().transpose(1, 2)
    return Systems(given["atomic_numbers"].long(), given["positions"].detach().double(), rows, repeats.clone(), count)
