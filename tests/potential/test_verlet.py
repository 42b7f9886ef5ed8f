"""Lists with a skin never miss an edge, are rarely made again, and leave no trace in the numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.potential.systems import Systems
from naica.potential.verlet import Neighbours
from naica.structure import Crystal

CUTOFF = 4.0


def crystal(seed: int, n: int = 5, edge: float = 5.0, pbc: bool = True) -> Crystal:
    draw = np.random.default_rng(seed)
    cell = np.eye(3) * edge + 0.4 * draw.normal(size=(3, 3))
    return Crystal(np.full(n, 29), draw.uniform(size=(n, 3)) @ cell, cell if pbc else np.zeros((3, 3)))


def edges_of(batch) -> set:  # type: ignore[no-untyped-def]
    columns = (batch["edge_receiver"], batch["edge_sender"], *batch["edge_shift"].int().unbind(1))
    return set(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.6), st.floats(0, 0.12))
def test_no_edge_is_missed_whatever_atoms_and_cells_do(seed: int, move: float, strain: float) -> None:
    draw = np.random.default_rng(seed)
    systems = Systems.of([crystal(seed), crystal(seed + 1, pbc=False), crystal(seed + 2, n=2, edge=3.0)])
    lists = Neighbours(CUTOFF, skin=0.8)
    lists.batch(systems)
    for _ in range(4):
        stretch = torch.eye(3, dtype=torch.float64) + strain * torch.from_numpy(draw.normal(size=(3, 3)))
        whole = systems.pbc.all(dim=1)
        step = torch.from_numpy(draw.normal(size=systems.positions.shape))
        positions = torch.where(whole[systems.system][:, None], systems.positions @ stretch, systems.positions) + move * step
        cell = torch.where(whole[:, None, None], systems.cell @ stretch, systems.cell)
        systems = systems.replace(positions=positions, cell=cell)
        kept, complaints = lists.batch(systems)
        assert not complaints
        assert edges_of(kept) == edges_of(systems.batch(CUTOFF))


def test_the_numbers_do_not_depend_on_when_the_list_was_made() -> None:
    systems = Systems.of([crystal(3), crystal(4)])
    old = Neighbours(CUTOFF, skin=2.0)
    old.batch(systems)
    later = systems.replace(positions=systems.positions + 0.3 * torch.sin(torch.arange(30.0).double()).view(10, 3))
    a, b = old.batch(later)[0], Neighbours(CUTOFF, skin=0.3).batch(later)[0]
    assert old.made == 2
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_list_is_made_again_only_for_who_moved_far() -> None:
    systems, lists = Systems.of([crystal(5), crystal(6)]), Neighbours(CUTOFF, skin=1.0)
    lists.batch(systems)
    assert lists.made == 2
    near = systems.positions.clone()
    near[0] += 0.2
    lists.batch(systems.replace(positions=near))
    lists.batch(systems.replace(positions=systems.positions + 100.0))  # a common shift changes no distance
    lists.batch(systems.replace(positions=systems.positions * 1.005, cell=systems.cell * 1.005))
    assert lists.made == 2
    far = systems.positions.clone()
    far[0] += 1.0
    lists.batch(systems.replace(positions=far))
    assert lists.made == 3


def test_who_stays_keeps_the_list() -> None:
    systems, lists = Systems.of([crystal(7), crystal(8), crystal(9)]), Neighbours(CUTOFF)
    lists.batch(systems)
    lists.select([2, 0], added=1)
    others = Systems.join([systems.take([2, 0]), Systems.of(crystal(10))])
    batch, _ = lists.batch(others)
    assert lists.made == 4
    assert edges_of(batch) == edges_of(others.batch(CUTOFF))


def test_atoms_on_one_place_are_a_complaint_not_an_end() -> None:
    twins = Crystal([29, 29], np.zeros((2, 3)), np.eye(3) * 5)
    batch, complaints = Neighbours(CUTOFF).batch(Systems.of([crystal(11), twins]))
    assert list(complaints) == [1]
    assert "same place" in complaints[1]
    assert set(batch.system_of("edge").tolist()) == {0}


def test_senseless_radii() -> None:
    with pytest.raises(InputError, match="skin of at least 0"):
        Neighbours(4.0, -1.0)
