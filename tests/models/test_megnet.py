"""MEGNet: the equations edge by edge, its state, its skip connections, and that short cuts change nothing."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from naica.errors import ConfigError, InputError
from naica.graphs import GraphSet, graph
from naica.models import backbone
from naica.models.megnet import merged
from naica.nn.tabulated import Grid
from naica.structure import Crystal
from naica.training import build
from naica.training.check import check

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
SALT = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.52]], FCC * 5.64)
CUBIC = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
WATER = Crystal(["H", "O", "H"], [[0.76, 0.59, 0], [0, 0, 0], [-0.76, 0.59, 0]])
SMALL = {"width": 4, "hidden": 6, "elements": 3, "gaussians": 7, "pool": 3, "cutoff": 4.0}


def perovskites(seed: int = 0) -> list[Crystal]:
    draw = np.random.default_rng(seed)
    return [
        Crystal.from_fractional([*draw.integers(3, 57, 2), 8, 8, 8], CUBIC, np.eye(3) * draw.uniform(3.7, 4.4)).supercell((k % 3 + 1, 1, 1))
        for k in range(16)
    ]


def ssp(x):
    return F.softplus(x, threshold=100) - np.log(2)


def by_hand(model, batch):
    """The paper's equations with joined inputs, one edge after the other."""

    def stack(dense, x):
        return ssp(dense.second(ssp(dense.first(x))))

    def phi(network, *parts):
        x = network.third(ssp(network.second(ssp(network.first(torch.cat(parts))))))
        return ssp(x) if network.activated else x

    receiver, sender, system = (batch[k].tolist() for k in ("edge_receiver", "edge_sender", "system"))
    edges, atoms, systems = range(len(receiver)), range(len(system)), range(batch.n_systems)
    c = model.config
    gaussians = torch.exp(-(((batch["edge_length"][:, None] - torch.linspace(0, c.cutoff + 1, c.gaussians).double()) / c.spread) ** 2))
    start = (model.embedding(batch["number"]), gaussians, torch.zeros(batch.n_systems, 2).double())
    v, e, u = (stack(d, x) for d, x in zip(model.start, start, strict=True))
    for block in model.blocks:
        came = v, e, u
        if block.dense is not None:
            v, e, u = (stack(d, x) for d, x in zip(block.dense, came, strict=True))
        e = torch.stack([phi(block.bonds, v[receiver[k]], v[sender[k]], e[k], u[system[receiver[k]]]) for k in edges])
        of_atom = [[e[k] for k in edges if receiver[k] == i] or [torch.zeros_like(e[0])] for i in atoms]
        v = torch.stack([phi(block.atoms, torch.stack(of_atom[i]).mean(0), v[i], u[system[i]]) for i in atoms])
        of_system = [torch.stack([e[k] for k in edges if system[receiver[k]] == b]).mean(0) for b in systems]
        u = torch.stack(
            [phi(block.state, of_system[b], torch.stack([v[i] for i in atoms if system[i] == b]).mean(0), u[b]) for b in systems]
        )
        v, e, u = v + came[0], e + came[1], u + came[2]
    return v, e, u


@pytest.mark.parametrize("last", ["linear", "activated"])
def test_the_equations_edge_by_edge(last):
    torch.manual_seed(0)
    model = backbone("megnet", last=last, **SMALL).double()
    batch = graph([SALT, WATER], model.needs).to(dtype=torch.float64)
    v, e, u = by_hand(model, batch)
    found = model(batch)
    torch.testing.assert_close(found["atom"], v, rtol=1e-5, atol=1e-6)
    sets = batch.system_of("edge")
    wanted = torch.cat([model.read_atoms(v, batch["system"], 2), model.read_bonds(e, sets, 2), u], dim=1)
    torch.testing.assert_close(found["system"], wanted, rtol=1e-5, atol=1e-6)
    assert model.widths == {"system": wanted.shape[1], "atom": 4}


def test_widths_are_those_of_the_published_models():
    assert backbone("megnet").widths == {"system": 96, "atom": 32}
    assert backbone("megnet", bonds=False).widths["system"] == 64


def test_without_phi_what_comes_in_goes_out():
    model = backbone("megnet", **SMALL)
    with torch.no_grad():
        for block in model.blocks:
            for phi in (block.bonds, block.atoms, block.state):
                for parameter in phi.parameters():
                    parameter.zero_()
    batch = graph([SALT, WATER], model.needs)
    came = model.start[0](model.embedding(batch["number"]))
    torch.testing.assert_close(model(batch)["atom"], came)


