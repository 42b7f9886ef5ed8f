"""Functions of a distance on a grid: error at the rounding of 32 bits, derivatives those of the same sum, exactness where it counts."""

import pytest
import torch

from naica.graphs import Batch
from naica.nn.tabulated import Grid

SIGMA = 0.25


def edges(n: int = 6000, atoms: int = 60, low: float = 1.0, high: float = 5.0) -> tuple[Batch, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    length = low + (high - low) * torch.rand(n, generator=generator)
    receiver = torch.randint(0, atoms, (n,), generator=generator).sort()[0]
    tensors = {
        "number": torch.ones(atoms, dtype=torch.long),
        "system": torch.zeros(atoms, dtype=torch.long),
        "n_atoms": torch.tensor([atoms]),
        "edge_receiver": receiver,
        "edge_sender": torch.randint(0, atoms, (n,), generator=generator),
        "edge_length": length,
    }
    return Batch(tensors), length


def gaussians(d: torch.Tensor) -> torch.Tensor:
    centres = torch.linspace(0, 5, 21, dtype=torch.float64)
    return torch.exp(-((d.double()[:, None] - centres) ** 2) / (2 * SIGMA**2))


@pytest.mark.parametrize(("low", "high"), [(1.0, 5.0), (0.0, 4.0), (2.999, 3.001), (2.0, 9.0)])
def test_error_is_that_of_rounding(low, high):
    _, length = edges(low=low, high=high)
    grid = Grid.of(length, SIGMA)
    assert len(grid.points) < len(length) / 2
    table = gaussians(grid.points).float()
    # 3e-7 Å, half the rounding of lengths of 5 Å, times the steepest slope of a Gaussian, and the interpolation's own 7e-8
    assert float((grid(table).double() - gaussians(length)).abs().max()) < 3e-6


def test_envelope_is_exact_and_not_interpolated():
    _, length = edges()
    step = (length < 3.0).float()
    grid = Grid.of(length, SIGMA, step)
    assert float((grid(gaussians(grid.points).float()).double() - gaussians(length) * step[:, None]).abs().max()) < 3e-6


def test_derivatives_are_those_of_the_same_sum():
    batch, length = edges()
    grid = Grid.of(length, SIGMA, 1 - length / 6)
    torch.manual_seed(0)
    table, values = torch.randn(len(grid.points), 8), torch.randn(60, 8)
    dense = torch.zeros(len(length), len(grid.points)).scatter_add_(1, grid.rows, grid.weights).double()
    ours = [table.clone().requires_grad_(), values.clone().requires_grad_()]
    theirs = [table.double().requires_grad_(), values.double().requires_grad_()]
    upstream = torch.randn(60, 8)
    found = grid.filtered_sum(ours[1], ours[0], batch)
    messages = (dense @ theirs[0]) * theirs[1][batch["edge_sender"]]
    wanted = torch.zeros(60, 8, dtype=torch.float64).index_add(0, batch["edge_receiver"], messages)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    found.mul(upstream).sum().backward()
    wanted.mul(upstream.double()).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=2e-4)
    alone = table.clone().requires_grad_()
    weight = torch.randn(len(length), 8)
    grid(alone).mul(weight).sum().backward()
    torch.testing.assert_close(alone.grad.double(), dense.T @ weight.double(), rtol=1e-4, atol=2e-4)


def test_none_where_numbers_must_be_exact_or_few():
    _, length = edges()
    assert Grid.of(length.double(), SIGMA) is None
    assert Grid.of(length.clone().requires_grad_(), SIGMA) is None
    assert Grid.of(length[:100], SIGMA) is None
    assert Grid.of(length[:0], SIGMA) is None
