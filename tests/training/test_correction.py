from dataclasses import replace

import numpy as np
import pytest

from naica.data import CrystalTable, Label
from naica.errors import ConfigError, InputError, LevelError
from naica.training import Ensemble, fit_correction, fit_learner, load
from naica.training.ridge import fit_ridge

from .conftest import OTHER, SMALL, make

SHIFTS = {8: -0.7, 9: 0.4, 16: 0.15, 17: -0.2, 3: 0.3, 11: 0.0, 12: -0.3, 19: 0.5, 20: 0.1}


def shift(crystal):
    return float(np.mean([SHIFTS[int(z)] for z in crystal.numbers]))


@pytest.fixture(scope="module")
def shifted(trained):
    """Labels of another level: what the prior says plus a shift per element."""
    crystals = make(150, seed=5)
    values = trained.predict(crystals).value + [shift(c) for c in crystals]
    return CrystalTable.from_crystals(crystals, {"e": values}, {"e": Label.of("formation_energy_per_atom", OTHER)})


@pytest.mark.parametrize("n", [5, 12, 60])
def test_shifts_between_levels_are_learned_from_few_labels(trained, shifted, n):
    corrected = fit_correction(trained, shifted.take(np.arange(n)), "e")
    new = shifted.take(np.arange(90, 150))
    actual = new.column("e")
    before = np.abs(trained.predict(new).value - actual).mean()
    found = corrected.predict(new)
    after = np.abs(found.value - actual).mean()
    assert after < {5: 1.3, 12: 0.5, 60: 0.15}[n] * before
    assert np.mean(np.abs(found.value - actual) < 2 * found.sigma) > 0.75
    told = corrected.card.metrics["leave_one_out"]
    assert told["n"] == n
    assert told["mae_before"] == pytest.approx(np.abs(trained.predict(shifted.take(np.arange(n))).value - shifted.column("e")[:n]).mean())


def test_the_error_bar_knows_elements_no_label_had(trained, shifted):
    has_oxygen = np.array([8 in c.numbers for c in shifted])
    corrected = fit_correction(trained, shifted.take(np.flatnonzero(~has_oxygen)[:40]), "e")
    assert "O" not in corrected.card.elements
    found = corrected.predict(shifted)
    assert np.abs(found.value - shifted.column("e"))[has_oxygen].mean() > np.abs(found.value - shifted.column("e"))[~has_oxygen].mean()


def test_it_is_deterministic_and_survives_the_disk(trained, shifted, tmp_path):
    first, second = (fit_correction(trained, shifted.take(np.arange(30)), "e", seed=3) for _ in range(2))
    new = shifted.take(np.arange(100, 120))
    a, b = first.predict(new, volume_factors=(0.9, 1.0, 1.1)), second.predict(new, volume_factors=(0.9, 1.0, 1.1))
    assert (a.members == b.members).all()
    assert (a.sigma == b.sigma).all()
    again = load(first.save(tmp_path / "model")).predict(new, volume_factors=(0.9, 1.0, 1.1))
    assert (again.members == a.members).all()
    assert again.sigma == pytest.approx(a.sigma)
    path = tmp_path / "model" / "correction.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"correction\.safetensors is damaged"):
        load(tmp_path / "model")


def test_both_levels_are_on_the_card(trained, shifted):
    card = fit_correction(trained, shifted, "e").card
    assert card.level == OTHER
    assert "PBE" in card.note
    assert "r2SCAN" in card.note
    assert "PBE" in card.lineage[-1]["level"]


def test_undeclared_levels_wrong_quantities_and_too_few_labels_are_refused(trained, shifted):
    bare = shifted.with_column("e", shifted.column("e"), Label.of("formation_energy_per_atom"))
    with pytest.raises(LevelError, match="labels in column 'e' is not declared"):
        fit_correction(trained, bare, "e")
    unknown = Ensemble(trained.members, replace(trained.card, target={**trained.card.target, "level": None}))
    with pytest.raises(LevelError, match=r"the prior .* is not declared"):
        fit_correction(unknown, shifted, "e")
    gap = shifted.with_column("e", shifted.column("e"), Label.of("band_gap", OTHER))
    with pytest.raises(InputError, match="holds band_gap"):
        fit_correction(trained, gap, "e")
    with pytest.raises(InputError, match=r"4 usable labels .* needs at least 5"):
        fit_correction(trained, shifted.take(np.arange(4)), "e")
    with pytest.raises(InputError, match="no unit"):
        fit_correction(trained, shifted.with_column("x", shifted.column("e")), "x")


