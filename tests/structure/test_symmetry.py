import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import crystals, magnesium, perovskite, rock_salt, rutile, slab, spinel, water

from naica.errors import InputError
from naica.structure import Crystal
from naica.structure.symmetry import prototype_label, site_permutations, symmetry


@pytest.mark.parametrize(
    ("make", "number", "symbol", "system", "label"),
    [
        (rock_salt, 225, "Fm-3m", "cubic", "AB_cF8_225_a_b"),
        (magnesium, 194, "P6_3/mmc", "hexagonal", "A_hP2_194_c"),
        (spinel, 227, "Fd-3m", "cubic", "AB2C4_cF56_227_a_d_e"),
        (rutile, 136, "P4_2/mnm", "tetragonal", "AB2_tP6_136_a_f"),
        (perovskite, 221, "Pm-3m", "cubic", "ABC3_cP5_221_a_b_c"),
    ],
)
def test_textbook_crystals(make, number, symbol, system, label):
    found = symmetry(make())
    assert (found.number, found.symbol, found.crystal_system) == (number, symbol, system)
    assert prototype_label(make()) == label
    assert symmetry(found.primitive).number == number
    assert symmetry(found.conventional).number == number


def test_cells_and_sites_of_spinel():
    found = symmetry(spinel())
    assert len(found.primitive) == 14
    assert len(found.conventional) == 56
    assert np.allclose(found.conventional.cell, 8.083 * np.eye(3), atol=1e-6)
    assert len(set(found.orbits.tolist())) == 3
    assert len(found.wyckoffs) == 14
    assert [len(set(np.array(found.wyckoffs)[spinel().numbers == z])) for z in (12, 13, 8)] == [1, 1, 1]


@pytest.mark.parametrize("make", [rock_salt, magnesium, spinel, rutile, perovskite])
def test_operations_map_the_crystal_onto_itself(make):
    crystal = make()
    found = symmetry(crystal)
    for rotation, translation in zip(found.rotations, found.translations, strict=True):
        difference = (crystal.fractional @ rotation.T + translation)[:, None] - crystal.fractional
        difference -= np.round(difference)
        same = np.linalg.norm(difference @ crystal.cell, axis=-1) < 1e-3
        assert (same.sum(axis=1) == 1).all()
        assert (crystal.numbers[same.argmax(axis=1)] == crystal.numbers).all()


def test_supercells_keep_the_space_group_and_gain_translations():
    one, two = perovskite(), perovskite().supercell([2, 1, 1])
    assert symmetry(two).number == 221
    # 16 operations keep the long axis, each with two translations
    assert len(symmetry(one).rotations) == 48
    assert len(symmetry(two).rotations) == 32
    assert len(symmetry(two).primitive) == 5
    assert prototype_label(two) == prototype_label(one)


def is_group(permutations):
    known = {tuple(p) for p in permutations.tolist()}
    closed = all(tuple(a[b]) in known for a in permutations for b in permutations)
    inverse = all(tuple(np.argsort(a)) in known for a in permutations)
    return closed and inverse and tuple(range(permutations.shape[1])) in known


CELLS = [
    np.eye(3),
    np.diag([2, 1, 1]),
    [[1, 1, 0], [-1, 1, 0], [0, 0, 1]],
    [[0, 1, 1], [1, 0, 1], [1, 1, 0]],
    [[1, 0, 0], [1, 2, 0], [0, 0, 1]],
]


@pytest.mark.parametrize("matrix", CELLS, ids=str)
@pytest.mark.parametrize("make", [rock_salt, magnesium, rutile, perovskite])
def test_site_permutations_form_a_group(make, matrix):
    crystal = make().supercell(np.array(matrix, dtype=int))
    permutations = site_permutations(crystal)
    assert is_group(permutations)
    assert permutations[0].tolist() == list(range(len(crystal)))
    assert len(np.unique(permutations, axis=0)) == len(permutations)
    assert (crystal.numbers[permutations] == crystal.numbers).all()
    # the translations inside the cell join every copy of an atom to every other
    copies = len(crystal) // len(make())
    first = np.arange(copies) * len(make())
    assert set(first) <= set(permutations[:, 0].tolist())


