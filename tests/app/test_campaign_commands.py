"""Campaigns from the command line: checked, run, looked at, exported; and what is said when something is wrong."""

from __future__ import annotations

import csv

import pytest

CAMPAIGN = """
title = "Copper and palladium"
elements = ["Cu", "Pd"]
rounds = 1
[start]
compounds = ["CuPd: cesium-chloride", "Cu3Pd: copper-gold-3", "CuPd3: copper-gold-3"]
[generate]
n_elements = [2]
balanced = false
substitution = false
saps = false
max_atoms = 4
max_per_round = 40
[filter]
volumes = 3
[pick]
per_round = 5
control = 0.2
[oracle]
name = "emt"
workers = 0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cu-pd.toml"
    path.write_text(CAMPAIGN)
    return path


def test_dry_run_computes_and_writes_nothing(naica, file, tmp_path):
    ran = naica("discover", file, "--folder", tmp_path / "run", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    plan = ran.json["plan"]
    assert plan["resumes"] is False
    assert plan["candidates_in_round_1"]["prototype"] > 5
    assert [p.name for p in tmp_path.iterdir()] == ["cu-pd.toml"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("per_round", "per_ruond", "did you mean 'per_round'?"),
        ('"Pd"]', '"Px"]', "Px"),
        ("rounds = 1", "rounds = ", "is not valid TOML"),
        ("cesium-chloride", "cesium-chlorid", "cesium-chloride"),
        ('name = "emt"', 'name = "emtt"', "emt"),
        ("max_atoms = 4", "max_atoms = 0", "max_atoms"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(naica, file, tmp_path, old, new, told):
    file.write_text(CAMPAIGN.replace(old, new))
    ran = naica("discover", file, "--folder", tmp_path / "run", "--dry-run")
    assert ran.code == 2
    assert told in ran.err.replace("\n", " ")
    assert "Traceback" not in ran.err


def test_no_such_file_proposes_a_near_one(naica, file, tmp_path):
    ran = naica("discover", tmp_path / "cu-dp.toml")
    assert ran.code == 2
    assert "cu-pd.toml" in ran.err.replace("\n", "")


@pytest.mark.parametrize("verb", ["status", "report", "export"])
def test_a_folder_without_a_campaign_is_said(naica, tmp_path, verb):
    ran = naica("campaign", verb, tmp_path)
    assert ran.code == 2
    assert "holds no campaign" in ran.err


@pytest.mark.slow
def test_a_campaign_from_file_to_report(naica, file, tmp_path):
    folder = tmp_path / "run"
    ran = naica("discover", file, "--folder", folder, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["ended"] == "finished"
    assert "round 1 · computing" in ran.err
    computed = ran.json["rounds"][0]["computed"]
    assert 0 < computed <= 5
    assert (folder / "report.html").stat().st_size < 7e6
    assert len(list(csv.DictReader((folder / "export" / "finds.csv").open()))) == len(ran.json["finds"])

    again = naica("discover", file, "--folder", folder, "--json")
    assert again.json["cost"]["calls"] == ran.json["cost"]["calls"]
    assert again.json["finds"] == ran.json["finds"]

    assert naica("campaign", "status", folder, "--json").json["rounds"] == ran.json["rounds"]
    assert "copper" in naica("campaign", "status", folder).out.lower()
    page = tmp_path / "page.html"
    assert naica("campaign", "report", folder, "--out", page).code == 0
    assert "Copper and palladium" in page.read_text()
    (tmp_path / "blocked").write_text("")
    blocked = naica("campaign", "export", folder, "--out", tmp_path / "blocked" / "x")
    assert blocked.code == 4
    assert "name another folder with --out" in blocked.err.replace("\n", " ")
    file.write_text(CAMPAIGN.replace("per_round = 5", "per_round = 6"))
    other = naica("discover", file, "--folder", folder)
    assert other.code == 2
    assert "another configuration" in other.err
