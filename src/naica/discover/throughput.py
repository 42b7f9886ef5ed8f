"""How many structures each stage of a campaign handled, how fast, and what one cost: from what the stages left in the ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from naica.discover.ledger import Ledger

_COUNTED = {"learn": "labels", "propose": "proposed", "judge": "scored", "pick": "picked", "compute": "calls"}
_WHAT = {"learn": "labels", "propose": "candidates", "judge": "candidates", "pick": "picks", "compute": "calls"}


def stage_costs(ledger: Ledger) -> list[dict[str, Any]]:
    """One entry per stage over all finished rounds, in the order of the loop.

    Keys: ``stage``, ``what`` and ``n`` (what it handled), ``seconds`` of wall clock, ``per_second`` and ``each`` (seconds per structure,
    None where nothing was handled). Proposing is also told by source where a source counted its own seconds (the first look's are of CPU).
    A stage resumed after a kill counts the seconds since it was begun again.
    """
    total: dict[str, list[float]] = {}
    parts: dict[str, list[float]] = {}
    for stage, raw, seconds in ledger.rows("select stage, data, seconds from stages where round > 0 order by round"):
        data = json.loads(raw)
        if stage in _COUNTED:
            _add(total, stage, data.get(_COUNTED[stage], 0), seconds)
        for source, told in (data.get("sources") or {}).items() if stage == "propose" else ():
            for name, n, spent in _of_source(source, told):
                _add(parts, name, n, spent)
    found = []
    for stage in _COUNTED:
        if stage in total:
            found.append(_entry(stage, _WHAT[stage], *total[stage]))
        if stage == "propose":
            found += [_entry(f"propose: {name}", "structures" if "random" in name else "recipes", *parts[name]) for name in parts]
    return found


def _of_source(source: str, told: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(name, how many, seconds) of the steps of a source."""
    if source == "first look":
        looked = told["merge_seconds"] + told["look_seconds"] + told["hull_seconds"] + told["rank_seconds"]
        return [
            ("first look, generated", told["generate made"], told["generate seconds"]),
            ("first look, ranked", told["distinct"], looked),
        ]
    if source == "compositions" and told.get("structures"):
        return [("random structures, relaxed", told["structures"], told["search seconds"])]
    return []


def _add(into: dict[str, list[float]], name: str, n: float, seconds: float) -> None:
    entry = into.setdefault(name, [0, 0.0])
    entry[0] += n or 0
    entry[1] += seconds or 0.0


def _entry(stage: str, what: str, n: float, seconds: float) -> dict[str, Any]:
    each = seconds / n if n else None
    return {"stage": stage, "what": what, "n": int(n), "seconds": seconds, "each": each, "per_second": n / seconds if seconds > 0 else None}


def sentences(costs: Sequence[Mapping[str, Any]] | None) -> tuple[str, ...]:
    """A line for each stage that handled anything: ``judge: 1 200 candidates in 40 s, 30 per s (0.033 s each)``."""
    lines = []
    for one in costs or ():
        if one["n"] and one["per_second"]:
            count = f"{one['n']:,}".replace(",", " ")
            speed = f"{_short(one['per_second'])} per s ({one['each']:.2g} s each)"
            lines.append(f"{one['stage']}: {count} {one['what']} in {one['seconds']:.3g} s, {speed}")
    return tuple(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.2g}"
