"""SchNet: its parameter count, its equation against a plain loop, and that the grid of distances changes nothing."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import graph
from naica.models import backbone
from naica.nn.tabulated import Grid
from naica.structure import Crystal
from naica.training import build
from naica.training.check import check

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
SALT = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.52]], FCC * 5.64)
WATER = Crystal(["H", "O", "H"], [[0.76, 0.59, 0], [0, 0, 0], [-0.76, 0.59, 0]])


def ssp(x):
    return F.softplus(x, threshold=100) - np.log(2)


def test_parameter_count_is_schnetpacks():
    model = build("schnet", "energy", {"hidden": (64,), "pooling": "sites"})
    # its table of elements has 100 rows
    rows = model.backbone.embedding.weight.shape[0]
    assert sum(p.numel() for p in model.parameters()) - (rows - 100) * 128 == 432_769


@pytest.mark.parametrize("config", [{}, {"cut": "hard"}, {"filters": "activated"}])
def test_the_equation_edge_by_edge(config):
    torch.manual_seed(0)
    model = backbone("schnet", width=8, interactions=2, gaussians=6, cutoff=4.0, **config).double()
    batch = graph([SALT, WATER], model.needs).to(dtype=torch.float64)
    x = model.embedding(batch["number"])
    delta = 4.0 / 5
    for layer in model.interactions:
        received = torch.zeros_like(x)
        for i, j, d in zip(batch["edge_receiver"].tolist(), batch["edge_sender"].tolist(), batch["edge_length"].tolist(), strict=True):
            g = torch.exp(-((d - torch.arange(6).double() * delta) ** 2) / (2 * delta**2))
            w = layer.filter_second(ssp(layer.filter_first(g)))
            w = ssp(w) if config.get("filters") else w
            w = w if config.get("cut") else w * 0.5 * (1 + np.cos(np.pi * d / 4.0))
            received[i] += layer.inward(x[j]) * w
        x = x + layer.out_second(ssp(layer.out_first(received)))
    torch.testing.assert_close(model(batch)["atom"], x, rtol=1e-5, atol=1e-6)  # centres are kept in 32 bits


def many() -> list[Crystal]:
    draw = np.random.default_rng(0)
    return [Crystal(draw.integers(1, 90, 6), draw.random((6, 3)) @ (np.eye(3) * 5.0), np.eye(3) * draw.uniform(4.5, 6)) for _ in range(12)]


def test_the_grid_changes_neither_values_nor_gradients():
    torch.manual_seed(0)
    model = backbone("schnet", width=32, interactions=3)
    batch = graph(many(), model.needs)
    assert Grid.of(batch["edge_length"], model.sigma) is not None
    exact = backbone("schnet", width=32, interactions=3).double()
    exact.load_state_dict(model.state_dict())
    double = batch.to(dtype=torch.float64)
    values, wanted = model(batch)["atom"], exact(double)["atom"]
    scale = float(wanted.detach().abs().max())
    assert float((values.detach().double() - wanted).detach().abs().max()) < 3e-6 * scale
    weight = torch.randn(values.shape)
    values.mul(weight).sum().backward()
    wanted.mul(weight.double()).sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert float((ours.grad.double() - theirs.grad).abs().max()) < 2e-5 * float(theirs.grad.abs().max()), name


def test_twice_differentiable_where_forces_are_asked_for():
    model = backbone("schnet", width=32, interactions=2)
    batch = graph(many(), model.needs)
    batch["edge_length"].requires_grad_()
    (slope,) = torch.autograd.grad(model(batch)["atom"].sum(), batch["edge_length"], create_graph=True)
    slope.square().sum().backward()
    assert float(model.interactions[0].filter_first.weight.grad.abs().max()) > 0


def test_messages_are_filtered_by_distance():
    model = backbone("schnet", width=8, interactions=2)
    near, far = (graph([Crystal(["O", "O"], [[0, 0, 0], [0, 0, d]])], model.needs) for d in (1.2, 2.4))
    assert float((model(near)["atom"] - model(far)["atom"]).abs().max()) > 1e-3


@pytest.mark.slow
def test_learns_ten_structures_by_heart():
    torch.manual_seed(0)
    model = build("schnet", "energy_per_atom", {"hidden": (16,), "pooling": "sites"}, width=32, interactions=2)
    batch, y = graph(many()[:10], model.needs), torch.randn(10)
    step = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        step.zero_grad()
        loss = (model(batch) - y).square().mean()
        loss.backward()
        step.step()
    assert float((model(batch) - y).detach().abs().mean()) < 1e-2


@pytest.mark.parametrize(("quantity", "pooling"), [("energy", "mean"), ("energy_per_atom", "sites")])
def test_physics_contract(quantity, pooling):
    report = check(build("schnet", quantity, {"hidden": (8,), "pooling": pooling}, width=16, interactions=2))
    assert report.passed, str(report)


def test_settings_out_of_range():
    for wrong in ({"cut": "soft"}, {"filters": "none"}, {"width": 0}):
        with pytest.raises(ConfigError):
            backbone("schnet", **wrong)
