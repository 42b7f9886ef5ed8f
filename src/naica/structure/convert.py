"""`Crystal` to and from ASE and pymatgen, supercells by integer matrices, shortest distances.

What travels besides the atoms: `info` goes to ``Atoms.info`` and ``Structure.properties``; per-atom values live in
``info["site_properties"]`` (name → n values) and become ASE arrays and pymatgen site properties; energy, forces and stress of an ASE
calculator come into `info` and go back out as a ``SinglePointCalculator``. Constraints and calculators themselves do not travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naica.errors import InputError
from naica.structure.crystal import RESULT_KEYS, Crystal

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Molecule, Structure

_VACUUM = 10.0


# --- ASE -------------------------------------------------------------------------------------------------------------------
def to_ase(crystal: Crystal) -> Atoms:
    """ASE ``Atoms`` with cell and pbc as they are; results in `info` (energy, forces, stress …) sit in a ``SinglePointCalculator``."""
    from ase import Atoms
    from ase.calculators.calculator import all_properties
    from ase.calculators.singlepoint import SinglePointCalculator

    results = {k: v for k, v in crystal.info.items() if k in RESULT_KEYS and k in all_properties and v is not None}
    info = {k: v for k, v in crystal.info.items() if k not in results and k != "site_properties"}
    atoms = Atoms(numbers=crystal.numbers, positions=crystal.positions, cell=crystal.cell, pbc=crystal.pbc, info=info)
    for name, values in site_properties(crystal).items():
        atoms.set_array(name, np.asarray(values))
    if results:
        if "stress" in results and np.shape(results["stress"]) == (3, 3):
            results["stress"] = _voigt(np.asarray(results["stress"]))
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def from_ase(atoms: Atoms) -> Crystal:
    """From ASE ``Atoms``. Results its calculator already holds come into `info` (stress as (3, 3), eV/Å³); nothing is calculated.

    Raises
    ------
    InputError
        For anything but ``Atoms``, for dummy atoms (number 0) and whatever `Crystal` refuses.
    """
    if not hasattr(atoms, "get_atomic_numbers"):
        raise InputError(f"expected ase.Atoms, found {type(atoms).__name__}")
    info = {str(k): v for k, v in atoms.info.items()}
    info.update(_calculator_results(atoms))
    sites = {name: values.copy() for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}
    if sites:
        info["site_properties"] = sites
    return Crystal(atoms.get_atomic_numbers(), atoms.get_positions(), atoms.cell.array, atoms.pbc, info)


def _calculator_results(atoms: Atoms) -> dict[str, Any]:
    calculator = atoms.calc
    if calculator is None or not getattr(calculator, "results", None):
        return {}
    # results of a calculator that has since been moved on are not results of these atoms
    if calculator.check_state(atoms):
        return {}
    results = {k: v for k, v in calculator.results.items() if k in RESULT_KEYS and v is not None}
    if np.shape(results.get("stress", ())) == (6,):
        results["stress"] = _from_voigt(np.asarray(results["stress"]))
    return results


def _voigt(stress: NDArray[Any]) -> NDArray[Any]:
    return np.array([stress[0, 0], stress[1, 1], stress[2, 2], stress[1, 2], stress[0, 2], stress[0, 1]])


def _from_voigt(s: NDArray[Any]) -> NDArray[Any]:
    return np.array([[s[0], s[5], s[4]], [s[5], s[1], s[3]], [s[4], s[3], s[2]]])


# --- pymatgen --------------------------------------------------------------------------------------------------------------
def to_pymatgen(crystal: Crystal) -> Structure | Molecule:
    """A pymatgen ``Structure``, or a ``Molecule`` (no cell) without periodicity.

    Partial periodicity travels as ``Lattice.pbc``. Lattice vectors missing along directions without periodicity are filled in normal to
    the others, long enough for 10 Å of vacuum, because pymatgen needs a full cell.
    """
    from pymatgen.core import Lattice, Molecule, Structure

    sites = {k: list(v) for k, v in site_properties(crystal).items()}
    species: list[Any] = crystal.symbols
    if "oxidation_state" in sites:
        species = _species(crystal.symbols, sites.pop("oxidation_state"))
    properties = {k: v for k, v in crystal.info.items() if k not in ("site_properties", "charge", "spin_multiplicity")}
    charge: Any = crystal.info.get("charge")
    if not crystal.pbc.any():
        return Molecule(
            species,
            crystal.positions,
            charge=charge or 0,
            spin_multiplicity=crystal.info.get("spin_multiplicity"),
            site_properties=sites,
            properties=properties,
        )
    a, b, c = (bool(p) for p in crystal.pbc)
    lattice = Lattice(full_cell(crystal), pbc=(a, b, c))
    return Structure(
        lattice, species, crystal.positions, coords_are_cartesian=True, charge=charge, site_properties=sites, properties=properties
    )


def _species(symbols: list[str], states: list[Any]) -> list[Any]:
    from pymatgen.core import Element, Species

    return [Element(s) if q is None or np.isnan(q) else Species(s, float(q)) for s, q in zip(symbols, states, strict=True)]


def from_pymatgen(structure: Structure | Molecule) -> Crystal:
    """From a pymatgen ``Structure`` or ``Molecule``; oxidation states become the site property ``oxidation_state``.

    Raises
    ------
    InputError
        If a site is shared or partly empty (disorder), since `Crystal` holds whole atoms only; the message names the site. Also for
        dummy species.
    """
    if not hasattr(structure, "site_properties") or not hasattr(structure, "cart_coords"):
        raise InputError(f"expected a pymatgen Structure or Molecule, found {type(structure).__name__}")
    if not structure.is_ordered:
        raise InputError(_disorder_message(structure))
    species = [site.specie for site in structure]
    numbers = [int(getattr(s, "Z", 0)) for s in species]
    for k, (z, s) in enumerate(zip(numbers, species, strict=True)):
        if z < 1 or type(s).__name__ == "DummySpecies":
            raise InputError(f"site {k} holds the dummy species {s}; expected a chemical element")
    info = dict(structure.properties or {})
    sites = {name: np.asarray(values) for name, values in structure.site_properties.items()}
    states = [getattr(s, "oxi_state", None) for s in species]
    if any(q is not None for q in states):
        sites["oxidation_state"] = np.array([np.nan if q is None else float(q) for q in states])
    if sites:
        info["site_properties"] = sites
    lattice = getattr(structure, "lattice", None)
    if getattr(structure, "_charge", None):
        info["charge"] = structure.charge
    if lattice is None:
        spin = getattr(structure, "_spin_multiplicity", None)
        if spin is not None:
            info["spin_multiplicity"] = spin
        return Crystal(np.array(numbers), structure.cart_coords, np.zeros((3, 3)), np.zeros(3, dtype=bool), info)
    return Crystal(np.array(numbers), structure.cart_coords, lattice.matrix, lattice.pbc, info)


def _disorder_message(structure: Structure | Molecule) -> str:
    bad = [(k, site) for k, site in enumerate(structure) if not site.is_ordered]
    k, site = bad[0]
    where = np.round(getattr(site, "frac_coords", site.coords), 4).tolist()
    content = ", ".join(f"{s} {float(x):.3g}" for s, x in site.species.items())
    return (
        f"site {k} at {where} is disordered ({content}; {len(bad)} of {len(structure)} sites are); expected one whole atom per site. "
        "Order it first, for example with pymatgen's OrderDisorderedStructureTransformation"
    )


# --- cells -----------------------------------------------------------------------------------------------------------------
def site_properties(crystal: Crystal) -> Mapping[str, Any]:
    """Per-atom values kept in ``info["site_properties"]``, name → n values.

    Raises
    ------
    InputError
        If one of them has another length than the structure has atoms.
    """
    sites: Mapping[str, Any] = crystal.info.get("site_properties", {})
    for name, values in sites.items():
        if len(values) != len(crystal):
            raise InputError(f"site property {name!r} has {len(values)} values for {len(crystal)} atoms")
    return sites


def full_cell(crystal: Crystal, vacuum: float = _VACUUM) -> NDArray[np.float64]:
    """The (3, 3) cell with lattice vectors made up where there are none: normal to the others, extent of the atoms + `vacuum` Å long."""
    cell = np.array(crystal.cell)
    for axis in range(3):
        if not cell[axis].any():
            rest = [row for row in cell if row.any()]
            normal = np.linalg.svd(np.array(rest).reshape(-1, 3))[2][-1] if len(rest) < 2 else np.cross(rest[0], rest[1])
            normal = normal / np.linalg.norm(normal)
            cell[axis] = normal * (np.ptp(crystal.positions @ normal) + vacuum)
    if abs(np.linalg.det(cell)) < 1e-9:
        raise InputError(f"the cell {np.round(cell, 4).tolist()} has no volume; give independent lattice vectors, or zeros for none")
    return cell


def supercell(crystal: Crystal, matrix: ArrayLike) -> Crystal:
    """The crystal in the cell P · cell for a (3, 3) integer matrix P with det P ≠ 0; it has |det P| times the atoms.

    Atoms are ordered image by image, the images by their lattice translation, so that rows k·n … (k+1)·n are one copy. Site properties
    are repeated, results of calculations dropped.

    Raises
    ------
    InputError
        For a matrix that is not (3, 3), not of integers or singular, or that repeats along a direction without periodicity.
    """
    given = np.asarray(matrix)
    if given.shape != (3, 3) or not np.array_equal(given, np.round(given)):
        raise InputError(f"supercell needs a (3, 3) integer matrix; found {given.tolist()}")
    p = given.astype(np.int64)
    if round(np.linalg.det(p)) == 0:
        raise InputError(f"the supercell matrix {p.tolist()} is singular; its determinant must not be 0")
    open_axes = ~np.asarray(crystal.pbc)
    if (p[open_axes] != np.eye(3, dtype=np.int64)[open_axes]).any() or (p[:, open_axes] != np.eye(3, dtype=np.int64)[:, open_axes]).any():
        raise InputError(f"the matrix {p.tolist()} repeats along a direction without periodicity (pbc {crystal.pbc.tolist()})")
    shifts = lattice_points(p)
    n_images = len(shifts)
    positions = (crystal.positions[None] + (shifts @ crystal.cell)[:, None]).reshape(-1, 3)
    bigger = crystal.replace(numbers=np.tile(crystal.numbers, n_images), positions=positions, cell=p @ crystal.cell)
    if "site_properties" not in crystal.info:
        return bigger
    repeated = {name: np.concatenate([np.asarray(v)] * n_images) for name, v in site_properties(crystal).items()}
    kept = {k: v for k, v in crystal.info.items() if k not in RESULT_KEYS}
    return bigger.replace(info={**kept, "site_properties": repeated})


def lattice_points(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """(|det P|, 3) integer lattice translations, one per class of Z³ modulo the rows of P, all inside the cell spanned by P."""
    p = np.asarray(matrix, dtype=np.int64)
    diagonal = np.abs(np.diag(_hermite(p)))
    points = np.stack(np.meshgrid(*(np.arange(d) for d in diagonal), indexing="ij"), axis=-1).reshape(-1, 3)
    # exact: n = f · P with f = n · adj(P) / det, so the whole part of f is an integer division
    determinant = round(np.linalg.det(p))
    adjugate = np.round(np.linalg.inv(p) * determinant).astype(np.int64)
    whole = np.floor_divide(points @ adjugate * np.sign(determinant), abs(determinant))
    return points - whole @ p


def _hermite(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Upper triangular integer matrix whose rows span the same lattice (Euclid's algorithm on rows)."""
    h = matrix.copy()
    for column in range(3):
        while np.count_nonzero(h[column:, column]) > 1:
            rows = [r for r in range(column, 3) if h[r, column] != 0]
            pivot = min(rows, key=lambda r: abs(h[r, column]))
            for r in rows:
                if r != pivot:
                    h[r] -= (h[r, column] // h[pivot, column]) * h[pivot]
        pivot = next(r for r in range(column, 3) if h[r, column] != 0)
        h[[column, pivot]] = h[[pivot, column]]
    return h


# --- distances ---------------------------------------------------------------------------------------------------------------
def min_distance(crystal: Crystal) -> float:
    """Shortest distance between two atoms in Å, an atom and its own periodic images included; infinite for a lone atom."""
    return closest_pair(crystal)[2]


def closest_pair(crystal: Crystal) -> tuple[int, int, float]:
    """The two nearest atoms (i, j) and their distance in Å; i = j if it is an atom and its own image.

    In a Minkowski-reduced cell the nearest image of any wrapped point lies in the cell itself or one of its 26 neighbours
    (Nguyen & Stehlé, ACM Trans. Algorithms 5, 46 (2009)), so no cell is too skewed.
    """
    from scipy.spatial import cKDTree

    n = len(crystal)
    points, images = crystal.positions, crystal.positions
    if crystal.pbc.any():
        points, images = _wrapped_images(crystal)
    if len(images) < 2:
        return 0, 0, float("inf")
    distances, neighbours = cKDTree(images).query(points, k=2)
    # the first neighbour is the point itself unless another atom sits on the very same place
    own = neighbours[:, 0] == np.arange(n)
    other = np.where(own, neighbours[:, 1], neighbours[:, 0])
    nearest = np.where(own, distances[:, 1], distances[:, 0])
    i = int(np.argmin(nearest))
    return i, int(other[i] % n), float(nearest[i])


def image_distances(crystal: Crystal, site: int, reach: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atoms within `reach` Å of a site, periodic images one by one: their indices (m,) and distances (m,) in Å; not the site itself."""
    points = images = crystal.positions
    if crystal.pbc.any():
        points, images = _wrapped_images(crystal, reach)
    distances = np.linalg.norm(images - points[site], axis=1)
    near = np.flatnonzero(distances <= reach)
    near = near[near != site]
    return near % len(crystal), distances[near]


def _wrapped_images(crystal: Crystal, reach: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Atoms wrapped into a reduced cell (n, 3), and the same with their images (m n, 3), the atoms themselves first.

    Images cover the 26 neighbouring cells, or more if `reach` Å around every atom asks for it.
    """
    cell = reduced_cell(crystal)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    ranges = [sorted(range(-m, m + 1), key=abs) for m in np.maximum(1, np.ceil(reach / heights)).astype(int)]
    frac = np.linalg.solve(cell.T, crystal.positions.T).T
    wrapped = (frac - np.floor(frac)) @ cell
    steps = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    return wrapped, (wrapped[None] + (steps @ cell)[:, None]).reshape(-1, 3)


def reduced_cell(crystal: Crystal) -> NDArray[np.float64]:
    """A Minkowski-reduced basis (3, 3) of the lattice; open directions get vacuum so thick that nothing meets across it."""
    from moyopy import minkowski_reduce

    cell = np.array(crystal.cell)
    open_axes = ~np.asarray(crystal.pbc)
    if open_axes.any():
        cell[open_axes] = 0.0
        reach = float(np.linalg.norm(cell, axis=1).max() + np.ptp(crystal.positions, axis=0).max())
        cell = full_cell(crystal.replace(cell=cell, info={}), vacuum=10.0 * reach)
    return np.array(minkowski_reduce(cell.tolist())[0]).reshape(3, 3)
