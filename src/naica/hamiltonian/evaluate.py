"""How good a predicted Hamiltonian is: errors of H by range and by pair of shells, and what they do to bands, beside the baselines.

The error of all elements of H says little: most are small, and superposed atoms already get them right. So it stands beside that of H₀,
of the two-centre table alone, and of bands, and beside the noise of the labels (`naica.hamiltonian.noise`), below which no model can be
judged; μ is removed first, for H and H + μ S are the same physics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from naica.hamiltonian.bands import all_energies, filling, gaussians, mesh_for
from naica.hamiltonian.basis import Basis
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.model import HamiltonianModel

Array = NDArray[np.float64]
RANGES: tuple[tuple[str, float, float], ...] = (
    ("on site", -1.0, 1e-6),
    ("to 3 Å", 1e-6, 3.0),
    ("3 to 6 Å", 3.0, 6.0),
    ("beyond 6 Å", 6.0, np.inf),
)


# of densities of states: eV, how wide states are drawn, and how far above the Fermi level they are compared
_WIDTH, _ABOVE = 0.1, 5.0


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors over some structures, eV.

    Parameters
    ----------
    ranges : of H by name of ``RANGES``, and ``all``
    shells : of H by pair such as ``s-p`` (both orders together)
    orbitals : of H by pair of elements such as ``C-O``, for each orbital of the one with each of the other
    occupied, empty : of bands (the four lowest empty ones), their mean difference removed
    gap : of the gaps of those that have one (NaN without)
    density : the share of states that lie elsewhere: half the integral of |D − D'| over that of D, from below to 5 eV above the Fermi level
    structures : how many
    energy, forces : per atom (eV) and eV/Å, where both have them (NaN without)
    """

    ranges: dict[str, float]
    shells: dict[str, float]
    occupied: float
    empty: float
    gap: float
    structures: int
    density: float = float("nan")
    energy: float = float("nan")
    forces: float = float("nan")
    orbitals: dict[str, list[list[float]]] = field(default_factory=dict)


def errors(pairs: Sequence[tuple[OrbitalMatrices, OrbitalMatrices]], bands: bool = True, spacing: float = 0.6) -> Errors:
    """Errors of predicted against true matrices, given as (true, predicted) with the same pairs of atoms.

    Parameters
    ----------
    bands : whether to solve for bands (on a mesh of k points `spacing` 1/Å apart)
    """
    ranges = {name: [0.0, 0.0] for name, *_ in RANGES} | {"all": [0.0, 0.0]}
    orbitals: dict[tuple[int, int], list[Array]] = {}
    basis: dict[int, Basis] = {}
    solved: list[tuple[float, ...]] = []
    energies, forces = [], []
    for true, guess in pairs:
        mu = _gauge_between(true, guess)
        error = np.abs(guess.blocks["H"] - true.blocks["H"] - (mu * true.blocks["S"] if not true.orthogonal else 0))
        basis |= dict(true.basis)
        _count(true, error, ranges, orbitals)
        if bands:
            solved.append(_band_errors(true, guess, spacing))
        if true.energy is not None and guess.energy is not None:
            energies.append(abs(true.energy - guess.energy) / len(true.crystal))
        if true.forces is not None and guess.forces is not None:
            forces.append(float(np.abs(true.forces - guess.forces).mean()))

    def mean(values: Sequence[float]) -> float:
        good = [v for v in values if np.isfinite(v)]
        return float(np.mean(good)) if good else float("nan")

    occupied, empty, gaps, densities = ([one[k] for one in solved] for k in range(4))
    return Errors(
        {name: total / count if count else float("nan") for name, (total, count) in ranges.items()},
        _by_shells(orbitals, basis),
        mean(occupied),
        mean(empty),
        mean(gaps),
        len(pairs),
        mean(densities),
        mean(energies),
        mean(forces),
        {f"{basis[a].symbol}-{basis[b].symbol}": (total / count).tolist() for (a, b), (total, count) in sorted(orbitals.items())},
    )


def compared(
    model: HamiltonianModel, truth: Sequence[OrbitalMatrices], bands: bool = True, noise: Errors | None = None
) -> dict[str, Errors]:
    """Errors of a model, of its tables without the network, and of H₀ where there is one, by name; the labels' noise last, if given."""
    found = {
        "model": errors([(t, model.complete(t)) for t in truth], bands),
        "two-centre table": errors([(t, _without_labels(t).with_blocks(H=model.base(t))) for t in truth], bands),
    }
    if all("H0" in t.blocks for t in truth):
        found["superposed atoms"] = errors([(t, _without_labels(t).with_blocks(H=t.blocks["H0"])) for t in truth], bands)
    if noise is not None:
        found["label noise"] = noise
    return found


