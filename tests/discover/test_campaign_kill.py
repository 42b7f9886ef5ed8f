"""kill -9 at random moments, then the same command: the same stable set, and no finished oracle call lost or paid for twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from naica.discover.ledger import Ledger
from naica.discover.summary import summary

ROOT = Path(__file__).parents[2]
KILLS = 20
CAMPAIGN = """
elements = ["Cu", "Au"]
rounds = 3
seed = 3
[generate]
n_elements = [2]
balanced = false
substitution = false
max_atoms = 8
[filter]
quick_limit = 2.0
limit = 2.0
[pick]
per_round = 8
[oracle]
name = "tests.discover.counted_emt:make"
workers = 2
timeout = 60
options = {{ log = "{log}", seconds = 0.25 }}
"""


def start(folder: Path) -> subprocess.Popen:
    code = f"from naica.discover.campaign import Campaign; Campaign({str(folder / 'c.toml')!r}, {str(folder / 'run')!r}).run()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, start_new_session=True, stderr=subprocess.PIPE)


def prepare(folder: Path) -> Path:
    folder.mkdir()
    (folder / "c.toml").write_text(CAMPAIGN.format(log=folder / "calls.log"))
    return folder


def finish(folder: Path) -> None:
    process = start(folder)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()[-2000:]


def begun(folder: Path) -> Counter:
    log = folder / "calls.log"
    return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()


def kept(folder: Path) -> set[str]:
    """Hashes of the structures whose result lies in the spool, not yet in the ledger."""
    spool = folder / "run" / "spool"
    return {json.loads(f.read_text())["asked"] for f in spool.glob("*.json")} if spool.is_dir() else set()


def found(folder: Path) -> dict:
    story = summary(folder / "run", structures=False)
    return {e["id"]: (e["stable"], round(e["formation_energy"], 9)) for e in story["hull"]["entries"]}


def outcomes(folder: Path) -> list[tuple[str, str]]:
    ledger = Ledger(folder / "run")
    rows = ledger.rows("select key, status from calls order by key")
    ledger.close()
    return rows


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_at_random_moments_ends_the_same(tmp_path: Path) -> None:
    calm = prepare(tmp_path / "calm")
    finish(calm)
    expected = found(calm)
    assert sum(stable for stable, _ in expected.values()) >= 3, "the undisturbed campaign finds more than its two elements"
    rng = random.Random(11)
    kills = 0
    while kills < KILLS:
        folder = prepare(tmp_path / f"killed-{kills}")
        known: dict[str, int] = {}
        here = 0
        for _ in range(7):
            process = start(folder)
            time.sleep(rng.uniform(0.5, 11.0))
            alive = process.poll() is None
            if alive:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            counts = begun(folder)
            for structure, times in known.items():
                assert counts[structure] == times, "a call whose result was kept was computed again"
            known.update({structure: counts[structure] for structure in kept(folder)})
            here += alive
            if not alive:
                break
        kills += here
        finish(folder)
        assert found(folder) == expected
        again = sum(times - 1 for times in begun(folder).values())
        assert again <= 2 * here, "only the (at most two) calls under way at a kill may begin anew"
        assert outcomes(folder) == outcomes(calm), "every call has one outcome, and the same"
