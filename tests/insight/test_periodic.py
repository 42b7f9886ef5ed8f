import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from naica.errors import InputError
from naica.insight.periodic import ElementMap, draw, to_html
from naica.insight.plots import periodic_map
from naica.structure.elements import table

EVERY = {e.symbol: float(e.number) - 50 for e in table()}


def test_every_element_has_a_place_of_its_own():
    places = ElementMap(EVERY, "x").places()
    assert set(places) == set(EVERY)
    assert len(set(places.values())) == len(EVERY)
    assert places["H"] == (0, 0)
    assert places["He"] == (17, 0)
    assert places["Fe"] == (7, 3)


def test_rows_without_values_are_left_out():
    places = ElementMap({"La": 1.0, "Cs": 2.0}, "x").places()
    assert places["La"] == (2, 5)  # in group 3, as no other lanthanide is shown
    assert "Ce" not in places
    assert "Fr" not in places
    assert ElementMap({"La": 1.0, "Ce": 2.0}, "x").places()["La"][1] > 6 - 1
    assert set(ElementMap({"Li": 1.0, "O": 2.0}, "x").places()) == {"H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne"}


def test_colours_run_evenly_from_the_centre():
    one = ElementMap({"Li": -1.0, "O": 3.0}, "x", centre=0.0)
    assert one.limits == (-3.0, 3.0)
    assert not one.clipped
    assert ElementMap({"Li": 2.0}, "x").limits == (1.5, 2.5)
    # one odd element does not bleach the others, and the bar says that there is more
    odd = ElementMap({**dict.fromkeys([e.symbol for e in table()][:40], 0.5), "U": -30.0}, "x", centre=0.0)
    assert odd.limits == (-0.5, 0.5)
    assert odd.clipped


def test_numbers_keep_their_digits_and_lose_false_signs():
    one = ElementMap({"Li": -0.001, "O": 3.14159, "F": -2.0}, "x", {"Li": float("nan"), "O": 0.031, "F": 0.2}, {"O": 1200}, 0.0)
    assert one.lines == {"Li": ("0.00", "±?"), "O": ("+3.14", "±0.03", "1,200"), "F": ("−2.00", "±0.20")}
    assert ElementMap({"O": 0.0754}, "x").lines["O"] == ("0.075",)
    assert ElementMap({"O": 312.4}, "x").lines["O"] == ("312",)


def test_text_stays_inside_its_cell_and_elements_without_value_are_grey():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shown = ElementMap(
        {k: -v / 7 for k, v in EVERY.items() if k not in ("Fe", "Tc")}, "x (eV)", dict.fromkeys(EVERY, 0.123), None, 0.0, "title"
    )
    figure = draw(shown)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    texts = [t.get_text() for t in axes.texts]
    assert [texts.count(e.symbol) for e in table()] == [1] * len(table())
    cells = [p.get_window_extent() for p in axes.patches]
    for text in axes.texts:
        box = text.get_window_extent(canvas.get_renderer())
        assert any(c.x0 <= box.x0 and box.x1 <= c.x1 and c.y0 <= box.y0 and box.y1 <= c.y1 for c in cells), text.get_text()
    greys = [p for p in axes.patches if np.allclose(p.get_facecolor()[:3], np.array([0xE5, 0xE7, 0xEB]) / 255)]
    assert len(greys) == 2
    assert "x (eV)" in figure.axes[1].get_xlabel()
    assert "standard error" in figure.axes[1].get_xlabel()


def test_html_needs_no_script_and_names_every_value():
    page = to_html(ElementMap({"Li": -1.0, "O": 3.0}, "a < b (eV)", {"Li": 0.1, "O": 0.2}, {"Li": 7, "O": 8}, 0.0, "t & u"))
    assert "<script" not in page
    assert len(re.findall('class="element"', page)) == 2
    assert len(re.findall("missing", page)) == 8
    assert "t &amp; u" in page
    assert "a &lt; b (eV)" in page
    assert "Lithium: −1.00 · ±0.10 · 7" in page


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="Qq"):
        periodic_map({"Qq": 1.0}, "x")
    with pytest.raises(InputError, match="no values"):
        periodic_map({}, "x")
    with pytest.raises(InputError, match="no values"):
        ElementMap({"H": float("nan")}, "x")
    figure = periodic_map({"H": -1.0, "Fe": 2.0, "U": 0.5}, "site energy (eV/atom)", {"Fe": 1200})
    assert "1,200" in [t.get_text() for t in figure.axes[0].texts]
