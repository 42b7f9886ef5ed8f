"""SchNOrb learns H, S, energies and forces together; its forces are slopes of its energy; forces of band energies by differentiation."""

import numpy as np
import pytest
import torch

from naica.errors import ConfigError, InputError
from naica.hamiltonian.graphs import joined, sample
from naica.hamiltonian.learn import HamiltonianConfig, brought_to_zero, fit, load, loss_of, other_errors, turned_sample
from naica.hamiltonian.model import HamiltonianModel
from naica.hamiltonian.sources import source
from naica.hamiltonian.two_centre import TwoCentre
from naica.structure import Crystal

SCHNORB = {"width": 16, "factors": 16, "directions": 4, "interactions": 2, "degree": 1, "gaussians": 16, "cutoff": 5.0}
OUTPUTS = {"energies": True, "overlaps": True}


def water(seed: int) -> Crystal:
    draw = np.random.default_rng(seed)
    return Crystal(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]]) + 0.05 * draw.normal(size=(3, 3)))


def labelled(seed: int):
    """Made-up matrices with an energy of pairs, −Σ 8 exp(−d/1.5) eV on top of −5 eV per atom, and its forces."""
    one = source("slater-koster")(water(seed), {"shells": "1s1p", "cutoff": 5.0})
    r = one.crystal.positions
    energy, forces = -5.0 * len(r), np.zeros_like(r)
    for i in range(len(r)):
        for j in range(i):
            d = np.linalg.norm(r[i] - r[j])
            energy -= 8 * np.exp(-d / 1.5)
            pull = -8 / 1.5 * np.exp(-d / 1.5) * (r[i] - r[j]) / d
            forces[i] += pull
            forces[j] -= pull
    return one.replace(energy=energy, forces=forces)


def model(**changes) -> HamiltonianModel:
    items = [brought_to_zero(labelled(k), False) for k in range(4)]
    torch.manual_seed(0)
    return HamiltonianModel("schnorb", SCHNORB, TwoCentre.fit(items, "H"), TwoCentre.fit(items, "S"), **(OUTPUTS | changes))


