"""Coulomb sums: Madelung's constants, independence of the splitting, molecules, backgrounds, derivatives, memory in parts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.nn import ewald
from naica.nn.ewald import COULOMB, Coulomb
from naica.potential.systems import Systems
from naica.structure import Crystal

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
SALT = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], FCC * 5.64)
SKEWED = np.array([[6, 0, 0], [2, 7, 0], [-1, 2, 8.0]])


def batch_of(*crystals):
    return Systems.of(crystals).batch(3.0)


def energy(crystal, charges, width=None, **settings_):
    each = None if width is None else torch.full((len(crystal),), width, dtype=torch.float64)
    return float(Coulomb.of(batch_of(crystal), each, **settings_).energy(torch.tensor(charges, dtype=torch.float64)))


def gas(n, seed=0, cell=SKEWED):
    draw = np.random.default_rng(seed)
    crystal = Crystal([6] * n, draw.random((n, 3)) @ cell, cell)
    return crystal, torch.from_numpy(draw.normal(size=n)), torch.from_numpy(0.3 + draw.random(n))


def test_madelung_constants_of_three_lattices():
    # per distance of neighbours: rock salt, caesium chloride, zinc blende
    for constant, cell, second, distance in (
        (1.7475645946331822, FCC * 5.64, 0.5, 5.64 / 2),
        (1.7626747730709, np.eye(3) * 4.11, 0.5, 4.11 * 3**0.5 / 2),
        (1.6380550533887892, FCC * 5.41, 0.25, 5.41 * 3**0.5 / 4),
    ):
        crystal = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [second] * 3], cell)
        assert energy(crystal, [1, -1]) == pytest.approx(-COULOMB * constant / distance, abs=1e-8)


@pytest.mark.parametrize(("sigma", "wanted"), [(0.3, -8.923514), (0.5, -8.923514), (1.0, -8.779244)])
def test_latent_ewald_sums_of_rock_salt(sigma, wanted):
    # densities of e^(−r²/2σ²) whose pairs interact as erf(r/√2σ)/r have half the square of that width
    assert energy(SALT, [1, -1], sigma / 2**0.5, self_energy=False) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("spacing", "wanted"), [(2.0, -8.794696), (1.0, -8.779240)])
def test_latent_ewald_sums_on_the_published_grid(spacing, wanted):
    found = energy(SALT, [1, -1], 0.5**0.5, self_energy=False, eta=1.0, longest=2 * np.pi / spacing)
    assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("charges", [[1.0, -1.0], [1.0, 0.5]])
@pytest.mark.parametrize("width", [None, 0.4])
def test_the_splitting_changes_nothing(charges, width):
    plain = energy(SALT, charges, width)
    for splitting in (0.8, 1.2, 1.6):
        assert energy(SALT, charges, width, splitting=splitting) == pytest.approx(plain, abs=1e-8)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=5, deadline=None)
def test_the_splitting_changes_nothing_in_skewed_cells_with_widths_of_their_own(seed):
    crystal, charge, width = gas(7, seed)
    batch = batch_of(crystal)
    plain = Coulomb.of(batch, width).energy(charge)
    torch.testing.assert_close(Coulomb.of(batch, width, splitting=1.3).energy(charge), plain, rtol=0, atol=1e-8)


def test_supercells_and_other_lattice_vectors():
    crystal, charge, _ = gas(5)
    once = energy(crystal, charge.tolist())
    bigger = crystal.supercell((2, 1, 2))
    # every copy of an atom keeps its charge
    place = np.argmin(np.linalg.norm(_apart(bigger, crystal), axis=2), axis=1)
    assert energy(bigger, charge[place].tolist()) == pytest.approx(4 * once, abs=1e-7)
    other = crystal.replace(cell=np.array([[1, 1, 0], [0, 1, 0], [-1, 0, 1]]) @ crystal.cell)
    assert energy(other, charge.tolist()) == pytest.approx(once, abs=1e-7)


def _apart(bigger, crystal):
    offset = (bigger.positions[:, None] - crystal.positions[None]) @ np.linalg.inv(crystal.cell)
    return (offset - np.rint(offset)) @ crystal.cell


def test_molecules_are_sums_over_pairs():
    crystal, charge, width = gas(6)
    molecule = crystal.replace(cell=np.zeros((3, 3)), pbc=False)
    expected = 0.0
    for i in range(6):
        expected += COULOMB * charge[i] ** 2 / (2 * np.pi**0.5 * width[i])
        for j in range(i):
            r = torch.tensor(np.linalg.norm(molecule.positions[i] - molecule.positions[j]))
            expected += COULOMB * charge[i] * charge[j] * torch.erf(r / (2 * (width[i] ** 2 + width[j] ** 2)).sqrt()) / r
    assert float(Coulomb.of(batch_of(molecule), width).energy(charge)) == pytest.approx(float(expected), abs=1e-10)


def test_a_lone_molecule_is_the_limit_of_a_large_box():
    charge, errors = torch.tensor([0.4, -0.8, 0.4], dtype=torch.float64), []
    water = np.array([[0.76, 0.59, 0], [0, 0, 0], [-0.76, 0.59, 0]])
    open_one = Crystal([1, 8, 1], water)
    for edge in (20.0, 40.0):
        boxed = Crystal([1, 8, 1], water, np.eye(3) * edge)
        errors.append(energy(boxed, charge.tolist()) - energy(open_one, charge.tolist()))
    # the images of a dipole: 1/L³
    assert abs(errors[1]) < 1e-3
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.02)


def test_matrices_say_what_potentials_say():
    crystal, charge, width = gas(9)
    molecule, more, other = gas(4, 1)
    batch = batch_of(crystal, molecule.replace(cell=np.zeros((3, 3)), pbc=False), SALT)
    charge, width = torch.cat([charge, more, torch.tensor([1.0, -0.3])]), torch.cat([width, other, torch.tensor([0.5, 0.9])])
    sums = Coulomb.of(batch, width)
    for matrix, q, phi in zip(sums.matrices(), charge.split([9, 4, 2]), sums.potential(charge).split([9, 4, 2]), strict=True):
        torch.testing.assert_close(matrix @ q, phi, rtol=0, atol=1e-10)
        torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
        assert torch.linalg.eigvalsh(matrix).min() > 0  # Gaussian charges always cost energy


def test_derivatives_by_positions_cells_and_charges_once_and_twice():
    batch = batch_of(gas(2)[0])
    charge, width = torch.tensor([1.0, -0.7]), torch.tensor([0.5, 0.9])

    def of(positions, cell, q, w):
        return Coulomb.of(type(batch)({**batch, "positions": positions, "cell": cell}), w).energy(q)

    leaves = tuple(t.clone().requires_grad_() for t in (batch["positions"], batch["cell"], charge.double(), width.double()))
    assert torch.autograd.gradcheck(of, leaves, atol=1e-6, fast_mode=True)
    assert torch.autograd.gradgradcheck(
        lambda r, q: of(r, leaves[1].detach(), q, leaves[3].detach()), (leaves[0], leaves[2]), atol=1e-5, fast_mode=True
    )


def test_waves_in_parts_are_the_same_waves(monkeypatch):
    crystal, charge, _ = gas(8)
    batch = batch_of(crystal, SALT)
    charge = torch.cat([charge, torch.tensor([1.0, -1.0])])
    positions = batch["positions"].requires_grad_()
    whole = Coulomb.of(batch)
    once = torch.autograd.grad(whole.energy(charge).sum(), positions)[0]
    monkeypatch.setattr(ewald, "_ROOM", 500)
    parts = Coulomb.of(batch)
    assert len(parts.groups) == 2
    torch.testing.assert_close(parts.energy(charge), whole.energy(charge), rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.autograd.grad(parts.energy(charge).sum(), positions)[0], once, rtol=0, atol=1e-10)


def test_slabs_are_refused_and_told_what_to_do():
    slab = SALT.replace(pbc=[True, True, False])
    with pytest.raises(InputError, match="vacuum and pbc in all three"):
        Coulomb.of(batch_of(slab))
