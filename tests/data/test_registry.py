import gzip
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naica.data import CrystalTable, data_root, dataset, extxyz, load_set, parquet, registry, sets
from naica.errors import InputError, LevelError, MissingPart

NAMES = [
    *("perovskites", "mp_formation", "mp20", "mpts52", "wbm_10k", "wbm_972", "elastic_mp", "aflow", "phonons", "phonon_dos"),
    *("heat_capacity", "dielectric", "piezoelectric", "exfoliation", "superconductor_tc", "carbon24", "nomad2018"),
]


def test_every_set_says_what_it_is():
    assert set(NAMES) <= {s.name for s in sets()}
    for one in sets():
        assert one.title, one.name
        assert one.files, one.name
        assert all([one.licence, one.citation, one.source]), one.name
        assert all(len(f.sha256) == 64 and f.bytes > 0 for f in one.files)
        assert one.rows or not one.loads
        assert all(label.level is not None for label in one.labels.values())


def test_every_published_file_belongs_to_a_set():
    known = {f.path for one in sets() for f in one.files}
    assert known == set(registry._file_facts())


def test_unknown_set_proposes_a_name():
    with pytest.raises(InputError, match="did you mean perovskites"):
        dataset("perovskite")


def test_data_root_obeys_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NAICA_DATA", str(tmp_path))
    assert data_root() == tmp_path


def test_data_root_without_environment(monkeypatch, tmp_path):
    """Beside the repository, else beside the current folder, else the user's cache."""
    monkeypatch.delenv("NAICA_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = tmp_path / "somewhere" / "repo" / "src" / "registry.py"
    work = tmp_path / "elsewhere" / "work"
    for folder in (package.parent, work):
        folder.mkdir(parents=True)
    monkeypatch.setattr(registry, "__file__", str(package))
    monkeypatch.chdir(work)
    assert data_root() == tmp_path / "cache" / "naica" / "data"
    (tmp_path / "elsewhere" / "shared" / "data").mkdir(parents=True)
    assert data_root() == tmp_path / "elsewhere" / "shared" / "data"
    (package.parents[1] / "pyproject.toml").write_text("")
    (tmp_path / "somewhere" / "shared" / "data").mkdir(parents=True)
    assert data_root() == tmp_path / "somewhere" / "shared" / "data"


def test_missing_files_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("NAICA_DATA", str(tmp_path))
    with pytest.raises(MissingPart, match=r"naica data pull perovskites.*NAICA_DATA.*deepchem"):
        load_set("perovskites")


def test_files_only_sets_hand_out_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("NAICA_DATA", str(tmp_path))
    with pytest.raises(InputError, match="is files, not a table"):
        load_set("element_refs")
    with pytest.raises(InputError, match="several files"):
        dataset("compositions").path()
    with pytest.raises(InputError, match=r"no file 'nothing\.csv'"):
        dataset("compositions").path("nothing.csv")


# conformers of these take minutes and more on first use; tests/data/test_molecules.py loads parts of them
EMBEDDED = ("tox21", "muv")


@pytest.mark.parametrize("name", [s.name for s in sets() if s.loads and s.name not in EMBEDDED])
def test_loads_with_rows_labels_and_valid_crystals(name, published):
    one, table = dataset(name), published(name)
    assert len(table) == one.rows
    assert table.labels == dict(one.labels)
    assert len(set(table.ids)) == len(table)
    if one.split:
        assert set(table.arrow["split"].to_pylist()) <= {"train", "val", "test", None}
    counts, numbers, positions, cells, pbc = table.flat()
    assert len(positions) == len(numbers) == counts.sum()
    assert np.isfinite(positions).all()
    assert numbers.min() >= 1
    assert (pbc.all(axis=1) == (np.abs(np.linalg.det(cells)) > 0)).all()


def test_perovskites_meet_their_threshold_exactly(published):
    """0.2 eV/atom in single precision is 0.200000003: the labels must be the decimals of the source."""
    table = published("perovskites")
    energy = table.column("e_form")
    assert (energy <= 0.2).sum() == 256
    assert (energy == np.round(energy, 2)).all()
    assert {"A", "B", "X", "heat_all", "heat_ref", "dir_gap", "ind_gap", "split"} <= set(table.columns)
    assert np.isfinite(table.column("heat_all")).sum() == 7286
    with pytest.raises(LevelError, match="RPBE"):
        CrystalTable.concat([table.take([0]), published("mp_formation").take([0])])


def test_geometry_is_the_published_one(published):
    crystal = published("mp_formation", ids=["mp-2"])[0]
    raw = pq.read_table(dataset("mp_formation").path(), filters=[("id", "==", "mp-2")]).to_pylist()[0]
    lattice = np.array(raw["lattice"]).reshape(3, 3)
    expected = np.array(raw["frac"]).reshape(-1, 3) @ lattice
    np.testing.assert_allclose(crystal.positions, expected, atol=1e-6)
    np.testing.assert_allclose(crystal.cell, lattice, atol=1e-6)


def test_sodium_nitride_is_text(published):
    table = published("mp_formation")
    formulas = table.arrow["formula"].to_pylist()
    assert formulas.count("NaN") == 2
    assert None not in formulas
    assert table.take([formulas.index("NaN")])[0].formula == "NaN"


def test_published_benchmark_split_sizes(published):
    words = published("mp_formation").arrow["split"].to_pylist()
    assert [words.count(w) for w in ("train", "val", "test", None)] == [31390, 2550, 2208, 26774]


def test_ids_and_parts_choose_rows(published):
    assert published("mp_formation", ids=["mp-14", "mp-2"]).ids == ["mp-14", "mp-2"]
    with pytest.raises(InputError, match="no rows with id nothing"):
        published("mp_formation", ids=["mp-14", "nothing"])
    copper = published("mlearn", part="Cu")
    assert len(copper) == 267
    assert set(copper.flat()[1]) == {29}
    with pytest.raises(InputError, match="has 'Xx' in its name"):
        load_set("mlearn", part="Xx")


def test_forces_are_those_of_the_file(published):
    from ase.io import read

    table = published("nbmotaw", part="test")
    frames = read(dataset("nbmotaw").path("test.extxyz.gz"), ":5")
    for row, atoms in enumerate(frames):
        forces = np.asarray(table.arrow["forces"][row].values).reshape(-1, 3)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(table.column("energy")[row], atoms.get_potential_energy())
        np.testing.assert_allclose(np.asarray(table.arrow["stress"][row].values).reshape(3, 3), atoms.get_stress(voigt=False))
        np.testing.assert_allclose(table[row].positions, atoms.positions)
        np.testing.assert_allclose(table[row].cell, atoms.cell.array)


def test_units_are_converted_on_loading(published):
    table = published("qm9", ids=["gdb9-000004"])
    raw = pq.read_table(dataset("qm9").path(), filters=[("id", "==", "gdb9-000004")]).to_pylist()[0]
    assert table.labels["HOMO"].unit == "eV"
    np.testing.assert_allclose(table.column("HOMO")[0], raw["HOMO"] * 27.211386, rtol=1e-6)


def test_loading_is_fast(published):
    published("mp_formation")
    start = time.process_time()
    table = load_set("mp_formation")
    assert time.process_time() - start < 5
    start = time.process_time()
    atoms = sum(len(crystal) for crystal in table)
    assert len(table) / (time.process_time() - start) > 20_000
    assert atoms == table.flat()[0].sum()


# --- broken files ----------------------------------------------------------------------------------------------------------
def test_broken_parquet_names_the_file(tmp_path):
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match=r"bad\.parquet cannot be read as Parquet"):
        parquet.load(path, dataset("mp20"))
    pq.write_table(pa.table({"id": ["a"], "natoms": [1]}), path)
    with pytest.raises(InputError, match="has no column"):
        parquet.load(path, dataset("mp20"))


