"""What stands beside a network: electrostatics, repulsion of nuclei, spins — in energies, forces, stress, training and on disk."""

import numpy as np
import pytest
import torch

from naica.errors import ConfigError, InputError
from naica.nn.zbl import ZBL
from naica.potential.check import check
from naica.potential.model import PotentialModel, PotentialParts
from naica.potential.saved import Potential, PotentialCard, read_potential
from naica.potential.systems import Systems
from naica.structure import Crystal

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
SALT = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.52]], FCC * 5.64)
TRIO = Crystal(["Na", "Cl", "O"], [[0, 0, 0], [0, 0, 2.4], [2.1, 0, 0.3]], info={"total_charge": 1.0, "moments": [1.0, -0.5, 2.0]})
SMALL = {"width": 12, "interactions": 2, "gaussians": 8, "cutoff": 4.0}


def made(**parts):
    torch.manual_seed(0)
    return PotentialModel("schnet", SMALL, PotentialParts(hidden=12, **parts)).double()


def told(model, *crystals):
    return model.compute(Systems.of(crystals).batch(model.cutoff))


def test_the_repulsion_of_two_nuclei():
    # Ziegler, Biersack and Littmark for two coppers at 1 Å, without the envelope
    r, z = 1.0, 29
    x = r * 2 * z**0.23 / (0.8854 * 0.529177210544)
    screen = 0.1818 * np.exp(-3.2 * x) + 0.5099 * np.exp(-0.9423 * x) + 0.2802 * np.exp(-0.4028 * x) + 0.02817 * np.exp(-0.2016 * x)
    y = r / (2 * 1.32)
    expected = 14.3996454 * z * z / r * screen * (1 - 28 * y**6 + 48 * y**7 - 21 * y**8)
    pair = Systems.of(Crystal(["Cu", "Cu"], [[0, 0, 0], [0, 0, r]])).batch(5.0)
    assert float(ZBL(5.0)(pair).sum()) == pytest.approx(expected, rel=1e-6)
    assert float(ZBL(5.0)(Systems.of(Crystal(["Cu", "Cu"], [[0, 0, 0], [0, 0, 2.65]])).batch(5.0)).abs().sum()) == 0


@pytest.mark.parametrize("kind", ["qeq", "qet", "latent"])
def test_losses_on_forces_reach_the_charges(kind):
    model = made(electrostatics=kind)
    batch = Systems.of([SALT, TRIO]).batch(model.cutoff)

    def loss():
        found = model.compute(batch, twice=True)
        return (found.forces**2).sum() + 100 * (found.stress**2).sum()

    value = loss()
    weight = model.charges.network[0].weight if kind == "latent" else model.charges.network.network[0].weight
    slope = torch.autograd.grad(value, weight)[0]
    at = int(slope.abs().argmax())
    with torch.no_grad():
        weight.view(-1)[at] += 1e-5
        up = float(loss().detach())
        weight.view(-1)[at] -= 2e-5
        down = float(loss().detach())
    assert float(slope.view(-1)[at]) == pytest.approx((up - down) / 2e-5, rel=1e-4)


def test_sites_sum_to_the_energy_with_all_parts():
    found = told(made(electrostatics="qeq", screening=3.0, zbl=True, spin="collinear"), SALT, TRIO)
    sums = torch.zeros(2, dtype=torch.float64).index_add(0, torch.tensor([0, 0, 1, 1, 1]), found.atoms["energy"])
    torch.testing.assert_close(sums, found.energy)
    assert float(found.atoms["charge"][2:].sum()) == pytest.approx(1.0, abs=1e-10)


def test_spins_turn_over_and_antiferromagnets_differ_from_ferromagnets_after_a_few_steps():
    model = made(spin="collinear")
    chain = Crystal(["Fe"] * 2, [[0, 0, 0], [0, 0, 2.2]], np.diag([6.0, 6.0, 4.4]), True)
    states = [chain.replace(info={"moments": m}) for m in ([2.0, 2.0], [-2.0, -2.0], [2.0, -2.0], [0.0, 0.0])]
    before = told(model, *states)
    assert float(before.energy[0]) == pytest.approx(float(before.energy[1]), abs=1e-6)
    assert float(before.energy[3]) == pytest.approx(float(told(model, chain).energy), abs=1e-6)
    batch = Systems.of(states).batch(model.cutoff)
    wanted = torch.tensor([0.0, 0.0, -0.1, 0.3], dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = ((model(batch) - wanted) ** 2).mean()
        loss.backward()
        optimizer.step()
    found = told(model, *states)
    assert float((found.energy - wanted).abs().max()) < 0.02
    # the field is odd in the moments
    torch.testing.assert_close(found.atoms["moment_field"][:2], -found.atoms["moment_field"][2:4])


def test_parts_are_saved_and_read(tmp_path):
    model = made(electrostatics="qeq", zbl=True, spin="collinear")
    card = PotentialCard("it", "schnet", model.architecture_config, model.parts.to_dict(), 1)
    again = read_potential(Potential((model,), card).save(tmp_path / "model"))
    assert torch.equal(told(again.members[0], SALT, TRIO).forces, told(model, SALT, TRIO).forces)


def test_bad_parts_and_bad_input_say_what_is_wrong():
    for parts in (
        {"electrostatics": "pppm"},
        {"spin": "noncollinear"},
        {"screening": 2.0},
        {"electrostatics": "qeq", "sites": ("charge",)},
    ):
        with pytest.raises(ConfigError):
            PotentialParts(**parts)
    with pytest.raises(ConfigError, match="beyond the network's cut-off"):
        made(electrostatics="qeq", screening=9.0)
    with pytest.raises(InputError, match=r"expected \(2,\)"):
        Systems.of(SALT.replace(info={"moments": [1.0]}))
    with pytest.raises(InputError, match="vacuum"):
        told(made(electrostatics="latent"), SALT.replace(pbc=[True, True, False]))


def test_systems_keep_charges_and_moments_when_taken_and_joined():
    both = Systems.of([SALT, TRIO])
    assert both.take([1]).total_charge.tolist() == [1.0]
    joined = Systems.join([Systems.of(SALT), both.take([1])])
    assert joined.moments.tolist() == [0.0, 0.0, 1.0, -0.5, 2.0]
    assert joined.crystals()[1].info["total_charge"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("parts", [{}, {"electrostatics": "latent", "zbl": True}, {"electrostatics": "qeq", "spin": "collinear"}])
def test_the_contract_holds_with_parts(parts):
    report = check(made(**parts))
    assert report.passed, str(report)
