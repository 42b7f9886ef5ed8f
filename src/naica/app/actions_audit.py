"""Answers about what a campaign's results have to stand: the audit of its ledger, and a second opinion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from naica.app.answer import Answer, Table
from naica.app.requests_screen import AuditRequest, OpinionRequest
from naica.app.wording import milli, signed

_SHOWN = 12


def audit(request: AuditRequest) -> Answer:
    """Check the ledger; exit code 2 if anything is wrong."""
    from naica.discover.audit import audit as run

    checks = run(request.folder, request.recompute, request.seed)
    rows = tuple((c.name, c.status, str(c.looked_at), c.verified) for c in checks)
    wrong = [f"wrong, {c.name}: {text}" for c in checks for text in c.wrong]
    remarks = [f"{c.name}: {text}" for c in checks for text in c.remarks]
    verdict = f"{len(wrong)} things are wrong" if wrong else "nothing is wrong"
    said = f"{verdict} in {request.folder}: {len(checks)} checks, {sum(c.looked_at for c in checks)} things looked at"
    more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    data = {
        "folder": str(request.folder),
        "ok": not wrong,
        "checks": [
            {"name": c.name, "status": c.status, "looked_at": c.looked_at, "verified": c.verified, "wrong": c.wrong, "remarks": c.remarks}
            for c in checks
        ],
    }
    table = Table(("check", "verdict", "looked at", "verified"), rows, right=("looked at",))
    return Answer(data, (said, table, *wrong[:_SHOWN], *more), tuple(remarks[:_SHOWN]), exit_code=2 if wrong else 0)


def opinion(request: OpinionRequest, report: Callable[[int, int, str], None] | None = None) -> Answer:
    """Compute the second opinion and tell where the two levels agree."""
    from naica.discover.opinion import ask
    from naica.potential.calculators import CALCULATORS

    options: dict[str, Any] = {"fmax": request.fmax, "steps": request.steps} if request.oracle in CALCULATORS else {}
    told = ask(request.folder, request.oracle, request.reach, report or (lambda done, total, text: None), **options)
    rows = tuple(
        (
            f["formula"],
            milli(f["first_separation"]),
            milli(f.get("second_separation")),
            milli(f["first_above"]),
            milli(f.get("second_above")),
            f["verdict"] + (f" ({f['reason']})" if f["reason"] else ""),
        )
        for f in told["finds"]
    )
    heads = ("formula", "separation, first", "separation, second", "above hull, first", "above hull, second", "verdict")
    said = f"{told['agree']} of {told['of']} finds are stable at both levels (meV/atom below)"
    off = "–" if told["mad"] is None else signed(told["mad"], 3)
    notes = (
        f"first: {told['first']}",
        f"second: {told['second']}",
        f"formation energies of {told['entries']} phases differ by {off} eV/atom on average",
        f"the second hull holds the phases within {request.reach:g} eV/atom of the first",
    )
    return Answer(told, (said, Table(heads, rows, right=heads[1:5])), notes)
