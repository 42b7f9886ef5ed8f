"""Transport: mean-square displacement, diffusivity with an error bar, Haven ratio, Arrhenius fit, ionic conductivity.

Displacements are counted from the framework, the atoms that do not diffuse: its mean drift is taken away. The mean-square displacement is
averaged over atoms and time origins, by Fourier transforms (Calandrini et al., Collection SFN 12, 201 (2011), §4.2).

The slope is a generalised least squares fit ``MSD(t) = 2 d D t + c`` with the exact covariance of averages over overlapping windows of a
random walk with a vibration on top (Qian, Sheetz, Elson, Biophys. J. 60, 910 (1991); Michalet, Phys. Rev. E 82, 041914 (2010)); the same
idea as that of McCluskey et al. (kinisi), J. Chem. Theory Comput. 21, 79 (2025), with the atoms' own spread as the error bar: the estimate
is linear in the displacement of each atom, so the spread of the atoms' estimates holds for hops, cages and unlike sites, whatever the
shape of their distribution. Atoms that move together carry less; a factor measured from the motion of their sum makes up for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import erf, exp, sqrt

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.potential.md import BOLTZMANN
from naica.potential.walk import Walk

Array = NDArray[np.float64]

CM2_PER_S = 0.1  # of one Å²/fs
# of one e²/(Å fs eV) in mS/cm: e = 1.602176634e-19 C, so 1.602176634e-19 A/V per Å fs⁻¹… = 1.602e6 S/m
_MILLISIEMENS = 1.602176634e-19 / 1e-10 / 1e-15 * 10
SUPERIONIC = 10**1.18  # mS/cm at 1000 K: GNoME's threshold (Merchant et al., Nature 624, 80 (2023))
MOBILE = ("Li", "Na", "K", "Mg", "Ca")  # the ions GNoME looked at
_FEWEST_FRAMES = 40
_MOST_LAGS = 24
_GRID = 500


@dataclass(frozen=True, eq=False)
class Displacement:
    """Mean-square displacement of one species.

    Parameters
    ----------
    species : which
    lag : (L) fs
    mean : (L) Å², mean over atoms and time origins
    axes : (L, 3) Å², the same along x, y, z; their sum is `mean`
    charge : (L) Å², of the sum of all atoms' displacements, by the number of atoms; equal to `mean` where atoms ignore each other
    sigma : (L) Å², standard error of `mean`; errors at different lags go together
    """

    species: str
    lag: Array
    mean: Array
    axes: Array
    charge: Array
    sigma: Array


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error."""

    value: float
    sigma: float

    def above(self, threshold: float) -> float:
        """Probability that the true value is above a threshold, for a normal error."""
        if self.sigma == 0:
            return float(self.value > threshold)
        return 0.5 * (1 + erf((self.value - threshold) / (self.sigma * sqrt(2))))

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.sigma * abs(factor))


@dataclass(frozen=True, eq=False)
class Diffusion:
    """How a species diffuses in one system at one temperature.

    Parameters
    ----------
    name, species, atoms : what it is of, and how many atoms of the species there are
    temperature : K; None where unknown
    displacement : mean-square displacements
    tracer : diffusivity of single atoms, cm²/s
    collective : diffusivity of the sum of all of them, which carries charge, cm²/s
    fit : the lags the fit used, from and to, fs
    offset : Å², of the fitted line at lag 0: twice the mean square amplitude of vibrations
    slope : Å²/fs, of the fitted line
    together : variance factor for atoms that move together; 1 where they do not
    unsettled : cm²/s, the part of the tracer's error that stands for motion that is not diffusive yet; longer runs make it go away
    density : atoms of the species per Å³; None without a volume
    duration : fs that were looked at
    """

    name: str
    species: str
    atoms: int
    temperature: float | None
    displacement: Displacement
    tracer: Estimate
    collective: Estimate
    fit: tuple[float, float]
    offset: float
    slope: float
    together: float
    unsettled: float
    density: float | None
    duration: float

    @property
    def haven(self) -> Estimate | None:
        """Tracer by collective diffusivity: below 1 where ions move in concert. None where the collective one is not above its error."""
        a, b = self.tracer, self.collective
        if b.value <= 2 * b.sigma:
            return None
        return Estimate(
            a.value / b.value, a.value / b.value * sqrt((a.sigma / a.value) ** 2 + (b.sigma / b.value) ** 2) if a.value else b.sigma
        )

    @property
    def resolved(self) -> bool:
        """Whether the tracer diffusivity is above zero by two standard errors."""
        return self.tracer.value > 2 * self.tracer.sigma

    def conductivity(self, charge: float = 1.0, collective: bool = False) -> Estimate:
        """Ionic conductivity ``n z² e² D / (V k T)`` in mS/cm (Nernst and Einstein), from the tracer or the collective diffusivity.

        Parameters
        ----------
        charge : of the ion, e

        Raises
        ------
        InputError
            Without a volume or a temperature.
        """
        if self.density is None or self.temperature is None:
            missing = "temperature" if self.temperature is None else "volume"
            raise InputError(
                f"{self.name}: a conductivity needs a {missing}; "
                + ("give the temperature in K" if missing == "temperature" else "the system must repeat in three directions")
            )
        return (self.collective if collective else self.tracer) * nernst_einstein(1.0, self.density, charge, self.temperature)


