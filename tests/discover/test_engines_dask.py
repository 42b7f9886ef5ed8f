"""Dask as an engine: workers, drivers and schedulers killed on the way; nothing lost, nothing paid twice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_oracles import ActingOracle
from engine_drive import PATH, Drive, crystals, kill_group, until
from test_engines import collect, jobs_of

from naica.discover.config import EngineSection, engine_named
from naica.discover.engines import run
from naica.errors import ConfigError, InputError, MissingPart, RunError

pytest.importorskip("distributed", reason='Dask is not installed: pip install "naica[dask]"')


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PATH)


class Cluster:
    """A scheduler and a worker, started by hand as a user would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
        self.running: dict[str, subprocess.Popen] = {}

    def start(self, *names: str) -> None:
        port = self.address.rpartition(":")[2]
        commands = {
            "scheduler": ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"],
            "worker": ["distributed.cli.dask_worker", self.address, "--nthreads", "2", "--no-dashboard", "--local-directory",
                       str(self.folder)],
        }  # fmt: skip
        for name in names:
            module, *arguments = commands[name]
            code = f"from {module} import main; main()"
            with (self.folder / f"{name}.out").open("ab") as out:
                self.running[name] = subprocess.Popen(
                    [sys.executable, "-c", code, *arguments], stdout=out, stderr=out, start_new_session=True,
                    env={**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"},
                )  # fmt: skip

    def kill(self, *names: str) -> None:
        for name in names or tuple(self.running):
            if self.running[name].poll() is None:
                kill_group(self.running[name])


@pytest.fixture
def cluster(tmp_path: Path):
    one = Cluster(tmp_path)
    one.start("scheduler", "worker")
    yield one
    one.kill()


# --- words ---------------------------------------------------------------------------------------------------------------------
def test_engines_by_name() -> None:
    plain = EngineSection()
    assert engine_named("dask", plain).name == "dask"
    assert engine_named("dask:tcp://h:8786", plain).scheduler == "tcp://h:8786"
    assert engine_named("dask:slurm", plain).queue == "slurm"
    assert engine_named("aiida:mine", plain).profile == "mine"
    for wrong in ("spark", "pool:2", "here:there", ""):
        with pytest.raises(ConfigError, match="expected here, pool, dask"):
            engine_named(wrong, plain)


def test_no_dask_and_no_scheduler_in_plain_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no Dask scheduler file .*dask scheduler --scheduler-file"):
        run(ActingOracle(), jobs_of("answer"), engine=EngineSection(name="dask", scheduler=str(tmp_path / "x.json")), folder=tmp_path)
    if not __import__("shutil").which("qsub"):
        with pytest.raises(RunError, match="this machine has no qsub"):
            run(ActingOracle(), jobs_of("answer"), engine=EngineSection(name="dask", queue="pbs"), folder=tmp_path)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPart, match=r"pip install .naica\[dask\]"):
        run(ActingOracle(), jobs_of("answer"), engine=EngineSection(name="dask"), folder=tmp_path)


def test_an_address_where_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from naica.discover.engines import dask

    monkeypatch.setattr(dask, "_REACH", 1.0)
    with pytest.raises(RunError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*the same command goes on"):
        run(ActingOracle(), jobs_of("answer"), engine=EngineSection(name="dask", scheduler="tcp://127.0.0.1:9"), folder=tmp_path)


def test_an_oracle_of_the_script_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActingOracle, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "ActingOracle", ActingOracle, raising=False)
    with pytest.raises(InputError, match="defined in the script itself"):
        run(ActingOracle(), jobs_of("answer"), engine=EngineSection(name="dask"), folder=tmp_path)


# --- at work -------------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_statuses_are_those_of_the_local_pool(tmp_path: Path) -> None:
    acts = ("answer", "crash once", "memory", "raise", "nan", "hang", "crash")
    found = collect(
        ActingOracle(str(tmp_path / "log")), jobs_of(*acts), workers=2, timeout=20.0, retries=1, engine=EngineSection(name="dask"),
        folder=tmp_path / "engine", spool=tmp_path / "spool",
    )  # fmt: skip
    assert [(found[f"job-{k}"].status, found[f"job-{k}"].attempts) for k in range(len(acts))] == [
        ("converged", 1), ("converged", 2), ("failed", 2), ("failed", 1), ("failed", 1), ("timed out", 2), ("crashed", 2),
    ]  # fmt: skip
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_workers_lose_only_the_calls_under_way(tmp_path: Path) -> None:
    drive = Drive(tmp_path / "run", 8, 1.5, {"name": "dask"})
    process = drive.start()
    try:
        for kills in (1, 2):
            # the caller's parent is the Dask worker; its death takes the caller along
            until(lambda least=kills: len(drive.done()) >= 2 * least and drive.callers())
            os.kill(parent_of(drive.callers()[-1]), 9)
        assert process.wait(900) == 0, drive.said()
    finally:
        if process.poll() is None:
            kill_group(process)
    assert drive.done() == {f"job-{k}": 1 for k in range(8)}
    assert sum(drive.begun().values()) <= 8 + 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_driver_killed_with_workers_of_its_own(tmp_path: Path) -> None:
    drive = Drive(tmp_path / "run", 6, 1.0, {"name": "dask"})
    process = drive.start()
    until(lambda: len(drive.done()) >= 2)
    kill_group(process)
    time.sleep(1.5)
    drive.finish()
    assert sum(drive.begun().values()) <= 6 + 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_driver_killed_while_workers_live_on_pays_nothing_twice(tmp_path: Path, cluster: Cluster) -> None:
    drive = Drive(tmp_path / "run", 6, 2.0, {"name": "dask", "scheduler": cluster.address})
    process = drive.start()
    until(lambda: len(drive.begun()) >= 3)
    kill_group(process)
    # at once: the calls of the killed driver are still under way, and the new one must wait for them instead of making them again
    drive.finish()
    assert drive.begun() == dict.fromkeys((c.hash for c in crystals(6).values()), 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_scheduler_killed_and_started_anew_while_the_driver_waits(tmp_path: Path, cluster: Cluster) -> None:
    drive = Drive(tmp_path / "run", 6, 1.0, {"name": "dask", "scheduler": cluster.address, "patience": 120})
    process = drive.start()
    try:
        until(lambda: len(drive.done()) >= 2)
        cluster.kill()
        time.sleep(1.0)
        cluster.start("scheduler", "worker")
        assert process.wait(900) == 0, drive.said()
    finally:
        if process.poll() is None:
            kill_group(process)
    assert "the Dask scheduler went away" in drive.said()
    assert drive.done() == {f"job-{k}": 1 for k in range(6)}
    assert sum(drive.begun().values()) <= 6 + 4, "only calls under way at the kill begin anew"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_scheduler_gone_for_good_is_said_and_nothing_is_lost(tmp_path: Path, cluster: Cluster) -> None:
    drive = Drive(tmp_path / "run", 6, 1.0, {"name": "dask", "scheduler": cluster.address, "patience": 3})
    process = drive.start()
    try:
        until(lambda: len(drive.done()) >= 2)
        cluster.kill()
        assert process.wait(500) != 0
    finally:
        if process.poll() is None:
            kill_group(process)
    assert "no Dask scheduler answers" in drive.said()
    assert "Traceback" in drive.said()  # the script's own; the command line shows the message alone
    before = drive.begun()
    Drive(tmp_path / "run", 6, 0.0, {"name": "here"}).finish()
    assert all(drive.begun()[crystals(6)[key].hash] == before[crystals(6)[key].hash] for key in list(drive.done())[:2])


def parent_of(pid: int) -> int:
    return int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("PPid")).split()[1])
