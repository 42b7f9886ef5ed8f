"""MPNN and its variants."""

import numpy as np
import pytest
import torch

from naica.errors import ConfigError, MissingPart

pytest.importorskip("rdkit", reason="needs the extra: pip install 'naica[molecules]'")

from tests.models.molecular import batch_of, features, laws, settled
from tests.models.molecular import molecules as some

from naica.graphs import Batch, GraphSet
from naica.models import backbone
from naica.models.mpnn import GRU, AdditiveSet2Set
from naica.nn import Head, molecules
from naica.structure import Crystal
from naica.structure.molecule import from_smiles

VARIANTS = [
    {},
    {"message": "ggnn"},
    {"readout": "gated-sum"},
    {"attention": True},
    {"virtual": True},
    {"edges": "pairs"},
    {"edges": "pairs", "attention": True, "virtual": True},
    {"edges": "pairs", "message": "ggnn", "readout": "gated-sum"},
    {"query": "released"},
    {"steps": 0},
]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_numbering_and_company_do_not_matter(config):
    laws(settled("mpnn", **{"width": 16, "edge_width": 8, "steps": 3, "passes": 3, **config}))


def test_variants_differ():
    found = []
    for config in VARIANTS:
        torch.manual_seed(3)
        found.append(features(settled("mpnn", **{"width": 16, "edge_width": 8, "steps": 3, "passes": 3, **config}), some()))
    for k, one in enumerate(found):
        assert all(float((one - other).abs().max()) > 1e-4 for other in found[:k])


def test_gru_has_no_biases_and_resets_before_its_matrix():
    torch.manual_seed(0)
    unit = GRU(6, 4).double()
    assert not any("bias" in name for name, _ in unit.named_parameters())
    m, h = torch.randn(5, 6).double(), torch.randn(5, 4).double()
    w_z, w_r, w = unit.of_message.weight.chunk(3)
    u_z, u_r = unit.of_state.weight.chunk(2)
    z, r = torch.sigmoid(m @ w_z.T + h @ u_z.T), torch.sigmoid(m @ w_r.T + h @ u_r.T)
    candidate = torch.tanh(m @ w.T + (r * h) @ unit.of_reset.weight.T)
    torch.testing.assert_close(unit(m, h), (1 - z) * h + z * candidate)
    # a row of zeros stays zero, and the candidate's size is below one
    assert float(unit(torch.zeros(1, 6).double(), torch.zeros(1, 4).double()).abs().max().detach()) == 0.0


def test_weights_are_shared_over_the_steps():
    sizes = {sum(p.numel() for p in backbone("mpnn", steps=steps).parameters()) for steps in (1, 3, 8)}
    assert len(sizes) == 1


@pytest.mark.parametrize("edges", ["bonds", "pairs"])
@pytest.mark.parametrize("message", ["edge-network", "ggnn"])
def test_messages_are_the_sum_over_neighbours(edges, message):
    """Against a loop over edges with the matrix of each."""
    model = settled("mpnn", edges=edges, message=message, width=5, edge_width=4)
    batch = batch_of(some(), model)
    inputs = molecules.bonds(batch)
    if edges == "pairs":
        inputs = torch.cat([inputs, model.radial(batch["edge_length"])], dim=1)
    state = torch.randn(len(batch["number"]), 5, dtype=torch.float64)
    found = model._messages(batch, inputs).of(state)
    for e in range(batch.n_edges):
        if message == "ggnn":
            kind = int(batch["edge_chemistry"][e, 0])
            matrix = model.matrices[kind - 1] if kind else torch.zeros(5, 10, dtype=torch.float64)
        else:
            matrix = model.network(inputs[e : e + 1])[0]
        torch.testing.assert_close(found[e], state[batch["edge_sender"][e]] @ matrix)


def test_every_ordered_pair_sends_a_message_of_the_edge_network():
    """Non-edges are no zeros there; for GG-NN they are."""
    batch = batch_of([from_smiles("CCO")], settled("mpnn", edges="pairs"))
    far = (batch["edge_chemistry"][:, 0] == 0) & (batch["edge_receiver"] != batch["edge_sender"])
    assert far.sum() == 2
    for message, silent in (("edge-network", False), ("ggnn", True)):
        model = settled("mpnn", edges="pairs", message=message)
        inputs = torch.cat([molecules.bonds(batch), model.radial(batch["edge_length"])], dim=1)
        sent = model._messages(batch, inputs).of(torch.ones(3, 50, dtype=torch.float64))[far]
        assert bool((sent == 0).all()) == silent


def test_linear_edge_network_of_one_hot_edges_is_ggnn():
    enn = settled("mpnn", edge_layers=0, readout="gated-sum", width=12)
    ggnn = settled("mpnn", message="ggnn", readout="gated-sum", width=12)
    weight = enn.network.network[-1].weight
    shared = {k: v for k, v in enn.state_dict().items() if not k.startswith("network")}
    matrices = weight[:, : molecules.N_BONDS].T.reshape(molecules.N_BONDS, 12, 24)
    ggnn.load_state_dict({**shared, "matrices": matrices})
    with torch.no_grad():
        # the bits beyond the kind of bond: conjugated, in a ring
        weight[:, molecules.N_BONDS :] = 0
    torch.testing.assert_close(features(enn, some()), features(ggnn, some()))


