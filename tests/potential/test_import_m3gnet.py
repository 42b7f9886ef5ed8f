"""The published M3GNet: reference values of an independent double-precision pass, and what becomes of damaged files."""

import shutil
from functools import cache

import numpy as np
import pytest
import torch

from naica.data.registry import dataset
from naica.errors import InputError, MissingPart
from naica.potential.calculators import calculator, elements_of, error_of, level_of
from naica.potential.import_m3gnet import import_m3gnet, read_checkpoint
from naica.potential.model import PotentialModel
from naica.potential.relax import relax
from naica.potential.systems import Systems
from naica.structure import Crystal

pytestmark = pytest.mark.skipif(
    not dataset("m3gnet_pretrained").present, reason="the published weights are not on this machine (m3gnet_pretrained)"
)

GPA = 160.21766208
FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
HALF, QUARTER = [[0, 0, 0], [0.5, 0.5, 0.5]], [[0, 0, 0], [0.25, 0.25, 0.25]]
CUBIC = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def made(symbols: str, fractional, cell) -> Crystal:
    return Crystal.from_fractional(symbols.split(), fractional, cell)


# energy in eV/atom and xx of the stress in GPa
REFERENCE = {
    "NaCl": (made("Na Cl", HALF, 5.6916 * FCC), -3.38855, -0.0509),
    "MgO": (made("Mg O", HALF, 4.2562 * FCC), -5.97726, -0.0212),
    "Si": (made("Si Si", QUARTER, 5.4687 * FCC), -5.35865, 0.5480),
    "GaAs": (made("Ga As", QUARTER, 5.7502 * FCC), -4.17132, 0.0272),
    "Al": (made("Al", [[0, 0, 0]], 4.0390 * FCC), -3.74205, -0.1572),
    "CsCl": (made("Cs Cl", HALF, 4.2087 * np.eye(3)), -3.25911, 0.0370),
    "SrTiO3": (made("Sr Ti O O O", CUBIC, 3.9451 * np.eye(3)), -8.02051, 0.1557),
    "LiF": (made("Li F", HALF, 4.0834 * FCC), -4.83759, -0.1970),
}


@cache
def published() -> PotentialModel:
    return import_m3gnet().double().requires_grad_(False)


def evaluated(crystal: Crystal):
    """Energy in eV, forces, stress in GPa."""
    model = published()
    found = model.compute(Systems.of(crystal).batch(model.cutoff))
    return float(found.energy), found.forces.numpy(), found.stress[0].numpy() * GPA


def test_it_has_as_many_parameters_as_published():
    assert sum(p.numel() for p in published().backbone.parameters()) == 227_549


@pytest.mark.parametrize(("a", "energy", "stress"), [(3.30, -21.330707, 28.5196), (3.168, -21.718414, -0.0019)])
def test_molybdenum(a, energy, stress):
    found = evaluated(made("Mo Mo", HALF, a * np.eye(3)))
    assert found[0] == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(found[2], stress * np.eye(3), atol=6e-5)


def test_atoms_that_clash():
    energy, forces, _ = evaluated(Crystal(["Mo", "Mo"], [[0, 0, 0], [0.5, 0.5, 0.5]], 3.3 * np.eye(3)))
    assert energy == pytest.approx(325.37275, abs=1e-5)
    np.testing.assert_allclose(forces, [[-673.5253] * 3, [673.5253] * 3], atol=1e-4)


@pytest.mark.parametrize("name", REFERENCE)
def test_crystals(name):
    crystal, energy, stress = REFERENCE[name]
    found = evaluated(crystal)
    assert found[0] / len(crystal) == pytest.approx(energy, abs=6e-6)
    assert found[2][0, 0] == pytest.approx(stress, abs=6e-5)


