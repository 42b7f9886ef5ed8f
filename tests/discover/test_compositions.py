"""The relaxed oxidation rule beside a plain search, the stream of formulas, and their ranking in bounded memory."""

from dataclasses import dataclass
from itertools import combinations, islice, pairwise, product
from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.discover.compositions import Formulas, OxidationRule, best_formulas, stand_in, stoichiometries
from naica.errors import InputError
from naica.structure.composition import parse_formula

STRICT = OxidationRule(relaxed=0, zero="none")
ONE = OxidationRule(relaxed=1, zero="none")


def test_li15si4_needs_one_element_between_two_states() -> None:
    # Li +1 leaves −3.75 for Si, between the −4 and −3 that SMACT lists
    smact = OxidationRule({"Li": (1,), "Si": (-4, -3, -2, -1, 1, 2, 3, 4)}, relaxed=1, zero="none")
    assert smact.accepts("Li15Si4")
    assert not OxidationRule({"Li": (1,), "Si": (-4, -3, 4)}, relaxed=0).accepts("Li15Si4")
    assert ONE.accepts("Li15Si4")
    assert not STRICT.accepts("Li15Si4")
    assert OxidationRule().accepts("Li15Si4")


@pytest.mark.parametrize(("formula", "strict"), [("NaCl", True), ("MgAl2O4", True), ("Fe3O4", False), ("CoAl", False)])
def test_strict_and_relaxed(formula: str, strict: bool) -> None:
    assert STRICT.accepts(formula) is strict
    assert OxidationRule().accepts(formula)


def test_refusals_say_why() -> None:
    assert "He" in OxidationRule().why_not("NaHe")
    assert "do not balance" in OxidationRule().why_not("NaO2")
    # with 0 for every element the rule refuses nothing that holds a cation and an anion
    assert OxidationRule(zero="all").accepts("NaO2")
    with pytest.raises(InputError, match="expected states"):
        OxidationRule(states="smact")  # type: ignore[arg-type]


def plain(rule: OxidationRule, counts: dict[str, int]) -> bool:
    """The rule by trying everything."""
    names = list(counts)
    for size in range(rule.relaxed + 1):
        for free in combinations(names, min(size, len(names))):
            fixed = [s for s in names if s not in free]
            for gaps in product(*(list(pairwise(rule.listed(s))) for s in free)):
                for states in product(*(rule.listed(s) for s in fixed)):
                    charge = -sum(counts[s] * q for s, q in zip(fixed, states, strict=True))
                    low = sum(counts[s] * a for s, (a, _) in zip(free, gaps, strict=True))
                    high = sum(counts[s] * b for s, (_, b) in zip(free, gaps, strict=True))
                    if low <= charge <= high:
                        return True
    return False


ELEMENTS = st.sampled_from(["Li", "Fe", "Mn", "Si", "O", "Cl", "P", "Al", "Cu", "N"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(ELEMENTS, min_size=2, max_size=4, unique=True), st.data(), st.integers(0, 3), st.sampled_from(["metals", "none", "all"]),
    st.sampled_from(["common", "icsd"]),
)  # fmt: skip
def test_the_arrays_say_what_a_plain_search_says(names: list[str], data: st.DataObject, relaxed: int, zero: str, states: str) -> None:
    rule = OxidationRule(states, relaxed, zero)  # type: ignore[arg-type]
    amounts = data.draw(st.lists(st.integers(1, 12), min_size=len(names), max_size=len(names)))
    assert bool(rule.accepted(names, np.array([amounts]))[0]) is plain(rule, dict(zip(names, amounts, strict=True)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7))
def test_stoichiometries_are_all_ratios_once(size: int, cap: int) -> None:
    found = [tuple(row) for row in stoichiometries(size, cap).tolist()]
    assert len(set(found)) == len(found)
    assert set(found) == {w for w in product(range(1, cap + 1), repeat=size) if gcd(*w) == 1}
    totals = [sum(row) for row in found]
    assert totals == sorted(totals)


def test_the_stream_is_lazy_and_counts_what_it_left_out() -> None:
    huge = Formulas(tuple("Li Na K Mg Ca Sr Ba Al Ga Si Ge Sn P As Sb O S Se F Cl Br I Ti Zr Hf V Nb Ta".split()), (4, 5))  # noqa: SIM905
    assert len(list(islice(huge, 10))) == 10
    some = Formulas(("Mg", "O", "He"), (2,), STRICT, known=frozenset({"MgO"}))
    assert list(some) == []
    assert some.counts["known"] == 1
    assert some.counts["no states: He"] == 1
    assert list(Formulas(("O", "Mg", "He"), (1, 2), STRICT)) == ["MgO"]


def test_stand_in_holds_the_formula_and_nothing_else() -> None:
    assert stand_in("Li15Si4").composition == parse_formula("Li15Si4")
    assert stand_in("Li15Si4").min_distance() == pytest.approx(3.0)


@dataclass
class Told:
    value: np.ndarray
    sigma: np.ndarray


class ByMagnesium:
    """A "model": the more Mg, the lower."""

    def predict(self, crystals: list) -> Told:
        value = np.array([-float((c.numbers == 12).mean()) for c in crystals])
        return Told(value, np.full(len(value), 0.1))


def test_ranking_keeps_the_best_however_it_is_cut() -> None:
    formulas = list(Formulas(("Mg", "Al", "O"), (2, 3), max_atoms=14))
    found = {
        chunk: best_formulas(iter(formulas), ByMagnesium(), lambda f, e: e + 0.5, keep=7, limit=0.1, chunk=chunk) for chunk in (5, 4096)
    }
    assert found[5] == found[4096]
    best = found[5]
    assert len(best) == 7
    assert [b.distance for b in best] == sorted(b.distance for b in best)
    energies = ByMagnesium().predict([stand_in(f) for f in formulas]).value
    assert best[0].distance == pytest.approx(energies.min() + 0.5)
