"""Work in shards: each appears in one step, one that exists is never worked out again, and all engines share them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from engine_drive import PATH

from naica.discover.config import EngineSection
from naica.discover.engines.shards import digest, file_digest, in_shards, write
from naica.errors import RunError


class Squares:
    """Squares a piece, and counts."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, piece: list[int]) -> dict[str, np.ndarray]:
        with self.log.open("a") as handle:
            handle.write(f"{piece[0]}\n")
        if piece[0] < 0:
            raise RunError("below zero")
        return {"square": np.array(piece) ** 2, "nan": np.full(len(piece), np.nan)}


def test_order_and_once(tmp_path: Path) -> None:
    pieces, work, ticks = [[1, 2], [3], [4, 5]], Squares(tmp_path / "log"), []
    names = [digest("squares", piece) for piece in pieces]

    def piece(k: int) -> list[int]:
        return pieces[k]

    for _ in range(2):
        parts = in_shards(work, names, piece, tmp_path / "shards", tick=lambda done, total: ticks.append((done, total)))
        assert np.concatenate([p["square"] for p in parts]).tolist() == [1, 4, 9, 16, 25]
        assert all(np.isnan(p["nan"]).all() for p in parts)
    assert ticks == [(0, 3), (1, 3), (2, 3), (3, 3), (3, 3)]
    (tmp_path / "shards" / f"{names[1]}.npz").unlink()
    in_shards(work, names, piece, tmp_path / "shards")
    assert (tmp_path / "log").read_text().split() == ["1", "3", "4", "3"]


def test_a_failure_keeps_what_is_finished_and_leaves_no_halves(tmp_path: Path) -> None:
    pieces, work = [[1], [-1], [2]], Squares(tmp_path / "log")
    with pytest.raises(RunError, match="below zero"):
        in_shards(work, ["a", "b", "c"], lambda k: pieces[k], tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "log"]


def test_a_shard_that_exists_is_left_alone(tmp_path: Path) -> None:
    write(Squares(tmp_path / "log"), [2], tmp_path / "a.npz")
    before = (tmp_path / "a.npz").stat().st_mtime_ns
    write(Squares(tmp_path / "log"), [3], tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_mtime_ns == before


def test_digests_tell_contents_apart(tmp_path: Path) -> None:
    assert digest("a", 1.0) != digest("a", 1.5)
    assert digest("ab", "c") != digest("a", "bc")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x").write_text("1")
    one = file_digest(tmp_path / "m")
    (tmp_path / "m" / "x").write_text("2")
    assert file_digest(tmp_path / "m") != one


def test_a_judge_travels() -> None:
    from naica.discover.judge import HullJudge
    from naica.discover.ledger import Entry
    from naica.structure import Crystal

    entries = [Entry(s, 0, -1.0, Crystal([s], [[0, 0, 0]], np.eye(3) * 3), 0.0) for s in ("Cu", "Au")]
    judge = HullJudge(entries, ["Cu", "Au"], 0.001)
    again = pickle.loads(pickle.dumps(judge))
    assert again.distance(["CuAu"], np.array([0.1])) == pytest.approx(judge.distance(["CuAu"], np.array([0.1])))


@pytest.mark.slow
def test_dask_works_out_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason='Dask is not installed: pip install "naica[dask]"')
    monkeypatch.setenv("PYTHONPATH", PATH)
    pieces = [[k, k + 1] for k in range(0, 12, 2)]
    names = [digest(piece) for piece in pieces]
    in_shards(Squares(tmp_path / "log"), names[:2], lambda k: pieces[k], tmp_path / "shards")
    parts = in_shards(
        Squares(tmp_path / "log"), names, lambda k: pieces[k], tmp_path / "shards", engine=EngineSection(name="dask"), workers=2,
        own=tmp_path / "engine",
    )  # fmt: skip
    assert np.concatenate([p["square"] for p in parts]).tolist() == [k**2 for k in range(12)]
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == [0, 2, 4, 6, 8, 10]
