"""Structure motifs: coordination polyhedra, their shapes, and how they are joined.

**Centres.** Where the composition has oxidation states, cations are centres and anions are ligands. Where it has none but one non-metal is
clearly the most electronegative element, that one is the ligand. Elsewhere (elements, alloys, intermetallics) there is no such
distinction, and every atom is a centre with any atom as ligand; who wants cations only asks for them and gets an `InputError` there.

**Shell.** Around cations distances are divided by the sum of covalent radii, so that anions of different size count alike. Of the ligands
within 1.5 times the nearest, the shell ends at the largest relative gap to the next one; the limit itself counts as a next one. Rigid
shells (a gap of ten percent or more) do not depend on such details; where distances grow evenly, as around large cations in low symmetry,
no rule is right.

**Sharing.** Two motifs share the ligands they have in common: one is a corner, two an edge, three or more a face. Each image counts for
itself, so a supercell has the same motifs and pairs, more often.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from naica.errors import ConfigError, InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import element, symbol
from naica.structure.oxidation import guess_oxidation
from naica.structure.polyhedra import OTHER, SHAPES, classify, order_parameters

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Centres = Literal["auto", "cations", "all"]

SHARINGS = ("corner", "edge", "face", "none")
REACH = 11.0
"""Å: motifs further apart than this are no pair unless they share a ligand (Banjade et al., Sci. Adv. 7, eabf1754, 2021)."""
_LIMIT = 1.5
_FARTHEST = 6.0
_FIRST_RADIUS = 3.2
_TIE = 1e-4
_CLEARLY = 1.0
# differences held at once when all images of all pairs are compared
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Motifs:
    """M motifs with L ligands, in order of their centres.

    Parameters
    ----------
    centre : (M) atom in the middle
    shape : (M) place in ``SHAPES``
    measure : (M) continuous shape measure to that shape: 0 ideal, below about 3 recognisable, 100 for ``other``
    order : (M, 5) order parameters q_l, l in ``polyhedra.ORDERS``
    coordination : (M) ligands
    bond_length : (M) their mean distance, Å
    bond_spread : (M) standard deviation of the distances over their mean
    ligand_motif, ligand_atom : (L) the motif a ligand belongs to, never decreasing, and the atom it is
    ligand_image : (L, 3) lattice translation of that atom
    ligand_vector : (L, 3) from the centre, Å
    """

    centre: Ints
    shape: Ints
    measure: Floats
    order: Floats
    coordination: Ints
    bond_length: Floats
    bond_spread: Floats
    ligand_motif: Ints
    ligand_atom: Ints
    ligand_image: Ints
    ligand_vector: Floats

    def __len__(self) -> int:
        return len(self.centre)

    def names(self, crystal: Crystal) -> list[str]:
        """Each motif as its element and shape: ``Ti octahedron``."""
        return [f"{symbol(int(z))} {SHAPES[s]}" for z, s in zip(crystal.numbers[self.centre], self.shape, strict=True)]


@dataclass(frozen=True)
class MotifPairs:
    """P ordered pairs of motifs, in order of receiver; either direction is there.

    Parameters
    ----------
    receiver, sender : (P) motifs
    vector, length : (P, 3), (P) from centre to centre, Å
    shared : (P) ligands in common
    sharing : (P) place in ``SHARINGS``
    angle : (P) rad, centre–ligand–centre, the mean over the shared ligands; 0 where there are none
    """

    receiver: Ints
    sender: Ints
    vector: Floats
    length: Floats
    shared: Ints
    sharing: Ints
    angle: Floats

    def __len__(self) -> int:
        return len(self.receiver)

    def take(self, rows: Ints | NDArray[np.bool_]) -> MotifPairs:
        """Some of the pairs."""
        return MotifPairs(*(getattr(self, f.name)[rows] for f in fields(self)))


def motifs(crystal: Crystal, centres: Centres = "auto", lone: Literal["refused", "kept"] = "refused") -> Motifs:
    """The coordination polyhedra of a crystal.

    Parameters
    ----------
    crystal : it
    centres : ``auto``: cations where anions can be told from cations, else all atoms; ``cations``; ``all``: every atom with any ligand
    lone : what becomes of a centre without a ligand within 6 Å: an error, or a motif of shape ``other`` with no ligands

    Raises
    ------
    InputError
        If cations were asked for and there are none to tell, if a centre has no ligand within 6 Å, or two atoms sit on one place.
    """
    middle, around = centres_and_ligands(crystal, centres)
    receiver, sender, image, vector, length = _shells(crystal, middle, around, lone == "kept")
    order = np.lexsort((length, receiver))
    receiver, sender, image, vector, length = receiver[order], sender[order], image[order], vector[order], length[order]
    coordination = np.bincount(receiver, minlength=len(middle))
    shape, measure, parameters = _shapes(vector, coordination)
    m, ligands = len(middle), np.maximum(coordination, 1)
    mean = np.bincount(receiver, length, minlength=m) / ligands
    variance = np.bincount(receiver, (length - mean[receiver]) ** 2, minlength=m) / ligands
    spread = np.sqrt(variance) / np.where(mean > 0, mean, 1.0)
    return Motifs(middle, shape, measure, parameters, coordination, mean, spread, receiver, around[sender], image, vector)


def centres_and_ligands(crystal: Crystal, centres: Centres = "auto") -> tuple[Ints, Ints]:
    """Which atoms can be centres, and which ligands.

    Raises
    ------
    InputError
        If cations were asked for and the crystal has no anions and cations.
    """
    if centres not in get_args(Centres):
        raise ConfigError(f"motif centres {centres!r} are unknown; expected one of {', '.join(get_args(Centres))}")
    everything = np.arange(len(crystal))
    anions = () if centres == "all" else _anions(tuple(crystal.composition.items()))
    if anions:
        is_anion = np.isin(crystal.numbers, anions)
        return everything[~is_anion], everything[is_anion]
    if centres == "cations":
        kind = "a pure element" if len(crystal.composition) == 1 else "an alloy or intermetallic: no element is clearly the anion"
        raise InputError(f"{crystal.formula} has no motifs around cations: it is {kind}; with centres='all' every atom is a centre")
    return everything, everything


@lru_cache(maxsize=65536)
def _anions(composition: tuple[tuple[str, int], ...]) -> tuple[int, ...]:
    """Atomic numbers of the anions; none where they cannot be told, or where nothing else is there."""
    if len(composition) < 2:
        return ()
    states = guess_oxidation(dict(composition))
    if states is not None and min(states.values()) < 0 < max(states.values()):
        return tuple(element(s).number for s, q in states.items() if q < 0)
    known = sorted((element(s).electronegativity or 0.0, s) for s, _ in composition)
    last = element(known[-1][1])
    return (last.number,) if not last.is_metal and known[-1][0] - known[0][0] >= _CLEARLY else ()


def _shells(crystal: Crystal, middle: Ints, around: Ints, keep_lone: bool) -> tuple[Ints, Ints, Ints, Floats, Floats]:
    """Receiver and sender (L; counted in `middle` and `around`), image (L, 3), vector (L, 3), length (L) of the ligands in the shells."""
    size = np.array([element(int(z)).covalent_radius for z in crystal.numbers])
    # metallic neighbours touch in every direction: there a shell is a matter of plain distance
    size = np.full(len(crystal), 0.5) if len(around) == len(crystal) else size
    widest = size[around].max()
    radius = _FIRST_RADIUS
    while True:
        receiver, sender, image, vector, length = _near(crystal, middle, around, radius)
        relative = length / (size[middle[receiver]] + size[around[sender]])
        nearest = np.full(len(middle), np.inf)
        np.minimum.at(nearest, receiver, relative)
        # all that may belong to the shell must lie inside the searched sphere
        wanted = float((_LIMIT * nearest * (size[middle] + widest)).max())
        if wanted <= radius or radius >= _LIMIT * _FARTHEST:
            break
        radius = min(max(wanted, radius * 1.3), _LIMIT * _FARTHEST)
    closest = np.full(len(middle), np.inf)
    np.minimum.at(closest, receiver, length)
    alone = closest > _FARTHEST
    if alone.any() and not keep_lone:
        atom = int(middle[np.argmax(alone)])
        raise InputError(
            f"no motifs: atom {atom} ({symbol(int(crystal.numbers[atom]))}) has no ligand within {_FARTHEST:g} Å; "
            f"expected every centre to have a coordination shell"
        )
    near = ~alone[receiver]
    keep = np.flatnonzero(near)[_before_gap(receiver[near], relative[near], nearest)]
    return receiver[keep], sender[keep], image[keep], vector[keep], length[keep]


def _before_gap(receiver: Ints, relative: Floats, nearest: Floats) -> Ints:
    """The ligands of each centre before the largest relative gap; of gaps equal but for rounding the first."""
    inside = np.flatnonzero(relative <= _LIMIT * nearest[receiver] * (1 + 1e-9))
    order = inside[np.lexsort((relative[inside], receiver[inside]))]
    at, distance = receiver[order], relative[order]
    last = np.append(at[1:] != at[:-1], True)
    following = np.where(last, _LIMIT * nearest[at], np.append(distance[1:], 0.0))
    gap = np.log(following / distance)
    largest = np.full(len(nearest), -np.inf)
    np.maximum.at(largest, at, gap)
    wide = np.flatnonzero(gap >= largest[at] - _TIE)
    cut = np.zeros(len(nearest), np.int64)
    cut[at[wide[::-1]]] = wide[::-1]
    return order[np.arange(len(order)) <= cut[at]]


def _shapes(vector: Floats, coordination: Ints) -> tuple[Ints, Floats, Floats]:
    """Shape (M), measure (M) and order parameters (M, 5), worked out together for all motifs with equally many ligands."""
    start = np.cumsum(coordination) - coordination
    shape, measure = np.full(len(coordination), OTHER), np.full(len(coordination), 100.0)
    order = np.zeros((len(coordination), 5))
    for n in np.unique(coordination[coordination > 0]):
        rows = np.flatnonzero(coordination == n)
        ligands = vector[start[rows][:, None] + np.arange(n)]
        shape[rows], measure[rows] = classify(ligands)
        order[rows] = order_parameters(ligands)
    return shape, measure, order


def motif_pairs(crystal: Crystal, found: Motifs, reach: float = REACH) -> MotifPairs:
    """All pairs of motifs that share ligands, and those that share none but have centres within `reach` Å; images count for themselves."""
    a, b, shift, angle = _meetings(found)
    span = 1 + 2 * max(int(np.abs(shift).max(initial=0)), 1)
    near = _near(crystal, found.centre, found.centre, reach) if reach > 0 else None
    if near is not None:
        span = max(span, 1 + 2 * int(np.abs(near[2]).max(initial=0)))
    key = _key(a, b, shift, len(found), span)
    unique, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    shared = np.bincount(inverse, minlength=len(unique))
    angle = np.bincount(inverse, angle, minlength=len(unique)) / np.maximum(shared, 1)
    a, b, shift = a[first], b[first], shift[first]
    if near is not None:
        alone = ~np.isin(_key(near[0], near[1], near[2], len(found), span), unique)
        a, b, shift = (np.concatenate([x, y[alone]]) for x, y in zip((a, b, shift), near[:3], strict=True))
        nothing = np.zeros(int(alone.sum()))
        shared, angle = np.concatenate([shared, nothing.astype(np.int64)]), np.concatenate([angle, nothing])
    vector = crystal.positions[found.centre[b]] - crystal.positions[found.centre[a]] + shift @ crystal.cell
    sharing = np.where(shared == 0, SHARINGS.index("none"), np.minimum(shared, 3) - 1)
    order = np.argsort(a, kind="stable")
    return MotifPairs(a, b, vector, np.linalg.norm(vector, axis=1), shared, sharing, angle).take(order)


def _key(a: Ints, b: Ints, shift: Ints, n: int, span: int) -> Ints:
    """One integer for a pair of motifs and the translation between them."""
    x, y, z = (shift + span // 2).T
    return (((a * n + b) * span + x) * span + y) * span + z


def _meetings(found: Motifs) -> tuple[Ints, Ints, Ints, Floats]:
    """Every time two motifs have a ligand in common: the motifs, the translation of the second, and the angle at the ligand, rad."""
    order = np.argsort(found.ligand_atom, kind="stable")
    atom = found.ligand_atom[order]
    degree = np.bincount(atom)
    start = np.cumsum(degree) - degree
    meets = degree[atom]
    first = np.repeat(order, meets)
    within = np.arange(len(first)) - np.repeat(np.cumsum(meets) - meets, meets)
    second = order[start[np.repeat(atom, meets)] + within]
    first, second = first[first != second], second[first != second]
    shift = found.ligand_image[first] - found.ligand_image[second]
    u, v = found.ligand_vector[first], found.ligand_vector[second]
    cosine = (u * v).sum(axis=1) / np.sqrt((u * u).sum(axis=1) * (v * v).sum(axis=1))
    return found.ligand_motif[first], found.ligand_motif[second], shift, np.arccos(np.clip(cosine, -1.0, 1.0))


def _near(crystal: Crystal, middle: Ints, around: Ints, radius: float) -> tuple[Ints, Ints, Ints, Floats, Floats]:
    """All pairs of an atom of `middle` and an image of one of `around` within `radius`: places in both, image, vector Å, length Å.

    Raises
    ------
    InputError
        If two atoms sit on the same place.
    """
    cell, pbc = crystal.cell, crystal.pbc
    apart = crystal.positions[around][None] - crystal.positions[middle][:, None]
    base = np.zeros((len(middle), len(around), 3), np.int64)
    if pbc.any():
        inverse = np.linalg.pinv(cell * pbc[:, None])
        base = -np.rint(apart @ inverse).astype(np.int64) * pbc
        apart = apart + base @ cell
    images = _translations(cell, pbc, radius + float(np.sqrt((apart**2).sum(axis=2).max())))
    offset = images @ cell
    found = []
    step = max(1, _CHUNK // (len(around) * len(images)))
    for k in range(0, len(middle), step):
        part = apart[k : k + step, :, None] + offset
        square = np.einsum("...i,...i->...", part, part)
        a, b, c = np.nonzero(square <= radius**2)
        found.append((a + k, b, base[a + k, b] + images[c], part[a, b, c], np.sqrt(square[a, b, c])))
    receiver, sender, image, vector, length = (np.concatenate(parts) for parts in zip(*found, strict=True))
    keep = length > 1e-6
    if (middle[receiver[~keep]] != around[sender[~keep]]).any():
        raise InputError("two atoms sit on the same place; expected every two atoms apart")
    return receiver[keep], sender[keep], image[keep], vector[keep], length[keep]


def _translations(cell: Floats, pbc: NDArray[np.bool_], radius: float) -> Ints:
    """All lattice translations (I, 3) no longer than `radius`."""
    if not pbc.any():
        return np.zeros((1, 3), np.int64)
    heights = 1 / np.maximum(np.linalg.norm(np.linalg.pinv(cell * pbc[:, None]), axis=0), 1e-12)
    most = np.where(pbc, np.floor(radius / heights + 1e-9), 0).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[((grid @ cell) ** 2).sum(axis=1) <= (radius + 1e-9) ** 2]
