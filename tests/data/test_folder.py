import json

import pytest

from naica.data import Label, Level
from naica.data.folder import from_csv, from_folder, read_csv
from naica.errors import InputError, LevelError
from naica.structure.io import write

from .conftest import rock_salt

PBE = Level("PBE")
UNIT = "eV/atom"
QUANTITY = "formation_energy_per_atom"


@pytest.fixture
def folder(tmp_path):
    """Four CIFs a to d."""
    for k, name in enumerate("abcd"):
        write(rock_salt("Mg", "O", 4.2 + 0.1 * k), tmp_path / f"{name}.cif")
    return tmp_path


def _csv(folder, text, name="id_prop.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def _load(folder, column="e_form", **more):
    return from_folder(folder, column=column, unit=UNIT, level=PBE, quantity=QUANTITY, **more)


def test_headerless_csv_of_two_columns(folder):
    _csv(folder, "a,-1.0\nb,-2\nc,-3e0\nd, -4 \n")
    cleaned = _load(folder)
    assert cleaned.rejected == []
    assert cleaned.table.ids == list("abcd")
    assert cleaned.table.column("e_form").tolist() == [-1, -2, -3, -4]
    assert cleaned.table.labels == {"e_form": Label(QUANTITY, UNIT, PBE)}
    assert cleaned.table[1].formula == "MgO"


def test_header_and_further_columns(folder):
    path = _csv(folder, "formula,id,year,e_form,word\nNaN,a,1999,-1,x\nMgO,b,2000,-2,\nnull,c,,-3,NaN\nNA,d,2001,-4,y\n", "mine.csv")
    table = _load(folder, csv=path).table
    assert table.ids == list("abcd")
    assert table.arrow["formula"].to_pylist() == ["NaN", "MgO", "null", "NA"]
    assert table.arrow["word"].to_pylist() == ["x", "", "NaN", "y"]
    assert table.column("year")[[0, 1, 3]].tolist() == [1999, 2000, 2001]


def test_a_formula_column_with_only_nan_stays_text(folder):
    _csv(folder, "id,formula,e_form\na,NaN,-1\n")
    assert _load(folder).table.arrow["formula"].to_pylist() == ["NaN"]


def test_header_with_byte_order_mark_and_crlf(folder):
    (folder / "id_prop.csv").write_bytes("\ufeffid,e_form\r\na,-1\r\n\r\nb,-2\r\n".encode())
    assert _load(folder).table.ids == ["a", "b"]


def test_every_bad_row_is_one_rejection(folder):
    (folder / "broken.cif").write_text("data_x\n_cell_length_a 4\nloop_\n")
    (folder / "empty.cif").write_text("")
    _csv(folder, "id,e_form\na,-1\nmissing,-1\nb,\nc,abc\na,-2\nb,NaN\nbroken,-1\nempty,-1\nd\nd,inf\nd,-4\n")
    cleaned = _load(folder)
    assert cleaned.table.ids == ["a", "d"]
    found = {r.row: (r.id, r.kind) for r in cleaned.rejected}
    assert found == {
        1: ("missing", "missing file"),
        2: ("b", "label not a finite number"),
        3: ("c", "label not a finite number"),
        4: ("a", "repeated id"),
        5: ("b", "label not a finite number"),
        6: ("broken", "unreadable structure"),
        7: ("empty", "unreadable structure"),
        8: ("d", "ragged line"),
        9: ("d", "label not a finite number"),
    }
    reasons = {r.row: r.reason for r in cleaned.rejected}
    assert "no structure file missing.cif" in reasons[1]
    assert "line 5: e_form is 'abc'; expected a number" in reasons[3]
    assert "line 6: id 'a' stands on line 2 already" in reasons[4]
    assert "broken.cif" in reasons[6]
    assert "empty (0 bytes)" in reasons[7]
    assert "1 cells for 2 columns (id, e_form)" in reasons[8]


def test_overlapping_and_duplicate_structures_are_rejections_of_the_right_row(folder):
    (folder / "twin.cif").write_text((folder / "d.cif").read_text())
    _csv(folder, "nothing,-1\na,-1\nd,-1\ntwin,-2\n")
    cleaned = _load(folder)
    assert [(r.row, r.id, r.kind) for r in cleaned.rejected] == [(0, "nothing", "missing file"), (3, "twin", "duplicate")]
    assert _load(folder, duplicates=None).table.ids == ["a", "d", "twin"]


def test_missing_column_lists_the_columns(folder):
    _csv(folder, "id,formula,bandgap\na,MgO,1\n")
    with pytest.raises(InputError, match=r"no column 'e_form'; its columns are id, formula, bandgap"):
        _load(folder)
    _csv(folder, "a,1,2\nb,1,2\n")
    with pytest.raises(InputError, match=r"id, value1, value2 \(it has no header"):
        _load(folder)
    assert _load(folder, column="value2").table.column("value2").tolist() == [2, 2]


def test_unitless_and_wrong_units(folder):
    _csv(folder, "a,1\n")
    with pytest.raises(LevelError, match=r"no unit.*pass unit='eV/atom'"):
        from_folder(folder, column="e_form", quantity=QUANTITY)
    with pytest.raises(LevelError, match="meV/atom"):
        from_folder(folder, column="e_form", unit="meV/atom", quantity=QUANTITY)
    with pytest.raises(InputError, match=r"pass quantity=.*band_gap"):
        from_folder(folder, column="e_form", unit=UNIT)
    with pytest.raises(InputError, match="did you mean"):
        from_folder(folder, column="e_form", unit=UNIT, quantity="formation_energy")


def test_a_column_named_after_a_quantity_needs_no_more(folder):
    _csv(folder, "id,band_gap\na,1.5\n")
    assert from_folder(folder, column="band_gap", unit="eV").table.labels["band_gap"] == Label("band_gap", "eV", None)


def test_missing_places(folder, tmp_path):
    with pytest.raises(InputError, match=r"no such CSV file.*id_prop\.csv"):
        _load(folder)
    with pytest.raises(InputError, match="no such folder"):
        _load(tmp_path / "nowhere")
    _csv(folder, "\n \n")
    with pytest.raises(InputError, match="is empty"):
        _load(folder)
    (folder / "id_prop.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="is no CSV text"):
        _load(folder)


def test_progress_counts_every_row(folder):
    _csv(folder, "a,1\nnothing,2\nb,3\n")
    seen = []
    _load(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_header_is_told_from_data(tmp_path):
    assert read_csv(_csv(tmp_path, "x,1\n")).header is False
    assert read_csv(_csv(tmp_path, "id,value\nx,1\n")).header is True
    assert read_csv(_csv(tmp_path, "id,2019\nx,1\n"), ["2019"]).header is True


def test_csv_with_structures_as_text_or_files(folder):
    cif = (folder / "a.cif").read_text().replace('"', '""')
    state = json.dumps(rock_salt("Ca", "O", 4.8).to_pymatgen().as_dict()).replace('"', '""')
    poscar = "MgO\n1.0\n0 2.1 2.1\n2.1 0 2.1\n2.1 2.1 0\nMg O\n1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n"
    bad = "_cell_length_a\nnonsense"
    text = f'id,cif,band_gap\ntext,"{cif}",1\nfile,b.cif,2\njson,"{state}",3\nposcar,"{poscar}",4\nbad,"{bad}",5\ngone,z.cif,6\n'
    cleaned = from_csv(_csv(folder, text), "band_gap", "eV", PBE)
    assert cleaned.table.ids == ["text", "file", "json", "poscar"]
    assert [c.formula for c in cleaned.table] == ["MgO", "MgO", "CaO", "MgO"]
    assert "cif" not in cleaned.table.columns
    assert [(r.id, r.kind) for r in cleaned.rejected] == [("bad", "unreadable structure"), ("gone", "missing file")]
    assert "the structure text" in cleaned.rejected[0].reason


def test_published_sample_of_the_original_format(published):
    from naica.data import dataset

    if not dataset("cgcnn_pretrained").present:
        pytest.skip("data set cgcnn_pretrained is not on this machine")
    place = dataset("cgcnn_pretrained").path("sample_regression/id_prop.csv").parent
    cleaned = from_folder(place, column="formation_energy_per_atom", unit=UNIT, level=PBE)
    assert len(cleaned.table) + len(cleaned.rejected) == 10
    assert "1000041" in cleaned.table.ids


def test_words_for_a_class(folder):
    _csv(folder, "id,is_metal\na,True\nb,false\nc,maybe\nd,2\n")
    cleaned = from_folder(folder, column="is_metal")
    assert cleaned.table.column("is_metal").tolist() == [1.0, 0.0]
    assert [(r.id, r.kind) for r in cleaned.rejected] == [("c", "label not a finite number"), ("d", "label is no class")]
    assert "expected 0 or 1, or true or false" in cleaned.rejected[0].reason


def test_a_list_per_row_for_labels_of_atoms(folder):
    atoms = len(rock_salt("Mg", "O", 4.2))
    full = json.dumps([0.5] * (atoms - 1) + [None])
    _csv(folder, f'id,magmom\na,"{full}"\nb,{"1.5 " * atoms}\nc,"[1.0]"\nd,"[up, down]"\n')
    cleaned = from_folder(folder, column="magmom", unit="μ_B")
    first, second = cleaned.table.arrow["magmom"].to_pylist()
    assert first[0] == 0.5
    assert first[-1] != first[-1]
    assert second == [1.5] * atoms
    assert cleaned.rejected[0].reason == f"line 4: 1 values of magmom for {atoms} atoms"
    assert "expected a number for each atom" in cleaned.rejected[1].reason


def test_a_bad_further_label_rejects_its_row_alone(folder):
    _csv(folder, "id,band_gap,is_metal\na,1.0,\nb,0,yes\nc,2.0,perhaps\nd,,no\n")
    cleaned = from_folder(folder, column="band_gap", unit="eV", gaps=True, also={"is_metal": Label("is_metal", "")})
    assert cleaned.table.ids == ["a", "b", "d"]
    assert cleaned.table.column("is_metal").tolist()[1:] == [1.0, 0.0]
    assert cleaned.table.labels["is_metal"] == Label("is_metal", "")
    assert [r.reason for r in cleaned.rejected] == ["line 4: is_metal is 'perhaps'; expected 0 or 1, or true or false"]


def test_one_structure_at_several_temperatures(folder):
    path = _csv(folder, "file,heat_capacity,temperature\na.cif,20,200\na.cif,25,300\nb.cif,21,200\n", "t.csv")
    given = {"column": "heat_capacity", "unit": "J/(mol K)", "duplicates": None}
    kept = from_csv(path, **given, repeats=True)
    assert kept.table.ids == ["a.cif", "a.cif (line 3)", "b.cif"]
    assert kept.table.column("temperature").tolist() == [200, 300, 200]
    assert [r.kind for r in from_csv(path, **given).rejected] == ["repeated id"]


def test_smiles_in_the_first_column_stay(tmp_path):
    pytest.importorskip("rdkit")
    path = _csv(tmp_path, "smiles,log_solubility\nCCO,1\nc1ccccc1,-1\n", "sol.csv")
    table = from_csv(path, column="log_solubility", unit="log10(mol/L)").table
    assert table.arrow["smiles"].to_pylist() == ["CCO", "c1ccccc1"]


def test_unknown_column_proposes_the_nearest_quantity(folder):
    _csv(folder, "id,bandgap\na,1\n")
    with pytest.raises(InputError, match=r"did you mean band_gap\?.*--quantity.*is_metal") as told:
        from_folder(folder, column="bandgap", unit="eV")
    assert "n_atoms" not in str(told.value)
    assert "dielectric_tensor" not in str(told.value)
