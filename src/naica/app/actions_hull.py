"""Answers about hulls of a table of energies: stable or not, windows of chemical potentials, open systems, reactions, pictures."""

from __future__ import annotations

import csv
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, number
from naica.app.requests import HullRequest
from naica.errors import InputError

if TYPE_CHECKING:
    from naica.discover.hull import Hull

_SHOWN = 12
_MOST_ROWS = 60
_POTENTIAL = "Δμ (eV/atom)"


def hull(request: HullRequest) -> Answer:
    """Judge each entry of a CSV: above the hull by how much, stable or not, and what it decomposes into; then what else is asked."""
    from naica.discover.hull import Hull

    entries = _read(request.file, request)
    names = _asked_elements(request, entries[1])
    ids, formulas, energies = _within(names, entries)
    start = Hull(formulas, energies, ids=ids)
    judged = start
    if request.grow is not None:
        more = _within(names, _read(request.grow, request, frozenset(ids)))
        judged = start.with_entries(more[1], more[2], more[0])
        ids, formulas, energies = ids + more[0], formulas + more[1], energies + more[2]
    rows = _judged_rows(judged, ids, formulas, energies, request.tolerance)
    data: dict[str, Any] = {"unit": "eV/atom", "entries": rows, "stable": [r["id"] for r in rows if r["stable"]]}
    blocks: list[Table | str] = []
    notes: list[str] = []
    if request.formula is None or request.grow is not None:
        blocks.append(_hull_table(rows[:_MOST_ROWS] if len(rows) <= _MOST_ROWS else sorted(rows, key=_nearest)[:_MOST_ROWS]))
        if len(rows) > _MOST_ROWS:
            notes.append(f"{len(rows) - _MOST_ROWS} more entries: --json tells all, --elements those of one system")
    if request.grow is not None:
        data["grown"], text = _growth(start, judged, rows, request.tolerance)
        blocks.append(text)
    if request.formula is not None:
        data["formula"], more_blocks = _about(judged, request)
        blocks += more_blocks
    if request.potentials:
        data["open"], table = _open(judged, request)
        blocks.append(table)
    for path in _pictures(judged, rows, request):
        notes.append(f"wrote {path}")
    return Answer(data, tuple(blocks), tuple(notes))


def _asked_elements(request: HullRequest, formulas: list[str]) -> list[str]:
    """The elements that were named; those of a formula, its by-products and reservoirs where only that formula is asked about; or all.

    What the table lacks is left to whoever needs it, who can say what for.
    """
    from naica.discover.proportions import amounts_table
    from naica.structure.composition import parse_formula

    names = [n.strip() for n in request.elements.split(",") if n.strip()]
    if names or request.formula is None or request.grow is not None:
        return names
    asked = {s for formula in (request.formula, *request.byproducts) for s in parse_formula(formula)}
    asked |= {_potential(text)[0] for text in request.potentials}
    return [s for s in amounts_table(formulas)[0] if s in asked]


def _nearest(row: dict[str, Any]) -> tuple[bool, float]:
    """Unstable entries near the hull first: in a large table the stable ones are too many to be news."""
    return row["stable"], row["above_hull"]


def _within(names: list[str], entries: tuple[list[str], list[str], list[float]]) -> tuple[list[str], list[str], list[float]]:
    """The entries made of some elements alone; all, where none are named."""
    import numpy as np

    from naica.discover.proportions import amounts_table

    if not names:
        return entries
    ids, formulas, energies = entries
    elements, counts = amounts_table(formulas)
    unknown = [s for s in names if s not in elements]
    if unknown:
        raise InputError(f"--elements {','.join(names)}: {', '.join(unknown)} not in the table; it has {', '.join(elements)}")
    others = [k for k, s in enumerate(elements) if s not in names]
    kept = np.flatnonzero(~np.any(counts[:, others] > 0, axis=1)).tolist()
    return [ids[k] for k in kept], [formulas[k] for k in kept], [energies[k] for k in kept]


