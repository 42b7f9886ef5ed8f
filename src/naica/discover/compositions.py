"""Composition first: which formulas are worth a structure, before any structure exists.

Three steps, each a stream (Merchant et al., Nature 624, 80 (2023), Methods):

1. every ratio of small integers over every subset of the elements (`stoichiometries`);
2. the relaxed oxidation rule (`OxidationRule`): strict charge balance loses compounds such as Li15Si4, no balance at all leaves too much.
   Each element takes one of its listed states, except that up to two elements may lie anywhere between two neighbouring listed ones;
3. a network that sees the formula alone says which of them lie near the hull (`best_formulas`).

What remains gets a hundred random structures each (`naica.discover.random_search`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, islice, pairwise, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.composition import format_formula, parse_formula, reduced
from naica.structure.crystal import Crystal
from naica.structure.elements import element

States = Literal["common", "icsd"] | Mapping[str, Collection[int]]
NEAR_HULL = 0.05
"""eV/atom above the hull up to which GNoME gives a formula random structures."""
_SPACING = 3.0  # Å between the atoms of a stand-in


@dataclass(frozen=True)
class OxidationRule:
    """The relaxed oxidation rule.

    A formula {n_i} passes if a set R of at most `relaxed` elements and listed states q exist with
    −Σ_{i∉R} n_i q_i between Σ_{R} n_i lo_i and Σ_{R} n_i hi_i, where lo_i and hi_i are neighbours in the list of i.

    Parameters
    ----------
    states : "common" states, those of "icsd" and the common ones, or your own by symbol (elements left out have none)
    relaxed : how many elements may lie between two listed states; 0 is strict balance
    zero : who may also be neutral. The paper adds 0 to every list ("all"), with which every formula that holds a cation and an anion
        passes; "metals" adds it where a metallic bond is possible, "none" nowhere
    """

    states: States = "common"
    relaxed: int = 2
    zero: Literal["metals", "all", "none"] = "metals"

    def __post_init__(self) -> None:
        if self.relaxed < 0 or self.zero not in ("metals", "all", "none") or (isinstance(self.states, str) and self.states not in _SOURCES):
            raise InputError(
                f"oxidation rule with states {self.states!r}, relaxed {self.relaxed}, zero {self.zero!r}; expected states 'common', 'icsd' "
                "or a mapping from symbols to states, relaxed ≥ 0, and zero 'metals', 'all' or 'none'"
            )

    def __hash__(self) -> int:
        own = self.states if isinstance(self.states, str) else tuple(sorted((s, tuple(sorted(q))) for s, q in self.states.items()))
        return hash((own, self.relaxed, self.zero))

    def listed(self, symbol: str) -> tuple[int, ...]:
        """The listed states of an element in order; empty for one that has none (noble gases), which no formula may hold."""
        here = element(symbol)
        if isinstance(self.states, str):
            own = set(here.oxidation_states) | (set(here.icsd_oxidation_states) if self.states == "icsd" else set())
        else:
            own = {int(q) for q in self.states.get(here.symbol, ())}
        neutral = own and (self.zero == "all" or (self.zero == "metals" and here.is_metal))
        return tuple(sorted(own | {0} if neutral else own))

    def why_not(self, formula: str | Mapping[str, float]) -> str:
        """Why a formula is refused; empty if it passes.

        Raises
        ------
        InputError
            If the formula cannot be read.
        """
        counts = reduced(parse_formula(formula) if isinstance(formula, str) else formula)
        without = [s for s in counts if not self.listed(s)]
        if without:
            return f"no oxidation state of {', '.join(without)} is listed"
        if self.accepted(tuple(counts), np.array([list(counts.values())]))[0]:
            return ""
        return f"its charges do not balance, even with {self.relaxed} element{'s' * (self.relaxed != 1)} between neighbouring states"

    def accepts(self, formula: str | Mapping[str, float]) -> bool:
        """Whether a formula passes."""
        return not self.why_not(formula)

    def accepted(self, system: Sequence[str], amounts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(m,) which amounts (m, k) of the elements of a system pass, all at once."""
        lowest, highest = _ways(self, tuple(system))
        # whole numbers, exact in 64-bit floats, whose products are fast
        counts = np.asarray(amounts, dtype=np.float64)
        return np.asarray(((counts @ lowest <= 0) & (counts @ highest >= 0)).any(axis=1), dtype=np.bool_)


_SOURCES = ("common", "icsd")


