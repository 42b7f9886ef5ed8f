"""The registry of public sets: what exists, where it lies on this machine, and how it becomes a `CrystalTable`.

The facts themselves are literal tables beside this file: ``sets.toml`` (title, files, licence, labels, caveats) and ``sha256.txt``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from naica.data.labels import Label, Level
from naica.data.table import CrystalTable
from naica.errors import InputError, MissingPart
from naica.fields import field as quantity_field

ENVIRONMENT = "NAICA_DATA"
"""Environment variable that names the folder of the data sets."""


@dataclass(frozen=True)
class FileFact:
    """What one published file must be: its path below the data root, SHA-256 and size in bytes."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class DataSet:
    """One public set.

    `labels` maps columns to what they mean (naica's units); `factors` are the multipliers applied on loading to get there;
    `split` is the column of the source that holds its published split; `rows` is None where files are not tables; `metal_from` names
    the column of band gaps that gives a class column ``metal`` (1 where the gap is 0).
    """

    name: str
    title: str
    kind: str
    task: str
    files: tuple[FileFact, ...]
    rows: int | None
    licence: str
    citation: str
    source: str
    caveats: tuple[str, ...]
    split: str | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    metal_from: str | None = None

    @property
    def loads(self) -> bool:
        """True if `load_set` makes a table of it; otherwise it is files only."""
        return self.kind != "files"

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(f.bytes for f in self.files)

    @property
    def present(self) -> bool:
        """True if all its files lie under the data root."""
        return all((data_root() / f.path).exists() for f in self.files)

    def path(self, file: str | None = None) -> Path:
        """Where one of its files lies on this machine; `file` may be the end of its path, and may be left out if there is only one.

        Raises
        ------
        InputError
            If the set has no such file, or several and none was named.
        MissingPart
            If the file is not on this machine; the message says how to get it.
        """
        found = [f for f in self.files if file is None or f.path == file or f.path.endswith("/" + file)]
        if len(found) != 1:
            names = ", ".join(f.path.split("/", 1)[1] for f in self.files)
            problem = f"has no file {file!r}" if file else "has several files: name one"
            raise InputError(f"set {self.name!r} {problem}; its files are {names}")
        path = data_root() / found[0].path
        if not path.exists():
            raise MissingPart(
                f"{found[0].path} of set {self.name!r} is not under {data_root()}; run `naica data pull {self.name}` or point "
                f"{ENVIRONMENT} at a folder that has it. Original source: {self.source}"
            )
        return path


