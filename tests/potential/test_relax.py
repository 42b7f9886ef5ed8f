"""Relaxation: what converges, what is refused and with which words. CHGNet itself is tested in test_chgnet.py (slow)."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from naica.errors import ConfigError, InputError
from naica.potential.calculators import calculator, elements_of, level_of
from naica.potential.relax import relax
from naica.structure import Crystal


def of(atoms) -> Crystal:  # type: ignore[no-untyped-def]
    return Crystal(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


class Sick(Calculator):
    """EMT that turns sick after some calls."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, how: str, after: int = 0) -> None:
        super().__init__()
        self.how, self.left = how, after

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        n = len(self.atoms)
        self.left -= 1
        volume = self.atoms.get_volume()
        self.results = {"energy": -volume, "forces": np.zeros((n, 3)), "stress": np.full(6, 0.0)}
        if self.how == "explode":
            self.results["stress"] = np.array([-1.0, -1, -1, 0, 0, 0])
        elif self.how == "implode":
            self.results |= {"energy": volume, "stress": np.array([1.0, 1, 1, 0, 0, 0])}
        elif self.how == "collide":
            pull = self.atoms.positions[1] - self.atoms.positions[0]
            self.results["forces"][0], self.results["forces"][1] = pull, -pull
        elif self.how == "push":
            self.results["forces"][:, 0] = 1e5
        elif self.left < 0 and self.how == "nan energy":
            self.results["energy"] = np.nan
        elif self.left < 0 and self.how == "nan forces":
            self.results["forces"][0, 0] = np.nan
        elif self.how == "raise":
            raise RuntimeError("the graph has no edges")
        if self.how.startswith("nan") and self.left >= 0:
            self.results["forces"][0, 0] = 0.5


# --- what works ----------------------------------------------------------------------------------------------------------------
def test_a_strained_metal_finds_its_cell() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell * 1.04 @ (np.eye(3) + 0.02 * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])), scale_atoms=True)
    atoms.rattle(0.05, seed=0)
    done = relax(of(atoms), "emt", fmax=0.005)[0]
    best = relax(of(bulk("Cu")), "emt", fmax=0.001)[0]
    assert (done.status, done.reason) == ("converged", "")
    assert done.energy is not None
    assert best.energy is not None
    assert done.crystal is not None
    assert done.energy / 4 == pytest.approx(best.energy, abs=1e-4)
    assert done.crystal.volume / 4 == pytest.approx(11.6, abs=0.1)
    assert done.forces is not None
    assert done.stress is not None
    assert np.abs(done.forces).max() < 0.005
    assert done.stress.shape == (3, 3)
    assert done.steps > 1
    assert done.seconds > 0


def test_the_given_crystal_stays_as_it_was_and_info_travels() -> None:
    atoms = bulk("Al", a=4.2)
    given = of(atoms).replace(info={"id": "al", "parents": ["x"]})
    before = given.hash
    done = relax(given, "emt")[0]
    assert given.hash == before
    assert done.crystal is not None
    assert done.crystal.info == given.info
    assert done.crystal.hash != before


def test_a_fixed_cell_stays() -> None:
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.rattle(0.1, seed=1)
    given = of(atoms)
    done = relax(given, "emt", cell=False)[0]
    assert done.status == "converged"
    assert done.crystal is not None
    np.testing.assert_array_equal(done.crystal.cell, given.cell)


def test_molecules_keep_their_openness() -> None:
    given = of(molecule("N2"))
    done = relax(given, EMT())[0]
    assert done.status == "converged"
    assert done.crystal is not None
    assert not done.crystal.pbc.any()
    assert not done.crystal.cell.any()
    assert done.stress is None
    assert done.crystal.min_distance() == pytest.approx(1.0, abs=0.3)


def test_slabs_relax_positions_only() -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    slab.rattle(0.05, seed=2)
    given = of(slab)
    done = relax(given, "emt")[0]
    assert done.status == "converged"
    assert done.crystal is not None
    np.testing.assert_array_equal(done.crystal.cell, given.cell)
    np.testing.assert_array_equal(done.crystal.pbc, given.pbc)
    assert done.stress is None


def test_no_steps_means_as_it_is() -> None:
    given = of(bulk("Cu", a=3.8))
    done = relax(given, "emt", steps=0)[0]
    assert done.status == "converged"
    assert done.steps == 0
    assert done.crystal == given
    assert done.energy == calculator("emt").get_potential_energy(given.to_ase())


def test_many_with_progress_and_a_calculator_object() -> None:
    seen: list[tuple[int, int]] = []
    argon = of(bulk("Ar", a=5.3))
    done = relax(
        [argon, argon.scaled(1.1)], LennardJones(sigma=3.4, epsilon=0.0104, rc=10.0), fmax=0.001, progress=lambda *s: seen.append(s)
    )
    assert [r.status for r in done] == ["converged", "converged"]
    assert seen == [(1, 2), (2, 2)]
    assert done[0].energy == pytest.approx(done[1].energy, abs=1e-4)


