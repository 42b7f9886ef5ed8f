"""Pictures of the periodic table: one value per element, as a still picture and as a piece of a page.

Periods below the last element with a value are left out, and so are the rows of lanthanides and actinides where they hold none beyond
lanthanum and actinium, which then stand in group 3: the rest is drawn larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from naica.errors import InputError
from naica.structure.elements import Element, element, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING, MISSING_INK = "#E5E7EB", "#9CA3AF"
_DIVERGING, _SEQUENTIAL = "RdBu_r", "cividis"
_FAR = 1.5
_WIDTH = 7.2
"""inches: the text width of a two-column page, so that nothing is shrunk in print."""


@dataclass(frozen=True)
class ElementMap:
    """What is drawn: one value per element symbol.

    Parameters
    ----------
    values : by symbol
    label : what the value is, with its unit
    errors : standard errors, by symbol
    counts : how many crystals the value comes from, by symbol
    centre : the value that is drawn white, colours running evenly to both sides; None: from the lowest value to the highest
    title : over the picture

    Raises
    ------
    InputError
        If there is no finite value, or a symbol is unknown.
    """

    values: Mapping[str, float]
    label: str
    errors: Mapping[str, float] | None = None
    counts: Mapping[str, int] | None = None
    centre: float | None = None
    title: str = ""

    def __post_init__(self) -> None:
        for name in self.values:
            element(name)
        finite = {name: float(v) for name, v in self.values.items() if math.isfinite(v)}
        if not finite:
            raise InputError("no values to draw: expected a finite one for at least one element symbol")
        object.__setattr__(self, "values", finite)

    @property
    def limits(self) -> tuple[float, float]:
        """Values of the two ends of the colour scale.

        About a centre they leave out the farthest twentieth where that is far off, so that one odd element does not bleach all others.
        """
        low, high = min(self.values.values()), max(self.values.values())
        if self.centre is None:
            return (low, high) if high > low else (low - 0.5, high + 0.5)
        away = sorted(abs(v - self.centre) for v in self.values.values())
        most = away[math.ceil(0.95 * len(away)) - 1]
        reach = (most if 0 < _FAR * most < away[-1] else away[-1]) or 1.0
        return self.centre - reach, self.centre + reach

    @property
    def clipped(self) -> bool:
        """Whether a value lies beyond the colour scale."""
        low, high = self.limits
        return any(not low <= v <= high for v in self.values.values())

    @property
    def lines(self) -> dict[str, tuple[str, ...]]:
        """What stands under each symbol: value, ± standard error, count; those that are known."""
        sign = "+" if self.centre is not None else ""
        digits = _digits(self.values.values(), self.centre or 0.0)
        found = {}
        for name, value in self.values.items():
            error = (self.errors or {}).get(name, math.nan)
            shown = f"{value:{sign}.{digits}f}"
            # −0.00 would claim a sign that the rounding ate
            texts = [shown.replace("-", "−") if float(shown) else shown.lstrip("+-")]
            if self.errors is not None:
                texts.append(f"±{error:.{digits}f}" if math.isfinite(error) else "±?")
            if self.counts is not None and name in self.counts:
                texts.append(f"{self.counts[name]:,}")
            found[name] = tuple(texts)
        return found

    def places(self) -> dict[str, tuple[int, int]]:
        """Column (0 to 17) and row (0 on top) of every element that is drawn."""
        with_f = any(_in_f_rows(e) and e.number not in (57, 89) and e.symbol in self.values for e in table())
        last = max(element(name).period for name in self.values)
        places = {}
        for one in table():
            if one.period > last and not (with_f and _in_f_rows(one)):
                continue
            if _in_f_rows(one):
                first = 57 if one.number <= 71 else 89
                if with_f:
                    places[one.symbol] = (2 + one.number - first, last + 1 + (one.number > 71))
                elif one.number == first:
                    places[one.symbol] = (2, one.period - 1)
            else:
                places[one.symbol] = (one.group - 1, one.period - 1)
        return places


def _in_f_rows(one: Element) -> bool:
    return 57 <= one.number <= 71 or 89 <= one.number <= 103


def _digits(values: Any, centre: float) -> int:
    """Decimals that show two digits of the largest value, at least two decimals below ten."""
    largest = max(abs(v - centre) for v in values) or 1.0
    if largest >= 10:
        return int(largest < 100)
    return min(4, max(2, 1 - math.floor(math.log10(largest))))


def _colour(shown: ElementMap, value: float) -> tuple[float, float, float]:
    from matplotlib import colormaps

    low, high = shown.limits
    scale = colormaps[_SEQUENTIAL if shown.centre is None else _DIVERGING]
    # the outermost colours of the diverging scale are too dark to write on
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    red, green, blue, _ = scale(share if shown.centre is None else 0.06 + 0.88 * share)
    return float(red), float(green), float(blue)


def _ink(colour: tuple[float, float, float]) -> str:
    """Black or white, whichever is readable on the colour."""
    red, green, blue = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


# --- still picture ---------------------------------------------------------------------------------------------------------------
def draw(shown: ElementMap) -> Figure:
    """The map as a figure as wide as a page's text; elements without a value are grey."""
    from matplotlib.figure import Figure

    lines = shown.lines
    # the rows below the main table come nearer than a whole row
    main = max(element(name).period for name in shown.values)
    places = {name: (float(x), y - 0.6 * (y > main)) for name, (x, y) in shown.places().items()}
    rows = 1 + max(y for _, y in places.values())
    cell = _WIDTH / 18.2
    top, bottom = (0.30 if shown.title else 0.05), 0.55
    figure = Figure(figsize=(_WIDTH, rows * cell + top + bottom), dpi=300)
    height = rows * cell + top + bottom
    axes = figure.add_axes((0.0, bottom / height, 1.0, rows * cell / height))
    axes.set(xlim=(-0.1, 18.1), ylim=(rows, 0))
    axes.set_axis_off()
    for name, (x, y) in places.items():
        _draw_cell(axes, shown, name, (x, y), lines.get(name, ()))
    if shown.title:
        figure.text(0.01, 1 - 0.06 / height, shown.title, ha="left", va="top", fontsize=9, fontweight="bold")
    _draw_bar(figure, shown, height, bottom)
    return figure


