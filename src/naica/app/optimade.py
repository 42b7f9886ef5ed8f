"""Structures with their numbers as OPTIMADE JSON Lines: what any server of that standard can load and serve.

The first line names the version of the standard, the second defines the properties that are not of the standard (prefix ``_naica_``, with
unit), then one line per structure. Standard: OPTIMADE 1.2 (Evans et al., Digital Discovery 3, 1509, 2024).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import plain

if TYPE_CHECKING:
    from naica.structure import Crystal

API_VERSION = "1.2.0"
PREFIX = "_naica_"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Entry:
    """One structure: its id, its atoms, its properties by plain name, and when it was made (seconds since 1970)."""

    id: str
    crystal: Crystal
    properties: Mapping[str, Any]
    modified: float | None = None


def write_optimade(entries: Iterable[Entry], definitions: Mapping[str, tuple[str, str]], path: Path) -> Path:
    """Write entries to `path`; `definitions` says of each property its unit and what it is."""
    with path.open("w", encoding="utf-8") as handle:
        for line in optimade_lines(entries, definitions):
            handle.write(json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n")
    return path


def optimade_lines(entries: Iterable[Entry], definitions: Mapping[str, tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """The lines as plain data."""
    held = list(entries)
    yield {"x-optimade": {"meta": {"api_version": API_VERSION}}}
    properties = {
        PREFIX + name: {
            "title": name,
            "description": what,
            "type": _kind(entry.properties.get(name) for entry in held),
            **({"unit": unit} if unit else {}),
        }
        for name, (unit, what) in definitions.items()
    }
    yield {"type": "info", "id": "structures", "description": "Structures found or selected by naica", "properties": properties}
    for entry in held:
        yield {
            "type": "structures",
            "id": entry.id,
            "attributes": {**structure_attributes(entry.crystal, entry.modified), **_own(entry, definitions)},
        }


def _kind(values: Iterable[Any]) -> str:
    seen = {type(v) for v in values if v is not None}
    if seen <= {bool}:
        return "boolean" if seen else "string"
    if seen <= {int}:
        return "integer"
    return "float" if seen <= {int, float} else "string"


def _own(entry: Entry, definitions: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    return {PREFIX + name: entry.properties.get(name) for name in definitions}


def structure_attributes(crystal: Crystal, modified: float | None = None) -> dict[str, Any]:
    """The attributes the standard asks of a structure; lengths in Å."""
    counts = crystal.composition
    elements = sorted(counts)
    n = len(crystal)
    whole = [bool(p) for p in crystal.pbc]
    return {
        "immutable_id": crystal.hash,
        "last_modified": None if modified is None else datetime.fromtimestamp(modified, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "elements": elements,
        "nelements": len(elements),
        "elements_ratios": [counts[s] / n for s in elements],
        "chemical_formula_descriptive": crystal.formula,
        "chemical_formula_reduced": _reduced(counts),
        "chemical_formula_anonymous": _anonymous(counts),
        "dimension_types": [int(p) for p in whole],
        "nperiodic_dimensions": sum(whole),
        "lattice_vectors": [list(row) if p else [None] * 3 for row, p in zip(crystal.cell.tolist(), whole, strict=True)],
        "cartesian_site_positions": crystal.positions.tolist(),
        "nsites": n,
        "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in elements],
        "species_at_sites": crystal.symbols,
        "structure_features": [],
    }


def _reduced(counts: Mapping[str, int]) -> str:
    """Elements in alphabetical order, as the standard writes formulas."""
    from naica.structure.composition import reduced

    amounts = reduced(counts)
    return "".join(f"{s}{amounts[s] if amounts[s] != 1 else ''}" for s in sorted(amounts))


def _anonymous(counts: Mapping[str, int]) -> str:
    """Largest amount first."""
    from naica.structure.composition import reduced

    amounts = sorted(reduced(counts).values(), reverse=True)
    return "".join(f"{letter}{n if n != 1 else ''}" for letter, n in zip(_LETTERS, amounts, strict=False))
