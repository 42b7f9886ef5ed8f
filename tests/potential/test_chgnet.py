"""CHGNet in earnest: the spinel of the demo, references, quietness, repeatability."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.spacegroup import crystal as spacegroup_crystal

from naica.potential.calculators import calculator
from naica.potential.relax import Relaxed, relax
from naica.structure import Crystal

pytest.importorskip("chgnet", reason="the potential CHGNet is not installed: pip install 'naica[chgnet]'")
pytestmark = pytest.mark.slow


def of(atoms) -> Crystal:  # type: ignore[no-untyped-def]
    return Crystal(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


def spinel(a: float = 8.08) -> Crystal:
    sites = [(1 / 8,) * 3, (1 / 2,) * 3, (0.2624,) * 3]
    return of(spacegroup_crystal(["Mg", "Al", "O"], sites, spacegroup=227, setting=2, cellpar=[a] * 3 + [90] * 3, primitive_cell=True))


def alumina() -> Crystal:
    sites = [(0, 0, 0.352), (0.306, 0, 0.25)]
    return of(spacegroup_crystal(["Al", "O"], sites, spacegroup=167, cellpar=[4.76, 4.76, 12.99, 90, 90, 120], primitive_cell=True))


@pytest.fixture(scope="module")
def known() -> dict[str, Relaxed]:
    crystals = {
        "spinel": spinel(),
        "MgO": of(bulk("MgO", "rocksalt", a=4.2)),
        "Al2O3": alumina(),
        "Mg": of(bulk("Mg")),
        "Al": of(bulk("Al")),
    }
    return dict(zip(crystals, relax(list(crystals.values())), strict=True))


def per_atom(done: Relaxed) -> float:
    assert done.status == "converged", done.reason
    assert done.energy is not None
    assert done.crystal is not None
    return done.energy / len(done.crystal)


def test_spinel_lies_67_meV_below_its_oxides(known: dict[str, Relaxed]) -> None:
    oxides = (2 * per_atom(known["MgO"]) + 5 * per_atom(known["Al2O3"])) / 7
    assert oxides - per_atom(known["spinel"]) == pytest.approx(0.067, abs=0.002)


def test_cells_come_out_within_two_per_cent_of_experiment(known: dict[str, Relaxed]) -> None:
    measured = {"spinel": 8.083**3 / 56, "MgO": 4.212**3 / 8, "Al2O3": 254.8 / 30, "Mg": 23.24, "Al": 16.6}
    for name, volume in measured.items():
        done = known[name].crystal
        assert done is not None
        assert (done.volume / len(done) / volume) ** (1 / 3) == pytest.approx(1, abs=0.02), name


def test_oxides_form_as_measured(known: dict[str, Relaxed]) -> None:
    """Formation enthalpies (eV/atom, 298 K) within 0.1 with solid oxygen as reference; the molecule in a box lies 0.1 eV/atom too high."""
    solid = of(
        spacegroup_crystal(["O"], [(0.0573, 0, 0.1646)], spacegroup=12, cellpar=[5.403, 3.429, 5.086, 90, 132.3, 90], primitive_cell=True)
    )
    box, frozen = (per_atom(done) for done in relax([of(molecule("O2")), solid]))
    assert frozen == pytest.approx(-4.91, abs=0.02)
    assert 0.05 < box - frozen < 0.15
    mg, al = per_atom(known["Mg"]), per_atom(known["Al"])
    formed = {
        "MgO": per_atom(known["MgO"]) - (mg + frozen) / 2,
        "Al2O3": per_atom(known["Al2O3"]) - (2 * al + 3 * frozen) / 5,
        "spinel": per_atom(known["spinel"]) - (mg + 2 * al + 4 * frozen) / 7,
    }
    assert formed == {"MgO": pytest.approx(-3.12, abs=0.1), "Al2O3": pytest.approx(-3.47, abs=0.1), "spinel": pytest.approx(-3.40, abs=0.1)}


def test_a_distorted_cell_finds_back(known: dict[str, Relaxed]) -> None:
    rng = np.random.default_rng(0)
    start = spinel()
    strain = np.eye(3) * 1.06 + rng.normal(0, 0.02, (3, 3))
    shaken = start.replace(positions=start.positions @ strain + rng.normal(0, 0.1, (14, 3)), cell=start.cell @ strain)
    done = relax(shaken)[0]
    assert per_atom(done) == pytest.approx(per_atom(known["spinel"]), abs=1e-3)


def test_molecules() -> None:
    lengths = {"O2": 1.21, "N2": 1.10, "H2": 0.74, "Cl2": 1.99}
    for name, done in zip(lengths, relax([of(molecule(n)) for n in lengths]), strict=True):
        assert done.status == "converged"
        assert done.crystal is not None
        assert done.crystal.min_distance() == pytest.approx(lengths[name], abs=0.04)


def test_a_lone_atom_is_refused() -> None:
    done = relax(of(molecule("O")))[0]
    assert done.status == "failed"
    assert "isolated atom" in done.reason


def test_stress_and_forces_are_derivatives() -> None:
    rng = np.random.default_rng(1)
    atoms = spinel().to_ase()
    atoms.positions += rng.normal(0, 0.05, (14, 3))
    atoms.calc = calculator("chgnet")
    forces, stress, volume = atoms.get_forces(), atoms.get_stress(voigt=False), atoms.get_volume()
    step = 5e-3
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[3, 1] += sign * step
        energies.append(moved.get_potential_energy())
    assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(forces[3, 1], abs=0.01)
    strain = np.zeros((3, 3))
    strain[0, 1] = strain[1, 0] = 0.5 * step
    strain[2, 2] = step
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.set_cell(atoms.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
        energies.append(moved.get_potential_energy())
    assert (energies[0] - energies[1]) / (2 * step * volume) == pytest.approx(stress[0, 1] + stress[2, 2], abs=1e-3)


def test_agrees_with_the_packages_own_calculator() -> None:
    from chgnet.model.dynamics import CHGNetCalculator

    atoms = spinel(8.2).to_ase()
    atoms.rattle(0.05, seed=4)
    ours, theirs = atoms.copy(), atoms.copy()
    ours.calc, theirs.calc = calculator("chgnet"), CHGNetCalculator(use_device="cpu")
    assert ours.get_potential_energy() == pytest.approx(float(theirs.get_potential_energy()), abs=1e-4)
    np.testing.assert_allclose(ours.get_forces(), theirs.get_forces(), atol=1e-4)
    np.testing.assert_allclose(ours.get_stress(), theirs.get_stress(), atol=1e-5)


def test_repeats_exactly_and_quietly(tmp_path) -> None:  # type: ignore[no-untyped-def]
    script = (
        "from naica import runtime; runtime.threads(1)\n"
        "from naica.potential.relax import relax; from naica.structure import Crystal\n"
        "c = Crystal(['Mg', 'O'], [[0, 0, 0], [2.15, 0.02, 0]], [[0, 2.2, 2.2], [2.2, 0, 2.2], [2.2, 2.2, 0]])\n"
        "lone = Crystal(['O'], [[0, 0, 0]])\n"
        "done = relax([c, lone, c])\n"
        "assert done[0].energy == done[2].energy and done[0].crystal == done[2].crystal\n"
        "print(repr(done[0].energy))\n"
    )
    told = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True) for _ in range(2)]
    assert told[0].stdout == told[1].stdout
    assert told[0].stdout.count("\n") == 1
    assert told[0].stderr == ""
    assert list(tmp_path.iterdir()) == []
