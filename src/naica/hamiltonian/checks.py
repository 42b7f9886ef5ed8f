"""What every set of matrices must pass before it is believed; run on each import.

The bond test needs one calculation and nothing else: a two-centre overlap block, turned so that its bond lies along z, is diagonal in m
in the right convention and in no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.hamiltonian.bands import eigenvalues
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.spinors import averaged, spin_turn, time_reversal_error

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One test: its name, what was measured, the limit, and what a failure usually means."""

    name: str
    value: float
    limit: float
    advice: str

    @property
    def passed(self) -> bool:
        """Whether the value keeps the limit."""
        return bool(np.isfinite(self.value) and self.value <= self.limit)

    def __str__(self) -> str:
        return f"{'✓' if self.passed else '✗'} {self.name}: {self.value:.2e} ≤ {self.limit:.0e}"


def findings(matrices: OrbitalMatrices, two_centre: bool = True, bond_limit: float = 1e-3, seed: int = 0) -> list[Finding]:
    """All tests that apply.

    Parameters
    ----------
    two_centre : whether the code's overlap is a plain integral of two orbitals (not so in PAW and ultrasoft codes)
    bond_limit : of the bond test; codes that integrate on grids need 1e-3
    """
    found = []
    if not matrices.orthogonal:
        found.append(Finding("diagonal of S is 1", _diagonal_error(matrices), 1e-2, "is S in the file really the overlap?"))
        found.append(_positive(matrices, seed))
        if two_centre:
            found.append(
                Finding("overlaps along their bonds", bond_error(matrices), bond_limit, "order or signs of the orbitals are not the code's")
            )
    if matrices.reference is not None:
        found.append(
            Finding("bands against the code's own (eV)", band_error(matrices), 1e-3, "R or its sign, a missing block, or a truncated S")
        )
    if matrices.spin and "H" in matrices.blocks:
        found.append(Finding("time turned back (eV)", time_reversal_error(matrices), 1e-3, "a magnet, or spins in another order"))
    for kind, values in matrices.blocks.items():
        if not np.isfinite(values).all():
            found.append(Finding(f"{kind} finite", float("inf"), 0.0, "the file is damaged"))
    return found


def accept(matrices: OrbitalMatrices, where: str, two_centre: bool = True, bond_limit: float = 1e-3) -> OrbitalMatrices:
    """The matrices, if they pass.

    Raises
    ------
    InputError
        With every test that failed, its value and what it usually means.
    """
    failed = [one for one in findings(matrices, two_centre, bond_limit) if not one.passed]
    if failed:
        told = "; ".join(f"{one.name}: {one.value:.2g}, expected at most {one.limit:g} ({one.advice})" for one in failed)
        raise InputError(f"{where}: {told}")
    return matrices


def bond_error(matrices: OrbitalMatrices, kind: str = "S", most: int = 200) -> float:
    """Largest element between different m of blocks turned so that their bond is along z; at most `most` pairs, the shortest ones."""
    from naica.hamiltonian.rotations import wigner_matrices

    matrices = averaged(matrices, (kind,))
    apart = np.flatnonzero(matrices.distances > 1e-6)
    apart = apart[np.argsort(matrices.distances[apart], kind="stable")][:most]
    worst = 0.0
    for pair in apart:
        left, right = (matrices.basis[int(matrices.crystal.numbers[a])] for a in matrices.pairs[pair])
        turn = _onto_z(matrices.vectors[pair])
        d = wigner_matrices(turn, max(*left.shells, *right.shells))
        block = matrices.block(kind, int(pair))
        for a, first in zip(left.shells, left.offsets, strict=True):
            for b, second in zip(right.shells, right.offsets, strict=True):
                part = d[a] @ block[first : first + 2 * a + 1, second : second + 2 * b + 1] @ d[b].T
                m, n = np.arange(-a, a + 1)[:, None], np.arange(-b, b + 1)[None, :]
                worst = max(worst, float(np.abs(part[m != n]).max(initial=0.0)))
    return worst


