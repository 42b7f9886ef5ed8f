"""Power laws of learning curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naica.errors import InputError
from naica.insight.scaling import fit_power_law, scaling_plot

SIZES = np.array([500, 1000, 2000, 4000])


@given(st.floats(0.05, 1.0), st.floats(0.01, 100.0))
def test_an_exact_law_is_found(exponent: float, prefactor: float) -> None:
    law = fit_power_law(SIZES, prefactor * SIZES**-exponent)
    assert law.exponent == pytest.approx(exponent, rel=1e-6)
    assert law.prefactor == pytest.approx(prefactor, rel=1e-6)
    assert law.exponent_error < 1e-6
    assert law.labels_for(float(law.at(3000))) == pytest.approx(3000, rel=1e-5)


def test_the_standard_error_covers_noise() -> None:
    draw, inside = np.random.default_rng(0), 0
    for _ in range(300):
        law = fit_power_law(np.repeat(SIZES, 3), np.repeat(SIZES, 3) ** -0.3 * np.exp(0.05 * draw.standard_normal(12)))
        inside += abs(law.exponent - 0.3) < law.exponent_error
    assert 0.58 < inside / 300 < 0.76


@pytest.mark.parametrize(("sizes", "errors"), [([10, 20], [1, 0.5]), ([10, 10, 20], [1, 1, 1]), ([1, 2, 3], [1, 0.0, 1])])
def test_too_little_or_impossible_is_refused(sizes, errors) -> None:
    with pytest.raises(InputError, match="power law"):
        fit_power_law(sizes, errors)


def test_the_picture_is_written(tmp_path) -> None:
    laws = scaling_plot({"a": (SIZES, SIZES**-0.3)}, "formation_energy_per_atom", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000
    assert laws["a"].exponent == pytest.approx(0.3)
