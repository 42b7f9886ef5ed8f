"""Coulomb sums: point and Gaussian charges in crystals (Ewald) and in molecules (all pairs), a whole batch at once, in 64 bits.

Charges have the density ``q (2πσ²)^(−3/2) exp(−r²/2σ²)``; σ = 0 is a point. With ``γ_ij² = σ_i² + σ_j²`` and a splitting η::

    φ_i = k Σ_j q_j [erfc(r/√2η) − erfc(r/√2γ)]/r  +  (4πk/V) Re Σ_{G≠0} e^(−η²G²/2)/G² S(G) e^(−iG·r_i)  +  terms of the charge itself

the first sum over all images (Ewald, Ann. Phys. 369, 253 (1921)). The mean potential of a crystal is zero: a charged cell has a uniform
background. A molecule is the same with η → ∞ and no second sum. Structure factors are matrix products of phases along the three axes, so
nothing is a loop over wave vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, log, pi, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.graphs.neighbours import within

COULOMB = 14.3996454
"""e²/4πε₀ in eV Å."""
# what a pair of unit charges may miss of either sum, eV, by the precision of the positions
_ACCURACY = {torch.float64: 1e-11, torch.float32: 1e-7}
# η⁶ = this · V²/N makes both sums equally long: a pair costs as much as 60 phases
_BALANCE = 1.3e-4
# numbers that the phases of one group of systems may take
_ROOM = 4_000_000
_WASTE = 2.0


@dataclass(frozen=True, eq=False)
class Coulomb:
    """The sums of one batch (B systems, N atoms, P pairs), differentiable in its positions and cells, and in the widths.

    Parameters
    ----------
    system : (N) the system of each atom
    sizes : atoms of each system
    pairs : (2, P) both ends of each pair, either order once, images apart
    kernel : (P) what a unit charge at one end means at the other, eV/e
    own : (N) what a unit charge means to itself, eV/e
    width : (N) Å, None for points
    background : (B) 2πk/V, eV/(e Å²); 0 for molecules
    eta : (B) Å; 0 for molecules
    groups : systems whose second sums are computed at once
    """

    system: Tensor
    sizes: tuple[int, ...]
    pairs: Tensor
    kernel: Tensor
    own: Tensor
    width: Tensor | None
    background: Tensor
    eta: Tensor
    groups: tuple[_Group, ...]

    @classmethod
    def of(
        cls,
        batch: Batch,
        width: Tensor | None = None,
        self_energy: bool = True,
        splitting: float = 1.0,
        eta: float | None = None,
        longest: float | None = None,
    ) -> Coulomb:
        """The sums of a batch with ``positions``, ``cell`` and ``pbc``.

        Parameters
        ----------
        batch : crystals and molecules
        width : (N) σ in Å; None: point charges
        self_energy : whether a Gaussian feels itself (k q/(σ√π)); points never do
        splitting : factor on the η that is chosen; nothing depends on it but time
        eta : Å instead of the chosen one
        longest : 1/Å, cuts the second sum short at |G| = `longest` and leaves out the first one (Latent Ewald summation as published does)

        Raises
        ------
        InputError
            For slabs and wires, whose sums are other ones.
        """
        positions, cell = batch["positions"].double(), batch["cell"].double()
        periodic = periodicity(batch)
        sizes = tuple(batch["n_atoms"].tolist())
        width = None if width is None else width.double()
        accuracy = _ACCURACY.get(batch["positions"].dtype, 1e-7)
        plan = _Plan.of(cell.detach(), periodic, sizes, width, accuracy, splitting, eta, longest)
        pairs, kernel = _pairs(positions, cell, plan, width)
        whole = torch.tensor(periodic, device=cell.device)
        # what has no volume must not meet a determinant, whose derivative would be no number
        box = torch.where(whole[:, None, None], cell, torch.eye(3, dtype=cell.dtype, device=cell.device))
        background = whole.double() * (2 * pi * COULOMB) / torch.linalg.det(box).abs()
        inverse = torch.tensor([1 / e if e else 0.0 for e in plan.eta], dtype=torch.float64, device=cell.device)
        own = (-2 * COULOMB / sqrt(2 * pi) * inverse)[batch["system"]]
        if width is not None and self_energy:
            own = own + COULOMB / (sqrt(pi) * width)
        spread = torch.tensor(plan.eta, dtype=torch.float64, device=cell.device)
        groups = _groups(positions, cell, plan)
        return cls(batch["system"], sizes, pairs, kernel, own, width, background, spread, groups)

    def potential(self, charge: Tensor) -> Tensor:
        """Charges (N) in e → (N) in eV/e; half of their products are the energies of the atoms."""
        q = charge.double()
        first, second = self.pairs
        found = self.own * q
        found = found.index_add(0, first, self.kernel * torch.index_select(q, 0, second))
        found = found.index_add(0, second, self.kernel * torch.index_select(q, 0, first))
        for group in self.groups:
            found = found.index_add(0, group.atoms, group.potential(q))
        return found - self._of_background(q)

    def energy(self, charge: Tensor) -> Tensor:
        """(B) eV."""
        return self._summed(0.5 * charge.double() * self.potential(charge))

    def _summed(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(self.sizes)).index_add(0, self.system, values)

    def _of_background(self, q: Tensor) -> Tensor:
        """(N) what the first sum adds to the mean potential."""
        own = torch.index_select(self.eta, 0, self.system) ** 2
        found = own * torch.index_select(self._summed(q), 0, self.system)
        if self.width is not None:
            squares = self.width**2
            found = found - squares * torch.index_select(self._summed(q), 0, self.system)
            found = found - torch.index_select(self._summed(q * squares), 0, self.system)
        return torch.index_select(self.background, 0, self.system) * found

    @torch.no_grad()
    def matrices(self) -> list[Tensor]:
        """For each system (n, n): potentials at its atoms per charges on its atoms, eV/e². Without derivatives."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        blocks = [self.kernel.new_zeros(n * n) for n in self.sizes]
        owner = torch.index_select(self.system, 0, self.pairs[0])
        for b, (start, n) in enumerate(zip(starts, self.sizes, strict=False)):
            there = torch.nonzero(owner == b)[:, 0] if len(self.sizes) > 1 else slice(None)
            first, second = self.pairs[:, there] - int(start)
            blocks[b].index_add_(0, first * n + second, self.kernel[there])
            blocks[b].index_add_(0, second * n + first, self.kernel[there])
        found = [block.view(n, n) for block, n in zip(blocks, self.sizes, strict=True)]
        for group in self.groups:
            for b, block in zip(group.rows, group.matrices(), strict=True):
                found[b] += block
        for b, (start, n) in enumerate(zip(starts, self.sizes, strict=False)):
            mine = slice(int(start), int(start) + n)
            found[b].diagonal().add_(self.own[mine])
            squares = torch.zeros_like(self.own[mine]) if self.width is None else self.width[mine] ** 2
            found[b] -= self.background[b] * (self.eta[b] ** 2 - squares[:, None] - squares[None, :])
        return found


