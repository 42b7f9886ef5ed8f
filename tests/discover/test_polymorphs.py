"""Polymorphs: clusters whose members all match, one of lowest energy for each."""

import numpy as np
import pytest

from naica.discover.polymorphs import polymorphs
from naica.errors import InputError
from naica.structure import Crystal


def rutile(u: float) -> Crystal:
    sites = [[0, 0, 0], [0.5] * 3, [u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
    return Crystal.from_fractional(["Ti", "Ti", "O", "O", "O", "O"], sites, np.diag([4.6, 4.6, 3.0]))


def fluorite() -> Crystal:
    return Crystal.from_fractional(["Ti", "O", "O"], [[0, 0, 0], [0.25] * 3, [0.75] * 3], 2.4 * (1 - np.eye(3)))


def salt(length: float) -> Crystal:
    return Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5] * 3], length / 2 * (1 - np.eye(3)))


def test_like_structures_fall_together_and_the_lowest_stands_for_them() -> None:
    crystals = [rutile(0.305), fluorite(), rutile(0.30), salt(5.6), salt(5.9), rutile(0.31)]
    found = polymorphs(crystals, [0.2, 0.5, 0.1, 0.0, 0.1, 0.3])
    assert {c.members for c in found.clusters} == {(0, 2, 5), (1,), (3, 4)}
    assert set(found.representatives) == {2, 1, 3}
    assert {c.formula for c in found.clusters} == {"TiO2", "NaCl"}


def test_all_pairs_of_a_cluster_are_within_the_cut_whatever_chains_there_are() -> None:
    chain = [rutile(u) for u in np.linspace(0.24, 0.36, 7)]
    for cut in (0.05, 0.1, 0.3):
        found = polymorphs(chain, cut=cut)
        far = found.distances["TiO2"]
        rows = list(found.rows["TiO2"])
        for cluster in found.clusters:
            places = [rows.index(m) for m in cluster.members]
            assert far[np.ix_(places, places)].max() == pytest.approx(cluster.spread)
            assert cluster.spread <= cut
        assert sorted(m for c in found.clusters for m in c.members) == list(range(7))
    # neighbours lie within 0.1 of each other, the ends of the chain do not: components of the match graph would be one
    assert len(polymorphs(chain, cut=0.1).clusters) > 1
    assert np.diag(polymorphs(chain).distances["TiO2"], 1).max() < 0.1


def test_only_the_lowest_are_compared_where_there_are_many() -> None:
    found = polymorphs([salt(5.0 + k / 10) for k in range(6)], [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], most=3)
    assert found.rows["NaCl"] == (5, 4, 3)
    assert [c.members for c in found.clusters] == [(3, 4, 5)]


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="2 energies for 1"):
        polymorphs([salt(5.6)], [0.0, 1.0])
    with pytest.raises(InputError, match="cut"):
        polymorphs([salt(5.6)], cut=0.9)
