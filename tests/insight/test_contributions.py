import numpy as np
import pytest

from naica.data import CrystalTable
from naica.errors import InputError
from naica.insight.contributions import SiteValues, as_rows, by_element, site_values
from naica.structure import Crystal


def values(value, number, row):
    n = len(value)
    return SiteValues(np.array(value, float), np.array(number), np.array(row), np.arange(n), {})


def test_means_and_counts_by_hand():
    found = by_element(values([1, 3, 5, -1, 0], [8, 8, 8, 12, 12], [0, 0, 1, 0, 1]))
    assert [(c.element, c.mean, c.sites, c.crystals) for c in found] == [("Mg", -0.5, 2, 2), ("O", 3.0, 3, 2)]
    # magnesium: one site per crystal, so the ordinary standard error of two numbers
    assert found[0].standard_error == pytest.approx(np.std([-1, 0], ddof=1) / np.sqrt(2))
    assert as_rows(found)[0]["element"] == "Mg"


def test_sites_of_one_crystal_are_not_independent():
    rng = np.random.default_rng(0)
    level = rng.normal(size=200)
    row = np.repeat(np.arange(200), 10)
    found = by_element(values(level[row], np.full(2000, 8), row))[0]
    assert found.standard_error == pytest.approx(1 / np.sqrt(200), rel=0.15)


def test_kinds_of_site_and_minimum():
    data = values([1, 2, 3, 4], [22, 22, 22, 8], [0, 1, 2, 2])
    found = by_element(data, ["A", "B", "B", "X"])
    assert {(c.element, c.site): c.mean for c in found} == {("Ti", "A"): 1, ("Ti", "B"): 2.5, ("O", "X"): 4}
    assert np.isnan(next(c for c in found if c.site == "A").standard_error)
    assert [c.site for c in by_element(data, ["A", "B", "B", "X"], min_crystals=2)] == ["B"]
    with pytest.raises(InputError, match="2 kinds of site for 4 sites"):
        by_element(data, ["A", "B"])


def element_worth(members):
    """An ensemble whose site value is the atomic number ± 1, whatever surrounds the atom."""
    from types import SimpleNamespace

    import torch

    from naica.graphs.spec import GraphSpec
    from naica.nn.segment import mean_systems

    class Member:
        pooling, target = "sites", SimpleNamespace(kind="regression", extensive=False)

        def __init__(self, shift):
            self.shift = shift

        def eval(self):
            return self

        def sites(self, batch):
            return batch["number"].double() + self.shift

        def __call__(self, batch):
            return mean_systems(self.sites(batch)[:, None], batch)[:, 0].to(torch.float64)

    made = tuple(Member(shift) for shift in members)
    return SimpleNamespace(needs=GraphSpec(), members=made, target=Member.target, card=SimpleNamespace(elements=()))


def test_site_values_follow_the_atoms_of_the_table():
    cell = np.diag([3.0, 3.1, 3.2])
    crystals = [Crystal([z, 8], [[0, 0, 0], [1.5, 1.5, 1.6]], cell) for z in (11, 12, 13, 14, 15)]
    table = CrystalTable.from_crystals(crystals)
    found = site_values(element_worth((-1, 1, 3)), table, batch_size=2)
    assert found.value.tolist() == [12, 9, 13, 9, 14, 9, 15, 9, 16, 9]
    assert found.number.tolist() == [11, 8, 12, 8, 13, 8, 14, 8, 15, 8]
    assert found.row.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert found.place.tolist() == [0, 1] * 5
    assert found.members.shape == (3, 10)
    assert (found.members[2] - found.members[0] == 4).all()
    assert found.gap < 1e-9
    worth = by_element(found)
    assert worth[0].element == "O"
    assert worth[0].crystals == 5
    assert worth[0].standard_error == pytest.approx(0)


def test_rows_without_a_graph_shift_nothing():
    cell = np.diag([3.0, 3.1, 3.2])
    places = np.array([[0, 0, 0], [1.5, 1.5, 1.6], [np.nan, 0, 0], [0, 0, 0]])
    table = CrystalTable.from_arrays("abc", np.array([2, 1, 1]), np.array([11, 8, 10, 12]), places, np.stack([cell] * 3), [True] * 9)
    found = site_values(element_worth((0,)), table)
    assert list(found.rejected) == [1]
    assert found.row.tolist() == [0, 0, 2]
    assert found.value.tolist() == [11, 8, 12]
