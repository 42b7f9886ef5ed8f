"""Selenite, naica's own property network (first version)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn import Gaussians
from naica.nn.atoms import N_ELEMENTS, descriptors
from naica.nn.moments import MAX_DEGREE, invariants, shells
from naica.nn.set2set import softmax
from naica.structure.elements import table


class Selenite(nn.Module):
    """Selenite."""

    @dataclass(frozen=True)
    class Config:
        """Settings."""

        width: int = 64
        layers: int = 2
        cutoff: float = 8.0
        neighbours: int = 16
        degree: int = 2
        gaussians: int = 24
        relative: int = 12
        message: Literal["filter", "silu"] = "filter"
        plain: bool = True
        readout: Literal["mean", "attention"] = "attention"
        skip: bool = True
        norm: bool = True
        deep_elements: bool = True
        residual: bool = True
        dropout: float = 0.0

        def __post_init__(self) -> None:
            if not 0 <= self.degree <= MAX_DEGREE:
                raise ConfigError(f"degree {self.degree}; expected 0 to {MAX_DEGREE}")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.register_buffer("described", descriptors(), persistent=False)
        radii = torch.ones(N_ELEMENTS)
        for element in table():
            radii[element.number] = element.covalent_radius
        self.register_buffer("radius", radii, persistent=False)
        n_desc = self.described.shape[1]
        self.elements = (
            nn.Sequential(nn.Linear(n_desc, c.width), nn.SiLU(), nn.Linear(c.width, c.width)) if c.deep_elements else nn.Linear(n_desc, c.width)
        )
        self.own = nn.Embedding(N_ELEMENTS, c.width)
        nn.init.zeros_(self.own.weight)
        self.radial = Gaussians(0.7, 6.0, c.gaussians)
        self.relative = Gaussians(0.5, 2.5, c.relative) if c.relative else None
        self.layers = nn.ModuleList(Layer(c, c.gaussians + c.relative) for _ in range(c.layers))
        self.last_norm = nn.LayerNorm(c.width) if c.norm else nn.Identity()
        if c.readout == "attention":
            self.score = nn.Linear(c.width, 4)

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("nearest", self.config.cutoff, self.config.neighbours)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        c = self.config
        return {"atom": c.width * (1 + (c.readout == "attention") + c.skip)}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of crystal graphs → atom features."""
        c = self.config
        number = batch["number"]
        dtype = self.own.weight.dtype
        vectors = self.elements(self.described)
        if c.residual:
            vectors = vectors + self.own.weight
        start = atoms = torch.index_select(vectors, 0, number)
        around = shells(batch, c.degree, c.neighbours, c.cutoff)
        basis = [self.radial(around.length)]
        radius = self.radius[number].to(around.length.dtype)
        places = around.rows.shape[2]
        if self.relative is not None:
            touching = torch.index_select(radius, 0, around.sender) + radius[:, None].expand(-1, places).reshape(-1)
            basis.append(self.relative(around.length / touching))
        edges = torch.cat(basis, 1).to(dtype)
        rows = around.rows
        if c.plain:
            mask = torch.ones_like(rows[:, :1]) if batch.degree is not None else (around.length < c.cutoff).view(rows[:, :1].shape).to(rows.dtype)
            rows = torch.cat([mask, rows], 1)
        rows = rows.to(dtype)
        for layer in self.layers:
            atoms = layer(atoms, edges, around.sender, rows)
        atoms = self.last_norm(atoms)
        out = [atoms]
        if c.readout == "attention":
            score = self.score(atoms)
            share = torch.stack([softmax(s, batch["system"], batch.n_systems) for s in score.unbind(1)], 1)
            share = share * batch["n_atoms"][batch["system"]].to(dtype)[:, None]
            out.append((atoms.view(len(atoms), 4, -1) * share[:, :, None]).reshape(atoms.shape))
        if c.skip:
            out.append(start)
        return {"atom": torch.cat(out, 1)}


class Layer(nn.Module):
    """One layer."""

    def __init__(self, c: Selenite.Config, edge_width: int) -> None:
        super().__init__()
        self.c = c
        self.norm = nn.LayerNorm(c.width) if c.norm else nn.Identity()
        self.send = nn.Linear(c.width, c.width, bias=False)
        self.filter = nn.Linear(edge_width, c.width)
        if c.message == "silu":
            self.receive = nn.Linear(c.width, c.width, bias=False)
        n_in = c.width * (1 + c.plain + 1 + c.degree)
        self.update = nn.Sequential(nn.Linear(n_in, 2 * c.width), nn.SiLU(), nn.Dropout(c.dropout), nn.Linear(2 * c.width, c.width))

    def forward(self, atoms: Tensor, edges: Tensor, sender: Tensor, rows: Tensor) -> Tensor:
        c = self.c
        x = self.norm(atoms)
        n, _, places = rows.shape
        sent = torch.index_select(self.send(x), 0, sender)
        filters = self.filter(edges)
        if c.message == "filter":
            messages = sent * filters
        else:
            messages = F.silu(filters.view(n, places, -1).add_(sent.view(n, places, -1)).add_(self.receive(x)[:, None])).view(n * places, -1)
        moments = torch.bmm(rows, messages.view(n, places, -1))
        known = [x]
        if c.plain:
            known.append(moments[:, 0] * (1 / 4))
            moments = moments[:, 1:]
        known += invariants(moments, c.degree)
        return atoms + self.update(torch.cat(known, 1))
