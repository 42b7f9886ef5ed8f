import numpy as np
import pytest

pytest.importorskip("matplotlib")

from naica.errors import InputError
from naica.insight.plots import calibration_plot, learning_plot, parity_plot, reliability_plot


def data(n=200):
    rng = np.random.default_rng(0)
    actual = rng.normal(size=n)
    return actual, actual + 0.1 * rng.normal(size=n), np.full(n, 0.1)


def test_parity_plot_has_units_scores_and_both_looks(tmp_path):
    actual, predicted, sigma = data()
    figure = parity_plot(actual, predicted, "formation_energy_per_atom", sigma, level="PBE")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "reference formation energy (eV/atom)\nPBE"
    assert axes.get_ylabel() == "predicted formation energy (eV/atom)"
    assert f"MAE {np.abs(actual - predicted).mean():.3g} eV/atom" in axes.get_title(loc="left")
    assert "n = 200" in axes.get_title(loc="left")
    assert axes.get_xlim() == axes.get_ylim()
    figure.savefig(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
    many = parity_plot(*data(5000)[:2], "band_gap")
    assert len(many.axes) == 2


def test_parity_plot_leaves_nan_out_and_refuses_nothing():
    figure = parity_plot([1, np.nan, 3], [1.1, 2, 3.1], "band_gap")
    assert "n = 2" in figure.axes[0].get_title(loc="left")
    with pytest.raises(InputError, match="no pair"):
        parity_plot([np.nan], [1], "band_gap")
    with pytest.raises(InputError, match="2 reference values, 1 predictions"):
        parity_plot([1, 2], [1], "band_gap")
    with pytest.raises(InputError, match="unknown quantity"):
        parity_plot([1], [1], "bandgapp")


def test_calibration_plot_tells_coverage():
    actual, predicted, sigma = data()
    title = calibration_plot(actual, predicted, sigma).axes[0].get_title(loc="left")
    share = np.mean(np.abs(actual - predicted) <= sigma)
    assert f"within 1 σ {share:.0%}" in title


def test_reliability_plot_draws_both_promises_and_the_bins():
    from naica.insight.uncertainty import conformal_curve, ence, error_bins
    from naica.training.card import Calibration

    actual, predicted, sigma = data()
    known = Calibration(1.0, 0.1, 9, tuple(np.linspace(0.2, 2.5, 9)))
    left, right = reliability_plot(actual, predicted, sigma, "band_gap", known).axes
    _, gaussian, conformal = left.lines
    assert len(gaussian.get_xdata()) == 19
    promised, observed = conformal_curve(actual, predicted, sigma, known)
    assert promised.max() == pytest.approx(0.9)  # 9 labels promise no more
    assert observed[-1] == np.mean(np.abs(actual - predicted) <= 2.5 * sigma)
    assert np.array_equal(conformal.get_ydata(), observed)
    assert np.allclose(right.collections[0].get_offsets(), np.stack(error_bins(actual, predicted, sigma), axis=1))
    assert right.get_title(loc="left").startswith(f"ENCE {ence(actual, predicted, sigma):.2f};")
    assert len(reliability_plot(actual, predicted, sigma, "band_gap").axes[0].lines) == 2
    with pytest.raises(InputError, match="all zero"):
        reliability_plot(actual, predicted, np.zeros_like(sigma), "band_gap")


def test_learning_plot():
    figure = learning_plot([10, 100], {"a": [0.3, 0.2], "b": [0.2, 0.1]}, "band_gap")
    assert figure.axes[0].get_ylabel() == "mean absolute error (eV)"
    assert len(figure.axes[0].lines) == 2
    with pytest.raises(InputError, match="'a': expected 2 positive errors"):
        learning_plot([10, 100], {"a": [0.3]}, "band_gap")
