"""From one model to the next: what stays, what goes on, what starts anew."""

import numpy as np
import pytest
import torch

from naica.data import Label
from naica.errors import ConfigError, InputError, RunError
from naica.training import TrainConfig, build, fine_tune, load, train
from naica.training.transfer import checked_freeze, hold, release, start_training, trained_parameters

from .conftest import LEVEL, OTHER, SMALL

FAST = {"progress": False, "tensorboard": False, "batch_size": 16, "ema": 0.9}


def state(model, prefix="backbone."):
    return {k: v.clone() for k, v in model.state_dict().items() if k.startswith(prefix)}


def same(a, b):
    return {k for k in a if torch.equal(a[k], b[k])}


def gap_of(table):
    values = table.column("e") * 3 + 5
    return table.with_column("gap", values, Label.of("band_gap", OTHER))


@pytest.fixture(scope="module")
def tuned(trained, table, parts):
    shifted = table.with_column("e", table.column("e") * 1.5, Label.of("formation_energy_per_atom", OTHER))
    return {
        f: fine_tune(trained, shifted, "e", epochs=3, split=parts, freeze=f, members=1, **FAST)
        for f in ("nothing", "elements", "backbone", 1)
    }


def test_a_frozen_backbone_keeps_every_weight_and_running_statistic(trained, tuned):
    before, after = trained.members[0], tuned["backbone"].members[0]
    assert same(state(before), state(after)) == set(state(before))
    assert any("running_mean" in name for name in state(before))
    assert not same(state(before, "head."), state(after, "head."))


def test_frozen_elements_keep_the_first_vectors_alone(trained, tuned):
    before, after = state(trained.members[0]), state(tuned["elements"].members[0])
    kept = same(before, after)
    assert "backbone.embedding.weight" in kept
    assert not any(name.startswith("backbone.convolutions") and name.endswith("weight") for name in kept)


def test_a_number_of_layers_freezes_all_before_them(trained, tuned):
    before, after = state(trained.members[0]), state(tuned[1].members[0])
    assert same(before, after) == set(before)  # the one layer and the vectors: all of this network


def test_without_freezing_all_weights_and_statistics_move(trained, tuned):
    before, after = state(trained.members[0]), state(tuned["nothing"].members[0])
    moving = {k for k in before if before[k].is_floating_point() and before[k].ndim and "radial" not in k}
    # rows of elements without data and biases before a batch norm may stay; no tensor of weights or statistics does
    assert not {k for k in same(before, after) & moving if k.endswith(("weight", "running_mean", "running_var"))}


def test_the_card_counts_what_was_trained(tuned):
    records = {name: one.card.training["members"][0] for name, one in tuned.items()}
    for name, one in tuned.items():
        model = one.members[0]
        assert records[name]["frozen"] == name
        assert records[name]["parameters"] == sum(p.numel() for p in model.parameters())
        assert all(p.requires_grad for p in model.parameters())  # the freeze belongs to the run, not to the model
    head = sum(p.numel() for p in tuned["backbone"].members[0].head.parameters())
    assert records["backbone"]["trained_parameters"] == head
    table_of_elements = tuned["elements"].members[0].backbone.embedding.weight.numel()
    assert records["elements"]["trained_parameters"] == records["elements"]["parameters"] - table_of_elements


@pytest.mark.parametrize("architecture", ["cgcnn", "megnet", "gnome", "schnet", "icgcnn", "selenite", "amdnet"])
def test_every_crystal_network_can_keep_its_elements(architecture):
    model = hold(build(architecture), "elements")
    counts = trained_parameters(model)
    assert 0 < counts["trained_parameters"] < counts["parameters"]
    start_training(model)
    assert model.head.training
    release(model)
    assert trained_parameters(model)["trained_parameters"] == counts["parameters"]


def test_frozen_layers_are_the_first_ones():
    model = hold(build("selenite", layers=3), 2)
    free = {name.split(".")[1] + "." + name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad and "layers" in name}
    assert free == {"layers.2"}
    assert not any(p.requires_grad for p in model.backbone.start.parameters())
    assert all(p.requires_grad for p in model.backbone.norm.parameters())


