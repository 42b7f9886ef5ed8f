"""Coordination polyhedra: textbook structures, ideal shapes, and the laws that shapes and pairs keep."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.structure import known

from naica.errors import ConfigError, InputError
from naica.structure import Crystal
from naica.structure.motifs import SHARINGS, motif_pairs, motifs
from naica.structure.polyhedra import OTHER, SHAPES, classify, ideals, order_parameters, shape_measures, vertices
from naica.structure.prototypes import prototype

# shapes, and how each is joined to the others: (sharing, angle at the ligand to 1°) → ordered pairs per cell
TEXTBOOK = [
    ("rocksalt", {"Na octahedron": 1}, {("edge", 90): 12, ("corner", 180): 6}),
    ("zincblende", {"Zn tetrahedron": 1}, {("corner", 109): 12}),
    ("cesium-chloride", {"Cs cube": 1}, {("face", 71): 6, ("edge", 109): 12, ("corner", 180): 8}),
    ("fluorite", {"Ca cube": 1}, {("edge", 109): 12}),
    ("antifluorite", {"Li tetrahedron": 2}, {("edge", 71): 12, ("corner", 109): 24, ("corner", 180): 8}),
    ("cuprite", {"Cu linear": 4}, {("corner", 109): 24}),
    ("rhenium-trioxide", {"Re octahedron": 1}, {("corner", 180): 6}),
    ("molybdenite", {"Mo trigonal prism": 2}, {("edge", 82): 12}),
    ("rutile", {"Ti octahedron": 2}, {("corner", 131): 16, ("edge", 99): 4}),
    ("hexagonal-boron-nitride", {"B triangle": 2}, {("corner", 120): 12}),
    ("alpha-quartz", {"Si tetrahedron": 3}, {("corner", 144): 12}),
    ("diamond", {"Si tetrahedron": 2}, {("corner", 109): 24}),
]
SHAPES_ONLY = [
    ("wurtzite", {"Zn tetrahedron": 2}),
    ("corundum", {"Al octahedron": 4}),
    ("tenorite", {"Cu square": 2}),
    ("vanadium-pentoxide", {"V square pyramid": 4}),
    ("uranium-chloride", {"La tricapped trigonal prism": 2}),
    ("graphite", {"C triangle": 4}),
    ("gamma-selenium", {"Se bent": 3}),
    ("arsenic", {"As trigonal pyramid": 2}),
    ("alpha-nitrogen", {"N single": 8}),
    ("fcc", {"Cu cuboctahedron": 1}),
    ("hcp", {"Mg anticuboctahedron": 2}),
    ("bcc", {"W rhombic dodecahedron": 1}),
    ("laves-C15", {"Cu icosahedron": 4, "Mg Friauf polyhedron": 2}),
]


def joints(crystal: Crystal) -> Counter:
    found = motif_pairs(crystal, motifs(crystal), reach=0)
    return Counter((SHARINGS[s], round(np.degrees(a))) for s, a in zip(found.sharing, found.angle, strict=True))


def turned(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return points @ np.linalg.qr(rng.normal(size=(3, 3)))[0]


# --- textbook -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "shapes", "sharing"), TEXTBOOK)
def test_shapes_and_joints_of_known_structures(name, shapes, sharing) -> None:
    crystal = prototype(name).crystal()
    assert Counter(motifs(crystal).names(crystal)) == shapes
    assert joints(crystal) == sharing


@pytest.mark.parametrize(("name", "shapes"), SHAPES_ONLY)
def test_shapes_of_known_structures(name, shapes) -> None:
    crystal = prototype(name).crystal()
    assert Counter(motifs(crystal).names(crystal)) == shapes


def test_perovskite_octahedra_share_corners_at_180_degrees() -> None:
    crystal = known.perovskite()
    found = motifs(crystal)
    assert found.names(crystal) == ["Sr cuboctahedron", "Ti octahedron"]
    pairs = motif_pairs(crystal, found, reach=0)
    octahedra = (pairs.receiver == 1) & (pairs.sender == 1)
    assert pairs.sharing[octahedra].tolist() == [SHARINGS.index("corner")] * 6
    assert np.allclose(pairs.angle[octahedra], np.pi)
    assert np.allclose(pairs.length[octahedra], 3.905)
    # the cuboctahedron shares a triangle with each of eight octahedra
    assert pairs.sharing[(pairs.receiver == 0) & (pairs.sender == 1)].tolist() == [SHARINGS.index("face")] * 8


def test_rutile_edges_along_c_and_corners_between_chains() -> None:
    crystal = known.rutile()
    pairs = motif_pairs(crystal, motifs(crystal), reach=0)
    edges = pairs.sharing == SHARINGS.index("edge")
    assert np.allclose(np.abs(pairs.vector[edges]), [0, 0, 2.959])
    assert (edges.sum(), (~edges).sum()) == (4, 16)


def test_spinel_tetrahedra_touch_octahedra_by_corners_only() -> None:
    crystal = known.spinel()
    found = motifs(crystal)
    assert Counter(found.names(crystal)) == {"Mg tetrahedron": 2, "Al octahedron": 4}
    pairs = motif_pairs(crystal, found, reach=0)
    octahedral = found.coordination == 6
    kinds = Counter(
        (bool(octahedral[a]), bool(octahedral[b]), SHARINGS[s]) for a, b, s in zip(pairs.receiver, pairs.sender, pairs.sharing, strict=True)
    )
    assert kinds == {(True, True, "edge"): 24, (True, False, "corner"): 24, (False, True, "corner"): 24}


# --- which atoms are centres ----------------------------------------------------------------------------------------------------------
def test_only_cations_are_centres_where_there_are_anions() -> None:
    salt = known.rock_salt()
    assert motifs(salt).centre.tolist() == [0]
    assert len(motifs(salt, "all")) == 2
    assert motifs(salt, "cations").centre.tolist() == [0]


@pytest.mark.parametrize(("name", "why"), [("fcc", "pure element"), ("copper-gold", "alloy")])
def test_metals_have_no_cations_and_say_so(name, why) -> None:
    with pytest.raises(InputError, match=why):
        motifs(prototype(name).crystal(), "cations")
    assert len(motifs(prototype(name).crystal())) == len(prototype(name).crystal())


def test_an_atom_without_ligands_is_refused_not_skipped() -> None:
    far = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 20)
    with pytest.raises(InputError, match=r"atom 0 \(Na\) has no ligand within 6 Å"):
        motifs(far)
    with pytest.raises(InputError, match="no ligand"):
        motifs(Crystal(["Ar"], [[0, 0, 0]]))
    with pytest.raises(ConfigError, match="unknown"):
        motifs(far, "anions")


def test_two_atoms_on_one_place_are_refused() -> None:
    with pytest.raises(InputError, match="same place"):
        motifs(Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0, 0, 0]], np.eye(3) * 4))


def test_a_molecule_has_motifs_too() -> None:
    water = known.water()
    assert motifs(water, "all").names(water) == ["O bent", "H single", "H single"]
    assert motifs(water).centre.tolist() == [1, 2]


# --- shapes ---------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES[:OTHER])
def test_an_ideal_shape_is_itself_however_it_is_turned_scaled_and_numbered(shape) -> None:
    rng = np.random.default_rng(1)
    points = vertices(shape)
    many = np.array([turned(points, rng)[rng.permutation(len(points))] * rng.uniform(1, 4) for _ in range(10)])
    index, measure = classify(many)
    assert (index == SHAPES.index(shape)).all()
    assert measure.max() < 1e-6


def test_published_distances_between_shapes() -> None:
    """As tabulated for the SHAPE program: octahedron to prism 16.74, square to tetrahedron 33.33, cube to square antiprism 10.99."""
    assert shape_measures(vertices("octahedron")[None], "trigonal prism")[0] == pytest.approx(16.737, abs=2e-3)
    assert shape_measures(vertices("square")[None], "tetrahedron")[0] == pytest.approx(33.333, abs=1e-3)
    assert shape_measures(vertices("cube")[None], "square antiprism")[0] == pytest.approx(10.989, abs=2e-3)


def brute(ligands: np.ndarray, shape: str) -> float:
    """The definition: every permutation, both hands, best scale."""
    q = np.vstack([np.zeros(3), ligands])
    p = np.vstack([np.zeros(3), vertices(shape)])
    q, p = q - q.mean(axis=0), p - p.mean(axis=0)
    order = np.array(list(permutations(range(1, len(p)))))
    shuffled = p[np.hstack([np.zeros((len(order), 1), int), order])]
    overlap = np.linalg.svd(np.einsum("ki,xkj->xij", q, shuffled), compute_uv=False).sum(axis=1).max()
    return 100 * (1 - overlap**2 / ((q**2).sum() * (p**2).sum()))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_small_shapes_are_measured_exactly(seed, n) -> None:
    ligands = np.random.default_rng(seed).normal(size=(n, 3))
    for ideal in ideals(n):
        assert shape_measures(ligands[None], ideal.name)[0] == pytest.approx(brute(ligands, ideal.name), abs=1e-8)


@pytest.mark.parametrize("shape", ["pentagonal bipyramid", "capped trigonal prism"])
def test_larger_shapes_are_measured_exactly_when_recognisable(shape) -> None:
    """Alternation may stop short of the best permutation only where the shape is unrecognisable anyway."""
    rng = np.random.default_rng(2)
    for _ in range(4):
        ligands = turned(vertices(shape), rng) + rng.normal(size=(7, 3)) * 0.15
        assert shape_measures(ligands[None], shape)[0] == pytest.approx(brute(ligands, shape), abs=1e-6)


def test_a_number_of_ligands_without_a_shape_is_other() -> None:
    index, measure = classify(np.random.default_rng(0).normal(size=(1, 11, 3)))
    assert (SHAPES[index[0]], measure[0]) == ("other", 100.0)


def test_order_parameters_are_steinhardts() -> None:
    """Mickel et al., J. Chem. Phys. 138, 044501 (2013): q4 and q6 of fcc 0.191, 0.575; hcp 0.097, 0.485; icosahedron 0, 0.663."""
    columns = [3, 4]
    for shape, expected in [("cuboctahedron", (0.1909, 0.5745)), ("anticuboctahedron", (0.0972, 0.4848)), ("icosahedron", (0.0, 0.6633))]:
        assert order_parameters(vertices(shape)[None])[0, columns] == pytest.approx(expected, abs=2e-4)
    assert order_parameters(vertices("single")[None])[0] == pytest.approx(np.ones(5))
    tetrahedron = order_parameters(vertices("tetrahedron")[None])[0]
    assert tetrahedron == pytest.approx([0, 0, np.sqrt(5) / 3, 0.50918, 0.62854], abs=1e-4)


# --- laws -----------------------------------------------------------------------------------------------------------------------------
def summary(crystal: Crystal, copies: int = 1) -> tuple[Counter, Counter]:
    found = motifs(crystal)
    pairs = motif_pairs(crystal, found, reach=5.0)
    shapes = Counter(
        (name, round(float(s), 3), *np.round(q, 4).tolist())
        for name, s, q in zip(found.names(crystal), found.measure, found.order, strict=True)
    )
    kinds = Counter(
        (int(s), round(float(a), 3), round(float(d), 3)) for s, a, d in zip(pairs.sharing, pairs.angle, pairs.length, strict=True)
    )
    return tuple(Counter({k: n // copies for k, n in c.items()}) if copies > 1 else c for c in (shapes, kinds))


LAWFUL = ["rutile", "corundum", "cotunnite", "wurtzite", "brookite", "copper-gold", "thorium-phosphide"]


@pytest.mark.parametrize("name", LAWFUL)
def test_supercell_rotation_permutation_and_wrapping_change_nothing(name) -> None:
    rng = np.random.default_rng(3)
    crystal = prototype(name).crystal()
    expected = summary(crystal)
    assert summary(crystal.supercell([[1, 1, 0], [-1, 1, 0], [0, 0, 1]]), copies=2) == expected
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert summary(crystal.replace(positions=crystal.positions @ rotation, cell=crystal.cell @ rotation)) == expected
    order = rng.permutation(len(crystal))
    shifts = rng.integers(-3, 4, (len(crystal), 3)) @ crystal.cell
    assert summary(crystal.replace(numbers=crystal.numbers[order], positions=(crystal.positions + shifts)[order])) == expected


@settings(max_examples=30, deadline=None)
@given(known.crystals(max_atoms=4))
def test_pairs_are_symmetric_and_hold_all_centres_in_reach(crystal) -> None:
    try:
        found = motifs(crystal, "all")
    except InputError:
        return
    pairs = motif_pairs(crystal, found, reach=4.0)
    assert (np.diff(pairs.receiver) >= 0).all()

    def rows(a, b, sign):
        parts = zip(a, b, np.round(sign * pairs.vector, 5), pairs.shared, np.round(pairs.angle, 6), strict=True)
        return Counter((int(i), int(j), *(v + 0.0).tolist(), int(n), float(w)) for i, j, v, n, w in parts)

    assert rows(pairs.receiver, pairs.sender, 1) == rows(pairs.sender, pairs.receiver, -1)
    assert (pairs.length[pairs.shared == 0] <= 4.0).all()
    assert ((pairs.shared == 0) == (pairs.sharing == SHARINGS.index("none"))).all()
    from naica.graphs.neighbours import within

    expected = within(crystal.positions, crystal.cell, crystal.pbc, 4.0)
    assert np.sort(pairs.length[pairs.length <= 4.0]) == pytest.approx(np.sort(expected.length), abs=1e-6)
