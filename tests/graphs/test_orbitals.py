"""Orbital graphs: levels, couplings, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.graphs import GraphSet, GraphSpec
from naica.structure import Crystal
from naica.structure.orbitals import HBAR2_OVER_M, couplings, valence_shells

SPEC = GraphSpec("nearest", 5.0, 12, levels=("orbitals",))


def half_heusler(turn: np.ndarray | None = None) -> Crystal:
    """TiNiSn, primitive cell."""
    cell = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 5.93
    turned = cell if turn is None else cell @ turn.T
    return Crystal(np.array([22, 28, 50]), np.array([[0.5] * 3, [0.25] * 3, [0.0] * 3]) @ turned, turned, np.ones(3, bool), {})


@pytest.mark.parametrize(
    ("number", "names"),
    [
        (1, ["1s"]),
        (3, ["2s"]),
        (6, ["2s", "2p"]),
        (22, ["3d", "4s"]),
        (28, ["3d", "4s"]),
        (31, ["3d", "4s", "4p"]),
        (82, ["6s", "6p", "5d"]),
    ],
)
def test_valence_shells_are_the_chemists(number: int, names: list[str]) -> None:
    shells = valence_shells(number)
    assert {s.name for s in shells} == set(names)
    assert all(0 < s.filling <= 1 for s in shells)


@pytest.mark.parametrize("number", range(1, 93))
def test_every_element_up_to_uranium_has_valence_shells(number: int) -> None:
    shells = valence_shells(number)
    assert shells
    assert all(s.energy < 0 for s in shells)
    assert all((s.extent > 0) == (s.l == 2) for s in shells)


def test_elements_without_levels_are_named() -> None:
    with pytest.raises(InputError, match="Pu"):
        valence_shells(94)


def test_couplings_are_harrisons() -> None:
    carbon = {s.l: s for s in valence_shells(6)}
    d = np.array([1.54])
    np.testing.assert_allclose(couplings(carbon[0], carbon[0], d), [[-1.40 * HBAR2_OVER_M / 1.54**2, 0, 0]])
    np.testing.assert_allclose(couplings(carbon[1], carbon[1], d)[0, :2], np.array([3.24, -0.81]) * HBAR2_OVER_M / 1.54**2)
    np.testing.assert_allclose(couplings(carbon[0], carbon[1], d), couplings(carbon[1], carbon[0], d))


@pytest.mark.parametrize(("pair", "power"), [((6, 6), 2.0), ((22, 6), 3.5), ((22, 28), 5.0)])
def test_couplings_fall_with_the_right_power(pair: tuple[int, int], power: float) -> None:
    one, other = (max(valence_shells(z), key=lambda s: s.l) for z in pair)
    near, far = couplings(one, other, np.array([2.0, 4.0]))
    np.testing.assert_allclose(near[0] / far[0], 2.0**power)


def test_f_shells_do_not_couple() -> None:
    cerium = {s.l: s for s in valence_shells(58)}
    assert not couplings(cerium[3], cerium[0], np.array([3.0])).any()


def test_each_pair_of_neighbouring_shells_is_an_edge() -> None:
    batch = GraphSet.build([half_heusler()], SPEC).batch([0])
    shells = np.bincount(batch["orbital_atom"].numpy())
    per_edge = shells[batch["edge_receiver"].numpy()] * shells[batch["edge_sender"].numpy()]
    assert batch.count("orbital_edge") == per_edge.sum()
    assert (batch["orbital_edge_receiver"].diff() >= 0).all()
    assert abs(float(batch["orbital_energy"].mean())) < 1e-5


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_turning_the_crystal_changes_no_number(seed: int) -> None:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    still, turned = (GraphSet.build([c], SPEC).batch([0]) for c in (half_heusler(), half_heusler(turn)))
    for key in ("orbital_edge_coupling", "orbital_edge_gap", "orbital_energy"):
        np.testing.assert_allclose(np.sort(still[key].numpy(), axis=0), np.sort(turned[key].numpy(), axis=0), atol=2e-4)


def test_an_isolated_atom_has_levels_and_no_couplings() -> None:
    alone = Crystal(np.array([11]), np.zeros((1, 3)), np.eye(3) * 20, np.ones(3, bool), {})
    batch = GraphSet.build([alone], SPEC).batch([0])
    assert (batch.count("orbital"), batch.count("orbital_edge")) == (1, 0)


def test_an_element_without_levels_refuses_its_crystal() -> None:
    heavy = Crystal(np.array([94, 8]), np.array([[0, 0, 0], [2.0, 0, 0]]), np.eye(3) * 4, np.ones(3, bool), {})
    assert "Pu" in GraphSet.build([heavy], SPEC).rejected[0]


def test_a_volume_scan_is_refused_not_wrong() -> None:
    batch = GraphSet.build([half_heusler()], SPEC).batch([0])
    with pytest.raises(InputError, match="cannot be scaled"):
        batch.scaled(1.1)
