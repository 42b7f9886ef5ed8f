"""Selenite: moments against their definition, laws, ties at the last neighbour, and what it can tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSet
from naica.models import backbone
from naica.nn.moments import harmonics, invariants, shells
from naica.structure import Crystal
from naica.training import build
from naica.training.check import check

BCC = np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]])
FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
IRON = Crystal.from_fractional(["Fe"], [[0, 0, 0]], 2.87 * BCC)
SALT = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], 5.64 * FCC)
ARGON = Crystal(["Ar"], [[0, 0, 0]])
# calcium has 24 boron neighbours at one distance: more than are kept
_B = 0.2
HEXABORIDE = Crystal.from_fractional(
    ["Ca", *["B"] * 6],
    [[0, 0, 0], [_B, 0.5, 0.5], [1 - _B, 0.5, 0.5], [0.5, _B, 0.5], [0.5, 1 - _B, 0.5], [0.5, 0.5, _B], [0.5, 0.5, 1 - _B]],
    4.15 * np.eye(3),
)


def legendre(order: int, x: torch.Tensor) -> torch.Tensor:
    return [torch.ones_like(x), x, 1.5 * x**2 - 0.5, 2.5 * x**3 - 1.5 * x][order]


def turned(crystal: Crystal, seed: int) -> Crystal:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return crystal.replace(positions=crystal.positions @ turn.T, cell=crystal.cell @ turn.T)


def batch_of(model, crystals) -> Batch:
    return GraphSet.build(crystals, model.needs).batch(range(len(crystals))).to(dtype=torch.float64)


def features(model, crystal: Crystal) -> torch.Tensor:
    return model(batch_of(model, [crystal]))["atom"].detach()


def network(**config):
    torch.manual_seed(1)
    model = backbone("selenite", **{"width": 16, **config}).double().eval()
    for parameter in model.parameters():
        # away from zero, where some weights start
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_harmonics_keep_the_addition_theorem(seed, order):
    vectors = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a, b = (harmonics(v, v.norm(dim=1), 3)[:, order**2 - 1 : (order + 1) ** 2 - 1] for v in vectors)
    cosine = torch.nn.functional.cosine_similarity(*vectors, dim=1)
    torch.testing.assert_close((a * b).sum(1), legendre(order, cosine))
    torch.testing.assert_close((a * a).sum(1), torch.ones(5, dtype=torch.float64))


def test_invariants_are_sums_over_pairs_of_neighbours():
    model = network()
    batch = batch_of(model, [HEXABORIDE, SALT, ARGON])
    assert batch.degree is None
    around = shells(batch, 3, model.config.neighbours, model.config.cutoff)
    messages = torch.randn(len(around.sender), 4, dtype=torch.float64)
    found = invariants(around.moments(messages), 3)
    places, atom = around.rows.shape[2], 3
    mine = slice(atom * places, (atom + 1) * places)
    edges = batch["edge_receiver"] == atom
    length, vector = batch["edge_length"][edges], batch["edge_vector"][edges]
    weight = (1 - (length / length.max()) ** 2) ** 2
    said = weight[:, None] * messages[mine]
    plain = messages[mine].sum(0) / model.config.neighbours**0.5
    torch.testing.assert_close(found[0][atom], plain)
    torch.testing.assert_close(found[1][atom], said.sum(0))
    cosine = (vector / length[:, None]) @ (vector / length[:, None]).T
    for order in (1, 2, 3):
        power = torch.einsum("jc,kc,jk->c", said, said, legendre(order, cosine))
        # vectors and lengths are kept in 32 bits, so their quotient is a unit vector to 1e-7 only
        torch.testing.assert_close(found[order + 1][atom], power / torch.sqrt(power + 0.1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "sites"])
@pytest.mark.parametrize("degree", [0, 3])
def test_keeps_the_physics_contract(pooling, degree):
    torch.manual_seed(0)
    report = check(build("selenite", head={"pooling": pooling}, width=16, degree=degree))
    assert report.passed, str(report)


@pytest.mark.parametrize("neighbours", [12, 13, 16])
@pytest.mark.parametrize("crystal", [IRON, SALT, HEXABORIDE], ids=["iron", "salt", "hexaboride"])
def test_ties_at_the_last_neighbour_change_nothing(crystal, neighbours):
    model = network(neighbours=neighbours)
    plain = features(model, crystal).mean(0)
    for other in (turned(crystal, 3), crystal.supercell((2, 1, 1)), turned(crystal.supercell((1, 2, 3)), 5)):
        torch.testing.assert_close(features(model, other).mean(0), plain, atol=2e-5, rtol=2e-5)


def test_angles_are_seen_with_degrees_above_zero_only():
    def bent(angle: float) -> Crystal:
        ends = [[1.5, 0, 0], [1.5 * np.cos(angle), 1.5 * np.sin(angle), 0]]
        return Crystal(["O", "Si", "Si"], [[0, 0, 0], *ends])

    # the two ends are farther apart than the cut-off, so lengths alone say the same
    for degree, differ in ((0, False), (1, True)):
        model = network(degree=degree, cutoff=2.0)
        change = (features(model, bent(2.0))[0] - features(model, bent(2.6))[0]).abs().max()
        assert bool(change > 1e-4) == differ


def test_angles_do_not_jump_when_two_neighbours_swap_the_last_place():
    model = network(neighbours=2)

    def at(step: float) -> list[torch.Tensor]:
        batch = batch_of(model, [Crystal(["O", "Si", "C", "N"], [[0, 0, 0], [1.5, 0, 0], [0, 2.0 + step, 0], [0, 0, 2.0 - step]])])
        around = shells(batch, 3, 2, 8.0)
        say = batch["number"][around.sender][:, None].double()
        return [value[0] for value in invariants(around.moments(say), 3)]

    (plain_before, *before), (plain_after, *after) = at(1e-4), at(-1e-4)
    assert float((plain_before - plain_after).abs()) > 0.1  # carbon against nitrogen: the plain sum does jump
    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-3)


def test_gradients_reach_every_weight_and_lone_atoms_do_no_harm():
    model = build("selenite", width=16)
    batch = GraphSet.build([SALT, IRON, ARGON, HEXABORIDE], model.needs).batch(range(4))
    model.raw(batch).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().sum()) > 0, name
    alone = GraphSet.build([ARGON], model.needs).batch([0])
    assert alone.n_edges == 0
    assert bool(torch.isfinite(model(alone)).all())


def test_gradients_of_geometry_are_those_of_finite_differences():
    model = network(degree=3)
    batch = batch_of(model, [HEXABORIDE.replace(positions=HEXABORIDE.positions + 0.05 * np.random.default_rng(0).normal(size=(7, 3)))])
    start = batch["edge_vector"]
    way = torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def energy(vector: torch.Tensor) -> torch.Tensor:
        return model(Batch({**batch, "edge_vector": vector, "edge_length": vector.norm(dim=1)}))["atom"].sum()

    vector = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(vector), vector)
    step = 1e-6
    numeric = (energy(start + step * way) - energy(start - step * way)) / (2 * step)
    torch.testing.assert_close((slope * way).sum(), numeric.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"degree": 4}, {"degree": -1}, {"width": 0}, {"layers": -1}, {"width": 18}, {"dropout": 1.0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ConfigError):
        backbone("selenite", **wrong)
