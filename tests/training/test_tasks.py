"""Several tasks at once: labels with gaps, classes beside numbers, and the same model saved, evaluated and taken apart."""

import json

import numpy as np
import pytest
import torch

from naica.data import CrystalTable, Label
from naica.errors import ConfigError, InputError
from naica.graphs import GraphSpec, graph
from naica.training import Ensemble, TrainConfig, load, train
from naica.training.batches import Labelled
from naica.training.card import FORMAT, Calibration, Card, parse_card
from naica.training.evaluation import Metrics, evaluate, evaluate_tasks, judge, roc_auc, roc_auc_interval
from naica.training.losses import Weight, joint_loss, weights_of
from naica.training.property import PropertyModel
from naica.training.run import prepare
from naica.training.target import Target, read_labels

from .conftest import LEVEL, OTHER, SMALL, Parts, energy, make


@pytest.fixture(scope="module")
def gappy():
    """80 crystals with an energy, a class and a volume-like gap, a third of each missing, some rows without any."""
    crystals = make(80)
    draw = np.random.default_rng(1)
    columns = {
        "e": np.array([energy(c) for c in crystals]),
        "halide": np.array([float(9 in c.numbers or 17 in c.numbers) for c in crystals]),
        "gap": np.array([c.volume / 10 for c in crystals]),
    }
    for values in columns.values():
        values[draw.random(80) < 0.33] = np.nan
    labels = {"e": Label.of("formation_energy_per_atom", LEVEL), "halide": Label.of("is_metal"), "gap": Label.of("band_gap", OTHER)}
    return CrystalTable.from_crystals(crystals, columns, labels, ids=[f"c{k}" for k in range(80)])


NAMES = ("e", "halide", "gap")


@pytest.fixture(scope="module")
def joint(gappy):
    rows = np.arange(80)
    config = TrainConfig(**SMALL, epochs=25, members=2, learning_rate=1e-2)
    return train(gappy, NAMES, config, Parts(rows[:50], rows[50:65], rows[65:]), progress=False)


def test_each_task_is_normalised_on_its_own_training_labels(gappy, parts):
    material = prepare(gappy, NAMES, TrainConfig(**SMALL), parts)
    for target, name in zip(material.targets, NAMES, strict=True):
        values = gappy.column(name)[parts.train]
        values = values[np.isfinite(values)]
        assert target.task == name
        if target.kind == "regression":
            assert (target.mean, target.std) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    assert [t.kind for t in material.targets] == ["regression", "class", "regression"]
    assert [t.level for t in material.targets] == [LEVEL, None, OTHER]
    anything = np.isfinite(np.stack([gappy.column(n) for n in NAMES])).any(axis=0)
    assert 0 < (~anything).sum() == material.rejected["no label"]
    assert sorted(np.r_[material.train, material.val, material.test]) == np.flatnonzero(anything).tolist()


def test_one_task_cannot_be_asked_of_several(joint, gappy):
    with pytest.raises(InputError, match=r"several tasks \(e, halide, gap\).*task\('e'\)"):
        joint.predict(gappy[0])
    with pytest.raises(InputError, match="no task 'f'; it has e, halide, gap"):
        joint.task("f")
    with pytest.raises(ConfigError, match="each with its own name"):
        prepare(gappy, ("e", "e"), TrainConfig(**SMALL))


def test_a_task_alone_is_the_same_network(joint, gappy):
    together = joint.predict_tasks(gappy)
    assert list(together) == list(NAMES)
    for name in NAMES:
        alone = joint.task(name)
        found = alone.predict(gappy)
        assert found.members == pytest.approx(together[name].members, abs=1e-6)
        assert found.sigma == pytest.approx(together[name].sigma, abs=1e-6)
        assert found.warnings == together[name].warnings
        assert (found.unit, found.kind, found.quantity) == (together[name].unit, together[name].kind, together[name].quantity)
        assert alone.card.quantity == found.quantity
        assert alone.card.metrics["test"] == joint.card.metrics["test"]["tasks"][name]


def test_it_learns_them_together(joint, gappy, parts):
    test = joint.card.metrics["test"]
    assert test["tasks"]["halide"]["roc_auc"] > 0.85
    for name in ("e", "gap"):
        values = gappy.column(name)[parts.test]
        values = values[np.isfinite(values)]
        assert test["tasks"][name]["n"] == len(values)
        assert test["tasks"][name]["mae"] < 0.8 * np.abs(values - values.mean()).mean()
    assert test["mean_roc_auc"] == test["tasks"]["halide"]["roc_auc"]
    std = {t.task: t.std for t in joint.targets}
    assert test["mean_scaled_mae"] == pytest.approx(np.mean([test["tasks"][n]["mae"] / std[n] for n in ("e", "gap")]))


def test_a_saved_model_of_several_tasks_is_the_same_model(joint, gappy, tmp_path):
    again = load(joint.save(tmp_path / "joint"))
    for name, found in again.predict_tasks(gappy).items():
        assert (found.members == joint.predict_tasks(gappy)[name].members).all()
    assert json.loads(again.card.to_json()) == json.loads(joint.card.to_json())
    assert again.task("gap").card.calibration.n > 0


