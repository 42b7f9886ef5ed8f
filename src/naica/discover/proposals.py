"""Where a campaign's candidates come from: the generators, or the rows of a table of known results (a campaign after the fact)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice, permutations
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from naica.data import CrystalTable
from naica.discover.config import DFT_ORACLES, CampaignConfig
from naica.discover.filter import Judge
from naica.discover.ledger import Ledger
from naica.discover.recipes import Recipe, realise
from naica.discover.sources import Say, Sources
from naica.errors import ConfigError, InputError, NaicaError
from naica.structure import Crystal

MIN_DISTANCE = 0.7  # Å; closer atoms in a candidate are a mistake of its generator


@dataclass(frozen=True)
class Proposal:
    """A candidate as the ledger keeps it. `status` is "new", or "rejected" with a reason.

    `prototype` is the label of its structure type, `decoration` the same with the elements named: what decides whether it is a repetition.
    """

    key: str
    recipe: bytes
    origin: str
    parent: str
    formula: str
    prototype: str | None = None
    decoration: str | None = None
    status: str = "new"
    reason: str | None = None
    likelihood: float | None = None
    structure: Crystal | None = None
    """What the recipe starts from, where the ledger does not know it yet."""


class Proposals(Protocol):
    """What a campaign asks of its source of candidates."""

    def start_structures(self) -> dict[str, Crystal]:
        """The structures known before round 1, by key."""
        ...

    def propose(
        self, round_: int, parents: Mapping[str, Crystal], known: frozenset[str], judge: Judge | None = None,
        formulas: frozenset[str] = frozenset(),
    ) -> Iterator[Proposal]:  # fmt: skip
        """New candidates; `known` holds the decorations of everything seen before, `formulas` what was computed."""
        ...

    def realise(self, rows: Sequence[tuple[str, bytes]], ledger: Ledger) -> list[Crystal]:
        """The atoms of candidates given as (key, recipe)."""
        ...

    def oracle_options(self) -> dict[str, Any]:
        """Options for `make_oracle`."""
        ...

    def decoration(self, crystal: Crystal) -> str:
        """A label that equal structures share."""
        ...

    def dropped(self) -> dict[str, int]:
        """Parents that the generators could not use, by reason."""
        ...

    def counts(self) -> dict[str, Any]:
        """What the further sources of the last round made, by source."""
        ...


def proposals_for(config: CampaignConfig, folder: Path | None = None, say: Say = lambda text: None) -> Proposals:
    """The source of candidates a configuration asks for. Without a run folder (for a plan) sources that must compute are left out."""
    return PoolProposals(config) if config.pool is not None else GeneratedProposals(config, folder, say)


class GeneratedProposals:
    """Candidates made by prototypes, substitution and SAPS."""

    def __init__(self, config: CampaignConfig, folder: Path | None = None, say: Say = lambda text: None) -> None:
        self.config, self.folder, self.say = config, folder, say
        self._dropped: dict[str, int] = {}
        self._counts: dict[str, Any] = {}

    def start_structures(self) -> dict[str, Crystal]:
        """Elemental references, named compounds, and files."""
        from naica.structure.prototypes import reference_structure

        start = self.config.start
        found: list[Crystal] = [reference_structure(s) for s in self.config.elements] if start.elements else []
        found += [_compound(text) for text in start.compounds]
        found += [c for name in start.files for c in _read_all(name)]
        for crystal in found:
            foreign = set(crystal.composition) - set(self.config.elements)
            if foreign:
                names = ", ".join(sorted(foreign))
                raise ConfigError(f"[start] holds {crystal.formula}, but {names} is not among elements = {list(self.config.elements)}")
        return {f"start-{c.hash[:16]}": c for c in found}

    def oracle_options(self) -> dict[str, Any]:
        """The options of the file; with a DFT code also its protocol, and the elements that decide the cut-off."""
        options = dict(self.config.oracle.options)
        if self.config.oracle.name in DFT_ORACLES:
            options |= {"protocol": self.config.protocol, "elements": self.config.elements}
        return options

    def decoration(self, crystal: Crystal) -> str:
        """Space group and which element sits on which Wyckoff letters."""
        from naica.structure.symmetry import labels

        return labels(crystal)[1]

    def dropped(self) -> dict[str, int]:
        """Parents without assignable oxidation states and the like."""
        return dict(self._dropped)

    def counts(self) -> dict[str, Any]:
        """What files, tables, the first look and compositions brought."""
        return dict(self._counts)

    def realise(self, rows: Sequence[tuple[str, bytes]], ledger: Ledger) -> list[Crystal]:
        """Recipes turned into atoms; parents come from the ledger."""
        parents: dict[str, Crystal] = {}
        crystals = []
        for _, data in rows:
            recipe = Recipe.unpack(data)
            if not recipe.is_prototype and recipe.parent not in parents:
                parents[recipe.parent] = ledger.structure(recipe.parent)
            crystals.append(realise(recipe, parents))
        return crystals

    def propose(
        self, round_: int, parents: Mapping[str, Crystal], known: frozenset[str], judge: Judge | None = None,
        formulas: frozenset[str] = frozenset(),
    ) -> Iterator[Proposal]:  # fmt: skip
        """Recipes of all generators; invalid ones and repetitions come out rejected, with the reason."""
        by_hash = {c.hash: c for c in parents.values()}
        seen: dict[str, list[Crystal]] = {decoration: [] for decoration in known}
        cap = self.config.generate.max_per_round
        sizes = set(self.config.generate.n_elements)
        for recipe, likelihood in chain.from_iterable(islice(s, cap) for s in self._recipes(round_, by_hash)):
            proposal = self._checked(recipe, likelihood, by_hash, seen, sizes)
            if proposal is not None:
                yield proposal
        sources = Sources(self.config, self.folder, judge, formulas, by_hash, self.say)
        self._counts = sources.counts
        for offer in sources.offers(round_):
            if offer.recipe is None:
                yield Proposal(offer.key, b"", offer.origin, offer.parent, offer.formula, status="rejected", reason=offer.reason)
                continue
            near = by_hash if offer.structure is None else {offer.recipe.parent: offer.structure}
            proposal = self._checked(offer.recipe, offer.likelihood, near, seen, sizes)
            if proposal is not None:
                yield replace(proposal, parent=offer.parent, structure=offer.structure if proposal.status == "new" else None)

    def _recipes(self, round_: int, parents: Mapping[str, Crystal]) -> Iterator[Iterator[tuple[Recipe, float | None]]]:
        from naica.discover.enumeration import prototype_recipes
        from naica.discover.saps import PartialSubstitutions
        from naica.discover.substitution import Substitutions

        want = self.config.generate
        elements = self.config.elements
        if want.prototypes and round_ == 1 and not want.first_look:
            made = prototype_recipes(elements, want.n_elements, balanced=want.balanced, max_atoms=want.max_atoms, families=want.families)
            yield ((r, None) for r in made)
        if want.substitution and not want.first_look:
            found = Substitutions(parents, elements=elements, threshold=want.substitution_threshold)
            yield from self._counted("substitution", found)
        if want.saps:
            partial = PartialSubstitutions(parents, elements=elements, max_atoms=want.max_atoms)
            yield from self._counted("saps", partial)

    def _counted(self, name: str, generator: Any) -> Iterator[Iterator[tuple[Recipe, float | None]]]:
        """A generator's recipes; afterwards, the parents it could not use."""
        yield iter(generator)
        self._dropped.update({f"{name}: {reason}": n for reason, n in generator.dropped.items()})

    def _checked(
        self, recipe: Recipe, likelihood: float | None, parents: Mapping[str, Crystal], seen: dict[str, list[Crystal]], sizes: set[int]
    ) -> Proposal | None:
        """The proposal of a recipe; None if it lies outside the campaign (number of elements, size)."""
        from naica.structure.symmetry import labels

        row = Proposal(recipe.key, recipe.pack(), recipe.origin, recipe.parent, "", likelihood=likelihood)
        try:
            crystal = realise(recipe, parents)
        except NaicaError as error:
            return replace(row, status="rejected", reason=f"cannot be made: {error}")
        if len(crystal.composition) not in sizes or len(crystal) > self.config.generate.max_atoms:
            return None
        row = replace(row, formula=crystal.formula)
        shortest = crystal.min_distance()
        if shortest < MIN_DISTANCE:
            return replace(row, status="rejected", reason=f"atoms {shortest:.2f} Å apart")
        prototype, decoration = labels(crystal)
        if _repeats(crystal, recipe, seen.get(decoration)):
            # kept as a row all the same, so that its fate can be looked up
            return replace(row, status="rejected", reason="same symmetry and sites as an earlier candidate")
        seen.setdefault(decoration, []).append(crystal)
        return replace(row, prototype=prototype, decoration=decoration)