@pytest.mark.parametrize(("freeze", "words"), [("head", "expected 'nothing'"), (0, "expected 'nothing'"), (-1, "from 1"), (True, "freeze")])
def test_unknown_parts_are_refused(freeze, words):
    with pytest.raises(ConfigError, match=words):
        checked_freeze(freeze)


def test_parts_a_network_does_not_have_are_refused(trained, table, parts):
    with pytest.raises(ConfigError, match="has 1 layers"):
        fine_tune(trained, table, "e", split=parts, freeze=2, **FAST)
    with pytest.raises(ConfigError, match="no vectors of elements"):
        hold(build("ogcnn"), "elements")


# --- another quantity ------------------------------------------------------------------------------------------------------------------
def test_another_quantity_keeps_the_network_and_gets_a_fresh_head(trained, table, parts):
    tuned = fine_tune(trained, gap_of(table), "gap", epochs=30, learning_rate=1e-2, split=parts, freeze="backbone", members=2, **FAST)
    assert tuned.target.quantity == "band_gap"
    assert tuned.target.mean == pytest.approx(gap_of(table).column("gap")[parts.train].mean())
    for old, new in zip(trained.members, tuned.members, strict=False):
        assert same(state(old), state(new)) == set(state(old))
    heads = [state(m, "head.") for m in (trained.members[0], *tuned.members)]
    assert not same(heads[0], heads[1])
    assert not same(heads[1], heads[2])
    # features of energies serve a quantity that is a linear function of them
    actual = gap_of(table).column("gap")[parts.test]
    assert tuned.card.metrics["test"]["mae"] < 0.6 * np.abs(actual - actual.mean()).mean()


def test_a_class_can_follow_a_regression(trained, table, parts, tmp_path):
    metal = table.with_column("metal", (table.column("e") > np.median(table.column("e"))).astype(float), Label.of("is_metal", LEVEL))
    tuned = fine_tune(trained, metal, "metal", epochs=2, split=parts, members=1, out=tmp_path, **FAST)
    assert tuned.target.kind == "class"
    assert np.allclose(load(str(tmp_path / "model")).predict(table).value, tuned.predict(table).value, atol=1e-6)


def test_a_fresh_head_needs_training(trained, table, parts):
    with pytest.raises(InputError, match="band_gap it gets a fresh head"):
        fine_tune(trained, gap_of(table), "gap", epochs=0, split=parts, **FAST)


def test_a_run_folder_remembers_what_was_frozen(trained, table, parts, tmp_path):
    for _ in range(2):
        fine_tune(trained, table, "e", epochs=1, split=parts, freeze="backbone", members=1, out=tmp_path, **FAST)
    with pytest.raises(RunError, match="different frozen"):
        fine_tune(trained, table, "e", epochs=1, split=parts, members=1, out=tmp_path, **FAST)


def test_an_interrupted_frozen_run_ends_where_an_undisturbed_one_ends(trained, table, parts, tmp_path, monkeypatch):
    from naica.training import loop

    settings = {"epochs": 3, "split": parts, "freeze": "elements", "members": 1, **FAST}
    whole = fine_tune(trained, table, "e", **settings)
    save, saved = loop.Member._save, []

    def killed(self, path):
        save(self, path)
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Member, "_save", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fine_tune(trained, table, "e", out=tmp_path, **settings)
    monkeypatch.setattr(loop.Member, "_save", save)
    resumed = fine_tune(trained, table, "e", out=tmp_path, **settings)
    assert np.array_equal(whole.predict(table).value, resumed.predict(table).value)


def test_starting_weights_of_another_quantity_give_their_network(trained, table, parts):
    config = TrainConfig(**SMALL, epochs=1, learning_rate=1e-9, weight_decay=0.0)
    other = train(gap_of(table), "gap", config, parts, progress=False, start=trained)
    assert other.target.quantity == "band_gap"
    weights = [m.backbone.embedding.weight for m in (trained.members[0], other.members[0])]
    assert torch.allclose(*weights, atol=1e-6)
