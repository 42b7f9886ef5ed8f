"""Recalibration: made-up campaigns whose truth is known, and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.discover.reliability import AS_PREDICTED, Past, Recalibration, recalibrate, scores_of
from naica.errors import InputError


def campaign(rng: np.random.Generator, n: int, shift: float, scale: float, round_: int = 1) -> Past:
    """Predictions whose bars are too small by `scale` and too hopeful by `shift` bars."""
    sigma = rng.uniform(0.02, 0.08, n)
    distance = rng.normal(0.05, 0.08, n)
    error = sigma * (shift + scale * rng.normal(size=n))
    value = rng.normal(-1, 0.5, n)
    return Past(value, sigma, distance, value + error, np.full(n, round_))


def joined(a: Past, b: Past) -> Past:
    return Past(*(np.concatenate([x, y]) for x, y in zip(vars(a).values(), vars(b).values(), strict=True)))


def test_coverage_and_probabilities_improve_with_results() -> None:
    rng = np.random.default_rng(0)
    past, new = campaign(rng, 60, 0.8, 2.0), campaign(rng, 2000, 0.8, 2.0, 2)
    reading = recalibrate(past, 0.0, 2)
    hits = new.hits(0.0)
    before = scores_of(new, [AS_PREDICTED] * len(new), hits, 0.0)
    after = scores_of(new, [reading] * len(new), hits, 0.0)
    assert before is not None
    assert after is not None
    # one bar should hold 68 %, two 95 %
    assert abs(after["coverage_1"] - 0.683) < 0.08 < abs(before["coverage_1"] - 0.683)
    assert abs(after["coverage_2"] - 0.954) < 0.05 < abs(before["coverage_2"] - 0.954)
    assert after["brier"] < before["brier"]
    assert after["calibration_error"] < 0.5 * before["calibration_error"]
    assert reading.n == 60
    assert reading.shift == pytest.approx(0.8, abs=0.5)
    assert reading.scale == pytest.approx(2.0, abs=0.5)


def test_a_model_that_is_right_stays_as_it_is() -> None:
    rng = np.random.default_rng(1)
    reading = recalibrate(campaign(rng, 400, 0.0, 1.0), 0.0, 2, "scale")
    assert reading.shift == pytest.approx(0.0, abs=0.12)
    assert reading.scale == pytest.approx(1.0, abs=0.1)


def test_few_results_change_nothing_and_some_change_little() -> None:
    rng = np.random.default_rng(2)
    assert recalibrate(campaign(rng, 11, 2.0, 3.0), 0.0, 2) == AS_PREDICTED
    found = {n: [recalibrate(campaign(np.random.default_rng(k), n, 1.0, 3.0), 0.0, 2, "scale") for k in range(20)] for n in (12, 500)}
    few, many = (np.mean([(r.shift, r.scale) for r in found[n]], axis=0) for n in (12, 500))
    assert 0.0 < few[0] < many[0] == pytest.approx(1.0, abs=0.1)
    assert 1.0 < few[1] < many[1] == pytest.approx(3.0, abs=0.2)


def test_one_blunder_does_not_widen_all_bars() -> None:
    past = campaign(np.random.default_rng(6), 40, 0.0, 1.0)
    past.actual[0] += 5.0
    assert recalibrate(past, 0.0, 2).scale < 1.4


def test_later_results_do_not_count_and_old_ones_fade() -> None:
    rng = np.random.default_rng(4)
    early, late = campaign(rng, 40, 2.0, 1.0, 1), campaign(rng, 40, 0.0, 1.0, 4)
    both = joined(early, late)
    assert recalibrate(both, 0.0, 4) == recalibrate(early, 0.0, 4)
    assert recalibrate(both, 0.0, 5, "scale").shift < 0.7 < recalibrate(early, 0.0, 2, "scale").shift


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(30, 120), st.floats(-1.5, 1.5), st.floats(0.3, 4))
def test_order_by_probability_and_range_are_kept(seed: int, n: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    reading = recalibrate(campaign(rng, n, shift, scale), 0.02, 2)
    distance = np.sort(rng.normal(0, 0.3, 50))
    p = reading.probability(distance, np.full(50, 0.05), 0.02)
    assert (p >= 0).all()
    assert (p <= 1).all()
    assert (np.diff(p) <= 1e-12).all()
    assert Recalibration.from_dict(reading.to_dict()) == reading


def test_what_was_not_predicted_has_no_probability() -> None:
    reading = Recalibration(0.5, 2.0, ((0.0, 0.0), (0.5, 0.3), (1.0, 1.0)), 40)
    assert np.isnan(reading.probability(np.array([np.nan]), np.array([np.nan]), 0.0)).all()
    assert Recalibration.from_dict(None) == AS_PREDICTED


def test_isotonic_map_mends_what_no_scale_can() -> None:
    # half of the probable ones fail whatever their bar: a class of compounds the model is blind to
    rng = np.random.default_rng(5)

    def blind(n: int, round_: int) -> Past:
        distance, sigma = rng.normal(0, 0.1, n), np.full(n, 0.03)
        label = distance + sigma * rng.normal(size=n) + np.where(rng.random(n) < 0.5, 0.5, 0.0)
        return Past(np.zeros(n), sigma, distance, label - distance, np.full(n, round_))

    past, new = blind(300, 1), blind(2000, 2)
    error = {m: scores_of(new, [recalibrate(past, 0.0, 2, m)] * len(new), new.hits(0.0), 0.0) for m in ("none", "scale", "isotonic")}
    assert all(error.values())
    assert error["isotonic"]["calibration_error"] < 0.5 * error["none"]["calibration_error"]  # type: ignore[index]
    assert error["isotonic"]["brier"] <= error["scale"]["brier"]  # type: ignore[index]


def test_unknown_method() -> None:
    with pytest.raises(InputError, match="'platt'"):
        recalibrate(campaign(np.random.default_rng(0), 20, 0, 1), 0.0, 2, "platt")  # type: ignore[arg-type]


def test_round_by_round_what_is_read_comes_true() -> None:
    # five rounds of a model that is too sure of itself, each read by the rounds before it; picks are those that look best
    rng = np.random.default_rng(7)
    rounds = []
    for number in range(1, 6):
        made = campaign(rng, 400, 0.5, 1.8, number)
        best = np.argsort(made.distance / made.sigma)[:60]
        rounds.append(Past(*(part[best] for part in vars(made).values())))
    past = rounds[0]
    for one in rounds[1:]:
        past = joined(past, one)
    readings = [recalibrate(past, 0.0, int(r)) for r in past.round]
    hits = past.hits(0.0)
    told, read = (scores_of(past, each, hits, 0.0) for each in ([AS_PREDICTED] * len(past), readings))
    assert told is not None
    assert read is not None
    assert readings[0] == AS_PREDICTED
    assert abs(read["coverage_1"] - 0.683) < abs(told["coverage_1"] - 0.683)
    assert abs(read["coverage_2"] - 0.954) < abs(told["coverage_2"] - 0.954)
    assert read["brier"] < told["brier"]
    assert read["calibration_error"] < told["calibration_error"]