def periodicity(batch: Batch) -> list[bool]:
    """For each system whether it repeats in three directions (True) or in none (False).

    Raises
    ------
    InputError
        For slabs and wires, and where the batch does not say.
    """
    if "pbc" not in batch or "positions" not in batch:
        raise InputError("long-range electrostatics need positions, cells and pbc in the batch; make it with Systems.batch")
    repeats = batch["pbc"].sum(dim=1).tolist()
    for b, count in enumerate(repeats):
        if count not in (0, 3):
            raise InputError(
                f"system {b} repeats in {count} directions; Ewald sums are for three, or none. "
                "Give a slab or a wire enough vacuum and pbc in all three directions"
            )
    return [count == 3 for count in repeats]


# --- what is summed up to where ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Plan:
    """Splittings η in Å (0 for molecules), and how far both sums reach: Å (0: nowhere) and 1/Å."""

    sizes: tuple[int, ...]
    eta: list[float]
    reach: list[float]
    longest: list[float]

    @classmethod
    def of(
        cls,
        cell: Tensor,
        periodic: Sequence[bool],
        sizes: tuple[int, ...],
        width: Tensor | None,
        accuracy: float,
        splitting: float,
        eta: float | None,
        longest: float | None,
    ) -> _Plan:
        volumes = torch.linalg.det(cell).abs().tolist()
        widths = [0.0] * len(sizes) if width is None else [float(w.max()) for w in width.detach().split(sizes)]
        even = width is not None and bool((width == width[0]).all())
        found = cls(sizes, [], [], [])
        for whole, volume, n, w in zip(periodic, volumes, sizes, widths, strict=True):
            gamma = sqrt(2) * w
            own = max(gamma, (_BALANCE * volume * volume / n) ** (1 / 6) * splitting) if eta is None else eta
            # wide Gaussians alone need no first sum: their second one converges by itself
            alone = longest is not None or (even and own == gamma)
            found.eta.append(own if whole else 0.0)
            found.reach.append(0.0 if alone or not whole else _range(accuracy) * max(own, gamma))
            found.longest.append((longest or _last_wave(accuracy) / own) if whole else 0.0)
        return found


def _range(accuracy: float) -> float:
    """How many η the first sum reaches."""
    x = 4.0
    while COULOMB * erfc(x / sqrt(2)) > accuracy * x:
        x += 0.05
    return x


def _last_wave(accuracy: float) -> float:
    """How many 1/η the second sum reaches."""
    return sqrt(-2 * log(accuracy / COULOMB))


