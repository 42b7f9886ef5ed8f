"""`Ensemble`: several members, one card, predictions with error bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.errors import ConfigError
from naica.graphs.batch import Batch
from naica.graphs.spec import GraphSpec
from naica.runtime import tune
from naica.structure.elements import symbol
from naica.training.calibration import sigma
from naica.training.card import Card
from naica.training.device import device_of
from naica.training.prediction import Array, Prediction
from naica.training.property import PropertyModel
from naica.training.stream import Portion, Source, count, portions
from naica.training.target import Target

_SMALLEST_VOLUME, _LARGEST_VOLUME = 0.2, 5.0


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Members of one architecture and target, trained from different seeds, and their card."""

    members: tuple[PropertyModel, ...]
    card: Card

    @property
    def target(self) -> Target:
        """What it predicts."""
        return self.members[0].target

    @property
    def needs(self) -> GraphSpec:
        """The graphs it reads."""
        return self.members[0].needs

    @property
    def calibrated(self) -> bool:
        """Whether its error bars were fitted to labels."""
        return self.card.calibration.n > 0

    def predict(
        self,
        source: Source,
        volume_factors: Sequence[float] = (1.0,),
        members: int | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Prediction:
        """Predict for one system or many; works through streams in portions of bounded size.

        Parameters
        ----------
        source : a Crystal, an iterable of them, a CrystalTable, a GraphSet (with this model's spec) or a Batch
        volume_factors : each member takes its lowest value over these volumes if the scan encloses it, see `lowest` (structures
            proposed by substitution are not relaxed; Merchant et al., Nature 624, 80 (2023)). For quantities where low is not good,
            leave it at 1
        members : use only the first so many
        progress : called with (systems done, systems in all or None)

        Raises
        ------
        InputError
            For sources of another kind, graphs of another spec and crystals that can have no graph.
        ConfigError
            For volume factors or member counts out of range.
        """
        tune()
        factors = checked_factors(volume_factors)
        used = self._used(members)
        done, total, parts = 0, count(source), []
        for portion, values, best in self._values(source, factors, used):
            parts.append(self._judged(portion, values, best))
            done += len(best)
            if progress is not None:
                progress(done, total)
        return Prediction.concat(parts)

    def _used(self, members: int | None) -> tuple[PropertyModel, ...]:
        if members is not None and not 1 <= members <= len(self.members):
            raise ConfigError(f"members = {members}; this ensemble has {len(self.members)}")
        return self.members[:members]

    @torch.no_grad()
    def _values(self, source: Source, factors: Array, used: tuple[PropertyModel, ...]) -> Iterator[tuple[Portion, Array, Array]]:
        """Portions with their values (M, B) and best volume factors (B)."""
        device = device_of()
        for member in used:
            member.to(device).eval()
        for portion in portions(source, self.needs):
            batch = portion.batch.to(device)
            yield portion, *scanned(used, batch, factors)

    def _judged(self, portion: Portion, values: Array, best: Array) -> Prediction:
        if self.target.kind == "class":
            value = values.mean(axis=0)
            bar = entropy(value)
        else:
            value = np.median(values, axis=0)
            bar = sigma(values, self.card.calibration)
        warnings = self.warnings(portion.batch, portion.volumes * best, value)
        return Prediction(self.target.quantity, self.target.unit, value, bar, values, best, warnings, tuple(portion.ids), self.target.kind)

    def warnings(self, batch: Batch, volumes: Array, values: Array) -> tuple[tuple[str, ...], ...]:
        """(B,) what lies outside of the training set: elements, volume per atom (Å³, NaN is unknown), predicted value."""
        found: list[list[str]] = [[] for _ in range(batch.n_systems)]
        if self.card.elements:
            seen = torch.zeros(128, dtype=torch.bool)
            seen[[k for k in range(1, 104) if symbol(k) in set(self.card.elements)]] = True
            number = batch["number"].cpu()
            for atom in torch.nonzero(~seen[number]).ravel().tolist():
                text = f"element {symbol(int(number[atom]))} was not in the training set"
                place = found[int(batch["system"][atom])]
                if text not in place:
                    place.append(text)
        ranges = self.card.ranges
        for name, data, what in (
            ("volume_per_atom", volumes, "volume {:.1f} Å³/atom"),
            ("label", values, "predicted value {:.3f} " + self.target.unit),
        ):
            if name in ranges and self.target.kind != "class":
                low, high = ranges[name]
                for row in np.flatnonzero((data < low) | (data > high)):
                    found[row].append(f"{what.format(data[row])} is outside of the training range {low:.3g} to {high:.3g}")
        return tuple(tuple(texts) for texts in found)

    def sites(self, batch: Batch) -> NDArray[np.float64]:
        """(M, N) contributions of the sites; InputError unless trained with head.pooling='sites'."""
        with torch.no_grad():
            return np.stack([m.eval().sites(batch).double().cpu().numpy() for m in self.members])

    def save(self, folder: str | Path, half: bool = False) -> Path:
        """Write ``weights.safetensors`` and ``card.json``; `half` stores 16-bit weights."""
        from naica.training.checkpoint import save

        save(Path(folder), list(self.members), self.card, half)
        return Path(folder)


@torch.no_grad()
def scanned(members: Sequence[PropertyModel], batch: Batch, factors: Array) -> tuple[Array, Array]:
    """Values (M, B), each member at its best volume factor, and the factor (B) that is best for the median over members; see `lowest`."""
    volumes = [batch if factor == 1.0 else batch.scaled(float(factor)) for factor in factors]
    table = np.stack([np.stack([m(v).double().cpu().numpy() for m in members]) for v in volumes])
    best = np.stack([np.take_along_axis(of_one, lowest(of_one, factors)[None], axis=0)[0] for of_one in np.moveaxis(table, 1, 0)])
    return best, factors[lowest(np.median(table, axis=1), factors)]


def lowest(values: Array, factors: Array) -> NDArray[np.int64]:
    """Row of the best volume for each system, of values (F, B) over F volume factors.

    The lowest value counts only where the scan encloses it. Networks that saw relaxed crystals alone often fall without end under
    compression; a minimum at the edge of the scan says that the network does not know this volume, and then the factor nearest to 1 counts.
    """
    rows = values.argmin(axis=0)
    if len(factors) < 3:
        return rows
    ends = [int(factors.argmin()), int(factors.argmax())]
    return np.where(np.isin(rows, ends), int(np.abs(np.log(factors)).argmin()), rows)


def entropy(probability: Array) -> Array:
    """Entropy in bits of a two-class probability: 0 is sure, 1 is a coin toss."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def checked_factors(volume_factors: Sequence[float]) -> Array:
    """Volume factors as an array; ConfigError if there are none or they are out of range."""
    factors = np.asarray(list(volume_factors), dtype=np.float64)
    if not factors.size or not np.isfinite(factors).all() or factors.min() < _SMALLEST_VOLUME or factors.max() > _LARGEST_VOLUME:
        raise ConfigError(f"volume_factors = {list(volume_factors)}; expected numbers from {_SMALLEST_VOLUME} to {_LARGEST_VOLUME}")
    return factors


def of_any(model: Any) -> Ensemble:
    """An ensemble from an ensemble or from the name or folder of one."""
    from naica.training.zoo import load

    return model if isinstance(model, Ensemble) else load(model)
