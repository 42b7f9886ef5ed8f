"""Charges of atoms from what a network knows of them, and their energy: QEq with Ewald sums, its cut-off form, latent charges.

Charge equilibration (Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991)) makes ``Σ_i (χ_i q_i + ½ J_i q_i²) + ½ qᵀ Ã q`` stationary under
Σ q = Q, Ã being the interaction of Gaussian charges of widths σ::

    (Ã + J) q + λ = −χ,   Σ q = Q

The electronegativities χ come from the atom features; hardness J > 0 and width σ belong to the element, are learned, and start at 4 eV/e²
and the covalent radius. As in fourth-generation potentials (Ko et al., Nat. Commun. 12, 398 (2021)) the energy is ½ qᵀ Ã q alone: what χ
and J cost is learned with the rest, by a network that is told the charges.

QEq lets charge flow between fragments however far they are from each other, unless their electronegativities agree: it has one λ for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor, nn

from naica.graphs.batch import Batch
from naica.nn.atoms import N_ELEMENTS
from naica.nn.ewald import COULOMB, Coulomb
from naica.nn.segment import mean_systems
from naica.structure.elements import table

# Å, of latent charges; published with the method
_SMEARING = 1.0
_LATENT_UNIT = 0.1
_HARDNESS = 4.0
# Pauling's electronegativities are about 0.336 (χ in eV − 0.615)
_MULLIKEN = (0.336, 0.615)


@dataclass(frozen=True, eq=False)
class Charges:
    """Charges of a batch (N atoms).

    Parameters
    ----------
    charge : (N) e
    energy : (N) eV, electrostatic energy of the atoms in 64 bits; zero where it is not counted apart
    known : (N, K) what a network of the short-range energy is told of them
    """

    charge: Tensor
    energy: Tensor
    known: Tensor


def equilibrated(sums: Coulomb, electronegativity: Tensor, hardness: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Charges (N) in e and multipliers λ (B) in eV/e that make the energy stationary, with all their derivatives.

    The dense system is factorised once, without derivatives. Two more steps towards the solution it already has then carry first and
    second derivatives exactly: going back through a step is a solution with the same factors (the adjoint), never one per coordinate.

    Parameters
    ----------
    sums : interaction of the charges
    electronegativity : (N) eV/e
    hardness : (N) eV/e², above 0
    total : (B) e
    """
    chi, stiff, wanted = electronegativity.double(), hardness.double(), total.double()
    factors = _factorised(sums, stiff.detach())
    charge, level = torch.zeros_like(chi), torch.zeros_like(wanted)
    with torch.no_grad():
        charge, level = _step(sums, factors, charge, level, chi, stiff, wanted)
    for _ in range(2):
        charge, level = _step(sums, factors, charge, level, chi, stiff, wanted)
    return charge, level


def _factorised(sums: Coulomb, hardness: Tensor) -> list[tuple[Tensor, Tensor]]:
    found = []
    for matrix, stiff in zip(sums.matrices(), hardness.split(sums.sizes), strict=True):
        n = len(stiff)
        bordered = matrix.new_ones(n + 1, n + 1)
        bordered[:n, :n] = matrix
        bordered[:n, :n].diagonal().add_(stiff)
        bordered[n, n] = 0.0
        found.append(torch.linalg.lu_factor(bordered))
    return found


