"""Voronoi faces: the part of space nearer to an atom than to any other, and the neighbours it touches.

One Delaunay triangulation per crystal (qhull, through scipy) of the home atoms and those images that can matter gives all cells; the
geometry of all faces is then computed at once. Degenerate vertices, which high symmetry is full of, need no care: the triangulation is
not joggled, the circumcentre is read off qhull's merged hyperplanes (so cospherical atoms share one vertex), and a face whose vertices
fall together has no area and is dropped.

A cell is cut off at a sphere of half the cut-off around its atom, so that a face exists only between atoms within the cut-off and grows
from nothing when one comes near. In solids without large voids the sphere lies outside of the cell and the solid angles of a site sum
to 4π; at a surface, in a molecule or in a void the sum is smaller by the part of the view that is open, and a lone atom has no faces.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.graphs.levels import Made, System
from naica.graphs.neighbours import Floats, Ints, _search
from naica.graphs.spec import GraphSpec

SMALLEST_SHARE = 0.05
"""Faces with less than this share of their site's largest solid angle are dropped: noise makes them come and go."""
_TIE = 1e-6
# a face below this many steradians is a rounding error of a degenerate vertex
_NOTHING = 1e-8
# the first search radius, in cube roots of the volume per atom, and its growth
_FIRST_RADIUS = 2.0
_GROWTH = 1.3
_CORNERS = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0], indexing="ij"), axis=-1).reshape(8, 3)


@dataclass(frozen=True)
class Faces:
    """Faces of the cells of n atoms, in order of receiver (F faces; each is there once for either side).

    Parameters
    ----------
    receiver, sender : (F) atom the cell belongs to, and the atom behind the face
    vector, length : (F, 3), (F) Å from receiver to sender (an image of it, as a rule)
    solid_angle : (F) sr, of the face as seen by the receiver
    area : (F) Å²
    volume : (F) Å³ of the pyramid from the receiver to the face
    """

    receiver: Ints
    sender: Ints
    vector: Floats
    length: Floats
    solid_angle: Floats
    area: Floats
    volume: Floats

    def take(self, rows: Ints | NDArray[np.bool_]) -> Faces:
        """Some of the faces."""
        return Faces(*(getattr(self, f.name)[rows] for f in fields(self)))


def faces(system: System, spec: GraphSpec) -> Made:
    """The edge maker ``voronoi``: faces worth keeping, and on each its solid angle, area and pyramid volume.

    Raises
    ------
    InputError
        If two atoms sit on the same place.
    """
    found = kept(voronoi(system.positions, system.cell, system.pbc, spec.cutoff), len(system.numbers), spec.neighbours)
    return {
        "edge_receiver": found.receiver,
        "edge_sender": found.sender,
        "edge_vector": found.vector,
        "edge_solid_angle": found.solid_angle,
        "edge_face_area": found.area,
        "edge_face_volume": found.volume,
    }


def kept(found: Faces, n: int, most: int, smallest: float = SMALLEST_SHARE) -> Faces:
    """The larger faces of each atom, their solid angles scaled to the sum that all faces had.

    Parameters
    ----------
    found : all faces of a structure
    n : its atoms
    most : faces per atom at most; those that tie with the last one stay as well, so that no order of atoms decides
    smallest : share of a site's largest solid angle a face must have
    """
    order = np.lexsort((-found.solid_angle, found.receiver))
    found = found.take(order)
    degree = np.bincount(found.receiver, minlength=n)
    start = np.cumsum(degree) - degree
    largest = np.zeros(n)
    largest[degree > 0] = found.solid_angle[start[degree > 0]]
    floor = smallest * largest
    crowded = degree > most
    floor[crowded] = np.maximum(floor[crowded], found.solid_angle[start[crowded] + most - 1])
    keep = found.solid_angle >= floor[found.receiver] - _TIE
    whole = np.bincount(found.receiver, found.solid_angle, minlength=n)
    found = found.take(keep)
    left = np.bincount(found.receiver, found.solid_angle, minlength=n)
    angle = found.solid_angle * (whole / np.where(left > 0, left, 1.0))[found.receiver]
    return Faces(found.receiver, found.sender, found.vector, found.length, angle, found.area, found.volume)


