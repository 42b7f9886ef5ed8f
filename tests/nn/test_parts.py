"""The shared parts: radial functions, split linear maps, sums, gate, heads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec, graph
from naica.nn import Gaussians, Head, SplitLinear, mean_systems, sum_edges, sum_systems
from naica.nn.atoms import DescribedElements, descriptors
from naica.nn.gate import gated_sum
from naica.nn.mlp import Swish
from naica.structure import Crystal

SALT = Crystal.from_fractional(
    ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], torch.tensor([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 5.64
)
MOLECULE = Crystal(["H", "O", "H"], [[0.76, 0.59, 0], [0, 0, 0], [-0.76, 0.59, 0]])
UNIFORM = [SALT, SALT.supercell((2, 1, 1))]
RAGGED = [SALT, MOLECULE, Crystal(["Ar"], [[0, 0, 0]])]


@pytest.fixture(params=["uniform", "ragged"])
def batch(request) -> Batch:
    made = graph(UNIFORM if request.param == "uniform" else RAGGED)
    assert (made.degree is not None) == (request.param == "uniform")
    return made


def test_gaussians_at_two_angstroms():
    values = Gaussians(0.0, 8.0, 41)(torch.tensor([2.0]))[0]
    assert len(values) == 41
    assert values[[9, 10, 11, 12]].tolist() == pytest.approx([0.367879, 1.0, 0.367879, 0.018316], abs=1e-6)


def test_gaussians_of_gnome_have_width_one_half():
    radial = Gaussians(0.05, 4.0, 30, 0.5)
    assert radial.centres[[0, 29]].tolist() == pytest.approx([0.05, 4.0])
    assert float(radial(torch.tensor([0.55]))[0, 0]) == pytest.approx(float(torch.exp(torch.tensor(-1.0))), rel=1e-6)


def test_gaussians_make_no_denormal_numbers():
    values = Gaussians(0.0, 8.0, 41)(torch.linspace(0, 9, 500))
    assert float(values.min()) >= torch.finfo(torch.float32).tiny


def test_gaussians_refuse_an_empty_range():
    with pytest.raises(ConfigError, match="growing range"):
        Gaussians(3.0, 3.0, 5)


def test_split_linear_is_the_joined_linear(batch):
    torch.manual_seed(0)
    atoms, others = torch.randn(len(batch["number"]), 5), torch.randn(len(batch["number"]), 7)
    edges = torch.randn(batch.n_edges, 3)
    split = SplitLinear(5, 7, 3, 11)
    joined = torch.cat([atoms[batch["edge_receiver"]], others[batch["edge_sender"]], edges], dim=1)
    torch.testing.assert_close(split(atoms, others, edges, batch), F.linear(joined, split.weight, split.bias))
    assert sum(p.numel() for p in split.parameters()) == (5 + 7 + 3) * 11 + 11


def test_split_linear_gradients_are_the_joined_ones(batch):
    torch.manual_seed(0)
    atoms = torch.randn(len(batch["number"]), 4, dtype=torch.float64, requires_grad=True)
    edges = torch.randn(batch.n_edges, 3, dtype=torch.float64, requires_grad=True)
    split = SplitLinear(4, 4, 3, 2).double()
    inputs = (atoms, edges, split.weight, split.bias)
    joined = torch.cat([atoms[batch["edge_receiver"]], atoms[batch["edge_sender"]], edges], dim=1)
    expected = torch.autograd.grad(F.linear(joined, split.weight, split.bias).square().sum(), inputs)
    found = torch.autograd.grad(split(atoms, atoms, edges, batch).square().sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_sums_over_edges_and_systems(batch):
    values = torch.randn(batch.n_edges, 4)
    summed = sum_edges(values, batch)
    for atom in range(len(batch["number"])):
        torch.testing.assert_close(summed[atom], values[batch["edge_receiver"] == atom].sum(0))
    atoms = torch.randn(len(batch["number"]), 2)
    for system in range(batch.n_systems):
        mine = atoms[batch["system"] == system]
        torch.testing.assert_close(sum_systems(atoms, batch)[system], mine.sum(0))
        torch.testing.assert_close(mean_systems(atoms, batch)[system], mine.mean(0))


def plain_gate(values, batch):
    gate, core = values.chunk(2, dim=1)
    return sum_edges(torch.sigmoid(gate) * F.softplus(core), batch)


def test_gate_value_and_gradient(batch):
    torch.manual_seed(0)
    values = (torch.randn(batch.n_edges, 6, dtype=torch.float64) * 4).requires_grad_()
    weights = torch.randn(len(batch["number"]), 3, dtype=torch.float64)
    expected = torch.autograd.grad((plain_gate(values, batch) * weights).sum(), values)[0]
    found = torch.autograd.grad((gated_sum(values, batch) * weights).sum(), values)[0]
    torch.testing.assert_close(gated_sum(values, batch), plain_gate(values, batch))
    torch.testing.assert_close(found, expected)
    extreme = torch.full((batch.n_edges, 2), 200.0, requires_grad=True)
    assert bool(torch.isfinite(torch.autograd.grad(gated_sum(extreme, batch).sum(), extreme)[0]).all())


def test_gate_can_be_differentiated_twice_where_lengths_ask_for_it(batch):
    lengths = batch["edge_length"].double().requires_grad_()
    moving = Batch({**batch, "edge_length": lengths})
    second = []
    for gate in (gated_sum, plain_gate):
        values = torch.stack([lengths, lengths**2], dim=1)
        first = torch.autograd.grad(gate(values, moving).sum(), lengths, create_graph=True)[0]
        second.append(torch.autograd.grad(first.sum(), lengths)[0])
    torch.testing.assert_close(*second)


def test_swish_slope_is_learned():
    swish = Swish(3)
    x = torch.randn(4, 3)
    torch.testing.assert_close(swish(x), F.silu(x))
    assert swish.beta.requires_grad


@pytest.mark.parametrize("pooling", ["mean", "sum", "sites"])
def test_head_pools(pooling, batch):
    torch.manual_seed(0)
    head = Head(8, (5,), n_out=2, pooling=pooling)
    atoms = torch.randn(len(batch["number"]), 8)
    out = head({"atom": atoms}, batch)
    assert out.shape == (batch.n_systems, 2)
    linear = [m for m in head.network if isinstance(m, nn.Linear)]
    for system in range(batch.n_systems):
        mine = atoms[batch["system"] == system]
        x = mine if pooling == "sites" else (mine.mean(0) if pooling == "mean" else mine.sum(0))
        x = linear[1](F.softplus(linear[0](F.softplus(x))))
        torch.testing.assert_close(out[system], x.mean(0) if pooling == "sites" else x)


def test_sites_average_to_the_prediction(batch):
    head = Head(8, (5,), pooling="sites")
    features = {"atom": torch.randn(len(batch["number"]), 8)}
    sites = head.sites(features, batch)
    assert sites.shape == (len(batch["number"]), 1)
    torch.testing.assert_close(mean_systems(sites, batch), head(features, batch), atol=1e-7, rtol=0)
    with pytest.raises(ConfigError, match="pooling 'sites'"):
        Head(8).sites(features, batch)


def test_system_head_takes_what_it_is_given_and_no_hidden_is_linear(batch):
    head = Head(4, (), pooling="system")
    features = torch.randn(batch.n_systems, 4)
    torch.testing.assert_close(head({"system": features}, batch), head.network[-1](features))
    with pytest.raises(ConfigError, match="needs system features; the model gives atom"):
        head({"atom": features}, batch)


def test_dropout_acts_in_training_only(batch):
    head = Head(8, (64,), dropout=0.5)
    features = {"atom": torch.randn(len(batch["number"]), 8)}
    head.train()
    assert not torch.equal(head(features, batch), head(features, batch))
    head.eval()
    assert torch.equal(head(features, batch), head(features, batch))


@pytest.mark.parametrize("bad", [{"pooling": "max"}, {"activation": "sine"}])
def test_head_refuses_the_unknown(bad):
    with pytest.raises(ConfigError, match="unknown"):
        Head(8, **bad)


def test_radius_graph_sums_too():
    made = graph([SALT, MOLECULE], GraphSpec("radius", 5.0))
    values = torch.ones(made.n_edges, 1)
    assert sum_edges(values, made)[:, 0].tolist() == torch.bincount(made["edge_receiver"], minlength=5).tolist()


def test_descriptors_tell_elements_apart():
    known = descriptors()[1:104]
    assert known.shape == (103, 64)
    distance = torch.cdist(known, known) + 9 * torch.eye(103)
    # among the elements with stable isotopes or known crystals; the last actinides have no separate data
    assert float(distance[:96, :96].min()) > 0.02
    sodium, potassium, chlorine = known[10], known[18], known[16]
    assert (sodium - potassium).norm() < (sodium - chlorine).norm()


def test_described_elements_give_unseen_elements_a_vector():
    start = DescribedElements(5)
    assert start(torch.tensor([11, 17, 11])).shape == (3, 5)
    assert torch.equal(start(torch.tensor([11])), start(torch.tensor([17, 11]))[1:])
    assert not [name for name in start.state_dict() if "described" in name]