def _without_labels(matrices: OrbitalMatrices) -> OrbitalMatrices:
    """Without energy and forces: a baseline has none of its own."""
    return matrices.replace(energy=None, forces=None)


def _gauge_between(true: OrbitalMatrices, guess: OrbitalMatrices) -> float:
    return guess.with_blocks(H0=true.blocks["H"]).gauge("H", "H0")


def _count(true: OrbitalMatrices, error: Array, ranges: dict[str, list[float]], orbitals: dict[tuple[int, int], list[Array]]) -> None:
    weight = np.where(true.on_site, 1.0, 2.0)
    sizes = np.diff(true.starts)
    total = np.add.reduceat(error, true.starts[:-1]) * weight
    for name, low, high in RANGES:
        here = (true.distances > low) & (true.distances <= high)
        ranges[name][0] += float(total[here].sum())
        ranges[name][1] += float((sizes * weight)[here].sum())
    ranges["all"][0] += float(total.sum())
    ranges["all"][1] += float((sizes * weight).sum())
    kinds = true.crystal.numbers[true.pairs]
    spins = 2 if true.spin else 1
    for a, b in np.unique(kinds, axis=0):
        chosen = np.flatnonzero((kinds == (a, b)).all(axis=1))
        left, right = true.basis[int(a)].size, true.basis[int(b)].size
        blocks = error[true.starts[chosen][:, None] + np.arange(spins**2 * left * right)].reshape(-1, spins, left, spins, right)
        found = np.einsum("n,nsatb->ab", weight[chosen], blocks) / spins**2
        if a == b:
            found = (found + found.T) / 2
        key = (int(min(a, b)), int(max(a, b)))
        own = orbitals.setdefault(key, [np.zeros((true.basis[key[0]].size, true.basis[key[1]].size)), np.zeros(1)])
        own[0] += found.T if a > b else found
        own[1] += weight[chosen].sum()


def _by_shells(orbitals: dict[tuple[int, int], list[Array]], basis: dict[int, Basis]) -> dict[str, float]:
    """Means over all orbitals of each pair of l."""
    sums: dict[tuple[int, int], list[float]] = {}
    for (a, b), (total, count) in orbitals.items():
        for la, first in zip(basis[a].shells, basis[a].offsets, strict=True):
            for lb, second in zip(basis[b].shells, basis[b].offsets, strict=True):
                own = sums.setdefault((min(la, lb), max(la, lb)), [0.0, 0.0])
                own[0] += float(total[first : first + 2 * la + 1, second : second + 2 * lb + 1].sum())
                own[1] += float(count[0]) * (2 * la + 1) * (2 * lb + 1)
    return {f"{'spdfghi'[a]}-{'spdfghi'[b]}": total / count for (a, b), (total, count) in sorted(sums.items())}


def _band_errors(true: OrbitalMatrices, guess: OrbitalMatrices, spacing: float) -> tuple[float, float, float, float]:
    """MAE of occupied and of the four next bands, their mean difference removed; difference of gaps (NaN for metals) and of densities."""
    points = mesh_for(true, spacing)
    a, b = all_energies(true, points), all_energies(guess, points)
    electrons = true.electrons or sum(true.basis[int(z)].electrons for z in true.crystal.numbers)
    n, more = int(np.ceil(electrons / true.per_state)), 8 // true.per_state
    shift = np.nanmean(b[:, :n] - a[:, :n])
    difference = np.abs(b[:, : n + more] - shift - a[:, : n + more])
    first, second = (filling(x, points, electrons, per_state=true.per_state) for x in (a, b))
    gap = abs(first.gap - second.gap) if not first.metal else float("nan")
    density = _displaced(a, b - shift, first.fermi + _ABOVE)
    return float(np.nanmean(difference[:, :n])), float(np.nanmean(difference[:, n:])), gap, density


def _displaced(true: Array, guess: Array, top: float) -> float:
    """Half of ∫|D − D'| over ∫D up to an energy, states drawn as Gaussians."""
    grid = np.arange(float(np.nanmin(true)) - 5 * _WIDTH, top, _WIDTH / 4)
    a, b = (gaussians(x[np.isfinite(x) & (x < top + 1)], grid, _WIDTH).sum(0) for x in (true, guess))
    return float(np.abs(a - b).sum() / (2 * a.sum()))
