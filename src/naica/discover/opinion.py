"""A second opinion: a campaign's finds, and all that competes with them, judged again at another level of theory.

GNoME computed its finds again with r²SCAN: 84 % of the binaries and ternaries stayed stable. Here any oracle can be the second one. It
relaxes each find and each phase within `reach` of the first hull, elements included, and makes a hull of its own from these: the two levels
never meet in one number. Results are kept in the ledger beside the first ones (table ``opinions``), so a second start computes only what is
missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from naica.discover.hull import Hull
from naica.discover.ledger import Ledger
from naica.errors import InputError, RunError

_SCHEMA = (
    "create table if not exists opinions (key text not null, oracle text not null, level text not null, status text not null, reason text, "
    "energy real, structure text, seconds real not null, finished real not null, primary key (key, oracle)) without rowid"
)
_ALL = "select key, oracle, level, status, reason, energy from opinions order by oracle, key"


def ask(
    folder: str | Path,
    oracle: str,
    reach: float = 0.1,
    progress: Callable[[int, int, str], None] = lambda done, total, told: None,
    **options: Any,
) -> dict[str, Any]:
    """Compute what is missing for a second opinion, and tell it (see `verdicts`).

    Parameters
    ----------
    folder : of the campaign
    oracle : the second one's name (`naica.discover.oracle.make_oracle`), `options` its options
    reach : eV/atom above the first hull up to which phases are computed too

    Raises
    ------
    InputError
        If the second oracle is the campaign's own, or the campaign has no hull.
    RunError
        If there is no campaign, or an elemental reference fails.
    """
    from naica.discover.oracle import make_oracle
    from naica.discover.summary import summary

    told = summary(folder, structures=False)
    if told["hull"] is None:
        raise InputError("this campaign judges by labels and has no hull; a second opinion needs the energies of competing phases")
    second = make_oracle(oracle, **options)
    if str(second.level) == told["level"]:
        raise InputError(f"the campaign itself was computed at {told['level']}; a second opinion needs another level of theory")
    finds = {f["id"] for f in told["finds"]}
    wanted = [
        row["id"] for row in told["hull"]["entries"] if row["above_hull"] <= reach or row["id"] in finds or max(row["fractions"]) == 1
    ]
    ledger = Ledger(folder)
    try:
        with ledger.write() as db:
            db.execute(_SCHEMA)
        crystals = {e.key: e.crystal for e in ledger.entries()}
        done = {key for (key,) in ledger.rows("select key from opinions where oracle = ?", (oracle,))}
        for at, key in enumerate(wanted):
            progress(at, len(wanted), crystals[key].formula)
            if key in done:
                continue
            began = time.perf_counter()
            result = second.evaluate([crystals[key]])[0]
            with ledger.write() as db:
                place = ledger.put_structure(db, result.crystal) if result.crystal is not None else None
                db.execute(
                    "insert or replace into opinions values (?,?,?,?,?,?,?,?,?)",
                    (
                        key,
                        oracle,
                        str(result.level),
                        result.status,
                        result.reason,
                        result.energy,
                        place,
                        time.perf_counter() - began,
                        time.time(),
                    ),
                )
        found = next(v for v in verdicts(ledger, told) if v["oracle"] == oracle)
        if found["missing"]:
            raise RunError(
                f"the second oracle {oracle} has no energy for {', '.join(found['missing'])} ({'; '.join(found['failed'].values())}): "
                "without a reference there is no second hull; take another oracle or other options"
            )
        return found
    finally:
        ledger.close()


def verdicts(ledger: Ledger, told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each second oracle says of the finds.

    Returns
    -------
    one dictionary per oracle: ``oracle``, ``first`` and ``second`` (levels of theory), ``finds`` (id, formula, both separation energies and
    distances in eV/atom, ``verdict``: "both stable", "only the first", "no answer", with ``reason``), ``agree`` and ``of``, ``entries``
    compared, ``mad`` (mean absolute difference of formation energies, eV/atom), ``failed``, and ``missing``: elements the second oracle has
    no energy for, without which there is no second hull and no finds are judged
    """
    if told.get("hull") is None or not ledger.rows("select name from sqlite_master where type = 'table' and name = 'opinions'"):
        return []
    by_oracle: dict[str, list[tuple[Any, ...]]] = {}
    for row in ledger.rows(_ALL):
        by_oracle.setdefault(row[1], []).append(row)
    crystals = {e.key: e.crystal for e in ledger.entries()}
    return [_verdict(oracle, rows, crystals, told) for oracle, rows in by_oracle.items()]


def _verdict(oracle: str, rows: list[tuple[Any, ...]], crystals: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    good = {key: energy / len(crystals[key]) for key, _, _, status, _, energy in rows if status == "converged" and key in crystals}
    reasons = {key: reason or status for key, _, _, status, reason, _ in rows if status != "converged"}
    keys = sorted(good)
    elements = {next(iter(crystals[k].composition)) for k in keys if len(crystals[k].composition) == 1}
    head = {"oracle": oracle, "first": told["level"], "second": rows[0][2], "failed": reasons}
    if missing := [s for s in told["elements"] if s not in elements]:
        return {**head, "missing": missing, "finds": [], "agree": 0, "of": 0, "entries": 0, "mad": None}
    hull = Hull([crystals[k].composition for k in keys], [good[k] for k in keys], ids=keys)
    formation = dict(zip(keys, hull.formation_energies().tolist(), strict=True))
    distance = dict(zip(keys, hull.above_hull.tolist(), strict=True))
    first = {row["id"]: row["formation_energy"] for row in told["hull"]["entries"]}
    limit = told["criterion"]["threshold"]
    finds = []
    for find in told["finds"]:
        key = find["id"]
        facts = {"id": key, "formula": find["formula"], "first_separation": find["separation_energy"], "first_above": find["above_hull"]}
        if key not in good:
            finds.append({**facts, "verdict": "no answer", "reason": reasons.get(key, "not computed")})
            continue
        above = distance[key]
        finds.append(
            {
                **facts,
                "second_separation": hull.separation(key),
                "second_above": above,
                "verdict": "both stable" if above <= limit else "only the first",
                "reason": "",
            }
        )
    compared = [k for k in keys if k in first and len(crystals[k].composition) > 1]
    differences = [abs(formation[k] - first[k]) for k in compared]
    answered = [f for f in finds if f["verdict"] != "no answer"]
    return {
        **head,
        "missing": [],
        "finds": finds,
        "agree": sum(f["verdict"] == "both stable" for f in answered),
        "of": len(answered),
        "entries": len(compared),
        "mad": float(np.mean(differences)) if differences else None,
    }
