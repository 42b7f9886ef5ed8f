"""Weave: pairs, the histogram, and why pair updates are there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import ConfigError

pytest.importorskip("rdkit", reason="needs the extra: pip install 'naica[molecules]'")

from tests.models.molecular import batch_of, features, laws, settled
from tests.models.molecular import molecules as some

from naica.graphs import Batch
from naica.models import backbone
from naica.models.weave import reverse
from naica.nn import Head
from naica.structure.molecule import from_smiles


@pytest.mark.parametrize("config", [{}, {"max_bonds": 2}, {"modules": 3}, {"modules": 1}, {"pair_updates": False}])
def test_numbering_and_company_do_not_matter(config):
    laws(settled("weave", width=20, features=16, **config))


@pytest.mark.parametrize("max_bonds", [None, 3])
def test_pairs_stay_symmetric(max_bonds):
    model = settled("weave", modules=3, max_bonds=max_bonds)
    batch = batch_of(some(), model)
    other = reverse(batch)
    assert torch.equal(batch["edge_sender"][other], batch["edge_receiver"])
    assert torch.equal(batch["edge_receiver"][other], batch["edge_sender"])
    layers = list(model.layers)
    for depth in (1, 2):
        model.layers = torch.nn.ModuleList(layers[:depth])
        _, pairs = model.woven(batch)
        assert float(pairs.detach().std()) > 0
        torch.testing.assert_close(pairs[other], pairs, atol=1e-9, rtol=1e-9)


def test_pairs_stay_symmetric_in_training():
    model = settled("weave").train()
    batch = batch_of(some(), model)
    model.layers = model.layers[:1]
    _, pairs = model.woven(batch)
    torch.testing.assert_close(pairs[reverse(batch)], pairs, atol=1e-9, rtol=1e-9)


def test_the_other_order_is_found_in_any_order_of_edges():
    model = settled("weave")
    batch = batch_of(some(), model)
    draw = torch.rand(batch.n_edges, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = torch.argsort(batch["edge_receiver"] + 0.5 * draw)
    shuffled = Batch({**batch, **{key: value[order] for key, value in batch.items() if key.startswith("edge_")}})
    assert not torch.equal(shuffled["edge_sender"], batch["edge_sender"])
    torch.testing.assert_close(features(model, shuffled), features(model, batch))


def test_histogram_holds_every_atom_once_per_feature():
    model = settled("weave", features=24)
    crystals = some()
    mass = features(model, crystals).sum(1)
    torch.testing.assert_close(mass, torch.tensor([24.0 * len(c) for c in crystals], dtype=torch.float64))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_memberships(values):
    model = backbone("weave")
    x = torch.tensor(values)[:, None]
    found = model.memberships(x)
    assert found.shape == (len(values), 11)
    torch.testing.assert_close(found.sum(1), torch.ones(len(values)))
    # reflection of a value reflects its histogram
    torch.testing.assert_close(model.memberships(-x), found.flip(1))


def test_memberships_are_densities_over_their_maxima():
    model = backbone("weave").double()
    x = torch.linspace(-1.8, 1.8, 37, dtype=torch.float64)[:, None]
    normal = torch.distributions.Normal(model.means.double(), model.deviations.double())
    relative = torch.exp(normal.log_prob(x) - normal.log_prob(normal.mean))
    torch.testing.assert_close(model.memberships(x), relative / relative.sum(1, keepdim=True))
    # a row of zeros would sit in the middle: it must not be there at all
    assert float(model.memberships(torch.zeros(1, 1, dtype=torch.float64))[0, 5]) > 0.75


def _toy(updates):
    """Chains a a b b against a b a b: the same atoms at the same places, and only bonds know which two meet."""
    same = ["CC[SiH2][SiH3]", "CC[GeH2][GeH3]", "[SiH3][SiH2][GeH2][GeH3]"]
    other = ["C[SiH2]C[SiH3]", "C[GeH2]C[GeH3]", "[SiH3][GeH2][SiH2][GeH3]"]
    torch.manual_seed(0)
    model = backbone("weave", width=16, features=8, pair_updates=updates)
    batch = batch_of([from_smiles(s) for s in same + other], model).to(dtype=torch.float32)
    target = torch.tensor([1.0] * 3 + [0.0] * 3)
    return model, batch, target


def _fitted(updates):
    model, batch, target = _toy(updates)
    head = Head(model.widths["system"], (16,), pooling="system")
    optimiser = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(model(batch), batch)[:, 0], target)
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def test_xor_of_a_bond_is_learned_with_pair_updates_only():
    assert _fitted(True) < 0.05
    # without them the two chains of a pair cannot be told apart: ln 2
    assert _fitted(False) > 0.69
    model, batch, _ = _toy(False)
    found = model.eval()(batch)["system"]
    torch.testing.assert_close(found[:3], found[3:])


def test_last_module_makes_no_pairs():
    model = backbone("weave", modules=3)
    assert [layer.pairs_too for layer in model.layers] == [True, True, False]


def test_a_lone_atom_trains():
    model = backbone("weave").train()
    batch = batch_of([from_smiles("C")], model).to(dtype=torch.float32)
    assert torch.isfinite(model(batch)["system"]).all()


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="max_bonds"):
        backbone("weave", max_bonds=0)
    with pytest.raises(ConfigError, match="modules"):
        backbone("weave", modules=0)
