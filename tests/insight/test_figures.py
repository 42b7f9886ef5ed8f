"""Figures are read back as data: what is drawn must be what was given."""

import json

import numpy as np
import pytest

pytest.importorskip("plotly")

from naica.insight.figures import calibration_figure, hit_rate_figure, hull_figure, learning_figure
from naica.insight.hulls import _tie_lines
from naica.insight.intervals import wilson
from naica.insight.style import subscripts


def entry(formula, fractions, energy, above=0.0, origin="start", at=0):
    return {
        "id": f"x-{formula}",
        "formula": formula,
        "fractions": fractions,
        "formation_energy": energy,
        "above_hull": above,
        "stable": above == 0,
        "origin": origin,
        "round": at,
    }


TERNARY = [
    entry("Mg", [1, 0, 0], 0.0),
    entry("Al", [0, 1, 0], 0.0),
    entry("O", [0, 0, 1], 0.0),
    entry("MgO", [0.5, 0, 0.5], -3.0),
    entry("Al2O3", [0, 0.4, 0.6], -3.3),
    entry("MgAl2O4", [1 / 7, 2 / 7, 4 / 7], -3.3, 0.0, "prototype", 1),
    entry("Mg2AlO4", [2 / 7, 1 / 7, 4 / 7], -2.6, 0.3, "prototype", 2),
    entry("MgAlO3", [0.2, 0.2, 0.6], -0.7, 2.1, "prototype", 3),
]
BINARY = [
    entry("Mg", [1, 0], 0.0),
    entry("O", [0, 1], 0.0),
    entry("MgO", [0.5, 0.5], -3.0),
    entry("MgO2", [1 / 3, 2 / 3], -1.9, 0.1, "substitution", 1),
]


def traces(figure):
    return {t["name"]: t for t in json.loads(figure.to_json())["data"] if "name" in t}


def points(figure, name):
    trace = next(t for t in figure.data if t.name == name)
    return {c[0]: (x, y) for c, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)}


def test_ternary_points_stand_where_their_composition_says():
    figure = hull_figure({"elements": ["Mg", "Al", "O"], "entries": TERNARY})
    known = points(figure, "stable, known at the start")
    assert known["Mg"] == (0, 0)
    assert known["Al"] == (1, 0)
    assert known["O"] == pytest.approx((0.5, np.sqrt(3) / 2))
    assert known["MgO"] == pytest.approx((0.25, np.sqrt(3) / 4))
    assert list(points(figure, "stable, found")) == ["MgAl<sub>2</sub>O<sub>4</sub>"]
    # MgAlO3 is 2.1 eV/atom above the hull and left out
    assert list(points(figure, "unstable")) == ["Mg<sub>2</sub>AlO<sub>4</sub>"]
    marker = next(t for t in figure.data if t.name == "unstable").marker
    assert list(marker.color) == [0.3]
    assert "eV/atom" in marker.colorbar.title.text
    assert {a.text for a in figure.layout.annotations} == {"<b>Mg</b>", "<b>Al</b>", "<b>O</b>"}


def _edges(spots, energies):
    x, y = _tie_lines(np.array(spots, dtype=float), np.array(energies, dtype=float))
    ends = [(x[k], y[k], x[k + 1], y[k + 1]) for k in range(0, len(x), 3)]
    place = {(round(float(a), 6), round(float(b), 6)): k for k, (a, b) in enumerate(spots)}
    return {frozenset((place[round(a, 6), round(b, 6)], place[round(c, 6), round(d, 6)])) for a, b, c, d in ends}


def test_tie_lines_of_the_mg_al_o_triangle():
    spots = np.array([e["fractions"] for e in TERNARY[:6]]) @ np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])
    edges = _edges(spots.tolist(), [e["formation_energy"] for e in TERNARY[:6]])
    mg, al, o, mgo, al2o3, spinel = range(6)
    for pair in [(mgo, spinel), (al2o3, spinel), (al, spinel), (o, spinel), (mgo, al), (mg, mgo), (mg, al)]:
        assert frozenset(pair) in edges
    for pair in [(mgo, al2o3), (mg, o), (al, o), (mg, spinel)]:
        assert frozenset(pair) not in edges
    # Euler: 6 vertices, 5 of them on the rim: 3·6 − 3 − 5 edges
    assert len(edges) == 10


def test_tie_lines_of_simple_systems():
    corners = [[0, 0], [1, 0], [0.5, 0.8660254]]
    assert len(_edges(corners, [0, 0, 0])) == 3
    middle = [*corners, [0.5, 0.2886751]]
    assert len(_edges(middle, [0, 0, 0, -1])) == 6
    # a phase above the plane of the others takes no part
    assert len(_edges(middle, [0, 0, 0, 1])) == 3
    assert _tie_lines(np.array(corners[:2]), np.zeros(2)) == ([], [])


