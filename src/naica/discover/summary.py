"""Everything a campaign found out, as plain data for the report, the command line and other programs: a pure function of its ledger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from naica.discover.config import CampaignConfig
from naica.discover.judge import HullJudge, LabelJudge
from naica.discover.learning import Trial, held_out_error, hit_rates, rate, scaling, stop_reason
from naica.discover.ledger import Entry, Ledger
from naica.discover.opinion import verdicts
from naica.discover.phases import hints
from naica.discover.recipes import Recipe
from naica.discover.throughput import stage_costs
from naica.discover.trail import trail
from naica.errors import RunError
from naica.insight.intervals import enrichment
from naica.structure.composition import parse_formula

ARMS = ("exploit", "explore", "control")


def summary(folder: str | Path, structures: bool = True) -> dict[str, Any]:
    """All results of the campaign in a folder.

    Keys: name, title, elements, level, oracle, criterion, started, versions, config, rounds, hull, calibration, learning, scaling,
    hit_rates, finds, rejections, failures, recall, filter, cost. Energies in eV/atom. `structures` adds CIF text and atoms to each find.

    Raises
    ------
    RunError
        If there is no campaign in the folder.
    """
    if not (Path(folder) / "ledger.sqlite").exists():
        raise RunError(
            f"no campaign in {folder}: ledger.sqlite is missing there; start one with `naica discover FILE.toml --folder {folder}`"
        )
    ledger = Ledger(folder)
    try:
        told = _Story(ledger).tell(structures)
        told["opinions"] = verdicts(ledger, told)
        return {**told, "trail": trail(ledger, told)} if structures else told
    finally:
        ledger.close()


def why_stop(ledger: Ledger, calls: int) -> str | None:
    """Why, by the rules of the campaign's section ``[stop]``, no further round should begin; None if one may."""
    story = _Story(ledger)
    if not story.ready or not story.n_rounds:
        return None
    left = ledger.rows("select sum(probability) from candidates where picked is null and probability is not null")[0][0]
    return stop_reason(story.config.stop, [story.round(r) for r in range(1, story.n_rounds + 1)], calls, left)


@dataclass(frozen=True)
class _Candidate:
    key: str
    recipe: bytes
    origin: str
    parent: str
    formula: str
    prototype: str
    arm: str
    picked: int
    value: float | None
    sigma: float | None


