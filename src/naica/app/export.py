"""What a campaign found, as files other programs read: CSV, Parquet, extended xyz, one CIF per find."""

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
    """Write ``finds.csv``, and where structures are known ``finds.parquet``, ``finds.extxyz`` and ``cif/*.cif``, into `folder`.

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
        written += _write_cifs([f for f in finds if f.get("cif")], folder / "cif")
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


def file_name(find: Mapping[str, Any]) -> str:
    """Formula and the beginning of the id, in letters every file system takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "", f"{find['formula']}-{str(find['id'])[:12]}")
