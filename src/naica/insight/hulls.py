"""Pictures of convex hulls: two elements as a curve, three as a triangle, others as a survey of all entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.fields import field
from naica.insight.style import BLACK, BLUE, GREY, SEQUENTIAL, VERMILION, subscripts

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Record = Mapping[str, Any]
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
_ABOVE = field("energy_above_hull")
_FORMATION = field("formation_energy_per_atom")
_HOVER = (
    "<b>%{customdata[0]}</b><br>formation energy %{customdata[1]:.3f} eV/atom<br>%{customdata[2]:.3f} eV/atom above hull"
    "<br>%{customdata[3]}<br>%{customdata[4]}<extra></extra>"
)


def binary(elements: Sequence[str], entries: Sequence[Record]) -> Figure:
    """Formation energy against the fraction of the second element; the line is the hull."""
    import plotly.graph_objects as go

    from naica.insight.figures import dressed

    def spot(e: Record) -> tuple[float, float]:
        return float(e["fractions"][1]), float(e["formation_energy"])

    figure = go.Figure()
    corners = sorted(spot(e) for e in entries if e["stable"])
    figure.add_scatter(
        x=[c[0] for c in corners],
        y=[c[1] for c in corners],
        mode="lines",
        line={"color": BLACK, "width": 1.5},
        name="hull",
        hoverinfo="skip",
    )
    _add_points(figure, entries, [spot(e) for e in entries])
    figure.update_xaxes(title_text=f"atomic fraction of {elements[1]} in {elements[0]}–{elements[1]}", range=[-0.04, 1.04])
    depth = min(0.0, *(c[1] for c in corners)) or -0.1
    # room below the deepest point for its name
    figure.update_yaxes(title_text=_FORMATION.axis, range=[1.12 * depth, max(0.0, *(spot(e)[1] for e in entries)) - 0.08 * depth])
    return dressed(figure)


def ternary(elements: Sequence[str], entries: Sequence[Record]) -> Figure:
    """The composition triangle: stable phases labelled and joined by tie lines, the others coloured by their energy above the hull."""
    import plotly.graph_objects as go

    from naica.insight.figures import dressed

    fractions = np.array([e["fractions"] for e in entries], dtype=float)
    spots = fractions @ _CORNERS
    figure = go.Figure()
    loop = np.vstack([_CORNERS, _CORNERS[:1]])
    figure.add_scatter(x=loop[:, 0], y=loop[:, 1], mode="lines", line={"color": GREY, "width": 1}, hoverinfo="skip", showlegend=False)
    stable = np.array([bool(e["stable"]) for e in entries])
    x, y = _tie_lines(spots[stable], np.array([float(e["formation_energy"]) for e in entries])[stable])
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": BLACK, "width": 1}, name="tie lines", hoverinfo="skip")
    _add_points(figure, entries, [tuple(s) for s in spots], _beside_triangle(entries, spots))
    _name_corners(figure, elements)
    figure.update_xaxes(visible=False, range=[-0.1, 1.1])
    figure.update_yaxes(visible=False, range=[-0.1, 0.97], scaleanchor="x")
    return dressed(figure)


def survey(elements: Sequence[str], entries: Sequence[Record]) -> Figure:
    """For one or more than three elements: energy above the hull against formation energy."""
    import plotly.graph_objects as go

    from naica.insight.figures import dressed

    figure = go.Figure()
    _add_points(figure, entries, [(float(e["formation_energy"]), float(e["above_hull"])) for e in entries])
    figure.update_xaxes(title_text=f"{_FORMATION.axis} in {'–'.join(elements)}")
    figure.update_yaxes(title_text=_ABOVE.axis)
    return dressed(figure)


def _name_corners(figure: Figure, elements: Sequence[str]) -> None:
    for name, (x, y), shift in zip(elements, _CORNERS, (-22, -22, 22), strict=True):
        figure.add_annotation(x=x, y=y, text=f"<b>{name}</b>", showarrow=False, yshift=shift, font={"size": 18})


def _beside_triangle(entries: Sequence[Record], spots: NDArray[np.float64]) -> dict[int, str]:
    """Where the names of stable compounds stand: outside of the sides, inside in turn above and below; one name per composition."""
    stable = [i for i, e in enumerate(entries) if e["stable"] and max(e["fractions"]) < 1]
    lowest = _lowest_at_each_spot(spots[stable], np.array([float(entries[i]["formation_energy"]) for i in stable])) if stable else []
    places: dict[int, str] = {}
    inside = 0
    for i in sorted((stable[k] for k in lowest), key=lambda i: float(spots[i, 0])):
        absent = next((k for k, f in enumerate(entries[i]["fractions"]) if f == 0), None)
        if absent is None:
            inside += 1
        places[i] = (
            ("bottom center", "top center")[inside % 2] if absent is None else ("middle right", "middle left", "bottom center")[absent]
        )
    return places


def _add_points(
    figure: Figure, entries: Sequence[Record], spots: Sequence[tuple[float, ...]], names: Mapping[int, str] | None = None
) -> None:
    """Unstable entries below, then stable ones known from the start (circles), then stable finds (stars); the stable ones named.

    `names` says which rows are named, and where; by default all are, away from the other entries.
    """
    groups: dict[str, list[int]] = {"unstable": [], "stable, known at the start": [], "stable, found": []}
    for index, e in enumerate(entries):
        found = "stable, known at the start" if e.get("origin") == "start" else "stable, found"
        groups[found if e["stable"] else "unstable"].append(index)
    # the unstable ones furthest from the hull first, so that the interesting ones lie on top
    groups["unstable"].sort(key=lambda i: -float(entries[i]["above_hull"]))
    looks = {
        "unstable": {"mode": "markers", "marker": _unstable_marker([float(entries[i]["above_hull"]) for i in groups["unstable"]])},
        "stable, known at the start": _stable_look(BLUE, "circle", 11),
        "stable, found": _stable_look(VERMILION, "star", 16),
    }
    for name, rows in groups.items():
        if rows:
            figure.add_scatter(
                name=name,
                x=[spots[i][0] for i in rows],
                y=[spots[i][1] for i in rows],
                text=[subscripts(entries[i]["formula"]) if names is None or i in names else "" for i in rows],
                textposition=[_place(entries[i]) if names is None else names.get(i, "top center") for i in rows],
                customdata=[_hover_values(entries[i]) for i in rows],
                hovertemplate=_HOVER,
                **looks[name],
            )
    figure.update_layout(legend={"orientation": "h", "y": 1.08, "x": 0})


def _place(entry: Record) -> str:
    return "top center" if float(entry["formation_energy"]) >= 0 else "bottom center"


def _unstable_marker(above: Sequence[float]) -> dict[str, Any]:
    return {
        "symbol": "diamond",
        "size": 8,
        "color": list(above),
        "colorscale": SEQUENTIAL,
        "cmin": 0.0,
        "cmax": max([*above, 0.05]),
        "line": {"color": "white", "width": 0.5},
        "colorbar": {"title": {"text": _ABOVE.axis.replace(" (", "<br>(")}, "thickness": 14, "len": 0.75},
    }


def _stable_look(colour: str, symbol: str, size: int) -> dict[str, Any]:
    return {
        "mode": "markers+text",
        "textfont": {"size": 13, "color": BLACK},
        "marker": {"symbol": symbol, "size": size, "color": colour, "line": {"color": "white", "width": 1}},
    }


def _hover_values(e: Record) -> list[Any]:
    origin = str(e.get("origin") or "unknown")
    where = "known at the start" if origin == "start" else f"{origin}, round {e.get('round', '?')}"
    return [subscripts(e["formula"]), float(e["formation_energy"]), float(e["above_hull"]), where, e["id"]]


def _tie_lines(spots: NDArray[np.float64], energies: NDArray[np.float64]) -> tuple[list[float | None], list[float | None]]:
    """Edges of the lower convex hull over the triangle as one broken line (None lifts the pen)."""
    from scipy.spatial import ConvexHull, QhullError

    best = _lowest_at_each_spot(spots, energies)
    spots, energies = spots[best], energies[best]
    if len(spots) < 3:
        return [], []
    if len(spots) == 3:
        edges = {(0, 1), (0, 2), (1, 2)}
    else:
        try:
            # one point far above everything closes the body, so that flat systems (all energies zero) still have a lower side
            top = energies.max() + 10 * (np.ptp(energies) + 1.0)
            hull = ConvexHull(np.column_stack([np.vstack([spots, spots.mean(axis=0)]), np.append(energies, top)]))
        except QhullError:
            return [], []
        lower = hull.simplices[(hull.equations[:, 2] < -1e-10) & ~(hull.simplices == len(spots)).any(axis=1)]
        edges = {tuple(sorted(pair)) for facet in lower.tolist() for pair in combinations(facet, 2)}
    x: list[float | None] = []
    y: list[float | None] = []
    for a, b in sorted(edges):
        x += [float(spots[a, 0]), float(spots[b, 0]), None]
        y += [float(spots[a, 1]), float(spots[b, 1]), None]
    return x, y


def _lowest_at_each_spot(spots: NDArray[np.float64], energies: NDArray[np.float64]) -> list[int]:
    best: dict[tuple[float, float], int] = {}
    for index in np.argsort(energies).tolist():
        best.setdefault((round(float(spots[index, 0]), 6), round(float(spots[index, 1]), 6)), index)
    return sorted(best.values())
