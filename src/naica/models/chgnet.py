"""CHGNet: atoms, bonds and angles, with magnetic moments as a second view of the charges.

Deng et al., Nat. Mach. Intell. 5, 1031 (2023). Atoms see each other within 6 Å, bonds shorter than 3 Å see each other at a common atom::

    v_i   ← v_i + L Σ_j ẽᵃ_ij ⊙ φ_v(v_i ⊕ e_ij ⊕ v_j)
    e_ij  ← e_ij + L Σ_k ẽᵇ_ij ⊙ ẽᵇ_ik ⊙ φ_e(e_ij ⊕ e_ik ⊕ a_ijk ⊕ v_i)      (over the angles at both ends of the bond)
    a_ijk ← a_ijk + φ_a(e_ij ⊕ e_ik ⊕ a_ijk ⊕ v_i)

φ are gated networks with layer norms, ẽᵃ and ẽᵇ linear maps of Bessel functions with an envelope (6 and 3 Å), angles start from a Fourier
series of θ. The magnetic moment |w·v + b| is read before the last atom step. Scale and element references stand outside.

Features of bonds beyond 3 Å never change, so they are not kept: the atom steps read them off the Bessel functions with a folded weight. An
angle step after the last bond step would change nothing and is left out; its weights are there, since the published network has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import pi
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError, InputError
from naica.graphs import Batch, GraphSpec
from naica.models.m3gnet import check_elements
from naica.nn.bessel import Bessel
from naica.nn.edge_product import Tabled
from naica.nn.gated import GatedNetwork, Rows
from naica.nn.tables import Tables
from naica.nn.triplets import pairs, reverse_edges

# keeps the arc cosine's slope finite where two bonds lie on one line, as published
_INSIDE = 1 - 1e-6


@dataclass(frozen=True, eq=False)
class Bonds:
    """Bonds below the bond cut-off (S of E edges) and the T angles between them.

    `rows` of the edges, `reverse` (S); of each angle (T) `first` and `second` bond, their atom `centre`, and `weight` (T, C) ẽᵇ_ij ⊙ ẽᵇ_ik.
    """

    rows: Tensor
    reverse: Tensor
    first: Tensor
    second: Tensor
    centre: Tensor
    weight: Tensor


class AtomStep(nn.Module):
    """Messages of neighbours."""

    def __init__(self, width: int, norm: bool, bias: bool) -> None:
        super().__init__()
        self.gate = GatedNetwork([width, width, width], [width, width], norm=norm, glorot=False)
        self.out = nn.Linear(width, width, bias=bias)

    def functions(self, radial: Tensor, embedding: Tensor, weight: Tensor) -> Tensor:
        """What depends on lengths alone, from radial functions (n, R): the first layer of edge features, then ẽᵃ; (n, 1, 3C)."""
        return torch.cat([radial @ (self.gate.split()[2] @ embedding).T, radial @ weight.T], dim=1)[:, None]

    def forward(self, v: Tensor, edges: Edges, batch: Batch, table: Tabled | None = None) -> Tensor:
        """Atoms (N, C) → atoms; a table gives `functions`."""
        receiver, sender, edge = self.gate.split()
        rows = [Rows(v, receiver, batch["edge_receiver"]), Rows(v, sender, batch["edge_sender"])]
        if edges.gained is not None and edges.place is not None:
            rows.append(Rows(edges.gained, edge, edges.place))
        if table is not None:
            return v + self.out(self.gate.on_edges(table, None, rows, summed=True))
        assert edges.radial is not None
        x, weight = edges.radial, edge @ edges.embedding
        if edges.shift is not None and edges.present is not None:
            # one more input, which is 1 where the system has an angle
            x, weight = torch.cat([x, edges.present], dim=1), torch.cat([weight, (edge @ edges.shift)[:, None]], dim=1)
        return v + self.out(self.gate.on_edges(x, weight, rows, edges.weight, summed=True))


class AngleNetwork(nn.Module):
    """A gated network of two bonds, their angle and their atom."""

    def __init__(self, width: int, layers: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        self.gate = GatedNetwork([width] * 4, layers, norm=norm, glorot=False)

    def forward(
        self, v: Tensor, e: Tensor, angle: Tensor, bonds: Bonds, factor: Tensor | None = None, summed: bool = False, residual: bool = False
    ) -> Tensor:
        """Atoms (N, C), short bonds (S, C), angles (T, C) → (T, C) times `factor`; summed (S, C); or added to the angles."""
        first, second, own, atom = self.gate.split()
        rows = Rows(e, first, bonds.first), Rows(e, second, bonds.second), Rows(v, atom, bonds.centre)
        return self.gate.on_edges(angle, own, rows, factor, summed, residual)


class BondStep(AngleNetwork):
    """Messages of the bonds that meet a bond at either end."""

    def __init__(self, width: int, norm: bool, bias: bool) -> None:
        super().__init__(width, (width, width), norm)
        self.out = nn.Linear(width, width, bias=bias)

    def change(self, v: Tensor, e: Tensor, angle: Tensor, bonds: Bonds) -> Tensor:
        """What is added to the bonds (S, C), the bias of the last layer left out."""
        summed = self(v, e, angle, bonds, bonds.weight, summed=True)
        return F.linear(summed + torch.index_select(summed, 0, bonds.reverse), self.out.weight)


@dataclass(eq=False)
class Edges:
    """Features of all edges (E, C): a linear map of the radial functions, and what some have gained since.

    Parameters
    ----------
    radial, embedding : (E, R) and (C, R)
    weight : (E, C) ẽᵃ; this and `radial` are None where tables take their place
    place, gained : which row of `gained` (S, C) an edge has, −1 if it is none of the short ones
    present, shift : `shift` (C) was added to the edges where `present` (E, 1) is 1
    """

    radial: Tensor | None
    embedding: Tensor
    weight: Tensor | None
    place: Tensor | None = None
    gained: Tensor | None = None
    present: Tensor | None = None
    shift: Tensor | None = None


class CHGNet(nn.Module):
    """412,431 parameters with the settings of version 0.3.0, whose 412,525 count 94 references of elements."""

    reads_energy = True

    @dataclass(frozen=True)
    class Config:
        """Settings: width of all features, atom steps, radial and angular functions (odd), cut-offs of atoms and bonds in Å, power of the
        envelopes, layers of the readout, whether gates and readout are normalised, whether the last layers have a bias, heaviest element.

        A bias there (version 0.2.0) makes the energy jump where a crystal gets its first angle.
        """

        width: int = 64
        steps: int = 4
        radial: int = 31
        angular: int = 31
        cutoff: float = 6.0
        bond_cutoff: float = 3.0
        envelope: int = 8
        hidden: tuple[int, ...] = (64, 64, 64)
        gate_norm: bool = True
        readout_norm: bool = True
        output_bias: bool = False
        elements: int = 94

        def __post_init__(self) -> None:
            object.__setattr__(self, "hidden", tuple(self.hidden))
            if self.width < 1 or self.steps < 1 or self.elements < 1:
                raise ConfigError(f"width {self.width}, {self.steps} steps, {self.elements} elements; expected at least 1 of each")
            if self.angular < 3 or self.angular % 2 == 0:
                raise ConfigError(f"{self.angular} angular functions; expected an odd number from 3 (a constant, sines and cosines)")
            if not 0 < self.bond_cutoff <= self.cutoff:
                raise ConfigError(f"bond cut-off {self.bond_cutoff} Å; expected more than 0 and at most the atoms' {self.cutoff} Å")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = nn.Embedding(c.elements, c.width)
        self.radial, self.bond_radial = Bessel(c.radial, c.cutoff, c.envelope), Bessel(c.radial, c.bond_cutoff, c.envelope)
        self.frequencies = nn.Parameter(torch.arange(1, c.angular // 2 + 1, dtype=torch.float32))
        self.bond_start, self.atom_weight, self.bond_weight = (nn.Linear(c.radial, c.width, bias=False) for _ in range(3))
        self.angle_start = nn.Linear(c.angular, c.width, bias=False)
        self.atom_steps = nn.ModuleList(AtomStep(c.width, c.gate_norm, c.output_bias) for _ in range(c.steps))
        self.bond_steps = nn.ModuleList(BondStep(c.width, c.gate_norm, c.output_bias) for _ in range(c.steps - 1))
        self.angle_steps = nn.ModuleList(AngleNetwork(c.width, (c.width,), c.gate_norm) for _ in range(c.steps - 1))
        self.moment = nn.Linear(c.width, 1)
        self.readout_norm = nn.LayerNorm(c.width) if c.readout_norm else None
        widths = (c.width, *c.hidden, 1)
        self.readout = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.tables: Tables | None = None

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width}

    @property
    def smooth(self) -> bool:
        """Whether its energy is continuous with its first derivative."""
        return not self.config.output_bias

    def edge_functions(self, length: Tensor) -> list[Tensor]:
        """What depends on the lengths (E) of edges alone, for each atom step: see `AtomStep.functions`.

        Raises
        ------
        InputError
            If last layers have a bias: edges then depend on whether their crystal has angles.
        """
        if self.config.output_bias:
            raise InputError("chgnet with biases in its last layers (version 0.2.0) has edges that do not depend on lengths alone")
        radial = self.radial(length)
        return [cast(AtomStep, step).functions(radial, self.bond_start.weight, self.atom_weight.weight) for step in self.atom_steps]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of graphs → atom features (N, width), energies (N) in units of the network, magnetic moments (N) in μ_B.

        Raises
        ------
        InputError
            If an element is heavier than the network knows, or edges lack their reverse.
        """
        check_elements(batch, self.config.elements)
        v = torch.index_select(self.embedding.weight, 0, batch["number"] - 1)
        bonds, tables = self._bonds(batch), None if self.tables is None else self.tables(batch["edge_length"])
        if tables is None:
            radial = self.radial(batch["edge_length"])
            edges = Edges(radial, self.bond_start.weight, self.atom_weight(radial))
        else:
            edges = Edges(None, self.bond_start.weight, None)
        if bonds is not None:
            at = batch["edge_length"] if edges.radial is None else edges.radial
            at = torch.index_select(at, 0, bonds.rows)
            e = self.bond_start(self.radial(at) if edges.radial is None else at)
            angle = self._angles(batch["edge_vector"], batch["edge_length"], bonds)
            edges.place = bonds.rows.new_full((batch.n_edges,), -1).index_copy_(0, bonds.rows, torch.arange(len(bonds.rows)).to(bonds.rows))
            edges.present = self._with_angles(batch, bonds) if self.config.output_bias else None
        for k, (atoms, step, turn) in enumerate(zip(self.atom_steps, self.bond_steps, self.angle_steps, strict=False)):
            v = atoms(v, edges, batch, tables and tables[k])
            if bonds is None:
                continue
            change = step.change(v, e, angle, bonds)  # type: ignore[operator]
            edges.gained = change if edges.gained is None else edges.gained + change
            e = e + change
            if edges.present is not None:
                edges.shift = step.out.bias if edges.shift is None else edges.shift + step.out.bias  # type: ignore
                e = e + torch.index_select(edges.present, 0, bonds.rows) * step.out.bias  # type: ignore[union-attr, operator]
            if k < len(self.bond_steps) - 1:
                angle = turn(v, e, angle, bonds, residual=True)
        moment = self.moment(v)[:, 0].abs()
        v = self.atom_steps[-1](v, edges, batch, tables and tables[-1])
        return {"atom": v, "energy": self._energy(v), "magmom": moment}

    def _energy(self, v: Tensor) -> Tensor:
        x = v if self.readout_norm is None else self.readout_norm(v)
        for layer in self.readout[:-1]:
            x = F.silu(layer(x))
        return self.readout[-1](x)[:, 0]

    def _bonds(self, batch: Batch) -> Bonds | None:
        """The short bonds and their angles; None if there is no angle."""
        rows = (batch["edge_length"].detach() < self.config.bond_cutoff).nonzero()[:, 0]
        receiver, sender = torch.index_select(batch["edge_receiver"], 0, rows), torch.index_select(batch["edge_sender"], 0, rows)
        n = len(batch["number"])
        first, second = pairs(receiver, n)
        if not len(first):
            return None
        reverse = reverse_edges(receiver, sender, torch.index_select(batch["edge_vector"], 0, rows), n)
        weight = self.bond_weight(self.bond_radial(torch.index_select(batch["edge_length"], 0, rows)))
        both = torch.index_select(weight, 0, first) * torch.index_select(weight, 0, second)
        return Bonds(rows, reverse, first, second, torch.index_select(receiver, 0, first), both)

    def _angles(self, vector: Tensor, length: Tensor, bonds: Bonds) -> Tensor:
        """(T, C) a linear map of ``[1/√2, sin nθ, cos nθ] / √π``."""
        direction = torch.index_select(vector, 0, bonds.rows) / torch.index_select(length, 0, bonds.rows)[:, None]
        cosine = (torch.index_select(direction, 0, bonds.first) * torch.index_select(direction, 0, bonds.second)).sum(1)
        turns = torch.acos(cosine * _INSIDE)[:, None] * self.frequencies
        n = len(self.frequencies)
        constant, sines, cosines = (self.angle_start.weight / pi**0.5).split([1, n, n], dim=1)
        return F.linear(torch.sin(turns), sines, constant[:, 0] / 2**0.5) + F.linear(torch.cos(turns), cosines)

    @staticmethod
    def _with_angles(batch: Batch, bonds: Bonds) -> Tensor:
        """(E, 1) 1 for the edges of systems that have an angle."""
        system = batch.system_of("edge")
        has = torch.zeros(batch.n_systems, dtype=batch["edge_length"].dtype, device=system.device)
        has[system[bonds.rows[bonds.first]]] = 1
        return torch.index_select(has, 0, system)[:, None]
