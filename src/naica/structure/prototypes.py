"""The prototype library: common inorganic structures by space group and Wyckoff positions, and ground states of the elements.

The table is ``prototypes.json`` beside this file. Settings are those of the International Tables: unique axis b and cell choice 1
(monoclinic), hexagonal axes (rhombohedral), origin choice 2 (centrosymmetric groups with two). Cell and free parameters are measured ones
of the named example compound, rounded; they are starting points for relaxation, not reference data.

Elements of a prototype are called A, B, C …, in the order of `Prototype.elements`. An example:

    >>> from naica.structure.prototypes import prototype
    >>> prototype("spinel").crystal(["Zn", "Cr", "O"]).formula
    'ZnCr2O4'
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import cache, cached_property
from importlib.resources import files
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.composition import anonymous_formula, format_formula, parse_formula
from naica.structure.crystal import Crystal
from naica.structure.elements import element

Array = NDArray[np.float64]
LABELS = "ABCDEFGH"

FAMILIES: Mapping[str, frozenset[str]] = {
    family: frozenset(names.split())
    for family, names in {
        "perovskite": """perovskite antiperovskite perovskite-tetragonal perovskite-I4mcm perovskite-R3c perovskite-Pnma elpasolite
            potassium-nickel-fluoride ruddlesden-popper-2 rhenium-trioxide aluminium-fluoride thallium-aluminium-fluoride""",
        "layered": """graphite black-phosphorus arsenic cadmium-iodide cadmium-chloride molybdenite bismuth-iodide litharge brucite
            hexagonal-boron-nitride vanadium-pentoxide molybdenum-trioxide germanium-sulfide bismuth-telluride tetradymite matlockite
            alpha-NaFeO2 delafossite P2-layered-oxide lanthanum-iron-arsenide-oxide thallium-aluminium-fluoride""",
        "framework": """alpha-quartz alpha-cristobalite beta-cristobalite berlinite garnet garnet-ternary nasicon pyrochlore spinel olivine
            olivine-ordered gamma-LiAlO2 beta-NaFeO2 zircon scheelite anhydrite monazite calcium-ferrite calcium-titanite
            beta-silicon-nitride""",
    }.items()
}
"""Names of the prototypes of each family; see `Prototype.families`."""

_SAME_POINT = 2e-3  # fractional; parameters have four decimals, distinct sites lie far further apart
_BASES: dict[str, Array] = {
    "P": np.eye(3),
    "A": np.array([[1, 0, 0], [0, 0.5, -0.5], [0, 0.5, 0.5]]),
    "C": np.array([[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]]),
    "I": np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
    "F": np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "R": np.array([[2 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, 1 / 3], [-1 / 3, -2 / 3, 1 / 3]]),
}
"""Rows are primitive lattice vectors in the conventional basis, by kind of centring."""


@dataclass(frozen=True)
class Site:
    """One Wyckoff position: element label, multiplicity and letter as in ``16d``, fractional coordinates of one of its points."""

    label: str
    wyckoff: str
    position: tuple[float, float, float]

    @property
    def multiplicity(self) -> int:
        """Points per conventional cell."""
        return int(self.wyckoff[:-1])


@dataclass(frozen=True)
class Prototype:
    """A structure type.

    Attributes
    ----------
    name, aliases : plain name and other ones (Strukturbericht, minerals)
    spacegroup : number of the space-group type
    elements : elements of the example compound, in label order A, B, C …
    charges : their oxidation states in the example; None where the bonds are metallic or covalent
    cell : a, b, c in Å and α, β, γ in degrees of the example's conventional cell
    sites : the occupied Wyckoff positions
    equivalent : orders of the labels that give the same structure up to small changes of free parameters, without the trivial order;
        rocksalt has ("BA",)
    dual_of : prototype of the same geometry with other labels or charges (antifluorite: fluorite), or None
    """

    name: str
    spacegroup: int
    elements: tuple[str, ...]
    charges: tuple[int, ...] | None
    cell: tuple[float, float, float, float, float, float]
    sites: tuple[Site, ...]
    aliases: tuple[str, ...] = ()
    equivalent: tuple[str, ...] = ()
    dual_of: str | None = None

    @property
    def labels(self) -> str:
        """``AB…``, one letter per element."""
        return LABELS[: len(self.elements)]

    @cached_property
    def amounts(self) -> tuple[int, ...]:
        """Atoms per formula unit, by label."""
        counts = [sum(s.multiplicity for s in self.sites if s.label == label) for label in self.labels]
        return tuple(n // gcd(*counts) for n in counts)

    @property
    def formula(self) -> str:
        """In label order, for example ``AB2C4``."""
        return "".join(f"{label}{n if n > 1 else ''}" for label, n in zip(self.labels, self.amounts, strict=True))

    @property
    def anonymous(self) -> str:
        """In order of growing amount, as `anonymous_formula` writes it."""
        return anonymous_formula(dict(zip(self.elements, self.amounts, strict=True)))

    @property
    def example(self) -> str:
        """Formula of the example compound."""
        return format_formula(dict(zip(self.elements, self.amounts, strict=True)))

    @property
    def families(self) -> frozenset[str]:
        """Of "perovskite" (octahedra that share corners, with larger ions between them), "layered" (bonds within sheets only, which may
        hold ions between them) and "framework" (nets of polyhedra with room for ions) those it belongs to.
        """
        return frozenset(family for family, names in FAMILIES.items() if self.name in names)

    @property
    def is_boxed_molecule(self) -> bool:
        """True for the molecules in a box, which are references and no structure types."""
        return self.name.endswith("-molecule")

    @property
    def n_atoms(self) -> int:
        """Atoms in the primitive cell."""
        return len(self._geometry[1])

    @property
    def aflow(self) -> str:
        """The AFLOW-style label of `naica.structure.symmetry.prototype_label`, for example ``AB2C4_cF56_227_a_d_e``."""
        from naica.structure.symmetry import prototype_label

        return prototype_label(self.crystal(), 1e-3)

    def crystal(self, elements: Sequence[str] | None = None) -> Crystal:
        """The primitive cell, of the example's size, with `elements` on the labels A, B, C … (default: the example compound).

        Raises
        ------
        InputError
            If the number of elements is not that of the labels, one is unknown, or one stands twice.
        """
        chosen = self.elements if elements is None else tuple(elements)
        if len(chosen) != len(self.elements) or len(set(chosen)) != len(chosen):
            raise InputError(
                f"prototype {self.name} ({self.formula}) got the elements {list(chosen)}; expected {len(self.elements)} different ones"
            )
        numbers = np.array([element(s).number for s in chosen])
        cell, fractional, labels = self._geometry
        return Crystal.from_fractional(numbers[labels], fractional, cell, info={"prototype": self.name})

    @cached_property
    def _geometry(self) -> tuple[Array, Array, NDArray[np.int64]]:
        """Primitive cell (3, 3) in Å, fractional positions (n, 3) and label index (n,), sorted by label."""
        rotations, translations = _operations(self.spacegroup)
        basis = _BASES[_centring(rotations, translations)]
        points, labels = [], []
        for site in sorted(self.sites, key=lambda s: s.label):
            orbit = _orbit(np.array(site.position), rotations, translations)
            if len(orbit) != site.multiplicity:
                raise InputError(
                    f"prototype {self.name}: {site.position} has {len(orbit)} points in space group {self.spacegroup};"
                    f" expected those of {site.wyckoff}"
                )
            inner = _distinct(orbit @ np.linalg.inv(basis))
            points.append(inner)
            labels += [LABELS.index(site.label)] * len(inner)
        return basis @ _lattice(self.cell), np.concatenate(points), np.array(labels)


def _lattice(cell: Sequence[float]) -> Array:
    """Rows a, b, c from lengths and angles: a along x, b in the xy plane."""
    a, b, c = cell[:3]
    cos_alpha, cos_beta, cos_gamma = (np.cos(np.radians(angle)) if angle != 90 else 0.0 for angle in cell[3:])
    sin_gamma = np.sqrt(1 - cos_gamma**2)
    cy = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    cz = np.sqrt(1 - cos_beta**2 - cy**2)
    return np.array([[a, 0, 0], [b * cos_gamma, b * sin_gamma, 0], [c * cos_beta, c * cy, c * cz]])


@cache
def _operations(number: int) -> tuple[Array, Array]:
    """Rotations (m, 3, 3) and translations (m, 3) of a space group in the standard setting, centring included."""
    from moyopy import Setting, operations_from_number

    found = operations_from_number(number, setting=Setting.standard())
    return np.array(found.rotations, dtype=np.float64), np.array(found.translations, dtype=np.float64)


@cache
def primitive_operations(number: int) -> tuple[Array, Array, Array]:
    """The operations of a space group modulo its lattice, in the primitive cell.

    Returns
    -------
    Fractional rotations (m, 3, 3) and translations (m, 3) with x' = R x + t, and the primitive vectors (rows) in units of the conventional
    ones.
    """
    rotations, translations = _operations(number)
    basis = _BASES[_centring(rotations, translations)]
    into = np.linalg.inv(basis.T)
    turned = np.round(into @ rotations @ basis.T)
    moved = (translations @ into.T) % 1.0
    _, first = np.unique(turned.reshape(-1, 9), axis=0, return_index=True)
    kept = np.sort(first)
    return turned[kept], moved[kept], basis


def random_lattice(number: int, rng: np.random.Generator) -> Array:
    """Rows of a random primitive cell of volume 1 that a space group allows: lengths within a factor of two, angles of 65 to 115°."""
    basis = primitive_operations(number)[2]
    while True:
        lengths, angles = rng.uniform(0.7, 1.4, 3), rng.uniform(65.0, 115.0, 3)
        free = 1 if number >= 195 else 2 if number >= 75 else 3 if number >= 16 else 4 if number >= 3 else 6
        with np.errstate(invalid="ignore"):
            cell = basis @ _lattice(_full_cell(number, [*lengths, *angles][:free]))
        volume = float(np.linalg.det(cell))
        # three angles may not close, or nearly lie in a plane: that would be a flat cell, or another lattice written badly
        if volume > 0.2 * float(np.prod(np.linalg.norm(cell, axis=1))):
            return np.asarray(cell / np.cbrt(volume))


def _centring(rotations: Array, translations: Array) -> str:
    pure = translations[np.all(rotations == np.eye(3), axis=(1, 2))] % 1
    if len(pure) in (1, 3, 4):
        return {1: "P", 3: "R", 4: "F"}[len(pure)]
    shift = tuple(pure[np.abs(pure).sum(axis=1).argmax()].round(3).tolist())
    return {(0.0, 0.5, 0.5): "A", (0.5, 0.5, 0.0): "C", (0.5, 0.5, 0.5): "I"}[shift]


def _orbit(point: Array, rotations: Array, translations: Array) -> Array:
    """All images of `point` in the unit cell, after moving it exactly onto the special position it is rounded from."""
    images = rotations @ point + translations
    shifts = images - point
    near = np.all(np.abs(shifts - np.round(shifts)) < _SAME_POINT, axis=1)
    exact = (images[near] - np.round(shifts[near])).mean(axis=0)
    return _distinct(rotations @ exact + translations)


def _distinct(points: Array) -> Array:
    """The points that differ modulo 1, moved into [0, 1), in the order of their first appearance."""
    inside = points - np.floor(points + 1e-9)
    keys = np.round(inside, 6) + 0.0
    _, first = np.unique(keys % 1, axis=0, return_index=True)
    found: Array = inside[np.sort(first)]
    return found


# --- the library ------------------------------------------------------------------------------------------------------------------


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads((files("naica.structure") / "prototypes.json").read_text())
    return table


class _Library(Mapping[str, Prototype]):
    """All prototypes by name, in the order of the table (unary first); read on first use."""

    @cached_property
    def _found(self) -> dict[str, Prototype]:
        return {name: _from_json(name, entry) for name, entry in _table()["prototypes"].items()}

    def __getitem__(self, name: str) -> Prototype:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"<{len(self)} prototypes>"


PROTOTYPES: Mapping[str, Prototype] = _Library()


def _from_json(name: str, entry: Mapping[str, Any]) -> Prototype:
    return Prototype(
        name=name,
        spacegroup=entry["spacegroup"],
        elements=tuple(entry["elements"]),
        charges=tuple(entry["charges"]) if "charges" in entry else None,
        cell=_full_cell(entry["spacegroup"], entry["cell"]),
        sites=tuple(_site(text) for text in entry["sites"]),
        aliases=tuple(entry.get("aliases", ())),
        equivalent=tuple(entry.get("equivalent", ())),
        dual_of=entry.get("dual_of"),
    )


def _full_cell(number: int, short: Sequence[float]) -> tuple[float, float, float, float, float, float]:
    """a, b, c, α, β, γ from the numbers the crystal system leaves free."""
    if number >= 195:
        (a,) = short
        return (a, a, a, 90.0, 90.0, 90.0)
    if number >= 75:
        a, c = short
        return (a, a, c, 90.0, 90.0, 120.0 if number >= 143 else 90.0)
    if number >= 16:
        a, b, c = short
        return (a, b, c, 90.0, 90.0, 90.0)
    if number >= 3:
        a, b, c, beta = short
        return (a, b, c, 90.0, beta, 90.0)
    a, b, c, alpha, beta, gamma = short
    return (a, b, c, alpha, beta, gamma)


def _site(text: str) -> Site:
    label, wyckoff, x, y, z = text.split()
    return Site(label, wyckoff, (float(Fraction(x)), float(Fraction(y)), float(Fraction(z))))


@cache
def _names() -> dict[str, str]:
    """Every name and alias in lower case → name."""
    aliases = {alias.lower(): p.name for p in PROTOTYPES.values() for alias in p.aliases}
    return aliases | {name.lower(): name for name in PROTOTYPES}


def prototype(name: str) -> Prototype:
    """The prototype of a name or alias, for example ``spinel`` or ``H1_1``; case does not matter.

    Raises
    ------
    InputError
        If there is none; the message proposes the nearest names.
    """
    try:
        return PROTOTYPES[_names()[name.strip().lower()]]
    except KeyError:
        near = get_close_matches(name.lower(), _names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "list(naica.structure.prototypes.PROTOTYPES) shows all names"
        raise InputError(f"unknown prototype {name!r}; {hint}") from None


def find(stoichiometry: str | Sequence[int] | Mapping[str, float]) -> list[Prototype]:
    """All prototypes of a stoichiometry, given as ``AB2C4``, as a formula (``MgAl2O4``), as amounts ([1, 2, 4]) or as a composition.

    Raises
    ------
    InputError
        If the text is neither an anonymous nor a chemical formula.
    """
    return list(_by_stoichiometry().get(_amounts(stoichiometry), ()))


def _amounts(stoichiometry: str | Sequence[int] | Mapping[str, float]) -> tuple[int, ...]:
    """Sorted and divided by the greatest common divisor."""
    from naica.structure.composition import reduced

    if isinstance(stoichiometry, str):
        anonymous = re.findall(rf"([{LABELS}])(\d*)", stoichiometry)
        # a formula such as BC2 could be meant either way; both readings have the same amounts
        if "".join(a + n for a, n in anonymous) == stoichiometry:
            stoichiometry = [int(n or 1) for _, n in anonymous]
        else:
            stoichiometry = parse_formula(stoichiometry)
    if isinstance(stoichiometry, Mapping):
        stoichiometry = list(reduced(stoichiometry).values())
    if not stoichiometry or min(stoichiometry) < 1:
        raise InputError(f"stoichiometry {list(stoichiometry)}; expected positive amounts such as [1, 2, 4]")
    return tuple(sorted(n // gcd(*stoichiometry) for n in stoichiometry))


@cache
def _by_stoichiometry() -> dict[tuple[int, ...], list[Prototype]]:
    found = defaultdict(list)
    for candidate in PROTOTYPES.values():
        found[tuple(sorted(candidate.amounts))].append(candidate)
    return dict(found)


def reference_structure(symbol: str, molecule: bool = False) -> Crystal:
    """The stable form of an element at low temperature in its primitive cell: the zero of formation energies.

    O and N are their molecular crystals (α-O2, α-N2), H, F and Cl one molecule in a periodic box of 10 Å and more. With `molecule` O and N
    are such a box too. Boxes are periodic in all directions, so that every calculator takes them; which form is better depends on it:
    density functionals place the molecule well, while potentials fitted to crystals know the solid better (CHGNet puts α-O2
    0.09 eV/atom below the box). Take one form throughout a campaign.

    Raises
    ------
    InputError
        If the element is unknown, its structure is not in the library (for example Pu, 16 atoms in a monoclinic cell), or `molecule` is
        asked of an element that forms none here.
    """
    name = element(symbol).symbol
    if molecule:
        if f"{name}2-molecule" not in PROTOTYPES:
            raise InputError(f"no molecule for {name}; expected H, N, O, F or Cl")
        return PROTOTYPES[f"{name}2-molecule"].crystal()
    known = _table()["references"]
    if name not in known:
        raise InputError(f"no reference structure for {name}; give one as a file. Known: {' '.join(known)}")
    structure, *short = known[name]
    found = PROTOTYPES[structure]
    return replace(found, cell=_full_cell(found.spacegroup, short)).crystal([name]) if short else found.crystal([name])