def _repeats(crystal: Crystal, recipe: Recipe, alike: list[Crystal] | None) -> bool:
    """Whether a candidate repeats one of those with its symmetry and sites.

    Two prototypes may share both and still be different structures (their free coordinates differ): for prototypes the matcher decides.
    Partial substitutions of one parent that share both are taken as the same.
    """
    from naica.structure.match import same_structure

    if alike is None:
        return False
    compared = recipe.is_prototype or recipe.origin in ("random", "generated")
    return not (compared and alike) or any(same_structure(crystal, other) is not None for other in alike)


class PoolProposals:
    """Candidates are the rows of a table whose labels the oracle tells."""

    def __init__(self, config: CampaignConfig) -> None:
        self.config = config

    @cached_property
    def table(self) -> CrystalTable:
        """The table, without rows whose label is missing."""
        from naica.data.registry import load_set

        assert self.config.pool is not None
        name = self.config.pool.table
        table = CrystalTable.read(name) if name.endswith(".parquet") else load_set(name)
        values = np.asarray(table.column(self.config.pool.column), dtype=np.float64)
        return table.take(np.isfinite(values))

    @cached_property
    def _rows(self) -> dict[str, int]:
        ids = self.table.ids
        if len(set(ids)) != len(ids):
            raise InputError(
                f"the pool {self.config.pool and self.config.pool.table!r} holds {len(ids) - len(set(ids))} repeated ids; make them unique"
            )
        return {id_: row for row, id_ in enumerate(ids)}

    def start_structures(self) -> dict[str, Crystal]:
        """A random share of the rows, drawn by the campaign's seed."""
        assert self.config.pool is not None
        rng = np.random.default_rng(self.config.seed)
        ids = sorted(self._rows)
        chosen = rng.permutation(len(ids))[: max(round(len(ids) * self.config.pool.start_fraction), 1)]
        return {ids[at]: self.table[self._rows[ids[at]]] for at in sorted(chosen)}

    def oracle_options(self) -> dict[str, Any]:
        """The table is the oracle."""
        if self.config.oracle.name != "table":
            raise ConfigError(
                f'a campaign with a [pool] asks the pool\'s table; set oracle.name = "table" (found {self.config.oracle.name!r})'
            )
        assert self.config.pool is not None
        return {"table": self.table, "column": self.config.pool.column}

    def decoration(self, crystal: Crystal) -> str:
        """The rows of a table are different by definition."""
        return crystal.hash

    def dropped(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def counts(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def propose(
        self, round_: int, parents: Mapping[str, Crystal], known: frozenset[str], judge: Judge | None = None,
        formulas: frozenset[str] = frozenset(),
    ) -> Iterator[Proposal]:  # fmt: skip
        """All rows that are not known at the start, once."""
        if round_ > 1:
            return
        start = self.start_structures()
        named = self.table.formulas
        for id_ in sorted(self._rows):
            if id_ not in start:
                yield Proposal(id_, b"", "pool", "", named[self._rows[id_]])

    def realise(self, rows: Sequence[tuple[str, bytes]], ledger: Ledger) -> list[Crystal]:
        """Rows of the table."""
        return list(self.table.take([self._rows[key] for key, _ in rows]))


def _compound(text: str) -> Crystal:
    """The structure of "formula: prototype", at the volume predicted for its elements."""
    from naica.structure.composition import parse_formula, reduced
    from naica.structure.elements import element
    from naica.structure.prototypes import prototype

    if ":" not in text:
        raise ConfigError(f'[start] compounds: {text!r}; expected "formula: prototype", for example "MgO: rocksalt"')
    formula, name = (part.strip() for part in text.split(":", 1))
    want = reduced(parse_formula(formula))
    found = prototype(name)
    for symbols in permutations(want):
        if len(symbols) == len(found.labels) and reduced(found.crystal(symbols).composition) == want:
            species = tuple((label, element(s).number) for label, s in enumerate(symbols, start=1))
            return realise(Recipe(f"prototype:{found.name}", species, origin="start"), {})
    raise ConfigError(f"[start] compounds: the prototype {name!r} ({found.formula}) has no decoration {formula}; choose another")


def _read_all(name: str) -> list[Crystal]:
    from naica.structure.io import read

    if not Path(name).exists():
        raise ConfigError(f"[start] files: no such file {name}")
    found = read(name)
    return found if isinstance(found, list) else [found]
