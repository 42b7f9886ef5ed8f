"""The fast softplus: the numbers and slopes of torch's own, everywhere."""

import pytest
import torch
from torch.nn import functional as F

from naica.nn.softplus import softplus

WIDE = torch.cat([torch.linspace(-120, 79, 9000), torch.zeros(3), torch.randn(9000)])


def test_same_numbers_and_slopes():
    x = WIDE.clone().requires_grad_()
    y = softplus(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    exact = F.softplus(WIDE.double(), threshold=200)
    assert float((y.detach().double() - exact).abs().max()) < 8e-6  # one unit in the last place of 79
    near = WIDE.abs() < 10
    assert float((y.detach().double() - exact)[near].abs().max()) < 1.5e-6
    assert float((slope.double() - torch.sigmoid(WIDE.double())).abs().max()) < 5e-7
    with torch.no_grad():
        torch.testing.assert_close(softplus(WIDE), y.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("odd", [200.0, float("inf"), float("nan")])
def test_numbers_out_of_range_are_torchs_own(odd):
    x = WIDE.clone()
    x[5] = odd
    torch.testing.assert_close(softplus(x), F.softplus(x), equal_nan=True)


def test_the_input_stays_and_odd_layouts_work():
    x = torch.randn(300, 64)
    before = x.clone()
    torch.testing.assert_close(softplus(x.t()), F.softplus(x.t()), rtol=0, atol=1e-6)
    torch.testing.assert_close(softplus(x[:, :20]), F.softplus(x[:, :20]), rtol=0, atol=1e-6)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_double_precision_and_second_derivatives():
    x = torch.randn(9000, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(softplus(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    sigma = torch.sigmoid(x.detach())
    torch.testing.assert_close(second, sigma * (1 - sigma))
    single = torch.randn(9000, requires_grad=True)
    (first,) = torch.autograd.grad(softplus(single, twice=True).sum(), single, create_graph=True)
    assert torch.autograd.grad(first.sum(), single)[0].abs().max() > 0.1
