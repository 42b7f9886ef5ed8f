"""`Crystal`: atoms, frozen and validated once. A molecule is a crystal without periodicity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naica.errors import InputError
from naica.structure.composition import chemical_system, composition, reduced_formula
from naica.structure.elements import element, symbol

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Molecule, Structure

Array = NDArray[np.float64]
_HASH_STEP = 1e-6
# Rounding breaks at halves of the step, where tidy numbers such as a/4 lie, so a last-bit difference would change the hash. Breaking
# at 1 - 1/pi of the step instead leaves tidy decimals, halves and thirds alone.
_HASH_OFFSET = 0.3183098861837907
# what a calculation found for exactly these positions and this cell; no longer true when they change
RESULT_KEYS = ("energy", "free_energy", "forces", "stress", "stresses", "energies", "magmom", "magmoms", "charges", "dipole")


@dataclass(frozen=True, eq=False, repr=False)
class Crystal:
    """Atoms in a cell.

    Parameters
    ----------
    numbers : (n,) atomic numbers (or symbols)
    positions : (n, 3) Cartesian positions in Å
    cell : (3, 3) lattice vectors as rows in Å; zeros where there is no periodicity
    pbc : (3,) which lattice directions repeat; default: those with a lattice vector
    info : anything a user wants to keep beside the atoms; not part of the hash

    Raises
    ------
    InputError
        For unknown elements, shapes that do not fit, numbers that are not finite, and periodic cells without volume.
    """

    numbers: NDArray[np.int64]
    positions: Array
    cell: Array = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: NDArray[np.bool_] = field(default=None)  # type: ignore[arg-type]  # filled in below
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = np.array([element(z).number if isinstance(z, str) else z for z in np.asarray(self.numbers).ravel().tolist()])
        positions = np.array(self.positions, dtype=np.float64)
        cell = np.array(np.zeros((3, 3)) if self.cell is None else self.cell, dtype=np.float64)
        if cell.shape == (3,):
            cell = np.diag(cell)
        if cell.shape != (3, 3):
            raise InputError(f"cell has shape {cell.shape}; expected (3, 3) with lattice vectors as rows")
        pbc = np.any(cell != 0, axis=1) if self.pbc is None else np.broadcast_to(np.asarray(self.pbc, dtype=bool), (3,)).copy()
        _validate(numbers, positions, cell, pbc)
        for name, value in (("numbers", numbers.astype(np.int64)), ("positions", positions), ("cell", cell), ("pbc", pbc)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "info", dict(self.info or {}))

    # --- other ways in -------------------------------------------------------------------------------------------------
    @classmethod
    def from_fractional(
        cls, numbers: ArrayLike, fractional: ArrayLike, cell: ArrayLike, pbc: Any = True, info: Mapping[str, Any] | None = None
    ) -> Crystal:
        """A crystal from fractional coordinates (n, 3) and a cell in Å: (3, 3), or three edges at right angles."""
        lattice = np.asarray(cell, dtype=np.float64)
        lattice = np.diag(lattice) if lattice.shape == (3,) else lattice
        frac = np.asarray(fractional, dtype=np.float64).reshape(-1, 3)
        return cls(np.asarray(numbers), frac @ lattice, lattice, pbc, info or {})

    @classmethod
    def from_ase(cls, atoms: Atoms) -> Crystal:
        """From an ASE ``Atoms``; its ``info`` comes along."""
        from naica.structure import convert

        return convert.from_ase(atoms)

    @classmethod
    def from_pymatgen(cls, structure: Structure | Molecule) -> Crystal:
        """From a pymatgen ``Structure`` or ``Molecule`` with full occupancies."""
        from naica.structure import convert

        return convert.from_pymatgen(structure)

    def to_ase(self) -> Atoms:
        """As ASE ``Atoms``."""
        from naica.structure import convert

        return convert.to_ase(self)

    def to_pymatgen(self) -> Structure | Molecule:
        """As pymatgen ``Structure`` (or ``Molecule`` without periodicity)."""
        from naica.structure import convert

        return convert.to_pymatgen(self)

    # --- what it is ----------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        kind = "Crystal" if self.pbc.all() else ("Molecule" if not self.pbc.any() else "Slab")
        size = f", {self.volume / len(self):.2f} Å³/atom" if self.pbc.all() else ""
        return f"<{kind} {self.formula}, {len(self)} atoms{size}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crystal) and self.hash == other.hash

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    @cached_property
    def hash(self) -> str:
        """32 hex digits of the content: elements, positions and cell to 1e-6 Å, periodicity. Independent of `info`."""
        digest = hashlib.sha256()
        digest.update(self.numbers.astype("<u2").tobytes())
        for array in (self.positions, self.cell):
            digest.update(np.floor(array / _HASH_STEP + _HASH_OFFSET).astype("<i8").tobytes())
        digest.update(self.pbc.astype("u1").tobytes())
        return digest.hexdigest()[:32]

    @property
    def symbols(self) -> list[str]:
        """Element symbols, one per atom."""
        return [symbol(int(z)) for z in self.numbers]

    @cached_property
    def composition(self) -> dict[str, int]:
        """Atoms per element in formula order."""
        return composition(self.numbers)

    @property
    def formula(self) -> str:
        """The reduced formula in the pinned format."""
        return reduced_formula(self.composition)

    @property
    def chemical_system(self) -> str:
        """For example ``Al-Mg-O``."""
        return chemical_system(self.composition)

    @property
    def volume(self) -> float:
        """Cell volume in Å³ (0 without a cell)."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def fractional(self) -> Array:
        """(n, 3) fractional coordinates, not wrapped.

        Raises
        ------
        InputError
            If the cell has no volume.
        """
        if self.volume == 0:
            raise InputError("this structure has no full cell; fractional coordinates do not exist")
        return np.asarray(np.linalg.solve(self.cell.T, self.positions.T).T, dtype=np.float64)

    # --- others like it -------------------------------------------------------------------------------------------------
    def replace(self, **changes: Any) -> Crystal:
        """A copy with some of numbers, positions, cell, pbc, info replaced.

        Results of a calculation in `info` (energy, forces, stress …) belong to the old atoms and are dropped unless `info` is given or
        alone replaced; so are site properties when the number of atoms changes.
        """
        if "info" not in changes and changes:
            changes["info"] = _info_without_results(self.info, keep_sites=len(changes.get("numbers", self.numbers)) == len(self))
        parts = {name: changes.pop(name, getattr(self, name)) for name in ("numbers", "positions", "cell", "pbc", "info")}
        if changes:
            raise InputError(f"Crystal has no part called {', '.join(changes)}; parts: numbers, positions, cell, pbc, info")
        return Crystal(**parts)

    def scaled(self, volume_factor: float) -> Crystal:
        """All lengths scaled so that the volume changes by `volume_factor`; fractional coordinates stay."""
        stretch = float(volume_factor) ** (1 / 3)
        return self.replace(positions=self.positions * stretch, cell=self.cell * stretch)

    def supercell(self, repeats: Sequence[int] | NDArray[np.int64]) -> Crystal:
        """Repeat along the lattice vectors: three counts, or a (3, 3) integer matrix P with new cell = P · cell."""
        from naica.structure import convert

        matrix = np.asarray(repeats)
        if matrix.shape == (3, 3):
            return convert.supercell(self, matrix)
        if matrix.shape != (3,):
            raise InputError(f"supercell needs three counts or a (3, 3) integer matrix; got shape {matrix.shape}")
        return convert.supercell(self, np.diag(matrix))

    def wrapped(self) -> Crystal:
        """Atoms moved into the cell along the periodic directions."""
        frac = self.fractional
        frac = np.where(self.pbc, frac - np.floor(frac + 1e-12), frac)
        return self.replace(positions=frac @ self.cell, info=self.info)

    def min_distance(self) -> float:
        """Shortest distance between two atoms in Å, periodic images included (infinite for a lone atom)."""
        from naica.structure import convert

        return convert.min_distance(self)


def _info_without_results(info: Mapping[str, Any], keep_sites: bool) -> dict[str, Any]:
    dropped = RESULT_KEYS if keep_sites else (*RESULT_KEYS, "site_properties")
    return {key: value for key, value in info.items() if key not in dropped}


def _validate(numbers: NDArray[Any], positions: Array, cell: Array, pbc: NDArray[np.bool_]) -> None:
    if numbers.size == 0:
        raise InputError("a structure without atoms; expected at least one")
    if numbers.min() < 1 or numbers.max() > 103:
        raise InputError(f"atomic number {int(numbers.min() if numbers.min() < 1 else numbers.max())} is no element; expected 1 to 103")
    if positions.shape != (len(numbers), 3):
        raise InputError(f"positions have shape {positions.shape}; expected ({len(numbers)}, 3)")
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise InputError("positions or cell hold NaN or infinite numbers")
    if pbc.any():
        rows = cell[pbc]
        gram = float(np.linalg.det(rows @ rows.T))
        if gram <= 1e-12:
            raise InputError(f"the periodic cell has no volume: lattice vectors {np.round(rows, 4).tolist()} are zero or not independent")
