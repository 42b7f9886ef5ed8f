"""Structures that a generative model wrote, as candidates: a folder, a ZIP archive, CIF files, extended XYZ or JSON lines.

Such output holds a share of nonsense, and one bad structure must not cost the others: files are cut into single structures before they are
parsed, so each either becomes a crystal or a reason. Structures stream; nothing is kept.

MatterGen writes ``generated_crystals_cif.zip`` and ``generated_crystals.extxyz``, DiffCSP, CDVAE and Chemeleon folders of CIF or JSON; a
JSON line is pymatgen's dictionary of a structure, or numbers (or species), cell (or lattice) and positions (or frac_coords).
"""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from naica.errors import ConfigError, InputError, NaicaError
from naica.structure.crystal import Crystal
from naica.structure.elements import element

_KINDS = (".cif", ".xyz", ".extxyz", ".jsonl", ".json")
_BLOCK = re.compile(r"(?m)^data_")
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Generated:
    """One structure of a file, or why there is none. `name` says where it stood: ``file.cif#2``."""

    name: str
    crystal: Crystal | None = None
    reason: str = ""


def read_generated(path: str | Path) -> Iterator[Generated]:
    """All structures of a file, a folder (searched downwards, in order of the names) or a ZIP archive.

    Raises
    ------
    ConfigError
        If there is no such file or folder, it holds nothing of a known kind, or an archive is damaged.
    """
    place = Path(path)
    if not place.exists():
        raise ConfigError(f"no such file or folder of generated structures: {place}")
    files = sorted(p for p in place.rglob("*") if p.is_file() and _kind(p.name)) if place.is_dir() else [place]
    if not files or (place.is_file() and not _kind(place.name)):
        raise ConfigError(f"{place} holds no structures; expected {', '.join(_KINDS)}, also gzipped, in a folder or a .zip")
    return (one for file in files for one in _of_file(file, file.relative_to(place).as_posix() if place.is_dir() else file.name))


def _kind(name: str) -> str:
    """Which of the known kinds a file is, "zip" for an archive; empty for others."""
    bare = name.lower().removesuffix(".gz")
    return ".zip" if bare.endswith(".zip") else next((k for k in _KINDS if bare.endswith(k)), "")


def _of_file(file: Path, name: str) -> Iterator[Generated]:
    if _kind(file.name) != ".zip":
        try:
            data = file.read_bytes()
        except OSError as error:
            yield Generated(name, reason=f"cannot be read: {error.strerror or error}")
            return
        yield from _of_bytes(data, name)
        return
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted(m for m in archive.namelist() if _kind(m) and not m.startswith("__MACOSX"))
            if not members:
                raise ConfigError(f"{file} holds no structures; expected {', '.join(_KINDS)}")
            for member in members:
                yield from _of_bytes(archive.read(member), f"{name}/{member}")
    except (zipfile.BadZipFile, EOFError) as error:
        raise ConfigError(f"{file} is no sound ZIP archive: {error}") from error


def _of_bytes(data: bytes, name: str) -> Iterator[Generated]:
    try:
        text = (gzip.decompress(data) if name.lower().endswith(".gz") else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        yield Generated(name, reason=f"cannot be read: {error}")
        return
    kind = _kind(name)
    if kind == ".cif":
        pieces = _cif_pieces(text)
    elif kind in (".xyz", ".extxyz"):
        pieces = _xyz_pieces(text)
    else:
        pieces = _json_pieces(text)
    at = -1
    for at, piece in enumerate(pieces):
        yield _parsed(kind, piece, f"{name}#{at + 1}")
    if at < 0:
        yield Generated(name, reason="the file is empty")


def _cif_pieces(text: str) -> Iterator[str]:
    starts = [m.start() for m in _BLOCK.finditer(text)] or ([0] if text.strip() else [])
    for a, b in pairwise([*starts, len(text)]):
        yield text[a:b]


def _xyz_pieces(text: str) -> Iterator[str]:
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if not lines[at].strip().isdigit():
            # without its count no later frame can be found for certain; the rest is one bad piece
            yield "\n".join(lines[at:])
            return
        size = int(lines[at]) + 2
        yield "\n".join(lines[at : at + size]) + "\n"
        at += size


def _json_pieces(text: str) -> Iterator[str]:
    """Lines, or the members of one array."""
    if text.lstrip().startswith("["):
        try:
            yield from (json.dumps(item) for item in json.loads(text))
            return
        except json.JSONDecodeError:
            pass
    try:
        json.loads(text)
    except json.JSONDecodeError:
        yield from (line for line in text.splitlines() if line.strip())
    else:
        yield text


def _parsed(kind: str, piece: str, name: str) -> Generated:
    where = name[-_LONGEST_NAME:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crystal = _crystal(kind, piece)
        if not crystal.pbc.all():
            raise InputError("has no full cell")
        return Generated(where, crystal)
    except NaicaError as error:
        return Generated(where, reason=str(error))
    except MemoryError:
        raise
    except Exception as error:
        # parsers raise everything from KeyError to AssertionError on broken text; all of it is the file's fault here
        return Generated(where, reason=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'cannot be parsed'}")


def _crystal(kind: str, piece: str) -> Crystal:
    if kind == ".cif":
        from naica.structure.cif import read_blocks

        found = read_blocks(piece)
        if len(found) != 1:
            raise InputError(f"{len(found)} structures in one CIF block; expected one")
        return found[0]
    if kind in (".xyz", ".extxyz"):
        from ase.io import read

        atoms = read(io.StringIO(piece), format="extxyz", index=0)
        assert not isinstance(atoms, list)
        return Crystal.from_ase(atoms)
    return _from_dict(json.loads(piece))


def _from_dict(raw: Any) -> Crystal:
    if not isinstance(raw, Mapping):
        raise InputError(f"a JSON {type(raw).__name__} where a structure was expected")
    if "structure" in raw and isinstance(raw["structure"], Mapping):
        raw = raw["structure"]
    if "sites" in raw:
        from pymatgen.core import Structure

        return Crystal.from_pymatgen(Structure.from_dict(dict(raw)))
    names = {
        "numbers": ("numbers", "atomic_numbers", "species", "symbols"),
        "cell": ("cell", "lattice"),
        "positions": ("positions", "coords"),
    }
    found = {what: next((raw[k] for k in keys if k in raw), None) for what, keys in names.items()}
    fractional = next((raw[k] for k in ("frac_coords", "fractional", "scaled_positions") if k in raw), None)
    if found["numbers"] is None or found["cell"] is None or (found["positions"] is None and fractional is None):
        raise InputError(f"keys {', '.join(sorted(raw))}; expected numbers (or species), cell (or lattice) and positions (or frac_coords)")
    numbers = np.array([element(z).number for z in found["numbers"]])
    cell = np.array(found["cell"], dtype=np.float64).reshape(3, 3)
    if fractional is not None:
        return Crystal.from_fractional(numbers, np.array(fractional, dtype=np.float64), cell)
    return Crystal(numbers, np.array(found["positions"], dtype=np.float64), cell)
