"""PaiNN: vectors beside scalars, without tensors: the cheapest equivariant network.

Schütt, Unke and Gastegger, ICML 2021. Atoms have scalars s and vectors v (F channels each), edges filters W = f_c(d) (D g(d) + b), in three
parts. A message, then a mixing on each atom::

    s_i += Σ_j φ¹(s_j) ⊙ W¹_ij,     v_i += Σ_j φ²(s_j) ⊙ W²_ij r̂_ij + φ³(s_j) ⊙ W³_ij v_j
    a, b, c = α(s_i ⊕ |V v_i|),     s_i += a + b ⊙ ⟨U v_i, V v_i⟩,     v_i += c ⊙ U v_i

φ and α are networks of two layers, g Gaussians, f_c = ½ (1 + cos πd/r_c). Layers, their shapes and initial weights follow schnetpack; the
energy of an atom is read by F → F/2 → 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn.atoms import N_ELEMENTS
from naica.nn.edge_product import EdgeProduct, Path, Tabled
from naica.nn.linear import plain_linear
from naica.nn.radial import Gaussians
from naica.nn.tables import Tables

# scalars to scalars; scalars along the edge to vectors; vectors to vectors, added to the former
_MESSAGES = EdgeProduct(inputs=(0, 0, 1), outputs=((0, 1), (1, 1)), paths=(Path(0, 0, 0, 0), Path(1, 1, 1, 0), Path(2, 0, 1, 0)))
_TINY = 1e-8


def _two_layers(inputs: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(plain_linear(inputs, width), nn.SiLU(), plain_linear(width, out))


class Layer(nn.Module):
    """A message and a mixing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sent = _two_layers(width, width, 3 * width)
        self.split = nn.Linear(width, 2 * width, bias=False)
        nn.init.xavier_uniform_(self.split.weight)
        self.mixed = _two_layers(2 * width, width, 3 * width)

    def forward(self, s: Tensor, v: Tensor | None, filters: Tensor | Tabled, unit: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scalars (N, F), vectors (N, 3, F) or None for zero, filters (E, 3, F), directions (E, 3)."""
        n, width = s.shape
        to_scalars, along, carried = self.sent(s).view(n, 3, width).unbind(1)
        vectors = carried[:, None] * v if v is not None else carried.new_zeros(n, 3, width)
        inputs = (to_scalars[:, None], along[:, None], vectors)
        new_s, new_v = _MESSAGES(filters, unit, inputs, batch["edge_receiver"], batch["edge_sender"])
        s = s + new_s.view(n, width)
        v = new_v.view(n, 3, width) if v is None else v + new_v.view(n, 3, width)
        left, right = self.split(v).chunk(2, dim=2)
        length = torch.sqrt(left.square().sum(1) + _TINY)
        a, c, b = self.mixed(torch.cat([s, length], dim=1)).chunk(3, dim=1)
        return s + a + b * (left * right).sum(1), v + c[:, None] * right


class PaiNN(nn.Module):
    """589,057 parameters with 128 channels, 3 layers and a table of 100 elements."""

    smooth = True
    reads_energy = True

    @dataclass(frozen=True)
    class Config:
        """Settings: channels of scalars and of vectors, layers, Gaussians (from 0 to `cutoff`), cut-off in Å."""

        width: int = 128
        layers: int = 3
        gaussians: int = 20
        cutoff: float = 5.0

        def __post_init__(self) -> None:
            if self.width < 2 or self.layers < 0 or self.gaussians < 2 or self.cutoff <= 0:
                raise ConfigError(
                    f"width {self.width}, {self.layers} layers, {self.gaussians} Gaussians, cutoff {self.cutoff} Å; "
                    "expected at least 2, 0, 2 and more than 0"
                )

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = nn.Embedding(N_ELEMENTS, c.width)
        self.radial = Gaussians(0.0, c.cutoff, c.gaussians, c.cutoff / (c.gaussians - 1) * 2**0.5)
        self.filters = plain_linear(c.gaussians, c.layers * 3 * c.width)
        self.layers = nn.ModuleList(Layer(c.width) for _ in range(c.layers))
        self.readout = _two_layers(c.width, c.width // 2, 1)
        self.tables: Tables | None = None

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width}

    def edge_functions(self, length: Tensor) -> list[Tensor]:
        """What depends on the lengths (E) of edges alone: filters (E, 3, F) of each layer."""
        c = self.config
        envelope = 0.5 * (1 + torch.cos(length * (pi / c.cutoff))) * (length < c.cutoff)
        # the bias is one more function of the distance, so that nothing as wide as the filters is multiplied by the envelope
        radial = torch.cat([self.radial(length), torch.ones_like(length)[:, None]], dim=1) * envelope[:, None]
        whole = torch.cat([self.filters.weight, self.filters.bias[:, None]], dim=1)
        return [torch.mm(radial, part.t()).unflatten(1, (3, c.width)) for part in whole.chunk(c.layers)]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of graphs → atom features (N, width) and energies of the atoms (N) in units of the network."""
        length = batch["edge_length"]
        unit = batch["edge_vector"] / length[:, None]
        filters = self.edge_functions(length) if self.tables is None else self.tables(length)
        s, v = torch.index_select(self.embedding.weight, 0, batch["number"]), None
        for layer, part in zip(self.layers, filters, strict=True):
            s, v = layer(s, v, part, unit, batch)
        return {"atom": s, "energy": self.readout(s)[:, 0]}
