"""`Ensemble`: several members, one card, predictions with error bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import ConfigError
from naica.graphs.batch import Batch
from naica.graphs.graphset import GraphSet
from naica.graphs.spec import GraphSpec
from naica.runtime import tune
from naica.structure.elements import symbol
from naica.training.calibration import sigma
from naica.training.card import Calibration, Card
from naica.training.conditions import encoded
from naica.training.device import device_of
from naica.training.prediction import Array, Prediction
from naica.training.property import PropertyModel, only, place_of
from naica.training.stream import Portion, Source, count, portions
from naica.training.target import Target

_SMALLEST_VOLUME, _LARGEST_VOLUME = 0.2, 5.0


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Members of one architecture and the same tasks (mostly one), trained from different seeds, and their card."""

    members: tuple[PropertyModel, ...]
    card: Card

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it predicts."""
        return self.members[0].targets

    @property
    def target(self) -> Target:
        """The only task; InputError if there are several: then take one with `task`."""
        return self.members[0].target

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(t.task for t in self.targets)

    def task(self, name: str) -> Ensemble:
        """The same networks for one of their tasks alone.

        Raises
        ------
        InputError
            If there is no such task.
        """
        return Ensemble(tuple(member.task(name) for member in self.members), self.card.of_task(place_of(self.targets, name)))

    @property
    def needs(self) -> GraphSpec:
        """The graphs it reads."""
        return self.members[0].needs

    @property
    def calibrated(self) -> bool:
        """Whether its error bars were fitted to labels."""
        return all(self.card.of_task(k).calibration.n > 0 for k in range(len(self.targets)))

    def graphs(self, table: CrystalTable, state: Mapping[str, Any] | None = None) -> GraphSet:
        """The graphs of a table as this model reads them: names of state variables become their numbers, `state` sets them for all."""
        return GraphSet.build(encoded(table, self.members[0].head_config, state, self.needs.state), self.needs)

    def predict(
        self,
        source: Source,
        volume_factors: Sequence[float] = (1.0,),
        members: int | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        state: Mapping[str, Any] | None = None,
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
        state : state variables for all systems, for example ``{"temperature": 300}`` or ``{"fidelity": "PBE"}``; by default each
            system's own: a table's column, or a key of ``Crystal.info``

        Raises
        ------
        InputError
            For sources of another kind, graphs of another spec, crystals that can have no graph or lack a state variable, and models of
            several tasks, for which there is `predict_tasks`.
        ConfigError
            For volume factors or member counts out of range.
        """
        only(self.targets)
        return self.predict_tasks(source, volume_factors, members, progress, state)[self.tasks[0]]

    def predict_tasks(
        self,
        source: Source,
        volume_factors: Sequence[float] = (1.0,),
        members: int | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> dict[str, Prediction]:
        """As `predict`, for every task by its name; the networks are run once for all."""
        tune()
        factors = checked_factors(volume_factors)
        if len(factors) > 1 and any(t.per_site for t in self.targets):
            raise ConfigError("a scan of volumes looks for the lowest value of a structure; this model predicts values of sites")
        used = self._used(members)
        done, total = 0, count(source)
        parts: list[list[Prediction]] = [[] for _ in self.targets]
        head = self.members[0].head_config
        device = device_of()
        for member in used:
            member.to(device).eval()
        for portion in portions(source, self.needs, lambda table: encoded(table, head, state, self.needs.state)):
            for k, (values, best) in enumerate(scanned(used, portion.batch.to(device), factors)):
                parts[k].append(self._judged(k, portion, values, best))
            done += portion.batch.n_systems
            if progress is not None:
                progress(done, total)
        return {name: Prediction.concat(found) for name, found in zip(self.tasks, parts, strict=True)}

    def _used(self, members: int | None) -> tuple[PropertyModel, ...]:
        if members is not None and not 1 <= members <= len(self.members):
            raise ConfigError(f"members = {members}; this ensemble has {len(self.members)}")
        return self.members[:members]

    def _judged(self, task: int, portion: Portion, values: Array, best: Array) -> Prediction:
        target, card = self.targets[task], self.card.of_task(task)
        value, bar = combined(target, card.calibration, values)
        counts = portion.batch["n_atoms"].numpy() if target.per_site else None
        best = np.ones(portion.batch.n_systems) if target.per_site else best
        warnings = self.warnings(portion.batch, portion.volumes * best, value, task)
        told = (target.kind, target.task, counts, card.calibration)
        return Prediction(target.quantity, target.unit, value, bar, values, best, warnings, tuple(portion.ids), *told)

    def warnings(self, batch: Batch, volumes: Array, values: Array, task: int = 0) -> tuple[tuple[str, ...], ...]:
        """(B,) what lies outside of the training set: elements, molecules where it held crystals, volume per atom, predicted value.

        `volumes` (B) are in Å³; NaN is unknown, infinite what has no cell.
        """
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
        ranges, target = self.card.of_task(task).ranges, self.targets[task]
        # cards of older models do not say it, but a range of volumes comes from crystals
        periodic = ranges.get("periodic") or ((1.0, 1.0) if "volume_per_atom" in ranges else (0.0, 1.0))
        for row in np.flatnonzero(np.isinf(volumes) & (periodic[0] == 1)):
            lone = int(batch["n_atoms"][row]) == 1
            found[row].append(f"{'a lone atom' if lone else 'not periodic in three directions'}: the training set held crystals only")
        for row in np.flatnonzero(np.isfinite(volumes) & (periodic[1] == 0)):
            found[row].append("a crystal: the training set held none")
        systems = batch["system"].cpu().numpy() if target.per_site else np.arange(batch.n_systems)
        for name, data, places, what in (
            ("volume_per_atom", volumes, np.arange(batch.n_systems), "volume {:.1f} Å³/atom"),
            ("label", values, systems, "predicted value {:.3f} " + target.unit),
        ):
            if name in ranges and target.kind != "class":
                low, high = ranges[name]
                for row in np.flatnonzero(np.isfinite(data) & ((data < low) | (data > high))):
                    found[places[row]].append(f"{what.format(data[row])} is outside of the training range {low:.3g} to {high:.3g}")
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
def scanned(members: Sequence[PropertyModel], batch: Batch, factors: Array) -> list[tuple[Array, Array]]:
    """For each task: values (M, B), each member at its best volume factor, and the factor (B) best for the median; see `lowest`."""
    volumes = [batch if factor == 1.0 else batch.scaled(float(factor)) for factor in factors]
    found = [[[v.double().cpu().numpy() for v in m.values(volume)] for m in members] for volume in volumes]
    result = []
    for k in range(len(members[0].targets)):
        table = np.stack([np.stack([of_member[k] for of_member in at_volume]) for at_volume in found])
        best = np.stack([np.take_along_axis(of_one, lowest(of_one, factors)[None], axis=0)[0] for of_one in np.moveaxis(table, 1, 0)])
        result.append((best, factors[lowest(np.median(table, axis=1), factors)]))
    return result


def combined(target: Target, calibration: Calibration, members: Array) -> tuple[Array, Array]:
    """Value and error bar of each item from (M, n) values of the members: median and calibrated bar, for classes mean and entropy."""
    if target.kind == "class":
        mean = members.mean(axis=0)
        return mean, entropy(mean)
    return np.median(members, axis=0), sigma(members, calibration)


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
