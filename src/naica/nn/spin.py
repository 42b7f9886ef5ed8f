"""Collinear magnetic moments as a degree of freedom: an energy of signed moments beside that of positions."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn

from naica.graphs.batch import Batch


class Spins(nn.Module):
    """``E = Σ_i [f(x_i, m_i², h_i) − f(x_i, 0, 0)]``, ``h_in = m_i Σ_j m_j R_n(r_ij) (W x_i)_n (W x_j)_n``.

    Every number f gets is even in the moments, so turning all spins over changes nothing, and without moments nothing is added. h holds
    exchange of Heisenberg's form, by distance and by what both atoms are; f being a network makes it more than pairwise and lets the
    moments have a size of their own.

    Parameters
    ----------
    width : of the atom features x
    hidden : of f
    cutoff : Å
    channels : of h
    """

    def __init__(self, width: int, hidden: int, cutoff: float, channels: int = 8) -> None:
        super().__init__()
        self.cutoff, self.channels = cutoff, channels
        self.kinds = nn.Linear(width, channels)
        self.network = nn.Sequential(nn.Linear(width + 1 + channels, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor, moments: Tensor, batch: Batch) -> Tensor:
        """Features (N, C) and moments (N) in μ_B → energies (N) in units of the network."""
        m = moments.to(features.dtype)
        i, j, length = batch["edge_receiver"], batch["edge_sender"], batch["edge_length"]
        carried = m[:, None] * self.kinds(features)
        radial = self._radial(length)
        field = carried.new_zeros(len(m), self.channels).index_add(0, i, radial * torch.index_select(carried, 0, j))
        even = torch.cat([(m * m)[:, None], carried * field], dim=1)
        zero = torch.zeros_like(even)
        both = torch.cat([torch.cat([features, even], dim=1), torch.cat([features, zero], dim=1)])
        with_spins, without = self.network(both)[:, 0].chunk(2)
        return with_spins - without

    def _radial(self, length: Tensor) -> Tensor:
        """(E) → (E, channels): waves that vanish at the cut-off with two derivatives."""
        x = (length / self.cutoff).clamp(max=1.0)
        n = torch.arange(1, self.channels + 1, dtype=length.dtype, device=length.device)
        envelope = 1 - x**3 * (10 - 15 * x + 6 * x**2)
        return torch.cos(pi * (n - 1) * x[:, None]) * envelope[:, None]
