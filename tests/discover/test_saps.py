"""Partial substitution: patterns up to symmetry against published counts, Burnside and brute force; supercells; the double perovskite."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.discover.recipes import realise
from naica.discover.saps import (
    PartialSubstitutions,
    count_orbits,
    hermite_forms,
    inner_translations,
    orbits,
    restricted,
    saps,
    supercells,
)
from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.symmetry import prototype_label, site_permutations, symmetry


def perovskite(a: str = "Sr", b: str = "Ti", x: str = "O") -> Crystal:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal.from_fractional([a, b, x, x, x], sites, 3.9 * np.eye(3))


def closure(generators: list[tuple[int, ...]], n: int) -> np.ndarray:
    group = {tuple(range(n))}
    frontier = set(group)
    while frontier:
        frontier = {tuple(g[i] for i in h) for g in generators for h in frontier} - group
        group |= frontier
    return np.array(sorted(group))


groups = st.integers(2, 7).flatmap(
    lambda n: st.lists(st.permutations(range(n)).map(tuple), min_size=1, max_size=2).map(lambda g: closure(g, n)),
)


@pytest.mark.parametrize(
    ("repeats", "counts"),
    [
        ((1, 1, 2), (1, 1, 1)),
        ((1, 2, 2), (1, 1, 2, 1, 1)),
        ((2, 2, 2), (1, 1, 3, 3, 6, 3, 3, 1, 1)),
        ((2, 2, 3), (1, 1, 5, 9, 21, 25, 34, 25, 21, 9, 5, 1, 1)),
    ],
)
def test_orbit_counts_of_the_perovskite_b_sublattice(repeats: tuple[int, ...], counts: tuple[int, ...]) -> None:
    big = perovskite().supercell(repeats)
    group = restricted(site_permutations(big), np.flatnonzero(big.numbers == 22))
    assert tuple(count_orbits(group)) == counts
    assert tuple(sum(1 for _ in orbits(group, k)) for k in range(len(counts))) == counts


@settings(max_examples=60, deadline=None)
@given(groups)
def test_orbits_are_the_smallest_images_of_all_subsets(group: np.ndarray) -> None:
    n = group.shape[1]
    for k in range(n + 1):
        brute = {min(tuple(sorted(row[list(s)].tolist())) for row in group) for s in combinations(range(n), k)}
        found = list(orbits(group, k))
        assert found == sorted(brute)
    assert count_orbits(group) == [len(list(orbits(group, k))) for k in range(n + 1)]


def test_more_sites_than_bits_of_a_machine_word() -> None:
    n = 70
    cyclic = (np.arange(n)[:, None] + np.arange(n)) % n
    assert count_orbits(cyclic)[:4] == [1, 1, 35, 782]
    assert list(orbits(cyclic, 2)) == [(0, d) for d in range(1, 36)]
    assert sum(1 for _ in orbits(cyclic, n - 1)) == 1


@pytest.mark.parametrize("rows", [[[0, 0]], [[0, 2]], [[]], [0, 1]])
def test_what_is_no_permutation_is_refused(rows: list) -> None:
    with pytest.raises(InputError, match="permutations"):
        count_orbits(np.array(rows, dtype=int))


def test_rows_that_are_no_group_are_refused() -> None:
    with pytest.raises(InputError, match="no group"):
        count_orbits(np.array([[1, 2, 0], [0, 1, 2]]))


def test_number_of_sublattices() -> None:
    """The number of sublattices of index m in three dimensions is Σ_{d | m} d σ(d)."""
    expected = [sum(d * sum(e for e in range(1, d + 1) if d % e == 0) for d in range(1, m + 1) if m % d == 0) for m in range(1, 9)]
    assert [len(hermite_forms(m)) for m in range(1, 9)] == expected


def test_distinct_supercells_of_a_simple_cubic_lattice() -> None:
    """Hart & Forcade 2008, Table IV: distinct superlattices of simple cubic by index are 1, 3, 3, 9, 5, 13, 7, 24."""
    cubic = Crystal.from_fractional(["Po"], [[0, 0, 0]], 3.3 * np.eye(3))
    found = Counter(int(np.prod(np.diag(np.reshape(c or np.eye(3, dtype=int), (3, 3))))) for c in supercells(cubic, 8, 8))
    assert [found[m] for m in range(1, 9)] == [1, 3, 3, 9, 5, 13, 7, 24]
    assert len(supercells(cubic, 8, 4)) == 16
    assert all(not c or np.count_nonzero(c) == 3 for c in supercells(cubic, 8, 8, "diagonal"))


@pytest.mark.parametrize(
    "cells", [(2, 0, 0, 0, 1, 0, 0, 0, 1), (1, 0, 1, 0, 1, 1, 0, 0, 2), (1, 1, 0, 0, 2, 0, 0, 0, 2), (2, 0, 0, 0, 2, 0, 0, 0, 2)]
)
def test_inner_translations_are_symmetries(cells: tuple[int, ...]) -> None:
    parent = perovskite()
    big = parent.supercell(np.reshape(cells, (3, 3)))
    moved = inner_translations(parent, big)
    every = {tuple(p) for p in site_permutations(big).tolist()}
    assert len(moved) == len(big) // len(parent) - 1
    assert {tuple(p) for p in moved.tolist()} <= every


def test_double_perovskite_is_found_in_the_two_formula_cell() -> None:
    parent = perovskite()
    parents = {parent.hash: parent}
    made = [realise(r, parents) for r in saps(parents, elements=("Sr", "Ti", "Zr", "O"), max_index=2)]
    rock_salt = [c for c in made if sorted(c.composition.values()) == [1, 1, 2, 6]]
    assert 225 in {symmetry(c).number for c in rock_salt}
    elpasolite = next(c for c in rock_salt if symmetry(c).number == 225)
    assert set(elpasolite.composition) == {"Sr", "Ti", "Zr", "O"}
    assert len(elpasolite) == 10


def test_double_perovskite_is_found_in_the_cube_of_eight() -> None:
    parent = perovskite()
    big = parent.supercell((2, 2, 2))
    sites = np.flatnonzero(big.numbers == 22)
    patterns = list(orbits(restricted(site_permutations(big), sites), 4))
    numbers = {symmetry(big.replace(numbers=_zirconium(big, sites[list(p)]))).number for p in patterns}
    assert len(patterns) == 6
    assert 225 in numbers


def _zirconium(big: Crystal, sites: np.ndarray) -> np.ndarray:
    numbers = big.numbers.copy()
    numbers[sites] = 40
    return numbers


def test_no_compound_comes_twice_and_none_is_missed() -> None:
    """Over all cells up to index 4 each product is another structure; index by index their number agrees with a brute-force search."""
    from naica.structure.match import same_structure

    parent = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5] * 3], 2.82 * (1 - np.eye(3)))
    parents = {parent.hash: parent}
    recipes = list(saps(parents, elements=("Na", "K", "Cl"), max_index=3))
    made = [realise(r, parents) for r in recipes]
    by_formula: dict[str, list[Crystal]] = {}
    for crystal in made:
        by_formula.setdefault(crystal.formula, []).append(crystal)
    assert len({r.key for r in recipes}) == len(recipes)
    for group in by_formula.values():
        assert all(same_structure(a, b) is None for a, b in combinations(group, 2))
    # two-colourings of the face-centred lattice: 2 of index 2, 6 of index 3 (Hart & Forcade 2008, Table II)
    cells = Counter(len(c) // 2 for c, r in zip(made, recipes, strict=True) if set(c.composition) == {"Na", "K", "Cl"})
    assert cells == {2: 2, 3: 6}


def test_parents_take_turns_and_limits_hold() -> None:
    parents = {c.hash: c for c in (perovskite(), perovskite("Ba", "Zr", "S"))}
    stream = list(PartialSubstitutions(parents, limit=5, max_index=2))
    assert len(stream) == 10
    assert [r.parent for r, _ in stream] == sorted(parents) * 5
    assert all(p > 1e-3 for _, p in stream)
    assert [r.key for r, _ in stream] == [r.key for r, _ in PartialSubstitutions(dict(reversed(parents.items())), limit=5, max_index=2)]


def test_elements_known_formulas_and_charges_are_respected() -> None:
    parent = perovskite()
    parents = {parent.hash: parent}
    allowed = {"Ca", "Sr", "Ti", "O", "F"}
    every = [realise(r, parents) for r in saps(parents, elements=allowed, max_index=2)]
    formulas = {c.formula for c in every}
    assert all(set(c.composition) <= allowed and len(c) <= 10 for c in every)
    assert any(0 < c.composition.get("F", 0) < 3 for c in every)
    assert not formulas & {
        c.formula for c in (realise(r, parents) for r in saps(parents, elements=allowed, max_index=2, known_formulas=formulas))
    }
    neutral = {realise(r, parents).formula for r in saps(parents, elements=allowed, max_index=2, balanced=True)}
    assert neutral < formulas
    # an element that may not stay can only leave as a whole
    gone = [realise(r, parents) for r in saps(parents, elements={"Ca", "Ti", "O"}, max_index=2)]
    assert {c.formula for c in gone} == {"CaTiO3", "Ti2O3"}
    # without the rule of signs the floor puts oxygen on cation sites
    loose = {realise(r, parents).formula for r in saps(parents, elements={"Ca", "Ti", "O"}, max_index=2, same_sign=False)}
    assert loose > {"CaTiO3", "Ti2O3"}


def test_full_replacement_is_the_recipe_of_plain_substitution() -> None:
    from naica.discover.substitution import substitutions

    parent = perovskite()
    parents = {parent.hash: parent}
    partial = {r.key for r in saps(parents, elements=("Ca", "Sr", "Ti", "O"), max_index=1)}
    plain = {r.key for r in substitutions(parents, elements=("Ca", "Sr", "Ti", "O"))}
    assert partial & plain


def test_alloys_are_dropped_and_counted() -> None:
    alloy = Crystal.from_fractional(["Cu", "Zn"], [[0, 0, 0], [0.5] * 3], 2.95 * np.eye(3))
    found = PartialSubstitutions({alloy.hash: alloy})
    assert list(found) == []
    assert sum(found.dropped.values()) == 1


@pytest.mark.parametrize("options", [{"max_atoms": 0}, {"max_index": 0}, {"shapes": "round"}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        PartialSubstitutions({}, **options)


def test_labels_tell_the_ordered_from_the_plain_perovskite() -> None:
    parent = perovskite()
    parents = {parent.hash: parent}
    labels = {prototype_label(realise(r, parents)) for r in saps(parents, elements=("Sr", "Ti", "Zr", "O"), max_index=2)}
    assert any("_225_" in label for label in labels)