def _judged_rows(judged: Hull, ids: list[str], formulas: list[str], energies: list[float], tolerance: float) -> list[dict[str, Any]]:
    above = judged.above(formulas, energies)
    named = dict(zip(ids, formulas, strict=True))
    rows = []
    for key, formula, energy, distance in zip(ids, formulas, energies, above, strict=True):
        stable = bool(distance <= tolerance)
        parts = {} if stable else judged.decomposition(formula)
        products = [{"id": k, "formula": named.get(k, k), "fraction": float(share)} for k, share in parts.items()]
        rows.append(
            {"id": key, "formula": formula, "energy": energy, "above_hull": float(distance), "stable": stable, "decomposition": products}
        )
    return rows


def _growth(start: Hull, grown: Hull, rows: list[dict[str, Any]], tolerance: float) -> tuple[dict[str, Any], str]:
    """What the second table changed: its entries below the hull of the first, those on that of both, and what they pushed off."""
    known = set(start.ids)
    was, is_ = set(start.stable(tolerance)), {r["id"] for r in rows if r["stable"]}
    news = [r for r in rows if r["id"] not in known]
    inside = [r for r in news if _fits(start, r["formula"])]
    below = [r["id"] for r, d in zip(inside, start.above([r["formula"] for r in inside], [r["energy"] for r in inside]), strict=True)
             if d <= tolerance] if inside else []  # fmt: skip
    below += [r["id"] for r in news if r not in inside and r["stable"]]
    on_grown, off = [str(r["id"]) for r in news if r["stable"]], sorted(was - is_)
    data: dict[str, Any] = {
        "entries": len(news), "stable_at_start": len(was), "stable_now": len(is_), "on_or_below_start": below,
        "on_grown": on_grown, "pushed_off": off,
    }  # fmt: skip
    text = (
        f"{len(news)} further entries: {len(below)} on or below the hull of the start, {len(on_grown)} on the hull of both; "
        f"{len(off)} entries left the hull ({len(was)} stable before, {len(is_)} now)"
    )
    return data, text


def _fits(start: Hull, formula: str) -> bool:
    from naica.structure.composition import parse_formula

    return set(parse_formula(formula)) <= set(start.elements)


# --- one composition -------------------------------------------------------------------------------------------------------------------
def _about(judged: Hull, request: HullRequest) -> tuple[dict[str, Any], list[Table | str]]:
    """Hull energy, decomposition and potentials of a composition; window and reactions of its lowest entry, where it has one."""
    from naica.discover.phases import ON_HULL, falling_apart, synthesis, window

    formula = str(request.formula)
    height = float(judged.energy([formula])[0])
    elements = float(judged.fractions_of([formula])[0] @ judged.references)
    parts = judged.decomposition(formula)
    mu = judged.chemical_potentials(formula)
    refs = dict(zip(judged.elements, judged.references, strict=True))
    data: dict[str, Any] = {
        "formula": formula, "hull_energy": height, "formation_energy_of_hull": height - elements,
        "decomposition": [{"id": k, "formula": judged.formula(k), "fraction": v} for k, v in parts.items()],
        "chemical_potentials": {s: v - float(refs[s]) for s, v in mu.items()}, "window": None, "synthesis": None,
    }  # fmt: skip
    data["reaction"] = falling_apart(judged, formula)
    mixture = " + ".join(f"{v:.3f} {judged.formula(k)}" for k, v in parts.items())
    blocks: list[Table | str] = [f"{formula}: hull at {height:.4f} eV/atom, {mixture} (atomic fractions); {data['reaction']}"]
    try:
        row = judged.lowest(formula)
    except InputError:
        blocks.append(f"{formula} is no entry of the table: no window and no reactions")
        return data, blocks
    key = judged.ids[row]
    above = float(judged.above_hull[row])
    if above <= ON_HULL:
        found = window(judged, key)
        data["window"] = {"ranges": {s: list(v) for s, v in found.ranges.items()}, "elements": list(found.elements),
                          "corners": found.corners.tolist(), "beside": [list(b) for b in found.beside],
                          "pairs": {f"{a}-{b}": found.pair(a, b).tolist() for a, b in combinations(found.elements, 2)}}  # fmt: skip
        cells = tuple((s, f"{low:.4f}", f"{high:.4f}") for s, (low, high) in found.ranges.items())
        blocks.append(Table(("element", f"lowest {_POTENTIAL}", f"highest {_POTENTIAL}"), cells, title=f"{formula} is stable for"))
    else:
        blocks.append(f"{formula} ({key}) lies {above:.4f} eV/atom above the hull: no chemical potentials make it stable")
    made = synthesis(judged, key, request.reactants, request.byproducts)
    data["synthesis"] = {
        "depth": made.depth,
        "competing": [{"fraction": w, "id": i, "formula": f} for w, i, f in made.rivals],
        "routes": [
            {"reaction": str(r), "energy": r.energy, "margin": r.margin,
             "reactants": [{"amount": n, "id": i, "formula": f} for n, i, f in r.reactants],
             "products": [{"amount": n, "id": i, "formula": f} for n, i, f in r.products]}
            for r in made.routes
        ],
    }  # fmt: skip
    rivals = " + ".join(f"{w:.3f} {f}" for w, _, f in made.rivals)
    blocks.append(f"depth below its competitors ({rivals}): {made.depth:.4f} eV/atom")
    cells_ = tuple((str(r), f"{r.energy:.4f}", _margin(r.margin)) for r in made.routes[:_SHOWN])
    heads = ("reaction", "energy (eV/atom)", "deepest of its reactants")
    blocks.append(Table(heads, cells_, title="reactions of stable phases that make it", right=heads[1:2]))
    return data, blocks


