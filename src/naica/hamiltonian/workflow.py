"""Many runs of a code into one set of matrices: in a pool of processes, resumable after any kill, one failure one row with its reason.

Every finished structure is a shard of its own in ``parts/`` the moment it exists, every failure a line of ``failed.jsonl``; so the same
call goes on where it was killed, and pays for nothing twice. Parts are packed into shards of many as they gather; the set can be read
at any moment. What runs the tasks is an engine: here a pool of processes, elsewhere whatever yields their outcomes.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from naica.errors import ConfigError, MissingPart
from naica.hamiltonian import checks
from naica.hamiltonian.sources import source, with_patience
from naica.hamiltonian.store import HamiltonianSet, packed_names, write_shard
from naica.structure import Crystal

PER_SHARD = 64
# how far a run has come, for who looks at the folder meanwhile
STANDING = "progress.json"
# a worker is replaced after so many structures: what a code leaks must not add up over days
_PER_WORKER = 100


@dataclass(frozen=True)
class Progress:
    """Where a workflow stands: `done` of `total`, `failed`, seconds since its start, and how many more it will take (None: unknown)."""

    done: int
    failed: int
    total: int
    seconds: float
    left: float | None


@dataclass(frozen=True)
class Task:
    """One structure to compute with a source into a file; `tries` counts what went before."""

    name: str
    crystal: Crystal
    code: str
    settings: Mapping[str, Any]
    path: Path
    tries: int = 0


# an engine runs tasks in any order and yields each with its error, None if its file is there; it ends them if it is closed early
Engine = Callable[[Sequence[Task], float], Iterator[tuple[Task, BaseException | None]]]


def make(
    crystals: Sequence[Crystal],
    folder: str | Path,
    code: str = "cp2k",
    settings: Mapping[str, Any] | None = None,
    *,
    names: Sequence[str] | None = None,
    workers: int | None = None,
    retries: int = 1,
    seconds: float = 3600.0,
    progress: Callable[[Progress], None] | None = None,
    engine: Engine | None = None,
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
    retries : how often a failed structure is tried again, each time with half the mixing of densities and half as many steps more where
        the source has such settings
    seconds : of the clock after which a run is given up; a source's own limits are met first
    progress : called after each structure
    engine : what runs the tasks; default: a pool of `workers` processes on this machine

    Raises
    ------
    ConfigError
        If the folder holds a set of another source or other settings.
    MissingPart
        If the code is not installed.
    """
    place, told = Path(folder), dict(settings or {})
    (place / "parts").mkdir(parents=True, exist_ok=True)
    _agree(place / "set.json", {"source": code, "settings": told})
    source(code)  # refuses unknown names before any process starts
    names = list(names) if names is not None else [c.hash for c in crystals]
    there = packed_names(place) | {p.stem for p in (place / "parts").glob("*.h5")}
    failed = _failures(place / "failed.jsonl")
    wanted = dict(zip(names, crystals, strict=True))
    todo = [
        Task(name, crystal, code, told, place / "parts" / f"{name}.h5", len(failed.get(name, ())))
        for name, crystal in wanted.items()
        if name not in there and len(failed.get(name, ())) <= retries
    ]
    run = engine or _Pool(workers or int(os.environ.get("NAICA_JOBS") or os.cpu_count() or 1))
    _run_all(todo, place, run, retries, seconds, len(wanted), len(wanted) - len(todo), progress)
    pack(place, whole_only=False)
    return HamiltonianSet(place)


def pack(place: Path, whole_only: bool = True) -> None:
    """Gather single parts into shards of many; a kill between writing and removing leaves a copy, which the next call removes.

    Parameters
    ----------
    whole_only : leave what does not fill a shard as it is
    """
    packed = packed_names(place)
    left = []
    for part in sorted((place / "parts").glob("*.h5")):
        if part.stem in packed:
            part.unlink()
        else:
            left.append(part)
    while len(left) >= (PER_SHARD if whole_only else 1):
        group, left = left[:PER_SHARD], left[PER_SHARD:]
        numbers = [int(p.stem.rpartition("-")[2]) for p in place.glob("shard-*.h5")]
        write_shard(place / f"shard-{max(numbers, default=-1) + 1:04d}.h5", [HamiltonianSet(p)[0] for p in group], [p.stem for p in group])
        for path in group:
            path.unlink()


