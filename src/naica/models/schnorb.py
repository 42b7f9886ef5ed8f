"""SchNOrb: SchNet's features, and pairs as products of directions.

Schütt et al., Nat. Commun. 10, 5024 (2019). Each block makes a factor of every pair, ``y_ij = ssp(D [(U x_i) ⊙ (U x_j) ⊙ W(d_ij)])``, and
from it::

    Ω_ij = mix( p(y_ij) ⊗ r̂_ij ) + mix( Σ_k e(y_ik) ⊗ r̂_ik ) + mix( Σ_k e(y_jk) ⊗ r̂_jk ),      X^λ = Π_{t ≤ λ} Ω^t

so that X^λ has λ directions in it. The network is **not** equivariant: it learns how blocks turn from turned copies of its training data
(set ``augment``), and its error under rotations is to be measured, not assumed away.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.models.schnet import SchNet
from naica.nn.linear import plain_linear
from naica.nn.radial import Gaussians

_LN2 = log(2.0)


def _ssp(x: Tensor) -> Tensor:
    return F.softplus(x) - _LN2


class Pairs(nn.Module):
    """One block: a factor of every pair, a correction of the atoms, and the factor Ω."""

    def __init__(self, width: int, factors: int, directions: int, gaussians: int, plain: bool) -> None:
        super().__init__()
        self.plain, self.directions = plain, directions
        self.inward = nn.Linear(width, factors, bias=False)
        self.filter = nn.Sequential(plain_linear(gaussians, factors), nn.Softplus(), plain_linear(factors, factors))
        self.factor = plain_linear(factors, factors)
        self.atom = nn.Sequential(plain_linear(factors, width), nn.Softplus(), plain_linear(width, width))
        self.pair, self.around = plain_linear(factors, width), plain_linear(factors, width)
        size = 1 if plain else 3
        self.mix = nn.ModuleList(nn.Linear(size, directions, bias=False) for _ in range(3))

    def forward(self, x: Tensor, gaussians: Tensor, envelope: Tensor, unit: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Atoms (N, B) → what they become, and Ω (E, B, D)."""
        i, j = batch["edge_receiver"], batch["edge_sender"]
        inward = self.inward(x)
        filters = self.filter(gaussians) * envelope[:, None]
        y = _ssp(self.factor(torch.index_select(inward, 0, i) * torch.index_select(inward, 0, j) * filters)) * envelope[:, None]
        x = x + self.atom(y.new_zeros(len(x), y.shape[1]).index_add(0, i, y))
        direction = torch.ones_like(unit[:, :1]) if self.plain else unit
        own = self.mix[0](self.pair(y)[:, :, None] * direction[:, None])
        around = self.around(y)[:, :, None] * direction[:, None]
        around = y.new_zeros(len(x), *around.shape[1:]).index_add(0, i, around)
        return x, own + self.mix[1](torch.index_select(around, 0, i)) + self.mix[2](torch.index_select(around, 0, j))


class SchNOrb(nn.Module):
    """Features of pairs and atoms in the frame of the laboratory, and an energy."""

    reads_energy = True

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        width, factors, directions : B, of the pairs' factors, and D
        interactions : SchNet's, before the pairs
        degree : largest l of an orbital; 2 · degree + 1 blocks follow
        gaussians, cutoff : functions of the distance (Å)
        """

        width: int = 64
        factors: int = 64
        directions: int = 8
        interactions: int = 3
        degree: int = 2
        gaussians: int = 50
        cutoff: float = 10.0

        def __post_init__(self) -> None:
            if min(self.width, self.factors, self.directions) < 1 or not 0 <= self.degree <= 4:
                raise ConfigError(
                    f"width {self.width}, {self.factors} factors, {self.directions} directions, degree {self.degree}; "
                    "expected at least 1 of each, degree 0 to 4"
                )

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.atoms = SchNet(SchNet.Config(c.width, c.interactions, c.gaussians, c.cutoff))
        self.gaussians = Gaussians(0.0, c.cutoff, c.gaussians)
        self.blocks = nn.ModuleList(Pairs(c.width, c.factors, c.directions, c.gaussians, k == 0) for k in range(2 * c.degree + 1))
        self.energy = nn.Sequential(plain_linear(c.width, c.width // 2 or 1), nn.Softplus(), plain_linear(c.width // 2 or 1, 1))

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def smooth(self) -> bool:
        """Whether its features are continuous with their first derivative when an atom crosses the cut-off."""
        return True

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        c = self.config
        return {"atom": c.width, "edge": c.width * c.directions * len(self.blocks)}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``atom`` (N, B), ``energy`` (N), and features of blocks in the laboratory: ``edge_local`` (E, ·), ``atom_local`` (N, ·)."""
        c = self.config
        length = batch["edge_length"]
        x = self.atoms(batch)["atom"]
        gaussians = self.gaussians(length).to(x.dtype)
        envelope = (0.5 * (1 + torch.cos(length * (pi / c.cutoff))) * (length < c.cutoff)).to(x.dtype)
        unit = (batch["edge_vector"] / length[:, None]).to(x.dtype)
        product, slices = None, []
        for block in self.blocks:
            x, omega = block(x, gaussians, envelope, unit, batch)
            product = omega if product is None else product * omega
            slices.append(product.flatten(1))
        edge = torch.cat(slices, dim=1)
        n = len(x)
        count = torch.bincount(batch["edge_receiver"], minlength=n).clamp(min=1).to(x.dtype)[:, None]
        around = edge.new_zeros(n, edge.shape[1]).index_add(0, batch["edge_receiver"], edge) / count
        return {"atom": x, "energy": self.energy(x)[:, 0], "edge_local": edge, "atom_local": around}
