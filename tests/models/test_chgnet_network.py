"""CHGNet's network: published parameter counts, and the laws of a potential; that it is the published one is tested with its weights."""

import numpy as np
import pytest
import torch

from naica.errors import ConfigError, InputError
from naica.models import backbone
from naica.nn.compiled import library
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal

PEROVSKITE = Crystal(
    np.array([38, 22, 8, 8, 8]),
    np.array([[0, 0, 0], [1.9, 2.0, 1.95], [1.9, 1.9, 0.1], [1.9, 0.1, 2.0], [0, 1.95, 1.9]]),
    np.array([[3.9, 0.1, 0], [0, 3.95, 0.1], [0.05, 0, 4.0]]),
)
WATER = Crystal(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]])
FAR = Crystal(["Cs", "Cs"], [[0, 0, 0], [4.6, 0, 0]])
DRAW = np.random.default_rng(7)


def potential(seed: int = 0, **config) -> PotentialModel:
    torch.manual_seed(seed)
    model = PotentialModel("chgnet", {"width": 16, "radial": 7, "angular": 7, **config}, scale=100.0).double()
    return model.requires_grad_(False)


def energy(model: PotentialModel, *crystals: Crystal) -> np.ndarray:
    return model(Systems.of(crystals).batch(model.cutoff)).detach().numpy()


OLD = {"radial": 9, "angular": 9, "cutoff": 5.0, "envelope": 5, "hidden": (64, 64), "gate_norm": False, "readout_norm": False}


@pytest.mark.parametrize(("config", "count"), [({}, 412_525), ({**OLD, "output_bias": True}, 400_438)])
def test_parameter_counts_are_the_published_ones(config, count):
    # both counts hold 94 fixed references of elements
    assert sum(p.numel() for p in backbone("chgnet", **config).parameters()) + 94 == count


def test_forces_and_stress_are_slopes():
    model = potential()
    systems = Systems.of([PEROVSKITE, WATER, FAR])
    found = model.compute(systems.batch(model.cutoff))
    assert float(found.forces.abs().max()) > 0.1
    for atom, axis in ((1, 0), (4, 2), (6, 1), (8, 0)):
        energies = []
        for sign in (1, -1):
            moved = systems.positions.clone()
            moved[atom, axis] += sign * 1e-4
            energies.append(float(model(systems.replace(positions=moved).batch(model.cutoff)).sum()))
        assert float(found.forces[atom, axis]) == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-6)
    for a, b in ((0, 0), (0, 1), (2, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * 1e-5
            moved = PEROVSKITE.replace(positions=PEROVSKITE.positions @ strain, cell=PEROVSKITE.cell @ strain)
            energies.append(energy(model, moved)[0])
        assert float(found.stress[0, a, b]) == pytest.approx((energies[0] - energies[1]) / 2e-5 / PEROVSKITE.volume, abs=1e-8)


def test_symmetries_and_batch():
    model = potential()
    turn = np.linalg.qr(DRAW.normal(size=(3, 3)))[0]
    order = DRAW.permutation(5)
    turned = PEROVSKITE.replace(positions=PEROVSKITE.positions @ turn, cell=PEROVSKITE.cell @ turn)
    shuffled = Crystal(PEROVSKITE.numbers[order], PEROVSKITE.positions[order], PEROVSKITE.cell)
    one, water, far = (energy(model, c)[0] for c in (PEROVSKITE, WATER, FAR))
    many = energy(model, turned, WATER, shuffled, FAR, PEROVSKITE.supercell((1, 2, 1)))
    np.testing.assert_allclose(many, [one, water, one, far, 2 * one], atol=1e-9)


def test_smooth_where_atoms_and_bonds_come_into_reach():
    model = potential()
    for along, distance in (
        (lambda x: Crystal(["Sr", "O"], [[0, 0, 0], [x, 0, 0]]), 6.0),
        (lambda x: Crystal(["Sr", "O", "Ti"], [[0, 0, 0], [x, 0, 0], [0.3, 1.9, 0]]), 3.0),
    ):
        near, far = (energy(model, along(distance + s * 1e-6))[0] for s in (-1, 1))
        slope = (energy(model, along(distance + 1e-3))[0] - energy(model, along(distance - 1e-3))[0]) / 2e-3
        assert near - far == pytest.approx(-2e-6 * slope, abs=1e-9)


def test_no_short_bonds_no_angles_no_atoms_near():
    model = potential()
    found = model.compute(Systems.of([FAR, Crystal(["O", "H"], [[0, 0, 0], [0.97, 0, 0]]), Crystal(["Ar"], [[0, 0, 0]])]).batch(6.0))
    assert bool(found.energy.isfinite().all())
    assert float(found.forces[4].abs().max()) == 0
    assert found.atoms["magmom"].shape == (5,)
    assert float(found.atoms["magmom"].min()) >= 0


@pytest.mark.skipif(library("gated") is None, reason="no compiled functions here")
def test_single_precision_and_compiled_agree_with_double():
    wide = {"width": 64, "radial": 31, "angular": 31}
    model, single = potential(**wide), potential(**wide).float()
    systems = Systems.of([PEROVSKITE, WATER, FAR])
    wanted, found = model.compute(systems.batch(6.0)), single.compute(systems.batch(6.0, dtype=torch.float32))
    scale = float(wanted.forces.abs().max())
    assert float((wanted.forces - found.forces.double()).abs().max()) < 1e-4 * scale
    torch.testing.assert_close(found.energy, wanted.energy, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.atoms["magmom"].double(), wanted.atoms["magmom"], atol=1e-5, rtol=1e-4)


def test_training_differentiates_forces():
    torch.manual_seed(0)
    model = PotentialModel("chgnet", {"width": 16, "radial": 7, "angular": 7, "steps": 3})
    found = model.compute(Systems.of(PEROVSKITE).batch(6.0, dtype=torch.float32), twice=True)
    (found.energy.sum() + found.forces.square().sum() + found.stress.square().sum() + found.atoms["magmom"].square().sum()).backward()
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    # the last angle step changes nothing, so nothing can be learned in it
    assert {name.split(".angle_steps.")[1][0] for name in lacking if ".angle_steps." in name} == {"1"}
    assert all(".angle_steps.1." in name for name in lacking)


def test_bad_settings_elements_and_graphs():
    for wrong in ({"angular": 4}, {"bond_cutoff": 7.0}, {"steps": 0}, {"radial": 0}):
        with pytest.raises(ConfigError):
            backbone("chgnet", **wrong)
    with pytest.raises(InputError, match="up to 94"):
        energy(potential(), Crystal(["Lr"], [[0, 0, 0]]))
    with pytest.raises(InputError, match="not smooth"):
        PotentialModel("chgnet", {"output_bias": True})
