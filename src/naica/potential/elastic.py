"""Elastic constants: stresses of strained cells, as many strains as symmetry leaves independent.

``C_IJ = ∂σ_I/∂ε_J`` with Voigt's order xx, yy, zz, yz, xz, xy and doubled shears. Each strain is applied with both signs and two sizes, so
that the slope is free of errors up to the fourth order. The answers to a strain hold for all its images under the point group; one least
squares fit to all of them gives the tensor its symmetry. Atoms stay where the strain puts them (``clamped``) or relax (``relaxed``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.potential.md import GPA
from naica.potential.single_points import Point, computed, relaxed, relaxed_all, whole
from naica.structure import Crystal

Array = NDArray[np.float64]

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_ROWS, _COLUMNS = (np.array(index) for index in zip(*VOIGT, strict=True))


@dataclass(frozen=True, eq=False)
class Moduli:
    """What follows from an elastic tensor (6, 6) in GPa: moduli in GPa by Voigt, Reuss and Hill, stability, anisotropy.

    Parameters
    ----------
    tensor : (6, 6) GPa
    bulk, shear : (3) by Voigt (upper bound), Reuss (lower bound), Hill (their mean), GPa
    young, poisson : of the isotropic solid with Hill's moduli; GPa, and without unit
    anisotropy : universal index 5 G_V/G_R + B_V/B_R − 6 (Ranganathan and Ostoja-Starzewski, PRL 101, 055504 (2008)); 0 is isotropic
    eigenvalues : (6) GPa, of the tensor in Mandel's notation; a stable crystal has none below 0 (Born)
    """

    tensor: Array
    bulk: tuple[float, float, float]
    shear: tuple[float, float, float]
    young: float
    poisson: float
    anisotropy: float
    eigenvalues: Array

    @property
    def stable(self) -> bool:
        """Whether every small strain costs energy."""
        return bool(self.eigenvalues.min() > 0)

    def debye_temperature(self, crystal: Crystal) -> float:
        """K, from the mean speed of sound (Anderson, J. Phys. Chem. Solids 24, 909 (1963)).

        Raises
        ------
        InputError
            For an unstable tensor: it has no speed of sound.
        """
        from ase.data import atomic_masses

        if not self.stable:
            raise InputError("an unstable crystal has no speed of sound")
        density = float(np.sum(np.asarray(atomic_masses)[crystal.numbers])) * 1.66053906660e-27 / (crystal.volume * 1e-30)
        bulk, shear = self.bulk[2] * 1e9, self.shear[2] * 1e9
        along, across = np.sqrt((bulk + 4 / 3 * shear) / density), np.sqrt(shear / density)
        mean = ((2 / across**3 + 1 / along**3) / 3) ** (-1 / 3)
        return float(6.62607015e-34 / 1.380649e-23 * (3 * len(crystal) / (4 * pi * crystal.volume * 1e-30)) ** (1 / 3) * mean)


@dataclass(frozen=True, eq=False)
class Elasticity:
    """Elastic constants of a crystal.

    Parameters
    ----------
    crystal : the relaxed one that was strained
    relaxed, clamped : with and without relaxation of the atoms in the strained cells; `relaxed` is None where it was not asked for
    strains : how many independent strains there were
    rms : GPa, what the tensor leaves of the stresses' slopes
    pressure : GPa, left in the relaxed cell
    """

    crystal: Crystal
    relaxed: Moduli | None
    clamped: Moduli
    strains: int
    rms: float
    pressure: float

    @property
    def moduli(self) -> Moduli:
        """The relaxed ones where they are known."""
        return self.relaxed or self.clamped


def elasticity(
    crystal: Crystal,
    model: Any,
    *,
    strain: float = 0.005,
    relax: bool = True,
    relax_atoms: bool = True,
    fmax: float = 1e-3,
    progress: Callable[[int, int], None] | None = None,
) -> Elasticity:
    """The elastic tensor from stresses of strained cells.

    Parameters
    ----------
    model : a name, a folder, a potential, an ASE calculator
    strain : the larger one of the two sizes
    relax : relax cell and atoms before
    relax_atoms : also in the strained cells
    fmax : eV/Å, of these relaxations
    progress : called with (done, total) strained cells

    Raises
    ------
    InputError
        For what is no crystal, or a strain out of range.
    RunError
        If a relaxation does not converge or a strained cell cannot be computed.
    """
    whole(crystal)
    if not 0 < strain <= 0.05:
        raise InputError(f"a strain of {strain}; expected more than 0 and at most 0.05")
    start = relaxed(crystal, model, fmax) if relax else crystal
    turns = _point_group(start)
    chosen = independent_strains(turns)
    sizes = strain * np.array([-1.0, -0.5, 0.5, 1.0])
    strained = [deformed(start, size * pattern) for pattern in chosen for size in sizes]
    points = computed(strained, model)
    clamped, rms = _tensor(chosen, sizes, points, turns)
    loose = None
    # where symmetry holds the atoms in place, relaxing changes nothing
    if relax_atoms and max(np.abs(point.forces).max() for point in points) > fmax:
        moved = relaxed_all(strained, model, fmax, False, progress)
        loose, rms = _tensor(chosen, sizes, computed(moved, model), turns)
    elif relax_atoms:
        loose = clamped
    left = -float(np.trace(computed([start], model)[0].stress)) / 3 * GPA
    return Elasticity(start, None if loose is None else moduli(loose), moduli(clamped), len(chosen), rms, left)


def deformed(crystal: Crystal, strain: Array) -> Crystal:
    """The crystal under a strain (3, 3), atoms carried along."""
    stretch = np.eye(3) + strain
    return crystal.replace(cell=crystal.cell @ stretch, positions=crystal.positions @ stretch)


def independent_strains(turns: Sequence[Array]) -> list[Array]:
    """Symmetric strains (3, 3) of unit size whose images under the rotations (3, 3) span all strains: two for cubic crystals, six for
    triclinic ones.
    """
    chosen: list[Array] = []
    span: Array = np.zeros((0, 6))
    for row, column in VOIGT:
        pattern = np.zeros((3, 3))
        pattern[row, column] += 0.5
        pattern[column, row] += 0.5
        images = np.stack([_voigt(turn @ pattern @ turn.T) for turn in turns])
        if np.linalg.matrix_rank(np.concatenate([span, images[:1]]), tol=1e-6) > np.linalg.matrix_rank(span, tol=1e-6):
            chosen.append(pattern)
            span = np.concatenate([span, images])
    return chosen


def moduli(tensor: Array) -> Moduli:
    """Moduli of an elastic tensor (6, 6) in GPa (Hill, Proc. Phys. Soc. A 65, 349 (1952)).

    Raises
    ------
    InputError
        If it is not symmetric, not finite or singular.
    """
    c = np.asarray(tensor, dtype=np.float64)
    if c.shape != (6, 6) or not np.isfinite(c).all() or np.abs(c - c.T).max() > 1e-6 * max(np.abs(c).max(), 1e-12):
        raise InputError("expected a symmetric elastic tensor (6, 6) of finite numbers")
    if np.linalg.cond(c) > 1e12:
        raise InputError("the elastic tensor is singular: some strain costs nothing")
    s: Array = np.linalg.inv(c).astype(np.float64)

    def parts(t: Array) -> tuple[float, float, float]:
        return float(np.trace(t[:3, :3])), float(t[0, 1] + t[1, 2] + t[0, 2]), float(np.trace(t[3:, 3:]))

    a, b, d = parts(c)
    e, f, g = parts(s)
    bulk_v, shear_v = (a + 2 * b) / 9, (a - b + 3 * d) / 15
    bulk_r, shear_r = 1 / (e + 2 * f), 15 / (4 * e - 4 * f + 3 * g)
    bulk, shear = (bulk_v + bulk_r) / 2, (shear_v + shear_r) / 2
    scale = np.array([1, 1, 1, *[np.sqrt(2)] * 3])
    return Moduli(
        c,
        (bulk_v, bulk_r, bulk),
        (shear_v, shear_r, shear),
        9 * bulk * shear / (3 * bulk + shear),
        (3 * bulk - 2 * shear) / (2 * (3 * bulk + shear)),
        5 * shear_v / shear_r + bulk_v / bulk_r - 6,
        np.linalg.eigvalsh(c * np.outer(scale, scale)).astype(np.float64),
    )


def _voigt(strain: Array) -> Array:
    """(6) with doubled shears."""
    return np.asarray(strain[_ROWS, _COLUMNS] * np.array([1, 1, 1, 2, 2, 2]))


def _point_group(crystal: Crystal) -> list[Array]:
    """Rotations (3, 3) of Cartesian columns that the crystal's space group holds."""
    from naica.structure.symmetry import symmetry

    found = np.unique(symmetry(crystal).rotations, axis=0)
    basis = crystal.cell.T
    return [basis @ turn @ np.linalg.inv(basis) for turn in found]


