"""SchNet: continuous-filter convolutions.

Schütt et al., NeurIPS 2017 and J. Chem. Phys. 148, 241722 (2018). An interaction, with filters that depend on the distance alone::

    x_i ← x_i + D₂ ssp( D₁ Σ_j (W x_j) ⊙ f_c(d_ij) F(d_ij) ),   F(d) = L₂ ssp( L₁ g(d) ),   ssp(x) = ln(1 + eˣ) − ln 2

g are Gaussians, f_c = ½ (1 + cos(π d / r_c)) the cut-off that makes energies and forces continuous (``cut="hard"`` leaves it out, as the
first models did, and they are not). The last layer of a filter is linear as in schnetpack; ``filters="activated"`` gives it an ssp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi
from typing import Literal, cast

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn.atoms import N_ELEMENTS
from naica.nn.edge_product import EdgeProduct, Path, Tabled
from naica.nn.linear import linear_after_softplus, plain_linear
from naica.nn.radial import Gaussians
from naica.nn.softplus import softplus
from naica.nn.tables import Tables
from naica.nn.tabulated import Grid

_LN2 = log(2.0)
_MESSAGES = EdgeProduct(inputs=(0,), outputs=((0, 1),), paths=(Path(0, 0, 0, 0),))


class Interaction(nn.Module):
    """One round of messages. 68,608 parameters with 128 features and 20 Gaussians."""

    def __init__(self, width: int, gaussians: int, activated: bool) -> None:
        super().__init__()
        self.activated = activated
        self.inward = nn.Linear(width, width, bias=False)
        nn.init.xavier_uniform_(self.inward.weight)
        self.filter_first, self.filter_second = plain_linear(gaussians, width), plain_linear(width, width)
        self.out_first, self.out_second = plain_linear(width, width), plain_linear(width, width)

    def filters(self, gaussians: Tensor) -> Tensor:
        """Gaussians (n, ·) of some distances → filters (n, C)."""
        twice = gaussians.requires_grad
        x = linear_after_softplus(self.filter_second, softplus(self.filter_first(gaussians), twice))
        return softplus(x, twice) - _LN2 if self.activated else x

    def forward(self, x: Tensor, filters: Tensor | Tabled, grid: Grid | None, batch: Batch) -> Tensor:
        """Atoms (N, C) → what they become; filters (K, C) are those of the grid's points, else (E, 1, C) those of the edges."""
        y = self.inward(x)
        if grid is not None and isinstance(filters, Tensor):
            received = grid.filtered_sum(y, filters, batch)
        else:
            received = _MESSAGES(filters, batch["edge_vector"], (y[:, None],), batch["edge_receiver"], batch["edge_sender"])[0].view(
                y.shape
            )
        twice = torch.is_grad_enabled() and batch["edge_length"].requires_grad
        return x + linear_after_softplus(self.out_second, softplus(self.out_first(received), twice))


class SchNet(nn.Module):
    """The interactions of SchNet; the layers after it are the head's."""

    @dataclass(frozen=True)
    class Config:
        """Settings: width of the features, interactions, Gaussians (from 0 to `cutoff`), cut-off in Å and its kind, last filter layer."""

        width: int = 128
        interactions: int = 6
        gaussians: int = 20
        cutoff: float = 5.0
        cut: Literal["cosine", "hard"] = "cosine"
        filters: Literal["linear", "activated"] = "linear"

        def __post_init__(self) -> None:
            if self.cut not in ("cosine", "hard") or self.filters not in ("linear", "activated"):
                raise ConfigError(f"cut {self.cut!r}, filters {self.filters!r}; expected cosine or hard, linear or activated")
            if self.width < 1 or self.interactions < 0:
                raise ConfigError(f"width {self.width} and {self.interactions} interactions; expected at least 1 and 0")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = nn.Embedding(N_ELEMENTS, c.width)
        # one spacing is the standard deviation: exp(−(d − μ)² / 2Δ²)
        self.sigma = c.cutoff / (c.gaussians - 1)
        self.radial = Gaussians(0.0, c.cutoff, c.gaussians, self.sigma * 2**0.5)
        self.interactions = nn.ModuleList(Interaction(c.width, c.gaussians, c.filters == "activated") for _ in range(c.interactions))
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
        """Whether its features are continuous with their first derivative when an atom crosses the cut-off."""
        return self.config.cut == "cosine"

    def edge_functions(self, length: Tensor) -> list[Tensor]:
        """What depends on the lengths (E) of edges alone: filters (E, 1, C) of each interaction, envelope included."""
        gaussians, envelope = self.radial(length).to(self.embedding.weight.dtype), self._envelope(length)[:, None]
        return [(each.filters(gaussians) * envelope)[:, None] for each in self._interactions()]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of graphs → atom features (N, width)."""
        length = batch["edge_length"]
        x = torch.index_select(self.embedding.weight, 0, batch["number"])
        grid = None if self.tables is not None else Grid.of(length, self.sigma, self._envelope(length))
        filters: Sequence[Tensor | Tabled]
        if self.tables is not None:
            filters = self.tables(length)
        elif grid is not None:
            gaussians = self.radial(grid.points).to(x.dtype)
            filters = [each.filters(gaussians) for each in self._interactions()]
        else:
            filters = self.edge_functions(length)
        for interaction, each in zip(self._interactions(), filters, strict=True):
            x = interaction(x, each, grid, batch)
        return {"atom": x}

    def _interactions(self) -> Sequence[Interaction]:
        return cast(Sequence[Interaction], self.interactions)

    def _envelope(self, length: Tensor) -> Tensor:
        inside = (length < self.config.cutoff).to(length.dtype)
        if self.config.cut == "hard":
            return inside
        return 0.5 * (1 + torch.cos(length * (pi / self.config.cutoff))) * inside
