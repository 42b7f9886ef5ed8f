"""Space groups, Wyckoff positions and what they do to the sites, found by moyo (Shinohara, 2024; moyopy).

A structure needs three periodic directions here. A slab or a molecule is refused: put it in a periodic box on purpose
(``crystal.replace(cell=…, pbc=True)``) if that is meant.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.composition import anonymous_formula
from naica.structure.crystal import Crystal
from naica.structure.elements import symbol

if TYPE_CHECKING:
    from moyopy import MoyoDataset

# moyo remarks on every supercell that operations of the primitive cell do not all fit it; that is what we ask for
logging.getLogger("moyo").setLevel(logging.ERROR)

_SYSTEM_STARTS = ((1, "triclinic"), (3, "monoclinic"), (16, "orthorhombic"), (75, "tetragonal"), (143, "trigonal"), (168, "hexagonal"))


@dataclass(frozen=True, eq=False)
class Symmetry:
    """The space group of a crystal as it stands.

    Attributes
    ----------
    number, symbol : of the space-group type, for example 227 and ``Fd-3m``
    crystal_system : triclinic … cubic
    wyckoffs : Wyckoff letter of each of the n sites
    orbits : (n,) for each site the first site equivalent to it (under the space group of the primitive cell)
    rotations, translations : (m, 3, 3) integers and (m, 3), acting on fractional columns of the *given* cell, x' = R x + t; pure
        translations inside a supercell are among them, operations its shape does not allow are not
    pearson : for example ``cF56``
    primitive, conventional : the standardised cells
    """

    number: int
    symbol: str
    crystal_system: str
    wyckoffs: tuple[str, ...]
    orbits: NDArray[np.int64]
    rotations: NDArray[np.int64]
    translations: NDArray[np.float64]
    pearson: str
    primitive: Crystal
    conventional: Crystal


def symmetry(crystal: Crystal, tolerance: float = 1e-2) -> Symmetry:
    """The symmetry of `crystal`; `tolerance` in Å is how far an atom may be from its image.

    Raises
    ------
    InputError
        Without three periodic directions, or if no consistent space group is found at this tolerance.
    """
    from moyopy import SpaceGroupType

    found = _dataset(crystal, tolerance)
    return Symmetry(
        number=found.number,
        symbol=SpaceGroupType(found.number).hm_short.replace(" ", ""),
        crystal_system=crystal_system(found.number),
        wyckoffs=tuple(found.wyckoffs),
        orbits=np.array(found.orbits, dtype=np.int64),
        rotations=np.array(found.operations.rotations, dtype=np.int64),
        translations=np.array(found.operations.translations, dtype=np.float64),
        pearson=found.pearson_symbol,
        primitive=_crystal(found.prim_std_cell),
        conventional=_crystal(found.std_cell),
    )


def crystal_system(number: int) -> str:
    """The crystal system of a space-group number (1–230)."""
    if number >= 195:
        return "cubic"
    return next(name for start, name in reversed(_SYSTEM_STARTS) if number >= start)


def _dataset(crystal: Crystal, tolerance: float) -> MoyoDataset:
    from moyopy import Cell, MoyoDataset

    if not crystal.pbc.all():
        raise InputError(f"a space group needs three periodic directions; {crystal!r} has pbc {crystal.pbc.tolist()}")
    cell = Cell(crystal.cell.tolist(), crystal.fractional.tolist(), crystal.numbers.tolist())
    try:
        return MoyoDataset(cell, symprec=tolerance)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"no space group found for {crystal!r} at tolerance {tolerance} Å ({error}); "
            "try another tolerance (1e-3 … 0.1 Å), and check the structure for overlapping atoms"
        ) from error


def _crystal(cell: Any) -> Crystal:
    return Crystal.from_fractional(cell.numbers, cell.positions, np.array(cell.basis).reshape(3, 3))


def prototype_label(crystal: Crystal, tolerance: float = 1e-2) -> str:
    """Anonymous formula, Pearson symbol, space group and Wyckoff letters in the manner of AFLOW: spinel is ``AB2C4_cF56_227_a_d_e``.

    Elements stand in order of growing amount. The label depends on neither their names nor the choice of origin or axes: of all Wyckoff
    strings the normaliser of the space group makes equivalent, and of all orders of elements with equal amounts, the alphabetically first
    is taken. Limits: in triclinic and monoclinic groups, whose normalisers are infinite, other choices of the cell vectors are not tried;
    the two hands of a chiral pair of space groups keep different numbers.
    """
    return labels(crystal, tolerance)[0]


def labels(crystal: Crystal, tolerance: float = 1e-2) -> tuple[str, str]:
    """The `prototype_label`, and the same with the elements named: spinel is ``Mg:a_Al:d_O:e`` in group 227, inverse spinel is not.

    Two decorations of one prototype share the first and differ in the second.
    """
    found = _dataset(crystal, tolerance)
    occupied, renamings = _occupation(crystal, found)
    numbers = crystal.numbers.tolist()
    amounts = {z: numbers.count(z) for z in occupied}
    texts = [{z: _wyckoff_text(counts, new) for z, counts in occupied.items()} for new in renamings]
    bare = min("_".join(text for _, text in sorted((amounts[z], text[z]) for z in occupied)) for text in texts)
    named = min("_".join(f"{symbol(z)}:{text[z]}" for z in sorted(occupied)) for text in texts)
    return (
        f"{anonymous_formula(crystal.composition)}_{found.pearson_symbol}_{found.number}_{bare}",
        f"{crystal.formula}_{found.pearson_symbol}_{found.number}_{named}",
    )


def prototype_orders(
    crystal: Crystal, prefer: Mapping[int, float] | None = None, tolerance: float = 1e-2
) -> tuple[str, list[tuple[int, ...]]]:
    """The `prototype_label`, and the orders of the crystal's elements (atomic numbers) that write it.

    There are several orders where the normaliser of the space group exchanges elements (the two of rock salt); putting other elements in
    their place in either order makes the same structure. Elements whose amounts and Wyckoff letters agree are no such pair (their free
    coordinates differ); they stand in order of `prefer`, then of atomic number.
    """
    found = _dataset(crystal, tolerance)
    occupied, renamings = _occupation(crystal, found)
    numbers = crystal.numbers.tolist()
    amounts = {z: numbers.count(z) for z in occupied}
    wish = prefer or {}
    best, orders = "", list[tuple[int, ...]]()
    for renamed in renamings:
        texts = {z: _wyckoff_text(counts, renamed) for z, counts in occupied.items()}
        order = sorted(occupied, key=lambda z: (amounts[z], texts[z], wish.get(z, 0.0), z))
        bare = "_".join(texts[z] for z in order)
        if not orders or bare < best:
            best, orders = bare, []
        if bare == best and tuple(order) not in orders:
            orders.append(tuple(order))
    return f"{anonymous_formula(crystal.composition)}_{found.pearson_symbol}_{found.number}_{best}", orders


def _occupation(crystal: Crystal, found: MoyoDataset) -> tuple[dict[int, dict[str, int]], list[dict[str, str]]]:
    """Orbits per letter of each element, and the renamings of letters that leave the structure what it is."""
    numbers, settled = crystal.numbers.tolist(), found
    system = crystal_system(found.number)
    equal = _equal_axes(found) if system == "orthorhombic" else found
    if equal is not None and equal is not found:
        numbers, settled = found.std_cell.numbers, equal
    occupied = _orbits_per_letter(numbers, settled)
    letters = tuple(sorted({letter for counts in occupied.values() for letter in counts}))
    # elsewhere the normaliser depends on the shape of the cell, not on the space group alone
    lasting = system not in ("triclinic", "monoclinic") and equal is not None
    renamings = _RENAMINGS.get((settled.hall_number, letters)) if lasting else None
    if renamings is None:
        renamings = _renamings(settled)
        if lasting:
            _RENAMINGS[settled.hall_number, letters] = renamings
    return occupied, renamings


# (Hall number, occupied letters) -> renamings; they cost 2 to 20 ms each to find, a label without 1 ms
_RENAMINGS: dict[tuple[int, tuple[str, ...]], list[dict[str, str]]] = {}


def _renamings(found: MoyoDataset) -> list[dict[str, str]]:
    """The ways in which the Euclidean normaliser renames the occupied Wyckoff letters."""
    positions = found.normalizer_wyckoff_positions()
    return [
        {old.letter: new.letter for old, new in zip(positions.wyckoffs, sequence, strict=True)}
        for _, sequence in positions.coset_representatives
    ]


def _equal_axes(found: MoyoDataset) -> MoyoDataset | None:
    """The same orthorhombic structure with a = b = c, so that the normaliser may exchange axes whichever of them is longest.

    None if equal axes give it more symmetry than it has.
    """
    from moyopy import Cell, MoyoDataset

    cell = found.std_cell
    edge = float(abs(np.linalg.det(np.array(cell.basis).reshape(3, 3)))) ** (1 / 3)
    try:
        equal = MoyoDataset(Cell((np.eye(3) * edge).tolist(), cell.positions, cell.numbers), symprec=1e-4 * edge)
    except (ValueError, RuntimeError):
        return None
    return equal if equal.number == found.number else None


def _orbits_per_letter(numbers: list[int], found: MoyoDataset) -> dict[int, dict[str, int]]:
    """For each element, how many orbits sit on each Wyckoff letter."""
    seen: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for z, letter, orbit in zip(numbers, found.wyckoffs, found.orbits, strict=True):
        seen[z][letter].add(orbit)
    return {z: {letter: len(orbits) for letter, orbits in letters.items()} for z, letters in seen.items()}


def _wyckoff_text(counts: dict[str, int], renamed: dict[str, str]) -> str:
    """``2ac``: two orbits on a, one on c; letters in alphabetical order."""
    return "".join(f"{n if n > 1 else ''}{letter}" for letter, n in sorted((renamed[old], n) for old, n in counts.items()))


def site_permutations(crystal: Crystal, tolerance: float = 1e-2) -> NDArray[np.int64]:
    """(n_ops, n) distinct permutations of the sites by the space group of the cell *as given*, its inner translations included.

    ``permutations[k, i]`` is the site onto which operation k carries site i. They form a group; the identity is row 0. In a supercell only
    operations that keep the supercell's lattice count, and pure translations inside it do.

    Raises
    ------
    InputError
        As `symmetry`; also if the atoms fit the operations too badly for one-to-one images (then lower the tolerance).
    """
    found = _dataset(crystal, tolerance)
    rotations = np.array(found.operations.rotations, dtype=np.float64).reshape(-1, 3, 3)
    translations = np.array(found.operations.translations).reshape(-1, 3)
    frac = crystal.fractional
    rows = np.array([_permutation(crystal, frac, r, t, tolerance) for r, t in zip(rotations, translations, strict=True)])
    distinct: NDArray[np.int64] = np.unique(rows, axis=0)
    return distinct


def _permutation(
    crystal: Crystal, frac: NDArray[np.float64], rotation: NDArray[np.float64], translation: NDArray[np.float64], tolerance: float
) -> NDArray[np.int64]:
    images = frac @ rotation.T + translation
    difference = images[:, None] - frac[None]
    difference -= np.round(difference)
    squared = ((difference @ crystal.cell) ** 2).sum(-1)
    squared[crystal.numbers[:, None] != crystal.numbers[None]] = np.inf
    target = squared.argmin(axis=1).astype(np.int64)
    worst = float(np.sqrt(squared[np.arange(len(target)), target].max()))
    # moyo lets an operation miss each atom by `tolerance` and may have widened it while closing the group
    if len(np.unique(target)) != len(target) or worst > 10 * tolerance:
        raise InputError(
            f"the symmetry of {crystal!r} at tolerance {tolerance} Å does not map atoms one to one (worst miss {worst:.3g} Å); lower it"
        )
    return target
