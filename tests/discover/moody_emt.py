"""An oracle for tests that misbehaves by composition: hangs, crashes, answers NaN, raises."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from naica.discover.oracle import CalculatorOracle, OracleResult
from naica.structure import Crystal


class MoodyEMT(CalculatorOracle):
    def __init__(self) -> None:
        super().__init__("emt", fmax=0.05, steps=100)

    def evaluate(self, crystals: Sequence[Crystal]) -> list[OracleResult]:
        (crystal,) = crystals
        gold = crystal.composition.get("Au", 0) / len(crystal)
        if gold == 0.25:
            os._exit(3)
        if gold == 0.5:
            time.sleep(1000)
        (result,) = super().evaluate(crystals)
        if gold == 0.75:
            return [replace(result, energy=float("nan"))]
        if 0 < gold < 1:
            raise RuntimeError("not in the mood")
        return [result]


def make() -> MoodyEMT:
    return MoodyEMT()
