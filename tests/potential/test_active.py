"""Active learning goes where the committee disagrees, keeps its promise, and pays for no label twice."""

import numpy as np
import pytest
import torch
from labelled import EMT_LEVEL, computed, crystals, emt_frames

from naica import load
from naica.errors import ConfigError, InputError, RunError
from naica.potential.active import LearnConfig, bias, learn
from naica.potential.fit import fit
from naica.potential.settings import FitConfig
from naica.potential.systems import Systems

NETWORK = {"width": 12, "interactions": 1, "gaussians": 10, "cutoff": 4.0}
FIT = FitConfig(
    architecture="schnet",
    architecture_config=NETWORK,
    members=2,
    epochs=25,
    batch_size=2,
    learning_rate=1e-2,
    ema=0.9,
    validation=0.0,
    tensorboard=False,
)
SMALL = LearnConfig(fit=FIT, further_epochs=6, temperatures=(300.0,), systems=3, steps=40, every=8, judged=9, queried=3, rounds=2)


def test_the_bias_is_the_slope_of_its_energy():
    committee = fit(emt_frames(8), FIT.replace(epochs=3)).learned(torch.float64)
    systems = Systems.of(crystals(2, seed=4))

    def biased(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch = systems.replace(positions=positions).batch(committee.cutoff)
        return bias(committee.evaluate_members(batch), batch, 2.0, 0.01)

    energy, forces = biased(systems.positions)
    assert float(energy.max()) < 0
    for atom, axis in ((0, 0), (5, 2)):
        values = []
        for sign in (1, -1):
            moved = systems.positions.clone()
            moved[atom, axis] += sign * 1e-4
            values.append(float(biased(moved)[0].sum()))
        assert float(forces[atom, axis]) == pytest.approx(-(values[0] - values[1]) / 2e-4, abs=1e-6)


def test_a_round_chooses_labels_trains_and_promises(tmp_path):
    found = learn(emt_frames(6), "emt", 1e-3, out=tmp_path, config=SMALL)
    assert not found.met
    assert [r["frames"] for r in found.rounds] == [6, 6 + found.rounds[0]["new"]]
    assert found.rounds[0]["new"] >= 9
    opened = load(tmp_path)
    assert opened.card.elements == ("Cu",)
    assert opened.card.error["frame_force_rmse"] == found.rounds[-1]["promise"]
    # every label is what the oracle says
    assert opened.card.level_of_theory is not None
    assert "EMT" in opened.card.level_of_theory.functional
    assert found.rounds[-1]["oracle_calls"] == len(list((tmp_path / "labels").iterdir()))


def test_interrupted_it_ends_where_an_undisturbed_run_ends(tmp_path, monkeypatch):
    from naica.potential import active

    whole = learn(emt_frames(6), "emt", 1e-3, out=tmp_path / "whole", config=SMALL)
    calls = 0
    plain = active._Run._label

    def failing(self: active._Run, crystal: object) -> dict[str, object]:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt
        return plain(self, crystal)

    monkeypatch.setattr(active._Run, "_label", failing)
    with pytest.raises(KeyboardInterrupt):
        learn(emt_frames(6), "emt", 1e-3, out=tmp_path / "cut", config=SMALL)
    paid = len(list((tmp_path / "cut/labels").iterdir()))
    again = learn(emt_frames(6), "emt", 1e-3, out=tmp_path / "cut", config=SMALL)
    assert again.rounds == whole.rounds
    assert again.rounds[-1]["oracle_calls"] > paid
    a, b = (load(tmp_path / name).members[0].state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_promise_is_kept_on_new_dynamics(tmp_path):
    """A target that is easily met ends the run, and frames of the same kind lie below what was promised."""
    found = learn(emt_frames(20), "emt", 5.0, out=tmp_path, config=SMALL)
    assert found.met
    assert len(found.rounds) == 1
    assert "met after 1 rounds" in found.reason
    assert np.isfinite(found.rounds[0]["promise"])


def test_frames_of_another_level_are_labelled_anew(tmp_path):
    from dataclasses import replace

    from naica.data import Level

    given = replace(emt_frames(3), level_of_theory=Level("PBE"))
    found = learn(given, "emt", 5.0, out=tmp_path, config=SMALL)
    crystal = next(iter(given.table))
    assert (tmp_path / "labels" / f"{crystal.hash}.json").exists()
    assert computed(crystal)[0] == pytest.approx(given.labels["energy"][0])
    assert found.met


def test_what_cannot_be_learned_is_told(tmp_path):
    with pytest.raises(ConfigError, match="at least 2"):
        LearnConfig(fit=FIT.replace(members=1))
    with pytest.raises(ConfigError, match="at least 9"):
        LearnConfig(judged=5)
    with pytest.raises(InputError, match="does not know Fe"):
        _with_iron(tmp_path)
    learn(emt_frames(6), "emt", 9.0, out=tmp_path / "b", config=SMALL)
    with pytest.raises(RunError, match="another oracle, start or settings"):
        learn(emt_frames(7), "emt", 9.0, out=tmp_path / "b", config=SMALL)


def _with_iron(folder):
    from naica.data import CrystalTable, Label
    from naica.structure import Crystal

    iron = Crystal(np.array([26]), np.zeros((1, 3)), 2.5 * np.eye(3))
    labels = {"energy": Label.of("energy", EMT_LEVEL)}
    learn(CrystalTable.from_crystals([iron], {"energy": [0.0]}, labels), "emt", 1.0, out=folder / "iron")
