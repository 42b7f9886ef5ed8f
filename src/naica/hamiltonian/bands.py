"""From H(R) and S(R) to what electrons do: eigenvalues, Fermi level, gap, densities of states, charges, effective masses.

Small cells are solved whole; large ones by shift and invert around an energy, which needs only the sparse matrices. Overlaps that are
nearly singular are told and their worst directions left out (whole solver), because noise in H is amplified by them without bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse import linalg as sparse_linalg

from naica.errors import InputError, RunError
from naica.hamiltonian.matrices import OrbitalMatrices

Array = NDArray[np.float64]

# orbitals up to which a whole diagonalisation is faster than shift and invert of some tens of states
DENSE_UP_TO = 1500
# of shift and invert: the share of elements from which on the factor is dense, and how large it may be (32,000 orbitals at Γ)
_FILLED, _DENSE_FACTOR_BYTES = 0.02, 8.2e9
# eigenvalues of S below this are left out: 1 meV of noise in H becomes eV in the bands through them
LEAST_OVERLAP = 1e-5
_KB = 8.617333262e-5  # eV/K
_HBAR2_OVER_ME = 7.619964231  # eV Å²


@dataclass(frozen=True)
class Solved:
    """States at one k point: `energies` (s) eV from the lowest up, `vectors` (n, s) with c† S c = 1, `left_out` directions of S."""

    energies: Array
    vectors: NDArray[Any] | None
    left_out: int = 0


def solve(
    matrices: OrbitalMatrices,
    k: Sequence[float] | Array = (0.0, 0.0, 0.0),
    states: int | None = None,
    around: float | None = None,
    vectors: bool = False,
    kind: str = "H",
) -> Solved:
    """Solve H(k) c = ε S(k) c.

    Parameters
    ----------
    k : fractional
    states : how many; None: all, which needs a whole diagonalisation
    around : eV; with `states`, those nearest to this energy are found by shift and invert where the cell is large
    vectors : whether to keep the states

    Raises
    ------
    InputError
        If S has a negative eigenvalue (it was truncated), or the cell is large and no energy to look around was given.
    """
    n = matrices.n_orbitals
    if n <= DENSE_UP_TO or states is None:
        return _nearest(_dense(matrices, k, vectors, kind), states, around)
    if around is None:
        raise InputError(f"{n} orbitals and no energy to look around; give the Fermi level (eV) of the structure or of one like it")
    return _shift_invert(matrices, k, states, around, vectors, kind)


def eigenvalues(matrices: OrbitalMatrices, k: Sequence[float] | Array, kind: str = "H") -> Array:
    """All eigenvalues (eV) at one k point."""
    return solve(matrices, k, kind=kind).energies


def _dense(matrices: OrbitalMatrices, k: Any, vectors: bool, kind: str) -> Solved:
    h = matrices.dense(kind, k)
    h = (h + h.conj().T) / 2
    if matrices.orthogonal:
        found = linalg.eigh(h, eigvals_only=not vectors)
        return Solved(found[0], found[1]) if vectors else Solved(found, None)
    s = matrices.dense("S", k)
    s = (s + s.conj().T) / 2
    if _nearly_singular(s):
        return _projected(h, s, vectors)
    found = linalg.eigh(h, s, eigvals_only=not vectors)
    return Solved(found[0], found[1]) if vectors else Solved(found, None)


def _nearly_singular(s: NDArray[Any]) -> bool:
    """Whether an overlap has an eigenvalue below the limit: then S − limit has no Cholesky factor, which is the cheapest way to know."""
    try:
        linalg.cholesky(s - LEAST_OVERLAP * np.eye(len(s)), check_finite=False)
    except linalg.LinAlgError:
        return True
    return False


def _projected(h: NDArray[Any], s: NDArray[Any], vectors: bool) -> Solved:
    values, directions = linalg.eigh(s)
    if values[0] < -1e-4:
        raise InputError(
            f"S has the eigenvalue {values[0]:.2g}; expected none below 0: it was cut off at too short a distance. S must never be cut"
        )
    good = values > LEAST_OVERLAP
    x = directions[:, good] / np.sqrt(values[good])
    energies, inner = linalg.eigh(x.conj().T @ h @ x)
    return Solved(energies, x @ inner if vectors else None, int((~good).sum()))


def _nearest(found: Solved, states: int | None, around: float | None) -> Solved:
    if states is None or states >= len(found.energies):
        return found
    order = np.arange(len(found.energies)) if around is None else np.argsort(np.abs(found.energies - around), kind="stable")
    keep = np.sort(order[:states])
    return Solved(found.energies[keep], None if found.vectors is None else found.vectors[:, keep], found.left_out)


def _shift_invert(matrices: OrbitalMatrices, k: Any, states: int, around: float, vectors: bool, kind: str) -> Solved:
    h, s = matrices.at(kind, k).tocsc(), None if matrices.orthogonal else matrices.at("S", k).tocsc()
    if not np.any(k) and not np.iscomplexobj(matrices.blocks[kind]):
        h, s = h.real, None if s is None else s.real
    n = h.shape[0]
    start = np.random.default_rng(0).normal(size=n).astype(h.dtype)
    inverse = None
    if h.nnz > _FILLED * n**2 and n**2 * h.dtype.itemsize <= _DENSE_FACTOR_BYTES:
        inverse = _dense_inverse(h, s, around)
    try:
        energies, found = sparse_linalg.eigsh(h, states, s, sigma=around, v0=start, tol=1e-8, OPinv=inverse)
    except (sparse_linalg.ArpackError, RuntimeError) as error:
        raise RunError(f"the states around {around:g} eV were not found ({error}); try another energy, or fewer states") from error
    order = np.argsort(energies)
    return Solved(energies[order], found[:, order] if vectors else None)


def _dense_inverse(h: Any, s: Any, around: float) -> sparse_linalg.LinearOperator:
    """(H − E S)⁻¹ by one dense factor: where orbitals reach over many neighbours, a sparse factor is nearly full and much slower."""
    shifted = (h - around * (s if s is not None else sparse.identity(h.shape[0], dtype=h.dtype, format="csc"))).toarray(order="F")
    factor = linalg.lu_factor(shifted, overwrite_a=True, check_finite=False)
    return sparse_linalg.LinearOperator(h.shape, matvec=lambda x: linalg.lu_solve(factor, x, check_finite=False), dtype=h.dtype)


# --- filling the states ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Filling:
    """How a mesh of k points is filled.

    `fermi` eV; `gap` eV, 0 for a metal; `direct` whether valence and conduction edge lie at one k point; `valence`, `conduction` edges in
    eV and `valence_k`, `conduction_k` where (fractional).
    """

    fermi: float
    gap: float
    direct: bool
    valence: float
    conduction: float
    valence_k: Array
    conduction_k: Array

    @property
    def metal(self) -> bool:
        """Whether there is no gap."""
        return self.gap <= 0


def mesh(size: Sequence[int]) -> Array:
    """(K, 3) fractional points of a mesh that holds Γ, from −½ to ½."""
    axes = [(np.arange(n) - (n - 1) // 2) / n for n in size]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def mesh_for(matrices: OrbitalMatrices, spacing: float = 0.25) -> Array:
    """The mesh whose points are at most `spacing` (1/Å, 2π included) apart; one point along directions that do not repeat."""
    crystal = matrices.crystal
    if not crystal.pbc.any():
        return np.zeros((1, 3))
    full = crystal.cell.copy()
    full[~crystal.pbc] = np.eye(3)[~crystal.pbc] * 1e3
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(full), axis=0)
    size = [max(1, int(np.ceil(length / spacing))) if repeats else 1 for length, repeats in zip(lengths, crystal.pbc, strict=True)]
    return mesh([n + 1 - n % 2 for n in size])


def fermi_level(energies: Array, electrons: float, temperature: float = 300.0, per_state: int = 2) -> float:
    """The energy (eV) at which states of a mesh (K, n), `per_state` electrons each, hold `electrons` per cell at a temperature (K).

    Raises
    ------
    InputError
        If there are fewer states than electrons.
    """
    if electrons > per_state * energies.shape[1]:
        raise InputError(f"{electrons:g} electrons and {energies.shape[1]} states of {per_state}; expected no more electrons than fit")
    low, high = float(energies.min()) - 1.0, float(energies.max()) + 1.0
    kt = max(_KB * temperature, 1e-6)
    for _ in range(200):
        middle = (low + high) / 2
        x = np.clip((energies - middle) / kt, -500, 500)
        low, high = (middle, high) if per_state * np.mean(np.sum(1 / (1 + np.exp(x)), axis=1)) < electrons else (low, middle)
    return (low + high) / 2


def filling(energies: Array, kpoints: Array, electrons: float, temperature: float = 300.0, per_state: int = 2) -> Filling:
    """Fermi level and gap of states (K, n) at k points (K, 3), `per_state` electrons in each (one in those of spinors).

    A number of electrons that fills no whole number of bands, or a highest filled band that overlaps the next, is a metal: its gap is 0.
    """
    bands = round(electrons / per_state)
    even = abs(electrons - per_state * bands) < 1e-6
    if not even or bands == 0 or bands >= energies.shape[1]:
        level = fermi_level(energies, electrons, temperature, per_state)
        return Filling(level, 0.0, False, level, level, np.zeros(3), np.zeros(3))
    top, bottom = energies[:, bands - 1], energies[:, bands]
    v, c = int(top.argmax()), int(bottom.argmin())
    if top[v] < bottom[c]:
        level = float(top[v] + bottom[c]) / 2
        direct = v == c or bool(np.isclose(top[c], top[v], atol=1e-4)) or bool(np.isclose(bottom[v], bottom[c], atol=1e-4))
        return Filling(level, float(bottom[c] - top[v]), direct, float(top[v]), float(bottom[c]), kpoints[v], kpoints[c])
    level = fermi_level(energies, electrons, temperature, per_state)
    return Filling(level, 0.0, False, float(top[v]), float(bottom[c]), kpoints[v], kpoints[c])


def all_energies(matrices: OrbitalMatrices, kpoints: Array, kind: str = "H") -> Array:
    """(K, n) eigenvalues at many k points; where directions of S are left out, rows are filled with NaN at the top."""
    rows = [eigenvalues(matrices, k, kind) for k in kpoints]
    most = max(len(r) for r in rows)
    return np.stack([np.pad(r, (0, most - len(r)), constant_values=np.nan) for r in rows])


# --- densities of states and charges -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Density:
    """States per eV and cell at `energies` (E) eV: `total` (E), and `parts` by name (element and shell, for example ``C p``)."""

    energies: Array
    total: Array
    parts: dict[str, Array]


def density_of_states(
    matrices: OrbitalMatrices,
    kpoints: Array | None = None,
    width: float = 0.1,
    points: int = 1000,
    window: tuple[float, float] | None = None,
) -> Density:
    """Density of states with Gaussians of `width` eV, projected on elements and shells by Mulliken weights Re c*·(S c)."""
    points_k = mesh_for(matrices) if kpoints is None else kpoints
    names, kind = _projections(matrices)
    found = [solve(matrices, k, vectors=True) for k in points_k]
    every = np.concatenate([one.energies for one in found])
    low, high = window or (float(every.min()) - 5 * width, float(every.max()) + 5 * width)
    grid = np.linspace(low, high, max(points, int(4 * (high - low) / width)))
    total, parts = np.zeros(len(grid)), np.zeros((len(names), len(grid)))
    for k, one in zip(points_k, found, strict=True):
        weights = mulliken(matrices, k, one)
        peaks = gaussians(one.energies, grid, width) * matrices.per_state / len(points_k)
        total += peaks.sum(0)
        for part in range(len(names)):
            parts[part] += weights[kind == part].sum(0) @ peaks
    return Density(grid, total, dict(zip(names, parts, strict=True)))


def gaussians(energies: Array, grid: Array, width: float) -> Array:
    """(s, E) one Gaussian of `width` (eV) and area 1 per state, on a grid of energies."""
    return np.asarray(np.exp(-(((grid[None] - energies[:, None]) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi)))


def mulliken(matrices: OrbitalMatrices, k: Any, solved: Solved) -> Array:
    """(n, s) share of every orbital in every state; each state's shares add up to 1."""
    assert solved.vectors is not None
    c = solved.vectors
    s_c = c if matrices.orthogonal else matrices.at("S", k) @ c
    return np.asarray((c.conj() * s_c).real)


