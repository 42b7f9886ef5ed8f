import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.insight.intervals import clopper_pearson, nested_enrichment
from naica.insight.rules import conditions, judge, mine, written
from naica.structure.elements import element

ELEMENTS = [
    "Li",
    "Na",
    "K",
    "Mg",
    "Ca",
    "Sr",
    "Sc",
    "Y",
    "Ti",
    "Zr",
    "V",
    "Nb",
    "Cr",
    "Mo",
    "Fe",
    "Cu",
    "Zn",
    "Al",
    "Ga",
    "In",
    "Si",
    "Ge",
    "Sn",
]


def rows(n, seed):
    rng = np.random.default_rng(seed)
    return {site: rng.choice(ELEMENTS, n).astype(str) for site in "AB"}, rng


def test_a_planted_rule_is_found_in_words():
    kinds, rng = rows(20_000, 0)
    inside = written({"A": "groups 1-2", "B": "groups 4-6"}, ELEMENTS).holds(kinds)
    hit = rng.random(20_000) < np.where(inside, 0.5, 0.01)
    found = mine(kinds, hit)
    # a part of the planted rule may score as well by luck; nothing outside of it can
    assert "A in groups 1–2, B in groups 4–" in str(found.best.rule)
    assert not (found.best.rule.holds(kinds) & ~inside).any()
    assert found.best.size >= inside.sum() / 2
    assert found.tried > 1000
    fresh, rng = rows(20_000, 1)
    told = judge(
        found.best.rule,
        fresh,
        rng.random(20_000) < np.where(written({"A": "groups 1-2", "B": "groups 4-6"}, ELEMENTS).holds(fresh), 0.5, 0.01),
    )
    assert told.enrichment.low > 2


@pytest.mark.parametrize("seed", range(5))
def test_chance_makes_no_rule(seed):
    """Among a million rules some look good by luck; the corrected bound keeps them out."""
    kinds, rng = rows(3000, seed)
    found = mine(kinds, rng.random(3000) < 0.05)
    assert str(found.best.rule) == "anything"


def test_a_ranking_may_be_asked_for():
    kinds, rng = rows(6000, 2)
    hit = rng.random(6000) < np.where(np.isin(kinds["A"], ["Li", "Fe", "Sn"]), 0.4, 0.01)
    assert "B" not in str(mine(kinds, hit).best.rule)
    found = mine(kinds, hit, {"A": ["Sn", "Li", "Fe", "Cu", *[e for e in ELEMENTS if e not in ("Sn", "Li", "Fe", "Cu")]]})
    assert found.best.rule.conditions["A"].elements == {"Li", "Fe", "Sn"}
    assert "3 elements with the lowest contribution" in str(found.best.rule)


@given(st.integers(0, 10_000), st.floats(0.02, 0.5))
@settings(max_examples=15, deadline=None)
def test_the_matrix_products_count_what_rows_count(seed, share):
    """The reported best is judged row by row; no other pair of simple conditions beats its score."""
    kinds, rng = rows(400, seed)
    hit = rng.random(400) < share
    hit[0] = True
    found = mine(kinds, hit, min_share=0.05, price=0.1)
    for judged, score in zip(found.by_facts, found.scores, strict=True):
        holds = judged.rule.holds(kinds)
        assert (judged.size, judged.hits) == (holds.sum(), hit[holds].sum())
        low = clopper_pearson(judged.hits, judged.size, 1 - 2 * found.level).low
        expected = np.log(low / hit.mean()) - 0.1 * judged.rule.facts if low else -np.inf
        assert score == pytest.approx(expected, rel=1e-6)
    assert found.best == found.by_facts[int(np.argmax(found.scores))]


def test_conditions_mean_different_elements_and_ask_least():
    offered = conditions(ELEMENTS)
    assert len({c.elements for c in offered}) == len(offered)
    assert next(c for c in offered if c.elements == frozenset(ELEMENTS)).facts == 0
    alkali = next(c for c in offered if c.elements == {"Li", "Na", "K"})
    assert alkali.words == "in group 1"
    assert all(element(e).group == 1 for e in alkali.elements)


def test_rules_in_words():
    rule = written({"A": "groups 13-15 periods 5-6", "B": "group 4"}, ELEMENTS)
    assert str(rule) == "A in groups 13–15 and periods 5–6, B in group 4"
    assert rule.conditions["A"].elements == {"In", "Sn"}
    assert written({"A": "block d", "B": "elements Sr,Ca"}, ELEMENTS).conditions["B"].elements == {"Sr", "Ca"}
    for wrong in ("grops 1-2", "groups", "groups a-b", "", "block q"):
        with pytest.raises(InputError, match="cannot read the condition"):
            written({"A": wrong}, ELEMENTS)
    with pytest.raises(InputError, match="none of the elements there are"):
        written({"A": "group 18"}, ELEMENTS)


def test_what_cannot_be_searched_is_refused():
    kinds, _ = rows(100, 0)
    with pytest.raises(InputError, match="none of the 100 rows"):
        mine(kinds, np.zeros(100, bool))
    with pytest.raises(InputError, match="two kinds of site"):
        mine({"A": kinds["A"]}, np.ones(100, bool))
    with pytest.raises(InputError, match="no rule covers"):
        mine(kinds, np.ones(100, bool), min_share=2.0)


# --- part and whole ------------------------------------------------------------------------------------------------------------------
counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, counts)
@settings(max_examples=60, deadline=None)
def test_nested_enrichment_holds_its_value_within_what_is_possible(part, rest):
    (hits, n), (others, m) = part, rest
    found = nested_enrichment(hits, n, hits + others, n + m)
    assert 0 <= found.low <= found.value <= found.high <= (n + m) / n + 1e-9
    if hits + others:
        assert found.value == pytest.approx((hits / n) * (n + m) / (hits + others))


def test_nested_enrichment_covers_what_it_promises():
    rng = np.random.default_rng(0)
    part, whole, rate, rest = 60, 600, 0.3, 0.05
    true = rate / (0.1 * rate + 0.9 * rest)
    held = 0
    for _ in range(150):
        hits, others = rng.binomial(part, rate), rng.binomial(whole - part, rest)
        found = nested_enrichment(hits, part, hits + others, whole)
        held += found.low <= true <= found.high
    assert held / 150 > 0.89


def test_nested_enrichment_knows_the_ends():
    assert nested_enrichment(0, 0, 3, 10) is None
    assert nested_enrichment(3, 10, 3, 10).value == 1
    with pytest.raises(InputError, match="no part of"):
        nested_enrichment(5, 10, 3, 20)
