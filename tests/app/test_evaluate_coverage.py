"""`naica evaluate`: the measured coverage of conformal intervals, and the picture of calibration. The shipped model has intervals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "NaCl.cif"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Labelled rock salts, a model trained on 12 of them and calibrated on 8, and the same model without scores."""
    from ase.build import bulk

    from naica.data import CrystalTable, Label, Level
    from naica.data.splits import Split
    from naica.structure import Crystal
    from naica.training import TrainConfig, train

    folder = tmp_path_factory.mktemp("coverage")
    pairs = [(a, b) for a in ("Li", "Na", "K", "Rb", "Mg", "Ca") for b in ("F", "Cl", "Br", "O", "S")]
    crystals = [Crystal.from_ase(bulk(a + b, "rocksalt", a=4.5)) for a, b in pairs]
    values = np.random.default_rng(0).normal(-2, 1, len(crystals))
    table = CrystalTable.from_crystals(crystals, {"e": values}, {"e": Label.of("formation_energy_per_atom", Level("PBE"))})
    table.write(folder / "salts.parquet")
    config = TrainConfig(epochs=2, members=2, architecture_config={"width": 8, "layers": 1}, tensorboard=False)
    rows = np.arange(len(crystals))
    train(table, "e", config, split=Split(rows[:12], rows[12:20], rows[20:]), out=folder / "run", progress=False)
    old = shutil.copytree(folder / "run" / "model", folder / "old")
    card = json.loads((old / "card.json").read_text())
    card["calibration"].pop("scores")
    (old / "card.json").write_text(json.dumps(card))
    return folder


def test_measured_coverage_with_its_interval(naica, world):
    from naica import load
    from naica.insight.intervals import clopper_pearson

    ran = naica("evaluate", world / "run", world / "salts.parquet", "--part", "all", "--json")
    assert ran.code == 0, ran.err
    (rows,) = ran.json["intervals"].values()
    assert [r["confidence"] for r in rows] == [0.68, 0.9, 0.95]
    from naica.data import CrystalTable

    table = CrystalTable.read(world / "salts.parquet")
    low, high = load(world / "run" / "model").predict(table).interval(0.68)
    inside = int(((low <= table.column("e")) & (table.column("e") <= high)).sum())
    honest = clopper_pearson(inside, 30)
    assert rows[0]["inside"] == inside
    assert (rows[0]["low"], rows[0]["observed"], rows[0]["high"]) == pytest.approx((honest.low, inside / 30, honest.high))
    assert rows[1]["half_width"] is None  # 8 labels cannot promise 90 %


def test_coverage_is_shown_beside_ence(naica, world):
    from naica.app.answer import number

    ran = naica("evaluate", world / "run", world / "salts.parquet", "--part", "all")
    ence = naica("evaluate", world / "run", world / "salts.parquet", "--part", "all", "--json").json["metrics"]["ence"]
    assert f"conformal intervals; ENCE of the error bars {number(ence)}" in ran.out
    assert "95 % interval" in ran.out
    assert "30 of 30" in ran.out
    assert "∞" in ran.out
    assert "neither trained nor calibrated on" in " ".join(ran.err.split())


def test_a_model_without_scores_says_so_once(naica, world):
    ran = naica("evaluate", world / "old", world / "salts.parquet", "--part", "all")
    assert ran.code == 0, ran.err
    assert " ".join(ran.err.split()).count("no scores to make them from") == 1
    assert "promised" not in ran.out
    assert naica("evaluate", world / "old", world / "salts.parquet", "--part", "all", "--json").json["intervals"] == {}


@pytest.mark.parametrize("model", ["run", "old"])
def test_a_picture_of_calibration(naica, world, tmp_path, model):
    picture = tmp_path / "new" / "c.png"
    ran = naica("evaluate", world / model, world / "salts.parquet", "--part", "all", "--calibration", picture, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["calibration"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    wrong = naica("evaluate", world / model, world / "salts.parquet", "--part", "all", "--calibration", tmp_path / "c.docx")
    assert wrong.code != 0
    assert "cannot write the plot" in " ".join(wrong.err.split())


def test_the_shipped_model_has_intervals(naica):
    ran = naica("predict", EXAMPLE, "--interval", "0.9", "--json")
    assert ran.code == 0, ran.err
    row = ran.json["predictions"][0]
    assert row["low"] < row["value"] < row["high"]
    assert row["low"] < -2.1 < row["high"]  # Materials Project


def test_the_shipped_model_was_measured_on_its_test_part():
    from naica import load

    card = load("formation-energy").card
    assert len(card.calibration.scores) == 200
    assert card.calibration.n == card.data["rows"]["val"]
    told = {one["confidence"]: one for one in card.metrics["test"]["intervals"]}
    assert told[0.9]["n"] == card.data["rows"]["test"]
    assert told[0.9]["inside"] / told[0.9]["n"] == pytest.approx(0.9, abs=0.03)
