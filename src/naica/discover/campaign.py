"""The campaign: know → learn → propose → judge → pick → compute → know more, round after round.

Each stage reads the ledger, does its work and writes its outcome and the mark "finished" in one transaction. A stage is a function
of the configuration and of what earlier stages left in the ledger, so a campaign killed anywhere and started again ends in the same
state as one left in peace.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from naica.data import CrystalTable, Label
from naica.discover import engines
from naica.discover.config import CampaignConfig, Stop, engine_named, read_config
from naica.discover.cuts import campaign_cuts
from naica.discover.filter import Judge, Scores
from naica.discover.judge import HullJudge, LabelJudge
from naica.discover.ledger import Entry, Ledger
from naica.discover.novelty import Known, keep_verdicts, known_of
from naica.discover.oracle import Oracle, OracleResult
from naica.discover.pick import Option, choose
from naica.discover.proposals import Proposal, Proposals, proposals_for
from naica.discover.relaxed_look import RelaxedLook
from naica.discover.reliability import Recalibration, past_of, recalibrate
from naica.discover.scoring import score
from naica.errors import ConfigError, RunError
from naica.potential.calculators import level_of
from naica.structure import Crystal
from naica.structure.match import same_structure
from naica.structure.oxidation import is_balanced

LABEL = "formation_energy_per_atom"
# what may change between two starts of one campaign without making it another one
_FREE = (
    ("rounds",),
    ("folder",),
    ("title",),
    ("oracle", "workers"),
    ("oracle", "timeout"),
    ("oracle", "retries"),
    ("engine",),
    ("stop",),
    ("novelty",),
)


@dataclass(frozen=True)
class Event:
    """Progress: `done` of `total` steps of a stage in a round; total 0 where it is not known."""

    round: int
    stage: str
    done: int
    total: int
    text: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a run of a campaign ended: "finished", "budget spent", "nothing left to compute" or "stop rule: …"."""

    folder: Path
    rounds: int
    calls: int
    why: str


Progress = Callable[[Event], None]


class Campaign:
    """A discovery campaign in a folder.

    Parameters
    ----------
    config : a campaign file or a configuration
    folder : where the ledger, the models and the report live; default ``campaigns/<name of the file>``
    engine : another engine than the file names (see `naica.discover.config.engine_named`)

    Raises
    ------
    ConfigError
        If the file is wrong, or the folder belongs to a campaign with another configuration.
    RunError
        If the folder cannot be used.
    """

    def __init__(self, config: CampaignConfig | str | Path, folder: str | Path | None = None, engine: str | None = None) -> None:
        self.config = config if isinstance(config, CampaignConfig) else read_config(config)
        if engine is not None:
            self.config = self.config.model_copy(update={"engine": engine_named(engine, self.config.engine)})
        name = "campaign" if isinstance(config, CampaignConfig) else Path(config).stem
        self.folder = Path(folder or self.config.folder or Path("campaigns") / name)
        self.name = name

    # --- the loop ---------------------------------------------------------------------------------------------------------
    def run(self, rounds: int | None = None, budget: int | None = None, progress: Progress = lambda event: None) -> Outcome:
        """Start or resume; `rounds` and `budget` (oracle calls in all) override the file."""
        with self._opened() as ledger:
            run = _Run(self.config, self.folder, ledger, progress)
            run.start()
            last = rounds or self.config.rounds
            for number in range(1, last + 1):
                why = run.stop(number) or run.round(number, budget)
                if why:
                    return Outcome(self.folder, number, len(ledger.called()), why)
            return Outcome(self.folder, last, len(ledger.called()), "finished")

    def plan(self) -> dict[str, Any]:
        """What a run would do, without an oracle call and without writing anything."""
        from naica.discover.oracle import make_oracle

        proposals = proposals_for(self.config)
        known = proposals.start_structures()
        counts: dict[str, int] = {}
        for proposal in proposals.propose(1, _as_parents(known.values()), frozenset()):
            counts[proposal.origin] = counts.get(proposal.origin, 0) + 1
        oracle = make_oracle(self.config.oracle.name, **proposals.oracle_options())
        return {
            "folder": str(self.folder),
            "resumes": (self.folder / "ledger.sqlite").exists(),
            "start": [c.formula for c in known.values()] if self.config.pool is None else len(known),
            "candidates_in_round_1": counts,
            "oracle": {"name": self.config.oracle.name, "level": str(oracle.level)},
            "oracle_calls": (0 if self.config.pool else len(known)) + self.config.rounds * self.config.pick.per_round,
        }

    @contextmanager
    def _opened(self) -> Iterator[Ledger]:
        ledger = Ledger(self.folder)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"another process runs the campaign in {self.folder}; wait for it, or stop it") from None
            try:
                self._same_campaign(ledger)
                yield ledger
            except OSError as error:
                raise RunError(
                    f"{self.folder}: {error}; nothing finished is lost: give the same command again once it is mended"
                ) from error
            finally:
                ledger.close()

    def _same_campaign(self, ledger: Ledger) -> None:
        mine = _essence(self.config)
        text = ledger.meta("config")
        if text is None:
            from naica.discover.provenance import versions

            with ledger.write() as db:
                facts = {
                    "config": self.config.model_dump_json(),
                    "name": self.name,
                    "versions": json.dumps(versions()),
                    "started": str(time.time()),
                }
                db.executemany("insert into meta values (?, ?)", facts.items())
            return
        theirs = _essence(CampaignConfig.model_validate_json(text))
        changed = sorted(k for k in mine if mine[k] != theirs[k])
        if changed:
            raise ConfigError(
                f"{self.folder} holds a campaign with another configuration (different: {', '.join(changed)}); "
                "give another --folder, or put the file back as it was"
            )
        ledger.set_meta("config", self.config.model_dump_json())