def test_evaluation_of_all_tasks_pools_the_labels(joint, gappy, parts):
    found = evaluate_tasks(joint, gappy, rows=parts.test)
    together = joint.predict_tasks(gappy.take(parts.test))
    for name in NAMES:
        values = gappy.column(name)[parts.test]
        known = np.isfinite(values)
        assert found[name].predicted == pytest.approx(together[name].value[known], abs=1e-6)
        assert found[name].actual == pytest.approx(values[known])
    renamed = gappy.with_column("other", gappy.column("gap"), gappy.labels["gap"])
    _same_figures(evaluate_tasks(joint, renamed, {"gap": "other"})["gap"].metrics, evaluate_tasks(joint, gappy)["gap"].metrics)
    with pytest.raises(InputError, match="holds band_gap, the model predicts formation_energy_per_atom"):
        evaluate_tasks(joint, gappy, {"e": "gap"})
    with pytest.raises(InputError, match="several tasks"):
        evaluate(joint, gappy, "e")
    _same_figures(evaluate(joint.task("e"), gappy, "e").metrics, evaluate_tasks(joint, gappy)["e"].metrics)


def _same_figures(found, expected):
    """Equal to the rounding of f32 sums, whose order follows where the arrays happen to lie in memory."""
    for name, value in vars(expected).items():
        assert getattr(found, name) == (value if isinstance(value, (str, type(None))) else pytest.approx(value, rel=1e-5)), name


def test_missing_labels_have_no_say():
    """The gradient of a step does not depend on what stands in place of a missing label."""
    targets = [Target("band_gap", name="a"), Target("is_metal", "class", name="b")]
    raw = [torch.randn(6, 1, requires_grad=True), torch.randn(6, 2, requires_grad=True)]
    a = torch.tensor([1.0, float("nan"), 0.3, 2.0, float("inf"), -1.0])
    b = torch.tensor([1.0, 0.0, float("nan"), float("nan"), 1.0, 0.0])
    for loss in ("l1", "huber", "mse"):
        total = joint_loss(raw, [a, b], torch.ones(6), targets, [Weight(), Weight()], loss)
        grads = torch.autograd.grad(total, raw)
        assert all(torch.isfinite(g).all() for g in grads)
        assert (grads[0][[1, 4]] == 0).all()
        assert (grads[1][[2, 3]] == 0).all()
        assert (grads[1][[0, 1]] != 0).all()
        alone = joint_loss([r[[0, 5]] for r in raw], [a[[0, 5]], b[[0, 5]]], torch.ones(2), targets, [Weight(), Weight()], loss)
        assert torch.isfinite(alone)


def test_a_complete_single_task_has_the_plain_mean_loss():
    raw, values = torch.randn(7, 1), torch.randn(7)
    found = joint_loss([raw], [values], torch.ones(7), [Target("band_gap")], [Weight()], "l1")
    assert float(found) == pytest.approx(float((raw[:, 0] - values).abs().mean()), rel=1e-6)


def test_steps_add_up_to_the_loss_of_the_whole_part(gappy, parts):
    """Weights are of the whole part: steps with few labels weigh less, so that the mean over equal steps is the loss over all labels."""
    material = prepare(gappy, ("e", "gap"), TrainConfig(**SMALL), parts)
    part = material.part("train")
    for share in ("labels", "tasks"):
        weights = weights_of(part, material.targets, TrainConfig(**SMALL, task_weights=share))
        raw = [torch.zeros(len(part), 1), torch.zeros(len(part), 1)]
        labels = [torch.from_numpy(part.of(k)).float() for k in range(2)]
        n_atoms = torch.ones(len(part))
        whole = float(joint_loss(raw, labels, n_atoms, material.targets, weights, "l1"))
        size = len(part) // 4
        steps = [slice(k * size, (k + 1) * size if k < 3 else len(part)) for k in range(4)]
        pieces = [
            float(joint_loss([r[s] for r in raw], [v[s] for v in labels], n_atoms[s], material.targets, weights, "l1")) * (s.stop - s.start)
            for s in steps
        ]
        assert sum(pieces) / len(part) == pytest.approx(whole, rel=1e-5)
        means = [float(np.nanmean(np.abs((v.numpy() - t.mean) / t.std))) for v, t in zip(labels, material.targets, strict=True)]
        n = [int(np.isfinite(v.numpy()).sum()) for v in labels]
        expected = np.mean(means) if share == "tasks" else np.average(means, weights=n)
        assert whole == pytest.approx(expected, rel=1e-5)


def test_balanced_classes_weigh_the_same_however_rare(parts):
    rare = np.zeros(80)
    rare[::10] = 1
    table = CrystalTable.from_crystals(make(80), {"m": rare}, {"m": Label.of("is_metal")})
    material = prepare(table, "m", TrainConfig(**SMALL), parts)
    part = material.part("train")
    (plain,) = weights_of(part, material.targets, TrainConfig(**SMALL))
    (balanced,) = weights_of(part, material.targets, TrainConfig(**SMALL, class_weights="balanced"))
    assert plain.classes == (1.0, 1.0)
    labels = part.labels
    assert balanced.classes[1] * (labels == 1).sum() == pytest.approx(balanced.classes[0] * (labels == 0).sum())
    assert np.mean(np.where(labels == 1, balanced.classes[1], balanced.classes[0])) == pytest.approx(1.0)


