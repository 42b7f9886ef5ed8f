"""Neighbours of moving atoms: a list with a skin, made again only for the systems whose atoms moved too far.

A list holds all edges within cut-off + skin. It misses nobody while, with D the deformation of the cell since it was made and u the
displacements that D does not explain::

    |r_ij| ≥ (1 − ‖D − 1‖) (r_c + skin) − 2 max |u|  ≥  r_c

Edges come in one order (receiver, sender, image), and those beyond the cut-off are left out at each call. So what a potential computes is a
function of positions and cells alone, to the last bit, and not of when a list was made: a run that is killed and resumed gives the same
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.graphs.neighbours import within
from naica.potential.systems import Systems

SKIN = 0.8


@dataclass(frozen=True, eq=False)
class _Part:
    """The list of one system: local indices (E), images (E, 3), and where its atoms and its cell were when it was made."""

    receiver: NDArray[np.int64]
    sender: NDArray[np.int64]
    shift: NDArray[np.float64]
    positions: Tensor
    cell: Tensor


class Neighbours:
    """Batches of edges for systems that move.

    Parameters
    ----------
    cutoff : Å
    skin : Å; a thicker one is made again less often but holds more edges
    """

    def __init__(self, cutoff: float, skin: float = SKIN) -> None:
        if not cutoff > 0 or skin < 0:
            raise InputError(f"cut-off {cutoff} Å, skin {skin} Å; expected a cut-off above 0 and a skin of at least 0")
        self.cutoff, self.skin = cutoff, skin
        self.made = 0  # lists made so far, of all systems together
        self._parts: list[_Part | None] = []
        self._joined: _Joined | None = None

    def forget(self) -> None:
        """Make every list anew at the next call."""
        self._parts, self._joined = [], None

    def select(self, rows: Sequence[int], added: int = 0) -> None:
        """Say that the next systems are these of the last ones, in this order, and `added` new ones: spares making lists anew."""
        self._parts = [self._parts[k] for k in rows] + [None] * added if self._parts else []
        self._joined = None

    def batch(self, systems: Systems, dtype: torch.dtype | None = None) -> tuple[Batch, dict[int, str]]:
        """The edges within the cut-off as `Systems.batch` makes them, and by system why it has none (two atoms on one place).

        Parameters
        ----------
        systems : positions in 64 bits, so that differences are exact before they are rounded
        dtype : of the real numbers in the batch; None: that of the positions
        """
        if len(self._parts) != len(systems):
            self._parts, self._joined = [None] * len(systems), None
        complaints = self._refresh(systems)
        if self._joined is None:
            self._joined = _Joined.of([part for part in self._parts if part is not None], systems)
        return self._joined.batch(systems, self.cutoff, dtype or systems.positions.dtype), complaints

    def _refresh(self, systems: Systems) -> dict[int, str]:
        sizes = systems.n_atoms.tolist()
        fresh = [part is None or len(part.positions) != n for part, n in zip(self._parts, sizes, strict=True)]
        if not all(fresh):
            far = self._moved(systems) if self._joined is not None else self._moved_apart(systems, fresh)
            fresh = [new or old for new, old in zip(fresh, far, strict=True)]
        complaints: dict[int, str] = {}
        if any(fresh):
            self._joined = None
            ends = np.cumsum(sizes)
            for k in np.flatnonzero(fresh):
                own = systems.positions[int(ends[k]) - sizes[k] : int(ends[k])]
                try:
                    self._parts[k] = self._make(own, systems.cell[k], systems.pbc[k])
                except InputError as error:
                    complaints[int(k)] = str(error)
                    self._parts[k] = _empty(own, systems.cell[k])
        return complaints

    def _moved(self, systems: Systems) -> list[bool]:
        """Which systems moved too far since their lists were made; one that is not finite is left to whoever looks at its numbers."""
        joined = self._joined
        assert joined is not None
        return _too_far(systems, joined.positions, joined.cell, self.cutoff, self.skin)

    def _moved_apart(self, systems: Systems, fresh: Sequence[bool]) -> list[bool]:
        """The same where the lists are not joined yet."""
        positions, cells = systems.positions.split(systems.n_atoms.tolist()), systems.cell
        known = [p if new or part is None else part.positions for p, new, part in zip(positions, fresh, self._parts, strict=True)]
        boxes = [c if new or part is None else part.cell for c, new, part in zip(cells, fresh, self._parts, strict=True)]
        return _too_far(systems, torch.cat(known), torch.stack(boxes), self.cutoff, self.skin)

    def _make(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> _Part:
        self.made += 1
        own, box, repeats = positions.double().numpy(), cell.double().numpy(), pbc.numpy()
        if not np.isfinite(own).all() or not np.isfinite(box).all():
            raise InputError("a position or the cell is not a finite number")
        found = within(own, box, repeats, self.cutoff + self.skin)
        image = np.zeros_like(found.vector)
        if repeats.any():
            offset = found.vector - (own[found.sender] - own[found.receiver])
            image[:, repeats] = np.rint(offset @ np.linalg.pinv(box[repeats]))
        order = _canonical(found.receiver, found.sender, image, len(own))
        return _Part(found.receiver[order], found.sender[order], image[order], positions.clone(), cell.clone())


@dataclass(frozen=True, eq=False)
class _Joined:
    """The lists of all systems in one row, and what of the batch stays while they do."""

    receiver: Tensor
    sender: Tensor
    shift: Tensor
    sizes: list[int]
    positions: Tensor
    cell: Tensor
    offset: list[Tensor]  # the cells it was made for, and S·cell of every edge

    @classmethod
    def of(cls, parts: Sequence[_Part], systems: Systems) -> _Joined:
        starts = np.cumsum([0, *(len(part.positions) for part in parts)])
        return cls(
            torch.from_numpy(np.concatenate([part.receiver + start for part, start in zip(parts, starts, strict=False)])),
            torch.from_numpy(np.concatenate([part.sender + start for part, start in zip(parts, starts, strict=False)])),
            torch.from_numpy(np.concatenate([part.shift for part in parts])),
            [len(part.receiver) for part in parts],
            torch.cat([part.positions for part in parts]),
            torch.stack([part.cell for part in parts]),
            [],
        )

    def images(self, cell: Tensor) -> Tensor:
        """(E, 3) S·cell, kept while the cells stay."""
        if not self.offset or not torch.equal(self.offset[0], cell):
            # system by system: no matrix per edge, and the same product however many there are
            parts = [rows @ box for rows, box in zip(self.shift.split(self.sizes), cell, strict=True)]
            self.offset[:] = [cell.clone(), parts[0] if len(parts) == 1 else torch.cat(parts)]
        return self.offset[1]

    def batch(self, systems: Systems, cutoff: float, dtype: torch.dtype) -> Batch:
        """What `Systems.batch` makes, from the list."""
        at = systems.positions
        vector = torch.index_select(at, 0, self.sender).sub_(torch.index_select(at, 0, self.receiver)).add_(self.images(systems.cell))
        square = (vector * vector).sum(1)
        near = torch.nonzero(square < cutoff * cutoff)[:, 0]
        fraction = 1.0 / systems.n_atoms.to(dtype)
        return Batch(
            {
                "number": systems.number,
                "system": systems.system,
                "fraction": fraction[systems.system],
                "n_atoms": systems.n_atoms,
                "edge_receiver": torch.index_select(self.receiver, 0, near),
                "edge_sender": torch.index_select(self.sender, 0, near),
                "edge_shift": torch.index_select(self.shift, 0, near).to(dtype),
                "edge_vector": torch.index_select(vector, 0, near).to(dtype),
                "edge_length": torch.index_select(square, 0, near).sqrt_().to(dtype),
                "positions": at.to(dtype),
                "cell": systems.cell.to(dtype),
                "pbc": systems.pbc,
                "volume": systems.volume.to(dtype),
                **{name: value.to(dtype) for name, value in systems.given.items()},
            }
        )


def _rows_times(rows: Tensor, matrices: Tensor) -> Tensor:
    """(E, 3) rows times (E, 3, 3) matrices, summed in the same order as the product with one matrix."""
    return (rows[:, :, None] * matrices).sum(1)


def _empty(positions: Tensor, cell: Tensor) -> _Part:
    """A list without edges, which is made again whenever it is looked at: its atoms are nowhere."""
    none = np.zeros(0, dtype=np.int64)
    return _Part(none, none, np.zeros((0, 3)), torch.full_like(positions, 1e6).double(), cell.clone())


def _canonical(receiver: NDArray[np.int64], sender: NDArray[np.int64], image: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """The order by receiver, sender, image. One integer holds all three where it can."""
    low = image.min(axis=0, initial=0.0)
    span = [int(s) for s in image.max(axis=0, initial=0.0) - low + 1]
    if n * n * span[0] * span[1] * span[2] < 2**62:
        a, b, c = (image - low).astype(np.int64).T
        return np.argsort((((receiver * n + sender) * span[0] + a) * span[1] + b) * span[2] + c)
    return np.lexsort((image[:, 2], image[:, 1], image[:, 0], sender, receiver))


def _too_far(systems: Systems, positions: Tensor, cell: Tensor, cutoff: float, skin: float) -> list[bool]:
    """Per system, whether an atom beyond the list may have come within the cut-off since `positions` and `cell`."""
    batched = len(systems) > 1
    if torch.equal(systems.cell, cell):
        shrink, moved = torch.ones(len(systems), dtype=cell.dtype), systems.positions - positions
        stiff = systems.pbc.new_zeros(len(systems))
    else:
        whole = systems.pbc.all(dim=1)
        eye = torch.eye(3, dtype=cell.dtype).expand_as(cell)
        stretch = torch.linalg.solve(torch.where(whole[:, None, None], cell, eye), torch.where(whole[:, None, None], systems.cell, eye))
        shrink = 1 - torch.linalg.matrix_norm(stretch - eye)
        own = _rows_times(positions, stretch[systems.system]) if batched else positions @ stretch[0]
        moved = systems.positions - own
        stiff = ~whole & (systems.cell != cell).flatten(1).any(dim=1)
    # a common shift of all atoms changes no distance
    if batched:
        index = systems.system
        mean = torch.zeros(len(systems), 3, dtype=moved.dtype).index_add_(0, index, moved) / systems.n_atoms[:, None]
        moved = moved - mean[index]
        farthest = torch.zeros(len(systems), dtype=moved.dtype).scatter_reduce_(0, index, (moved * moved).sum(1), "amax").sqrt()
    else:
        moved = moved - moved.mean(0)
        farthest = (moved * moved).sum(1).amax()[None].sqrt()
    # comparisons with NaN are false: such a system is not searched for neighbours, its numbers tell on it
    bad = (2 * farthest > shrink * (cutoff + skin) - cutoff) & torch.isfinite(farthest) & torch.isfinite(shrink)
    return (bad | stiff).tolist()
