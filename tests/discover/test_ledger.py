from pathlib import Path

import numpy as np
import pytest

from naica.data import Level
from naica.discover.ledger import Ledger
from naica.errors import RunError
from naica.structure import Crystal


class Result:
    def __init__(self, key: str, energy: float | None, crystal: Crystal | None, status: str = "converged") -> None:
        self.key, self.energy, self.crystal, self.status = key, energy, crystal, status
        self.reason, self.seconds, self.attempts, self.level = "", 1.0, 1, Level("PBE")


def salt(scale: float = 1.0) -> Crystal:
    return Crystal.from_fractional([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 4 * scale)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record_call(Result("b", -2.0, salt(1.1)), 1)
    ledger.record_call(Result("a", -1.0, salt()), 0)
    ledger.record_call(Result("c", None, None, "failed"), 1)
    ledger.close()
    again = Ledger(tmp_path)
    assert [(e.key, e.energy) for e in again.entries()] == [("a", -1.0), ("b", -2.0)]
    assert again.entries()[1].crystal == salt(1.1)
    assert [e.key for e in again.entries(0)] == ["a"]
    assert again.called() == {"a", "b", "c"}


def test_a_call_is_recorded_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record_call(Result("a", -1.0, salt()), 0)
    ledger.record_call(Result("a", -9.0, salt()), 0)
    assert [e.energy for e in ledger.entries()] == [-1.0]


def test_a_transaction_lands_whole_or_not_at_all(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)

    def interrupted() -> None:
        with ledger.write() as db:
            ledger.finish(db, 1, "pick", {"picked": 3}, 0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ledger.stage(1, "pick") is None
    with ledger.write() as db:
        ledger.finish(db, 1, "pick", {"picked": 3}, 0.1)
    assert ledger.stage(1, "pick") == {"picked": 3, "seconds": 0.1}


def test_full_disk_says_so_and_keeps_what_was_paid_for(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record_call(Result("a", -1.0, salt()), 0)
    pages = ledger.rows("pragma page_count")[0][0]
    ledger.db.execute(f"pragma max_page_count = {pages}")  # SQLite's own "disk full"
    big = Crystal(np.full(20_000, 6), np.random.default_rng(0).random((20_000, 3)) * 100)
    with pytest.raises(RunError, match=r"ledger\.sqlite: .*disk is full; free some space and give the same command again"):
        ledger.record_call(Result("b", -2.0, big), 0)
    assert [e.key for e in ledger.entries()] == ["a"]


def test_read_only_ledger_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.db.execute("pragma query_only = 1")
    with pytest.raises(RunError, match="cannot be written; make it writable, or choose another with --folder"):
        ledger.record_call(Result("a", -1.0, salt()), 0)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot make the run folder .*choose another with --folder"):
        Ledger(tmp_path / "file" / "run")


def test_damaged_ledger_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"this is no database, though it has the name of one" * 100)
    with pytest.raises(RunError, match=r"ledger\.sqlite: .*damaged; restore it"):
        Ledger(tmp_path)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.set_meta("format", "99")
    ledger.close()
    with pytest.raises(RunError, match="written by a newer naica"):
        Ledger(tmp_path)
