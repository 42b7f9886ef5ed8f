"""A run folder remembers which weights its training started from."""

from pathlib import Path

import numpy as np
import pytest

from naica.data import CrystalTable, Label, Level
from naica.errors import RunError
from naica.structure import Crystal
from naica.training.config import TrainConfig
from naica.training.run import fine_tune, train


def table() -> CrystalTable:
    rng = np.random.default_rng(0)
    cells = [Crystal.from_fractional([z, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * (3 + rng.random())) for z in range(11, 31)]
    label = Label.of("formation_energy_per_atom", Level("PBE"))
    return CrystalTable.from_crystals(cells, {"e": rng.normal(size=len(cells))}, {"e": label})


def test_resuming_from_other_weights_is_refused(tmp_path: Path) -> None:
    config = {"architecture_config": {"width": 8, "layers": 1}, "epochs": 1, "members": 1, "tensorboard": False}
    first, second = (train(table(), "e", TrainConfig.from_dict({**config, "seed": s}), progress=False) for s in (0, 1))
    fine_tune(first, table(), "e", epochs=1, out=tmp_path / "tuned", progress=False, tensorboard=False)
    fine_tune(first, table(), "e", epochs=1, out=tmp_path / "tuned", progress=False, tensorboard=False)
    with pytest.raises(RunError, match="different starting weights"):
        fine_tune(second, table(), "e", epochs=1, out=tmp_path / "tuned", progress=False, tensorboard=False)
