"""The commands novelty and polymorphs: verdicts with evidence, clusters, bad files beside good ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from naica.data import CrystalTable
from naica.structure import Crystal
from naica.structure.cif import write_blocks


def salt(a: str, length: float) -> Crystal:
    return Crystal.from_fractional([a, "Cl"], [[0, 0, 0], [0.5] * 3], length / 2 * (1 - np.eye(3)))


def caesium(length: float) -> Crystal:
    return Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5] * 3], length * np.eye(3))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    for name, crystal in {"a": salt("Na", 5.7), "b": salt("K", 6.3), "c": caesium(3.4), "d": salt("Na", 5.5)}.items():
        (folder / f"{name}.cif").write_text(write_blocks([crystal]))
    (folder / "broken.cif").write_text("no crystal at all")
    return folder


def test_novelty_says_what_and_why(naica, files, tmp_path):
    known = tmp_path / "known.parquet"
    CrystalTable.from_crystals([salt("Na", 5.64)], ids=["halite"]).write(known)
    listed = tmp_path / "reported.csv"
    listed.write_text("formula\nKCl\n")
    ran = naica("novelty", files, "--against", known, "--formulas", listed, "--json")
    assert ran.code == 0, ran.err
    told = {Path(r["name"]).stem: r for r in ran.json["structures"]}
    assert {n: r["verdict"] for n, r in told.items()} == {"a": "known", "b": "formula reported", "c": "new prototype", "d": "known"}
    assert told["a"]["match"] == "known:halite"
    assert any("halite" in text for text in told["a"]["evidence"])
    assert "broken" in ran.json["unreadable"][0]["name"]
    plain = naica("novelty", files, "--against", known)
    assert "new prototype" in plain.out
    assert "halite" in plain.out


def test_novelty_needs_something_to_compare_with(naica, files):
    ran = naica("novelty", files)
    assert ran.code == 2
    assert "--against" in ran.err


def test_polymorphs_of_files(naica, files):
    ran = naica("polymorphs", files, "--json")
    assert ran.code == 0, ran.err
    clusters = {tuple(sorted(Path(m).stem for m in c["members"])): c["formula"] for c in ran.json["clusters"]}
    assert clusters == {("a", "d"): "NaCl", ("c",): "NaCl", ("b",): "KCl"}
    matrix = ran.json["distances"]["NaCl"]["largest"]
    assert len(matrix) == 3
    json.dumps(matrix, allow_nan=False)
