"""Pictures of a potential: labels against predictions of energies, forces and stresses, and what a committee's spread is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naica.insight.style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from naica.potential.measure import Told

_GPA = 160.21766208
_MANY = 3000
_BINS = 12


def parity_panels(told: Told, title: str = "") -> Figure:
    """One panel per field with labels, energies per atom relative to their mean."""
    from matplotlib.figure import Figure

    panels = [(name, label) for name, label in _AXES.items() if name in told.wanted and np.isfinite(told.wanted[name]).any()]
    figure = Figure(figsize=(3.9 * len(panels), 3.9), dpi=150, layout="constrained")
    for place, (name, (text, unit, factor)) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        wanted, said = told.wanted[name], told.said[name]
        if name == "energy":
            mean = np.nanmean(wanted / told.counts)
            wanted, said = wanted / told.counts - mean, said / told.counts - mean
        _parity(axes, wanted.ravel() * factor, said.ravel() * factor, text, unit)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


_AXES = {
    "energy": ("energy per atom, from its mean", "eV/atom", 1.0),
    "forces": ("force component", "eV/Å", 1.0),
    "stress": ("stress component", "GPa", _GPA),
    "magmom": ("magnetic moment", "μ_B", 1.0),
    "charge": ("charge", "e", 1.0),
}


def _parity(axes: Axes, wanted: np.ndarray, said: np.ndarray, text: str, unit: str) -> None:
    known = np.isfinite(wanted) & np.isfinite(said)
    wanted, said = wanted[known], said[known]
    low, high = float(min(wanted.min(), said.min())), float(max(wanted.max(), said.max()))
    axes.plot([low, high], [low, high], color=GREY, linestyle="--", linewidth=1)
    if len(wanted) > _MANY:
        axes.hexbin(wanted, said, gridsize=60, bins="log", cmap="cividis", mincnt=1, linewidths=0.1)
    else:
        axes.scatter(wanted, said, s=8, color=BLUE, alpha=0.6, linewidths=0)
    error = said - wanted
    axes.set(xlabel=f"reference {text} ({unit})", ylabel=f"predicted ({unit})", aspect="equal")
    axes.set_title(f"MAE {np.abs(error).mean():.3g}, RMSE {np.sqrt((error**2).mean()):.3g} {unit}", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def spread_plot(told: Told) -> Figure:
    """Root mean square force error of atoms against the spread of the committee's forces, in bins of as many atoms each."""
    from matplotlib.figure import Figure

    from naica.errors import InputError

    if told.sigma is None or "forces" not in told.wanted:
        raise InputError("only a committee has a spread of forces, and only frames with forces show its error; train with --members 4")
    known = np.isfinite(told.wanted["forces"]).all(axis=1)
    size = np.linalg.norm((told.said["forces"] - told.wanted["forces"])[known], axis=1)
    sigma = told.sigma[known]
    order = np.argsort(sigma)
    bins = np.array_split(order, min(_BINS, max(len(order) // 5, 1)))
    x = np.array([np.sqrt((sigma[rows] ** 2).mean()) for rows in bins])
    y = np.array([np.sqrt((size[rows] ** 2).mean()) for rows in bins])
    figure = Figure(figsize=(4.6, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    ends = (float(min(x.min(), y.min())) * 0.8, float(max(x.max(), y.max())) * 1.25)
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="spread = error")
    axes.plot(x, y, color=ORANGE, marker="o", markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="spread of the committee's forces (eV/Å)", ylabel="RMS force error (eV/Å)")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