def test_forces_are_the_slopes_of_the_energy():
    m = model().double()

    def told(crystal: Crystal):
        bare = labelled(0).replace(crystal=crystal)
        return m.everything(sample(bare, m.cutoff, m.layout, dtype=torch.float64))

    crystal, step = water(3), 1e-4
    found = told(crystal).forces
    assert float(found.abs().max()) > 1e-3
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        ends = []
        for sign in (1, -1):
            moved = crystal.positions.copy()
            moved[atom, axis] += sign * step
            ends.append(float(told(crystal.replace(positions=moved)).energy.detach()))
        assert -(ends[0] - ends[1]) / (2 * step) == pytest.approx(float(found[atom, axis]), rel=1e-5, abs=1e-7)
    torch.testing.assert_close(found.sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_a_loss_on_forces_reaches_the_weights():
    m = model()
    one = brought_to_zero(labelled(0), False)
    s = sample(one, m.cutoff, m.layout, one.blocks["H"] - m.base(one), overlap=True, energy=True)
    c = HamiltonianConfig(architecture="schnorb", forces_weight=1.0)
    with_forces = loss_of(m, s, c)
    without = loss_of(m, s, HamiltonianConfig(architecture="schnorb", overlap_weight=0.0))
    assert float(with_forces.detach()) > float(without.detach())
    with_forces.backward()
    assert float(m.backbone.energy[0].weight.grad.abs().max()) > 0


def test_all_are_learned_together_and_survive_the_disk(tmp_path):
    items = [labelled(k) for k in range(6)]
    config = HamiltonianConfig(
        architecture="schnorb",
        architecture_config=SCHNORB,
        epochs=80,
        batch_size=6,
        learning_rate=1e-2,
        ema=0.8,
        validation=0.0,
        overlap_weight=3.0,
        energy_weight=0.1,
        forces_weight=0.9,
    )
    found = fit(items, config, tmp_path / "run")
    first, best = found.rows[0], min(found.rows, key=lambda r: r["judged"])
    assert best["validation"] < 0.5 * first["validation"]
    assert best["forces"] < 0.5 * first["forces"]
    assert best["overlap"] < 0.7 * first["overlap"]
    again, card = load(tmp_path / "run")
    assert card["outputs"] == {"spin": False, "energies": True, "overlaps": True}
    one = again.complete(items[0])
    assert one.forces.shape == (3, 3)
    assert abs(one.energy - items[0].energy) < 1.0
    overlap = again.predicted_overlap(items[0])
    assert np.abs(overlap - items[0].blocks["S"]).mean() < 0.3 * np.abs(items[0].blocks["S"]).mean()
    from naica.hamiltonian.evaluate import compared

    judged = compared(again, items[:2], bands=False)
    assert judged["model"].forces < 0.5 * float(np.abs(items[0].forces).mean())
    assert np.isnan(judged["two-centre table"].forces)


def test_many_structures_in_one_batch_have_the_energies_of_each():
    m = model()
    samples = [sample(labelled(k), m.cutoff, m.layout) for k in range(3)]
    whole, single = m.everything(joined(samples)), [m.everything(s) for s in samples]
    torch.testing.assert_close(whole.energy, torch.cat([s.energy for s in single]), atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(whole.forces, torch.cat([s.forces for s in single]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.overlap, torch.cat([s.overlap for s in single]), atol=1e-5, rtol=1e-5)


def test_turned_labels_turn_forces_and_overlaps_too():
    m = model()
    one = labelled(1)
    s = sample(one, m.cutoff, m.layout, one.blocks["H"], overlap=True, energy=True)
    torch.manual_seed(2)
    after = turned_sample(s, m.layout)
    from scipy.spatial.transform import Rotation

    from naica.hamiltonian import checks

    # a molecule in a plane: the rotation is found among rotations
    turn = Rotation.align_vectors(after.batch["edge_vector"].numpy(), s.batch["edge_vector"].numpy())[0].as_matrix()

    again = checks.rotated(one, turn)
    truth = sample(again, m.cutoff, m.layout, again.blocks["H"], overlap=True, energy=True)
    torch.testing.assert_close(after.forces, truth.forces, atol=1e-5, rtol=0)
    torch.testing.assert_close(after.overlap, truth.overlap, atol=1e-5, rtol=0)


def test_what_cannot_be_learned_is_told():
    table = TwoCentre.fit([brought_to_zero(labelled(0), False)], "H")
    with pytest.raises(ConfigError, match="is schnorb"):
        HamiltonianModel("deeph2", {}, table, energies=True)
    bare = source("slater-koster")(water(0), {"shells": "1s1p"})
    config = HamiltonianConfig(architecture="schnorb", architecture_config=SCHNORB, epochs=1, forces_weight=1.0)
    with pytest.raises(InputError, match="forces = true"):
        fit([bare], config)
    with pytest.raises(ConfigError, match="predicts no S"):
        model(overlaps=False).predicted_overlap(labelled(0))
    assert other_errors(model(energies=False, overlaps=False), []) == {}


@pytest.mark.parametrize("architecture", ["deeph2", "schnorb"])
def test_band_forces_are_the_slopes_of_the_band_energy(architecture):
    """64 bits, fixed k points, smooth filling, tables that end where nothing is left."""
    from naica.hamiltonian.slopes import band_energy

    draw, items = np.random.default_rng(1), []
    for k in range(16):
        cell = 2.8 * (1 + 0.01 * k) * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
        crystal = Crystal.from_fractional([11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) + 0.02 * draw.normal(size=(2, 3)), cell)
        items.append(brought_to_zero(source("slater-koster")(crystal, {"shells": "1s1p", "cutoff": 4.2}), False))
    tables = TwoCentre.fit(items, "H"), TwoCentre.fit(items, "S")
    salt, step, points = items[4].crystal, 1e-3, np.array([[0.1, 0.2, 0.3], [-0.4, 0.0, 0.2]])
    torch.manual_seed(0)
    small = {"channels": 4, "degree": 2, "blocks": 1, "heads": 1, "gaussians": 8, "cutoff": 4.0}
    config = small if architecture == "deeph2" else SCHNORB | {"cutoff": 4.0}
    m = HamiltonianModel(architecture, config, *tables).double()
    found = band_energy(m, salt, points, temperature=2000.0)
    np.testing.assert_allclose(found.forces.sum(0), 0, atol=1e-8)
    assert np.abs(found.forces).max() > 0.01
    for atom, axis in ((0, 1), (1, 0)):
        ends = []
        for sign in (1, -1):
            moved = salt.positions.copy()
            moved[atom, axis] += sign * step
            ends.append(band_energy(m, salt.replace(positions=moved), points, temperature=2000.0).energy)
        assert -(ends[0] - ends[1]) / (2 * step) == pytest.approx(found.forces[atom, axis], rel=5e-3, abs=5e-3)
    with pytest.raises(InputError, match="superposed atoms"):
        band_energy(HamiltonianModel("deeph2", small, tables[0], on_h0=True), salt)