def _margin(value: float | None) -> str:
    if value is None:
        return "–"
    return "yes" if value <= 1e-6 else f"no, by {value:.4f} eV/atom"


def _open(judged: Hull, request: HullRequest) -> tuple[dict[str, Any], Table]:
    from naica.discover.phases import open_system

    potentials = dict(_potential(text) for text in request.potentials)
    opened = open_system(judged, potentials)
    above = opened.above()
    rows = [
        {"id": i, "formula": opened.formulas[i], "above_hull": d, "stable": d <= max(request.tolerance, 1e-8)} for i, d in above.items()
    ]
    data = {"potentials": potentials, "unit": "eV per atom of the other elements", "entries": rows,
            "stable": [r["id"] for r in rows if r["stable"]]}  # fmt: skip
    cells = tuple(
        (str(r["id"]), str(r["formula"]), number(r["above_hull"], 4), "stable" if r["stable"] else "")
        for r in sorted(rows, key=lambda r: (r["above_hull"], r["formula"]))
    )
    said = ", ".join(f"Δμ of {s} = {v:g} eV/atom" for s, v in potentials.items())
    heads = ("id", "formula", "above equilibrium (eV/atom of the others)", "")
    return data, Table(heads, cells, title=f"open to reservoirs: {said}", right=heads[2:3])


