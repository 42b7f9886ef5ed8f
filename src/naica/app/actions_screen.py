"""Answers about screens: which there are, what one asks, what it leaves of a table or a campaign, and the files with its results."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, plain
from naica.app.requests_screen import ScreenRequest
from naica.errors import ConfigError, InputError, RunError

if TYPE_CHECKING:
    from naica.data import CrystalTable
    from naica.discover.screens.config import ScreenConfig
    from naica.discover.screens.run import Screened, Step

_SHOWN = 20
_MOST_COLUMNS = 8


def screen(request: ScreenRequest, report: Callable[[int, int, str], None] | None = None) -> Answer:
    """Run the screen, or tell of it."""
    if request.name is None:
        return _list()
    from naica.discover.screens import read_screen

    config = _with_options(read_screen(request.name), request.options)
    if request.source is None:
        return _described(request.name, config)
    from naica.discover.screens.run import parse_condition
    from naica.discover.screens.run import screen as run

    where = [parse_condition(text) for text in request.where]
    table, notes = open_source(request.source)
    found = run(config, table, where=where, columns=request.columns, compute=request.compute, progress=report)
    beside = _compared(found, request.known) if request.known else {}
    written = write_screen(found, config, beside, request.out) if request.out else []
    return _answer(request, config, found, beside, [*notes, *(f"wrote {p}" for p in written)])


# --- where rows come from -------------------------------------------------------------------------------------------------------------
def open_source(name: str) -> tuple[CrystalTable, list[str]]:
    """A campaign's ledger, a Parquet table, structure files or a registered set, as a table; and remarks on what could not be read.

    Raises
    ------
    InputError
        If it is none of these.
    """
    from naica.data import CrystalTable
    from naica.data.registry import load_set, sets

    path = Path(name)
    if (path / "ledger.sqlite").is_file():
        from naica.discover.screens.source import ledger_table

        return ledger_table(path), []
    if path.suffix.lower() == ".parquet":
        return CrystalTable.read(path), []
    if path.exists():
        from naica.app.structures import read_structures

        good, bad = read_structures([path])
        if not good:
            raise InputError(f"{path}: no structure can be read; first: {bad[0].name}: {bad[0].reason}" if bad else f"{path} holds nothing")
        table = CrystalTable.from_crystals([g.crystal for g in good], ids=[g.name for g in good])
        return table, [f"left out {b.name}: {b.reason}" for b in bad]
    known = [s.name for s in sets() if s.loads]
    if name not in known and ("/" in name or "." in name):
        raise InputError(f"{name}: no campaign folder, .parquet, structure file or folder of them, nor a registered set (naica data list)")
    return load_set(name), []


def _with_options(config: ScreenConfig, options: Mapping[str, str]) -> ScreenConfig:
    """The screen with ``family.key = value`` set; values are read as TOML."""
    import tomllib

    if not options:
        return config
    merged = {name: dict(settings) for name, settings in config.options.items()}
    for place, text in options.items():
        family, dot, key = place.partition(".")
        if not dot:
            raise ConfigError(f"--set {place}={text}: expected family.key=value, for example --set md.potential=m3gnet-mp-2021")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text
        merged.setdefault(family, {})[key] = value
    return config.model_copy(update={"options": merged})


def _compared(found: Screened, known: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each row that stayed: its verdict against the known ones, with the evidence."""
    from naica.discover.novelty import known_of

    lists = [name for name in known if Path(name).suffix.lower() in (".csv", ".gz", ".txt")]
    against = known_of([name for name in known if name not in lists], lists)
    return {id_: against.novelty(crystal, depth="formula").to_dict() for id_, crystal in zip(found.table.ids, found.table, strict=True)}


