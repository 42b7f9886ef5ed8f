"""The engines on a real Slurm of one node; skipped where Slurm is not installed (Debian: apt-get install slurm-wlm munge)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_node
from engine_drive import Drive, kill_group, processes, until
from slurm_node import Slurm, slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(slurm_node.missing()), reason=f"no Slurm here: {', '.join(slurm_node.missing())} not found"),
]


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm") / "node") as one:
        yield one


def dask(folder: Path, count: int, seconds: float) -> Drive:
    job = {"memory": "1GiB", "walltime": "0:30:00"}
    return Drive(folder, count, seconds, {"name": "dask", "queue": "slurm", "jobs": 2, "job": job, "interface": "lo"})


def test_dask_on_slurm_with_a_job_cancelled(tmp_path: Path, node: Slurm) -> None:
    pytest.importorskip("dask_jobqueue", reason='dask-jobqueue is not installed: pip install "naica[dask]"')
    drive = dask(tmp_path / "run", 8, 1.5)
    process = drive.start(SLURM_CONF=node.environment["SLURM_CONF"])
    try:
        until(lambda: len(drive.done()) >= 2)
        cancelled = node.jobs("RUNNING")[0]
        node.run("scancel", cancelled)
        assert process.wait(900) == 0, drive.said()
    finally:
        if process.poll() is None:
            kill_group(process)
    assert drive.done() == {f"job-{k}": 1 for k in range(8)}
    assert sum(drive.begun().values()) <= 8 + 1, "only the call of the cancelled job begins anew"
    until(lambda: not node.jobs(), 60, "for worker jobs to leave the queue")


def test_dask_driver_killed_and_slurm_started_anew(tmp_path: Path, node: Slurm) -> None:
    pytest.importorskip("dask_jobqueue", reason='dask-jobqueue is not installed: pip install "naica[dask]"')
    drive = dask(tmp_path / "run", 6, 1.5)
    process = drive.start(SLURM_CONF=node.environment["SLURM_CONF"])
    until(lambda: len(drive.done()) >= 2)
    kill_group(process)
    # a machine that restarts: the queue's daemons die, and every job with them
    node.kill(signal.SIGKILL, "slurmctld", "slurmd")
    for pid in processes("SLURM_CONF", node.environment["SLURM_CONF"]):
        if b"dask_worker" in Path(f"/proc/{pid}/cmdline").read_bytes() or b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            kill(pid)
    node.start()
    drive.finish(SLURM_CONF=node.environment["SLURM_CONF"])
    assert sum(drive.begun().values()) <= 6 + 2 + 2


def test_aiida_on_slurm_with_a_job_cancelled(tmp_path: Path, node: Slurm) -> None:
    pytest.importorskip("aiida", reason="AiiDA is not installed: make aiida")
    job = {"memory": "1GiB", "walltime": "0:30:00"}
    drive = Drive(tmp_path / "run", 4, 3.0, {"name": "aiida", "queue": "slurm", "jobs": 2, "job": job})
    process = drive.start(SLURM_CONF=node.environment["SLURM_CONF"])
    try:
        until(lambda: len(drive.callers()) >= 1)
        node.run("scancel", node.jobs("RUNNING")[0])
        assert process.wait(900) == 0, drive.said()
    finally:
        if process.poll() is None:
            kill_group(process)
    assert drive.done() == {f"job-{k}": 1 for k in range(4)}
    assert sum(drive.begun().values()) <= 4 + 1


def kill(pid: int) -> None:
    import os
    from contextlib import suppress

    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
