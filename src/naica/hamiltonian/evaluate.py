"""How good a predicted Hamiltonian is: errors of H by range and by pair of shells, and what they do to bands, beside the baselines.

The error of all elements of H says little: most are small, and superposed atoms already get them right. So it stands beside that of H₀,
of the two-centre table alone, and of bands; μ is removed first, for H and H + μ S are the same physics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.hamiltonian.bands import all_energies, filling, mesh_for
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.model import HamiltonianModel

Array = NDArray[np.float64]
RANGES: tuple[tuple[str, float, float], ...] = (
    ("on site", -1.0, 1e-6),
    ("to 3 Å", 1e-6, 3.0),
    ("3 to 6 Å", 3.0, 6.0),
    ("beyond 6 Å", 6.0, np.inf),
)


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors over some structures, eV.

    `ranges` by name of ``RANGES`` and ``all``; `shells` by pair such as ``s-p`` (both orders together); `occupied` and `empty` of bands
    (the four lowest empty ones), `gap` of the gaps of those that have one (NaN without); `structures` how many.
    """

    ranges: dict[str, float]
    shells: dict[str, float]
    occupied: float
    empty: float
    gap: float
    structures: int


def errors(pairs: Sequence[tuple[OrbitalMatrices, OrbitalMatrices]], bands: bool = True, spacing: float = 0.6) -> Errors:
    """Errors of predicted against true matrices, given as (true, predicted) with the same pairs of atoms.

    Parameters
    ----------
    bands : whether to solve for bands (on a mesh of k points `spacing` 1/Å apart)
    """
    ranges = {name: [0.0, 0.0] for name, *_ in RANGES} | {"all": [0.0, 0.0]}
    shells: dict[str, list[float]] = {}
    occupied, empty, gaps = [], [], []
    for true, guess in pairs:
        mu = _gauge_between(true, guess)
        error = np.abs(guess.blocks["H"] - true.blocks["H"] - (mu * true.blocks["S"] if not true.orthogonal else 0))
        _count(true, error, ranges, shells)
        if bands:
            o, e, g = _band_errors(true, guess, spacing)
            occupied.append(o)
            empty.append(e)
            gaps.append(g)

    def mean(values: list[float]) -> float:
        good = [v for v in values if np.isfinite(v)]
        return float(np.mean(good)) if good else float("nan")

    return Errors(
        {name: total / count if count else float("nan") for name, (total, count) in ranges.items()},
        {name: total / count for name, (total, count) in sorted(shells.items())},
        mean(occupied),
        mean(empty),
        mean(gaps),
        len(pairs),
    )


def compared(model: HamiltonianModel, truth: Sequence[OrbitalMatrices], bands: bool = True) -> dict[str, Errors]:
    """Errors of a model, of its tables without the network, and of H₀ where there is one, by name."""
    found = {
        "model": errors([(t, model.complete(t)) for t in truth], bands),
        "two-centre table": errors([(t, t.with_blocks(H=model.base(t))) for t in truth], bands),
    }
    if all("H0" in t.blocks for t in truth):
        found["superposed atoms"] = errors([(t, t.with_blocks(H=t.blocks["H0"])) for t in truth], bands)
    return found


def _gauge_between(true: OrbitalMatrices, guess: OrbitalMatrices) -> float:
    return guess.with_blocks(H0=true.blocks["H"]).gauge("H", "H0")


def _count(true: OrbitalMatrices, error: Array, ranges: dict[str, list[float]], shells: dict[str, list[float]]) -> None:
    weight = np.where(true.on_site, 1.0, 2.0)
    sizes = np.diff(true.starts)
    total = np.add.reduceat(error, true.starts[:-1]) * weight
    for name, low, high in RANGES:
        here = (true.distances > low) & (true.distances <= high)
        ranges[name][0] += float(total[here].sum())
        ranges[name][1] += float((sizes * weight)[here].sum())
    ranges["all"][0] += float(total.sum())
    ranges["all"][1] += float((sizes * weight).sum())
    numbers = true.crystal.numbers
    kinds = numbers[true.pairs]
    for a, b in np.unique(kinds, axis=0):
        chosen = np.flatnonzero((kinds == (a, b)).all(axis=1))
        left, right = true.basis[int(a)], true.basis[int(b)]
        blocks = error[true.starts[chosen][:, None] + np.arange(left.size * right.size)].reshape(-1, left.size, right.size)
        blocks = blocks * weight[chosen][:, None, None]
        for la, first in zip(left.shells, left.offsets, strict=True):
            for lb, second in zip(right.shells, right.offsets, strict=True):
                own = shells.setdefault("-".join(sorted(("spdfgh"[la], "spdfgh"[lb]), key="spdfgh".index)), [0.0, 0.0])
                own[0] += float(blocks[:, first : first + 2 * la + 1, second : second + 2 * lb + 1].sum())
                own[1] += float(weight[chosen].sum()) * (2 * la + 1) * (2 * lb + 1)


def _band_errors(true: OrbitalMatrices, guess: OrbitalMatrices, spacing: float) -> tuple[float, float, float]:
    """MAE of occupied and of the four next bands with their mean difference removed, and the difference of gaps (NaN for metals)."""
    points = mesh_for(true, spacing)
    a, b = all_energies(true, points), all_energies(guess, points)
    electrons = true.electrons or sum(true.basis[int(z)].electrons for z in true.crystal.numbers)
    n = int(np.ceil(electrons / 2))
    shift = np.nanmean(b[:, :n] - a[:, :n])
    difference = np.abs(b[:, : n + 4] - shift - a[:, : n + 4])
    first, second = filling(a, points, electrons), filling(b, points, electrons)
    gap = abs(first.gap - second.gap) if not first.metal else float("nan")
    return float(np.nanmean(difference[:, :n])), float(np.nanmean(difference[:, n:])), gap
