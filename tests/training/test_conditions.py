"""State variables and levels of theory as inputs of any network."""

import numpy as np
import pytest
import torch

from naica.data import CrystalTable, Label
from naica.errors import ConfigError, InputError
from naica.graphs import GraphSet
from naica.training import HeadConfig, TrainConfig, fit_correction, load, train
from naica.training.conditions import Conditions, encoded, groups_of, settled
from naica.training.evaluation import evaluate
from naica.training.property import build
from naica.training.run import fine_tune, prepare

from .conftest import LEVEL, OTHER, SMALL, Parts, energy, make

QUANTITY = "heat_capacity"


def capacity(crystal, temperature):
    """Grows with the temperature to a limit that depends on the crystal (J/(mol K) of the cell)."""
    return len(crystal) * (20.0 + crystal.volume / 10) * (1 - np.exp(-temperature / 200.0))


@pytest.fixture(scope="module")
def heated():
    """30 crystals at 4 temperatures each, all rows of a crystal in one part."""
    crystals, draw = make(30), np.random.default_rng(0)
    rows = [(c, t, k) for k, c in enumerate(crystals) for t in draw.uniform(50, 900, 4)]
    columns = {"C": [capacity(c, t) for c, t, _ in rows], "temperature": [t for _, t, _ in rows]}
    table = CrystalTable.from_crystals(
        [c for c, _, _ in rows], columns, {"C": Label.of(QUANTITY, LEVEL)}, ids=[f"{k}-{t:.0f}" for _, t, k in rows]
    )
    every = np.arange(120)
    return table, Parts(every[:80], every[80:100], every[100:])


HOT = {**SMALL, "head": {"state": ["temperature"], "hidden": [32]}}


@pytest.fixture(scope="module")
def warm(heated):
    table, parts = heated
    return train(table, "C", TrainConfig.from_dict({**HOT, "epochs": 60, "members": 2, "learning_rate": 1e-2}), parts, progress=False)


def test_one_structure_at_several_temperatures(heated, warm):
    table, parts = heated
    labels = table.column("C")
    blind = np.abs(labels[parts.test] - np.median(labels[parts.train])).mean()
    assert warm.card.metrics["test"]["mae"] < 0.4 * blind
    assert warm.needs.state == ("temperature",)
    assert "state" in warm.card.fields
    crystal = table[0]
    curve = warm.predict(crystal, state={"temperature": 100}).value, warm.predict(crystal, state={"temperature": 700}).value
    assert curve[1] > 1.3 * curve[0]


def test_state_is_standardised_on_the_training_part_and_saved(heated, warm, tmp_path):
    table, parts = heated
    own = table.column("temperature")[parts.train]
    assert float(warm.members[0].conditions.mean[0]) == pytest.approx(own.mean(), rel=1e-5)
    assert float(warm.members[0].conditions.std[0]) == pytest.approx(own.std(), rel=1e-5)
    again = load(warm.save(tmp_path / "warm"))
    assert (again.predict(table).members == warm.predict(table).members).all()


def test_crystals_bring_their_own_state_or_are_refused(heated, warm):
    table, _ = heated
    expected = warm.predict(table.take([0, 5])).value
    given = [_told(table[r], float(table.column("temperature")[r])) for r in (0, 5)]
    assert warm.predict(given).value == pytest.approx(expected, rel=1e-6)
    assert warm.predict(given[0]).value == pytest.approx(expected[:1], rel=1e-6)
    with pytest.raises(InputError, match="needs 'temperature' of every system"):
        warm.predict(table[0])
    with pytest.raises(InputError, match="no value of the state variable temperature"):
        warm.predict([given[0], table[5]])
    with pytest.raises(InputError, match="no state variable 'pressure'; it has temperature"):
        warm.predict(table[0], state={"pressure": 1.0})
    bare = CrystalTable.from_crystals([table[0]])
    with pytest.raises(InputError, match="'temperature'"):
        warm.predict(bare)


def _told(crystal, temperature):
    return crystal.replace(info={**crystal.info, "temperature": temperature})


def test_a_missing_column_or_value_is_named_in_training(heated):
    table, parts = heated
    with pytest.raises(InputError, match="no column 'temperature'"):
        prepare(CrystalTable(table.arrow.drop_columns(["temperature"])), "C", TrainConfig.from_dict(HOT), parts)
    holes = table.column("temperature").copy()
    holes[3] = np.nan
    material = prepare(table.with_column("temperature", holes), "C", TrainConfig.from_dict(HOT), parts)
    assert material.rejected["no graph"] == 1
    assert 3 not in material.train