def nernst_einstein(diffusivity: float, density: float, charge: float, temperature: float) -> float:
    """Conductivity in mS/cm of ions with a diffusivity (cm²/s), a density (1/Å³), a charge (e) at a temperature (K).

    Raises
    ------
    InputError
        If density or temperature are not above 0, or the charge is 0.
    """
    if not density > 0 or not temperature > 0 or charge == 0:
        raise InputError(f"density {density:g} per Å³, temperature {temperature:g} K, charge {charge:g} e; expected numbers above 0")
    return _MILLISIEMENS * density * charge**2 * (diffusivity / CM2_PER_S) / (BOLTZMANN * temperature)


# --- one trajectory -----------------------------------------------------------------------------------------------------------------------
def paths(walk: Walk, species: str, framework: Sequence[str] | None = None) -> Array:
    """(K, n, 3) Å: where the atoms of a species went, seen from the framework.

    Under a changing cell positions are taken to the mean cell, so that its breathing is no displacement.

    Parameters
    ----------
    framework : species that stay; None: all but the mobile one, or, where there is no other, everything (its centre stays)

    Raises
    ------
    InputError
        If there is no such species.
    """
    mobile = walk.atoms_of(species)
    positions = walk.positions
    if walk.pbc.all() and len(walk) > 1 and np.ptp(walk.cell, axis=0).max() > 1e-9:
        positions = (positions @ np.linalg.inv(walk.cell)) @ walk.cell.mean(0)
    stays = [name for name in walk.species if name != species] if framework is None else list(framework)
    rest = np.concatenate([walk.atoms_of(name) for name in stays]) if stays else np.arange(len(walk.numbers))
    drift = positions[:, rest].mean(1) - positions[0, rest].mean(0)
    return np.asarray(positions[:, mobile] - drift[:, None])


def squared(walks: Array, lags: NDArray[np.int64]) -> Array:
    """(L, n, 3) mean-square displacement of each path (K, n, 3) along each axis at some lags (in frames), over all time origins."""
    k = len(walks)
    found = np.empty((len(lags), *walks.shape[1:]))
    for start in range(0, walks.shape[1], 64):
        part = walks[:, start : start + 64] - walks[0, start : start + 64]
        spectrum = np.fft.rfft(part, n=2 * k, axis=0)
        product = np.fft.irfft(spectrum * spectrum.conj(), n=2 * k, axis=0)[lags]
        total = np.concatenate([np.zeros((1, *part.shape[1:])), np.cumsum(part * part, axis=0)])
        square = total[k - lags] + total[k] - total[lags]
        found[:, start : start + 64] = (square - 2 * product) / (k - lags)[:, None, None]
    return found


