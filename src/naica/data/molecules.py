"""Tables of molecules from SMILES: each is embedded once, and its conformer kept in the user's cache folder."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from naica.data.clean import Cleaned, Rejection
from naica.data.parquet import add_column
from naica.data.table import CrystalTable
from naica.errors import InputError
from naica.structure.molecule import SEED, Placed, place_all, rdkit

if TYPE_CHECKING:
    from naica.data.registry import DataSet

Progress = Callable[[int, int], None]
_REJECTED_KEY = b"naica.rejected"
# so many are embedded between two writings of the cache
_CHUNK = 2048
_SCHEMA = pa.schema(
    [("smiles", pa.string()), ("numbers", pa.list_(pa.uint8())), ("positions", pa.list_(pa.float32())), ("reason", pa.string())]
)


def from_smiles(
    smiles: Sequence[str],
    ids: Sequence[str] | None = None,
    hydrogens: bool = False,
    seed: int = SEED,
    progress: Progress | None = None,
) -> Cleaned:
    """A table of molecules with a column ``smiles``, and a rejection with reason for each text that gives none.

    Conformers come from the cache where it has them, else from a process pool; see `naica.structure.molecule.from_smiles`.

    Parameters
    ----------
    smiles : one text per molecule
    ids : names; default: the SMILES themselves
    hydrogens : keep the hydrogens as atoms
    seed : of the conformers
    progress : called with (molecules embedded, molecules to embed)
    """
    texts = [text.strip() for text in smiles]
    names = list(ids) if ids is not None else texts
    if len(names) != len(texts):
        raise InputError(f"{len(names)} ids for {len(texts)} SMILES; expected one each")
    found = conformers(texts, hydrogens, seed, progress)
    good = [row for row, one in enumerate(found) if not isinstance(one, str)]
    placed = [one for one in found if not isinstance(one, str)]
    table = CrystalTable.from_arrays(
        [names[row] for row in good],
        np.array([len(numbers) for numbers, _ in placed], np.int64),
        np.concatenate([np.zeros(0, np.int64), *(numbers for numbers, _ in placed)]),
        np.concatenate([np.zeros((0, 3)), *(positions for _, positions in placed)]),
        np.zeros((len(good), 3, 3)),
        np.zeros((len(good), 3), bool),
        {"smiles": pa.array([texts[row] for row in good], pa.string())},
    )
    rejected = [Rejection(row, names[row], one, "no molecule") for row, one in enumerate(found) if isinstance(one, str)]
    return Cleaned(table, rejected)


def conformers(smiles: Sequence[str], hydrogens: bool = False, seed: int = SEED, progress: Progress | None = None) -> list[Placed | str]:
    """Atomic numbers and positions (Å, to 1e-6) of each molecule or the reason why there are none, from the cache where it has them."""
    folder = cache_folder(hydrogens, seed)
    known = _kept(folder, set(smiles))
    missing = [text for text in dict.fromkeys(smiles) if text not in known]
    for start in range(0, len(missing), _CHUNK):
        part = missing[start : start + _CHUNK]
        after = None if progress is None else _from(progress, start, len(missing))
        new = dict(zip(part, place_all(part, hydrogens, seed, after), strict=True))
        _keep(folder, new)
        known.update(new)
    return [_rounded(known[text]) for text in smiles]


def _from(progress: Progress, start: int, total: int) -> Progress:
    return lambda done, _: progress(start + done, total)


def _rounded(one: Placed | str) -> Placed | str:
    # the cache holds single precision; a fresh conformer must be the same numbers
    return one if isinstance(one, str) else (one[0], one[1].astype(np.float32).astype(np.float64))


def cache_folder(hydrogens: bool, seed: int) -> Path:
    """Where conformers are kept: one folder per RDKit version, seed and treatment of hydrogens."""
    rdkit()
    from rdkit import __version__ as version

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "naica" / "conformers" / f"rdkit-{version}-{'all' if hydrogens else 'heavy'}-{seed}"


def _kept(folder: Path, wanted: set[str]) -> dict[str, Placed | str]:
    found: dict[str, Placed | str] = {}
    texts = pa.array(sorted(wanted), pa.string())
    for file in sorted(folder.glob("*.parquet")) if wanted else []:
        try:
            part = pq.read_table(file, schema=_SCHEMA)
        except (pa.ArrowInvalid, OSError):
            # written half by a killed process of an older version, or damaged: its molecules are embedded again
            continue
        part = part.filter(pc.is_in(part["smiles"], value_set=texts))
        columns = (part[name].to_pylist() for name in ("smiles", "reason"))
        lists = (part["numbers"].combine_chunks(), part["positions"].combine_chunks())
        for row, (text, reason) in enumerate(zip(*columns, strict=True)):
            if reason is not None:
                found[text] = reason
                continue
            numbers, positions = (one[row].values.to_numpy(zero_copy_only=False) for one in lists)
            found[text] = numbers.astype(np.int64), positions.astype(np.float64).reshape(-1, 3)
    return found


def _keep(folder: Path, new: dict[str, Placed | str]) -> None:
    """Write a part of the cache whole or not at all; a folder that cannot be written costs only the time of the next run."""
    rows = {
        "smiles": list(new),
        "numbers": [None if isinstance(one, str) else one[0].tolist() for one in new.values()],
        "positions": [None if isinstance(one, str) else one[1].ravel().tolist() for one in new.values()],
        "reason": [one if isinstance(one, str) else None for one in new.values()],
    }
    name = hashlib.sha256("\n".join(new).encode()).hexdigest()[:24]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as handle:
            pq.write_table(pa.table(rows, _SCHEMA), handle, compression="zstd")
        os.replace(handle.name, folder / f"{name}.parquet")
    except OSError as error:
        print(f"conformers are not kept: {folder} cannot be written ({error.strerror or error})", file=sys.stderr)


def load(path: Path, source: DataSet, ids: Sequence[str] | None = None) -> CrystalTable:
    """A published CSV with a column ``smiles``: labels in naica's units, gaps NaN; SMILES that give no molecule are left out.

    Which are left out and why, `rejections` of the table says; the set's caveats count them. Embedding shows its progress on a terminal.

    Parameters
    ----------
    ids : embed only these rows (a set of 80,000 takes half an hour)
    """
    with gzip.open(path, "rt", newline="", encoding="utf-8") if path.suffix == ".gz" else path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or "smiles" not in rows[0]:
        raise InputError(f"{path} has no column smiles; pull the set {source.name!r} again")
    names = [row["mol_id"] if "mol_id" in row else f"{source.name}-{k + 1}" for k, row in enumerate(rows)]
    if ids is not None:
        wanted = set(ids)
        chosen = [k for k, name in enumerate(names) if name in wanted]
        rows, names = [rows[k] for k in chosen], [names[k] for k in chosen]
    found = from_smiles([row["smiles"] for row in rows], names, progress=on_terminal(source.name))
    out = {r.row for r in found.rejected}
    kept = [row for k, row in enumerate(rows) if k not in out]
    table = found.table
    for name in rows[0] if rows else ():
        if name in source.labels:
            values = pa.array([float(row[name]) if row[name].strip() else None for row in kept], pa.float64())
            table = add_column(table, name, values, source)
        elif name not in ("mol_id", "smiles"):
            table = table.with_column(name, pa.array([row[name] for row in kept], pa.string()))
    reasons = json.dumps([[r.row, r.id, r.reason, r.kind] for r in found.rejected]).encode()
    return CrystalTable(table.arrow.replace_schema_metadata({**(table.arrow.schema.metadata or {}), _REJECTED_KEY: reasons}))


def rejections(table: CrystalTable) -> list[Rejection]:
    """The rows of a published set that gave no molecule, as `load` noted them."""
    noted = (table.arrow.schema.metadata or {}).get(_REJECTED_KEY)
    return [Rejection(*one) for one in json.loads(noted)] if noted else []


def on_terminal(name: str) -> Progress | None:
    """Progress of the embedding as a line on the terminal; None where the error stream is none."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(f"\r{name}: {done} of {total} molecules embedded", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
