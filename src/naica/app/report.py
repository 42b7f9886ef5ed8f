"""The report of a campaign as one HTML page that opens with no network: figures, structures in 3D, evidence, failures, provenance."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from naica.app import report_text as text
from naica.app import wording
from naica.app.answer import to_json
from naica.app.export import csv_text
from naica.app.report_finds import MOST_PICTURED, Find, looks, prepare
from naica.errors import RunError

Summary = Mapping[str, Any]

_CARDS = MOST_PICTURED
_SECTIONS = (
    ("finds", "Finds"),
    ("hull", "Hull"),
    ("rounds", "Rounds"),
    ("filter", "Filter"),
    ("table", "Evidence"),
    ("failed", "Failures"),
    ("cost", "Cost"),
    ("provenance", "Do it again"),
)


def write_report(summary: Summary, path: str | Path) -> Path:
    """Write the page of a campaign's summary (see `naica.discover.summary`) to `path`, whole or not at all.

    Raises
    ------
    RunError
        If the file cannot be written; the message says why.
    """
    target = Path(path)
    page = render(summary)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page, encoding="utf-8")
        os.replace(draft, target)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise RunError(f"cannot write the report {target}: {error.strerror or error}; name another place with --out") from error
    return target


def render(summary: Summary) -> str:
    """The page as text."""
    from markupsafe import Markup

    finds = prepare(summary)
    figures, captions = _figures(summary)
    scenes = {f.id: f.scene for f in finds if f.scene}
    drawn = looks({symbol for scene in scenes.values() for symbol in scene["elements"]})
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            s=summary,
            page=_page(summary, finds, figures, captions),
            css=Markup(_asset("templates/report.css")),
            gradients=Markup(drawn.gradients),
            json={name: _embedded(value) for name, value in (("figures", figures), ("scenes", scenes), ("looks", drawn.to_dict()))},
            js={
                "plotly": Markup(_plotly()),
                "viewer": Markup(_viewer()),
                "page": Markup(_asset("templates/report.js")),
            },
        )
    )


def _page(summary: Summary, finds: Sequence[Find], figures: Mapping[str, Any], captions: Mapping[str, str]) -> dict[str, Any]:
    """Everything the template shows that is not in the summary itself."""
    hull = summary.get("hull")
    there = {"hull": bool(hull), "table": bool(finds)}
    return {
        "title": summary.get("title") or summary["name"],
        "subtitle": text.subtitle(summary),
        "headline": text.headline(summary, finds),
        "facts": text.facts(summary, finds),
        "care": text.care(summary, finds),
        "sections": [(key, name) for key, name in _SECTIONS if there.get(key, True)],
        "finds": finds,
        "cards": finds[:_CARDS],
        "finds_lede": text.finds_lede(summary, finds, _CARDS),
        "hull_lede": text.hull_lede(summary),
        "hull_caption": text.hull_caption(summary),
        "hull_rows": sorted(hull["entries"], key=lambda e: (not e["stable"], e["above_hull"])) if hull else [],
        "rounds_lede": text.rounds_lede(summary),
        "recall": text.recall(summary),
        "filter_lede": text.filter_lede(summary),
        "calibration_caption": captions.get("calibration", ""),
        "table_lede": text.table_lede(summary),
        "failed_lede": text.failed_lede(summary),
        "rejections": text.rejections(summary),
        "cost_lede": text.cost_lede(summary),
        "timing": text.timing(summary),
        "again_lede": text.again_lede(summary),
        "command": text.command(summary),
        "seeds": text.seeds(summary),
        "versions": ", ".join(f"{name} {version}" for name, version in (summary.get("versions") or {}).items()) or "not recorded",
        "when": text.when(summary),
        "config": text.toml(summary["config"]) if isinstance(summary.get("config"), Mapping) else summary.get("config"),
        "figures": {name: figures.get(name) for name in ("hull", "hits", "calibration", "learning")},
        "csv_uri": _data_uri("text/csv", csv_text(summary["finds"])),
    }


# --- figures ---------------------------------------------------------------------------------------------------------------------
def _figures(summary: Summary) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures as plain data, and the titles taken off them: a page wraps a caption, a figure cuts its title."""
    from naica.insight import plots

    checked = [c for c in summary.get("calibration") or () if c.get("predicted") is not None and c.get("actual") is not None]
    made = {}
    if summary.get("hull") and summary["hull"]["entries"]:
        made["hull"] = plots.hull_figure(summary["hull"])
    if any((r.get("arms") or {}) and r.get("computed") for r in summary["rounds"]):
        made["hits"] = plots.hit_rate_figure(summary["rounds"])
    if checked:
        made["calibration"] = plots.calibration_figure(checked)
    if len([p for p in summary.get("learning") or () if p.get("mae") is not None]) > 1:
        made["learning"] = plots.learning_figure(summary["learning"])
    captions = {}
    for name, figure in made.items():
        captions[name] = text.caption(name, figure.layout.title.text or "")
        figure.layout.title.text = None
        figure.layout.template = None
    return {name: json.loads(figure.to_json()) for name, figure in made.items()}, captions


# --- parts of a page -------------------------------------------------------------------------------------------------------------
@cache
def _asset(name: str) -> str:
    return (files("naica.app") / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@cache
def _viewer() -> str:
    # its licence asks that the notice goes wherever the code goes
    return f"/*! 3Dmol.js 2.5.5\n{_asset('static/3Dmol-LICENSE.txt')}*/\n{_asset('static/3Dmol-min.js')}"


def _embedded(value: Any) -> Any:
    """JSON that can stand inside a script element whatever names it holds."""
    from markupsafe import Markup

    escaped = to_json(value, indent=None).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(escaped)


def _data_uri(kind: str, content: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}"


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("naica.app"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        formula=formula,
        spacegroup=spacegroup,
        slug=lambda name: re.sub(r"[^A-Za-z0-9_-]+", "-", str(name)).strip("-") or "campaign",
        percent=wording.percent,
        span=wording.span,
        factors=wording.factors_span,
        milli=wording.milli,
        signed=wording.signed,
        count=wording.count,
        duration=wording.duration,
    )
    return environment


def formula(name: Any) -> Any:
    """A formula with its numbers set low; anything else in it is escaped."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=[A-Za-z)])(\d+(?:\.\d+)?)", r"<sub>\1</sub>", str(escape(name))))


def spacegroup(symbol: Any) -> Any:
    """A space group symbol with bars over the rotoinversions and screw axes set low: ``Fd-3m``, ``P6_3/mmc``."""
    from markupsafe import Markup, escape

    barred = re.sub(r"-([1346])", r'<span class="over">\1</span>', str(escape(symbol or "–")))
    return Markup(re.sub(r"_(\d)", r"<sub>\1</sub>", barred))
