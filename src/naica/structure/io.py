"""Reading and writing structure files. ASE and pymatgen know the formats; this chooses between them and says plainly what is wrong.

Who reads what: CIF goes to pymatgen (it merges rounded special positions such as 0.3333 and reports occupancies; measured as fast as
ASE, 3–24 ms a file); JSON is looked into (pymatgen objects, else ASE); everything else goes to ASE by name, extension or content, then to
pymatgen. Compressed files (.gz, .bz2, .xz) are read and written as the file inside.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from naica.errors import InputError, NaicaError
from naica.structure import cif
from naica.structure.convert import closest_pair, from_ase, from_pymatgen, to_ase, to_pymatgen
from naica.structure.crystal import Crystal

OVERLAP = 0.5
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_COMMON = "cif, POSCAR, vasp, xyz, extxyz, traj, json, xsf, pdb, res, gen, cube, in (FHI-aims), pwi, pwo, vasprun.xml, OUTCAR"
_CIF = (".cif", ".mcif")
# names ASE would guess at by content; pymatgen's readers are the ones that fit
_PYMATGEN_ONLY = (".cssr", ".mcsqs", ".yaml", ".yml")


# --- reading ---------------------------------------------------------------------------------------------------------------
def read(path: str | Path, index: int | slice | str | None = None, format: str | None = None) -> Crystal | list[Crystal]:
    """Read a structure file of any format ASE or pymatgen knows.

    Parameters
    ----------
    path : the file; .gz, .bz2 and .xz are unpacked
    index : which frame of a file with several: an integer gives a `Crystal`, a slice or a text such as ``":"`` or ``"-5:"`` a list.
        Default: all of them, as a `Crystal` if there is one and a list if there are more
    format : name of the format where the file name does not tell ("cif", "json", or any name of ``ase.io``)

    Raises
    ------
    InputError
        If there is no such file, it is empty, broken, of unknown format or a folder, if a site is disordered, or if two atoms are
        nearer than 0.5 Å. The message names the file.
    """
    file = Path(path)
    _check_file(file)
    frames = [_checked(crystal, file, k) for k, crystal in _pick(_frames(file, format), index, file)]
    single = isinstance(index, int) or (index is None and len(frames) == 1)
    return frames[0] if single else frames


def read_many(paths: Iterable[str | Path]) -> Iterator[tuple[Path, Crystal | NaicaError]]:
    """Read many files one at a time; a bad file yields its error as a value and the walk goes on. Several frames yield several items."""
    for path in paths:
        file = Path(path)
        try:
            found = read(file)
        except NaicaError as error:
            yield file, error
            continue
        for crystal in found if isinstance(found, list) else [found]:
            yield file, crystal


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise InputError(
            f"{file} is a folder; read() takes one file. For a folder of structures with a CSV use naica.data.folder.from_folder"
        )
    if not file.exists():
        raise InputError(f"no such file: {file}{_neighbours(file)}")
    if file.stat().st_size == 0:
        raise InputError(f"{file} is empty (0 bytes); expected a structure file ({_COMMON})")


def _neighbours(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist either"
    near = get_close_matches(file.name, [p.name for p in folder.iterdir()], n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; nothing in {folder.resolve()} has a name like it"


def _frames(file: Path, format: str | None) -> list[Crystal]:
    suffix, inner = _inner_name(file)
    kind = format.lower() if format else inner.lower()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if kind.endswith(_CIF) or kind in ("cif", "mcif"):
                frames = cif.read_blocks(_text(file, suffix))
            elif (kind.endswith(".json") and format is None) or kind == "json":
                frames = _read_json(file, _text(file, suffix))
            elif kind.endswith(_PYMATGEN_ONLY):
                frames = _read_pymatgen(file, suffix, inner)
            else:
                frames = _read_any(file, suffix, inner, format)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        # parsers raise everything from KeyError to AssertionError on broken files; all of it is the file's fault here
        raise InputError(f"{file} cannot be read: {_reason(error)}; expected {_expected(kind)}") from error
    if not frames:
        raise InputError(f"{file} holds no structure; expected {_expected(kind)}")
    notes = [_first_line(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return [c.replace(info={**c.info, "read_warnings": notes}) for c in frames] if notes else frames


def _expected(kind: str) -> str:
    if kind.endswith("cif"):
        return cif.EXPECTED
    if kind.endswith("json"):
        return "a pymatgen Structure or Molecule (or a list of them) or an ASE database"
    return "a complete file of that format. Check the file, or name the format with format=…"


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _reason(error: BaseException) -> str:
    """What a parser stumbled over: the innermost cause, since wrappers only say that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{error.args[0]!r} is missing or unknown" if isinstance(error, KeyError) and error.args else _first_line(error)