def failures(folder: str | Path) -> dict[str, list[str]]:
    """Reasons of all failed tries by name of the structure."""
    return _failures(Path(folder) / "failed.jsonl")


def perform(task: Task) -> None:
    """Run one task: its structure to its file, accepted only if it passes its tests; CPU seconds and tries are kept with it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    begun = _cpu_seconds()
    found = source(task.code)(task.crystal, with_patience(task.code, task.settings, task.tries))
    checks.accept(found, f"{task.name} ({task.crystal.formula})")
    cost = {"cpu_seconds": round(_cpu_seconds() - begun, 2), "tries": task.tries + 1}
    write_shard(task.path, [found.replace(info={**found.info, **cost})], [task.name])


def _run_all(
    todo: Sequence[Task],
    place: Path,
    run: Engine,
    retries: int,
    seconds: float,
    total: int,
    before: int,
    progress: Callable[[Progress], None] | None,
) -> None:
    start, done, lost, since_packed = time.monotonic(), 0, 0, 0
    waiting = list(todo)
    while waiting:
        again: list[Task] = []
        for task, error in run(waiting, seconds):
            if error is None:
                done, since_packed = done + 1, since_packed + 1
            elif isinstance(error, MissingPart):
                raise error
            else:
                reason = f"not finished within {seconds:g} s" if isinstance(error, OutOfTime) else f"{type(error).__name__}: {error}"
                _note(place / "failed.jsonl", {"name": task.name, "formula": task.crystal.formula, "reason": reason})
                if task.tries < retries:
                    again.append(Task(task.name, task.crystal, task.code, task.settings, task.path, task.tries + 1))
                else:
                    lost += 1
            if since_packed >= PER_SHARD:
                pack(place)
                since_packed = 0
            spent, ended = time.monotonic() - start, done + lost
            now = Progress(before + done, lost, total, spent, spent / ended * (len(todo) - ended) if ended else None)
            _written(place / STANDING, asdict(now) | {"at": time.strftime("%Y-%m-%d %H:%M")})
            if progress:
                progress(now)
        waiting = again


@dataclass(frozen=True)
class _Pool:
    """The engine of this machine: so many processes, outcomes as they come."""

    workers: int

    def __call__(self, tasks: Sequence[Task], seconds: float) -> Iterator[tuple[Task, BaseException | None]]:
        from concurrent.futures import FIRST_COMPLETED, wait

        from pebble import ProcessPool

        left = list(reversed(tasks))
        running: dict[Any, Task] = {}
        with ProcessPool(self.workers, max_tasks=_PER_WORKER) as pool:
            try:
                while left or running:
                    while left and len(running) < 2 * self.workers:
                        task = left.pop()
                        running[pool.schedule(perform, (task,), timeout=seconds)] = task
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future.exception()
            except BaseException:  # closed early, or interrupted: what runs is ended, not waited for
                pool.stop()
                raise


def _cpu_seconds() -> float:
    """Of this process and of the programs it ran."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _agree(path: Path, wanted: dict[str, Any]) -> None:
    if not path.exists():
        _written(path, wanted)
    elif (own := json.loads(path.read_text())) != wanted:
        raise ConfigError(
            f"{path.parent} holds a set of {own['source']} with {own['settings']}; asked for {wanted['source']} with {wanted['settings']}"
        )


def _written(path: Path, told: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(told, indent=1, sort_keys=True))
    os.replace(temporary, path)


def standing(folder: str | Path) -> dict[str, Any] | None:
    """How far the last run of a set came: fields of `Progress`, and ``at`` when; None if there was none."""
    path = Path(folder) / STANDING
    return json.loads(path.read_text()) if path.exists() else None


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
