"""Radial distribution, coordination, vibrational states, Lindemann's index: perfect crystals, ideal gases, one oscillator, a real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from naica.errors import InputError
from naica.potential.melting import blocks, solid_atoms, widened
from naica.potential.simulate import md
from naica.potential.structure_functions import lindemann, radial_distribution, vibrations
from naica.potential.walk import Walk, read_walk
from naica.structure import Crystal


def still(atoms, frames: int = 2) -> Walk:  # type: ignore[no-untyped-def]
    positions = np.broadcast_to(atoms.positions, (frames, len(atoms), 3)).copy()
    cell = np.broadcast_to(atoms.cell.array, (frames, 3, 3)).copy()
    return Walk(atoms.numbers.astype(np.int64), positions, cell, atoms.pbc, 10.0)


# --- radial distribution ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("repeat", [1, 2])
def test_shells_of_rock_salt_in_cells_smaller_than_the_radius(repeat: int) -> None:
    """A primitive cell of two atoms sees all shells through its images, and the same as a larger one."""
    found = radial_distribution(still(bulk("NaCl", "rocksalt", a=5.64).repeat(repeat)), radius=6.0)
    assert found.coordination("Na", "Cl", 3.3)[0] == 6
    assert found.coordination("Na", "Na", 4.4)[0] == 12
    assert found.coordination("Na", "Cl", 5.2)[0] == 6 + 8
    assert found.coordination("Cl", "Na")[0] == 6
    assert found.running["Na", "Na"][-1] == 12 + 6  # the atom's own images among them


def test_an_ideal_gas_is_flat() -> None:
    rng = np.random.default_rng(0)
    n, frames = 150, 20
    positions = rng.random((frames, n, 3)) * 12.0
    walk = Walk(np.array([18] * n), positions, np.broadcast_to(np.eye(3) * 12.0, (frames, 3, 3)).copy(), np.ones(3, dtype=bool), 1.0)
    found = radial_distribution(walk, radius=8.0, bins=40)
    # an atom is no neighbour of its own place: (n − 1) / n
    np.testing.assert_allclose(found.total[8:], (n - 1) / n, atol=0.06)
    np.testing.assert_allclose(found.total, found.partial["Ar", "Ar"])


def test_coordination_that_is_not_there_is_refused() -> None:
    found = radial_distribution(still(bulk("NaCl", "rocksalt", a=5.64)), radius=3.0)
    with pytest.raises(InputError, match="no pair Na–K"):
        found.coordination("Na", "K")
    with pytest.raises(InputError, match="expected one up to"):
        found.coordination("Na", "Cl", 9.0)
    with pytest.raises(InputError, match="no neighbours within"):
        found.coordination("Na", "Na")
    molecule = Walk(np.array([1, 1]), np.zeros((2, 2, 3)), np.zeros((2, 3, 3)), np.zeros(3, dtype=bool), 1.0)
    with pytest.raises(InputError, match="no volume"):
        radial_distribution(molecule)


# --- vibrations -------------------------------------------------------------------------------------------------------
def test_one_oscillator_has_one_line() -> None:
    """Atoms that swing at 5 THz: a line there, whose area counts three modes an atom."""
    time = np.arange(2000) * 4.0
    rng = np.random.default_rng(1)
    phase = rng.random((1, 20, 3)) * 2 * np.pi
    velocity = np.cos(2 * np.pi * 5e-3 * time[:, None, None] + phase)
    cell = np.broadcast_to(np.eye(3) * 9.0, (2000, 3, 3)).copy()
    walk = Walk(
        np.array([14] * 20), np.zeros((2000, 20, 3)) + rng.random((20, 3)) * 9, cell, np.ones(3, dtype=bool), 4.0, velocities=velocity
    )
    found = vibrations(walk, longest=1500.0)
    assert found.frequency[found.states.argmax()] == pytest.approx(5.0, abs=0.1)
    assert np.trapezoid(found.states, found.frequency) == pytest.approx(3.0, abs=0.02)
    assert found.correlation[0] == pytest.approx(1.0)
    near = np.abs(found.frequency - 5) < 1
    assert np.trapezoid(found.states[near], found.frequency[near]) > 2.9


def test_states_need_velocities() -> None:
    with pytest.raises(InputError, match="holds no velocities"):
        vibrations(still(bulk("Cu"), frames=200))


def test_a_run_of_argon(tmp_path: Path) -> None:
    """From dynamics to structure: twelve neighbours, a solid's index, states below those of the harmonic crystal's end."""
    crystal = Crystal.from_ase(bulk("Ar", cubic=True, a=5.3).repeat(2))
    md(crystal, "lennard-jones", "nvt", 30.0, 500, dt=4.0, path=tmp_path / "ar.ntr", every=3, velocities=True)
    walk = read_walk(tmp_path / "ar.ntr").after(400.0)
    assert walk.interval == 12.0
    count, radius = radial_distribution(walk, radius=7.0, frames=30).coordination("Ar", "Ar")
    assert count == pytest.approx(12, abs=0.1)
    assert 4.2 < radius < 5.0
    assert 0.02 < lindemann(walk) < 0.08
    states = vibrations(walk)
    assert 0.6 < states.frequency[states.states.argmax()] < 2.2


def test_lindemann_grows_with_the_amplitude() -> None:
    rng = np.random.default_rng(2)
    walk = still(bulk("Cu", cubic=True).repeat(2), frames=40)
    small, large = (
        Walk(walk.numbers, walk.positions + a * rng.normal(size=walk.positions.shape), walk.cell, walk.pbc, 1.0) for a in (0.05, 0.1)
    )
    # the component of two atoms' relative motion along their bond: √2 a
    assert lindemann(small, 3.0) == pytest.approx(0.05 * np.sqrt(2) / 2.55, rel=0.15)
    assert lindemann(large, 3.0) == pytest.approx(2 * lindemann(small, 3.0), rel=0.2)


# --- parts of the melting demonstration -------------------------------------------------------------------------------
def test_solid_and_disordered_atoms_are_told_apart() -> None:
    atoms = bulk("Cu", cubic=True).repeat(4)
    atoms.rattle(0.12, seed=0)
    assert solid_atoms(atoms.positions, atoms.cell.array, atoms.pbc, 3.3).mean() > 0.97
    positions = np.random.default_rng(0).random((256, 3)) * 14.4
    assert solid_atoms(positions, np.eye(3) * 14.4, np.ones(3, dtype=bool), 3.3).mean() < 0.05


def test_only_the_upper_half_is_made_longer() -> None:
    crystal = Crystal.from_ase(bulk("Cu", cubic=True).repeat((1, 1, 4)))
    wide, lower = widened(crystal, 0.2)
    assert wide.volume == pytest.approx(1.1 * crystal.volume)
    np.testing.assert_allclose(wide.positions[lower], crystal.positions[lower], atol=1e-9)
    assert len(lower) == len(crystal) // 2
    assert wide.min_distance() >= crystal.min_distance() - 1e-9


def test_errors_of_correlated_means() -> None:
    """An autoregressive series with a known error of its mean."""
    rng = np.random.default_rng(3)
    errors, values, keep = [], [], 0.9
    for _ in range(40):
        series = np.zeros(2000)
        noise = rng.normal(size=2000)
        for k in range(1, 2000):
            series[k] = keep * series[k - 1] + noise[k]
        found = blocks(series)
        errors.append(found.sigma)
        values.append(found.value)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_argon_melts_where_its_potential_says(tmp_path: Path) -> None:
    """Both phases stay for 10 ps at constant energy, at a temperature between 0.62 and 0.70 ε/k and next to no pressure."""
    from naica.potential.melting import coexistence

    crystal = Crystal.from_ase(bulk("Ar", cubic=True, a=5.45))
    found = coexistence(crystal, "lennard-jones", 80.0, tmp_path, dt=5.0, steps=2000, settle=600, repeats=(3, 3, 8))
    assert found.both
    assert 0.62 < found.temperature.value / 119.8 < 0.70
    assert abs(found.pressure.value) < 0.03
    assert found.profile.max() > 0.9
    assert found.profile.min() < 0.1
    again = coexistence(crystal, "lennard-jones", 80.0, tmp_path, dt=5.0, steps=2000, settle=600, repeats=(3, 3, 8))
    assert again.temperature == found.temperature