def _tensor(patterns: Sequence[Array], sizes: Array, points: Sequence[Point], turns: Sequence[Array]) -> tuple[Array, float]:
    """The tensor (6, 6) in GPa that best fits the slopes of all stresses and of their images, and what it leaves of them."""
    # stress = constant + slope ε + … + cubic: with ±½ and ±1 the slope is exact up to the fourth order
    powers = np.stack([sizes**k for k in range(4)], axis=1)
    rows, values = [], []
    for k, pattern in enumerate(patterns):
        stresses = np.stack([point.stress for point in points[k * len(sizes) : (k + 1) * len(sizes)]])
        slope = np.linalg.lstsq(powers, stresses.reshape(len(sizes), 9), rcond=None)[0][1].reshape(3, 3) * GPA
        for turn in turns:
            strain = _voigt(turn @ pattern @ turn.T)
            answer = (turn @ slope @ turn.T)[_ROWS, _COLUMNS]
            for i in range(6):
                row = np.zeros((6, 6))
                row[i] = strain
                rows.append((row + row.T - np.diag(np.diag(row)))[np.triu_indices(6)])
                values.append(answer[i])
    design, target = np.array(rows), np.array(values)
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    tensor = np.zeros((6, 6))
    tensor[np.triu_indices(6)] = found
    tensor = tensor + np.triu(tensor, 1).T
    return tensor, float(np.sqrt(((design @ found - target) ** 2).mean()))
