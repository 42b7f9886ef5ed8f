"""Compiled single passes: torch's numbers and derivatives, whatever the width, the number of threads, or whether there is a compiler."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from naica.graphs import Batch
from naica.nn import SplitLinear, passes
from naica.nn.compiled import reason
from naica.nn.gate import gated_sum, gated_sum_of

needs_compiler = pytest.mark.skipif(passes._functions() is None, reason=f"compiled passes are {reason('passes')}")


def edges(seed: int, n: int, e: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    receiver = torch.randint(0, n, (e,), generator=generator).sort()[0]
    return 4 * torch.randn(e, width, generator=generator), receiver, torch.randint(0, n, (e,), generator=generator)


def batch_of(n: int, receiver: torch.Tensor, sender: torch.Tensor) -> Batch:
    lengths = torch.ones(len(receiver))
    one = torch.zeros(n, dtype=torch.long)
    return Batch(
        {
            "number": one + 1,
            "system": one,
            "n_atoms": torch.tensor([n]),
            "edge_receiver": receiver,
            "edge_sender": sender,
            "edge_length": lengths,
        }
    )


@needs_compiler
@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), e=st.integers(0, 300), width=st.integers(1, 70), threads=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_gates_are_those_of_torch(seed, n, e, width, threads):
    values, receiver, _ = edges(seed, n, e, 2 * width)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        gate, core = values.double().chunk(2, dim=1)
        message = torch.sigmoid(gate) * F.softplus(core)
        wanted = torch.zeros(n, width, dtype=torch.float64).index_add(0, receiver, message)
        found = passes.gated_sum_forward(values, receiver, n)
        torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=2e-6)
    finally:
        torch.set_num_threads(before)


@needs_compiler
def test_gate_has_the_slopes_of_torch():
    values, receiver, sender = edges(0, 30, 400, 2 * 24)
    batch = batch_of(30, receiver, sender)
    one, other = values.clone().requires_grad_(), values.double().requires_grad_()
    weight = torch.randn(30, 24)
    assert passes.compiled(one)
    (gated_sum(one, batch) * weight).sum().backward()
    (gated_sum(other, batch) * weight.double()).sum().backward()
    torch.testing.assert_close(one.grad.double(), other.grad, rtol=2e-6, atol=2e-6)


@needs_compiler
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_parts_need_not_be_added_first(layout):
    torch.manual_seed(0)
    values, receiver, sender = edges(1, 50, 600, 41)
    batch, atoms, linear = batch_of(50, receiver, sender), torch.randn(50, 64), SplitLinear(64, 64, 41, 128)
    given = values if layout == "rows" else values.t().contiguous().t()
    with torch.no_grad():
        found = gated_sum_of(linear, linear.weight, linear.bias, atoms, given, batch)
        wanted = gated_sum(linear.double()(atoms.double(), atoms.double(), values.double(), batch), batch)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)


@needs_compiler
def test_large_and_odd_numbers():
    x = torch.tensor([-1e30, -200.0, -88.0, -20.0, -1e-30, 0.0, 1e-30, 20.0, 88.0, 1e30, float("inf"), -float("inf"), float("nan")])
    many = x.repeat(200).requires_grad_()
    y = passes.softplus_forward(many)
    torch.testing.assert_close(y.view(200, -1)[0], F.softplus(x), rtol=3e-7, atol=1e-30, equal_nan=True)
    slope = passes.softplus_backward(y, torch.ones_like(y)).view(200, -1)[0]
    torch.testing.assert_close(slope, torch.sigmoid(x), rtol=0, atol=3e-7, equal_nan=True)


PROGRAM = """
import torch
from naica.graphs import graph
from naica.models import backbone
from naica.nn import passes
from naica.structure import Crystal

torch.manual_seed(0)
cells = [Crystal(["Na", "Cl", "O", "Si"] * 4, 6 * torch.rand(16, 3), 6 * torch.eye(3)) for _ in range(8)]
for name, level in (("megnet", "system"), ("cgcnn", "atom")):
    model = backbone(name)
    batch = graph(cells, model.needs)
    y = model(batch)[level]
    y.square().mean().backward()
    print(float(y.double().square().mean()))
    print(sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5)
print(passes.compiled(torch.zeros(5000)))
"""


def test_without_a_compiler_the_same_comes_out():
    told = {}
    for switch in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env={**os.environ, "NAICA_KERNELS": switch}, check=True, capture_output=True, text=True
        )
        told[switch] = done.stdout.split()
    assert told["0"][-1] == "False"
    for plain, fast in zip(told["0"][:-1], told["1"][:-1], strict=True):
        assert float(fast) == pytest.approx(float(plain), rel=1e-4)
