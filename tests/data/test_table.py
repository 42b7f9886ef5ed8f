import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from naica.data import CrystalTable, Label, Level
from naica.errors import InputError, LevelError
from naica.structure import Crystal

from .conftest import PBE, rock_salt

E_FORM = Label.of("formation_energy_per_atom", PBE)


def test_iteration_gives_the_crystals(salts):
    for row, crystal in enumerate(salts):
        other = salts[row]
        assert crystal == other
        assert crystal.info == other.info == {"id": salts.ids[row]}
        for name in ("numbers", "positions", "cell", "pbc"):
            a, b = getattr(crystal, name), getattr(other, name)
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert not a.flags.writeable
        assert pickle.loads(pickle.dumps(crystal)) == crystal
        assert crystal.scaled(1.1).volume == pytest.approx(1.1 * crystal.volume)


def test_iteration_of_molecules_slabs_and_slices():
    crystals = [
        Crystal(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]]),
        Crystal(["C"], [[0, 0, 0]], np.diag([2.5, 2.5, 20]), [True, True, False]),
        rock_salt(),
    ]
    table = CrystalTable.from_crystals(crystals)
    assert list(table) == crystals
    assert list(table.take([2, 0])) == [crystals[2], crystals[0]]
    assert list(CrystalTable(table.arrow.slice(1, 2))) == crystals[1:]
    assert list(CrystalTable.concat([table, table])) == crystals * 2
    assert list(table.take([])) == []


def test_a_bad_row_stops_iteration_with_the_reason(salts):
    counts, numbers, positions, cells, pbc = (np.array(a) for a in salts.flat())
    positions[5] = np.nan
    table = CrystalTable.from_arrays(salts.ids, counts, numbers, positions, cells, pbc)
    rows = iter(table)
    assert next(rows) == salts[0]
    assert next(rows) == salts[1]
    with pytest.raises(InputError, match="NaN"):
        next(rows)


def test_round_trip_through_parquet(salts, tmp_path):
    salts.write(tmp_path / "t.parquet")
    again = CrystalTable.read(tmp_path / "t.parquet")
    assert again.labels == salts.labels
    assert list(again) == list(salts)
    with pytest.raises(InputError, match="no such table"):
        CrystalTable.read(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(InputError, match="is not a Parquet file"):
        CrystalTable.read(tmp_path / "bad.parquet")


def test_levels_do_not_mix(salts):
    other = salts.with_column("e_form", salts.arrow["e_form"], Label.of("formation_energy_per_atom", Level("RPBE")))
    with pytest.raises(LevelError, match=r"PBE \[test\].*RPBE"):
        CrystalTable.concat([salts, other])
    with pytest.raises(LevelError, match="unknown"):
        CrystalTable.concat([salts, salts.with_column("e_form", salts.arrow["e_form"], Label.of("formation_energy_per_atom"))])
    with pytest.raises(LevelError, match="band_gap in one table"):
        CrystalTable.concat([salts.with_column("e_form", salts.arrow["e_form"], Label.of("band_gap", PBE)), salts])
    both = CrystalTable.concat([salts, other], fidelity=True)
    assert both.labels["e_form"].level is None
    assert both.arrow["fidelity"].to_pylist() == ["PBE [test]"] * 12 + ["RPBE"] * 12


def test_versions_of_one_method_mix(salts):
    newer = Label.of("formation_energy_per_atom", Level("PBE", code="other", version="2"))
    both = CrystalTable.concat([salts, salts.with_column("e_form", salts.arrow["e_form"], newer)])
    assert both.labels["e_form"].level == Level("PBE", code="several")


def test_labels_need_the_unit():
    with pytest.raises(LevelError, match=r"pass unit='eV/atom'"):
        Label("formation_energy_per_atom", "")
    with pytest.raises(LevelError, match="naica keeps it in 'eV'"):
        Label("band_gap", "meV")
    assert Label.from_json(E_FORM.to_json()) == E_FORM


def test_columns_that_do_not_fit(salts):
    with pytest.raises(InputError, match="3 values for 12 crystals"):
        salts.with_column("x", [1, 2, 3])
    with pytest.raises(InputError, match="no column 'x'; the table has id,"):
        salts.column("x")
    with pytest.raises(InputError, match="labels given for columns that are not there: gap"):
        CrystalTable.from_crystals([rock_salt()], labels={"gap": Label.of("band_gap")})
    with pytest.raises(InputError, match="not a crystal table"):
        CrystalTable(pa.table({"id": ["a"]}))
    with pytest.raises(InputError, match="nothing to join"):
        CrystalTable.concat([])


def test_data_loads_neither_torch_nor_pymatgen_nor_ase():
    code = "import sys, naica.data, naica.data.clean, naica.data.folder, naica.data.fetch, naica.data.query; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pymatgen", "ase", "pandas", "duckdb", "plotly"} & set(loaded)
