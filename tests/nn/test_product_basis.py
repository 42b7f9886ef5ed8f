"""Symmetric products: number of couplings, homogeneity, equivariance, the compiled functions against the plain ones to third order."""

import pytest
import torch

from naica.errors import ConfigError
from naica.nn import product_basis
from naica.nn.equivariant import Kinds
from naica.nn.product_basis import Polynomials, ProductBasis, plain, products, terms
from naica.nn.so3 import natural, turn_matrix


def basis(channels=5, elements=3, correlation=3, results=(0, 1), most=3) -> ProductBasis:
    torch.manual_seed(0)
    return ProductBasis(most, results, correlation, elements, channels).double()


def atoms(channels=5, n=6, most=3, dtype=torch.float64):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, (most + 1) ** 2, channels, generator=draw, dtype=torch.float64).to(dtype), Kinds(
        torch.tensor([2, 0, 2, 2, 0, 2][:n])
    )


@pytest.mark.parametrize(("degree", "ways"), [(0, (1, 4, 23)), (1, (1, 6, 51)), (2, (1, 7, 65))])
def test_as_many_couplings_as_published(degree, ways):
    assert tuple(terms(3, degree, order).paths.shape[1] for order in (1, 2, 3)) == ways


@pytest.mark.parametrize("order", [1, 2, 3])
def test_products_of_an_order_grow_with_that_power(order):
    module = basis()
    with torch.no_grad():
        for name, weight in module.weights.items():
            weight.mul_(float(name.endswith(str(order))))
    x, kinds = atoms()
    for once, twice in zip(module(x, kinds), module(2 * x, kinds), strict=True):
        assert float(once.detach().abs().max()) > 1e-3
        torch.testing.assert_close(twice, 2**order * once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inversion", [1, -1])
def test_products_turn_as_their_degrees_say(inversion):
    module = basis(results=(0, 1, 2))
    x, kinds = atoms()
    turn = inversion * torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    whole = torch.block_diag(*[turn_matrix(turn, natural(d)) for d in range(4)])
    turned = module(torch.einsum("ab,nbk->nak", whole, x), kinds)
    for degree, (before, after) in enumerate(zip(module(x, kinds), turned, strict=True)):
        torch.testing.assert_close(torch.einsum("ab,nbk->nak", turn_matrix(turn, natural(degree)), before), after, rtol=0, atol=1e-10)


def test_weights_are_those_of_the_element():
    module = basis()
    x, kinds = atoms()
    before = module(x, kinds)[1]
    with torch.no_grad():
        module.weights["1_3"][0].zero_()
        module.weights["1_2"][1].zero_()  # an element that is not there
    changed = (module(x, kinds)[1] - before).abs().amax((1, 2)) > 1e-6
    assert changed.tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("channels", [16, 5, 37])
def test_compiled_is_plain_to_third_order(dtype, tolerance, channels):
    polynomials = Polynomials(3, (0, 1), 3)
    x, kinds = atoms(channels, dtype=dtype)
    draw = torch.Generator().manual_seed(2)
    coefficients = torch.randn(2, len(polynomials.places), channels, generator=draw, dtype=torch.float64).to(dtype)
    found = []
    for function in (products, plain):
        draw = torch.Generator().manual_seed(3)
        leaves = [one.detach().clone().requires_grad_() for one in (x, coefficients)]
        results = [function(polynomials, leaves[0], leaves[1], kinds.place)]
        told = list(results)
        wanted = list(leaves)
        for step in range(3):
            directions = [torch.randn(r.shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for r in results]
            wanted += directions
            total = sum((r * d).sum() for r, d in zip(results, directions, strict=True))
            results = list(torch.autograd.grad(total, wanted, create_graph=step < 2, allow_unused=True))
            results = [r for r in results if r is not None]
            told += results
        found.append([one.detach() for one in told])
    assert len(found[0]) == len(found[1])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * max(1.0, float(theirs.abs().max())))


def test_derivatives_by_differences():
    polynomials = Polynomials(2, (0, 1), 3)
    x, kinds = atoms(2, 3, most=2)
    coefficients = torch.randn(2, len(polynomials.places), 2, dtype=torch.float64, requires_grad=True)
    inputs = (x.requires_grad_(), coefficients)
    assert torch.autograd.gradcheck(lambda a, c: products(polynomials, a, c, kinds.place), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda a, c: products(polynomials, a, c, kinds.place), inputs, fast_mode=True)


def test_views_of_larger_tensors_keep_their_history():
    polynomials = Polynomials(3, (0, 1), 3)
    x, kinds = atoms()
    coefficients = torch.randn(2, len(polynomials.places), 5, dtype=torch.float64)
    found = []
    for function in (products, plain):
        wide, c = torch.cat([x, x]).requires_grad_(), coefficients.clone().requires_grad_()
        result = function(polynomials, wide[::2], c, kinds.place)
        (slope,) = torch.autograd.grad(result.square().sum(), c, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), wide)[0])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-8)


def test_no_atoms():
    module = basis()
    assert [tuple(b.shape) for b in module(torch.zeros(0, 16, 5, dtype=torch.float64), Kinds(torch.zeros(0, dtype=torch.long)))] == [
        (0, 1, 5),
        (0, 3, 5),
    ]


def test_without_a_compiler_the_plain_version_runs(monkeypatch):
    module = basis()
    x, kinds = atoms()
    ours = module(x, kinds)
    monkeypatch.setattr(product_basis, "_functions", lambda: None)
    for a, b in zip(module(x, kinds), ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_orders_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="correlation"):
        basis(correlation=4)
