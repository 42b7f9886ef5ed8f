import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import magnesium, perovskite, rock_salt, spinel

from naica.errors import InputError
from naica.structure.elements import table
from naica.structure.oxidation import decorate, guess_oxidation, is_balanced, species


@pytest.mark.parametrize(
    ("formula", "states"),
    [
        ("NaCl", {"Na": 1, "Cl": -1}),
        ("MgAl2O4", {"Mg": 2, "Al": 3, "O": -2}),
        ("LiFePO4", {"Li": 1, "Fe": 2, "P": 5, "O": -2}),
        ("Fe2O3", {"Fe": 3, "O": -2}),
        ("FeTiO3", {"Fe": 2, "Ti": 4, "O": -2}),
        ("Ca3(PO4)2", {"Ca": 2, "P": 5, "O": -2}),
        ("PbSO4", {"Pb": 2, "S": 6, "O": -2}),
        ("CsPbI3", {"Cs": 1, "Pb": 2, "I": -1}),
        ("GaAs", {"Ga": 3, "As": -3}),
        ("Mn2O3", {"Mn": 3, "O": -2}),  # not among the common states, but in ICSD
        ("FeS2", {"Fe": 2, "S": -1}),  # pyrite
        ("BaO2", {"Ba": 2, "O": -1}),  # peroxide
        ("NH4NO3", {"H": 1, "N": 1, "O": -2}),  # −3 and +5 on average; hydrogen is not −1
        ("Li", {"Li": 0}),
        ("O2", {"O": 0}),
    ],
)
def test_known_compounds(formula, states):
    assert guess_oxidation(formula) == states
    assert is_balanced(formula)
    assert is_balanced(formula, mixed=False)


@pytest.mark.parametrize(
    ("formula", "element", "average"),
    [("Fe3O4", "Fe", 8 / 3), ("Mn3O4", "Mn", 8 / 3), ("Pb3O4", "Pb", 8 / 3), ("LiMn2O4", "Mn", 3.5), ("YBa2Cu3O7", "Cu", 7 / 3)],
)
def test_mixed_valence_is_a_fraction(formula, element, average):
    assert guess_oxidation(formula)[element] == pytest.approx(average)
    assert is_balanced(formula)
    assert not is_balanced(formula, mixed=False)


@pytest.mark.parametrize("formula", ["MgAl", "Cu3Au", "CsAu", "Li15Si4", "NaCl2", "HeNe", "KO2"])
def test_what_cannot_be_balanced_gives_none(formula):
    assert guess_oxidation(formula) is None
    assert not is_balanced(formula)


SYMBOLS = st.sampled_from([e.symbol for e in table() if e.oxidation_states])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(SYMBOLS, st.integers(1, 6), min_size=2, max_size=5))
def test_every_guess_is_balanced_and_does_not_depend_on_order(counts):
    guess = guess_oxidation(counts)
    assert guess_oxidation(dict(reversed(counts.items()))) == guess
    assert guess_oxidation({s: 3 * n for s, n in counts.items()}) == guess
    if guess is not None:
        assert sum(guess[s] * n for s, n in counts.items()) == pytest.approx(0, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(SYMBOLS, st.integers(1, 4), min_size=2, max_size=3))
def test_a_compound_of_common_states_is_always_found(counts):
    elements = {e.symbol: e for e in table()}
    sums = itertools.product(*[[q * n for q in elements[s].oxidation_states if q] for s, n in counts.items()])
    if any(sum(s) == 0 for s in sums) and not all(elements[s].is_metal for s in counts):
        assert guess_oxidation(counts) is not None


def test_amounts_that_are_no_formula():
    with pytest.raises(InputError):
        guess_oxidation("Na?Cl")
    with pytest.raises(InputError, match="unknown element"):
        guess_oxidation("QzO2")


def test_fractions_of_a_formula_are_the_formula():
    assert guess_oxidation({"Fe": 3 / 7, "O": 4 / 7}) == guess_oxidation("Fe3O4")


def test_spelling_is_that_of_pymatgen():
    from pymatgen.core import Species

    for symbol, state in (("Na", 1), ("O", -2), ("Cl", -1), ("Al", 3), ("Fe", 0)):
        assert species(symbol, state) == str(Species(symbol, state))


def test_sites_of_simple_compounds():
    assert decorate(rock_salt()) == ["Na+", "Cl-"]
    assert decorate(perovskite()) == ["Sr2+", "Ti4+", "O2-", "O2-", "O2-"]
    assert decorate(magnesium()) == ["Mg0+", "Mg0+"]
    assert decorate(rock_salt(cation=12, anion=13)) is None


def test_sites_of_mixed_valence_balance_and_follow_the_bonds():
    magnetite = spinel(a=8.39, tetrahedral=26, octahedral=26)
    states = decorate(magnetite)
    assert Counter(states) == {"Fe2+": 2, "Fe3+": 4, "O2-": 8}
    assert decorate(magnetite) == states


def test_short_bonds_get_the_higher_state():
    # BaBiO3 with breathing octahedra: Bi 3+ (long bonds) and Bi 5+ (short bonds) average to 4
    cube = perovskite(4.35).supercell([2, 2, 2])
    numbers, positions = cube.numbers.copy(), cube.positions.copy()
    numbers[numbers == 38], numbers[numbers == 22] = 56, 83
    bismuth = np.flatnonzero(numbers == 83)
    odd = [int(i) for i in bismuth if round(float((positions[i] / 4.35 - 0.5).sum())) % 2]
    for k in np.flatnonzero(numbers == 8):
        vectors = positions[odd] - positions[k]
        vectors -= np.round(vectors / 8.7) * 8.7
        nearest = vectors[np.linalg.norm(vectors, axis=1).argmin()]
        positions[k] += 0.1 * nearest / np.linalg.norm(nearest)
    states = decorate(cube.replace(numbers=numbers, positions=positions))
    assert [int(i) for i in bismuth if states[i] == "Bi5+"] == odd
    assert Counter(states)["Bi3+"] == 4


def test_a_cell_too_small_for_both_states_cannot_be_decorated():
    # BaBiO3 with one Bi per cell averages 4, but Bi has no state 4: it would need half an atom of each
    assert decorate(perovskite().replace(numbers=[56, 83, 8, 8, 8])) is None
    assert guess_oxidation("BaBiO3")["Bi"] == 4
