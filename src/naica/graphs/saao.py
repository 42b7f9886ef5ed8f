"""Symmetry-adapted atomic orbitals of a molecule, from a tight-binding calculation (GFN1-xTB by tblite).

Qiao et al., J. Chem. Phys. 153, 124111 (2020), Sec. II: the density matrix block of each shell of each atom is diagonalised, and
operators are looked at in its eigenvectors. Eigenvectors have no sign, and those of equal eigenvalues no direction; so off-diagonal values
enter as sizes, and are averaged (in the square) over orbitals whose eigenvalues nearly agree. What is left is the molecule's own.

The Fock matrix is put together as S C ε Cᵀ S, because the matrix tblite exports as the Hamiltonian is not the self-consistent one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError, MissingPart
from naica.graphs.levels import Made, System
from naica.graphs.spec import GraphSpec
from naica.structure.elements import symbol

BOHR = 0.529177210903
"""Å."""
REACH = 8.0
"""Off-diagonal values below e^−8 (3e-4 a.u.) make no edge."""

_LAST_ELEMENT = 86
# eigenvalues of the density block closer than this (electrons) count as one, smoothly
_DEGENERATE = 0.02
_ACCURACY = 1e-3


@dataclass(frozen=True)
class Operators:
    """Matrices over atomic orbitals in a.u.: Fock, density, core Hamiltonian, overlap (n, n); atom and shell of each orbital (n)."""

    fock: NDArray[np.float64]
    density: NDArray[np.float64]
    core: NDArray[np.float64]
    overlap: NDArray[np.float64]
    atom: NDArray[np.int64]
    shell: NDArray[np.int64]


def saao(system: System, spec: GraphSpec) -> Made:
    """Orbitals with their diagonal values, and pairs of orbitals with the sizes of their off-diagonal ones.

    Raises
    ------
    InputError
        For crystals (the calculation knows the Γ point alone, which misleads), elements beyond radon and runs that do not converge.
    MissingPart
        If tblite is not installed.
    """
    found = operators(system.numbers, system.positions, system.pbc)
    adapted, weights = _adapted(found)
    turned = [adapted.T @ matrix @ adapted for matrix in (found.fock, found.density, found.core, found.overlap)]
    diagonal = np.stack([weights @ np.diag(matrix) for matrix in turned[:3]], axis=1)
    sizes = np.stack([np.sqrt(np.maximum(weights @ matrix**2 @ weights.T, 0)) for matrix in turned], axis=2)
    near = (sizes.max(axis=2) > np.exp(-REACH)) & ~np.eye(len(diagonal), dtype=bool)
    # rounding must not leave a pair that one of its two ends knows alone
    receiver, sender = np.nonzero(near | near.T)
    return {
        "orbital_atom": found.atom,
        "orbital_shell": _kinds(found),
        "saao_diagonal": diagonal,
        "orbital_edge_receiver": receiver,
        "orbital_edge_sender": sender,
        "saao_coupling": sizes[receiver, sender],
    }


def operators(numbers: NDArray[np.int64], positions: NDArray[np.float64], pbc: NDArray[np.bool_]) -> Operators:
    """Matrices of a neutral molecule; positions (n, 3) in Å. Errors as `saao`."""
    try:
        from tblite.interface import Calculator
    except ImportError as error:
        raise MissingPart("orbitals of molecules need tblite: pip install 'naica[orbitals]'") from error
    if pbc.any():
        raise InputError("a crystal: this tight-binding code samples the Γ point alone, so its orbitals are for molecules only")
    if numbers.max() > _LAST_ELEMENT:
        raise InputError(f"GFN1-xTB has no parameters for {symbol(int(numbers.max()))}; it ends at radon")
    try:
        calculator = Calculator("GFN1-xTB", numbers, positions / BOHR)
        for name, value in (("verbosity", 0), ("save-integrals", 1), ("accuracy", _ACCURACY)):
            calculator.set(name, value)
        result = calculator.singlepoint()
    except RuntimeError as error:
        raise InputError(f"the tight-binding calculation failed: {error}") from error
    overlap, coefficients = result.get("overlap-matrix"), result.get("orbital-coefficients")
    half = overlap @ coefficients
    shell = np.asarray(calculator.get("orbital-map"), np.int64)
    return Operators(
        (half * result.get("orbital-energies")) @ half.T,
        result.get("density-matrix"),
        result.get("hamiltonian-matrix"),
        overlap,
        np.asarray(calculator.get("shell-map"), np.int64)[shell],
        shell,
    )


def _adapted(found: Operators) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The orbitals as columns (n, n), and how much each counts in the averages of each (n, n; rows sum to 1)."""
    n = len(found.shell)
    vectors, weights = np.zeros((n, n)), np.zeros((n, n))
    for shell in np.unique(found.shell):
        mine = np.flatnonzero(found.shell == shell)
        block = found.density[np.ix_(mine, mine)]
        values, vectors[np.ix_(mine, mine)] = np.linalg.eigh((block + block.T) / 2)
        near = np.exp(-(((values[:, None] - values) / _DEGENERATE) ** 2))
        weights[np.ix_(mine, mine)] = near / near.sum(axis=1, keepdims=True)
    return vectors, weights


def _kinds(found: Operators) -> NDArray[np.int64]:
    """Kind of each orbital: four for each angular momentum (by size of the shell), counting the shells of an atom that have it."""
    kind = np.zeros(len(found.shell), np.int64)
    seen: dict[tuple[int, int], int] = {}
    for shell in np.unique(found.shell):
        mine = np.flatnonzero(found.shell == shell)
        key = (int(found.atom[mine[0]]), len(mine) // 2)
        kind[mine] = 4 * min(seen.get(key, 0), 3) + key[1]
        seen[key] = seen.get(key, 0) + 1
    return kind
