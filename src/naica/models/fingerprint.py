"""Neural graph fingerprints: circular fingerprints whose every step has weights.

Duvenaud et al., Convolutional networks on graphs for learning molecular fingerprints, NeurIPS 2015. Layer L, with one neighbour matrix for
each degree of the atom (Algorithm 2; the self matrix apart, as in the released code)::

    r_a ← relu( BN( r_a W_self^L + Σ_{n∈N(a)} (r_n ⊕ b_an) W_{deg(a)}^L + c^L ) )

Before each layer and once after the last, every atom writes a total of 1 into one vector of length S::

    f ← f + Σ_a softmax( r_a W_out^L + d^L )

so that the entries of f sum to (layers + 1) · atoms. Atoms of more than five bonds share the matrix of five.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn import molecules, sum_edges, sum_systems

Norm = Literal["running", "released", "none"]
_DEGREES = 6


class ReleasedNorm(nn.Module):
    """Batch norm of the released code: no learned scale, divides by (deviation + 1), statistics of the batch at prediction too.

    A prediction then depends on the other molecules of its batch. Only for comparison with numbers of that code.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) → (N, C)."""
        return (x - x.mean(0)) / (x.std(0, correction=0) + 1)


def norm_of(kind: Norm, width: int) -> nn.Module:
    """The normalisation called so."""
    return nn.BatchNorm1d(width) if kind == "running" else ReleasedNorm() if kind == "released" else nn.Identity()


class Convolution(nn.Module):
    """One layer; `width` in, `out` out."""

    def __init__(self, width: int, edge_width: int, out: int, norm: Norm) -> None:
        super().__init__()
        self.self_ = nn.Linear(width, out)
        self.by_degree = nn.ModuleList(nn.Linear(width + edge_width, out, bias=False) for _ in range(_DEGREES))
        self.norm = norm_of(norm, out)

    def forward(self, atoms: Tensor, bonds: Tensor, degree: Tensor, batch: Batch) -> Tensor:
        """Atom features (N, ·), bond features (E, ·), degrees (N) → (N, out)."""
        near = torch.cat([sum_edges(torch.index_select(atoms, 0, batch["edge_sender"]), batch), sum_edges(bonds, batch)], dim=1)
        total = self.self_(atoms)
        for d, linear in enumerate(self.by_degree):
            # atoms stay where they are: results of each degree are added at their places, never strung together
            here = (degree == d).nonzero()[:, 0]
            total = total.index_add(0, here, linear(torch.index_select(near, 0, here)))
        return torch.relu(_normed(self.norm, total))


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    if isinstance(norm, nn.BatchNorm1d) and len(x) < 2:
        # a batch norm cannot learn from fewer than two rows
        return nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return norm(x)


class Fingerprint(nn.Module):
    """The fingerprint of each molecule, as features of the system; the network on top of it is the head's."""

    @dataclass(frozen=True)
    class Config:
        """Settings: length of the fingerprint, width of the layers, how many, and the batch norm.

        ``norm="running"`` is the usual one (learned scale, running statistics in prediction), ``"released"`` that of the paper's code.
        """

        length: int = 128
        width: int = 64
        layers: int = 4
        norm: Norm = "running"

        def __post_init__(self) -> None:
            if self.norm not in get_args(Norm):
                raise ConfigError(f"norm {self.norm!r} is unknown; expected one of {', '.join(get_args(Norm))}")
            if self.length < 2 or self.width < 1 or self.layers < 0:
                raise ConfigError(f"length {self.length}, width {self.width}, {self.layers} layers; expected at least 2, 1 and 0")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c, known = self.config, molecules.widths()
        sizes = [known["duvenaud"]] + [c.width] * c.layers
        self.writers = nn.ModuleList(nn.Linear(size, c.length) for size in sizes)
        self.convolutions = nn.ModuleList(Convolution(size, known["bonds"], c.width, c.norm) for size in sizes[: c.layers])

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("bonds")

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"system": self.config.length}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of molecular graphs → fingerprints (B, length)."""
        atoms, bonds = molecules.atoms_duvenaud(batch), molecules.bonds(batch)
        degree = torch.bincount(batch["edge_receiver"], minlength=len(atoms)).clamp(max=_DEGREES - 1)
        written = torch.softmax(self.writers[0](atoms), dim=1)
        for convolution, writer in zip(self.convolutions, list(self.writers)[1:], strict=True):
            atoms = convolution(atoms, bonds, degree, batch)
            written = written + torch.softmax(writer(atoms), dim=1)
        return {"system": sum_systems(written, batch)}
