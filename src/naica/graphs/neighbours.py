"""Neighbour lists: flat arrays in, flat arrays out, from pymatgen's compiled kernel.

Nothing here is done per atom in Python. Vectors are ``r_ij = r_j − r_i + S·cell`` and edges are sorted by receiver ``i``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# distances are compared on this grid, so that rounding noise of 1e-15 Å decides nothing
_GRID = 1e-8
_COARSE = 1e-6
_DISTANCE_MIN = 1e-6
# a sphere that would hold this many times the wanted neighbours at the crystal's mean density is searched first
_FIRST_GUESS = 1.8
_GROWTH = 1.35
# coordinates beyond this many Å, and cells with this many empty boxes per atom, are outside of what the kernel does well
_FAR = 100.0
_EMPTY_BOXES = 500


@dataclass(frozen=True)
class Edges:
    """Edges of one structure or of many (E edges): receiver and sender (E), vector (E, 3) in Å, length (E) in Å."""

    receiver: Ints
    sender: Ints
    vector: Floats
    length: Floats

    def take(self, rows: Ints | NDArray[np.bool_]) -> Edges:
        """Some of the edges."""
        return Edges(self.receiver[rows], self.sender[rows], self.vector[rows], self.length[rows])


def periodic_frame(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float) -> tuple[Floats, Floats]:
    """Positions and cell of an equivalent structure that is periodic in all directions.

    Directions that do not repeat get a lattice vector perpendicular to the others and so long that no image is within `cutoff`;
    whatever lattice vector the file gave for them is ignored, as atoms may lie outside it.
    """
    if pbc.all():
        return positions, cell
    full = cell.copy()
    open_axes = np.flatnonzero(~pbc)
    basis = _complete_basis(cell[pbc])
    shifted = positions.copy()
    for axis, direction in zip(open_axes, basis, strict=True):
        height = shifted @ direction
        low, high = float(height.min()), float(height.max())
        full[axis] = direction * (high - low + 2 * cutoff + 2.0)
        # the atoms sit in the middle of the empty direction, so that wrapping into the cell moves none of them
        shifted = shifted + direction * (cutoff + 1.0 - low)
    return shifted, full


def _complete_basis(rows: Floats) -> Floats:
    """Orthonormal vectors perpendicular to the given rows (r, 3) and to each other: (3 − r, 3)."""
    if len(rows) == 0:
        return np.eye(3)
    _, _, right = np.linalg.svd(rows)
    return right[len(rows) :]


def within(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float) -> Edges:
    """All edges of one structure no longer than `cutoff`, an atom's own images included, sorted by receiver.

    Parameters
    ----------
    positions : (n, 3) Å
    cell : (3, 3) lattice vectors as rows, Å
    pbc : (3,) which directions repeat
    cutoff : Å

    Raises
    ------
    InputError
        If two atoms sit on the same place.
    """
    receiver, sender, image, length, frame = _search(positions, cell, pbc, cutoff)
    points, lattice = frame
    vector = points[sender] - points[receiver] + image @ lattice
    order = np.argsort(receiver, kind="stable")
    edges = Edges(receiver[order], sender[order], vector[order], length[order])
    return edges


def _search(
    positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float
) -> tuple[Ints, Ints, Floats, Floats, tuple[Floats, Floats]]:
    points, lattice = periodic_frame(positions, cell, pbc, cutoff)
    points, lattice = np.ascontiguousarray(points, dtype=np.float64), np.ascontiguousarray(lattice, dtype=np.float64)
    if np.abs(points).max() > _FAR:
        points = _wrapped(points, lattice)
        # the kernel fills the whole cell with boxes of the cut-off's size, which a nearly empty cell has far too many of
        if abs(np.linalg.det(lattice)) > _EMPTY_BOXES * (1 + len(points)) * cutoff**3:
            receiver, sender, image, length = _by_tree(points, lattice, cutoff)
            return _without_self(receiver, sender, image, length, (points, lattice))
    receiver, sender, image, length = _kernel()(points, points, float(cutoff), _ALL, lattice, 1e-8)
    return _without_self(receiver, sender, image, length, (points, lattice))


def _without_self(
    receiver: Ints, sender: Ints, image: Floats, length: Floats, frame: tuple[Floats, Floats]
) -> tuple[Ints, Ints, Floats, Floats, tuple[Floats, Floats]]:
    keep = length > _DISTANCE_MIN
    extra = len(length) - len(frame[0]) - int(np.count_nonzero(keep))
    if extra:
        raise InputError(f"{extra // 2} pairs of atoms sit on the same place; expected every two atoms apart")
    return receiver[keep], sender[keep], image[keep], length[keep], frame


def _wrapped(points: Floats, lattice: Floats) -> Floats:
    """The points moved into the cell; the kernel takes time in proportion to how far outside they are."""
    return points - np.floor(points @ np.linalg.inv(lattice)) @ lattice


def _by_tree(points: Floats, lattice: Floats, cutoff: float) -> tuple[Ints, Ints, Floats, Floats]:
    """All pairs within the cut-off, an atom with itself included, by a k-d tree over the images: for large and nearly empty cells."""
    from scipy.spatial import cKDTree

    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    repeats = np.ceil(cutoff / heights).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in repeats), indexing="ij"), axis=-1).reshape(-1, 3).astype(float)
    copies = (points[None] + (images @ lattice)[:, None]).reshape(-1, 3)
    found = cKDTree(points).sparse_distance_matrix(cKDTree(copies), cutoff, output_type="ndarray")
    sender, image = found["j"] % len(points), images[found["j"] // len(points)]
    return found["i"].astype(np.int64), sender.astype(np.int64), image, found["v"]


@cache
def _kernel() -> Any:
    """Pymatgen's compiled search, loaded on first use."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    return find_points_in_spheres


