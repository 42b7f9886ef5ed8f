"""Labels of every atom: magnetic moments, charges."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from naica.data import CrystalTable, Label
from naica.errors import ConfigError, InputError
from naica.graphs import graph
from naica.training import TrainConfig, load, train
from naica.training.evaluation import evaluate, evaluate_tasks
from naica.training.property import build
from naica.training.run import prepare
from naica.training.target import read_labels

from .conftest import LEVEL, SMALL, Parts, energy, make

ROWS = np.arange(80)
PARTS = Parts(ROWS[:50], ROWS[50:65], ROWS[65:])


def moments(crystal):
    """Larger for heavier atoms and shorter neighbours."""
    return [0.1 * float(z) + 20.0 / crystal.volume for z in crystal.numbers]


@pytest.fixture(scope="module")
def magnets():
    """80 crystals of 2 or 4 atoms; some sites and some whole rows have no label."""
    crystals = [c if k % 3 else c.supercell((2, 1, 1)) for k, c in enumerate(make(80))]
    lists = [moments(c) for c in crystals]
    lists[0][1] = None
    lists[1] = None
    lists[7] = [None] * len(crystals[7])
    columns = {"m": pa.array(lists, pa.list_(pa.float64())), "e": [energy(c) for c in crystals]}
    labels = {"m": Label.of("magmom", LEVEL), "e": Label.of("formation_energy_per_atom", LEVEL)}
    return CrystalTable.from_crystals(crystals, columns, labels, ids=[f"c{k}" for k in range(80)])


@pytest.fixture(scope="module")
def magnet(magnets):
    return train(magnets, "m", TrainConfig(**SMALL, epochs=40, members=2, learning_rate=2e-2), PARTS, progress=False)


def test_labels_are_read_as_they_stand(magnets):
    found = read_labels(magnets, "m")
    lists = magnets.arrow["m"].to_pylist()
    for row in (0, 1, 2, 7, 79):
        expected = [np.nan if v is None else v for v in lists[row] or [None] * len(magnets[row])]
        assert found.of(np.array([row])) == pytest.approx(expected, nan_ok=True)
    assert found.known[[0, 1, 2, 7]].tolist() == [True, False, True, False]
    assert found.of(np.array([5, 3])) == pytest.approx(lists[5] + lists[3])


def test_a_list_that_does_not_fit_its_atoms_is_a_rejected_row(magnets):
    lists = magnets.arrow["m"].to_pylist()
    lists[4] = lists[4] + [0.0]
    wrong = magnets.with_column("m", lists, magnets.labels["m"])
    assert read_labels(wrong, "m").bad == {4: f"{len(lists[4])} values of m for {len(lists[4]) - 1} atoms"}
    material = prepare(wrong, "m", TrainConfig(**SMALL), PARTS)
    assert material.rejected == {"no label": 2, "labels that do not fit the atoms": 1}
    assert 4 not in material.train
    with pytest.raises(InputError, match="expected a list per row; row 0 is"):
        prepare(magnets.with_column("m", [1.0] * 80, magnets.labels["m"]), "m", TrainConfig(**SMALL), PARTS)


def test_the_normaliser_knows_the_labelled_sites_alone(magnets):
    material = prepare(magnets, "m", TrainConfig(**SMALL), PARTS)
    values = np.concatenate([[v for v in one if v is not None] for one in (magnets.arrow["m"].to_pylist()[r] or [] for r in PARTS.train)])
    assert material.target.mean == pytest.approx(values.mean())
    assert material.target.std == pytest.approx(values.std())
    assert material.target.per_site


def test_it_learns_sites_and_answers_in_lists(magnets, magnet, tmp_path):
    test = magnet.card.metrics["test"]
    assert test["n"] == sum(len(magnets[r]) for r in PARTS.test)
    values = np.concatenate([moments(magnets[r]) for r in PARTS.test])
    assert test["mae"] < 0.4 * np.abs(values - values.mean()).mean()
    found = magnet.predict(magnets.take(PARTS.test))
    assert len(found) == len(PARTS.test)
    assert [len(one) for one in found.lists()] == [len(magnets[r]) for r in PARTS.test]
    assert np.concatenate(found.lists()) == pytest.approx(found.value)
    rows = found.to_dicts()
    assert rows[0]["value"] == pytest.approx(found.lists()[0])
    assert len(rows[0]["sigma"]) == len(rows[0]["value"]) == len(rows[0]["members"][0])
    assert rows[0]["unit"] == "μ_B"
    again = load(magnet.save(tmp_path / "magnet"))
    assert (again.predict(magnets).members == magnet.predict(magnets).members).all()
    measured = evaluate(magnet, magnets, "m", PARTS.test)
    assert measured.metrics.mae == pytest.approx(test["mae"], rel=1e-5)
    assert len(measured.ids) == test["n"]


def test_renumbering_the_atoms_renumbers_the_values(magnet, magnets):
    crystal = magnets[3]
    order = np.random.default_rng(0).permutation(len(crystal))
    from naica.structure import Crystal

    other = Crystal(crystal.numbers[order], crystal.positions[order], crystal.cell, crystal.pbc)
    assert magnet.predict(other).value == pytest.approx(magnet.predict(crystal).value[order], abs=1e-5)


def test_networks_of_sites_keep_the_physics_contract(magnet):
    from naica.training.check import check

    assert check(magnet).failed == ()


def test_sites_in_streams_keep_their_crystals(magnet, magnets, monkeypatch):
    from naica.training import stream

    whole = magnet.predict(magnets)
    monkeypatch.setattr(stream, "CHUNK_CRYSTALS", 7)
    monkeypatch.setattr(stream, "MAX_EDGES", 100)
    cut = magnet.predict(c for c in magnets)
    assert cut.value == pytest.approx(whole.value, abs=1e-5)
    assert cut.counts.tolist() == whole.counts.tolist()
    assert len(cut.warnings) == 80


def test_sites_and_systems_in_one_network(magnets):
    both = train(magnets, ["m", "e"], TrainConfig(**SMALL, epochs=20, learning_rate=1e-2), PARTS, progress=False)
    member = both.members[0]
    assert member.pooling == "sites"
    batch = graph([magnets[0], magnets[2]], member.needs)
    with torch.no_grad():
        sites, systems = member.values(batch)
    assert (len(sites), len(systems)) == (len(batch["number"]), 2)
    with pytest.raises(InputError, match="of systems and of sites"):
        member(batch)
    found = both.predict_tasks(magnets)
    assert len(found["m"].value) > len(found["e"].value) == 80
    assert found["e"].value == pytest.approx(both.task("e").predict(magnets).value, abs=1e-6)
    assert found["m"].value == pytest.approx(both.task("m").predict(magnets).value, abs=1e-6)
    # pooling by sites, so the system's prediction is the mean of its contributions
    assert float(both.task("e").sites(batch)[0][:4].mean()) == pytest.approx(float(systems[0]), abs=1e-5)
    assert set(evaluate_tasks(both, magnets, rows=PARTS.test)) == {"m", "e"}


def test_what_has_no_sites_says_so(magnets, magnet):
    with pytest.raises(ConfigError, match=r"needs head\.pooling = 'sites'"):
        build("cgcnn", "magmom", head={"pooling": "mean"})
    with pytest.raises((InputError, ConfigError), match=r"no sites to learn m|network with atoms"):
        prepare(magnets, "m", TrainConfig(architecture="gnome-composition", tensorboard=False), PARTS)
    with pytest.raises(ConfigError, match="predicts values of sites"):
        magnet.predict(magnets[0], volume_factors=(0.9, 1.0, 1.1))
    with pytest.raises(InputError, match="no whole that sites could contribute to"):
        magnet.sites(graph(magnets[0], magnet.needs))
    with pytest.raises(InputError, match="one number each"):
        train(magnets, "e", TrainConfig(**SMALL, epochs=1), PARTS, progress=False).predict(magnets[0]).lists()
