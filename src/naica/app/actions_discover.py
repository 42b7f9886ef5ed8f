"""Answers about discovery: run a campaign, tell how it stands, write its report and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from naica.app.answer import Answer, Table, number
from naica.app.requests import CampaignRequest, DiscoverRequest
from naica.errors import InputError

_SHOWN = 15


# --- campaigns -----------------------------------------------------------------------------------------------------------------
def discover(request: DiscoverRequest) -> Answer:
    """Run (or resume) the campaign, write its report and its exports, and say what it found."""
    from naica.app.campaign_progress import campaign_progress
    from naica.discover.campaign import Campaign

    campaign = Campaign(request.config, request.folder, request.engine)
    if request.dry_run:
        return _plan_answer(campaign.plan(), request.config)
    with campaign_progress(campaign.folder) as report_event:
        outcome = campaign.run(rounds=request.rounds, budget=request.budget, progress=report_event)
    written = write_all(outcome.folder, outcome.folder / "report.html", outcome.folder / "export")
    answer = status(CampaignRequest(outcome.folder))
    data = {**answer.data, "ended": outcome.why, "report": str(outcome.folder / "report.html"), "files": [str(p) for p in written]}
    notes = (
        f"ended: {outcome.why}",
        f"report: {outcome.folder / 'report.html'}",
        f"table of finds: {outcome.folder / 'export' / 'finds.csv'}",
    )
    return Answer(data, answer.blocks, (*answer.notes, *notes))


def _plan_answer(plan: dict[str, Any], config: Path) -> Answer:
    rows = tuple((key.replace("_", " "), _said(value)) for key, value in plan.items())
    return Answer({"config": str(config), "plan": plan}, (Table(("a run would", ""), rows),), ("dry run: nothing was computed or written",))


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_said(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def status(request: CampaignRequest) -> Answer:
    """Rounds, hit rates and the best finds of a campaign."""
    from naica.discover import throughput
    from naica.discover.cuts import sentences
    from naica.discover.learning import sentences as learned

    summary = summary_of(request.folder)
    blocks = (
        f"{summary.get('title') or summary['name']} · level of theory: {summary['level']}",
        _rounds_table(summary),
        _finds_table(summary),
    )
    left = len(summary["finds"]) - _SHOWN
    notes = (f"{left} more finds: naica campaign report {request.folder}",) if left > 0 else ()
    notes = (*notes, *learned(summary), *sentences(summary.get("filter")), *throughput.sentences(summary.get("throughput")))
    kept = (
        "name",
        "title",
        "elements",
        "level",
        "oracle",
        "criterion",
        "started",
        "finished",
        "n_rounds",
        "rounds",
        "learning",
        "scaling",
        "hit_rates",
        "recall",
        "filter",
        "cost",
        "throughput",
    )
    finds = [{k: v for k, v in f.items() if k not in ("cif", "crystal")} for f in summary["finds"]]
    return Answer({"folder": str(request.folder), **{k: summary.get(k) for k in kept}, "finds": finds}, blocks, notes)


def summary_of(folder: Path) -> dict[str, Any]:
    """The summary of the campaign in a folder.

    Raises
    ------
    InputError
        If the folder holds no campaign.
    """
    from naica.discover.summary import summary

    if not (folder / "ledger.sqlite").exists():
        raise InputError(f"{folder} holds no campaign (no ledger.sqlite); run `naica discover FILE.toml` first, or name its folder")
    return summary(folder)


def _rounds_table(summary: dict[str, Any]) -> Table:
    rows = tuple(
        (
            str(r["round"]),
            *(_count(r.get(k)) for k in ("generated", "scored", "passed", "computed", "failed", "hits")),
            _rate(r.get("hit_rate"), r.get("low"), r.get("high")),
        )
        for r in summary["rounds"]
    )
    heads = ("round", "generated", "scored", "passed", "computed", "failed", "hits", "hit rate (95 %)")
    return Table(heads, rows, right=heads)


def _count(value: Any) -> str:
    return "–" if value is None else f"{value:,}".replace(",", " ")


def _rate(rate: float | None, low: float | None, high: float | None) -> str:
    if rate is None:
        return "–"
    return f"{rate:.0%}" + (f" ({low:.0%}–{high:.0%})" if low is not None and high is not None else "")


def _finds_table(summary: dict[str, Any]) -> Table:
    rows = tuple(
        (
            str(f["formula"]),
            str(f.get("spacegroup") or "–"),
            number(f.get("separation_energy") if f.get("separation_energy") is not None else f.get("energy")),
            number(f.get("above_hull")),
            " + ".join(str(c["formula"]) for c in f.get("competing") or ()) or "–",
            str(f.get("generator") or "–"),
            str(f.get("round")),
        )
        for f in summary["finds"][:_SHOWN]
    )
    depth = "separation (eV/atom)" if summary.get("hull") else "value (eV/atom)"
    heads = ("formula", "space group", depth, "above hull", "competing phases", "by", "round")
    return Table(heads, rows, title="found", right=(depth, "above hull", "round"))


def report(request: CampaignRequest) -> Answer:
    """Write the report page."""
    from naica.app.report import write_report

    path = request.out or request.folder / "report.html"
    write_report(summary_of(request.folder), path)
    return Answer({"report": str(path), "bytes": path.stat().st_size}, (f"wrote {path}",))


def export(request: CampaignRequest) -> Answer:
    """Write finds as CSV, Parquet, extended xyz and CIFs."""
    from naica.app.export import write_export

    written = write_export(summary_of(request.folder), request.out or request.folder / "export")
    return Answer({"files": [str(p) for p in written]}, tuple(f"wrote {p}" for p in written))


def write_all(folder: Path, page: Path, out: Path) -> list[Path]:
    """Report and exports of a campaign, from one summary."""
    from naica.app.export import write_export
    from naica.app.report import write_report

    summary = summary_of(folder)
    write_report(summary, page)
    return [page, *write_export(summary, out)]
