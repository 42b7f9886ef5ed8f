"""M3GNet: a graph network with three-body bonds, the first universal potential.

Chen and Ong, Nat. Comput. Sci. 2, 718 (2022). Bonds within 5 Å, pairs of bonds within 4 Å. Each block has three steps::

    ẽ_ij = f_c(r_ij) Σ_{k≠j} j_l(z_ln r_ik / r_c) Y_l⁰(cos θ_jik) ⊙ σ(W v_k + b) f_c(r_ik),   e_ij ← e_ij + g(ẽ_ij)
    e_ij ← e_ij + G_e(v_i ⊕ v_j ⊕ e_ij) ⊙ W_e h(r_ij)
    v_i  ← v_i + Σ_j G_v(v_i ⊕ v_j ⊕ e_ij) ⊙ silu(W_v h(r_ij))

h are the smooth radial functions of `SmoothBessel`, j_l those of `SphericalBessel` (with the cut-off of the bonds, as published), f_c the
envelope of power 3 at the three-body cut-off, g and G gated networks, g without biases so that bonds without partners stay as they are.
The sum over k needs no list of triplets (`naica.nn.three_body`). As in the reference, the weight of the atom step has a silu and the
weight of the bond step has none. The energy of an atom is a gated network of its features; scale and element references stand outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError, InputError
from naica.graphs import Batch, GraphSpec
from naica.nn.bessel import SmoothBessel, SphericalBessel
from naica.nn.gated import Factor, GatedNetwork, Rows
from naica.nn.linear import plain_linear
from naica.nn.three_body import NeighbourSums


@dataclass(frozen=True, eq=False)
class Bonds:
    """Bonds within the three-body cut-off (S of E): their rows, senders, radial functions (S, L·R) with f_c, f_c (S, 1), angular sums."""

    rows: Tensor
    sender: Tensor
    radial: Tensor
    cut: Tensor
    sums: NeighbourSums


class Block(nn.Module):
    """Three-body step, bond step, atom step."""

    def __init__(self, width: int, radial: int, angular: int) -> None:
        super().__init__()
        self.partner = plain_linear(width, radial * angular)
        self.three_body = GatedNetwork([radial * angular], [width], bias=False)
        self.bond, self.atom = (GatedNetwork([width, width, width], [width, width]) for _ in range(2))
        self.bond_weight, self.atom_weight = (nn.Linear(radial, width, bias=False) for _ in range(2))
        for layer in (self.bond_weight, self.atom_weight):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, v: Tensor, e: Tensor, h: Tensor, bonds: Bonds | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """Atoms (N, C), edges (E, C), radial functions (E, R) → atoms, edges."""
        if bonds is not None:
            partner = torch.sigmoid(self.partner(v))
            pairs = bonds.sums(bonds.radial * torch.index_select(partner, 0, bonds.sender)) * bonds.cut
            e = e.index_add(0, bonds.rows, self.three_body.on_edges(pairs, self.three_body.first))
        e = self._edges(self.bond, v, e, Factor(h, self.bond_weight.weight), batch, False)
        return self._edges(self.atom, v, e, Factor(h, self.atom_weight.weight, silu=True), batch, True), e

    @staticmethod
    def _edges(net: GatedNetwork, v: Tensor, e: Tensor, factor: Factor, batch: Batch, summed: bool) -> Tensor:
        """Edges (or with `summed` atoms) and what a gated network of ``v_i ⊕ v_j ⊕ e_ij``, weighted, adds to them."""
        receiver, sender, edge = net.split()
        rows = Rows(v, receiver, batch["edge_receiver"]), Rows(v, sender, batch["edge_sender"])
        return net.on_edges(e, edge, rows, factor, summed, residual=True)


class M3GNet(nn.Module):
    """227,549 parameters with the settings of the published potential."""

    smooth = True
    reads_energy = True

    @dataclass(frozen=True)
    class Config:
        """Settings: width of the features, blocks, radial functions, degrees of the angular ones, cut-offs in Å, heaviest element.

        The three-body cut-off may be 0: then there are no three-body steps.
        """

        width: int = 64
        blocks: int = 3
        radial: int = 3
        angular: int = 3
        cutoff: float = 5.0
        three_body_cutoff: float = 4.0
        elements: int = 94

        def __post_init__(self) -> None:
            if self.width < 1 or self.blocks < 0 or self.elements < 1:
                raise ConfigError(f"width {self.width}, {self.blocks} blocks, {self.elements} elements; expected at least 1, 0 and 1")
            if not 0 <= self.three_body_cutoff <= self.cutoff:
                raise ConfigError(f"three-body cut-off {self.three_body_cutoff} Å; expected between 0 and the bonds' {self.cutoff} Å")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = nn.Embedding(c.elements + 1, c.width)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.radial = SmoothBessel(c.radial, c.cutoff)
        self.partners = SphericalBessel(c.angular, c.radial, c.cutoff, c.three_body_cutoff)
        self.bond_start = nn.Linear(c.radial, c.width, bias=False)
        nn.init.xavier_uniform_(self.bond_start.weight)
        self.blocks = nn.ModuleList(Block(c.width, c.radial, c.angular) for _ in range(c.blocks))
        self.readout = GatedNetwork([c.width], [c.width, c.width, 1], value=False)

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of graphs → atom features (N, width) and energies of the atoms (N) in units of the network.

        Raises
        ------
        InputError
            If an element is heavier than the network knows.
        """
        check_elements(batch, self.config.elements)
        v = torch.index_select(self.embedding.weight, 0, batch["number"])
        h = self.radial(batch["edge_length"])
        e = F.silu(self.bond_start(h))
        bonds = self._bonds(batch)
        for block in self.blocks:
            v, e = block(v, e, h, bonds, batch)
        return {"atom": v, "energy": self.readout(v)[:, 0]}

    def _bonds(self, batch: Batch) -> Bonds | None:
        """What the three-body steps share; None if there is nothing within their cut-off."""
        c = self.config
        if not c.three_body_cutoff:
            return None
        if torch.compiler.is_compiling():
            # how many edges are within would be known at run time alone: all take part, those beyond with a factor of zero
            rows = torch.arange(batch["edge_length"].shape[0], device=batch["edge_length"].device)
        else:
            rows = (batch["edge_length"].detach() < c.three_body_cutoff).nonzero()[:, 0]
            if not len(rows):
                return None
        vector, length = torch.index_select(batch["edge_vector"], 0, rows), torch.index_select(batch["edge_length"], 0, rows)
        receiver, sender = torch.index_select(batch["edge_receiver"], 0, rows), torch.index_select(batch["edge_sender"], 0, rows)
        sums = NeighbourSums.of(vector / length[:, None], receiver, batch["number"].shape[0], c.angular, c.radial)
        radial, cut = self.partners(length).split([c.angular * c.radial, 1], dim=1)
        return Bonds(rows, sender, radial, cut, sums)


def check_elements(batch: Batch, heaviest: int) -> None:
    """Refuse elements a table of `heaviest` rows does not hold (InputError)."""
    number = batch["number"]
    if torch.compiler.is_compiling():
        return  # an exported program can not refuse
    if len(number) and int(number.max()) > heaviest:
        raise InputError(f"an atom has atomic number {int(number.max())}; this network knows elements up to {heaviest}")
