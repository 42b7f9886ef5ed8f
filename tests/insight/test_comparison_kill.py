"""A comparison that is killed goes on, by two processes at once, and repeats nothing that was finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from naica.insight import comparison

HERE = Path(__file__).parent
WORK = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_comparison import TASK, salts
from naica.insight import comparison, tasks
table = salts()
tasks.load_set = lambda name: table
tasks.set_labels = lambda task: table.labels
plan = comparison.Plan((TASK,), ("cgcnn", "gnome-composition"), (0, 1, 2), 0.02)
out = Path(sys.argv[1])
comparison.claim(plan, out)
print(comparison.work(plan, out))
"""


def start(out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", WORK.format(here=str(HERE)), str(out)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def results(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*.json")}


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    kept: dict[Path, int] = {}
    for wanted in (3, 7, 9):
        process = start(tmp_path)
        deadline = time.monotonic() + 240
        while len(results(tmp_path)) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = results(tmp_path)
        assert len(now) >= wanted
        assert {path: now[path] for path in kept} == kept
        kept = now
    both = [start(tmp_path), start(tmp_path)]
    counts = [int(process.communicate(timeout=300)[0].strip().splitlines()[-1]) for process in both]
    assert len(results(tmp_path)) == 12
    # each of the remaining runs was done once, by one of the two
    assert sum(counts) == 12 - len(kept)
    assert {path: results(tmp_path)[path] for path in kept} == kept
    assert len(comparison.read_runs(tmp_path)) == 12
    assert not list(tmp_path.glob("runs/*/*.part"))
