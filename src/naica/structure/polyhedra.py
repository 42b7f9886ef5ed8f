"""Shapes of coordination polyhedra: ideal ones, and how far a given one is from each.

The distance is the continuous shape measure of Pinsky & Avnir, Inorg. Chem. 37, 5575 (1998), with the central atom as one of the points::

    S = 100 · min over permutations, rotations, mirrorings, scales of  Σ_k |q_k − p_π(k)|² / Σ_k |q_k − q̄|²

0 is the ideal shape; an octahedron is 100 · (1 − …) ≈ 16.7 from a trigonal prism. For a given permutation the best rotation and scale come
from the singular values of a 3 × 3 matrix. Permutations that differ by a symmetry of the ideal shape give the same value, so one of each
class is tried where there are few classes (all shapes of up to six vertices: the result is exact). Elsewhere assignment and rotation
alternate from every placement of one pair of ligands on the pairs of vertices that symmetry leaves different.

Order parameters are those of Steinhardt, Nelson & Ronchetti, Phys. Rev. B 28, 784 (1983); the sum over m is a Legendre polynomial of the
angle between two ligands (addition theorem), so they need no spherical harmonics and no axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ORDERS = (1, 2, 3, 4, 6)
"""Degrees l of the order parameters q_l; the odd ones tell a lone-pair side (1) and a tetrahedron (3)."""
_MOST_CLASSES = 60
_ROUNDS = 4
_SAME = 1e-6


def _ring(n: int, polar: float, turn: float = 0.0) -> Floats:
    """Unit vectors (n, 3) at `polar` degrees from +z, the first at azimuth `turn` degrees."""
    azimuth = np.radians(turn + 360.0 / n * np.arange(n))
    sine, cosine = np.sin(np.radians(polar)), np.cos(np.radians(polar))
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), np.full(n, cosine)], axis=1)


_UP, _DOWN = _ring(1, 0.0), _ring(1, 180.0)
_TETRAHEDRAL = float(np.degrees(np.arccos(-1 / 3)))
# prisms and antiprisms with all edges equal: polar angle of their vertices
_PRISM = float(np.degrees(np.arctan(2 / np.sqrt(3))))
_ANTIPRISM = float(np.degrees(np.arctan(2**0.75)))
_TRIANGLE = float(np.degrees(np.arcsin(1 / np.sqrt(3))))
_FIVE = float(np.degrees(np.arctan(2)))
_TRIGONAL_PRISM = (_ring(3, _PRISM), _ring(3, 180 - _PRISM))
_SQUARE_ANTIPRISM = (_ring(4, _ANTIPRISM), _ring(4, 180 - _ANTIPRISM, 45))
_CUBE = _ring(4, 90 - _TRIANGLE, 45), _ring(4, 90 + _TRIANGLE, 45)


def _friauf() -> tuple[Floats, ...]:
    """Truncated tetrahedron and a ligand beyond each hexagon, at the distances of the large atom in MgCu2 (Laves phase C15)."""
    signs = np.array([(x, y, x * y) for x in (1.0, -1.0) for y in (1.0, -1.0)])
    corners = np.concatenate([np.roll([3.0, 1.0, 1.0], k) * signs for k in range(3)]) / np.sqrt(11)
    return corners, -signs * np.sqrt(12 / 11) / np.sqrt(3)


def _dodecahedron() -> tuple[Floats, ...]:
    """Two interpenetrating trapezoids of eight touching balls (Hoard & Silverton, Inorg. Chem. 2, 235, 1963)."""
    a, b = 36.85, 69.46
    return _ring(2, a), _ring(2, 180 - a, 90), _ring(2, b, 90), _ring(2, 180 - b)


_IDEAL: dict[str, tuple[Floats, ...]] = {
    "single": (_UP,),
    "linear": (_UP, _DOWN),
    "bent": (_UP, _ring(1, _TETRAHEDRAL)),
    "triangle": (_ring(3, 90),),
    "trigonal pyramid": (_ring(3, _TETRAHEDRAL),),
    "T": (_UP, _DOWN, _ring(1, 90)),
    "tetrahedron": (_UP, _ring(3, _TETRAHEDRAL)),
    "square": (_ring(4, 90),),
    "seesaw": (_UP, _DOWN, _ring(3, 90)[:2]),
    "trigonal bipyramid": (_UP, _DOWN, _ring(3, 90)),
    "square pyramid": (_UP, _ring(4, 105)),
    "octahedron": (_UP, _DOWN, _ring(4, 90)),
    "trigonal prism": _TRIGONAL_PRISM,
    "pentagonal bipyramid": (_UP, _DOWN, _ring(5, 90)),
    # polar angles of the capped octahedron that let seven balls on a sphere repel each other least within its symmetry
    "capped octahedron": (_UP, _ring(3, 74.6), _ring(3, 130.3, 60)),
    "capped trigonal prism": (*_TRIGONAL_PRISM, _ring(3, 90, 60)[:1]),
    "cube": _CUBE,
    "square antiprism": _SQUARE_ANTIPRISM,
    "dodecahedron": _dodecahedron(),
    "hexagonal bipyramid": (_UP, _DOWN, _ring(6, 90)),
    "bicapped trigonal prism": (*_TRIGONAL_PRISM, _ring(3, 90, 60)[:2]),
    "tricapped trigonal prism": (*_TRIGONAL_PRISM, _ring(3, 90, 60)),
    "capped square antiprism": (*_SQUARE_ANTIPRISM, _UP),
    "bicapped square antiprism": (*_SQUARE_ANTIPRISM, _UP, _DOWN),
    "cuboctahedron": (_ring(6, 90), _ring(3, _TRIANGLE, 30), _ring(3, 180 - _TRIANGLE, 90)),
    "anticuboctahedron": (_ring(6, 90), _ring(3, _TRIANGLE, 30), _ring(3, 180 - _TRIANGLE, 30)),
    "icosahedron": (_UP, _DOWN, _ring(5, _FIVE), _ring(5, 180 - _FIVE, 36)),
    "hexagonal prism": (_ring(6, _FIVE), _ring(6, 180 - _FIVE)),
    # the first two shells of a body-centred cubic metal
    "rhombic dodecahedron": (*_CUBE, np.concatenate([_UP, _DOWN, _ring(4, 90)]) * (2 / np.sqrt(3))),
    "Friauf polyhedron": _friauf(),
}
SHAPES: tuple[str, ...] = (*_IDEAL, "other")
"""Names of the shapes, in order of their number of vertices; ``other`` has a number of vertices none of them has."""
OTHER = len(SHAPES) - 1


@dataclass(frozen=True)
class Ideal:
    """One ideal shape: its place in `SHAPES`, n vertices (n, 3), and where the search begins.

    Either `classes` (K, n), one permutation of each class of equivalent ones, or `frames` (S, 3, 3), orthonormal axes (rows) spanned by
    the pairs of vertices that no symmetry makes equal.
    """

    index: int
    vertices: Floats
    classes: Ints | None
    frames: Floats | None

    @property
    def name(self) -> str:
        """Its name."""
        return SHAPES[self.index]


def vertices(shape: str) -> Floats:
    """The vertices (n, 3) of an ideal shape, its centre at the origin."""
    return np.concatenate(_IDEAL[shape])


@cache
def ideals(n: int) -> tuple[Ideal, ...]:
    """The ideal shapes of n vertices."""
    return tuple(_ideal(name) for name, parts in _IDEAL.items() if sum(map(len, parts)) == n)


def _ideal(name: str) -> Ideal:
    points = vertices(name)
    group = _symmetries(points)
    classes = _classes(group) if len(points) <= 6 else None
    if classes is not None and len(classes) <= _MOST_CLASSES:
        return Ideal(SHAPES.index(name), points, classes, None)
    return Ideal(SHAPES.index(name), points, None, _starts(points, group))


def _symmetries(points: Floats) -> Ints:
    """All permutations (G, n) of the points that a rotation or mirroring about the origin does: those that keep all inner products."""
    gram = np.round(points @ points.T, 6)
    found: list[list[int]] = [[]]
    for k in range(len(points)):
        found = [
            [*start, j]
            for start in found
            for j in range(len(points))
            if j not in start and abs(gram[j, j] - gram[k, k]) < 1e-4 and np.abs(gram[j, start] - gram[k, :k]).max(initial=0.0) < 1e-4
        ]
    return np.array(found)


def _classes(group: Ints) -> Ints:
    """One permutation of each class {π∘g}: the first in lexicographic order."""
    n = group.shape[1]
    everything = np.array(list(permutations(range(n))))
    weights = n ** np.arange(n)[::-1]
    # vertex π(k) and vertex g(π(k)) look alike from every side
    smallest = (group[:, everything] @ weights).min(axis=0)
    return everything[smallest == everything @ weights]


def _starts(points: Floats, group: Ints) -> Floats:
    """Axes on every ordered pair of vertices not in line with the centre, either way round, one of each class of equivalent ones."""
    frames, seen = [], set()
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    for a, b in permutations(range(len(points)), 2):
        if abs(unit[a] @ unit[b]) > 0.99:
            continue
        right = _axes(points[a], points[b])
        for frame in (right, right * [[1], [1], [-1]]):
            seat = np.round(points @ frame.T, 4)
            key = min(tuple(map(tuple, seat[permutation] + 0.0)) for permutation in group)
            if key not in seen:
                seen.add(key)
                frames.append(frame)
    return np.array(frames)


def _axes(first: Floats, second: Floats) -> Floats:
    """Right-handed orthonormal axes (…, 3, 3; rows): along `first`, then towards `second`."""
    x = first / np.linalg.norm(first, axis=-1, keepdims=True)
    y = second - (second * x).sum(-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-2)


def shape_measures(ligands: Floats, shape: str) -> Floats:
    """The measure S (M) of M polyhedra of n ligands (M, n, 3; vectors from the centre) against one ideal shape of n vertices."""
    ideal = next(i for i in ideals(ligands.shape[1]) if i.name == shape)
    return _measures(ligands, ideal)


def _measures(ligands: Floats, ideal: Ideal) -> Floats:
    size = _spread(ligands) * _spread(ideal.vertices[None])
    if ideal.classes is not None:
        best = _overlap(ligands, ideal.vertices, np.broadcast_to(ideal.classes, (len(ligands), *ideal.classes.shape)))[0].max(axis=1)
    else:
        best = _alternate(ligands, ideal)
    return np.clip(100 * (1 - best**2 / size), 0.0, 100.0)


def _spread(points: Floats) -> Floats:
    """Σ |q − q̄|² of (M, n, 3) points and the origin."""
    n = points.shape[1]
    return (points**2).sum(axis=(1, 2)) - (points.sum(axis=1) ** 2).sum(axis=1) / (n + 1)


def _overlap(ligands: Floats, points: Floats, places: Ints, rotate: bool = False) -> tuple[Floats, Floats | None]:
    """The largest Σ q · R p (M, S) over all R, for permutations `places` (M, S, n); and that R (M, S, 3, 3) if asked."""
    n = len(points)
    correlation = np.swapaxes(ligands, 1, 2)[:, None] @ points[places]
    correlation = correlation - (ligands.sum(axis=1)[:, None, :, None] * points.sum(axis=0)) / (n + 1)
    if not rotate:
        return np.linalg.svd(correlation, compute_uv=False).sum(axis=-1), None
    left, values, right = np.linalg.svd(correlation)
    return values.sum(axis=-1), left @ right


def _alternate(ligands: Floats, ideal: Ideal) -> Floats:
    """The largest overlap (M) reached by alternating the best permutation and the best rotation from all starts."""
    assert ideal.frames is not None
    rotation: Floats | None = np.concatenate([np.swapaxes(f, 1, 2)[:, None] @ ideal.frames for f in _seats(ligands)], axis=1)
    best = np.zeros(len(ligands))
    for _ in range(_ROUNDS):
        assert rotation is not None
        places = _assigned(ligands[:, None] @ (rotation @ ideal.vertices.T))
        value, rotation = _overlap(ligands, ideal.vertices, places, rotate=True)
        reached = value.max(axis=1)
        if (reached <= best + _SAME).all():
            break
        best = np.maximum(best, reached)
    return best


def _seats(ligands: Floats) -> list[Floats]:
    """Axes (M, 3, 3) on two pairs of ligands: the pair most nearly at right angles, and the best of the pairs without its first."""
    m, n, _ = ligands.shape
    unit = ligands / np.linalg.norm(ligands, axis=2, keepdims=True)
    cosine = np.abs(unit @ np.swapaxes(unit, 1, 2)) + np.eye(n)
    rows, found = np.arange(m), []
    for _ in range(2):
        flat = cosine.reshape(m, -1).argmin(axis=1)
        a, b = flat // n, flat % n
        found.append(_axes(ligands[rows, a], ligands[rows, b]))
        cosine[rows, a] = 2.0
        cosine[rows, :, a] = 2.0
    return found


def _assigned(overlap: Floats) -> Ints:
    """The permutation (M, S, n) with the largest sum of `overlap` (M, S, n, n): the rows' maxima where they lie in different columns."""
    places = overlap.argmax(axis=-1)
    ordered = np.sort(places, axis=-1)
    clash = (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)
    if clash.any():
        from scipy.optimize import linear_sum_assignment

        for m, s in np.argwhere(clash):
            places[m, s] = linear_sum_assignment(overlap[m, s], maximize=True)[1]
    return places