_ALL = np.ones(3, dtype=np.int64)


def enough(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float, neighbours: int, density: float | None = None) -> Edges:
    """Edges of one structure that hold, for every atom, at least its `neighbours` nearest with all their ties (within `cutoff`).

    The search starts with a sphere that is just large enough at the mean density and grows, because a sphere of 8 Å holds ten
    times more atoms than the twelve that are wanted. Edges come in no order.

    Parameters
    ----------
    density : atoms per Å³; without it (nothing periodic has no density) the whole sphere is searched at once
    """
    n = len(positions)
    radius = cutoff
    if density is not None:
        radius = min(cutoff, (3 * _FIRST_GUESS * neighbours / (4 * np.pi * density)) ** (1 / 3))
    while True:
        receiver, sender, image, length, (points, lattice) = _search(positions, cell, pbc, radius)
        if radius >= cutoff or _complete(receiver, length, n, neighbours, radius):
            return Edges(receiver, sender, points[sender] - points[receiver] + image @ lattice, length)
        radius = min(cutoff, radius * _GROWTH)


def _complete(receiver: Ints, length: Floats, n: int, neighbours: int, radius: float) -> bool:
    """Whether every atom has its nearest ones, and all that tie with the last of them, inside the searched sphere."""
    safe = length < radius - 10 * _GRID
    return bool((np.bincount(receiver[safe], minlength=n) >= neighbours).all())


def nearest(edges: Edges, numbers: NDArray[np.integer], neighbours: int) -> Edges:
    """Of the edges of many atoms, the `neighbours` nearest ones of each receiver, in order of receiver and distance.

    Equal distances (on a grid of 1e-8 Å) are ordered by the sender's atomic number, then by the sum of the sender's own nearest
    distances (so that the cut prefers the same kind of site however the atoms are numbered), then by the sender's index, then by
    the vector. The result therefore does not depend on numerical noise, nor on where the crystal lies in space; only ties between
    different atoms of one kind and one environment fall back on the order of atoms.

    Parameters
    ----------
    edges : of all atoms, any order; receivers and senders index `numbers`
    numbers : (N,) atomic numbers
    neighbours : edges per atom at most
    """
    n = len(numbers)
    grid = np.rint(edges.length / _GRID).astype(np.int64)
    order = _by_receiver_and_length(edges.receiver, grid, n)
    receiver = edges.receiver[order]
    degree = np.bincount(receiver, minlength=n)
    start = np.cumsum(degree) - degree
    kept = np.arange(len(order)) - start[receiver] < neighbours
    longer = start[degree > neighbours] + neighbours
    cut = longer[grid[order[longer - 1]] == grid[order[longer]]]
    if len(cut):
        order = _break_ties(edges, numbers, grid, order, kept, cut)
    return edges.take(order[kept])


def _by_receiver_and_length(receiver: Ints, grid: Ints, n: int) -> Ints:
    """The stable order by receiver, then length. One integer holds both and the place, so that one plain sort does it."""
    key = (receiver << 31) | grid  # 31 bits hold 21 Å on the grid
    place_bits = len(key).bit_length()
    if n.bit_length() + 31 + place_bits > 63:
        return np.argsort(key, kind="stable")
    key = (key << place_bits) | np.arange(len(key))
    key.sort()
    return key & ((1 << place_bits) - 1)


def _break_ties(edges: Edges, numbers: NDArray[np.integer], grid: Ints, order: Ints, kept: NDArray[np.bool_], cut: Ints) -> Ints:
    """Order the ties that the cut after the last neighbour splits; other ties need no order, since sums do not see it.

    `cut` are positions in `order` of the first edge left out, where it is as long as the last one kept.
    """
    n = len(numbers)
    split = np.full(n, -1, dtype=np.int64)
    split[edges.receiver[order[cut]]] = grid[order[cut]]
    slots = np.flatnonzero(split[edges.receiver[order]] == grid[order])
    rows = order[slots]
    # the sum of a sender's own nearest distances tells its environment, and no tie can change it
    environment = np.bincount(edges.receiver[order[kept]], weights=edges.length[order[kept]], minlength=n)
    environment = np.rint(environment / _COARSE)
    sender = edges.sender[rows]
    vector = np.rint(edges.vector[rows] / _COARSE)
    keys = (vector[:, 2], vector[:, 1], vector[:, 0], sender, environment[sender], numbers[sender], grid[rows], edges.receiver[rows])
    order = order.copy()
    order[slots] = rows[np.lexsort(keys)]
    return order
