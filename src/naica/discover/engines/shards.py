"""Work on very many things in shards: a shard is a file that appears in one step, and one that exists is never worked out again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.discover.config import EngineSection
from naica.errors import RunError

Columns = dict[str, NDArray[Any]]


def digest(*parts: Any) -> str:
    """A name for what decides a shard's content: texts, numbers, and lists of them."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:24]


def file_digest(place: Path) -> str:
    """A name for the content of a file, or of all files in a folder."""
    found = hashlib.sha256()
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            found.update(str(path.relative_to(place)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:24]


def in_shards(
    work: Callable[[Any], Columns],
    names: Sequence[str],
    piece: Callable[[int], Any],
    folder: str | Path,
    *,
    engine: EngineSection | None = None,
    workers: int = 1,
    tick: Callable[[int, int], None] = lambda done, total: None,
    own: str | Path | None = None,
) -> list[Columns]:
    """`work` on all pieces; returns their columns in order.

    Parameters
    ----------
    work : from a piece to named arrays; it must pickle for workers elsewhere, and be a function of the piece alone
    names : of the shards, different wherever the outcome would differ (see `digest`); each becomes ``NAME.npz`` in the folder
    piece : makes the k-th piece, only when its shard is missing, so that few are in memory at once
    folder : where the shards lie; with Dask, workers must see it under the same path
    engine : ``dask`` hands shards to workers; all others work in this process, where a network uses all cores anyway
    workers : processes, for Dask on this machine
    tick : called with (shards there, shards in all)
    own : the engine's place for logs

    Raises
    ------
    RunError
        If the workers do not see the folder, or the engine cannot be reached or went away; finished shards are kept.
    """
    place = Path(folder).absolute()
    place.mkdir(parents=True, exist_ok=True)
    at = {name: k for k, name in enumerate(names)}

    def missing() -> list[str]:
        return [name for name in at if not (place / f"{name}.npz").exists()]

    def done(name: str) -> None:
        if not (place / f"{name}.npz").exists():
            raise RunError(f"a worker wrote {place / name}.npz, but it is not to be seen here; do workers see this folder?")
        tick(len(at) - len(missing()), len(at))

    left = missing()
    tick(len(at) - len(left), len(at))
    if left and engine is not None and engine.name == "dask":
        from naica.discover.engines import dask

        logs = Path(own).absolute() if own is not None else place
        dask.fill(missing, lambda name: (work, piece(at[name]), place / f"{name}.npz"), write, done, engine, max(workers, 1), logs)
    else:
        for name in left:
            write(work, piece(at[name]), place / f"{name}.npz")
            done(name)
    return [_read(place / f"{name}.npz") for name in names]


def write(work: Callable[[Any], Columns], piece: Any, path: Path) -> None:
    """One shard, unless it is there: worked out, written aside, renamed."""
    if path.exists():
        return
    columns = work(piece)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.uname().nodename}.{os.getpid()}.npz")
    try:
        with aside.open("wb") as handle:
            np.savez(handle, allow_pickle=False, **dict[str, Any](columns))
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _read(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
