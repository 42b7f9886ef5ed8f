"""Batches, graph sets and their one-file cache."""

import resource
import warnings

import numpy as np
import pytest
import torch

from naica.data import CrystalTable
from naica.errors import ConfigError, InputError, RunError
from naica.graphs import Batch, GraphSet, GraphSpec, composition_graph, graph
from naica.structure import Crystal


def salt(a=5.64, numbers=("Na", "Cl")):
    return Crystal.from_fractional(list(numbers), [[0, 0, 0], [0.5, 0.5, 0.5]], np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * a)


OXYGEN = Crystal(["O", "O"], [[0, 0, 0], [0, 0, 1.21]])
ARGON = Crystal(["Ar"], [[0, 0, 0]])
MIXED = [salt(), OXYGEN, ARGON, salt(4.2, ("Mg", "O")).supercell((2, 1, 1))]


def same(a: Batch, b: Batch) -> bool:
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


def test_batch_of_salt():
    batch = graph(salt())
    assert (batch.n_systems, batch.n_edges, batch.degree) == (1, 24, 12)
    assert batch["number"].tolist() == [11, 17]
    assert batch["fraction"].tolist() == [0.5, 0.5]
    lengths = batch["edge_length"].view(2, 12).sort(dim=1).values
    torch.testing.assert_close(lengths[0], torch.tensor([2.82] * 6 + [2.82 * 2**0.5] * 6))
    torch.testing.assert_close(batch["edge_vector"].norm(dim=1), batch["edge_length"])


def test_molecules_and_lone_atoms_have_fewer_edges():
    batch = graph(MIXED)
    assert batch.degree is None
    assert torch.bincount(batch["edge_receiver"], minlength=9).tolist() == [12, 12, 1, 1, 0, 12, 12, 12, 12]
    assert graph(ARGON).degree == 0


@pytest.mark.parametrize("spec", [GraphSpec(), GraphSpec("radius", 4.5), GraphSpec("composition")])
def test_batch_is_the_single_graphs_one_after_the_other(spec):
    graphs = GraphSet.build(MIXED, spec)
    assert same(graphs.batch(range(4)), Batch.collate([graph(c, spec) for c in MIXED]))
    assert same(graphs.batch([3, 1, 1]), Batch.collate([graph(MIXED[k], spec) for k in (3, 1, 1)]))
    mask = np.array([False, True, False, True])
    assert same(graphs.batch(mask), graphs.batch([1, 3]))


def test_table_and_crystals_give_the_same_graphs():
    assert same(graph(CrystalTable.from_crystals(MIXED)), graph(MIXED))


def test_receivers_never_decrease_and_edges_stay_in_their_system():
    batch = graph(MIXED, GraphSpec("radius", 5.0))
    assert bool((batch["edge_receiver"].diff() >= 0).all())
    assert torch.equal(batch["system"][batch["edge_receiver"]], batch["system"][batch["edge_sender"]])


def test_vectors_point_from_receiver_to_sender():
    batch = graph(Crystal(["C", "O"], [[0, 0, 0], [0, 0, 1.13]]))
    assert batch["edge_receiver"].tolist() == [0, 1]
    assert batch["edge_vector"][0].tolist() == pytest.approx([0, 0, 1.13])


def test_every_radius_edge_has_its_reverse():
    batch = graph(salt().supercell((2, 1, 1)), GraphSpec("radius", 5.0))
    edges = torch.cat([batch["edge_receiver"][:, None], batch["edge_sender"][:, None], batch["edge_vector"]], dim=1)
    mirror = torch.cat([edges[:, [1, 0]], -edges[:, 2:]], dim=1)
    assert {tuple(r) for r in (edges * 1e4).round().int().tolist()} == {tuple(r) for r in (mirror * 1e4).round().int().tolist()}


def test_scaled_is_the_graph_of_the_scaled_crystal():
    batch = graph([salt(), salt(4.2)])
    stretched = batch.scaled(torch.tensor([1.1, 0.9]))
    expected = graph([salt().scaled(1.1), salt(4.2).scaled(0.9)])
    torch.testing.assert_close(stretched["edge_length"].view(4, 12).sort().values, expected["edge_length"].view(4, 12).sort().values)
    torch.testing.assert_close(batch.scaled(1.3)["edge_vector"], batch["edge_vector"] * 1.3 ** (1 / 3))
    with pytest.raises(InputError, match="2 systems"):
        batch.scaled(torch.ones(3))
    graphs = GraphSet.build([salt(), salt(4.2)])
    torch.testing.assert_close(graphs.scaled([1.1, 0.9]).batch([0, 1])["edge_length"], stretched["edge_length"])
    torch.testing.assert_close(graphs.scaled(1.3).batch([0, 1])["edge_length"], batch.scaled(1.3)["edge_length"])
    with pytest.raises(InputError, match="2 crystals"):
        graphs.scaled([1.0, 1.0, 1.0])


def test_to_moves_reals_only():
    batch = graph(salt()).to(dtype=torch.float64)
    assert batch["edge_vector"].dtype == torch.float64
    assert batch["number"].dtype == torch.int64
    assert batch.degree == 12


