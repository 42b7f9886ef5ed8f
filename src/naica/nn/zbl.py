"""Repulsion of nuclei at short range: the universal screened potential of Ziegler, Biersack and Littmark (1985), switched off smoothly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naica.graphs.batch import Batch
from naica.nn.atoms import N_ELEMENTS
from naica.nn.ewald import COULOMB
from naica.structure.elements import table

_WEIGHTS = (0.1818, 0.5099, 0.2802, 0.02817)
_RATES = (3.2, 0.9423, 0.4028, 0.2016)
_POWER, _LENGTH = 0.23, 0.8854 * 0.529177210544  # Å


class ZBL(nn.Module):
    """``½ Σ_ij k Z_i Z_j φ(r/a)/r · u(r/r_ij)`` with ``a = 0.8854 a₀/(Z_i^0.23 + Z_j^0.23)``.

    The envelope u falls from 1 to 0, with two continuous derivatives, over the sum of both covalent radii (or the cut-off, if that is
    shorter): at the distance of a bond there is next to nothing left. It has no weights.
    """

    radii: Tensor

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        radii = torch.zeros(N_ELEMENTS, dtype=torch.float64)
        for one in table():
            if one.number < N_ELEMENTS:
                radii[one.number] = one.covalent_radius
        self.cutoff = cutoff
        self.register_buffer("radii", radii, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """(N) eV of the atoms, half of each pair, in 64 bits."""
        n = len(batch["number"])
        length, number = batch["edge_length"].double(), batch["number"]
        radius = torch.index_select(self.radii.double(), 0, number)
        i, j = batch["edge_receiver"], batch["edge_sender"]
        reach = (torch.index_select(radius, 0, i) + torch.index_select(radius, 0, j)).clamp(max=self.cutoff)
        near = torch.nonzero(length.detach() < reach)[:, 0]
        i, j, length, reach = (torch.index_select(t, 0, near) for t in (i, j, length, reach))
        charge = number.double()
        one, other = torch.index_select(charge, 0, i), torch.index_select(charge, 0, j)
        x = length * (one**_POWER + other**_POWER) / _LENGTH
        screen = sum(weight * torch.exp(-rate * x) for weight, rate in zip(_WEIGHTS, _RATES, strict=True))
        y = length / reach
        # 1 − 28 y⁶ + 48 y⁷ − 21 y⁸
        envelope = 1 - y**6 * (28 - 48 * y + 21 * y**2)
        pair = COULOMB * one * other / length * screen * envelope
        return length.new_zeros(n).index_add(0, i, 0.5 * pair)
