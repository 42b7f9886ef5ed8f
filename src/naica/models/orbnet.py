"""OrbNet: message passing over symmetry-adapted atomic orbitals.

Qiao, Welborn, Anandkumar, Manby, Miller, J. Chem. Phys. 153, 124111 (2020). Sizes X of off-diagonal operator values enter as
``x = −ln |X|`` on ``√(2/c) sin(π m x / c) / x`` times a mollifier that vanishes with all derivatives at ``|x| = c``; diagonal values as
``sin(π n x)``. Per layer, with heads h and edge vectors e::

    m_vw = σ( W [h_v ⊙ h_w ⊙ e_vw] + b ) ,   α_vw = σ( Σ (W_h h_v) ⊙ (W_h h_w) ⊙ e_vw / n_e )
    h_v ← h_v + σ( W [⊕_h Σ_w α_vw m_vw] + b )

Attention weights are not normalised over neighbours, and messages carry the mollifier, so that far molecules do not feel each other.
Operators are symmetric, and so are messages and attention weights: each pair of orbitals is worked out once and heard by both.
Each layer writes into the features of the orbital's atom, which the sum over atoms makes extensive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.graphs.saao import REACH

_KINDS = 16
_DIAGONAL = 3
_OPERATORS = 4


def expanded(sizes: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Sizes of operator values (P, K) → their expansion (P, K · number), and the largest of their mollifiers (P).

    Parameters
    ----------
    sizes : a.u., at least 0
    number : functions per operator
    """
    x = -torch.log(sizes.clamp(min=1e-30))
    inside = x.abs() < REACH
    ratio = torch.where(inside, x / REACH, torch.zeros_like(x))
    mollifier = torch.where(inside, torch.exp(1.0 - 1.0 / (1.0 - ratio**2).clamp(min=1e-6)), torch.zeros_like(x))
    m = torch.arange(1, number + 1, dtype=x.dtype, device=x.device)
    # sinc keeps x = 0 finite: sin(π m x/c)/x = (π m/c) sinc(m x/c)
    waves = math.sqrt(2 / REACH) * (math.pi * m / REACH) * torch.sinc(ratio[..., None] * m)
    return (waves * mollifier[..., None]).flatten(1), mollifier.amax(dim=1)


class OrbNetLayer(nn.Module):
    """Attention with several heads over pairs of orbitals."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.edge = nn.Linear(width, width, bias=False)
        self.message = nn.Linear(width, width)
        self.query = nn.Linear(width, heads * width, bias=False)
        self.join = nn.Linear(heads * width, width)

    def forward(self, orbitals: Tensor, edges: Tensor, envelope: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Orbital features (O, C); of each pair once its features (P, C), mollifier (P) and orbitals (P), (P) → (O, C)."""
        width = orbitals.shape[1]
        e = self.edge(edges)
        message = F.silu(self.message(_both(orbitals, i, j) * e)) * envelope[:, None]
        gathered = []
        # a head at a time: pairs are many, and all heads at once would not fit the caches
        for asked in self.query(orbitals).chunk(self.heads, dim=1):
            attention = torch.sigmoid((_both(asked, i, j) * e).sum(dim=1, keepdim=True) / width)
            weighted = attention * message
            gathered.append(torch.zeros_like(orbitals).index_add(0, i, weighted).index_add(0, j, weighted))
        return orbitals + F.silu(self.join(torch.cat(gathered, dim=1)))


def _both(values: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Product of the rows of both ends: (P, C)."""
    return torch.index_select(values, 0, i) * torch.index_select(values, 0, j)


class OrbNet(nn.Module):
    """Orbitals of GFN1-xTB as nodes; molecules only. Needs the extra ``orbitals`` (tblite)."""

    @dataclass(frozen=True)
    class Config:
        """Settings: width of orbital features, layers, heads, functions per diagonal and off-diagonal operator value."""

        width: int = 64
        layers: int = 3
        heads: int = 4
        diagonal: int = 8
        off_diagonal: int = 8

        def __post_init__(self) -> None:
            if min(self.width, self.layers, self.heads, self.diagonal, self.off_diagonal) < 1:
                raise ConfigError(f"{self}; expected numbers of at least 1")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.kinds = nn.Embedding(_KINDS, c.width)
        self.start = nn.Linear(_DIAGONAL * c.diagonal, c.width)
        self.edges = nn.Linear(_OPERATORS * c.off_diagonal, c.width, bias=False)
        self.layers = nn.ModuleList(OrbNetLayer(c.width, c.heads) for _ in range(c.layers))
        self.decoders = nn.ModuleList(nn.Linear(c.width, c.width) for _ in range(c.layers + 1))

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants; the edges between atoms are not used."""
        return GraphSpec("radius", 3.0, levels=("saao",))

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of molecules with the level of orbitals → atom features (N, width)."""
        graph = batch.graph_of("orbital")
        dtype = self.start.weight.dtype
        values = batch["saao_diagonal"].to(dtype)
        n = torch.arange(1, self.config.diagonal + 1, dtype=dtype, device=values.device)
        orbitals = self.kinds(batch["orbital_shell"]) + self.start(torch.sin(math.pi * values[..., None] * n).flatten(1))
        once = graph["edge_receiver"] < graph["edge_sender"]
        i, j = graph["edge_receiver"][once], graph["edge_sender"][once]
        waves, envelope = expanded(batch["saao_coupling"][once].to(dtype), self.config.off_diagonal)
        edges = self.edges(waves)
        written = self.decoders[0](orbitals)
        for layer, decoder in zip(self.layers, self.decoders[1:], strict=True):
            orbitals = layer(orbitals, edges, envelope, i, j)
            written = written + decoder(orbitals)
        atoms = written.new_zeros(len(batch["number"]), written.shape[1])
        return {"atom": atoms.index_add(0, batch["orbital_atom"], F.silu(written))}
