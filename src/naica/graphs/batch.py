"""`Batch`: many graphs as flat tensors keyed by field, edges sorted by receiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from naica.errors import InputError
from naica.fields import FIELDS, Level

_UNKNOWN = -1


class Batch(dict[str, Tensor]):
    """Graphs as flat tensors; a graph alone is a batch of one.

    Keys (B systems, N atoms, E edges): ``number`` (N), ``system`` (N), ``fraction`` (N; share of the system each node stands for),
    ``n_atoms`` (B), ``edge_receiver`` and ``edge_sender`` (E), ``edge_vector`` (E, 3) and ``edge_length`` (E) in Å.
    Edge e carries a message from sender to receiver; ``edge_vector`` points from receiver to sender; receivers never decrease.
    Further levels stack in it as their fields, all named in ``fields.py``: ``state`` (B, S) on top, ``motif_…`` above the atoms,
    ``orbital_…`` below them; each of these levels has an index ``motif_system``, ``orbital_system`` … of the system of its items.

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

    def count(self, level: Level) -> int:
        """How many items of a level there are; 0 if it is not here."""
        if level == "system":
            return self.n_systems
        own = {"atom": "number", "edge": "edge_receiver"}.get(level)
        name = own or next((key for key in self if key in FIELDS and FIELDS[key].level == level), "")
        return len(self[name]) if name else 0

    def system_of(self, level: Level) -> Tensor:
        """The system of every item of a level."""
        if level == "system":
            return torch.arange(self.n_systems, device=self["n_atoms"].device)
        if level == "edge":
            return self["system"][self["edge_receiver"]]
        return self["system" if level == "atom" else f"{level}_system"]

    def graph_of(self, level: Level) -> Batch:
        """The graph of a further level (``motif``, ``orbital``) as a batch whose nodes are its items: what networks of atoms work on.

        Nodes have no atomic number (0); edges have no vectors (0) unless the level has ``…_edge_vector``, and lengths 0 likewise.
        """
        system = self[f"{level}_system"]
        n = torch.bincount(system, minlength=self.n_systems)
        receiver = self[f"{level}_edge_receiver"]
        zero = self["edge_length"].new_zeros(len(receiver))
        tensors = {
            "number": torch.zeros_like(system),
            "system": system,
            "fraction": (1.0 / n.clamp(min=1).to(zero.dtype))[system],
            "n_atoms": n,
            "edge_receiver": receiver,
            "edge_sender": self[f"{level}_edge_sender"],
            "edge_vector": self.get(f"{level}_edge_vector", zero[:, None].expand(-1, 3)),
            "edge_length": self.get(f"{level}_edge_length", zero),
        }
        return Batch(tensors)

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
        changed = {"edge_vector": vector * (stretch[:, None] if stretch.ndim else stretch), "edge_length": length}
        for key in self.keys() - changed.keys():
            if (power := length_power(key)) != 0:
                factor = torch.as_tensor(volume_factor, dtype=vector.dtype, device=vector.device) ** (power / 3)
                per_item = factor[self.system_of(FIELDS[key].level)] if factor.ndim else factor
                changed[key] = self[key] * per_item.reshape(per_item.shape + (1,) * (self[key].ndim - 1) if factor.ndim else ())
        return Batch({**self, **changed}, self._degree)

    @staticmethod
    def collate(batches: Sequence[Batch]) -> Batch:
        """One batch of many, in their order."""
        if not batches:
            raise InputError("nothing to collate; expected at least one batch")
        joined, before = {}, {}
        for key in batches[0]:
            level = FIELDS[key].of if key in FIELDS else None
            if level is None:
                joined[key] = torch.cat([b[key] for b in batches])
                continue
            if level not in before:
                before[level] = list(accumulate((b.count(level) for b in batches), initial=0))
            joined[key] = torch.cat([b[key] + before[level][i] for i, b in enumerate(batches)])
        degrees = {b.degree for b in batches}
        return Batch(joined, degrees.pop() if len(degrees) == 1 else None)


def length_power(key: str) -> int:
    """The power of length a field grows with.

    Raises
    ------
    InputError
        If it is none: the field would have to be made again for the new cell.
    """
    power = FIELDS[key].length_power if key in FIELDS else 0
    if power is None:
        raise InputError(f"graphs with {FIELDS[key].label} ({key}) cannot be scaled to another volume; build them from the scaled crystals")
    return power


def _common_degree(receiver: Tensor, n_atoms: int) -> int | None:
    if n_atoms == 0 or len(receiver) % n_atoms:
        return None
    counts = torch.bincount(receiver, minlength=n_atoms)
    return int(counts[0]) if bool((counts == counts[0]).all()) else None
