import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.data import CrystalTable, Split, split
from naica.data.formulas import amounts, contains, formulas
from naica.data.splits import md5_part, published, shared_formulas
from naica.errors import InputError
from naica.structure import Crystal

SYMBOLS = ["H", "Li", "O", "F", "Na", "Mg", "Al", "Cl", "Ti", "Fe", "Ba", "Xe", "Ne"]
fractions = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted).map(lambda c: (c[0] / 100, (c[1] - c[0]) / 100, 1 - c[1] / 100))


@st.composite
def tables(draw, most=40):
    """Tables of random compositions, formulas often repeated."""
    lists = draw(st.lists(st.lists(st.sampled_from(SYMBOLS[:7]), min_size=1, max_size=4), min_size=1, max_size=most))
    crystals = [Crystal(z, 3.0 * np.arange(3 * len(z)).reshape(-1, 3), np.eye(3) * 50) for z in lists]
    return CrystalTable.from_crystals(crystals, ids=[str(k) for k in range(len(crystals))])


def _complete(parts: Split, n: int) -> bool:
    return sorted([*parts.train, *parts.val, *parts.test]) == list(range(n))


@pytest.mark.parametrize(
    ("formula", "residue"),
    [("NaCl", 73), ("SiO2", 95), ("Li2O", 87), ("CaTiO3", 3), ("LiFePO4", 6), ("Li15Si4", 2), ("BaTiO3", 72), ("Fe2O3", 53), ("MgO", 64)],
)
def test_residues_of_the_published_rule(formula, residue):
    assert md5_part(formula) == residue


def test_residue_does_not_depend_on_how_a_formula_is_written():
    assert md5_part("TiO3Ca") == md5_part("Ca2Ti2O6") == md5_part("CaTiO3") == 3
    assert md5_part("O4PFeLi") == 6


def test_composition_split_is_gnomes_rule():
    names = ["NaCl", "SiO2", "Li2O", "CaTiO3", "MgO"]
    crystals = [
        Crystal(["Na", "Cl"], [[0, 0, 0], [2.8, 0, 0]]),
        Crystal(["Si", "O", "O"], [[0, 0, 0], [2, 0, 0], [0, 2, 0]]),
        Crystal(["Li", "O", "Li"], [[0, 0, 0], [2, 0, 0], [0, 2, 0]]),
        Crystal(["O", "O", "O", "Ca", "Ti"], 2.0 * np.arange(15).reshape(5, 3)),
        Crystal(["Mg", "O"], [[0, 0, 0], [2, 0, 0]]),
    ]
    table = CrystalTable.from_crystals(crystals)
    parts = split(table, "composition", (0.85, 0.0, 0.15))
    assert [names[r] for r in parts.train] == ["NaCl", "CaTiO3", "MgO"]
    assert [names[r] for r in parts.test] == ["SiO2", "Li2O"]