@lru_cache(maxsize=4096)
def _ways(rule: OxidationRule, system: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(k, c) lowest and highest state of each element in each of the c ways to give states to a system.

    An interval holds its ends, so letting fewer elements free than allowed adds nothing: only full sets R are listed. An element with a
    single state has that state as interval.
    """
    lists = [rule.listed(s) for s in system]
    if not all(lists):
        return np.ones((len(system), 1)), -np.ones((len(system), 1))
    points = [[(q, q) for q in own] for own in lists]
    gaps = [list(pairwise(own)) or [(own[0], own[0])] for own in lists]
    found: set[tuple[tuple[int, int], ...]] = set()
    for free in combinations(range(len(system)), min(rule.relaxed, len(system))):
        found.update(product(*(gaps[k] if k in free else points[k] for k in range(len(system)))))
    ways = np.array(sorted(found), dtype=np.float64)
    return ways[:, :, 0].T.copy(), ways[:, :, 1].T.copy()


@lru_cache(maxsize=64)
def stoichiometries(n_elements: int, cap: int = 8, max_atoms: int | None = None) -> NDArray[np.int64]:
    """(m, k) all ratios of k amounts from 1 to `cap` without a common factor, small formulas first.

    Raises
    ------
    InputError
        If a number is below one, or there are more than 20 million ratios.
    """
    if n_elements < 1 or cap < 1 or (max_atoms is not None and max_atoms < n_elements):
        raise InputError(
            f"{n_elements} elements, amounts up to {cap}, at most {max_atoms} atoms; expected numbers from 1 that leave a formula"
        )
    if cap**n_elements > 20_000_000:
        raise InputError(f"{cap}^{n_elements} ratios of amounts are too many to list; lower the largest amount")
    grid = np.stack(np.meshgrid(*[np.arange(1, cap + 1)] * n_elements, indexing="ij"), axis=-1).reshape(-1, n_elements)
    grid = grid[np.gcd.reduce(grid, axis=1) == 1]
    size = grid.sum(axis=1)
    if max_atoms is not None:
        grid, size = grid[size <= max_atoms], size[size <= max_atoms]
    ordered: NDArray[np.int64] = grid[np.argsort(size, kind="stable")]
    ordered.flags.writeable = False
    return ordered


@dataclass(frozen=True, eq=False)
class Formulas:
    """The formulas that pass the rule, as a stream in a fixed order, one chemical system after the other.

    Parameters
    ----------
    elements : the allowed elements; those without a listed state are left out
    n_elements : sizes of the chemical systems
    rule : the oxidation rule
    cap : largest amount in a formula
    max_atoms : most atoms in a formula unit
    known : reduced formulas to leave out

    `counts` is filled while the stream runs: "possible" and "accepted" formulas, "known" ones, and "no states: X" for elements left out.
    """

    elements: tuple[str, ...]
    n_elements: tuple[int, ...] = (2, 3)
    rule: OxidationRule = OxidationRule()
    cap: int = 8
    max_atoms: int | None = None
    known: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[str]:
        named = sorted({element(s).symbol for s in self.elements}, key=lambda s: element(s).number)
        usable = [s for s in named if self.rule.listed(s)]
        self.counts.clear()
        self.counts.update({f"no states: {s}": 1 for s in named if s not in usable})
        for size in sorted(set(self.n_elements)):
            amounts = stoichiometries(size, self.cap, self.max_atoms)
            for system in combinations(usable, size):
                # a pure element is no compound: it is a reference
                passed = amounts[self.rule.accepted(system, amounts)] if size > 1 else amounts[:0]
                self.counts["possible"] += len(amounts)
                self.counts["accepted"] += len(passed)
                for row in passed.tolist():
                    formula = format_formula(dict(zip(system, row, strict=True)))
                    if formula in self.known:
                        self.counts["known"] += 1
                    else:
                        yield formula


def stand_in(formula: str | Mapping[str, float]) -> Crystal:
    """One formula unit as a cubic grid of atoms: what a network that sees the formula alone may be given. It is no structure.

    Raises
    ------
    InputError
        If the formula cannot be read.
    """
    counts = reduced(parse_formula(formula) if isinstance(formula, str) else formula)
    numbers = np.repeat([element(s).number for s in counts], list(counts.values()))
    side = int(np.ceil(len(numbers) ** (1 / 3) - 1e-9))
    places = np.stack(np.unravel_index(np.arange(len(numbers)), (side,) * 3), axis=1).astype(np.float64)
    return Crystal(numbers, _SPACING * places, _SPACING * side * np.eye(3), info={"stand_in": True})


@dataclass(frozen=True)
class Ranked:
    """A formula, its predicted formation energy and distance from the hull (eV/atom), and the error bar of the prediction."""

    formula: str
    energy: float
    sigma: float
    distance: float


def best_formulas(
    formulas: Iterable[str],
    model: Any,
    distance: Callable[[Sequence[str], NDArray[np.float64]], NDArray[np.float64]],
    keep: int,
    limit: float = NEAR_HULL,
    chunk: int = 4096,
    tick: Callable[[int, int], None] = lambda seen, kept: None,
) -> list[Ranked]:
    """The `keep` formulas nearest to the hull among those within `limit`, nearest first; memory is bounded by `chunk` and `keep`.

    Parameters
    ----------
    formulas : any stream
    model : predicts formation energies per atom from `stand_in` structures, for example the shipped ``composition-formation-energy``
    distance : (formulas, energies (n,)) → (n,) eV/atom above the hull, for example `HullJudge.distance`
    keep, limit : how many, and how far from the hull at most
    tick : called with the numbers of formulas seen and kept

    Raises
    ------
    InputError
        If the model needs more than a formula.
    """
    spec = getattr(model, "needs", None)
    if spec is not None and getattr(spec, "kind", "composition") != "composition":
        raise InputError("the model that ranks formulas needs structures; expected one of architecture gnome-composition")
    best: list[Ranked] = []
    stream, seen = iter(formulas), 0
    while batch := list(islice(stream, chunk)):
        told = model.predict([stand_in(f) for f in batch])
        energy, sigma = np.asarray(told.value, dtype=np.float64), np.asarray(told.sigma, dtype=np.float64)
        above = distance(batch, energy)
        near = np.flatnonzero(np.nan_to_num(above, nan=np.inf) <= limit)
        best += [Ranked(batch[k], float(energy[k]), float(sigma[k]), float(above[k])) for k in near]
        best = sorted(best, key=lambda r: (r.distance, r.formula))[:keep]
        seen += len(batch)
        tick(seen, len(best))
    return best