def charges(matrices: OrbitalMatrices, kpoints: Array | None = None, temperature: float = 300.0) -> Array:
    """(n) Mulliken charges in e: valence electrons of the neutral atom less those found there.

    Raises
    ------
    InputError
        If the basis does not say how many valence electrons its atoms have.
    """
    numbers = matrices.crystal.numbers
    valence = np.array([matrices.basis[int(z)].electrons for z in numbers])
    if not valence.all():
        raise InputError("the basis does not say how many valence electrons its atoms have; give Basis(…, electrons=…)")
    points = mesh_for(matrices) if kpoints is None else kpoints
    found = [solve(matrices, k, vectors=True) for k in points]
    electrons = matrices.electrons if matrices.electrons is not None else float(valence.sum())
    energies = np.stack([one.energies for one in found])
    level = fermi_level(energies, electrons, temperature, matrices.per_state)
    atom = np.repeat(np.arange(len(numbers)), matrices.sizes)
    inside = np.zeros(len(numbers))
    for k, one in zip(points, found, strict=True):
        x = np.clip((one.energies - level) / (_KB * temperature), -500, 500)
        np.add.at(inside, atom, mulliken(matrices, k, one) @ (matrices.per_state / (1 + np.exp(x))) / len(points))
    return valence - inside


def _projections(matrices: OrbitalMatrices) -> tuple[list[str], NDArray[np.int64]]:
    """Names of element and shell, and which each orbital belongs to."""
    names: list[str] = []
    kind = []
    for z in matrices.crystal.numbers:
        basis = matrices.basis[int(z)]
        for shell in basis.shells * (2 if matrices.spin else 1):
            name = f"{basis.symbol} {'spdfghi'[shell]}"
            if name not in names:
                names.append(name)
            kind += [names.index(name)] * (2 * shell + 1)
    return names, np.array(kind)