def _inner_name(file: Path) -> tuple[str, str]:
    """Compression suffix ('' if none) and the name of the file inside."""
    suffix = file.suffix.lower()
    return (suffix, file.stem) if suffix in _OPENERS else ("", file.name)


def _text(file: Path, suffix: str) -> str:
    with _OPENERS[suffix](file, "rb") if suffix else file.open("rb") as handle:
        text = handle.read().decode("utf-8", errors="replace")
    if not text.strip():
        raise InputError(f"the file is empty; expected a structure file ({_COMMON})")
    return text


def _read_json(file: Path, text: str) -> list[Crystal]:
    import json

    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}") from error
    items = content if isinstance(content, list) else [content]
    if all(isinstance(item, dict) and ("lattice" in item or "sites" in item) for item in items) and items:
        return [_from_pymatgen_dict(item) for item in items]
    if isinstance(content, dict) and ("ids" in content or "nextid" in content):
        from ase.io import read as ase_read

        return [from_ase(a) for a in ase_read(file, index=":", format="json")]
    keys = ", ".join(list(content)[:6]) if isinstance(content, dict) else f"a list of {type(items[0]).__name__ if items else 'nothing'}"
    raise InputError(f"JSON without a structure (found {keys}); expected pymatgen's dictionaries with 'sites', or an ASE database")


def _from_pymatgen_dict(item: dict[str, Any]) -> Crystal:
    from pymatgen.core import Molecule, Structure

    return from_pymatgen(Structure.from_dict(item) if "lattice" in item else Molecule.from_dict(item))


def _read_any(file: Path, suffix: str, inner: str, format: str | None) -> list[Crystal]:
    """By ASE if it knows the format, else by pymatgen."""
    from ase.io import read as ase_read
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        name = format or filetype(str(file), read=True, guess=True)
    except UnknownFileTypeError:
        name = ""
    if name:
        try:
            found = ase_read(file, index=":", format="extxyz" if name == "xyz" else name)
            return [from_ase(a) for a in (found if isinstance(found, list) else [found])]
        except UnknownFileTypeError as error:
            raise InputError(_unknown_format(inner, format)) from error
    return _read_pymatgen(file, suffix, inner)


def _read_pymatgen(file: Path, suffix: str, inner: str) -> list[Crystal]:
    from pymatgen.core import Structure
    from pymatgen.io.registry import get_structure_format

    try:
        get_structure_format(filename=inner)
    except ValueError as error:
        raise InputError(_unknown_format(inner, None)) from error
    if not suffix:
        return [from_pymatgen(Structure.from_file(str(file)))]
    with tempfile.TemporaryDirectory() as folder, _OPENERS[suffix](file, "rb") as packed:
        unpacked = Path(folder) / inner
        unpacked.write_bytes(packed.read())
        return [from_pymatgen(Structure.from_file(str(unpacked)))]


def _unknown_format(inner: str, format: str | None) -> str:
    from ase.io.formats import ioformats

    if format:
        near = get_close_matches(format, ioformats, n=3, cutoff=0.5)
        return f"unknown format {format!r}" + (
            f"; did you mean {' or '.join(near)}?" if near else f"; known: cif, json, {', '.join(ioformats)}"
        )
    known = sorted({e for f in ioformats.values() if f.can_read for e in f.extensions})
    return (
        f"neither the name {inner!r} nor the content tells the format; expected one of {_COMMON}, or another extension of ASE "
        f"({', '.join(known)}). Rename the file or pass format=…"
    )


def _pick(frames: Sequence[Crystal], index: int | slice | str | None, file: Path) -> list[tuple[int, Crystal]]:
    numbered = list(enumerate(frames))
    if index is None:
        return numbered
    if isinstance(index, str):
        index = _parse_index(index)
    if isinstance(index, slice):
        return numbered[index]
    if not -len(frames) <= index < len(frames):
        raise InputError(f"{file} has {len(frames)} structure{'s' * (len(frames) > 1)}; there is no number {index} (counting from 0)")
    return [numbered[index]]


