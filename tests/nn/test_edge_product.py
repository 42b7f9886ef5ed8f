"""Products on edges: the compiled functions against the plain ones, derivatives of every order, equivariance, tables."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import ConfigError, InputError
from naica.models.mace import message_paths
from naica.nn import edge_product
from naica.nn.compiled import reason
from naica.nn.edge_product import EdgeProduct, Path, Tabled, plain
from naica.nn.so3 import edge_harmonics, natural, turn_matrix

PRODUCTS = {
    "mace": message_paths(1, 3, 3),
    "high": message_paths(3, 2, 4),
    "painn": EdgeProduct((0, 0, 1), ((0, 1), (1, 1)), (Path(0, 0, 0, 0), Path(1, 1, 1, 0), Path(2, 0, 1, 0))),
    "odd": EdgeProduct((1, 2), ((1, 2), (2, 1), (3, 1)), (Path(0, 1, 0, 1), Path(1, 1, 1, 0), Path(0, 3, 2, 0), Path(1, 2, 0, 0))),
}


def compiled() -> bool:
    return reason("edge_product") == "on"


def case(product: EdgeProduct, atoms=5, edges=23, channels=20, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    receiver = torch.randint(0, atoms, (edges,), generator=draw).sort().values
    sender = torch.randint(0, atoms, (edges,), generator=draw)
    vector = torch.randn(edges, 3, generator=draw, dtype=torch.float64)
    turns = product.turns(edge_harmonics(vector, vector.norm(dim=1), max(p.degree for p in product.paths)).to(dtype))
    weights = torch.randn(edges, len(product.paths), channels, generator=draw, dtype=torch.float64).to(dtype)
    inputs = [torch.randn(atoms, 2 * d + 1, channels, generator=draw, dtype=torch.float64).to(dtype) for d in product.inputs]
    return weights, turns, inputs, receiver, sender


def both(product, weights, turns, inputs, receiver, sender, order):
    """Sums, their derivatives along random directions up to an order, by the compiled and by the plain version."""
    found = []
    for function in (product, lambda *a: plain(product, *a)):
        draw = torch.Generator().manual_seed(3)
        leaves = [x.detach().clone().requires_grad_() for x in (weights, turns, *inputs)]
        results = function(leaves[0], leaves[1], leaves[2:], receiver, sender)
        told = list(results)
        wanted = leaves
        for step in range(order):
            # cotangents are differentiated as well
            directions = [torch.randn(r.shape, generator=draw, dtype=torch.float64).to(r.dtype).requires_grad_() for r in results]
            total = sum((r * d).sum() for r, d in zip(results, directions, strict=True))
            wanted = [*wanted, *directions]
            slopes = torch.autograd.grad(total, wanted, create_graph=step < order - 1, allow_unused=True)
            results = [s for s in slopes if s is not None]
            told += results
        found.append([r.detach() for r in told])
    return found


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
def test_compiled_is_plain_to_third_order(name, dtype, tolerance):
    product = PRODUCTS[name]
    for channels in (16, 5, 35):
        ours, theirs = both(product, *case(product, channels=channels, dtype=dtype), order=3 if channels == 5 else 2)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, float(b.abs().max())))


def test_derivatives_by_differences():
    product = PRODUCTS["odd"]
    weights, turns, inputs, receiver, sender = case(product, atoms=3, edges=4, channels=2)
    leaves = [x.requires_grad_() for x in (weights, turns, *inputs)]

    def sums(r, t, *h):
        return tuple(product(r, t, h, receiver, sender))

    assert torch.autograd.gradcheck(sums, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(sums, leaves, fast_mode=True)


def test_views_of_larger_tensors_keep_their_history():
    product = PRODUCTS["painn"]
    weights, turns, inputs, receiver, sender = case(product, channels=16)
    found = []
    for function in (product, lambda *a: plain(product, *a)):
        wide = weights.repeat(1, 2, 1).requires_grad_()
        turn = turns.detach().clone().requires_grad_()
        results = function(wide[:, ::2], turn, inputs, receiver, sender)
        (slope,) = torch.autograd.grad(sum((r * r).sum() for r in results), turn, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), wide)[0])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-9)


def test_no_edges_and_atoms_without_edges():
    product = PRODUCTS["mace"]
    weights, turns, inputs, receiver, sender = case(product, edges=0)
    assert all(not r.any() and r.shape[0] == 5 for r in product(weights, turns, inputs, receiver, sender))
    weights, turns, inputs, _, sender = case(product, edges=6)
    ours = product(weights, turns, inputs, torch.tensor([1, 1, 1, 3, 3, 3]), sender)
    assert all(not r[[0, 2, 4]].any() and r[1].any() for r in ours)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), edges=st.integers(0, 40), channels=st.integers(1, 40), atoms=st.integers(1, 9))
def test_any_shape(seed, edges, channels, atoms):
    product = PRODUCTS["painn"]
    ours, theirs = both(product, *case(product, atoms, edges, channels, seed=seed), order=2)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_several_threads_give_the_same():
    product = PRODUCTS["mace"]
    some = case(product, atoms=40, edges=1100)
    alone, _ = both(product, *some, order=2)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together, _ = both(product, *some, order=2)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("inversion", [1, -1])
def test_sums_turn_as_their_irreps_say(inversion):
    product = PRODUCTS["mace"]
    weights, _, inputs, receiver, sender = case(product)
    vector = torch.randn(len(receiver), 3, dtype=torch.float64)
    turn = inversion * torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]

    def sums(vectors, h):
        return product(weights, product.turns(edge_harmonics(vectors, vectors.norm(dim=1), 3)), h, receiver, sender)

    turned = [torch.einsum("ab,nbk->nak", turn_matrix(turn, natural(d)), h) for d, h in zip(product.inputs, inputs, strict=True)]
    for (degree, _), before, after in zip(product.outputs, sums(vector, inputs), sums(vector @ turn.T, turned), strict=True):
        torch.testing.assert_close(torch.einsum("ab,nbsk->nask", turn_matrix(turn, natural(degree)), before), after, rtol=0, atol=1e-10)


def a_table(product: EdgeProduct, channels: int, nodes: int, step: float):
    """Weights ``sin(f d)`` with values and slopes at the nodes, and the function itself."""
    frequency = torch.rand(len(product.paths), channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 + 1
    at = (torch.arange(nodes, dtype=torch.float64) * step)[:, None, None]
    table = torch.stack([torch.sin(frequency * at), frequency * torch.cos(frequency * at) * step], dim=1)
    return table, lambda d: torch.sin(frequency * d[:, None, None])


@pytest.mark.parametrize("channels", [16, 7])
def test_weights_from_a_table(channels):
    product = PRODUCTS["mace"]
    table, exact = a_table(product, channels, 260, 0.02)
    _, turns, inputs, receiver, sender = case(product, channels=channels)
    length = torch.rand(len(receiver), dtype=torch.float64) * 5
    length[0] = 5.3  # beyond the table
    torch.testing.assert_close(Tabled(table, 0.02, length).read(), exact(length.clamp(max=5.18)), rtol=0, atol=1e-7)
    found = []
    for function in (
        lambda d, t, h: product(Tabled(table, 0.02, d), t, h, receiver, sender),
        lambda d, t, h: plain(product, Tabled(table, 0.02, d).read(), t, h, receiver, sender),
    ):
        leaves = [x.detach().clone().requires_grad_() for x in (length, turns, *inputs)]
        results = function(leaves[0], leaves[1], leaves[2:])
        slopes = torch.autograd.grad(sum((r * r).sum() for r in results), leaves)
        found.append([*results, *slopes])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-10)


def test_without_a_compiler_the_plain_version_runs(monkeypatch):
    product = PRODUCTS["mace"]
    some = case(product)
    ours = product(*some)
    monkeypatch.setattr(edge_product, "_functions", lambda: None)
    for a, b in zip(product(*some), ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not compiled(), reason="no C compiler")
def test_edges_out_of_order_or_range_are_refused():
    product = PRODUCTS["painn"]
    weights, turns, inputs, receiver, sender = case(product)
    for ends in ((receiver.flip(0), sender), (receiver, sender + 5), (receiver, sender - 5)):
        with pytest.raises(InputError, match="sorted"):
            product(weights, turns, inputs, *ends)


def test_paths_that_do_not_couple_are_refused():
    with pytest.raises(ConfigError, match="does not lead"):
        EdgeProduct((0,), ((2, 1),), (Path(0, 1, 0, 0),))
    with pytest.raises(ConfigError, match="does not lead"):
        EdgeProduct((0,), ((1, 1),), (Path(0, 1, 0, 1),))