@pytest.mark.parametrize("pooling", ["mean", "sum", "sites"])
def test_extensive_doubling_and_sites_hold_with_a_state(pooling):
    quantity = "energy" if pooling != "sum" else "energy_per_atom"
    torch.manual_seed(0)
    model = build("cgcnn", quantity, head={"pooling": pooling, "state": ("temperature",)}, width=8, layers=1).eval()
    crystal = _told(make(1)[0], 300.0)
    double = _told(crystal.supercell((2, 1, 1)), 300.0)
    with torch.no_grad():
        one, two = (GraphSet.build([c], model.needs).batch([0]) for c in (crystal, double))
        if pooling != "sum":
            assert float(model(two)) == pytest.approx(2 * float(model(one)), rel=1e-5)
        if pooling == "sites":
            assert float(model.sites(one).sum()) == pytest.approx(float(model(one)), rel=1e-5)
        if pooling == "sum":
            # the sum over the atoms doubles; the state, which the atoms share, must not
            pooled = [model.features(b)["atom"].sum(0) for b in (one, two)]
            assert torch.allclose(pooled[0][-16:], pooled[1][-16:], atol=1e-6)
            assert torch.allclose(2 * pooled[0][:-16], pooled[1][:-16], rtol=1e-4)


@pytest.mark.parametrize("architecture", ["cgcnn", "megnet", "gnome-composition"])
def test_any_network_reads_a_state(architecture):
    torch.manual_seed(0)
    model = build(architecture, "band_gap", head={"state": ("pressure", "temperature")}).eval()
    crystal = make(1)[0]
    one, other = (crystal.replace(info={"pressure": p, "temperature": 1.0}) for p in (0.0, 2.0))
    with torch.no_grad():
        values = model(GraphSet.build([one, other, one], model.needs).batch([0, 1, 2]))
    assert float(values[0]) == pytest.approx(float(values[2]), abs=1e-5)
    assert abs(float(values[0] - values[1])) > 1e-4


def test_a_network_with_its_own_state_reads_no_more_than_that():
    """MEGNet takes its own variables first, the head's come behind them."""
    torch.manual_seed(0)
    model = build("megnet", "band_gap", head={"state": ("pressure",)}, state=("temperature",)).eval()
    assert model.needs.state == ("temperature", "pressure")
    crystal = make(1)[0]
    both = {"pressure": 0.3, "temperature": 1.5}
    batch = GraphSet.build([crystal.replace(info=both)], model.needs).batch([0])
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0]["state"]))
    with torch.no_grad():
        model(batch)
    assert seen[0].tolist() == [[1.5]]


def test_heads_with_impossible_state_are_refused():
    with pytest.raises(ConfigError, match="each variable once"):
        HeadConfig(state=("T", "T"))
    with pytest.raises(ConfigError, match="1 entries for 2"):
        HeadConfig(state=("T", "p"), names=((),))
    head = HeadConfig((8,), state=["T", "fidelity"], names=[[], ["PBE", "HSE"]])
    config = TrainConfig(head=head)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert "state" not in TrainConfig().to_dict()["head"]


# --- levels of theory --------------------------------------------------------------------------------------------------------------
def two_levels(low, high, seed=0, laws=None):
    """Energies of `low` crystals at one level and of `high` others at another: 1.3 times the first and a shift per element."""
    lower, higher = laws or (energy, upper)
    crystals = make(low + high, seed)
    first = CrystalTable.from_crystals(
        crystals[:low], {"e": [lower(c) for c in crystals[:low]]}, {"e": Label.of("formation_energy_per_atom", LEVEL)}
    )
    second = CrystalTable.from_crystals(
        crystals[low:], {"e": [higher(c) for c in crystals[low:]]}, {"e": Label.of("formation_energy_per_atom", OTHER)}
    )
    return CrystalTable.concat([first, second], fidelity=True)


def upper(crystal):
    """The higher level: 1.3 times the lower one plus a function of the composition."""
    return 1.3 * energy(crystal) + 0.03 * float(min(crystal.numbers) % 5) - 0.4


@pytest.fixture(scope="module")
def mixed():
    table = two_levels(50, 30)
    order = np.random.default_rng(0).permutation(80)
    parts = Parts(order[:56], order[56:68], order[68:])
    config = TrainConfig(**SMALL, epochs=15, members=2, learning_rate=1e-2)
    return table, parts, train(table, "e", config, parts, progress=False)


LOW, HIGH = str(LEVEL), str(OTHER)


