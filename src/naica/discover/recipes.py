"""`Recipe`: a candidate written down as what was done to whom, in some twenty bytes, and turned into atoms only on demand.

A billion candidates as recipes are some tens of gigabytes, as atoms hundreds (20 atoms in single precision are about 300 bytes);
and because a recipe names its parent, lineage comes for free.

Bytes of a packed recipe: 1 header (kind of parent, number of supercell integers, whether a scale follows) + parent (16 for the hash
of a crystal, 1 + length of the name for a prototype) + 1 + 2 per pair of the species map + 1 or 2 + bitmap of the mask + 1 per
supercell integer + 8 for a scale other than one + 1 for the origin (1 + length for an origin unknown to `ORIGINS`). A substitution of
two elements thus takes 24 bytes, a partial one of eight sites in a 2 × 2 × 2 supercell of forty atoms at most 30.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from naica.discover.volume import Contacts, contact_factor, contacts
from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import element, symbol

PROTOTYPE = "prototype:"
ORIGINS = ("", "prototype", "substitution", "saps", "start", "random", "generated")
"""Origins that pack into one byte; others are kept as text. New ones may only be appended, or old bytes change their meaning."""

_HASH = re.compile(r"[0-9a-f]{32}")
_TEXT = 255  # origin code that says: text follows
_CRYSTAL_PARENT, _PROTOTYPE_PARENT, _HAS_SCALE = 0, 1, 2
_SUPERCELL_SHIFT = 2  # header bits 2-3: no, three or nine integers
_SUPERCELL_SIZES = (0, 3, 9)


@dataclass(frozen=True)
class Recipe:
    """How to make a candidate.

    Parameters
    ----------
    parent : hash of a crystal (32 hex digits) or ``prototype:<name>``
    species : pairs (what, atomic number it becomes). For a crystal parent *what* is the old atomic number; for a prototype it is the
        label of the prototype's element, counted from 1 (A = 1, B = 2, …), and every label must be given
    mask : indices of the sites of the supercell the species map applies to; empty = all sites. Only for crystal parents
    supercell : three repeats or the nine integers of a matrix P (row by row, new cell = P · cell); empty = the parent's own cell
    scale : factor on the *predicted* volume (see `realise`), 1 = as predicted
    origin : who made it, for example ``saps``; says nothing about the atoms and is therefore no part of `key` or of equality

    The parts are brought into one form on creation (pairs and mask sorted, pairs that change nothing dropped, a diagonal matrix as three
    repeats, no repeats as empty), so that one candidate has one key.

    Raises
    ------
    InputError
        If a part is malformed; the message says which and what was expected.
    """

    parent: str
    species: tuple[tuple[int, int], ...] = ()
    mask: tuple[int, ...] = ()
    supercell: tuple[int, ...] = ()
    scale: float = 1.0
    origin: str = ""

    def __post_init__(self) -> None:
        if not (_HASH.fullmatch(self.parent) or (self.is_prototype and 0 < len(self.name.encode()) < 256)):
            raise InputError(f"recipe parent {self.parent!r}; expected the 32 hex digits of a crystal hash or {PROTOTYPE}<name>")
        for name, value in (
            ("species", _tidy_species(self.species, self.is_prototype)),
            ("mask", _tidy_mask(self.mask, self.is_prototype)),
            ("supercell", _tidy_supercell(self.supercell)),
            ("scale", _tidy_scale(self.scale)),
        ):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def is_prototype(self) -> bool:
        """True if the parent is a prototype of the library, not a crystal."""
        return self.parent.startswith(PROTOTYPE)

    @property
    def name(self) -> str:
        """Name of the prototype (empty for a crystal parent)."""
        return self.parent[len(PROTOTYPE) :] if self.is_prototype else ""

    @property
    def n_cells(self) -> int:
        """How many parent cells the candidate holds."""
        return _n_cells(self.supercell)

    @cached_property
    def key(self) -> str:
        """16 hex digits of the content without the origin: the same in every process, on every machine."""
        return hashlib.sha256(self._content).hexdigest()[:16]

    @cached_property
    def _content(self) -> bytes:
        parent = bytes.fromhex(self.parent) if not self.is_prototype else _counted(self.name.encode())
        header = (_PROTOTYPE_PARENT if self.is_prototype else _CRYSTAL_PARENT) | (_HAS_SCALE if self.scale != 1.0 else 0)
        header |= _SUPERCELL_SIZES.index(len(self.supercell)) << _SUPERCELL_SHIFT
        bits = sum(1 << i for i in self.mask)
        bitmap = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        scale = struct.pack("<d", self.scale) if self.scale != 1.0 else b""
        return b"".join(
            (
                bytes([header]),
                parent,
                bytes([len(self.species), *(z for pair in self.species for z in pair)]),
                struct.pack("<H", len(bitmap)),
                bitmap,
                struct.pack(f"{len(self.supercell)}b", *self.supercell),
                scale,
            )
        )

    def pack(self) -> bytes:
        """The recipe in some twenty bytes (layout: see the module); `unpack` gives it back."""
        if self.origin in ORIGINS:
            return self._content + bytes([ORIGINS.index(self.origin)])
        return self._content + bytes([_TEXT]) + _counted(self.origin.encode())

    @classmethod
    def unpack(cls, data: bytes) -> Recipe:
        """The recipe of `pack`.

        Raises
        ------
        InputError
            If the bytes are not one packed recipe.
        """
        try:
            recipe, rest = _read(memoryview(data))
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise InputError(f"{len(data)} bytes are no packed recipe ({error}); expected what Recipe.pack() gave") from None
        if rest:
            raise InputError(f"{rest} bytes left over after a packed recipe; expected what Recipe.pack() gave")
        return recipe


def _counted(text: bytes) -> bytes:
    if len(text) > 255:
        raise InputError(f"{text[:40]!r}… has {len(text)} bytes; expected at most 255")
    return bytes([len(text)]) + text


def _take(data: memoryview, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(data):
        raise IndexError(f"ends after {len(data)} bytes, {at + size} needed")
    return bytes(data[at : at + size]), at + size


def _read(data: memoryview) -> tuple[Recipe, int]:
    """A packed recipe and the number of bytes left over."""
    header, at = data[0], 1
    if header & _PROTOTYPE_PARENT:
        name, at = _take(data, at + 1, data[at])
        parent = PROTOTYPE + name.decode()
    else:
        raw, at = _take(data, at, 16)
        parent = raw.hex()
    pairs, at = _take(data, at + 1, 2 * data[at])
    size, at = _take(data, at, 2)
    bitmap, at = _take(data, at, struct.unpack("<H", size)[0])
    n = _SUPERCELL_SIZES[header >> _SUPERCELL_SHIFT]
    cells, at = _take(data, at, n)
    scale, at = _take(data, at, 8) if header & _HAS_SCALE else (struct.pack("<d", 1.0), at)
    code, at = data[at], at + 1
    if code == _TEXT:
        text, at = _take(data, at + 1, data[at])
        origin = text.decode()
    else:
        origin = ORIGINS[code]
    species = tuple(zip(pairs[::2], pairs[1::2], strict=True))
    mask = tuple(8 * i + bit for i, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1)
    recipe = Recipe(parent, species, mask, struct.unpack(f"{n}b", cells), struct.unpack("<d", scale)[0], origin)
    return recipe, len(data) - at


def _tidy_species(species: Sequence[tuple[int, int]], prototype: bool) -> tuple[tuple[int, int], ...]:
    pairs = sorted((int(a), int(b)) for a, b in species)
    if not prototype:
        pairs = [(a, b) for a, b in pairs if a != b]
    if any(not (1 <= a <= 103 and 1 <= b <= 103) for a, b in pairs):
        raise InputError(f"species map {pairs} holds numbers outside 1 to 103; expected (old atomic number or label, new atomic number)")
    if len({a for a, _ in pairs}) != len(pairs):
        raise InputError(f"species map {pairs} sends one species to two; expected each old species at most once")
    if prototype and [a for a, _ in pairs] != list(range(1, len(pairs) + 1)):
        raise InputError(f"species map {pairs} of a prototype must give the labels 1, 2, … without gaps")
    return tuple(pairs)


def _tidy_mask(mask: Sequence[int], prototype: bool) -> tuple[int, ...]:
    sites = sorted({int(i) for i in mask})
    if sites and prototype:
        raise InputError("a prototype recipe has a site mask; masks are for crystal parents, whose species map names old elements")
    if sites and not (sites[0] >= 0 and sites[-1] < 65536):
        raise InputError(f"mask sites {sites[0]} … {sites[-1]}; expected indices from 0 to 65535")
    return tuple(sites)


def _tidy_supercell(supercell: Sequence[int]) -> tuple[int, ...]:
    cells = tuple(int(n) for n in supercell)
    if not cells:
        return ()
    if len(cells) not in _SUPERCELL_SIZES or any(not -128 <= n <= 127 for n in cells):
        raise InputError(f"supercell {cells}; expected nothing, three repeats, or the nine integers of a matrix, each from -128 to 127")
    if len(cells) == 9 and not any(cells[k] for k in (1, 2, 3, 5, 6, 7)) and min(cells) >= 0:
        cells = cells[::4]
    if _n_cells(cells) < 1 or (len(cells) == 3 and min(cells) < 1):
        raise InputError(f"supercell {cells} has no positive volume; expected repeats ≥ 1 or a matrix with positive determinant")
    return () if cells == (1, 1, 1) else cells


def _n_cells(cells: tuple[int, ...]) -> int:
    """Determinant of a supercell."""
    if len(cells) != 9:
        return prod(cells)
    a, b, c, d, e, f, g, h, i = cells
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _tidy_scale(scale: float) -> float:
    scale = float(scale)
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"recipe scale {scale}; expected a positive factor on the predicted volume")
    return scale


def realise(recipe: Recipe, parents: Mapping[str, Crystal]) -> Crystal:
    """The atoms of a recipe.

    Volume: `scale` × the volume of the parent (or of the prototype's example compound) × f_child / f_parent^β with the contact factors f of
    `volume.guess_volume` in the parent's geometry. f_parent, by how much radii misjudge the parent, is mostly a matter of the structure and
    is therefore passed on to the child, the less so the larger the share x of replaced atoms: β = 1 − ½ √x (measured on pairs of known
    crystals by ``benchmarks/calibrate_volume.py``; the parent's own volume where nothing is replaced). Without a full cell (molecules)
    lengths stay as they are; `scale` must be 1.

    The result's `info` holds ``recipe`` (key), ``parent`` and ``origin``.

    Raises
    ------
    InputError
        If the parent is not among `parents` or in the prototype library, or mask, map and parent do not fit each other.
    """
    if recipe.is_prototype:
        parent, labelled = _example(recipe.name)
        frame = _frame(parent, recipe.supercell)
        numbers = _relabelled(recipe, labelled)[frame.sites.numbers]
    else:
        frame = _frame(_parent(recipe, parents), recipe.supercell)
        numbers = _replaced(recipe, frame.sites)
    factor = _volume_factor(frame, numbers)
    if frame.pairs is None and recipe.scale != 1.0:
        raise InputError(f"recipe {recipe.key} scales the volume of {frame.sites!r}, which has none; expected scale 1")
    stretch = (factor * recipe.scale) ** (1 / 3)
    info = {"recipe": recipe.key, "parent": recipe.parent, "origin": recipe.origin}
    return Crystal(numbers, frame.sites.positions * stretch, frame.sites.cell * stretch, frame.sites.pbc, info)


@dataclass(frozen=True, eq=False)
class _Frame:
    """The sites of a parent in a supercell, their contacts (None without a full cell) and the parent's own contact factor."""

    sites: Crystal
    pairs: Contacts | None
    factor: float


@lru_cache(maxsize=512)
def _frame(parent: Crystal, supercell: tuple[int, ...]) -> _Frame:
    """Kept, because one parent has many children that differ in their elements only."""
    sites = parent.supercell(np.reshape(supercell, (3, 3)) if len(supercell) == 9 else supercell) if supercell else parent
    if not sites.pbc.all():
        return _Frame(sites, None, 1.0)
    pairs = contacts(sites)
    return _Frame(sites, pairs, contact_factor(pairs, sites.numbers))


def _volume_factor(frame: _Frame, numbers: NDArray[np.int64]) -> float:
    """Predicted volume of the child over the parent's volume."""
    replaced = float(np.mean(numbers != frame.sites.numbers))
    if frame.pairs is None or replaced == 0:
        return 1.0
    passed_on = 1.0 - 0.5 * replaced**0.5
    return contact_factor(frame.pairs, numbers) / float(frame.factor**passed_on)


def _parent(recipe: Recipe, parents: Mapping[str, Crystal]) -> Crystal:
    try:
        return parents[recipe.parent]
    except KeyError:
        raise InputError(f"parent {recipe.parent} of recipe {recipe.key} is not among the {len(parents)} given crystals") from None


@lru_cache(maxsize=512)
def _example(name: str) -> tuple[Crystal, tuple[int, ...]]:
    """The example compound of a prototype and the atomic numbers on its labels in order."""
    from naica.structure.prototypes import prototype

    found = prototype(name)
    return found.crystal(), tuple(element(s).number for s in found.elements)


def _relabelled(recipe: Recipe, labelled: tuple[int, ...]) -> NDArray[np.int64]:
    """(104,) new atomic number for each old one of the example compound."""
    news = [z for _, z in recipe.species]
    if len(news) != len(labelled) or len(set(news)) != len(news):
        raise InputError(
            f"recipe {recipe.key} puts {[symbol(z) for z in news]} on the {len(labelled)} labels of prototype {recipe.name};"
            " expected as many, all different"
        )
    new = np.arange(104)
    new[list(labelled)] = news
    return new


def _replaced(recipe: Recipe, before: Crystal) -> NDArray[np.int64]:
    """(n,) atomic numbers after the species map was applied to the masked sites."""
    sites = np.array(recipe.mask, dtype=int) if recipe.mask else np.arange(len(before))
    if sites[-1] >= len(before):
        raise InputError(f"mask of recipe {recipe.key} names site {sites[-1]} of a cell of {len(before)} atoms")
    new = np.arange(104)
    for old, z in recipe.species:
        new[old] = z
    numbers = before.numbers.copy()
    numbers[sites] = new[before.numbers[sites]]
    present = set(before.numbers[sites].tolist())
    if any(old not in present for old, _ in recipe.species) or (recipe.mask and np.any(numbers[sites] == before.numbers[sites])):
        raise InputError(
            f"recipe {recipe.key} replaces {[symbol(a) for a, _ in recipe.species]} on {'masked' if recipe.mask else 'all'} sites of"
            f" {before!r}; expected every replaced element there, and nothing else under the mask"
        )
    return numbers