def effective_masses(matrices: OrbitalMatrices, k: Array, band: int, step: float = 0.01) -> Array:
    """(3) effective masses in electron masses along the principal axes at a k point, from second differences of a band's energy.

    Parameters
    ----------
    k : fractional; an edge of the band
    band : counted from 0
    step : 1/Å (2π included)

    Raises
    ------
    InputError
        If the structure does not repeat in three directions.
    """
    crystal = matrices.crystal
    if not crystal.pbc.all():
        raise InputError("effective masses need a crystal that repeats in three directions")
    to_fractional = crystal.cell.T / (2 * np.pi)  # fractional k = k_cartesian · cellᵀ / 2π

    def energy(shift: Array) -> float:
        return float(eigenvalues(matrices, k + shift @ to_fractional)[band])

    here, eye = energy(np.zeros(3)), np.eye(3) * step
    curvature = np.zeros((3, 3))
    for a in range(3):
        curvature[a, a] = (energy(eye[a]) - 2 * here + energy(-eye[a])) / step**2
        for b in range(a):
            four = energy(eye[a] + eye[b]) - energy(eye[a] - eye[b]) - energy(eye[b] - eye[a]) + energy(-eye[a] - eye[b])
            curvature[a, b] = curvature[b, a] = four / (4 * step**2)
    return np.asarray(_HBAR2_OVER_ME / np.linalg.eigvalsh(curvature))