def test_declared_levels_become_an_input_by_themselves(mixed):
    table, parts, ensemble = mixed
    head = ensemble.members[0].head_config
    assert head.state == ("fidelity",)
    assert head.names == (tuple(sorted((LOW, HIGH))),)
    assert ensemble.target.level is None
    levels = ensemble.card.metrics["test"]["levels"]
    assert set(levels) == {LOW, HIGH}
    assert sum(m["n"] for m in levels.values()) == len(parts.test)
    found = evaluate(ensemble, table, "e", parts.test)
    assert found.levels[HIGH].n == sum(table.arrow["fidelity"].to_pylist()[r] == HIGH for r in parts.test)
    assert found.to_dict()["levels"][LOW]["mae"] == pytest.approx(levels[LOW]["mae"], rel=1e-5)


def test_predictions_choose_the_level(mixed, tmp_path):
    table, _, ensemble = mixed
    crystal = table[0]
    low, high = (ensemble.predict(crystal, state={"fidelity": level}).value[0] for level in (LOW, HIGH))
    assert high < low - 0.1
    own = ensemble.predict(table).value
    chosen = [ensemble.predict(table, state={"fidelity": level}).value for level in (LOW, HIGH)]
    of_high = np.array([f == HIGH for f in table.arrow["fidelity"].to_pylist()])
    assert own == pytest.approx(np.where(of_high, chosen[1], chosen[0]), abs=1e-5)
    with pytest.raises(InputError, match=r"fidelity = 'HSE' is unknown to this model; known: PBE.*r2SCAN"):
        ensemble.predict(crystal, state={"fidelity": "HSE"})
    with pytest.raises(InputError, match=r"no column 'fidelity': this model predicts for PBE.*r2SCAN.*say for which"):
        ensemble.predict(crystal)
    strange = crystal.replace(info={"fidelity": "HSE"})
    with pytest.raises(InputError, match=r"HSE \(known: PBE"):
        ensemble.predict(strange)
    again = load(ensemble.save(tmp_path / "mixed"))
    assert again.predict(crystal, state={"fidelity": HIGH}).value[0] == pytest.approx(high, abs=1e-6)


def test_permuting_the_levels_changes_the_predictions(mixed):
    table, _, ensemble = mixed
    swapped = {LOW: HIGH, HIGH: LOW}
    other = table.with_column("fidelity", [swapped[f] for f in table.arrow["fidelity"].to_pylist()])
    assert np.abs(ensemble.predict(table).value - ensemble.predict(other).value).min() > 0.05


def test_the_levels_of_a_structure_stay_in_one_part():
    """Trap (b) of multi-fidelity learning: the same structure at another level would give the answer away."""
    crystals = make(40)
    tables = [
        CrystalTable.from_crystals(crystals, {"e": [law(c) for c in crystals]}, {"e": Label.of("formation_energy_per_atom", level)})
        for law, level in ((energy, LEVEL), (upper, OTHER))
    ]
    table = CrystalTable.concat(tables, fidelity=True)
    rows = np.arange(80)
    with pytest.raises(InputError, match=r"row 40 .* its structure is in it at another fidelity.*split by composition"):
        prepare(table, "e", TrainConfig(**SMALL), Parts(rows[:40], rows[40:60], rows[60:]))
    material = prepare(table, "e", TrainConfig(**SMALL))  # by composition
    assert len(material.val)
    renamed = CrystalTable(table.arrow.set_column(0, "id", [[f"row-{k}" for k in rows]]))
    with pytest.raises(InputError, match="its structure is in it"):
        prepare(renamed, "e", TrainConfig(**SMALL), Parts(rows[:40], rows[40:60], rows[60:]))


def test_a_level_without_training_rows_is_not_learned():
    table = two_levels(50, 30)
    rows = np.arange(80)
    both = Parts(np.r_[rows[:40], rows[50:70]], rows[40:50], rows[70:])
    third = table.with_column("fidelity", [*table.arrow["fidelity"].to_pylist()[:79], "HSE"])
    material = prepare(third, "e", TrainConfig(**SMALL), both)
    assert material.config.head.names == (tuple(sorted((LOW, HIGH))),)
    assert 79 not in material.test
    one = Parts(rows[:40], rows[40:50], rows[:0])
    assert prepare(table, "e", TrainConfig(**SMALL), one).config.head.names == ((LOW,),)
    # what is judged is of the level that was learned
    both_judged = prepare(table, "e", TrainConfig(**SMALL), Parts(rows[:40], rows[40:60], rows[60:]))
    assert (len(both_judged.val), len(both_judged.test)) == (10, 0)
    assert prepare(table.take(rows[:50]), "e", TrainConfig(**SMALL), one).config.head.state == ()


