"""The engine with oracles that hang, crash, raise, return nonsense, and with parents that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import bad_oracles
import numpy as np
import pytest
from bad_oracles import ActingOracle

from naica.discover.engines import pool, run
from naica.discover.engines.spool import Spool, fingerprint
from naica.discover.oracle import OracleResult, make_oracle
from naica.errors import InputError, RunError
from naica.structure import Crystal

HERE = Path(__file__).resolve().parent


def crystal(number: int, act: str = "answer", **info: Any) -> Crystal:
    """A rocksalt-like pair; each number is another crystal."""
    return Crystal([12, 8], [[0, 0, 0], [2.1, 0.01 * number, 0]], np.eye(3) * 4.2, info={"act": act, **info})


def jobs_of(*acts: str) -> dict[str, Crystal]:
    return {f"job-{k}": crystal(k, act) for k, act in enumerate(acts)}


def collect(oracle: Any, jobs: dict[str, Crystal], **options: Any) -> dict[str, OracleResult]:
    """Run and gather; a key reported twice is an error."""
    found: dict[str, OracleResult] = {}

    def keep(result: OracleResult) -> None:
        assert result.key not in found
        found[result.key] = result

    run(oracle, jobs, on_result=keep, **options)
    return found


def calls(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes find the bad oracles, however the tests were started."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))


# --- all that goes wrong at once -------------------------------------------------------------------------------------------------
ACTS = {
    "answer": ("converged", ""),
    "hang": ("timed out", "no answer within 8 s"),
    "crash": ("crashed", "exit code 3"),
    "kill": ("crashed", "SIGKILL"),
    "exit": ("failed", "SystemExit: enough"),
    "raise": ("failed", "no convergence in the electrons"),
    "nan": ("failed", "the energy is nan"),
    "none": ("failed", "instead of one result"),
    "other atoms": ("failed", "got {'Al': 1, 'F': 1}"),
    "overlap": ("failed", "atoms came within 0.00"),
    "sleep 0.2": ("converged", ""),
}


def test_every_bad_behaviour_ends_in_a_status() -> None:
    found = collect(ActingOracle(), {act: crystal(k, act) for k, act in enumerate(ACTS)}, workers=2, timeout=8.0, retries=0)
    assert set(found) == set(ACTS)
    for act, (status, reason) in ACTS.items():
        assert (found[act].status, reason in found[act].reason) == (status, True), found[act]
        assert found[act].attempts == 1
        assert (found[act].energy is None) == (status != "converged")
    assert found["answer"].energy == 20.0
    assert found["answer"].level == ActingOracle.level
    assert found["hang"].seconds == pytest.approx(8.0, abs=0.5)


@pytest.mark.slow
def test_a_hang_that_ignores_signals_is_killed() -> None:
    start = time.monotonic()
    found = collect(ActingOracle(), jobs_of("hang hard", "answer"), workers=1, timeout=1.5, retries=0)
    assert [found[k].status for k in ("job-0", "job-1")] == ["timed out", "converged"]
    assert time.monotonic() - start < 30


def test_retries(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = jobs_of("crash once", "memory once", "memory", "crash", "raise")
    found = collect(ActingOracle(str(log)), jobs, workers=1, timeout=20.0, retries=2)
    assert {k: (r.status, r.attempts) for k, r in found.items()} == {
        "job-0": ("converged", 2),
        "job-1": ("converged", 2),
        "job-2": ("failed", 3),
        "job-3": ("crashed", 3),
        "job-4": ("failed", 1),
    }
    assert [calls(log).count(c.hash) for c in jobs.values()] == [2, 2, 3, 3, 1]
    assert "(3 attempts)" in found["job-3"].reason


def test_equal_crystals_are_computed_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    one = crystal(1)
    jobs = {"a": one, "b": one.replace(info={"act": "answer", "note": 1}), "c": crystal(2), "d": one}
    found = collect(ActingOracle(str(log)), jobs, workers=2, timeout=20.0)
    assert len(calls(log)) == 2
    assert {k: r.energy for k, r in found.items()} == dict.fromkeys("abcd", 20.0)
    assert [found[k].attempts for k in "abd"] == [1, 0, 0]
    assert [found[k].seconds > 0 for k in "abd"] == [True, False, False]


def test_workers_are_persistent_and_have_one_thread() -> None:
    oracle = make_oracle("bad_oracles:reporting")
    found = collect(oracle, {str(k): crystal(k) for k in range(6)}, workers=2, timeout=30.0)
    told = [r.reason.split() for r in found.values()]
    assert 1 <= len({pid for pid, _ in told}) <= 2
    assert {threads for _, threads in told} == {"1"}
    assert str(os.getpid()) not in {pid for pid, _ in told}


# --- in this process -----------------------------------------------------------------------------------------------------------
def test_in_process(tmp_path: Path) -> None:
    acts = ("answer", "hang", "raise", "nan", "exit", "memory once", "none")
    found = collect(ActingOracle(str(tmp_path / "log")), jobs_of(*acts), workers=0, timeout=1.5, retries=1)
    assert [r.status for r in found.values()] == ["converged", "timed out", "failed", "failed", "failed", "converged", "failed"]
    assert list(found) == [f"job-{k}" for k in range(len(acts))]
    assert found["job-1"].attempts == 2


def test_in_process_leaves_the_alarm_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM)
    collect(ActingOracle(), jobs_of("answer"), workers=0, timeout=5.0)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


# --- the spool ------------------------------------------------------------------------------------------------------------------
def test_results_lie_in_the_spool_until_delivered(tmp_path: Path) -> None:
    oracle = ActingOracle()
    lying: list[bool] = []

    def keep(result: OracleResult) -> None:
        lying.append(Spool(tmp_path, fingerprint(oracle)).path(result.key).exists())

    for workers in (0, 1):
        run(oracle, jobs_of("answer", "raise"), workers=workers, timeout=20.0, on_result=keep, spool=tmp_path)
    assert lying == [True] * 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_what_lies_in_the_spool_is_not_paid_again(tmp_path: Path, workers: int) -> None:
    log = tmp_path / "log"
    oracle, jobs = ActingOracle(str(log)), jobs_of("answer", "raise", "answer")

    def stop(result: OracleResult) -> None:
        raise RunError("disk full")

    with pytest.raises(RunError, match="disk full"):
        run(oracle, jobs, workers=workers, timeout=20.0, on_result=stop, spool=tmp_path / "spool")
    kept = [path.stem for path in (tmp_path / "spool").glob("[!.]*.json")]
    assert kept
    found = collect(oracle, jobs, workers=workers, timeout=20.0, spool=tmp_path / "spool")
    assert [r.status for r in (found[f"job-{k}"] for k in range(3))] == ["converged", "failed", "converged"]
    # a call that was under way when the run stopped may begin anew; one that lay finished in the spool may not
    assert 3 <= len(calls(log)) <= 3 + workers
    assert [calls(log).count(jobs[key].hash) for key in kept] == [1] * len(kept)
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_spool_keeps_everything_exactly(tmp_path: Path) -> None:
    asked = crystal(3, name="ä")
    out = asked.replace(positions=asked.positions * np.pi, cell=asked.cell / 3)
    forces, stress = np.random.default_rng(0).normal(size=(2, 3)), np.random.default_rng(1).normal(size=(3, 3))
    result = OracleResult("k", "converged", "fine", out, -1 / 3, forces, stress, 0.1, ActingOracle.level, 2, True)
    spool = Spool(tmp_path / "deep" / "spool", "me")
    spool.put("k", asked, result)
    back = spool.get("k", asked)
    assert back is not None
    assert back.crystal is not None
    assert back.forces is not None
    assert back.stress is not None
    np.testing.assert_array_equal(back.crystal.positions, out.positions)
    np.testing.assert_array_equal(back.crystal.cell, out.cell)
    np.testing.assert_array_equal(back.forces, forces)
    np.testing.assert_array_equal(back.stress, stress)
    assert back.crystal.info == asked.info
    plain = replace(back, crystal=None, forces=None, stress=None)
    assert plain == replace(result, crystal=None, forces=None, stress=None)


def test_foreign_and_damaged_spool_files_are_not_believed(tmp_path: Path) -> None:
    asked = crystal(1)
    result = OracleResult("k", "converged", "", asked, 1.0, None, None, 0.1, ActingOracle.level)
    spool = Spool(tmp_path, "me")
    spool.put("k", asked, result)
    assert spool.get("k", asked) is not None
    assert spool.get("k", crystal(2)) is None
    assert Spool(tmp_path, "another oracle").get("k", asked) is None
    whole = spool.path("k").read_text()
    for damage in ("", whole[: len(whole) // 2], "[]", "{}", "\x00"):
        spool.path("k").write_text(damage)
        assert spool.get("k", asked) is None


def test_keys_that_are_no_file_names(tmp_path: Path) -> None:
    jobs = {key: crystal(k) for k, key in enumerate(["../../x", "a/b", "ü" * 300, ".", "", "plain"])}
    spool = Spool(tmp_path / "spool", "me")
    assert len({spool.path(key) for key in jobs}) == len(jobs)
    assert all(spool.path(key).parent == tmp_path / "spool" for key in jobs)
    assert set(collect(ActingOracle(), jobs, workers=0, spool=tmp_path / "spool")) == set(jobs)


def test_a_spool_that_cannot_be_written_loses_no_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    found = collect(ActingOracle(), jobs_of("answer"), workers=0, spool=tmp_path / "spool")
    assert found["job-0"].status == "converged"
    assert "not kept" in capfd.readouterr().err


# --- death ------------------------------------------------------------------------------------------------------------------------
DRIVER = """
import signal, sys, time
from naica.discover.engines import run
from bad_oracles import ActingOracle
from test_engines import crystal
folder, log, act = sys.argv[1:]
# tests that were started in the background hand down that interrupts are ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
jobs = {str(k): crystal(k, act) for k in range(4)}
# whoever records the results takes for ever, so finished ones pile up in the spool
run(ActingOracle(log), jobs, workers=2, timeout=60, spool=folder, on_result=lambda result: time.sleep(1e4))
"""


def started(tmp_path: Path, act: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    arguments = [sys.executable, "-c", DRIVER, str(tmp_path / "spool"), str(tmp_path / "log"), act]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


def children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task")
    return {int(c) for t in tasks.iterdir() for c in (t / "children").read_text().split()} if tasks.exists() else set()


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Any, seconds: float = 40.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("act", ["hang", pytest.param("hang hard", marks=pytest.mark.slow)])
def test_no_worker_outlives_a_killed_parent(tmp_path: Path, act: str) -> None:
    parent = started(tmp_path, act)
    try:
        assert wait_for(lambda: len(calls(tmp_path / "log")) >= 2)
        family = children(parent.pid)
        assert len(family) >= 2
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not any(alive(pid) for pid in family), 10.0)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_interrupt_is_clean(tmp_path: Path) -> None:
    parent = started(tmp_path, "hang")
    try:
        assert wait_for(lambda: len(calls(tmp_path / "log")) >= 2)
        family = children(parent.pid)
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(timeout=20) != 0
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not any(alive(pid) for pid in family), 10.0)


def test_calls_finished_while_the_parent_was_killed_are_not_repeated(tmp_path: Path) -> None:
    spool, log = tmp_path / "spool", tmp_path / "log"
    parent = started(tmp_path, "sleep 0.2")
    try:
        assert wait_for(lambda: spool.exists() and len(list(spool.glob("[!.]*.json"))) >= 3)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: False, 0.5)
    finished = {path.stem for path in spool.glob("[!.]*.json")}
    before = len(calls(log))
    jobs = {str(k): crystal(k, "sleep 0.2") for k in range(4)}
    found = collect(ActingOracle(str(log)), jobs, workers=0, timeout=60.0, spool=spool)
    assert {r.status for r in found.values()} == {"converged"}
    assert set(found) == set(jobs)
    assert sorted(calls(log)[before:]) == sorted(jobs[key].hash for key in set(jobs) - finished)
    assert not list(spool.glob("[!.]*.json"))


SCRIPT = """
from naica.discover.engines import run
from bad_oracles import ActingOracle
from test_engines import crystal
run(ActingOracle(), {"a": crystal(0)}, workers=1, timeout=60, on_result=lambda r: print("got", r.status))
"""


def test_scripts_without_a_main_guard_work(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(HERE)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "got converged\n"), done.stderr


# --- oracles that cannot even start --------------------------------------------------------------------------------------------
def test_an_oracle_that_cannot_travel() -> None:
    oracle = ActingOracle()
    oracle.handle = open(os.devnull)  # type: ignore[attr-defined]  # noqa: SIM115
    try:
        with pytest.raises(InputError, match="cannot travel to worker processes"):
            run(oracle, jobs_of("answer"), workers=1)
    finally:
        oracle.handle.close()  # type: ignore[attr-defined]


def test_an_oracle_that_raises_while_loading() -> None:
    with pytest.raises(RunError, match=r"cannot be loaded.*weights are missing"):
        run(ActingOracle(warm="raise"), jobs_of("answer"), workers=1, timeout=20.0)


@pytest.mark.parametrize("how", ["crash", pytest.param("hang", marks=pytest.mark.slow)])
def test_an_oracle_that_dies_while_loading(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LOAD_LIMIT", 1.0)
    monkeypatch.setattr(pool, "_RESTARTS", 2)
    with pytest.raises(RunError, match="die while loading oracle 'acting', 2 times"):
        run(ActingOracle(warm=how), jobs_of("answer"), workers=1, timeout=20.0)


def test_senseless_numbers() -> None:
    for wrong in ({"workers": -1}, {"retries": -1}, {"timeout": 0.0}):
        with pytest.raises(InputError, match="expected"):
            run(ActingOracle(), jobs_of("answer"), **wrong)


def test_no_jobs_start_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_pool", lambda *a: pytest.fail("a pool was made for nothing"))
    run(ActingOracle(), {}, workers=2)


def test_factories_of_this_module_are_importable() -> None:
    assert isinstance(make_oracle("bad_oracles:make", log="x"), bad_oracles.ActingOracle)


# --- clocks that are set ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("jump", "act", "timeout", "status"), [(3600.0, "sleep 0.2", 60.0, "converged"), (-3600.0, "hang", 2.0, "timed out")]
)
def test_setting_the_clock_changes_nothing(jump: float, act: str, timeout: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, looks = time.time, iter(range(10**9))
    # the clock on the wall is set by an hour each time anybody in this process looks at it
    monkeypatch.setattr(time, "time", lambda: usual() + jump * next(looks))
    found = collect(ActingOracle(), jobs_of(act), workers=1, timeout=timeout, retries=0)
    assert found["job-0"].status == status