def _draw_cell(axes: Any, shown: ElementMap, name: str, place: tuple[float, float], lines: tuple[str, ...]) -> None:
    from matplotlib.patches import Rectangle

    x, y = place
    known = name in shown.values
    colour = _colour(shown, shown.values[name]) if known else None
    ink = _ink(colour) if colour else MISSING_INK
    axes.add_patch(Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, facecolor=colour or MISSING, edgecolor="none"))
    if not known:
        axes.text(x + 0.5, y + 0.5, name, ha="center", va="center", fontsize=7.5, color=ink)
        return
    down = 0.09 * (3 - len(lines))
    axes.text(x + 0.5, y + down + 0.22, name, ha="center", va="center", fontsize=8, fontweight="bold", color=ink)
    for line, text, at in zip(range(3), lines, (down + 0.50, down + 0.69, down + 0.86), strict=False):
        axes.text(x + 0.5, y + at, text, ha="center", va="center", fontsize=6.2 if line == 0 else 5, color=ink)


def _draw_bar(figure: Figure, shown: ElementMap, height: float, bottom: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    low, high = shown.limits
    steps = [low + (high - low) * k / 255 for k in range(256)]
    axes = figure.add_axes((0.25, (bottom - 0.14) / height, 0.5, 0.09 / height))
    bar = figure.colorbar(
        ScalarMappable(Normalize(low, high), ListedColormap([_colour(shown, v) for v in steps])),
        cax=axes,
        orientation="horizontal",
        extend="both" if shown.clipped else "neither",
    )
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label(shown.label + _legend(shown), fontsize=7, labelpad=2)
    bar.ax.tick_params(labelsize=6.5, length=2, pad=1.5)


def _legend(shown: ElementMap) -> str:
    parts = [text for text, there in (("± standard error", shown.errors), ("number of crystals", shown.counts)) if there]
    return f"; below it {' and '.join(parts)}" if parts else ""


# --- piece of a page ----------------------------------------------------------------------------------------------------------------
def to_html(shown: ElementMap) -> str:
    """The map as HTML that needs no script: a grid of cells which say more when pointed at; put `STYLE` once into the page."""
    places, lines = shown.places(), shown.lines
    cells = []
    for name, (x, y) in places.items():
        where = f"grid-column:{x + 1};grid-row:{y + 1}"
        if name not in shown.values:
            cells.append(f'<div class="element missing" style="{where}" title="{element(name).name}: no value">{name}</div>')
            continue
        colour = _colour(shown, shown.values[name])
        rgb = ",".join(str(round(255 * c)) for c in colour)
        small = "".join(f"<small>{escape(text)}</small>" for text in lines[name])
        title = escape(f"{element(name).name}: {' · '.join(lines[name])} {shown.label}{_legend(shown)}")
        cells.append(
            f'<div class="element" style="{where};background:rgb({rgb});color:{_ink(colour)}" title="{title}"><b>{name}</b>{small}</div>'
        )
    low, high = shown.limits
    stops = ",".join(f"rgb({','.join(str(round(255 * c)) for c in _colour(shown, low + (high - low) * k / 10))})" for k in range(11))
    middle = (low + high) / 2
    digits = _digits(shown.values.values(), shown.centre or 0.0)
    ticks = "".join(f"<span>{v:.{digits}f}</span>" for v in (low, middle, high))
    heading = f"<figcaption><b>{escape(shown.title)}</b></figcaption>" if shown.title else ""
    return (
        f'<figure class="periodic">{heading}<div class="grid">{"".join(cells)}</div>'
        f'<div class="scale" style="background:linear-gradient(to right,{stops})"></div><div class="ticks">{ticks}</div>'
        f"<figcaption>{escape(shown.label + _legend(shown))}</figcaption></figure>"
    )


STYLE = """
.periodic{margin:1.5rem 0;max-width:66rem}
.periodic .grid{display:grid;grid-template-columns:repeat(18,minmax(2.6rem,1fr));gap:2px;overflow-x:auto}
.periodic .element{min-height:3.4rem;display:flex;flex-direction:column;align-items:center;justify-content:center}
.periodic .element{border-radius:3px;line-height:1.15}
.periodic .element small{font-size:.68rem}
.periodic .missing{background:#E5E7EB;color:#6B7280}
.periodic .scale{height:.7rem;width:24rem;max-width:100%;margin:.8rem auto 0}
.periodic .ticks{display:flex;justify-content:space-between;width:24rem;max-width:100%;margin:0 auto;font-size:.8rem}
.periodic figcaption{text-align:center;font-size:.9rem}
.periodic figcaption:first-child{text-align:left;margin-bottom:.5rem}
"""
