"""What to draw of a crystal: atoms with their images on the faces of the cell, bonds, cell edges; and a still picture of it as SVG.

Viewers draw only the atoms they are given, so periodic images and bonds are worked out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.structure.elements import table

Array = NDArray[np.float64]
_ON_FACE = 0.02
_BOND_STRETCH = 1.15
_MAX_DRAWN = 400
# elements whose company makes metal-metal contacts no bonds: those that take electrons (Pauling scale)
_ANION_ELECTRONEGATIVITY = 2.5


@dataclass(frozen=True)
class Scene:
    """Drawn atoms (numbers (n,), positions (n, 3) Å, which are images), bonds (m, 2), cell corners (8, 3) Å."""

    numbers: NDArray[np.int64]
    positions: Array
    image: NDArray[np.bool_]
    bonds: NDArray[np.int64]
    corners: Array

    def to_dict(self) -> dict[str, Any]:
        """For the page's viewer; centred, rounded to 1/1000 Å."""
        centre = self.corners.mean(0)
        return {
            "elements": [table()[z - 1].symbol for z in self.numbers],
            "xyz": np.round(self.positions - centre, 3).tolist(),
            "bonds": self.bonds.tolist(),
            "corners": np.round(self.corners - centre, 3).tolist(),
        }


def make_scene(numbers: Any, positions: Any, cell: Any) -> Scene:
    """The scene of a crystal periodic in three directions: positions (n, 3) and cell (3, 3) in Å."""
    lattice = np.asarray(cell, dtype=float)
    fractional = np.asarray(positions, dtype=float) @ np.linalg.inv(lattice)
    fractional -= np.floor(fractional)
    fractional[fractional > 1 - _ON_FACE] -= 1
    rows, shifts = _images(fractional)
    drawn = np.asarray(numbers, dtype=np.int64)[rows]
    places = (fractional[rows] + shifts) @ lattice
    corners = np.array(list(product((0.0, 1.0), repeat=3))) @ lattice
    return Scene(drawn, places, np.any(shifts != 0, axis=1), _bonds(drawn, places), corners)


def _images(fractional: Array) -> tuple[NDArray[np.int64], Array]:
    """Rows and shifts of what is drawn: every atom, and its copies on the opposite faces if it lies on one."""
    rows, shifts = [], []
    for row, place in enumerate(fractional):
        choices = [(0.0, 1.0) if abs(x) <= _ON_FACE else (0.0,) for x in place]
        for shift in product(*choices):
            rows.append(row)
            shifts.append(shift)
    return np.array(rows, dtype=np.int64), np.array(shifts, dtype=float)


def _bonds(numbers: NDArray[np.int64], places: Array) -> NDArray[np.int64]:
    """Pairs closer than 1.15 × the sum of covalent radii; between metals only where no anion is present."""
    if len(numbers) > _MAX_DRAWN:
        return np.zeros((0, 2), dtype=np.int64)
    elements = [table()[z - 1] for z in numbers]
    radii = np.array([e.covalent_radius for e in elements])
    metal = np.array([e.is_metal for e in elements])
    anion = any(not e.is_metal and (e.electronegativity or 0) >= _ANION_ELECTRONEGATIVITY for e in elements)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    near = distance < _BOND_STRETCH * (radii[:, None] + radii[None])
    if anion:
        near &= ~(metal[:, None] & metal[None])
    return np.argwhere(np.triu(near, 1))


# --- a still picture ----------------------------------------------------------------------------------------------------------
_EDGES = tuple((a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1)


def colour(symbol: str) -> str:
    """The Jmol colour of an element, toned down where it would glare on a page."""
    from ase.data import atomic_numbers
    from ase.data.colors import jmol_colors

    red, green, blue = (0.86 * float(v) + 0.04 for v in jmol_colors[atomic_numbers[symbol]])
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def radius(symbol: str) -> float:
    """Radius to draw an atom with, Å: a little over a third of its covalent radius, so that small anions stay visible."""
    from ase.data import atomic_numbers

    return 0.22 + 0.25 * table()[atomic_numbers[symbol] - 1].covalent_radius


def view() -> Array:
    """(3, 3) rotation: the c axis up, seen from a little to the right and above."""
    turn, tilt = np.deg2rad(22.0), np.deg2rad(14.0)
    around_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    stand_up = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float)
    nod = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return nod @ stand_up @ around_z


def view_quaternion() -> list[float]:
    """`view` as a unit quaternion (x, y, z, w)."""
    from scipy.spatial.transform import Rotation

    return [round(float(v), 6) for v in Rotation.from_matrix(view()).as_quat()]


def svg(scene: Scene, size: int = 240) -> str:
    """A still picture as the inside of an SVG element `size` wide and high; atoms are filled with the page's `gradients`."""
    centre = scene.corners.mean(0)
    turn = view()
    places, corners = (scene.positions - centre) @ turn.T, (scene.corners - centre) @ turn.T
    symbols = [table()[z - 1].symbol for z in scene.numbers]
    reach = max(np.abs(corners[:, :2]).max(), np.abs(places[:, :2]).max()) + 0.8
    scale = size / 2 / reach
    flat, corner = places[:, :2] * [scale, -scale] + size / 2, corners[:, :2] * [scale, -scale] + size / 2
    depth = places[:, 2]
    parts = [(-1e9, f'<path class="cell" d="{" ".join(_line(corner[a], corner[b]) for a, b in _EDGES)}"/>')]
    for i, j in scene.bonds:
        parts.append(((depth[i] + depth[j]) / 2, f'<path class="bond" d="{_line(flat[i], flat[j])}"/>'))
    for k, (x, y) in enumerate(flat):
        parts.append(
            (depth[k] + 0.01, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius(symbols[k]) * scale:.1f}" fill="url(#atom-{symbols[k]})"/>')
        )
    body = "".join(text for _, text in sorted(parts, key=lambda p: p[0]))
    return body


def _line(start: Array, end: Array) -> str:
    return f"M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}"


def gradients(symbols: set[str]) -> str:
    """SVG definitions that the still pictures of a page refer to: one shaded ball per element."""
    balls = "".join(
        f'<radialGradient id="atom-{s}" cx="36%" cy="32%" r="75%"><stop offset="0" stop-color="{_mix(colour(s), 0.6)}"/>'
        f'<stop offset=".55" stop-color="{colour(s)}"/><stop offset="1" stop-color="{_mix(colour(s), -0.4)}"/></radialGradient>'
        for s in sorted(symbols)
    )
    return f'<svg width="0" height="0" class="defs" aria-hidden="true"><defs>{balls}</defs></svg>'


def _mix(hexadecimal: str, amount: float) -> str:
    """Towards white (amount > 0) or black (amount < 0)."""
    parts = [int(hexadecimal[k : k + 2], 16) for k in (1, 3, 5)]
    goal = 255 if amount > 0 else 0
    return "#" + "".join(f"{round(p + (goal - p) * abs(amount)):02x}" for p in parts)
