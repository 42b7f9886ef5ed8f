"""The filter's cascade over all candidates of a round, in shards that this process or Dask's workers work out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.discover.config import EngineSection, Filter
from naica.discover.engines.shards import digest, file_digest, in_shards
from naica.discover.filter import Judge, Scores, cascade
from naica.discover.ledger import Entry
from naica.discover.reliability import Recalibration
from naica.structure import Crystal

_models: dict[tuple[Path, str], Any] = {}


@dataclass(frozen=True)
class Scoring:
    """What decides a candidate's scores, small enough to travel: the model by its folder, the judge, the filter's settings.

    `content` names what the model's files hold, so that a worker that outlives a campaign does not take an older model for this one.
    """

    model: Path
    content: str
    judge: Judge
    config: Filter
    reading: Recalibration

    def __call__(self, piece: tuple[Sequence[Crystal], Sequence[str]]) -> dict[str, NDArray[Any]]:
        """Scores of some candidates (crystals, formulas) as named arrays."""
        crystals, formulas = piece
        found = cascade(self._loaded(), crystals, formulas, self.judge, self.config, reading=self.reading)
        return {name: np.asarray(value) for name, value in vars(found).items()}

    def know(self, model: Any) -> None:
        """Take a model that is loaded here already."""
        _models.clear()
        _models[self.model, self.content] = model

    def _loaded(self) -> Any:
        if (self.model, self.content) not in _models:
            from naica import runtime
            from naica.training.zoo import load

            runtime.threads(1)
            self.know(load(self.model))
        return _models[self.model, self.content]


def score(
    model: Any,
    files: Path,
    keys: Sequence[str],
    crystals: Sequence[Crystal],
    formulas: Sequence[str],
    judge: Judge,
    entries: Sequence[Entry],
    config: Filter,
    reading: Recalibration,
    *,
    folder: Path,
    engine: EngineSection,
    workers: int,
    tick: Callable[[int, int], None],
) -> Scores:
    """Scores of all candidates; shards that lie in `folder` from an earlier start are taken as they are.

    Parameters
    ----------
    model : the round's model, loaded
    files : where it lies, for workers elsewhere
    keys, crystals, formulas : the candidates
    judge : what counts as stable
    entries : the results that the judge stands on
    config, reading : the filter's settings, and how its predictions are read
    folder : for the shards; engine, workers : who works them out; tick : called with (candidates done, candidates in all)
    """
    work = Scoring(files.absolute(), file_digest(files), judge, config, reading)
    work.know(model)
    basis = digest(work.content, [[e.key, repr(e.energy)] for e in entries], judge.threshold, config.model_dump(), repr(asdict(reading)))
    cuts = [slice(at, at + engine.shard) for at in range(0, len(keys), engine.shard)]
    names = [digest(basis, list(keys[cut])) for cut in cuts]
    parts = in_shards(
        work, names, lambda k: (crystals[cuts[k]], formulas[cuts[k]]), folder, engine=engine, workers=workers,
        tick=lambda done, total: tick(min(done * engine.shard, len(keys)), len(keys)), own=folder.parent / "engine",
    )  # fmt: skip
    return Scores(**{name: np.concatenate([part[name] for part in parts] or [np.zeros(0)]) for name in Scores.__dataclass_fields__})
