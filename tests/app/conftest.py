"""What the tests of the faces share: the command line run in-process, a small trained model, structure files good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def naica(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line as the shell would; returns exit code, stdout and stderr."""
    from naica.app.cli import main

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def summary() -> dict[str, Any]:
    """The summary of a campaign in Mg-Al-O, with two finds, failures and a hull."""
    return json.loads((Path(__file__).parent / "campaign_summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a small ensemble that can name the contributions of sites."""
    from ase.build import bulk

    from naica.data import CrystalTable, Label, Level
    from naica.structure import Crystal
    from naica.training import TrainConfig, train

    pairs = [(a, b) for a in ("Li", "Na", "K", "Mg", "Ca") for b in ("F", "Cl", "O", "S")]
    crystals = [Crystal.from_ase(bulk(a + b, "rocksalt", a=4.0 + 0.1 * k)) for k, (a, b) in enumerate(pairs)]
    labels = {"formation_energy_per_atom": Label.of("formation_energy_per_atom", Level("PBE"))}
    table = CrystalTable.from_crystals(crystals, {"formation_energy_per_atom": np.linspace(-3, -1, len(crystals))}, labels)
    folder = tmp_path_factory.mktemp("model")
    config = TrainConfig(epochs=2, members=2, head={"pooling": "sites", "hidden": (8,)}, tensorboard=False)  # type: ignore[arg-type]
    train(table, "formation_energy_per_atom", config, out=folder, progress=False)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two good structure files and one that is none."""
    from ase.build import bulk
    from ase.io import write

    write(tmp_path / "mgo.cif", bulk("MgO", "rocksalt", a=4.21))
    write(tmp_path / "cu.vasp", bulk("Cu", "fcc", a=3.7), format="vasp")
    (tmp_path / "[red]bad.cif").write_text("data_x\n_cell_length_a 3\n")
    return tmp_path