def test_missing_labels_are_left_out(trained, shifted):
    values = shifted.column("e").copy()
    values[:50] = np.nan
    card = fit_correction(trained, shifted.with_column("e", values, shifted.labels["e"]), "e").card
    assert card.data["rows"]["train"] == 100
    assert card.data["left_out"] == {"no label": 50}


def test_predict_has_the_signature_of_an_ensemble(trained, shifted):
    corrected = fit_correction(trained, shifted, "e")
    with pytest.raises(ConfigError, match="this ensemble has 3"):
        corrected.predict(shifted, members=9)
    assert corrected.predict(shifted[0], members=2).members.shape == (2, 1)
    assert corrected.needs == trained.needs


def test_the_ridge_is_the_gaussian_process_with_its_linear_kernel():
    draw = np.random.default_rng(0)
    features, groups = draw.normal(size=(25, 6)), np.array([0, 0, 0, 1, 1, 2])
    values = features @ np.array([1.0, -2, 0, 0.3, 0, 0.5]) + 0.1 * draw.normal(size=25)
    ridge, out = fit_ridge(features, values, groups, 1.0)
    s = np.array(ridge.scales)[groups]
    kernel = features * s**2 @ features.T + ridge.noise**2 * np.eye(25)
    new = draw.normal(size=(4, 6))
    cross = new * s**2 @ features.T
    assert ridge.mean(new) == pytest.approx(cross @ np.linalg.solve(kernel, values), rel=1e-6)
    variance = np.sum((new * s) ** 2, axis=1) - np.einsum("ij,ji->i", cross, np.linalg.solve(kernel, cross.T))
    assert ridge.variance(new) == pytest.approx(variance, rel=1e-5)
    inverse = np.linalg.inv(kernel)
    assert out.mean == pytest.approx(values - inverse @ values / np.diag(inverse), rel=1e-6)
    assert out.variance == pytest.approx(1 / np.diag(inverse), rel=1e-6)
    for k in (0, 7):
        keep = np.arange(25) != k
        alone = features[k] * s**2 @ features[keep].T @ np.linalg.solve(kernel[np.ix_(keep, keep)], values[keep])
        assert out.mean[k] == pytest.approx(alone, rel=1e-5)


def test_the_evidence_finds_noise_and_what_matters():
    draw = np.random.default_rng(1)
    features, groups = draw.normal(size=(400, 12)), np.repeat([0, 1], 6)
    values = features[:, 6:] @ np.array([1.0, -1, 0.5, 2, -0.5, 1]) + 0.2 * draw.normal(size=400)
    ridge, _ = fit_ridge(features, values, groups, 1.0)
    assert ridge.noise == pytest.approx(0.2, rel=0.15)
    assert ridge.scales[1] > 5 * ridge.scales[0]
    with pytest.raises(InputError, match="all of them finite"):
        fit_ridge(features, np.full(400, np.nan), groups, 1.0)


def test_learners_have_one_interface(trained, shifted, tmp_path):
    corrector = fit_learner("correct", prior=trained)
    found = corrector.fit(shifted.take(np.arange(40)), "e", 2, tmp_path / "a")
    assert (load(tmp_path / "a" / "model").predict(shifted).value == found.predict(shifted).value).all()

    small = {key: value for key, value in SMALL.items() if key != "tensorboard"}
    trainer = fit_learner("train", members=2, visits=600, settings=small)
    first = trainer.fit(shifted.take(np.arange(60)), "e", 0, tmp_path / "r0")
    twin = trainer.fit(shifted.take(np.arange(60)), "e", 0, None)
    assert (first.predict(shifted).members == twin.predict(shifted).members).all()
    assert first.predict(shifted, volume_factors=(0.95, 1.0, 1.05), members=1).members.shape == (1, 150)
    second = trainer.fit(shifted, "e", 1, tmp_path / "r1", previous=tmp_path / "r0")
    assert second.card.training["config"]["epochs"] == 5
    assert second.predict(shifted).value.shape == (150,)
    assert second.card.level == OTHER


def test_learners_are_asked_for_by_name():
    with pytest.raises(ConfigError, match="one of correct, train"):
        fit_learner("guess")
    with pytest.raises(ConfigError, match="no setting 'member'"):
        fit_learner("train", member=3)
    with pytest.raises(ConfigError, match="members = 0"):
        fit_learner("train", members=0)
