"""How well classes are told apart at every threshold: receiver operating characteristic (Fawcett, Pattern Recogn. Lett. 27, 861 (2006))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naica.errors import InputError, RunError
from naica.insight.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK)
_MANY = 7


@dataclass(frozen=True)
class Curve:
    """Points (k) of a curve from (0, 0) to (1, 1): shares of the 0s and 1s that are taken for 1 at and above each threshold.

    Between two points the curve is straight: items of the same score come in together.
    """

    false_positive: NDArray[np.float64]
    true_positive: NDArray[np.float64]
    threshold: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the curve: the chance that a 1 scores above a 0, ties half."""
        return float(np.trapezoid(self.true_positive, self.false_positive))


def roc_curve(score: ArrayLike, actual: ArrayLike) -> Curve:
    """The curve of scores (n) for classes 0 and 1 (n).

    Raises
    ------
    InputError
        If the lengths differ or one of the classes is absent: then there is no curve.
    """
    values, ones = np.asarray(score, dtype=np.float64), np.asarray(actual) == 1
    if values.shape != ones.shape or values.ndim != 1:
        raise InputError(f"{values.shape} scores for {ones.shape} classes; expected one each")
    if not ones.any() or ones.all():
        raise InputError(f"all {len(ones)} items are of one class: a ROC curve needs both")
    order = np.argsort(-values, kind="stable")
    last = np.flatnonzero(np.concatenate([np.diff(values[order]) < 0, [True]]))
    up, down = np.cumsum(ones[order])[last], np.cumsum(~ones[order])[last]
    start = np.zeros(1)
    return Curve(
        np.concatenate([start, down / down[-1]]), np.concatenate([start, up / up[-1]]), np.concatenate([[np.inf], values[order][last]])
    )


def roc_plot(found: Mapping[str, tuple[ArrayLike, ArrayLike]], path: Path) -> None:
    """Draw the curves of classes by name, each from (scores, classes), with their areas and 95 % bootstrap intervals.

    Of more than seven the mean area alone is told, and the lines are thin. A class that is absent has no curve and is left out.

    Raises
    ------
    InputError
        If none has a curve.
    RunError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    from naica.training.evaluation import roc_auc, roc_auc_interval

    drawn = {}
    for name, (score, actual) in found.items():
        values, classes = np.asarray(score, dtype=np.float64), np.asarray(actual, dtype=np.float64)
        if roc_auc(values, classes) is not None:
            drawn[name] = (values, classes, roc_curve(values, classes))
    if not drawn:
        raise InputError(f"no ROC curve of {', '.join(found)}: one of the classes is absent")
    figure = Figure(figsize=(5.2, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    few = len(drawn) <= _MANY
    for k, (name, (values, classes, curve)) in enumerate(drawn.items()):
        told = ""
        if few:
            low, high = roc_auc_interval(values, classes)
            told = f"{name}: {curve.area:.3f} ({low:.3f} to {high:.3f}), n = {len(values)}"
        axes.plot(
            curve.false_positive,
            curve.true_positive,
            color=_COLOURS[k % len(_COLOURS)],
            linewidth=1.6 if few else 0.8,
            label=told or None,
        )
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    areas = [curve.area for _, _, curve in drawn.values()]
    axes.set_title("area under the curve, 95 % interval" if few else f"{len(drawn)} tasks, mean area {np.mean(areas):.3f}", fontsize=10)
    if few:
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise RunError(f"cannot write the plot {path}: {error}") from error
