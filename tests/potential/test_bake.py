"""Baked potentials: the promised error holds on new structures, they survive the disk, and what can not be baked is told."""

import numpy as np
import pytest
import torch

from naica.app.cli import main
from naica.errors import InputError
from naica.potential.bake import bake, can_bake
from naica.potential.learned import LearnedPotential, potential
from naica.potential.model import PotentialModel
from naica.potential.saved import Potential, PotentialCard, read_potential
from naica.structure import Crystal
from naica.structure.io import write

DRAW = np.random.default_rng(5)
CELL = 5.43 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])


def silicon(seed: int) -> Crystal:
    whole = Crystal.from_fractional([14, 14], [[0, 0, 0], [0.25, 0.25, 0.25]], CELL).supercell((2, 2, 1))
    return whole.replace(positions=whole.positions + 0.1 * np.random.default_rng(seed).normal(size=whole.positions.shape))


def painn() -> PotentialModel:
    torch.manual_seed(0)
    return PotentialModel("painn", {"width": 16, "layers": 2, "cutoff": 4.0}, scale=2.0, references={14: -5.0})


def test_the_error_is_within_the_tolerance_on_new_structures():
    plain = LearnedPotential([painn()])
    found = bake(plain, [silicon(0), silicon(1)], tolerance=1e-4)
    assert found.force_error <= 1e-4
    fresh = silicon(7)
    a, b = plain.compute(fresh)[0], found.potential.compute(fresh)[0]
    assert 0 < np.abs(a.forces - b.forces).max() < 3e-4
    assert abs(a.energy - b.energy) < 1e-3 * len(fresh)
    with pytest.raises(InputError, match="baked already"):
        bake(found.potential, [fresh])
    with pytest.raises(InputError, match="no structures"):
        bake(plain, [])


def test_networks_without_tables_are_told():
    ace = LearnedPotential([PotentialModel("ace", {"elements": ["Si"], "cutoff": 4.0})])
    assert not can_bake(ace)
    with pytest.raises(InputError, match="ace: no functions of distance"):
        bake(ace, [silicon(0)])


SMALL = {
    "schnet": {"width": 8, "interactions": 2, "cutoff": 4.0},
    "chgnet": {"width": 16, "steps": 2, "radial": 7, "angular": 5, "cutoff": 4.0, "hidden": (16,)},
}


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_further_networks_bake(name, dtype):
    torch.manual_seed(1)
    plain = LearnedPotential([PotentialModel(name, SMALL[name], scale=2.0)], dtype)
    found = bake(plain, [silicon(0)], tolerance=1e-4)
    a, b = plain.compute(silicon(7))[0], found.potential.compute(silicon(7))[0]
    assert 0 < np.abs(a.forces - b.forces).max() < 3e-4
    assert np.abs(a.stress - b.stress).max() < 1e-4


def test_the_command_writes_a_potential_that_is_baked_when_opened(tmp_path, capsys):
    model = painn()
    card = PotentialCard("si", "painn", model.architecture_config, model.parts.to_dict(), 1, elements=("Si",))
    Potential((model,), card).save(tmp_path / "plain")
    write(silicon(0), tmp_path / "si.extxyz")
    with pytest.raises(SystemExit) as left:
        main(["bake", str(tmp_path / "plain"), str(tmp_path / "si.extxyz"), "--out", str(tmp_path / "baked"), "--json"])
    assert left.value.code in (0, None)
    assert '"force_error"' in capsys.readouterr().out
    again = read_potential(tmp_path / "baked")
    assert again.card.baked
    fresh = silicon(3)
    plain, baked = potential(str(tmp_path / "plain")).compute(fresh)[0], potential(str(tmp_path / "baked")).compute(fresh)[0]
    assert 0 < np.abs(plain.forces - baked.forces).max() < 3e-4
    # the weights are those of the network as it was trained: it can be trained further
    torch.testing.assert_close(again.members[0].state_dict(), model.eval().state_dict())
