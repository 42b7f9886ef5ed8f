import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.data import Label
from naica.errors import InputError, LevelError
from naica.training.calibration import calibrate, coverage, ence, sigma, spread
from naica.training.card import Calibration
from naica.training.evaluation import evaluate, roc_auc

from .conftest import OTHER


def ensemble_of(n, noise, seed, members=5, factor=0.4):
    """Predictions whose errors are `noise` (n) wide and whose spread shows a part of it."""
    draw = np.random.default_rng(seed)
    actual = draw.normal(size=n)
    shared = actual + noise * draw.normal(size=n)
    return shared + factor * noise * draw.normal(size=(members, n)), actual


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.001, 10.0), st.integers(1, 7))
def test_error_bars_cover_68_percent_of_what_they_were_fitted_to(seed, size, members):
    noise = size * np.random.default_rng(seed).uniform(0.1, 2.0, 400)
    values, actual = ensemble_of(400, noise, seed, members)
    found = calibrate(values, actual)
    share = coverage(np.median(values, axis=0) - actual, sigma(values, found))
    assert 0.66 <= share <= 0.72
    assert found.n == 400


def test_error_bars_hold_on_new_data_and_follow_the_difficulty():
    noise = np.where(np.arange(4000) % 2 == 0, 0.05, 0.6)
    values, actual = ensemble_of(4000, noise, 1, members=8, factor=0.8)
    found = calibrate(values[:, :2000], actual[:2000])
    bars = sigma(values[:, 2000:], found)
    errors = np.median(values[:, 2000:], axis=0) - actual[2000:]
    assert 0.64 < coverage(errors, bars) < 0.73
    hard = noise[2000:] > 0.1
    assert np.median(bars[hard]) > 3 * np.median(bars[~hard])


def test_with_few_labels_nothing_is_fitted():
    values, actual = ensemble_of(5, np.full(5, 0.1), 0)
    found = calibrate(values, actual)
    assert (found.factor, found.n) == (1.0, 5)
    assert found.floor == pytest.approx(np.abs(np.median(values, axis=0) - actual).mean())
    assert calibrate(values[:, :0], actual[:0]) == Calibration(1.0, 0.0, 0)


def test_one_member_has_no_spread():
    values, actual = ensemble_of(200, np.full(200, 0.3), 2, members=1)
    assert (spread(values) == 0).all()
    bars = sigma(values, calibrate(values, actual))
    assert np.ptp(bars) == 0
    assert bars[0] == pytest.approx(0.3, rel=0.25)


def test_ence_is_small_where_bars_are_right_and_large_where_not():
    draw = np.random.default_rng(0)
    bars = draw.uniform(0.1, 2, 20_000)
    errors = bars * draw.normal(size=20_000)
    assert ence(errors, bars) < 0.03
    assert ence(errors, 2 * bars) == pytest.approx(0.5, abs=0.03)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_roc_auc_is_the_share_of_pairs_in_order(pairs):
    score = np.array([s for s, _ in pairs], dtype=float)
    actual = np.array([float(a) for _, a in pairs])
    ones, zeros = score[actual == 1], score[actual == 0]
    if not len(ones) or not len(zeros):
        assert roc_auc(score, actual) is None
        return
    wins = np.mean([(o > z) + 0.5 * (o == z) for o in ones for z in zeros])
    assert roc_auc(score, actual) == pytest.approx(wins)


def test_metrics_are_what_they_say(trained, table, parts):
    found = evaluate(trained, table, "e", parts.test)
    errors = trained.predict(table.take(parts.test)).value - table.column("e")[parts.test]
    assert found.metrics.mae == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert found.metrics.rmse == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
    assert found.metrics.n == 15
    told = trained.card.metrics["test"]
    for key, value in found.metrics.to_dict().items():
        assert value == (pytest.approx(told[key], rel=1e-5) if not isinstance(value, str) else told[key])
    assert found.ids == tuple(f"c{k}" for k in parts.test)


def test_labels_of_another_kind_or_level_are_refused(trained, table):
    gap = table.with_column("g", table.column("e"), Label.of("band_gap", OTHER))
    with pytest.raises(InputError, match="holds band_gap, the model predicts formation_energy_per_atom"):
        evaluate(trained, gap, "g")
    other = table.with_column("e", table.column("e"), Label.of("formation_energy_per_atom", OTHER))
    with pytest.raises(LevelError, match=r"r2SCAN.*PBE"):
        evaluate(trained, other, "e")
    assert evaluate(trained, other, "e", fidelity=True).metrics.n == 80
    none = table.with_column("e", np.full(80, np.nan), table.labels["e"])
    with pytest.raises(InputError, match="none of 80 rows"):
        evaluate(trained, none, "e")


@pytest.mark.parametrize("rows", [40, 80])
def test_the_parity_plot_names_its_axes(trained, table, tmp_path, rows, monkeypatch):
    from naica.training import parity

    seen = []
    for name in ("_parity", "_calibration"):
        draw = getattr(parity, name)
        monkeypatch.setattr(parity, name, lambda axes, found, draw=draw: (draw(axes, found), seen.append(axes)))
    if rows == 80:
        monkeypatch.setattr(parity, "_BARS_UP_TO", 50)
    evaluate(trained, table, "e", np.arange(rows), plot=tmp_path / "deep" / "parity.png")
    assert (tmp_path / "deep" / "parity.png").read_bytes().startswith(b"\x89PNG")
    assert seen[0].get_xlabel() == "formation energy (eV/atom), labels"
    assert seen[0].get_ylabel() == "formation energy (eV/atom), predicted"
    assert "MAE" in seen[0].get_title()
    assert "covers" in seen[1].get_title()
