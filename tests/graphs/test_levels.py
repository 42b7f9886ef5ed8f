"""Levels that makers add: stored, cached, batched, collated, scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from naica.data import CrystalTable
from naica.errors import ConfigError, InputError
from naica.fields import FIELDS, Field
from naica.graphs import Batch, GraphSet, GraphSpec, levels
from naica.nn.triplets import triplets
from naica.structure import Crystal

FAKE = (
    Field("pair_length", "motif", "Å", "d", "distance of a pair"),
    Field("pair_atom", "motif", "", "i", "atom of a pair", kind="index", of="atom"),
    Field("site_kind", "atom", "", "k", "kind of a site", kind="index"),
    Field("hops", "orbital", "eV", "t", "hopping"),
)


def pairs_by_atom(system: levels.System, spec: GraphSpec) -> levels.Made:
    """One item per atom except the first, and a note on each atom; refuses noble gases."""
    if (system.numbers == 2).any():
        raise InputError("helium has no pairs")
    n = len(system.numbers)
    return {"pair_length": np.full(n - 1, 2.0), "pair_atom": np.arange(1, n), "site_kind": system.numbers % 7}


def hops(system: levels.System, spec: GraphSpec) -> levels.Made:
    return {"hops": np.ones(1)}


def ring(system: levels.System, spec: GraphSpec) -> levels.Made:
    n = len(system.numbers)
    return {
        "edge_receiver": np.arange(n),
        "edge_sender": (np.arange(n) + 1) % n,
        "edge_vector": np.ones((n, 3)) * (system.columns["x"] or 1),
    }


@pytest.fixture(autouse=True)
def makers(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in FAKE:
        monkeypatch.setitem(FIELDS, one.name, one)
    here = "tests.graphs.test_levels"
    fields = ("pair_length", "pair_atom", "site_kind")
    monkeypatch.setitem(levels.LEVEL_MAKERS, "pairs_by_atom", levels.Maker(f"{here}:pairs_by_atom", fields))
    monkeypatch.setitem(levels.LEVEL_MAKERS, "hops", levels.Maker(f"{here}:hops", ("hops",)))
    monkeypatch.setitem(levels.EDGE_MAKERS, "bonds", levels.Maker(f"{here}:ring", (), ("x",)))


def cell(*numbers: int) -> Crystal:
    n = len(numbers)
    return Crystal(np.array(numbers), np.arange(3 * n).reshape(n, 3) * 0.9, np.eye(3) * 3 * n, np.ones(3, bool), {})


CRYSTALS = [cell(11, 17), cell(2, 8), cell(14, 14, 8)]
SPEC = GraphSpec("nearest", 6.0, 4, levels=("pairs_by_atom",))


def test_indices_count_within_the_batch_and_a_refused_row_keeps_its_place() -> None:
    graphs = GraphSet.build(CRYSTALS, SPEC)
    assert graphs.rejected == {1: "helium has no pairs"}
    batch = graphs.batch([2, 0])
    assert batch["pair_atom"].tolist() == [1, 2, 4]
    assert batch["motif_system"].tolist() == [0, 0, 1]
    assert batch["site_kind"].tolist() == [0, 0, 1, 4, 3]
    assert batch.count("motif") == 3
    assert batch.count("orbital") == 0


def test_collating_single_graphs_is_the_batch() -> None:
    graphs = GraphSet.build(CRYSTALS, SPEC)
    whole, joined = graphs.batch([0, 2]), Batch.collate([graphs.batch([0]), graphs.batch([2])])
    assert set(whole) == set(joined)
    assert all(torch.equal(whole[key], joined[key]) for key in whole)


def test_a_cached_set_is_the_built_one(tmp_path) -> None:
    built = GraphSet.build(CRYSTALS, SPEC, tmp_path / "graphs")
    read = GraphSet.build(CRYSTALS, SPEC, tmp_path / "graphs")
    assert read.rejected == built.rejected
    assert all(torch.equal(read.batch([0, 2])[key], value) for key, value in built.batch([0, 2]).items())
    assert isinstance(read.extras["pair_length"].base, np.memmap | np.ndarray)


def test_a_newer_maker_makes_an_old_cache_stale(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    GraphSet.build(CRYSTALS, SPEC, tmp_path / "graphs")
    old = levels.LEVEL_MAKERS["pairs_by_atom"]
    monkeypatch.setitem(levels.LEVEL_MAKERS, "pairs_by_atom", levels.Maker(old.place, old.fields, version=2))
    with pytest.warns(UserWarning, match="building it again"):
        GraphSet.build(CRYSTALS, SPEC, tmp_path / "graphs")


def test_lengths_grow_with_the_volume_and_indices_do_not() -> None:
    graphs = GraphSet.build(CRYSTALS, SPEC)
    batch = graphs.batch([0, 2])
    by_batch, by_set = batch.scaled(torch.tensor([8.0, 1.0])), graphs.scaled([8.0, 1.0, 1.0]).batch([0, 2])
    assert by_batch["pair_length"].tolist() == [4.0, 2.0, 2.0] == by_set["pair_length"].tolist()
    assert by_batch["pair_atom"].tolist() == batch["pair_atom"].tolist()
    assert batch.scaled(8.0)["pair_length"].tolist() == [4.0] * 3


def test_energies_do_not_scale_with_the_volume() -> None:
    graphs = GraphSet.build([CRYSTALS[0]], GraphSpec("nearest", 6.0, 4, levels=("hops",)))
    with pytest.raises(InputError, match="hopping"):
        graphs.batch([0]).scaled(1.1)
    with pytest.raises(InputError, match="hopping"):
        graphs.scaled(1.1)


def test_edges_by_a_maker_read_their_columns() -> None:
    table = CrystalTable.from_crystals([CRYSTALS[0], CRYSTALS[2]], {"x": [2.0, 3.0]}, ids=["a", "b"])
    batch = GraphSet.build(table, GraphSpec("bonds")).batch([0, 1])
    assert batch["edge_sender"].tolist() == [1, 0, 3, 4, 2]
    assert batch["edge_vector"][:, 0].tolist() == [2.0, 2.0, 3.0, 3.0, 3.0]
    assert batch.degree == 1


def first_atoms(system: levels.System, spec: GraphSpec) -> levels.Made:
    return {"number": system.numbers}


def test_processes_make_what_one_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "_POOL_FROM", 2)
    maker = levels.Maker(f"{__name__}:first_atoms", ("number",))
    systems = [levels.System(str(k), np.array([k + 1]), np.zeros((1, 3)), np.eye(3), np.ones(3, bool)) for k in range(70)]
    seen: list[tuple[int, int]] = []
    monkeypatch.setenv("NAICA_JOBS", "2")
    made = levels.make_all(systems, [maker], SPEC, lambda done, total: seen.append((done, total)))
    assert [one["number"].tolist() for one in made if not isinstance(one, str)] == [[k + 1] for k in range(70)]
    assert seen == [(32, 70), (64, 70), (70, 70)]


def test_state_variables_come_from_columns_or_info() -> None:
    spec = GraphSpec("nearest", 6.0, 4, state=("temperature",))
    table = CrystalTable.from_crystals([CRYSTALS[0], CRYSTALS[2]], {"temperature": [300.0, None]}, ids=["a", "b"])
    graphs = GraphSet.build(table, spec)
    assert graphs.batch([0])["state"].tolist() == [[300.0]]
    assert "temperature" in graphs.rejected[1]
    warm = Crystal(CRYSTALS[0].numbers, CRYSTALS[0].positions, CRYSTALS[0].cell, CRYSTALS[0].pbc, {"temperature": 500})
    assert GraphSet.build([warm], spec).batch([0])["state"].tolist() == [[500.0]]
    with pytest.raises(InputError, match="no column 'temperature'"):
        GraphSet.build(CrystalTable.from_crystals([CRYSTALS[0]]), spec)


def test_state_of_a_composition() -> None:
    table = CrystalTable.from_crystals([CRYSTALS[0], CRYSTALS[2]], {"p": [1.0, 2.0]}, ids=["a", "b"])
    assert GraphSet.build(table, GraphSpec("composition", state=("p",))).batch([1, 0])["state"].tolist() == [[2.0], [1.0]]


def test_unknown_levels_and_levels_of_compositions_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing makes the level 'motif'"):
        GraphSet.build(CRYSTALS, GraphSpec(levels=("motif",)))
    with pytest.raises(ConfigError, match="composition"):
        GraphSpec("composition", levels=("hops",))


def test_a_maker_that_breaks_its_promise_is_a_defect() -> None:
    system = levels.System("x", np.array([1]), np.zeros((1, 3)), np.eye(3), np.ones(3, bool))
    with pytest.raises(RuntimeError, match="promised"):
        levels._check(system, levels.Maker("m:f", ("pair_length",)), {})


def test_triplets_are_all_ordered_pairs_of_edges_of_one_centre() -> None:
    batch = GraphSet.build([CRYSTALS[2]], GraphSpec("radius", 3.5)).batch([0])
    a, b = triplets(batch)
    receiver = batch["edge_receiver"].tolist()
    expected = {(i, j) for i in range(len(receiver)) for j in range(len(receiver)) if i != j and receiver[i] == receiver[j]}
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == expected
    assert len(a) == len(expected)
    keep = batch["edge_length"] < 2.0
    a, b = triplets(batch, keep)
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == {(i, j) for i, j in expected if keep[i] and keep[j]}
