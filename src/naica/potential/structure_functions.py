"""What a walk says of structure and vibration: radial distribution, coordination, velocity autocorrelation, vibrational states, Lindemann's
index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.graphs.neighbours import within
from naica.potential.walk import Walk
from naica.structure.elements import symbol

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RadialDistribution:
    """Partial radial distribution functions.

    Parameters
    ----------
    r : (R) middles of the bins, Å
    partial : by pair of species (centre, neighbour) g(r) (R), 1 where neighbours are as dense as on the average
    running : by pair the number of neighbours within the outer edge of each bin (R)
    total : (R) g(r) of all atoms, species not told apart
    frames : how many were looked at
    """

    r: Array
    partial: Mapping[tuple[str, str], Array]
    running: Mapping[tuple[str, str], Array]
    total: Array
    frames: int

    def coordination(self, centre: str, neighbour: str, radius: float | None = None) -> tuple[float, float]:
        """Mean number of neighbours within a radius (Å), and the radius: by default that of the first minimum behind the first peak.

        Raises
        ------
        InputError
            If the pair is not there, the radius is out of range, or there is no minimum behind the first peak.
        """
        if (centre, neighbour) not in self.partial:
            raise InputError(f"no pair {centre}–{neighbour}; there are {', '.join('–'.join(pair) for pair in self.partial)}")
        g, half = self.partial[centre, neighbour], (self.r[1] - self.r[0]) / 2
        if radius is None:
            kernel = np.array([1, 2, 3, 2, 1]) / 9
            smooth = np.convolve(g, kernel, mode="same")
            rising = np.flatnonzero(smooth > 0.5 * smooth.max())
            if not len(rising):
                raise InputError(f"{centre}–{neighbour}: no neighbours within {self.r[-1]:.1f} Å")
            peak = int(rising[0])
            while peak + 1 < len(smooth) and smooth[peak + 1] >= smooth[peak]:
                peak += 1
            place = peak
            while place + 1 < len(smooth) and smooth[place + 1] <= smooth[place] and smooth[place] > 0:
                place += 1
            if place + 1 >= len(smooth):
                raise InputError(f"{centre}–{neighbour}: no minimum within {self.r[-1]:.1f} Å; give a radius or look farther")
            radius = float(self.r[place] + half)
        if not 0 < radius <= self.r[-1] + half + 1e-9:
            raise InputError(f"radius {radius:g} Å; expected one up to {self.r[-1] + half:.2f} Å")
        edges = np.concatenate([[0.0], self.r + half])
        return float(np.interp(radius, edges, np.concatenate([[0.0], self.running[centre, neighbour]]))), radius


def radial_distribution(walk: Walk, radius: float = 8.0, bins: int = 200, frames: int = 100) -> RadialDistribution:
    """Partial radial distribution functions, averaged over frames.

    All periodic images count, those of the atom itself too, so a cell may be smaller than twice the radius.

    Parameters
    ----------
    radius : Å
    bins : how many up to there
    frames : at most so many, equally far apart

    Raises
    ------
    InputError
        For what does not repeat in three directions (it has no density), or numbers out of range.
    """
    if not radius > 0 or bins < 10 or frames < 1:
        raise InputError(f"radius {radius} Å, {bins} bins, {frames} frames; expected a radius above 0, at least 10 bins and 1 frame")
    _ = walk.volume  # refuses what has none
    rows = np.unique(np.linspace(0, len(walk) - 1, min(frames, len(walk))).astype(int))
    kinds, of_atom = np.unique(walk.numbers, return_inverse=True)
    names = [symbol(int(z)) for z in kinds]
    count = np.bincount(of_atom)
    edges = np.linspace(0, radius, bins + 1)
    shell = 4 / 3 * np.pi * np.diff(edges**3)
    found = np.zeros((len(kinds), len(kinds), bins))
    running = np.zeros_like(found)
    total = np.zeros(bins)
    for row in rows:
        near = within(walk.positions[row], walk.cell[row], walk.pbc, radius)
        length = np.linalg.norm(near.vector, axis=1)
        place = np.minimum((length / radius * bins).astype(int), bins - 1)
        pair = of_atom[near.receiver] * len(kinds) + of_atom[near.sender]
        histogram = np.bincount(pair * bins + place, minlength=len(kinds) ** 2 * bins).reshape(found.shape).astype(np.float64)
        volume = abs(np.linalg.det(walk.cell[row]))
        # a frame's density is its own: under a barostat the cells differ
        found += histogram * volume / (count[:, None, None] * count[None, :, None] * shell)
        running += np.cumsum(histogram, axis=2) / count[:, None, None]
        total += histogram.sum((0, 1)) * volume / (len(walk.numbers) ** 2 * shell)
    pairs = [(a, b) for a in range(len(kinds)) for b in range(len(kinds))]
    return RadialDistribution(
        (edges[1:] + edges[:-1]) / 2,
        {(names[a], names[b]): found[a, b] / len(rows) for a, b in pairs},
        {(names[a], names[b]): running[a, b] / len(rows) for a, b in pairs},
        total / len(rows),
        len(rows),
    )


@dataclass(frozen=True, eq=False)
class Vibrations:
    """Velocity autocorrelation and what it is made of.

    Parameters
    ----------
    lag : (L) fs
    correlation : (L) mass-weighted, 1 at lag 0
    frequency : (F) THz
    states : (F) per THz; their integral is 3 per atom, those that diffuse included
    partial : by species (F), their sum is `states`
    """

    lag: Array
    correlation: Array
    frequency: Array
    states: Array
    partial: Mapping[str, Array]


def vibrations(walk: Walk, longest: float | None = None) -> Vibrations:
    """Vibrational states from the mass-weighted velocity autocorrelation, with a Hann window.

    Dickey and Paskin, Phys. Rev. 188, 1407 (1969).

    Parameters
    ----------
    longest : fs, of the correlation; the resolution is 1/(2 `longest`). None: a third of the walk, at most 3 ps

    Raises
    ------
    InputError
        Without velocities in the walk, or if it is shorter than a hundred frames.
    """
    from ase.data import atomic_masses

    if walk.velocities is None:
        raise InputError(f"{walk.name or 'the walk'} holds no velocities; run the dynamics with velocities kept, and frames every few fs")
    if len(walk) < 100:
        raise InputError(f"{len(walk)} frames; vibrational states need at least 100")
    frames = len(walk)
    lags = min(int((longest or min(walk.duration / 3, 3000.0)) / walk.interval), frames - 1)
    if lags < 10:
        raise InputError(f"a longest lag of {lags} frames; expected at least 10: keep frames more often")
    mass = np.asarray(atomic_masses, dtype=np.float64)[walk.numbers]
    parts = {}
    for name in walk.species:
        atoms = walk.atoms_of(name)
        velocity = walk.velocities[:, atoms]
        spectrum = np.fft.rfft(velocity, n=2 * frames, axis=0)
        power = (np.abs(spectrum) ** 2 * mass[atoms][None, :, None]).sum((1, 2))
        parts[name] = np.fft.irfft(power, n=2 * frames)[: lags + 1] / (frames - np.arange(lags + 1))
    start = sum(part[0] for part in parts.values())
    window = 0.5 * (1 + np.cos(np.pi * np.arange(lags + 1) / (lags + 1)))
    step = walk.interval * 1e-3  # ps
    padded = 4 * lags
    frequency = np.arange(padded + 1) / (2 * padded * step)
    partial = {}
    for name, part in parts.items():
        # the cosine transform of an even function, at finer steps than its length gives
        even = np.zeros(2 * padded)
        even[: lags + 1] = part * window / start
        even[-lags:] = (part * window / start)[1:][::-1]
        partial[name] = 3 * 2 * step * np.fft.rfft(even).real
    total = np.sum(list(partial.values()), axis=0)
    correlation = np.sum(list(parts.values()), axis=0) / start
    return Vibrations(np.arange(lags + 1, dtype=np.float64) * walk.interval, correlation, frequency, total, partial)


def lindemann(walk: Walk, reach: float | None = None) -> float:
    """Lindemann's index: root mean square fluctuation of distances between neighbours by their mean, averaged over pairs.

    About 0.03 to 0.08 in a solid, above 0.12 to 0.15 and growing with time in a liquid.

    Parameters
    ----------
    reach : Å; pairs nearer than that in the first frame count. None: 1.3 times the shortest distance

    Raises
    ------
    InputError
        With fewer than ten frames, or without pairs within reach.
    """
    if len(walk) < 10:
        raise InputError(f"{len(walk)} frames; Lindemann's index needs at least 10")
    search = reach
    near = within(walk.positions[0], walk.cell[0], walk.pbc, search or 4.0)
    length = np.linalg.norm(near.vector, axis=1)
    if not len(length):
        raise InputError(f"no two atoms within {search or 4.0:g} Å in the first frame; give a longer reach")
    kept = length < (reach or 1.3 * length.min())
    receiver, sender = near.receiver[kept], near.sender[kept]
    # the image that was near at the start stays the partner; positions are unwrapped, so its offset follows the cell alone
    offset = near.vector[kept] - (walk.positions[0, sender] - walk.positions[0, receiver])
    image = offset @ np.linalg.pinv(walk.cell[0])
    first, second = np.zeros(len(receiver)), np.zeros(len(receiver))
    for positions, cell in zip(walk.positions, walk.cell, strict=True):
        distance = np.linalg.norm(positions[sender] - positions[receiver] + image @ cell, axis=1)
        first += distance
        second += distance**2
    mean = first / len(walk)
    spread = np.sqrt(np.maximum(second / len(walk) - mean**2, 0))
    return float((spread / mean).mean())
