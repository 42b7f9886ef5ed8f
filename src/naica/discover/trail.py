"""What every number of a find goes back to: recipe, parents, oracle call, relaxed structure, references, hull, with level and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from naica.discover.ledger import Entry, Ledger
from naica.discover.recipes import Recipe
from naica.errors import InputError

_CALL = "select key, round, status, seconds, attempts, level, finished, structure, energy from calls"
_CALL_NAMES = ("id", "round", "status", "seconds", "attempts", "level", "finished", "structure", "energy")


def trail(ledger: Ledger, told: Mapping[str, Any]) -> dict[str, Any]:
    """The audit trail of a campaign's finds.

    Parameters
    ----------
    ledger : the campaign's
    told : its summary (`naica.discover.summary`)

    Returns
    -------
    ``campaign`` (level, versions, protocol, how formation energies are made, the references with their calls) and ``finds``, by id: recipe,
    lineage, call, structure, energies with their arithmetic, prediction with its model, hull with competing phases.
    """
    entries = {e.key: e for e in ledger.entries()}
    calls = {row[0]: _call(row) for row in ledger.rows(_CALL)}
    references = _references(entries.values()) if told.get("hull") else {}
    protocol = ledger.meta("protocol")
    campaign = {
        "name": told["name"],
        "level": told["level"],
        "oracle": told["oracle"],
        "options": (told["config"].get("oracle") or {}).get("options", {}),
        "protocol": json.loads(protocol) if protocol else None,
        "versions": dict(told["versions"]),
        "corrections": "as the level of theory says; the ledger keeps energies as the oracle told them and adds nothing",
        "formation_energy": "(energy − Σ n μ) / number of atoms, μ the lowest energy per atom of a computed element"
        if references
        else "label",
        "references": {
            s: {"id": e.key, "formula": e.crystal.formula, "energy_per_atom": e.energy / len(e.crystal), "call": calls[e.key]}
            for s, e in references.items()
        },
        "criterion": dict(told["criterion"]),
    }
    phases = {row["id"]: row for row in (told.get("hull") or {"entries": ()})["entries"]}
    finds = {
        str(f["id"]): _find(ledger, f, entries[f["id"]], calls[f["id"]], references, phases) for f in told["finds"] if f["id"] in entries
    }
    return {"campaign": campaign, "finds": finds}


def _references(entries: Any) -> dict[str, Entry]:
    """The lowest computed entry of each element."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if len(entry.crystal.composition) == 1:
            (name,) = entry.crystal.composition
            best = found.get(name)
            if best is None or entry.energy / len(entry.crystal) < best.energy / len(best.crystal):
                found[name] = entry
    return found


def _call(row: tuple[Any, ...]) -> dict[str, Any]:
    call = dict(zip(_CALL_NAMES, row, strict=True))
    call["finished"] = datetime.fromtimestamp(call["finished"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return call


def _find(
    ledger: Ledger, find: Mapping[str, Any], entry: Entry, call: dict[str, Any], references: Mapping[str, Entry], phases: Mapping[str, Any]
) -> dict[str, Any]:
    counts = entry.crystal.composition
    parts = {s: {"n": n, "reference": references[s].key} for s, n in counts.items() if s in references}
    competing = [
        {**c, "formation_energy": phases[c["id"]]["formation_energy"]} if c["id"] in phases else dict(c)
        for c in find.get("competing") or ()
    ]
    return {
        "formula": find["formula"],
        "recipe": recipe_facts(ledger, entry.key),
        "lineage": list(find.get("lineage") or ()),
        "call": call,
        "structure": {"hash": entry.crystal.hash, "n_atoms": len(entry.crystal), "volume": entry.crystal.volume},
        "energy": {"total": entry.energy, "unit": "eV", "references": parts, "formation_energy": find["formation_energy"]},
        "prediction": {"value": find.get("predicted"), "sigma": find.get("model_sigma"), "model": f"models/round-{find['round']:02d}"},
        "hull": {"above": find.get("above_hull"), "separation": find.get("separation_energy"), "competing": competing},
        "novelty": find.get("novelty"),
    }


def recipe_facts(ledger: Ledger, key: str) -> dict[str, Any] | None:
    """The recipe of a candidate in plain words and as packed bytes (hex); None for what was known at the start or has none."""
    found = ledger.rows("select recipe, origin, parent, round from candidates where key = ?", (key,))
    if not found:
        return None
    packed, origin, parent, round_ = found[0]
    facts: dict[str, Any] = {"packed": packed.hex(), "origin": origin, "parent": parent, "proposed_in_round": round_}
    if not packed:
        return facts
    try:
        recipe = Recipe.unpack(packed)
    except InputError as error:
        return {**facts, "unreadable": str(error)}
    return {
        **facts,
        "key": recipe.key,
        "parent": recipe.parent,
        "species": [list(pair) for pair in recipe.species],
        "mask": list(recipe.mask),
        "supercell": list(recipe.supercell),
        "scale": recipe.scale,
    }