def _step(
    sums: Coulomb, factors: Sequence[tuple[Tensor, Tensor]], charge: Tensor, level: Tensor, chi: Tensor, stiff: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Newton's step with the factors of the solution."""
    left = sums.potential(charge) + stiff * charge + torch.index_select(level, 0, sums.system) + chi
    excess = torch.zeros_like(wanted).index_add(0, sums.system, charge) - wanted
    parts, levels = [], []
    for (lu, pivots), own, more in zip(factors, left.split(sums.sizes), excess, strict=True):
        change = torch.linalg.lu_solve(lu, pivots, torch.cat([own, more[None]])[:, None])[:, 0]
        parts.append(change[:-1])
        levels.append(change[-1])
    return charge - torch.cat(parts), level - torch.stack(levels)


def total_charge(batch: Batch) -> Tensor:
    """(B) e, in 64 bits; neutral where the batch does not say."""
    given = batch.get("total_charge")
    return torch.zeros(batch.n_systems, dtype=torch.float64, device=batch["n_atoms"].device) if given is None else given.double()


class Elements(nn.Module):
    """Electronegativity (added to the network's), hardness and width of the elements, learned from sensible starting points."""

    radii: Tensor

    def __init__(self) -> None:
        super().__init__()
        chi, radii = torch.zeros(N_ELEMENTS), torch.ones(N_ELEMENTS)
        for one in table():
            if one.number < N_ELEMENTS:
                slope, shift = _MULLIKEN
                chi[one.number] = (one.electronegativity or 2.0) / slope + shift
                radii[one.number] = one.covalent_radius
        self.electronegativity = nn.Parameter(chi)
        self.stiffness = nn.Parameter(torch.full((N_ELEMENTS,), _HARDNESS).expm1().log())
        self.stretch = nn.Parameter(torch.zeros(N_ELEMENTS))
        self.register_buffer("radii", radii, persistent=False)

    def forward(self, number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers (N) → χ (N) eV/e, J (N) eV/e², σ (N) Å between half the covalent radius and twice it; in 64 bits."""
        chi = torch.index_select(self.electronegativity, 0, number).double()
        hardness = nn.functional.softplus(torch.index_select(self.stiffness, 0, number).double()) + 1e-3
        stretch = 2 ** torch.tanh(torch.index_select(self.stretch, 0, number).double())
        return chi, hardness, torch.index_select(self.radii, 0, number).double() * stretch


class Readout(nn.Module):
    """Atom features (N, C) → one number each (N)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) → (N)."""
        return self.network(features)[:, 0]


class Equilibration(nn.Module):
    """QEq: charges by Ewald sums, their energy ½ qᵀ Ã q; the short-range network is told the charges.

    Parameters
    ----------
    width : of the atom features
    hidden : of the network of electronegativities
    screening : Å; below it the interaction is switched off smoothly and charges have no energy of their own (0: they do). Pairs beyond the
        graph's cut-off are never screened, so it must not be longer
    """

    known = 1
    long_range = True

    def __init__(self, width: int, hidden: int, screening: float = 0.0) -> None:
        super().__init__()
        self.elements, self.network, self.screening = Elements(), Readout(width, hidden), screening

    def forward(self, features: Tensor, batch: Batch) -> Charges:
        """Atom features and a batch with positions and cells → charges and their energies."""
        chi, hardness, width = self.elements(batch["number"])
        sums = Coulomb.of(batch, width)
        charge, _ = equilibrated(sums, chi + self.network(features).double(), hardness, total_charge(batch))
        energy = 0.5 * charge * sums.potential(charge)
        if self.screening:
            energy = energy + _screened(charge, width, batch, self.screening)
        return Charges(charge, energy, charge[:, None].to(features.dtype))


def _screened(charge: Tensor, width: Tensor, batch: Batch, reach: float) -> Tensor:
    """(N) eV: what is taken from near pairs, half at each end, and from each charge's own energy."""
    i, j = batch["edge_receiver"], batch["edge_sender"]
    length = batch["edge_length"].double()
    x = (length / reach).clamp(max=1.0)
    # from 0 to 1 with two continuous derivatives
    switch = x**3 * (10 - 15 * x + 6 * x**2)
    pair = _gaussian(length, width, i, j) * torch.index_select(charge, 0, i) * torch.index_select(charge, 0, j) * (switch - 1)
    return (-COULOMB / (2 * sqrt(pi)) * charge**2 / width).index_add(0, i, 0.5 * pair)


def _gaussian(length: Tensor, width: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(E) interaction of unit Gaussian charges, eV/e²."""
    squares = width**2
    gamma = (2 * (torch.index_select(squares, 0, i) + torch.index_select(squares, 0, j))).sqrt()
    return COULOMB * torch.erf(length / gamma) / length


class LocalEquilibration(nn.Module):
    """The cut-off form of QEq: no pair term in the equilibration, so ``q_i = (λ − χ_i)/J_i`` with ``λ = (Q + Σ χ/J)/(Σ 1/J)``.

    There is no electrostatic energy: the network of the short-range energy is told q_i and the potential of the charges within the graph's
    cut-off. Cost grows with the edges; what is long-ranged is λ alone.
    """

    known = 2
    long_range = False

    def __init__(self, width: int, hidden: int, cutoff: float) -> None:
        super().__init__()
        self.elements, self.network, self.cutoff = Elements(), Readout(width, hidden), cutoff

    def forward(self, features: Tensor, batch: Batch) -> Charges:
        """Atom features and a batch → charges, and what is told of them."""
        chi, hardness, width = self.elements(batch["number"])
        chi, system = chi + self.network(features).double(), batch["system"]
        sums = torch.stack([chi / hardness, 1 / hardness], dim=1)
        sums = sums.new_zeros(batch.n_systems, 2).index_add(0, system, sums)
        level = (total_charge(batch) + sums[:, 0]) / sums[:, 1]
        charge = (torch.index_select(level, 0, system) - chi) / hardness
        i, j, length = batch["edge_receiver"], batch["edge_sender"], batch["edge_length"].double()
        x = (length / self.cutoff).clamp(max=1.0)
        near = _gaussian(length, width, i, j) * (1 - x**3 * (10 - 15 * x + 6 * x**2)) * torch.index_select(charge, 0, j)
        felt = torch.zeros_like(charge).index_add(0, i, near)
        # in units of ten volts both numbers are of order 1
        known = torch.stack([charge, felt / 10], dim=1)
        return Charges(charge, torch.zeros_like(charge), known.to(features.dtype))


class LatentCharges(nn.Module):
    """Latent Ewald summation (Cheng, npj Comput. Mater. 11, 80 (2025)): charges straight from the features, learned from energies alone.

    Gaussians of 1 Å that interact as ``erf(r/√2σ)/r`` and not with themselves. Mean charges are removed (a given total charge is spread
    evenly), so a system's charges are not the sum of its far parts' charges. Unlike the published grid of wave vectors the sum here runs
    until it has converged: energies are smooth in the cell.
    """

    known = 0
    long_range = True

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        half = max(hidden // 2, 1)
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, half), nn.SiLU(), nn.Linear(half, 1))

    def forward(self, features: Tensor, batch: Batch) -> Charges:
        """Atom features and a batch with positions and cells → charges and their energies."""
        raw = _LATENT_UNIT * self.network(features).double()
        surplus = mean_systems(raw, batch)[:, 0] - total_charge(batch) / batch["n_atoms"]
        charge = raw[:, 0] - torch.index_select(surplus, 0, batch["system"])
        sums = Coulomb.of(batch, torch.full_like(charge, _SMEARING / sqrt(2)), self_energy=False)
        return Charges(charge, 0.5 * charge * sums.potential(charge), features.new_zeros(len(charge), 0))


KINDS = ("none", "qeq", "qet", "latent")


def charges_of(kind: str, width: int, hidden: int, cutoff: float, screening: float = 0.0) -> nn.Module | None:
    """The module of one of `KINDS`; None for ``none``."""
    if kind == "qeq":
        return Equilibration(width, hidden, screening)
    if kind == "qet":
        return LocalEquilibration(width, hidden, cutoff)
    return LatentCharges(width, hidden) if kind == "latent" else None
