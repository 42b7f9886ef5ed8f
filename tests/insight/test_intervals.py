import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from naica.errors import InputError
from naica.insight.intervals import clopper_pearson, enrichment, wilson

trials = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_known_values():
    """Newcombe, Stat. Med. 17, 857 (1998), Table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]:
        found = wilson(hits, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    for hits, n, low, high in [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)]:
        found = clopper_pearson(hits, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(trials, st.floats(0.5, 0.99))
def test_intervals_hold_their_value_and_grow_with_confidence(case, confidence):
    hits, n = case
    for interval in (wilson, clopper_pearson):
        found = interval(hits, n, confidence)
        assert 0 <= found.low <= hits / n <= found.high <= 1
        wider = interval(hits, n, 0.995)
        assert wider.low <= found.low + 1e-12
        assert wider.high >= found.high - 1e-12


@given(trials)
def test_hits_and_misses_are_mirror_images(case):
    hits, n = case
    for interval in (wilson, clopper_pearson):
        found, mirrored = interval(hits, n), interval(n - hits, n)
        assert found.low == pytest.approx(1 - mirrored.high, abs=1e-9)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.33, 0.5])
@pytest.mark.parametrize("n", [5, 20, 60])
def test_clopper_pearson_never_covers_less_than_promised(n, share):
    inside = sum(binom.pmf(k, n, share) for k in range(n + 1) if clopper_pearson(k, n).low <= share <= clopper_pearson(k, n).high)
    assert inside >= 0.95


def test_wilson_covers_what_it_says_on_average():
    n = 30
    found = [wilson(k, n) for k in range(n + 1)]
    shares = np.linspace(0.02, 0.98, 97)
    inside = [sum(binom.pmf(k, n, p) for k in range(n + 1) if found[k].low <= p <= found[k].high) for p in shares]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)


def test_no_trials():
    assert wilson(0, 0).low == clopper_pearson(0, 0).low == 0
    assert wilson(0, 0).high == 1
    assert np.isnan(wilson(0, 0).value)
    assert enrichment(0, 0, 3, 10) is None
    assert enrichment(3, 10, 0, 0) is None


@pytest.mark.parametrize("counts", [(3, 2), (-1, 5), (1, -1)])
def test_impossible_counts(counts):
    with pytest.raises(InputError, match="impossible"):
        wilson(*counts)
    with pytest.raises(InputError, match="impossible"):
        enrichment(1, 2, *counts)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_confidence_out_of_range(confidence):
    with pytest.raises(InputError, match="between 0 and 1"):
        clopper_pearson(1, 2, confidence)


def test_enrichment_of_the_perovskite_rule():
    """33 of 378 in the rule's set against 228 of 18,928 overall: 7.25 times (Xie & Grossman 2018)."""
    found = enrichment(33, 378, 228, 18928)
    assert found.value == pytest.approx(7.25, abs=0.01)
    # Katz's logarithmic interval, good at these counts
    spread = 1.96 * np.sqrt(1 / 33 - 1 / 378 + 1 / 228 - 1 / 18928)
    assert found.low == pytest.approx(found.value * np.exp(-spread), rel=0.03)
    assert found.high == pytest.approx(found.value * np.exp(spread), rel=0.03)


def test_enrichment_covers_close_to_what_it_says():
    n, m, p, q = 12, 8, 0.6, 0.2
    inside = 0.0
    for k in range(n + 1):
        for j in range(m + 1):
            found = enrichment(k, n, j, m)
            if found.low <= p / q <= found.high:
                inside += binom.pmf(k, n, p) * binom.pmf(j, m, q)
    assert 0.92 <= inside <= 0.99


def test_enrichment_without_hits():
    none = enrichment(5, 10, 0, 10)
    assert np.isfinite(none.value)
    assert 1 < none.low < none.value < none.high < np.inf
    lost = enrichment(0, 10, 5, 10)
    assert lost.value == lost.low == 0
    assert 0 < lost.high < 1
    assert enrichment(0, 10, 0, 10).low == 0
    assert set(none.to_dict()) == {"value", "low", "high"}
