"""Oracles that misbehave on purpose. What happens is told by the crystal's ``info["act"]``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from naica.data.labels import Level
from naica.discover.oracle import OracleResult
from naica.structure import Crystal


class ActingOracle:
    """Does what each crystal says; leaves one line per call in `log`."""

    name = "acting"
    level = Level(functional="acting")

    def __init__(self, log: str | None = None, warm: str = "") -> None:
        self.log = log
        self._warm = warm

    def warm(self) -> None:
        if self._warm == "crash":
            os._exit(7)
        if self._warm == "hang":
            time.sleep(1e4)
        if self._warm == "raise":
            raise RuntimeError("weights are missing")

    def evaluate(self, crystals: Sequence[Crystal]) -> list[OracleResult]:
        return [self._one(c) for c in crystals]

    def _one(self, crystal: Crystal) -> OracleResult:
        act = str(crystal.info.get("act", "answer"))
        before = 0
        if self.log:
            path = Path(self.log)
            before = path.read_text().split().count(crystal.hash) if path.exists() else 0
            with path.open("a") as handle:
                handle.write(f"{crystal.hash} ")
        energy = float(crystal.numbers.sum())
        if act == "hang":
            time.sleep(1e4)
        elif act == "hang hard":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                pass
        elif act == "crash" or (act == "crash once" and not before):
            os._exit(3)
        elif act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "exit":
            raise SystemExit("enough")
        elif act == "raise":
            raise ValueError("no convergence in the electrons")
        elif act == "memory" or (act == "memory once" and not before):
            raise MemoryError("too big")
        elif act.startswith("sleep"):
            time.sleep(float(act.split()[1]))
        elif act == "nan":
            energy = float("nan")
        elif act == "none":
            return None  # type: ignore[return-value]
        out = crystal
        if act == "other atoms":
            out = crystal.replace(numbers=crystal.numbers + 1)
        elif act == "overlap":
            out = crystal.replace(positions=np.zeros_like(crystal.positions))
        return OracleResult(crystal.hash, "converged", "", out, energy, np.zeros((len(crystal), 3)), None, 0.0, self.level)


def make(log: str | None = None, warm: str = "") -> ActingOracle:
    return ActingOracle(log, warm)


def make_calculator(slow: float = 0.0):  # type: ignore[no-untyped-def]
    from ase.calculators.emt import EMT

    return EMT()


def not_an_oracle() -> int:
    return 3


class ReportingOracle(ActingOracle):
    """Tells in `reason` which process answered and how many threads its libraries were given."""

    def _one(self, crystal: Crystal) -> OracleResult:
        told = f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}"
        return OracleResult(crystal.hash, "converged", told, crystal, 1.0, None, None, 0.0, self.level)


def reporting() -> ReportingOracle:
    return ReportingOracle()
