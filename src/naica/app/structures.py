"""Structure files named on a command line: folders opened, frames counted, bad files kept aside with their reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from naica.errors import InputError, NaicaError
from naica.structure import Crystal

TABLES = (".csv", ".smi")
SUFFIXES = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".json", ".xsf", ".res", ".cssr", ".pdb", ".traj")
_BARE_NAMES = ("poscar", "contcar")


@dataclass(frozen=True)
class Named:
    """A structure and where it came from: its file, and a name with `#n` behind the file's where that holds several."""

    name: str
    crystal: Crystal
    file: Path


@dataclass(frozen=True)
class Unreadable:
    """A file (or structure) that could not be used, and why."""

    name: str
    reason: str


def read_structures(paths: Iterable[Path]) -> tuple[list[Named], list[Unreadable]]:
    """Read every structure of every file; a bad file becomes an `Unreadable`, never an end.

    Raises
    ------
    InputError
        If a folder holds no structure file, or no file was named.
    """
    from naica.structure.io import read

    good: list[Named] = []
    bad: list[Unreadable] = []
    files = [file for path in paths for file in _files(Path(path))]
    if not files:
        raise InputError("no structure files named; give files (CIF, POSCAR, xyz, …) or folders of them")
    for file in files:
        try:
            if file.suffix.lower() in TABLES:
                _read_molecules(file, good, bad)
                continue
            found = read(file)
        except (NaicaError, OSError) as error:
            bad.append(Unreadable(str(file), _without_name(str(error), file)))
            continue
        crystals = found if isinstance(found, list) else [found]
        several = len(crystals) > 1
        good += [Named(f"{file}#{k}" if several else str(file), crystal, file) for k, crystal in enumerate(crystals)]
    return good, bad


def _read_molecules(file: Path, good: list[Named], bad: list[Unreadable]) -> None:
    """Molecules from SMILES: the column `smiles` of a CSV, or the first word of every line of a .smi file."""
    from naica.data.molecules import conformers

    texts = _smiles(file)
    for k, (text, placed) in enumerate(zip(texts, conformers(texts), strict=True)):
        name = f"{file}#{k} {text}"
        if isinstance(placed, str):
            bad.append(Unreadable(name, placed))
        else:
            good.append(Named(name, Crystal(*placed, info={"smiles": text}), file))


def _smiles(file: Path) -> list[str]:
    from naica.data.folder import read_csv

    if file.suffix.lower() == ".csv":
        rows = read_csv(file, ["smiles"])
        at = rows.index("smiles")
        return [cells[at].strip() if len(cells) > at else "" for cells in rows.cells]
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as lines of SMILES: {error}") from error
    return [line.split()[0] for line in lines if line.strip()]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.is_file() and _looks_like_structure(p))
    if not found:
        raise InputError(f"{path}: no structure file in this folder; looked for {', '.join(SUFFIXES)}, POSCAR and CONTCAR (also .gz)")
    return found


def _looks_like_structure(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(SUFFIXES) or name.startswith(_BARE_NAMES)


def _without_name(message: str, file: Path) -> str:
    # the file has its own column: do not say it twice
    return message.removeprefix(f"{file}: ")
