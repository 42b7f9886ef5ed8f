"""What a network is taught: a quantity, its scale on the training part, its level of theory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.data import CrystalTable, Level
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
    """

    quantity: str
    kind: Literal["regression", "class"] = "regression"
    mean: float = 0.0
    std: float = 1.0
    level: Level | None = None

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
    def fit(cls, quantity: str, kind: str, values: NDArray[np.float64], atoms: NDArray[np.int64], level: Level | None) -> Target:
        """Fitted on the labels `values` (n) of the training part alone; `atoms` (n) counts the atoms of each.

        Raises
        ------
        InputError
            If there are no labels, or a class label is neither 0 nor 1.
        """
        if not len(values):
            raise InputError(f"no {quantity} labels in the training part; expected at least one")
        if kind == "class":
            odd = sorted(set(np.unique(values)) - {0.0, 1.0})
            if odd:
                raise InputError(f"class labels of {quantity} must be 0 or 1; found {odd[:3]}")
            return cls(quantity, "class", 0.0, 1.0, level)
        scaled = values / atoms if field(quantity).extensive else values
        spread = float(np.std(scaled))
        return cls(quantity, "regression", float(np.mean(scaled)), spread if spread > _SMALLEST_SPREAD else 1.0, level)

    def to_physical(self, raw: Tensor, n_atoms: Tensor) -> Tensor:
        """(B, n_out) network outputs as (B,) values in the quantity's unit (or probabilities of class 1)."""
        if self.kind == "class":
            return torch.softmax(raw, dim=1)[:, 1]
        values = self.mean + self.std * raw[:, 0]
        return values * n_atoms if self.extensive else values

    def to_normalised(self, values: Tensor, n_atoms: Tensor) -> Tensor:
        """(B,) labels as the numbers the loss compares with (classes stay 0 and 1)."""
        if self.kind == "class":
            return values
        return ((values / n_atoms if self.extensive else values) - self.mean) / self.std

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Target:
        """Back from `to_dict`."""
        return cls(**{**raw, "level": Level(**raw["level"]) if raw.get("level") else None})


def labels_of(table: CrystalTable, column: str) -> tuple[NDArray[np.float64], str, Level | None]:
    """One label column: its values (NaN where missing), quantity and level of theory.

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
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {column!r} does not hold numbers: {error}") from error
    return numbers, label.quantity, label.level