def test_displaced_salt():
    moved = np.array(HALF)
    moved[1] += [0.02, 0.01, -0.015]
    energy, forces, stress = evaluated(made("Na Cl", moved, 5.6916 * FCC))
    assert energy == pytest.approx(-6.773324, abs=1e-6)
    np.testing.assert_allclose(forces[1], [0.01309, -0.01309, -0.08826], atol=6e-6)
    np.testing.assert_allclose(
        stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], [-0.0553, -0.0553, -0.3805, 0.0070, -0.0070, -0.0011], atol=6e-5
    )


@pytest.mark.parametrize(("symbol", "energy"), [("H", -1.1177), ("O", -2.0967), ("Fe", -4.0018), ("Mo", -5.0132)])
def test_lone_atoms(symbol, energy):
    assert evaluated(Crystal([symbol], [[0, 0, 0]]))[0] == pytest.approx(energy, abs=6e-5)


def test_by_name_in_single_precision_and_in_batches():
    potential = calculator("m3gnet-mp-2021").potential
    crystals = [crystal for crystal, _, _ in REFERENCE.values()]
    for (crystal, energy, stress), found in zip(REFERENCE.values(), potential.compute(crystals), strict=True):
        assert found.energy / len(crystal) == pytest.approx(energy, abs=3e-5)
        assert found.stress[0, 0] * GPA == pytest.approx(stress, abs=2e-2)
    assert "Ra" not in elements_of("m3gnet-mp-2021")
    assert len(elements_of("m3gnet-mp-2021")) == 89
    assert error_of("m3gnet-mp-2021") == 0.035
    assert level_of("m3gnet-mp-2021") != level_of("chgnet")


@pytest.mark.slow
def test_molybdenum_relaxes_to_its_lattice():
    done = relax(made("Mo Mo", HALF, 3.3 * np.eye(3)), "m3gnet-mp-2021", fmax=0.01)[0]
    assert done.status == "converged", done.reason
    assert done.crystal.volume ** (1 / 3) == pytest.approx(3.169, abs=2e-3)
    assert done.energy / 2 == pytest.approx(-10.859, abs=1e-3)


def test_elements_without_data_are_refused():
    done = relax(made("Ra O", HALF, 5.5 * FCC), "m3gnet-mp-2021", steps=0)[0]
    assert done.status == "failed"
    assert "does not know Ra" in done.reason


def test_absent_weights_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("NAICA_DATA", str(tmp_path))
    with pytest.raises(MissingPart, match="naica data pull m3gnet_pretrained"):
        import_m3gnet()


@pytest.fixture
def copy(tmp_path):
    """The published files, to be damaged."""
    source = dataset("m3gnet_pretrained").path("m3gnet.index").parent
    for file in source.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    return tmp_path


def test_a_copy_reads_the_same(copy):
    ours, theirs = import_m3gnet(copy).state_dict(), import_m3gnet().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_damaged_files_are_refused(copy):
    data, index, settings = (copy / name for name in ("m3gnet.data-00000-of-00001", "m3gnet.index", "m3gnet.json"))
    whole = data.read_bytes()
    data.write_bytes(whole[:400_000] + b"\xff" + whole[400_001:])
    with pytest.raises(InputError, match="checksum"):
        import_m3gnet(copy)
    data.write_bytes(whole[:500_000])
    with pytest.raises(InputError, match="not a readable TensorFlow checkpoint"):
        import_m3gnet(copy)
    data.write_bytes(whole)
    text = settings.read_text()
    settings.write_text(text.replace('\\"units\\": 64', '\\"units\\": 32'))
    with pytest.raises(InputError, match="not of the network"):
        import_m3gnet(copy)
    settings.write_text("{}")
    with pytest.raises(InputError, match="settings"):
        import_m3gnet(copy)
    settings.write_text(text)
    for wrong in (b"", index.read_bytes()[:-10], b"x" * 3000):
        index.write_bytes(wrong)
        with pytest.raises(InputError):
            read_checkpoint(index)
    index.unlink()
    with pytest.raises(InputError, match="cannot read"):
        import_m3gnet(copy)
