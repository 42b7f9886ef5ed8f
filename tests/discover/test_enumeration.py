"""Prototype enumeration: everything once, nothing unchemical, always in the same order."""

from itertools import permutations
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.discover.enumeration import is_allowed, prototype_recipes
from naica.discover.recipes import Recipe, realise
from naica.errors import InputError
from naica.structure.elements import element, symbol
from naica.structure.prototypes import LABELS, PROTOTYPES, prototype

SYMBOLS = [
    "Li",
    "Na",
    "K",
    "Mg",
    "Ca",
    "Al",
    "Si",
    "Ti",
    "V",
    "Fe",
    "Cu",
    "Zn",
    "Zr",
    "Sn",
    "La",
    "N",
    "O",
    "F",
    "P",
    "S",
    "Cl",
    "Se",
    "Te",
]


def _named(recipe: Recipe) -> tuple[str, tuple[str, ...]]:
    return recipe.name, tuple(symbol(z) for _, z in recipe.species)


def test_magnesium_aluminium_oxygen_holds_spinel() -> None:
    found = [_named(r) for r in prototype_recipes(["Mg", "Al", "O"], n_elements=(3,))]
    assert ("spinel", ("Mg", "Al", "O")) in found
    assert ("spinel-inverse", ("Mg", "Al", "O")) in found
    assert ("spinel", ("Al", "Mg", "O")) not in found  # AlMg2O4 has no balanced charges
    assert ("perovskite", ("Mg", "Al", "O")) not in found
    binaries = [_named(r) for r in prototype_recipes(["Mg", "Al", "O"], n_elements=(2,))]
    assert ("rocksalt", ("Mg", "O")) in binaries
    assert ("corundum", ("Al", "O")) in binaries
    assert not any({"Mg", "Al"} == set(elements) for _, elements in binaries)


def test_recipes_become_crystals() -> None:
    for recipe in prototype_recipes(["Mg", "Al", "O"], n_elements=(3,), max_atoms=14):
        crystal = realise(recipe, {})
        assert len(crystal) == prototype(recipe.name).n_atoms <= 14
        assert crystal.chemical_system == "Al-Mg-O"
        assert crystal.min_distance() > 1.4
        assert crystal.info["origin"] == "prototype"


def test_known_compounds_are_enumerated() -> None:
    """The example of every ionic prototype without mixed valence is among the balanced decorations of its own elements."""
    mixed_valence = {"YBCO-123"}
    for name, entry in PROTOTYPES.items():
        if entry.charges is None or name in mixed_valence:
            continue
        decorations = [elements for _, elements in map(_named, prototype_recipes(entry.elements, [len(entry.elements)], prototypes=[name]))]
        ways = {entry.elements, *(tuple(entry.elements[LABELS.index(k)] for k in way) for way in entry.equivalent)}
        assert ways & set(decorations), name


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(SYMBOLS), min_size=2, max_size=4, unique=True),
    st.sets(st.integers(1, 4), min_size=1),
    st.booleans(),
)
def test_laws(elements: list[str], sizes: set[int], balanced: bool) -> None:
    found = list(prototype_recipes(elements, sorted(sizes), balanced=balanced))
    assert len({r.key for r in found}) == len(found)
    assert found == list(prototype_recipes(reversed(elements), sorted(sizes, reverse=True), balanced=balanced))
    for recipe in found:
        entry = prototype(recipe.name)
        numbers = [z for _, z in recipe.species]
        assert len(numbers) == len(set(numbers)) == len(entry.elements)
        assert len(numbers) in sizes
        assert {symbol(z) for z in numbers} <= set(elements)
        assert Recipe.unpack(recipe.pack()) == recipe
        if balanced and len(numbers) > 1:
            assert is_allowed(entry, numbers)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["rocksalt", "fluorite", "half-heusler", "quaternary-heusler", "spinel", "perovskite", "kesterite"]))
