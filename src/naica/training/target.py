"""What a network is taught: a quantity, its scale on the training part, its level of theory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.data import CrystalTable, Label, Level
from naica.errors import InputError
from naica.fields import field

_SMALLEST_SPREAD = 1e-12


@dataclass(frozen=True)
class Target:
    """A quantity and how it is normalised: physical = mean + std · network output (regression), or two classes.

    An extensive quantity is learned per atom: physical = n_atoms · (mean + std · network output).

    Parameters
    ----------
    quantity : a name of fields.py
    kind : ``regression`` or ``class`` (two classes, the value is the probability of class 1)
    mean, std : of the training part, in the quantity's unit (per atom if extensive)
    level : level of theory of the labels
    name : what the task is called among others of the same network: its column; the quantity if it has no name of its own
    """

    quantity: str
    kind: Literal["regression", "class"] = "regression"
    mean: float = 0.0
    std: float = 1.0
    level: Level | None = None
    name: str = ""

    @property
    def task(self) -> str:
        """What it is called among several."""
        return self.name or self.quantity

    @property
    def per_site(self) -> bool:
        """Whether every atom has its own value."""
        return field(self.quantity).level == "atom"

    @property
    def unit(self) -> str:
        """Unit of the predictions; probabilities have none."""
        return "" if self.kind == "class" else field(self.quantity).unit

    @property
    def extensive(self) -> bool:
        """Whether it grows with the number of atoms."""
        return self.kind == "regression" and field(self.quantity).extensive

    @property
    def n_out(self) -> int:
        """Network outputs it needs."""
        return 2 if self.kind == "class" else 1

    @classmethod
    def fit(
        cls, quantity: str, kind: str, values: NDArray[np.float64], atoms: NDArray[np.int64], level: Level | None, name: str = ""
    ) -> Target:
        """Fitted on the labels `values` (n) of the training part alone; `atoms` (n) counts the atoms of each.

        Raises
        ------
        InputError
            If there are no labels, or a class label is neither 0 nor 1.
        """
        if not len(values):
            raise InputError(f"no {name or quantity} labels in the training part; expected at least one")
        if kind == "class":
            odd = sorted(set(np.unique(values)) - {0.0, 1.0})
            if odd:
                raise InputError(f"class labels of {name or quantity} must be 0 or 1; found {odd[:3]}")
            return cls(quantity, "class", 0.0, 1.0, level, name)
        scaled = values / atoms if field(quantity).extensive else values
        spread = float(np.std(scaled))
        return cls(quantity, "regression", float(np.mean(scaled)), spread if spread > _SMALLEST_SPREAD else 1.0, level, name)

    def to_physical(self, raw: Tensor, n_atoms: Tensor) -> Tensor:
        """Network outputs (B, n_out) as values (B) in the quantity's unit (or probabilities of class 1); for labels of sites N, not B."""
        if self.kind == "class":
            return torch.softmax(raw, dim=1)[:, 1]
        values = self.mean + self.std * raw[:, 0]
        return values * n_atoms if self.extensive else values

    def to_normalised(self, values: Tensor, n_atoms: Tensor) -> Tensor:
        """Labels (B; of sites N) as the numbers the loss compares with (classes stay 0 and 1)."""
        if self.kind == "class":
            return values
        return ((values / n_atoms if self.extensive else values) - self.mean) / self.std

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain = asdict(self)
        return plain if self.name else {key: value for key, value in plain.items() if key != "name"}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Target:
        """Back from `to_dict`."""
        return cls(**{**raw, "level": Level(**raw["level"]) if raw.get("level") else None})


@dataclass(frozen=True)
class Labels:
    """One label column of B rows: a value per row (B), or per atom (N) where the quantity is one of sites; NaN where missing.

    Parameters
    ----------
    column, quantity, level : what it is
    values : (B) or (N)
    starts : (B + 1) where the atoms of each row start; None for values per row
    bad : rows whose labels cannot be used, and why
    """

    column: str
    quantity: str
    level: Level | None
    values: NDArray[np.float64]
    starts: NDArray[np.int64] | None = None
    bad: Mapping[int, str] = dataclass_field(default_factory=dict)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values of some rows, those of the atoms of a row one after the other."""
        return self.values[rows] if self.starts is None else self.values[self._atoms(rows)]

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many values each of some rows has, missing ones included."""
        return np.ones(len(rows), np.int64) if self.starts is None else self.starts[rows + 1] - self.starts[rows]

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """(B) Whether a row has any label."""
        there = np.isfinite(self.values)
        if self.starts is None:
            return there
        return np.diff(np.concatenate([[0], np.cumsum(there)])[self.starts]) > 0

    def _atoms(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self.starts is not None
        counts = self.counts(rows)
        before = np.cumsum(counts) - counts
        return np.repeat(self.starts[rows] - before, counts) + np.arange(int(counts.sum()))


def labels_of(table: CrystalTable, column: str) -> tuple[NDArray[np.float64], str, Level | None]:
    """One label column with a value per row: its values (NaN where missing), quantity and level of theory.

    Raises
    ------
    InputError
        If the column is not there, is not a label (so has no unit), holds no numbers, or has a value for every atom.
    """
    found = read_labels(table, column)
    if found.starts is not None:
        raise InputError(f"column {column!r} holds {found.quantity} of atoms; one value per structure is needed here")
    return found.values, found.quantity, found.level


def read_labels(table: CrystalTable, column: str) -> Labels:
    """One label column, per row or (quantities that fields.py gives to atoms) a list per row with one value per atom.

    A row whose list does not fit its atoms is noted in `Labels.bad`; its labels count as missing.

    Raises
    ------
    InputError
        If the column is not there, is not a label (so has no unit), or does not hold numbers.
    """
    values = table.column(column)
    label = table.labels.get(column)
    if label is None:
        named = ", ".join(table.labels) or "none"
        raise InputError(
            f"column {column!r} has no unit: naica does not guess what its numbers mean. Declare it, for example "
            f"table.with_column({column!r}, values, Label.of('formation_energy_per_atom', level)); labels of this table: {named}"
        )
    known = field(label.quantity)
    if known.shape or known.level not in ("system", "atom"):
        raise InputError(f"column {column!r} holds {label.quantity} of shape {known.shape} per {known.level}; a network learns numbers")
    if known.level == "atom":
        return _of_sites(table, column, label)
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {column!r} does not hold numbers: {error}") from error
    return Labels(column, label.quantity, label.level, numbers)


def _of_sites(table: CrystalTable, column: str, label: Label) -> Labels:
    counts = table.flat()[0]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = np.full(int(starts[-1]), np.nan)
    bad: dict[int, str] = {}
    for row, (given, start, stop) in enumerate(zip(table.arrow[column].to_pylist(), starts[:-1], starts[1:], strict=True)):
        if given is None:
            continue
        if not isinstance(given, list):
            raise InputError(f"column {column!r} holds {label.quantity}, a value per atom: expected a list per row; row {row} is {given!r}")
        if len(given) != stop - start:
            bad[row] = f"{len(given)} values of {column} for {stop - start} atoms"
            continue
        try:
            values[start:stop] = [np.nan if value is None else float(value) for value in given]
        except (TypeError, ValueError) as error:
            raise InputError(f"column {column!r}, row {row}, does not hold numbers: {error}") from error
    return Labels(column, label.quantity, label.level, values, starts, bad)
