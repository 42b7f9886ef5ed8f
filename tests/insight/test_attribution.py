import numpy as np
import pytest
import torch
from torch import nn

from naica.errors import ConfigError, InputError, MissingPart
from naica.graphs import graph
from naica.graphs.graphset import GraphSet
from naica.insight import attribution
from naica.insight.attribution import method_for, shares
from naica.insight.blend import blended
from naica.insight.deletion import deletion_test
from naica.models import ARCHITECTURES
from naica.structure import Crystal
from naica.training.card import Card
from naica.training.ensemble import Ensemble
from naica.training.property import PropertyModel, build

PLACES = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
SYMMETRIC = Crystal(np.array([38, 22, 8, 8, 8]), PLACES * 3.9, np.eye(3) * 3.9)


def crystals(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Crystal(rng.integers(3, 40, k), rng.random((k, 3)) * 3 + np.arange(k)[:, None] * 1.2, np.eye(3) * (5 + k))
        for k in rng.integers(1, 7, n)
    ]


def water():
    return Crystal([8, 1, 1], [[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]], np.zeros((3, 3)), [False] * 3)


def ammonia():
    places = [[0, 0, 0.12], [0, 0.94, -0.27], [0.81, -0.47, -0.27], [-0.81, -0.47, -0.27]]
    return Crystal([7, 1, 1, 1], places, np.zeros((3, 3)), [False] * 3)


def ensemble(architecture="cgcnn", members=2, pooling="auto", kind="auto", quantity="formation_energy_per_atom", elements=(), **config):
    made = []
    for seed in range(members):
        torch.manual_seed(seed)
        made.append(build(architecture, quantity, {"pooling": pooling, "hidden": (16,)}, kind, **config).eval())
    first = made[0]
    card = Card("test", architecture, first.architecture_config, {}, first.target.to_dict(), members, elements)
    return Ensemble(tuple(made), card)


def pooled(found, batch, sums=False):
    system = batch["system"].numpy()
    total = np.stack([np.bincount(system, weights=v, minlength=batch.n_systems) for v in found.value])
    return found.reference + (total if sums else total / batch["n_atoms"].numpy())


def test_exact_contributions_add_up_and_equal_sites_are_equal():
    model = ensemble(pooling="sites")
    batch = graph([SYMMETRIC, *crystals()], model.needs)
    found = shares(model, batch)
    assert found.method == "exact"
    assert pooled(found, batch) == pytest.approx(found.prediction, abs=1e-5)
    assert not found.reference.any()
    assert found.gap < 1e-5
    assert np.ptp(found.value[:, 2:5], axis=1) == pytest.approx(0, abs=1e-5)
    assert abs(found.value[0, 0] - found.value[0, 2]) > 1e-3


# ACE takes only the elements it was made for
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "ace"])
def test_integrated_gradients_add_up_for_every_architecture(name, monkeypatch):
    monkeypatch.setattr(attribution, "_NODES", (8, 32))
    model = ensemble(name, members=1)
    several, equal = [SYMMETRIC, *crystals(6)], slice(2, 5)
    try:
        batch = graph(several, model.needs)
    except InputError:
        # this network is for molecules
        several, equal = [water(), ammonia()], slice(1, 3)
        batch = graph(several, model.needs)
    except MissingPart as error:
        pytest.skip(str(error))
    found = shares(model, batch)
    assert found.method == "integrated gradients"
    change = np.abs(found.prediction - found.reference).max()
    assert change > 1e-6
    # kinks of rectified networks slow the integral down
    assert found.gap < 2e-2 * change + 1e-5
    assert pooled(found, batch) == pytest.approx(found.prediction, abs=found.gap + 1e-5)
    if model.needs.kind != "composition":
        assert np.ptp(found.value[:, equal], axis=1) == pytest.approx(0, abs=1e-2 * change + 1e-5)


def test_extensive_quantities_add_up_by_their_sum():
    model = ensemble(quantity="energy")
    batch = graph(crystals(), model.needs)
    found = shares(model, batch)
    assert pooled(found, batch, sums=True) == pytest.approx(found.prediction, abs=found.gap + 1e-5)


def test_classes_are_explained_by_their_log_odds():
    model = ensemble(quantity="is_metal")
    batch = graph(crystals(), model.needs)
    found = shares(model, batch)
    with torch.no_grad():
        probability = model.members[0](batch).numpy()
    assert 1 / (1 + np.exp(-found.prediction[0])) == pytest.approx(probability, abs=1e-5)
    assert pooled(found, batch) == pytest.approx(found.prediction, abs=found.gap + 1e-5)


def test_without_neighbours_all_methods_say_the_same():
    """No convolutions: the prediction is a mean of numbers of the atoms alone, and what each is worth is beyond dispute."""
    model = ensemble(pooling="sites", layers=0, members=1)
    batch = graph(crystals(), model.needs)
    exact, gradients, left_out = (shares(model, batch, how) for how in ("exact", "integrated gradients", "leave one out"))
    average = gradients.reference[0, 0]
    assert gradients.reference == pytest.approx(average, abs=1e-5)
    assert gradients.value == pytest.approx(exact.value - average, abs=1e-4)
    assert left_out.value == pytest.approx(exact.value - average, abs=1e-4)