def test_every_structure_is_there_exactly_once(name: str) -> None:
    """Unbalanced: the orders of the labels fall into classes of the equivalent ones; each class has exactly one recipe."""
    entry = prototype(name)
    k = len(entry.elements)
    elements = SYMBOLS[: k + 1]
    found = [elements_ for _, elements_ in map(_named, prototype_recipes(elements, [k], balanced=False, prototypes=[name]))]
    orders = 1
    for n in range(2, k + 1):
        orders *= n
    assert len(found) == comb(k + 1, k) * orders // (1 + len(entry.equivalent))
    reached = set()
    for decoration in found:
        way = {decoration, *(tuple(decoration[LABELS.index(c)] for c in label) for label in entry.equivalent)}
        assert not way & reached
        reached |= way
    assert reached == set(permutations(elements, k))


def test_duals_are_told_apart_by_charge_only() -> None:
    balanced = {r.name for r in prototype_recipes(["Li", "O"], [2], prototypes=["fluorite", "antifluorite"])}
    assert balanced == {"antifluorite"}
    free = [_named(r) for r in prototype_recipes(["Li", "O"], [2], balanced=False, prototypes=["fluorite", "antifluorite"])]
    assert sorted(free) == [("fluorite", ("Li", "O")), ("fluorite", ("O", "Li"))]
    alone = [_named(r) for r in prototype_recipes(["Li", "O"], [2], balanced=False, prototypes=["antifluorite"])]
    assert len(alone) == 2


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("perovskite", "Sr Ti O"),
        ("perovskite", "Ca Ti O"),
        ("ilmenite", "Fe Ti O"),
        ("delafossite", "Cu Al O"),
        ("olivine-ordered", "Li Mn P O"),
    ],
)
def test_fitting_radii_come_first(name: str, elements: str) -> None:
    """Whatever keeps one decoration per formula and prototype keeps the sensible one."""
    first = next(prototype_recipes(elements.split(), [len(elements.split())], prototypes=[name]))
    assert _named(first)[1] == tuple(elements.split())


@pytest.mark.parametrize(
    ("name", "elements", "allowed"),
    [
        ("rocksalt", "Mg O", True),
        ("rocksalt", "O Mg", False),
        ("zincblende", "Si C", True),
        ("zincblende", "C Si", False),  # carbon is the more electronegative
        ("rutile", "Ti O", True),
        ("rutile", "Al O", False),
        ("pyrite", "Fe S", True),  # S⁻ in pairs
        ("pyrite", "Ni Se", True),
        ("perovskite", "Na Nb O", True),
        ("perovskite", "K Mg F", True),
        ("antiperovskite", "Sn O Ca", True),
        ("antiperovskite", "Ca Sn O", False),
        ("laves-C15", "Mg Cu", False),  # a metallic prototype has no charges
        ("fcc", "Al", True),
        ("calcite", "Ca C O", True),
        ("elpasolite", "K Na Al F", True),
    ],
)
def test_charge_rule(name: str, elements: str, allowed: bool) -> None:
    assert is_allowed(prototype(name), [element(s).number for s in elements.split()]) is allowed


def test_size_limit_and_whole_library() -> None:
    everything = {r.name for r in prototype_recipes(["Al", "O", "Mg", "Si"], (1, 2, 3, 4), balanced=False)}
    expected = {n for n, p in PROTOTYPES.items() if p.dual_of is None and not p.is_boxed_molecule}
    assert everything == expected
    small = {r.name for r in prototype_recipes(["Al", "O", "Mg", "Si"], (1, 2, 3, 4), balanced=False, max_atoms=8)}
    assert small == {n for n in expected if prototype(n).n_atoms <= 8}


def test_bad_input() -> None:
    with pytest.raises(InputError, match="sizes of subsystems"):
        prototype_recipes(["Mg", "O"], n_elements=(0, 2))
    with pytest.raises(InputError, match="sizes of subsystems"):
        prototype_recipes(["Mg", "O"], n_elements=())
    with pytest.raises(InputError, match="Xx"):
        prototype_recipes(["Mg", "Xx"])
    with pytest.raises(InputError, match="unknown prototype"):
        prototype_recipes(["Mg", "O"], prototypes=["nosuch"])
    assert list(prototype_recipes(["Mg"], n_elements=(2,))) == []
