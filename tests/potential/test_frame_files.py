"""Labelled frames come out of files as they went in, whoever wrote them."""

import gzip

import numpy as np
import pyarrow as pa
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory, write
from labelled import table

from naica.data import CrystalTable, Level, dataset
from naica.errors import InputError, LevelError
from naica.potential.frame_files import write_frames
from naica.potential.frames import frames

VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="version" type="string">6.4.1</i></generator>
 <incar><i type="int" name="NSW"> 1</i></incar>
 <kpoints><varray name="kpointlist"><v> 0 0 0 </v></varray><varray name="weights"><v> 1 </v></varray></kpoints>
 <atominfo><atoms> 2 </atoms><types> 1 </types>
  <array name="atoms"><dimension dim="1">ion</dimension><field type="string">element</field><field type="int">atomtype</field>
   <set><rc><c>Si</c><c> 1</c></rc><rc><c>Si</c><c> 1</c></rc></set></array>
 </atominfo>
 <structure name="initialpos">{structure}</structure>
 <calculation>
  <scstep><energy><i name="e_fr_energy"> -10.85 </i><i name="e_wo_entrp"> -10.80 </i><i name="e_0_energy"> -10.825 </i></energy></scstep>
  <structure>{structure}</structure>
  <varray name="forces"><v> 0.1 0.0 -0.2</v><v> -0.1 0.0 0.2</v></varray>
  <varray name="stress"><v> 10.0 1.0 0.0</v><v> 1.0 20.0 0.0</v><v> 0.0 0.0 -30.0</v></varray>
  <energy><i name="e_fr_energy"> -10.85 </i><i name="e_wo_entrp"> -10.80 </i><i name="e_0_energy"> -10.825 </i></energy>
 </calculation>
