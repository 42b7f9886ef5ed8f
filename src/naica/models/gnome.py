"""The two energy models of GNoME: from structure, and from composition alone.

Merchant et al., Nature 624, 80 (2023), after the released model definitions. One full graph-network step, with small networks φ::

    e_ij ← φ_e( e_ij ⊕ v_j ⊕ v_i ⊕ g )
    v_i  ← φ_v( v_i ⊕ Σ_sent e ⊕ Σ_received e ⊕ g )
    g    ← φ_g( mean_i v_i ⊕ Σ e ⊕ g )

Sums over edges may be divided by 17, the mean number of edges per atom at 4 Å over the Materials Project set ("coordination"). The last
step's φ_g ends in the head. The energy per atom is ``scale · output + shift``; scale and shift belong to the training target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn import Gaussians, SplitLinear, mean_systems, sum_edges, sum_systems
from naica.nn.atoms import N_ELEMENTS
from naica.nn.mlp import Swish, SwishNetwork, init_hidden, init_last

Aggregation = Literal["coordination", "sum", "mean"]
COORDINATION = 17.0


def _element_table(width: int) -> nn.Embedding:
    table = nn.Embedding(N_ELEMENTS, width)
    nn.init.normal_(table.weight, std=N_ELEMENTS**-0.5)
    return table


class EdgeUpdate(nn.Module):
    """φ_e, its first layer split: node and global parts are multiplied per node."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.joined = SplitLinear(2 * width, width, width, width)
        init_hidden(self.joined)
        self.swish = Swish(width)
        self.last = nn.Linear(width, width)
        init_last(self.last)

    def forward(self, edges: Tensor, atoms: Tensor, systems: Tensor, batch: Batch) -> Tensor:
        """Edges (E, C), atoms (N, C), systems (B, C) → edges (E, C)."""
        at_receiver = torch.cat([atoms, systems[batch["system"]]], dim=1)
        return self.last(self.swish(self.joined(at_receiver, atoms, edges, batch)))


