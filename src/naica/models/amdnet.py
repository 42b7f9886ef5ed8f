"""AMDNet: two graph networks side by side, one over atoms, one over structure motifs.

Banjade, Hauri, Zhang, Ricci, Gong, Hautier & Yan, Sci. Adv. 7, eabf1754 (2021). Either tower is a MEGNet (see `naica.models.megnet`),
ends in a dense layer of `out` features, and what both say is joined::

    system = act(W_a · tower_a(atoms)) ⊕ act(W_m · tower_m(motifs))

The layers after it are the head's. A motif enters with its central element (a learned vector), its shape, order parameters, number of
ligands and bond lengths; a pair of motifs with its distance, what it shares (corner, edge, face, nothing) and the angle at the shared
ligand. ``joints="distance"`` leaves only the distance, as the released code does, in which sharing was read but commented out.

Departures: softplus − ln 2 everywhere, where the released script has relu (whose 16 last features can die); an ordinary LSTM in the
readout, where the released code starts every pass with an empty cell; crystals without motifs are refused by name instead of skipped.
For ablations `towers` builds the network without the other tower: zeroed inputs would leave its biases in the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.models.megnet import Block, Dense, Links
from naica.nn.atoms import Start, element_vectors
from naica.nn.radial import Gaussians
from naica.nn.segment import sum_systems
from naica.nn.set2set import Set2Set
from naica.structure.motifs import REACH, SHARINGS
from naica.structure.polyhedra import ORDERS, SHAPES

Towers = Literal["both", "atoms", "motifs"]
_STATE = 2
_LN2 = log(2.0)
_MOST_LIGANDS = 12.0
_REACHES = {"far": ("motifs", REACH), "near": ("motifs_near", 6.0)}


class Tower(nn.Module):
    """The blocks and the readout of a MEGNet over nodes and edges of any level, and a dense layer behind them."""

    def __init__(self, nodes: int, edges: int, config: AMDNet.Config) -> None:
        super().__init__()
        c = config
        self.start = nn.ModuleList(Dense(n, c.hidden, c.width) for n in (nodes, edges, _STATE))
        self.blocks = nn.ModuleList(Block(c.width, c.hidden, k > 0, False) for k in range(c.blocks))
        self.read_atoms = Set2Set(c.width, c.pool, c.passes)
        self.read_bonds = Set2Set(c.width, c.pool, c.passes)
        self.last = nn.Linear(4 * c.pool + c.width, c.out)

    def read(self, nodes: Tensor, edges: Tensor, links: Links) -> tuple[Tensor, Tensor]:
        """Nodes (N, ·), edges (E, ·) → what is read of each system (B, 4 · pool + width), and the nodes (N, width)."""
        level = links.batch
        v, e, u = self.start[0](nodes), self.start[1](edges), self.start[2](nodes.new_zeros(level.n_systems, _STATE))
        for block in self.blocks:
            v, e, u = block(v, e, u, links)
        times = None if links.times is None else links.times[:, 0]
        of_nodes = self.read_atoms(v, level["system"], level.n_systems)
        return torch.cat([of_nodes, self.read_bonds(e, level.system_of("edge"), level.n_systems, times), u], dim=1), v

    def forward(self, nodes: Tensor, edges: Tensor, links: Links) -> tuple[Tensor, Tensor]:
        """Nodes (N, ·), edges (E, ·) → features of the systems (B, out) and of the nodes (N, width)."""
        read, v = self.read(nodes, edges, links)
        return F.softplus(self.last(read)) - _LN2, v


class AtomTower(Tower):
    """Elements and distances of the atoms."""

    def __init__(self, config: AMDNet.Config) -> None:
        super().__init__(config.elements, config.gaussians, config)
        self.embedding = element_vectors(config.atoms, config.elements)
        self.radial = Gaussians(0.0, config.cutoff, config.gaussians, 0.5)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Links]:
        """Nodes, edges (equal ones merged), and the graph they are of."""
        nodes = self.embedding(batch["number"])
        links = Links.of(batch, nodes.dtype)
        return nodes, self.radial(links.batch["edge_length"]).to(nodes.dtype), links


class MotifTower(Tower):
    """Elements, shapes and joints of the motifs."""

    def __init__(self, config: AMDNet.Config) -> None:
        reach = _REACHES[config.reach][1]
        gaussians = max(2, round(config.gaussians * reach / REACH))
        joint = len(SHARINGS) + 2 if config.joints == "full" else 0
        # number of ligands, measure, spread of bond lengths; mean bond length in soft bins
        numbers = 3 + len(ORDERS) + 20
        super().__init__(config.elements + len(SHAPES) + numbers, gaussians + joint, config)
        self.joints = config.joints
        self.embedding = element_vectors(config.atoms, config.elements)
        self.radial = Gaussians(0.0, reach, gaussians, 0.5)
        self.bonds = Gaussians(0.8, 3.65, 20)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Links]:
        """Nodes, edges, and the graph they are of: the motifs in the place of the atoms."""
        element = self.embedding(batch["number"][batch["motif_atom"]])
        kind = element.dtype
        scalars = [batch["motif_coordination"] / _MOST_LIGANDS, batch["motif_measure"] / 100, batch["motif_bond_spread"]]
        parts = [
            element,
            F.one_hot(batch["motif_shape"], len(SHAPES)).to(kind),
            torch.stack(scalars, dim=1).to(kind),
            batch["motif_order"].to(kind),
            self.bonds(batch["motif_bond_length"]).to(kind),
        ]
        edges = [self.radial(batch["motif_edge_length"]).to(kind)]
        if self.joints == "full":
            shared = (batch["motif_edge_sharing"] != SHARINGS.index("none")).to(kind)[:, None]
            angle = batch["motif_edge_angle"].to(kind)
            edges += [F.one_hot(batch["motif_edge_sharing"], len(SHARINGS)).to(kind)]
            edges += [shared * torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)]
        return torch.cat(parts, dim=1), torch.cat(edges, dim=1), _all_links(level_of_motifs(batch), kind)


def _all_links(level: Batch, dtype: torch.dtype) -> Links:
    """Every pair of motifs for itself: equally long ones may differ in what they share."""
    degree = torch.bincount(level["edge_receiver"], minlength=len(level["number"])).to(dtype)[:, None]
    return Links(level, None, degree.clamp(min=1), sum_systems(degree, level).clamp(min=1), False)


def level_of_motifs(batch: Batch) -> Batch:
    """The motifs of a batch as a graph of their own: nodes are motifs, edges their pairs."""
    system = batch["motif_system"]
    return Batch(
        {
            "number": batch["number"][batch["motif_atom"]],
            "system": system,
            "n_atoms": torch.bincount(system, minlength=batch.n_systems),
            "edge_receiver": batch["motif_edge_receiver"],
            "edge_sender": batch["motif_edge_sender"],
            "edge_length": batch["motif_edge_length"],
        }
    )


class AMDNet(nn.Module):
    """Atom tower and motif tower; what both read of a system is joined."""

    @dataclass(frozen=True)
    class Config:
        """Settings; the defaults are the published sizes.

        Parameters
        ----------
        towers : ``both``, or one alone for ablations
        joints : what a pair of motifs says: ``full`` (sharing, angle, distance) or ``distance``
        reach : ``far``: pairs that share nothing up to 11 Å, as published; ``near``: up to 6 Å, a sixth of the edges
        blocks, width, hidden : number of blocks of each tower, their width and that of the layers inside
        out : features each tower ends in
        elements : length of the vector of each element; `atoms` says how it starts
        cutoff : of the atom graph, Å
        gaussians : on 0 … `cutoff` for atoms and on 0 … 11 Å for motifs (as closely spaced in a shorter reach)
        passes, pool : of `Set2Set`
        """

        towers: Towers = "both"
        joints: Literal["full", "distance"] = "full"
        reach: Literal["far", "near"] = "far"
        blocks: int = 3
        width: int = 32
        hidden: int = 64
        out: int = 16
        elements: int = 16
        atoms: Start = "learned"
        cutoff: float = 5.0
        gaussians: int = 100
        passes: int = 3
        pool: int = 16

        def __post_init__(self) -> None:
            choices = (
                ("towers", get_args(Towers)),
                ("joints", ("full", "distance")),
                ("reach", tuple(_REACHES)),
                ("atoms", get_args(Start)),
            )
            for name, options in choices:
                if getattr(self, name) not in options:
                    raise ConfigError(f"{name} {getattr(self, name)!r} is unknown; expected one of {', '.join(options)}")
            sizes = (self.blocks, self.width, self.hidden, self.out, self.elements, self.gaussians, self.passes, self.pool)
            if min(sizes) < 1 or self.gaussians < 2:
                raise ConfigError(f"sizes {sizes}; expected at least 1, and 2 Gaussians")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.towers = nn.ModuleDict()
        if self.config.towers != "motifs":
            self.towers["atoms"] = AtomTower(self.config)
        if self.config.towers != "atoms":
            self.towers["motifs"] = MotifTower(self.config)

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        c = self.config
        return GraphSpec("radius", c.cutoff, levels=() if c.towers == "atoms" else (_REACHES[c.reach][0],))

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        own = {"atoms": "atom", "motifs": "motif"}
        return {"system": self.config.out * len(self.towers), **{own[name]: self.config.width for name in self.towers}}

    def _each(self) -> list[tuple[str, AtomTower | MotifTower]]:
        return cast(list[tuple[str, AtomTower | MotifTower]], list(self.towers.items()))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of graphs with motifs → system features (B, out · towers), atoms (N, width), motifs (M, width)."""
        found = {name: tower(*tower.inputs(batch)) for name, tower in self._each()}
        features = {"system": torch.cat([system for system, _ in found.values()], dim=1)}
        return {**features, **{name.removesuffix("s"): nodes for name, (_, nodes) in found.items()}}
