"""Further sources of a campaign's candidates: files of generative models, parents from whole tables, and compositions first.

Each source is a stream of `Offer`s: a recipe with the structure it starts from (which the ledger then keeps), or the reason why there is
none. What costs time (random search, the first look at millions) leaves files in the run folder, from which the same stream comes again
after a kill without computing anything twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from naica.discover.config import DFT_ORACLES, CampaignConfig
from naica.discover.filter import Judge
from naica.discover.recipes import Recipe
from naica.errors import ConfigError, InputError, RunError
from naica.structure import Crystal

_VOLUMES = (0.25, 4.0)  # of atoms in contact; outside of it a file's structure is nonsense
Say = Callable[[str], None]


@dataclass(frozen=True)
class Offer:
    """A candidate on offer.

    `structure` is the crystal the recipe starts from, where the ledger does not know it yet; `parent` what to write as its parent. Without
    a recipe there is no candidate: `name` and `formula` say what was tried and `reason` why not.
    """

    origin: str
    parent: str
    recipe: Recipe | None = None
    structure: Crystal | None = None
    likelihood: float | None = None
    name: str = ""
    formula: str = ""
    reason: str = ""

    @property
    def key(self) -> str:
        """The recipe's key, or a hash of what was tried."""
        if self.recipe is not None:
            return self.recipe.key
        return hashlib.sha256(f"{self.origin}:{self.name}:{self.reason}".encode()).hexdigest()[:16]


def as_it_is(crystal: Crystal, origin: str) -> Recipe:
    """The recipe of a structure that is a candidate itself."""
    return Recipe(crystal.hash, origin=origin)


