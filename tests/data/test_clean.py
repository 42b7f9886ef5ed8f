import csv

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.data import CrystalTable, checks
from naica.data.clean import clean
from naica.errors import InputError
from naica.structure import Crystal

from .conftest import rock_salt


def broken_table() -> CrystalTable:
    """Fifteen rows: row 0 and 14 are good, each of the others has one fault."""
    good = [rock_salt("Na", "Cl", 5.6 + 0.01 * k) for k in range(15)]
    counts, numbers, positions, cells, pbc = (np.array(a) for a in CrystalTable.from_crystals(good).flat())
    numbers[2 * 1] = 0
    numbers[2 * 2 + 1] = 120
    positions[2 * 3] = np.nan
    cells[4] = np.inf
    cells[5] = 0
    cells[6][2] = cells[6][1]
    positions[2 * 7 + 1] = positions[2 * 7] + 0.2
    positions[2 * 8 + 1] = positions[2 * 8] + cells[8][0] - cells[8][2] + [0.1, 0, 0]
    cells[9] *= 10
    energy = np.linspace(-2, -1, 15)
    energy[10], energy[11], energy[12] = np.nan, np.inf, 40.0
    positions[26:28], cells[13] = positions[0:2], cells[0]
    ids = [f"r{k}" for k in range(15)]
    return CrystalTable.from_arrays(ids, counts, numbers, positions, cells, pbc, {"energy": energy})


EXPECTED = {
    1: "no valid structure",
    2: "no valid structure",
    3: "no valid structure",
    4: "no valid structure",
    5: "no valid structure",
    6: "no valid structure",
    7: "overlapping atoms",
    8: "overlapping atoms",
    9: "exploded cell",
    10: "label not a finite number",
    11: "label not a finite number",
    12: "outlier",
    13: "duplicate",
}


def test_every_fault_is_one_row_with_its_reason():
    table = broken_table()
    cleaned = clean(table, ["energy"], outliers=8)
    assert {r.row: r.kind for r in cleaned.rejected} == EXPECTED
    assert [r.id for r in cleaned.rejected] == [f"r{k}" for k in EXPECTED]
    assert cleaned.table.ids == ["r0", "r14"]
    reasons = {r.row: r.reason for r in cleaned.rejected}
    assert "atomic number 0" in reasons[1]
    assert "atomic number 120" in reasons[2]
    assert "NaN" in reasons[3]
    assert "no volume" in reasons[5]
    assert "0.346 Å apart" in reasons[7]
    assert "0.100 Å apart" in reasons[8]
    assert "energy is nan" in reasons[10]
    assert "row 0, r0" in reasons[13]


def test_nothing_is_lost(tmp_path):
    table = broken_table()
    cleaned = clean(table, ["energy"], outliers=8)
    assert sorted(cleaned.table.ids + cleaned.dropped.ids) == sorted(table.ids)
    cleaned.write_rejections(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(r["row"]) for r in rows] == list(EXPECTED)
    assert cleaned.rejections().to_pylist()[0]["id"] == "r1"
    report = cleaned.report(examples=2)
    assert report.startswith("kept 2 of 15 rows; rejected 13:")
    assert "6 × no valid structure" in report
    assert "… and 4 more" in report


def test_a_clean_table_stays_as_it_is(salts):
    cleaned = clean(salts, ["e_form"])
    assert cleaned.rejected == []
    assert cleaned.table.arrow.equals(salts.arrow)
    assert cleaned.table.labels == salts.labels
    assert cleaned.report() == "kept 12 of 12 rows"


def test_limits_and_switches(salts):
    big = clean([rock_salt(), rock_salt("K", "Br", 6.6).supercell([2, 2, 2])], max_atoms=10)
    assert [(r.row, r.kind) for r in big.rejected] == [(1, "too many atoms")]
    assert len(clean([rock_salt(), rock_salt()], duplicates=None).table) == 2
    assert [r.kind for r in clean([rock_salt(), rock_salt()]).rejected] == ["duplicate"]
    box = [rock_salt().replace(cell=np.eye(3) * 30)]
    assert [r.kind for r in clean(box).rejected] == ["exploded cell"]
    assert clean(box, max_volume_ratio=None).rejected == []
    twice = CrystalTable.concat([salts, salts.take([0]).with_column("id", ["LiF"])])
    assert [r.kind for r in clean(twice).rejected] == ["repeated id"]


def test_same_crystal_in_another_setting_is_a_duplicate_for_the_matcher():
    pytest.importorskip("naica.structure.match")
    crystals = [rock_salt("Mg", "O", 4.2), rock_salt("Mg", "O", 4.2).supercell([1, 1, 2]), rock_salt("Ca", "O", 4.8)]
    assert len(clean(crystals).table) == 3
    assert [(r.row, r.kind) for r in clean(crystals, duplicates="structure").rejected] == [(1, "duplicate")]


def test_errors_among_crystals_are_rows():
    cleaned = clean([rock_salt(), InputError("broken.cif: no cell"), rock_salt("K", "F", 5.3)])
    assert [(r.row, r.reason) for r in cleaned.rejected] == [(1, "broken.cif: no cell")]
    assert len(cleaned.table) == 2
    third = clean([InputError("x"), rock_salt(), rock_salt()])
    assert [(r.row, r.kind) for r in third.rejected] == [(0, "unreadable structure"), (2, "duplicate")]


def test_wrong_arguments(salts):
    with pytest.raises(InputError, match="no column 'gap'"):
        clean(salts, ["gap"])
    with pytest.raises(InputError, match="holds no numbers"):
        clean(salts.with_column("word", ["x"] * 12), ["word"])
    with pytest.raises(InputError, match="expected crystals"):
        clean([1, 2])
    with pytest.raises(InputError, match="choose exact, structure"):
        clean(salts, duplicates="fuzzy")


def test_null_labels_are_rejected(salts):
    table = salts.with_column("gap", pa.array([None, 1.0] * 6, pa.float64()))
    assert len(clean(table, ["gap"]).table) == 6


def test_empty_table():
    assert len(clean(CrystalTable.from_crystals([])).table) == 0


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_overlaps_agree_with_the_exact_distance(seed):
    """Random cells, skewed and flat ones too, periodic in all, some or no directions: the bulk test finds what the slow one finds."""
    rng = np.random.default_rng(seed)
    crystals = []
    for _ in range(8):
        n = int(rng.integers(1, 6))
        cell = np.eye(3) * rng.uniform(0.8, 6, 3) + rng.normal(0, 1.0, (3, 3))
        pbc = rng.random(3) < 0.8
        if abs(np.linalg.det(cell)) < 0.3:
            continue
        cell = np.where(pbc[:, None], cell, 0.0) if rng.random() < 0.3 else cell
        crystals.append(Crystal(rng.integers(1, 90, n), rng.uniform(-3, 6, (n, 3)), cell, pbc))
    table = CrystalTable.from_crystals(crystals)
    for limit in (0.5, 1.2):
        found = checks.overlapping(table, limit)
        exact = {row: c.min_distance() for row, c in enumerate(crystals) if c.min_distance() < limit}
        assert found.keys() == exact.keys()
        assert all(abs(found[row] - exact[row]) < 1e-9 for row in exact)


def test_real_sets_pass(published):
    for name in ("perovskites", "mp20"):
        assert clean(published(name), ["e_form"]).rejected == []
