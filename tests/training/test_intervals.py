"""Intervals with a promise: what the card keeps, what they hold, and when there are none."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.training import Prediction, load
from naica.training.calibration import calibrate, class_calibration, half_width, kept_ranks, least_labels
from naica.training.card import FORMAT, Calibration, parse_card
from naica.training.evaluation import evaluate

from .test_calibration_and_evaluation import ensemble_of


@settings(deadline=None)
@given(st.integers(1, 3000))
def test_kept_ranks_hold_the_largest_and_the_tail(n):
    ranks = kept_ranks(n)
    assert ranks[-1] == n
    assert ranks[0] >= 1
    assert len(ranks) == min(n, 200)
    assert (np.diff(ranks) > 0).all()
    assert set(range(max(1, n - 99), n + 1)) <= set(ranks.tolist())


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 900), st.floats(0.05, 0.99), st.integers(0, 10**6))
def test_the_half_width_is_the_conformal_rank_or_the_next_one_kept(n, confidence, seed):
    values, actual = ensemble_of(n, np.full(n, 0.3), seed, members=4)
    found = calibrate(values, actual)
    plain = Calibration(found.factor, found.floor, n)
    from naica.training.calibration import sigma

    scores = np.sort(np.abs(np.median(values, axis=0) - actual) / sigma(values, plain))
    rank = int(np.ceil((n + 1) * confidence - 1e-9))
    width = half_width(found, confidence)
    if rank > n:
        assert width == np.inf
        return
    assert width >= scores[rank - 1]
    # what thinning costs: at most one hundredth of the labels
    assert width <= scores[min(n, rank + int(np.ceil(n / 100))) - 1]


def test_the_promise_is_kept_on_average_over_calibrations():
    """For exchangeable labels coverage over many draws is at least the promise, and not much more."""
    draw, inside = np.random.default_rng(0), []
    for _ in range(2000):
        scores = np.sort(np.abs(draw.standard_t(2, size=30)))
        width = half_width(Calibration(1.0, 1.0, 29, tuple(np.sort(scores[draw.permutation(30)[1:]]))), 0.9)
        inside.append(np.abs(draw.standard_t(2)) <= width)
    assert 0.88 < np.mean(inside) < 0.925


@pytest.mark.parametrize(("n", "confidence", "finite"), [(8, 0.9, False), (9, 0.9, True), (18, 0.95, False), (19, 0.95, True)])
def test_too_few_labels_make_no_finite_interval(n, confidence, finite):
    values, actual = ensemble_of(n, np.full(n, 0.3), 3)
    assert np.isfinite(half_width(calibrate(values, actual), confidence)) is np.bool_(finite)
    assert (least_labels(confidence) <= n) is finite


def test_unknown_scores_are_refused():
    with pytest.raises(InputError, match="no scores to make an interval"):
        half_width(Calibration(1.0, 0.2, 50), 0.9)
    with pytest.raises(InputError, match=r"confidence 1\.2"):
        half_width(Calibration(1.0, 0.2, 1, (1.0,)), 1.2)


def test_bars_of_zero_leave_no_scores():
    actual = np.arange(20.0)
    assert calibrate(np.tile(actual, (3, 1)), actual).scores == ()


# --- through a trained ensemble ----------------------------------------------------------------------------------------------------
def test_a_prediction_has_intervals(trained, table, parts):
    found = trained.predict(table.take(parts.test))
    assert found.calibration.n == len(found.calibration.scores) == 15
    low, high = found.interval(0.9)
    assert np.allclose((low + high) / 2, found.value)
    assert np.allclose(high - low, 2 * half_width(trained.card.calibration, 0.9) * found.sigma)
    inner, outer = found.interval(0.5)[1], found.interval(0.93)[1]
    assert (inner <= high).all()
    assert (high <= outer).all()
    row = found.to_dicts(0.9)[0]
    assert row["low"] == low[0]
    assert "low" not in found.to_dicts()[0]
    assert np.array_equal(Prediction.concat([found, found]).interval(0.9)[0], np.tile(low, 2))


def test_infinite_ends_are_none_in_json(trained, table):
    found = trained.predict(table.take([0]))
    assert np.isinf(found.interval(0.99)[1]).all()
    row = json.loads(json.dumps(found.to_dicts(0.99)[0], allow_nan=False))
    assert row["low"] is None
    assert row["high"] is None


def test_classes_have_no_interval(trained, table):
    found = replace(trained.predict(table.take([0])), kind="class")
    with pytest.raises(InputError, match="is a class"):
        found.interval()


def test_intervals_survive_the_disk(trained, table, tmp_path):
    again = load(trained.save(tmp_path / "m"))
    assert again.card.calibration == trained.card.calibration
    assert np.array_equal(again.predict(table).interval(0.9), trained.predict(table).interval(0.9))


def test_evaluation_measures_their_coverage(trained, table, parts):
    found = evaluate(trained, table, "e", parts.test)
    low, high = trained.predict(table.take(parts.test)).interval(0.9)
    actual = table.column("e")[parts.test]
    told = {one.confidence: one for one in found.covered()}
    assert told[0.9].inside == int(((actual >= low) & (actual <= high)).sum())
    assert told[0.9].n == 15
    assert told[0.9].half_width == pytest.approx(np.median(high - low) / 2)
    assert told[0.95].half_width is None  # 15 labels cannot promise 95 %
    assert told[0.95].inside == 15
    assert found.to_dict()["intervals"][1]["inside"] == told[0.9].inside
    assert [one["confidence"] for one in trained.card.metrics["test"]["intervals"]] == [0.68, 0.9, 0.95]
    assert "intervals" not in trained.card.metrics["val"]  # they were made there


def test_on_their_own_labels_they_hold_what_they_promise(trained, table, parts):
    one = evaluate(trained, table, "e", parts.val).covered([0.8])[0]
    assert one.inside == int(np.ceil(16 * 0.8))


def test_cards_of_format_2_load_without_intervals(trained):
    raw = json.loads(trained.card.to_json())
    assert raw["format"] == FORMAT == 3
    old = {**raw, "format": 2, "calibration": {k: raw["calibration"][k] for k in ("factor", "floor", "n")}}
    card = parse_card(old, "card.json")
    assert card.format == 3
    assert card.calibration.scores == ()
    assert card.calibration.factor == trained.card.calibration.factor
    assert asdict(parse_card(raw, "card.json").calibration) == asdict(trained.card.calibration)


def test_the_shipped_model_still_loads():
    ensemble = load("formation-energy")
    assert ensemble.card.format == FORMAT
    assert ensemble.card.calibration.n > 0


def test_labels_that_differ_by_rounding_have_no_r2():
    from naica.training.evaluation import r_squared

    same = np.full(7, 0.1) * np.array([1, 1, 1, 1, 1, 1, 1 + 4e-16])
    assert r_squared(same + 1, same) is None
    assert r_squared(np.ones(3), np.zeros(3)) is None
    assert r_squared(np.array([1.0]), np.array([2.0])) is None
    far = -1e6 + np.array([0.0, 1.0, 2.0])  # total energies: small differences that are real
    assert r_squared(far, far) == 1.0
    assert r_squared(np.full(3, far.mean()), far) == pytest.approx(0.0)


# --- classes ----------------------------------------------------------------------------------------------------------------------------
def test_calibration_of_probabilities():
    draw = np.random.default_rng(0)
    p = draw.uniform(size=20_000)
    actual = (draw.uniform(size=20_000) < p).astype(float)
    assert class_calibration(p, actual) < 0.02
    assert class_calibration(np.ones(100), np.zeros(100)) == 1.0
    sure = np.where(p > 0.5, 1.0, 0.0)  # 3 of 4 right, always sure
    assert class_calibration(sure, actual, bins=2) == pytest.approx(0.25, abs=0.02)
