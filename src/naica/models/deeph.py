"""DeepH, the first one: invariant messages, and blocks predicted in local frames.

Li et al., Nat. Comput. Sci. 2, 367 (2022). Messages are CGCNN's gates with a layer norm; the last layer lets every edge look at the stars
of both its ends in its own frame, by real harmonics of the neighbours' directions, and that is where orientation enters::

    x_i ← x_i + norm Σ_j σ(W [x_i ⊕ x_j ⊕ e_ij]) ⊙ softplus(W' …) · exp(−d²/18),      e_ij ← MLP [x_i ⊕ x_j ⊕ e_ij]
    o_ij = MLP [ Σ_k∈star(i) m(x_i, x_k, e_ik, Y(Q_ij r̂_ik)) ⊕ Σ_k∈star(j) m(…) ⊕ e_ij ]

Q_ij has the bond as its first axis and the nearest other neighbour of i in its first plane. Where two neighbours are equally near the frame
jumps, and a straight chain has none: both are the method's own, and the second is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError, InputError
from naica.graphs import Batch, GraphSpec
from naica.nn.atoms import N_ELEMENTS
from naica.nn.radial import Gaussians
from naica.nn.so2 import std_harmonics

_STRAIGHT = 1e-6
_REACH = 18.0  # Å², twice the square of 3 Å


class Gated(nn.Module):
    """σ(W x) ⊙ softplus(W' x)."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) → (n, out)."""
        gate, core = self.linear(x).chunk(2, dim=1)
        return torch.sigmoid(gate) * F.softplus(core)


class Layer(nn.Module):
    """Atoms, then edges."""

    def __init__(self, atoms: int, edges: int, hidden: int) -> None:
        super().__init__()
        self.message, self.norm = Gated(2 * atoms + edges, atoms), nn.LayerNorm(atoms)
        self.edge = nn.Sequential(nn.Linear(2 * atoms + edges, hidden), nn.SiLU(), nn.Linear(hidden, edges), nn.SiLU())

    def forward(self, x: Tensor, e: Tensor, batch: Batch, damping: Tensor) -> tuple[Tensor, Tensor]:
        """(N, atoms), (E, edges) → the same, updated."""
        i, j = batch["edge_receiver"], batch["edge_sender"]
        joined = torch.cat([x[i], x[j], e], dim=1)
        x = x + self.norm(torch.zeros_like(x).index_add(0, i, self.message(joined) * damping))
        return x, self.edge(torch.cat([x[i], x[j], e], dim=1))


class DeepH(nn.Module):
    """Invariants of every edge and atom, and the frames in which they mean a block."""

    @dataclass(frozen=True)
    class Config:
        """Settings: widths of atoms, edges and hidden layers; layers before the last; degree of the harmonics; Gaussians; cut-off in Å.

        `star` is the radius (Å) of the neighbours that an edge looks at in its own frame: their number enters squared.
        """

        atoms: int = 64
        edges: int = 64
        hidden: int = 128
        layers: int = 4
        degree: int = 4
        gaussians: int = 64
        cutoff: float = 7.0
        star: float = 3.5

        def __post_init__(self) -> None:
            if min(self.atoms, self.edges, self.hidden, self.layers) < 1 or not 0 <= self.degree <= 8 or not 0 < self.star <= self.cutoff:
                raise ConfigError(
                    f"widths {self.atoms}, {self.edges}, {self.hidden}, {self.layers} layers, degree {self.degree}, star {self.star} Å; "
                    "expected at least 1 of each, degree 0 to 8, and a star within the cut-off"
                )

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = nn.Embedding(N_ELEMENTS, c.atoms)
        self.gaussians = Gaussians(0.0, c.cutoff, c.gaussians)
        self.start = nn.Linear(c.gaussians, c.edges)
        self.layers = nn.ModuleList(Layer(c.atoms, c.edges, c.hidden) for _ in range(c.layers))
        harmonics = (c.degree + 1) ** 2
        self.star = Gated(2 * c.atoms + c.edges + harmonics, c.atoms)
        self.edge_out = nn.Sequential(nn.Linear(2 * c.atoms + c.edges, c.hidden), nn.SiLU())
        self.atom_out = nn.Sequential(nn.Linear(2 * c.atoms, c.hidden), nn.SiLU())

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level, in their frames."""
        return {"atom": self.config.hidden, "edge": self.config.hidden}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``atom_local`` (N, hidden), ``edge_local`` (E, hidden), and their frames ``atom_frame`` (N, 3, 3), ``edge_frame`` (E, 3, 3)."""
        c = self.config
        x = torch.index_select(self.embedding.weight, 0, batch["number"])
        length, vector = batch["edge_length"].to(x.dtype), batch["edge_vector"].to(x.dtype)
        e = self.start(self.gaussians(length).to(x.dtype))
        damping = torch.exp(-length.square() / _REACH)[:, None]
        for layer in self.layers:
            x, e = layer(x, e, batch, damping)
        frames, own = local_frames(vector, batch)
        i, j = batch["edge_receiver"], batch["edge_sender"]
        near = (length < c.star).nonzero()[:, 0]
        star_i, star_j = (self._star(x, e, vector, frames, ends, near, batch) for ends in (i, j))
        edge = self.edge_out(torch.cat([star_i, star_j, e], dim=1))
        # an atom's own block: its star in its own frame
        rows = near
        told = torch.cat([x[i[rows]], x[j[rows]], e[rows], self._harmonics(own[i[rows]], vector[rows])], dim=1)
        around = torch.zeros_like(x).index_add(0, i[rows], self.star(told))
        atom = self.atom_out(torch.cat([x, around], dim=1))
        return {"atom": x, "atom_local": atom, "edge_local": edge, "atom_frame": own, "edge_frame": frames}

    def _star(self, x: Tensor, e: Tensor, vector: Tensor, frames: Tensor, ends: Tensor, near: Tensor, batch: Batch) -> Tensor:
        """(E, atoms) what each edge sees of the near neighbours of one of its ends, in its own frame."""
        i, j = batch["edge_receiver"], batch["edge_sender"]
        count = torch.bincount(i[near], minlength=len(x))
        first = torch.cumsum(count, 0) - count
        meets = count[ends]
        edge = torch.repeat_interleave(torch.arange(len(ends), device=ends.device), meets)
        within = torch.arange(len(edge), device=ends.device) - torch.repeat_interleave(torch.cumsum(meets, 0) - meets, meets)
        neighbour = near[first[ends[edge]] + within]
        told = torch.cat([x[i[neighbour]], x[j[neighbour]], e[neighbour], self._harmonics(frames[edge], vector[neighbour])], dim=1)
        return x.new_zeros(len(ends), x.shape[1]).index_add(0, edge, self.star(told))

    def _harmonics(self, frames: Tensor, vector: Tensor) -> Tensor:
        return std_harmonics(torch.einsum("eab,eb->ea", frames, vector), self.config.degree)


def local_frames(vector: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Frames of edges (E, 3, 3) and of atoms (N, 3, 3), rows e1, e2, e3: along the bond (or to the nearest neighbour), then the next.

    Raises
    ------
    InputError
        If an atom's neighbours lie on one line with it.
    """
    i, n = batch["edge_receiver"], len(batch["number"])
    length = torch.linalg.vector_norm(vector, dim=1)
    order = torch.argsort(i * 100.0 + length)
    ranked = vector[order]
    count = torch.bincount(i, minlength=n)
    first = torch.cumsum(count, 0) - count
    nearest = ranked[first.clamp(max=max(len(ranked) - 1, 0))] if len(ranked) else vector.new_zeros(n, 3)
    edges = _frame(vector, i, ranked, first, count)
    atoms = _frame(nearest, torch.arange(n, device=i.device), ranked, first, count)
    return edges, atoms


def _frame(axis: Tensor, atom: Tensor, ranked: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Frames with a first axis each, and the nearest neighbour of an atom that is not on it."""
    e1 = axis / torch.linalg.vector_norm(axis, dim=1, keepdim=True)
    cross = torch.zeros_like(axis)
    waiting = torch.ones(len(axis), dtype=torch.bool, device=axis.device)
    for rank in range(int(count.max()) if len(count) else 0):
        has = waiting & (count[atom] > rank)
        if not bool(has.any()):
            break
        other = ranked[first[atom[has]] + rank]
        found = torch.linalg.cross(axis[has], other)
        good = torch.linalg.vector_norm(found, dim=1) > _STRAIGHT
        rows = has.nonzero()[:, 0][good]
        cross[rows] = found[good]
        waiting[rows] = False
    if bool(waiting.any()):
        k = int(waiting.nonzero()[0])
        raise InputError(
            f"atom {int(atom[k])} and its neighbours lie on one line: DeepH's local frames do not exist there; take deeph2 or deeph-e3"
        )
    e2 = cross / torch.linalg.vector_norm(cross, dim=1, keepdim=True)
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], dim=1)
