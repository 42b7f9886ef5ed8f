"""A real Slurm of one node for tests: munged, slurmctld and slurmd started by hand in a folder, without systemd or files of root."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
CONFIGURATION = """
ClusterName=naica
SlurmctldHost={host}(127.0.0.1)
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=65536 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs of Slurm that are not here."""
    return [name for name in PARTS if _program(name) is None]


class Slurm:
    """A running Slurm; its commands find it by ``SLURM_CONF``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen] = {}
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(host=host, folder=folder, user=getpass.getuser(), ports=[_free_port(), _free_port()])
        )
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start what does not run, and wait until the node takes jobs."""
        f = self.folder
        commands = {
            "munged": ["--foreground", "--force", f"--key-file={f}/munge.key", f"--socket={f}/munge.socket", f"--pid-file={f}/munge.pid",
                       f"--log-file={f}/munge.log", f"--seed-file={f}/munge.seed"],
            "slurmctld": ["-D"],
            "slurmd": ["-D"],
        }  # fmt: skip
        for name, arguments in commands.items():
            if name not in self.processes or self.processes[name].poll() is not None:
                with (f / f"{name}.out").open("ab") as out:
                    self.processes[name] = subprocess.Popen([str(_program(name)), *arguments], env=self.environment, stdout=out, stderr=out)
                _until((f / "munge.socket").exists, 60)
        _until(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T") or "mix" in self.run("sinfo", "-h", "-o", "%T"), 120)

    def stop(self) -> None:
        """End jobs and daemons."""
        self.run("scancel", f"--user={getpass.getuser()}")
        with suppress(AssertionError):
            _until(lambda: not self.jobs(), 30)
        self.kill(signal.SIGTERM)

    def kill(self, how: int = signal.SIGKILL, *names: str) -> None:
        """End daemons, all or some."""
        for name in reversed(names or tuple(self.processes)):
            self.processes[name].send_signal(how)
            try:
                self.processes[name].wait(30)
            except subprocess.TimeoutExpired:
                self.processes[name].kill()
                self.processes[name].wait()

    def run(self, *command: str) -> str:
        """The output of one of Slurm's commands."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False).stdout

    def jobs(self, state: str = "") -> list[str]:
        """Numbers of the jobs in the queue."""
        return self.run("squeue", "-h", "-o", "%i", *(["-t", state] if state else [])).split()


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A Slurm while the block lasts."""
    node = Slurm(folder)
    try:
        node.start()
        yield node
    finally:
        node.stop()


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "Slurm does not start"
        time.sleep(0.2)
