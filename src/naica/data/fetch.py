"""Bringing a public set to this machine: from a local mirror or over HTTP, resumed where it stopped, checked by SHA-256.

The published sets were converted and split for naica, so the original repositories do not hold these very files. They come from a mirror:
a folder (``NAICA_DATA_URL=file:///mirror`` or a plain path, or the present data root) or a web server (``NAICA_DATA_URL=https://…``)
with the same layout, `sets.toml`'s file names below one base.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from naica.data.registry import DataSet, FileFact, data_root, dataset
from naica.errors import InputError, MissingPart, RunError

BASE = "NAICA_DATA_URL"
"""Environment variable that names the mirror."""
_CHUNK = 1 << 20
_TIMEOUT = 30.0
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pulled:
    """What `pull` did: files fetched now, files that were already right, and the folder they lie in."""

    name: str
    target: Path
    fetched: tuple[str, ...]
    kept: tuple[str, ...]


def digest(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def verify(name: str) -> list[str]:
    """The files of a set under the data root that are absent or not what was published, each with the reason; empty if all is well."""
    problems = []
    for fact in dataset(name).files:
        path = data_root() / fact.path
        if not path.exists():
            problems.append(f"{fact.path}: absent")
        elif digest(path) != fact.sha256:
            problems.append(f"{fact.path}: differs from the published file ({path.stat().st_size} bytes, expected {fact.bytes})")
    return problems


def pull(name: str, target: str | Path | None = None, base: str | None = None, progress: Progress | None = None) -> Pulled:
    """Fetch the files of a set into `target`, keep those already right, check every one.

    Parameters
    ----------
    name : the set
    target : folder to put it in, as a data root (default: the present data root)
    base : mirror to take it from, a folder, ``file://`` or ``http(s)://`` address; default the environment's ``NAICA_DATA_URL``, else the
        present data root
    progress : called with (file, bytes so far, bytes in all)

    Raises
    ------
    MissingPart
        If no mirror has the files; the message says where the set was published and how to name a mirror.
    InputError
        If a file arrives that is not the published one (it is not kept), or the address is not understood.
    RunError
        If the target cannot be written to.
    """
    found = dataset(name)
    folder = Path(target).expanduser() if target is not None else data_root()
    fetched, kept = [], []
    for fact in found.files:
        path = folder / fact.path
        if path.exists() and path.stat().st_size == fact.bytes and digest(path) == fact.sha256:
            kept.append(fact.path)
            continue
        try:
            _bring(fact, path, _mirror(found, base), found, progress)
        except PermissionError as error:
            raise RunError(f"no permission for {error.filename or path} ({error.strerror}); pull into another folder (target)") from error
        except OSError as error:
            raise RunError(f"pulling {fact.path} stopped: {error}; free some space or mend the disk and pull again, it resumes") from error
        fetched.append(fact.path)
    return Pulled(name, folder, tuple(fetched), tuple(kept))


def _mirror(found: DataSet, base: str | None) -> str:
    mirror = base or os.environ.get(BASE) or str(data_root())
    if "://" not in mirror and not Path(mirror).expanduser().is_dir():
        raise MissingPart(_where_to_get(found, f"there is no mirror at {mirror}"))
    return mirror


def _where_to_get(found: DataSet, problem: str) -> str:
    return (
        f"cannot pull {found.name!r}: {problem}. The set was prepared from {found.source} ({found.citation}); "
        f"name a mirror with {BASE} (a folder, file:// or https:// address that has {found.files[0].path}), "
        "or copy the files by hand and set NAICA_DATA"
    )


def _bring(fact: FileFact, path: Path, mirror: str, found: DataSet, progress: Progress | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    scheme = urlsplit(mirror).scheme if "://" in mirror else "file"
    if scheme in ("http", "https"):
        _download(f"{mirror.rstrip('/')}/{quote(fact.path)}", partial, fact, found, progress)
    elif scheme == "file":
        folder = Path(unquote(urlsplit(mirror).path) if "://" in mirror else mirror).expanduser()
        if not (folder / fact.path).is_file():
            raise MissingPart(_where_to_get(found, f"{folder} has no {fact.path}"))
        shutil.copyfile(folder / fact.path, partial)
        if progress:
            progress(fact.path, fact.bytes, fact.bytes)
    else:
        raise InputError(f"cannot pull from {mirror!r}: expected a folder, file://, http:// or https://")
    if digest(partial) != fact.sha256:
        size = partial.stat().st_size
        partial.unlink()
        raise InputError(
            f"{fact.path} from {mirror} is not the published file ({size} bytes, expected {fact.bytes}; SHA-256 differs): "
            "it was thrown away; use another mirror"
        )
    partial.replace(path)


def _download(url: str, partial: Path, fact: FileFact, found: DataSet, progress: Progress | None) -> None:
    """Get `url` into `partial`, going on where an earlier attempt stopped if the server allows it."""
    have = partial.stat().st_size if partial.exists() else 0
    if have >= fact.bytes:
        partial.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            # a server without ranges answers 200 with the whole file: then start over
            resumed = answer.status == HTTPStatus.PARTIAL_CONTENT
            done = have if resumed else 0
            with partial.open("ab" if resumed else "wb") as handle:
                while piece := answer.read(_CHUNK):
                    handle.write(piece)
                    done += len(piece)
                    if progress:
                        progress(fact.path, done, fact.bytes)
    except urllib.error.HTTPError as error:
        raise MissingPart(_where_to_get(found, f"{url} answered {error.code} {error.reason}")) from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise MissingPart(_where_to_get(found, f"{url} cannot be reached ({error})")) from error
    if done < fact.bytes:
        raise RunError(f"{url} ended after {done} of {fact.bytes} bytes; what came is kept, pull again to go on from there")
