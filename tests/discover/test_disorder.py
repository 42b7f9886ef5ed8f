"""Disorder: textbook solid solutions are seen, ordered compounds are not, and what is known decides doubtful cases."""

import numpy as np
import pytest

from naica.discover.disorder import sharings
from naica.discover.novelty import Known
from naica.structure import Crystal

FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def rocksalt(cations: list[str], anion: str = "O", a: float = 4.2) -> Crystal:
    anions = [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5]]
    return Crystal.from_fractional([*cations, *[anion] * 4], [*FCC, *anions], np.eye(3) * a)


def fcc(symbols: list[str], a: float = 3.75) -> Crystal:
    return Crystal.from_fractional(symbols, FCC, np.eye(3) * a)


def double_perovskite(a: str, b: str, c: str, edge: float = 7.9) -> Crystal:
    symbols, sites = [], []
    for corner in np.ndindex(2, 2, 2):
        at = np.array(corner) / 2
        symbols += [a, b if sum(corner) % 2 == 0 else c, "O", "O", "O"]
        sites += [at + 0.25, at, *(at + step for step in np.eye(3) * 0.25)]
    return Crystal.from_fractional(symbols, sites, np.eye(3) * edge)


def test_ordered_magnesiowuestite_is_one_ordering_of_a_solid_solution() -> None:
    (found,) = sharings(rocksalt(["Mg", "Mg", "Fe", "Fe"]))
    assert found.verdict == "likely"
    assert set(found.elements) == {"Mg", "Fe"}
    assert (found.sites, found.atoms) == (4, 8)
    assert found.parent == "Fm-3m (225)"
    assert found.charge == 0
    # half of the sites mixed one to one: half of k ln 2
    assert found.entropy == pytest.approx(0.5 * np.log(2))
    assert found.worth(1000) == pytest.approx(0.0299, abs=1e-3)


@pytest.mark.parametrize(
    "crystal",
    [
        rocksalt(["Mg"] * 4),  # one cation
        rocksalt(["Li", "Li", "V", "V"], "N", 4.2),  # like sizes, but charges four apart
        rocksalt(["Li", "Li", "Cs", "Cs"], "Cl", 6.0),  # like charges, but sizes that differ by half
        double_perovskite("Ba", "Mg", "W"),  # charges four apart: orders
        Crystal.from_fractional(["Mg", "O"], [[0, 0, 0], [0.5] * 3], np.eye(3) * 2.6),  # opposite charges
        Crystal(["O", "O"], [[0, 0, 0], [0, 0, 1.2]]),  # a molecule
    ],
    ids=["MgO", "LiVN2", "LiCsCl2", "Ba2MgWO6", "MgO B2", "O2"],
)
def test_what_nature_orders_or_cannot_mix_is_left_alone(crystal: Crystal) -> None:
    assert sharings(crystal) == ()


def test_a_double_perovskite_of_like_ions_mixes() -> None:
    (found,) = sharings(double_perovskite("Ba", "Zr", "Hf"))
    assert (found.verdict, found.parent) == ("likely", "Pm-3m (221)")


def test_two_elements_on_sublattices_of_their_own_share_none() -> None:
    spinel_like = Crystal.from_fractional(["Fe", "Co", "O", "O", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
                                          np.eye(3) * 3.9)  # fmt: skip
    assert all({"Fe", "Co"} != set(s.elements) for s in sharings(spinel_like))


def test_known_ends_make_an_ordered_alloy_doubtful() -> None:
    order = fcc(["Au", "Cu", "Cu", "Cu"])
    (alone,) = sharings(order)
    assert alone.verdict == "possible"
    known = Known({"copper": fcc(["Cu"] * 4, 3.61), "gold": fcc(["Au"] * 4, 4.08)})
    found = known.novelty(order, disorder=True)
    assert found.verdict == "new formula"
    assert found.claim == "ordering of a likely disordered alloy"
    assert found.disorder is not None
    assert found.disorder[0].ends == ("copper", "gold")
    # B2 is no fcc: the same ends say nothing of NiAl
    nial = Crystal.from_fractional(["Ni", "Al"], [[0, 0, 0], [0.5] * 3], np.eye(3) * 2.88)
    ends = Known({"nickel": fcc(["Ni"] * 4, 3.52), "aluminium": fcc(["Al"] * 4, 4.05)})
    assert not ends.novelty(nial, disorder=True).likely_disordered


def test_another_member_of_the_series_is_evidence() -> None:
    known = Known()
    known.add_formulas({"periclase": "Mg0.9Fe0.1O", "spinel": "MgFe2O4"})
    found = known.novelty(rocksalt(["Mg", "Mg", "Fe", "Fe"]), disorder=True)
    assert found.disorder is not None
    assert found.disorder[0].relatives == ("periclase",)
    assert any("periclase" in text for text in found.evidence)


def test_relaxed_orderings_are_seen_through() -> None:
    crystal = rocksalt(["Mg", "Mg", "Fe", "Fe"])
    moved = crystal.replace(positions=crystal.positions + np.random.default_rng(0).normal(0, 0.02, (8, 3)))
    assert sharings(moved)[0].verdict == "likely"
