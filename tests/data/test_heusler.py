"""Heusler tables become structures."""

from __future__ import annotations

import numpy as np
import pytest

from naica.data.registry import dataset, load_set
from naica.structure.symmetry import symmetry

pytestmark = pytest.mark.skipif(not dataset("half_heusler").present, reason="data set heusler is not on this machine")


def test_half_heuslers_have_structure_gap_and_class() -> None:
    table = load_set("half_heusler")
    assert len(table) == 436
    gap, metal = table.column("band_gap"), table.column("metal")
    assert np.array_equal(metal == 1, gap == 0)
    assert 0.1 < metal.mean() < 0.9
    assert symmetry(table[0]).number == 216
    assert table.labels["metal"].quantity == "is_metal"


def test_full_heuslers_have_the_order_their_table_says() -> None:
    table = load_set("full_heusler")
    assert len(table) == 2808
    kinds = table.column("lat_type")
    for kind, number in (("l21", 225), ("xa", 216)):
        for row in np.flatnonzero(kinds == kind)[:3]:
            assert symmetry(table[int(row)]).number == number
    first = table[0]
    np.testing.assert_allclose(first.volume, table.column("lat")[0] ** 3 / 4)
    distances = np.linalg.norm(first.positions[1:] - first.positions[0], axis=1)
    np.testing.assert_allclose(distances.min(), table.column("lat")[0] * np.sqrt(3) / 4)


def test_metals_of_a_big_set_follow_the_gap() -> None:
    table = load_set("mp20")
    gap = table.column("band_gap")
    assert np.array_equal(table.column("metal")[np.isfinite(gap)] == 1, gap[np.isfinite(gap)] <= 0)
