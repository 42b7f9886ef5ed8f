"""`Batch`: many graphs as flat tensors keyed by field, edges sorted by receiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from naica.errors import InputError

_OFFSET_BY_ATOMS = ("edge_receiver", "edge_sender")
_UNKNOWN = -1


class Batch(dict[str, Tensor]):
    """Graphs as flat tensors; a graph alone is a batch of one.

    Keys (B systems, N atoms, E edges): ``number`` (N), ``system`` (N), ``fraction`` (N; share of the system each node stands for),
    ``n_atoms`` (B), ``edge_receiver`` and ``edge_sender`` (E), ``edge_vector`` (E, 3) and ``edge_length`` (E) in Å.
    Edge e carries a message from sender to receiver; ``edge_vector`` points from receiver to sender; receivers never decrease.

    Parameters
    ----------
    tensors : by field name
    degree : edges per atom if it is the same for all atoms, None if it is not; found out when not given
    """

    def __init__(self, tensors: Mapping[str, Tensor], degree: int | None = _UNKNOWN) -> None:
        super().__init__(tensors)
        self._degree = degree

    def __repr__(self) -> str:
        return f"<Batch of {self.n_systems} systems, {len(self['number'])} atoms, {self.n_edges} edges>"

    @property
    def n_systems(self) -> int:
        """How many graphs."""
        return len(self["n_atoms"])

    @property
    def n_edges(self) -> int:
        """How many directed edges."""
        return len(self["edge_receiver"])

    @property
    def degree(self) -> int | None:
        """Edges per atom if every atom has exactly that many, else None. Where it is a number, sums over edges are reshapes."""
        if self._degree == _UNKNOWN:
            self._degree = _common_degree(self["edge_receiver"], len(self["number"]))
        return self._degree

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """On another device, real numbers in another precision."""
        moved = {k: v.to(device=device, dtype=dtype if v.is_floating_point() else None) for k, v in self.items()}
        return Batch(moved, self._degree)

    def scaled(self, volume_factor: float | Tensor) -> Batch:
        """The same graphs in cells of another volume: edge vectors and lengths × f^(1/3); the neighbours stay the same.

        Parameters
        ----------
        volume_factor : one factor, or one per system (B)
        """
        vector = self["edge_vector"]
        stretch = torch.as_tensor(volume_factor, dtype=vector.dtype, device=vector.device) ** (1 / 3)
        if stretch.ndim:
            if stretch.shape != (self.n_systems,):
                raise InputError(f"{tuple(stretch.shape)} volume factors for {self.n_systems} systems; expected one, or one per system")
            stretch = stretch[self["system"][self["edge_receiver"]]]
        length = self["edge_length"] * stretch
        return Batch({**self, "edge_vector": vector * (stretch[:, None] if stretch.ndim else stretch), "edge_length": length}, self._degree)

    @staticmethod
    def collate(batches: Sequence[Batch]) -> Batch:
        """One batch of many, in their order."""
        if not batches:
            raise InputError("nothing to collate; expected at least one batch")
        atoms = torch.tensor([0] + [len(b["number"]) for b in batches]).cumsum(0).tolist()
        systems = torch.tensor([0] + [b.n_systems for b in batches]).cumsum(0).tolist()
        joined = {}
        for key in batches[0]:
            offset = atoms if key in _OFFSET_BY_ATOMS else systems if key == "system" else None
            joined[key] = torch.cat([b[key] + offset[i] if offset else b[key] for i, b in enumerate(batches)])
        degrees = {b.degree for b in batches}
        return Batch(joined, degrees.pop() if len(degrees) == 1 else None)


def _common_degree(receiver: Tensor, n_atoms: int) -> int | None:
    if n_atoms == 0 or len(receiver) % n_atoms:
        return None
    counts = torch.bincount(receiver, minlength=n_atoms)
    return int(counts[0]) if bool((counts == counts[0]).all()) else None