def _potential(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise InputError(f"--chempot {text!r}; expected ELEMENT=VALUE in eV/atom, for example O=-1.2") from None


# --- pictures ---------------------------------------------------------------------------------------------------------------------------
def _pictures(judged: Hull, rows: list[dict[str, Any]], request: HullRequest) -> list[Path]:
    if request.plot is None and request.plot_mu is None:
        return []
    from naica.discover.phases import diagram
    from naica.insight.hull_plots import hull_picture, potential_picture
    from naica.structure.composition import parse_formula

    names = [s.strip() for s in request.elements.split(",") if s.strip()]
    if not names:
        names = [s for s in judged.elements if request.formula is None or s in parse_formula(request.formula)]
    written = []
    if request.plot is not None:
        kept = [r for r in rows if set(parse_formula(r["formula"])) <= set(names)]
        places = [judged.elements.index(s) for s in names]
        formation = judged.formation_energies()
        entries = [
            {
                **r,
                "fractions": judged.fractions[judged.row(r["id"]), places].tolist(),
                "formation_energy": float(formation[judged.row(r["id"])]),
            }
            for r in kept
        ]
        _save(hull_picture(names, entries), request.plot)
        written.append(request.plot)
    if request.plot_mu is not None:
        regions = {judged.formula(key): corners for key, corners in diagram(judged, names).items()}
        marked = judged.formula(judged.ids[judged.lowest(request.formula)]) if request.formula else ""
        _save(potential_picture(names, regions, marked), request.plot_mu)
        written.append(request.plot_mu)
    return written


def _save(figure: Any, path: Path) -> None:
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise InputError(f"cannot write a picture as {path.name}; expected .png, .pdf or .svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


# --- tables ------------------------------------------------------------------------------------------------------------------------------
def _read(file: Path, request: HullRequest, taken: frozenset[str] = frozenset()) -> tuple[list[str], list[str], list[float]]:
    """Ids, formulas and energies per atom of a CSV, of a Parquet table of crystals or of a registered set."""
    from naica.data.registry import sets

    if file.suffix == ".parquet" or (not file.exists() and str(file) in {s.name for s in sets()}):
        return _crystals(file, request.column, taken)
    return _entries(file, request.total, taken)


def _crystals(file: Path, column: str, taken: frozenset[str]) -> tuple[list[str], list[str], list[float]]:
    """Entries of a table of crystals by a column of formation energies; elements without an entry stand at 0."""
    import numpy as np

    from naica.data import CrystalTable
    from naica.data.registry import load_set
    from naica.discover.proportions import amounts_table

    if file.suffix == ".parquet" and not file.exists():
        raise InputError(f"no such file: {file}")
    table = CrystalTable.read(file) if file.exists() else load_set(str(file))
    fit = [name for name, label in table.labels.items() if label.quantity == "formation_energy_per_atom"]
    chosen = column or (fit[0] if len(fit) == 1 else "")
    if chosen not in fit:
        raise InputError(f"{file}: --column {column or '(none)'}; its columns of formation energies: {', '.join(fit) or 'none'}")
    values = np.asarray(table.column(chosen), dtype=np.float64)
    rows = np.flatnonzero(np.isfinite(values)).tolist()
    formulas, names = table.formulas, table.ids
    ids = [names[k] if names[k] not in taken else f"{file.stem}:{names[k]}" for k in rows]
    told = [formulas[k] for k in rows]
    energies = [float(values[k]) for k in rows]
    elements, counts = amounts_table(told)
    pure = set(np.flatnonzero((counts[(counts > 0).sum(axis=1) == 1] > 0).any(axis=0)).tolist())
    for k, symbol in enumerate(elements):
        if k not in pure and f"element {symbol}" not in taken:
            ids.append(f"element {symbol}")
            told.append(symbol)
            energies.append(0.0)
    return ids, told, energies


# --- the table --------------------------------------------------------------------------------------------------------------------------
def _hull_table(rows: list[dict[str, Any]]) -> Table:
    cells = tuple(
        (
            r["id"],
            r["formula"],
            number(r["energy"], 4),
            number(r["above_hull"], 4),
            "stable" if r["stable"] else " + ".join(f"{p['fraction']:.3f} {p['formula']}" for p in r["decomposition"]),
        )
        for r in sorted(rows, key=lambda r: r["above_hull"])
    )
    heads = ("id", "formula", "energy (eV/atom)", "above hull (eV/atom)", "decomposes into (atomic fractions)")
    return Table(heads, cells, right=heads[2:4])


def _entries(file: Path, total: bool, taken: frozenset[str] = frozenset()) -> tuple[list[str], list[str], list[float]]:
    from naica.structure.composition import parse_formula

    if not file.exists():
        raise InputError(f"no such file: {file}")
    with file.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        missing = [name for name in ("formula", "energy") if name not in (reader.fieldnames or [])]
        if missing:
            have = ", ".join(reader.fieldnames or []) or "none"
            raise InputError(f"{file}: column {' and '.join(missing)} missing; it has {have}. Expected formula, energy and optionally id")
        ids, formulas, energies = [], [], []
        for line, row in enumerate(reader, start=2):
            try:
                amounts = parse_formula(row["formula"] or "")
                energy = float(row["energy"] or "")
            except ValueError as error:  # InputError is one
                raise InputError(f"{file}, line {line}: {error}; expected a formula and an energy in eV") from None
            if not math.isfinite(energy):
                raise InputError(f"{file}, line {line}: the energy of {row['formula']} is {energy}; expected a finite number in eV/atom")
            name = row.get("id") or f"{row['formula']}:{line}"
            ids.append(name if name not in taken else f"{file.stem}:{name}")
            formulas.append(row["formula"])
            energies.append(energy / sum(amounts.values()) if total else energy)
    if not ids:
        raise InputError(f"{file} has no entries below its heading")
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(f"{file}: id {', '.join(repeated[:3])} stands more than once; ids must differ")
    return ids, formulas, energies
