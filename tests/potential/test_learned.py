"""Learned potentials: forces and stress are the derivatives of the energy; models that jump are refused."""

import numpy as np
import pytest
import torch
from ase import Atoms

from naica.errors import ConfigError, InputError
from naica.potential.calculators import calculator, elements_of, level_of
from naica.potential.learned import LearnedPotential, make, potential
from naica.potential.relax import relax
from naica.structure import Crystal
from naica.training.card import Card
from naica.training.ensemble import Ensemble
from naica.training.property import PropertyModel, build, config_dict

DRAW = np.random.default_rng(3)
RUTILE = Crystal(
    np.array([22, 22, 8, 8, 8, 8]),
    np.array([[0, 0, 0], [2.3, 2.2, 1.5], [1.4, 1.45, 0.1], [3.1, 3.2, 0], [0.9, 3.6, 1.4], [3.7, 0.8, 1.6]]),
    np.array([[4.6, 0.1, 0], [0.2, 4.5, 0], [0, 0.1, 2.96]]),
)
WATER = Crystal(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]]))


def schnet(quantity: str = "energy_per_atom", seed: int = 0, **config) -> PropertyModel:
    torch.manual_seed(seed)
    settings = {"width": 24, "interactions": 3, "cutoff": 4.0, **config}
    model = build("schnet", quantity, {"hidden": (12,), "pooling": "sites"}, **settings)
    return model


@pytest.mark.parametrize("quantity", ["energy", "energy_per_atom"])
@pytest.mark.parametrize("crystal", [RUTILE, WATER], ids=["crystal", "molecule"])
def test_forces_are_the_slope_of_the_energy(crystal, quantity):
    known = potential(schnet(quantity))
    found = known.compute(crystal)[0]
    assert np.abs(found.forces).max() > 1e-3
    np.testing.assert_allclose(found.forces.sum(0), 0, atol=1e-10)
    step = 1e-4
    for atom in range(len(crystal)):
        for axis in range(3):
            moved = [crystal.positions.copy() for _ in range(2)]
            moved[0][atom, axis] += step
            moved[1][atom, axis] -= step
            up, down = (one.energy for one in known.compute([crystal.replace(positions=p) for p in moved]))
            assert found.forces[atom, axis] == pytest.approx((down - up) / (2 * step), abs=1e-6)