def _essence(config: CampaignConfig) -> dict[str, Any]:
    raw = json.loads(config.model_dump_json())
    for path in _FREE:
        part = raw
        for name in path[:-1]:
            part = part[name]
        part.pop(path[-1])
    return raw


def _as_parents(crystals: Iterable[Crystal]) -> dict[str, Crystal]:
    return {c.hash: c for c in crystals}


class _Run:
    """One process's walk through the stages."""

    def __init__(self, config: CampaignConfig, folder: Path, ledger: Ledger, progress: Progress) -> None:
        from naica.discover.oracle import make_oracle

        self.config, self.folder, self.ledger, self.progress = config, folder, ledger, progress
        self.round_now = 0
        self.proposals: Proposals = proposals_for(config, folder, lambda text: progress(Event(self.round_now, "propose", 0, 0, text)))
        self.oracle: Oracle = make_oracle(config.oracle.name, **self.proposals.oracle_options())
        self._freeze_protocol()
        if config.filter.relax_with:
            level_of(config.filter.relax_with)  # an unknown potential is said now, not rounds later
        self._world = known_of(config.novelty.against, config.novelty.formulas)

    @cached_property
    def relaxed_look(self) -> RelaxedLook:
        """The second look, with its tables in the ledger."""
        return RelaxedLook(self.ledger, self.config.filter)

    def _freeze_protocol(self) -> None:
        """Ask an oracle that has a protocol to settle it (a cut-off, say); what the campaign began with stays to its end."""
        if not hasattr(self.oracle, "prepare"):
            return
        kept = self.ledger.meta("protocol")
        facts = self.oracle.prepare(json.loads(kept) if kept else None, lambda text: self.progress(Event(0, "protocol", 0, 0, text)))
        if kept is None:
            self.ledger.set_meta("protocol", json.dumps(facts))

    # --- round 0 -------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Know what is known: compute the start structures (or take them from the pool's table)."""
        if self.ledger.stage(0, "compute") is not None:
            return
        known = self.proposals.start_structures()
        self._compute(0, known)
        if self.config.stable.by == "hull":
            self.judge(0)  # raises if a reference is missing

    def stop(self, number: int) -> str | None:
        """Why a round that has not begun should not begin, by the section ``[stop]``."""
        if self.config.stop == Stop() or number == 1 or any(self.ledger.stage(number, s) for s in ("learn", "compute")):
            return None
        from naica.discover.summary import why_stop

        return why_stop(self.ledger, len(self.ledger.called()))

    def round(self, number: int, budget: int | None) -> str | None:
        """All stages of a round that have not finished; a reason if the campaign must stop."""

        def open_(stage: str) -> bool:
            return self.ledger.stage(number, stage) is None

        if not open_("compute"):
            return None
        if open_("judge"):
            model = self._learn(number)
            if open_("propose"):
                self._propose(number)
            self._judge(number, model)
        if open_("pick"):
            why = self._pick(number, budget)
            if why:
                return why
        self._compute(number, self._picked(number))
        return None

    # --- learn ---------------------------------------------------------------------------------------------------------------
    def judge(self, up_to: int) -> Judge:
        """The judge that knows all results up to a round."""
        if self.config.stable.by == "label":
            return LabelJudge(self.config.stable.threshold)
        return HullJudge(self.ledger.entries(up_to), self.config.elements, self.config.stable.threshold)

    def _model_folder(self, number: int) -> Path:
        return self.folder / "models" / f"round-{number:02d}"

    def _learn(self, number: int) -> Any:
        """The round's model, fitted or, if that stage has finished, loaded."""
        from naica.training.zoo import load

        final = self._model_folder(number)
        if self.ledger.stage(number, "learn") is not None:
            return load(final / "model")
        began = time.monotonic()
        entries = self.ledger.entries(number - 1)
        table = labelled(entries, self.judge(number - 1), self.oracle)
        self.progress(Event(number, "learn", 0, 1, f"{len(table)} labels"))
        # fitted beside the final place and renamed: a kill leaves no half-written model that looks whole
        scratch = final.with_name(final.name + ".part")
        for leftover in (scratch, final):
            shutil.rmtree(leftover, ignore_errors=True)
        model = self._learner().fit(table, LABEL, number, scratch, self._model_folder(number - 1) if number > 1 else None)
        os.replace(scratch, final)
        with self.ledger.write() as db:
            facts = {"labels": len(table), "metrics": dict(model.card.metrics)}
            self.ledger.finish(db, number, "learn", facts, time.monotonic() - began)
        self.progress(Event(number, "learn", 1, 1, f"{len(table)} labels"))
        return model

    def _learner(self) -> Any:
        from naica.training.learner import fit_learner

        section = self.config.learner
        chosen = ("prior",) if section.strategy == "correct" else ("members", "visits")
        return fit_learner(section.strategy, seed=self.config.seed, **{name: getattr(section, name) for name in chosen})

    # --- propose -------------------------------------------------------------------------------------------------------------
    def _propose(self, number: int) -> None:
        began = time.monotonic()
        self.round_now = number
        entries = self.ledger.entries(number - 1)
        parents = self._parents(entries, number)
        known = frozenset(self.proposals.decoration(e.crystal) for e in entries)
        known |= {d for (d,) in self.ledger.rows("select decoration from candidates where decoration is not null")}
        rows: list[Proposal] = []
        counts: dict[str, int] = {}
        judge = None if self.config.stable.by == "label" else self.judge(number - 1)
        for proposal in self.proposals.propose(number, parents, known, judge, frozenset(e.crystal.formula for e in entries)):
            rows.append(proposal)
            counts[proposal.origin] = counts.get(proposal.origin, 0) + 1
            if len(rows) % 200 == 0:
                self.progress(Event(number, "propose", len(rows), 0, f"{len(rows)} candidates"))
        with self.ledger.write() as db:
            new = self.ledger.add_candidates(db, rows, number)
            data = {
                "proposed": len(rows),
                "new": new,
                "by": counts,
                "dropped": self.proposals.dropped(),
                "sources": self.proposals.counts(),
            }
            self.ledger.finish(db, number, "propose", data, time.monotonic() - began)
        self.progress(Event(number, "propose", len(rows), len(rows), f"{new} new candidates"))

    def _parents(self, entries: Sequence[Entry], number: int) -> dict[str, Any]:
        """Structures worth building on: those within 50 meV/atom of the criterion."""
        if self.config.stable.by == "label":
            return {}
        judge = self.judge(number - 1)
        distance = judge.distance([e.crystal.formula for e in entries], judge.labels(entries))
        return _as_parents(e.crystal for e, d in zip(entries, distance, strict=True) if d <= judge.threshold + 0.05)

    # --- judge ---------------------------------------------------------------------------------------------------------------
    def _judge(self, number: int, model: Any) -> None:
        began = time.monotonic()
        rows = self.ledger.rows("select key, recipe, formula from candidates where status in ('new', 'passed', 'filtered') order by key")
        crystals = self.proposals.realise([(k, r) for k, r, _ in rows], self.ledger)
        judge = self.judge(number - 1)
        reading = self._reading(number, judge)
        shards = self.folder / "shards"
        scores = score(
            model, self._model_folder(number) / "model", [k for k, *_ in rows], crystals, [f for *_, f in rows], judge,
            self.ledger.entries(number - 1), self.config.filter, reading,
            folder=shards, engine=self.config.engine, workers=self.config.oracle.workers,
            tick=lambda done, total: self.progress(Event(number, "judge", done, total, f"{total} candidates")),
        )  # fmt: skip
        scores, looks, relaxed = self._second_look(number, rows, crystals, scores, model, judge, reading)
        passed = scores.passed(judge, self.config.filter)
        updates = []
        for at, (key, _, _) in enumerate(rows):
            reason = None if passed[at] else _why_not(scores.quick[at], scores.distance[at])
            numbers = (scores.quick, scores.value, scores.sigma, scores.distance, scores.probability, scores.volume)
            values = [None if np.isnan(v[at]) else float(v[at]) for v in numbers]
            updates.append(("passed" if passed[at] else "filtered", reason, *values, number, key))
        with self.ledger.write() as db:
            db.executemany(
                "update candidates set status=?, reason=?, quick=?, value=?, sigma=?, distance=?, probability=?, volume=?, scored=? "
                "where key=?",
                updates,
            )
            if self.config.filter.relax_with:
                self.relaxed_look.keep(db, number, looks)
            full = int(np.isfinite(scores.distance).sum())
            data = {"scored": len(rows), "full_look": full, "passed": int(passed.sum()), "recalibration": reading.to_dict(), **relaxed}
            self.ledger.finish(db, number, "judge", data, time.monotonic() - began)
        shutil.rmtree(shards, ignore_errors=True)

    def _reading(self, number: int, judge: Judge) -> Recalibration:
        """How this round's predictions are read, from the results of earlier rounds."""
        past = past_of(self.ledger, judge, before=number)
        return recalibrate(past, judge.threshold, number, self.config.filter.recalibrate, self.config.filter.recalibrate_after)

    def _second_look(
        self,
        number: int,
        rows: Sequence[Any],
        crystals: Sequence[Crystal],
        scores: Scores,
        model: Any,
        judge: Judge,
        reading: Recalibration,
    ) -> tuple[Scores, list[tuple[Any, ...]], dict[str, Any]]:
        """Relax survivors with a potential and judge them again, if the file asks for it."""
        if not self.config.filter.relax_with:
            return scores, [], {}
        found, looks, facts = self.relaxed_look.take(
            [k for k, *_ in rows], crystals, [f for *_, f in rows], scores, model, judge, self.ledger.entries(number - 1), reading,
            lambda done, total: self.progress(Event(number, "relax", done, total, f"{total} relaxations")),
        )  # fmt: skip
        return found, looks, {"relaxed_look": facts}

    # --- pick ----------------------------------------------------------------------------------------------------------------
    def _pick(self, number: int, budget: int | None) -> str | None:
        began = time.monotonic()
        rows = self.ledger.rows(
            "select key, formula, coalesce(prototype, ''), probability, sigma, status from candidates "
            "where status in ('passed', 'filtered')"
        )
        options = [
            Option(k, f, p, np.nan if q is None else q, np.nan if s is None else s, t == "passed", is_balanced(f))
            for k, f, p, q, s, t in rows
        ]
        number_of_calls = self.config.pick.per_round
        if budget is not None:
            number_of_calls = max(min(number_of_calls, budget - len(self.ledger.called())), 0)
        picks = choose(options, self.config.pick, number_of_calls, self.config.seed + 1000 * number, self._same_structure())
        if not picks:
            # not marked as finished: with a larger budget the same command goes on here
            return "budget spent" if number_of_calls == 0 else "nothing left to compute"
        with self.ledger.write() as db:
            db.executemany(
                "update candidates set status='picked', arm=?, picked=? where key=?", [(arm, number, key) for key, arm in picks.items()]
            )
            self.ledger.finish(db, number, "pick", {"picked": len(picks)}, time.monotonic() - began)
        return None

    def _same_structure(self) -> Callable[[str, str], bool]:
        """Whether two candidates are one structure, as far as they are known: relaxed by a potential, or as proposed."""
        if not self.config.pick.distinct or self.config.pool is not None:
            return lambda key, other: False  # the rows of a table differ by definition

        @cache
        def crystal(key: str) -> Crystal:
            ((recipe, volume),) = self.ledger.rows("select recipe, volume from candidates where key = ?", (key,))
            return self._start(key, self.proposals.realise([(key, recipe)], self.ledger)[0], volume)

        return lambda key, other: same_structure(crystal(key), crystal(other)) is not None

    def _start(self, key: str, crystal: Crystal, volume: float | None) -> Crystal:
        """Where the oracle begins: as the potential left it, or at the volume the scan liked best. Both save relaxation steps."""
        if self.config.pool is not None:
            return crystal
        found = self.relaxed_look.structure(key) if self.config.filter.relax_with else None
        return found or (crystal.scaled(volume) if volume else crystal)

    # --- compute ---------------------------------------------------------------------------------------------------------------
    def _picked(self, number: int) -> dict[str, Crystal]:
        """The picks of a round as structures."""
        rows = self.ledger.rows("select key, recipe, volume from candidates where picked = ? order by key", (number,))
        crystals = self.proposals.realise([(k, r) for k, r, _ in rows], self.ledger)
        return {k: self._start(k, c, v) for (k, _, v), c in zip(rows, crystals, strict=True)}

    def _compute(self, number: int, jobs: Mapping[str, Crystal]) -> None:
        began = time.monotonic()
        done = self.ledger.called()
        open_ = {key: crystal for key, crystal in jobs.items() if key not in done}
        finished = len(jobs) - len(open_)
        self.progress(Event(number, "compute", finished, len(jobs), ""))
        if hasattr(self.oracle, "await_inputs"):
            # a code that runs elsewhere: all its inputs are written before the campaign waits for results
            self.oracle.await_inputs(open_)

        def keep(result: OracleResult) -> None:
            nonlocal finished
            self.ledger.record_call(result, number)
            finished += 1
            name = jobs[result.key].formula
            self.progress(Event(number, "compute", finished, len(jobs), f"{name} {result.status} in {result.seconds:.0f} s"))

        if self.config.pool is not None:
            self._from_table(number, open_)
        else:
            section = self.config.oracle
            engines.run(
                self.oracle, open_, workers=section.workers, timeout=section.timeout, retries=section.retries, on_result=keep,
                spool=self.folder / "spool", engine=self.config.engine, folder=self.folder / "engine",
            )  # fmt: skip
        facts = {"cuts": self._cuts(number), "novelty": self._verdicts(number)} if number else {}
        with self.ledger.write() as db:
            self.ledger.finish(db, number, "compute", {"calls": len(jobs), **facts}, time.monotonic() - began)

    def _stable(self, number: int) -> dict[Entry, bool]:
        """The results of a round, and which of them were stable at its end."""
        judge = self.judge(number)
        entries = [e for e in self.ledger.entries(number) if e.round == number]
        above = judge.distance([e.crystal.formula for e in entries], judge.labels(entries))
        return {e: bool(d <= judge.threshold) for e, d in zip(entries, above, strict=True)}

    def _cuts(self, number: int) -> dict[str, Any]:
        """What each cut of the filter lost so far."""
        stable = {e.key: yes for past in range(1, number + 1) for e, yes in self._stable(past).items()}
        return campaign_cuts(self.ledger, self.config.filter, self.config.stable.threshold, stable, number)

    def _verdicts(self, number: int) -> dict[str, int]:
        """Keep a verdict of novelty on each stable result of a round; counts by what may be claimed. Rows of a table are known already."""
        if self.config.pool is not None:
            return {}
        found = {e.key: self._known.novelty(e.crystal, "formula", disorder=True) for e, yes in self._stable(number).items() if yes}
        keep_verdicts(self.ledger, found, number)
        return dict(Counter(v.claim for v in found.values()))

    @cached_property
    def _known(self) -> Known:
        """What finds are compared with: the start of the campaign, and the tables and lists of the file."""
        for entry in self.ledger.entries(0):
            self._world.add(entry.key, entry.crystal)
        return self._world

    def _from_table(self, number: int, jobs: Mapping[str, Any]) -> None:
        """A table answers at once, so all its answers land in one transaction."""
        told = self.oracle.evaluate(list(jobs.values()))
        results = [replace(result, key=key) for key, result in zip(jobs, told, strict=True)]
        self.ledger.record_calls(results, number)
        self.progress(Event(number, "compute", len(jobs), len(jobs), ""))


def labelled(entries: Sequence[Entry], judge: Judge, oracle: Oracle) -> CrystalTable:
    """The campaign's labels as a table for the learner, at the oracle's level of theory."""
    values = judge.labels(entries)
    return CrystalTable.from_crystals(
        [e.crystal for e in entries], {LABEL: values}, {LABEL: Label.of(LABEL, oracle.level)}, ids=[e.key for e in entries]
    )


def _why_not(quick: float, distance: float) -> str:
    if np.isnan(distance):
        return f"first look: {quick:+.3f} eV/atom" if np.isfinite(quick) else "the model gave no number"
    return f"ensemble and volume scan: {distance:+.3f} eV/atom"
