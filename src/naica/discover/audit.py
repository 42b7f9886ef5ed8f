"""The audit of a campaign's ledger: every claim that can be checked is checked anew, by other means than those that made it.

Structures are unpacked and hashed, calls counted against picks, recipes followed to their parents, energies of some entries computed again,
formation energies and distances to the hull worked out by a linear programme that shares no code with the hull's planes. Each check says
what it looked at and what is wrong.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from naica.discover.ledger import Entry, Ledger
from naica.discover.recipes import PROTOTYPE, Recipe, realise
from naica.errors import InputError, NaicaError, RunError

Status = Literal["ok", "remark", "wrong"]
_ENERGY = 1e-3  # eV/atom, of an energy computed again: potentials compute in 32 bits
_HULL = 1e-6  # eV/atom
_MOST_LP = 300
_SHOWN = 5
_STAGES = ("learn", "propose", "judge", "pick", "compute")


@dataclass
class Check:
    """One check: how many things it looked at, what was verified, what is wrong, what else should be known."""

    name: str
    looked_at: int = 0
    verified: str = ""
    wrong: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The worst of what was found."""
        return "wrong" if self.wrong else "remark" if self.remarks else "ok"


def audit(folder: str | Path, recompute: int = 3, seed: int = 0) -> list[Check]:
    """Check the ledger of the campaign in a folder.

    Parameters
    ----------
    folder : of the campaign
    recompute : entries whose energy is computed again with the campaign's oracle (potentials and tables; never DFT)
    seed : which ones

    Raises
    ------
    RunError
        If there is no campaign there, or its file cannot be read at all.
    """
    if not (Path(folder) / "ledger.sqlite").is_file():
        raise RunError(f"no campaign in {folder}: ledger.sqlite is missing there")
    ledger = Ledger(folder)
    try:
        return list(_Audit(ledger, recompute, seed).checks())
    finally:
        ledger.close()


