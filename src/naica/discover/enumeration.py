"""Candidates by decoration of the prototype library: every chemical subsystem × every prototype × every distinct order of elements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, permutations, product
from math import log

from naica.discover.recipes import PROTOTYPE, Recipe
from naica.errors import InputError
from naica.structure.elements import Element, element
from naica.structure.prototypes import FAMILIES, LABELS, PROTOTYPES, Prototype, prototype


def prototype_recipes(
    elements: Iterable[str],
    n_elements: Sequence[int] = (2, 3),
    balanced: bool = True,
    max_atoms: int | None = None,
    prototypes: Sequence[str | Prototype] | None = None,
    families: Sequence[str] = (),
) -> Iterator[Recipe]:
    """Recipes of all prototypes decorated with the subsets of `elements`, each structure once, always in the same order.

    Of the decorations of one prototype with one subsystem those that fit the example's radii best come first (SrTiO3 before TiSrO3).

    Parameters
    ----------
    elements : symbols of the chemical system
    n_elements : sizes of the subsystems to decorate
    balanced : only decorations whose oxidation states add up to zero, with cations and anions where the example compound has them;
        metallic prototypes are then left out. False: every distinct order of the elements on the labels
    max_atoms : largest primitive cell
    prototypes : names or prototypes to use instead of the whole library
    families : only prototypes of these (`naica.structure.prototypes.FAMILIES`); empty for all

    Notes
    -----
    A label's element takes one common oxidation state of the sign of the example's charge. Where the example itself bonds within
    its anions or cations (S⁻ of pyrite), elements of the same group may take the example's unusual state. A non-metal is no cation beside
    a less electronegative anion. Mixed valence on one label (Fe3O4) is not enumerated; unary prototypes count as balanced.

    Raises
    ------
    InputError
        For unknown elements or prototypes, and sizes below 1.
    """
    numbers = sorted({element(s).number for s in elements})
    sizes = sorted(set(n_elements))
    if not sizes or sizes[0] < 1:
        raise InputError(f"n_elements = {list(n_elements)}; expected sizes of subsystems such as (2, 3)")
    unknown = [f for f in families if f not in FAMILIES]
    if unknown:
        raise InputError(f"families {unknown} are unknown; expected some of {', '.join(FAMILIES)}")
    chosen = [p for p in _chosen(prototypes, balanced, max_atoms) if not families or p.families & set(families)]
    return _recipes(numbers, sizes, balanced, chosen)


def _chosen(prototypes: Sequence[str | Prototype] | None, balanced: bool, max_atoms: int | None) -> list[Prototype]:
    """The prototypes to decorate. Without charges a dual is its partner with other labels, so one of the two suffices."""
    if prototypes is None:
        found = [p for p in PROTOTYPES.values() if not p.is_boxed_molecule and (balanced or p.dual_of is None)]
    else:
        found = list(dict.fromkeys(p if isinstance(p, Prototype) else prototype(p) for p in prototypes))
        names = {p.name for p in found}
        found = [p for p in found if balanced or p.dual_of not in names]
    if balanced:
        found = [p for p in found if p.charges is not None or len(p.elements) == 1]
    return [p for p in found if max_atoms is None or p.n_atoms <= max_atoms]


def _recipes(numbers: Sequence[int], sizes: Sequence[int], balanced: bool, prototypes: Sequence[Prototype]) -> Iterator[Recipe]:
    for size in sizes:
        fitting = [p for p in prototypes if len(p.elements) == size]
        for system in combinations(numbers, size):
            for found in fitting:
                for order in _distinct_orders(system, found, balanced):
                    yield Recipe(PROTOTYPE + found.name, tuple(enumerate(order, start=1)), origin="prototype")


def _distinct_orders(system: Sequence[int], found: Prototype, balanced: bool) -> Iterator[tuple[int, ...]]:
    """Assignments of the elements to the labels, those that fit the example's radii best first; of several that give one structure one."""
    seen: set[tuple[int, ...]] = set()
    orders = [order for order in permutations(system) if not balanced or is_allowed(found, order)]
    for order in sorted(orders, key=lambda order: (_misfit(found, order), order)):
        same = {order, *(tuple(order[LABELS.index(label)] for label in way) for way in found.equivalent)}
        if not same & seen:
            seen.add(order)
            yield order


def _misfit(found: Prototype, numbers: Sequence[int]) -> float:
    """How far the ratios of radii are from those of the example: the range of log(radius / radius in the example) over the labels."""
    charges = found.charges or (0,) * len(found.elements)
    stretch = [log(_radius(z, q) / _radius(element(s).number, q)) for z, s, q in zip(numbers, found.elements, charges, strict=True)]
    return round(max(stretch) - min(stretch), 9)


@lru_cache(maxsize=4096)
def _radius(number: int, charge: int) -> float:
    """Mean ionic radius over the states of the sign of `charge`, in Å; the covalent radius where there is none."""
    here = element(number)
    ionic = [radius for q, radius in here.ionic_radii.items() if q * charge > 0]
    return sum(ionic) / len(ionic) if ionic else here.covalent_radius


def is_allowed(found: Prototype, numbers: Sequence[int]) -> bool:
    """Whether atomic numbers on the labels of a prototype balance with the signs of its example (always, for a unary one)."""
    if len(found.elements) == 1:
        return True
    if found.charges is None:
        return False
    chosen = [element(z) for z in numbers]
    positive = [e for e, q in zip(chosen, found.charges, strict=True) if q > 0]
    negative = [e for e, q in zip(chosen, found.charges, strict=True) if q < 0]
    if any(_against_electronegativity(cation, anion) for cation in positive for anion in negative):
        return False
    states = [states_like(z, s, q) for z, s, q in zip(numbers, found.elements, found.charges, strict=True)]
    return any(sum(n * q for n, q in zip(found.amounts, way, strict=True)) == 0 for way in product(*states))


def _against_electronegativity(cation: Element, anion: Element) -> bool:
    """True for a non-metal as cation of a less electronegative anion; between metals Pauling's values are too close to forbid."""
    if cation.is_metal:
        return False
    return (cation.electronegativity or 0.0) > (anion.electronegativity or 0.0)


@lru_cache(maxsize=65536)
def states_like(number: int, example: str, charge: int) -> tuple[int, ...]:
    """The oxidation states an element may take where the example has `charge`."""
    here, model = element(number), element(example)
    states = {q for q in here.oxidation_states if q * charge > 0}
    if charge not in model.oxidation_states and here.group == model.group:
        states.add(charge)
    return tuple(sorted(states))
