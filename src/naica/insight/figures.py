"""Interactive figures of a campaign (Plotly): each one function from the plain data of a summary to a figure.

Only scatter and bar traces are used, so that a page can carry the small "basic" bundle of plotly.js.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from naica.fields import field
from naica.insight.style import ARM_SYMBOLS, BLUE, GREY, PALE, VERMILION, arm_colour

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Record = Mapping[str, Any]
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def hull_figure(hull: Record, unstable_up_to: float = 0.5) -> Figure:
    """The convex hull of a chemical system: energy against composition for two elements, a triangle for three, a survey for others.

    Parameters
    ----------
    hull : ``{"elements": [...], "entries": [{"id", "formula", "fractions", "formation_energy", "above_hull", "stable", "origin",
        "round"}]}``, energies in eV/atom
    unstable_up_to : entries further above the hull (eV/atom) are left out, so that the rest can be seen
    """
    from naica.insight import hulls

    elements, entries = list(hull.get("elements") or []), list(hull.get("entries") or [])
    shown = [e for e in entries if e["stable"] or _number(e["above_hull"]) <= unstable_up_to]
    if not shown:
        return empty("no hull entries yet")
    if len(elements) == 2:
        return hulls.binary(elements, shown)
    return hulls.ternary(elements, shown) if len(elements) == 3 else hulls.survey(elements, shown)


def hit_rate_figure(rounds: Sequence[Record]) -> Figure:
    """Hit rate per round and arm as bars, with their confidence intervals; hits and trials are written below the bars.

    `rounds` : ``[{"round", "hit_rate", "low", "high", "arms": {arm: {"n", "hits", "rate", "low", "high"}}}]``, rates from 0 to 1.
    """
    import plotly.graph_objects as go

    names = list(dict.fromkeys(arm for r in rounds for arm in (r.get("arms") or {})))
    names = [n for n in names if any((r.get("arms") or {}).get(n, {}).get("n") for r in rounds)]
    if not names:
        return empty("no computed candidates yet")
    figure = go.Figure()
    width = 0.8 / len(names)
    for k, arm in enumerate(names):
        shift = (k - (len(names) - 1) / 2) * width
        cells = [(at + shift, r["round"], r["arms"][arm]) for at, r in enumerate(rounds) if (r.get("arms") or {}).get(arm, {}).get("n")]
        _add_rate_bars(figure, arm, 0.92 * width, cells)
    figure.update_layout(legend_title_text="picked by", barmode="overlay")
    figure.update_xaxes(
        title_text="round (hits / computed under each bar)",
        tickvals=list(range(len(rounds))),
        ticktext=[str(r["round"]) for r in rounds],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(title_text="hit rate (% of computed candidates)", range=[-9, 104], tickvals=[0, 20, 40, 60, 80, 100])
    return dressed(figure)


def _add_rate_bars(figure: Figure, arm: str, width: float, cells: list[tuple[float, Any, Record]]) -> None:
    rates = [100 * c["hits"] / c["n"] for _, _, c in cells]
    up = [max(0.0, 100 * _number(c.get("high"), r / 100) - r) for (_, _, c), r in zip(cells, rates, strict=True)]
    down = [max(0.0, r - 100 * _number(c.get("low"), r / 100)) for (_, _, c), r in zip(cells, rates, strict=True)]
    figure.add_bar(
        name=arm,
        x=[at for at, _, _ in cells],
        y=rates,
        width=width,
        marker_color=arm_colour(arm),
        error_y={"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 5, "color": "#111827"},
        customdata=[[name, c["hits"], c["n"], r - d, r + u] for (_, name, c), r, d, u in zip(cells, rates, down, up, strict=True)],
        hovertemplate=f"round %{{customdata[0]}}, {arm}<br>%{{customdata[1]}} of %{{customdata[2]}} hits: %{{y:.1f}} %"
        "<br>95 % interval %{customdata[3]:.1f} to %{customdata[4]:.1f} %<extra></extra>",
    )
    figure.add_scatter(
        x=[at for at, _, _ in cells],
        y=[-4] * len(cells),
        mode="text",
        text=[f"{c['hits']}/{c['n']}" for _, _, c in cells],
        textfont={"size": 11, "color": "#374151"},
        hoverinfo="skip",
        showlegend=False,
    )


def calibration_figure(calibration: Sequence[Record], quantity: str = "formation_energy_per_atom") -> Figure:
    """Predicted against computed values with the model's error bars (1 σ); the title says how often the error bars held.

    `calibration` : ``[{"round", "id", "formula", "predicted", "sigma", "actual", "arm"}]`` in the unit of `quantity`.
    """
    import plotly.graph_objects as go

    rows = [c for c in calibration if c.get("actual") is not None and c.get("predicted") is not None]
    if not rows:
        return empty("no prediction has been checked by the oracle yet")
    figure = go.Figure()
    values = [_number(c[k]) for c in rows for k in ("predicted", "actual")]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05
    ends = [low - margin, high + margin]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dash", "width": 1}, name="perfect", hoverinfo="skip")
    for arm in dict.fromkeys(str(c.get("arm")) for c in rows):
        figure.add_trace(_checked_points(arm, [c for c in rows if str(c.get("arm")) == arm]))
    meaning = field(quantity)
    figure.update_xaxes(title_text=f"computed {meaning.axis}", range=ends)
    figure.update_yaxes(title_text=f"predicted {meaning.axis}", range=ends)
    figure.update_layout(title_text=_held(rows, meaning.unit), legend_title_text="picked by")
    return dressed(figure)


def _checked_points(arm: str, rows: list[Record]) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        name=arm,
        x=[c["actual"] for c in rows],
        y=[c["predicted"] for c in rows],
        mode="markers",
        marker={"color": arm_colour(arm), "symbol": ARM_SYMBOLS.get(arm, "cross"), "size": 8, "line": {"color": "white", "width": 0.7}},
        error_y={"type": "data", "array": [_number(c.get("sigma")) for c in rows], "thickness": 1, "width": 0, "color": arm_colour(arm)},
        customdata=[[c.get("formula", ""), c.get("round", ""), c.get("id", ""), _number(c.get("sigma"))] for c in rows],
        hovertemplate="%{customdata[0]} (round %{customdata[1]})<br>predicted %{y:.3f} ± %{customdata[3]:.3f}"
        "<br>computed %{x:.3f}<br>%{customdata[2]}<extra></extra>",
    )


def _held(rows: list[Record], unit: str) -> str:
    errors = [abs(_number(c["predicted"]) - _number(c["actual"])) for c in rows]
    within = [sum(e <= k * _number(c.get("sigma")) for e, c in zip(errors, rows, strict=True)) for k in (1, 2)]
    return (
        f"mean absolute error {sum(errors) / len(errors):.3f} {unit} on {len(rows)} candidates;"
        f" {within[0]} of {len(rows)} within 1 σ, {within[1]} within 2 σ"
    )


def learning_figure(learning: Sequence[Record], quantity: str = "formation_energy_per_atom") -> Figure:
    """Error of the model against the number of the campaign's own labels, round by round.

    `learning` : ``[{"round", "labels", "mae", "n"}]``, `mae` in the unit of `quantity` on `n` fresh candidates.
    """
    import plotly.graph_objects as go

    rows = [p for p in learning if p.get("mae") is not None]
    if not rows:
        return empty("the model has not been judged on fresh labels yet")
    unit = field(quantity).unit
    figure = go.Figure(
        go.Scatter(
            x=[p["labels"] for p in rows],
            y=[p["mae"] for p in rows],
            mode="lines+markers+text",
            text=[f"round {p['round']}" for p in rows],
            textposition="top center",
            line={"color": BLUE, "width": 2},
            marker={"size": 9, "color": BLUE},
            customdata=[[p["round"], p.get("n", "?")] for p in rows],
            hovertemplate=f"round %{{customdata[0]}}: %{{y:.3f}} {unit}<br>%{{x}} labels, judged on %{{customdata[1]}}<extra></extra>",
        )
    )
    most = max(_number(p["labels"]) for p in rows) or 1.0
    figure.update_xaxes(title_text="labels of the campaign's own level of theory", range=[-0.06 * most, 1.06 * most], zeroline=False)
    figure.update_yaxes(title_text=f"mean absolute error ({unit})", range=[0, 1.2 * max(_number(p["mae"]) for p in rows) or 1.0])
    return dressed(figure)


def dressed(figure: Figure) -> Figure:
    """The common look: white, quiet grid, readable text."""
    figure.update_layout(
        template="plotly_white",
        font={"family": _FONT, "size": 14, "color": "#111827"},
        title={"font": {"size": 14}, "x": 0.0, "xref": "paper", "xanchor": "left"},
        margin={"l": 70, "r": 20, "t": 60, "b": 60},
        legend={"bgcolor": "rgba(255,255,255,0.7)"},
        hoverlabel={"font": {"family": _FONT}},
    )
    figure.update_xaxes(gridcolor="#E5E7EB", zerolinecolor=PALE)
    figure.update_yaxes(gridcolor="#E5E7EB", zerolinecolor=PALE)
    return figure


def empty(why: str) -> Figure:
    """A figure that says why there is nothing to show."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_annotation(text=why, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 16, "color": VERMILION})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return dressed(figure)


def _number(value: Any, otherwise: float = 0.0) -> float:
    return otherwise if value is None else float(value)
