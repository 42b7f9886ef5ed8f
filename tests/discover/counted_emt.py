"""An oracle for tests: EMT that takes a little longer and writes down each call it begins."""

import os
import time
from collections.abc import Sequence

from naica.discover.oracle import CalculatorOracle, OracleResult
from naica.structure import Crystal


class CountedEMT(CalculatorOracle):
    def __init__(self, log: str, seconds: float) -> None:
        super().__init__("emt", fmax=0.05, steps=100)
        self.log, self.delay = log, seconds

    def evaluate(self, crystals: Sequence[Crystal]) -> list[OracleResult]:
        for crystal in crystals:
            with open(self.log, "a") as handle:
                handle.write(f"{crystal.hash} {os.getpid()}\n")
        time.sleep(self.delay)
        return super().evaluate(crystals)


def make(log: str, seconds: float = 0.0) -> CountedEMT:
    return CountedEMT(log, seconds)