def classify(ligands: Floats) -> tuple[Ints, Floats]:
    """The nearest shape of each of M polyhedra with n ligands (M, n, 3): place in `SHAPES` (M), and the measure S (M).

    A number of vertices that no shape has gives ``other`` and 100. Equal polyhedra, of which crystals are full, are measured once.
    """
    m, n, _ = ligands.shape
    candidates = ideals(n)
    if not candidates:
        return np.full(m, OTHER), np.full(m, 100.0)
    first, inverse = _distinct(ligands)
    measured = np.stack([_measures(ligands[first], ideal) for ideal in candidates])
    best = (measured - _SAME * (measured == measured.min(axis=0))).argmin(axis=0)
    index = np.array([ideal.index for ideal in candidates])
    return index[best][inverse], measured[best, np.arange(len(first))][inverse]


def _distinct(ligands: Floats) -> tuple[Ints, Ints]:
    """Which polyhedra stand for all, and the one that stands for each: equal ones have the same distances among all their points."""
    points = np.concatenate([np.zeros((len(ligands), 1, 3)), ligands], axis=1)
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=3)
    apart = np.round(np.sort(apart, axis=2), 7)
    keys = [tuple(sorted(map(tuple, rows))) for rows in apart.tolist()]
    place: dict[tuple[tuple[float, ...], ...], int] = {}
    inverse = np.array([place.setdefault(key, len(place)) for key in keys])
    return np.unique(inverse, return_index=True)[1], inverse


def order_parameters(ligands: Floats) -> Floats:
    """Steinhardt's q_l (M, 5) for l in `ORDERS` of M polyhedra with n ligands (M, n, 3): rotation-invariant, between 0 and 1."""
    unit = ligands / np.linalg.norm(ligands, axis=2, keepdims=True)
    cosine = np.clip(unit @ np.swapaxes(unit, 1, 2), -1.0, 1.0)
    return np.stack([np.sqrt(np.maximum(_legendre(degree, cosine).mean(axis=(1, 2)), 0.0)) for degree in ORDERS], axis=1)


def _legendre(degree: int, x: Floats) -> Floats:
    """The Legendre polynomial of a degree."""
    return np.asarray(legendre.legval(x, [0.0] * degree + [1.0]), dtype=np.float64)
