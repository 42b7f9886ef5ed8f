"""The physics contract of every network that can be a potential, and that it finds what is broken."""

import numpy as np
import pytest
import torch

from naica.potential import check as contract
from naica.potential.check import check, is_of_forces, samples
from naica.potential.model import PotentialModel
from naica.potential.networks import smooth_networks

# settings that make each network small; what is not named here is tried as it comes
SMALL = {
    "schnet": {"width": 12, "interactions": 2, "gaussians": 8, "cutoff": 4.0},
    "painn": {"width": 12, "layers": 2, "cutoff": 4.0},
    "nequip": {"channels": 8, "l_max": 1, "layers": 2, "cutoff": 4.0},
    "mace": {"channels": 8, "l_hidden": 0, "l_max": 2, "layers": 2, "cutoff": 4.0, "radial": [8, 8]},
}


@pytest.fixture(autouse=True)
def _short_dynamics(monkeypatch):
    monkeypatch.setattr(contract, "_STEPS", 40)


def made(name):
    torch.manual_seed(0)
    return PotentialModel(name, SMALL.get(name, {})).double()


def test_schnet_obeys():
    report = check(made("schnet"))
    assert report.passed, str(report)
    laws = {row.law for row in report.rows}
    assert {"forces", "stress", "cut-off", "conservation", "short range", "rotation", "save and load"} <= laws


@pytest.mark.slow
@pytest.mark.parametrize("name", smooth_networks())
def test_every_network_obeys(name):
    report = check(made(name))
    assert report.passed, str(report)


def test_wrong_forces_are_found(monkeypatch):
    model = made("schnet")
    right = PotentialModel.compute

    def wrong(self, batch, twice=False):
        found = right(self, batch, twice)
        return type(found)(found.energy, 1.01 * found.forces, found.stress, found.atoms)

    monkeypatch.setattr(PotentialModel, "compute", wrong)
    report = check(model)
    assert "forces" in report.failed
    assert "stress" not in report.failed


def test_names_and_folders_are_told_apart():
    assert is_of_forces("emt")
    assert is_of_forces("lennard-jones")
    assert not is_of_forces("formation-energy")


def test_samples_know_only_what_the_potential_knows():
    for elements in (("Cu",), ("Li", "N"), ("H", "C", "N", "O")):
        for crystal in samples(elements):
            assert set(crystal.symbols) <= set(elements)
            assert not np.isnan(crystal.positions).any()
