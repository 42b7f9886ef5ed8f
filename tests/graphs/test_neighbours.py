"""The neighbour search against an all-pairs count that knows no tricks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from naica.errors import InputError
from naica.graphs.neighbours import Edges, _by_tree, _wrapped, enough, nearest, periodic_frame, within
from naica.structure import Crystal


def all_pairs(positions, cell, pbc, cutoff):
    """Every (i, j, vector) with 0 < |vector| ≤ cutoff, by walking over far more images than can matter."""
    found = []
    spread = np.linalg.norm(positions.max(0) - positions.min(0)) if len(positions) else 0.0
    repeats = [0, 0, 0]
    for axis in np.flatnonzero(pbc):
        others = [cell[k] for k in range(3) if k != axis and pbc[k]]
        direction = cell[axis].copy()
        if others:  # the part perpendicular to the other periodic directions
            basis, _ = np.linalg.qr(np.array(others).T)
            direction = direction - basis @ (basis.T @ direction)
        repeats[axis] = int(np.ceil((cutoff + spread) / np.linalg.norm(direction))) + 1
    images = np.array(list(itertools.product(*(range(-r, r + 1) for r in repeats))), dtype=float)
    shifts = images @ cell
    for i, j in itertools.product(range(len(positions)), repeat=2):
        vectors = positions[j] - positions[i] + shifts
        lengths = np.linalg.norm(vectors, axis=1)
        keep = (lengths <= cutoff) & ((i != j) | (lengths > 1e-9))
        found += [(i, j, *v) for v in vectors[keep]]
    return np.array(found).reshape(-1, 5)


def rows(edges: Edges):
    return np.column_stack([edges.receiver, edges.sender, edges.vector])


def assert_same_edges(found, expected, tolerance=2e-6):
    """The same rows (i, j, vector) in any order."""
    assert len(found) == len(expected)
    if len(expected):
        weight = np.array([100.0, 100.0, 1.0, 1.0, 1.0])  # other atoms are never near
        distance, partner = cKDTree(expected * weight).query(found * weight)
        assert distance.max() < tolerance
        assert len(set(partner.tolist())) == len(expected)


@st.composite
def structures(draw):
    """1 to 5 atoms anywhere, also outside their skewed cell, periodic in any of the eight ways."""
    number = st.floats(-1, 1)
    cell = np.array(draw(st.lists(number, min_size=9, max_size=9))).reshape(3, 3) * 2 + np.diag(draw(st.tuples(*[st.floats(2.5, 7)] * 3)))
    pbc = np.array(draw(st.tuples(*[st.booleans()] * 3)))
    n = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**31))
    fractional = np.random.default_rng(seed).uniform(-1.5, 1.5, (n, 3))
    return fractional @ cell, cell, pbc


@settings(max_examples=80, deadline=None)
@given(structures(), st.floats(1.5, 6.0))
def test_same_edges_as_all_pairs(structure, cutoff):
    positions, cell, pbc = structure
    expected = all_pairs(positions, cell, pbc, cutoff)
    lengths = np.linalg.norm(expected[:, 2:], axis=1)
    if (abs(lengths - cutoff) < 1e-6).any():
        return  # on the very edge of the sphere rounding decides
    edges = within(positions, cell, pbc, cutoff)
    assert_same_edges(rows(edges), expected)
    assert (np.diff(edges.receiver) >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(edges.vector, axis=1), edges.length, atol=1e-9)


@settings(max_examples=80, deadline=None)
@given(structures(), st.integers(1, 20))
def test_nearest_are_the_nearest_of_all_pairs(structure, k):
    positions, cell, pbc = structure
    expected = all_pairs(positions, cell, pbc, 8.0)
    density = len(positions) / abs(np.linalg.det(cell)) if pbc.all() else None
    numbers = np.arange(1, len(positions) + 1)
    edges = nearest(enough(positions, cell, pbc, 8.0, k, density), numbers, k)
    for atom in range(len(positions)):
        mine = expected[expected[:, 0] == atom]
        lengths = np.sort(np.linalg.norm(mine[:, 2:], axis=1))[:k]
        np.testing.assert_allclose(np.sort(edges.length[edges.receiver == atom]), lengths, atol=1e-7)


def test_one_atom_sees_its_own_images():
    edges = within(np.zeros((1, 3)), np.eye(3) * 3.0, np.ones(3, bool), 3.1)
    assert len(edges.length) == 6
    assert (edges.receiver == 0).all()
    assert (edges.sender == 0).all()
    np.testing.assert_allclose(edges.length, 3.0)


def test_molecule_has_no_images_even_with_a_small_cell():
    positions = np.array([[0, 0, 0], [0, 0, 1.1]])
    edges = within(positions, np.eye(3) * 2.0, np.zeros(3, bool), 6.0)
    assert rows(edges).tolist() == [[0, 1, 0, 0, pytest.approx(1.1)], [1, 0, 0, 0, pytest.approx(-1.1)]]


def test_slab_repeats_in_its_plane_only():
    cell = np.diag([3.0, 3.0, 4.0])
    edges = within(np.array([[0.0, 0.0, 9.0]]), cell, np.array([True, True, False]), 4.5)
    np.testing.assert_allclose(edges.vector[:, 2], 0, atol=1e-12)
    assert len(edges.length) == 8  # four at 3 Å, four at 4.24 Å


def test_very_flat_and_very_skewed_cell():
    cell = np.array([[1.2, 0, 0], [11.0, 2.0, 0], [-7.0, 9.0, 15.0]])
    positions = np.array([[0.1, 0.2, 0.3], [8.0, 3.0, 7.0]])
    expected = all_pairs(positions, cell, np.ones(3, bool), 5.0)
    assert_same_edges(rows(within(positions, cell, np.ones(3, bool), 5.0)), expected)


@settings(max_examples=60, deadline=None)
@given(structures(), st.floats(1.5, 5.0))
def test_tree_and_kernel_find_the_same(structure, cutoff):
    positions, cell, pbc = structure
    points, lattice = periodic_frame(positions, cell, pbc, cutoff)
    points = _wrapped(points, lattice)
    receiver, sender, image, length = _by_tree(points, lattice, cutoff)
    if (abs(length - cutoff) < 1e-6).any():
        return
    vector = points[sender] - points[receiver] + image @ lattice
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), length, atol=1e-9)
    keep = length > 1e-9
    tree = np.column_stack([receiver, sender, vector])[keep]
    assert_same_edges(tree, rows(within(positions, cell, pbc, cutoff)))


@pytest.mark.parametrize("far", [1e3, 1e8, 1e12])
def test_atoms_far_outside_their_cell_are_no_trap(far):
    cell = np.eye(3) * 4.0
    inside = within(np.array([[0.0, 0, 0], [2, 2, 2]]), cell, np.ones(3, bool), 4.5)
    outside = within(np.array([[0.0, 0, 0], [2 + 4 * round(far / 4), 2, 2]]), cell, np.ones(3, bool), 4.5)
    assert_same_edges(rows(outside), rows(inside), 1e-3)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pbc", [[False] * 3, [True] * 3, [True, False, False]])
def test_nearly_empty_space_costs_nothing(pbc):
    positions = np.array([[0, 0, 0], [0, 0, 1.1], [9e4, 9e4, 9e4]])
    edges = within(positions, np.diag([2e5] * 3), np.array(pbc), 6.0)
    assert sorted(zip(edges.receiver.tolist(), edges.sender.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_two_atoms_on_one_place_are_refused_across_the_cell_face_too():
    cell = np.eye(3) * 4.0
    with pytest.raises(InputError, match="1 pairs of atoms sit on the same place"):
        within(np.array([[0.0, 0, 0], [4.0, 0, 0]]), cell, np.ones(3, bool), 3.0)


def environment(crystal: Crystal, k: int):
    """What CGCNN sees of each atom: sorted (length, element) of its k nearest."""
    density = len(crystal) / crystal.volume
    edges = nearest(enough(crystal.positions, crystal.cell, crystal.pbc, 8.0, k, density), crystal.numbers, k)
    per_atom = []
    for atom in range(len(crystal)):
        mine = edges.receiver == atom
        per_atom.append(sorted(zip(np.round(edges.length[mine], 6).tolist(), crystal.numbers[edges.sender[mine]].tolist(), strict=True)))
    return per_atom


CSCL = Crystal.from_fractional(["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 4.12)
PEROVSKITE = Crystal.from_fractional(
    ["Ba", "Ti", "O", "O", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], np.eye(3) * 4.0
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([CSCL, PEROVSKITE]), st.integers(1, 24), st.randoms(use_true_random=False))
def test_ties_do_not_depend_on_place_noise_or_order(crystal, k, random):
    expected = environment(crystal, k)
    order = list(range(len(crystal)))
    random.shuffle(order)
    noise = np.array([[random.uniform(-1e-10, 1e-10) for _ in range(3)] for _ in order])
    shift = np.array([random.uniform(-3, 3) for _ in range(3)])
    other = crystal.replace(numbers=crystal.numbers[order], positions=crystal.positions[order] + shift + noise)
    seen = environment(other, k)
    assert [seen[order.index(atom)] for atom in range(len(crystal))] == expected


def test_tie_between_elements_goes_to_the_lighter():
    # the middle atom has three He and three Ne at one distance; four edges take the He first
    positions = np.array([[0, 0, 0], [2, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 2], [0, 0, -2]], dtype=float)
    numbers = np.array([3, 10, 2, 10, 2, 10, 2])
    edges = nearest(within(positions, np.zeros((3, 3)), np.zeros(3, bool), 3.0), numbers, 4)
    middle = edges.receiver == 0
    assert sorted(numbers[edges.sender[middle]].tolist()) == [2, 2, 2, 10]
    assert edges.sender[middle][numbers[edges.sender[middle]] == 10].tolist() == [1]  # the first of the equal ones


def test_tie_between_sites_prefers_the_same_environment_in_any_order():
    # the receiver at the origin sees two Ne at 2 Å; one has a close He beside it
    positions = np.array([[0, 0, 0], [2, 0, 0], [-2, 0, 0], [-2.5, 1, 0]], dtype=float)
    numbers = np.array([3, 10, 10, 2])
    for order in itertools.permutations(range(4)):
        index = list(order)
        edges = nearest(within(positions[index], np.zeros((3, 3)), np.zeros(3, bool), 6.0), numbers[index], 1)
        of_receiver = edges.sender[edges.receiver == index.index(0)]
        assert index[of_receiver[0]] == 2
