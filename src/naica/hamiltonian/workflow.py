"""Many runs of a code into one set of matrices: in a pool of processes, resumable after any kill, one failure one row with its reason.

Every finished structure is a shard of its own in ``parts/`` the moment it exists, every failure a line of ``failed.jsonl``; so the same
call goes on where it was killed, and pays for nothing twice. In the end parts are packed into shards of many.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naica.errors import ConfigError, MissingPart
from naica.hamiltonian import checks
from naica.hamiltonian.sources import source
from naica.hamiltonian.store import HamiltonianSet, write_shard
from naica.structure import Crystal

PER_SHARD = 64


@dataclass(frozen=True)
class Progress:
    """Where a workflow stands: `done` of `total`, `failed`, seconds since its start, and how many more it will take."""

    done: int
    failed: int
    total: int
    seconds: float
    left: float | None


def make(
    crystals: Sequence[Crystal],
    folder: str | Path,
    code: str = "cp2k",
    settings: Mapping[str, Any] | None = None,
    *,
    names: Sequence[str] | None = None,
    workers: int | None = None,
    retries: int = 1,
    seconds: float = 900.0,
    progress: Callable[[Progress], None] | None = None,
) -> HamiltonianSet:
    """Make the matrices of many structures; structures that are there already are left alone.

    Parameters
    ----------
    crystals : what to compute
    folder : of the set
    code : a source: ``cp2k``, ``pyscf``, ``tblite``, ``slater-koster``
    settings : of the source
    names : of the structures; default: their hashes
    workers : processes; default: NAICA_JOBS, or one per core
    retries : how often a failed structure is tried again, each with half the mixing of densities where the source has it
    seconds : after which a run is given up
    progress : called after each structure

    Raises
    ------
    ConfigError
        If the folder holds a set of another source or other settings.
    MissingPart
        If the code is not installed.
    """
    place, told = Path(folder), dict(settings or {})
    parts = place / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    _agree(place / "set.json", {"source": code, "settings": told})
    source(code)  # refuses unknown names before any process starts
    names = list(names) if names is not None else [c.hash for c in crystals]
    there = {name for path in place.glob("*.h5") for name in HamiltonianSet(path).names} | {p.stem for p in parts.glob("*.h5")}
    failed = _failures(place / "failed.jsonl")
    todo = [(n, c) for n, c in dict(zip(names, crystals, strict=True)).items() if n not in there and len(failed.get(n, ())) <= retries]
    _run_all(todo, place, code, told, workers, retries, seconds, len(crystals), len(crystals) - len(todo), progress)
    pack(place)
    return HamiltonianSet(place)


def pack(place: Path) -> None:
    """Gather single parts into shards of many; a kill between writing and removing leaves a copy, which the next call removes."""
    parts = sorted((place / "parts").glob("*.h5"))
    packed = {name for path in place.glob("*.h5") for name in HamiltonianSet(path).names}
    for path in [p for p in parts if p.stem in packed]:
        path.unlink()
    left = [p for p in parts if p.stem not in packed]
    while left:
        group, left = left[:PER_SHARD], left[PER_SHARD:]
        number = len(list(place.glob("shard-*.h5")))
        write_shard(place / f"shard-{number:04d}.h5", [HamiltonianSet(p)[0] for p in group], [p.stem for p in group])
        for path in group:
            path.unlink()


def failures(folder: str | Path) -> dict[str, list[str]]:
    """Reasons of all failed tries by name of the structure."""
    return _failures(Path(folder) / "failed.jsonl")


def _run_all(
    todo: Sequence[tuple[str, Crystal]],
    place: Path,
    code: str,
    told: Mapping[str, Any],
    workers: int | None,
    retries: int,
    seconds: float,
    total: int,
    before: int,
    progress: Callable[[Progress], None] | None,
) -> None:
    from pebble import ProcessPool

    start, done, lost = time.monotonic(), 0, 0
    waiting = list(todo)
    tries = {name: 0 for name, _ in todo}
    with ProcessPool(workers or int(os.environ.get("NAICA_JOBS") or os.cpu_count() or 1)) as pool:
        while waiting:
            futures = [
                (name, crystal, pool.schedule(_one, (crystal, code, told, place / "parts" / f"{name}.h5", name), timeout=seconds))
                for name, crystal in waiting
            ]
            waiting = []
            for name, crystal, future in futures:
                try:
                    future.result()
                    done += 1
                except MissingPart:
                    pool.stop()
                    raise
                except Exception as error:  # whatever a code throws is this structure's failure
                    reason = f"not finished within {seconds:g} s" if isinstance(error, OutOfTime) else f"{type(error).__name__}: {error}"
                    _note(place / "failed.jsonl", {"name": name, "formula": crystal.formula, "reason": reason})
                    tries[name] += 1
                    if tries[name] <= retries:
                        waiting.append((name, crystal))
                    else:
                        lost += 1
                if progress:
                    spent, ended = time.monotonic() - start, done + lost
                    left = spent / ended * (len(todo) - ended) if ended else None
                    progress(Progress(before + done, lost, total, spent, left))


def _one(crystal: Crystal, code: str, told: Mapping[str, Any], path: Path, name: str) -> None:
    """In a worker: one structure to one file, accepted only if it passes its tests."""
    os.environ["OMP_NUM_THREADS"] = "1"
    found = source(code)(crystal, told)
    write_shard(path, [checks.accept(found, f"{name} ({crystal.formula})")], [name])


def _agree(path: Path, wanted: dict[str, Any]) -> None:
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(wanted, indent=1, sort_keys=True))
        os.replace(temporary, path)
    elif (own := json.loads(path.read_text())) != wanted:
        raise ConfigError(
            f"{path.parent} holds a set of {own['source']} with {own['settings']}; asked for {wanted['source']} with {wanted['settings']}"
        )


def _failures(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line that a kill cut off
        found.setdefault(row["name"], []).append(row["reason"])
    return found


def _note(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
