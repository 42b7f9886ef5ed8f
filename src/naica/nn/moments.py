"""Moments of an atom's surroundings: what its neighbours say, sorted by direction, and what of it no rotation changes.

The density trick (Bartók, Kondor & Csányi, Phys. Rev. B 87, 184115, 2013; Drautz, Phys. Rev. B 99, 014104, 2019): for messages m_ij and
real spherical harmonics Y_lm of the directions, in Racah's normalisation::

    A_lm,i = Σ_j w_ij Y_lm(r_ij) m_ij,    Σ_m A_lm² = Σ_j Σ_k w_ij w_ik m_ij m_ik P_l(cos θ_jik)

so sums over all pairs of neighbours and their angles cost no more than sums over neighbours. The weights w fall to zero at the distance
of the last neighbour that is kept: which of several equally far ones was kept then changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from naica.graphs import Batch

MAX_DEGREE = 3
# below this many Å (far below any bond) a direction fades out instead of dividing by zero
_SHORT = 1e-6


def harmonics(vector: Tensor, length: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics of directions (E, 3), degrees 1 to `degree` ≤ 3: (E, (degree + 1)² − 1), Σ_m Y_lm² = 1 for each l."""
    x, y, z = (vector / length.clamp(min=_SHORT)[:, None]).unbind(1)
    found = [x, y, z]
    if degree >= 2:
        r3 = 3**0.5
        found += [r3 * x * y, r3 * y * z, r3 * z * x, (r3 / 2) * (x * x - y * y), 1.5 * z * z - 0.5]
    if degree >= 3:
        a, b, c = (5 / 8) ** 0.5, 15**0.5, (3 / 8) ** 0.5
        s, d = 5 * z * z - 1, x * x - y * y
        cubic = [a * x * (x * x - 3 * y * y), a * y * (3 * x * x - y * y), b * x * y * z, (b / 2) * z * d]
        found += [*cubic, c * x * s, c * y * s, 0.5 * z * (5 * z * z - 3)]
    return torch.stack(found, dim=1)


@dataclass(frozen=True)
class Shells:
    """Every atom's surroundings with the same number of places K; places without a neighbour have no weight.

    sender and length (N·K); rows (N, M, K): what multiplies the messages: the same number for all neighbours, the weights w, then
    w · Y_lm.
    """

    sender: Tensor
    length: Tensor
    rows: Tensor

    def moments(self, messages: Tensor) -> Tensor:
        """Messages (N·K, C) → moments (N, M, C)."""
        n, _, places = self.rows.shape
        return torch.bmm(self.rows, messages.view(n, places, messages.shape[1]))


def shells(batch: Batch, degree: int, neighbours: int, cutoff: float) -> Shells:
    """The surroundings of a batch's atoms.

    The weights are ``(1 − (d/D)²)²``. D is the distance of an atom's last neighbour where it has as many as it may, else the cut-off.
    Beside them stands a plain sum, each neighbour times 1/√neighbours: it sees the last shell too, and like every sum over nearest
    neighbours relies on how `naica.graphs.neighbours.nearest` breaks ties, by element and surroundings. Directions could not rely on it.

    Parameters
    ----------
    batch : graphs
    degree : highest degree of the harmonics, 0 to 3
    neighbours : edges an atom may have
    cutoff : Å
    """
    n, receiver = len(batch["number"]), batch["edge_receiver"]
    sender, vector, length = batch["edge_sender"], batch["edge_vector"], batch["edge_length"]
    if batch.degree is not None:
        places, there = batch.degree, None
        full = torch.full((n, 1), places >= neighbours, device=length.device)
    else:
        count = torch.bincount(receiver, minlength=n)
        places = int(count.max())
        first = torch.cumsum(count, 0) - count
        place = receiver * places + torch.arange(len(receiver), device=receiver.device) - first[receiver]
        sender, vector, length = (x.new_zeros(n * places, *x.shape[1:]).index_copy(0, place, x) for x in (sender, vector, length))
        there = length.new_zeros(n * places).index_fill(0, place, 1.0).view(n, places)
        full = (count >= neighbours)[:, None]
    length = length.view(n, places)
    reach = torch.where(full, length.amax(dim=1, keepdim=True), cutoff) if places else length.new_full((n, 1), cutoff)
    weight = (1 - (length / reach).clamp(max=1.0).square()).square()
    plain = torch.full_like(length, neighbours**-0.5)
    if there is not None:
        weight, plain = weight * there, plain * there
    rows = [plain[:, None], weight[:, None]]
    if degree:
        y = harmonics(vector, length.view(-1), degree).view(n, places, (degree + 1) ** 2 - 1)
        rows.append(weight[:, None] * y.transpose(1, 2))
    return Shells(sender, length.view(-1), torch.cat(rows, dim=1))


def invariants(moments: Tensor, degree: int) -> list[Tensor]:
    """What no rotation or inversion changes of moments (N, M, C): the two scalars, then one size per degree, each (N, C).

    Sizes are softened norms, p / √(p + 0.1) of p = Σ_m A_lm²: smooth at zero, and growing like the moments themselves.
    """
    found, start = [moments[:, 0], moments[:, 1]], 2
    for order in range(1, degree + 1):
        power = moments[:, start : start + 2 * order + 1].square().sum(1)
        found.append(power * torch.rsqrt(power + 0.1))
        start += 2 * order + 1
    return found
