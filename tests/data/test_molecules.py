"""The registered sets of SMILES: labels in naica's units, gaps, and what gives no molecule."""

import csv
import gzip

import numpy as np
import pytest

from naica.errors import MissingPart

pytest.importorskip("rdkit", reason="needs the extra: pip install 'naica[molecules]'")

from naica.data.molecules import rejections
from naica.data.registry import dataset, load_set


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def source(name):
    try:
        path = dataset(name).path()
    except MissingPart as error:
        pytest.skip(str(error))
    with gzip.open(path, "rt", newline="") as handle:
        return list(csv.DictReader(handle))


def test_freesolv_is_in_electronvolts():
    rows = source("freesolv")
    table = load_set("freesolv", ids=["freesolv-3", "freesolv-1"])
    assert table.ids == ["freesolv-3", "freesolv-1"]
    assert table.column("smiles").tolist() == [rows[2]["smiles"], rows[0]["smiles"]]
    # 1 kcal/mol = 4.184 kJ/mol, 1 eV = 96.48533 kJ/mol
    np.testing.assert_allclose(table.column("expt"), [float(rows[k]["expt"]) * 4.184 / 96.4853321 for k in (2, 0)], rtol=1e-7)
    assert table.labels["expt"].level.functional == "experiment"
    assert table.labels["calc"].level.functional == "GAFF"


def test_esol_keeps_its_other_columns():
    rows = source("esol")
    table = load_set("esol", ids=["esol-2"])
    assert table.labels["measured log solubility in mols per litre"].quantity == "log_solubility"
    assert table.column("Compound ID").tolist() == [rows[1]["Compound ID"]]


def test_tox21_has_gaps_and_names_what_gives_no_molecule():
    rows = {row["mol_id"]: row for row in source("tox21")}
    table = load_set("tox21", ids=["TOX3021", "TOX3024"])
    assert len(table.labels) == 12
    for name in table.labels:
        given = [rows[key][name] for key in table.ids]
        assert [None if np.isnan(x) else str(int(x)) for x in table.column(name)] == [text or None for text in given]
    assert rejections(table) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_of_tox21(monkeypatch):
    rows = source("tox21")
    # minutes of embedding, unless the user's own cache has them
    monkeypatch.delenv("XDG_CACHE_HOME")
    table = load_set("tox21")
    out = rejections(table)
    assert len(table) + len(out) == len(rows)
    # the count belongs to the RDKit of constraints.txt
    assert abs(len(table) - dataset("tox21").rows) <= 3
    assert sum("valence" in one.reason for one in out) == 7
    assert len(set(table.ids)) == len(table)
    assert np.isfinite(table.flat()[2]).all()


def test_muv_loads_in_part():
    assert source("muv")[0]["mol_id"] == "CID2999678"
    table = load_set("muv", ids=["CID2999678"])
    assert len(table.labels) == 17
    assert np.isnan(table.column("MUV-692")[0])
    assert table.column("MUV-810")[0] == 0


def test_a_smiles_that_gives_no_molecule_is_noted_on_the_table(tmp_path):
    from naica.data import molecules

    path = tmp_path / "own.csv"
    path.write_text("mol_id,smiles,SR-p53\na,CCO,1\nb,CO[AlH3](O)O,0\nc,CCN,\n")
    table = molecules.load(path, dataset("tox21"))
    assert table.ids == ["a", "c"]
    assert [(r.row, r.id) for r in rejections(table)] == [(1, "b")]
    assert "valence" in rejections(table)[0].reason
    assert rejections(table.take([1]))[0].id == "b"
