"""Graphs of bonds and of pairs, and what chemistry says on them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import ConfigError, InputError
from naica.graphs import GraphSet, GraphSpec, graph
from naica.structure import Crystal

pytest.importorskip("rdkit", reason="needs the extra: pip install 'naica[molecules]'")

from naica.data import molecules as tables
from naica.graphs.bonds import ATOM_CODES, PAIR_CODES
from naica.nn import molecules
from naica.structure.molecule import from_smiles

SOME = ["CCO", "c1ccccc1O", "CC(=O)N", "C#N", "OC1CC1", "O=C=O", "[Na+].[Cl-]", "C", "CS(=O)(=O)C", "c1ccoc1", "FS(F)(F)(F)(F)F"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def column(batch, name):
    return batch["atom_chemistry"][:, ATOM_CODES.index(name)].tolist()


def test_ethanol():
    batch = graph(from_smiles("CCO"), GraphSpec("bonds"))
    assert batch["edge_receiver"].tolist() == [0, 1, 1, 2]
    assert batch["edge_sender"].tolist() == [1, 0, 2, 1]
    assert column(batch, "degree") == [1, 2, 1]
    assert column(batch, "hydrogens") == [3, 2, 1]
    assert column(batch, "donor") == [0, 0, 1]
    assert column(batch, "acceptor") == [0, 0, 1]
    assert batch["edge_length"].tolist() == pytest.approx([1.52, 1.52, 1.42, 1.42], abs=0.06)


def test_lengths_of_the_vectors():
    batch = graph([from_smiles(s) for s in SOME], GraphSpec("pairs"))
    assert molecules.atoms_duvenaud(batch).shape[1] == 62
    assert molecules.atoms_weave(batch).shape[1] == 75
    assert molecules.bonds(batch).shape[1] == 6
    assert molecules.pairs(batch).shape[1] == 14
    found = {**molecules.widths()}
    assert found == {"duvenaud": 62, "weave": 75, "message": 78, "bonds": 6, "pairs": 14}


def test_one_hot_groups_have_one_each():
    batch = graph([from_smiles(s) for s in SOME], GraphSpec("bonds"))
    atoms = molecules.atoms_duvenaud(batch)
    for start, stop in ((0, 44), (44, 50), (50, 55), (55, 61)):
        assert (atoms[:, start:stop].sum(1) == 1).all()
    assert (molecules.bonds(batch)[:, :4].sum(1) == 1).all()


def test_more_bonds_than_the_table_has_are_its_last():
    sulphur = graph(from_smiles("FS(F)(F)(F)(F)F"), GraphSpec("bonds"))
    assert column(sulphur, "degree")[1] == 6
    assert molecules.atoms_duvenaud(sulphur)[1, 44:50].tolist() == [0, 0, 0, 0, 0, 1]


def test_pairs_of_a_ring():
    phenol = graph(from_smiles("c1ccccc1O"), GraphSpec("pairs"))
    n = 7
    assert phenol.n_edges == n * n
    codes = phenol["edge_chemistry"].view(n, n, len(PAIR_CODES))
    assert torch.equal(codes, codes.transpose(0, 1))
    same, distance = codes[..., PAIR_CODES.index("same_ring")], codes[..., PAIR_CODES.index("distance")]
    # neither an atom with itself nor the oxygen is in one ring with another
    assert same.sum() == 6 * 5
    assert (same.diagonal() == 0).all()
    assert distance[6].tolist() == [2, 3, 4, 3, 2, 1, 0]
    vectors = molecules.pairs(phenol).view(n, n, 14)
    assert (vectors[range(n), range(n)] == 0).all()


def test_pairs_can_be_limited():
    butane = from_smiles("CCCCC")
    batch = graph(butane, GraphSpec("pairs", max_bonds=2))
    codes = batch["edge_chemistry"]
    assert codes[:, PAIR_CODES.index("distance")].max() == 2
    assert batch.n_edges == 5 + 2 * 4 + 2 * 3
    with pytest.raises(ConfigError, match="max_bonds"):
        GraphSpec("bonds", max_bonds=2)


def test_fragments_are_far_from_each_other():
    salt = graph(from_smiles("[Na+].[Cl-]"), GraphSpec("pairs"))
    assert salt["edge_chemistry"][:, PAIR_CODES.index("distance")].tolist() == [0, 8, 8, 0]
    assert column(salt, "charge") == [1, -1]
    assert graph(from_smiles("[Na+].[Cl-]"), GraphSpec("bonds")).n_edges == 0


def test_without_a_smiles_the_geometry_speaks():
    known = from_smiles("c1ccccc1C(=O)N", hydrogens=True)
    alone = Crystal(known.numbers, known.positions)
    for kind in ("bonds", "pairs"):
        first, second = (graph(c, GraphSpec(kind)) for c in (known, alone))
        assert torch.equal(first["edge_sender"], second["edge_sender"])
        assert torch.equal(first["edge_chemistry"], second["edge_chemistry"])
        assert torch.equal(first["atom_chemistry"], second["atom_chemistry"])


def test_what_has_no_bonds_is_a_rejected_row():
    bare = Crystal(["C", "C", "O"], from_smiles("CCO").positions)
    salt = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 3.5)
    found = GraphSet.build([bare, salt, from_smiles("CCO")], GraphSpec("bonds"))
    assert found.usable.tolist() == [2]
    assert "give a SMILES" in found.rejected[0]
    assert "periodic" in found.rejected[1]
    with pytest.raises(InputError, match="charge is 'many'"):
        GraphSet.build([bare.replace(info={"charge": "many"})], GraphSpec("bonds")).batch([0])


@given(st.permutations(range(10)), st.sampled_from(["bonds", "pairs"]))
@settings(max_examples=10, deadline=None)
def test_numbering_does_not_matter(order, kind):
    whole = from_smiles("CC(=O)N", hydrogens=True)
    order = [k for k in order if k < len(whole)]
    first = graph(Crystal(whole.numbers, whole.positions), GraphSpec(kind))
    second = graph(Crystal(whole.numbers[order], whole.positions[order]), GraphSpec(kind))
    assert torch.equal(first["atom_chemistry"][order], second["atom_chemistry"])
    n = len(whole)
    assert torch.equal(dense(first, n)[order][:, order], dense(second, n))


def dense(batch, n):
    found = torch.zeros(n, n, len(PAIR_CODES), dtype=torch.int64)
    found[batch["edge_receiver"], batch["edge_sender"]] = batch["edge_chemistry"]
    return found


def test_a_table_of_smiles_keeps_them_and_its_cache(monkeypatch):
    found = tables.from_smiles(["CCO", "C1CC", "c1ccccc1"], ids=["a", "b", "c"])
    assert found.table.ids == ["a", "c"]
    assert found.table.column("smiles").tolist() == ["CCO", "c1ccccc1"]
    assert [(r.row, r.id, r.kind) for r in found.rejected] == [(1, "b", "no molecule")]
    assert "not a SMILES" in found.rejected[0].reason

    def never(*_):
        raise AssertionError("embedded again")

    monkeypatch.setattr(tables, "place_all", never)
    again = tables.from_smiles(["CCO", "C1CC", "c1ccccc1"], ids=["a", "b", "c"])
    assert again.table.arrow.equals(found.table.arrow)
    assert again.rejected == found.rejected


def test_a_damaged_cache_is_made_again():
    found = tables.from_smiles(["CCO"])
    file = next(tables.cache_folder(False, 7).glob("*.parquet"))
    file.write_bytes(b"PAR1 and nothing more")
    assert tables.from_smiles(["CCO"]).table.arrow.equals(found.table.arrow)


def test_a_table_gives_graphs_by_its_column():
    table = tables.from_smiles(["CCO", "c1ccccc1"]).table
    built = GraphSet.build(table, GraphSpec("bonds"))
    assert built.usable.tolist() == [0, 1]
    batch = built.batch([1, 0])
    assert batch["edge_sender"].max() == 8
    assert batch["edge_chemistry"][:12, 0].tolist() == [4] * 12
