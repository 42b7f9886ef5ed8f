"""AiiDA as an engine: provenance, and drivers, daemons and machines killed on the way; nothing lost, nothing paid twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from bad_oracles import ActingOracle
from engine_drive import PATH, Drive, crystals, kill_group, processes, until
from test_engines import jobs_of

from naica.discover.config import EngineSection
from naica.discover.engines import run
from naica.errors import MissingPart

installed = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import aiida"], capture_output=True, check=False).returncode != 0,
    reason="AiiDA is not installed: make aiida",
)


def test_no_aiida_in_plain_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "aiida", None)
    with pytest.raises(MissingPart, match=r"pip install .naica\[aiida\]"):
        run(ActingOracle(), jobs_of("answer"), engine=EngineSection(name="aiida"), folder=tmp_path)


LOOK = """
import sys
from aiida import load_profile
load_profile("naica")
from aiida.orm import CalcJobNode, QueryBuilder
for (node,) in QueryBuilder().append(CalcJobNode).order_by({CalcJobNode: "id"}).all():
    asked, given = node.inputs, node.outputs
    protocol = asked.protocol
    print(node.label.split()[0], node.exit_status, asked.structure.get_formula(), protocol["oracle"], protocol["settings"]["fmax"],
          given.result["status"], given.result["energy"], given.structure.get_formula(), given.arrays.get_array("forces").shape)
"""


def look(folder: Path) -> list[list[str]]:
    """The provenance, as AiiDA itself tells it."""
    env = {**os.environ, "AIIDA_PATH": str(folder / "engine"), "PYTHONPATH": PATH}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LOOK], env=env, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def daemon_of(drive: Drive) -> list[int]:
    """Processes of the daemon (not of jobs) of a run folder's own profile."""
    found = []
    for pid in processes("AIIDA_PATH", str(drive.folder / "engine" / ".aiida")):
        with suppress(OSError):
            if b"verdi" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@installed
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_driver_killed_pays_nothing_twice_and_provenance_tells_all(tmp_path: Path) -> None:
    drive = Drive(tmp_path / "run", 3, 4.0, {"name": "aiida"})
    process = drive.start()
    try:
        until(lambda: len(drive.begun()) >= 2)
    finally:
        kill_group(process)
    # the daemon and the jobs are no children of the driver: they go on, and the same command takes them up
    drive.finish()
    assert drive.begun() == dict.fromkeys((c.hash for c in crystals(3).values()), 1)
    told = {row[0]: row for row in look(drive.folder)}
    assert set(told) == {"job-0", "job-1", "job-2"}
    energies = drive.energies()
    for name, row in told.items():
        assert row[1:3] == ["0", "Cu" if name == "job-1" else "Au"]
        assert row[3] == "emt"
        assert row[5] == "converged"
        assert float(row[6]) == pytest.approx(energies[name], rel=1e-12)  # AiiDA keeps 15 digits, the ledger all
        assert row[8:] == ["(1,", "3)"]
    assert not daemon_of(drive), "the daemon of the run's own profile ends with the run"


@installed
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_daemon_killed_is_started_anew_and_goes_on(tmp_path: Path) -> None:
    drive = Drive(tmp_path / "run", 3, 4.0, {"name": "aiida"})
    process = drive.start()
    try:
        until(lambda: len(drive.begun()) >= 1)
        kill_all(daemon_of(drive))
        assert process.wait(900) == 0, drive.said()
    finally:
        if process.poll() is None:
            kill_group(process)
            kill_all(daemon_of(drive))
    assert drive.done() == {f"job-{k}": 1 for k in range(3)}
    assert drive.begun() == dict.fromkeys((c.hash for c in crystals(3).values()), 1)


@installed
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_machine_restart(tmp_path: Path) -> None:
    drive = Drive(tmp_path / "run", 3, 4.0, {"name": "aiida"}, workers=1)
    process = drive.start()
    until(lambda: len(drive.begun()) >= 2)
    # the second call is under way, the first one is recorded
    kill_group(process)
    kill_all(processes("AIIDA_PATH", str(drive.folder / "engine" / ".aiida")))
    time.sleep(0.5)
    drive.finish()
    again = drive.begun()
    assert sum(again.values()) <= 3 + 1, "only the call under way begins anew"
    assert again[crystals(3)["job-0"].hash] == 1


@installed
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_matrices_by_aiida_are_those_of_the_pool(tmp_path: Path) -> None:
    import numpy as np

    from naica.discover.engines.matrices import AiidaMatrices
    from naica.hamiltonian import workflow

    one = crystals(1)["job-0"]
    odd = one.replace(numbers=np.array([54]))
    jobs, settings = {"gold": one, "odd": odd}, {"shells": "1s1p", "cutoff": 4.0}
    engine = AiidaMatrices(EngineSection(name="aiida"), tmp_path / "set" / "engine", 2)
    found = workflow.make(list(jobs.values()), tmp_path / "set", "slater-koster", settings, names=list(jobs), engine=engine, retries=0)
    plain = workflow.make(list(jobs.values()), tmp_path / "plain", "slater-koster", settings, names=list(jobs), workers=1, retries=0)
    assert sorted(found.names) == sorted(plain.names) == ["gold", "odd"]
    for k, name in enumerate(found.names):
        there = plain[list(plain.names).index(name)]
        np.testing.assert_allclose(found[k].blocks["H"], there.blocks["H"], atol=1e-12)
    assert workflow.failures(tmp_path / "set") == {}
