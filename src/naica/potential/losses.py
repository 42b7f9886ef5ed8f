"""What a potential's training minimises: errors of energies, forces, stresses, moments and charges, each over the labels there are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from naica.graphs.batch import Batch
from naica.potential.derivatives import Evaluation
from naica.potential.examples import Wanted
from naica.potential.settings import Loss, Weights

# forces beyond these many eV/Å (of the label) are learned with a delta so many times smaller
_LARGE = ((100.0, 0.7), (200.0, 0.4), (300.0, 0.1))


def loss_of(found: Evaluation, wanted: Wanted, batch: Batch, weights: Weights, kind: Loss, delta: float) -> Tensor:
    """One number for a step.

    Each field is a mean over its labels in the step, energies per atom, stress as ``σ V / N`` (eV). A label that is not there counts for
    nothing; neither does a field of weight 0.
    """
    n_atoms = batch["n_atoms"]
    errors: dict[str, tuple[Tensor, Tensor | None]] = {}
    if wanted.energy is not None and weights.energy:
        errors["energy"] = ((found.energy - wanted.energy) / n_atoms, None)
    if wanted.forces is not None and weights.forces:
        errors["forces"] = (found.forces - wanted.forces, _shrunk(wanted.forces) if kind == "conditional-huber" else None)
    if wanted.stress is not None and weights.stress:
        # what does not repeat in three directions has an infinite volume, and no label
        volume = torch.where(torch.isfinite(batch["volume"]), batch["volume"] / n_atoms, torch.ones_like(batch["volume"]))
        errors["stress"] = ((found.stress - wanted.stress) * volume[:, None, None], None)
    for name in ("magmom", "charge"):
        label = getattr(wanted, name)
        if label is not None and name in found.atoms and getattr(weights, name):
            # only the size of a moment is learned: its direction is a choice of the calculation
            errors[name] = (found.atoms[name] - (label.abs() if name == "magmom" else label), None)
    total = found.energy.new_zeros(())
    for name, (error, factor) in errors.items():
        there = torch.isfinite(error)
        if not bool(there.any()):
            continue
        each = _each(error[there], kind, delta if factor is None else delta * factor.expand_as(error)[there])
        total = total + getattr(weights, name) * each.double().mean()
    return total


def _each(error: Tensor, kind: Loss, delta: float | Tensor) -> Tensor:
    if kind == "mse":
        return error**2
    if isinstance(delta, float):
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta) / delta
    size = error.abs()
    return torch.where(size < delta, 0.5 * error**2 / delta, size - 0.5 * delta)


def _shrunk(forces: Tensor) -> Tensor:
    """(N, 1) What delta is multiplied by."""
    size = torch.linalg.vector_norm(forces, dim=1, keepdim=True)
    factor = torch.ones_like(size)
    for limit, less in _LARGE:
        factor = torch.where(size >= limit, torch.full_like(size, less), factor)
    return factor


def one_number(errors: dict[str, float], weights: Weights, kind: Loss) -> float:
    """A part's error as the loss weighs it: from root mean squares (``mse``) or mean absolute errors."""
    which = "rmse" if kind == "mse" else "mae"
    total = 0.0
    for name in ("energy", "forces", "stress", "magmom", "charge"):
        value = errors.get(f"{name if name != 'stress' else 'virial'}_{which}")
        if value is not None:
            total += getattr(weights, name) * (value**2 if which == "rmse" else value)
    return total**0.5 if which == "rmse" else total
