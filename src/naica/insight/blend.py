"""Atoms between an average element and their own, for any network: what it looks up by atomic number is blended on the way.

Networks turn atomic numbers into vectors in their own ways (an embedding, a row of a table, a one-hot code). All of these are look-ups
with an index that comes from the batch; here they are watched, and what is looked up for an atom is mixed with the average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from naica.errors import InputError
from naica.fields import FIELDS
from naica.graphs.batch import Batch
from naica.structure.elements import element

if TYPE_CHECKING:
    from naica.training.property import PropertyModel

_LOOK_UPS = frozenset({"embedding", "index_select", "__getitem__", "one_hot"})
_SAME_ATOMS = frozenset({"clamp", "to", "long", "int", "add", "sub", "__add__", "__sub__", "__radd__", "contiguous", "clone"})
Predict = Callable[[Tensor], Tensor]


class _Mixed(TorchFunctionMode):
    """Mixes what is looked up by codes of atoms with its average; `weight` (N) is each atom's own share."""

    def __init__(self, batch: Batch, weight: Tensor, known: Tensor) -> None:
        super().__init__()
        self.batch, self.weight, self.known, self.mixed = batch, weight, known, 0
        # tensors of codes, and the atoms their rows belong to; kept here so that no other tensor takes over an id
        self.codes: dict[int, tuple[Tensor, Tensor]] = {}
        for key in batch:
            one = FIELDS.get(key)
            if one is not None and one.level in _ATOMS and one.kind != "real" and one.of is None:
                self._follow(batch[key], _ATOMS[one.level](batch))

    def _follow(self, codes: Tensor, atoms: Tensor) -> None:
        self.codes[id(codes)] = (codes, atoms)

    def _atoms_of(self, value: Any) -> Tensor | None:
        return self.codes[id(value)][1] if isinstance(value, Tensor) and id(value) in self.codes else None

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Called by torch in the place of each of its functions."""
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if not isinstance(out, Tensor) or (name not in _LOOK_UPS and name not in _SAME_ATOMS):
            return out
        source, index = (args[0], None) if name in _SAME_ATOMS else _source_and_index(name, args, kwargs or {})
        atoms = self._atoms_of(source)
        if atoms is not None and not out.is_floating_point() and name != "one_hot":
            self._follow_on(out, atoms, index)
        elif name == "one_hot" and atoms is not None:
            return self._blend(out.to(self.weight.dtype), atoms, torch.zeros_like(out[:1], dtype=self.weight.dtype))
        elif (by := self._atoms_of(index)) is not None and isinstance(source, Tensor) and index is not None:
            if out.is_floating_point():
                return self._blend(out, by, self._average(source, index, by))
            self._follow(out, by)
        return out

    def _follow_on(self, out: Tensor, atoms: Tensor, index: Any) -> None:
        """Some rows of codes, or the same rows in another form."""
        if isinstance(index, Tensor):
            self._follow(out, atoms[index])
        elif out.ndim and len(out) == len(atoms):
            self._follow(out, atoms)

    def _average(self, table: Tensor, index: Tensor, atoms: Tensor) -> Tensor:
        """Mean row: over the known elements where the index is the atomic number (or off by a constant), else over the table."""
        offset = (index - self.batch["number"][atoms]).unique() if index.ndim == 1 else index.new_zeros(0)
        if len(offset) == 1:
            rows = self.known + offset
            if int(rows.min()) >= 0 and int(rows.max()) < len(table):
                return table[rows].mean(dim=0, keepdim=True)
        return table.mean(dim=0, keepdim=True)

    def _blend(self, out: Tensor, atoms: Tensor, average: Tensor) -> Tensor:
        self.mixed += 1
        share = self.weight[atoms].to(out.dtype).reshape(-1, *[1] * (out.ndim - 1))
        return average + share * (out - average)


def _source_and_index(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """What is looked into, and by which index; None for an index that is none."""
    if name == "one_hot":
        return args[0], None
    if name == "embedding":
        # torch.embedding(table, index), but functional.embedding(index, table)
        first, second = args[0], args[1] if len(args) > 1 else kwargs.get("weight")
        return (first, second) if first.is_floating_point() else (second, first)
    if name == "index_select":
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return (args[0], args[2] if len(args) > 2 else kwargs.get("index")) if dim == 0 else (None, None)
    key = args[1]
    if isinstance(key, tuple):
        whole = bool(key) and isinstance(key[0], slice) and key[0] == slice(None)
        return (args[0], None) if whole else (None, None)
    return args[0], key if isinstance(key, Tensor) else None


_ATOMS: dict[str, Callable[[Batch], Tensor]] = {
    "atom": lambda batch: torch.arange(len(batch["number"]), device=batch["number"].device),
    "orbital": lambda batch: batch["orbital_atom"],
}
"""For the levels whose numbers describe single atoms: the atom of every item."""


def _own_numbers(batch: Batch) -> list[str]:
    """Fields that describe an atom beside its number, such as its orbital field; places, forces and shares of the whole are none."""
    known = [key for key in batch if key in FIELDS and key != "fraction"]
    return [key for key in known if FIELDS[key].level in _ATOMS and FIELDS[key].kind == "real" and FIELDS[key].shape != (3,)]


@contextmanager
def blended(model: PropertyModel, batch: Batch, elements: tuple[str, ...] = ()) -> Iterator[Predict]:
    """A function from blends w (N) to predictions (B); for classes, to log odds.

    With w_i = 0, what is looked up by the atomic number of atom i is its mean over `elements` (those the model was trained on; none: all to
    lawrencium), other codes say nothing, and its own numbers, such as an orbital field, are zero; with w_i = 1 it is itself. Bonds stay as
    they are, and so do codes that a network uses as plain numbers.

    Raises
    ------
    InputError
        If the network looks up nothing by its atoms.
    """
    known = torch.tensor([element(e).number for e in elements] or list(range(1, 104)), device=batch["number"].device)
    own = _own_numbers(batch)

    def predict(w: Tensor) -> Tensor:
        changed = {key: _shared(batch[key], w[_ATOMS[FIELDS[key].level](batch)]) for key in own}
        mixing = _Mixed(batch, w, known)
        with mixing:
            values = _scalar(model, Batch({**batch, **changed}, batch.degree))
        if not mixing.mixed and not own:
            raise InputError(
                f"the network {model.architecture!r} looks up nothing by its atoms: its predictions cannot be shared out among them this "
                "way. Choose another network, or train one with head.pooling = 'sites'"
            )
        return values

    with torch.no_grad():
        predict(torch.ones(len(batch["number"]), device=batch["number"].device))
    yield predict


def _shared(values: Tensor, weight: Tensor) -> Tensor:
    return values * weight.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))


def _scalar(model: PropertyModel, batch: Batch) -> Tensor:
    if model.target.kind == "class":
        logits = model.raw(batch)
        return logits[:, 1] - logits[:, 0]
    return model(batch)