def _parse_index(text: str) -> slice:
    try:
        parts = [int(p) if p.strip() else None for p in text.split(":")]
        return slice(*parts) if len(parts) > 1 else slice(parts[0], (parts[0] or 0) + 1 or None)
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot read {text!r} as an index; expected a number, ':' or 'start:stop:step'") from error


def _checked(crystal: Crystal, file: Path, frame: int) -> Crystal:
    try:
        check_overlap(crystal)
    except InputError as error:
        raise InputError(f"{file}{f' (structure {frame})' if frame else ''}: {error}") from error
    return crystal


def check_overlap(crystal: Crystal, minimum: float = OVERLAP) -> None:
    """Refuse a structure in which two atoms are nearer than `minimum` Å.

    Raises
    ------
    InputError
        Naming the two atoms and their distance.
    """
    i, j, distance = closest_pair(crystal)
    if distance < minimum:
        s = crystal.symbols
        pair = f"atoms {i} ({s[i]}) and {j} ({s[j]})" if i != j else f"atom {i} ({s[i]}) and its own periodic image"
        raise InputError(
            f"{pair} are {distance:.3f} Å apart, nearer than {minimum} Å; expected separate atoms. "
            "Remove the duplicate, or check that the cell and the coordinates are in Å and fractional units as the format wants"
        )


# --- writing ---------------------------------------------------------------------------------------------------------------
def write(crystals: Crystal | Sequence[Crystal], path: str | Path, format: str | None = None) -> None:
    """Write one structure, or several into a format with frames (extxyz, traj, json, cif).

    CIF keeps cell parameters and fractional coordinates (P1, atoms in their order) but not the orientation of the cell nor `info`; JSON
    (pymatgen's dictionaries) and traj keep everything exactly, extxyz 8 decimals.

    Raises
    ------
    InputError
        If the format is unknown, cannot hold the structure (a molecule in a CIF, several in a POSCAR), or the file cannot be written.
    """
    file = Path(path)
    frames = [crystals] if isinstance(crystals, Crystal) else list(crystals)
    if not frames:
        raise InputError(f"nothing to write to {file}: the list of structures is empty")
    suffix, inner = _inner_name(file)
    kind = format.lower() if format else inner.lower()
    try:
        if kind.endswith(".cif") or kind == "cif":
            _write_text(file, suffix, cif.write_blocks(frames))
        elif (kind.endswith(".json") and format is None) or kind == "json":
            _write_text(file, suffix, _json_text(frames))
        else:
            _write_ase(frames, file, format)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}; check that the folder exists and may be written to") from error
    except Exception as error:
        raise InputError(f"cannot write {file}: {_first_line(error)}") from error


def _write_text(file: Path, suffix: str, text: str) -> None:
    with _OPENERS[suffix](file, "wb") if suffix else file.open("wb") as handle:
        handle.write(text.encode())


def _json_text(frames: list[Crystal]) -> str:
    import json

    from monty.json import MontyEncoder

    items = [to_pymatgen(c).as_dict() for c in frames]
    return json.dumps(items[0] if len(items) == 1 else items, cls=MontyEncoder)


def _write_ase(frames: list[Crystal], file: Path, format: str | None) -> None:
    from ase.io import write as ase_write
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        name = format or filetype(str(file), read=False, guess=False)
        target = ioformats[name]
    except (UnknownFileTypeError, KeyError) as error:
        known = ", ".join(sorted({e for f in ioformats.values() if f.can_write for e in f.extensions} | {"cif", "json", "POSCAR"}))
        raise InputError(f"cannot tell which format to write; known extensions: {known}, or pass format=…") from error
    if not target.can_write:
        raise InputError(f"the format {name} can be read but not written; try .cif, .json, .xyz or POSCAR")
    if len(frames) > 1 and target.single:
        raise InputError(f"the format {name} holds one structure; {len(frames)} were given. Use .xyz, .traj, .json or .cif")
    atoms = [to_ase(c) for c in frames]
    ase_write(file, atoms if len(atoms) > 1 else atoms[0], format="extxyz" if name == "xyz" else name)
