"""Answers to convert: structure files read, and written in another format."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from naica.app.answer import Answer
from naica.app.requests import ConvertRequest
from naica.app.structures import SUFFIXES, Named, Unreadable, read_structures
from naica.app.wording import plural
from naica.errors import InputError, RunError

Report = Callable[[int, int], None]
# suffix of a file in a folder, and the writer's name of its format
_FORMATS = {"cif": (".cif", "cif"), "poscar": (".vasp", "vasp"), "extxyz": (".extxyz", "extxyz"), "json": (".json", "json")}
# names that readers know, and writers do not
_BY_SUFFIX = {".vasp": "vasp", ".extxyz": "extxyz"}


def convert(request: ConvertRequest, progress: Report = lambda done, total: None) -> Answer:
    """Write what can be read into one file, or into a folder with one file per input; each bad input is named with its reason.

    The exit code is 2 if nothing was written, or if `strict` and any input was rejected.

    Raises
    ------
    InputError
        If the output file is one of the inputs, is of no known format, or cannot hold the structures together.
    RunError
        If the output folder cannot be made.
    """
    into_folder = request.out.endswith("/") or Path(request.out).is_dir()
    out = Path(request.out)
    if request.format and not into_folder:
        raise InputError(f"--format is for folders; the format of the file {out} follows from its name. For a folder write --out {out}/")
    good, bad = read_structures(request.files)
    _make_folder(out if into_folder else out.parent)
    if into_folder:
        written, kept, refused = _to_folder(good, out, request.format or "cif", progress)
    else:
        written, kept, refused = _to_file(good, out)
    rejected = [{"file": b.name, "error": b.reason} for b in (*bad, *refused)]
    data = {
        "out": str(out),
        "inputs": len({n.file for n in good}) + len(bad),
        "structures": kept,
        "written": [str(p) for p in written],
        "rejected": rejected,
        "failed": len(rejected),
    }
    told = f"{plural(kept, 'structure')} written to {plural(len(written), 'file')}: {out}" if written else "nothing written"
    blocks = (told, *(f"{r['file']}: not converted: {r['error']}" for r in rejected))
    return Answer(data, blocks, exit_code=2 if not written or (request.strict and rejected) else 0)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror or error}") from error


# --- one file ---------------------------------------------------------------------------------------------------------------------
def _to_file(good: Sequence[Named], out: Path) -> tuple[list[Path], int, list[Unreadable]]:
    """All into one file, without those that its format cannot hold."""
    from naica.structure.io import write

    if any(_same(n.file, out) for n in good):
        raise InputError(f"{out} is one of the inputs and would be overwritten; name another file with --out")
    if not good:
        return [], 0, []
    name = _BY_SUFFIX.get(out.suffix.lower())
    try:
        write([n.crystal for n in good], out, name)
        return [out], len(good), []
    except InputError:
        refused = _refused(good, out, name)
        # each alone would do: the format cannot hold them together; none would do: it is no format
        if not refused or (len(refused) == len(good) and len(set(refused.values())) == 1):
            raise
    rest = [n for n in good if n.name not in refused]
    if rest:
        write([n.crystal for n in rest], out, name)
    return [out] if rest else [], len(rest), [Unreadable(name, reason) for name, reason in refused.items()]


def _refused(good: Sequence[Named], out: Path, name: str | None) -> dict[str, str]:
    """Which structures the format cannot hold, found by writing each alone into a folder that goes away."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / out.name
        for one in good:
            if reason := _write_one([one], trial, name):
                found[one.name] = reason
    return found


# --- a folder ---------------------------------------------------------------------------------------------------------------------
def _to_folder(good: Sequence[Named], out: Path, kind: str, progress: Report) -> tuple[list[Path], int, list[Unreadable]]:
    """One file per input; an input that its format cannot hold is refused."""
    suffix, name = _FORMATS[kind]
    by_file: dict[Path, list[Named]] = {}
    for one in good:
        by_file.setdefault(one.file, []).append(one)
    written: list[Path] = []
    refused: list[Unreadable] = []
    kept = 0
    for done, (file, named) in enumerate(by_file.items(), start=1):
        target = _free(out, _stem(file), suffix, written)
        inside = next((f for f in by_file if _same(f, target)), None)
        reason = f"{target} is an input and would be overwritten; choose another --out" if inside else _write_one(named, target, name)
        if reason:
            refused.append(Unreadable(str(file), reason))
        else:
            written.append(target)
            kept += len(named)
        progress(done, len(by_file))
    return written, kept, refused


def _write_one(named: Sequence[Named], target: Path, name: str | None) -> str:
    """Why the structures cannot be written; nothing if they were."""
    from naica.structure.io import write

    try:
        write([n.crystal for n in named], target, name)
    except InputError as error:
        return str(error).removeprefix(f"{target}: ").replace(str(target), target.name)
    return ""


def _stem(file: Path) -> str:
    """The file's name without what tells its format; a POSCAR keeps its name."""
    name = file.name.removesuffix(".gz")
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name


def _free(folder: Path, stem: str, suffix: str, taken: Sequence[Path]) -> Path:
    """A path that this command has not written yet: inputs of one name in two folders are numbered."""
    path, n = folder / f"{stem}{suffix}", 2
    while path in taken:
        path, n = folder / f"{stem}-{n}{suffix}", n + 1
    return path


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()
