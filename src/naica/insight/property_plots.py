"""Pictures of what a potential says of a material: displacements, Arrhenius lines, equations of state, phonons, structure, coexistence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from naica.errors import InputError
from naica.insight.plots import _canvas
from naica.insight.style import BLUE, GREEN, GREY, ORANGE, PALE, PURPLE, SKY, VERMILION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from naica.potential.eos import EquationOfState
    from naica.potential.melting import Coexistence
    from naica.potential.phonons import Phonons
    from naica.potential.structure_functions import RadialDistribution, Vibrations
    from naica.potential.transport import Arrhenius, Diffusion

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
_GPA = 160.21766208


def msd_plot(runs: Sequence[Diffusion], names: Sequence[str] | None = None) -> Figure:
    """Mean-square displacements against lag with a band of one standard error; dashed the fitted line, which short lags weigh on most.

    Raises
    ------
    InputError
        Without a run.
    """
    if not runs:
        raise InputError("no run to draw")
    figure, axes = _canvas(6.0, 4.2)
    for k, run in enumerate(runs):
        colour = _COLOURS[k % len(_COLOURS)]
        told = f"{run.tracer.value:.2e} ± {run.tracer.sigma:.0e} cm²/s"
        where = (names[k] if names else "") or (f"{run.temperature:.0f} K" if run.temperature else run.species)
        lag, mean, sigma = run.displacement.lag / 1e3, run.displacement.mean, run.displacement.sigma
        axes.fill_between(lag, mean - sigma, mean + sigma, color=colour, alpha=0.2, linewidth=0)
        axes.plot(lag, mean, color=colour, label=f"{where}: {told}")
        ends = np.array(run.fit)
        axes.plot(ends / 1e3, run.offset + run.slope * ends, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="lag (ps)", ylabel=f"mean-square displacement of {runs[0].species} (Å²)", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def arrhenius_plot(runs: Sequence[Diffusion], line: Arrhenius) -> Figure:
    """Diffusivities against inverse temperature on a logarithmic axis, the line and its band of one standard error."""
    figure, axes = _canvas(5.6, 4.2)
    used = [run for run in runs if run.temperature and run.resolved]
    x = np.array([1000 / run.temperature for run in used if run.temperature])
    value = np.array([run.tracer.value for run in used])
    axes.errorbar(x, value, yerr=[run.tracer.sigma for run in used], fmt="o", color=BLUE, capsize=3, zorder=3)
    margin = 0.08 * np.ptp(x)
    fine = np.linspace(x.min() - margin, x.max() + margin, 100)
    middle, width = (np.array(column) for column in zip(*(line.at(1000 / one) for one in fine), strict=True))
    axes.fill_between(fine, middle * np.exp(-width), middle * np.exp(width), color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(fine, middle, color=GREY, linewidth=1)
    axes.set(yscale="log", xlabel="1000 K / T", ylabel=f"diffusivity of {runs[0].species} (cm²/s)", xlim=(fine[0], fine[-1]))
    above = axes.secondary_xaxis("top", functions=(_inverse, _inverse))  # type: ignore[arg-type]
    above.set_xticks([run.temperature for run in used if run.temperature])
    above.set_xlabel("T (K)")
    axes.set_title(f"E$_a$ = {line.activation.value:.3f} ± {line.activation.sigma:.3f} eV", fontsize=10, loc="right", y=0.92)
    return figure


def _inverse(x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(1000 / np.asarray(x, dtype=np.float64))


def eos_plot(curves: Sequence[EquationOfState], formula: str = "") -> Figure:
    """Energies per atom against volume per atom, and the fitted curves."""
    figure, axes = _canvas(5.6, 4.2)
    first = curves[0]
    n, lowest = first.atoms, min(curve.energy.value for curve in curves)
    axes.scatter(first.volumes / n, (first.energies - lowest) / n * 1000, s=22, color=GREY, zorder=3, label="computed")
    fine = np.linspace(first.volumes.min(), first.volumes.max(), 200)
    for k, curve in enumerate(curves):
        told = f"{curve.form}: B = {curve.bulk.value * _GPA:.1f} ± {curve.bulk.sigma * _GPA:.1f} GPa"
        style = "-" if k == 0 else "--"
        axes.plot(fine / n, (curve.curve(fine) - lowest) / n * 1000, color=_COLOURS[k], linestyle=style, label=told)
    axes.axvline(first.volume.value / n, color=PALE, linewidth=1, zorder=0)
    axes.set(xlabel="volume (Å³/atom)", ylabel="energy above the minimum (meV/atom)")
    axes.legend(framealpha=1, edgecolor="white", fontsize=8, loc="upper center")
    axes.set_title(formula, fontsize=10, loc="left")
    return figure


def phonon_plot(phonons: Phonons, formula: str = "") -> Figure:
    """Bands along the path with the density of states beside them; below zero stands for imaginary."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.axhline(0, color=GREY, linewidth=0.6)
    bands = phonons.bands
    left.plot(bands.distance, bands.frequency, color=BLUE, linewidth=1)
    for place, _ in bands.ticks:
        left.axvline(place, color=PALE, linewidth=0.8, zorder=0)
    left.set_xticks([place for place, _ in bands.ticks], [name for _, name in bands.ticks])
    left.set(xlim=(bands.distance[0], bands.distance[-1]), ylabel="frequency (THz)")
    right.fill_betweenx(phonons.dos_frequency, phonons.dos, color=BLUE, alpha=0.25, linewidth=0)
    right.plot(phonons.dos, phonons.dos_frequency, color=BLUE, linewidth=1)
    right.set(xlabel="states (1/THz)", xlim=(0, None))
    left.set_title(f"{formula}  {phonons.verdict}", fontsize=9, loc="left")
    return figure