@dataclass(eq=False)
class Sources:
    """The further sources of one round.

    Parameters
    ----------
    config : of the campaign
    folder : run folder; None for a plan, which computes and writes nothing and leaves out what would have to
    judge : distance from what is known; needed by compositions and the first look
    formulas : what has been computed
    parents : near the hull, from the ledger
    counts : filled while the streams run, by source
    """

    config: CampaignConfig
    folder: Path | None
    judge: Judge | None
    formulas: frozenset[str]
    parents: Mapping[str, Crystal]
    say: Say = lambda text: None
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def offers(self, round_: int) -> Iterator[Offer]:
        """Everything on offer in a round."""
        want = self.config.generate
        streams: list[Iterable[Offer]] = []
        if round_ == 1:
            streams += [self.of_file(name) for name in want.files]
        if want.first_look and self.folder is not None:
            streams.append(self.first_looks(round_))
        elif round_ == 1 and want.parents:
            streams.append(self.from_tables())
        if want.compositions and self.folder is not None:
            streams.append(self.compositions(round_))
        return chain.from_iterable(streams)

    # --- files -------------------------------------------------------------------------------------------------------------
    def of_file(self, name: str) -> Iterator[Offer]:
        """The structures of a generative model's output; what is no candidate comes with its reason."""
        from naica.discover.generated_files import read_generated

        told: Counter[str] = Counter()
        self.counts[f"files: {name}"] = told
        seen: set[str] = set()
        for one in islice(read_generated(name), self.config.generate.max_per_round):
            told["read"] += 1
            reason = one.reason or self._nonsense(one.crystal, seen)
            parent = f"file:{one.name}"
            if reason or one.crystal is None:
                told["rejected"] += 1
                formula = one.crystal.formula if one.crystal is not None else ""
                yield Offer("generated", parent, name=one.name, formula=formula, reason=reason)
                continue
            seen.add(one.crystal.hash)
            yield Offer("generated", parent, as_it_is(one.crystal, "generated"), one.crystal)

    def _nonsense(self, crystal: Crystal | None, seen: set[str]) -> str:
        from naica.discover.random_search import contact_volume

        if crystal is None:
            return "no structure"
        want, n = self.config.generate, len(crystal.composition)
        foreign = sorted(set(crystal.composition) - set(self.config.elements))
        ratio = crystal.volume / contact_volume(crystal.numbers)
        checks = (
            (foreign, f"holds {', '.join(foreign)}, which the campaign does not"),
            (crystal.hash in seen, "the same atoms as an earlier structure of this file"),
            (n not in want.n_elements, f"number of elements {n}; the campaign takes {' or '.join(map(str, want.n_elements))}"),
            (len(crystal) > want.max_atoms, f"{len(crystal)} atoms; the campaign takes {want.max_atoms}"),
            (
                not _VOLUMES[0] <= ratio <= _VOLUMES[1],
                f"{crystal.volume / len(crystal):.1f} Å³ per atom, {ratio:.2g} times what its atoms fill",
            ),
        )
        return next((text for bad, text in checks if bad), "")

    # --- parents of whole tables -------------------------------------------------------------------------------------------
    def pool(self) -> Iterator[Crystal]:
        """The crystals of the tables named as parents, one at a time."""
        for name in self.config.generate.parents:
            table = _table(name)
            for row in range(len(table)):
                yield table[row]

    def from_tables(self) -> Iterator[Offer]:
        """Substitution and partial substitution into the crystals of tables, a parent at a time, most probable first."""
        from naica.discover.saps import PartialSubstitutions
        from naica.discover.substitution import SubstitutionStream

        want, elements = self.config.generate, self.config.elements
        told: Counter[str] = Counter()
        self.counts["tables"] = told
        kept: dict[str, Crystal] = {}

        def remembered(crystals: Iterable[Crystal]) -> Iterator[Crystal]:
            # a recipe follows its parent at once in one stream, and within a window in the other
            for crystal in crystals:
                if len(crystal) <= want.max_atoms:
                    told["parents"] += 1
                    kept[crystal.hash] = crystal
                    yield crystal

        made: list[Iterable[tuple[Recipe, float]]] = []
        if want.substitution:
            made.append(SubstitutionStream(remembered(self.pool()), elements, threshold=want.substitution_threshold))
        if want.saps:
            made.append(PartialSubstitutions(remembered(self.pool()), elements, max_atoms=want.max_atoms, limit=want.per_parent, window=64))
        for stream in made:
            for recipe, likelihood in islice(stream, want.max_per_round):
                yield Offer(recipe.origin, recipe.parent, recipe, kept[recipe.parent], likelihood)
                told["offered"] += 1
                if len(kept) > 4 * _REMEMBERED:
                    for old in list(kept)[: len(kept) - _REMEMBERED]:
                        del kept[old]
            told.update({f"dropped: {reason}": n for reason, n in getattr(stream, "dropped", {}).items()})
            kept.clear()

    # --- the first look ------------------------------------------------------------------------------------------------------
    def first_looks(self, round_: int) -> Iterator[Offer]:
        """Prototypes and substitutions by the million; the best by table look-up go on."""
        from naica.discover.mass import MassRun, prototype_blocks, substitution_blocks
        from naica.structure.prototypes import PROTOTYPES

        want, elements = self.config.generate, self.config.elements
        assert self.folder is not None
        dropped: Counter[str] = Counter()
        run = MassRun(
            self.folder / "first-look" / f"round-{round_:02d}", **self._distances(), keep=want.first_look, known=self.formulas,
            tick=lambda stage, done: self.say(f"{stage}: {done:,}"),
        )  # fmt: skip
        sizes = frozenset(want.n_elements)
        blocks: list[Any] = []
        if want.prototypes and round_ == 1:
            chosen = [p for p in PROTOTYPES.values() if len(p.elements) in sizes and (not want.families or p.families & set(want.families))]
            blocks.append(prototype_blocks(chosen, elements, balanced=want.balanced, max_atoms=want.max_atoms))
        if want.substitution:
            pool = self.pool() if round_ == 1 else iter(())
            crystals = chain((self.parents[k] for k in sorted(self.parents)), pool)
            blocks.append(
                substitution_blocks(
                    crystals, elements, dropped, threshold=want.substitution_threshold, n_elements=sizes, max_atoms=want.max_atoms
                )
            )
        generated = run.generate(chain.from_iterable(blocks))
        best, ranked = run.rank()
        self.counts["first look"] = {**{f"generate {k}": v for k, v in generated.items()}, **ranked, "kept": len(best)}
        wanted = {b.recipe.parent for b in best if not b.recipe.is_prototype} - set(self.parents)
        # one more walk over the tables keeps only the parents of what survived
        found = {c.hash: c for c in self.pool() if c.hash in wanted} if wanted else {}
        for one in best:
            structure = None if one.recipe.is_prototype else found.get(one.recipe.parent, self.parents.get(one.recipe.parent))
            yield Offer(one.recipe.origin, one.recipe.parent, one.recipe, structure, one.likelihood or None)

    def _distances(self) -> dict[str, Any]:
        """Distances from the campaign's own hull with its gaps filled, for arrays; the formation energy itself without a hull."""
        from naica.discover.first_look import complete_hull, shipped
        from naica.discover.judge import HullJudge
        from naica.discover.mass import binary_distance, hull_distance

        if not isinstance(self.judge, HullJudge):
            return {}
        known = self.judge.hull
        hull = complete_hull([known.formula(i) for i in known.ids], known.formation_energies(), shipped(), self.config.elements)
        facts = repr((hull.elements, hull.counts.tolist(), hull.formation_energies().round(9).tolist()))
        stamp = hashlib.sha256(facts.encode()).hexdigest()[:16]
        return {"distance": binary_distance(hull), "exact": hull_distance(hull), "stamp": stamp}

    # --- compositions first --------------------------------------------------------------------------------------------------
    def compositions(self, round_: int) -> Iterator[Offer]:
        """Formulas under the relaxed oxidation rule, the best by the composition network, random structures of each."""
        from naica.discover.compositions import Formulas, OxidationRule, best_formulas
        from naica.training.zoo import load

        want, search = self.config.generate, self.config.generate.random_search
        if self.judge is None:
            raise ConfigError("compositions are ranked by their distance from the hull; they need stable.by = 'hull'")
        told: dict[str, Any] = {}
        self.counts["compositions"] = told
        rule = OxidationRule(want.states, want.relaxed)
        formulas = Formulas(
            self.config.elements, tuple(want.n_elements), rule, want.max_amount, search.max_atoms, self.formulas | self._searched(round_)
        )  # fmt: skip
        best = best_formulas(
            formulas, load(want.composition_model), self.judge.distance, want.compositions_per_round, want.near_hull,
            tick=lambda seen, kept: self.say(f"compositions: {seen:,} seen"),
        )  # fmt: skip
        self._note_searched(round_, [b.formula for b in best])
        told.update({**formulas.counts, "near the hull": len(best)})
        for one in best:
            yield from self._searched_structures(one.formula, told)

    def _searched_structures(self, formula: str, told: dict[str, Any]) -> Iterator[Offer]:
        from naica.discover.random_search import search_formula

        want = self.config.generate.random_search
        assert self.folder is not None
        parent = f"composition:{formula}"
        try:
            found = search_formula(
                formula, self._potential(), want.search(self.config.seed), self.folder / "random-search",
                lambda done, total: self.say(f"random search: {formula} {done} of {total}"),
            )  # fmt: skip
        except InputError as error:
            yield Offer("random", parent, name=formula, formula=formula, reason=str(error))
            return
        except RunError as error:
            # a formula whose atoms cannot be placed is no reason to stop; a folder that cannot be written is
            if "keep their distances" not in str(error):
                raise
            yield Offer("random", parent, name=formula, formula=formula, reason=str(error))
            return
        for name, value in (("structures", found.tried), ("completed", found.completed), ("search seconds", found.seconds)):
            told[name] = told.get(name, 0) + value
        if not found.counts:
            reason = f"{found.completed} of {found.tried} random structures completed; {want.least_completed} are needed"
            yield Offer("random", parent, name=formula, formula=formula, reason=reason)
            return
        for _, crystal in found.distinct(want.keep):
            yield Offer("random", parent, as_it_is(crystal, "random"), crystal)

    def _potential(self) -> Any:
        named = self.config.generate.random_search.potential or self.config.oracle.name
        if named == "table" or named in DFT_ORACLES:
            raise ConfigError(f"[generate.random_search] potential is missing; the oracle {named!r} does not relax random structures")
        return named

    def _searched(self, round_: int) -> frozenset[str]:
        """Formulas that earlier rounds searched; this round's own are the same again after a kill."""
        from naica.discover.random_search import read_note

        assert self.folder is not None
        notes = [read_note(self.folder / "random-search" / f"round-{r:02d}.json") for r in range(1, round_)]
        return frozenset(f for note in notes for f in note)

    def _note_searched(self, round_: int, formulas: list[str]) -> None:
        from naica.discover.random_search import write_note

        assert self.folder is not None
        write_note(self.folder / "random-search" / f"round-{round_:02d}.json", formulas)


_REMEMBERED = 1000


def _table(name: str) -> Any:
    """A registered set or a Parquet table of crystals."""
    from naica.data import CrystalTable
    from naica.data.registry import load_set

    try:
        return CrystalTable.read(name) if name.endswith(".parquet") else load_set(name)
    except (OSError, InputError) as error:
        raise ConfigError(f"[generate] parents: {name!r} cannot be used: {error}") from error
