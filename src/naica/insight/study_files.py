"""What a study leaves in its folder: pictures, tables, a page; written anew from the results each time."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from naica.errors import RunError
from naica.fields import field
from naica.insight.periodic import STYLE, ElementMap, draw, to_html
from naica.insight.rules import Judged
from naica.insight.study import SiteMap, Study


def site_unit(quantity: str) -> str:
    """Unit of a site's number: that of the quantity, without its "per atom" where it has one, per site."""
    return f"{field(quantity).unit.removesuffix('/atom')} per site".strip()


def picture_of(one: SiteMap, quantity: str, method: str = "exact") -> ElementMap:
    """A map as a picture: contributions less their mean over the elements there, which is what predictions fix best."""
    how = "contribution" if method == "exact" else f"contribution ({method})"
    name = f"{one.kind} site: " if one.kind else ""
    return ElementMap(
        {c.element: c.mean - one.centre for c in one.contributions},
        f"{how} less the mean over elements ({site_unit(quantity)})",
        {c.element: c.standard_error for c in one.contributions},
        {c.element: c.crystals for c in one.contributions},
        0.0,
        f"{name}what each element adds to the {field(quantity).label}",
    )


def write_maps(maps: Sequence[SiteMap], quantity: str, out: Path, method: str = "exact") -> list[Path]:
    """A picture (PNG and SVG) per kind of site, and ``elements.csv``.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = [out / "elements.csv"]
        _write_csv(written[0], _element_rows(maps, quantity))
        for one in maps:
            figure = draw(picture_of(one, quantity, method))
            for ending in ("png", "svg"):
                written.append(out / f"{one.kind or 'elements'}.{ending}")
                figure.savefig(written[-1])
    except OSError as error:
        raise RunError(f"cannot write the maps into {out}: {error}") from error
    return written


def _element_rows(maps: Sequence[SiteMap], quantity: str) -> list[dict[str, Any]]:
    return [
        {
            "site": one.kind,
            "element": c.element,
            "contribution": round(c.mean, 4),
            "less_mean_over_elements": round(c.mean - one.centre, 4),
            "standard_error": round(c.standard_error, 4),
            "between_networks": round(one.spread.get(c.element, math.nan), 4),
            "by_labels_alone": round(one.labels.get(c.element, math.nan), 4),
            "sites": c.sites,
            "crystals": c.crystals,
            "unit": site_unit(quantity),
        }
        for one in maps
        for c in one.contributions
    ]


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# --- the study ------------------------------------------------------------------------------------------------------------------------
def write_study(found: Study, out: Path) -> list[Path]:
    """Maps, ``elements.csv``, ``rules.csv`` and ``study.html``.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    written = write_maps(found.maps, found.quantity, out)
    try:
        _write_csv(out / "rules.csv", rule_rows(found))
        (out / "study.html").write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write the study into {out}: {error}") from error
    return [*written, out / "rules.csv", out / "study.html"]


def rule_rows(found: Study) -> list[dict[str, Any]]:
    """One row per rule and part: the mined one, those beside it, and the best of each number of facts (training rows only)."""
    rows = [
        _rule_row(name, part, judged)
        for name, both in found.rules.items()
        for part, judged in zip(("training", "held out"), both, strict=True)
    ]
    return rows + [_rule_row(f"best with {j.rule.facts} facts", "training", j) for j in found.mined.by_facts]


def _rule_row(name: str, part: str, judged: Judged) -> dict[str, Any]:
    factor = judged.enrichment
    value, low, high = (factor.value, factor.low, factor.high) if factor else (math.nan,) * 3
    return {
        "name": name,
        "rule": str(judged.rule),
        "rows": part,
        "hits": judged.hits,
        "size": judged.size,
        "all_hits": judged.all_hits,
        "all_size": judged.all_size,
        "enrichment": round(value, 3),
        "low": round(low, 3),
        "high": round(high, 3),
    }


def in_words(judged: Judged) -> str:
    """``13 of 59 against 51 of 3,153: 13.6 × (8.4 to 19.8)``."""
    counts = f"{judged.hits:,} of {judged.size:,} against {judged.all_hits:,} of {judged.all_size:,}"
    if judged.enrichment is None:
        return f"{counts}: no row follows the rule"
    e = judged.enrichment
    return f"{counts}: {e.value:.1f} × ({e.low:.1f} to {e.high:.1f})"


def remarks(found: Study) -> list[str]:
    """What the numbers are worth, in sentences."""
    lines = [f"sites add up to the predictions: largest miss {found.exactness:.1e} {found.unit}"]
    lines += [_map_remark(one) for one in found.maps if len(one.contributions) >= 3]
    mined = found.mined
    lines.append(
        f"{mined.tried:,} rules were tried on the {found.rows['training']:,} training rows, each vouched for at the level 0.05 / "
        f"{mined.tried:,} = {mined.level:.1e}; the {found.rows['held out']:,} held-out rows had no part in training, ranking "
        "or choice of the rule"
    )
    return lines


def _map_remark(one: SiteMap) -> str:
    parts = [f"r = {one.with_labels:.3f} with the mean labels"] if math.isfinite(one.with_labels) else []
    if math.isfinite(one.between_networks):
        parts.append(f"r = {one.between_networks:.3f} between networks")
    weak = math.isfinite(one.between_networks) and one.between_networks < 0.9
    return f"map of {one.kind}: {', '.join(parts)}" + ("; networks disagree on it, so read it with care" if weak else "")


def page(found: Study) -> str:
    """The study as one HTML page without scripts."""
    maps = "".join(to_html(picture_of(one, found.quantity)) for one in found.maps)
    names = ("rule", "in words", "rows", "hits", "size", "hits of all", "all", "enrichment", "95 %, from", "to")
    head = "".join(f"<th>{n}</th>" for n in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(v))}</td>' for v in row.values())}</tr>" for row in rule_rows(found))
    notes = "".join(f"<li>{escape(line)}</li>" for line in remarks(found))
    mae = (found.metrics.get("test") or {}).get("mae")
    error = f", mean absolute error there {mae:.4f} {found.unit}" if mae is not None else ""
    columns = escape(" and ".join(found.settings.columns))
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sites: {columns}</title><style>
body{{font-family:system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#111827}}
table{{border-collapse:collapse;font-size:.9rem}}td,th{{padding:.3rem .6rem;border-bottom:1px solid #D1D5DB;text-align:left}}
{STYLE}</style></head><body><h1>What each element is worth on {columns}</h1>
<p>{found.networks} networks with one number per site; {found.rows["held out"]:,} held-out crystals{error}.</p>{maps}
<h2>Design rule</h2><p>Hits are crystals with {escape(field(found.quantity).label)} up to {found.settings.threshold:g} {found.unit}.</p>
<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><h2>Remarks</h2><ul>{notes}</ul></body></html>
"""