def radial_plot(found: RadialDistribution, pairs: Sequence[tuple[str, str]] | None = None) -> Figure:
    """Radial distribution functions of some pairs; each unordered pair once by default."""
    figure, axes = _canvas(6.0, 4.2)
    if pairs is None:
        pairs = [(a, b) for a, b in found.partial if a <= b]
    for k, (a, b) in enumerate(pairs):
        axes.plot(found.r, found.partial[a, b], color=_COLOURS[k % len(_COLOURS)], label=f"{a}–{b}")
    axes.axhline(1, color=GREY, linewidth=0.6, linestyle="--")
    axes.set(xlabel="distance (Å)", ylabel="radial distribution g(r)", xlim=(0, found.r[-1]), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return figure


def vibration_plot(found: Vibrations, highest: float | None = None) -> Figure:
    """Vibrational states per atom against frequency, by species where there are several."""
    figure, axes = _canvas(6.0, 4.2)
    if highest is None:
        total = np.cumsum(np.abs(found.states))
        highest = float(found.frequency[np.searchsorted(total, 0.995 * total[-1])] * 1.15)
    shown = found.frequency <= highest
    axes.plot(found.frequency[shown], found.states[shown], color="black", linewidth=1.2, label="all")
    if len(found.partial) > 1:
        for k, (name, part) in enumerate(found.partial.items()):
            axes.plot(found.frequency[shown], part[shown], color=_COLOURS[k % len(_COLOURS)], linewidth=1, label=name)
        axes.legend(frameon=False, fontsize=8)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.set(xlabel="frequency (THz)", ylabel="vibrational states (1/THz per atom)", xlim=(0, highest))
    return figure


def coexistence_plot(found: Coexistence) -> Figure:
    """Left: temperature and share of solid atoms against time; right: where along the long axis the solid is at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.9), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    time = found.time / 1e3
    left.plot(time, found.kelvin, color=BLUE, linewidth=1)
    left.axhline(found.temperature.value, color=BLUE, linestyle="--", linewidth=1)
    left.axvspan(time[len(time) // 2], time[-1], color=PALE, alpha=0.35, linewidth=0)
    left.set(xlabel="time (ps)", xlim=(0, time[-1]))
    left.set_ylabel("temperature (K)", color=BLUE)
    share = left.twinx()
    share.plot(time, found.solid, color=ORANGE, linewidth=1)
    share.set_ylabel("share of solid atoms", color=ORANGE)
    share.set_ylim(0, 1)
    right.bar(found.place, found.profile, width=found.place[1] - found.place[0], color=ORANGE, alpha=0.8, edgecolor="white")
    right.set(xlabel="place along the long axis", ylabel="share of solid atoms at the end", xlim=(0, 1), ylim=(0, 1))
    for axes in (left, right, share):
        axes.spines["top"].set_visible(False)
    right.spines["right"].set_visible(False)
    kelvin, gpa = found.temperature, found.pressure
    told = f"T = {kelvin.value:.1f} ± {kelvin.sigma:.1f} K at {gpa.value:.3f} ± {gpa.sigma:.3f} GPa"
    left.set_title(told, fontsize=10, loc="left")
    return figure
