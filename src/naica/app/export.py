"""What a campaign found, as files other programs read: CSV, Parquet, extended xyz, CIFs and a zip of them, OPTIMADE, the audit trail."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.errors import RunError

if TYPE_CHECKING:
    from naica.data import CrystalTable
    from naica.structure import Crystal

COLUMNS = (
    "id", "formula", "round", "generator", "arm", "separation_energy", "sigma", "above_hull", "formation_energy", "energy", "predicted",
    "model_sigma", "spacegroup", "prototype", "novelty", "known", "n_atoms", "seconds", "level",
)  # fmt: skip


def write_export(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``finds.csv``, and where structures are known ``finds.parquet``, ``finds.extxyz``, ``finds.optimade.jsonl``, ``finds-cif.zip``
    and ``cif/*.cif``, into `folder`; where the ledger tells it, ``trail.json`` holds what every number of a find goes back to.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    finds = list(summary["finds"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [_write_csv(finds, folder / "finds.csv")]
        held = [f for f in finds if f.get("crystal")]
        if held:
            crystals = [_crystal(f) for f in held]
            written += [_write_table(held, crystals, folder / "finds.parquet"), _write_xyz(held, crystals, folder / "finds.extxyz")]
            written += [
                _write_optimade(held, crystals, summary, folder / "finds.optimade.jsonl"),
                write_cif_zip([(file_name(f), c) for f, c in zip(held, crystals, strict=True)], folder / "finds-cif.zip"),
            ]
        written += _write_cifs([f for f in finds if f.get("cif")], folder / "cif")
        if summary.get("trail"):
            written.append(_write_trail(summary, folder / "trail.json"))
    except OSError as error:
        raise RunError(f"cannot write the export {folder}: {error.strerror or error}; name another folder with --out") from error
    return written


def rows_of(finds: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Column names and rows of the table of finds; energies in eV/atom; competing phases and lineage as text."""
    names = [n for n in COLUMNS if any(f.get(n) is not None for f in finds)]
    rows = [{**{n: f.get(n) for n in names}, "competing": _competing(f), "lineage": _lineage(f)} for f in finds]
    return [*names, "competing", "lineage"], rows


def _competing(find: Mapping[str, Any]) -> str:
    return " + ".join(f"{c['fraction']:.4f} {c['formula']}" for c in find.get("competing") or ())


def _lineage(find: Mapping[str, Any]) -> str:
    return " <- ".join(f"{s['formula']} ({s['origin']})" for s in find.get("lineage") or ())


def _write_csv(finds: Sequence[Mapping[str, Any]], path: Path) -> Path:
    path.write_text(csv_text(finds), encoding="utf-8")
    return path


def csv_text(finds: Sequence[Mapping[str, Any]]) -> str:
    """The table of finds as CSV."""
    names, rows = rows_of(finds)
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _crystal(find: Mapping[str, Any]) -> Crystal:
    from naica.structure import Crystal

    atoms = find["crystal"]
    return Crystal(atoms["numbers"], atoms["positions"], atoms["cell"], atoms.get("pbc", True))


def _write_table(finds: Sequence[Mapping[str, Any]], crystals: Sequence[Crystal], path: Path) -> Path:
    table_of(finds, crystals).write(path)
    return path


def table_of(finds: Sequence[Mapping[str, Any]], crystals: Sequence[Crystal]) -> CrystalTable:
    """The finds as a `CrystalTable`. The level of theory stands in its own column: its text cannot be taken apart again."""
    from naica.data import CrystalTable

    names, rows = rows_of(finds)
    columns = {n: [r[n] for r in rows] for n in names if n != "id"}
    return CrystalTable.from_crystals(crystals, columns, ids=[str(f["id"]) for f in finds])


def _write_xyz(finds: Sequence[Mapping[str, Any]], crystals: Sequence[Crystal], path: Path) -> Path:
    from naica.structure.io import write

    kept = ("id", "formula", "round", "above_hull", "separation_energy", "formation_energy", "level")
    write([c.replace(info={n: f[n] for n in kept if f.get(n) is not None}) for f, c in zip(finds, crystals, strict=True)], path)
    return path


def _write_cifs(finds: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    if not finds:
        return []
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{file_name(f)}.cif" for f in finds]
    for path, find in zip(paths, finds, strict=True):
        path.write_text(find["cif"], encoding="utf-8")
    return paths


def write_cif_zip(named: Sequence[tuple[str, Crystal]], path: Path) -> Path:
    """One zip with a CIF for each named structure; same content, same bytes."""
    import zipfile

    from naica.structure.cif import write_blocks

    used: dict[str, int] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, crystal in named:
            safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-") or "structure"
            used[safe] = used.get(safe, 0) + 1
            again = f"-{used[safe]}" if used[safe] > 1 else ""
            # a fixed date: a zip of the same structures is the same file
            info = zipfile.ZipInfo(f"{safe}{again}.cif", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, write_blocks([crystal]), zipfile.ZIP_DEFLATED)
    return path


_PROPERTIES = {
    "energy": ("eV/atom", "energy per atom at the level of theory in _naica_level"),
    "formation_energy": ("eV/atom", "formation energy from the campaign's own elemental references, or its label"),
    "above_hull": ("eV/atom", "distance to the campaign's hull of that level"),
    "separation_energy": ("eV/atom", "energy less that of the best mixture of other compositions; negative if stable"),
    "sigma": ("eV/atom", "published error of the method's energies"),
    "level": ("", "level of theory: functional, corrections, code and version"),
    "round": ("", "round in which it was computed"),
    "generator": ("", "who proposed it"),
    "lineage": ("", "structures it descends from"),
    "novelty": ("", "verdict against known structures"),
    "versions": ("", "versions of the programs that made the numbers"),
}


def _write_optimade(finds: Sequence[Mapping[str, Any]], crystals: Sequence[Crystal], summary: Mapping[str, Any], path: Path) -> Path:
    from naica.app.optimade import Entry, write_optimade

    versions = ", ".join(f"{name} {version}" for name, version in (summary.get("versions") or {}).items())
    own = [{**{k: _plainly(f.get(k)) for k in _PROPERTIES}, "lineage": _lineage(f), "versions": versions} for f in finds]
    made = summary.get("finished")
    entries = [Entry(str(f["id"]), c, told, made) for f, c, told in zip(finds, crystals, own, strict=True)]
    return write_optimade(entries, _PROPERTIES, path)


def _plainly(value: Any) -> Any:
    # a verdict with its evidence: the standard's properties hold one value each
    return value.get("claim", value.get("verdict")) if isinstance(value, Mapping) else value


def _write_trail(summary: Mapping[str, Any], path: Path) -> Path:
    from naica.app.answer import to_json

    path.write_text(to_json(summary["trail"]) + "\n", encoding="utf-8")
    return path


def file_name(find: Mapping[str, Any]) -> str:
    """Formula and the beginning of the id, in letters every file system takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "", f"{find['formula']}-{str(find['id'])[:12]}")