def test_equal_edges_are_counted_and_not_repeated():
    torch.manual_seed(0)
    model = backbone("megnet", cutoff=5.0)
    batch = graph(perovskites(), model.needs)
    fewer, times = merged(batch)
    assert fewer.n_edges < 0.6 * batch.n_edges
    assert int(times.sum()) == batch.n_edges
    assert bool((fewer["edge_receiver"].diff() >= 0).all())
    assert Grid.of(batch["edge_length"], 0.35) is not None
    exact = backbone("megnet", cutoff=5.0).double()
    exact.load_state_dict(model.state_dict())
    values, wanted = model(batch)["system"], exact(batch.to(dtype=torch.float64))["system"]
    assert float((values.double() - wanted).detach().abs().max()) < 2e-5 * float(wanted.detach().abs().max())
    weight = torch.randn(values.shape)
    values.mul(weight).sum().backward()
    wanted.mul(weight.double()).sum().backward()
    largest = max(float(p.grad.abs().max()) for p in exact.parameters())
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert float((ours.grad.double() - theirs.grad).abs().max()) < 1e-4 * float(theirs.grad.abs().max()) + 1e-5 * largest, name


def test_state_variables_change_the_result_and_have_to_be_there():
    torch.manual_seed(0)
    model = backbone("megnet", state=("temperature", "pressure"), scale=(300.0, 1.0), **SMALL)
    cold, hot = (SALT.replace(info={"temperature": t, "pressure": 1.0}) for t in (100.0, 900.0))
    values = model(graph([cold, hot, cold], model.needs))["system"]
    assert float((values[0] - values[1]).detach().abs().max()) > 1e-3
    torch.testing.assert_close(values[0], values[2])
    built = GraphSet.build([cold, SALT], model.needs)
    assert "temperature" in built.rejected[1]
    with pytest.raises(InputError, match="temperature, pressure"):
        model(graph([SALT], backbone("megnet", **SMALL).needs))


def test_levels_of_theory_have_learned_vectors():
    torch.manual_seed(0)
    model = backbone("megnet", state=("fidelity",), levels=3, **SMALL)
    crystals = [SALT.replace(info={"fidelity": k}) for k in (0, 1, 2, 1)]
    values = model(graph(crystals, model.needs))["system"]
    assert float((values[:3].detach()[:, None] - values[:3].detach()[None]).abs().amax(2).sort()[0][:, 1].min()) > 1e-6
    torch.testing.assert_close(values[1], values[3])
    one = backbone("megnet", constant=(1.0,), levels=3, **SMALL)
    one.load_state_dict(model.state_dict())
    torch.testing.assert_close(one(graph([SALT], one.needs))["system"][0], values[1])
    for wrong in (3, 0.5, -1):
        with pytest.raises(InputError, match="integer from 0 to 2"):
            model(graph([SALT.replace(info={"fidelity": wrong})], model.needs))


def test_lone_atoms_are_handled_or_refused():
    argon = Crystal(["Ar"], [[0, 0, 0]])
    allowed = backbone("megnet", **SMALL)
    assert bool(torch.isfinite(allowed(graph([argon, SALT], allowed.needs))["system"]).all())
    built = GraphSet.build([SALT, argon], backbone("megnet", lone="refused", **SMALL).needs)
    assert "isolated atom: atom 0 (Ar) has no neighbour within 4 Å" in built.rejected[1]
    assert list(built.usable) == [0]


@pytest.mark.parametrize(("pooling", "quantity"), [("system", "energy"), ("mean", "band_gap"), ("sites", "formation_energy_per_atom")])
def test_physics_contract(pooling, quantity):
    report = check(build("megnet", quantity, {"hidden": (8,), "pooling": pooling}, cutoff=4.0))
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "wrong",
    [
        {"graph": "nearest"},
        {"last": "none"},
        {"lone": "maybe"},
        {"gates": "soft"},
        {"passes": 0},
        {"levels": 2},
        {"levels": 2, "constant": (2.0,)},
        {"scale": (1.0,)},
        {"state": (), "constant": ()},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError):
        backbone("megnet", **wrong)
