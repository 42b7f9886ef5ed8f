"""VASP by files: inputs of Materials Project, outputs read back, a program played by a script, and MP2020 corrections."""

from __future__ import annotations

import sys
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk

from naica.discover.dft.corrections import mismatch, mp2020, mp_potentials, mp_u
from naica.discover.dft.protocol import GPA
from naica.discover.dft.vasp import VaspOracle, read_vasp
from naica.discover.oracle import make_oracle
from naica.errors import ConfigError, InputError, LevelError, RunError
from naica.structure import Crystal

SAMPLES = Path(ase.__file__).parent / "test" / "testdata" / "vasp"
needs_samples = pytest.mark.skipif(not (SAMPLES / "vasprun_dfpt.xml").is_file(), reason="this ASE came without its test data")


def compound(formula: str, a: float) -> Crystal:
    return Crystal.from_ase(bulk(formula, "rocksalt", a=a))


def told(place: Path) -> dict[str, str]:
    lines = (place / "INCAR").read_text().splitlines()
    return {key.strip(): value.strip() for key, value in (line.split("=", 1) for line in lines if "=" in line)}


# --- inputs -----------------------------------------------------------------------------------------------------------------------
def test_inputs_are_those_of_materials_project(tmp_path: Path) -> None:
    oracle = VaspOracle(str(tmp_path), elements=["Mg", "O"])
    place = oracle.write(compound("MgO", 4.25))
    incar = told(place)
    assert (float(incar["ENCUT"]), incar["ISPIN"], incar["LASPH"], float(incar["EDIFF"])) == (520.0, "2", "True", pytest.approx(1e-4))
    assert "LDAUU" not in incar
    assert (place / "KPOINTS").is_file()
    assert "Mg_pv" in (place / "POTCAR.spec").read_text()
    back = Crystal.from_ase(__import__("ase.io", fromlist=["read"]).read(place / "POSCAR"))
    assert back.composition == {"Mg": 1, "O": 1}
    assert back.volume == pytest.approx(4.25**3 / 4)


def test_iron_oxide_gets_its_u_and_the_protocol_overrides(tmp_path: Path) -> None:
    assert "5.3" in told(VaspOracle(str(tmp_path)).write(compound("FeO", 4.3)))["LDAUU"]
    oracle = VaspOracle(str(tmp_path), {"cutoff": 600, "cell": False, "steps": 7}, kind="relax")
    incar = told(oracle.write(compound("NaCl", 5.6)))
    assert (float(incar["ENCUT"]), incar["ISIF"], incar["NSW"]) == (600.0, "2", "7")


def test_a_campaign_waits_for_results(tmp_path: Path) -> None:
    oracle = make_oracle("vasp", folder=str(tmp_path), elements=["Na", "Cl"])
    jobs = {"a": compound("NaCl", 5.6), "b": compound("NaCl", 5.7)}
    with pytest.raises(RunError, match=r"2 of 2 structures wait for VASP.*give the same command again"):
        oracle.await_inputs(jobs)  # type: ignore[attr-defined]
    places = sorted(tmp_path.iterdir())
    assert len(places) == 2
    assert all((place / "INCAR").is_file() for place in places)
    assert "no vasprun.xml" in oracle.evaluate([jobs["a"]])[0].reason


# --- outputs ----------------------------------------------------------------------------------------------------------------------
@needs_samples
def test_reading_a_real_output() -> None:
    run = read_vasp(SAMPLES / "vasprun_dfpt.xml")
    assert run.crystal.formula == "NaCl"
    assert run.energy == pytest.approx(-6.74587304)
    assert run.forces is not None
    assert np.abs(run.forces).max() < 1e-8
    # compressed to 40.6 Å³ (46.2 at rest): the crystal pushes, which is a negative stress of some 3.6 GPa
    assert run.stress is not None
    assert np.trace(run.stress) / 3 * GPA == pytest.approx(-3.609, abs=1e-3)
    assert (run.functional, run.cutoff, run.electronic, run.gap) == ("PBE", 400.0, True, pytest.approx(5.4988))
    assert read_vasp(SAMPLES / "vasprun_pstress.xml").functional == "LDA"


