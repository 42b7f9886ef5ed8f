"""naica explain, naica sites: answers, methods, files, refusals."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

PLACES = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


@pytest.fixture
def perovskites(tmp_path: Path) -> Path:
    """A table of 25 perovskites with columns A and B."""
    from naica.data import CrystalTable, Label, Level
    from naica.structure import Crystal
    from naica.structure.elements import element

    names = ["Li", "K", "Ca", "Ti", "Nb"]
    pairs = [(a, b) for a in names for b in names]
    crystals = [Crystal([element(a).number, element(b).number, 8, 8, 8], PLACES * 4.0, np.eye(3) * 4.0) for a, b in pairs]
    label = {"e": Label.of("formation_energy_per_atom", Level("PBE"))}
    table = CrystalTable.from_crystals(crystals, {"e": np.array([0.1 if b in ("Ti", "Nb") else 1.0 for _, b in pairs])}, label)
    table.with_column("A", [a for a, _ in pairs]).with_column("B", [b for _, b in pairs]).write(tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


def test_exact_where_the_network_can(naica, files, model_folder):
    ran = naica("explain", files / "mgo.cif", files / "[red]bad.cif", "--model", model_folder, "--json")
    one = ran.json["structures"][0]
    assert ran.json["method"] == "exact"
    assert np.mean([s["contribution"] for s in one["sites"]]) == pytest.approx(one["value"], abs=1e-5)
    assert one["reference"] == 0
    assert "_atom_site" in ran.json["failed"][0]["error"]
    assert "exact: the prediction is the mean" in naica("explain", files / "mgo.cif", "--model", model_folder).err.replace("\n", " ")


def test_attribution_for_the_shipped_model(naica, files):
    ran = naica("explain", files / "mgo.cif", "--json")
    one = ran.json["structures"][0]
    assert ran.json["method"] == "integrated gradients"
    assert one["reference"] + np.mean([s["contribution"] for s in one["sites"]]) == pytest.approx(one["value"], abs=0.01)
    predicted = naica("predict", files / "mgo.cif", "--json").json["predictions"][0]["value"]
    assert one["value"] == pytest.approx(predicted, abs=1e-4)
    shown = naica("explain", files / "mgo.cif")
    assert "+ sites" in shown.out
    assert "integrated gradients" in shown.err


def test_exact_is_refused_where_there_is_none(naica, files):
    ran = naica("explain", files / "mgo.cif", "--method", "exact")
    assert ran.code == 2
    assert "integrated gradients" in ran.err


def test_deletion_test_of_files(naica, files, model_folder):
    ran = naica("explain", files, "--model", model_folder, "--deletion-test")
    assert ran.code == 2  # one structure with two sites is too few to say how sure it is
    assert "1 crystals with at least two sites" in ran.err.replace("\n", " ")
    from ase.build import bulk
    from ase.io import write

    write(files / "licl.cif", bulk("LiCl", "rocksalt", a=5.1))
    ran = naica("explain", files, "--model", model_folder, "--deletion-test", "--method", "leave-one-out", "--json")
    assert ran.json["deletion_test"]["crystals"] == 2
    assert ran.json["deletion_test"]["method"] == "leave one out"


def test_symmetric_sites_share_equally(naica):
    """Twelve second neighbours of rocksalt are equally far and six are kept: whose share that is must not be chance."""
    salt = Path(__file__).parents[2] / "examples" / "NaCl.cif"
    (found,) = naica("explain", salt, "--json").json["structures"]
    sites = [(s["element"], s["contribution"]) for s in found["sites"]]
    for element in ("Na", "Cl"):
        values = [v for e, v in sites if e == element]
        assert len(values) == 4
        assert np.ptp(values) < 1e-9
    whole = found["reference"] + np.mean([v for _, v in sites])
    assert whole == pytest.approx(found["value"], abs=5e-3)


def test_map_of_any_model(naica, perovskites, tmp_path):
    ran = naica("sites", "map", perovskites, "--sites", "A,B", "--out", tmp_path / "maps", "--json")
    assert ran.code == 0
    assert ran.json["method"] == "integrated gradients"
    assert {p.name for p in (tmp_path / "maps").iterdir()} == {"elements.csv", *(f"{k}.{e}" for k in "ABX" for e in ("png", "svg"))}
    assert {c["element"] for c in ran.json["maps"][0]["contributions"]} == {"Li", "K", "Ca", "Ti", "Nb"}
    alone = naica("sites", "map", perovskites, "--out", tmp_path / "all", "--rows", 10, "--json")
    assert [c["element"] for c in alone.json["maps"][0]["contributions"] if c["crystals"] == 10] == ["O"]
    assert (tmp_path / "all" / "elements.png").is_file()


def test_map_of_a_folder(naica, files, model_folder, tmp_path):
    ran = naica("sites", "map", files, "--model", model_folder, "--out", tmp_path / "maps")
    assert ran.code == 0
    assert "Mg" in ran.out


def test_study_from_the_command_line(naica, perovskites, tmp_path):
    arguments = ("--epochs", 2, "--members", 1, "--out", tmp_path / "run", "--min-share", 0.05, "--beside", "groups 1-2; groups 4-5")
    ran = naica("sites", "study", perovskites, *arguments)
    assert ran.code == 0
    assert "groups 1-2; groups 4-5: A in groups 1–2, B in groups 4–5" in ran.out
    assert "rules were tried" in ran.out
    rows = list(csv.DictReader((tmp_path / "run" / "rules.csv").open(encoding="utf-8")))
    assert [r["name"] for r in rows[:4]] == ["mined", "mined", "groups 1-2; groups 4-5", "groups 1-2; groups 4-5"]
    assert naica("sites", "study", perovskites, *arguments, "--json").json["tried"] > 10


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--sites", "A"), "expected two columns"),
        (("--beside", "groups 1-2"), "a condition for each"),
        (("--beside", "x; y"), "cannot read"),
    ],
)
def test_wrong_options_of_the_study(naica, perovskites, tmp_path, wrong, words):
    ran = naica("sites", "study", perovskites, "--out", tmp_path / "run", *wrong)
    assert ran.code == 2
    assert words in ran.err.replace("\n", " ")
