"""Pictures of electrons: bands along a path, with the density of states beside them."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from naica.insight.style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from naica.hamiltonian.bands import Density, Path

Array = NDArray[np.float64]
_COLOURS = (ORANGE, "#3a7d44", "#7b4fa3", "#b0413e", "#2f8f9d", "#8c6d31")


def band_figure(
    path: Path,
    energies: Array,
    fermi: float,
    density: Density | None = None,
    *,
    reference: Array | None = None,
    window: tuple[float, float] = (-8.0, 8.0),
    title: str = "",
) -> Figure:
    """Bands (K, n) in eV against the Fermi level (or the middle of the gap), along a path.

    Parameters
    ----------
    density : drawn beside, with its parts by element and shell
    reference : (K, m) bands of the code itself, grey, on their own zero
    window : eV around the Fermi level
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2 if density else 5.4, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True, width_ratios=[2.6, 1]) if density else [figure.add_subplot()]
    main = axes[0]
    if reference is not None:
        main.plot(path.distance, reference, color=GREY, lw=2.2, alpha=0.5)
        main.plot([], [], color=GREY, lw=2.2, alpha=0.5, label="the code's own")
    main.plot(path.distance, energies - fermi, color=BLUE, lw=1.0)
    if reference is not None:
        main.plot([], [], color=BLUE, lw=1.0, label="predicted")
        main.legend(frameon=False, loc="upper right", fontsize=8)
    _ticks(main, path)
    main.axhline(0, color=GREY, lw=0.7, ls="--")
    main.set_ylim(*window)
    main.set_xlim(path.distance[0], path.distance[-1] or 1.0)
    main.set_ylabel("energy − Fermi level (eV)")
    if density:
        side = axes[1]
        x = density.energies - fermi
        inside = (x >= window[0]) & (x <= window[1])
        side.fill_betweenx(x[inside], density.total[inside], color=GREY, alpha=0.25, lw=0, label="total")
        for (name, values), colour in zip(density.parts.items(), _COLOURS, strict=False):
            side.plot(values[inside], x[inside], lw=1.0, color=colour, label=name)
        side.axhline(0, color=GREY, lw=0.7, ls="--")
        side.set_xlim(0, 1.05 * max(float(density.total[inside].max(initial=0.0)), 1e-9))
        side.set_xlabel("states per eV and cell")
        side.legend(frameon=False, fontsize=7)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(fill(title, 100), fontsize=9, x=0.02, ha="left")
    return figure


def _ticks(axes: object, path: Path) -> None:
    """Special points; two at one place stand side by side."""
    places: dict[float, list[str]] = {}
    for at, label in path.ticks:
        key = next((p for p in places if abs(p - at) < 1e-6), at)
        if label not in places.setdefault(key, []):
            places[key].append(label)
    axes.set_xticks(list(places), ["|".join(labels) for labels in places.values()])  # type: ignore[attr-defined]
    for at in places:
        axes.axvline(at, color="0.85", lw=0.6, zorder=0)  # type: ignore[attr-defined]
