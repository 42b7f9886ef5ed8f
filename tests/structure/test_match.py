import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import crystals, magnesium, perovskite, rock_salt, rutile, slab, spinel, water

from naica.errors import InputError
from naica.structure import Crystal
from naica.structure.match import duplicates, groups, same_structure


def noisy(crystal, size, seed=0):
    rng = np.random.default_rng(seed)
    return crystal.replace(positions=crystal.positions + rng.normal(0, size, crystal.positions.shape))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([rock_salt, magnesium, rutile, perovskite]), st.floats(0.8, 1.25))
def test_turned_shifted_reordered_scaled_and_repeated_copies_match(seed, make, factor):
    rng = np.random.default_rng(seed)
    crystal = make()
    order = rng.permutation(len(crystal))
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    other = Crystal(crystal.numbers[order], (crystal.positions[order] + rng.uniform(-3, 3, 3)) @ turned, crystal.cell @ turned, True)
    assert same_structure(crystal, other.scaled(factor).supercell([1, 2, 1])) == pytest.approx(0, abs=1e-6)


def test_distance_grows_with_noise():
    found = [same_structure(spinel(), noisy(spinel(), size)) for size in (0.0, 0.01, 0.05)]
    assert found[0] == 0.0
    assert 0 < found[1] < found[2] < 0.1


def test_different_structures_do_not_match():
    caesium_chloride = Crystal.from_fractional([11, 17], [[0, 0, 0], [0.5] * 3], [3.4, 3.4, 3.4])
    assert same_structure(rock_salt(), caesium_chloride) is None
    assert same_structure(rock_salt(), rock_salt(cation=19)) is None
    assert same_structure(rock_salt(), rock_salt().replace(pbc=False)) is None
    assert same_structure(rock_salt(), rock_salt().scaled(2.5), scale=False) is None


def test_info_and_oxidation_states_do_not_count():
    decorated = rock_salt().scaled(1.01).replace(info={"site_properties": {"oxidation_state": [1, -1]}})
    assert same_structure(rock_salt(), decorated) == pytest.approx(0, abs=1e-9)


def test_molecules_and_slabs():
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    order = [1, 2, 0]
    other = Crystal(water().numbers[order], water().positions[order] @ turned + 2)
    assert same_structure(water(), other) == pytest.approx(0, abs=1e-9)
    bent = water().replace(positions=water().positions * [1, 1, -0.2])
    assert same_structure(water(), bent) is None
    thicker_vacuum = slab().replace(cell=np.diag([2.56, 2.56, 30.0]), positions=slab().positions + 5)
    assert same_structure(slab(), thicker_vacuum) == pytest.approx(0, abs=1e-6)
    assert duplicates([water(), slab(), other, thicker_vacuum, bent]) == [0, 1, 0, 1, 2]


def test_groups_keep_distances_and_representatives():
    pool = [spinel(), rock_salt(), noisy(spinel(), 0.02), rock_salt(), spinel().scaled(1.1), perovskite(), noisy(spinel(), 0.01)]
    found = groups(pool)
    assert found.cluster.tolist() == [0, 1, 0, 1, 0, 2, 0]
    assert found.representative.tolist() == [0, 1, 0, 1, 0, 5, 0]
    assert found.distance[[0, 1, 3, 5]].tolist() == [0, 0, 0, 0]
    assert 0 < found.distance[6] < found.distance[2]
    assert duplicates(pool) == [0, 1, 0, 1, 0, 2, 0]


def test_a_copy_of_a_member_follows_it_to_its_representative():
    member = noisy(spinel(), 0.02)
    found = groups([spinel(), member, member.replace(info={"id": 2})])
    assert found.representative.tolist() == [0, 0, 0]
    assert found.distance[2] == found.distance[1] > 0


def test_nothing_chains_through_intermediates():
    """Every member matches its representative, however long the chain of small steps is."""
    steps = [rutile().replace(positions=rutile().positions + np.outer([0, 0, 1, -1, 0, 0], [0.12 * k, 0, 0.2 * k])) for k in range(8)]
    found = groups(steps)
    for row, leader in enumerate(found.representative):
        assert same_structure(steps[leader], steps[row]) == pytest.approx(found.distance[row], abs=1e-9)
    assert len(set(found.cluster.tolist())) > 1


def test_label_prefilter_agrees_on_clean_structures_and_is_blind_to_noise():
    pool = [spinel(), spinel().supercell([2, 1, 1]), rock_salt(), spinel().scaled(1.2)]
    assert duplicates(pool, prefilter="label") == duplicates(pool) == [0, 0, 1, 0]
    with pytest.raises(InputError, match="expected 'label' or 'formula'"):
        duplicates(pool, prefilter="hash")


@settings(max_examples=10, deadline=None)
@given(crystals(max_atoms=3), st.integers(0, 2**32 - 1))
def test_number_of_groups_does_not_depend_on_exact_copies(crystal, seed):
    rng = np.random.default_rng(seed)
    pool = [crystal, rock_salt(), rutile()]
    rows = rng.integers(0, 3, 12)
    found = duplicates([pool[k] for k in rows])
    assert len(set(found)) == len(set(rows.tolist()))
    assert duplicates([]) == []
