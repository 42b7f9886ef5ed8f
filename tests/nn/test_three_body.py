"""Three-body sums without a list of pairs against the list; pairs and reverse edges against loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.nn.three_body import NeighbourSums, harmonics
from naica.nn.triplets import pairs, reverse_edges
from naica.potential.systems import Systems
from naica.structure import Crystal

LEGENDRE = (lambda c: 1 + 0 * c, lambda c: c, lambda c: (3 * c**2 - 1) / 2, lambda c: (5 * c**3 - 3 * c) / 2)


def edges(seed: int, atoms: int = 5, cutoff: float = 4.0):
    draw = np.random.default_rng(seed)
    crystal = Crystal(draw.integers(1, 80, atoms), draw.random((atoms, 3)) * 4.2, np.eye(3) * 4.2 + draw.normal(0, 0.3, (3, 3)))
    return Systems.of(crystal).batch(cutoff)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4])
def test_products_of_harmonics_are_legendre_polynomials(degrees):
    draw = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 30, 3)))
    a, b = draw / draw.norm(dim=2, keepdim=True)
    cosine, products = (a * b).sum(1), harmonics(a, degrees) * harmonics(b, degrees)
    for degree in range(degrees):
        found = products[:, degree**2 : (degree + 1) ** 2].sum(1)
        torch.testing.assert_close(found, np.sqrt((2 * degree + 1) / (4 * np.pi)) * LEGENDRE[degree](cosine), atol=1e-13, rtol=0)


@pytest.mark.parametrize(("degrees", "radial"), [(3, 3), (4, 2), (1, 1)])
def test_sums_are_those_over_all_pairs(degrees, radial):
    batch = edges(1)
    direction = batch["edge_vector"] / batch["edge_length"][:, None]
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(batch.n_edges, degrees * radial)))
    a, b = pairs(batch["edge_receiver"], len(batch["number"]))
    cosine = (direction[a] * direction[b]).sum(1)
    height = torch.cat([(np.sqrt((2 * k + 1) / (4 * np.pi)) * LEGENDRE[k](cosine))[:, None].expand(-1, radial) for k in range(degrees)], 1)
    wanted = torch.zeros_like(x).index_add(0, a, height * x[b])
    found = NeighbourSums.of(direction, batch["edge_receiver"], len(batch["number"]), degrees, radial)(x)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


@given(st.lists(st.integers(0, 5), max_size=12))
@settings(max_examples=30, deadline=None)
def test_pairs_are_all_ordered_pairs(centres):
    centre = torch.tensor(sorted(centres), dtype=torch.long)
    a, b = pairs(centre, 6)
    wanted = [(i, j) for i in range(len(centre)) for j in range(len(centre)) if i != j and centre[i] == centre[j]]
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == wanted


@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=25, deadline=None)
def test_reverse_of_every_edge(seed, dtype):
    batch = edges(seed, atoms=3, cutoff=5.0).to(dtype=dtype)
    reverse = reverse_edges(batch["edge_receiver"], batch["edge_sender"], batch["edge_vector"], 3)
    assert torch.equal(batch["edge_receiver"][reverse], batch["edge_sender"])
    torch.testing.assert_close(batch["edge_vector"][reverse], -batch["edge_vector"], atol=1e-5, rtol=0)
    assert torch.equal(reverse[reverse], torch.arange(len(reverse)))


def test_symmetric_lattices_have_reverse_edges_too():
    for cell in (np.eye(3) * 2.9, np.array([[0, 2, 2], [2, 0, 2], [2, 2, 0.0]])):
        batch = Systems.of(Crystal(["Cu"], [[0, 0, 0]], cell)).batch(6.0)
        reverse = reverse_edges(batch["edge_receiver"], batch["edge_sender"], batch["edge_vector"], 1)
        torch.testing.assert_close(batch["edge_vector"][reverse], -batch["edge_vector"], atol=1e-12, rtol=0)


def test_an_edge_without_reverse_is_refused():
    batch = edges(3)
    with pytest.raises(InputError, match="no reverse"):
        reverse_edges(batch["edge_receiver"][1:], batch["edge_sender"][1:], batch["edge_vector"][1:], 5)