def test_stress_is_the_slope_by_strain():
    known = potential(schnet())
    found = known.compute(RUTILE)[0]
    volume, step = abs(np.linalg.det(RUTILE.cell)), 1e-5
    assert np.abs(found.stress).max() > 1e-5
    for a in range(3):
        for b in range(3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[a, b] += sign * step
                energies.append(known.compute(RUTILE.replace(positions=RUTILE.positions @ strain, cell=RUTILE.cell @ strain))[0].energy)
            assert found.stress[a, b] == pytest.approx((energies[0] - energies[1]) / (2 * step * volume), abs=1e-8)


def test_supercell_rotation_and_batch():
    known = potential(schnet())
    one = known.compute(RUTILE)[0]
    large = RUTILE.supercell((2, 1, 1))
    turn = np.linalg.qr(DRAW.normal(size=(3, 3)))[0]
    turned = RUTILE.replace(positions=RUTILE.positions @ turn, cell=RUTILE.cell @ turn)
    double, rotated, water = known.compute([large, turned, WATER])
    assert double.energy == pytest.approx(2 * one.energy, abs=1e-9)
    np.testing.assert_allclose(double.stress, one.stress, atol=1e-12)
    rows = [int(np.argmin(np.linalg.norm(large.positions - p, axis=1))) for p in RUTILE.positions]
    np.testing.assert_allclose(double.forces[rows], one.forces, atol=1e-10)
    assert rotated.energy == pytest.approx(one.energy, abs=1e-9)
    np.testing.assert_allclose(rotated.forces, one.forces @ turn, atol=1e-10)
    np.testing.assert_allclose(rotated.stress, turn.T @ one.stress @ turn, atol=1e-12)
    assert water.stress is None
    assert water.energy == pytest.approx(known.compute(WATER)[0].energy, abs=1e-12)


def dimer(distance: float) -> Crystal:
    return Crystal(np.array([8, 22]), np.array([[0, 0, 0], [0, 0, distance]]))


def test_smooth_through_the_cut_off_and_with_a_hard_one_not():
    known = potential(schnet())
    inside, outside = known.compute([dimer(4.0 - 5e-7), dimer(4.0 + 5e-7)])
    assert abs(inside.energy - outside.energy) < 1e-9
    assert np.abs(inside.forces).max() < 1e-4
    hard = schnet(cut="hard")
    with pytest.raises(InputError, match="cut = cosine"):
        potential(hard)
    from naica.graphs import graph

    with torch.no_grad():
        values = hard.eval()(graph([dimer(4.0 - 1e-4), dimer(4.0 + 1e-4)], hard.needs))
    assert abs(float(values[0] - values[1])) > 1e-5


def test_a_lone_atom_has_no_forces():
    found = potential(schnet()).compute(Crystal(np.array([8]), np.zeros((1, 3))))[0]
    np.testing.assert_array_equal(found.forces, np.zeros((1, 3)))


def test_who_gives_no_forces_is_told_why():
    with pytest.raises(InputError, match=r"'nearest'.*train a smooth network"):
        potential(build("cgcnn", "energy_per_atom"))
    with pytest.raises(InputError, match="band_gap gives no forces"):
        potential(schnet("band_gap"))
    with pytest.raises(InputError, match="not smooth"):
        potential(build("megnet", "energy_per_atom"))
    with pytest.raises(ConfigError, match="no model folder"):
        potential("nowhere")


def test_members_are_averaged_and_left_as_they_are():
    members = [schnet(seed=0), schnet(seed=1)]
    both = LearnedPotential(members).compute(RUTILE)[0]
    alone = [potential(m).compute(RUTILE)[0] for m in members]
    assert both.energy == pytest.approx(np.mean([a.energy for a in alone]), abs=1e-10)
    np.testing.assert_allclose(both.forces, np.mean([a.forces for a in alone], axis=0), atol=1e-10)
    assert all(p.dtype == torch.float32 and p.requires_grad for m in members for p in m.parameters())


def saved(folder, elements=("Ti", "O")) -> str:
    model = schnet()
    card = Card("tiny", "schnet", model.architecture_config, config_dict(model.head_config), model.target.to_dict(), 1, elements)
    Ensemble((model,), card).save(folder)
    return str(folder)


def test_model_folder_is_the_name_of_a_calculator(tmp_path):
    name = saved(tmp_path / "model")
    atoms = Atoms(numbers=RUTILE.numbers, positions=RUTILE.positions, cell=RUTILE.cell, pbc=True, calculator=calculator(name))
    found = potential(name).compute(RUTILE)[0]
    assert atoms.get_potential_energy() == pytest.approx(found.energy, abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), found.forces, atol=1e-10)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), found.stress, atol=1e-12)
    assert elements_of(name) == ("Ti", "O")
    assert "estimates" in level_of(name).functional
    done = relax(RUTILE, name, steps=2)[0]
    assert done.status in ("converged", "not converged")
    assert done.energy < found.energy
    assert "does not know H" in relax(WATER, name, steps=2)[0].reason


def test_32_bits_agree_with_64():
    model = schnet()
    double, single = (make(model, dtype=dtype) for dtype in (torch.float64, torch.float32))
    atoms = Atoms(numbers=RUTILE.numbers, positions=RUTILE.positions, cell=RUTILE.cell, pbc=True)
    forces = []
    for one in (double, single):
        atoms.calc = one
        forces.append(atoms.get_forces())
    np.testing.assert_allclose(forces[1], forces[0], atol=1e-5 * np.abs(forces[0]).max())
