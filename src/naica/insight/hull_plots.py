"""Still pictures of hulls (matplotlib): two elements as a curve, three as a triangle, and diagrams of chemical potentials.

The interactive pictures of the report are in `naica.insight.hulls`; both are drawn from the same records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.fields import field
from naica.insight.hulls import _CORNERS, _tie_lines
from naica.insight.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, YELLOW

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Record = Mapping[str, Any]
_REGIONS = (SKY, ORANGE, GREEN, YELLOW, PURPLE, BLUE, VERMILION, GREY)


def hull_picture(elements: Sequence[str], entries: Sequence[Record]) -> Figure:
    """The hull of two or three elements.

    Parameters
    ----------
    elements : two or three symbols
    entries : per entry `formula`, `fractions` (in the order of `elements`), `formation_energy` and `above_hull` (eV/atom), `stable`

    Raises
    ------
    InputError
        For another number of elements.
    """
    from matplotlib.figure import Figure

    if len(elements) not in (2, 3):
        raise InputError(f"a picture of a hull has two or three elements, got {len(elements)}: {', '.join(elements)}")
    figure = Figure(figsize=(5.6, 4.4) if len(elements) == 2 else (6.2, 5.2), dpi=150, layout="constrained")
    (_binary if len(elements) == 2 else _ternary)(figure, elements, entries)
    return figure


def _binary(figure: Figure, elements: Sequence[str], entries: Sequence[Record]) -> None:
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    x = np.array([float(e["fractions"][1]) for e in entries])
    y = np.array([float(e["formation_energy"]) for e in entries])
    stable = np.array([bool(e["stable"]) for e in entries])
    order = np.argsort(x[stable])
    axes.plot(x[stable][order], y[stable][order], "-o", color=BLUE, lw=1.4, ms=6, label="stable", zorder=3)
    axes.plot(x[~stable], y[~stable], "D", color=VERMILION, ms=4, alpha=0.7, label="unstable", zorder=2)
    named: set[float] = set()
    for k in np.flatnonzero(stable).tolist():
        if 0 < x[k] < 1 and round(x[k], 6) not in named:
            named.add(round(float(x[k]), 6))
            axes.annotate(_tex(entries[k]["formula"]), (x[k], y[k]), (0, -12), textcoords="offset points", ha="center", fontsize=8)
    axes.axhline(0, color=GREY, lw=0.7, ls="--")
    axes.set_xlim(-0.03, 1.03)
    depth = float(min(y.min(), 0.0)) or -0.1
    axes.set_ylim(1.15 * depth, max(-0.1 * depth, min(float(y.max()), -depth)))
    axes.set_xlabel(f"atomic fraction of {elements[1]} in {elements[0]}–{elements[1]}")
    axes.set_ylabel(field("formation_energy_per_atom").axis)
    axes.legend(frameon=False, fontsize=8)


def _ternary(figure: Figure, elements: Sequence[str], entries: Sequence[Record]) -> None:
    axes = figure.add_subplot()
    spots = np.array([e["fractions"] for e in entries], dtype=float) @ _CORNERS
    y = np.array([float(e["formation_energy"]) for e in entries])
    above = np.array([float(e["above_hull"]) for e in entries])
    stable = np.array([bool(e["stable"]) for e in entries])
    loop = np.vstack([_CORNERS, _CORNERS[:1]])
    axes.plot(loop[:, 0], loop[:, 1], color=GREY, lw=1)
    a, b = _tie_lines(spots[stable], y[stable])
    axes.plot([np.nan if v is None else v for v in a], [np.nan if v is None else v for v in b], color=BLACK, lw=0.8)
    if (~stable).any():
        order = np.argsort(-above[~stable])
        dots = axes.scatter(
            spots[~stable][order][:, 0],
            spots[~stable][order][:, 1],
            c=above[~stable][order],
            cmap="cividis",
            vmin=0,
            vmax=max(0.05, float(above.max())),
            s=18,
            marker="D",
        )
        figure.colorbar(dots, ax=axes, label=field("energy_above_hull").axis, shrink=0.7)
    axes.plot(*spots[stable].T, "o", color=BLUE, ms=7, zorder=3)
    named: set[tuple[float, float]] = set()
    for k in np.flatnonzero(stable).tolist():
        place = (round(float(spots[k, 0]), 4), round(float(spots[k, 1]), 4))
        if max(entries[k]["fractions"]) < 1 and place not in named:
            named.add(place)
            axes.annotate(_tex(entries[k]["formula"]), spots[k], (5, 5), textcoords="offset points", fontsize=8)
    for name, (x0, y0), (dx, dy) in zip(elements, _CORNERS, ((-8, -12), (8, -12), (0, 8)), strict=True):
        axes.annotate(name, (x0, y0), (dx, dy), textcoords="offset points", ha="center", fontsize=12, weight="bold")
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.1, 0.98)
    axes.set_aspect("equal")
    axes.axis("off")


def potential_picture(elements: Sequence[str], regions: Mapping[str, Array], marked: str = "") -> Figure:
    """The chemical-potential diagram of three elements: a region of Δμ of the first two for each phase.

    Parameters
    ----------
    elements : three symbols; the axes are the first two, the third is in every phase shown
    regions : formula → (m, 2) corners, eV/atom, as `naica.discover.phases.diagram` gives them
    marked : the formula to draw strongest

    Raises
    ------
    InputError
        If there is no region.
    """
    from matplotlib.figure import Figure

    if not regions:
        raise InputError("no phase has a region in this diagram")
    figure = Figure(figsize=(5.6, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for k, (formula, corners) in enumerate(regions.items()):
        strong = formula == marked
        axes.fill(*corners.T, color=_REGIONS[k % len(_REGIONS)], alpha=0.75 if strong else 0.35, lw=0)
        loop = np.vstack([corners, corners[:1]])
        axes.plot(*loop.T, color=BLACK, lw=1.8 if strong else 0.7)
        axes.annotate(
            _tex(formula), tuple(_centre(corners).tolist()), ha="center", va="center", fontsize=9, weight="bold" if strong else "normal"
        )
    axes.set_xlabel(f"Δμ of {elements[0]} (eV/atom), from the element")
    axes.set_ylabel(f"Δμ of {elements[1]} (eV/atom), from the element")
    axes.set_title(f"{'–'.join(elements)}: phases with {elements[2]}", fontsize=10)
    return figure


def _centre(corners: Array) -> Array:
    """Centre of the area of a polygon."""
    after = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * after[:, 1] - after[:, 0] * corners[:, 1]
    if abs(cross.sum()) < 1e-12:
        return np.asarray(corners.mean(axis=0))
    return np.asarray(((corners + after) * cross[:, None]).sum(axis=0) / (3 * cross.sum()))


def _tex(formula: str) -> str:
    return re.sub(r"(\d+(?:\.\d+)?)", r"$_{\1}$", formula)
