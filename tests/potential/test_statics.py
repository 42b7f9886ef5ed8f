"""Equation of state, elastic tensor and phonons: closed forms, hand-made references with ASE and phonopy, stability, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import ConfigError, InputError, RunError
from naica.potential.elastic import deformed, elasticity, independent_strains, moduli
from naica.potential.eos import EQUATIONS, bulk_of, equation_of_state, fit
from naica.potential.lennard_jones import LennardJones
from naica.structure import Crystal

GPA = 160.21766208


def of(atoms) -> Crystal:  # type: ignore[no-untyped-def]
    return Crystal(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


# --- equation of state -------------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.floats(5, 200), st.floats(0.05, 2.5), st.floats(2.5, 7.0), st.sampled_from(sorted(EQUATIONS)))
def test_a_curve_is_found_again(volume: float, bulk_modulus: float, slope: float, form: str) -> None:
    volumes = np.linspace(0.92, 1.08, 9) * volume
    found = fit(volumes, EQUATIONS[form](volumes, -3.0, volume, bulk_modulus, slope), form)
    assert found.volume.value == pytest.approx(volume, rel=1e-6)
    assert found.bulk.value == pytest.approx(bulk_modulus, rel=1e-4)
    assert found.slope.value == pytest.approx(slope, abs=1e-2)
    assert found.rms < 1e-8


@pytest.mark.parametrize("form", sorted(EQUATIONS))
def test_the_closed_forms_have_the_derivatives_they_are_named_after(form: str) -> None:
    v, h = 40.0, 0.4
    e = [float(EQUATIONS[form](v + k * h, 0.0, v, 0.7, 4.6)) for k in (-2, -1, 0, 1, 2)]
    first = (e[3] - e[1]) / (2 * h)
    second = (-e[0] + 16 * e[1] - 30 * e[2] + 16 * e[3] - e[4]) / (12 * h * h)
    third = (-e[0] + 2 * e[1] - 2 * e[3] + e[4]) / (2 * h**3)
    # pressure is minus the first derivative, B = V · second, dB/dP = −(1 + V · third / second)
    assert first == pytest.approx(0, abs=1e-3)
    assert v * second == pytest.approx(0.7, rel=1e-3)
    assert -(1 + v * third / second) == pytest.approx(4.6, rel=1e-2)


def test_errors_of_the_fit_grow_with_noise() -> None:
    volumes = np.linspace(37, 43, 15)
    rng = np.random.default_rng(0)
    clean = EQUATIONS["vinet"](volumes, 0.0, 40.0, 0.7, 4.6)
    scores = []
    for _ in range(60):
        found = fit(volumes, clean + 1e-3 * rng.normal(size=15), "vinet")
        scores.append((found.bulk.value - 0.7) / found.bulk.sigma)
    assert 0.5 < (np.abs(scores) < 1).mean() < 0.85


def test_copper_agrees_with_ase() -> None:
    from ase.eos import EquationOfState as AseEos

    found = equation_of_state(of(bulk("Cu")), "emt")
    energies = []
    for v in found.volumes:
        atoms = bulk("Cu")
        atoms.set_cell(atoms.cell * (v / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    volume, _, modulus = AseEos(found.volumes, energies, "birchmurnaghan").fit()
    assert found.volume.value == pytest.approx(volume, rel=1e-5)
    assert found.bulk.value == pytest.approx(modulus, rel=1e-3)
    other = fit(found.volumes, found.energies, "vinet")
    assert bulk_of([found, other]).value == pytest.approx(found.bulk.value, rel=0.01)


def test_scans_that_say_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="at the end of the scan"):
        fit([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    with pytest.raises(InputError, match="at least five pairs"):
        fit([1, 2, 3], [1, 0, 1])
    with pytest.raises(ConfigError, match="unknown equation of state 'murnagan'"):
        fit([1, 2, 3, 4, 5], [2, 1, 0, 1, 2], "murnagan")
    with pytest.raises(InputError, match="at the end of the scan"):
        equation_of_state(of(bulk("Cu", a=4.2)), "emt", relax=False, span=0.03)
    with pytest.raises(InputError, match="the potential does not know Fe"):
        equation_of_state(of(bulk("Fe")), "emt", relax=False)


# --- elastic tensor ----------------------------------------------------------------------------------------------------
def test_cubic_constants_from_energies_by_hand() -> None:
    """Copper with EMT: the tensor from stresses against second differences of the energy."""
    found = elasticity(of(bulk("Cu", cubic=True)), "emt")
    assert found.strains == 2
    start, h = found.crystal, 0.004

    def energy(strain: np.ndarray) -> float:
        atoms = deformed(start, strain).to_ase()
        atoms.calc = EMT()
        return float(atoms.get_potential_energy())

    def second(pattern: np.ndarray) -> float:
        e = [energy(k * h * pattern) for k in (-2, -1, 0, 1, 2)]
        return (-e[0] + 16 * e[1] - 30 * e[2] + 16 * e[3] - e[4]) / (12 * h * h) / start.volume * GPA

    one, shear = np.diag([1.0, 0, 0]), np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    c = found.moduli.tensor
    assert c[0, 0] == pytest.approx(second(one), rel=2e-3)
    assert c[3, 3] == pytest.approx(second(shear), rel=2e-3)
    assert (c[0, 0] + 2 * c[0, 1]) / 3 == pytest.approx(equation_of_state(start, "emt").bulk.value * GPA, rel=2e-3)
    assert found.moduli.stable
    assert found.rms < 1e-3
    assert abs(found.pressure) < 0.05


def test_the_tensor_turns_with_the_crystal() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    crystal = of(bulk("Ag", cubic=True))
    turned = crystal.replace(cell=crystal.cell @ turn, positions=crystal.positions @ turn)
    a, b = elasticity(crystal, "emt").moduli, elasticity(turned, "emt").moduli
    assert b.bulk == pytest.approx(a.bulk, rel=1e-3)
    assert b.shear == pytest.approx(a.shear, rel=1e-3)
    assert b.eigenvalues == pytest.approx(a.eigenvalues, rel=1e-3)
    assert np.abs(a.tensor - b.tensor).max() > 5


def test_atoms_that_relax_make_hexagonal_crystals_softer() -> None:
    found = elasticity(of(bulk("Ni", "hcp", a=2.5, c=4.08)), "emt")
    assert found.strains == 3
    assert found.relaxed is not None
    c = found.relaxed.tensor
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2, rel=1e-3)
    assert c[0, 0] < found.clamped.tensor[0, 0] - 5
    assert c[2, 2] == pytest.approx(found.clamped.tensor[2, 2], rel=1e-3)


def test_batches_of_ours_have_cauchys_relation() -> None:
    """Pair forces without pressure and with every atom a centre of inversion: C12 = C44."""
    c = elasticity(of(bulk("Ar", cubic=True, a=5.3)), LennardJones()).moduli.tensor
    assert c[0, 1] == pytest.approx(c[3, 3], rel=5e-3)


def test_how_many_strains_symmetry_leaves() -> None:
    cubic = [np.eye(3)[list(p)] * np.array(s) for p in ((0, 1, 2), (1, 2, 0), (2, 0, 1)) for s in ((1, 1, 1), (-1, -1, 1), (1, -1, -1))]
    assert len(independent_strains([np.eye(3)])) == 6
    assert len(independent_strains(cubic)) == 2


def test_moduli_of_isotropic_and_of_unstable_tensors() -> None:
    lame, mu = 60.0, 30.0
    c = np.diag([2 * mu] * 3 + [mu] * 3)
    c[:3, :3] += lame
    found = moduli(c)
    assert found.bulk == pytest.approx([lame + 2 / 3 * mu] * 3)
    assert found.shear == pytest.approx([mu] * 3)
    assert found.poisson == pytest.approx(lame / (2 * (lame + mu)))
    assert found.anisotropy == pytest.approx(0, abs=1e-9)
    bad = c.copy()
    bad[3, 3] = -1.0
    assert not moduli(bad).stable
    with pytest.raises(InputError, match="no speed of sound"):
        moduli(bad).debye_temperature(of(bulk("Cu")))
    with pytest.raises(InputError, match="symmetric"):
        moduli(c + np.triu(np.ones((6, 6)), 1))


def test_bcc_copper_is_mechanically_unstable() -> None:
    found = elasticity(of(bulk("Cu", "bcc", a=2.82)), "emt", relax=False)
    assert not found.moduli.stable


def test_what_is_no_crystal_is_refused() -> None:
    molecule = Crystal([29, 29], [[0, 0, 0], [2.2, 0, 0]], np.zeros((3, 3)), False)
    with pytest.raises(InputError, match="expected a crystal"):
        elasticity(molecule, "emt")
    with pytest.raises(InputError, match=r"a strain of 0\.2"):
        elasticity(of(bulk("Cu")), "emt", strain=0.2)
    with pytest.raises(RunError, match="did not relax"):
        elasticity(of(bulk("Cu", a=8.0)), "emt")


# --- phonons -----------------------------------------------------------------------------------------------------------
def test_aluminium_agrees_with_phonopy_by_hand() -> None:
    phonopy = pytest.importorskip("phonopy")
    from phonopy.structure.atoms import PhonopyAtoms

    from naica.potential.phonons import phonons

    found = phonons(of(bulk("Al")), "emt", width=8.0, mesh=30.0, points=20)
    unit = PhonopyAtoms(symbols=["Al"], cell=found.crystal.cell, scaled_positions=[[0, 0, 0]])
    hand = phonopy.Phonopy(unit, np.diag(found.supercell), primitive_matrix="P", log_level=0)
    hand.generate_displacements(distance=0.01)
    forces = []
    for cell in hand.supercells_with_displacements:
        from ase import Atoms

        atoms = Atoms(cell.symbols, scaled_positions=cell.scaled_positions, cell=cell.cell, pbc=True, calculator=EMT())
        forces.append(atoms.get_forces())
    hand.forces = forces
    hand.produce_force_constants()
    hand.symmetrize_force_constants()
    hand.run_qpoints(found.bands.q)
    np.testing.assert_allclose(found.bands.frequency, hand.get_qpoints_dict()["frequencies"], atol=1e-5)
    assert found.stable
    assert "no imaginary mode" in found.verdict
    # three modes an atom; Dulong and Petit at 1000 K
    assert np.trapezoid(found.dos, found.dos_frequency) == pytest.approx(3, abs=0.05)
    assert found.thermal["heat_capacity"][-1] == pytest.approx(3 * 8.617333e-5, rel=0.02)
    assert found.bands.ticks[0] == (0.0, "Γ")
    assert {name for _, name in found.bands.ticks} >= {"Γ", "X", "L"}


def test_the_speed_of_sound_is_that_of_the_elastic_tensor() -> None:
    pytest.importorskip("phonopy")
    from naica.potential.phonons import phonons

    found = phonons(of(bulk("Al", cubic=True)), "emt", width=8.0, mesh=12.0, points=40)
    c = elasticity(found.crystal, "emt", relax=False).moduli.tensor
    density = 26.9815385 * 4 / found.crystal.volume * 1660.53906660
    path = found.bands
    first = slice(1, 4)  # along Γ–X
    slope = path.frequency[first, 2] * 1e12 / (path.distance[first] * 1e10)
    assert slope.mean() == pytest.approx(np.sqrt(c[0, 0] * 1e9 / density), rel=0.03)


def test_an_unstable_crystal_has_imaginary_modes() -> None:
    pytest.importorskip("phonopy")
    from naica.potential.phonons import phonons

    found = phonons(of(bulk("Cu", "bcc", a=2.82)), "emt", width=7.0, mesh=15.0, points=10, relax=False)
    assert not found.stable
    assert "imaginary mode" in found.verdict
    assert found.lowest < -0.1
