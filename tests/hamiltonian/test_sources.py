"""Codes that make matrices, where they are installed; workflows that go on after a kill."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from naica.errors import ConfigError, InputError
from naica.hamiltonian import checks, workflow
from naica.hamiltonian.sources import source
from naica.hamiltonian.sources.cp2k import _placed
from naica.structure import Crystal

WATER = Crystal(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]]))
needs_cp2k = pytest.mark.skipif(shutil.which("cp2k.psmp") is None, reason="CP2K is not installed (apt install cp2k cp2k-data)")


def turned(name: str, settings: dict):
    return lambda q: source(name)(WATER.replace(positions=WATER.positions @ q.T), settings)


@pytest.mark.parametrize(("name", "package", "limit"), [("tblite", "tblite", 1e-8), ("pyscf", "pyscf", 5e-3)])
def test_molecules_turn_and_have_the_codes_own_orbital_energies(name, package, limit):
    pytest.importorskip(package)
    one = source(name)(WATER, {})
    assert all(f.passed for f in checks.findings(one))
    assert checks.rotation_error(turned(name, {})) < limit
    assert one.electrons in (8, 10)


def test_h0_of_pyscf_is_near_h_and_not_it():
    pytest.importorskip("pyscf")
    one = source("pyscf")(WATER, {"grid": 1, "forces": True})
    left = one.blocks["H"] - one.blocks["H0"] - one.gauge("H", "H0") * one.blocks["S"]
    assert 0.05 < np.abs(left).mean() / np.abs(one.blocks["H"]).mean() < 0.1 or np.abs(left).mean() < 0.6
    assert one.forces.shape == (3, 3)
    np.testing.assert_allclose(one.forces.sum(0), 0, atol=2e-2)


def test_what_a_source_cannot_do_is_told():
    with pytest.raises(ConfigError, match="unknown source"):
        source("castep")
    salt = Crystal.from_fractional([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 5.6 * np.eye(3))
    for name, package in (("tblite", "tblite"), ("pyscf", "pyscf")):
        pytest.importorskip(package)
        with pytest.raises(InputError, match="repeats in space"):
            source(name)(salt, {})
    with pytest.raises(ConfigError, match="did you mean 'cutoff'"):
        source("slater-koster")(salt, {"cut_off": 3.0})
    with pytest.raises(ConfigError, match="expected float"):
        source("slater-koster")(salt, {"cutoff": "3"})


def test_atoms_are_placed_away_from_the_border_for_cp2k():
    crystal = Crystal.from_fractional([6, 6], [[0.5, 0.5, 0.5], [2.75, -1.25, 0.25]], 3.6 * np.eye(3))
    boxed, whole = _placed(crystal, 12.0)
    fractional = boxed.fractional
    assert np.abs(fractional).max() < 0.499
    back = boxed.positions + whole @ boxed.cell
    np.testing.assert_allclose(back - back[0], crystal.positions - crystal.positions[0], atol=1e-10)


@needs_cp2k
@pytest.mark.slow
def test_graphene_of_cp2k_has_cp2ks_bands_wherever_its_atoms_are():
    cell = np.array([[2.46, 0, 0], [-1.23, 2.1304, 0], [0, 0, 12.0]])
    flat = Crystal.from_fractional([6, 6], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.52]], cell, np.array([True, True, False]))
    moved = flat.replace(positions=flat.positions + np.array([[1, -2, 0], [0, 1, 0]]) @ cell)
    settings = {"cutoff": 300.0, "spacing": 0.9}
    one, other = (source("cp2k")(c, settings) for c in (flat, moved))
    for m in (one, other):
        assert all(f.passed for f in checks.findings(m, bond_limit=1e-6))
        assert m.basis[6].text == "2s2p1d"
    from naica.hamiltonian.bands import eigenvalues

    np.testing.assert_allclose(eigenvalues(one, [0.1, 0.2, 0])[:8], eigenvalues(other, [0.1, 0.2, 0])[:8], atol=5e-3)
    left = one.blocks["H"] - one.blocks["H0"] - one.gauge("H", "H0") * one.blocks["S"]
    assert np.abs(left).mean() < 0.1 * np.abs(one.blocks["H"]).mean()


def structures(count: int) -> list[Crystal]:
    return [WATER.replace(positions=WATER.positions @ Rotation.random(random_state=k).as_matrix().T) for k in range(count)]


def test_a_workflow_gives_one_row_for_each_failure_and_pays_for_nothing_twice(tmp_path):
    crystals = [*structures(3), Crystal(np.array([11, 17]), np.array([[0, 0, 0], [2.4, 0, 0]]))]
    names = ["a", "b", "c", "odd"]
    settings = {"shells": "1s1p", "overlap": 0.2}
    found = workflow.make(crystals[:2], tmp_path, "slater-koster", settings, names=names[:2], workers=1)
    assert found.names == ["a", "b"]
    before = (tmp_path / "shard-0000.h5").stat().st_mtime_ns
    seen = []
    again = workflow.make(crystals, tmp_path, "slater-koster", settings, names=names, workers=1, progress=seen.append)
    assert set(again.names) == set(names)
    assert (tmp_path / "shard-0000.h5").stat().st_mtime_ns == before
    assert seen[-1].done == 4
    with pytest.raises(ConfigError, match="holds a set of slater-koster"):
        workflow.make(crystals, tmp_path, "slater-koster", {"shells": "1s"}, names=names, workers=1)


def test_what_fails_is_tried_again_and_then_told(tmp_path):
    pytest.importorskip("pyscf")
    lithium = Crystal(np.array([3]), np.zeros((1, 3)))
    found = workflow.make([WATER, lithium], tmp_path, "pyscf", {"grid": 0}, names=["water", "lithium"], workers=1)
    assert found.names == ["water"]
    assert len(workflow.failures(tmp_path)["lithium"]) == 2
    assert "odd number of electrons" in workflow.failures(tmp_path)["lithium"][0]


_RUN = """
import os, sys
sys.path[:0] = {path!r}
from test_sources import structures
from naica.hamiltonian import workflow
def tell(p):
    if {stop} and p.done == {stop}:
        os._exit(9)
if __name__ == "__main__":
    workflow.make(structures(5), {folder!r}, "slater-koster", {{}}, names=list("abcde"), workers=1, progress=tell)
"""


def test_a_killed_workflow_goes_on(tmp_path):
    here = [str(__import__("pathlib").Path(__file__).parent)]
    for stop, code in ((2, 9), (0, 0)):
        script = tmp_path / "run.py"
        script.write_text(_RUN.format(path=here, folder=str(tmp_path / "set"), stop=stop))
        assert subprocess.run([sys.executable, script], check=False, capture_output=True).returncode == code
    from naica.hamiltonian.store import HamiltonianSet

    assert sorted(HamiltonianSet(tmp_path / "set").names) == list("abcde")
    assert not list((tmp_path / "set" / "parts").glob("*.h5"))
    assert json.loads((tmp_path / "set" / "set.json").read_text())["source"] == "slater-koster"