def test_binary_hull_line_goes_through_stable_phases_in_order():
    figure = hull_figure({"elements": ["Mg", "O"], "entries": BINARY})
    line = next(t for t in figure.data if t.name == "hull")
    assert list(zip(line.x, line.y, strict=True)) == [(0, 0), (0.5, -3.0), (1, 0)]
    assert figure.layout.yaxis.title.text == "formation energy (eV/atom)"
    assert points(figure, "unstable")["MgO<sub>2</sub>"] == pytest.approx((2 / 3, -1.9))
    low, high = figure.layout.yaxis.range
    assert low < -3
    assert high > 0


def test_four_elements_are_surveyed():
    four = [{**e, "fractions": [*e["fractions"], 0]} for e in TERNARY]
    figure = hull_figure({"elements": list("ABCD"), "entries": four})
    assert figure.layout.yaxis.title.text == "energy above hull (eV/atom)"


def round_of(number, **arms):
    cells = {a: {"n": n, "hits": h, "rate": h / n if n else None, **_ends(h, n)} for a, (h, n) in arms.items()}
    return {"round": number, "hit_rate": 0.5, "low": 0, "high": 1, "arms": cells}


def _ends(hits, n):
    return {"low": wilson(hits, n).low, "high": wilson(hits, n).high}


def test_hit_rates_and_intervals_are_those_given():
    figure = hit_rate_figure([round_of(1, exploit=(3, 10), control=(0, 0)), round_of(2, exploit=(8, 10), control=(0, 4))])
    bars = {t.name: t for t in figure.data if t.type == "bar"}
    assert list(bars) == ["exploit", "control"]
    assert list(bars["exploit"].y) == pytest.approx([30, 80])
    low = [y - d for y, d in zip(bars["exploit"].y, bars["exploit"].error_y.arrayminus, strict=True)]
    assert low == pytest.approx([100 * wilson(3, 10).low, 100 * wilson(8, 10).low])
    # the control has trials in round 2 only
    assert [c[0] for c in bars["control"].customdata] == [2]
    assert bars["control"].y[0] + bars["control"].error_y.array[0] == pytest.approx(100 * wilson(0, 4).high)
    written = [t for s in figure.data if s.type == "scatter" for t in s.text]
    assert written == ["3/10", "8/10", "0/4"]
    assert "%" in figure.layout.yaxis.title.text


def test_calibration_says_how_often_error_bars_held():
    def row(predicted, actual, sigma=0.1, arm="exploit"):
        return {"round": 1, "id": "a", "formula": "Al2O3", "predicted": predicted, "sigma": sigma, "actual": actual, "arm": arm}

    rows = [row(1.0, 1.05), row(1.0, 1.15), row(1.0, 1.5, arm="control"), row(1.0, None)]
    figure = calibration_figure(rows)
    assert "0.233 eV/atom on 3 candidates; 1 of 3 within 1 σ, 2 within 2 σ" in figure.layout.title.text
    assert set(traces(figure)) == {"perfect", "exploit", "control"}
    assert figure.layout.xaxis.title.text == "computed formation energy (eV/atom)"
    point = next(t for t in figure.data if t.name == "control")
    assert (point.x[0], point.y[0], point.error_y.array[0]) == (1.5, 1.0, 0.1)


def test_learning_curve():
    figure = learning_figure([{"round": 1, "labels": 10, "mae": 0.2, "n": 5}, {"round": 2, "labels": 20, "mae": None, "n": 0}])
    assert list(figure.data[0].x) == [10]
    assert "eV/atom" in figure.layout.yaxis.title.text


@pytest.mark.parametrize(
    "figure",
    [
        lambda: hull_figure({"elements": ["Mg", "O"], "entries": []}),
        lambda: hull_figure({}),
        lambda: hit_rate_figure([]),
        lambda: hit_rate_figure([round_of(1, exploit=(0, 0))]),
        lambda: calibration_figure([]),
        lambda: learning_figure([{"round": 1, "labels": 3, "mae": None}]),
    ],
)
def test_nothing_to_show_is_said_in_words(figure):
    made = figure()
    assert not made.data
    assert "yet" in made.layout.annotations[0].text


def test_only_traces_of_the_small_plotly_bundle():
    figures = [
        hull_figure({"elements": ["Mg", "Al", "O"], "entries": TERNARY}),
        hit_rate_figure([round_of(1, exploit=(3, 10))]),
        learning_figure([{"round": 1, "labels": 10, "mae": 0.2, "n": 5}]),
    ]
    assert {t.type for f in figures for t in f.data} <= {"scatter", "bar"}


def test_subscripts():
    assert subscripts("Mg2Al0.5O4") == "Mg<sub>2</sub>Al<sub>0.5</sub>O<sub>4</sub>"