# --- files ----------------------------------------------------------------------------------------------------------------------------
def write_screen(found: Screened, config: ScreenConfig, beside: Mapping[str, Mapping[str, Any]], out: Path) -> list[Path]:
    """Write what stayed: one file where `out` ends in .csv, .parquet or .json, else a folder with all of these, a zip of CIFs,
    OPTIMADE lines, the rejected rows and the screen itself.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    from naica.app.export import write_cif_zip

    rows = [{**row, **_verdict_cells(beside.get(row["id"]))} for row in found.rows]
    try:
        if out.suffix in (".csv", ".parquet", ".json"):
            out.parent.mkdir(parents=True, exist_ok=True)
            return [_one_file(found, rows, out)]
        out.mkdir(parents=True, exist_ok=True)
        files = [_one_file(found, rows, out / f"hits.{kind}") for kind in ("csv", "parquet")]
        (out / "screen.json").write_text(json.dumps(plain(_data(found, config, beside)), indent=2, ensure_ascii=False), encoding="utf-8")
        (out / "screen-file.json").write_text(config.model_dump_json(indent=2, exclude_defaults=True), encoding="utf-8")
        with (out / "rejected.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(("id", "formula", "condition", "reason"))
            writer.writerows((o.id, o.formula, o.step, o.reason) for o in found.rejected)
        files += [out / "screen.json", out / "screen-file.json", out / "rejected.csv"]
        files.append(_optimade(found, rows, out / "hits.optimade.jsonl"))
        named = [(f"{row['formula']}-{row['id']}", crystal) for row, crystal in zip(rows, found.table, strict=True)]
        return [*files, *([write_cif_zip(named, out / "hits-cif.zip")] if named else [])]
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}; name another place with --out") from error


def _optimade(found: Screened, rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    from naica.app.optimade import Entry, write_optimade

    names = [n for n in (rows[0] if rows else ()) if n not in ("id", "formula")]
    definitions = {n: (found.units.get(n, "").replace("1", ""), found.levels.get(n, "of the screen " + found.title)) for n in names}
    entries = [Entry(str(row["id"]), c, {n: row[n] for n in names}) for row, c in zip(rows, found.table, strict=True)]
    return write_optimade(entries, definitions, path)


def _one_file(found: Screened, rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    if path.suffix == ".parquet":
        table = found.table
        for name in [n for n in (rows[0] if rows else ()) if n not in (*found.values, "id", "formula")]:
            table = table.with_column(name, [row[name] for row in rows])
        table.write(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(plain(list(rows)), indent=2, ensure_ascii=False), encoding="utf-8")
    else:
        names = list(rows[0]) if rows else ["id", "formula", *found.values]
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return path


def _verdict_cells(told: Mapping[str, Any] | None) -> dict[str, Any]:
    if told is None:
        return {}
    return {
        "known": told["verdict"],
        "known_match": told["match"],
        "known_rms": told["distance"],
        "known_evidence": "; ".join(told["evidence"]),
    }


# --- answers ---------------------------------------------------------------------------------------------------------------------------
def _data(found: Screened, config: ScreenConfig, beside: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "screen": found.title,
        "rows": found.n_rows,
        "left": len(found.table),
        "seconds": found.seconds,
        "steps": [dataclasses.asdict(s) for s in found.steps],
        "units": dict(found.units),
        "levels": dict(found.levels),
        "hits": [{**row, **({"known": beside[row["id"]]} if row["id"] in beside else {})} for row in found.rows],
        "waiting": list(found.waiting),
        "rejected": len(found.rejected),
        "could_not_be_judged": [dataclasses.asdict(o) for o in found.rejected if "cannot be told" in o.reason][:200],
        "config": json.loads(config.model_dump_json(exclude_defaults=True)),
    }


def _answer(request: ScreenRequest, config: ScreenConfig, found: Screened, beside: Mapping[str, Any], notes: Sequence[str]) -> Answer:
    blocks: list[Any] = [f"{found.title}: {len(found.table)} of {found.n_rows} rows of {request.source}", _funnel(found)]
    if len(found.table):
        blocks.append(_hits(found, config, beside))
    told = [f"{name}: {level}" for name, level in found.levels.items()]
    remarks = list(notes)
    if told:
        remarks.append("levels of theory: " + "; ".join(told))
    if found.waiting and not request.compute:
        remarks.append(
            f"{len(found.waiting)} rows passed every condition that needs no potential; those that need one were not asked: add --compute N"
        )
    elif found.waiting:
        remarks.append(f"{len(found.waiting)} rows wait: the budget of {request.compute} did not reach them")
    if len(found.table) > _SHOWN:
        remarks.append(f"{len(found.table) - _SHOWN} more rows: add --out FOLDER")
    return Answer(_data(found, config, beside), tuple(blocks), tuple(remarks))


def _funnel(found: Screened) -> Table:
    def counts(s: Step) -> tuple[str, str]:
        return ("not asked", "–") if not s.came and found.waiting else (str(s.came), str(s.stayed))

    rows = tuple((s.name, *counts(s), str(s.missing or "–"), str(s.failed or "–"), f"{s.seconds:.2f}", s.why) for s in found.steps)
    heads = ("condition", "came", "stayed", "no value", "not judged", "CPU s", "why")
    return Table(heads, rows, right=heads[1:6])


def _hits(found: Screened, config: ScreenConfig, beside: Mapping[str, Any]) -> Table:
    preferred = [r.value for r in config.rule] + list(config.show.values)
    # what is the same in every row says nothing
    rows = found.rows[:_SHOWN]
    varied = [v for v in dict.fromkeys(preferred) if v in found.values and len({str(r[v]) for r in found.rows}) > 1]
    names = varied[:_MOST_COLUMNS]
    heads = ("id", "formula", *(f"{n} ({found.units[n]})" if found.units.get(n) not in ("", "1", None) else n for n in names))
    cells = tuple(
        (row["id"], row["formula"], *(_cell(row[n]) for n in names), *((_known_cell(beside[row["id"]]),) if beside else ())) for row in rows
    )
    numbers = tuple(h for h, n in zip(heads[2:], names, strict=True) if all(isinstance(r[n], int | float | None) for r in rows))
    return Table((*heads, *(("known",) if beside else ())), cells, title="left", right=numbers)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else f"{value:.0f}" if isinstance(value, float) else str(value)


def _known_cell(told: Mapping[str, Any]) -> str:
    return f"{told['verdict']}{': ' + told['match'] if told['match'] else ''}"


def _list() -> Answer:
    from naica.discover.screens import builtin_screens
    from naica.discover.screens.descriptors import FAMILIES

    found = builtin_screens()
    screens = tuple((name, config.title, " · ".join(r.says() for r in config.rule)) for name, config in found.items())
    values = tuple(
        (value, unit, f"[options.{f.name}]" if f.options else "", "potential" if f.needs == "potential" else f.needs, what)
        for f in FAMILIES
        for value, (unit, what) in f.values.items()
    )
    data = {
        "screens": {name: json.loads(config.model_dump_json(exclude_defaults=True)) for name, config in found.items()},
        "descriptors": [{"value": v, "unit": u, "needs": n, "about": w} for v, u, _, n, w in values],
    }
    blocks = (
        Table(("screen", "title", "conditions"), screens, title="shipped screens"),
        Table(("descriptor", "unit", "settings", "needs", "what it is"), values, title="descriptors"),
    )
    return Answer(data, blocks, ("naica screen NAME TABLE runs one; a screen of your own is a TOML file",))


def _described(name: str, config: ScreenConfig) -> Answer:
    e = config.elements
    asked = [("all of", ", ".join(e.require)), *(("one of", ", ".join(n)) for n in e.any_of), ("none of", ", ".join(e.exclude))]
    rows = tuple((f"elements: {what}", names, "") for what, names in asked if names)
    rows += tuple((r.says(), "kept" if r.missing == "keep" else "out", r.why) for r in config.rule)
    block = Table(("condition", "elements; or rows without the value are", "why"), rows, title=config.title)
    data = {"screen": name, "config": json.loads(config.model_dump_json(exclude_defaults=True))}
    return Answer(data, (block, " ".join(config.about.split())), (f"run it: naica screen {name} TABLE",))
