"""Baked potentials: functions of distance as tables, for simulation; the error is measured on structures like those to be simulated."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch

from naica.errors import InputError
from naica.models.bake import BakeReport, tabulated
from naica.models.bake import bake as bake_network
from naica.models.bake import can_bake as can_bake_network
from naica.potential.learned import LearnedPotential, Member
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal


@dataclass(frozen=True)
class Baked:
    """A baked potential and what it cost: largest errors on the structures it was tried on, eV/atom and eV/Å; tables in MB.

    `reports` are those of the members' networks, in their units.
    """

    potential: LearnedPotential
    energy_error: float
    force_error: float
    megabytes: float
    reports: tuple[BakeReport, ...]


def with_tables(members: Sequence[Member], pieces: Sequence[int], dtype: torch.dtype) -> LearnedPotential:
    """A potential that was baked before: tables of as many pieces as were found enough then."""
    found = []
    for member, count in zip(members, pieces, strict=True):
        new = deepcopy(member)
        new.backbone = tabulated(member.backbone, count)
        found.append(new)
    return LearnedPotential(found, dtype)


def can_bake(potential: LearnedPotential) -> bool:
    """Whether all members have functions of distance that can be tabulated."""
    return all(isinstance(m, PotentialModel) and can_bake_network(m.backbone) for m in potential.members)


def bake(potential: LearnedPotential, crystals: Sequence[Crystal], tolerance: float = 1e-4) -> Baked:
    """The same potential with its functions of distance read from tables. It can not be trained any more.

    Parameters
    ----------
    crystals : what the error is measured on
    tolerance : largest error allowed, of a force (eV/Å) and of an atom's energy (eV)

    Raises
    ------
    InputError
        If a member has nothing to tabulate, or there are no structures to measure on.
    RunError
        If no table is fine enough.
    """
    if not crystals:
        raise InputError("no structures to measure the error of baking on; give some like those to be simulated")
    if not can_bake(potential):
        kinds = ", ".join(getattr(m, "architecture", type(m).__name__) for m in potential.members)
        raise InputError(
            f"{kinds}: no functions of distance to tabulate, or baked already; schnet, painn, nequip, mace and chgnet can be baked"
        )
    batch = Systems.of(list(crystals)).batch(potential.cutoff)
    members, reports, scales = [], [], []
    for member in potential.members:
        assert isinstance(member, PotentialModel)
        scale = float(member.scale.abs().max())
        network, report = bake_network(member.backbone, [batch], tolerance / scale, member.readout)
        new = deepcopy(member)
        new.backbone = network
        members.append(new)
        reports.append(report)
        scales.append(scale)
    energy = max(s * (r.energy_error or 0.0) for s, r in zip(scales, reports, strict=True))
    force = max(s * (r.slope_error or 0.0) for s, r in zip(scales, reports, strict=True))
    return Baked(LearnedPotential(members, potential.dtype), energy, force, sum(r.megabytes for r in reports), tuple(reports))
