"""Voronoi faces: known cells, the laws every tessellation keeps, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.graphs import GraphSpec, graph
from naica.graphs.voronoi import kept, voronoi
from naica.structure import Crystal
from naica.training.check import samples

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
BCC = np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]])
ORIGIN = np.zeros((1, 3))
PERIODIC = np.ones(3, bool)
FAR = 20.0


def of(crystal: Crystal, cutoff: float = FAR):
    return voronoi(crystal.positions, crystal.cell, crystal.pbc, cutoff)


def random_crystal(seed: int, n: int) -> Crystal:
    """Atoms on jittered places of a grid in a skewed cell: none too near another."""
    draw = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    fractional = (draw.permutation(grid)[:n] + 0.5 * draw.random((n, 3))) / 3
    cell = np.diag(draw.uniform(6, 9, 3)) + draw.uniform(-2, 2, (3, 3))
    return Crystal.from_fractional(draw.integers(3, 50, n), fractional, cell, PERIODIC)


def table(found, numbers) -> np.ndarray:
    """What is known of each face and does not depend on how atoms are numbered or turned, sorted."""
    rows = np.stack([numbers[found.receiver], numbers[found.sender], found.length, found.solid_angle, found.area, found.volume], axis=1)
    return rows[np.lexsort(np.round(rows[:, ::-1], 5).T)]


def test_simple_cubic_has_six_squares():
    found = voronoi(ORIGIN, 3.0 * np.eye(3), PERIODIC, FAR)
    assert len(found.area) == 6
    np.testing.assert_allclose(found.solid_angle, 4 * np.pi / 6, atol=1e-9)
    np.testing.assert_allclose(found.area, 9.0, atol=1e-9)
    np.testing.assert_allclose(found.volume, 27 / 6, atol=1e-9)
    np.testing.assert_allclose(found.length, 3.0)


def test_face_centred_cubic_has_twelve_rhombs():
    found = voronoi(ORIGIN, 4.0 * FCC, PERIODIC, FAR)
    assert len(found.area) == 12
    np.testing.assert_allclose(found.solid_angle, np.pi / 3, atol=1e-8)
    np.testing.assert_allclose(found.volume, 16 / 12, atol=1e-8)


def test_body_centred_cubic_has_eight_hexagons_and_six_squares():
    found = voronoi(ORIGIN, 4.0 * BCC, PERIODIC, FAR)
    assert len(found.area) == 14
    square = found.length > 3.9
    assert square.sum() == 6
    # truncated octahedron with edge a √2 / 4
    edge = 4 * 2**0.5 / 4
    np.testing.assert_allclose(found.area[square], edge**2, atol=1e-8)
    np.testing.assert_allclose(found.area[~square], 3 * 3**0.5 / 2 * edge**2, atol=1e-8)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_solid_angles_sum_to_4_pi_and_pyramids_fill_the_cell(seed, n):
    crystal = random_crystal(seed, n)
    found = of(crystal)
    np.testing.assert_allclose(np.bincount(found.receiver, found.solid_angle, minlength=n), 4 * np.pi, atol=1e-6)
    assert found.volume.sum() == pytest.approx(abs(np.linalg.det(crystal.cell)), rel=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.vector, axis=1), found.length)
    shift = found.vector - (crystal.positions[found.sender] - crystal.positions[found.receiver])
    images = shift @ np.linalg.inv(crystal.cell)
    np.testing.assert_allclose(images, np.rint(images), atol=1e-8)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 10))
def test_every_face_is_there_from_either_side(seed, n):
    found = of(random_crystal(seed, n))
    there = {(i, j, *np.round(v, 4)): a for i, j, v, a in zip(found.receiver, found.sender, found.vector + 0.0, found.area, strict=True)}
    for i, j, v, area in zip(found.receiver, found.sender, found.vector, found.area, strict=True):
        if area > 1e-4:
            match = [a for (p, q, *w), a in there.items() if (p, q) == (j, i) and np.allclose(w, -v, atol=2e-4)]
            assert match
            assert min(abs(a - area) for a in match) < 1e-6


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_numbering_turning_and_repeating_change_nothing(seed, n):
    crystal = random_crystal(seed, n)
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(draw.normal(size=(3, 3)))[0]
    order = draw.permutation(n)
    turned = crystal.replace(numbers=crystal.numbers[order], positions=(crystal.positions @ turn)[order], cell=crystal.cell @ turn)
    one = kept(of(crystal), n, 16)
    other = kept(of(turned), n, 16)
    np.testing.assert_allclose(table(one, crystal.numbers), table(other, turned.numbers), atol=1e-5)
    large = crystal.supercell((2, 1, 1))
    many = kept(of(large), 2 * n, 16)
    assert len(many.area) == 2 * len(one.area)
    np.testing.assert_allclose(table(many, large.numbers)[::2], table(one, crystal.numbers), atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.99999999, 3.7])
def test_degenerate_vertices_give_the_same_faces_at_any_scale(scale):
    """A diamond cell: every vertex of it is degenerate, and the second neighbours' faces are small."""
    cell = 5.43 * scale * FCC
    found = voronoi(np.array([[0, 0, 0], [0.25, 0.25, 0.25]]) @ cell * [[1], [1]], cell, PERIODIC, FAR)
    assert len(found.area) == 2 * 16
    np.testing.assert_allclose(np.bincount(found.receiver, found.solid_angle), 4 * np.pi, atol=1e-6)