def _pairs(positions: Tensor, cell: Tensor, plan: _Plan, width: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pairs within the reach of the first sum (2, P), and its terms (P); all pairs of molecules."""
    points, cells = positions.detach().cpu().numpy(), cell.detach().cpu().numpy()
    ends, shifts, owners, start = [], [], [], 0
    for b, n in enumerate(plan.sizes):
        if not plan.eta[b]:
            both = np.stack(np.triu_indices(n, 1))
            image = np.zeros((both.shape[1], 3))
        elif plan.reach[b]:
            both, image = _half(points[start : start + n], cells[b], plan.reach[b])
        else:
            both, image = np.zeros((2, 0), np.int64), np.zeros((0, 3))
        ends.append(both + start)
        shifts.append(image)
        owners.append(np.full(both.shape[1], b))
        start += n
    device = positions.device
    pairs = torch.from_numpy(np.concatenate(ends, axis=1)).to(device)
    owner, shift = torch.from_numpy(np.concatenate(owners)).to(device), torch.from_numpy(np.concatenate(shifts)).to(device)
    first, second = pairs
    vector = torch.index_select(positions, 0, second) - torch.index_select(positions, 0, first)
    vector = vector + torch.einsum("pa,pab->pb", shift, torch.index_select(cell, 0, owner))
    length = torch.linalg.vector_norm(vector, dim=1)
    inverse = torch.tensor([1 / (sqrt(2) * e) if e else 0.0 for e in plan.eta], dtype=torch.float64, device=device)
    kernel = torch.special.erfc(length * torch.index_select(inverse, 0, owner))
    if width is not None:
        squares = width**2
        gamma = (2 * (torch.index_select(squares, 0, first) + torch.index_select(squares, 0, second))).sqrt()
        kernel = kernel - torch.special.erfc(length / gamma)
    return pairs, COULOMB * kernel / length


def _half(points: np.ndarray, cell: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Each pair within reach in one order only, and the image of its second end."""
    found = within(points, cell, np.ones(3, dtype=bool), reach)
    keep = found.receiver <= found.sender
    found = found.take(keep)
    image = np.rint((found.vector - (points[found.sender] - points[found.receiver])) @ np.linalg.inv(cell))
    lead = np.take_along_axis(image, (image != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    once = (found.receiver < found.sender) | (lead > 0)
    return np.stack([found.receiver[once], found.sender[once]]), image[once]


# --- waves -------------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Group:
    """Crystals of similar size whose waves are summed together (b systems, at most n atoms each).

    Parameters
    ----------
    rows : the systems
    atoms : (n_group) their atoms in the batch
    slot : (n_group) where each stands in the padded (b · n)
    fraction : (b, n, 3) positions in units of the lattice vectors
    weight : (b, h, k · l) of the waves, eV/e²
    reach : largest index along each axis
    """

    rows: tuple[int, ...]
    atoms: Tensor
    slot: Tensor
    fraction: Tensor
    weight: Tensor
    reach: tuple[int, int, int]

    def potential(self, charge: Tensor) -> Tensor:
        """Charges (N) → potentials (n_group)."""
        b, n = self.fraction.shape[:2]
        padded = charge.new_zeros(b * n).index_copy(0, self.slot, torch.index_select(charge, 0, self.atoms)).view(b, n)
        planes = self.reach[0] + 1
        step = max(1, _ROOM // (b * n * (2 * self.reach[1] + 1)))
        if step >= planes:
            found = _waves(padded, self.fraction, self.weight, 0, self.reach)
        else:
            # each part is computed again on the way back: memory stays as it is, however many waves there are
            found = torch.zeros_like(padded)
            for low in range(0, planes, step):
                part = self.weight[:, low : low + step]
                found = found + checkpoint(_waves, padded, self.fraction, part, low, self.reach, use_reentrant=False)
        return torch.index_select(found.reshape(-1), 0, self.slot)

    def matrices(self) -> list[Tensor]:
        """For each of its systems (n_own, n_own), eV/e²."""
        b, n = self.fraction.shape[:2]
        counts = torch.bincount(torch.div(self.slot, n, rounding_mode="floor"), minlength=b).tolist()
        grid = _indices(self.reach).to(self.fraction.device)
        found = []
        for k, own in enumerate(counts):
            weight = self.weight[k].reshape(-1)
            there = torch.nonzero(weight)[:, 0]
            block = weight.new_zeros(own, own)
            for part in there.split(max(1, _ROOM // own)):
                angle = 2 * pi * self.fraction[k, :own] @ grid[part].T
                waves = torch.cat([torch.cos(angle), torch.sin(angle)], dim=1)
                block = block.addmm(waves * weight[part].repeat(2), waves.T)
            found.append(block)
        return found


def _waves(charge: Tensor, fraction: Tensor, weight: Tensor, low: int, reach: tuple[int, int, int]) -> Tensor:
    """Charges (b, n) → potentials (b, n) by the planes h = low, low + 1 … of the waves."""
    b, n = charge.shape
    planes = weight.shape[1]
    x = _phases(fraction[:, :, 0], low, low + planes - 1)
    y, z = (_phases(fraction[:, :, axis], -reach[axis], reach[axis]) for axis in (1, 2))
    flat = (x[:, :, :, None] * y[:, :, None, :]).reshape(b, n, -1)
    factor = torch.bmm((flat * charge[:, :, None]).transpose(1, 2), z)
    weighted = factor * weight.reshape(factor.shape)
    back = torch.bmm(weighted, z.conj().transpose(1, 2))
    return (flat.conj() * back.transpose(1, 2)).sum(2).real


def _phases(fraction: Tensor, low: int, high: int) -> Tensor:
    """(b, n) → exp(2πi h x) for h = low … high, (b, n, high − low + 1)."""
    h = torch.arange(low, high + 1, dtype=fraction.dtype, device=fraction.device)
    angle = 2 * pi * fraction[:, :, None] * h
    return torch.complex(torch.cos(angle), torch.sin(angle))


def _indices(reach: tuple[int, int, int]) -> Tensor:
    """(waves, 3) indices of half of the waves: the other half is their complex conjugate."""
    axes = [torch.arange(0, reach[0] + 1), *(torch.arange(-r, r + 1) for r in reach[1:])]
    return torch.cartesian_prod(*axes).double()


def _groups(positions: Tensor, cell: Tensor, plan: _Plan) -> tuple[_Group, ...]:
    """Crystals in order, as many in a group as fit and do not waste room on each other."""
    boxes = cell.detach()
    reaches = {
        b: tuple(int(longest * float(torch.linalg.vector_norm(edge)) / (2 * pi)) for edge in boxes[b])
        for b, longest in enumerate(plan.longest)
        if longest
    }
    found: list[list[int]] = []
    room = lambda rows: _padded(rows, plan.sizes, reaches)  # noqa: E731
    for b in sorted(reaches, key=lambda row: room([row])):
        joined = [*found[-1], b] if found else [b]
        if found and room(joined) <= min(_ROOM, _WASTE * sum(room([row]) for row in joined)):
            found[-1].append(b)
        else:
            found.append([b])
    return tuple(_group(rows, positions, cell, plan, reaches) for rows in found)


def _padded(rows: Sequence[int], sizes: Sequence[int], reaches: dict[int, tuple[int, ...]]) -> int:
    """Numbers the phases of a group take."""
    h, k = (max(reaches[row][axis] for row in rows) for axis in (0, 1))
    return len(rows) * max(sizes[row] for row in rows) * (h + 1) * (2 * k + 1)


def _group(rows: Sequence[int], positions: Tensor, cell: Tensor, plan: _Plan, reaches: dict[int, tuple[int, ...]]) -> _Group:
    device = cell.device
    starts = np.concatenate([[0], np.cumsum(plan.sizes)])
    n = max(plan.sizes[row] for row in rows)
    atoms = torch.cat([torch.arange(int(starts[row]), int(starts[row + 1])) for row in rows]).to(device)
    slot = torch.cat([torch.arange(plan.sizes[row]) + k * n for k, row in enumerate(rows)]).to(device)
    place = torch.tensor(list(rows), device=device)
    own = torch.index_select(cell, 0, place)
    inverse = torch.linalg.inv(own)
    padded = positions.new_zeros(len(rows) * n, 3).index_copy(0, slot, torch.index_select(positions, 0, atoms)).view(len(rows), n, 3)
    h, k, l = (max(reaches[row][axis] for row in rows) for axis in range(3))  # noqa: E741
    grid = _indices((h, k, l)).to(device)
    waves = 2 * pi * torch.einsum("ga,xba->xgb", grid, inverse)
    square = (waves * waves).sum(2)
    longest = torch.tensor([plan.longest[row] for row in rows], dtype=torch.float64, device=device)[:, None]
    eta = torch.tensor([plan.eta[row] for row in rows], dtype=torch.float64, device=device)[:, None]
    counted = (square.detach() <= longest**2) & (square.detach() > 0)
    square = torch.where(counted, square, torch.ones_like(square))
    twice = 1 + (grid[:, 0] > 0).double()
    volume = torch.linalg.det(own).abs()[:, None]
    weight = counted.double() * twice * (4 * pi * COULOMB) * torch.exp(-0.5 * eta**2 * square) / (square * volume)
    return _Group(tuple(rows), atoms, slot, torch.bmm(padded, inverse), weight.view(len(rows), h + 1, -1), (h, k, l))
