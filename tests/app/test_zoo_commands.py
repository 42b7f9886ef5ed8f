"""The commands zoo and recommend."""

from __future__ import annotations

import json

import pytest

from naica.data.registry import dataset


@pytest.fixture
def measured(tmp_path):
    """A measured table of one task."""
    facts = {"epochs": 12.0, "parameters": 10.0, "train_per_second": 1.0, "infer_per_second": 1.0, "cpu_seconds": 60.0}
    scores = [
        {"model": m, "seeds": 3, "value": v, "error": 0.01, "error_left": v / 2, "rank": r, "missing": 0.0, "own_rows": False, **facts}
        for m, v, r in (("cgcnn", 0.4, 1.0), ("gnome", 0.6, 2.0))
    ]
    task = {"task": "gap", "title": "Gaps", "set": "s", "system": "crystal", "quantity": "band_gap", "kind": "regression", "metric": "mae"}
    task |= {"unit": "eV", "train_rows": 900, "test_rows": 100, "split": "composition", "minutes": 2.0, "scores": scores}
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"format": 1, "tasks": [task]}))
    return path


def test_tasks_are_listed(naica):
    ran = naica("zoo", "tasks", "--json")
    assert ran.code == 0, ran.err
    assert {"perovskites", "phonons", "dielectric", "esol", "tox21"} <= {t["task"] for t in ran.json}


def test_recommend_from_numbers_writes_settings_that_train_takes(naica, measured, tmp_path):
    config = tmp_path / "gap.toml"
    ran = naica("recommend", "--rows", 800, "--target", "band_gap", "--table", measured, "--config", config, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["recommended"] == "cgcnn"
    assert (ran.json["expected"]["low"], ran.json["expected"]["high"]) == pytest.approx((0.38, 0.42))
    assert f"--config {config}" in ran.json["command"]
    assert 'architecture = "cgcnn"' in config.read_text()


def test_recommend_for_a_table_counts_its_rows_and_sees_its_quantity(naica, measured, tmp_path):
    import numpy as np
    from ase.build import bulk

    from naica.data import CrystalTable, Label
    from naica.structure import Crystal

    crystals = [Crystal.from_ase(bulk("NaCl", "rocksalt", a=5 + 0.01 * k)) for k in range(10)]
    path = tmp_path / "mine.parquet"
    CrystalTable.from_crystals(crystals, {"gap": np.linspace(0, 9, 10)}, {"gap": Label.of("band_gap")}).write(path)
    ran = naica("recommend", path, "--column", "gap", "--table", measured, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["need"]["rows"] == 8
    assert ran.json["need"]["quantity"] == "band_gap"
    assert ran.json["need"]["deviation"] == pytest.approx(2.5)
    assert any("times more than yours" in c for c in ran.json["caveats"])
    assert str(path) in ran.json["command"]


def test_bad_requests_say_what_to_do(naica, measured, tmp_path):
    needs_data = ((("zoo", "--set", "phonons", "-m", "cgcn", "--out", tmp_path / "z"), "cgcnn"),) if dataset("phonons").present else ()
    for arguments, words in (
        *needs_data,
        (("recommend", "--rows", 800), "--target"),
        (("recommend", "--rows", 800, "--target", "band_gapp", "--table", measured), "band_gap"),
        (("recommend", "--rows", 800, "--target", "band_gap", "--kind", "glass"), "crystal or molecule"),
        (("zoo", "--set", "phonon", "--out", tmp_path / "z"), "phonons"),
        (("zoo", "report", tmp_path / "nothing"), "no results"),
    ):
        ran = naica(*arguments)
        assert ran.code == 2, (arguments, ran.err)
        assert words in ran.err, (arguments, ran.err)


def test_a_comparison_from_the_command_line_and_its_report(naica, tmp_path):
    from naica.data.registry import dataset

    if not dataset("half_heusler").present or not dataset("mp_formation").present:
        pytest.skip("the set half_heusler is not on this machine")
    out = tmp_path / "zoo"
    ran = naica("zoo", "--set", "half_heusler_metal", "-m", "gnome-composition", "--minutes", 0.02, "--seeds", 1, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert [s["model"] for s in ran.json["tasks"][0]["scores"]] == ["gnome-composition", "mean", "composition-ridge"]
    first = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*.json")}
    (out / "report.md").unlink()
    again = naica("zoo", "report", out, "--ship", tmp_path / "table.json", "--json")
    assert again.code == 0, again.err
    assert {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*.json")} == first
    assert (out / "report.md").exists()
    assert json.loads((tmp_path / "table.json").read_text())["tasks"][0]["task"] == "half_heusler_metal"


def test_a_set_that_is_not_here_is_no_failure_of_a_network(naica, tmp_path, monkeypatch):
    monkeypatch.setenv("NAICA_DATA", str(tmp_path / "none"))
    ran = naica("zoo", "--set", "phonons", "-m", "cgcnn", "--out", tmp_path / "zoo")
    assert ran.code == 3
    assert "naica data pull phonons" in ran.err
    assert not (tmp_path / "zoo").exists()
