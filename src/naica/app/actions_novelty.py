"""Answers about what is new and what is the same."""

from __future__ import annotations

from typing import Any

from naica.app.answer import Answer, Table, number
from naica.app.requests_novelty import NoveltyRequest, PolymorphsRequest
from naica.app.structures import Unreadable, read_structures
from naica.errors import InputError


def novelty(request: NoveltyRequest) -> Answer:
    """What is new about each structure, with the evidence."""
    from naica.discover.novelty import known_of

    if not request.against and not request.formulas:
        raise InputError("nothing to compare with; give --against TABLE (a set of `naica data list` or a Parquet file) or --formulas CSV")
    known = known_of(request.against, [str(p) for p in request.formulas])
    good, bad = read_structures(request.files)
    rows: list[dict[str, Any]] = []
    for one in good:
        found = known.novelty(one.crystal, request.depth, request.disorder)
        rows.append({"name": one.name, **found.to_dict()})
    data = {
        "against": list(request.against),
        "formulas": list(request.formulas),
        "known": len(known),
        "structures": rows,
        "unreadable": bad,
    }
    cells = tuple(
        (r["name"], r["formula"], r["claim"], str(r["match"] or "–"), number(r["distance"]), "yes" if r["robust"] else "no") for r in rows
    )
    heads = ("structure", "formula", "verdict", "matches", "rms", "at other tolerances")
    said = tuple(f"{r['name']}: {text}" for r in rows for text in r["evidence"])
    return Answer(data, (Table(heads, cells, right=("rms",)), *said), _complaints(bad), exit_code=2 if not good else 0)


def polymorphs(request: PolymorphsRequest) -> Answer:
    """Clusters of structures of equal formula, and what stands for each."""
    from naica.discover.polymorphs import polymorphs as clustered

    good, bad = read_structures(request.files)
    found = clustered([n.crystal for n in good], None, request.cut, request.most)
    clusters: list[dict[str, Any]] = [
        {
            "formula": c.formula,
            "representative": good[c.representative].name,
            "members": [good[k].name for k in c.members],
            "spread": c.spread,
        }
        for c in found.clusters
    ]
    distances = {f: {"names": [good[k].name for k in found.rows[f]], "largest": found.distances[f]} for f in found.rows}
    cells = tuple(
        (c["formula"], c["representative"], str(len(c["members"])), number(c["spread"]), ", ".join(c["members"][:4])) for c in clusters
    )
    heads = ("formula", "stands for them", "members", "largest displacement", "they are")
    data = {"cut": request.cut, "clusters": clusters, "distances": distances, "unreadable": bad}
    return Answer(data, (Table(heads, cells, right=heads[2:4]),), _complaints(bad), exit_code=2 if not good else 0)


def _complaints(bad: list[Unreadable]) -> tuple[str, ...]:
    return tuple(f"{b.name}: {b.reason}" for b in bad)
