"""A small world in which labels are a known function of structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from naica.data import CrystalTable, Label, Level
from naica.structure import Crystal

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
METALS, ANIONS = (3, 11, 12, 19, 20), (8, 9, 16, 17)
LEVEL = Level("PBE", corrections="test")
OTHER = Level("r2SCAN", corrections="test")


@dataclass(frozen=True)
class Parts:
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def energy(crystal: Crystal) -> float:
    """A smooth law: a well in the volume whose depth depends on the elements."""
    size = crystal.volume / len(crystal)
    a, b = (int(z) for z in sorted(crystal.numbers)[:: len(crystal) - 1])
    return -0.02 * (a % 8 + 3) * (b % 7 + 1) + 0.004 * (size - 18) ** 2


def make(n: int, seed: int = 0) -> list[Crystal]:
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        numbers = np.array([draw.choice(METALS), draw.choice(ANIONS)])
        fractional = np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) + 0.01 * draw.normal(size=(2, 3))
        found.append(Crystal.from_fractional(numbers, fractional, draw.uniform(4.6, 6.0) * FCC))
    return found


@pytest.fixture(scope="session")
def table() -> CrystalTable:
    crystals = make(80)
    label = Label.of("formation_energy_per_atom", LEVEL)
    values = [energy(c) for c in crystals]
    return CrystalTable.from_crystals(crystals, {"e": values, "free": values}, {"e": label}, ids=[f"c{k}" for k in range(80)])


@pytest.fixture(scope="session")
def parts() -> Parts:
    rows = np.arange(80)
    return Parts(rows[:50], rows[50:65], rows[65:])


SMALL = {"architecture_config": {"width": 16, "layers": 1}, "tensorboard": False, "batch_size": 16, "ema": 0.9}


@pytest.fixture(scope="session")
def trained(table, parts):
    from naica.training import TrainConfig, train

    config = TrainConfig(**SMALL, epochs=15, members=3, learning_rate=1e-2)
    return train(table, "e", config, parts, progress=False)
