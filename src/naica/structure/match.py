"""Are two crystals the same structure? pymatgen's ``StructureMatcher`` behind cheap filters.

The matcher (primitive cells, equal volumes, ltol 0.2, stol 0.3, 5°) does some hundred pairs a second, so it sees only pairs that differ in
content and share the reduced formula, and on request the prototype label. Its verdict is not transitive (A~B, A~C, B≁C occurs:
materialsproject/pymatgen#4528); here every crystal is compared with the *representative* of each group, the first crystal in it, and
joins the nearest one that matches. Groups therefore never chain through intermediates, and the distance to the representative is kept
to be looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.convert import full_cell, to_pymatgen
from naica.structure.crystal import Crystal
from naica.structure.symmetry import prototype_label, symmetry

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

Prefilter = Literal["label", "formula"]
# wider than the 0.01 Å of `symmetry`: two relaxations of one phase should get one label
LABEL_TOLERANCE = 0.1
MATCH = 0.3
"""Largest displacement of a match, in units of (V/N)^(1/3)."""
_BOND_TOLERANCE = 0.1
_MOTIF_TOLERANCES = (0.1, 0.3, 0.5)


@dataclass(frozen=True, eq=False)
class Groups:
    """Crystals sorted into equal structures.

    Attributes
    ----------
    cluster : (n,) index of the group of each crystal, groups numbered in order of first appearance
    representative : (n,) row of the crystal that stands for its group
    distance : (n,) rms distance to the representative, in units of (V/N)^(1/3); 0 for the representative and for identical content
    """

    cluster: NDArray[np.int64]
    representative: NDArray[np.int64]
    distance: NDArray[np.float64]


def same_structure(a: Crystal, b: Crystal, scale: bool = True) -> float | None:
    """Normalised rms distance between two structures in units of (V/N)^(1/3), or None if they do not match.

    `scale` brings both to one volume first, so strained copies match. Oxidation states and `info` do not count. Structures of different
    periodicity never match; those without any are compared as molecules, with all distances between atoms (chirality is not seen).
    """
    if a.hash == b.hash:
        return 0.0
    if a.formula != b.formula or (a.pbc != b.pbc).any():
        return None
    if not a.pbc.any():
        return _same_molecule(a, b)
    return _rms(_boxed(a), _boxed(b), scale)


def structure_distance(a: Crystal, b: Crystal, stol: float = 0.5) -> tuple[float, float] | None:
    """Root mean square and largest displacement between two structures, in units of (V/N)^(1/3) (molecules: Å); None beyond `stol`.

    As `same_structure`, which is the verdict "largest ≤ 0.3", but with a wider reach, so that a near miss shows how near it was. Volumes
    are made equal first.
    """
    if a.hash == b.hash:
        return 0.0, 0.0
    if a.formula != b.formula or (a.pbc != b.pbc).any():
        return None
    if not a.pbc.any():
        found = _same_molecule(a, b)
        return None if found is None else (found, found)
    rms = _matcher(True, stol).get_rms_dist(_boxed(a), _boxed(b))
    return None if rms is None or rms[1] > stol else (float(rms[0]), float(rms[1]))


def smaller_cell(crystal: Crystal) -> tuple[Crystal, float] | None:
    """The motif a crystal repeats but for small displacements, and the tolerance (Å) it shows at; None without one.

    The matcher often does not see through a supercell whose symmetry noise of 0.05 Å has taken; a smaller cell at a wider tolerance shows
    it. Widest is 0.5 Å, less than the displacements a match forgives.
    """
    if not crystal.pbc.all():
        return None
    for tolerance in _MOTIF_TOLERANCES:
        try:
            found = symmetry(crystal, tolerance).primitive
        except InputError:
            continue
        if len(found) < len(crystal) and found.formula == crystal.formula:
            return found, tolerance
    return None


def duplicates(crystals: Sequence[Crystal], prefilter: Prefilter = "formula") -> list[int]:
    """Group index per crystal; equal structures share one. See `groups` for distances and for what `prefilter` means."""
    return [int(k) for k in groups(crystals, prefilter).cluster]


def groups(crystals: Sequence[Crystal], prefilter: Prefilter = "formula") -> Groups:
    """Sort crystals into groups of equal structures: by content hash, then inside buckets by the matcher.

    Parameters
    ----------
    crystals : in order of preference, since the first of a group represents it
    prefilter : "formula" compares all crystals of one reduced formula; "label" only those that also share a prototype label (found at
        0.1 Å): faster for many polymorphs of one formula, but blind to pairs that noise of some 0.02 Å has put into different space groups

    Raises
    ------
    InputError
        If `prefilter` is neither.
    """
    if prefilter not in ("label", "formula"):
        raise InputError(f"unknown prefilter {prefilter!r}; expected 'label' or 'formula'")
    n = len(crystals)
    representative = np.arange(n)
    distance = np.zeros(n)
    first_by_hash: dict[str, int] = {}
    leaders: dict[str, list[int]] = defaultdict(list)
    boxed: dict[int, Structure] = {}
    for row, crystal in enumerate(crystals):
        twin = first_by_hash.setdefault(crystal.hash, row)
        if twin != row:
            representative[row], distance[row] = representative[twin], distance[twin]
            continue
        bucket = leaders[_bucket(crystal, prefilter)]
        best = min(_distances(crystals, row, bucket, boxed), default=None)
        if best is None:
            bucket.append(row)
        else:
            distance[row], representative[row] = best
    _, first, inverse = np.unique(representative, return_index=True, return_inverse=True)
    cluster = np.argsort(np.argsort(first))[inverse]
    return Groups(cluster.astype(np.int64), representative.astype(np.int64), distance)


def _distances(crystals: Sequence[Crystal], row: int, bucket: list[int], boxed: dict[int, Structure]) -> Iterator[tuple[float, int]]:
    for leader in bucket:
        if not crystals[row].pbc.any():
            found = _same_molecule(crystals[row], crystals[leader])
        else:
            for k in (row, leader):
                if k not in boxed:
                    boxed[k] = _boxed(crystals[k])
            found = _rms(boxed[leader], boxed[row], True)
        if found is not None:
            yield found, leader


def _bucket(crystal: Crystal, prefilter: Prefilter) -> str:
    shape = "".join("01"[int(p)] for p in crystal.pbc)
    if prefilter == "formula" or not crystal.pbc.all():
        return f"{crystal.formula} {shape}"
    try:
        return f"{crystal.formula} {prototype_label(crystal, LABEL_TOLERANCE)}"
    except InputError:
        # no symmetry at this tolerance (atoms nearer than it): such crystals are compared among themselves
        return f"{crystal.formula} {shape} unlabelled"


@cache
def _matcher(scale: bool, stol: float) -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import ElementComparator, StructureMatcher

    return StructureMatcher(stol=stol, scale=scale, comparator=ElementComparator())


def _boxed(crystal: Crystal) -> Structure:
    """As a pymatgen structure with three periodic directions; open ones get the same vacuum whatever the cell said."""
    cell = np.where(crystal.pbc[:, None], crystal.cell, 0.0)
    open_cell = crystal.replace(cell=cell, info={})
    return to_pymatgen(open_cell.replace(cell=full_cell(open_cell), pbc=True))  # type: ignore[return-value]


def _rms(a: Structure, b: Structure, scale: bool) -> float | None:
    found = _matcher(scale, MATCH).get_rms_dist(a, b)
    # get_rms_dist accepts by the mean displacement, the matcher's own verdict (fit) by the largest; ours is the stricter
    return None if found is None or found[1] > MATCH else float(found[0])


def _same_molecule(a: Crystal, b: Crystal) -> float | None:
    """Rms difference of the sorted distances of each pair of elements in Å, or None if one differs by more than 0.1 Å."""
    if a.composition != b.composition:
        return None
    if len(a) == 1:
        return 0.0
    difference = _pair_distances(a) - _pair_distances(b)
    return None if np.abs(difference).max() > _BOND_TOLERANCE else float(np.sqrt(np.mean(difference**2)))


def _pair_distances(crystal: Crystal) -> NDArray[np.float64]:
    i, j = np.triu_indices(len(crystal), k=1)
    distances = np.linalg.norm(crystal.positions[i] - crystal.positions[j], axis=1)
    pairs = np.sort(np.stack([crystal.numbers[i], crystal.numbers[j]]), axis=0)
    return distances[np.lexsort((distances, pairs[1], pairs[0]))]
