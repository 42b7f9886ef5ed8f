"""The campaign's memory: one SQLite file in which every candidate, oracle call and finished stage is written once.

Every change is one transaction, so a kill at any line leaves a ledger from which the same command goes on. What is in the ledger
is never computed again; what is not in it never happened.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from naica.errors import RunError
from naica.structure import Crystal

VERSION = 1
_SCHEMA = """
create table if not exists meta (key text primary key, value text not null) without rowid;
create table if not exists structures (hash text primary key, n integer not null, data blob not null) without rowid;
create table if not exists candidates (
    key text primary key, recipe blob not null, origin text not null, parent text not null,
    formula text not null, prototype text, decoration text, round integer not null, status text not null, reason text, likelihood real,
    quick real, value real, sigma real, distance real, probability real, volume real, scored integer, arm text, picked integer
) without rowid;
create index if not exists candidates_status on candidates (status);
create table if not exists calls (
    key text primary key, round integer not null, status text not null, reason text, energy real, structure text,
    seconds real not null, attempts integer not null, level text not null, finished real not null
) without rowid;
create table if not exists stages (
    round integer not null, stage text not null, data text not null, seconds real not null, primary key (round, stage)
) without rowid;
"""


@dataclass(frozen=True)
class Entry:
    """A computed structure: what the hull and the learner are made of. `energy` in eV for the whole cell."""

    key: str
    round: int
    energy: float
    crystal: Crystal
    seconds: float


class Ledger:
    """Open (or make) the ledger in a folder; one process writes at a time.

    Raises
    ------
    RunError
        If the folder cannot be written, the disk is full, the file is damaged or of a newer format, or another process holds it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "ledger.sqlite"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(self.path, timeout=10.0, isolation_level=None)
            self.db.execute("pragma journal_mode = wal")
            self.db.execute("pragma synchronous = full")
            with self._guard():
                self.db.executescript(_SCHEMA)
        except OSError as error:
            raise RunError(f"cannot make the run folder {self.folder}: {error.strerror or error}; choose another with --folder") from error
        except sqlite3.Error as error:
            raise RunError(self._explain(error)) from error
        found = self.meta("format")
        if found is None:
            self.set_meta("format", str(VERSION))
        elif int(found) > VERSION:
            raise RunError(f"{self.path} was written by a newer naica (ledger format {found}, this one reads {VERSION}); upgrade naica")

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    # --- transactions -----------------------------------------------------------------------------------------------------
    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: everything inside lands, or nothing."""
        with self._guard():
            self.db.execute("begin immediate")
            try:
                yield self.db
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("rollback")
                raise
            self.db.execute("commit")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RunError(self._explain(error)) from error

    def _explain(self, error: sqlite3.Error) -> str:
        text = str(error)
        if "full" in text:
            cure = "the disk is full; free some space and give the same command again: nothing finished is lost"
        elif "readonly" in text or "unable to open" in text:
            cure = "the run folder cannot be written; make it writable, or choose another with --folder"
        elif "locked" in text:
            cure = "another process is running this campaign; wait for it, or stop it"
        elif "not a database" in text or "malformed" in text:
            cure = "the file is damaged; restore it from a copy, or start anew in another folder"
        else:
            cure = "give the same command again; if it stays, start anew in another folder"
        return f"{self.path}: {text}: {cure}"

    def rows(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """The answer to a query."""
        with self._guard():
            return self.db.execute(query, values).fetchall()

    # --- small facts -------------------------------------------------------------------------------------------------------
    def meta(self, key: str) -> str | None:
        """A fact about the whole campaign."""
        found = self.rows("select value from meta where key = ?", (key,))
        return found[0][0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Write a fact about the whole campaign."""
        with self.write() as db:
            db.execute("insert or replace into meta values (?, ?)", (key, value))

    def stage(self, round_: int, stage: str) -> dict[str, Any] | None:
        """What a finished stage left behind; None if it has not finished."""
        found = self.rows("select data, seconds from stages where round = ? and stage = ?", (round_, stage))
        return {**json.loads(found[0][0]), "seconds": found[0][1]} if found else None

    def finish(self, db: sqlite3.Connection, round_: int, stage: str, data: Mapping[str, Any], seconds: float) -> None:
        """Mark a stage finished, inside the transaction that holds its outcome."""
        db.execute("insert or replace into stages values (?, ?, ?, ?)", (round_, stage, json.dumps(data, default=float), seconds))

    # --- structures and calls -------------------------------------------------------------------------------------------------
    def put_structure(self, db: sqlite3.Connection, crystal: Crystal) -> str:
        """Keep a structure by its content hash."""
        data = b"".join(
            (
                crystal.numbers.astype("<u1").tobytes(),
                crystal.positions.tobytes(),
                crystal.cell.tobytes(),
                crystal.pbc.astype("u1").tobytes(),
            )
        )
        db.execute("insert or ignore into structures values (?, ?, ?)", (crystal.hash, len(crystal), data))
        return crystal.hash

    def structure(self, hash_: str) -> Crystal:
        """The structure of a content hash."""
        n, data = self.rows("select n, data from structures where hash = ?", (hash_,))[0]
        return _unpack(n, data)

    def record_call(self, result: Any, round_: int) -> None:
        """Write the outcome of one oracle call; a second outcome of the same call is ignored, as the first is already paid for."""
        self.record_calls([result], round_)

    def record_calls(self, results: Iterable[Any], round_: int) -> None:
        """Write the outcomes of several calls in one transaction."""
        with self.write() as db:
            for result in results:
                place = self.put_structure(db, result.crystal) if result.crystal is not None else None
                db.execute(
                    "insert or ignore into calls values (?,?,?,?,?,?,?,?,?,?)",
                    (result.key, round_, result.status, result.reason, result.energy, place, result.seconds, result.attempts,
                     str(result.level), time.time()),
                )  # fmt: skip
                done = "computed" if result.status == "converged" else "failed"
                db.execute("update candidates set status = ?, reason = ? where key = ?", (done, result.reason or None, result.key))

    def called(self) -> set[str]:
        """Keys of all finished oracle calls."""
        return {key for (key,) in self.rows("select key from calls")}

    def entries(self, up_to_round: int | None = None) -> list[Entry]:
        """All converged results in the order of their keys, which does not depend on who finished first."""
        query = (
            "select c.key, c.round, c.energy, s.n, s.data, c.seconds from calls c join structures s on s.hash = c.structure "
            "where c.status = 'converged' and c.round <= ? order by c.key"
        )
        limit = up_to_round if up_to_round is not None else 2**31
        return [Entry(k, r, e, _unpack(n, d), s) for k, r, e, n, d, s in self.rows(query, (limit,))]

    def add_candidates(self, db: sqlite3.Connection, proposals: Iterable[Any], round_: int) -> int:
        """Insert new candidates; known ones stay as they are. Returns how many of them are new and alive."""
        alive = "select count(*) from candidates where status = 'new'"
        proposals = list(proposals)
        for proposal in proposals:
            # structures that recipes start from and no call brought in: of tables, files and random search
            if getattr(proposal, "structure", None) is not None:
                self.put_structure(db, proposal.structure)
        before = db.execute(alive).fetchone()[0]
        db.executemany(
            "insert or ignore into candidates (key, recipe, origin, parent, formula, prototype, decoration, round, status, reason, "
            "likelihood) "
            "values (?,?,?,?,?,?,?,?,?,?,?)",
            (
                (p.key, p.recipe, p.origin, p.parent, p.formula, p.prototype, p.decoration, round_, p.status, p.reason, p.likelihood)
                for p in proposals
            ),
        )
        return int(db.execute(alive).fetchone()[0] - before)


def _unpack(n: int, data: bytes) -> Crystal:
    at = n
    numbers = np.frombuffer(data, "<u1", n)
    positions = np.frombuffer(data, "<f8", 3 * n, at).reshape(n, 3)
    cell = np.frombuffer(data, "<f8", 9, at + 24 * n).reshape(3, 3)
    pbc = np.frombuffer(data, "u1", 3, at + 24 * n + 72).astype(bool)
    return Crystal(numbers, positions, cell, pbc)