def user_cache() -> Path:
    """The folder for pulled sets where neither `NAICA_DATA` nor a shared folder exists."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "naica" / "data"


def data_root() -> Path:
    """The folder of the data sets.

    `NAICA_DATA`, else ``../shared/data`` beside the repository or the current folder, else the user's cache.
    """
    if given := os.environ.get(ENVIRONMENT):
        return Path(given).expanduser()
    repository = next((p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists()), None)
    for place in (repository, Path.cwd()):
        if place is not None and (shared := (place / ".." / "shared" / "data").resolve()).is_dir():
            return shared
    return user_cache()


@cache
def _file_facts() -> dict[str, FileFact]:
    facts = {}
    for line in (package_files("naica.data") / "sha256.txt").read_text().splitlines():
        digest, size, path = line.split(" ", 2)
        facts[path] = FileFact(path, digest, int(size))
    return facts


def _label(raw: str | Mapping[str, Any], default: Level | None, levels: Mapping[str, Level]) -> tuple[Label, float]:
    entry: Mapping[str, Any] = {"quantity": raw} if isinstance(raw, str) else raw
    level = levels[entry["level"]] if "level" in entry else default
    return Label(entry["quantity"], quantity_field(entry["quantity"]).unit, level), float(entry.get("factor", 1.0))


def _build(name: str, raw: Mapping[str, Any], levels: Mapping[str, Level]) -> DataSet:
    facts = _file_facts()
    paths = raw.get("files") or sorted(p for p in facts if p.startswith(raw["folder"] + "/"))
    default = levels[raw["level"]] if "level" in raw else None
    labels = {column: _label(entry, default, levels) for column, entry in raw.get("labels", {}).items()}
    if "metal_from" in raw:
        labels["metal"] = (Label.of("is_metal", labels[raw["metal_from"]][0].level), 1.0)
    return DataSet(
        name=name,
        files=tuple(facts[p] for p in paths),
        rows=raw.get("rows"),
        caveats=tuple(raw["caveats"]),
        split=raw.get("split"),
        metal_from=raw.get("metal_from"),
        labels={c: label for c, (label, _) in labels.items()},
        factors={c: factor for c, (_, factor) in labels.items() if factor != 1.0},
        **{part: raw[part] for part in ("title", "kind", "task", "licence", "citation", "source")},
    )


@cache
def _registry() -> dict[str, DataSet]:
    raw = tomllib.loads((package_files("naica.data") / "sets.toml").read_text(encoding="utf-8"))
    levels = {name: Level(**parts) for name, parts in raw.pop("levels").items()}
    return {name: _build(name, parts, levels) for name, parts in raw.items()}


def sets() -> list[DataSet]:
    """All sets, in the order of the table."""
    return list(_registry().values())


def dataset(name: str) -> DataSet:
    """The set called `name`.

    Raises
    ------
    InputError
        If there is none; the message proposes the nearest names.
    """
    known = _registry()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"no data set {name!r}; {hint}")
    return known[name]


def load_set(name: str, ids: Sequence[str] | None = None, part: str | None = None) -> CrystalTable:
    """A set as a table: structures, labels with unit and level of theory, the published split in column `split` (train, val, test or null).

    Parameters
    ----------
    name : the set
    ids : only these rows, in this order
    part : only files whose name contains this text (``part="Cu"`` of ``mlearn``)

    Raises
    ------
    InputError
        For an unknown set, a set of files that is no table, unknown ids or a part that matches no file.
    MissingPart
        If its files are not on this machine.
    """
    found = dataset(name)
    if not found.loads:
        raise InputError(f"set {name!r} is files, not a table of structures; use dataset({name!r}).path(file)")
    chosen = [f for f in found.files if part is None or part in Path(f.path).name]
    if not chosen:
        raise InputError(f"no file of set {name!r} has {part!r} in its name; files: {', '.join(f.path for f in found.files)}")
    paths = [found.path(f.path) for f in chosen]
    table = _read(paths, found, ids)
    if found.metal_from is not None:
        gap = table.column(found.metal_from)
        metal = np.where(np.isfinite(gap), (gap <= 0).astype(float), np.nan)
        table = table.with_column("metal", metal, found.labels["metal"])
    return table if ids is None else _select(table, ids, name)


def _read(paths: list[Path], found: DataSet, ids: Sequence[str] | None) -> CrystalTable:
    from naica.data import extxyz, heusler, molecules, parquet

    if paths[0].suffix == ".parquet":
        return parquet.load(paths[0], found)
    if found.kind == "molecules" and ".csv" in paths[0].suffixes:
        return molecules.load(paths[0], found, ids)
    return heusler.load(paths[0], found) if ".csv" in paths[0].suffixes else extxyz.load(paths, found)


def _select(table: CrystalTable, ids: Sequence[str], name: str) -> CrystalTable:
    row = {key: index for index, key in enumerate(table.ids)}
    missing = [key for key in ids if key not in row]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(f"set {name!r} has no rows with id {', '.join(missing[:5])}{more}")
    return table.take([row[key] for key in ids])


def pull(name: str, target: str | Path | None = None) -> Path:
    """Fetch a set's files into `target` (default: the data root), checked by SHA-256; `naica.data.fetch.pull` does mirrors and progress."""
    from naica.data import fetch

    return fetch.pull(name, target).target