</modeling>
"""
STRUCTURE = """<crystal><varray name="basis"><v> 0.0 2.7 2.7</v><v> 2.7 0.0 2.7</v><v> 2.7 2.7 0.0</v></varray>
 <i name="volume"> 39.366 </i></crystal>
 <varray name="positions"><v> 0.0 0.0 0.0</v><v> 0.26 0.25 0.25</v></varray>"""


def test_vasp(tmp_path):
    path = tmp_path / "vasprun.xml"
    path.write_text(VASPRUN.format(structure=STRUCTURE))
    given = frames(f"{path}@PBE")
    # the forces are slopes of the free energy; VASP's stress is compressive and in kbar
    assert given.labels["energy"].tolist() == pytest.approx([-10.85])
    assert given.labels["forces"][0].tolist() == pytest.approx([0.1, 0.0, -0.2])
    assert given.labels["stress"][0, 0, 0] * 160.21766208 == pytest.approx(-1.0, rel=1e-4)
    assert given.labels["stress"][0, 0, 1] * 160.21766208 == pytest.approx(-0.1, rel=1e-4)
    assert given.level_of_theory == Level("PBE")


def test_trajectory_of_ase(tmp_path):
    path = tmp_path / "run.traj"
    with Trajectory(str(path), "w") as out:
        for k in range(3):
            atoms = bulk("Cu", cubic=True)
            atoms.rattle(0.1, seed=k)
            atoms.calc = EMT()
            atoms.get_potential_energy()
            atoms.get_stress()
            out.write(atoms)
    given = frames(path, Level("EMT"))
    assert given.coverage == {"energy": 3, "forces": 3, "stress": 3}
    assert set(given.text("trajectory")) == {str(path)}


def test_output_of_gpaw(tmp_path):
    # the lines of GPAW's text output that hold a result
    path = tmp_path / "gpaw.txt"
    path.write_text(
        "\n  ___ ___ ___ _ _ _  \n |   |   |_  | | | | \n | | | | | . | | | | \n |__ |  _|___|_____|  24.1.0\n |___|_|             \n\n"
        "Positions:\n   0 H      3.000000    3.000000    3.000000    ( 0.0000,  0.0000,  0.0000)\n"
        "   1 H      3.000000    3.000000    3.740000    ( 0.0000,  0.0000,  0.0000)\n\n"
        "Unit cell:\n           periodic     x           y           z      points  spacing\n"
        "  1. axis:    no     6.000000    0.000000    0.000000    32     0.1875\n"
        "  2. axis:    no     0.000000    6.000000    0.000000    32     0.1875\n"
        "  3. axis:    no     0.000000    0.000000    6.740000    36     0.1872\n\n"
        "Energy contributions relative to reference atoms: (reference = -26.3)\n\n"
        "Free energy:     -6.650000\nExtrapolated:    -6.640000\n\n"
        "Forces in eV/Ang:\n  0 H     0.00000    0.00000   -0.50000\n  1 H     0.00000    0.00000    0.50000\n\n"
    )
    given = frames(path, Level("PBE", code="GPAW"))
    # the text output gives the reader the energy extrapolated to no smearing
    assert given.labels["energy"][0] == pytest.approx(-6.64)
    assert given.labels["forces"][1, 2] == pytest.approx(0.5)


def test_extended_xyz_with_gaps_virials_and_zipped(tmp_path):
    periodic, free = bulk("Cu", cubic=True), molecule("H2O")
    forces = np.arange(12.0).reshape(4, 3)
    virial = np.arange(9.0).reshape(3, 3)
    virial = virial + virial.T
    periodic.info |= {"REF_energy": -3.5, "virial": virial, "config_type": "md"}
    periodic.arrays["REF_forces"] = forces
    free.info |= {"REF_energy": -14.0}
    plain = tmp_path / "mixed.xyz"
    write(str(plain), [periodic, free], format="extxyz")
    zipped = tmp_path / "mixed.extxyz.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, zipped):
        given = frames(path, Level("PBE"))
        assert given.labels["energy"].tolist() == [-3.5, -14.0]
        assert np.array_equal(given.labels["forces"][:4], forces)
        assert np.isnan(given.labels["forces"][4:]).all()
        assert given.labels["stress"][0] == pytest.approx(-virial / periodic.cell.volume)
        assert np.isnan(given.labels["stress"][1]).all()  # a molecule has none
        assert given.text("group") == ["md", ""]


def test_moments_and_charges(tmp_path):
    atoms = bulk("Fe", cubic=True)
    results = {"energy": -16.0, "forces": np.zeros((2, 3)), "magmoms": np.array([2.2, -2.3]), "charges": np.array([0.1, -0.1])}
    atoms.calc = SinglePointCalculator(atoms, **results)
    write(str(tmp_path / "iron.extxyz"), atoms)
    given = frames(tmp_path / "iron.extxyz", Level("PBE"))
    assert given.labels["magmom"].tolist() == [2.2, -2.3]
    assert given.labels["charge"].tolist() == [0.1, -0.1]


@pytest.mark.parametrize("ending", ["extxyz", "extxyz.gz", "parquet"])
def test_written_and_read_again(tmp_path, ending):
    whole = frames(table(5))
    path = tmp_path / f"frames.{ending}"
    write_frames(whole.table, path)
    again = frames(path, Level("EMT"))
    assert again.coverage == whole.coverage
    for name, values in whole.labels.items():
        np.testing.assert_allclose(again.labels[name], values, atol=1e-6)


def test_unusual_names_and_several_sources(tmp_path):
    atoms = bulk("Cu")
    atoms.info["E_hi"] = -1.0
    atoms.info["E_lo"] = -2.0
    write(str(tmp_path / "a.xyz"), atoms, format="extxyz")
    assert frames(tmp_path / "a.xyz", names={"energy": "E_hi"}).labels["energy"].tolist() == [-1.0]
    with pytest.raises(InputError, match="no column 'E_mid'"):
        frames(tmp_path / "a.xyz", names={"energy": "E_mid"})
    with pytest.raises(InputError, match="no energies and no forces"):
        frames(tmp_path / "a.xyz")
    write_frames(table(2), tmp_path / "b.extxyz")
    write_frames(table(2, seed=1), tmp_path / "c.extxyz")
    assert len(frames([f"{tmp_path}/b.extxyz@PBE", f"{tmp_path}/c.extxyz@PBE"])) == 4
    with pytest.raises(LevelError, match="level of theory"):
        frames([f"{tmp_path}/b.extxyz@PBE", f"{tmp_path}/c.extxyz@r2SCAN"])
    assert frames([f"{tmp_path}/b.extxyz@PBE", f"{tmp_path}/c.extxyz@r2SCAN"], fidelity=True).levels == ("PBE", "r2SCAN")


def test_wrong_numbers_are_told_with_file_and_frame(tmp_path):
    atoms = bulk("Cu")
    atoms.info |= {"energy": "low", "config_type": "x"}
    write(str(tmp_path / "bad.xyz"), atoms, format="extxyz")
    with pytest.raises(InputError, match=r"bad.xyz, frame 0: energy is no number"):
        frames(tmp_path / "bad.xyz")
    (tmp_path / "worse.xyz").write_text("3\nno\nH 0 0\n")
    with pytest.raises(InputError, match=r"worse.xyz cannot be read"):
        frames(tmp_path / "worse.xyz")


def test_registered_sets_by_part():
    if not dataset("mlearn").present:
        pytest.skip("data set mlearn is not on this machine (naica data pull mlearn)")
    copper = frames("mlearn:Cu")
    assert copper.elements == (29,)
    assert set(copper.text("split")) == {"train", "test"}
    assert len(copper.part("test")) == 31
    assert copper.level_of_theory is not None
    one = frames("mlearn:Cu_test")
    assert len(one) == 31
    with pytest.raises(InputError, match="no file of set"):
        frames("mlearn:Fe")


def test_tables_keep_their_labels(tmp_path):
    whole = table(3)
    assert isinstance(whole, CrystalTable)
    odd = whole.with_column(
        "forces", pa.array([None, *whole.arrow["forces"].to_pylist()[1:]], pa.large_list(pa.float64())), whole.labels["forces"]
    )
    assert frames(odd).coverage["forces"] == 2
    whole.write(tmp_path / "t.parquet")
    assert frames(tmp_path / "t.parquet").level_of_theory == Level("EMT")
