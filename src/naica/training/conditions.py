"""What describes a system as a whole: temperature, pressure, level of theory. Joined to the features of any network before its head.

Numbers are standardised on the training part; names (a column ``fidelity``, say) are looked up in learned vectors, as Chen et al. do for
levels of theory (Nat. Comput. Sci. 1, 46 (2021)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naica.data import CrystalTable
from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.training.config import HeadConfig

FIDELITY = "fidelity"
"""The column that `CrystalTable.concat` makes of tables of several levels of theory."""

_WIDTH = 16
_SMALLEST_SPREAD = 1e-12


class Conditions(nn.Module):
    """State variables as features (B, 16) that are joined to those of the network.

    Parameters
    ----------
    state : names of the variables, in the order of the last columns of ``batch["state"]``
    names : for each the names it can have, none for a number
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: Sequence[str], names: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.state, self.names = tuple(state), tuple(tuple(known) for known in names) or ((),) * len(state)
        self.numbers = [k for k, known in enumerate(self.names) if not known]
        self.register_buffer("mean", torch.zeros(len(self.numbers)))
        self.register_buffer("std", torch.ones(len(self.numbers)))
        self.of_numbers = nn.Linear(len(self.numbers), _WIDTH) if self.numbers else None
        self.of_names = nn.ModuleDict({str(k): nn.Embedding(len(known), _WIDTH) for k, known in enumerate(self.names) if known})

    @property
    def width(self) -> int:
        """Features per system."""
        return _WIDTH * (len(self.of_names) + (self.of_numbers is not None))

    def fit(self, values: NDArray[np.floating]) -> None:
        """Centre and scale of the numbers, from the state (n, S) of the training part."""
        own = np.asarray(values, dtype=np.float64)[:, -len(self.state) :][:, self.numbers]
        spread = own.std(axis=0)
        self.mean.copy_(torch.from_numpy(own.mean(axis=0)))
        self.std.copy_(torch.from_numpy(np.where(spread > _SMALLEST_SPREAD, spread, 1.0)))

    def forward(self, batch: Batch) -> Tensor:
        """Features (B, width) of the last columns of ``batch["state"]``.

        Raises
        ------
        InputError
            If the batch has no such state, or a level that was not trained.
        """
        if "state" not in batch or batch["state"].shape[1] < len(self.state):
            raise InputError(f"this model reads the state variables {', '.join(self.state)}, which the batch does not have")
        own = batch["state"][:, -len(self.state) :]
        found = []
        if self.of_numbers is not None:
            found.append(self.of_numbers((own[:, self.numbers].to(self.mean.dtype) - self.mean) / self.std))
        for key, vectors in self.of_names.items():
            level = own[:, int(key)].long()
            known = self.names[int(key)]
            if bool(((level < 0) | (level >= len(known))).any()):
                raise InputError(f"{self.state[int(key)]} is none of {', '.join(known)}")
            found.append(vectors(level))
        return torch.cat(found, dim=1)


def settled(head: HeadConfig, table: CrystalTable, rows: NDArray[np.int64], taken: Sequence[str] = ()) -> HeadConfig:
    """The head with the names its state variables can have, from the training part `rows`; a declared `fidelity` is among them.

    Parameters
    ----------
    taken : state variables that the network reads itself

    Raises
    ------
    InputError
        If there is no such column.
    """
    state = head.state
    if FIDELITY in table.columns and FIDELITY not in (*state, *taken) and len(set(_texts(table, FIDELITY, np.arange(len(table))))) > 1:
        # labels of several levels in one column: not to know which is which would mix them
        state = (*state, FIDELITY)
    if not state:
        return head
    known = dict(zip(head.state, head.names, strict=True)) if head.names else {}
    names = tuple(known[name] if name in known else tuple(sorted(set(_texts(table, name, rows)))) for name in state)
    return replace(head, state=state, names=names)


def _texts(table: CrystalTable, name: str, rows: NDArray[np.int64]) -> list[str]:
    """What a column of text holds in some rows; nothing for a column of numbers."""
    table.column(name)  # says which there are, if it is not there
    if not _is_text(table.arrow[name].type):
        return []
    return [value for value in table.arrow[name].take(pa.array(rows)).to_pylist() if value is not None]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def encoded(table: CrystalTable, head: HeadConfig, given: Mapping[str, Any] | None = None, own: Sequence[str] = ()) -> CrystalTable:
    """The table with names as their numbers, as graphs read them; `given` sets a variable for all rows.

    `own` are state variables that the network itself reads, as numbers (the published multi-fidelity MEGNet).

    A name that is not among those known leaves its row without a value, so the row is refused with that reason.

    Raises
    ------
    InputError
        If a given variable is none of the model's, or a given name is not known.
    """
    given = dict(given or {})
    if strange := sorted(set(given) - {*head.state, *own}):
        raise InputError(f"this model has no state variable {strange[0]!r}; it has {', '.join((*own, *head.state)) or 'none'}")
    for name, value in given.items():
        table = table.with_column(name, [value] * len(table))
    for name, known in zip(head.state, head.names, strict=False):
        if not known:
            continue
        if name not in table.columns:
            raise InputError(f"no column {name!r}: this model predicts for {', '.join(known)}; say for which")
        if name in given and given[name] not in known:
            raise InputError(f"{name} = {given[name]!r} is unknown to this model; known: {', '.join(known)}")
        number = {text: float(k) for k, text in enumerate(known)}
        # what is no known name stays as it is, and is refused as no number
        table = table.with_column(name, [_number(value, number) for value in table.arrow[name].to_pylist()])
    return table


def _number(value: Any, number: Mapping[str, float]) -> str | None:
    if value is None:
        return None
    return str(number[value]) if value in number else f"{value} (known: {', '.join(number)})"


def leaked(table: CrystalTable, head: HeadConfig, train: NDArray[np.int64], others: NDArray[np.int64]) -> int | None:
    """A row outside of the training part whose structure is also in it under another name of a state variable (a level of theory).

    Structures are the same if they have the same id or the same atoms in the same places.
    """
    if not any(head.names):
        return None
    ids, counts, numbers, positions = table.ids, *table.flat()[:3]
    starts = np.concatenate([[0], np.cumsum(counts)])

    def marks(row: int) -> tuple[Any, ...]:
        part = slice(starts[row], starts[row + 1])
        return ids[row], (numbers[part].tobytes(), np.round(positions[part], 6).tobytes())

    seen = {mark for row in train.tolist() for mark in marks(row)}
    return next((row for row in others.tolist() if any(mark in seen for mark in marks(row))), None)


def groups_of(table: CrystalTable, head: HeadConfig) -> NDArray[np.int64] | None:
    """(B) the level of theory of each row as its place in `levels_of`; None for models of one level. Unknown ones, never used, are 0."""
    known = levels_of(head)
    if not known or FIDELITY not in table.columns:
        return None
    return np.array([known.index(value) if value in known else 0 for value in table.arrow[FIDELITY].to_pylist()], np.int64)


def levels_of(head: HeadConfig) -> tuple[str, ...]:
    """The levels of theory a model can predict for; none if it does not tell them apart."""
    return dict(zip(head.state, head.names, strict=True)).get(FIDELITY, ()) if head.names else ()
