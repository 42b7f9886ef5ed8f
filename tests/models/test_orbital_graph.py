"""The orbital graph network: what must not matter, and a gap it can know exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from naica.data import CrystalTable, Label
from naica.errors import ConfigError
from naica.graphs import Batch, GraphSet
from naica.models import backbone
from naica.structure import Crystal
from naica.structure.orbitals import HBAR2_OVER_M
from naica.training import TrainConfig, train
from naica.training.evaluation import evaluate


def chain(first: float, second: float) -> Crystal:
    """Two lithium atoms per cell on a line, bonds of two lengths: a gap of 2 |t₁ − t₂| between two s bands."""
    cell = np.diag([first + second, 30.0, 30.0])
    return Crystal(np.array([3, 3]), np.array([[0.0, 0, 0], [first, 0, 0]]), cell, np.array([True, False, False]), {})


def gap(first: float, second: float) -> float:
    return 2 * 1.40 * HBAR2_OVER_M * abs(first**-2 - second**-2)


def permuted(batch: Batch, order: torch.Tensor) -> Batch:
    """The same batch with its orbitals in another order."""
    place = torch.argsort(order)
    edges = torch.argsort(place[batch["orbital_edge_receiver"]], stable=True)
    new = {k: batch[k][order] for k in ("orbital_atom", "orbital_shell", "orbital_energy", "orbital_filling", "orbital_system")}
    for key in ("orbital_edge_coupling", "orbital_edge_gap", "orbital_edge_system"):
        new[key] = batch[key][edges]
    for key in ("orbital_edge_receiver", "orbital_edge_sender"):
        new[key] = place[batch[key]][edges]
    return Batch({**batch, **new})


def test_the_order_of_orbitals_does_not_matter() -> None:
    model = backbone("orbital-graph", width=16)
    cell = np.eye(3) * 4.2
    salt = Crystal(np.array([12, 8]), np.array([[0, 0, 0], [2.1, 0, 0]]), cell, np.ones(3, bool), {})
    batch = GraphSet.build([salt, chain(2.5, 3.0)], model.needs).batch([0, 1])
    order = torch.randperm(batch.count("orbital"), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(permuted(batch, order))["atom"], model(batch)["atom"])


def test_couplings_matter() -> None:
    model = backbone("orbital-graph", width=16)
    graphs = GraphSet.build([chain(2.5, 3.0), chain(2.4, 3.1)], model.needs)
    atoms = model(graphs.batch([0, 1]))["atom"]
    assert (atoms[0] - atoms[2]).abs().max() > 1e-3


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError):
        backbone("orbital-graph", layers=0)


@pytest.mark.slow
def test_chains_with_a_gap_are_told_from_those_without() -> None:
    """Acceptance: two-band chains, gap 2 |t₁ − t₂| known exactly, classified above 99 %."""
    draw = np.random.default_rng(0)
    lengths = draw.uniform(2.2, 3.2, size=(1200, 2))
    gaps = np.array([gap(*pair) for pair in lengths])
    # those at the threshold are a coin toss for any finite training
    clear = np.abs(gaps - 1.0) > 0.03
    lengths, gaps = lengths[clear], gaps[clear]
    table = CrystalTable.from_crystals(
        [chain(*pair) for pair in lengths],
        {"metal": (gaps < 1.0).astype(float)},
        {"metal": Label.of("is_metal")},
        ids=[str(k) for k in range(len(gaps))],
    )
    rows = draw.permutation(len(gaps))
    n = len(rows)

    class Parts:
        train, val, test = rows[: n // 2], rows[n // 2 : 3 * n // 4], rows[3 * n // 4 :]

    config = TrainConfig("orbital-graph", {"width": 24, "layers": 2, "gaussians": 24, "cutoff": 4.0}, epochs=40, batch_size=32)
    model = train(table, "metal", config, Parts, progress=False)
    found = evaluate(model, table, "metal", rows=Parts.test).metrics
    assert found.accuracy is not None
    assert found.accuracy > 0.99
