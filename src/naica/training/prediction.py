"""`Prediction`: values with error bars and what to beware of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.training.calibration import half_width
from naica.training.card import Calibration

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predictions of an ensemble for B systems; of a quantity of sites for their N atoms, one system after the other.

    Parameters
    ----------
    quantity, unit : what the values are
    value : (B or N,) median over the members, each at its best volume; for classes the mean probability of class 1
    sigma : (B or N,) calibrated error bar, one standard deviation; for classes the entropy of the probability in bits
    members : (M, B or N) values of the members
    best_volume : (B,) volume factor at which the median member is lowest (1 without a volume scan)
    warnings : (B,) what makes a prediction doubtful
    ids : (B,) ids of the systems, where they have any
    kind : regression or class
    task : what it is called among the tasks of its model
    counts : (B,) atoms of each system, for a quantity of sites
    calibration : of the error bars; None if it is not known
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
    task: str = ""
    counts: NDArray[np.int64] | None = None
    calibration: Calibration | None = None

    def __len__(self) -> int:
        return len(self.best_volume)

    def lists(self) -> list[Array]:
        """For a quantity of sites: the values of each system's atoms, in their order.

        Raises
        ------
        InputError
            For a quantity of systems.
        """
        if self.counts is None:
            raise InputError(f"{self.quantity} is a quantity of systems: its values are one number each")
        return np.split(self.value, np.cumsum(self.counts)[:-1])

    def interval(self, confidence: float = 0.9) -> tuple[Array, Array]:
        """Low and high ends (B or N) of intervals that hold the labels with at least this probability; see `calibration.half_width`.

        They are infinite where the validation part had too few labels for such a promise.

        Raises
        ------
        InputError
            For classes, for a confidence outside (0, 1), and if the model has no scores to make an interval from.
        """
        if self.kind == "class":
            raise InputError(f"{self.task or self.quantity} is a class: its value is a probability, and there is no interval around it")
        wide = half_width(self.calibration or Calibration(), confidence) * self.sigma
        return self.value - wide, self.value + wide

    def to_dicts(self, confidence: float | None = None) -> list[dict[str, Any]]:
        """One plain dictionary per system, for JSON; with a confidence also ``low`` and ``high`` (None is without end)."""
        low, high = self.interval(confidence) if confidence is not None else (self.value, self.value)
        spread = "entropy" if self.kind == "class" else "sigma"
        ends = np.cumsum(self.counts if self.counts is not None else np.ones(len(self), np.int64))
        rows = []
        for k, stop in enumerate(ends.tolist()):
            own: Any = slice(stop - int(self.counts[k]), stop) if self.counts is not None else k
            rows.append(
                {
                    "id": self.ids[k] if self.ids else "",
                    "quantity": self.quantity,
                    "value": self.value[own].tolist(),
                    spread: self.sigma[own].tolist(),
                    "unit": self.unit,
                    "members": self.members[:, own].tolist(),
                    "best_volume": float(self.best_volume[k]),
                    "warnings": list(self.warnings[k]),
                }
                | ({"low": _finite(low[own]), "high": _finite(high[own])} if confidence is not None else {})
            )
        return rows

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
            first.task,
            None if first.counts is None else np.concatenate([p.counts for p in parts if p.counts is not None]),
            first.calibration,
        )


def _finite(values: Any) -> Any:
    """Plain numbers, None for infinite ones, which JSON does not know."""
    return [_finite(v) for v in values] if np.ndim(values) else (float(values) if np.isfinite(values) else None)
