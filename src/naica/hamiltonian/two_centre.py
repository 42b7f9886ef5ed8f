"""Two-centre tables (Slater and Koster): blocks that depend on two atoms and their distance alone, as splines.

In the frame of its bond such a block has one number per shell pair and |m|, a function of the distance. The overlap of atomic orbitals
*is* of
this form, so a table fitted to one set gives S of any structure of the same basis without running a code. For H the best such table is a
baseline: what a network has to learn is the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from naica.errors import InputError
from naica.graphs.neighbours import within
from naica.hamiltonian.basis import Basis
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.rotations import wigner_many
from naica.hamiltonian.spinors import averaged, doubled
from naica.structure import Crystal

Array = NDArray[np.float64]
# Å between knots; functions of valence orbitals bend over about half an Å
_KNOT = 0.15
_SMOOTH = 1e-9


@dataclass(frozen=True)
class PairTable:
    """Of two species: coefficients (c, f) of cubic B-splines; f functions: pairs of shells, each with |m| = 0 … the lesser l."""

    knots: Array
    coefficients: Array

    @property
    def reach(self) -> float:
        """Å; beyond it everything is 0."""
        return float(self.knots[-1])

    def __call__(self, distance: Array) -> Array:
        """(n, f) at distances (n) in Å; 0 outside of what the table covers above, its first value below."""
        inside = np.clip(distance, self.knots[0], self.knots[-1])
        values = BSpline(self.knots, self.coefficients, 3)(inside)
        return np.asarray(np.where((distance <= self.knots[-1])[:, None], values, 0.0))


@dataclass(frozen=True)
class TwoCentre:
    """Tables of one kind of matrix for all pairs of species.

    `basis` by atomic number; `pairs` by (z, z') with z ≤ z'; `on_site` by z the mean block (n, n) of an atom with itself (only what a lone
    atom can have: one number per pair of shells of the same l); `error` the largest residual of the fit.
    """

    kind: str
    basis: Mapping[int, Basis]
    pairs: Mapping[tuple[int, int], PairTable]
    on_site: Mapping[int, Array]
    error: float = 0.0
    mean_error: float = 0.0
    info: Mapping[str, Any] = field(default_factory=dict)

    # --- fitting -----------------------------------------------------------------------------------------------------------
    @classmethod
    def fit(cls, matrices: Iterable[OrbitalMatrices], kind: str = "S", gauge: bool = False) -> TwoCentre:
        """Fit to all pairs of all structures.

        Parameters
        ----------
        kind : ``S``, ``H`` or ``H0``
        gauge : take μ S out of each structure first, so that one zero of energy serves all (for H)

        Raises
        ------
        InputError
            If there are no structures, or two have different bases for an element.
        """
        basis: dict[int, Basis] = {}
        distances: dict[tuple[int, int], list[Array]] = {}
        values: dict[tuple[int, int], list[Array]] = {}
        own: dict[int, list[Array]] = {}
        for given in matrices:
            m = averaged(given.shifted(given.gauge()) if gauge else given, (kind,))
            for z, b in m.basis.items():
                if basis.setdefault(z, b) != b:
                    raise InputError(f"two bases for {b.symbol}: {basis[z].text} and {b.text}; tables need one")
            _collect(m, kind, distances, values, own)
        if not own:
            raise InputError("no structures to fit two-centre tables to")
        tables: dict[tuple[int, int], PairTable] = {}
        worst, mean = 0.0, list[float]()
        for key, parts in distances.items():
            d, v = np.concatenate(parts), np.concatenate(values[key])
            tables[key] = _fit(d, v)
            rest = np.abs(tables[key](d) - v)
            worst, mean = max(worst, float(rest.max())), [*mean, float(rest.mean())]
        on_site = {z: _isotropic(np.mean(blocks, axis=0), basis[z]) for z, blocks in own.items()}
        return cls(kind, basis, tables, on_site, worst, float(np.mean(mean)) if mean else 0.0)

    # --- using -------------------------------------------------------------------------------------------------------------
    @property
    def reach(self) -> float:
        """Å, of the farthest table."""
        return max((t.reach for t in self.pairs.values()), default=0.0)

    def blocks(self, matrices: OrbitalMatrices, vectors: Array | None = None) -> Array:
        """Flat blocks for the pairs of some matrices (only structure, basis and pairs are read); of spinors the same for both spins.

        Parameters
        ----------
        vectors : (P, 3) Å of the pairs, if they are not those of the structure
        """
        if matrices.spin:
            both: NDArray[Any] = doubled(matrices, self.blocks(matrices.replace(spin=False, blocks={}), vectors))
            return both.real if self.kind == "S" else both
        self._check(matrices.basis)
        numbers = matrices.crystal.numbers
        kinds = numbers[matrices.pairs]
        bonds = matrices.vectors if vectors is None else vectors
        lengths = np.linalg.norm(bonds, axis=1)
        result = np.zeros(int(matrices.starts[-1]))
        for a, b in np.unique(kinds, axis=0):
            chosen = np.flatnonzero((kinds == (a, b)).all(axis=1) & ~matrices.on_site)
            flip = a > b
            key = (int(b), int(a)) if flip else (int(a), int(b))
            if not len(chosen) or key not in self.pairs:
                continue
            values = self.pairs[key](lengths[chosen])
            found = from_frames(values, -bonds[chosen] if flip else bonds[chosen], self.basis[key[0]], self.basis[key[1]])
            found = found.transpose(0, 2, 1) if flip else found
            places = matrices.starts[chosen][:, None] + np.arange(found[0].size)
            result[places] = found.reshape(len(chosen), -1)
        for pair in np.flatnonzero(matrices.on_site):
            block = self.on_site[int(numbers[matrices.pairs[pair, 0]])]
            result[matrices.starts[pair] : matrices.starts[pair + 1]] = block.ravel()
        return result

    def matrices(self, crystal: Crystal, reach: float | None = None) -> OrbitalMatrices:
        """The same kind of matrix of a new structure, for all pairs within `reach` (Å; default: all that the tables cover).

        Raises
        ------
        InputError
            If the structure has elements without tables.
        """
        basis = {int(z): self.basis[int(z)] for z in np.unique(crystal.numbers) if int(z) in self.basis}
        bare = empty(crystal, basis, self.reach if reach is None else reach)
        return bare.with_blocks(**{self.kind: self.blocks(bare)})

    def _check(self, basis: Mapping[int, Basis]) -> None:
        for z, b in basis.items():
            if z not in self.basis:
                raise InputError(f"no two-centre table for {b.symbol}; there are {', '.join(x.symbol for x in self.basis.values())}")
            if self.basis[z].shells != b.shells:
                raise InputError(f"the table of {b.symbol} is for {self.basis[z].text}, the structure has {b.text}")


def empty(crystal: Crystal, basis: Mapping[int, Basis], reach: float) -> OrbitalMatrices:
    """No matrices yet: all pairs of a structure within `reach` (Å), and every atom with itself."""
    edges = within(crystal.positions, crystal.cell, crystal.pbc, reach)
    offset = edges.vector - (crystal.positions[edges.sender] - crystal.positions[edges.receiver])
    images = np.zeros((len(edges.length), 3), dtype=np.int64)
    if crystal.pbc.any():
        images[:, crystal.pbc] = np.rint(offset @ np.linalg.pinv(crystal.cell[crystal.pbc])).astype(np.int64)
    pairs = np.stack([edges.receiver, edges.sender], axis=1)
    nonzero = images != 0
    first = images[np.arange(len(images)), nonzero.argmax(axis=1)]
    half = (pairs[:, 0] < pairs[:, 1]) | ((pairs[:, 0] == pairs[:, 1]) & (first > 0))
    own = np.arange(len(crystal))
    whole = np.concatenate([np.stack([own, own], axis=1), pairs[half]])
    shifts = np.concatenate([np.zeros((len(own), 3), dtype=np.int64), images[half]])
    # one order for all structures made of the same pairs, however the search found them
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], whole[:, 1], whole[:, 0]))
    return OrbitalMatrices(crystal, basis, whole[order], shifts[order], {})


# --- frames ------------------------------------------------------------------------------------------------------------
def block_functions(left: Basis, right: Basis) -> list[tuple[int, int, int, int, int]]:
    """(first row, l, first column, l', |m|) of each function of a pair of species."""
    return [
        (first, a, second, b, m)
        for a, first in zip(left.shells, left.offsets, strict=True)
        for b, second in zip(right.shells, right.offsets, strict=True)
        for m in range(min(a, b) + 1)
    ]


def frames(vectors: Array) -> Array:
    """(n, 3, 3) rotations that take each vector to +z; the turn about the bond is any."""
    z = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(z), axis=1)]
    x = np.cross(helper, z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _rotations(vectors: Array, most: int) -> list[Array]:
    """For l = 0 … most the (n, 2l + 1, 2l + 1) that turn blocks into the frame of their bond."""
    return wigner_many(frames(vectors), most)


def _collect(m: OrbitalMatrices, kind: str, distances: Any, values: Any, own: dict[int, list[Array]]) -> None:
    numbers = m.crystal.numbers
    kinds = numbers[m.pairs]
    for a, b in np.unique(kinds, axis=0):
        chosen = np.flatnonzero((kinds == (a, b)).all(axis=1) & ~m.on_site)
        if not len(chosen):
            continue
        left, right = m.basis[int(a)], m.basis[int(b)]
        shape = (left.size, right.size)
        places = m.starts[chosen][:, None] + np.arange(left.size * right.size)
        blocks = m.blocks[kind][places].real.reshape(-1, *shape)
        vectors = m.vectors[chosen]
        if a > b:
            blocks, vectors, left, right = blocks.transpose(0, 2, 1), -vectors, right, left
        key = (int(min(a, b)), int(max(a, b)))
        distances.setdefault(key, []).append(m.distances[chosen])
        values.setdefault(key, []).append(_into_frames(blocks, vectors, left, right))
    for pair in np.flatnonzero(m.on_site):
        own.setdefault(int(numbers[m.pairs[pair, 0]]), []).append(m.block(kind, int(pair)).real)


def _into_frames(blocks: Array, vectors: Array, left: Basis, right: Basis) -> Array:
    """(n, f) values of each function: means over ±m in the frame of the bond."""
    d = _rotations(vectors, max(*left.shells, *right.shells))
    found = []
    turned: dict[tuple[int, int], Array] = {}
    for first, a, second, b, m in block_functions(left, right):
        if (first, second) not in turned:
            part = blocks[:, first : first + 2 * a + 1, second : second + 2 * b + 1]
            turned[first, second] = np.einsum("nij,njk,nlk->nil", d[a], part, d[b], optimize=True)
        part = turned[first, second]
        found.append((part[:, a + m, b + m] + part[:, a - m, b - m]) / 2)
    return np.stack(found, axis=1)


def from_frames(values: Array, vectors: Array, left: Basis, right: Basis) -> Array:
    """(n, n_i, n_j) blocks from the functions' values (n, f)."""
    d = _rotations(vectors, max(*left.shells, *right.shells))
    blocks = np.zeros((len(values), left.size, right.size))
    turned: dict[tuple[int, int, int, int], Array] = {}
    for column, (first, a, second, b, m) in enumerate(block_functions(left, right)):
        part = turned.setdefault((first, a, second, b), np.zeros((len(values), 2 * a + 1, 2 * b + 1)))
        part[:, a + m, b + m] = part[:, a - m, b - m] = values[:, column]
    for (first, a, second, b), part in turned.items():
        blocks[:, first : first + 2 * a + 1, second : second + 2 * b + 1] = np.einsum("nji,njk,nkl->nil", d[a], part, d[b], optimize=True)
    return blocks


def _isotropic(block: Array, basis: Basis) -> Array:
    """What of an on-site block a lone atom can have: for each pair of shells of one l, a number times the identity."""
    result = np.zeros_like(block)
    for a, first in zip(basis.shells, basis.offsets, strict=True):
        for b, second in zip(basis.shells, basis.offsets, strict=True):
            if a == b:
                size = 2 * a + 1
                value = np.trace(block[first : first + size, second : second + size]) / size
                result[first : first + size, second : second + size] = value * np.eye(size)
    return result


def _fit(distance: Array, values: Array) -> PairTable:
    """Least squares by cubic B-splines, a little smoothed so that stretches without data stay straight."""
    low, high = float(distance.min()), float(distance.max())
    inner = np.linspace(low, high + 1e-6, max(2, int((high - low) / _KNOT) + 2))
    knots = np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])
    design = BSpline.design_matrix(distance, knots, 3)
    n = design.shape[1]
    bend = np.diff(np.eye(n), 2, axis=0)
    normal = (design.T @ design).toarray() + _SMOOTH * len(distance) * bend.T @ bend + 1e-14 * len(distance) * np.eye(n)
    return PairTable(knots, np.linalg.solve(normal, design.T @ values))
