"""Vectors of motifs from how they are joined."""

import numpy as np
import pytest

from naica.data.motif2vec import joints, motif_cooccurrence
from naica.errors import ConfigError, InputError
from naica.structure import Crystal
from naica.structure.prototypes import prototype

RUTILE, PEROVSKITE, COPPER = (prototype(n).crystal() for n in ("rutile", "perovskite", "fcc"))


def swapped(crystal: Crystal, **names: int) -> Crystal:
    from naica.structure.elements import element

    new = {element(old).number: z for old, z in names.items()}
    return crystal.replace(numbers=[new.get(int(z), int(z)) for z in crystal.numbers])


def test_joints_of_known_structures() -> None:
    assert joints(RUTILE) == {("Ti octahedron", "edge in O: octahedron"), ("Ti octahedron", "corner in O: octahedron")}
    assert joints(RUTILE, "motifs") == {("Ti octahedron", "edge in O: Ti octahedron"), ("Ti octahedron", "corner in O: Ti octahedron")}
    assert ("Sr cuboctahedron", "face in O: octahedron") in joints(swapped(PEROVSKITE, Ca=38))


def test_a_supercell_says_nothing_new() -> None:
    assert joints(PEROVSKITE.supercell((2, 1, 1))) == joints(PEROVSKITE)
    once, _ = motif_cooccurrence([RUTILE])
    twice, _ = motif_cooccurrence([RUTILE.supercell((1, 1, 2))])
    assert (once.matrix != twice.matrix).nnz == 0


def test_crystals_without_cations_are_named_not_lost() -> None:
    found, refused = motif_cooccurrence([RUTILE, COPPER, PEROVSKITE])
    assert list(refused) == [1]
    assert "pure element" in refused[1]
    assert "Ti octahedron" in found.names
    with pytest.raises(InputError, match="pure element"):
        motif_cooccurrence([COPPER])
    with pytest.raises(ConfigError, match="unknown"):
        joints(RUTILE, "anions")  # type: ignore[arg-type]


def test_motifs_in_the_same_places_are_alike() -> None:
    salt, rutile = prototype("rocksalt").crystal(), RUTILE
    crystals = [swapped(salt, Na=z, Cl=8) for z in (12, 20, 25)] + [swapped(rutile, Ti=z) for z in (22, 50)]
    crystals += [swapped(prototype("zincblende").crystal(), Zn=z, S=8) for z in (4, 30)]
    found, _ = motif_cooccurrence(crystals)
    vectors = found.vectors(3)
    assert vectors.cosine("Be tetrahedron", "Zn tetrahedron") == pytest.approx(1.0)
    # tetrahedra that share corners with tetrahedra stand where no octahedron does
    assert vectors.cosine("Be tetrahedron", "Mg octahedron") == pytest.approx(0.0, abs=1e-9)


def test_oxides_of_the_materials_project_cluster_by_shape() -> None:
    from naica.data.cooccurrence import without_rare
    from naica.data.formulas import contains
    from naica.data.registry import dataset, load_set

    if not dataset("mp_formation").present:
        pytest.skip("data set mp_formation is not on this machine (naica data pull mp_formation)")
    table = load_set("mp_formation")
    rows = np.flatnonzero(contains(table, "O") & (table.flat()[0] <= 20))
    rows = np.random.default_rng(0).choice(rows, 400, replace=False)
    found = without_rare(motif_cooccurrence(table[int(r)] for r in rows)[0], 8).vectors(10)
    shapes = np.array([name.split(" ", 1)[1] for name in found.names])
    cosines = found.cosines()
    np.fill_diagonal(cosines, -2)
    same = (shapes == shapes[cosines.argmax(axis=1)]).mean()
    counts = np.unique(shapes, return_counts=True)[1]
    chance = (counts * (counts - 1)).sum() / (len(shapes) * (len(shapes) - 1))
    assert same > chance + 0.2
