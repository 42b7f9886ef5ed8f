"""Input of programs that may not be here, written through ASE with placeholders for program and data; CP2K itself where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from naica.discover.dft import codes
from naica.discover.dft.codes import RYDBERG, code
from naica.discover.dft.protocol import DftProtocol
from naica.discover.oracle import make_oracle
from naica.errors import ConfigError, InputError, MissingPart
from naica.structure import Crystal


def program(folder: Path, name: str) -> Path:
    file = folder / name
    file.write_text("#!/bin/sh\nexit 0\n")
    file.chmod(0o755)
    return file


def silicon() -> Crystal:
    return Crystal.from_ase(bulk("Si", a=5.43))


PROTOCOL = DftProtocol(cutoff=400, k_spacing=0.4, width=0.05)


def test_espresso_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAICA_PWX", str(program(tmp_path, "pw.x")))
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(tmp_path))
    (tmp_path / "Si.pbe-n-rrkjus_psl.1.0.0.UPF").write_text("")
    assert code("espresso").elements() == {"Si"}
    calc = code("espresso").make(silicon(), PROTOCOL, 400.0, {"mixing_beta": 0.1}, tmp_path)
    atoms = silicon().to_ase()
    calc.write_inputfiles(atoms, ["energy"])  # type: ignore[attr-defined]
    text = (tmp_path / "espresso.pwi").read_text().split()
    assert float(text[text.index("ecutwfc") + 2]) == pytest.approx(400 / RYDBERG, abs=1e-3)
    assert float(text[text.index("degauss") + 2]) == pytest.approx(0.05 / RYDBERG, abs=1e-5)
    assert text[text.index("mixing_beta") + 2] == "0.1"
    assert text[text.index("K_POINTS") + 2 : text.index("K_POINTS") + 5] == ["6", "6", "6"]
    assert "Si.pbe-n-rrkjus_psl.1.0.0.UPF" in text
    with pytest.raises(InputError, match="no pseudopotential for Cu"):
        code("espresso").make(Crystal.from_ase(bulk("Cu")), PROTOCOL, 400.0, {}, tmp_path)


def test_abinit_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAICA_ABINIT", str(program(tmp_path, "abinit")))
    monkeypatch.setenv("ABINIT_PP_PATH", str(tmp_path))
    (tmp_path / "Si.GGA_PBE-JTH.xml").write_text("")
    calc = code("abinit").make(silicon(), PROTOCOL, 400.0, {"nstep": 150}, tmp_path)
    calc.write_inputfiles(silicon().to_ase(), ["energy"])  # type: ignore[attr-defined]
    lines = dict(line.split(maxsplit=1) for line in (tmp_path / "abinit.in").read_text().splitlines() if len(line.split()) > 1)
    assert lines["ecut"] == "400.0 eV"
    assert lines["tsmear"] == "0.05 eV"
    assert lines["ngkpt"] == "6 6 6"
    assert lines["nstep"] == "150"
    assert float(lines["toldfe"].removesuffix("eV")) == pytest.approx(1e-4)
    assert "Si.GGA_PBE-JTH.xml" in lines["pseudos"]


def test_what_adapters_cannot_do() -> None:
    for name in ("cp2k", "espresso", "abinit"):
        with pytest.raises(ConfigError, match="no Hubbard U"):
            code(name).check(DftProtocol(hubbard_u={"Fe": 4.0}))
    with pytest.raises(ConfigError, match="SCAN"):
        code("cp2k").check(DftProtocol(functional="SCAN"))
    code("gpaw").check(DftProtocol(hubbard_u={"Fe": 4.0}))


def test_pseudopotential_files_are_told_by_element(tmp_path: Path) -> None:
    for name in ("si_pbe_v1.UPF", "C.pbe.UPF", "Cu_ONCV.upf", "readme.UPF", "cu_other.UPF"):
        (tmp_path / name).write_text("")
    assert codes._pseudo_files(tmp_path, "*.[Uu][Pp][Ff]") == {"Si": "si_pbe_v1.UPF", "C": "C.pbe.UPF", "Cu": "Cu_ONCV.upf"}


@pytest.mark.slow
def test_cp2k_itself() -> None:
    try:
        oracle = make_oracle("cp2k", protocol={"cutoff": 300 * RYDBERG, "k_spacing": 0.8, "steps": 0}, elements=["Si"], cache=False)
    except MissingPart as error:
        pytest.skip(str(error))
    base = silicon()
    moved = base.replace(positions=base.positions + np.array([[0, 0, 0], [0.06, 0.0, 0.0]]))
    step = 0.01
    plus, minus = (moved.replace(positions=moved.positions + np.array([[0, 0, 0], [s * step, 0, 0]])) for s in (1, -1))
    here, up, down = oracle.evaluate([moved, plus, minus])
    assert here.status == "converged", here.reason
    assert here.forces is not None
    assert up.energy is not None
    assert down.energy is not None
    assert here.forces[1, 0] == pytest.approx(-(up.energy - down.energy) / (2 * step), abs=0.02)
