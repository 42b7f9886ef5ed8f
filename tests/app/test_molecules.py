"""Molecules through the command line: training from a CSV of SMILES, prediction from .smi and .csv."""

import csv
import json

import pytest
from typer.testing import CliRunner

pytest.importorskip("rdkit", reason="needs the extra: pip install 'naica[molecules]'")

from naica.app.cli import app


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small model of solubilities (made up: minus the number of atoms), trained from a CSV."""
    folder = tmp_path_factory.mktemp("smiles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        smiles = ["C" * n + tail for n in range(1, 8) for tail in ("", "O", "N", "Cl", "C=O")]
        with (folder / "own.csv").open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "smiles", "log_solubility"])
            writer.writerows([f"m{k}", text, -len(text)] for k, text in enumerate(smiles))
            writer.writerow(["bad", "C1CC", 1.0])
        out = folder / "run"
        command = ["train", str(folder / "own.csv"), "--column", "log_solubility", "--unit", "log10(mol/L)", "--out", str(out), "--json"]
        result = CliRunner().invoke(app, [*command, "--architecture", "fingerprint", "--epochs", "2"])
        assert result.exit_code == 0, result.output
        yield folder, out, json.loads(result.stdout)


def test_a_row_that_is_no_molecule_is_rejected_with_its_reason(run):
    _, _, answer = run
    assert [(r["id"], "not a SMILES" in r["reason"]) for r in answer["rejected"]] == [("bad", True)]


def test_predict_for_smiles(run, monkeypatch):
    folder, out, _ = run
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (folder / "new.smi").write_text("CCO ethanol\nc1ccccc1\nC1CC\n")
    (folder / "new.csv").write_text("name,smiles\nethanol,CCO\n")
    result = CliRunner().invoke(app, ["predict", str(folder / "new.smi"), str(folder / "new.csv"), "--model", str(out), "--json"])
    assert result.exit_code == 0, result.output
    rows = {r["file"].rsplit("/", 1)[1]: r for r in json.loads(result.stdout)["predictions"]}
    assert set(rows) == {"new.smi#0 CCO", "new.smi#1 c1ccccc1", "new.smi#2 C1CC", "new.csv#0 CCO"}
    assert "not a SMILES" in rows["new.smi#2 C1CC"]["error"]
    assert rows["new.smi#0 CCO"]["value"] == pytest.approx(rows["new.csv#0 CCO"]["value"])
    assert rows["new.smi#0 CCO"]["value"] != pytest.approx(rows["new.smi#1 c1ccccc1"]["value"])


def test_a_csv_without_smiles_says_so(run):
    folder, out, _ = run
    (folder / "none.csv").write_text("name,formula\nethanol,C2H6O\n")
    result = CliRunner().invoke(app, ["predict", str(folder / "none.csv"), "--model", str(out)])
    assert result.exit_code == 2
    assert "smiles" in result.output
