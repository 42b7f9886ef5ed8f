"""DeepH-E3: tensor products with the harmonics of edges, on nodes and edges alike.

Gong et al., Nat. Commun. 14, 2848 (2023). One convolution serves nodes and edges::

    c_ij = R(d_ij) ⊙ gate( [h_i ⊕ h_j ⊕ e_ij] ⊗ Y(r̂_ij) )
    h_i ← norm( W Σ_j c_ij + S_Z h_i ) + h_i,      e_ij ← norm( W' c'_ij + S'_ZZ e_ij ) + e_ij

with a weight for every path of the product and a self connection for every element (pair). The product is computed in the frame of the
edge, where it is a linear map (`naica.nn.so2.ReducedProduct`): the same function at a fraction of the cost. Every degree has the same
number of channels here; the paper thins them out (64, 32, 16, 8, 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn.atoms import N_ELEMENTS
from naica.nn.degrees import DegreeLinear, DegreeNorm, Gate, degree_of
from naica.nn.radial import Gaussians
from naica.nn.so2 import ReducedProduct, frames, turned, wigner


class EquiConvolution(nn.Module):
    """Both ends and the edge, times its harmonics, gated, times functions of the distance; in the frame of the edge."""

    degree_of: Tensor

    def __init__(self, degree: int, channels: int, radial: int) -> None:
        super().__init__()
        self.product = ReducedProduct(degree, 3 * channels, channels)
        self.gate = Gate(degree, channels)
        self.radial = nn.Sequential(nn.Linear(radial, 64), nn.SiLU(), nn.Linear(64, 2 * (degree + 1) * channels))
        self.shape = (degree + 1, 2, channels)
        self.register_buffer("degree_of", degree_of(degree), persistent=False)

    def forward(self, joined: Tensor, radial: Tensor) -> Tensor:
        """(E, (L + 1)², 2, 3C) → (E, (L + 1)², 2, C)."""
        weights = self.radial(radial).view(-1, *self.shape)[:, self.degree_of]
        return self.gate(self.product(joined)) * weights


class Block(nn.Module):
    """One round of nodes, then of edges."""

    def __init__(self, degree: int, channels: int, radial: int, neighbours: float) -> None:
        super().__init__()
        self.degree, self.neighbours = degree, neighbours
        self.nodes, self.edges = EquiConvolution(degree, channels, radial), EquiConvolution(degree, channels, radial)
        self.node_out, self.edge_out = DegreeLinear(degree, channels, channels), DegreeLinear(degree, channels, channels)
        self.node_norm, self.edge_norm = DegreeNorm(degree, channels), DegreeNorm(degree, channels)
        # the self connections: a factor per degree, parity and channel, from the element or the pair of elements
        size = 2 * (degree + 1) * channels
        self.node_self, self.edge_self = nn.Linear(channels, size), nn.Linear(2 * channels, size)
        self.register_buffer("degree_of", degree_of(degree), persistent=False)

    degree_of: Tensor

    def forward(
        self, h: Tensor, e: Tensor, z: Tensor, pair: Tensor, batch: Batch, d: list[Tensor], radial: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Nodes (N, (L + 1)², 2, C) and edges in their frames (E, …) → the same, updated."""
        receiver, sender = batch["edge_receiver"], batch["edge_sender"]

        def ends(x: Tensor) -> Tensor:
            return turned(torch.cat([torch.index_select(x, 0, receiver), torch.index_select(x, 0, sender)], dim=3), d)

        message = turned(self.nodes(torch.cat([ends(h), e], dim=3), radial), d, back=True)
        received = torch.zeros_like(h).index_add(0, receiver, message) * self.neighbours**-0.5
        h = h + self.node_norm(self.node_out(received) + h * self._factors(self.node_self(z), h))
        new = self.edge_out(self.edges(torch.cat([ends(h), e], dim=3), radial)) + e * self._factors(self.edge_self(pair), e)
        return h, e + self.edge_norm(new)

    def _factors(self, x: Tensor, like: Tensor) -> Tensor:
        return x.view(len(x), self.degree + 1, 2, like.shape[3])[:, self.degree_of]


class DeepHE3(nn.Module):
    """Nodes and edges as tensors of every degree up to L and both parities; blocks are made of them by the Hamiltonian's layout."""

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        degree : L, at least the largest l₁ + l₂ of a pair of shells
        channels : of each degree and parity
        blocks : rounds
        gaussians, cutoff : functions of the distance, from 0 to the cut-off (Å)
        average_neighbours : sums over neighbours are divided by its root
        """

        degree: int = 4
        channels: int = 16
        blocks: int = 3
        gaussians: int = 64
        cutoff: float = 7.2
        average_neighbours: float = 60.0

        def __post_init__(self) -> None:
            if min(self.channels, self.blocks) < 1 or not 0 <= self.degree <= 8 or self.average_neighbours <= 0:
                raise ConfigError(
                    f"degree {self.degree}, {self.channels} channels, {self.blocks} blocks, {self.average_neighbours} neighbours; expected "
                    "degree 0 to 8, at least 1 channel and block, more than 0 neighbours"
                )

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = nn.Embedding(N_ELEMENTS, c.channels)
        self.gaussians = Gaussians(0.0, c.cutoff, c.gaussians)
        self.start = nn.Linear(c.gaussians + 2 * c.channels, c.channels)
        self.blocks = nn.ModuleList(Block(c.degree, c.channels, c.gaussians, c.average_neighbours) for _ in range(c.blocks))
        self.node_out, self.edge_out = DegreeNorm(c.degree, c.channels), DegreeNorm(c.degree, c.channels)

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the invariant features by level; tensors are `channels` wide."""
        return {"atom": self.config.channels}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``atom`` (N, C) invariants, ``atom_tensor`` (N, (L + 1)², 2, C) and ``edge_tensor`` (E, (L + 1)², 2, C), not in frames."""
        c = self.config
        z = torch.index_select(self.embedding.weight, 0, batch["number"])
        components = (c.degree + 1) ** 2
        h = z.new_zeros(len(z), components, 2, c.channels)
        h[:, 0, 0] = z
        radial = self.gaussians(batch["edge_length"]).to(z.dtype)
        pair = torch.cat([torch.index_select(z, 0, batch["edge_receiver"]), torch.index_select(z, 0, batch["edge_sender"])], dim=1)
        e = z.new_zeros(len(radial), components, 2, c.channels)
        e[:, 0, 0] = self.start(torch.cat([radial, pair], dim=1))
        d = wigner(frames(batch["edge_vector"].to(z.dtype)), c.degree)
        for block in self.blocks:
            h, e = block(h, e, z, pair, batch, d, radial)
        h, e = self.node_out(h), turned(self.edge_out(e), d, back=True)
        return {"atom": h[:, 0, 0], "atom_tensor": h, "edge_tensor": e}