def test_recall_and_auc_are_of_the_pooled_labels(gappy):
    """Trap: the mean of per-batch accuracies or AUCs is another number, and undefined where a batch has one class."""
    draw = np.random.default_rng(0)
    actual = np.r_[np.ones(3), np.zeros(97)]
    score = np.clip(0.3 * actual + draw.uniform(0, 0.7, 100), 0, 1)
    order = np.argsort(actual)
    whole = roc_auc(score, actual)
    by_batch = [roc_auc(score[part], actual[part]) for part in np.array_split(order, 10)]
    assert None in by_batch
    assert whole == pytest.approx(np.mean([[a > b for b in score[3:]] for a in score[:3]]))


class Known(PropertyModel):
    """A class network whose logits are given."""

    def __init__(self, logits):
        super().__init__("cgcnn", {"width": 4, "layers": 1}, TrainConfig().head, [Target("is_metal", "class", name="m")])
        self.logits = logits

    def outputs(self, batch):
        shown, self.logits = self.logits[: batch.n_systems], self.logits[batch.n_systems :]
        return (torch.stack([torch.zeros(len(shown)), shown], dim=1),)


def test_metrics_of_a_class_over_many_batches(monkeypatch):
    from naica.training import evaluation

    monkeypatch.setattr(evaluation, "MAX_SYSTEMS", 7)
    draw = np.random.default_rng(3)
    actual = (draw.random(50) < 0.2).astype(float)
    logits = torch.from_numpy(draw.normal(size=50) + 1.5 * actual - 1.0).float()
    table = CrystalTable.from_crystals(make(50), {"m": actual}, {"m": Label.of("is_metal")})
    model = Known(logits)
    card = Card("", "cgcnn", {}, {}, model.target.to_dict(), 1, calibration=Calibration())
    ensemble = Ensemble((model,), card)
    part = Labelled(ensemble.graphs(table), (read_labels(table, "m"),), np.arange(50))
    found = judge(ensemble, part)["m"].metrics
    guess = logits.numpy() >= 0
    assert found.recall_1 == pytest.approx(guess[actual == 1].mean())
    assert found.recall_0 == pytest.approx((~guess[actual == 0]).mean())
    assert found.accuracy == pytest.approx((guess == (actual == 1)).mean())
    assert found.roc_auc == pytest.approx(roc_auc(logits.numpy(), actual))


def test_the_bootstrap_interval_holds_the_area_and_narrows():
    draw = np.random.default_rng(5)

    def sample(n):
        actual = (draw.random(n) < 0.4).astype(float)
        return np.round(actual + draw.normal(size=n), 1), actual  # rounded: ties

    widths = []
    for n in (60, 2000):
        score, actual = sample(n)
        low, high = roc_auc_interval(score, actual)
        assert low < roc_auc(score, actual) < high
        widths.append(high - low)
    assert widths[1] < 0.3 * widths[0]
    # the interval of new samples covers the true area (0.76 for a shift of one standard deviation) about as often as it says
    hits = 0
    for _ in range(60):
        score, actual = sample(150)
        low, high = roc_auc_interval(score, actual, draws=200)
        hits += low <= 0.7602 <= high
    assert hits >= 50
    assert roc_auc_interval(score, np.ones(150)) == ()


def test_cards_of_the_first_format_are_read():
    old = {
        "format": 1,
        "name": "old",
        "architecture": "cgcnn",
        "architecture_config": {},
        "head": {"hidden": [8], "pooling": "auto", "dropout": 0.0},
        "target": {"quantity": "band_gap", "kind": "regression", "mean": 1.0, "std": 2.0, "level": None},
        "members": 1,
    }
    card = parse_card(old, "card")
    assert card.format == FORMAT
    assert card.tasks == ()
    assert card.of_task(0) is card
    assert Target.from_dict(dict(card.targets[0])) == Target("band_gap", "regression", 1.0, 2.0)
    broken = {**old, "format": 2, "tasks": [{"target": {"quantity": "luck"}}]}
    with pytest.raises(InputError, match="'luck', a quantity this naica does not know"):
        parse_card(broken, "card")


def test_forward_gives_a_column_per_task(joint, gappy):
    batch = graph([gappy[0], gappy[1]], GraphSpec())
    with torch.no_grad():
        values = joint.members[0](batch)
        apart = joint.members[0].values(batch)
    assert values.shape == (2, 3)
    assert all(torch.equal(values[:, k], one) for k, one in enumerate(apart))


def test_metrics_leave_out_what_does_not_apply():
    assert Metrics("band_gap", "eV", 3, mae=0.1).to_dict() == {"quantity": "band_gap", "unit": "eV", "n": 3, "mae": 0.1}
