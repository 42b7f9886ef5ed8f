"""Scores of stability against counts by hand and scikit-learn's definitions; which rows are unique prototypes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.discover.stability import stability, unique_prototypes
from naica.errors import InputError
from naica.structure.prototypes import prototype


def test_counts_by_hand() -> None:
    """Four stable, three called stable, two of them rightly; one row has no prediction."""
    true = np.array([-0.1, -0.05, 0.0, -0.2, 0.1, 0.2, 0.3, 0.4])
    predicted = np.array([-0.05, 0.02, 0.0, np.nan, -0.01, 0.25, 0.2, 0.4])
    found = stability(true, predicted)
    assert (found.n, found.missing) == (8, 1)
    assert found.prevalence == 0.5
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == 0.5
    assert found.f1 == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert found.daf == pytest.approx(4 / 3)
    assert found.accuracy == pytest.approx(5 / 8)
    assert found.mae == pytest.approx((0.05 + 0.07 + 0 + 0.11 + 0.05 + 0.1 + 0) / 7)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=40))
@settings(max_examples=40, deadline=None)
def test_equals_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    from sklearn.metrics import f1_score, precision_score, r2_score, recall_score

    true, predicted = np.array(pairs).T
    found = stability(true, predicted)
    yes, called = true <= 0, predicted <= 0
    if called.any() and yes.any():
        assert found.precision == pytest.approx(precision_score(yes, called))
        assert found.recall == pytest.approx(recall_score(yes, called))
        assert found.f1 == pytest.approx(f1_score(yes, called))
    if np.ptp(true) > 1e-3:
        assert found.r2 == pytest.approx(r2_score(true, predicted), abs=1e-9, rel=1e-9)


def test_nothing_called_stable_has_no_precision() -> None:
    found = stability([-1.0, 1.0], [1.0, 1.0])
    assert np.isnan(found.precision)
    assert found.recall == 0


@pytest.mark.parametrize(("true", "predicted"), [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [0.0])])
def test_impossible_rows_are_refused(true: list[float], predicted: list[float]) -> None:
    with pytest.raises(InputError, match="distances"):
        stability(true, predicted)


def test_unique_prototypes_keep_the_lowest_and_drop_what_is_known() -> None:
    rocksalt, caesium, blende = prototype("rocksalt"), prototype("cesium-chloride"), prototype("zincblende")
    rows = [rocksalt.crystal(["Mg", "O"]), rocksalt.crystal(["Mg", "O"]).scaled(1.1), blende.crystal(["Mg", "O"]),
            caesium.crystal(["Mg", "O"]), rocksalt.crystal(["Ca", "O"])]  # fmt: skip
    energies = [-2.9, -3.0, -2.8, -2.5, -3.2]
    np.testing.assert_array_equal(unique_prototypes(rows, energies), [False, True, True, True, True])
    known = [blende.crystal(["Mg", "O"]), rocksalt.crystal(["Ca", "O"]).scaled(0.9)]
    np.testing.assert_array_equal(unique_prototypes(rows, energies, known), [False, True, False, True, False])
