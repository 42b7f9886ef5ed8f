"""Irreps, harmonics of edges against e3nn and against the plain ones, couplings, matrices of rotations."""

import pytest
import torch

from naica.errors import ConfigError
from naica.nn import so3
from naica.nn.so3 import Irrep, coupling, edge_harmonics, natural, turn_matrix


def edges(n=9, seed=0):
    vector = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vector, vector.norm(dim=1)


def turn(inversion=1):
    return inversion * torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]


def test_irreps_multiply():
    assert [str(irrep) for irrep in Irrep(1, -1).times(Irrep(2, 1))] == ["1o", "2o", "3o"]
    assert Irrep(3, 1).dim == 7
    assert natural(3) == Irrep(3, -1)


def test_harmonics_and_couplings_are_those_of_e3nn():
    o3 = pytest.importorskip("e3nn.o3")
    vector, length = edges()
    theirs = o3.spherical_harmonics(list(range(5)), vector, True, "component")
    torch.testing.assert_close(edge_harmonics(vector, length, 4), theirs, rtol=0, atol=1e-12)
    for a, b, c in ((0, 0, 0), (1, 1, 0), (1, 1, 1), (1, 2, 3), (2, 2, 2), (3, 2, 1), (3, 4, 2)):
        theirs = o3.wigner_3j(a, b, c, dtype=torch.float64) * (2 * c + 1) ** 0.5
        torch.testing.assert_close(coupling(a, b, c), theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_matrices_of_turns_are_those_of_e3nn(degree):
    o3 = pytest.importorskip("e3nn.o3")
    rotation = turn()
    rotation = rotation * torch.linalg.det(rotation)
    theirs = o3.Irrep(degree, 1).D_from_matrix(rotation.float()).double()
    torch.testing.assert_close(turn_matrix(rotation, Irrep(degree, 1)), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("inversion", [1, -1])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_harmonics_turn_and_matrices_are_orthogonal(inversion, degree):
    matrix = turn_matrix(turn(inversion), natural(degree))
    vector, length = edges()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(2 * degree + 1, dtype=torch.float64), rtol=0, atol=1e-10)
    before, after = (edge_harmonics(v, length, degree)[:, degree**2 :] for v in (vector, vector @ turn(inversion).T))
    torch.testing.assert_close(before @ matrix.T, after, rtol=0, atol=1e-10)


def test_pseudo_scalars_change_sign_under_inversion():
    assert float(turn_matrix(-torch.eye(3, dtype=torch.float64), Irrep(0, -1))) == pytest.approx(-1.0)
    assert float(turn_matrix(-torch.eye(3, dtype=torch.float64), Irrep(0, 1))) == pytest.approx(1.0)


@pytest.mark.parametrize("most", [0, 1, 3, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-4)])
def test_compiled_harmonics_are_the_plain_ones_to_third_order(most, dtype, tolerance, monkeypatch):
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(so3, "_functions", lambda: None)
        draw = torch.Generator().manual_seed(2)
        vector = edges()[0].to(dtype).requires_grad_()
        results = [edge_harmonics(vector, vector.norm(dim=1), most)]
        told, wanted = list(results), [vector]
        for order in range(3):
            directions = [torch.randn(r.shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for r in results]
            wanted += directions
            total = sum((r * d).sum() for r, d in zip(results, directions, strict=True))
            slopes = torch.autograd.grad(total, wanted, create_graph=order < 2, allow_unused=True)
            results = [torch.zeros_like(w) if s is None else s for s, w in zip(slopes, wanted, strict=True)]
            told += results
        found.append([one.detach() for one in told])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * max(1.0, float(theirs.abs().max())))


def test_harmonics_of_no_edges():
    assert edge_harmonics(torch.zeros(0, 3), torch.zeros(0), 3).shape == (0, 16)


def test_degrees_that_do_not_couple_are_refused():
    with pytest.raises(ConfigError, match="do not couple"):
        coupling(1, 1, 3)