class _Audit:
    def __init__(self, ledger: Ledger, recompute: int, seed: int) -> None:
        self.ledger, self.recompute = ledger, recompute
        self.rng = np.random.default_rng(seed)
        self.entries: list[Entry] = []
        self.told: dict[str, Any] = {}

    def checks(self) -> Iterator[Check]:
        """All checks in order; one that breaks down is itself a finding."""
        for name, make in (
            ("file", self._file),
            ("structures", self._structures),
            ("calls", self._calls),
            ("picks", self._picks),
            ("paid twice", self._paid_twice),
            ("lineage", self._lineage),
            ("stages", self._stages),
            ("level of theory", self._level),
            ("energies", self._energies),
            ("hull", self._hull),
            ("finds", self._finds),
            ("spool", self._spool),
            ("versions", self._versions),
        ):
            check = Check(name)
            self._guarded(make, check)
            yield check

    @staticmethod
    def _guarded(make: Callable[[Check], None], check: Check) -> None:
        try:
            make(check)
        except (NaicaError, ValueError, KeyError, TypeError, IndexError) as error:
            check.wrong.append(f"cannot be checked: {type(error).__name__}: {error}")

    # --- the store -----------------------------------------------------------------------------------------------------------------
    def _file(self, check: Check) -> None:
        found = [text for (text,) in self.ledger.rows("pragma integrity_check")]
        check.looked_at = 1
        check.verified = f"SQLite's own check; format {self.ledger.meta('format')}"
        check.wrong += [] if found == ["ok"] else found[:_SHOWN]
        if self.ledger.meta("config") is None:
            check.wrong.append("no configuration is recorded")

    def _structures(self, check: Check) -> None:
        for (place,) in self.ledger.rows("select hash from structures order by hash"):
            check.looked_at += 1
            try:
                crystal = self.ledger.structure(place)
            except (ValueError, NaicaError) as error:
                check.wrong.append(f"structure {place} cannot be read: {error}")
                continue
            if crystal.hash != place:
                check.wrong.append(f"structure {place} has the content of {crystal.hash}")
        missing = self.ledger.rows(
            "select c.key, c.structure from calls c left join structures s on s.hash = c.structure "
            "where c.status = 'converged' and s.hash is null"
        )
        check.wrong += [f"the relaxed structure of call {key} is missing ({place})" for key, place in missing]
        check.verified = "unpacked, hash of the content = key; every converged call has one"

    def _calls(self, check: Check) -> None:
        rows = self.ledger.rows(
            "select c.key, c.round, c.status, coalesce(c.reason, ''), c.energy, c.attempts, d.formula from calls c "
            "left join candidates d on d.key = c.key"
        )
        known = {(e.key): e for e in self._read_entries()}
        for key, round_, status, reason, energy, attempts, formula in rows:
            check.looked_at += 1
            if status == "converged":
                if energy is None or not math.isfinite(energy):
                    check.wrong.append(f"call {key} converged with energy {energy}")
                elif formula and key in known and known[key].crystal.formula != formula:
                    check.wrong.append(f"call {key} was asked for {formula} and holds {known[key].crystal.formula}")
            elif not reason:
                check.wrong.append(f"call {key} {status} without a reason")
            if formula is None and round_ > 0:
                check.wrong.append(f"call {key} of round {round_} belongs to no candidate")
            if attempts < 0:
                check.wrong.append(f"call {key} counts {attempts} attempts")
        failed = sum(status != "converged" for _, _, status, *_ in rows)
        check.verified = f"finite energies, atoms as asked, reasons for {failed} failures"

    def _read_entries(self) -> list[Entry]:
        if not self.entries:
            self.entries = self.ledger.entries()
        return self.entries

    def _picks(self, check: Check) -> None:
        done = {r for (r,) in self.ledger.rows("select round from stages where stage = 'compute'")}
        calls = dict(self.ledger.rows("select key, status from calls"))
        rounds = dict(self.ledger.rows("select key, round from calls"))
        for key, picked, status in self.ledger.rows("select key, picked, status from candidates where picked is not null"):
            check.looked_at += 1
            if key not in calls:
                if picked in done:
                    check.wrong.append(f"{key} was picked in round {picked}, which has finished, and was never computed")
                continue
            wanted = "computed" if calls[key] == "converged" else "failed"
            if status != wanted:
                check.wrong.append(f"{key}: its call says {calls[key]}, the candidate {status}")
            if rounds[key] != picked:
                check.wrong.append(f"{key} was picked in round {picked} and computed in round {rounds[key]}")
        orphans = self.ledger.rows("select key from candidates where status in ('computed', 'failed') and picked is null")
        check.wrong += [f"candidate {key} counts as computed and was never picked" for (key,) in orphans]
        check.verified = "each pick of a finished round has its call, in its round, with one outcome"

    def _paid_twice(self, check: Check) -> None:
        same: dict[str, list[str]] = defaultdict(list)
        for key, decoration in self.ledger.rows(
            "select d.key, d.decoration from candidates d join calls c on c.key = d.key where d.decoration is not null and c.attempts > 0"
        ):
            check.looked_at += 1
            same[decoration].append(key)
        check.wrong += [f"computed twice: {', '.join(keys)}" for keys in same.values() if len(keys) > 1]
        alike = self.ledger.rows(
            "select structure, count(*) from calls where status = 'converged' and attempts > 0 group by structure having count(*) > 1"
        )
        check.remarks += [f"{n} calls relaxed into one and the same structure {place}" for place, n in alike[:_SHOWN]]
        check.verified = "no decorated structure was computed under two keys"

    def _lineage(self, check: Check) -> None:
        from naica.structure.prototypes import PROTOTYPES

        structures = {place for (place,) in self.ledger.rows("select hash from structures")}
        outside = 0
        for key, packed, formula in self.ledger.rows("select key, recipe, formula from candidates where picked is not null order by key"):
            check.looked_at += 1
            if not packed:
                continue
            try:
                recipe = Recipe.unpack(packed)
            except InputError as error:
                check.wrong.append(f"the recipe of {key} cannot be read: {error}")
                continue
            if recipe.is_prototype and recipe.parent.removeprefix(PROTOTYPE) not in PROTOTYPES:
                check.wrong.append(f"{key} descends from the unknown {recipe.parent}")
            elif recipe.is_prototype or recipe.parent in structures:
                crystal = self.ledger.structure(recipe.parent) if not recipe.is_prototype else None
                try:
                    made = realise(recipe, {} if crystal is None else {recipe.parent: crystal}).formula
                except InputError as error:
                    check.wrong.append(f"the recipe of {key} cannot be made again: {error}")
                    continue
                if made != formula:
                    check.wrong.append(f"the recipe of {key} makes {made}, the ledger says {formula}")
            else:
                outside += 1
        if outside:
            check.remarks.append(f"{outside} picks descend from structures outside the ledger (tables, files): their parents were not seen")
        check.verified = "recipes read, parents found, each made again: its formula is the recorded one"

    # --- the run -----------------------------------------------------------------------------------------------------------------
    def _stages(self, check: Check) -> None:
        rows = self.ledger.rows("select round, stage, data, seconds from stages")
        done = defaultdict(set)
        for round_, stage, data, seconds in rows:
            check.looked_at += 1
            done[round_].add(stage)
            facts = json.loads(data)
            if seconds < 0:
                check.remarks.append(f"round {round_}, {stage}: {seconds:.0f} s, so a clock was set back")
            if stage == "pick":
                n = self.ledger.rows("select count(*) from candidates where picked = ?", (round_,))[0][0]
                if n != facts.get("picked", n):
                    check.wrong.append(f"round {round_} recorded {facts['picked']} picks, the candidates say {n}")
            if stage == "compute" and round_ > 0:
                n = self.ledger.rows("select count(*) from calls where round = ?", (round_,))[0][0]
                if n != facts.get("calls", n):
                    check.wrong.append(f"round {round_} recorded {facts['calls']} calls, the ledger holds {n}")
        last = max(done, default=0)
        for round_ in range(last):
            if "compute" not in done[round_]:
                check.wrong.append(f"round {round_} never finished, and round {last} exists")
        check.wrong += [
            f"round {round_} computed without the stage {stage}"
            for round_ in done
            if round_ > 0 and "compute" in done[round_]
            for stage in _STAGES
            if stage not in done[round_]
        ]
        models = [r for r in done if "learn" in done[r] and not (self.ledger.folder / "models" / f"round-{r:02d}").is_dir()]
        check.remarks += [f"the model of round {r} is not in the folder any more" for r in models]
        check.verified = "rounds finished in order, counts agree with rows"

    def _level(self, check: Check) -> None:
        levels = [text for (text,) in self.ledger.rows("select distinct level from calls")]
        check.looked_at = len(levels)
        check.verified = " | ".join(levels)
        if len(levels) > 1:
            check.wrong.append(f"calls of {len(levels)} levels stand in one hull")

    def _summary(self) -> dict[str, Any]:
        if not self.told:
            from naica.discover.summary import summary

            self.told = summary(self.ledger.folder, structures=False)
        return self.told

    def _energies(self, check: Check) -> None:
        told, entries = self._summary(), self._read_entries()
        name, options = told["oracle"], told["config"]["oracle"].get("options") or {}
        chosen = [entries[k] for k in self.rng.permutation(len(entries))[: self.recompute]]
        if not chosen:
            check.remarks.append("no energy was computed again")
            return
        again = self._again(name, options, chosen)
        if again is None:
            check.remarks.append(f"energies of {name} are too dear to be computed again here; they stand as recorded")
            return
        check.looked_at = len(chosen)
        worst = 0.0
        for entry, energy in zip(chosen, again, strict=True):
            off = abs(energy - entry.energy) / len(entry.crystal)
            worst = max(worst, off)
            if not off <= _ENERGY:
                check.wrong.append(f"{entry.key} ({entry.crystal.formula}): recorded {entry.energy:.6f} eV, now {energy:.6f} eV")
        check.verified = f"computed again by {name} on the recorded structures; largest difference {1e3 * worst:.3f} meV/atom"

    def _again(self, name: str, options: dict[str, Any], chosen: list[Entry]) -> list[float] | None:
        """Energies in eV by the campaign's oracle: looked up again, or a single point on the relaxed structure."""
        from naica.potential.calculators import CALCULATORS

        if name == "table":
            from naica.discover.config import CampaignConfig
            from naica.discover.oracle import make_oracle
            from naica.discover.proposals import proposals_for

            config = CampaignConfig.model_validate_json(self.ledger.meta("config") or "{}")
            table = make_oracle(name, **proposals_for(config).oracle_options())
            answers = [table.evaluate([e.crystal.replace(info={"id": e.key})])[0].energy for e in chosen]
            return [math.nan if a is None else a for a in answers]
        if name not in CALCULATORS:
            return None
        from naica.potential.single_points import computed

        return [point.energy for point in computed([e.crystal for e in chosen], name)]

    # --- what was concluded --------------------------------------------------------------------------------------------------------
    def _hull(self, check: Check) -> None:
        told = self._summary()
        if told["hull"] is None:
            check.remarks.append("this campaign judges by labels, or has no reference yet: there is no hull")
            return
        from scipy.optimize import linprog

        entries, elements = self._read_entries(), told["elements"]
        per_atom = np.array([e.energy / len(e.crystal) for e in entries])
        x = np.array([[e.crystal.composition.get(s, 0) / len(e.crystal) for s in elements] for e in entries])
        rows = told["hull"]["entries"]
        at = {e.key: k for k, e in enumerate(entries)}
        if {r["id"] for r in rows} != set(at):
            check.wrong.append(f"the hull holds {len(rows)} phases, the ledger {len(at)} converged results")
            return
        low = np.array([per_atom[(x[:, k] == 1)].min() for k in range(len(elements))])
        order = sorted(range(len(rows)), key=lambda k: (not rows[k]["stable"], k))
        tested = (
            order if len(order) <= _MOST_LP else [*order[: _MOST_LP // 2], *self.rng.permutation(order[_MOST_LP // 2 :])[: _MOST_LP // 2]]
        )
        worst_f = worst_h = 0.0
        for k in tested:
            row, here = rows[k], at[rows[k]["id"]]
            formation = per_atom[here] - x[here] @ low
            best = linprog(per_atom, A_eq=x.T, b_eq=x[here], bounds=(0, None), method="highs")
            if not best.success:
                check.wrong.append(f"{row['id']}: the linear programme failed ({best.message})")
                continue
            off_f, off_h = abs(formation - row["formation_energy"]), abs(per_atom[here] - best.fun - row["above_hull"])
            worst_f, worst_h = max(worst_f, off_f), max(worst_h, off_h)
            if off_f > _HULL or off_h > _HULL:
                check.wrong.append(f"{row['id']} ({row['formula']}): off by {off_f:.2g} (formation), {off_h:.2g} (above hull) eV/atom")
        check.looked_at = len(tested)
        check.verified = (
            f"formation energies and distances of {len(tested)} of {len(rows)} phases by a linear programme from total energies; "
            f"largest differences {worst_f:.1e} and {worst_h:.1e} eV/atom"
        )

    def _finds(self, check: Check) -> None:
        told = self._summary()
        limit = told["criterion"]["threshold"]
        check.looked_at = len(told["finds"])
        for find in told["finds"]:
            if find["above_hull"] > limit:
                check.wrong.append(f"{find['id']} ({find['formula']}) is {find['above_hull']:.4f} eV/atom above, the limit is {limit}")
            if not find["lineage"]:
                check.wrong.append(f"{find['id']} has no lineage")
            kinds = {step["origin"] for step in find["lineage"][-1:]}
            if told["config"].get("pool") is None and not kinds & {"prototype", "start"}:
                check.remarks.append(f"the lineage of {find['id']} ends at {find['lineage'][-1]['id']}, outside the ledger")
        repeats = Counter(key for find in told["finds"] for key in find["repeats"])
        check.wrong += [f"{key} repeats two finds" for key, n in repeats.items() if n > 1]
        check.verified = f"all within {limit} eV/atom, each with its lineage; {sum(repeats.values())} repetitions are not counted"

    def _spool(self, check: Check) -> None:
        called = self.ledger.called()
        for file in sorted((self.ledger.folder / "spool").glob("*.json")):
            check.looked_at += 1
            try:
                key = json.loads(file.read_text(encoding="utf-8"))["key"]
            except (ValueError, KeyError, OSError) as error:
                check.wrong.append(f"{file.name} cannot be read: {error}")
                continue
            where = "also in the ledger" if key in called else "not yet in the ledger: the next start takes it"
            check.remarks.append(f"{file.name}: {where}")
        check.remarks[_SHOWN:] = [f"and {len(check.remarks) - _SHOWN} more"] if len(check.remarks) > _SHOWN else []
        check.verified = "finished calls that wait to be recorded"

    def _versions(self, check: Check) -> None:
        from naica.discover.provenance import versions

        then, now = json.loads(self.ledger.meta("versions") or "{}"), versions()
        check.looked_at = len(then)
        check.verified = ", ".join(f"{name} {version}" for name, version in then.items())
        if not then:
            check.wrong.append("no versions are recorded")
        changed = [f"{name} {then[name]} → {now.get(name, 'absent')}" for name in then if now.get(name) != then[name]]
        check.remarks += [f"since then: {', '.join(changed)}"] if changed else []
