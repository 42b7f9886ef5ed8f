"""`Prediction`: values with error bars and what to beware of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predictions of an ensemble for B systems.

    Parameters
    ----------
    quantity, unit : what the values are
    value : (B,) median over the members, each at its best volume; for classes the mean probability of class 1
    sigma : (B,) calibrated error bar, one standard deviation; for classes the entropy of the probability in bits
    members : (M, B) values of the members
    best_volume : (B,) volume factor at which the median member is lowest (1 without a volume scan)
    warnings : (B,) what makes a prediction doubtful
    ids : (B,) ids of the systems, where they have any
    kind : regression or class
    """

    quantity: str
    unit: str
    value: Array
    sigma: Array
    members: Array
    best_volume: Array
    warnings: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...] = ()
    kind: str = "regression"

    def __len__(self) -> int:
        return len(self.value)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dictionary per system, for JSON."""
        spread = "entropy" if self.kind == "class" else "sigma"
        return [
            {
                "id": self.ids[k] if self.ids else "",
                "quantity": self.quantity,
                "value": float(self.value[k]),
                spread: float(self.sigma[k]),
                "unit": self.unit,
                "members": [float(v) for v in self.members[:, k]],
                "best_volume": float(self.best_volume[k]),
                "warnings": list(self.warnings[k]),
            }
            for k in range(len(self))
        ]

    @staticmethod
    def concat(parts: list[Prediction]) -> Prediction:
        """One prediction of several of the same model."""
        if not parts:
            raise InputError("nothing to predict: the source holds no structure")
        first = parts[0]
        return Prediction(
            first.quantity,
            first.unit,
            np.concatenate([p.value for p in parts]),
            np.concatenate([p.sigma for p in parts]),
            np.concatenate([p.members for p in parts], axis=1),
            np.concatenate([p.best_volume for p in parts]),
            tuple(w for p in parts for w in p.warnings),
            tuple(i for p in parts for i in p.ids),
            first.kind,
        )
