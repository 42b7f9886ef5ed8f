"""A potential is the slope of its energy, and whole-number edges outlive the moves of atoms and cells."""

import numpy as np
import pytest
import torch

from naica.errors import InputError
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal

RUTILE = Crystal(
    np.array([22, 22, 8, 8, 8, 8]),
    np.array([[0, 0, 0], [2.3, 2.2, 1.5], [1.4, 1.45, 0.1], [3.1, 3.2, 0], [0.9, 3.6, 1.4], [3.7, 0.8, 1.6]]),
    np.array([[4.6, 0.1, 0], [0.2, 4.5, 0], [0, 0.1, 2.96]]),
)
SLAB = RUTILE.replace(cell=RUTILE.cell + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 20.0]]), pbc=(True, True, False))
WATER = Crystal(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]]))


def schnet(seed: int = 0) -> PotentialModel:
    torch.manual_seed(seed)
    return PotentialModel("schnet", {"width": 24, "interactions": 2, "cutoff": 4.0}, scale=3.0, references={22: -5.0, 8: -3.0}).double()


def test_forces_and_stress_are_slopes():
    model, systems = schnet(), Systems.of([RUTILE, SLAB, WATER])
    found = model.compute(systems.batch(model.cutoff))
    assert found.forces.abs().max() > 1e-2
    assert float(found.stress[1:].abs().max()) == 0  # a slab and a molecule have none
    step = 1e-4
    for atom, axis in ((1, 2), (8, 0), (13, 1)):
        energies = []
        for sign in (1, -1):
            moved = systems.positions.clone()
            moved[atom, axis] += sign * step
            energies.append(float(model(systems.replace(positions=moved).batch(model.cutoff)).sum()))
        assert float(found.forces[atom, axis]) == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-6)
    for a, b in ((0, 0), (0, 1), (2, 1)):
        energies = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=torch.float64)
            strain[a, b] += sign * 1e-5
            strained = systems.replace(positions=systems.positions @ strain, cell=systems.cell @ strain)
            energies.append(float(model(strained.batch(model.cutoff))[0]))
        slope = (energies[0] - energies[1]) / 2e-5 / RUTILE.volume
        assert float(found.stress[0, a, b]) == pytest.approx(slope, abs=1e-8)


def test_edges_by_whole_numbers_follow_atoms_and_cells():
    model, systems = schnet(), Systems.of([RUTILE, SLAB, WATER])
    wide = systems.edges(model.cutoff + 1.0)
    moved = systems.positions + 0.1 * torch.from_numpy(np.random.default_rng(0).normal(size=systems.positions.shape))
    strain = torch.eye(3, dtype=torch.float64) + 0.01 * torch.tensor([[1.0, 0.5, 0], [0.5, -1, 0.2], [0, 0.2, 0.3]], dtype=torch.float64)
    later = systems.replace(positions=moved @ strain, cell=systems.cell @ strain)
    old, new = model.compute(later.batch(model.cutoff, wide)), model.compute(later.batch(model.cutoff))
    torch.testing.assert_close(old.energy, new.energy, atol=1e-10, rtol=0)
    torch.testing.assert_close(old.forces, new.forces, atol=1e-10, rtol=0)


def test_round_trip_of_systems():
    again = Systems.of([RUTILE, SLAB, WATER]).crystals()
    assert [c.hash for c in again] == [RUTILE.hash, SLAB.hash, WATER.hash]


def test_references_stay_exact_in_single_precision():
    model = schnet().float()
    assert model.references.dtype == torch.float64
    assert model.dtype == torch.float32
    energies = model(Systems.of([RUTILE]).batch(model.cutoff, dtype=torch.float32))
    assert energies.dtype == torch.float64
    assert float(energies) == pytest.approx(float(schnet()(Systems.of([RUTILE]).batch(4.0))), abs=1e-4)


def test_networks_that_jump_are_refused():
    with pytest.raises(InputError, match="train a smooth network"):
        PotentialModel("cgcnn")