def test_validation_counts_every_level_the_same(mixed):
    """Early stopping must not follow the largest set alone."""
    from naica.training.batches import Loader
    from naica.training.losses import mean_error

    table, parts, ensemble = mixed
    material = prepare(table, "e", TrainConfig(**SMALL), parts)
    model, part = ensemble.members[0], material.part("val")
    found = mean_error(model, Loader(part, 5, 10**6, None), torch.device("cpu"))
    with torch.no_grad():
        errors = np.abs(model(part.graphs.batch(part.rows)).numpy() - part.labels)
    group = groups_of(table, material.config.head)[part.rows]
    assert found == pytest.approx(np.mean([errors[group == g].mean() for g in (0, 1)]), rel=1e-5)


def test_names_and_numbers_side_by_side():
    conditions = Conditions(("temperature", "phase"), ((), ("cubic", "tetragonal")))
    assert conditions.width == 32
    table = CrystalTable.from_crystals(make(4), {"phase": ["cubic", "tetragonal", None, "cubic"], "temperature": [1.0, 2.0, 3.0, 4.0]})
    head = settled(HeadConfig(state=("temperature", "phase")), table, np.arange(4))
    assert head.names == ((), ("cubic", "tetragonal"))
    graphs = GraphSet.build(encoded(table, head), build("cgcnn", "band_gap", head, width=8, layers=1).needs)
    assert list(graphs.rejected) == [2]
    assert graphs.batch([0, 1, 3])["state"].tolist() == [[1.0, 0.0], [2.0, 1.0], [4.0, 0.0]]


# --- from one level to another -------------------------------------------------------------------------------------------------------
def test_transfer_without_a_step_is_the_source_and_a_shift(trained, table, parts):
    shifted = table.with_column("e", table.column("e") - 0.7, Label.of("formation_energy_per_atom", OTHER))
    tuned = fine_tune(trained, shifted, "e", epochs=0, split=parts, progress=False, tensorboard=False)
    before, after = trained.predict(table).value, tuned.predict(table).value
    train_rows = parts.train
    shift = float(np.mean(shifted.column("e")[train_rows] - before[train_rows]))
    assert after == pytest.approx(before + shift, abs=2e-6)
    assert shift == pytest.approx(-0.7, abs=0.2)
    assert tuned.target.level == OTHER
    assert tuned.target.std == trained.target.std
    assert tuned.card.lineage[0]["name"] == trained.card.name


def test_a_correction_refuses_a_model_of_several_levels(mixed):
    table, _, ensemble = mixed
    with pytest.raises(Exception, match="not declared"):
        fit_correction(ensemble, table, "e")


def rough(crystal):
    """A law 20 labels cannot teach: every pair of elements has its own depth and its own best volume."""
    draw = np.random.default_rng(sorted(crystal.numbers.tolist()))
    depth, best = draw.uniform(-1.5, 0.0), draw.uniform(14, 24)
    return depth + 0.01 * (crystal.volume / len(crystal) - best) ** 2


def rough_upper(crystal):
    """1.3 times the other law, and a smooth function of the volume."""
    return 1.3 * rough(crystal) + 0.02 * (crystal.volume / len(crystal) - 18)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_few_high_labels_are_enough_beside_many_low_ones():
    """1000 labels of y and 20 of 1.3 y + f(x): at least three times the accuracy of the 20 alone."""
    table = two_levels(1000, 320, seed=3, laws=(rough, rough_upper))
    rows = np.arange(1320)
    draw = np.random.default_rng(0)
    low, high = draw.permutation(rows[:1000]), draw.permutation(rows[1000:])
    parts = Parts(low_and_few := np.r_[low, high[:20]], high[20:40], high[40:])
    assert len(low_and_few) == 1020
    settings = {"architecture_config": {"width": 32, "layers": 2}, "tensorboard": False, "ema": 0.98, "learning_rate": 1e-2}
    both = train(table, "e", TrainConfig(**settings, batch_size=32, epochs=100), parts, progress=False)
    few = table.take(high)
    alone = train(few, "e", TrainConfig(**settings, batch_size=20, epochs=600), Parts(rows[:20], rows[20:40], rows[40:320]), progress=False)
    assert alone.members[0].conditions is None
    errors = both.card.metrics["test"]["mae"], alone.card.metrics["test"]["mae"]
    print(f"MAE on the high level: {errors[0]:.4f} with both, {errors[1]:.4f} with 20 alone")
    assert errors[0] < errors[1] / 3
