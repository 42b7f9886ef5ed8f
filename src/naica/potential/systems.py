"""Many systems as flat tensors without edges, and the batch of edges within a radius: what potentials are computed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.graphs.neighbours import within
from naica.structure import Crystal


@dataclass(frozen=True, eq=False)
class Systems:
    """Systems in one flat row of atoms (B systems, N atoms).

    Parameters
    ----------
    number : (N) atomic numbers
    positions : (N, 3) Å, wherever they are: atoms need not lie in their cell
    cell : (B, 3, 3) Å, lattice vectors as rows; zeros where there is no periodicity
    pbc : (B, 3) which directions repeat
    n_atoms : (B) atoms of each system
    total_charge : (B) e; None: all are neutral
    moments : (N) μ_B, signed: what a potential with spins is told; None: all are 0
    """

    number: Tensor
    positions: Tensor
    cell: Tensor
    pbc: Tensor
    n_atoms: Tensor
    total_charge: Tensor | None = None
    moments: Tensor | None = None

    @classmethod
    def of(cls, crystals: Crystal | Sequence[Crystal], dtype: torch.dtype = torch.float64) -> Systems:
        """From crystals, slabs and molecules, positions and cells in `dtype`; ``total_charge`` and ``moments`` from their `info`.

        Raises
        ------
        InputError
            If a charge is no number, or the moments are not one for each atom.
        """
        items = [crystals] if isinstance(crystals, Crystal) else list(crystals)
        charges, moments = _told(items)
        return cls(
            torch.from_numpy(np.concatenate([c.numbers for c in items]).astype(np.int64)),
            torch.from_numpy(np.concatenate([c.positions for c in items])).to(dtype),
            torch.from_numpy(np.stack([c.cell for c in items])).to(dtype),
            torch.from_numpy(np.stack([c.pbc for c in items])),
            torch.tensor([len(c) for c in items]),
            charges,
            moments,
        )

    def __len__(self) -> int:
        return len(self.n_atoms)

    @cached_property
    def system(self) -> Tensor:
        """(N) the system of each atom."""
        return torch.repeat_interleave(torch.arange(len(self.n_atoms), device=self.n_atoms.device), self.n_atoms)

    @cached_property
    def volume(self) -> Tensor:
        """(B) Å³; infinite for what does not repeat in three directions, so that its stress is zero."""
        full = torch.linalg.det(self.cell.double()).abs().to(self.cell.dtype)
        return torch.where(self.pbc.all(dim=1), full, torch.full_like(full, torch.inf))

    def replace(self, **changes: Any) -> Systems:
        """The same with some parts replaced."""
        made = replace(self, **changes)
        if "n_atoms" not in changes and "system" in self.__dict__:
            made.__dict__["system"] = self.system
        return made

    def take(self, rows: Sequence[int]) -> Systems:
        """Some of the systems, in the order asked for."""
        atoms, rows = self.atoms_of(rows), list(rows)
        return Systems(
            self.number[atoms],
            self.positions[atoms],
            self.cell[rows],
            self.pbc[rows],
            self.n_atoms[rows],
            None if self.total_charge is None else self.total_charge[rows],
            None if self.moments is None else self.moments[atoms],
        )

    def atoms_of(self, rows: Sequence[int]) -> Tensor:
        """The atoms of some of the systems, in the order asked for."""
        ends = torch.cumsum(self.n_atoms, 0).tolist()
        sizes = self.n_atoms.tolist()
        parts = [torch.arange(ends[k] - sizes[k], ends[k]) for k in rows]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)

    @staticmethod
    def join(parts: Sequence[Systems]) -> Systems:
        """Several in one row."""
        names = ("number", "positions", "cell", "pbc", "n_atoms")
        made = Systems(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
        if any(part.total_charge is not None for part in parts):
            made = made.replace(total_charge=torch.cat([part.given_charge for part in parts]))
        if any(part.moments is not None for part in parts):
            made = made.replace(moments=torch.cat([part.given_moments for part in parts]))
        return made

    @property
    def given_charge(self) -> Tensor:
        """(B) e."""
        return torch.zeros(len(self), dtype=torch.float64) if self.total_charge is None else self.total_charge

    @property
    def given_moments(self) -> Tensor:
        """(N) μ_B."""
        return torch.zeros(len(self.number), dtype=torch.float64) if self.moments is None else self.moments

    @property
    def given(self) -> dict[str, Tensor]:
        """Total charges and moments as fields of a batch, where there are any."""
        told = {"total_charge": self.total_charge, "moments": self.moments}
        return {name: value.to(self.positions) for name, value in told.items() if value is not None}

    def crystals(self) -> list[Crystal]:
        """As crystals, in order."""
        sizes = self.n_atoms.tolist()
        numbers, positions = (t.detach().cpu().split(sizes) for t in (self.number, self.positions))
        cells, pbc = self.cell.detach().double().cpu().numpy(), self.pbc.cpu().numpy()
        infos: list[dict[str, Any]] = [{} for _ in sizes]
        for k, info in enumerate(infos):
            if self.total_charge is not None:
                info["total_charge"] = float(self.total_charge[k])
            if self.moments is not None:
                info["moments"] = self.moments.detach().double().cpu().split(sizes)[k].numpy()
        return [
            Crystal(z.numpy(), r.double().numpy(), cell, repeats, info)
            for z, r, cell, repeats, info in zip(numbers, positions, cells, pbc, infos, strict=True)
        ]

    def edges(self, cutoff: float) -> Edges:
        """All edges within a radius (Å), by whole numbers: they stay right when atoms and cells move, as long as none comes into reach.

        Raises
        ------
        InputError
            If two atoms sit on the same place.
        """
        positions, cells = self.positions.detach().double().cpu().numpy(), self.cell.detach().double().cpu().numpy()
        receivers, senders, shifts, start = [], [], [], 0
        for n, cell, pbc in zip(self.n_atoms.tolist(), cells, self.pbc.cpu().numpy(), strict=True):
            own = positions[start : start + n]
            found = within(own, cell, pbc, cutoff)
            offset = found.vector - (own[found.sender] - own[found.receiver])
            image = np.zeros_like(offset)
            if pbc.any():
                image[:, pbc] = np.rint(offset @ np.linalg.pinv(cell[pbc]))
            receivers.append(found.receiver + start)
            senders.append(found.sender + start)
            shifts.append(image)
            start += n
        device, dtype = self.positions.device, self.positions.dtype
        return Edges(
            torch.from_numpy(np.concatenate(receivers)).to(device),
            torch.from_numpy(np.concatenate(senders)).to(device),
            torch.from_numpy(np.concatenate(shifts)).to(device=device, dtype=dtype),
        )

    def vectors(self, edges: Edges) -> Tensor:
        """(E, 3) r_j − r_i + S·cell of edges made earlier, at the present positions and cells."""
        ends = torch.index_select(self.positions, 0, edges.sender) - torch.index_select(self.positions, 0, edges.receiver)
        if len(self) == 1:
            return ends + edges.shift @ self.cell[0]
        cells = torch.index_select(self.cell, 0, torch.index_select(self.system, 0, edges.receiver))
        return ends + torch.einsum("ea,eab->eb", edges.shift, cells)

    def batch(self, cutoff: float, edges: Edges | None = None, dtype: torch.dtype | None = None) -> Batch:
        """What networks read: the graph within a radius, with ``positions``, ``cell``, ``volume`` and ``edge_shift`` beside it.

        Parameters
        ----------
        cutoff : Å
        edges : made earlier within a larger radius; those longer than the cut-off by now are left out. None: made now
        dtype : of all real numbers in the batch; None: that of the positions
        """
        if edges is None:
            edges = self.edges(cutoff)
            vector = self.vectors(edges)
            length = torch.linalg.vector_norm(vector, dim=1)
        else:
            vector = self.vectors(edges)
            length = torch.linalg.vector_norm(vector, dim=1)
            near = length < cutoff
            edges, vector, length = Edges(edges.receiver[near], edges.sender[near], edges.shift[near]), vector[near], length[near]
        tensors = {
            "number": self.number,
            "system": self.system,
            "fraction": (1.0 / self.n_atoms.to(self.positions.dtype))[self.system],
            "n_atoms": self.n_atoms,
            "edge_receiver": edges.receiver,
            "edge_sender": edges.sender,
            "edge_shift": edges.shift,
            "edge_vector": vector,
            "edge_length": length,
            "positions": self.positions,
            "cell": self.cell,
            "pbc": self.pbc,
            "volume": self.volume,
            **self.given,
        }
        batch = Batch(tensors)
        return batch if dtype is None else batch.to(dtype=dtype)


def _told(items: Sequence[Crystal]) -> tuple[Tensor | None, Tensor | None]:
    """Total charges (B) and moments (N) in the crystals' `info`; None where no crystal says anything."""
    charges = [c.info.get("total_charge") for c in items]
    moments = [c.info.get("moments") for c in items]
    found: list[Tensor | None] = [None, None]
    if any(charge is not None for charge in charges):
        bad = next((q for q in charges if q is not None and not (isinstance(q, int | float | np.number) and np.isfinite(q))), None)
        if bad is not None:
            raise InputError(f"total_charge {bad!r} in a structure's info; expected one number in e")
        found[0] = torch.tensor([float(q or 0.0) for q in charges], dtype=torch.float64)
    if any(m is not None for m in moments):
        arrays = [np.zeros(len(c)) if m is None else np.asarray(m, dtype=np.float64) for c, m in zip(items, moments, strict=True)]
        for c, m in zip(items, arrays, strict=True):
            if m.shape != (len(c),) or not np.isfinite(m).all():
                raise InputError(f"{c.formula}: moments of shape {m.shape} in its info; expected ({len(c)},) finite numbers in μ_B")
        found[1] = torch.from_numpy(np.concatenate(arrays))
    return found[0], found[1]


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges by whole numbers: receiver and sender (E), sorted by receiver, and the sender's image ``S`` (E, 3)."""

    receiver: Tensor
    sender: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.receiver)