def test_noise_makes_faces_come_and_go_only_below_the_threshold():
    """Face-centred cubic: 6 neighbours touch the cell in a point, and noise turns points into small faces."""
    crystal = Crystal.from_fractional(["Cu"] * 4, [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], 3.61 * np.eye(3), PERIODIC)
    shaken = crystal.replace(positions=crystal.positions + 0.01 * np.random.default_rng(0).normal(size=(4, 3)))
    assert len(of(shaken).area) > len(of(crystal).area) == 48
    assert len(kept(of(shaken), 4, 16).area) == 48
    assert len(kept(of(shaken), 4, 16, smallest=0.0).area) == len(of(shaken).area)


def test_thresholding_keeps_the_sum_of_solid_angles():
    found = of(random_crystal(3, 9))
    less = kept(found, 9, 16)
    assert len(less.area) < len(found.area)
    np.testing.assert_allclose(np.bincount(less.receiver, less.solid_angle), 4 * np.pi, atol=1e-6)
    share = [less.solid_angle[less.receiver == i].min() / less.solid_angle[less.receiver == i].max() for i in range(9)]
    assert min(share) >= 0.05 - 1e-6


def test_the_cap_does_not_split_ties():
    found = voronoi(ORIGIN, 4.0 * BCC, PERIODIC, FAR)
    assert len(kept(found, 1, 14).area) == 14
    assert len(kept(found, 1, 10).area) == 14  # the six squares tie
    assert len(kept(found, 1, 8).area) == 8
    assert len(kept(found, 1, 3).area) == 8  # the eight hexagons tie