def test_composition_graph():
    batch = composition_graph(["SiO2", "Si2O4", "Fe"])
    assert batch["n_atoms"].tolist() == [2, 2, 1]
    by_element = dict(zip(batch["number"][:2].tolist(), batch["fraction"][:2].tolist(), strict=True))
    assert by_element == {14: pytest.approx(1 / 3), 8: pytest.approx(2 / 3)}
    crystals = GraphSet.build([salt(), salt().supercell((2, 1, 1))], GraphSpec("composition")).batch([0, 1])
    assert crystals["number"].tolist() == [11, 17, 11, 17]
    assert crystals["fraction"].tolist() == [0.5] * 4
    with pytest.raises(InputError, match="formula"):
        composition_graph(["not a formula"])


def test_bad_crystals_are_rows_not_crashes():
    table = CrystalTable.from_crystals([salt()] * 6, ids=list("abcdef"))
    counts, numbers, positions, cells, pbc = (a.copy() for a in table.flat())
    positions[2] = np.nan
    cells[2] = 0.0
    positions[7] = positions[6] + cells[3, 0]
    cells[4, 1] = cells[4, 0]
    broken = CrystalTable.from_arrays(list("abcdef"), counts, numbers, positions, cells, pbc)
    graphs = GraphSet.build(broken)
    assert set(graphs.rejected) == {1, 2, 3, 4}
    assert "NaN" in graphs.rejected[1]
    assert "no volume" in graphs.rejected[2]
    assert "same place" in graphs.rejected[3]
    assert graphs.usable.tolist() == [0, 5]
    assert same(graphs.batch(graphs.usable), graph([salt(), salt()]))
    with pytest.raises(InputError, match=r"row 3 \(id d\) has no graph"):
        graphs.batch([0, 3])
    with pytest.raises(InputError, match="row 6 of a graph set of 6"):
        graphs.batch([6])


def test_empty_sets():
    assert len(GraphSet.build([])) == 0
    with pytest.raises(InputError, match="expected a Crystal"):
        GraphSet.build([1, 2])
    with pytest.raises(InputError, match="nothing to collate"):
        Batch.collate([])


def test_progress_ends_at_all():
    seen = []
    GraphSet.build([salt()] * 5000, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5000, 5000)
    assert len(seen) > 1


@pytest.mark.parametrize("bad", [{"kind": "delaunay"}, {"cutoff": 0}, {"cutoff": 50}, {"neighbours": 0}])
def test_spec_refuses_nonsense(bad):
    with pytest.raises(ConfigError):
        GraphSpec(**bad)


# --- the cache ---------------------------------------------------------------------------------------------------------------
def test_cache_gives_the_same_graphs_from_a_memory_map(tmp_path):
    file = tmp_path / "deep" / "set.graphs"
    built = GraphSet.build(MIXED, cache=file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = GraphSet.build(MIXED, cache=file, progress=lambda *_: pytest.fail("it was built again"))
    assert same(kept.batch(range(4)), built.batch(range(4)))
    assert kept.ids == built.ids
    base = kept.vectors
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert [f.name for f in file.parent.iterdir()] == ["set.graphs"]


def test_cache_remembers_rejected_rows(tmp_path):
    table = CrystalTable.from_crystals([salt(), salt()])
    counts, numbers, positions, cells, pbc = (a.copy() for a in table.flat())
    positions[0] = np.inf
    table = CrystalTable.from_arrays(["a", "b"], counts, numbers, positions, cells, pbc)
    first = GraphSet.build(table, cache=tmp_path / "g")
    assert GraphSet.build(table, cache=tmp_path / "g").rejected == first.rejected != {}


@pytest.mark.parametrize(
    "change",
    [{"source": [salt()]}, {"source": [*MIXED[:3], salt(4.3)]}, {"spec": GraphSpec("radius", 4.0)}, {"spec": GraphSpec(neighbours=8)}],
)
def test_stale_cache_is_built_again(tmp_path, change):
    file = tmp_path / "g"
    GraphSet.build(MIXED, cache=file)
    source, spec = change.get("source", MIXED), change.get("spec", GraphSpec())
    with pytest.warns(UserWarning, match="other crystals or another graph"):
        again = GraphSet.build(source, spec, cache=file)
    assert same(again.batch(range(len(source))), graph(source, spec))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GraphSet.build(source, spec, cache=file)


@pytest.mark.parametrize("place", [0, 9, 30, -5])
def test_damaged_cache_is_built_again(tmp_path, place):
    file = tmp_path / "g"
    GraphSet.build(MIXED, cache=file)
    data = bytearray(file.read_bytes())
    data[place if place >= 0 else len(data) - 700] ^= 0xFF
    file.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged|other crystals"):
        again = GraphSet.build(MIXED, cache=file)
    assert same(again.batch(range(4)), graph(MIXED))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_cache_is_built_again(tmp_path, share):
    file = tmp_path / "g"
    GraphSet.build(MIXED, cache=file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.warns(UserWarning, match="damaged"):
        again = GraphSet.build(MIXED, cache=file)
    assert same(again.batch(range(4)), graph(MIXED))


def test_full_disk_is_a_run_error_and_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(RunError, match="cannot write the graph cache"):
            GraphSet.build([salt()] * 500, cache=tmp_path / "g")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_a_run_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write"):
        GraphSet.build(MIXED, cache=tmp_path / "file" / "g")
