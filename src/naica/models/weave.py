"""Weave: atoms and pairs of atoms, each woven into the other.

Kearnes et al., Molecular graph convolutions: moving beyond fingerprints, J. Comput. Aided Mol. Des. 30, 595 (2016). Every arrow is
linear → batch norm → relu, written R; atoms A_i, pairs P_ij of all atoms, (i, i) among them::

    A_i'  = R( R(A_i) ⊕ Σ_j R(P_ij) )
    P_ij' = R( [ R(A_i ⊕ A_j) + R(A_j ⊕ A_i) ] ⊕ R(P_ij) )

The sum over both orders, with the same weights, keeps P symmetric. Readout: tanh features of each atom, batch norm, a soft histogram of
every feature over 11 Gaussians whose memberships are normalised to 1, summed over the atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn import SplitLinear, molecules, sum_edges, sum_systems

MEANS = (-1.645, -1.080, -0.739, -0.468, -0.228, 0.0, 0.228, 0.468, 0.739, 1.080, 1.645)
DEVIATIONS = (0.283, 0.170, 0.134, 0.118, 0.114, 0.114, 0.114, 0.118, 0.134, 0.170, 0.283)


class Arrow(nn.Module):
    """Linear → batch norm → relu."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, out)
        self.norm = nn.BatchNorm1d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) → (n, out)."""
        return torch.relu(normed(self.norm, self.linear(x)))


def normed(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """A batch norm that meets fewer than two rows uses its running statistics: it cannot learn from them."""
    if norm.training and len(x) < 2:
        return nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return norm(x)


class Module(nn.Module):
    """One weave module; without `pairs_too` it makes no new pair features."""

    def __init__(self, atom: int, pair: int, width: int, pairs_too: bool) -> None:
        super().__init__()
        self.atom_atom, self.pair_atom, self.to_atom = Arrow(atom, width), Arrow(pair, width), Arrow(2 * width, width)
        self.pairs_too = pairs_too
        if pairs_too:
            self.atom_pair, self.norm = SplitLinear(atom, atom, 0, width), nn.BatchNorm1d(width)
            self.pair_pair, self.to_pair = Arrow(pair, width), Arrow(2 * width, width)

    def forward(self, atoms: Tensor, pairs: Tensor, other: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Atom features (N, ·), pair features (E, ·), index (E) of the same pair the other way round → both, `width` wide."""
        woven = self.to_atom(torch.cat([self.atom_atom(atoms), sum_edges(self.pair_atom(pairs), batch)], dim=1))
        if not self.pairs_too:
            return woven, pairs
        # all pairs are there in both orders, so the second order is the first one's rows, and the batch norm sees both
        one_order = torch.relu(normed(self.norm, self.atom_pair(atoms, atoms, pairs[:, :0], batch)))
        both = one_order + torch.index_select(one_order, 0, other)
        return woven, self.to_pair(torch.cat([both, self.pair_pair(pairs)], dim=1))


class Weave(nn.Module):
    """Weave modules and the histogram; the fully connected layers after it are the head's."""

    means: Tensor
    deviations: Tensor

    @dataclass(frozen=True)
    class Config:
        """Settings: modules, width of every arrow, features of the histogram, and which pairs there are.

        `max_bonds` leaves out pairs of atoms more bonds apart (None: all pairs); ``pair_updates=False`` keeps the pair features as they
        came, for comparison.
        """

        modules: int = 2
        width: int = 50
        features: int = 128
        max_bonds: int | None = None
        pair_updates: bool = True

        def __post_init__(self) -> None:
            if min(self.modules, self.width, self.features) < 1:
                raise ConfigError(f"{self.modules} modules, width {self.width}, {self.features} features; expected at least 1 of each")
            if self.max_bonds is not None and self.max_bonds < 1:
                raise ConfigError(f"max_bonds {self.max_bonds}; expected at least 1, or None for all pairs")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c, known = self.config, molecules.widths()
        atom, pair = known["weave"], known["pairs"]
        layers = []
        for k in range(c.modules):
            # nobody reads the pairs of the last module
            updates = c.pair_updates and k < c.modules - 1
            layers.append(Module(atom, pair, c.width, updates))
            atom, pair = c.width, c.width if updates else pair
        self.layers = nn.ModuleList(layers)
        self.last, self.norm = nn.Linear(c.width, c.features), nn.BatchNorm1d(c.features)
        self.register_buffer("means", torch.tensor(MEANS, dtype=torch.float64).float(), persistent=False)
        self.register_buffer("deviations", torch.tensor(DEVIATIONS, dtype=torch.float64).float(), persistent=False)

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("pairs", max_bonds=self.config.max_bonds)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"system": self.config.features * len(MEANS)}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of pair graphs → histograms (B, 11 · features)."""
        atoms, _ = self.woven(batch)
        return {"system": sum_systems(self.memberships(normed(self.norm, torch.tanh(self.last(atoms)))), batch)}

    def woven(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Atom features (N, width) and pair features (E, ·) after the last module."""
        atoms, pairs, other = molecules.atoms_weave(batch), molecules.pairs(batch), reverse(batch)
        for layer in self.layers:
            atoms, pairs = layer(atoms, pairs, other, batch)
        return atoms, pairs

    def memberships(self, values: Tensor) -> Tensor:
        """Values (N, features) → (N, features · 11): the share of each value in each Gaussian, 1 in all."""
        scaled = (values[..., None] - self.means.to(values.dtype)) / self.deviations.to(values.dtype)
        # densities over their maxima, normalised: a softmax of the exponents, which stays finite far outside
        return torch.softmax(-0.5 * scaled * scaled, dim=-1).flatten(1)


def reverse(batch: Batch) -> Tensor:
    """For every edge i ← j the index (E) of the edge j ← i; all edges must be there in both directions, once."""
    receiver, sender, n = batch["edge_receiver"], batch["edge_sender"], len(batch["number"])
    there, back = torch.argsort(receiver * n + sender), torch.argsort(sender * n + receiver)
    return torch.empty_like(there).scatter_(0, there, back)
