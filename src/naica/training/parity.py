"""Predicted against actual, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from naica.errors import RunError
from naica.fields import field

if TYPE_CHECKING:
    from naica.training.evaluation import Evaluation

_BARS_UP_TO = 300


def parity_plot(found: Evaluation, path: Path) -> None:
    """Write a parity plot with error bars (density where points are many) and the errors' calibration beside it.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _parity(left, found)
    _calibration(right, found)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise RunError(f"cannot write the plot {path}: {error}") from error


def _parity(axes: Any, found: Evaluation) -> None:
    m, known = found.metrics, field(found.metrics.quantity)
    if m.n <= _BARS_UP_TO:
        axes.errorbar(found.actual, found.predicted, yerr=found.sigma, fmt="o", ms=3, lw=0.6, alpha=0.7)
    else:
        axes.hexbin(found.actual, found.predicted, gridsize=70, bins="log", mincnt=1, cmap="viridis")
    low, high = (float(f(np.concatenate([found.actual, found.predicted]))) for f in (np.min, np.max))
    axes.plot([low, high], [low, high], "k--", lw=0.8)
    axes.set_xlabel(f"{known.axis}, labels")
    axes.set_ylabel(f"{known.axis}, predicted")
    text = (
        f"MAE {m.mae:.4g} {m.unit}, RMSE {m.rmse:.4g}"
        if m.mae is not None
        else f"AUC {m.roc_auc or float('nan'):.3f}, accuracy {m.accuracy:.3f}"
    )
    axes.set_title(f"{text}, n = {m.n}", fontsize=10)


def _calibration(axes: Any, found: Evaluation) -> None:
    """Share of errors within k error bars against what a Gaussian promises."""
    from scipy.stats import norm

    if found.metrics.mae is None or not (found.sigma > 0).all():
        axes.set_axis_off()
        return
    z = np.sort(np.abs(found.predicted - found.actual) / found.sigma)
    axes.plot(norm.cdf(z) - norm.cdf(-z), np.arange(1, len(z) + 1) / len(z), lw=1.5)
    axes.plot([0, 1], [0, 1], "k--", lw=0.8)
    axes.set_xlabel("share of errors expected within the error bar")
    axes.set_ylabel("share observed")
    axes.set_title(
        f"68 % bar covers {100 * (found.metrics.coverage_1 or 0):.0f} %, 95 % bar {100 * (found.metrics.coverage_2 or 0):.0f} %",
        fontsize=10,
    )