class _Story:
    """Reads the ledger once and tells it from several sides."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        text = ledger.meta("config")
        if text is None:
            raise RunError(f"{ledger.path} holds no campaign yet")
        self.config = CampaignConfig.model_validate_json(text)
        self.entries = ledger.entries()
        self.n_rounds = max((r for (r,) in ledger.rows("select round from stages where stage = 'compute'")), default=0)
        self.picked = self._candidates()
        self.formulas = {e.key: e.crystal.formula for e in self.entries}
        self._judges: dict[int, HullJudge | LabelJudge] = {}
        self.ready = bool(self.entries) and ledger.stage(0, "compute") is not None and not self._missing_references()
        self.repeats = self._repetitions() if self.config.stable.by == "hull" and self.ready else {}

    @cached_property
    def level(self) -> str:
        """Level of theory of all oracle calls."""
        return " | ".join(text for (text,) in self.ledger.rows("select distinct level from calls order by level"))

    @cached_property
    def by_structure(self) -> dict[str, Entry]:
        """Entries by the hash of their relaxed structure: what recipes name as parents."""
        return {e.crystal.hash: e for e in self.entries}

    @cached_property
    def verdicts(self) -> dict[str, dict[str, Any]]:
        """Verdicts of novelty on stable results, with their evidence."""
        from naica.discover.novelty import verdicts_of

        return verdicts_of(self.ledger)

    def _missing_references(self) -> list[str]:
        """Elements without a computed reference: nothing can be judged yet."""
        if self.config.stable.by == "label":
            return []
        known = {next(iter(e.crystal.composition)) for e in self.entries if len(e.crystal.composition) == 1}
        return [s for s in self.config.elements if s not in known]

    def _repetitions(self) -> dict[str, str]:
        """Entries on the hull that relaxed into a structure already there → the entry they repeat. They are neither hits nor finds.

        Only entries on the hull at the end of their round are compared; the matcher forgives the small differences of two relaxations.
        """
        from naica.structure.match import same_structure

        first: dict[str, list[Entry]] = {}
        found = {}
        for entry in sorted(self.entries, key=lambda e: (e.round, e.key)):
            if self.distances([entry], entry.round)[0] > self.config.stable.threshold:
                continue
            alike = first.setdefault(self.formulas[entry.key], [])
            same = next((o.key for o in alike if same_structure(entry.crystal, o.crystal) is not None), None)
            if same is None:
                alike.append(entry)
            else:
                found[entry.key] = same
        return found

    def _candidates(self) -> dict[str, _Candidate]:
        query = (
            "select key, recipe, origin, parent, formula, coalesce(prototype, ''), coalesce(arm, ''), picked, value, sigma "
            "from candidates where picked is not null order by key"
        )
        return {row[0]: _Candidate(*row) for row in self.ledger.rows(query)}

    def judge(self, round_: int) -> HullJudge | LabelJudge:
        """The judge that knows the results up to a round."""
        if round_ not in self._judges:
            if self.config.stable.by == "label":
                self._judges[round_] = LabelJudge(self.config.stable.threshold)
            elif isinstance(before := self._judges.get(round_ - 1), HullJudge):
                self._judges[round_] = before.grown([e for e in self.entries if e.round == round_], self.config.elements)
            else:
                known = [e for e in self.entries if e.round <= round_]
                self._judges[round_] = HullJudge(known, self.config.elements, self.config.stable.threshold)
        return self._judges[round_]

    def distances(self, entries: Sequence[Entry], round_: int) -> np.ndarray:
        """Distance of entries from what was known at the end of a round."""
        judge = self.judge(round_)
        return judge.distance([self.formulas[e.key] for e in entries], judge.labels(entries))

    def tell(self, structures: bool) -> dict[str, Any]:
        """The whole dictionary."""
        if not self.ready:
            lists: dict[str, Any] = {name: [] for name in ("rounds", "calibration", "learning", "hit_rates", "finds")}
            empty = {**lists, "scaling": None, "hull": None, "recall": None, "filter": None}
            return {**self._head(), **empty, "rejections": self._rejections(), "failures": self._failures(), "cost": self._cost()}
        rounds = [self.round(r) for r in range(1, self.n_rounds + 1)]
        calibration = [c for r in range(1, self.n_rounds + 1) for c in self._calibration(r)]
        return {
            **self._head(),
            "rounds": rounds,
            "hull": self._hull() if self.config.stable.by == "hull" else None,
            "calibration": calibration,
            "learning": [
                {"round": r["round"], "labels": r["model"].get("labels"), "mae": r["mae"], "n": r["judged"], "held_out": r["held_out"]}
                for r in rounds
                if r["mae"] is not None
            ],
            "scaling": self._scaling(rounds),
            "hit_rates": hit_rates(self.trials()),
            "finds": self._finds(structures),
            "rejections": self._rejections(),
            "failures": self._failures(),
            "recall": self._recall(),
            "filter": self._filter(),
            "cost": self._cost(),
            "throughput": stage_costs(self.ledger),
        }

    def _filter(self) -> dict[str, Any]:
        """What each cut lost, and how true probabilities and error bars were."""
        from naica.discover.cuts import cuts_so_far, exact_cuts
        from naica.discover.reliability import reliability

        threshold = self.config.stable.threshold
        cuts = cuts_so_far(self.ledger, self.config.filter, threshold)
        if self.config.pool is not None and self.config.stable.by == "label":
            from naica.discover.proposals import PoolProposals

            table = PoolProposals(self.config).table
            labels = dict(zip(table.ids, np.asarray(table.column(self.config.pool.column), dtype=np.float64).tolist(), strict=True))
            cuts["exact"] = exact_cuts(self.ledger, self.config.filter, threshold, labels)
        return {
            "cuts": cuts,
            "reliability": reliability(self.ledger, self.judge(self.n_rounds), threshold),
        }

    def _head(self) -> dict[str, Any]:
        return {
            "name": self.ledger.meta("name"),
            "title": self.config.title or self.ledger.meta("name"),
            "elements": list(self.config.elements),
            "level": self.level,
            "oracle": self.config.oracle.name,
            "criterion": {"by": self.config.stable.by, "threshold": self.config.stable.threshold, "unit": "eV/atom"},
            "started": float(self.ledger.meta("started") or 0),
            "finished": (self.ledger.rows("select max(finished) from calls")[0][0]),
            "n_rounds": self.n_rounds,
            "seed": self.config.seed,
            "versions": json.loads(self.ledger.meta("versions") or "{}"),
            "config": json.loads(self.config.model_dump_json()),
            "learner": self.config.learner.strategy,
            # of a DFT code: the frozen settings, their hash, the data used and the check of the cut-off
            "protocol": json.loads(self.ledger.meta("protocol") or "null"),
        }

    # --- rounds ------------------------------------------------------------------------------------------------------------
    def round(self, number: int) -> dict[str, Any]:
        """One round in numbers."""
        stages = {s: self.ledger.stage(number, s) or {} for s in ("learn", "propose", "judge", "pick", "compute")}
        entries = [e for e in self.entries if e.round == number]
        near = self.distances(entries, number) <= self.config.stable.threshold
        hit = {e.key: bool(yes) and e.key not in self.repeats for e, yes in zip(entries, near, strict=True)}
        picks = [c for c in self.picked.values() if c.picked == number]
        arms = {arm: rate([hit.get(c.key, False) for c in picks if c.arm == arm]) for arm in ARMS}
        total = rate([hit.get(c.key, False) for c in picks])
        errors = [abs(c["predicted"] - c["actual"]) for c in self._calibration(number)]
        best, chance = arms["exploit"], arms["control"]
        factor = enrichment(best["hits"], best["n"], chance["hits"], chance["n"])
        return {
            "round": number,
            "generated": stages["propose"].get("proposed", 0),
            "new": stages["propose"].get("new", 0),
            "by": stages["propose"].get("by", {}),
            "scored": stages["judge"].get("scored", 0),
            "full_look": stages["judge"].get("full_look", 0),
            "passed": stages["judge"].get("passed", 0),
            "picked": len(picks),
            "computed": len(entries),
            "failed": len(picks) - len(entries),
            "hits": total["hits"],
            "hit_rate": total["rate"],
            "low": total["low"],
            "high": total["high"],
            "arms": arms,
            "enrichment": None if factor is None else {"value": factor.value, "low": factor.low, "high": factor.high},
            "mae": float(np.mean(errors)) if errors else None,
            "judged": len(errors),
            "held_out": held_out_error(stages["learn"].get("metrics", {})),
            "hulls": self._hulls(number, entries),
            "model": {k: v for k, v in stages["learn"].items() if k != "seconds"},
            "seconds": {s: d.get("seconds", 0.0) for s, d in stages.items()},
        }

    def trials(self) -> list[Trial]:
        """Every pick of the finished rounds and what came of it."""
        hit: dict[str, bool] = {}
        for number in range(1, self.n_rounds + 1):
            mine = [e for e in self.entries if e.round == number]
            near = self.distances(mine, number) <= self.config.stable.threshold
            hit.update({e.key: bool(yes) and e.key not in self.repeats for e, yes in zip(mine, near, strict=True)})
        picks = [c for c in self.picked.values() if c.picked <= self.n_rounds]
        return [Trial(c.picked, c.arm, c.origin, len(parse_formula(c.formula)), hit.get(c.key, False)) for c in picks]

    def _scaling(self, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Power laws of the errors of picks and of labels held out, against the labels of each round."""
        found = {}
        for name in ("mae", "held_out"):
            known = [(r["model"]["labels"], r[name]) for r in rounds if r[name] is not None and r["model"].get("labels")]
            found["picks" if name == "mae" else name] = scaling([n for n, _ in known], [e for _, e in known])
        return found

    def _hulls(self, number: int, entries: Sequence[Entry]) -> dict[str, int] | None:
        """Phases of a round against the hull of the start and against the hull that has grown, and which it pushed off the latter.

        Keys: below_start (entries below the start's hull, or on it within the threshold), on_grown (within the threshold of the hull at the
        end of the round), pushed_off (entries on the hull a round ago that are so no more), start, grown (entries on either hull).
        """
        first, before, now = self.judge(0), self.judge(number - 1), self.judge(number)
        if not (isinstance(first, HullJudge) and isinstance(before, HullJudge) and isinstance(now, HullJudge)):
            return None
        limit = self.config.stable.threshold
        was, is_ = set(before.hull.stable(limit)), set(now.hull.stable(limit))
        below = self.distances(entries, 0) <= limit if entries else np.zeros(0, dtype=bool)
        return {
            "below_start": int(below.sum()),
            "on_grown": sum(e.key in is_ for e in entries),
            "pushed_off": len(was - is_),
            "start": len(first.hull.stable(limit)),
            "grown": len(is_),
        }

    def _calibration(self, number: int) -> list[dict[str, Any]]:
        """Prediction before the call and the oracle's answer, for every pick that had the full look."""
        entries = {e.key: e for e in self.entries if e.round == number}
        if not entries:
            return []
        judge = self.judge(self.n_rounds)
        actual = dict(zip(entries, judge.labels(list(entries.values())), strict=True))
        return [
            {
                "round": number,
                "id": c.key,
                "formula": c.formula,
                "predicted": c.value,
                "sigma": c.sigma,
                "actual": float(actual[c.key]),
                "arm": c.arm,
            }
            for c in self.picked.values()
            if c.key in actual and c.value is not None
        ]

    # --- what was found ------------------------------------------------------------------------------------------------------
    def _hull(self) -> dict[str, Any]:
        judge = self.judge(self.n_rounds)
        labels, above = judge.labels(self.entries), self.distances(self.entries, self.n_rounds)
        elements = list(self.config.elements)
        rows = []
        for entry, label, distance in zip(self.entries, labels, above, strict=True):
            counts = entry.crystal.composition
            rows.append(
                {
                    "id": entry.key,
                    "formula": self.formulas[entry.key],
                    "fractions": [counts.get(s, 0) / len(entry.crystal) for s in elements],
                    "formation_energy": float(label),
                    "above_hull": float(distance),
                    "stable": bool(distance <= self.config.stable.threshold),
                    "origin": self.picked[entry.key].origin if entry.key in self.picked else "start",
                    "round": entry.round,
                }
            )
        return {"elements": elements, "entries": rows}

    def _finds(self, structures: bool) -> list[dict[str, Any]]:
        above = self.distances(self.entries, self.n_rounds)
        judge = self.judge(self.n_rounds)
        labels = judge.labels(self.entries)
        found = [
            self._find(entry, float(label), float(distance), structures)
            for entry, label, distance in zip(self.entries, labels, above, strict=True)
            if entry.round > 0 and distance <= self.config.stable.threshold and entry.key not in self.repeats
        ]
        return sorted(found, key=lambda f: (f["separation_energy"] if f["separation_energy"] is not None else f["above_hull"], f["id"]))

    def _find(self, entry: Entry, label: float, distance: float, structures: bool) -> dict[str, Any]:
        candidate = self.picked[entry.key]
        judge = self.judge(self.n_rounds)
        separation, competing = None, []
        making: dict[str, Any] = {"window": None, "routes": []}
        if isinstance(judge, HullJudge):
            making = hints(judge.hull, entry.key)
            separation, phases = judge.hull.separation(entry.key), judge.hull.decomposition_without(entry.key)
            competing = [{"formula": self.formulas[k], "id": k, "fraction": f} for k, f in sorted(phases.items(), key=lambda p: -p[1])]
        facts: dict[str, Any] = {
            "id": entry.key, "formula": self.formulas[entry.key], "round": entry.round, "generator": candidate.origin, "arm": candidate.arm,
            "energy": entry.energy / len(entry.crystal),
            "formation_energy": label, "above_hull": distance, "separation_energy": separation, "predicted": candidate.value,
            "sigma": self._oracle_sigma(), "model_sigma": candidate.sigma, "competing": competing, "lineage": self._lineage(candidate),
            "level": self.level, "novelty": self.verdicts.get(entry.key),
            "repeats": [k for k, same in self.repeats.items() if same == entry.key],
            "n_atoms": len(entry.crystal), "seconds": entry.seconds, **making,
        }  # fmt: skip
        return {**facts, **_structure(entry, structures)}

    def _oracle_sigma(self) -> float | None:
        """The oracle's own error bar in eV/atom where its level states one (a potential has one, a table none)."""
        from naica.potential.calculators import error_of

        return error_of(self.config.oracle.name)

    def _lineage(self, candidate: _Candidate) -> list[dict[str, str]]:
        """From the candidate back to a prototype or to a structure known at the start."""
        steps = [{"id": candidate.key, "formula": candidate.formula, "origin": candidate.origin}]
        while candidate.recipe:
            parent = Recipe.unpack(candidate.recipe).parent
            if parent.startswith("prototype:"):
                steps.append({"id": parent, "formula": parent.removeprefix("prototype:"), "origin": "prototype"})
                break
            entry = self.by_structure.get(parent)
            if entry is None or entry.key not in self.picked:
                steps.append({"id": entry.key if entry else parent, "formula": entry.crystal.formula if entry else "?", "origin": "start"})
                break
            candidate = self.picked[entry.key]
            steps.append({"id": candidate.key, "formula": candidate.formula, "origin": candidate.origin})
        return steps

    # --- what went wrong, and what it cost ---------------------------------------------------------------------------------------
    def _rejections(self) -> dict[str, dict[str, int]]:
        out: dict[str, Counter[str]] = {"generation": Counter(), "filter": Counter()}
        query = (
            "select status, case when reason like 'cannot be made%' then 'cannot be made' "
            "when reason like 'atoms %' then 'atoms too close' "
            "when reason like 'first look%' then 'first look: too far above the hull' "
            "when reason like 'ensemble%' then 'ensemble and volume scan: too far above the hull' else reason end, count(*) "
            "from candidates where status in ('rejected', 'filtered') group by 1, 2"
        )
        for status, reason, n in self.ledger.rows(query):
            out["generation" if status == "rejected" else "filter"][reason or "unknown"] += n
        dropped = Counter[str]()
        for (data,) in self.ledger.rows("select data from stages where stage = 'propose'"):
            dropped.update(json.loads(data).get("dropped", {}))
        return {stage: dict(c) for stage, c in {**out, "parents": dropped}.items() if c}

    def _failures(self) -> list[dict[str, Any]]:
        query = (
            "select c.key, coalesce(d.formula, c.key), c.status, c.reason, c.attempts, c.seconds, c.round from calls c "
            "left join candidates d on d.key = c.key where c.status != 'converged' order by c.round, c.key"
        )
        names = ("id", "formula", "status", "reason", "attempts", "seconds", "round")
        return [dict(zip(names, row, strict=True)) for row in self.ledger.rows(query)]

    def _recall(self) -> dict[str, Any] | None:
        """Share of all stable rows of the pool that are known by now, and what random picks would have found."""
        if self.config.pool is None:
            return None
        from naica.discover.proposals import PoolProposals

        table = PoolProposals(self.config).table
        values = np.asarray(table.column(self.config.pool.column), dtype=np.float64)
        stable = {i for i, v in zip(table.ids, values, strict=True) if v <= self.config.stable.threshold}
        looked = {e.key: e.round for e in self.entries}
        found = [sum(looked.get(i, 2**31) <= r for i in stable) for r in range(self.n_rounds + 1)]
        seen = [sum(n <= r for n in looked.values()) for r in range(self.n_rounds + 1)]
        return {
            "found": found[-1],
            "total": len(stable),
            "share": found[-1] / max(len(stable), 1),
            "by_round": found,
            "looked_at": seen,
            "pool": len(values),
            "random_expected": seen[-1] / len(values) * len(stable),
        }

    def _cost(self) -> dict[str, Any]:
        calls, seconds, attempts = self.ledger.rows(
            "select count(*), coalesce(sum(seconds), 0), coalesce(sum(attempts), 0) from calls where round > 0"
        )[0]
        start = self.ledger.rows("select count(*), coalesce(sum(seconds), 0) from calls where round = 0")[0]
        wall = self.ledger.rows("select coalesce(sum(seconds), 0) from stages")[0][0]
        return {
            "calls": calls,
            "attempts": attempts,
            "oracle_seconds": seconds,
            "start_calls": start[0],
            "start_seconds": start[1],
            "wall_seconds": wall,
        }


def _structure(entry: Entry, structures: bool) -> Mapping[str, Any]:
    from naica.structure.symmetry import prototype_label, symmetry

    found = symmetry(entry.crystal)
    facts: dict[str, Any] = {"spacegroup": f"{found.symbol} ({found.number})", "prototype": prototype_label(entry.crystal)}
    if structures:
        from naica.structure.cif import write_blocks

        c = entry.crystal
        facts["cif"] = write_blocks([c])
        facts["crystal"] = {
            "numbers": c.numbers.tolist(),
            "positions": c.positions.tolist(),
            "cell": c.cell.tolist(),
            "pbc": c.pbc.tolist(),
        }
    return facts
