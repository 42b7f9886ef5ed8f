"""Where a campaign's candidates come from: the generators, or the rows of a table of known results (a campaign after the fact)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, permutations
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from naica.data import CrystalTable
from naica.discover.config import CampaignConfig
from naica.discover.ledger import Ledger
from naica.discover.recipes import Recipe, realise
from naica.errors import ConfigError, InputError, NaicaError
from naica.structure import Crystal

MIN_DISTANCE = 0.7  # Å; closer atoms in a candidate are a mistake of its generator


@dataclass(frozen=True)
class Proposal:
    """A candidate as the ledger keeps it. `status` is "new", or "rejected" with a reason."""

    key: str
    recipe: bytes
    origin: str
    parent: str
    formula: str
    kind: str | None
    status: str = "new"
    reason: str | None = None
    likelihood: float | None = None


class Proposals(Protocol):
    """What a campaign asks of its source of candidates."""

    def start_structures(self) -> dict[str, Crystal]:
        """The structures known before round 1, by key."""
        ...

    def propose(self, round_: int, parents: Mapping[str, Crystal], known: frozenset[str]) -> Iterator[Proposal]:
        """New candidates; `known` holds "formula|prototype label" of everything seen before."""
        ...

    def realise(self, rows: Sequence[tuple[str, bytes]], ledger: Ledger) -> list[Crystal]:
        """The atoms of candidates given as (key, recipe)."""
        ...

    def oracle_options(self) -> dict[str, Any]:
        """Options for `make_oracle`."""
        ...

    def kind(self, crystal: Crystal) -> str:
        """A label under which structures of one prototype fall together."""
        ...

    def dropped(self) -> dict[str, int]:
        """Parents that the generators could not use, by reason."""
        ...


def proposals_for(config: CampaignConfig) -> Proposals:
    """The source of candidates a configuration asks for."""
    return PoolProposals(config) if config.pool is not None else GeneratedProposals(config)


class GeneratedProposals:
    """Candidates made by prototypes, substitution and SAPS."""

    def __init__(self, config: CampaignConfig) -> None:
        self.config = config
        self._dropped: dict[str, int] = {}

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
                raise ConfigError(
                    f"[start] holds {crystal.formula}, but {', '.join(sorted(foreign))} is not among elements = {list(self.config.elements)}"
                )
        return {f"start-{c.hash[:16]}": c for c in found}

    def oracle_options(self) -> dict[str, Any]:
        """The options of the file."""
        return dict(self.config.oracle.options)

    def kind(self, crystal: Crystal) -> str:
        """The AFLOW-style prototype label."""
        from naica.structure.symmetry import prototype_label

        return prototype_label(crystal)

    def dropped(self) -> dict[str, int]:
        """Parents without assignable oxidation states and the like."""
        return dict(self._dropped)

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

    def propose(self, round_: int, parents: Mapping[str, Crystal], known: frozenset[str]) -> Iterator[Proposal]:
        """Recipes of all generators; invalid ones and repetitions come out rejected, with the reason."""
        by_hash = {c.hash: c for c in parents.values()}
        seen = set(known)
        cap = self.config.generate.max_per_round
        sizes = set(self.config.generate.n_elements)
        for recipe, likelihood in chain.from_iterable(islice(s, cap) for s in self._recipes(round_, by_hash)):
            proposal = self._checked(recipe, likelihood, by_hash, seen, sizes)
            if proposal is not None:
                yield proposal

    def _recipes(self, round_: int, parents: Mapping[str, Crystal]) -> Iterator[Iterator[tuple[Recipe, float | None]]]:
        from naica.discover.enumeration import prototype_recipes
        from naica.discover.saps import saps
        from naica.discover.substitution import Substitutions

        want = self.config.generate
        elements = self.config.elements
        if want.prototypes and round_ == 1:
            yield ((r, None) for r in prototype_recipes(elements, want.n_elements, balanced=want.balanced, max_atoms=want.max_atoms))
        if want.substitution:
            found = Substitutions(parents, elements=elements, threshold=want.substitution_threshold)
            yield ((r, p) for r, p in found)
            self._dropped.update({f"substitution: {reason}": n for reason, n in found.dropped.items()})
        if want.saps:
            yield ((r, None) for r in saps(parents, elements=elements, max_atoms=want.max_atoms))

    def _checked(
        self, recipe: Recipe, likelihood: float | None, parents: Mapping[str, Crystal], seen: set[str], sizes: set[int]
    ) -> Proposal | None:
        """The proposal of a recipe; None if it lies outside the campaign (number of elements, size)."""
        row = {"key": recipe.key, "recipe": recipe.pack(), "origin": recipe.origin, "parent": recipe.parent, "likelihood": likelihood}
        try:
            crystal = realise(recipe, parents)
        except NaicaError as error:
            return Proposal(**row, formula="", kind=None, status="rejected", reason=f"cannot be made: {error}")
        if len(crystal.composition) not in sizes or len(crystal) > self.config.generate.max_atoms:
            return None
        formula = crystal.formula
        shortest = crystal.min_distance()
        if shortest < MIN_DISTANCE:
            return Proposal(**row, formula=formula, kind=None, status="rejected", reason=f"atoms {shortest:.2f} Å apart")
        kind = self.kind(crystal)
        if f"{formula}|{kind}" in seen:
            # the same decoration of the same prototype; kept as a row, so that its fate can be looked up
            return Proposal(
                **row, formula=formula, kind=None, status="rejected", reason="same prototype and formula as an earlier candidate"
            )
        seen.add(f"{formula}|{kind}")
        return Proposal(**row, formula=formula, kind=kind)


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

    def kind(self, crystal: Crystal) -> str:
        """All rows count as one prototype: a table has no lineage."""
        return ""

    def dropped(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def propose(self, round_: int, parents: Mapping[str, Crystal], known: frozenset[str]) -> Iterator[Proposal]:
        """All rows that are not known at the start, once."""
        if round_ > 1:
            return
        start = self.start_structures()
        formulas = _formulas(self.table)
        for id_ in sorted(self._rows):
            if id_ not in start:
                yield Proposal(id_, b"", "pool", "", formulas[self._rows[id_]], None)

    def realise(self, rows: Sequence[tuple[str, bytes]], ledger: Ledger) -> list[Crystal]:
        """Rows of the table."""
        return list(self.table.take([self._rows[key] for key, _ in rows]))


def _formulas(table: CrystalTable) -> list[str]:
    return [c.formula for c in table]


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