@pytest.mark.parametrize("first", [0.3, 20.0])
def test_no_image_further_out_was_missed(first, monkeypatch):
    """A radius that grows from next to nothing, or starts at the cut-off, finds the same faces."""
    crystals = [random_crystal(seed, 3) for seed in range(5)]
    skewed = Crystal.from_fractional([3, 4], [[0, 0, 0], [0.4, 0.3, 0.2]], [[3, 0, 0], [8, 3, 0], [-7, 11, 3.5]], PERIODIC)
    crystals += [skewed, Crystal.from_fractional([5], [[0, 0, 0]], np.diag([2.0, 2.0, 9.0]), PERIODIC)]
    before = [of(c) for c in crystals]
    monkeypatch.setattr("naica.graphs.voronoi._FIRST_RADIUS", first)
    for crystal, expected in zip(crystals, before, strict=True):
        found = of(crystal)
        assert len(found.area) == len(expected.area)
        np.testing.assert_allclose(table(found, crystal.numbers), table(expected, crystal.numbers), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_pymatgen(seed):
    """The peer's per-site tessellation, within 13 Å."""
    analysis = pytest.importorskip("pymatgen.analysis.local_env")
    crystal = random_crystal(seed, 5)
    peer = analysis.VoronoiNN(tol=0.0, cutoff=13.0, compute_adj_neighbors=False)
    structure = crystal.to_pymatgen()
    found = of(crystal, 13.0)
    for site in range(5):
        theirs = sorted(face["solid_angle"] for face in peer.get_voronoi_polyhedra(structure, site).values())
        ours = sorted(found.solid_angle[found.receiver == site])
        theirs = [angle for angle in theirs if angle > 1e-6]
        ours = [angle for angle in ours if angle > 1e-6]
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_molecule_is_cut_by_the_sphere_and_turns_with_it():
    water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.0]])
    none = np.zeros(3, bool)
    found = voronoi(water, np.eye(3), none, 8.0)
    assert len(found.area) == 6
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = voronoi(water @ turn + 100.0, np.eye(3), none, 8.0)
    np.testing.assert_allclose(np.sort(found.solid_angle), np.sort(turned.solid_angle), atol=1e-8)
    np.testing.assert_allclose(np.sort(found.area), np.sort(turned.area), atol=1e-7)


def test_a_pair_of_atoms_shares_a_disc():
    """Two atoms: the face is a disc with radius √(R² − d²/4), seen as a cap of the sphere."""
    found = voronoi(np.array([[0, 0, 0], [2.0, 0, 0]]), np.eye(3), np.zeros(3, bool), 8.0)
    np.testing.assert_allclose(found.area, np.pi * (16 - 1), rtol=1e-9)
    np.testing.assert_allclose(found.solid_angle, 2 * np.pi * (1 - 1 / 4), rtol=1e-9)


def test_faces_grow_from_nothing_at_the_cut_off():
    def pair(distance):
        return voronoi(np.array([[0, 0, 0], [distance, 0, 0]]), np.eye(3), np.zeros(3, bool), 8.0)

    assert len(pair(8.001).area) == 0
    assert 0 < pair(7.99).solid_angle.sum() < 0.02


def test_lone_atoms_have_no_faces():
    assert len(voronoi(ORIGIN, np.eye(3), np.zeros(3, bool), 8.0).area) == 0
    assert len(voronoi(ORIGIN, 9.0 * np.eye(3), PERIODIC, 8.0).area) == 0
    np.testing.assert_allclose(voronoi(ORIGIN, 9.0 * np.eye(3), PERIODIC, FAR).solid_angle.sum(), 4 * np.pi)


def test_two_atoms_on_one_place_are_refused():
    with pytest.raises(InputError, match="same place"):
        voronoi(np.zeros((2, 3)), 4 * np.eye(3), PERIODIC, 8.0)


def test_graph_of_every_kind_of_structure():
    """Slab, molecule, lone atom and one-atom cell in one batch: edges in order of receiver, fields finite."""
    batch = graph(samples(), GraphSpec("voronoi", 8.0, 16))
    assert batch.n_systems == 8
    assert bool((batch["edge_receiver"].diff() >= 0).all())
    for name in ("edge_solid_angle", "edge_face_area", "edge_face_volume"):
        assert batch[name].shape == (batch.n_edges,)
        assert bool((batch[name] > 0).all())
    larger = batch.scaled(8.0)
    assert bool((larger["edge_face_area"] == 4 * batch["edge_face_area"]).all())
    assert bool((larger["edge_solid_angle"] == batch["edge_solid_angle"]).all())
