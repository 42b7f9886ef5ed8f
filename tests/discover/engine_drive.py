"""A campaign's compute stage in a process of its own, for tests that kill it: results are recorded in a file as a ledger would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from naica.structure import Crystal

HERE = Path(__file__).resolve().parent
PATH = os.pathsep.join([str(HERE), str(HERE.parents[1])])


def crystals(count: int) -> dict[str, Crystal]:
    """Cells of Cu and Au, each another one."""
    cell = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return {f"job-{k}": Crystal([29 if k % 2 else 79], [[0, 0, 0]], cell * (1.9 + k / 47)) for k in range(count)}


class Drive:
    """One folder in which the same command is given again and again."""

    def __init__(self, folder: Path, count: int, seconds: float, engine: dict[str, Any], workers: int = 2) -> None:
        self.folder, self.count = folder, count
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "drive.json").write_text(json.dumps({"count": count, "seconds": seconds, "engine": engine, "workers": workers}))

    def start(self, **environment: str) -> subprocess.Popen:
        """Give the command."""
        env = {**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", **environment}
        with (self.folder / "driver.out").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "engine_drive", str(self.folder)],
                cwd=self.folder,
                env=env,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def finish(self, seconds: float = 900, **environment: str) -> None:
        """Give the command and let it end well; all results must be there, once."""
        process = self.start(**environment)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill_group(process)
            raise AssertionError(f"not finished in {seconds} s: {self.said()}") from None
        assert code == 0, self.said()
        assert self.done() == {f"job-{k}": 1 for k in range(self.count)}

    def said(self) -> str:
        """The end of what it printed."""
        return (self.folder / "driver.out").read_text()[-3000:]

    def done(self) -> dict[str, int]:
        """How often each result was recorded."""
        got = self.folder / "got"
        return dict(Counter(line.split()[0] for line in got.read_text().splitlines())) if got.exists() else {}

    def energies(self) -> dict[str, float]:
        """What was recorded."""
        return {line.split()[0]: float(line.split()[2]) for line in (self.folder / "got").read_text().splitlines()}

    def begun(self) -> dict[str, int]:
        """How often each call was begun, by structure."""
        log = self.folder / "calls.log"
        return dict(Counter(line.split()[0] for line in log.read_text().splitlines())) if log.exists() else {}

    def callers(self) -> list[int]:
        """The processes that began calls, in order."""
        log = self.folder / "calls.log"
        return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def kill_group(process: subprocess.Popen) -> None:
    """kill -9 of a process and all that it started in its session."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(condition: Callable[[], Any], seconds: float = 500, what: str = "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain {what}"
        time.sleep(0.1)


def processes(marker: str, value: str) -> list[int]:
    """Processes with a variable in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"{marker}={value}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


def main(folder: Path) -> None:
    from counted_emt import make

    from naica.discover.config import EngineSection
    from naica.discover.engines import run

    told = json.loads((folder / "drive.json").read_text())
    got = folder / "got"
    done = {line.split()[0] for line in got.read_text().splitlines()} if got.exists() else set()

    def record(result: Any) -> None:
        with got.open("a") as handle:
            handle.write(f"{result.key} {result.status} {result.energy}\n")
            handle.flush()
            os.fsync(handle.fileno())

    jobs = {key: crystal for key, crystal in crystals(told["count"]).items() if key not in done}
    run(
        make(str(folder / "calls.log"), told["seconds"]), jobs, workers=told["workers"], timeout=600, retries=1, on_result=record,
        spool=folder / "spool", engine=EngineSection(**told["engine"]),
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
