"""Valence configurations and orbital fields."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.graphs import GraphSet, GraphSpec, graph
from naica.graphs.levels import System
from naica.graphs.orbital_field import field_of, matrix
from naica.structure import Crystal
from naica.structure.configurations import CAPACITY, configuration, orbital_bits
from naica.structure.elements import element

PERIODIC = np.ones(3, bool)
NOBLE = {"": 0, "He": 2, "Ne": 10, "Ar": 18, "Kr": 36, "Xe": 54, "Rn": 86}


def valence(symbol: str) -> str:
    return " ".join(f"{n}{letter}{count}" for n, letter, count in configuration(element(symbol).number).valence)


@pytest.mark.parametrize("number", range(1, 104))
def test_core_and_valence_hold_as_many_electrons_as_the_nucleus_has_protons(number):
    found = configuration(number)
    assert NOBLE[found.core] + found.electrons == number
    assert all(1 <= count <= CAPACITY[letter] for _, letter, count in found.valence)
    assert found.bits.sum() == len(found.valence)


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        # what the table of OGCNN's released code has wrong or not at all
        ("Ga", "3d10 4s2 4p1"),  # there 4p2
        ("Tl", "4f14 5d10 6s2 6p1"),  # there 6p2
        ("He", "1s2"),  # there read as empty
        ("Fr", "7s1"),  # there read as empty
        ("Ra", "7s2"),  # there read as empty
        ("Pr", "4f3 6s2"),  # there without 4f
        ("Rn", "4f14 5d10 6s2 6p6"),  # there absent
        # exceptions to the order of filling
        ("Cr", "3d5 4s1"),
        ("Cu", "3d10 4s1"),
        ("Pd", "4d10"),
        ("Gd", "4f7 5d1 6s2"),
        ("H", "1s1"),
    ],
)
def test_configurations(symbol, expected):
    assert sorted(valence(symbol).split()) == sorted(expected.split())


def test_configurations_agree_with_pymatgen():
    periodic_table = pytest.importorskip("pymatgen.core.periodic_table")
    for number in range(1, 104):
        shells = periodic_table.Element.from_Z(number).full_electronic_structure
        ours = {(n, letter, count) for n, letter, count in configuration(number).valence}
        assert ours <= {tuple(shell) for shell in shells}, number


def test_bits_stand_where_the_layout_has_them():
    """32 = s1 s2, p1 … p6, d1 … d10, f1 … f14."""
    assert np.flatnonzero(configuration(31).bits).tolist() == [1, 2, 17]  # s2, p1, d10
    assert np.flatnonzero(configuration(59).bits).tolist() == [1, 20]  # s2, f3
    assert orbital_bits().shape == (104, 32)
    assert not orbital_bits()[0].any()


@pytest.mark.parametrize("number", [104, 118, 0])
def test_elements_without_a_configuration_are_named(number):
    with pytest.raises(InputError, match=re.escape(str(number))):
        configuration(number)
    system = System("x", np.array([number]), np.zeros((1, 3)), 4 * np.eye(3), PERIODIC)
    with pytest.raises(InputError, match=f"configuration of element {number}"):
        field_of(system, 8.0, 1)


def crystal_of(seed: int, n: int) -> Crystal:
    draw = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    fractional = (draw.permutation(grid)[:n] + 0.4 * draw.random((n, 3))) / 2
    return Crystal.from_fractional(
        draw.integers(1, 104, n), fractional, np.diag(draw.uniform(5, 7, 3)) + draw.uniform(-1, 1, (3, 3)), PERIODIC
    )


def field(crystal: Crystal, power: float = 1, cutoff: float = 12.0) -> np.ndarray:
    return field_of(System("x", crystal.numbers.astype(int), crystal.positions, crystal.cell, crystal.pbc), cutoff, power)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 8), st.sampled_from([1, 2, 4]))
def test_rank_one_rows_and_invariance(seed, n, power):
    crystal = crystal_of(seed, n)
    values = field(crystal, power)
    matrices = matrix(crystal.numbers, values)
    assert matrices.shape == (n, 32, 33)
    own = orbital_bits()[crystal.numbers]
    for x, o in zip(matrices, own, strict=True):
        assert np.linalg.matrix_rank(x[:, :32]) <= 1
        assert (x.any(axis=1) == o.astype(bool)).all()
        assert (x[:, 32] == o).all()
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    turned = field(crystal.replace(positions=crystal.positions @ turn, cell=crystal.cell @ turn), power)
    np.testing.assert_allclose(turned, values, atol=1e-6)
    large = crystal.supercell((1, 2, 1))
    many = matrix(large.numbers, field(large, power)).reshape(2 * n, -1)
    for x in matrices.reshape(n, -1):
        assert (np.abs(many - x).max(axis=1) < 1e-5).sum() >= 2


def test_the_sum_is_the_definition():
    """Rock salt: six equal faces (weight 1) at a/2; caesium chloride: eight, and six smaller ones to atoms of the same kind."""
    salt = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], 5.64 / 2 * (np.ones((3, 3)) - np.eye(3)), PERIODIC)
    for power in (1, 2, 4):
        np.testing.assert_allclose(field(salt, power)[0], 6 * 2.82**-power * configuration(17).bits, rtol=1e-6)
        np.testing.assert_allclose(field(salt, power)[1], 6 * 2.82**-power * configuration(11).bits, rtol=1e-6)
    caesium = Crystal.from_fractional(["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.12 * np.eye(3), PERIODIC)
    # truncated octahedron: a square of side a √2/4 at a/2, and hexagons that share the rest of the view
    side = 2**0.5 / 4
    square = 4 * np.arcsin(side**2 / (1 + side**2))
    hexagon = (4 * np.pi - 6 * square) / 8
    around = field(caesium)[0]
    near, far = 4.12 * 3**0.5 / 2, 4.12
    expected = 8 / near * configuration(17).bits + 6 * square / hexagon / far * configuration(55).bits
    np.testing.assert_allclose(around, expected, rtol=1e-6)


def test_hydrogen_explodes_only_with_the_released_power():
    """r^-4 at an O-H bond is 38 times the weight at 2.4 Å; 1/r is 2.5 times."""
    water = Crystal(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    oxygen = Crystal(["O", "H", "H"], np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) * 2.5)
    small, large = (field(c, 4, 20.0)[0].max() for c in (oxygen, water))
    assert large / small > 30
    assert field(water, 1, 20.0)[0].max() / field(oxygen, 1, 20.0)[0].max() < 3


def test_lone_atoms_see_nothing():
    assert not field(Crystal(["Ar"], [[0, 0, 0]])).any()
    assert not field(Crystal.from_fractional(["Na"], [[0, 0, 0]], 9 * np.eye(3), PERIODIC), cutoff=8.0).any()


def test_in_a_batch_the_field_is_independent_of_the_edges():
    crystals = [crystal_of(seed, 4) for seed in range(3)]
    few = graph(crystals, GraphSpec("nearest", 8.0, 3, levels=("orbital_field",)))
    many = graph(crystals, GraphSpec("nearest", 8.0, 12, levels=("orbital_field",)))
    assert few["orbital_field"].shape == (12, 32)
    np.testing.assert_array_equal(few["orbital_field"], many["orbital_field"])
    np.testing.assert_allclose(few["orbital_field"][:4], field(crystals[0], 1, 8.0), rtol=1e-6)
    larger = few.scaled(8.0)
    np.testing.assert_allclose(larger["orbital_field"], few["orbital_field"] / 2, rtol=1e-6)


def test_a_row_that_can_have_no_faces_is_rejected_with_the_reason():
    twice = Crystal.from_fractional([3, 3], [[0, 0, 0], [0.5, 0, 0]], 3 * np.eye(3), PERIODIC)
    twice = twice.replace(positions=twice.positions * [[1], [2]])  # the second on an image of the first
    graphs = GraphSet.build([crystal_of(0, 2), twice], GraphSpec(levels=("orbital_field",)))
    assert list(graphs.rejected) == [1]
    assert "same place" in graphs.rejected[1]