def colourings_by_count(permutations, sites):
    """How many ways to colour k of the sites are distinct, k = 0 … n, by Burnside's lemma."""
    position = {int(s): k for k, s in enumerate(sites)}
    total = np.zeros(len(sites) + 1)
    images = np.unique([[position[int(p[s])] for s in sites] for p in permutations], axis=0)
    for image in images:
        fixed, seen = np.array([1.0]), set()
        for start in range(len(sites)):
            at, length = start, 0
            while at not in seen:
                seen.add(at)
                at = int(image[at])
                length += 1
            if length:
                fixed = np.convolve(fixed, [1, *[0] * (length - 1), 1])
        total += fixed
    return np.round(total / len(images)).astype(int).tolist()


@pytest.mark.parametrize(
    ("repeats", "counts"),
    [
        ([1, 1, 2], [1, 1, 1]),
        ([1, 2, 2], [1, 1, 2, 1, 1]),
        ([2, 2, 2], [1, 1, 3, 3, 6, 3, 3, 1, 1]),
        ([2, 2, 3], [1, 1, 5, 9, 21, 25, 34, 25, 21, 9, 5, 1, 1]),
    ],
)
def test_distinct_colourings_of_the_octahedral_sites_of_a_perovskite(repeats, counts):
    # published counts of symmetry-distinct partial replacements on the simple cubic B lattice
    crystal = perovskite().supercell(repeats)
    assert colourings_by_count(site_permutations(crystal), np.flatnonzero(crystal.numbers == 22)) == counts


def test_site_permutations_of_spinel():
    permutations = site_permutations(spinel())
    assert is_group(permutations)
    assert len(permutations) == 48
    assert {len(set(permutations[:, k].tolist())) for k in np.flatnonzero(spinel().numbers == 13)} == {4}


@settings(max_examples=25, deadline=None)
@given(crystals(max_atoms=4))
def test_random_crystals_have_a_permutation_group(crystal):
    # atoms that sit on one another within the tolerance have no symmetry to speak of
    if crystal.min_distance() > 0.3:
        assert is_group(site_permutations(crystal))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([rock_salt, magnesium, rutile, perovskite]))
def test_label_depends_on_neither_origin_axes_nor_order(seed, make):
    rng = np.random.default_rng(seed)
    crystal = make()
    order = rng.permutation(len(crystal))
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes = rng.permutation(3)
    other = Crystal(
        crystal.numbers[order], (crystal.positions[order] + rng.uniform(-3, 3, 3)) @ turned, (crystal.cell @ turned)[axes], True
    )
    assert prototype_label(other) == prototype_label(crystal)


def test_label_does_not_depend_on_names_of_elements_or_which_sublattice_is_which():
    assert prototype_label(rock_salt(cation=17, anion=11)) == prototype_label(rock_salt())
    swapped = perovskite().replace(numbers=[22, 38, 8, 8, 8])
    assert prototype_label(swapped) == prototype_label(perovskite())
    assert prototype_label(spinel()) != prototype_label(perovskite())


@pytest.mark.parametrize("edges", [(4.0, 5.0, 6.0), (5.0, 6.0, 4.0), (6.0, 4.0, 5.0), (6.0, 5.0, 4.0)])
def test_label_of_an_orthorhombic_structure_does_not_depend_on_which_axis_is_longest(edges):
    general = np.array([0.11, 0.23, 0.37])
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    frac = np.vstack([general * signs, [[0.5, 0, 0], [0.2, 0, 0.5], [0.8, 0, 0.5]]])
    crystal = Crystal.from_fractional([8] * 4 + [12] + [13] * 2, frac, edges)
    assert symmetry(crystal).number == 16
    assert prototype_label(crystal) == "AB2C4_oP7_16_a_j_u"


def test_small_noise_is_within_the_tolerance():
    rng = np.random.default_rng(0)
    crystal = spinel()
    noisy = crystal.replace(positions=crystal.positions + rng.uniform(-2e-3, 2e-3, crystal.positions.shape))
    assert symmetry(noisy).number == 227
    assert symmetry(noisy, tolerance=1e-5).number == 1
    assert len(site_permutations(noisy)) == 48


@pytest.mark.parametrize("make", [water, slab])
@pytest.mark.parametrize("ask", [symmetry, prototype_label, site_permutations])
def test_without_three_periodic_directions_there_is_no_space_group(make, ask):
    with pytest.raises(InputError, match="three periodic directions"):
        ask(make())


def test_atoms_on_one_another_are_an_input_error():
    crystal = Crystal([29, 29], [[0, 0, 0], [0, 0, 1e-9]], [3.0, 3.0, 3.0])
    with pytest.raises(InputError, match="overlapping atoms"):
        symmetry(crystal)
