"""DeepH-2: an equivariant transformer in the frames of edges.

Wang et al., "Universal materials model of deep-learning density functional theory Hamiltonian" (Sci. Bull. 69, 2514, 2024), with the
reduced convolution of Passaro and Zitnick (ICML 2023). Each edge sees both ends and itself in the frame of its bond::

    m_ij = R(d_ij) ⊙ SO2( [D h_i ⊕ D h_j ⊕ e_ij] ),    h_i ← h_i + W Σ_j α_ij Dᵀ gate(m_ij),    e_ij ← e_ij + gate'(m'_ij)

α is a softmax over the neighbours, from the invariants of the message, damped to zero at the cut-off; D turns into the frame and Dᵀ back;
R are
functions of the distance. Both parities of every degree are kept, so inversion is exact as well. No code of the authors is public: widths
are ours.
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
from naica.nn.so2 import SO2Linear, frames, turned, wigner


class Convolution(nn.Module):
    """Both ends and the edge itself → a message in the frame of the edge."""

    degree_of: Tensor

    def __init__(self, degree: int, channels: int, radial: int) -> None:
        super().__init__()
        self.degree, self.channels = degree, channels
        self.map = SO2Linear(degree, 3 * channels, channels)
        self.radial = nn.Sequential(nn.Linear(radial, 64), nn.SiLU(), nn.Linear(64, 2 * (degree + 1) * channels))
        self.gate = Gate(degree, channels)
        self.register_buffer("degree_of", degree_of(degree), persistent=False)

    def forward(self, ends: Tensor, e: Tensor, radial: Tensor) -> Tensor:
        """Ends in the frame (E, (L + 1)², 2, 2C), edges (E, (L + 1)², 2, C) → (E, (L + 1)², 2, C)."""
        weights = self.radial(radial).view(len(e), self.degree + 1, 2, self.channels)
        return self.gate(self.map(torch.cat([ends, e], dim=3)) * weights[:, self.degree_of])


class Block(nn.Module):
    """One round: nodes by attention over their edges, then edges."""

    def __init__(self, degree: int, channels: int, radial: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.node_norm, self.edge_norm = DegreeNorm(degree, channels), DegreeNorm(degree, channels)
        self.message, self.edge = Convolution(degree, channels, radial), Convolution(degree, channels, radial)
        self.attention = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, heads))
        self.out, self.edge_out = DegreeLinear(degree, channels, channels), DegreeLinear(degree, channels, channels)

    def forward(self, h: Tensor, e: Tensor, batch: Batch, d: list[Tensor], radial: Tensor, envelope: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (N, (L + 1)², 2, C) and edges in their frames (E, …) → the same, updated."""
        receiver, sender = batch["edge_receiver"], batch["edge_sender"]
        x, edges = self.node_norm(h), self.edge_norm(e)
        ends = torch.cat([torch.index_select(x, 0, receiver), torch.index_select(x, 0, sender)], dim=3)
        ends = turned(ends, d)
        m = self.message(ends, edges, radial)
        share = _softmax(self.attention(m[:, 0, 0]), envelope, receiver, len(h))
        m = turned(m, d, back=True)
        weighted = (m.unflatten(3, (self.heads, -1)) * share[:, None, None, :, None]).flatten(3)
        h = h + self.out(torch.zeros_like(h).index_add(0, receiver, weighted))
        return h, e + self.edge_out(self.edge(ends, edges, radial))


def _softmax(score: Tensor, envelope: Tensor, receiver: Tensor, n: int) -> Tensor:
    """(E, heads) shares over the edges of each receiver, damped by the envelope; one more share goes to none, so lone atoms are no case."""
    score = 8.0 * torch.tanh(score / 8.0)  # exponentials stay within range without a maximum per atom
    weight = torch.exp(score) * envelope[:, None]
    total = weight.new_zeros(n, score.shape[1]).index_add(0, receiver, weight)
    return weight / (torch.index_select(total, 0, receiver) + 1.0)


class DeepH2(nn.Module):
    """Nodes and edges as tensors of every degree up to L and both parities; blocks are made of them by the Hamiltonian's layout."""

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        degree : L, at least the largest l₁ + l₂ of a pair of shells (4 with d shells)
        channels : of each degree and parity
        blocks, heads : rounds, and heads of the attention (a divisor of `channels`)
        gaussians, cutoff : functions of the distance, from 0 to the cut-off (Å)
        """

        degree: int = 4
        channels: int = 16
        blocks: int = 3
        heads: int = 4
        gaussians: int = 64
        cutoff: float = 7.5

        def __post_init__(self) -> None:
            if min(self.channels, self.blocks, self.heads) < 1 or self.channels % self.heads or not 0 <= self.degree <= 8:
                raise ConfigError(
                    f"degree {self.degree}, {self.channels} channels, {self.blocks} blocks, {self.heads} heads; expected degree 0 to 8, "
                    "at least 1 of the others, and channels that the heads divide"
                )

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = nn.Embedding(N_ELEMENTS, c.channels)
        self.pair = nn.Linear(2 * c.channels, c.channels)
        self.gaussians = Gaussians(0.0, c.cutoff, c.gaussians)
        self.start = nn.Sequential(nn.Linear(c.gaussians, 64), nn.SiLU(), nn.Linear(64, (c.degree + 1) * c.channels))
        self.blocks = nn.ModuleList(Block(c.degree, c.channels, c.gaussians, c.heads) for _ in range(c.blocks))
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
        c, number = self.config, batch["number"]
        z = torch.index_select(self.embedding.weight, 0, number)
        length, components = batch["edge_length"], (c.degree + 1) ** 2
        h = z.new_zeros(len(number), components, 2, c.channels)
        h[:, 0, 0] = z
        radial = self.gaussians(length).to(z.dtype)
        pair = torch.cat([torch.index_select(z, 0, batch["edge_receiver"]), torch.index_select(z, 0, batch["edge_sender"])], dim=1)
        # in its frame an edge's harmonics are the components m = 0
        e = z.new_zeros(len(length), components, 2, c.channels)
        middle = torch.tensor([one * one + one for one in range(c.degree + 1)], device=z.device)
        first = self.start(radial).view(-1, c.degree + 1, c.channels) * self.pair(pair)[:, None]
        e[:, middle, 0] = first
        d = wigner(frames(batch["edge_vector"].to(z.dtype)), c.degree)
        x = length / c.cutoff
        envelope = (1 - x.clamp(max=1) ** 2).square().to(z.dtype)
        for block in self.blocks:
            h, e = block(h, e, batch, d, radial, envelope)
        h, e = self.node_out(h), turned(self.edge_out(e), d, back=True)
        return {"atom": h[:, 0, 0], "atom_tensor": h, "edge_tensor": e}