class Step(nn.Module):
    """One update of edges, atoms and systems; the last one (`readout`) leaves the last linear map of φ_g to the head."""

    def __init__(self, width: int, aggregation: Aggregation, as_released: bool, readout: bool) -> None:
        super().__init__()
        self.aggregation, self.as_released, self.readout = aggregation, as_released, readout
        self.edge_update = EdgeUpdate(width)
        self.atom_update = SwishNetwork(4 * width, width)
        self.system_update = SwishNetwork(3 * width, width, last=not readout)

    def forward(self, edges: Tensor, atoms: Tensor, systems: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Edges (E, C), atoms (N, C), systems (B, C) → the three, updated."""
        edges = self.edge_update(edges, atoms, systems, batch)
        received = self._scaled(sum_edges(edges, batch), batch["edge_receiver"])
        sent = edges.new_zeros(atoms.shape).index_add(0, batch["edge_sender"], edges)
        sent = self._scaled(sent, batch["edge_sender"])
        atoms = self.atom_update(torch.cat([atoms, sent, received, systems[batch["system"]]], dim=1))
        joined = torch.cat([mean_systems(atoms, batch), self._of_system(edges, batch), systems], dim=1)
        return edges, atoms, self.system_update(joined)

    def _scaled(self, summed: Tensor, ends: Tensor) -> Tensor:
        """Sums over the edges of an atom, normalised as the aggregation says; `ends` are the atoms of the edges."""
        if self.aggregation == "coordination":
            return summed / COORDINATION
        if self.aggregation == "mean":
            return summed / torch.bincount(ends, minlength=len(summed)).clamp(min=1).to(summed.dtype)[:, None]
        return summed

    def _of_system(self, edges: Tensor, batch: Batch) -> Tensor:
        """The edges' word to the system: per atom (or per edge for "mean"), so that a supercell hears the same.

        As released, the readout takes the mean over edges and divides by the atoms once more ("coordination"), and "sum" is not divided
        at all: both depend on the size of the cell.
        """
        total = sum_systems(sum_edges(edges, batch), batch)
        atoms = batch["n_atoms"].to(total.dtype)[:, None]
        per_edge = self.aggregation == "mean" or (self.as_released and self.readout)
        if per_edge:
            of_atoms = torch.bincount(batch["edge_receiver"], minlength=len(batch["number"])).to(total.dtype)[:, None]
            total = total / sum_systems(of_atoms, batch).clamp(min=1)
        elif self.aggregation == "coordination":
            total = total / COORDINATION
        if self.as_released:
            return total / atoms if self.aggregation == "coordination" else total
        return total if per_edge else total / atoms


class GNoME(nn.Module):
    """Energy from structure: messages between all atoms within 4 Å, which also speak to one vector of the whole system.

    ``readout="released"`` repeats the released normalisation of the edges in the readout, with which a supercell has another energy per
    atom than its cell; the default, ``"consistent"``, normalises as in the other steps.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings: width of all features, steps (the last is the readout), cut-off (Å), Gaussians from 0.05 Å to it, sums."""

        width: int = 64
        steps: int = 4
        cutoff: float = 4.0
        gaussians: int = 30
        gaussian_width: float = 0.5
        aggregation: Aggregation = "coordination"
        readout: Literal["consistent", "released"] = "consistent"

        def __post_init__(self) -> None:
            if self.aggregation not in get_args(Aggregation):
                raise ConfigError(f"aggregation {self.aggregation!r} is unknown; expected one of {', '.join(get_args(Aggregation))}")
            if self.readout not in ("consistent", "released"):
                raise ConfigError(f"readout {self.readout!r} is unknown; expected 'consistent' or 'released'")
            if self.width < 1 or self.steps < 1:
                raise ConfigError(f"width {self.width} and {self.steps} steps; expected at least 1 of each")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = _element_table(c.width)
        self.radial = Gaussians(0.05, c.cutoff, c.gaussians, c.gaussian_width)
        self.edge_embedding = nn.Linear(c.gaussians, c.width)
        init_last(self.edge_embedding)
        # the released globals start as a linear map of zero: its bias
        self.state = nn.Parameter(torch.zeros(c.width))
        released = c.readout == "released"
        self.steps = nn.ModuleList(Step(c.width, c.aggregation, released, k == c.steps - 1) for k in range(c.steps))

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"system": self.config.width}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of crystal graphs → system features (B, width)."""
        atoms = self.embedding(batch["number"])
        edges = self.edge_embedding(self.radial(batch["edge_length"]).to(atoms.dtype))
        systems = self.state.expand(batch.n_systems, -1)
        for step in self.steps:
            edges, atoms, systems = step(edges, atoms, systems, batch)
        return {"system": systems}


class CompositionStep(nn.Module):
    """One update without edges: the elements speak through the system's vector alone."""

    def __init__(self, width: int, readout: bool) -> None:
        super().__init__()
        self.atom_update = SwishNetwork(2 * width, width)
        self.system_update = SwishNetwork(2 * width, width, last=not readout)

    def forward(self, atoms: Tensor, systems: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Nodes (N, C), systems (B, C) → the two, updated."""
        atoms = self.atom_update(torch.cat([atoms, systems[batch["system"]]], dim=1))
        return atoms, self.system_update(torch.cat([mean_systems(atoms, batch), systems], dim=1))


class GNoMEComposition(nn.Module):
    """Energy per atom from the formula alone: one node per element, its vector scaled by the element's fraction."""

    @dataclass(frozen=True)
    class Config:
        """Settings: width of all features, steps (the last is the readout)."""

        width: int = 128
        steps: int = 4

        def __post_init__(self) -> None:
            if self.width < 1 or self.steps < 1:
                raise ConfigError(f"width {self.width} and {self.steps} steps; expected at least 1 of each")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = _element_table(c.width)
        self.embedding_bias = nn.Parameter(torch.zeros(c.width))
        self.state = nn.Parameter(torch.zeros(c.width))
        self.steps = nn.ModuleList(CompositionStep(c.width, k == c.steps - 1) for k in range(c.steps))

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("composition")

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"system": self.config.width}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of composition graphs → system features (B, width)."""
        atoms = self.embedding(batch["number"])
        atoms = atoms * batch["fraction"][:, None].to(atoms.dtype) + self.embedding_bias
        systems = self.state.expand(batch.n_systems, -1)
        for step in self.steps:
            atoms, systems = step(atoms, systems, batch)
        return {"system": systems}
