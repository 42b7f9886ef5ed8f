"""Selenite: naica's own property network, made for few labels and few CPU seconds.

What the comparison of networks teaches, put together. Every atom starts as what the periodic table says of its element (through a small
network, plus a learned vector of its own). A bond speaks as a filter of its length in Å and of its length over the sum of the covalent
radii; messages are products, so that nothing is activated per bond, and they are summed with the directions as weights
(`naica.nn.moments`), which gives every layer the angles between all pairs of bonds at the price of a sum over bonds::

    m_ij = (W_s x_j) ⊙ (W_f u_ij + b),    x = LayerNorm(v)
    B    = Σ_j m_ij / √K,    A_lm = Σ_j w_ij Y_lm(r_ij) m_ij,    p_l = |A_l| softened,   l = 1 … L
    v_i  ← v_i + W₂ SiLU( W₁ [x_i ⊕ B ⊕ A_00 ⊕ p_1 ⊕ … ⊕ p_L] + b₁ ) + b₂

with weights w that fall to zero at the last neighbour an atom keeps. B, over all neighbours alike and divided by the root of their number,
sees the last shell too and how dense the crystal is.

An atom's features for the head are its last state, the same state weighted by how much attention its crystal pays to it, and its first
state; the mean over atoms is thus a mean, an attention pooling and a mean over the composition side by side, and a head per site still
gives contributions that add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn import Gaussians
from naica.nn.atoms import N_ELEMENTS, descriptors
from naica.nn.moments import MAX_DEGREE, Shells, invariants, shells
from naica.nn.set2set import softmax
from naica.structure.elements import table

# where bonds are, Å, and where they are in units of the sum of covalent radii
_LENGTHS = (0.7, 6.0)
_RELATIVE = (0.5, 2.5)


class ElementStart(nn.Module):
    """First vectors: a small network of the element's descriptors, plus a learned vector per element that is zero at first."""

    described: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        known = descriptors()
        self.register_buffer("described", known, persistent=False)
        self.network = nn.Sequential(nn.Linear(known.shape[1], width), nn.SiLU(), nn.Linear(width, width))
        self.own = nn.Embedding(N_ELEMENTS, width)
        nn.init.zeros_(self.own.weight)

    def forward(self, numbers: Tensor) -> Tensor:
        """Atomic numbers (N) → (N, width)."""
        # once per element and not per atom
        return torch.index_select(self.network(self.described) + self.own.weight, 0, numbers)


class Bonds(nn.Module):
    """What a bond's length says: Gaussians of it, and of it over the sum of the two covalent radii."""

    radius: Tensor

    def __init__(self, absolute: int, relative: int) -> None:
        super().__init__()
        self.absolute, self.relative = Gaussians(*_LENGTHS, absolute), Gaussians(*_RELATIVE, relative)
        self.register_buffer("radius", torch.tensor([1.0, *(e.covalent_radius for e in table())]), persistent=False)

    def __len__(self) -> int:
        return len(self.absolute) + len(self.relative)

    def forward(self, numbers: Tensor, around: Shells) -> Tensor:
        """Atomic numbers (N) and surroundings of K places → (N·K, ·)."""
        radius = self.radius[numbers].to(around.length.dtype)
        n, places = around.rows.shape[0], around.rows.shape[2]
        touching = (torch.index_select(radius, 0, around.sender).view(n, places) + radius[:, None]).view(-1)
        return torch.cat([self.absolute(around.length), self.relative(around.length / touching)], dim=1)


