"""Potentials as programs of ``torch.export``: a file that torch runs without naica, with any number of atoms and edges.

The program takes what a graph of one system is made of and gives energy, forces and stress. Neighbours stay the caller's business, as they
do in every engine of dynamics::

    program = torch.export.load("potential.pt2").module()
    energy, forces, stress = program(number, edge_sender, edge_receiver, edge_vector, volume)

``edge_vector`` is r_j − r_i + S·cell from the receiver i to the sender j, edges sorted by receiver, all within the cut-off. Derivatives are
traced with the energy, so nothing is differentiated at run time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naica.errors import InputError, RunError
from naica.graphs.batch import Batch
from naica.potential.learned import potential
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal
from naica.structure.elements import symbol

INPUTS = ("number", "edge_sender", "edge_receiver", "edge_vector", "volume")


class _Plain(nn.Module):
    """(energy, forces, stress) of one system from plain tensors."""

    def __init__(self, model: PotentialModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, number: Tensor, edge_sender: Tensor, edge_receiver: Tensor, edge_vector: Tensor, volume: Tensor) -> Any:
        """Energy () in eV, forces (N, 3) in eV/Å, stress (3, 3) in eV/Å³."""
        vector = edge_vector.detach().requires_grad_()
        atoms = number.shape[0]
        system = torch.zeros_like(number)
        one = number.new_full((1,), atoms)
        batch = Batch(
            {
                "number": number,
                "system": system,
                "fraction": torch.ones_like(number, dtype=vector.dtype) / atoms,
                "n_atoms": one,
                "edge_receiver": edge_receiver,
                "edge_sender": edge_sender,
                "edge_vector": vector,
                "edge_length": torch.linalg.vector_norm(vector, dim=1),
                "volume": volume.reshape(1),
            },
            degree=None,
        )
        energy, _ = self.model.energies(batch)
        (slope,) = torch.autograd.grad(energy.sum(), [vector])
        forces = slope.new_zeros(atoms, 3).index_add(0, edge_receiver, slope).index_add(0, edge_sender, slope, alpha=-1)
        virial = vector.detach().T @ slope
        return energy.detach()[0], forces, (virial + virial.T) / (2 * volume)


@dataclass(frozen=True)
class Exported:
    """A program on disk, and how far it is from the potential on the crystal it was tried on: eV/atom, eV/Å, eV/Å³."""

    path: Path
    energy_error: float
    force_error: float
    stress_error: float
    elements: tuple[str, ...]


def export_program(model: Any, out: str | Path, example: Crystal, dtype: torch.dtype = torch.float64) -> Exported:
    """Write a potential as a program, load it again and compare.

    Parameters
    ----------
    model : a model folder, or a potential model of ours
    out : of the program, ``.pt2``
    example : a crystal to trace and try with; a second one, larger, is made of it to see that sizes are free

    Raises
    ------
    InputError
        If the model has several members, levels, moments or a sum over the whole crystal, or `out` is no ``.pt2``.
    RunError
        If torch cannot trace it; the message holds torch's reason.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    found = potential(model, dtype)
    if len(found.members) != 1 or not isinstance(found.members[0], PotentialModel):
        raise InputError(f"{len(found.members)} members; a program holds one potential model: name one member's folder")
    network = found.members[0]
    if network.long_range:
        raise InputError(
            f"electrostatics {network.parts.electrostatics} sums over the whole crystal (Ewald), which a program of edges can not; "
            "LAMMPS and torch-sim run it through naica itself"
        )
    if network.parts.levels[1:] or network.spins is not None:
        what = "several levels of theory" if network.parts.levels[1:] else "magnetic moments"
        raise InputError(f"a potential of {what} reads more than edges; it cannot be a program of edges")
    if Path(out).suffix != ".pt2":
        raise InputError(f"{Path(out).name}: programs of torch.export are written as .pt2; other formats (ONNX) are not")
    inputs = _inputs(example, network.cutoff, dtype)
    plain = _Plain(network).eval()
    try:
        with _plain_path():
            plain(*inputs)  # constants that are made on first use are no part of the program
            traced = make_fx(plain, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*inputs)
        atoms, edges = torch.export.Dim("atoms", min=2), torch.export.Dim("edges", min=2)
        free: Any = ({0: atoms}, {0: edges}, {0: edges}, {0: edges}, {})
        program = torch.export.export(traced, inputs, dynamic_shapes=free, strict=False)
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"naica": json.dumps({"inputs": INPUTS, "cutoff": network.cutoff, "architecture": network.architecture})}
        torch.export.save(program, path, extra_files=facts)
        again = torch.export.load(path).module()
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    except Exception as error:  # torch raises a dozen kinds here; each is a reason
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"torch.export cannot trace {network.architecture}: {first}") from error
    errors = [_compared(again, found.compute, crystal, network.cutoff, dtype) for crystal in (example, example.supercell((2, 1, 1)))]
    energy, force, stress = (max(column) for column in zip(*errors, strict=True))
    return Exported(path, energy, force, stress, tuple(symbol(int(z)) for z in sorted(set(example.numbers.tolist()))))


@contextmanager
def _plain_path() -> Iterator[None]:
    """Have our parts take the way of plain torch operations: their own kernels have no meaning outside of this package."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def _inputs(crystal: Crystal, cutoff: float, dtype: torch.dtype) -> tuple[Tensor, ...]:
    batch = Systems.of([crystal]).batch(cutoff, dtype=dtype)
    return tuple(batch[name] if name != "volume" else batch["volume"].reshape(()) for name in INPUTS)


def _compared(
    program: Callable[..., Any], compute: Callable[..., Any], crystal: Crystal, cutoff: float, dtype: torch.dtype
) -> tuple[float, float, float]:
    """Largest differences: eV/atom, eV/Å, eV/Å³."""
    energy, forces, stress = program(*_inputs(crystal, cutoff, dtype))
    ours = compute(crystal)[0]
    return (
        abs(float(energy) - ours.energy) / len(crystal),
        float((forces.double() - torch.as_tensor(ours.forces)).abs().max()),
        float((stress.double() - torch.as_tensor(ours.stress)).abs().max()),
    )
