"""Blocks of spinors as four blocks of orbitals: ``H = 1 ⊗ h + i σ·g``, spin outside.

σ are the Pauli matrices for spin axes x, y, z. Where time turned back changes nothing (no magnetism, no field), h and the three g are
real: four real numbers for each pair of orbitals instead of eight, and Kramers' pairs to the last digit. The reverse of a pair has hᵀ and
−gᵀ. A rotation turns the orbitals of all four with D, and the three g among themselves as an axial vector: a mirror leaves spin alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.hamiltonian.basis import Basis
from naica.hamiltonian.matrices import OrbitalMatrices

Array = NDArray[np.float64]

PAULI = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
# sign of each of the four in the reverse of a pair
REVERSE = np.array([1.0, -1.0, -1.0, -1.0])


def parts_of(blocks: NDArray[Any], left: int, right: int) -> NDArray[np.complex128]:
    """(n, 4, left, right) h, g_x, g_y, g_z of blocks (n, 2·left, 2·right); real where time reversal holds."""
    split = np.asarray(blocks).reshape(len(blocks), 2, left, 2, right)
    found = np.einsum("csr,nrisj->ncij", PAULI, split) / 2
    found[:, 1:] *= -1j
    return np.asarray(found)


def of_parts(parts: NDArray[Any]) -> NDArray[np.complex128]:
    """The way back: (n, 4, left, right) → (n, 2·left, 2·right)."""
    n, _, left, right = parts.shape
    factors = PAULI * np.array([1, 1j, 1j, 1j])[:, None, None]
    return np.einsum("crs,ncij->nrisj", factors, parts).reshape(n, 2 * left, 2 * right)


def spin_turn(turn: Array) -> NDArray[np.complex128]:
    """(2, 2) how a rotation (or a rotation after inversion, which leaves spin alone) turns spinors."""
    from scipy.spatial.transform import Rotation

    vector = Rotation.from_matrix(turn * np.sign(np.linalg.det(turn))).as_rotvec()
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle else np.array([0.0, 0.0, 1.0])
    return np.asarray(np.cos(angle / 2) * PAULI[0] - 1j * np.sin(angle / 2) * np.einsum("a,aij->ij", axis, PAULI[1:]))


def time_reversal_error(matrices: OrbitalMatrices, kind: str = "H") -> float:
    """Largest imaginary part (eV) of h and g: 0 where time turned back changes nothing."""
    worst = 0.0
    for a, b, rows in _kinds(matrices):
        worst = max(worst, float(np.abs(parts_of(_blocks(matrices, kind, rows), a, b).imag).max(initial=0.0)))
    return worst


def averaged(matrices: OrbitalMatrices, kinds: Sequence[str] | None = None) -> OrbitalMatrices:
    """The matrices without spin: the real h of every block (S has nothing else); matrices without spinors as they are."""
    if not matrices.spin:
        return matrices
    bare = matrices.replace(spin=False, blocks={}, reference=None)
    found = {kind: np.zeros(int(bare.starts[-1])) for kind in (kinds or matrices.blocks)}
    for a, b, rows in _kinds(matrices):
        places = bare.starts[rows][:, None] + np.arange(a * b)
        for kind, values in found.items():
            values[places] = parts_of(_blocks(matrices, kind, rows), a, b)[:, 0].real.reshape(len(rows), -1)
    return bare.with_blocks(**found)


def doubled(matrices: OrbitalMatrices, values: Array) -> NDArray[np.complex128]:
    """Flat blocks of spinors (for the pairs of `matrices`, which have spin) from flat blocks of orbitals: the same for both spins."""
    bare = matrices.replace(spin=False, blocks={}, reference=None)
    found = np.zeros(int(matrices.starts[-1]), dtype=np.complex128)
    for a, b, rows in _kinds(matrices):
        parts = np.zeros((len(rows), 4, a, b))
        parts[:, 0] = values[bare.starts[rows][:, None] + np.arange(a * b)].reshape(-1, a, b)
        found[matrices.starts[rows][:, None] + np.arange(4 * a * b)] = of_parts(parts).reshape(len(rows), -1)
    return found


def with_spin(matrices: OrbitalMatrices, g: dict[int, Array] | None = None) -> OrbitalMatrices:
    """Matrices without spin as those of spinors; S and H₀ the same for both spins, and H with `g` (3, n_i, n_j) of some pairs by number."""
    whole = matrices.replace(spin=True, blocks={})
    blocks: dict[str, NDArray[Any]] = {kind: doubled(whole, values) for kind, values in matrices.blocks.items()}
    for pair, one in (g or {}).items():
        parts = np.concatenate([np.zeros((1, *one.shape[1:])), one])[None]
        blocks["H"][whole.starts[pair] : whole.starts[pair + 1]] += of_parts(parts).ravel()
    blocks = {kind: values.real if kind == "S" else values for kind, values in blocks.items()}
    return whole.with_blocks(**blocks)


def angular_momentum(basis: Basis) -> Array:
    """(3, n, n) real A with L = i A (ħ = 1) for axes x, y, z: what turns the orbitals of an atom, d D(θ)/dθ at 0."""
    return _angular_momentum(basis.shells)


@cache
def _angular_momentum(shells: tuple[int, ...]) -> Array:
    from scipy.linalg import logm
    from scipy.spatial.transform import Rotation

    from naica.hamiltonian.rotations import wigner_matrices

    angle = 0.3
    size = sum(2 * shell + 1 for shell in shells)
    found = np.zeros((3, size, size))
    for axis in range(3):
        d = wigner_matrices(Rotation.from_rotvec(angle * np.eye(3)[axis]).as_matrix(), max(shells))
        start = 0
        for shell in shells:
            span = slice(start, start + 2 * shell + 1)
            found[axis, span, span] = np.real(logm(d[shell])) / angle
            start = span.stop
    return found


def _kinds(matrices: OrbitalMatrices) -> list[tuple[int, int, NDArray[np.int64]]]:
    """Orbitals (without spin) of both ends, and the pairs that have so many."""
    sizes = (matrices.sizes // 2 if matrices.spin else matrices.sizes)[matrices.pairs]
    return [(int(a), int(b), np.flatnonzero((sizes == (a, b)).all(axis=1))) for a, b in np.unique(sizes, axis=0)]


def _blocks(matrices: OrbitalMatrices, kind: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    a, b = matrices.sizes[matrices.pairs[rows[0]]]
    return matrices.blocks[kind][matrices.starts[rows][:, None] + np.arange(a * b)].reshape(len(rows), a, b)