class MomentLayer(nn.Module):
    """Filtered messages, their moments, and an update of the atoms by what of these no rotation changes."""

    def __init__(self, width: int, edge_width: int, degree: int, dropout: float) -> None:
        super().__init__()
        self.degree = degree
        self.norm = nn.LayerNorm(width)
        self.send = nn.Linear(width, width, bias=False)
        self.filter = nn.Linear(edge_width, width)
        joined = (3 + degree) * width
        self.update = nn.Sequential(nn.Linear(joined, 2 * width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(2 * width, width))

    def forward(self, atoms: Tensor, edges: Tensor, around: Shells) -> Tensor:
        """Atoms (N, C), bond features (N·K, ·) → atoms (N, C)."""
        x = self.norm(atoms)
        messages = torch.index_select(self.send(x), 0, around.sender) * self.filter(edges)
        return atoms + self.update(torch.cat([x, *invariants(around.moments(messages), self.degree)], dim=1))


class Attention(nn.Module):
    """Each head weighs its share of an atom's features by N · softmax over the system: the mean over atoms is then attention pooling."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.score = nn.Linear(width, heads)

    def forward(self, atoms: Tensor, batch: Batch) -> Tensor:
        """(N, C) → (N, C)."""
        system = batch["system"]
        score = self.score(atoms)
        share = torch.stack([softmax(one, system, batch.n_systems) for one in score.unbind(1)], dim=1)
        share = share * batch["n_atoms"][system].to(share.dtype)[:, None]
        return (atoms.view(len(atoms), self.heads, -1) * share[:, :, None]).view(atoms.shape)


class Selenite(nn.Module):
    """naica's own property network.

    It reads the `neighbours` nearest atoms. Directions enter only with weights that are zero at the last of them, so it does not matter
    which of several equally far atoms took the last place. The plain sum, which knows no directions, leaves ties to the rule of the graph.

    How to train it: AdamW at 3e-3 with one-cycle, 64 systems a step, Huber loss, running mean 0.995, weight decay 1e-4, head pooling by
    ``mean``: the defaults of `TrainConfig`, for some hundreds as for some thousands of crystals at 20 CPU seconds. A rate of 6e-3 did as
    well; longer budgets were not tried. With ``sites`` a head predicts the mean of contributions per site; ``heads=0`` keeps the attention
    of the other sites out of them.

    Chosen by single runs of 20 CPU seconds on phonons and bulk moduli, which repeat to about 5 %: moments up to degree 2 (without
    angles, degree 0, the error on phonons was 50.9 instead of 27.7 1/cm; degree 3 gained nothing), products rather than an activation
    per bond, weights that fall early, the plain sum (without it, bulk moduli 10.9 instead of 8.0 GPa), and 16 neighbours, which beat 12
    on bulk moduli only. On sets of a few hundred rows (half-Heuslers) it overfits and does not beat CGCNN.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        width : features per atom; a multiple of `heads`
        layers : rounds of messages
        cutoff, neighbours : of the graph, Å and atoms
        degree : highest degree of the moments, 0 (no angles) to 3
        gaussians, relative : Gaussians of the length in Å and relative to the covalent radii
        heads : of the attention; 0 for none
        dropout : share of hidden units dropped in each update
        """

        width: int = 64
        layers: int = 2
        cutoff: float = 8.0
        neighbours: int = 16
        degree: int = 2
        gaussians: int = 24
        relative: int = 12
        heads: int = 4
        dropout: float = 0.0

        def __post_init__(self) -> None:
            if self.width < 1 or self.layers < 0:
                raise ConfigError(f"width {self.width} and {self.layers} layers; expected at least 1 and 0")
            if not 0 <= self.degree <= MAX_DEGREE:
                raise ConfigError(f"moments of degree {self.degree}; expected 0 to {MAX_DEGREE}")
            if self.heads < 0 or (self.heads and self.width % self.heads):
                raise ConfigError(f"{self.heads} heads over {self.width} features; expected a divisor of the width, or 0")
            if not 0 <= self.dropout < 1:
                raise ConfigError(f"dropout {self.dropout}; expected at least 0 and less than 1")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.start = ElementStart(c.width)
        self.bonds = Bonds(c.gaussians, c.relative)
        self.layers = nn.ModuleList(MomentLayer(c.width, len(self.bonds), c.degree, c.dropout) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)
        self.attention = Attention(c.width, c.heads) if c.heads else None

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("nearest", self.config.cutoff, self.config.neighbours)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width * (3 if self.config.heads else 2)}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of crystal graphs → atom features (N, 3 · width)."""
        c, numbers = self.config, batch["number"]
        first = atoms = self.start(numbers)
        around = shells(batch, c.degree, c.neighbours, c.cutoff)
        edges = self.bonds(numbers, around).to(first.dtype)
        for layer in self.layers:
            atoms = layer(atoms, edges, around)
        atoms = self.norm(atoms)
        attended = [] if self.attention is None else [self.attention(atoms, batch)]
        return {"atom": torch.cat([atoms, *attended, first], dim=1)}
