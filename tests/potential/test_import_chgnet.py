"""The published CHGNet: naica's network with the package's weights equals the package."""

import os
import warnings
from functools import cache

import numpy as np
import pytest
import torch

from naica.errors import InputError, MissingPart
from naica.potential import import_chgnet as reader
from naica.potential.calculators import calculator
from naica.potential.import_chgnet import import_chgnet, import_network
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal

pytest.importorskip("chgnet", reason="the package with the weights is not installed: pip install 'naica[chgnet]'")

GPA = 160.21766208
FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
CUBIC = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


# the layered oxide of the package's own example (mp-18767)
LAYERED = [
    *([0.5, 0.5, 0.3797505], [0, 0, 0.6202495], [0.5, 0.5, 0.8632525], [0, 0, 0.1367475]),
    *([0.5, 0, 0.3608245], [0, 0.5, 0.0985135], [0.5, 0, 0.9014865], [0, 0.5, 0.6391755]),
]


def shaken(symbols: str, fractional, cell, seed: int) -> Crystal:
    draw = np.random.default_rng(seed)
    places = np.array(fractional, dtype=float) + draw.normal(0, 0.02, (len(fractional), 3))
    return Crystal.from_fractional(symbols.split(), places, cell @ (np.eye(3) + draw.normal(0, 0.02, (3, 3))))


CRYSTALS = {
    "MgO": shaken("Mg O", [[0, 0, 0], [0.5] * 3], 4.25 * FCC, 0),
    "Fe": shaken("Fe Fe", [[0, 0, 0], [0.5] * 3], 2.87 * np.eye(3), 1),
    "SrTiO3": shaken("Sr Ti O O O", CUBIC, 3.95 * np.eye(3), 2),
    "CsI": shaken("Cs I", [[0, 0, 0], [0.5] * 3], 4.6 * np.eye(3), 3),  # no bond below 3 Å
    "LiMnO2": shaken("Li Li Mn Mn O O O O", LAYERED, np.diag([2.868779, 4.634475, 5.832507]), 4),
}


@cache
def package(version: str = "0.3.0"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chgnet.model.model import CHGNet

        return CHGNet.load(model_name=version, use_device="cpu", verbose=False)


@cache
def ours() -> PotentialModel:
    return import_chgnet().requires_grad_(False)


def theirs(crystal: Crystal, version: str = "0.3.0"):
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure(crystal.cell, crystal.numbers.tolist(), crystal.positions, coords_are_cartesian=True)
        return package(version).predict_structure(structure, return_site_energies=True)


@pytest.mark.parametrize("name", CRYSTALS)
def test_equals_the_package(name):
    crystal, model = CRYSTALS[name], ours()
    wanted, found = theirs(crystal), model.compute(Systems.of(crystal).batch(model.cutoff, dtype=torch.float32))
    assert float(found.energy) / len(crystal) == pytest.approx(float(wanted["e"]), abs=1e-5)
    np.testing.assert_allclose(found.atoms["energy"].numpy(), wanted["site_energies"], atol=2e-5)
    np.testing.assert_allclose(found.forces.numpy(), wanted["f"], atol=3e-5, rtol=2e-5)
    np.testing.assert_allclose(found.stress[0].numpy(), wanted["s"] / GPA, atol=1e-5)
    np.testing.assert_allclose(found.atoms["magmom"].numpy(), wanted["m"], atol=1e-5)


def test_published_values_of_a_layered_oxide():
    crystal = Crystal.from_fractional(["Li", "Li", "Mn", "Mn", "O", "O", "O", "O"], LAYERED, np.diag([2.868779, 4.634475, 5.832507]))
    found = calculator("chgnet").potential.compute(crystal)[0]
    assert found.energy / 8 == pytest.approx(-7.36769, abs=1e-5)
    wanted = np.array([-3.62643] * 2 + [-9.63468] * 2 + [-8.02494, -8.18472, -8.18472, -8.02494])
    np.testing.assert_allclose(found.atoms["energy"], wanted, atol=2e-5)
    np.testing.assert_allclose(found.atoms["magmom"][:4], [0.003, 0.003, 3.869, 3.869], atol=6e-4)
    np.testing.assert_allclose(found.stress * GPA, np.diag([-0.3037, 0.2231, -0.1074]), atol=3e-4)
    assert np.abs(found.forces).max() == pytest.approx(0.0926, abs=6e-5)


@pytest.mark.parametrize("name", ["MgO", "CsI", "LiMnO2"])
def test_the_old_version_with_its_biases(name):
    crystal, network = CRYSTALS[name], import_network("0.2.0").requires_grad_(False)
    found = network(Systems.of(crystal).batch(5.0, dtype=torch.float32))
    references = package("0.2.0").composition_model.fc.weight[0, torch.tensor(crystal.numbers.astype(int)) - 1]
    total = float((found["energy"] + references.detach()).sum())
    assert total / len(crystal) == pytest.approx(float(theirs(crystal, "0.2.0")["e"]), abs=1e-5)
    with pytest.raises(InputError, match="not smooth"):
        import_chgnet("0.2.0")


def test_r2scan_version():
    crystal, model = CRYSTALS["MgO"], import_chgnet("r2scan")
    found = model.compute(Systems.of(crystal).batch(model.cutoff, dtype=torch.float32))
    assert float(found.energy) / 2 == pytest.approx(float(theirs(crystal, "r2scan")["e"]), abs=1e-5)


def test_calculator_tells_moments_and_refuses_lone_atoms():
    from ase import Atoms

    atoms = Atoms("MnO", [[0, 0, 0], [2.2, 0, 0]], cell=4.4 * FCC, pbc=True, calculator=calculator("chgnet"))
    assert atoms.get_magnetic_moments()[0] > 3
    assert atoms.get_stress().shape == (6,)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    far = Atoms("O2", [[0, 0, 0], [9, 0, 0]], calculator=calculator("chgnet"))
    with pytest.raises(InputError, match="isolated atom"):
        far.get_potential_energy()


def test_many_in_one_batch_are_each_alone():
    potential = calculator("chgnet").potential
    together = potential.compute(list(CRYSTALS.values()))
    for crystal, found in zip(CRYSTALS.values(), together, strict=True):
        alone = potential.compute(crystal)[0]
        assert found.energy == pytest.approx(alone.energy, abs=2e-5)
        np.testing.assert_allclose(found.forces, alone.forces, atol=2e-5)


def test_missing_weights_and_foreign_files(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot read"):
        import_chgnet(tmp_path / "none.pth.tar")
    (tmp_path / "foreign.pth.tar").write_bytes(os.urandom(100))
    with pytest.raises(InputError, match="not a checkpoint"):
        import_chgnet(tmp_path / "foreign.pth.tar")
    settings, state = reader._read(reader._file("0.3.0"))
    torch.save({"model": {"model_args": {**settings, "conv_norm": "batch"}, "state_dict": dict(state)}}, tmp_path / "other.pth.tar")
    with pytest.raises(InputError, match="conv_norm"):
        import_chgnet(tmp_path / "other.pth.tar")
    monkeypatch.setattr(reader, "find_spec", lambda name: None)
    with pytest.raises(MissingPart, match="pip install"):
        import_chgnet()
