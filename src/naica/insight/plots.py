"""Still pictures (matplotlib): each one function from data to a figure, no global state; the interactive ones are re-exported here.

Save with ``figure.savefig(path)``. Labels and units come from `naica.fields`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from naica.errors import InputError
from naica.fields import field
from naica.insight.figures import calibration_figure as calibration_figure
from naica.insight.figures import hit_rate_figure as hit_rate_figure
from naica.insight.figures import hull_figure as hull_figure
from naica.insight.figures import learning_figure as learning_figure
from naica.insight.style import BLUE, GREY, ORANGE, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from naica.training.card import Calibration

_MANY = 3000


def _canvas(width: float = 5.2, height: float = 5.0) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def parity_plot(
    actual: ArrayLike, predicted: ArrayLike, quantity: str, sigma: ArrayLike | None = None, *, title: str | None = None, level: str = ""
) -> Figure:
    """Predicted against reference values; density colours where there are more than 3,000 points, error bars (1 σ) where there are fewer.

    Parameters
    ----------
    actual, predicted, sigma : (n,) in the unit of `quantity`; rows with NaN are left out
    quantity : of `naica.fields`: gives labels and unit
    title : default: mean absolute error, R² and n
    level : level of theory of the reference, for the axis

    Raises
    ------
    InputError
        If the arrays differ in length or hold no finite pair.
    """
    a, p, s = _pairs(actual, predicted, sigma)
    meaning = field(quantity)
    figure, axes = _canvas()
    ends = _ends(np.concatenate([a, p]))
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, zorder=3)
    if len(a) > _MANY:
        bins = axes.hexbin(a, p, gridsize=70, bins="log", cmap="cividis", mincnt=1, extent=(*ends, *ends), linewidths=0.1)
        figure.colorbar(bins, ax=axes, label="structures per cell", shrink=0.8)
    else:
        if s is not None:
            axes.errorbar(a, p, yerr=s, fmt="none", ecolor=PALE, elinewidth=0.8, zorder=1)
        axes.scatter(a, p, s=14, color=BLUE, alpha=0.7, edgecolors="white", linewidths=0.3, zorder=2)
    reference = f"reference {meaning.axis}" + (f"\n{level}" if level else "")
    axes.set(xlabel=reference, ylabel=f"predicted {meaning.axis}", xlim=ends, ylim=ends, aspect="equal")
    axes.set_title(title or _scores(a, p, meaning.unit), fontsize=10, loc="left")
    return figure


def _pairs(actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    a, p = (np.asarray(x, dtype=np.float64).ravel() for x in (actual, predicted))
    s = None if sigma is None else np.asarray(sigma, dtype=np.float64).ravel()
    if len(a) != len(p) or (s is not None and len(s) != len(a)):
        raise InputError(
            f"{len(a)} reference values, {len(p)} predictions{f', {len(s)} error bars' if s is not None else ''}; expected equal"
        )
    good = np.isfinite(a) & np.isfinite(p) & (np.isfinite(s) if s is not None else True)
    if not good.any():
        raise InputError("no pair of finite reference and prediction to draw")
    return a[good], p[good], None if s is None else s[good]


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _scores(actual: np.ndarray, predicted: np.ndarray, unit: str) -> str:
    from naica.training.evaluation import r_squared

    share = r_squared(predicted, actual)
    r2 = f", R² {share:.3f}" if share is not None else ""
    return f"MAE {np.abs(actual - predicted).mean():.3g} {unit}{r2}, n = {len(actual):,}"


def calibration_plot(actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike) -> Figure:
    """Share of values inside central intervals against the share promised; above the diagonal error bars are too wide, below too narrow.

    Raises
    ------
    InputError
        For arrays that do not fit or are not finite.
    """
    from naica.insight.uncertainty import calibration_curve, summarise

    promised, observed = calibration_curve(actual, predicted, sigma)
    facts = summarise(actual, predicted, sigma)
    figure, axes = _canvas()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.fill_between(promised, promised, observed, color=BLUE, alpha=0.15)
    axes.plot(promised, observed, color=BLUE, marker="o", markersize=4)
    axes.set(xlabel="promised share inside the interval", ylabel="observed share", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(
        f"within 1 σ {facts.within_1:.0%}, 2 σ {facts.within_2:.0%}; ENCE {facts.ence:.2f}; n = {facts.n:,}", fontsize=10, loc="left"
    )
    return figure


def reliability_plot(
    actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike, quantity: str, calibration: Calibration | None = None
) -> Figure:
    """Left: promised against observed coverage of Gaussian error bars and, with scores in `calibration`, of conformal intervals.

    The band holds the observed share of honest intervals in 95 % of samples of this size. Right: root mean variance against root mean
    squared error in bins of equal size, by error bar (Levi et al., Sensors 22, 5540 (2022)).

    Raises
    ------
    InputError
        For arrays that do not fit or are not finite, and error bars that are zero.
    """
    from matplotlib.figure import Figure

    from naica.insight.uncertainty import ence

    told = ence(actual, predicted, sigma)
    figure = Figure(figsize=(9.6, 4.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    _coverage_panel(left, actual, predicted, sigma, calibration)
    _bins_panel(right, actual, predicted, sigma, field(quantity).unit)
    right.set_title(f"ENCE {told:.2f}; RMV and RMSE of error bars in bins", fontsize=10, loc="left")
    return figure


def _coverage_panel(axes: Axes, actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike, calibration: Calibration | None) -> None:
    from scipy.stats import binom

    from naica.insight.uncertainty import calibration_curve, conformal_curve

    n = np.size(actual)
    fine = np.linspace(0, 1, 201)
    axes.fill_between(fine, binom.ppf(0.025, n, fine) / n, binom.ppf(0.975, n, fine) / n, color=PALE, alpha=0.5, linewidth=0)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(*calibration_curve(actual, predicted, sigma), color=BLUE, marker="o", markersize=4, label="Gaussian σ")
    if calibration is not None and calibration.scores:
        name = f"conformal, from {calibration.n:,} labels"
        axes.plot(*conformal_curve(actual, predicted, sigma, calibration), color=ORANGE, marker="s", markersize=4, label=name)
    axes.set(xlabel="promised share inside the interval", ylabel="observed share", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(frameon=False, loc="upper left")
    axes.set_title(f"coverage of {n:,} labels; band: honest intervals, 95 %", fontsize=10, loc="left")


def _bins_panel(axes: Axes, actual: ArrayLike, predicted: ArrayLike, sigma: ArrayLike, unit: str) -> None:
    from naica.insight.uncertainty import error_bins

    promised, found = error_bins(actual, predicted, sigma)
    high = 1.06 * float(max(promised.max(), found.max()))
    axes.plot([0, high], [0, high], color=GREY, linestyle="--", linewidth=1)
    axes.scatter(promised, found, s=32, color=BLUE, zorder=2)
    axes.set(xlabel=f"RMV: promised ({unit})", ylabel=f"RMSE: found ({unit})", xlim=(0, high), ylim=(0, high), aspect="equal")


def learning_plot(
    sizes: Sequence[float], errors: Mapping[str, Sequence[float]], quantity: str, what: str = "training structures"
) -> Figure:
    """Error against the amount of training data on logarithmic axes, one line per name in `errors` (each as long as `sizes`).

    Raises
    ------
    InputError
        If a line has another length than `sizes`, or a size or error is not positive.
    """
    for name, line in errors.items():
        if len(line) != len(sizes) or not all(v > 0 for v in [*line, *sizes]):
            raise InputError(
                f"learning curve {name!r}: expected {len(sizes)} positive errors at as many positive sizes, found {list(line)}"
            )
    figure, axes = _canvas(5.6, 4.0)
    for (name, line), colour, marker in zip(errors.items(), (BLUE, ORANGE, "#009E73", "#CC79A7", GREY) * 9, "osD^v" * 9, strict=False):
        axes.plot(sizes, line, color=colour, marker=marker, label=name)
    axes.set(xscale="log", yscale="log", xlabel=what, ylabel=f"mean absolute error ({field(quantity).unit})")
    axes.grid(True, which="both", color="#E5E7EB", linewidth=0.6)
    if len(errors) > 1:
        axes.legend(frameon=False)
    return figure


def periodic_map(values: Mapping[str, float], label: str, counts: Mapping[str, int] | None = None) -> Figure:
    """A periodic table coloured by one value per element symbol; elements without a value are grey (see `naica.insight.periodic`).

    `label` names the value with its unit; `counts` are written small under the symbol.

    Raises
    ------
    InputError
        If there are no values or a symbol is unknown.
    """
    from naica.insight.periodic import ElementMap, draw

    return draw(ElementMap(values, label, counts=counts))
