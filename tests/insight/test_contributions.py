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


class ElementWorth:
    """An ensemble of two whose site value is the atomic number ± 1, whatever surrounds the atom."""

    def __init__(self):
        from naica.graphs.spec import GraphSpec

        self.needs = GraphSpec()

    def sites(self, batch):
        number = batch["number"].numpy().astype(float)
        return np.stack([number - 1, number + 1])


def test_site_values_follow_the_atoms_of_the_table():
    cell = np.diag([3.0, 3.1, 3.2])
    crystals = [Crystal([z, 8], [[0, 0, 0], [1.5, 1.5, 1.6]], cell) for z in (11, 12, 13, 14, 15)]
    table = CrystalTable.from_crystals(crystals)
    found = site_values(ElementWorth(), table, batch_size=2)
    assert found.value.tolist() == [11, 8, 12, 8, 13, 8, 14, 8, 15, 8]
    assert found.number.tolist() == found.value.tolist()
    assert found.row.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert found.place.tolist() == [0, 1] * 5
    worth = by_element(found)
    assert worth[0].element == "O"
    assert worth[0].crystals == 5
    assert worth[0].standard_error == pytest.approx(0)


def test_mean_of_sites_is_the_prediction_of_a_real_model():
    """The published linear-pooling idea: a model trained with head.pooling='sites' predicts the mean of its site values."""
    torch = pytest.importorskip("torch")
    naica = pytest.importorskip("naica.training.property")
    from naica.graphs.graphset import GraphSet

    torch.manual_seed(0)
    model = naica.build("cgcnn", "formation_energy_per_atom", head={"pooling": "sites"}).eval()

    class One:
        needs = model.needs

        @staticmethod
        def sites(batch):
            with torch.no_grad():
                return model.sites(batch).double().numpy()[None]

    cell = np.diag([4.0, 4.1, 4.3])
    crystals = [Crystal([z, 8, 8], [[0, 0, 0], [2, 2, 0], [0, 2, 2]], cell) for z in (12, 22, 40)]
    table = CrystalTable.from_crystals(crystals)
    found = site_values(One, table)
    with torch.no_grad():
        whole = model(GraphSet.build(table, model.needs).batch([0, 1, 2])).double().numpy().ravel()
    means = [found.value[found.row == r].mean() for r in range(3)]
    assert means == pytest.approx(whole, abs=1e-5)
