import bz2
import gzip
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from known import crystals, perovskite, rock_salt, slab, spinel, water

from naica.errors import InputError, NaicaError
from naica.structure import Crystal
from naica.structure.io import check_overlap, read, read_many, write
from naica.structure.match import same_structure

SYMMETRIC_CIF = """data_NaCl
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 {occupancy}
Cl1 Cl 0.5 0.5 0.5 1
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- round trips ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.json", "a.traj", "a.json.gz"])
@pytest.mark.parametrize("make", [rock_salt, spinel, perovskite, water, slab])
def test_json_and_traj_keep_everything(here, name, make):
    crystal = make()
    write(crystal, name)
    back = read(name)
    assert np.array_equal(back.numbers, crystal.numbers)
    assert np.abs(back.positions - crystal.positions).max() < 1e-9
    assert np.array_equal(back.pbc, crystal.pbc)


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.xyz.gz", "a.extxyz.bz2", "a.extxyz.xz"])
@pytest.mark.parametrize("make", [rock_salt, spinel, water, slab])
def test_extxyz_keeps_eight_decimals(here, name, make):
    crystal = make()
    write(crystal, name)
    back = read(name)
    assert np.array_equal(back.numbers, crystal.numbers)
    assert np.abs(back.positions - crystal.positions).max() < 1e-8
    assert np.abs(back.cell - crystal.cell).max() < 1e-8


@pytest.mark.parametrize("name", ["a.cif", "a.cif.gz", "POSCAR", "CONTCAR.gz", "a.vasp", "a.poscar", "a.xsf", "geometry.in", "a.res"])
@pytest.mark.parametrize("make", [rock_salt, spinel])
def test_crystal_formats_keep_the_structure(here, name, make):
    write(make(), name)
    back = read(name)
    assert back.composition == make().composition
    assert same_structure(make(), back) == pytest.approx(0, abs=1e-4)
    assert back.volume == pytest.approx(make().volume, rel=1e-4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crystals(max_atoms=3))
def test_any_triclinic_cell_survives_cif_and_poscar(tmp_path, crystal):
    if crystal.min_distance() < 0.55:
        return
    write(crystal, tmp_path / "a.cif")
    back = read(tmp_path / "a.cif")
    # a CIF forgets how the cell is turned, so compare what does not turn: the metric and the fractional coordinates; its cells are
    # right-handed, so a left-handed one comes back with all three vectors reversed, and not as the mirror image
    hand = np.sign(np.linalg.det(crystal.cell))
    assert np.linalg.det(back.cell) > 0
    assert np.allclose(back.cell @ back.cell.T, crystal.cell @ crystal.cell.T, atol=1e-5)
    difference = back.fractional - hand * crystal.fractional
    assert np.abs(difference - np.round(difference)).max() < 1e-6
    assert np.array_equal(back.numbers, crystal.numbers)
    write(crystal, tmp_path / "POSCAR")
    assert back.composition == read(tmp_path / "POSCAR").composition


def test_symmetry_of_a_cif_is_expanded(here):
    (here / "salt.cif").write_text(SYMMETRIC_CIF.format(occupancy=1))
    crystal = read("salt.cif")
    assert crystal.composition == {"Na": 4, "Cl": 4}
    assert same_structure(crystal, rock_salt()) == pytest.approx(0, abs=1e-6)


def test_blocks_without_atoms_are_passed_over(here):
    (here / "salt.cif").write_text("data_global\n_journal_year 1999\n\n" + SYMMETRIC_CIF.format(occupancy=1))
    assert read("salt.cif").formula == "NaCl"


def test_atoms_keep_the_order_of_the_file(here):
    mixed = perovskite().supercell([1, 1, 2])
    assert mixed.symbols == ["Sr", "Ti", "O", "O", "O"] * 2
    for name in ("a.cif", "POSCAR", "a.xyz", "a.json"):
        write(mixed, name)
        assert read(name).symbols == mixed.symbols


def test_a_cif_without_any_symmetry_is_p1(here):
    lines = [line for line in SYMMETRIC_CIF.format(occupancy=1).splitlines() if not line.startswith("_symmetry")]
    (here / "p1.cif").write_text("\n".join(lines))
    assert read("p1.cif").composition == {"Na": 1, "Cl": 1}


def test_thirds_rounded_in_a_cif_make_no_extra_atoms(here):
    # 0.3333 under a threefold axis gives three atoms 0.0003 Å apart unless the reader knows about rounding
    (here / "mg.cif").write_text(
        "data_Mg\n_cell_length_a 3.21\n_cell_length_b 3.21\n_cell_length_c 5.21\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 120\n_symmetry_space_group_name_H-M 'P 63/m m c'\n_symmetry_Int_Tables_number 194\nloop_\n_atom_site_label\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nMg 0.3333 0.6667 0.25\n"
    )
    assert read("mg.cif").composition == {"Mg": 2}


def test_energy_and_forces_travel_through_extxyz(here):
    crystal = rock_salt().replace(info={"energy": -6.75, "forces": np.full((2, 3), 0.5), "stress": np.diag([0.1, 0.2, 0.3])})
    write(crystal, "a.extxyz")
    back = read("a.extxyz")
    assert back.info["energy"] == pytest.approx(-6.75)
    assert np.allclose(back.info["forces"], 0.5)
    assert np.allclose(back.info["stress"], np.diag([0.1, 0.2, 0.3]))


def test_a_plain_xyz_file_is_a_molecule(here):
    (here / "co.xyz").write_text("2\ncarbon monoxide\nC 0 0 0\nO 0 0 1.13\n")
    assert read("co.xyz").pbc.tolist() == [False, False, False]
    assert read("co.xyz").formula == "CO"


def test_pymatgen_dictionaries_and_ase_databases(here):
    structure, molecule = rock_salt().to_pymatgen(), water().to_pymatgen()
    (here / "one.json").write_text(structure.to_json())
    (here / "mol.json").write_text(json.dumps(molecule.as_dict()))
    (here / "many.json").write_text(json.dumps([structure.as_dict(), structure.as_dict()]))
    assert read("one.json").formula == "NaCl"
    assert read("mol.json").formula == "H2O"
    assert len(read("many.json")) == 2

    from ase.db import connect

    with connect("db.json") as database:
        database.write(rock_salt().to_ase())
        database.write(perovskite().to_ase())
    assert [c.formula for c in read("db.json")] == ["NaCl", "SrTiO3"]


def test_formats_only_pymatgen_reads(here):
    rock_salt().to_pymatgen().to("a.cssr", fmt="cssr")
    rock_salt().to_pymatgen().to("b.yaml", fmt="yaml")
    assert same_structure(read("a.cssr"), rock_salt()) < 1e-3
    assert same_structure(read("b.yaml"), rock_salt()) < 1e-6
    with gzip.open("c.yaml.gz", "wb") as packed:
        packed.write((here / "b.yaml").read_bytes())
    assert same_structure(read("c.yaml.gz"), rock_salt()) < 1e-6


def test_format_can_be_named(here):
    write(rock_salt(), "thing", format="vasp")
    assert read("thing", format="vasp").formula == "NaCl"
    write(rock_salt(), "other", format="cif")
    assert read("other", format="cif").formula == "NaCl"
    write(rock_salt(), "third", format="json")
    assert read("third", format="json").formula == "NaCl"


# --- frames --------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["f.extxyz", "f.traj", "f.json", "f.cif"])
def test_frames(here, name):
    frames = [rock_salt().scaled(1 + 0.1 * k) for k in range(3)]
    write(frames, name)
    volumes = [f.volume for f in frames]
    assert [c.volume for c in read(name)] == pytest.approx(volumes, rel=1e-6)
    assert read(name, index=1).volume == pytest.approx(volumes[1], rel=1e-6)
    assert read(name, index=-1).volume == pytest.approx(volumes[2], rel=1e-6)
    assert len(read(name, index=":")) == 3
    assert [c.volume for c in read(name, index="::2")] == pytest.approx(volumes[::2], rel=1e-6)
    assert [c.volume for c in read(name, index="-1")] == pytest.approx(volumes[-1:], rel=1e-6)
    assert len(read(name, index=slice(1, 3))) == 2
    with pytest.raises(InputError, match=r"has 3 structures; there is no number 3"):
        read(name, index=3)
    with pytest.raises(InputError, match="cannot read 'last' as an index"):
        read(name, index="last")


def test_one_frame_is_a_crystal_unless_a_list_is_asked_for(here):
    write(rock_salt(), "one.xyz")
    assert isinstance(read("one.xyz"), Crystal)
    assert isinstance(read("one.xyz", index=":"), list)


# --- bad input -----------------------------------------------------------------------------------------------------------------
def bad(here, name, content, *words):
    (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read(name)
    message = str(caught.value)
    assert message.startswith(name)
    for word in words:
        assert word in message
    return message


def test_no_such_file_names_the_neighbours(here):
    write(rock_salt(), "MgAl2O4.cif")
    with pytest.raises(InputError, match=r"no such file: MgAl2O3.cif; did you mean MgAl2O4.cif\?"):
        read("MgAl2O3.cif")
    with pytest.raises(InputError, match=r"nothing in .* has a name like it"):
        read("xyzzy")
    with pytest.raises(InputError, match="the folder nowhere does not exist either"):
        read("nowhere/a.cif")


def test_a_folder_is_not_a_file(here):
    (here / "set").mkdir()
    with pytest.raises(InputError, match=r"set is a folder.*naica\.data\.folder"):
        read("set")


@pytest.mark.parametrize("name", ["a.cif", "POSCAR", "a.xyz", "a.json"])
def test_empty_files(here, name):
    bad(here, name, "", "is empty")


@pytest.mark.parametrize("name", ["a.cif", "a.json"])
def test_blank_files(here, name):
    bad(here, name, " \n\n", "empty")


def test_an_empty_gzip_file(here):
    bad(here, "a.cif.gz", gzip.compress(b""), "empty")


def test_a_gzip_file_that_is_none(here):
    bad(here, "a.cif.gz", "data_NaCl", "cannot be read", "gzip")


def test_broken_cifs(here):
    whole = SYMMETRIC_CIF.format(occupancy=1)
    bad(here, "cut.cif", whole[: whole.index("loop_")], "no _atom_site loop", "expected a CIF with cell lengths")
    bad(here, "nocell.cif", whole.replace("_cell_length_a 5.64\n", ""), "no _cell_length_a in this CIF")
    bad(here, "text.cif", "hello, I am no CIF\n", "not a CIF", "data_")
    bad(here, "word.cif", whole.replace("Cl 0.5 0.5 0.5", "Cl 0.5 half 0.5"), "cannot be read", "half")
    bad(here, "element.cif", whole.replace("Cl1 Cl", "Qq1 Qq"), "site 0", "Qq", "expected a chemical element")
    bad(here, "flat.cif", whole.replace("_cell_length_c 5.64", "_cell_length_c 0"), "cannot be read")
    bad(here, "nan.cif", whole.replace("_cell_length_c 5.64", "_cell_length_c nan"), "NaN")
    bad(here, "full.cif", SYMMETRIC_CIF.format(occupancy=1.7), "cannot be read", "ccupancy")
    bad(here, "group.cif", whole.replace("F m -3 m", "Q 9 9").replace("225", "999"), "symmetry 'Q 9 9' / '999' is not understood")
    bad(here, "binary.cif", bytes(range(256)) * 4, "not a CIF")


def test_partial_occupancy_is_refused_and_the_site_named(here):
    bad(here, "a.cif", SYMMETRIC_CIF.format(occupancy=0.5), "site 0", "Na", "0.5", "disordered", "whole atom")


def test_overlapping_atoms_are_named_with_their_distance(here):
    text = "3\nthree\nC 0 0 0\nO 0 0 1.13\nO 0 0 1.33\n"
    bad(here, "a.xyz", text, "atoms 1 (O) and 2 (O)", "0.200 Å", "0.5 Å")
    tiny = Crystal([29], [[0, 0, 0]], [0.4, 5.0, 5.0])
    with pytest.raises(InputError, match=r"atom 0 \(Cu\) and its own periodic image are 0\.400 Å apart"):
        check_overlap(tiny)
    check_overlap(Crystal(["H", "H"], [[0, 0, 0], [0, 0, 0.74]]))


def test_an_overlap_in_a_later_frame_says_which(here):
    text = "2\n\nC 0 0 0\nO 0 0 1.13\n2\n\nC 0 0 0\nO 0 0 0.13\n"
    bad(here, "a.xyz", text, "a.xyz (structure 1)", "0.130 Å")
    assert read("a.xyz", index=0).formula == "CO"


def test_unknown_formats_list_the_known_ones(here):
    bad(here, "a.qqq", "some words\n", "neither the name", "cif", "extxyz", "POSCAR", "format=")
    with pytest.raises(InputError, match="unknown format 'vaps'; did you mean vasp"):
        read_as(here, "vaps")


def read_as(here, format):
    (here / "x").write_text("1\n")
    return read("x", format=format)


def test_broken_files_of_other_formats(here):
    bad(here, "POSCAR", "NaCl\n1.0\n1 0 0\n0 1 0\n", "cannot be read", "complete file")
    bad(here, "a.xyz", "3\n\nC 0 0 0\n", "cannot be read")
    bad(here, "b.xyz", "1\n\nQq 0 0 0\n", "b.xyz")
    bad(here, "c.xyz", "1\n\nC 0 0 nan\n", "NaN")
    bad(here, "a.json", '{"a": 1}', "JSON without a structure", "found a")
    bad(here, "b.json", '{"a": ', "not JSON", "line 1")
    bad(here, "c.json", "[]", "JSON without a structure")
    bad(here, "d.json", '{"lattice": {}, "sites": []}', "cannot be read")
    bad(here, "e.json", "3", "JSON without a structure")
    bad(here, "a.traj", b"\x00" * 64, "cannot be read")


def test_a_zero_volume_cell_in_a_file(here):
    text = '1\nLattice="1 0 0 2 0 0 0 0 1" pbc="T T T"\nC 0 0 0\n'
    bad(here, "a.extxyz", text, "no volume")


def test_writing_what_a_format_cannot_hold(here):
    with pytest.raises(InputError, match=r"a\.cif: a CIF needs three periodic directions.*\.xyz or \.json"):
        write(water(), "a.cif")
    with pytest.raises(InputError, match=r"POSCAR: the format vasp holds one structure; 2 were given"):
        write([rock_salt(), rock_salt()], "POSCAR")
    with pytest.raises(InputError, match="cannot tell which format to write; known extensions"):
        write(rock_salt(), "a.qqq")
    with pytest.raises(InputError, match="can be read but not written"):
        write(rock_salt(), "a.castep")
    with pytest.raises(InputError, match="the list of structures is empty"):
        write([], "a.cif")
    with pytest.raises(InputError, match=r"cannot write nowhere/a\.cif: No such file or directory"):
        write(rock_salt(), "nowhere/a.cif")


# --- in bulk -------------------------------------------------------------------------------------------------------------------
def test_one_bad_file_is_one_error_among_many(here):
    write(rock_salt(), "a.cif")
    (here / "b.cif").write_text("rubbish")
    write([perovskite(), rock_salt()], "c.xyz")
    found = list(read_many(["a.cif", "b.cif", "missing.cif", "c.xyz"]))
    assert [path.name for path, _ in found] == ["a.cif", "b.cif", "missing.cif", "c.xyz", "c.xyz"]
    kinds = [isinstance(value, NaicaError) for _, value in found]
    assert kinds == [False, True, True, False, False]
    assert "not a CIF" in str(found[1][1])


def test_reading_many_is_lazy(here):
    write(rock_salt(), "a.cif")

    def names():
        yield "a.cif"
        raise AssertionError("the second path was asked for before the first result was used")

    path, crystal = next(iter(read_many(names())))
    assert (path.name, crystal.formula) == ("a.cif", "NaCl")


def test_bz2_text(here):
    write(rock_salt(), "a.cif")
    (here / "b.cif.bz2").write_bytes(bz2.compress((here / "a.cif").read_bytes()))
    assert read("b.cif.bz2").formula == "NaCl"
