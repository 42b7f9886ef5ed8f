"""The second look: what survives the cascade is relaxed with a potential, then judged again.

A candidate's guessed geometry is the largest error of a filter that sees it as it was proposed (Riebesell et al., Matbench Discovery, 2025:
F1 0.57 for the best network on unrelaxed crystals, 0.6 to 0.9 after relaxing). A potential takes away most of it for a thousandth of a DFT
relaxation. The relaxed structure is judged by the ensemble once more, at its own volume, and by the potential's energy.

The potential's energies are of another level of theory than the labels. They are never mixed: `Translation` learns, from entries of the
campaign that were relaxed with the same potential, the formation energy per atom as

    y ≈ E/N + Σ_Z x_Z a_Z,

a correction linear in the fractions x_Z, which is the form of a difference of references and of corrections per element. Its error on
entries left out decides how much the potential's word counts beside the ensemble's (weights 1/variance). Without enough entries it is
silent.

Relaxations are kept in the ledger by candidate, potential and settings, a portion at a time, so a kill costs at most a portion and no round
pays twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.discover.config import Filter
from naica.discover.filter import Judge, Scores
from naica.discover.ledger import Entry, Ledger
from naica.discover.reliability import AS_PREDICTED, Recalibration
from naica.structure import Crystal

Floats = NDArray[np.float64]
Tick = Callable[[int, int], None]

_PORTION = 32
_REFERENCE_PRIOR = 0.5  # eV/atom: how far an element's correction is expected to be from the potential's own reference
_LEAST_ENTRIES = 6  # more than there are elements
_LEAST_ERROR = 0.01  # eV/atom

_SCHEMA = (
    "create table if not exists relaxed (key text not null, settings text not null, status text not null, reason text not null, "
    "energy real, structure text, steps integer not null, seconds real not null, primary key (key, settings)) without rowid",
    "create table if not exists looks (key text primary key, round integer not null, before real, after real, value real, sigma real, "
    "potential real, status text not null) without rowid",
)


@dataclass(frozen=True)
class Guess:
    """A candidate relaxed by the potential: `crystal` and `energy` (eV, whole cell) are None where nothing usable came out."""

    status: str
    reason: str
    crystal: Crystal | None
    energy: float | None
    steps: int
    seconds: float

    @property
    def usable(self) -> bool:
        """Whether it may be judged: converged, or stopped at the step limit with a sound structure."""
        return self.crystal is not None and self.energy is not None


def relax_some(crystals: Sequence[Crystal], config: Filter, tick: Tick = lambda done, total: None) -> list[Guess]:
    """Relax crystals in batches with `config.relax_with`; whatever goes wrong with one is its reason.

    Structures that left their basin (volume threefold, atoms on each other) come back unusable.
    """
    from naica.potential.relax import relax

    done = relax(
        list(crystals), config.relax_with, config.relax_fmax, config.relax_steps, dtype="float32", progress=tick
    )  # fmt: skip
    found = []
    for one in done:
        good = one.status != "failed" and one.energy is not None and np.isfinite(one.energy)
        reason = one.reason or ("" if one.status == "converged" else f"{one.steps} steps were not enough")
        found.append(Guess(one.status, reason, one.crystal if good else None, one.energy if good else None, one.steps, one.seconds))
    return found


# --- the potential's word -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Translation:
    """From a potential's energy to the campaign's formation energy: a correction (eV) per element, and the error left (eV/atom)."""

    corrections: Mapping[str, float]
    error: float
    n: int

    def __call__(self, crystal: Crystal, energy: float) -> float | None:
        """Formation energy in eV/atom; None where an element has no correction."""
        if any(s not in self.corrections for s in crystal.composition):
            return None
        return (energy + sum(n * self.corrections[s] for s, n in crystal.composition.items())) / len(crystal)


def translation(crystals: Sequence[Crystal], energies: Sequence[float], labels: Sequence[float]) -> Translation | None:
    """Learn the correction from structures with both energies: the potential's (eV, whole cell) and the label (eV/atom).

    Bayesian least squares with the prior that an element's correction is minus the potential's own energy of that element where it is among
    the structures, and minus the mean energy per atom elsewhere. The error is the root mean square over compounds left out one at a time.
    None with fewer than six compounds more than elements.
    """
    symbols = sorted({s for c in crystals for s in c.composition})
    compounds = [k for k, c in enumerate(crystals) if len(c.composition) > 1]
    if len(compounds) < _LEAST_ENTRIES or len(compounds) < len(symbols) + 2:
        return None
    table = np.array([[c.composition.get(s, 0) / len(c) for s in symbols] for c in crystals])
    per_atom = np.array(energies, dtype=np.float64) / np.array([len(c) for c in crystals])
    own = {s: -e for c, e in zip(crystals, per_atom, strict=True) if len(c.composition) == 1 for s in c.composition}
    start = np.array([own.get(s, -float(per_atom.mean())) for s in symbols])
    # an element whose reference is missing may be anything; the data say it
    width = np.array([_REFERENCE_PRIOR if s in own else 10.0 for s in symbols])
    rest = np.asarray(labels, dtype=np.float64) - per_atom - table @ start
    noise = 0.05
    for _ in range(3):
        inverse = np.linalg.inv(table.T @ table / noise**2 + np.diag(width**-2))
        fitted = inverse @ (table.T @ rest) / noise**2
        leverage = np.einsum("ij,jk,ik->i", table, inverse, table) / noise**2
        left_out = (rest - table @ fitted) / np.maximum(1 - leverage, 1e-3)
        noise = max(float(np.sqrt(np.mean(left_out[compounds] ** 2))), _LEAST_ERROR)
    return Translation(dict(zip(symbols, (start + fitted).tolist(), strict=True)), noise, len(compounds))


def judged_again(
    scores: Scores,
    guesses: Mapping[int, Guess],
    model: Any,
    formulas: Sequence[str],
    judge: Judge,
    words: Translation | None = None,
    reading: Recalibration = AS_PREDICTED,
) -> Scores:
    """The scores with those of relaxed candidates (row → guess) replaced by what the relaxed structures say.

    The value is the mean of the ensemble's and the potential's (where `words` translate it) with weights 1/variance. Rows whose relaxation
    is not usable keep their numbers.
    """
    rows = [r for r, g in sorted(guesses.items()) if g.usable]
    if not rows:
        return scores
    crystals = [guesses[r].crystal for r in rows]
    seen = model.predict(crystals)
    value, sigma = np.asarray(seen.value, dtype=np.float64), np.maximum(np.asarray(seen.sigma, dtype=np.float64), 1e-4)
    if words is not None:
        told = np.array([_nan(words(c, g.energy)) for c, g in ((guesses[r].crystal, guesses[r]) for r in rows)])  # type: ignore[arg-type]
        both = np.isfinite(told)
        weight = np.where(both, sigma**-2 / (sigma**-2 + words.error**-2), 1.0)
        value = np.where(both, weight * value + (1 - weight) * np.nan_to_num(told), value)
        sigma = np.where(both, (sigma**-2 + words.error**-2) ** -0.5, sigma)
    new = {name: getattr(scores, name).copy() for name in ("value", "sigma", "distance", "probability", "volume")}
    new["value"][rows], new["sigma"][rows], new["volume"][rows] = value, sigma, 1.0
    new["distance"][rows] = judge.distance([formulas[r] for r in rows], value)
    new["probability"][rows] = reading.probability(new["distance"][rows], sigma, judge.threshold)
    return replace(scores, **new)


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


# --- in a campaign --------------------------------------------------------------------------------------------------------------------
class RelaxedLook:
    """The second look of a campaign: relaxes through the ledger, and judges."""

    def __init__(self, ledger: Ledger, config: Filter) -> None:
        self.ledger, self.config = ledger, config
        self.settings = json.dumps([config.relax_with, config.relax_fmax, config.relax_steps])
        with ledger.write() as db:
            for text in _SCHEMA:
                db.execute(text)

    def take(
        self,
        keys: Sequence[str],
        crystals: Sequence[Crystal],
        formulas: Sequence[str],
        scores: Scores,
        model: Any,
        judge: Judge,
        entries: Sequence[Entry],
        reading: Recalibration = AS_PREDICTED,
        tick: Tick = lambda done, total: None,
    ) -> tuple[Scores, list[tuple[Any, ...]], dict[str, Any]]:
        """Relax the most promising survivors of the cascade and judge them anew.

        Parameters
        ----------
        keys, crystals, formulas : of the candidates (n), crystals at the volume they were proposed with
        scores : of the cascade
        entries : results so far, which teach what the potential's energies mean
        tick : called with (done, total) relaxations

        Returns
        -------
        The new scores; rows for `keep`; facts for the stage's data.
        """
        chosen = self._chosen(keys, scores, judge)
        starts = [crystals[r].scaled(float(scores.volume[r])) if np.isfinite(scores.volume[r]) else crystals[r] for r in chosen]
        made = self._relaxed([keys[r] for r in chosen], starts, tick)
        guesses = dict(zip(chosen, made, strict=True))
        words = self._words(entries, judge) if self.config.relax_energy else None
        new = judged_again(scores, guesses, model, formulas, judge, words, reading)
        looks = []
        for row, guess in guesses.items():
            told = words(guess.crystal, guess.energy) if words and guess.crystal is not None and guess.energy is not None else None
            after = float(new.distance[row]) if guess.usable else None
            looks.append((keys[row], float(scores.distance[row]), after, float(new.value[row]), float(new.sigma[row]), told, guess.status))
        return new, looks, self._facts(guesses, scores, new, judge, words)

    def keep(self, db: sqlite3.Connection, number: int, looks: Sequence[tuple[Any, ...]]) -> None:
        """Write what `take` saw in a round, inside the transaction of its stage; what earlier rounds saw of open candidates is void."""
        db.execute("delete from looks where key in (select key from candidates where status in ('new', 'passed', 'filtered'))")
        db.executemany("insert or replace into looks values (?, ?, ?, ?, ?, ?, ?, ?)", [(key, number, *rest) for key, *rest in looks])

    def structure(self, key: str) -> Crystal | None:
        """A candidate as the potential left it; None if it was never relaxed, or nothing usable came out."""
        found = self.ledger.rows("select structure from relaxed where key = ? and settings = ?", (key, self.settings))
        return self.ledger.structure(found[0][0]) if found and found[0][0] else None

    def _chosen(self, keys: Sequence[str], scores: Scores, judge: Judge) -> list[int]:
        """Rows within `relax_limit`: all that were relaxed in earlier rounds, and the best `relax_most` of the others."""
        limit = judge.threshold + self.config.relax_limit
        near = [r for r in np.argsort(scores.distance, kind="stable").tolist() if scores.distance[r] <= limit]
        known = {key for (key,) in self.ledger.rows("select key from relaxed where settings = ?", (self.settings,))}
        fresh = [r for r in near if keys[r] not in known][: self.config.relax_most]
        return sorted([r for r in near if keys[r] in known] + fresh)

    def _relaxed(self, keys: Sequence[str], starts: Sequence[Crystal], tick: Tick) -> list[Guess]:
        """Relaxations from the ledger, and those missing made, a portion to a transaction."""
        known = {
            key: Guess(status, reason, self.ledger.structure(place) if place else None, energy, steps, seconds)
            for key, status, reason, energy, place, steps, seconds in self.ledger.rows(
                "select key, status, reason, energy, structure, steps, seconds from relaxed where settings = ?", (self.settings,)
            )
        }
        missing = [k for k, key in enumerate(keys) if key not in known]
        for at in range(0, len(missing), _PORTION):
            part = missing[at : at + _PORTION]
            for k, guess in zip(part, relax_some([starts[k] for k in part], self.config), strict=True):
                known[keys[k]] = guess
            with self.ledger.write() as db:
                for k in part:
                    g = known[keys[k]]
                    place = self.ledger.put_structure(db, g.crystal) if g.crystal is not None else None
                    row = (keys[k], self.settings, g.status, g.reason, g.energy, place, g.steps, g.seconds)
                    db.execute("insert or ignore into relaxed values (?,?,?,?,?,?,?,?)", row)
            tick(at + len(part), len(missing))
        return [known[key] for key in keys]

    def _words(self, entries: Sequence[Entry], judge: Judge) -> Translation | None:
        """What the potential's energies mean, from the campaign's entries relaxed with it (most are near a minimum already)."""
        guesses = self._relaxed([e.key for e in entries], [e.crystal for e in entries], lambda done, total: None)
        good = [(e, g) for e, g in zip(entries, guesses, strict=True) if g.usable]
        labels = judge.labels([e for e, _ in good])
        return translation([g.crystal for _, g in good], [g.energy for _, g in good], list(labels))  # type: ignore[misc]

    def _facts(
        self, guesses: Mapping[int, Guess], before: Scores, after: Scores, judge: Judge, words: Translation | None
    ) -> dict[str, Any]:
        rows = [r for r, g in guesses.items() if g.usable]
        fell = float(np.median(after.distance[rows] - before.distance[rows])) if rows else None
        limit = judge.threshold + self.config.limit
        reasons: dict[str, int] = {}
        for g in guesses.values():
            if not g.usable:
                reasons[g.reason] = reasons.get(g.reason, 0) + 1
        return {
            "potential": self.config.relax_with,
            "relaxed": {s: sum(g.status == s for g in guesses.values()) for s in ("converged", "not converged", "failed")},
            "reasons": reasons,
            "steps": int(sum(g.steps for g in guesses.values())),
            "seconds": float(sum(g.seconds for g in guesses.values())),
            "median_change": fell,
            "rescued": int(sum(before.distance[r] > limit >= after.distance[r] for r in rows)),
            "dropped": int(sum(after.distance[r] > limit >= before.distance[r] for r in rows)),
            "translation": None if words is None else {"entries": words.n, "error": words.error, "corrections": dict(words.corrections)},
        }
