"""The crystals that the benchmarks of graphs and of CGCNN work on."""

from __future__ import annotations

import numpy as np

from naica.data import CrystalTable
from naica.errors import NaicaError
from naica.structure import Crystal


def sample(count: int, max_atoms: int = 24, seed: int = 0) -> CrystalTable:
    """`count` crystals of the mp_formation set (about 9 atoms on average); made-up perovskite and salt cells where it is absent."""
    random = np.random.default_rng(seed)
    try:
        from naica.data.registry import load_set

        table = load_set("mp_formation")
    except NaicaError:
        return CrystalTable.from_crystals([_made_up(random) for _ in range(count)])
    small = np.flatnonzero(table.flat()[0] <= max_atoms)
    return table.take(random.choice(small, count, replace=False))


def _made_up(random: np.random.Generator) -> Crystal:
    a = random.uniform(3.7, 4.4)
    fractional = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    numbers = [*random.integers(3, 57, 2), 8, 8, 8]
    cell = Crystal.from_fractional(numbers, fractional, np.eye(3) * a).supercell((int(random.integers(1, 4)), 1, 1))
    return cell.replace(positions=cell.positions + random.normal(0, 0.02, cell.positions.shape))
