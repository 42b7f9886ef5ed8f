"""Equations of state: energy against volume, and the bulk modulus with its error.

``birch-murnaghan`` (Birch, Phys. Rev. 71, 809 (1947)), with x = (V₀/V)^⅔::

    E = E₀ + 9/16 V₀ B₀ [ (x − 1)³ B₀' + (x − 1)² (6 − 4x) ]

``vinet`` (Vinet et al., J. Geophys. Res. 92, 9319 (1987)), with y = (V/V₀)^⅓ and η = 3/2 (B₀' − 1)::

    E = E₀ + 9 V₀ B₀ / η² [ 1 − (1 − η (1 − y)) exp(η (1 − y)) ]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naica.errors import ConfigError, InputError
from naica.potential.single_points import computed, relaxed, relaxed_all, whole
from naica.potential.transport import Estimate
from naica.structure import Crystal

Array = NDArray[np.float64]


def birch_murnaghan(volume: ArrayLike, energy: float, volume_0: float, bulk: float, slope: float) -> Array:
    """Energies (eV) at volumes (Å³): E₀ (eV), V₀ (Å³), B₀ (eV/Å³), B₀'."""
    x = (volume_0 / np.asarray(volume, dtype=np.float64)) ** (2 / 3)
    return np.asarray(energy + 9 / 16 * volume_0 * bulk * ((x - 1) ** 3 * slope + (x - 1) ** 2 * (6 - 4 * x)))


def vinet(volume: ArrayLike, energy: float, volume_0: float, bulk: float, slope: float) -> Array:
    """Energies (eV) at volumes (Å³): E₀ (eV), V₀ (Å³), B₀ (eV/Å³), B₀'."""
    short = 1 - (np.asarray(volume, dtype=np.float64) / volume_0) ** (1 / 3)
    eta = 1.5 * (slope - 1)
    return np.asarray(energy + 9 * volume_0 * bulk / eta**2 * (1 - (1 - eta * short) * np.exp(eta * short)))


EQUATIONS: Mapping[str, Callable[..., Array]] = {"birch-murnaghan": birch_murnaghan, "vinet": vinet}


@dataclass(frozen=True, eq=False)
class EquationOfState:
    """A curve through energies at several volumes.

    Parameters
    ----------
    form : of `EQUATIONS`
    volumes, energies : (M) Å³ and eV, of the cell
    energy : E₀, eV
    volume : V₀, Å³
    bulk : B₀, eV/Å³
    slope : B₀', without unit
    rms : eV, of what the curve leaves
    atoms : in the cell
    """

    form: str
    volumes: Array
    energies: Array
    energy: Estimate
    volume: Estimate
    bulk: Estimate
    slope: Estimate
    rms: float
    atoms: int

    def curve(self, volumes: ArrayLike) -> Array:
        """Energies (eV) at volumes (Å³)."""
        return EQUATIONS[self.form](volumes, self.energy.value, self.volume.value, self.bulk.value, self.slope.value)


def fit(volumes: ArrayLike, energies: ArrayLike, form: str = "birch-murnaghan", atoms: int = 1) -> EquationOfState:
    """The curve through energies (eV) at volumes (Å³); errors are those of least squares with the scatter that is left.

    Raises
    ------
    ConfigError
        For an unknown form.
    InputError
        With fewer than five points, or if the lowest energy is at an end: the curve must enclose its minimum.
    """
    from scipy.optimize import curve_fit

    if form not in EQUATIONS:
        raise ConfigError(f"unknown equation of state {form!r}; expected one of {', '.join(EQUATIONS)}")
    v, e = np.asarray(volumes, dtype=np.float64), np.asarray(energies, dtype=np.float64)
    order = np.argsort(v)
    v, e = v[order], e[order]
    if v.shape != e.shape or len(v) < 5 or not np.isfinite(e).all() or v.min() <= 0:
        raise InputError(f"{len(v)} volumes, {len(e)} energies; expected at least five pairs of finite numbers")
    if e.argmin() in (0, len(e) - 1):
        raise InputError(f"the lowest energy is at the end of the scan ({v[e.argmin()]:.3f} Å³): widen it, or relax the crystal first")
    # a parabola says where to start
    quadratic = np.polyfit(v - v.mean(), e, 2)
    volume = v.mean() - quadratic[1] / (2 * quadratic[0])
    start = (e.min(), volume, max(2 * quadratic[0] * volume, 1e-3), 4.5)
    scale = (1.0, volume, start[2], 1.0)
    tight = {"ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14}
    found, covariance = curve_fit(EQUATIONS[form], v, e, p0=start, maxfev=20000, x_scale=scale, method="trf", **tight)
    error = np.sqrt(np.diag(covariance))
    lowest, where, bulk, slope = (Estimate(float(a), float(b)) for a, b in zip(found, error, strict=True))
    rms = float(np.sqrt(((EQUATIONS[form](v, *found) - e) ** 2).mean()))
    return EquationOfState(form, v, e, lowest, where, bulk, slope, rms, atoms)


def equation_of_state(
    crystal: Crystal,
    model: Any,
    form: str = "birch-murnaghan",
    *,
    span: float = 0.06,
    points: int = 11,
    relax: bool = True,
    fmax: float = 0.01,
) -> EquationOfState:
    """Energy against volume with a potential.

    Parameters
    ----------
    model : a name, a folder, a potential, an ASE calculator
    span : the volume goes from 1 − `span` to 1 + `span`
    points : how many volumes
    relax : relax cell and atoms before, and the atoms at each volume; the shape stays that of the relaxed cell
    fmax : eV/Å, of these relaxations

    Raises
    ------
    InputError
        For what is no crystal, or a scan that does not enclose the minimum.
    RunError
        If a relaxation does not converge or a volume cannot be computed.
    """
    whole(crystal)
    if not 0 < span < 0.5 or points < 5:
        raise InputError(f"a span of {span} with {points} points; expected 0 < span < 0.5 and at least 5 points")
    start = relaxed(crystal, model, fmax) if relax else crystal
    scaled = [start.scaled(float(factor)) for factor in np.linspace(1 - span, 1 + span, points)]
    first = computed(scaled, model)
    # where symmetry holds the atoms in place there is nothing to relax
    if relax and max(np.abs(one.forces).max() for one in first) > fmax:
        scaled = relaxed_all(scaled, model, fmax, cell=False)
        first = computed(scaled, model)
    return fit([one.volume for one in scaled], [one.energy for one in first], form, len(crystal))


def bulk_of(curves: Sequence[EquationOfState]) -> Estimate:
    """Bulk modulus (eV/Å³) as several forms see it: their mean, with their spread as the error."""
    values = [one.bulk.value for one in curves]
    return Estimate(float(np.mean(values)), float(np.std(values) + np.mean([one.bulk.sigma for one in curves])))