def rotation_error(source: Callable[[Array], OrbitalMatrices], seed: int = 0, kind: str = "H") -> float:
    """Largest difference (eV) between a structure's matrices turned by Wigner matrices and those of the turned structure.

    Parameters
    ----------
    source : from a rotation matrix (3, 3) to the matrices of the structure turned by it (positions @ turn.T)
    """
    from scipy.spatial.transform import Rotation

    turn = Rotation.random(random_state=seed).as_matrix()
    before, after = source(np.eye(3)), source(turn)
    return float(np.abs(rotated(before, turn).blocks[kind] - after.blocks[kind]).max())


def rotated(matrices: OrbitalMatrices, turn: Array) -> OrbitalMatrices:
    """The matrices of the structure turned by `turn` (3, 3), positions @ turn.T: each block D H D†, forces with them."""
    from naica.hamiltonian.rotations import wigner_matrices

    most = max(max(b.shells) for b in matrices.basis.values())
    d = wigner_matrices(turn, most)
    whole: dict[int, NDArray[Any]] = {z: _block_diagonal([d[shell] for shell in b.shells]) for z, b in matrices.basis.items()}
    if matrices.spin:
        whole = {z: np.kron(spin_turn(turn), w) for z, w in whole.items()}
    numbers = matrices.crystal.numbers
    blocks = {}
    for kind in matrices.blocks:
        parts = []
        for pair, (i, j) in enumerate(matrices.pairs):
            parts.append((whole[int(numbers[i])] @ matrices.block(kind, pair) @ whole[int(numbers[j])].conj().T).ravel())
        turned = np.concatenate(parts)
        # overlaps stay real: both spins have the same
        blocks[kind] = turned.real if np.isrealobj(matrices.blocks[kind]) else turned
    c = matrices.crystal
    forces = None if matrices.forces is None else matrices.forces @ turn.T
    return matrices.replace(crystal=c.replace(positions=c.positions @ turn.T, cell=c.cell @ turn.T), blocks=blocks, forces=forces)


def band_error(matrices: OrbitalMatrices) -> float:
    """Largest difference (eV) between the code's own eigenvalues and those of H(k), S(k)."""
    assert matrices.reference is not None
    worst = 0.0
    for k, own in zip(matrices.reference.kpoints, matrices.reference.eigenvalues, strict=True):
        n = int(np.isfinite(own).sum())
        worst = max(worst, float(np.abs(eigenvalues(matrices, k)[:n] - own[:n]).max()))
    return worst


def _diagonal_error(matrices: OrbitalMatrices) -> float:
    own = np.flatnonzero(matrices.on_site)
    return max(float(np.abs(np.diag(matrices.block("S", int(p))) - 1).max()) for p in own)


def _positive(matrices: OrbitalMatrices, seed: int) -> Finding:
    """S must have positive eigenvalues only: where it has not, it was truncated."""
    points = [np.zeros(3)]
    if matrices.crystal.pbc.any():
        points += list(np.random.default_rng(seed).random((2, 3)) * matrices.crystal.pbc)
    if matrices.n_orbitals > 2000:
        points = points[:1]
    least = min(float(np.linalg.eigvalsh(matrices.dense("S", k))[0]) for k in points)
    return Finding("−least eigenvalue of S", -least, 0.0, "S was truncated, or blocks are missing")


def _onto_z(vector: Array) -> Array:
    """A rotation that takes a direction to +z."""
    z = vector / np.linalg.norm(vector)
    helper = np.eye(3)[int(np.argmin(np.abs(z)))]
    x = np.cross(helper, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def _block_diagonal(parts: list[Array]) -> Array:
    size = sum(len(p) for p in parts)
    whole, start = np.zeros((size, size)), 0
    for part in parts:
        whole[start : start + len(part), start : start + len(part)] = part
        start += len(part)
    return whole