def _xyz(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some_train.extxyz.gz"
    with gzip.open(path, "wt") as handle:
        handle.write(text)
    return path


FRAME = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 note="a b" pbc="T T T"\n'
ATOMS = "Li 0 0 0 0 0 1\nF 2 2 2 0 0 -1\n"


def test_extended_xyz_frames(tmp_path):
    table = extxyz.load([_xyz(tmp_path, FRAME + ATOMS + FRAME.replace("-1.5", "-2.5") + ATOMS)], dataset("li3n"))
    assert table.ids == ["some_train-0", "some_train-1"]
    assert table.column("energy").tolist() == [-1.5, -2.5]
    assert table.arrow["note"].to_pylist() == ["a b", "a b"]
    assert table.arrow["split"].to_pylist() == ["train", "train"]
    assert table.arrow["forces"].to_pylist()[0] == [0, 0, 1, 0, 0, -1]
    assert table[1].formula == "LiF"
    assert json.loads(table.labels["forces"].to_json())["unit"] == "eV/Å"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FRAME + "Li 0 0 0 0 0 1\n", "line 1: expected a number of atoms"),
        (FRAME + ATOMS + "x\n", "line 5: expected a number of atoms"),
        (FRAME + ATOMS.replace("2 2 2", "2 2"), "differ in their number of columns"),
        (FRAME + ATOMS.replace("2 2 2", "2 x 2"), "could not convert"),
        (FRAME.replace("0 0 4", "0 0") + ATOMS, "expected 9 numbers"),
        (FRAME + ATOMS.replace("Li", "Qq"), "Qq"),
        ("", "holds no frames"),
        (FRAME + ATOMS + FRAME.replace(":forces:R:3", ":f:R:3") + ATOMS, "different atom columns"),
    ],
)
def test_broken_extended_xyz_says_where(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        extxyz.load([_xyz(tmp_path, text)], dataset("li3n"))


def test_truncated_gzip(tmp_path):
    path = _xyz(tmp_path, (FRAME + ATOMS) * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        extxyz.load([path], dataset("li3n"))