# --- paths -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Path:
    """A walk through the Brillouin zone: `kpoints` (K, 3) fractional, `distance` (K) 1/Å, `ticks` (place, label) of special points."""

    kpoints: Array
    distance: Array
    ticks: tuple[tuple[float, str], ...]


def path(matrices: OrbitalMatrices, points: int = 200, special: str | None = None) -> Path:
    """The usual path of the crystal's lattice (Setyawan and Curtarolo, by ASE), or one named by its special points such as ``GMKG``.

    A strained cell has the points of the lattice it is nearest to, if they are named.

    Raises
    ------
    InputError
        If the lattice has no such points.
    """
    crystal = matrices.crystal
    if not crystal.pbc.any():
        return Path(np.zeros((1, 3)), np.zeros(1), ((0.0, "Γ"),))
    found = _walk(crystal.to_ase().cell, crystal.pbc, points, special)
    x, places, labels = found.get_linear_kpoint_axis()
    ticks = tuple((float(at), "Γ" if label == "G" else label) for at, label in zip(places, labels, strict=True))
    return Path(np.asarray(found.kpts), 2 * np.pi * np.asarray(x), tuple((2 * np.pi * at, label) for at, label in ticks))


def _walk(cell: Any, pbc: Any, points: int, special: str | None) -> Any:
    known: set[str] = set()
    for tolerance in (1e-3,) if special is None else (1e-3, 1e-2, 0.05, 0.1, 0.2):
        try:
            return cell.bandpath(special, npoints=points, pbc=pbc, eps=tolerance)
        except KeyError:
            known |= set(cell.bandpath(None, npoints=0, pbc=pbc, eps=tolerance).special_points)
    raise InputError(f"no path {special!r} in this lattice; its special points are {', '.join(sorted(known))}")