@needs_samples
def test_broken_outputs(tmp_path: Path) -> None:
    whole = (SAMPLES / "vasprun_dfpt.xml").read_text()
    (tmp_path / "vasprun.xml").write_text(whole[: len(whole) // 3])
    with pytest.raises(InputError, match="cut off"):
        read_vasp(tmp_path)
    with pytest.raises(InputError, match=r"no vasprun.xml"):
        read_vasp(tmp_path / "nothing" if (tmp_path / "nothing").mkdir() is None else tmp_path)


@needs_samples
def test_a_run_of_another_level_is_no_result(tmp_path: Path) -> None:
    asked = read_vasp(SAMPLES / "vasprun_dfpt.xml").crystal
    oracle = VaspOracle(str(tmp_path), kind="static")
    (oracle.write(asked) / "vasprun.xml").write_bytes((SAMPLES / "vasprun_dfpt.xml").read_bytes())
    done = oracle.evaluate([asked])[0]
    assert done.status == "failed"
    assert "cut-off is 400 eV" in done.reason


def _as_mp(text: str) -> str:
    """The sample as Materials Project would have run it: the cut-off and the potentials it names."""
    return text.replace("PAW_PBE Na 08Apr2002", "PAW_PBE Na_pv 19Sep2006").replace('"ENMAX">    400.00000000', '"ENMAX">    520.00000000')


@needs_samples
def test_a_program_is_run_repaired_and_read(tmp_path: Path) -> None:
    asked = read_vasp(SAMPLES / "vasprun_dfpt.xml").crystal
    (tmp_path / "good.xml").write_text(_as_mp((SAMPLES / "vasprun_dfpt.xml").read_text()))
    # fails the first time as VASP does, and succeeds once ALGO has changed
    script = tmp_path / "vasp.py"
    script.write_text(
        "import pathlib, shutil\n"
        "if 'Algo = All' in pathlib.Path('INCAR').read_text().replace('ALGO', 'Algo'):\n"
        f"    shutil.copy({str(tmp_path / 'good.xml')!r}, 'vasprun.xml')\n"
        "else:\n"
        "    print('WARNING: Sub-Space-Matrix is not hermitian in DAV')\n"
    )
    oracle = VaspOracle(str(tmp_path / "runs"), {"steps": 5}, command=f"{sys.executable} {script}", kind="static")
    place = oracle.write(asked)
    assert "POTCAR" in oracle.evaluate([asked])[0].reason  # nobody told where the library is
    _with_potcar(oracle, place)
    done = oracle.evaluate([asked])[0]
    assert (done.status, done.energy) == ("converged", pytest.approx(-6.74587304))
    assert done.reason == "repaired: orthogonality of bands lost"
    assert (place / "attempt-1" / "vasp.out").is_file()
    assert done.level.version == "6.3.2"
    assert done.level.same(oracle.level)
    # the second time nothing runs
    script.unlink()
    assert oracle.evaluate([asked])[0].energy == done.energy


def _with_potcar(oracle: VaspOracle, place: Path) -> None:
    write = oracle.write

    def both(crystal: Crystal, changes: object = None) -> Path:
        made = write(crystal, changes)  # type: ignore[arg-type]
        (made / "POTCAR").write_text("licensed\n")
        return made

    oracle.write = both  # type: ignore[method-assign]
    (place / "POTCAR").write_text("licensed\n")


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected relax or static"):
        VaspOracle(str(tmp_path), kind="md")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="PBEsol"):
        VaspOracle(str(tmp_path), {"functional": "PBEsol"})


# --- corrections ------------------------------------------------------------------------------------------------------------------
def settings(crystal: Crystal, **changes: object) -> dict[str, object]:
    names = [f"PAW_PBE {name} 01Jan2000" for name in mp_potentials(crystal.composition).values()]
    return {"functional": "PBE", "cutoff": 520.0, "hubbard_u": mp_u(crystal.composition), "potentials": names, **changes}


def test_oxide_correction() -> None:
    crystal = compound("MgO", 4.25)
    done = mp2020(crystal, -12.0, **settings(crystal))  # type: ignore[arg-type]
    assert done.correction == pytest.approx(-0.687, abs=1e-6)
    assert done.energy == pytest.approx(-12.687, abs=1e-6)
    assert sum(done.parts.values()) == pytest.approx(done.correction)
    assert done.version.startswith("MP2020, pymatgen 20")
    doubled = crystal.supercell([2, 1, 1])
    assert mp2020(doubled, -24.0, **settings(doubled)).correction == pytest.approx(-2 * 0.687)  # type: ignore[arg-type]


def test_metal_with_u_and_elements() -> None:
    oxide = compound("FeO", 4.3)
    assert mp_u(oxide.composition) == {"Fe": 5.3}
    assert mp2020(oxide, -12.0, **settings(oxide)).correction == pytest.approx(-0.687 - 2.256)  # type: ignore[arg-type]
    iron = Crystal.from_ase(bulk("Fe"))
    assert mp_u(iron.composition) == {}
    assert mp2020(iron, -8.0, **settings(iron)).correction == 0.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"functional": "PBEsol"}, "functional is PBEsol"),
        ({"cutoff": 400.0}, "400 eV, below"),
        ({"hubbard_u": {}}, "its U is none"),
        ({"hubbard_u": {"Fe": 4.0}}, r"'Fe': 4.0.*'Fe': 5.3"),
        ({"potentials": ["PAW_PBE Fe 06Sep2000", "PAW_PBE O 08Apr2002"]}, "Fe_pv"),
    ],
)
def test_other_levels_are_refused(change: dict[str, object], reason: str) -> None:
    oxide = compound("FeO", 4.3)
    assert not mismatch(oxide.composition, **settings(oxide))  # type: ignore[arg-type]
    with pytest.raises(LevelError, match=reason):
        mp2020(oxide, -12.0, **settings(oxide, **change))  # type: ignore[arg-type]


@needs_samples
def test_corrected_results_say_so(tmp_path: Path) -> None:
    asked = read_vasp(SAMPLES / "vasprun_dfpt.xml").crystal
    oracle = VaspOracle(str(tmp_path), {"corrections": "mp2020"}, kind="static")
    (oracle.write(asked) / "vasprun.xml").write_text(_as_mp((SAMPLES / "vasprun_dfpt.xml").read_text()))
    done = oracle.evaluate([asked])[0]
    assert done.energy == pytest.approx(-6.74587304 - 0.614)
    assert "Cl" in done.reason
    assert done.level.corrections == "MP2020"