def test_leave_one_out_is_what_it_says():
    model = ensemble(members=1)
    batch = graph(crystals(5), model.needs)
    found = shares(model, batch, "leave one out")
    with blended(model.members[0], batch) as predict, torch.no_grad():
        for atom in range(0, len(batch["number"]), 3):
            w = torch.ones(len(batch["number"]))
            w[atom] = 0
            system = int(batch["system"][atom])
            drop = float((predict(torch.ones_like(w)) - predict(w))[system]) * int(batch["n_atoms"][system])
            assert found.value[0, atom] == pytest.approx(drop, abs=1e-5)


def test_the_ends_of_the_blend_are_the_crystal_and_the_average_element():
    model = ensemble(members=1, elements=("O",)).members[0]
    batch = graph([SYMMETRIC], model.needs)
    oxygen = graph([Crystal(np.full(5, 8), SYMMETRIC.positions, SYMMETRIC.cell)], model.needs)
    with torch.no_grad():
        whole, replaced = model(batch), model(oxygen)
        with blended(model, batch, ("O",)) as predict:
            assert predict(torch.ones(5)).numpy() == pytest.approx(whole.numpy(), rel=1e-6, abs=1e-6)
            # the mean over oxygen alone is oxygen
            assert predict(torch.zeros(5)).numpy() == pytest.approx(replaced.numpy(), rel=1e-6, abs=1e-6)
        # and nothing is left behind
        assert model(batch).numpy() == pytest.approx(whole.numpy(), abs=0)


def test_attributions_follow_the_order_of_atoms():
    model = ensemble(members=1)
    order = [3, 0, 4, 1, 2]
    turned = Crystal(SYMMETRIC.numbers[order], SYMMETRIC.positions[order], SYMMETRIC.cell)
    there, here = (shares(model, graph([c], model.needs)).value[0] for c in (SYMMETRIC, turned))
    assert here == pytest.approx(there[order], abs=1e-4)


class Blind(nn.Module):
    """A network that never looks at the elements."""

    config, widths = type("Config", (), {})(), {"atom": 4}

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 4)

    def forward(self, batch):
        return {"atom": self.layer(batch["fraction"][:, None])}


def test_what_cannot_be_explained_is_refused():
    model = ensemble(members=1)
    with pytest.raises(InputError, match="no exact site contributions"):
        method_for(model, "exact")
    with pytest.raises(ConfigError, match="unknown"):
        method_for(model, "magic")
    blind: PropertyModel = ensemble(members=1).members[0]
    blind.backbone, blind.head.network = Blind(), nn.Linear(4, 1)
    with pytest.raises(InputError, match="looks up nothing by its atoms"), blended(blind, graph([SYMMETRIC], model.needs)):
        pass


# --- deletion ---------------------------------------------------------------------------------------------------------------------------
def test_where_sites_add_up_the_order_of_deletion_is_the_best_there_is():
    model = ensemble(pooling="sites", layers=0, members=1)
    graphs = GraphSet.build(crystals(40), model.needs)
    found = deletion_test(model, graphs)
    assert found.crystals == int((graphs.counts >= 2).sum())
    assert found.highest > 3 * found.highest_error > 0
    assert found.lowest > 3 * found.lowest_error > 0
    assert found.between == pytest.approx(found.highest + found.lowest)
    highest, random, lowest = (found.curves[k] for k in ("highest first", "random", "lowest first"))
    assert (highest <= random + 1e-6).all()
    assert (random <= lowest + 1e-6).all()
    # all begin with the crystal and end with the average element
    assert highest[0] == pytest.approx(lowest[0], abs=1e-6)
    assert highest[-1] == pytest.approx(lowest[-1], abs=1e-6)


def test_wrong_attributions_fail_the_test(monkeypatch):
    """A test that random numbers passed would be worth nothing; reversed attributions must fail it clearly."""
    from naica.insight import deletion

    model = ensemble(pooling="sites", layers=0, members=1)
    graphs = GraphSet.build(crystals(60), model.needs)
    honest, rng = deletion.shares, np.random.default_rng(5)

    def lying(change):
        def replaced(*args):
            found = honest(*args)
            return type(found)(found.method, change(found.value), found.reference, found.prediction, found.gap)

        return replaced

    monkeypatch.setattr(deletion, "shares", lying(lambda v: -v))
    reversed_ = deletion_test(model, graphs)
    assert reversed_.highest < -3 * reversed_.highest_error
    assert reversed_.won < 0.2
    monkeypatch.setattr(deletion, "shares", lying(lambda v: rng.random(v.shape)))
    random = deletion_test(model, graphs)
    assert abs(random.between) < 4 * random.between_error


def test_too_few_crystals_are_refused():
    model = ensemble(members=1)
    with pytest.raises(InputError, match="1 crystals with at least two sites"):
        deletion_test(model, GraphSet.build([SYMMETRIC, Crystal([29], [[0, 0, 0]], np.eye(3) * 2.6)], model.needs))
