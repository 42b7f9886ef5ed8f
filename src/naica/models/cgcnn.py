"""CGCNN: crystal graph convolutional neural networks.

Xie & Grossman, Phys. Rev. Lett. 120, 145301 (2018). Gated convolution (the paper's Eq. 5 with the batch norms and the outer softplus of
the released code), for ``z = v_i ⊕ v_j ⊕ u_ij``::

    v_i ← softplus( v_i + BN( Σ_j σ(a) ⊙ softplus(c) ) ),   [a ⊕ c] = BN( W z + b )

Simple convolution (Eq. 4), one matrix for all neighbours::

    v_i ← softplus( [Σ_j v_j ⊕ u_ij] W_c + v_i W_s + b )

Atoms start from a learned vector per element, which is the released code's linear map of its fixed 92 element features with those
features folded in: any such map is a table over the elements, and a table is a linear map of the one-hot element. With
``atoms="described"`` they start from a linear map of what the periodic table says of the element, as the released code's do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn import Gaussians, SplitLinear, sum_edges
from naica.nn.atoms import Start, element_vectors
from naica.nn.gate import gated_sum, gated_sum_of
from naica.nn.softplus import softplus


class GatedConvolution(nn.Module):
    """Eq. 5 as released. 22,144 parameters with 64 atom and 41 edge features."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.linear = SplitLinear(width, width, edge_width, 2 * width)
        self.norm_edges = nn.BatchNorm1d(2 * width)
        self.norm_atoms = nn.BatchNorm1d(width)

    def forward(self, atoms: Tensor, edges: Tensor, batch: Batch) -> Tensor:
        """Atom features (N, C), edge features (E, ·) → (N, C)."""
        norm = self.norm_edges
        if self.training and len(edges) > 1:
            message = gated_sum(norm(self.linear(atoms, atoms, edges, batch)), batch)
        else:
            # a frozen batch norm is a linear map: folded into the weights it costs nothing per edge
            mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
            scale = norm.weight * torch.rsqrt(variance + norm.eps)
            weight, bias = self.linear.weight * scale[:, None], (self.linear.bias - mean) * scale + norm.bias
            message = gated_sum_of(self.linear, weight, bias, atoms, edges, batch)
        return softplus(atoms + self._normed(message), twice=batch["edge_length"].requires_grad)

    def _normed(self, message: Tensor) -> Tensor:
        norm = self.norm_atoms
        # a batch norm cannot learn from fewer than two rows
        if self.training and len(message) > 1:
            return norm(message)
        return F.batch_norm(message, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


class SimpleConvolution(nn.Module):
    """Eq. 4: sum of neighbours and bonds through one matrix, plus the atom through another."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.neighbours = nn.Linear(width + edge_width, width)
        self.self_ = nn.Linear(width, width, bias=False)

    def forward(self, atoms: Tensor, edges: Tensor, batch: Batch) -> Tensor:
        """Atom features (N, C), edge features (E, ·) → (N, C)."""
        of_atoms = sum_edges(torch.index_select(atoms, 0, batch["edge_sender"]), batch)
        joined = torch.cat([of_atoms, sum_edges(edges, batch)], dim=1)
        return F.softplus(self.neighbours(joined) + self.self_(atoms))


class CGCNN(nn.Module):
    """The convolutions of CGCNN; pooling and the layers after it are the head's.

    ``padding="original"`` repeats a quirk of the released code, for comparison with its numbers: an atom with fewer than 12 neighbours
    gets the missing ones as messages from the crystal's *first* atom at 9 Å, which makes the result depend on the order of atoms. The
    default, ``"correct"``, gives such an atom fewer messages.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings: kind of convolution, width of atom features, layers, graph, Gaussians (from 0 to `cutoff`), padding, first vectors."""

        convolution: Literal["gated", "simple"] = "gated"
        width: int = 64
        layers: int = 3
        cutoff: float = 8.0
        neighbours: int = 12
        gaussians: int = 41
        padding: Literal["correct", "original"] = "correct"
        atoms: Start = "learned"

        def __post_init__(self) -> None:
            if self.convolution not in ("gated", "simple"):
                raise ConfigError(f"convolution {self.convolution!r} is unknown; expected 'gated' (Eq. 5) or 'simple' (Eq. 4)")
            if self.padding not in ("correct", "original"):
                raise ConfigError(f"padding {self.padding!r} is unknown; expected 'correct' or 'original'")
            if self.atoms not in get_args(Start):
                raise ConfigError(f"atoms {self.atoms!r} is unknown; expected one of {', '.join(get_args(Start))}")
            if self.width < 1 or self.layers < 0:
                raise ConfigError(f"width {self.width} and {self.layers} layers; expected at least 1 and 0")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = element_vectors(c.atoms, c.width)
        self.radial = Gaussians(0.0, c.cutoff, c.gaussians)
        kind = GatedConvolution if c.convolution == "gated" else SimpleConvolution
        self.convolutions = nn.ModuleList(kind(c.width, c.gaussians) for _ in range(c.layers))

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("nearest", self.config.cutoff, self.config.neighbours)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of crystal graphs → atom features (N, width)."""
        if self.config.padding == "original":
            batch = padded_as_released(batch, self.config.neighbours, self.config.cutoff + 1.0)
        atoms = self.embedding(batch["number"])
        edges = self.radial(batch["edge_length"]).to(atoms.dtype)
        for convolution in self.convolutions:
            atoms = convolution(atoms, edges, batch)
        return {"atom": atoms}


def padded_as_released(batch: Batch, neighbours: int, length: float) -> Batch:
    """The batch with every atom filled up to `neighbours` edges from its crystal's first atom at `length` Å."""
    n = len(batch["number"])
    missing = (neighbours - torch.bincount(batch["edge_receiver"], minlength=n)).clamp(min=0)
    if int(missing.sum()) == 0:
        return batch
    receiver = torch.repeat_interleave(torch.arange(n, device=missing.device), missing)
    first = torch.cumsum(batch["n_atoms"], 0) - batch["n_atoms"]
    vector = batch["edge_vector"].new_zeros(len(receiver), 3)
    vector[:, 0] = length
    new = {
        "edge_receiver": receiver,
        "edge_sender": first[batch["system"][receiver]],
        "edge_vector": vector,
        "edge_length": batch["edge_length"].new_full((len(receiver),), length),
    }
    order = torch.argsort(torch.cat([batch["edge_receiver"], receiver]), stable=True)
    return Batch({**batch, **{key: torch.cat([batch[key], value])[order] for key, value in new.items()}})
