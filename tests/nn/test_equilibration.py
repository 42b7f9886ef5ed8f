"""Charge equilibration: the closed form of two charges, total charges, exact derivatives, what it does to far fragments."""

import numpy as np
import pytest
import torch

from naica.nn.equilibration import Elements, Equilibration, LatentCharges, LocalEquilibration, equilibrated
from naica.nn.ewald import Coulomb
from naica.potential.systems import Systems
from naica.structure import Crystal

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
SALT = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], FCC * 5.64)
CHI, HARDNESS, WIDTH = (torch.tensor(x, dtype=torch.float64) for x in ([2.0, 5.0], [6.0, 8.0], [1.2, 0.7]))
NONE = torch.zeros(1, dtype=torch.float64)


def pair(distance):
    return Systems.of(Crystal([11, 17], [[0, 0, 0], [0, 0, distance]])).batch(3.0)


def test_two_charges_in_closed_form():
    sums = Coulomb.of(pair(2.0), WIDTH)
    charge, level = equilibrated(sums, CHI, HARDNESS, NONE)
    torch.testing.assert_close(charge, torch.tensor([0.1489876, -0.1489876], dtype=torch.float64), rtol=0, atol=1e-7)
    assert float(level) == pytest.approx(-2.9907759, abs=1e-7)
    elec = float(sums.energy(charge))
    assert elec == pytest.approx(0.0681003, abs=1e-7)
    assert elec + float((CHI * charge + 0.5 * HARDNESS * charge**2).sum()) == pytest.approx(-0.2234815, abs=1e-7)
    matrix = sums.matrices()[0] + torch.diag(HARDNESS)
    assert float(charge[0]) == pytest.approx(float(-(CHI[0] - CHI[1]) / (matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1])), abs=1e-12)


def test_charges_sum_to_the_given_charge_and_levels_are_even():
    draw = np.random.default_rng(0)
    crystal = Crystal([8] * 12, draw.random((12, 3)) * 7, np.eye(3) * 7)
    batch = Systems.of([crystal, SALT, crystal.replace(cell=np.zeros((3, 3)), pbc=False)]).batch(3.0)
    sums = Coulomb.of(batch, torch.full((26,), 0.7, dtype=torch.float64))
    chi, stiff = torch.from_numpy(draw.normal(size=26)), torch.from_numpy(1 + draw.random(26))
    wanted = torch.tensor([0.0, 0.0, -2.0], dtype=torch.float64)
    charge, level = equilibrated(sums, chi, stiff, wanted)
    found = torch.zeros(3, dtype=torch.float64).index_add(0, batch["system"], charge)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    # what an atom would pay for charge is the same for all of a system
    torch.testing.assert_close(sums.potential(charge) + stiff * charge + chi, -level[batch["system"]], rtol=0, atol=1e-9)


def test_adjoint_derivatives_once_and_twice():
    batch = Systems.of([SALT, Crystal([11, 17], [[0, 0, 0], [0, 0.4, 2.0]])]).batch(3.0)
    chi = torch.tensor([1.0, 3.0, 1.5, 2.5], dtype=torch.float64).requires_grad_()
    stiff = torch.tensor([3.0, 4.0, 3.0, 4.0], dtype=torch.float64).requires_grad_()
    width = torch.full((4,), 0.8, dtype=torch.float64)
    positions = batch["positions"].clone().requires_grad_()

    def charges(r, c, j):
        return equilibrated(Coulomb.of(type(batch)({**batch, "positions": r}), width), c, j, torch.zeros(2, dtype=torch.float64))[0]

    assert torch.autograd.gradcheck(charges, (positions, chi, stiff), atol=1e-7, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda r, c: charges(r, c, stiff.detach()), (positions, chi), atol=1e-6, fast_mode=True)


def test_far_fragments_exchange_charge_unless_they_agree():
    """What QEq does, not what nature does: the levels of two atoms even out however far they are apart."""
    sums = Coulomb.of(pair(50.0), WIDTH)
    apart = equilibrated(sums, CHI, HARDNESS, NONE)[0]
    alone = sums.matrices()[0].diagonal() + HARDNESS
    expected = float((CHI[1] - CHI[0]) / alone.sum())
    assert float(apart[0]) == pytest.approx(expected, rel=0.03)
    assert abs(float(apart[0])) > 0.05
    agreeing = equilibrated(sums, torch.full_like(CHI, 3.0), HARDNESS, NONE)[0]
    assert float(agreeing.abs().max()) < 1e-10


def test_elements_start_sensibly_and_stay_in_bounds():
    elements = Elements()
    chi, hardness, width = elements(torch.tensor([11, 17]))
    assert chi[1] > chi[0]
    assert float(hardness[0].detach()) == pytest.approx(4, abs=2e-3)
    assert float(width[0].detach()) == pytest.approx(1.66, abs=1e-6)
    with torch.no_grad():
        elements.stretch.fill_(100.0)
        elements.stiffness.fill_(-100.0)
    _, hardness, width = elements(torch.tensor([11]))
    assert float(hardness.detach()) > 0
    assert float(width.detach()) == pytest.approx(3.32, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Equilibration(4, 8), LatentCharges(4, 8), LocalEquilibration(4, 8, 5.0)])
def test_total_charges_are_obeyed(kind):
    torch.manual_seed(0)
    molecule = Crystal(["Na", "Cl", "O"], [[0, 0, 0], [0, 0, 2.4], [2, 0, 0]])
    batch = Systems.of([molecule.replace(info={"total_charge": q}) for q in (0, 1, -2)]).batch(5.0)
    found = kind(torch.randn(9, 4), batch)
    total = found.charge.view(3, 3).sum(1)
    torch.testing.assert_close(total, torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64), rtol=0, atol=1e-10)
    assert found.known.shape == (9, kind.known)


@torch.no_grad()
def test_screening_leaves_far_pairs_and_takes_near_ones():
    torch.manual_seed(0)
    plain, screened = Equilibration(4, 8), Equilibration(4, 8, screening=4.0)
    screened.load_state_dict(plain.state_dict())
    far, near = (Systems.of(Crystal(["Na", "Cl"], [[0, 0, 0], [0, 0, d]])).batch(5.0) for d in (4.5, 0.4))
    features = torch.randn(2, 4)
    charge, width = plain(features, far).charge, plain.elements(torch.tensor([11, 17]))[2]
    # far away the pair is there, each charge's own energy is not
    own = 14.3996454 / (2 * np.pi**0.5) * (charge**2 / width).sum()
    assert float(plain(features, far).energy.sum() - screened(features, far).energy.sum()) == pytest.approx(float(own), abs=1e-9)
    together = plain(features, near), screened(features, near)
    assert abs(float(together[1].energy.sum())) < 0.1 * abs(float(together[0].energy.sum()))
