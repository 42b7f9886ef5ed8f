import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naica.data import CrystalTable, Label
from naica.errors import ConfigError, InputError, LevelError, MissingPart
from naica.training.batches import plan
from naica.training.config import HeadConfig, TrainConfig
from naica.training.device import device_of
from naica.training.property import build
from naica.training.run import prepare, train
from naica.training.target import Target

from .conftest import SMALL, make


def test_settings_go_to_plain_data_and_back():
    config = TrainConfig(epochs=7, head=HeadConfig((32, 16), "sites"), architecture_config={"width": 8})
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"epochs": 0}, "epochs = 0; expected a number from 1"),
        ({"epochs": "ten"}, "expected int"),
        ({"epochs": True}, "expected int"),
        ({"loss": "l2"}, "one of l1, huber, mse"),
        ({"head": {"hiden": [3]}}, "did you mean 'hidden'"),
        ({"head": {"pooling": "max"}}, "pooling = 'max'"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"ema": 1.0}, "ema"),
    ],
)
def test_wrong_settings_are_named(settings, says):
    with pytest.raises(ConfigError, match=says):
        TrainConfig.from_dict(settings)


def test_the_normaliser_knows_the_training_part_only(table, parts):
    material = prepare(table, "e", TrainConfig(**SMALL), parts)
    values = table.column("e")
    assert material.target.mean == pytest.approx(values[parts.train].mean())
    assert material.target.std == pytest.approx(values[parts.train].std())
    assert material.target.mean != pytest.approx(values.mean())


def test_missing_labels_are_left_out_and_counted(table, parts):
    values = table.column("e").copy()
    values[[0, 1, 60]] = [np.nan, np.inf, np.nan]
    holed = table.with_column("e", values, table.labels["e"])
    ensemble = train(holed, "e", TrainConfig(**SMALL, epochs=1), parts, progress=False)
    assert ensemble.card.data["rows"] == {"train": 48, "val": 14, "test": 15}
    assert ensemble.card.data["left_out"] == {"no label": 3}


def test_bad_columns_are_refused(table, parts):
    config = TrainConfig(**SMALL)
    with pytest.raises(InputError, match="no column 'energy'"):
        prepare(table, "energy", config, parts)
    with pytest.raises(InputError, match=r"'free' has no unit.*Label.of"):
        prepare(table, "free", config, parts)
    with pytest.raises(LevelError, match="no unit"):
        Label("formation_energy_per_atom", "")
    empty = table.with_column("e", np.full(80, np.nan), table.labels["e"])
    with pytest.raises(InputError, match="no row of 80 can be used: 80 with no label"):
        prepare(empty, "e", config, parts)
    words = table.with_column("e", ["low"] * 80, table.labels["e"])
    with pytest.raises(InputError, match="does not hold numbers"):
        prepare(words, "e", config, parts)


def test_overlapping_or_empty_parts_are_refused(table, parts):
    with pytest.raises(InputError, match=r"1 rows of the training part are also in the validation or test part \(first: row 50\)"):
        prepare(table, "e", TrainConfig(**SMALL), type(parts)(np.arange(51), parts.val, parts.test))
    with pytest.raises(InputError, match="training part holds no row"):
        prepare(table, "e", TrainConfig(**SMALL), type(parts)(np.arange(0), parts.val, parts.test))


def test_the_default_split_keeps_compositions_together(table):
    material = prepare(table, "e", TrainConfig(**SMALL))
    formulas = [c.formula for c in table]
    assert not {formulas[k] for k in material.train} & {formulas[k] for k in np.r_[material.val, material.test]}


def test_classes_are_learned_as_probabilities(parts):
    crystals = make(80)
    metal = [float(9 in c.numbers or 17 in c.numbers) for c in crystals]
    table = CrystalTable.from_crystals(crystals, {"m": metal}, {"m": Label.of("is_metal")})
    settings = {**SMALL, "learning_rate": 2e-2}
    ensemble = train(table, "m", TrainConfig(**settings, epochs=25, members=2), parts, progress=False)
    found = ensemble.predict(table)
    assert ((found.value >= 0) & (found.value <= 1)).all()
    assert ((found.sigma >= 0) & (found.sigma <= 1)).all()
    assert ensemble.card.metrics["test"]["roc_auc"] > 0.95
    assert found.value == pytest.approx(found.members.mean(axis=0))
    wrong = table.with_column("m", np.arange(80) % 3, table.labels["m"])
    with pytest.raises(InputError, match="must be 0 or 1"):
        prepare(wrong, "m", TrainConfig(**SMALL), parts)


def test_extensive_quantities_double_with_the_cell():
    torch.manual_seed(0)
    model = build("cgcnn", "energy", width=16, layers=1).eval()
    model.target = Target("energy", "regression", -3.0, 0.5)
    from naica.graphs import graph

    crystal = make(1)[0]
    with torch.no_grad():
        one, two = (float(model(graph(c))[0]) for c in (crystal, crystal.supercell((2, 1, 1))))
    assert two == pytest.approx(2 * one, rel=1e-5)
    with pytest.raises(ConfigError, match="learned per atom"):
        build("cgcnn", "energy", head={"pooling": "sum"})


@given(st.floats(-10, 10), st.floats(0.01, 5), st.lists(st.floats(-20, 20), min_size=1, max_size=5))
def test_normalising_and_back(mean, std, values):
    for quantity in ("band_gap", "energy"):
        target = Target(quantity, "regression", mean, std)
        atoms = torch.arange(1, len(values) + 1)
        labels = torch.tensor(values, dtype=torch.float64)
        back = target.to_physical(target.to_normalised(labels, atoms)[:, None], atoms)
        assert torch.allclose(back, labels, atol=1e-9)


def test_wrong_pooling_for_an_architecture():
    with pytest.raises(ConfigError, match="features per atom only"):
        build("cgcnn", head={"pooling": "system"})


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 8), st.integers(1, 100))
def test_steps_hold_every_system_once_and_stay_within_bounds(cost, size, most):
    steps = plan(np.array(cost, dtype=np.int64), size, most)
    assert [k for step in steps for k in step] == list(range(len(cost)))
    for step in steps:
        assert 1 <= len(step) <= size
        assert len(step) == 1 or sum(cost[k] for k in step) <= most


def test_devices_are_never_replaced_silently(monkeypatch):
    assert device_of().type == "cpu"
    with pytest.raises(ConfigError, match="device 'gpu0' is unknown"):
        device_of("gpu0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("NAICA_DEVICE", "cuda")
    with pytest.raises(MissingPart, match="'cuda' was asked for"):
        device_of()
    with pytest.raises(MissingPart, match="'cuda:3'"):
        device_of("cuda:3")
