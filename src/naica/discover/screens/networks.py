"""Periodic networks: what hangs together when pieces are joined across cell boundaries, and in how many directions it goes on for ever."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from naica.graphs.neighbours import Edges
from naica.structure.crystal import Crystal

Translation = tuple[int, int, int]
_NOWHERE: Translation = (0, 0, 0)


class Network:
    """Pieces 0 … n − 1 of one cell, joined one bond after the other.

    A piece and its component's root may be joined in different cells, so each piece keeps the cell it stands in relative to the root. A
    bond inside a component that closes on another cell is a translation of the component onto itself; the number of independent
    translations is its dimension. This is exact: no supercell is made.
    """

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))
        self._offset: list[Translation] = [_NOWHERE] * n
        self._spans: dict[int, list[Translation]] = {k: [] for k in range(n)}

    def find(self, piece: int) -> tuple[int, Translation]:
        """The root of a piece, and the cell of the piece that is joined to the root in cell 0."""
        path = []
        while self._parent[piece] != piece:
            path.append(piece)
            piece = self._parent[piece]
        # from the top down, so that each offset is taken from a finished one
        total = _NOWHERE
        for one in reversed(path):
            x, y, z = self._offset[one]
            total = (total[0] + x, total[1] + y, total[2] + z)
            self._parent[one], self._offset[one] = piece, total
        return piece, total

    def join(self, a: int, b: int, image: Iterable[int]) -> bool:
        """Join piece `a` in cell 0 with piece `b` in cell `image`; True if that changed components or a dimension."""
        (root_a, at_a), (root_b, at_b) = self.find(a), self.find(b)
        i, j, k = image
        shift = (i - at_b[0] + at_a[0], j - at_b[1] + at_a[1], k - at_b[2] + at_a[2])
        if root_a == root_b:
            return _extend(self._spans[root_a], shift)
        self._parent[root_b], self._offset[root_b] = root_a, shift
        for translation in self._spans.pop(root_b):
            _extend(self._spans[root_a], translation)
        return True

    def dimension(self, piece: int) -> int:
        """In how many directions the component of a piece is endless."""
        return len(self._spans[self.find(piece)[0]])

    @property
    def dimensions(self) -> list[int]:
        """The dimension of each component."""
        return [len(span) for span in self._spans.values()]


def _extend(span: list[Translation], t: Translation) -> bool:
    """Add a translation that is independent of those in `span` (at most three); False if it is not."""
    if t == _NOWHERE or len(span) == 3:
        return False
    if len(span) == 1:
        if _cross(span[0], t) == _NOWHERE:
            return False
    elif len(span) == 2:
        x, y, z = _cross(span[0], span[1])
        if x * t[0] + y * t[1] + z * t[2] == 0:
            return False
    span.append(t)
    return True


def _cross(a: Translation, b: Translation) -> Translation:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def images(crystal: Crystal, edges: Edges) -> NDArray[np.int64]:
    """(E, 3) the cell each edge's sender stands in."""
    apart = crystal.positions[edges.sender] - crystal.positions[edges.receiver]
    inverse = np.linalg.pinv(crystal.cell * crystal.pbc[:, None])
    return np.rint((edges.vector - apart) @ inverse).astype(np.int64)
