"""Baking: a trained network whose functions of distance become tables, for simulation. Its error is measured and told."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from naica.errors import InputError, RunError
from naica.graphs import Batch
from naica.nn.tables import Tables

_FEWEST, _MOST = 128, 8192


@dataclass(frozen=True)
class BakeReport:
    """What baking changed, in units of the network.

    Parameters
    ----------
    pieces : cubic pieces between 0 and the cut-off
    step : Å
    megabytes : of the tables, in the network's precision
    function_error : largest error of a tabulated function at new distances from 0.5 Å on, relative to the largest value there
    energy_error : largest error of an atom's energy in the given batches; None without any
    slope_error : largest error of a force, that of the sum of all energies, per Å; None without any
    """

    pieces: int
    step: float
    megabytes: float
    function_error: float
    energy_error: float | None
    slope_error: float | None


def can_bake(backbone: nn.Module) -> bool:
    """Whether a network has functions of distance that can be tabulated."""
    return hasattr(backbone, "edge_functions") and getattr(backbone, "tables", None) is None


def tabulated(backbone: nn.Module, pieces: int) -> nn.Module:
    """A copy of a network that reads its functions of distance from tables of so many pieces; what `bake` found enough, done again."""
    baked = _with_tables(deepcopy(backbone).double().eval().requires_grad_(False), pieces)
    return baked.to(next(backbone.parameters()).dtype)


@torch.no_grad()
def _with_tables(exact: Any, pieces: int) -> nn.Module:
    """A copy of a network in 64 bits with tables, and with what depends on weights alone computed once."""
    baked = deepcopy(exact)
    baked.tables = Tables(_functions(exact), _cutoff(exact), pieces)
    for module in baked.modules():
        if hasattr(module, "fold"):
            module.fold()
    return cast(nn.Module, baked)


def bake(
    backbone: nn.Module, batches: Sequence[Batch] = (), tolerance: float = 1e-5, readout: nn.Module | None = None
) -> tuple[nn.Module, BakeReport]:
    """A copy of a network that reads its functions of distance from tables of cubic pieces; what depends on weights alone is computed once.
    It can no longer be trained.

    The number of pieces is doubled until the error is within the tolerance: of forces and energies on the given batches; without batches,
    of the functions themselves.

    Parameters
    ----------
    backbone : SchNet, PaiNN, NequIP, MACE or CHGNet (tables of the three radial functions of M3GNet would save nothing)
    batches : graphs like those it will be used on, in any precision
    tolerance : in units of the network (energy per atom, and energy per Å); without batches relative to the largest function value
    readout : from features to energies of atoms, for a network that does not tell energies itself

    Raises
    ------
    InputError
        If the network has no functions of distance alone, or is baked already.
    RunError
        If 8192 pieces are not enough.
    """
    if not can_bake(backbone):
        raise InputError(
            f"{type(backbone).__name__} has no functions of distance to tabulate, or is baked already; "
            "bake schnet, painn, nequip, mace or chgnet"
        )
    exact = deepcopy(backbone).double().eval().requires_grad_(False)
    numbers = next(backbone.parameters()).dtype
    last = None if readout is None else deepcopy(readout).double().eval().requires_grad_(False)
    wanted = [_told(exact, batch.to(dtype=torch.float64), last) for batch in batches]
    pieces = _FEWEST
    while pieces <= _MOST:
        baked = _with_tables(exact, pieces)
        with torch.no_grad():
            off = _function_error(exact, baked)
        found = [_told(baked, batch.to(dtype=torch.float64), last) for batch in batches]
        energy, slope = (_largest(found, wanted, k) for k in (0, 1))
        if max([off] if energy is None or slope is None else [energy, slope]) <= tolerance:
            size = sum(b.numel() for b in cast(nn.Module, baked.tables).buffers()) * (torch.finfo(numbers).bits // 8) / 1e6
            return baked.to(numbers), BakeReport(pieces, _cutoff(exact) / pieces, size, off, energy, slope)
        pieces *= 2
    raise RunError(f"{_MOST} pieces leave an error above {tolerance:g}; allow a larger tolerance")


def _cutoff(backbone: Any) -> float:
    return float(backbone.config.cutoff)


def _functions(backbone: Any) -> Any:
    return backbone.edge_functions


def _function_error(exact: Any, baked: Any) -> float:
    """Between the nodes, where it is largest, at 1000 distances from 0.5 Å to the cut-off."""
    cutoff = _cutoff(exact)
    length = torch.linspace(min(0.5, 0.1 * cutoff), cutoff, 1000, dtype=torch.float64)
    worst = 0.0
    for wanted, found in zip(exact.edge_functions(length), baked.tables(length), strict=True):
        worst = max(worst, float((found.read() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)))
    return worst


def _told(backbone: Any, batch: Batch, readout: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Energies (N) of the atoms and forces (N, 3), in units of the network."""
    vector = batch["edge_vector"].detach().requires_grad_()
    tensors = {**batch, "edge_vector": vector, "edge_length": torch.linalg.vector_norm(vector, dim=1)}
    with torch.enable_grad():
        told = backbone(Batch(tensors, batch.degree))
        energy = told["energy"] if readout is None else readout(told["atom"])
        slope = torch.autograd.grad(energy.sum(), vector)[0] if energy.requires_grad else torch.zeros_like(vector)
    forces = slope.new_zeros(len(energy), 3).index_add(0, batch["edge_receiver"], slope).index_add(0, batch["edge_sender"], slope, alpha=-1)
    return energy.detach(), forces


def _largest(found: Sequence[tuple[Tensor, Tensor]], wanted: Sequence[tuple[Tensor, Tensor]], place: int) -> float | None:
    if not found:
        return None
    return max(float((a[place] - b[place]).abs().max()) if len(a[place]) else 0.0 for a, b in zip(found, wanted, strict=True))
