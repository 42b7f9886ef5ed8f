"""The filter: a cheap look at everything, the costly look only at what may matter (GNoME, Merchant et al. 2023, Methods).

The full look is ensemble × volume scan: each network keeps its lowest energy over isotropic scalings of the cell (the candidate is
unrelaxed, so its volume is only a guess), the median over networks is the score, their spread the uncertainty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from naica.discover.config import Filter
from naica.discover.ledger import Entry
from naica.discover.reliability import AS_PREDICTED, Recalibration
from naica.structure import Crystal

Floats = NDArray[np.float64]


class Judge(Protocol):
    """Turns a label into eV/atom above what counts as stable, and says where stable ends."""

    @property
    def threshold(self) -> float:
        """Largest distance that counts as stable, eV/atom."""
        ...

    def labels(self, entries: Sequence[Entry]) -> Floats:
        """The label of each computed entry, eV/atom."""
        ...

    def distance(self, formulas: Sequence[str], labels: Floats) -> Floats:
        """Distance of each (formula, label) from the current hull, or from zero where the label is a distance itself."""
        ...


@dataclass(frozen=True)
class Scores:
    """Outcome for each candidate; NaN where the full look was not taken. Energies in eV/atom."""

    quick: Floats
    value: Floats
    sigma: Floats
    distance: Floats
    probability: Floats
    volume: Floats

    def passed(self, judge: Judge, config: Filter) -> NDArray[np.bool_]:
        """Which candidates may be picked."""
        return np.nan_to_num(self.distance, nan=np.inf) <= judge.threshold + config.limit


def cascade(
    model: Any,
    crystals: Sequence[Crystal],
    formulas: Sequence[str],
    judge: Judge,
    config: Filter,
    tick: Callable[[int, int], None] = lambda done, total: None,
    chunk: int = 2048,
    reading: Recalibration = AS_PREDICTED,
) -> Scores:
    """Judge candidates with a model (`predict(crystals, volume_factors, members)`), in chunks so that memory stays bounded.

    A candidate takes the full look if one network at the guessed volume puts it within `quick_limit` of the criterion. What happens to one
    does not depend on the others, so the work may be cut up in any way. `reading` corrects probabilities; values and bars stay the model's.
    """
    n = len(crystals)
    out = {name: np.full(n, np.nan) for name in ("quick", "value", "sigma", "distance", "probability", "volume")}
    factors = tuple(np.linspace(*config.volume_range, config.volumes)) if config.volumes > 1 else (1.0,)
    for at in range(0, n, chunk):
        rows = list(range(at, min(at + chunk, n)))
        first = model.predict([crystals[r] for r in rows], volume_factors=(1.0,), members=1)
        out["quick"][rows] = judge.distance([formulas[r] for r in rows], np.asarray(first.value))
        rows = [r for r in rows if out["quick"][r] <= judge.threshold + config.quick_limit]
        if rows:
            full = model.predict([crystals[r] for r in rows], volume_factors=factors)
            out["value"][rows], out["sigma"][rows] = full.value, np.maximum(full.sigma, 1e-4)
            out["volume"][rows] = full.best_volume
            out["distance"][rows] = judge.distance([formulas[r] for r in rows], np.asarray(full.value))
        tick(min(at + chunk, n), n)
    out["probability"] = reading.probability(out["distance"], out["sigma"], judge.threshold)
    return Scores(**out)
