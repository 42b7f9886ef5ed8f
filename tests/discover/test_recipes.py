"""Recipes: one candidate has one key, packs into tens of bytes and back, and becomes the atoms it says."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naica.discover.recipes import ORIGINS, Recipe, realise
from naica.discover.volume import guess_volume
from naica.errors import InputError
from naica.structure.crystal import Crystal

HASH = "0123456789abcdef0123456789abcdef"


def rocksalt(a: str = "Na", b: str = "Cl", length: float = 5.64) -> Crystal:
    return Crystal.from_fractional([a, b], [[0, 0, 0], [0.5] * 3], length / 2 * (1 - np.eye(3)))


def perovskite() -> Crystal:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal.from_fractional(["Sr", "Ti", "O", "O", "O"], sites, 3.905 * np.eye(3))


numbers = st.integers(1, 103)
matrices = st.lists(st.integers(-3, 4), min_size=9, max_size=9).filter(lambda m: round(np.linalg.det(np.reshape(m, (3, 3)))) > 0)
supercells = st.one_of(st.just([]), st.lists(st.integers(1, 5), min_size=3, max_size=3), matrices)
scales = st.one_of(st.just(1.0), st.floats(0.1, 10, allow_nan=False))
origins = st.one_of(st.sampled_from(ORIGINS), st.text(max_size=20))
crystal_recipes = st.builds(
    Recipe,
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.dictionaries(numbers, numbers, max_size=6).map(lambda m: tuple(m.items())),
    st.lists(st.integers(0, 500), max_size=12).map(tuple),
    supercells.map(tuple),
    scales,
    origins,
)
prototype_recipes = st.builds(
    lambda name, zs, cells, scale, origin: Recipe("prototype:" + name, tuple(enumerate(zs, 1)), (), tuple(cells), scale, origin),
    st.text(min_size=1, max_size=20),
    st.lists(numbers, min_size=1, max_size=5),
    supercells,
    scales,
    origins,
)
recipes = st.one_of(crystal_recipes, prototype_recipes)


@given(recipes)
def test_packing_round_trips(recipe: Recipe) -> None:
    data = recipe.pack()
    back = Recipe.unpack(data)
    assert back == recipe
    for part in ("parent", "species", "mask", "supercell", "scale", "origin", "key"):
        assert getattr(back, part) == getattr(recipe, part)
    assert back.pack() == data


@given(recipes, st.data())
def test_broken_bytes_are_refused(recipe: Recipe, data: st.DataObject) -> None:
    packed = recipe.pack()
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(InputError):
        Recipe.unpack(packed[:cut])
    with pytest.raises(InputError, match="left over"):
        Recipe.unpack(packed + b"\x00")


@given(st.binary(max_size=40))
def test_any_bytes_are_a_recipe_or_an_input_error(data: bytes) -> None:
    with contextlib.suppress(InputError):
        Recipe.unpack(data)


def test_recipes_take_tens_of_bytes() -> None:
    assert len(Recipe(HASH, ((11, 19), (17, 35)), origin="substitution").pack()) == 25
    assert len(Recipe(HASH, ((22, 40),), tuple(range(8, 40, 5)), (2, 2, 2), origin="saps").pack()) <= 32
    assert len(Recipe("prototype:spinel", ((1, 12), (2, 13), (3, 8)), origin="prototype").pack()) == 18


def test_one_candidate_has_one_key() -> None:
    one = Recipe(HASH, ((11, 19), (17, 35)), (4, 2, 2), (2, 0, 0, 0, 1, 0, 0, 0, 1), 1, "saps")
    other = Recipe(HASH, ((17, 35), (11, 19), (8, 8)), (2, 4), (2, 1, 1), 1.0, "substitution")
    assert one == other
    assert hash(one) == hash(other)
    assert one.key == other.key
    assert Recipe(HASH, supercell=(1, 1, 1)).supercell == ()
    assert Recipe("prototype:x", ((1, 1),)).species == ((1, 1),)


@given(crystal_recipes, crystal_recipes)
def test_different_candidates_have_different_keys(a: Recipe, b: Recipe) -> None:
    same = (a.parent, a.species, a.mask, a.supercell, a.scale) == (b.parent, b.species, b.mask, b.supercell, b.scale)
    assert (a.key == b.key) == same == (a == b)


def test_key_is_the_same_in_every_process() -> None:
    """The literal guards stored ledgers: if this changes, old recipes lose their identity."""
    code = f"from naica.discover.recipes import Recipe; print(Recipe({HASH!r}, ((22, 40),), (1, 6), (2, 1, 1), 0.5, 'saps').key)"
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert keys == {Recipe(HASH, ((22, 40),), (1, 6), (2, 1, 1), 0.5).key}
    assert keys == {"3fe0ac170918ca41"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"parent": "abc"}, "parent 'abc'"),
        ({"parent": "prototype:"}, "parent"),
        ({"parent": HASH, "species": ((0, 3),)}, "outside 1 to 103"),
        ({"parent": HASH, "species": ((3, 4), (3, 5))}, "one species to two"),
        ({"parent": "prototype:spinel", "species": ((1, 12), (3, 8))}, "without gaps"),
        ({"parent": "prototype:spinel", "species": ((1, 12),), "mask": (1,)}, "masks are for crystal"),
        ({"parent": HASH, "mask": (-1,)}, "mask sites"),
        ({"parent": HASH, "supercell": (2, 2)}, "supercell"),
        ({"parent": HASH, "supercell": (0, 1, 1)}, "no positive volume"),
        ({"parent": HASH, "supercell": (-1, -1, 1)}, "no positive volume"),
        ({"parent": HASH, "scale": 0.0}, "scale"),
        ({"parent": HASH, "scale": float("nan")}, "scale"),
    ],
)
def test_malformed_parts_are_refused(parts: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**parts)


def test_nothing_changed_gives_the_parent_back() -> None:
    parent = perovskite()
    again = realise(Recipe(parent.hash), {parent.hash: parent})
    assert again == parent
    assert again.info == {"recipe": Recipe(parent.hash).key, "parent": parent.hash, "origin": ""}
    doubled = realise(Recipe(parent.hash, supercell=(2, 1, 1), scale=1.1), {parent.hash: parent})
    assert doubled.volume == pytest.approx(2.2 * parent.volume)


def test_substitution_follows_the_radii() -> None:
    parent = rocksalt()
    made = {z: realise(Recipe(parent.hash, ((11, z),)), {parent.hash: parent}) for z in (3, 19, 37)}
    assert [c.formula for c in made.values()] == ["LiCl", "KCl", "RbCl"]
    # experiment: 5.13, 6.29, 6.58 Å
    lengths = [(4 * c.volume) ** (1 / 3) for c in made.values()]
    assert lengths == pytest.approx([5.13, 6.29, 6.58], rel=0.03)
    # half of the atoms replaced: the parent's residual counts with the power 1 − ½ √½
    ratio = guess_volume(parent.replace(numbers=[19, 17])) / guess_volume(parent) ** (1 - 0.5**1.5)
    assert made[19].volume == pytest.approx(parent.volume * ratio)


def test_mask_and_supercell_pick_sites() -> None:
    parent = perovskite()
    big = parent.supercell((2, 1, 1))
    made = realise(Recipe(parent.hash, ((22, 40), (38, 56)), (1, 5), (2, 1, 1)), {parent.hash: parent})
    changed = np.flatnonzero(made.numbers != big.numbers)
    assert changed.tolist() == [1, 5]
    assert made.numbers[[1, 5]].tolist() == [40, 56]
    np.testing.assert_allclose(made.fractional, big.fractional, atol=1e-12)


def test_matrix_supercell() -> None:
    parent = rocksalt()
    recipe = Recipe(parent.hash, ((11, 19),), (0,), (1, 0, 1, 0, 1, 1, 0, 0, 2))
    made = realise(recipe, {parent.hash: parent})
    assert recipe.n_cells == 2
    assert made.composition == {"K": 1, "Na": 1, "Cl": 2}


def test_prototype_recipe_takes_labels_in_order() -> None:
    from naica.structure.prototypes import prototype

    spinel = prototype("spinel")
    made = realise(Recipe("prototype:spinel", tuple((k, {"A": 12, "B": 13, "C": 8}[a]) for k, a in enumerate(spinel.labels, 1))), {})
    example = realise(Recipe("prototype:spinel", tuple((k, z) for k, z in enumerate(_numbers(spinel.elements), 1))), {})
    assert example == spinel.crystal()
    assert made.composition["O"] == 8
    assert made.info["parent"] == "prototype:spinel"
    chrome = realise(Recipe("prototype:spinel", tuple((k, {"A": 30, "B": 24, "C": 8}[a]) for k, a in enumerate(spinel.labels, 1))), {})
    # ZnCr2O4, a = 8.33 Å by experiment
    assert (4 * chrome.volume) ** (1 / 3) == pytest.approx(8.33, rel=0.02)
    with pytest.raises(InputError, match="as many, all different"):
        realise(Recipe("prototype:spinel", ((1, 12), (2, 8))), {})
    with pytest.raises(InputError, match="as many, all different"):
        realise(Recipe("prototype:spinel", ((1, 12), (2, 12), (3, 8))), {})


def _numbers(symbols: tuple[str, ...]) -> list[int]:
    from naica.structure.elements import element

    return [element(s).number for s in symbols]


def test_molecules_keep_their_lengths() -> None:
    oxygen = Crystal(["O", "O"], [[0, 0, 0], [0, 0, 1.2]])
    made = realise(Recipe(oxygen.hash, ((8, 16),)), {oxygen.hash: oxygen})
    np.testing.assert_array_equal(made.positions, oxygen.positions)
    with pytest.raises(InputError, match="expected scale 1"):
        realise(Recipe(oxygen.hash, scale=1.1), {oxygen.hash: oxygen})


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(HASH), "not among the 1 given"),
        (Recipe(perovskite().hash, ((26, 40),)), "replaces"),
        (Recipe(perovskite().hash, ((22, 40),), (0,)), "replaces"),
        (Recipe(perovskite().hash, ((22, 40),), (0, 1)), "replaces"),
        (Recipe(perovskite().hash, ((22, 40),), (1, 7)), "site 7 of a cell of 5"),
    ],
)
def test_recipes_that_do_not_fit_their_parent_are_refused(recipe: Recipe, message: str) -> None:
    parent = perovskite()
    with pytest.raises(InputError, match=message):
        realise(recipe, {parent.hash: parent})
