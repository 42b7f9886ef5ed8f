"""naica screen, campaign audit and opinion, and the files a harvest leaves."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from naica.app.export import write_export
from naica.app.optimade import Entry, optimade_lines, structure_attributes, write_optimade
from naica.app.report import render
from naica.data import CrystalTable, Label, Level
from naica.structure import Crystal
from naica.structure.io import read, write
from naica.structure.prototypes import prototype


@pytest.fixture
def table(tmp_path: Path) -> Path:
    crystals = [prototype("molybdenite").crystal(), prototype("rocksalt").crystal(), prototype("cadmium-iodide").crystal()]
    labels = {"hull": Label("energy_above_hull", "eV/atom", Level("PBE", code="VASP")), "gap": Label("band_gap", "eV", Level("PBE"))}
    columns = {"hull": [0.0, 0.0, 0.2], "gap": [1.6, 5.0, 2.5]}
    CrystalTable.from_crystals(crystals, columns, labels, ids=["mos2", "nacl", "cdi2"]).write(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_screens_are_listed_and_described(naica: Callable[..., Any]) -> None:
    listed = naica("screen", "--json").json
    assert "layered" in listed["screens"]
    assert {d["value"] for d in listed["descriptors"]} >= {"dimensionality", "voltage", "path_dimension", "phonon_stable", "superionic"}
    assert "dimensionality = 2D" in naica("screen", "layered").out


def test_a_screen_over_a_table(naica: Callable[..., Any], table: Path) -> None:
    ran = naica("screen", "layered", table, "--json")
    assert ran.code == 0
    assert [hit["id"] for hit in ran.json["hits"]] == ["mos2"]
    assert ran.json["levels"]["energy_above_hull"] == "PBE [VASP]"
    assert [s["stayed"] for s in ran.json["steps"]] == [3, 2, 1, 1]
    text = naica("screen", "layered", table)
    assert "1 of 3 rows" in text.out
    assert "levels of theory" in text.err


def test_further_conditions_columns_and_settings(naica: Callable[..., Any], table: Path) -> None:
    assert naica("screen", "layered", table, "--where", "gap >= 2", "--json").json["left"] == 0
    wrong = naica("screen", "layered", table, "--column", "energy_above_hull=gap")
    assert wrong.code == 2
    assert "in eV/atom, the value is in eV" in wrong.err
    bad = naica("screen", "layered", table, "--where", "gap wide")
    assert bad.code == 2
    assert "cannot read the condition" in bad.err
    assert naica("screen", "layered", table, "--set", "paths.radius=wide").code == 2
    assert "expected NAME=VALUE" in naica("screen", "layered", table, "--column", "gap").err
    assert "no campaign folder" in naica("screen", "layered", "nowhere/x").err


def test_a_folder_with_everything(naica: Callable[..., Any], table: Path, tmp_path: Path) -> None:
    listed = tmp_path / "known.csv"
    listed.write_text("formula\nMoS2\nNaCl\n")
    out = tmp_path / "out"
    assert naica("screen", "layered", table, "--known", listed, "--known", table, "--out", out).code == 0
    (row,) = csv.DictReader((out / "hits.csv").open(encoding="utf-8"))
    assert (row["id"], row["known"], row["known_match"]) == ("mos2", "known", "t:mos2")
    assert "composition reported" in row["known_evidence"]
    assert CrystalTable.read(out / "hits.parquet").labels["energy_above_hull"].level == Level("PBE", code="VASP")
    rejected = {r["id"]: r["reason"] for r in csv.DictReader((out / "rejected.csv").open(encoding="utf-8"))}
    assert rejected == {"nacl": "dimensionality is 3D", "cdi2": "energy_above_hull is 0.2"}
    with zipfile.ZipFile(out / "hits-cif.zip") as archive:
        (name,) = archive.namelist()
        (tmp_path / "one.cif").write_bytes(archive.read(name))
    found = read(tmp_path / "one.cif")
    assert isinstance(found, Crystal)
    assert found.formula == "MoS2"
    line = json.loads((out / "hits.optimade.jsonl").read_text().splitlines()[2])
    assert (line["id"], line["attributes"]["_naica_dimensionality"]) == ("mos2", "2D")
    told = json.loads((out / "screen.json").read_text())
    assert told["hits"][0]["known"]["match"] == "t:mos2"


def test_structure_files_as_a_table(naica: Callable[..., Any], tmp_path: Path) -> None:
    write(prototype("molybdenite").crystal(), tmp_path / "mos2.cif")
    (tmp_path / "broken.cif").write_text("data_x\n_cell_length_a no\n")
    screen = tmp_path / "s.toml"
    screen.write_text('[[rule]]\nvalue = "dimensionality"\nequals = "2D"\n')
    ran = naica("screen", screen, tmp_path)
    assert ran.code == 0
    assert "1 of 1 rows" in ran.out
    assert "broken.cif" in ran.err.replace("\n", "")


# --- exports --------------------------------------------------------------------------------------------------------------------------
def test_optimade_attributes_hold_together() -> None:
    crystal = prototype("spinel").crystal()
    told = structure_attributes(crystal, 0.0)
    assert told["chemical_formula_reduced"] == "Al2MgO4"
    assert told["chemical_formula_anonymous"] == "A4B2C"
    assert told["elements"] == ["Al", "Mg", "O"]
    assert sum(told["elements_ratios"]) == pytest.approx(1.0)
    assert told["nsites"] == len(told["cartesian_site_positions"]) == len(told["species_at_sites"]) == 14
    assert {s["name"] for s in told["species"]} == set(told["species_at_sites"])
    assert told["last_modified"] == "1970-01-01T00:00:00Z"
    slab = Crystal(crystal.numbers, crystal.positions, crystal.cell, [True, True, False])
    told = structure_attributes(slab)
    assert (told["dimension_types"], told["nperiodic_dimensions"]) == ([1, 1, 0], 2)
    assert told["lattice_vectors"][2] == [None, None, None]


def test_optimade_lines(tmp_path: Path) -> None:
    crystal = prototype("rocksalt").crystal()
    entries = [Entry("a", crystal, {"gap": 5.0, "made": "by hand"}), Entry("b", crystal, {"gap": np.nan})]
    path = write_optimade(entries, {"gap": ("eV", "band gap"), "made": ("", "how")}, tmp_path / "x.jsonl")
    head, info, first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert head == {"x-optimade": {"meta": {"api_version": "1.2.0"}}}
    assert info["properties"]["_naica_gap"]["unit"] == "eV"
    assert info["properties"]["_naica_made"]["type"] == "string"
    assert (first["id"], first["type"], first["attributes"]["_naica_gap"]) == ("a", "structures", 5.0)
    assert second["attributes"]["_naica_gap"] is None
    assert len(list(optimade_lines([], {}))) == 2


def test_an_export_for_a_referee(summary: dict[str, Any], tmp_path: Path) -> None:
    find = summary["finds"][0]
    summary.setdefault("protocol", None)
    call = {"id": find["id"], "round": 1, "seconds": 2.0, "attempts": 1, "finished": "2026-01-01T00:00:00Z"}
    references = {"Mg": {"id": "start-mg", "energy_per_atom": -1.5}}
    summary["trail"] = {
        "campaign": {"references": references, "corrections": "none added", "versions": {"naica": "0.1.0"}},
        "finds": {
            find["id"]: {
                "call": call,
                "recipe": {"packed": "01ff", "key": find["id"], "proposed_in_round": 1},
                "structure": {"hash": "cafe", "n_atoms": 7},
                "energy": {"total": -42.0, "references": {"Mg": {"n": 1, "reference": "start-mg"}}},
            }
        },
    }
    summary["opinions"] = [
        {
            "oracle": "other",
            "second": "r2SCAN",
            "agree": 0,
            "of": 1,
            "finds": [{"id": find["id"], "formula": "MgO", "verdict": "only the first", "reason": "", "second_separation": 0.012}],
        }
    ]
    page = render(summary)
    for said in (
        "Oracle call",
        "01ff",
        "-42.000000 eV for 7 atoms",
        "start-mg",
        "none added",
        "naica 0.1.0",
        "only the first: 12 meV/atom",
        "calls 0 of 1 finds stable too. Not MgO.",
        "r2SCAN",
    ):
        assert said in page, said
    names = {p.name for p in write_export(summary, tmp_path / "export")}
    assert names >= {"finds.csv", "trail.json"}
    if find.get("crystal"):
        assert names >= {"finds.parquet", "finds.optimade.jsonl", "finds-cif.zip"}


def test_audit_of_nothing_says_so(naica: Callable[..., Any], tmp_path: Path) -> None:
    ran = naica("campaign", "audit", tmp_path)
    assert ran.code == 4
    assert "no campaign" in ran.err