def voronoi(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float) -> Faces:
    """All faces between atoms no further apart than `cutoff`, those of an atom with its own images included.

    The images searched are those within a radius that grows until no vertex of a home atom's cell is further from it than half the
    radius: no atom further out can then cut the cell. At `cutoff` the search ends, and cells are cut by the sphere of half of it.

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
    radius = cutoff
    if pbc.all():
        radius = min(cutoff, _FIRST_RADIUS * (abs(float(np.linalg.det(cell))) / len(positions)) ** (1 / 3))
    while True:
        points, atom = _points(positions, cell, pbc, radius)
        corner, face, receiver, point, reach = _cells(points, len(positions))
        if radius >= cutoff or reach <= radius / 2:
            found = _measured(points, atom, corner, face, receiver, point, cutoff / 2 if reach > cutoff / 2 else None)
            return found
        radius = min(cutoff, max(_GROWTH * radius, min(2 * reach, _GROWTH**3 * radius)))


def _points(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], radius: float) -> tuple[Floats, Ints]:
    """Home atoms, the images within `radius` of any of them and 8 far corners (P, 3), and the atom behind each (P; −1 for corners)."""
    n = len(positions)
    _, sender, image, _, (home, lattice) = _search(positions, cell, pbc, radius)
    away = image.any(axis=1)
    sender, image = sender[away], image[away].astype(np.int64)
    if len(sender):
        span = int(np.abs(image).max())
        width = 2 * span + 1
        key = (((image[:, 0] + span) * width + image[:, 1] + span) * width + image[:, 2] + span) * n + sender
        _, first = np.unique(key, return_index=True)
        sender, image = sender[first], image[first]
    centre = home.mean(axis=0)
    images = home[sender] + image @ lattice
    # with the corners every cell is closed; they stand so far out that their faces lie outside of the sphere of half the radius
    extent = float(np.abs(home - centre).max()) + radius
    corners = _CORNERS * (3 * extent)
    return np.concatenate([home - centre, images - centre, corners]), np.concatenate([np.arange(n), sender, np.full(8, -1)])


def _cells(points: Floats, n: int) -> tuple[Floats, Ints, Ints, Ints, float]:
    """Faces of the first n points, as corners in no order.

    Returns
    -------
    position of each corner (C, 3) and the face it belongs to (C); per face the home atom (F) and the point behind it (F), in order of
    home atom; and the largest distance of a corner from its home atom
    """
    from scipy.spatial import Delaunay, QhullError

    try:
        mesh = Delaunay(points)
    except QhullError as error:
        raise InputError(
            f"the Voronoi cells could not be found ({str(error).splitlines()[0]}); expected atoms at finite distances"
        ) from None
    rows = np.flatnonzero((mesh.simplices < n).any(axis=1))
    simplices, planes = mesh.simplices[rows], mesh.equations[rows]
    # the hyperplane through lifted points touches the paraboloid's parallel above the circumcentre
    centres = planes[:, :3] / (-2 * mesh.paraboloid_scale * planes[:, 3:4])
    tetrahedron, place = np.nonzero(simplices < n)
    own = np.repeat(simplices[tetrahedron, place], 3)
    others = simplices[tetrahedron[:, None], (place[:, None] + _OTHERS) % 4].ravel()
    key, face = np.unique(own.astype(np.int64) * len(points) + others, return_inverse=True)
    corner = centres[np.repeat(tetrahedron, 3)]
    reach = float(np.sqrt(((corner - points[own]) ** 2).sum(axis=1).max()))
    return corner, face, key // len(points), key % len(points), reach


_OTHERS = np.array([1, 2, 3])


def _measured(points: Floats, atom: Ints, corner: Floats, face: Ints, receiver: Ints, point: Ints, radius: float | None) -> Faces:
    """Solid angles, areas and volumes; without faces that have none. Cells are cut by a sphere of `radius` Å where one is given."""
    vector = points[point] - points[receiver]
    length = np.linalg.norm(vector, axis=1)
    height = length / 2
    first, second = _across(vector / length[:, None])
    offset = corner - (points[receiver] + vector / 2)[face]
    x, y = np.einsum("ij,ij->i", offset, first[face]), np.einsum("ij,ij->i", offset, second[face])
    count = np.bincount(face)
    middle_x, middle_y = np.bincount(face, x) / count, np.bincount(face, y) / count
    order = np.lexsort((np.arctan2(y - middle_y[face], x - middle_x[face]), face))
    following = np.arange(1, len(order) + 1)
    following[np.cumsum(count) - 1] = np.cumsum(count) - count
    start = np.stack([x[order], y[order]], axis=1)
    stop = start[following]
    face = face[order]
    area, angle = _wedges(start, stop, height[face]) if radius is None else _cut_wedges(start, stop, height[face], radius)
    area, angle = np.bincount(face, area).astype(np.float64), np.bincount(face, angle).astype(np.float64)
    real = (atom[point] >= 0) & (angle > _NOTHING)
    return Faces(receiver, atom[point], vector, length, angle, area, height * area / 3).take(real)


def _across(direction: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors perpendicular to each direction (F, 3) and to each other, right-handed with it."""
    x, y, z = direction.T
    # Duff et al., Journal of Computer Graphics Techniques 6, 1 (2017): no branch, no loss of digits near the pole
    sign = np.copysign(1.0, z)
    a = -1 / (sign + z)
    b = x * y * a
    return np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1), np.stack([b, sign + y * y * a, -y], axis=1)


def _wedges(start: Floats, stop: Floats, height: Floats) -> tuple[Floats, Floats]:
    """Signed area and solid angle of the triangles (foot, start, stop), seen from `height` above the foot.

    Solid angle after Van Oosterom & Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983), with one corner at the foot.
    """
    cross = start[:, 0] * stop[:, 1] - start[:, 1] * stop[:, 0]
    dot = (start * stop).sum(axis=1)
    from_start = np.sqrt((start * start).sum(axis=1) + height**2)
    from_stop = np.sqrt((stop * stop).sum(axis=1) + height**2)
    return cross / 2, 2 * np.arctan2(cross, from_start * from_stop + height * (from_start + from_stop) + dot + height**2)


def _cut_wedges(start: Floats, stop: Floats, height: Floats, radius: float) -> tuple[Floats, Floats]:
    """The same, cut by the sphere around the apex: what is left of a triangle are a smaller one and up to two sectors of a disc."""
    disc = np.maximum(radius**2 - height**2, 0.0)
    along = stop - start
    square = np.maximum((along * along).sum(axis=1), 1e-300)
    middle = -(start * along).sum(axis=1) / square
    inside = middle**2 - ((start * start).sum(axis=1) - disc) / square
    half = np.sqrt(np.maximum(inside, 0.0))
    enter, leave = np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)
    near, far = start + enter[:, None] * along, start + leave[:, None] * along
    area, angle = _wedges(near, far, height)
    sector = _turn(start, near) + _turn(far, stop)
    return area + disc * sector / 2, angle + sector * (1 - np.minimum(height / radius, 1.0))


def _turn(start: Floats, stop: Floats) -> Floats:
    """Signed angle from one vector of the plane to another, radians."""
    return np.arctan2(start[:, 0] * stop[:, 1] - start[:, 1] * stop[:, 0], (start * stop).sum(axis=1))
