"""Symmetry-adapted orbitals of molecules: real calculations, and what must not matter."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from naica.errors import MissingPart
from naica.graphs import Batch, GraphSet, GraphSpec
from naica.graphs.levels import LEVEL_MAKERS
from naica.models import backbone
from naica.nn import sum_systems
from naica.structure import Crystal

pytest.importorskip("tblite", reason="orbitals of molecules need tblite (extra 'orbitals')")

from naica.graphs.saao import operators

SPEC = GraphSpec("radius", 3.0, levels=("saao",))
ETHANOL = (
    [6, 6, 8, 1, 1, 1, 1, 1, 1],
    [
        [1.1879, -0.3829, 0.0], [0.0, 0.5526, 0.0], [-1.1867, -0.2472, 0.0], [-1.9237, 0.3850, 0.0], [2.0985, 0.2250, 0.0],
        [1.1184, -1.0093, 0.8869], [1.1184, -1.0093, -0.8869], [-0.0227, 1.1812, 0.8852], [-0.0227, 1.1812, -0.8852],
    ],
)  # fmt: skip
METHANE = ([6, 1, 1, 1, 1], np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.629)


def molecule(atoms, turn: np.ndarray | None = None) -> Crystal:
    numbers, positions = atoms
    positions = np.array(positions, float)
    return Crystal(np.array(numbers), positions if turn is None else positions @ turn.T, np.zeros((3, 3)), np.zeros(3, bool), {})


def turn(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


def test_the_fock_matrix_has_the_calculations_own_energies() -> None:
    from scipy.linalg import eigh
    from tblite.interface import Calculator

    numbers, positions = np.array(ETHANOL[0]), np.array(ETHANOL[1])
    found = operators(numbers, positions, np.zeros(3, bool))
    calculator = Calculator("GFN1-xTB", numbers, positions / 0.529177210903)
    calculator.set("verbosity", 0)
    np.testing.assert_allclose(
        eigh(found.fock, found.overlap, eigvals_only=True), calculator.singlepoint().get("orbital-energies"), atol=1e-5
    )
    np.testing.assert_array_equal(np.bincount(found.atom), [4, 4, 4, 2, 2, 2, 2, 2, 2])
    assert np.trace(found.density @ found.overlap) == pytest.approx(20, abs=1e-6)  # valence electrons of ethanol


@pytest.mark.parametrize("atoms", [ETHANOL, METHANE], ids=["ethanol", "methane"])
def test_turning_the_molecule_changes_no_feature(atoms) -> None:
    """Methane's p shell is threefold degenerate: there eigenvectors have no direction at all."""
    make = LEVEL_MAKERS["saao"].load()
    from naica.graphs.levels import System

    def made(rotation):
        crystal = molecule(atoms, rotation)
        return make(System("x", crystal.numbers, crystal.positions, crystal.cell, crystal.pbc), SPEC)

    still, turned = made(None), made(turn(3))
    np.testing.assert_allclose(still["saao_diagonal"], turned["saao_diagonal"], atol=1e-6)
    for name in ("orbital_edge_receiver", "orbital_edge_sender"):
        np.testing.assert_array_equal(still[name], turned[name])
    np.testing.assert_allclose(still["saao_coupling"], turned["saao_coupling"], atol=1e-5)


def test_signs_of_orbitals_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("orbnet", width=16, layers=2)
    before = model(GraphSet.build([molecule(ETHANOL)], SPEC).batch([0]))["atom"]
    plain = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda m: (plain(m)[0], plain(m)[1] * np.where(np.arange(len(m)) % 2, 1, -1)))
    after = model(GraphSet.build([molecule(ETHANOL)], SPEC).batch([0]))["atom"]
    torch.testing.assert_close(after, before)


def test_far_molecules_add_up() -> None:
    model = backbone("orbnet", width=16, layers=2)
    near, far = molecule(ETHANOL), molecule((METHANE[0], METHANE[1] + np.array([100.0, 0, 0])))
    both = Crystal(np.r_[near.numbers, far.numbers], np.r_[near.positions, far.positions], near.cell, near.pbc, {})
    graphs = GraphSet.build([near, far, both], SPEC)
    batch = graphs.batch([0, 1, 2])
    a, b, together = sum_systems(model(batch)["atom"], batch)
    torch.testing.assert_close(a + b, together, atol=1e-4, rtol=1e-4)


def test_crystals_and_heavy_elements_are_refused() -> None:
    salt = Crystal(np.array([12, 8]), np.array([[0, 0, 0], [2.1, 0, 0]]), np.eye(3) * 4.2, np.ones(3, bool), {})
    heavy = molecule(([92, 9], [[0, 0, 0], [2.0, 0, 0]]))
    rejected = GraphSet.build([salt, heavy], SPEC).rejected
    assert "Γ point" in rejected[0]
    assert "U" in rejected[1]


def test_a_missing_code_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(MissingPart, match=r"naica\[orbitals\]"):
        GraphSet.build([molecule(METHANE)], SPEC)


def test_pairs_are_known_to_both_orbitals_and_worked_out_once():
    torch.manual_seed(0)
    model = backbone("orbnet", width=16, layers=2)
    batch = GraphSet.build([molecule(ETHANOL)], SPEC).batch([0])
    i, j, values = batch["orbital_edge_receiver"], batch["orbital_edge_sender"], batch["saao_coupling"]
    n = len(batch["orbital_atom"])
    there, back = torch.argsort(i * n + j), torch.argsort(j * n + i)
    torch.testing.assert_close((i * n + j)[there], (j * n + i)[back])
    torch.testing.assert_close(values[there], values[back])
    # the other half changes nothing: what one end hears, the other does
    turned = values.clone()
    turned[i > j] = 7.0
    torch.testing.assert_close(model(Batch({**batch, "saao_coupling": turned}))["atom"], model(batch)["atom"])