def test_relaxation_repeats_exactly() -> None:
    atoms = bulk("Pt", cubic=True)
    atoms.rattle(0.1, seed=3)
    first, second = (relax(of(atoms), "emt")[0] for _ in range(2))
    assert first.energy == second.energy
    assert first.crystal is not None
    assert first.crystal == second.crystal


# --- what fails, and how it says so ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("explode", r"the volume changed by a factor 3\.\d+ .*BFGS.*; .*FIRE"),
        ("implode", r"the volume changed by a factor 0\.\d+"),
        ("collide", r"two atoms came within 0\.\d+ Å"),
        ("push", r"a force of 1e\+05 eV/Å"),
        ("nan energy", r"energy nan eV or a force is not a finite number"),
        ("nan forces", r"is not a finite number"),
        ("raise", r"RuntimeError: the graph has no edges"),
    ],
)
def test_sick_potentials_fail_with_a_reason(how: str, words: str) -> None:
    atoms = bulk("Cu", cubic=True)
    done = relax(of(atoms), Sick(how), steps=200)[0]
    assert done.status == "failed"
    assert done.crystal is None
    assert done.energy is None
    assert re.search(words, done.reason), done.reason


def test_nan_after_some_steps_is_caught() -> None:
    """A force that never changes also breaks BFGS down, which divides by the curvature."""
    done = relax(of(bulk("Cu", cubic=True)), Sick("nan energy", after=6))[0]
    assert done.status == "failed"
    assert "BFGS, step" in done.reason
    assert "not a finite number" in done.reason


def test_one_bad_crystal_does_not_stop_the_others() -> None:
    good = of(bulk("Cu", a=3.7))
    near = Crystal([29, 29], [[0, 0, 0], [0.3, 0, 0]], np.eye(3) * 5)
    foreign = of(bulk("Fe"))
    done = relax([good, near, foreign, good], "emt")
    assert [r.status for r in done] == ["converged", "failed", "failed", "converged"]
    assert "two atoms came within 0.30 Å" in done[1].reason
    assert "does not know Fe; it knows Al, Ni" in done[2].reason


def test_too_few_steps() -> None:
    atoms = bulk("Cu", cubic=True, a=3.9)
    atoms.rattle(0.2, seed=0)
    done = relax(of(atoms), "emt", steps=1, fmax=1e-4)[0]
    assert done.status == "not converged"
    assert "not converged in 1 steps: largest force" in done.reason
    assert done.crystal is not None
    assert done.energy is not None


def test_too_little_time() -> None:
    atoms = bulk("Cu", cubic=True, a=3.9)
    atoms.rattle(0.2, seed=0)
    done = relax(of(atoms), "emt", fmax=1e-9, max_seconds=1e-6)[0]
    assert done.status == "failed"
    assert "not finished within 1e-06 s" in done.reason


def test_senseless_numbers() -> None:
    with pytest.raises(InputError, match="fmax > 0"):
        relax(of(bulk("Cu")), "emt", fmax=0)
    with pytest.raises(InputError, match="steps ≥ 0"):
        relax(of(bulk("Cu")), "emt", steps=-1)


# --- calculators by name -----------------------------------------------------------------------------------------------------------
def test_unknown_calculators() -> None:
    with pytest.raises(ConfigError, match=r"unknown calculator 'chgnt'; did you mean 'chgnet'\?"):
        calculator("chgnt")
    with pytest.raises(ConfigError, match=r"cannot load 'no\.such:thing'"):
        calculator("no.such:thing")
    with pytest.raises(ConfigError, match="not something to call"):
        calculator("math:pi")


def test_calculators_from_anywhere() -> None:
    assert calculator("ase.calculators.emt:EMT").get_potential_energy(bulk("Cu")) == pytest.approx(-0.0057, abs=0.001)
    assert level_of("ase.calculators.emt:EMT").functional == "ase.calculators.emt:EMT"
    assert elements_of("ase.calculators.emt:EMT") is None


def test_levels_never_equal_real_theory() -> None:
    from naica.data.labels import Level

    levels = [level_of("emt"), level_of("chgnet"), Level("PBE"), Level("PBE", hubbard_u="MP", corrections="MP2020")]
    assert all(not a.same(b) for k, a in enumerate(levels) for b in levels[k + 1 :])
    assert "CHGNet-0.3.0" in str(level_of("chgnet"))
    assert "MP2020" in str(level_of("chgnet"))


def test_elements() -> None:
    chgnet = elements_of("chgnet")
    assert chgnet is not None
    assert len(chgnet) == 89
    assert {"H", "Pu", "Mg"} <= set(chgnet)
    assert not {"Po", "At", "Rn", "Fr", "Ra", "Am"} & set(chgnet)