def test_gated_sum_has_no_bound():
    """The identity on j: with tanh there, no sum could grow beyond the number of atoms."""
    model = settled("mpnn", readout="gated-sum")
    before = features(model, some())
    with torch.no_grad():
        model.core.weight *= 100
        model.core.bias *= 100
    torch.testing.assert_close(features(model, some()), 100 * before)
    # the largest has 13 atoms
    assert float(features(model, some()).abs().max()) > 13 * 2


def test_set2set_is_its_equations():
    torch.manual_seed(0)
    for query in ("standard", "released"):
        layer = AdditiveSet2Set(6, 4, 3, query).double()
        values = torch.randn(5, 6).double()
        batch = Batch(
            {"n_atoms": torch.tensor([2, 3]), "system": torch.tensor([0, 0, 1, 1, 1]), "number": torch.ones(5, dtype=torch.int64)}
        )
        found = layer(values, batch)
        for place, rows in enumerate((slice(0, 2), slice(2, 5))):
            x = layer.embed(values[rows])
            m, c, read = (torch.zeros(4).double() for _ in range(3))
            for _ in range(3):
                i, f, g, o = layer.recurrent(torch.cat([m, read])).chunk(4)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(torch.sigmoid(g) if query == "released" else g)
                m = torch.sigmoid(o) * torch.tanh(c)
                energy = (torch.tanh(layer.of_query(m) + x) @ layer.energy.weight.T)[:, 0]
                read = torch.softmax(energy, 0) @ x
            torch.testing.assert_close(found[place], torch.cat([m, read]))


def test_attention_weighs_and_keeps_the_number_of_neighbours():
    model = settled("mpnn", attention=True)
    batch = batch_of(some(), model)
    state = torch.randn(len(batch["number"]), 50, dtype=torch.float64)
    weight = model.attention(state, molecules.bonds(batch), batch)[:, 0].detach()
    total = torch.zeros(len(state), dtype=torch.float64).index_add_(0, batch["edge_receiver"], weight)
    torch.testing.assert_close(total, torch.bincount(batch["edge_receiver"], minlength=len(state)).double())
    assert float(weight.std()) > 0.01


def test_virtual_node_carries_what_bonds_do_not():
    """One step reaches the next atom only; with the virtual node two steps reach all."""
    chains = [from_smiles("CCCCCCCCCO"), from_smiles("CCCCCCCCCN")]
    for virtual in (False, True):
        model = settled("mpnn", steps=2, readout="atoms", virtual=virtual)
        first, second = (model(batch_of([c], model))["atom"][0].detach() for c in chains)
        assert bool((first - second).abs().max() > 1e-9) == virtual


def test_distances_count_where_all_atoms_are_joined():
    whole = from_smiles("CCCC")
    stretched = Crystal(whole.numbers, 1.1 * whole.positions, info=whole.info)
    for edges, differs in (("bonds", False), ("pairs", True)):
        model = settled("mpnn", edges=edges)
        change = float((features(model, [whole]) - features(model, [stretched])).abs().max())
        assert (change > 1e-6) == differs


def test_atoms_without_bonds_train():
    model = backbone("mpnn", width=8).train()
    batch = batch_of([from_smiles("C"), from_smiles("[Na+].[Cl-]")], model).to(dtype=torch.float32)
    model(batch)["system"].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["fingerprint", "weave", "mpnn"])
def test_physics_contract(name):
    from naica.training import build
    from naica.training.check import check

    torch.manual_seed(0)
    report = check(build(name, "log_solubility"))
    assert report.passed, str(report)
    assert "permutation" in [row.law for row in report.rows]


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="readout"):
        backbone("mpnn", readout="mean")
    with pytest.raises(ConfigError, match="at least"):
        backbone("mpnn", width=0)


@pytest.mark.slow
def test_dipoles_of_twenty_molecules_are_learned_by_heart():
    from naica.data.registry import load_set

    try:
        table = load_set("qm9").take(np.arange(1000, 21000, 1000))
    except MissingPart as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    model = backbone("mpnn", edges="pairs", width=32, edge_width=16, steps=3, passes=3)
    head = Head(model.widths["system"], (64,), pooling="system")
    graphs = GraphSet.build(table, model.needs)
    rows = graphs.usable
    assert len(rows) >= 18
    batch, target = graphs.batch(rows), torch.from_numpy(table.column("mu")[rows]).float()
    parameters = [*model.parameters(), *head.parameters()]
    steps = 1200
    optimiser = torch.optim.Adam(parameters, lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        error = head(model(batch), batch)[:, 0] * target.std() + target.mean() - target
        if float(error.detach().abs().max()) < 0.008:
            break
        error.square().mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 4.0)
        optimiser.step()
        schedule.step()
    # in prediction mode, and molecule by molecule
    model.eval()
    alone = torch.stack([head(model(graphs.batch([row])), graphs.batch([row]))[0, 0] for row in rows]).detach()
    assert float((alone * target.std() + target.mean() - target).abs().max()) < 0.01
