"""How a campaign learns from its own labels, behind one interface: correct a prior, or train an ensemble anew each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from naica.data import CrystalTable
from naica.errors import ConfigError
from naica.graphs.spec import GraphSpec
from naica.training.card import Card
from naica.training.config import TrainConfig, inside
from naica.training.ensemble import Ensemble
from naica.training.prediction import Prediction
from naica.training.stream import Source

if TYPE_CHECKING:
    from naica.data.splits import Split


class Predictor(Protocol):
    """What a learner returns: predicts, saves itself, has a card."""

    @property
    def card(self) -> Card: ...  # noqa: D102
    @property
    def needs(self) -> GraphSpec: ...  # noqa: D102
    def predict(  # noqa: D102
        self,
        source: Source,
        volume_factors: Sequence[float] = (1.0,),
        members: int | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Prediction: ...
    def save(self, folder: str | Path) -> Path: ...  # noqa: D102


class Learner(Protocol):
    """Turns the labels of a campaign so far into a predictor; the same labels and round give the same predictor."""

    def fit(self, table: CrystalTable, column: str, round: int, out: Path | None = None, previous: Path | None = None) -> Predictor:
        """Learn from all labels so far.

        Parameters
        ----------
        table, column : labels, with unit and level of theory
        round : number of the round; enters the seed
        out : folder of this round's model and logs; a fit that was killed goes on there
        previous : `out` of the round before; its weights are the start where the strategy can use them
        """
        ...


@dataclass(frozen=True)
class Corrector:
    """Corrects a prior (a name, a folder or a model) by Bayesian ridge; seconds for hundreds of labels."""

    prior: Any = "formation-energy"
    seed: int = 0

    def fit(self, table: CrystalTable, column: str, round: int, out: Path | None = None, previous: Path | None = None) -> Predictor:
        """See `Learner.fit`; nothing is kept from the round before, since the prior is the start each time."""
        from naica.training.correction import FEW, fit_correction
        from naica.training.ensemble import of_any

        prior = of_any(self.prior)
        few = int(np.isfinite(np.asarray(table.column(column), dtype=np.float64)).sum()) < FEW
        # too few labels to learn a difference from: the prior speaks for itself until there are more
        corrected = prior if few else fit_correction(prior, table, column, self.seed + round)
        if out is not None:
            corrected.save(Path(out) / "model")
        return corrected


@dataclass(frozen=True)
class Trainer:
    """Trains a deep ensemble each round, from the round before if there is one.

    Parameters
    ----------
    members, seed : of the ensemble
    visits : structures each member sees in a round from scratch (epochs = visits / labels), so that a round costs the same however many
        labels there are; 32,000 five-atom cells take about 13 s on one core
    warm : share of `visits` spent when starting from the round before
    epochs : fixed number of epochs instead
    validation : share of compositions set aside to calibrate the error bars
    settings : further fields of `TrainConfig`
    progress : show a bar
    """

    members: int = 4
    seed: int = 0
    visits: int = 32_000
    warm: float = 0.6
    epochs: int | None = None
    validation: float = 0.1
    settings: Mapping[str, Any] = field(default_factory=dict)
    progress: bool = False

    def __post_init__(self) -> None:
        inside("members", self.members, 1, 100)
        inside("visits", self.visits, 1, 10**9)
        inside("warm", self.warm, 0.01, 1.0)
        inside("validation", self.validation, 0.0, 0.5)

    def fit(self, table: CrystalTable, column: str, round: int, out: Path | None = None, previous: Path | None = None) -> Predictor:
        """See `Learner.fit`."""
        from naica.training.run import train

        labelled = table.take(np.isfinite(np.asarray(table.column(column), dtype=np.float64)))
        parts = self._parts(labelled)
        start = self._start(previous)
        config = self.config(len(parts.train), round, warm=start is not None)
        return train(labelled, column, config, parts, out, progress=self.progress, name=f"round {round}", start=start)

    def _parts(self, labelled: CrystalTable) -> Split:
        """A composition is set aside by the hash of its formula, so in all rounds or in none: weights that go on never saw it."""
        from naica.data.splits import Split, md5_part

        aside = np.array([md5_part(crystal.formula, self.seed) < 100 * self.validation for crystal in labelled], dtype=bool)
        if aside.all():
            aside[:] = False
        return Split(np.flatnonzero(~aside), np.flatnonzero(aside), np.zeros(0, dtype=np.int64))

    def config(self, labels: int, round: int, warm: bool) -> TrainConfig:
        """Settings of a round with so many labels."""
        visits = self.visits * (self.warm if warm else 1.0)
        epochs = self.epochs or int(np.clip(round_half(visits / max(labels, 1)), 5, 300))
        chosen: dict[str, Any] = {
            "architecture": "cgcnn",
            "architecture_config": {"width": 64, "layers": 3, "atoms": "described"},
            "epochs": epochs,
            "batch_size": 64,
            "learning_rate": 2e-3 if warm else 4e-3,
            "weight_decay": 1e-3,
            "loss": "huber",
            "ema": 0.99,
            "tensorboard": False,
            "members": self.members,
            "seed": 1000 * self.seed + 10 * round,
        }
        return TrainConfig.from_dict({**chosen, **self.settings})

    def _start(self, previous: Path | None) -> Ensemble | None:
        from naica.training.zoo import load

        return load(Path(previous) / "model") if previous is not None else None


def round_half(value: float) -> int:
    """The nearest whole number."""
    return int(value + 0.5)


_STRATEGIES: dict[str, Callable[..., Learner]] = {"correct": Corrector, "train": Trainer}


def fit_learner(strategy: str = "correct", **settings: Any) -> Learner:
    """The learner of a campaign: ``correct`` (`Corrector`: prior, seed) or ``train`` (`Trainer`: members, seed, visits, …).

    Raises
    ------
    ConfigError
        For an unknown strategy or setting.
    """
    from dataclasses import fields

    if strategy not in _STRATEGIES:
        raise ConfigError(f"learning strategy {strategy!r} is unknown; expected one of {', '.join(_STRATEGIES)}")
    kind = _STRATEGIES[strategy]
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(f"learning strategy {strategy!r} has no setting {unknown[0]!r}; it has {', '.join(known)}")
    return kind(**settings)
