"""Layers along edges, compiled: the numbers and derivatives of the same layers in torch, whatever their shape and the number of threads."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from naica.graphs import Batch, graph
from naica.models import backbone
from naica.nn import chain
from naica.nn.chain import Path, along, serves
from naica.nn.compiled import reason
from naica.structure import Crystal

pytestmark = pytest.mark.skipif(chain._functions() is None, reason=f"compiled layers are {reason('chain')}")


def plainly(path: Path, edges, of_receivers, of_senders, weights, biases):
    x = edges
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = F.linear(x, weight, bias)
        if k == path.joins:
            x = x + of_receivers[path.receiver] + of_senders[path.sender]
        if k < len(weights) - 1 or path.lift is not None:
            x = F.softplus(x)
    x = x - (path.lift or 0.0)
    total = torch.zeros(len(of_receivers), x.shape[1], dtype=x.dtype)
    return edges + x, total.index_add(0, path.receiver, x if path.times is None else x * path.times)


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 40),
    e=st.integers(70, 400),
    hidden=st.lists(st.sampled_from([16, 32, 48, 64, 128]), min_size=1, max_size=5),
    activated=st.booleans(),
    counted=st.booleans(),
    threads=st.sampled_from([1, 3]),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_the_same_as_layer_by_layer(seed, n, e, hidden, activated, counted, threads, data) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    widths = [16, *hidden, 16]
    joins = data.draw(st.integers(0, len(widths) - 2))
    receiver = torch.randint(0, n, (e,), generator=generator).sort()[0]
    times = torch.randint(1, 5, (e, 1), generator=generator).float() if counted else None
    path = Path(receiver, torch.randint(0, n, (e,), generator=generator), joins, 0.7 if activated else None, times)
    tables = [random(n, widths[joins + 1]) for _ in range(2)]
    weights = [random(b, a) / a**0.5 for a, b in pairwise(widths)]
    biases = [None if k == joins else random(b) for k, b in enumerate(widths[1:])]
    given_ = [random(e, 16), *tables, *weights, *(b for b in biases if b is not None)]
    upstream = random(e, 16), random(n, 16)
    found = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for dtype, run in ((torch.float64, plainly), (torch.float32, along)):
            leaves = [x.to(dtype).requires_grad_() for x in given_]
            left = iter(leaves[3 + len(weights) :])
            of_dtype = Path(path.receiver, path.sender, joins, path.lift, None if times is None else times.to(dtype))
            arguments = (*leaves[:3], leaves[3 : 3 + len(weights)], [None if b is None else next(left) for b in biases])
            if run is along:
                assert serves(leaves[0], arguments[3])
            out = run(of_dtype, *arguments)
            gradients = torch.autograd.grad(out, leaves, [u.to(dtype) for u in upstream])
            with torch.no_grad():
                again = run(of_dtype, *arguments)
            found.append((*out, *again, *gradients))
    finally:
        torch.set_num_threads(before)
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.detach().abs().max().clamp(min=1e-3)))


@pytest.mark.parametrize("settings_", [{}, {"last": "activated", "blocks": 2}])
def test_megnet_learns_as_in_double_precision(settings_) -> None:
    torch.manual_seed(0)
    cells = [Crystal(["Na", "Cl", "O", "Si"] * 4, 6 * torch.rand(16, 3), 6 * torch.eye(3)) for _ in range(8)]
    single = backbone("megnet", **settings_)
    double = backbone("megnet", **settings_)
    double.load_state_dict(single.state_dict())
    batch = graph(cells, single.needs)
    exact = Batch({k: v.double() if v.is_floating_point() else v for k, v in batch.items()})
    gradients = []
    for model, given_ in ((single, batch), (double.double(), exact)):
        y = model(given_)
        (y["system"].sin().sum() + y["atom"].square().sum()).backward()
        gradients.append({name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None})
    for name, wanted in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], wanted, rtol=1e-3, atol=2e-3 * max(float(wanted.abs().max()), 1e-3), msg=name)