@given(tables(), fractions, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_composition_split_never_leaks(table, shares, seed):
    parts = split(table, "composition", shares, seed)
    assert _complete(parts, len(table))
    assert not shared_formulas(table, parts)
    text = np.array(formulas(table))
    assert not set(text[parts.val]) & set(text[parts.test])
    again = split(table, "composition", shares, seed)
    assert all((getattr(parts, p) == getattr(again, p)).all() for p in ("train", "val", "test"))


@given(tables(), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_composition_split_does_not_depend_on_row_order(table, seed):
    order = np.random.default_rng(seed).permutation(len(table))
    parts, shuffled = split(table, seed=seed), split(table.take(order), seed=seed)
    assert set(parts.train.tolist()) == {int(order[r]) for r in shuffled.train}


@given(tables(), fractions, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_random_split_is_complete_and_of_the_asked_size(table, shares, seed):
    parts = split(table, "random", shares, seed)
    assert _complete(parts, len(table))
    assert abs(len(parts.train) - shares[0] * len(table)) <= 1
    assert (parts.train == split(table, "random", shares, seed).train).all()


def test_seeds_give_other_splits(salts):
    for way in ("random", "composition"):
        assert len({tuple(split(salts, way, (0.5, 0.25, 0.25), seed).train.tolist()) for seed in range(8)}) > 1


@given(tables(), st.lists(st.sampled_from("abcdefg"), min_size=40, max_size=40), fractions, st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_prototype_split_keeps_prototypes_whole(table, names, shares, seed):
    groups = np.array(names[: len(table)])
    parts = split(table.with_column("prototype", groups.tolist()), "prototype", shares, seed)
    assert _complete(parts, len(table))
    where = [set(groups[getattr(parts, p)]) for p in ("train", "val", "test")]
    assert sum(len(w) for w in where) == len(set().union(*where))
    largest = max(np.unique(groups, return_counts=True)[1])
    for p, share in zip(("train", "val", "test"), shares, strict=True):
        assert len(getattr(parts, p)) <= share * len(table) + largest


def test_prototype_split_finds_prototypes_itself(salts):
    pytest.importorskip("naica.structure.symmetry")
    parts = split(salts, "prototype")
    # all twelve are rock salt: one group, one part; a molecule has no prototype and is one of its own
    assert sorted(parts.sizes.values()) == [0, 0, 12]
    molecule = CrystalTable.from_crystals([Crystal(["O", "O"], [[0, 0, 0], [1.2, 0, 0]])])
    assert sorted(split(CrystalTable.concat([salts, molecule]), "prototype").sizes.values()) == [0, 1, 12]


@given(tables(), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_element_hold_out(table, seed):
    hit = contains(table, "Li")
    if not hit.any():
        with pytest.raises(InputError, match="no row of the table holds Li"):
            split(table, "element", element="Li", seed=seed)
        return
    parts = split(table, "element", element="Li", seed=seed)
    assert _complete(parts, len(table))
    assert (np.flatnonzero(hit) == parts.test).all()
    assert not shared_formulas(table, parts)


def test_element_split_needs_a_known_element(salts):
    with pytest.raises(InputError, match="needs the element"):
        split(salts, "element")
    with pytest.raises(InputError, match="Qq"):
        split(salts, "element", element="Qq")


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.8, 0.3, 0.1), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)])
def test_impossible_fractions(salts, shares):
    with pytest.raises(InputError, match="add up to 1"):
        split(salts, "random", shares)


def test_unknown_way(salts):
    with pytest.raises(InputError, match="no way 'scaffold'"):
        split(salts, "scaffold")


def test_split_refuses_overlap():
    with pytest.raises(InputError, match=r"row 3 first; in test, train"):
        Split(np.array([1, 2, 3]), np.array([4]), np.array([3, 5]))
    with pytest.raises(InputError, match="more than once"):
        Split(np.array([1, 1]), np.array([]), np.array([]))
    with pytest.raises(InputError, match="negative row"):
        Split(np.array([0]), np.array([-1]), np.array([]))


def test_published_split(salts):
    words = ["train"] * 5 + ["val"] * 2 + ["test"] * 2 + [None] * 3
    table = salts.with_column("split", words)
    parts = published(table)
    assert parts.sizes == {"train": 5, "val": 2, "test": 2}
    assert published(table, unassigned="train").sizes["train"] == 8
    polymorph = CrystalTable.concat([table, table.take([8]).with_column("split", [None])])
    assert published(polymorph, unassigned="train").sizes["train"] == 8
    with pytest.raises(InputError, match="no column 'split'"):
        published(salts)
    with pytest.raises(InputError, match="'holdout'"):
        published(salts.with_column("split", ["holdout"] * 12))


@given(tables())
@settings(max_examples=40, deadline=None)
def test_formulas_of_a_table_are_those_of_its_crystals(table):
    assert formulas(table) == [c.formula for c in table] == table.formulas
    rows, _, amount = amounts(table)
    assert (amount >= 1).all()
    assert (np.diff(rows) >= 0).all()


def test_formulas_of_all_elements():
    crystals = [Crystal([z, 104 - z, 8], [[0, 0, 0], [2, 0, 0], [0, 2, 0]]) for z in range(1, 104)]
    assert formulas(CrystalTable.from_crystals(crystals)) == [c.formula for c in crystals]


def test_split_of_the_large_set(published):
    table = published("mp_formation")
    parts = split(table, "composition", (0.85, 0.0, 0.15))
    assert abs(len(parts.train) / len(table) - 0.85) < 0.01
    assert not shared_formulas(table, parts)