def diffusion(
    walk: Walk,
    species: str,
    *,
    begin: float | None = None,
    end: float | None = None,
    framework: Sequence[str] | None = None,
    temperature: float | None = None,
) -> Diffusion:
    """Diffusivity of a species with its standard error.

    Parameters
    ----------
    begin : fs, the shortest lag of the fit: motion must be diffusive from there on. None: the shortest from which the diffusivity no
        longer depends on it beyond its error
    end : fs, the longest lag; None: half of the trajectory
    framework : species that stay; None: all others
    temperature : K; None: what the trajectory says

    Raises
    ------
    InputError
        For an unknown species, a trajectory of fewer than 40 frames, or lags outside of it.
    """
    if len(walk) < _FEWEST_FRAMES:
        raise InputError(f"{walk.name or 'the trajectory'} has {len(walk)} frames; a diffusivity needs at least {_FEWEST_FRAMES}")
    went = paths(walk, species, framework)
    frames = len(went)
    longest = frames // 2 if end is None else round(end / walk.interval)
    if begin is not None and not 0 < begin < longest * walk.interval:
        raise InputError(f"lags from {begin:g} to {longest * walk.interval:g} fs; expected 0 < begin < end")
    if longest > frames - 2 or longest < 4:
        raise InputError(
            f"a longest lag of {longest * walk.interval:g} fs in a trajectory of {walk.duration:g} fs with frames every "
            f"{walk.interval:g} fs; expected at least 4 frames and less than the trajectory"
        )
    step = max(1, -(-frames // _GRID))
    starts = [max(1, round(begin / walk.interval / step))] if begin is not None else _starts(longest, step)
    fits = []
    for first in starts:
        fits.append(_fitted(went, _spaced(first, longest // step), step, walk.interval))
    place = _plateau(fits) if begin is None else 0
    best = _settled(went, fits[place], step, walk.interval, chosen=begin is None)
    shown = np.unique(np.rint(np.linspace(0, longest, 400)).astype(np.int64))
    each = squared(went, shown)
    square = each.mean(1)
    error = each.sum(2).std(1, ddof=1) * sqrt(best.together / went.shape[1]) if went.shape[1] > 1 else np.full(len(shown), np.nan)
    charge = squared(went.sum(1, keepdims=True), shown)[:, 0].sum(1) / went.shape[1]
    warm = walk.temperature if temperature is None else float(temperature)
    return Diffusion(
        walk.name,
        species,
        went.shape[1],
        warm,
        Displacement(species, np.asarray(shown * walk.interval, dtype=np.float64), square.sum(1), square, charge, error),
        best.tracer * CM2_PER_S,
        best.collective * CM2_PER_S,
        best.fit,
        best.offset,
        6 * best.tracer.value,
        best.together,
        best.unsettled * CM2_PER_S,
        went.shape[1] / walk.volume if walk.pbc.all() else None,
        walk.duration,
    )


@dataclass(frozen=True)
class _Fit:
    """A fit with a shortest lag; diffusivities in Å²/fs."""

    tracer: Estimate
    collective: Estimate
    fit: tuple[float, float]
    offset: float
    together: float
    unsettled: float = 0.0


def _spaced(first: int, last: int) -> NDArray[np.int64]:
    """Lags of a fit: dense where they are short, as long ones say much the same."""
    return np.unique(np.rint(np.geomspace(first, max(last, first + 2), _MOST_LAGS)).astype(np.int64))


def _starts(longest: int, step: int) -> list[int]:
    """Shortest lags to try, in steps of the grid: up to half of the longest."""
    most = max(longest // (2 * step), 2)
    return sorted({round(first) for first in np.geomspace(1, most, 2 + int(2 * np.log2(most)))})


def _plateau(fits: Sequence[_Fit]) -> int:
    """The first fit that agrees with those whose shortest lags are two, four and eight times as long; the last one if there is none.

    The difference of an estimate and a less efficient one has the difference of their variances (Hausman, Econometrica 46, 1251 (1978)).
    """
    for k, one in enumerate(fits[:-1]):
        later = [next((f for f in fits[k + 1 :] if f.fit[0] >= 0.99 * times * one.fit[0]), fits[-1]) for times in (2, 4, 8)]
        gaps = [abs(one.tracer.value - other.tracer.value) for other in later]
        noise = [sqrt(max(other.tracer.sigma**2 - one.tracer.sigma**2, (0.2 * other.tracer.sigma) ** 2)) for other in later]
        if all(gap <= 1.5 * width for gap, width in zip(gaps, noise, strict=True)):
            return k
    return len(fits) - 1


def _settled(went: Array, best: _Fit, step: int, interval: float, chosen: bool) -> _Fit:
    """A fit whose error bar also holds what chance does not explain of its change when the shortest lag is doubled: motion that is not
    diffusive yet. A shortest lag that was chosen by the data is paid for with the error bar of the doubled one.
    """
    first, last = (round(lag / interval / step) for lag in best.fit)
    if 2 * first > last - 2:
        return best
    later = _fitted(went, _spaced(2 * first, last), step, interval)
    gap = (best.tracer.value - later.tracer.value) ** 2
    noise = max(later.tracer.sigma**2 - best.tracer.sigma**2, 0.0)
    unsettled = max(gap - 2 * noise, 0.0)
    own = max(best.tracer.sigma, later.tracer.sigma) if chosen else best.tracer.sigma
    return replace(best, tracer=Estimate(best.tracer.value, sqrt(own**2 + unsettled)), unsettled=sqrt(unsettled))


def _fitted(went: Array, lags: NDArray[np.int64], step: int, interval: float) -> _Fit:
    """The fit over some lags, which are counted in `step` frames."""
    frames, atoms = went.shape[:2]
    points = (frames - 1) // step + 1
    each = squared(went, lags * step).sum(2)  # (L, n)
    both = squared(went.sum(1, keepdims=True), lags * step).sum(2)[:, 0] / atoms
    unit = interval * step
    line = _slope(each.mean(1), lags, points, unit)
    own = line.weights @ each
    # the atoms' spread, held to that of independent random walks where atoms are few
    alone = line.scatter * (2 * line.diffusivity * unit) ** 2
    spread = ((own - own.mean()) ** 2).sum() + _PRIOR * alone
    together = _together(went, int(lags[0]) * step)
    # a single walk, whose slope is a poor measure of its own error: how far it went at the shortest lag is a better one
    went_far = float(both[0]) / 3 / (int(lags[0]) + 2 * line.ratio)
    return _Fit(
        Estimate(line.diffusivity, sqrt(spread / (atoms - 1 + _PRIOR) / atoms * together)),
        Estimate(float(line.weights @ both), sqrt(line.scatter) * went_far),
        (float(lags[0] * unit), float(lags[-1] * unit)),
        line.offset,
        together,
    )


# how many atoms the theory of independent random walks counts for in the error bar
_PRIOR = 8.0


def _slope(mean: Array, lags: NDArray[np.int64], points: int, unit: float) -> _Line:
    """The line through a mean-square displacement (L) by generalised least squares."""
    design = np.stack([lags * unit, np.ones(len(lags))], axis=1)
    parts = _covariance_parts(tuple(lags.tolist()), points)
    ratio, found = 0.0, np.zeros(2)
    for _ in range(3):
        shape = parts[0] + ratio * parts[1] + ratio**2 * parts[2]
        solved = np.linalg.solve(shape + 1e-10 * np.trace(shape) / len(lags) * np.eye(len(lags)), design)
        hat = np.linalg.solve(design.T @ solved, solved.T)
        found, scatter = hat @ mean, float(hat[0] @ shape @ hat[0])
        # vibration and step, along one axis: mean square amplitude by mean square step
        last, ratio = ratio, min(max(found[1], 0.0) / 6 / max(found[0] * unit / 3, 1e-12), 1e4)
    return _Line(float(found[0] / 6), float(found[1]), hat[0] / 6, scatter / 12, last)


@dataclass(frozen=True, eq=False)
class _Line:
    """A fitted line: diffusivity (Å²/fs), offset (Å²), weights (L) that make the first of a mean-square displacement, the variance of the
    first by the fourth power of an independent walk's step, and the square of its vibration by that of its step.
    """

    diffusivity: float
    offset: float
    weights: Array
    scatter: float
    ratio: float


@cache
def _covariance_parts(lags: tuple[int, ...], points: int) -> tuple[Array, Array, Array]:
    """(L, L) covariance of the averages over overlapping windows of a one-dimensional random walk with unit steps and vibrations on top, as
    what stands with powers 0, 1 and 2 of their mean square amplitude.

    Displacements over the windows (s, s + m) and (s + δ, s + δ + n) covary by their overlap, and by plus or minus that amplitude for each
    end they share; the squares of Gaussians covary by twice the square of that.
    """
    each = np.array(lags)
    m, n = each[:, None, None], each[None, :, None]
    delta = np.arange(-int(each.max()), int(each.max()) + 1)
    shared = np.maximum(0, np.minimum(m, delta + n) - np.maximum(0, delta)).astype(np.float64)
    ends = 1.0 * (delta == 0) + (delta + n == m) - (delta + n == 0) - (delta == m)
    count = np.maximum(0, np.minimum(points - 1 - m, points - 1 - n - delta) - np.maximum(0, -delta) + 1)
    scale = 2.0 / ((points - each)[:, None] * (points - each)[None, :])
    return tuple(np.asarray(scale * (count * part).sum(2)) for part in (shared**2, 2 * shared * ends, ends**2))  # type: ignore[return-value]


def _together(went: Array, lag: int) -> float:
    """Variance of the summed squared displacements by the sum of their variances: above 1 where atoms move together.

    Windows of one lag, half overlapping, at least twelve of them one after the other; axes are counted apart.
    """
    frames = len(went)
    lag = max(1, min(lag, (frames - 1) // 12))
    starts = np.arange(0, frames - lag, max(lag // 2, 1))
    square = (went[starts + lag] - went[starts]) ** 2  # (W, n, 3)
    alone = square.var(0, ddof=1).sum()
    return max(1.0, float(square.sum(1).var(0, ddof=1).sum() / alone)) if alone > 0 else 1.0


def merged(runs: Sequence[Diffusion]) -> Diffusion:
    """Independent runs of one system at one temperature as one: means weighted by what was looked at (atoms times duration).

    Raises
    ------
    InputError
        For runs of different species or densities.
    """
    if len({(one.species, one.atoms) for one in runs}) != 1:
        raise InputError("runs of different species or sizes cannot be averaged")
    weight = np.array([one.atoms * one.duration for one in runs])
    weight = weight / weight.sum()
    first = runs[0]
    if len(runs) == 1:
        return first

    def mean(name: str) -> Estimate:
        parts = [getattr(one, name) for one in runs]
        value = float(sum(w * p.value for w, p in zip(weight, parts, strict=True)))
        return Estimate(value, sqrt(sum((w * p.sigma) ** 2 for w, p in zip(weight, parts, strict=True))))

    known = [one.temperature for one in runs if one.temperature is not None]
    return Diffusion(
        ", ".join(one.name for one in runs),
        first.species,
        first.atoms,
        float(np.mean(known)) if known else None,
        _mean_displacement([one.displacement for one in runs], weight),
        mean("tracer"),
        mean("collective"),
        (min(one.fit[0] for one in runs), max(one.fit[1] for one in runs)),
        float(sum(w * one.offset for w, one in zip(weight, runs, strict=True))),
        float(sum(w * one.slope for w, one in zip(weight, runs, strict=True))),
        max(one.together for one in runs),
        max(one.unsettled for one in runs),
        first.density,
        sum(one.duration for one in runs),
    )


def _mean_displacement(runs: Sequence[Displacement], weight: Array) -> Displacement:
    """Weighted mean over runs with the same lags; the first one where the lags differ."""
    shortest = min(len(one.lag) for one in runs)
    lag = runs[0].lag[:shortest]
    if not all(np.array_equal(one.lag[:shortest], lag) for one in runs):
        return runs[0]
    mean, axes, charge = (
        np.sum([w * getattr(one, name)[:shortest] for w, one in zip(weight, runs, strict=True)], axis=0)
        for name in ("mean", "axes", "charge")
    )
    sigma = np.sqrt(np.sum([(w * one.sigma[:shortest]) ** 2 for w, one in zip(weight, runs, strict=True)], axis=0))
    return Displacement(runs[0].species, lag, mean, axes, charge, sigma)


# --- rules of others ----------------------------------------------------------------------------------------------------------------------
def line_fit(walk: Walk, species: str, begin: float, end: float, framework: Sequence[str] | None = None) -> float:
    """Diffusivity in cm²/s from an unweighted line through the mean-square displacement at all lags from `begin` to `end` fs."""
    first, last = int(np.ceil(begin / walk.interval - 1e-9)), int(np.floor(end / walk.interval + 1e-9))
    if not 0 < first < last < len(walk):
        raise InputError(f"lags of {begin:g} to {end:g} fs in a trajectory of {walk.duration:g} fs")
    lags = np.arange(first, last + 1)
    mean = squared(paths(walk, species, framework), lags).sum(2).mean(1)
    return float(np.polyfit(lags * walk.interval, mean, 1)[0] / 6 * CM2_PER_S)


def analyser_fit(walk: Walk, species: str, framework: Sequence[str] | None = None) -> float:
    """Diffusivity in cm²/s as pymatgen's ``DiffusionAnalyzer`` with ``smoothed="max"`` finds it, which GNoME used.

    At most 200 lags between 1 ps and the least of ``atoms × frames / 30`` and all frames; mean-square displacements over all origins; least
    squares with weights 1/lag.

    Raises
    ------
    InputError
        If the trajectory is shorter than its shortest lag.
    """
    went = paths(walk, species, framework)
    frames, atoms = went.shape[:2]
    shortest = int(1000 / walk.interval)
    longest = min(int(atoms * frames / 30), frames)
    if longest <= shortest:
        raise InputError(f"{walk.duration / 1e3:g} ps of {atoms} atoms are too few observations for this rule; run longer")
    stride = max(int((longest - shortest) / 200), 1)
    lags = np.arange(max(shortest, 1), longest, stride)
    mean = squared(went, lags).sum(2).mean(1)
    root = np.sqrt(1 / (lags * walk.interval))
    design = np.stack([lags * walk.interval, np.ones(len(lags))], axis=1)
    (slope, _), *_ = np.linalg.lstsq(design * root[:, None], mean * root, rcond=None)
    return float(slope / 6 * CM2_PER_S)


# --- several temperatures -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Arrhenius:
    """``D = D₀ exp(−E_a / kT)`` through several temperatures.

    Parameters
    ----------
    activation : E_a, eV
    log_prefactor : natural logarithm of D₀ in cm²/s
    covariance : (2, 2) of ln D₀ and E_a
    chi_squared : per degree of freedom; None with two temperatures, which a line always meets
    temperatures : (M) K that were used
    left_out : names of runs without resolved diffusion
    """

    activation: Estimate
    log_prefactor: Estimate
    covariance: Array
    chi_squared: float | None
    temperatures: tuple[float, ...]
    left_out: tuple[str, ...] = ()

    def at(self, temperature: float) -> tuple[float, float]:
        """Diffusivity (cm²/s) at a temperature (K), and the standard error of its natural logarithm."""
        row = np.array([1.0, -1 / (BOLTZMANN * temperature)])
        value = self.log_prefactor.value - self.activation.value / (BOLTZMANN * temperature)
        return exp(value), float(sqrt(row @ self.covariance @ row))


def arrhenius(runs: Sequence[Diffusion]) -> Arrhenius:
    """Activation energy from diffusivities at several temperatures: a line through ln D over 1/kT, weighted by their errors.

    Where the points scatter more than their errors say, the errors of the line grow with them.

    Raises
    ------
    InputError
        With fewer than two different temperatures at which diffusion is resolved.
    """
    used = [one for one in runs if one.temperature is not None and one.resolved]
    left = tuple(one.name for one in runs if one not in used)
    kelvin = np.array([one.temperature for one in used], dtype=np.float64)
    if len(kelvin) < 2 or np.ptp(kelvin) < 1:
        raise InputError(
            f"{len(used)} of {len(runs)} runs have a temperature and a diffusivity above twice its error; "
            "an Arrhenius fit needs two temperatures"
        )
    design = np.stack([np.ones(len(kelvin)), -1 / (BOLTZMANN * kelvin)], axis=1)
    log = np.log([one.tracer.value for one in used])
    width = np.array([one.tracer.sigma / one.tracer.value for one in used])
    scaled = design / width[:, None]
    covariance = np.linalg.inv(scaled.T @ scaled)
    found = covariance @ scaled.T @ (log / width)
    chi = None
    if len(kelvin) > 2:
        chi = float((((log - design @ found) / width) ** 2).sum() / (len(kelvin) - 2))
        covariance = covariance * max(1.0, chi)
    error = np.sqrt(np.diag(covariance))
    return Arrhenius(
        Estimate(float(found[1]), float(error[1])),
        Estimate(float(found[0]), float(error[0])),
        covariance,
        chi,
        tuple(kelvin.tolist()),
        left,
    )
