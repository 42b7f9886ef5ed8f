"""Motifs as a level of the batch."""

import numpy as np
import pytest
import torch

from naica.graphs import GraphSet, GraphSpec, graph
from naica.structure import Crystal
from naica.structure.motifs import SHARINGS
from naica.structure.polyhedra import SHAPES
from naica.structure.prototypes import prototype

SPEC = GraphSpec("radius", 4.0, levels=("motifs",))
NEAR = GraphSpec("radius", 4.0, levels=("motifs_near",))
PEROVSKITE = prototype("perovskite").crystal()
RUTILE = prototype("rutile").crystal()
ARGON = Crystal(["Ar"], [[0, 0, 0]])


def rows(batch, *names) -> list[tuple[float, ...]]:
    """The motif edges as sorted tuples of rounded numbers."""
    return sorted(zip(*(np.round(batch[n].double().numpy(), 3).tolist() for n in names), strict=True))


def test_motifs_know_their_atoms_within_the_batch() -> None:
    batch = graph([PEROVSKITE, RUTILE], SPEC)
    assert batch.count("motif") == 4
    assert batch["motif_system"].tolist() == [0, 0, 1, 1]
    cations = batch["number"][batch["motif_atom"]].tolist()
    assert cations == [z for z in batch["number"].tolist() if z != 8]
    assert [SHAPES[s] for s in batch["motif_shape"]] == ["cuboctahedron", "octahedron", "octahedron", "octahedron"]
    assert batch["motif_coordination"].tolist() == [12, 6, 6, 6]
    assert (batch["motif_system"][batch["motif_edge_receiver"]] == batch["motif_edge_system"]).all()
    assert (batch["motif_system"][batch["motif_edge_sender"]] == batch["motif_edge_system"]).all()
    assert (batch["motif_edge_receiver"].diff() >= 0).all()


def test_pairs_reach_eleven_angstrom_or_six() -> None:
    far, near = graph(PEROVSKITE, SPEC), graph(PEROVSKITE, NEAR)
    a = float(PEROVSKITE.cell[0, 0])
    lattice = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3), -1).reshape(-1, 3) * a
    same = np.linalg.norm(lattice, axis=1)
    other = np.linalg.norm(lattice + a / 2, axis=1)
    for batch, reach in ((far, 11.0), (near, 6.0)):
        expected = 2 * ((same > 0) & (same <= reach)).sum() + 2 * (other <= reach).sum()
        assert batch.count("motif_edge") == expected
        assert float(batch["motif_edge_length"].max()) <= reach
    shared = far["motif_edge_sharing"] != SHARINGS.index("none")
    assert int(shared.sum()) == int((near["motif_edge_sharing"] != SHARINGS.index("none")).sum())


def test_a_lonely_motif_has_an_edge_to_itself() -> None:
    ammonia = Crystal(["N", "H", "H", "H"], [[0, 0, 0], [0.94, 0, 0.38], [-0.47, 0.81, 0.38], [-0.47, -0.81, 0.38]])
    silane = Crystal(
        ["Si", "F", "F", "F", "F"], np.vstack([np.zeros(3), np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.9])
    )
    for crystal in (silane, ARGON):
        batch = graph(crystal, SPEC)
        assert batch.count("motif") == 1
        assert batch["motif_edge_receiver"].tolist() == batch["motif_edge_sender"].tolist() == [0]
        assert batch["motif_edge_length"].tolist() == [0.0]
        assert SHARINGS[batch["motif_edge_sharing"][0]] == "none"
    assert [SHAPES[s] for s in graph(ARGON, SPEC)["motif_shape"]] == ["other"]
    hydrogens = graph(ammonia, SPEC)
    assert hydrogens.count("motif") == 3
    # three cations on one nitrogen: they share it as a corner, and nobody is lonely
    assert [SHARINGS[s] for s in hydrogens["motif_edge_sharing"]] == ["corner"] * 6


@pytest.mark.parametrize("name", ["rutile", "corundum", "copper-gold"])
def test_a_supercell_holds_the_same_motifs_and_edges_more_often(name) -> None:
    crystal = prototype(name).crystal()
    one, two = graph(crystal, NEAR), graph(crystal.supercell((2, 1, 1)), NEAR)
    nodes = ("motif_shape", "motif_measure", "motif_coordination", "motif_bond_length")
    edges = ("motif_edge_length", "motif_edge_sharing", "motif_edge_angle")
    for names in (nodes, edges):
        assert rows(two, *names) == sorted(2 * rows(one, *names))


def test_a_set_is_built_cached_and_scaled(tmp_path) -> None:
    crystals = [PEROVSKITE, RUTILE, ARGON]
    graphs = GraphSet.build(crystals, SPEC, cache=tmp_path / "graphs")
    again = GraphSet.build(crystals, SPEC, cache=tmp_path / "graphs")
    whole, kept = graphs.batch([1, 0]), again.batch([1, 0])
    assert all(torch.equal(whole[k], kept[k]) for k in whole)
    scaled = whole.scaled(1.2)
    for name, power in (("motif_edge_length", 1), ("motif_bond_length", 1), ("motif_bond_spread", 0), ("motif_edge_angle", 0)):
        torch.testing.assert_close(scaled[name], whole[name] * 1.2 ** (power / 3))
    # the motifs of the larger crystals are the larger motifs
    built = graph([RUTILE.scaled(1.2), PEROVSKITE.scaled(1.2)], NEAR)
    torch.testing.assert_close(built["motif_bond_length"], scaled["motif_bond_length"])


def test_two_atoms_on_one_place_reject_their_row_only() -> None:
    broken = Crystal(["Na", "Cl"], [[0, 0, 0], [0, 0, 0]], np.eye(3) * 4)
    graphs = GraphSet.build([PEROVSKITE, broken], SPEC)
    assert list(graphs.rejected) == [1]
    assert "same place" in graphs.rejected[1]
