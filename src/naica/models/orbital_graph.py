"""Orbital graph network: nodes are valence shells, edges are the couplings between them.

After Bai et al., half-Heusler band gaps from orbital graphs (2020), whose orbitals come from Wannier functions; here they are those of
``naica.graphs.orbitals``. A shell starts from its element, its kind (``3d``), its level and its filling. Each layer, with couplings
``e_ab`` (sizes of V_σ, V_π, V_δ and |Δε| on Gaussians)::

    h_a ← h_a + LN( Σ_b σ(z W₁) ⊙ silu(z W₂) ) + U mean_{c on the atom of a} h_c ,   z = h_a ⊕ h_b ⊕ e_ab

The sum over b runs over all shells of all neighbours; the mean lets shells of one atom know of each other. Atom features are the sums
over the shells of the atom.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.graphs.orbitals import SHELL_KINDS
from naica.nn import Gaussians, SplitLinear, sum_edges
from naica.nn.atoms import DescribedElements

_ENERGY_BINS = 16


class OrbitalLayer(nn.Module):
    """Messages along couplings, then among the shells of each atom."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.linear = SplitLinear(width, width, edge_width, 2 * width)
        self.norm = nn.LayerNorm(width)
        self.on_atom = nn.Linear(width, width)

    def forward(self, shells: Tensor, edges: Tensor, graph: Batch, atom: Tensor, n_atoms: int) -> Tensor:
        """Shell features (O, C), edge features (P, ·), atom of each shell (O) → (O, C)."""
        gate, core = self.linear(shells, shells, edges, graph).chunk(2, dim=1)
        message = self.norm(sum_edges(torch.sigmoid(gate) * F.silu(core), graph))
        return shells + message + self.on_atom(_mean_of_atoms(shells, atom, n_atoms)[atom])


class OrbitalGraph(nn.Module):
    """Shells as nodes, couplings as edges; rotations, orbital signs and the energy zero change nothing."""

    @dataclass(frozen=True)
    class Config:
        """Settings: width of shell features, layers, atom graph along which shells couple, Gaussians per coupling."""

        width: int = 48
        layers: int = 3
        cutoff: float = 5.0
        neighbours: int = 12
        gaussians: int = 12

        def __post_init__(self) -> None:
            if self.width < 1 or self.layers < 1 or self.gaussians < 2:
                raise ConfigError(f"width {self.width}, {self.layers} layers, {self.gaussians} gaussians; expected at least 1, 1 and 2")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.elements = DescribedElements(c.width)
        self.kinds = nn.Embedding(SHELL_KINDS, c.width)
        self.levels = Gaussians(-24.0, 12.0, _ENERGY_BINS)
        self.start = nn.Linear(_ENERGY_BINS + 1, c.width)
        # couplings fall over decades: their logarithm is what bins see
        self.couplings = Gaussians(-4.0, 3.0, c.gaussians)
        self.gaps = Gaussians(0.0, 24.0, c.gaussians)
        edge_width = 4 * c.gaussians
        self.convolutions = nn.ModuleList(OrbitalLayer(c.width, edge_width) for _ in range(c.layers))

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("nearest", self.config.cutoff, self.config.neighbours, levels=("orbitals",))

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch with the level of orbitals → atom features (N, width)."""
        graph, atom, n = batch.graph_of("orbital"), batch["orbital_atom"], len(batch["number"])
        edges = self._edges(batch)
        energy = self.levels(batch["orbital_energy"])
        known = torch.cat([energy, batch["orbital_filling"][:, None].to(energy.dtype)], dim=1).to(edges.dtype)
        shells = self.elements(batch["number"])[atom] + self.kinds(batch["orbital_shell"]) + self.start(known)
        for convolution in self.convolutions:
            shells = convolution(shells, edges, graph, atom, n)
        return {"atom": shells.new_zeros(n, shells.shape[1]).index_add(0, atom, F.silu(shells))}

    def _edges(self, batch: Batch) -> Tensor:
        """(P, 4 G) sizes of the three couplings and the difference of levels, on Gaussians; a coupling of zero lights no bin."""
        size = batch["orbital_edge_coupling"]
        binned = [self.couplings(torch.log(size[:, k].clamp(min=1e-12))) for k in range(3)]
        return torch.cat([*binned, self.gaps(batch["orbital_edge_gap"])], dim=1).to(self.kinds.weight.dtype)


def _mean_of_atoms(shells: Tensor, atom: Tensor, n_atoms: int) -> Tensor:
    """Shell features (O, C) averaged over each atom (N, C)."""
    total = shells.new_zeros(n_atoms, shells.shape[1]).index_add(0, atom, shells)
    return total / torch.bincount(atom, minlength=n_atoms).clamp(min=1)[:, None].to(shells.dtype)
