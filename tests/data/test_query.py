import sys

import numpy as np
import pyarrow as pa
import pytest

from naica.data import CrystalTable
from naica.data.query import query, to_pandas, to_polars
from naica.errors import InputError, MissingPart


def test_rows_come_back_as_crystals_with_labels(salts):
    found = salts.query("SELECT * FROM data WHERE e_form < -2 ORDER BY e_form DESC")
    assert isinstance(found, CrystalTable)
    assert found.labels == salts.labels
    energies = found.column("e_form")
    assert (np.diff(energies) < 0).all()
    assert len(found) == (salts.column("e_form") < -2).sum()
    by_id = dict(zip(salts.ids, salts, strict=True))
    assert all(crystal == by_id[key] for key, crystal in zip(found.ids, found, strict=True))


def test_anything_else_comes_back_as_arrow(salts):
    found = query(salts, "SELECT count(*) AS n, min(e_form) AS low FROM data")
    assert isinstance(found, pa.Table)
    assert found.to_pylist() == [{"n": 12, "low": -3.0}]


@pytest.mark.parametrize(
    ("sql", "kept"),
    [
        ("SELECT * FROM data", True),
        ("SELECT d.* FROM data d", True),
        ("SELECT id, numbers, positions, cell, pbc, e_form FROM data", True),
        ("SELECT *, e_form * 2 AS twice FROM data", True),
        ("SELECT * REPLACE (e_form * 1000 AS e_form) FROM data", False),
        ("SELECT * EXCLUDE (e_form), e_form * 1000 AS e_form FROM data", False),
        ("SELECT id, numbers, positions, cell, pbc, e_form * 1000 AS e_form FROM data", False),
        ("SELECT id, numbers, positions, cell, pbc, other AS e_form FROM data", False),
        ("SELECT * FROM (SELECT * REPLACE (e_form * 1000 AS e_form) FROM data)", False),
        ("WITH t AS (SELECT * REPLACE (e_form * 1000 AS e_form) FROM data) SELECT * FROM t", False),
    ],
)
def test_a_label_survives_only_where_its_numbers_do(salts, sql, kept):
    found = query(salts.with_column("other", np.zeros(12)), sql)
    assert ("e_form" in found.labels) is kept


def test_files_and_several_tables(salts, tmp_path):
    salts.write(tmp_path / "salts.parquet")
    (tmp_path / "more.csv").write_text("id,formula,year\nLiF,NaN,1990\nNaCl,NaN,\n")
    assert len(query(tmp_path / "salts.parquet", "SELECT * FROM data LIMIT 3")) == 3
    found = query({"s": salts, "m": tmp_path / "more.csv"}, "SELECT s.id, formula, year FROM s JOIN m USING (id) ORDER BY id")
    assert found.to_pylist() == [{"id": "LiF", "formula": "NaN", "year": 1990}, {"id": "NaCl", "formula": "NaN", "year": None}]


def test_bad_sql_and_missing_files(salts, tmp_path):
    with pytest.raises(InputError, match='"e_frm" not found'):
        query(salts, "SELECT e_frm FROM data")
    with pytest.raises(InputError, match="cannot be run"):
        query(salts, "SELEC *")
    with pytest.raises(InputError, match="no such file"):
        query(tmp_path / "none.parquet", "SELECT 1")


def test_pandas_and_polars(salts):
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    frame = to_pandas(salts)
    assert isinstance(frame, pandas.DataFrame)
    assert frame["id"].tolist() == salts.ids
    assert frame["e_form"].to_numpy(dtype=float) == pytest.approx(salts.column("e_form"))
    assert isinstance(to_polars(salts), polars.DataFrame)
    assert to_polars(salts)["e_form"].to_list() == salts.column("e_form").tolist()


def test_without_pandas_the_message_says_what_to_install(salts, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingPart, match="pip install pandas"):
        to_pandas(salts)
    with pytest.raises(MissingPart, match="pip install polars"):
        to_polars(salts)
