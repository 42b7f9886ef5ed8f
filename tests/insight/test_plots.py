import numpy as np
import pytest

pytest.importorskip("matplotlib")

from naica.errors import InputError
from naica.insight.plots import calibration_plot, learning_plot, parity_plot


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


def test_learning_plot():
    figure = learning_plot([10, 100], {"a": [0.3, 0.2], "b": [0.2, 0.1]}, "band_gap")
    assert figure.axes[0].get_ylabel() == "mean absolute error (eV)"
    assert len(figure.axes[0].lines) == 2
    with pytest.raises(InputError, match="'a': expected 2 positive errors"):
        learning_plot([10, 100], {"a": [0.3]}, "band_gap")
