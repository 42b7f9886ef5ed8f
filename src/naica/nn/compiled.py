"""Small C sources beside the modules that use them, compiled on first use and kept in the user's cache.

Each has a plain version in torch that gives the same numbers: without a compiler, or with ``NAICA_KERNELS=0``, that one runs, only slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

SWITCH = "NAICA_KERNELS"
"""Environment variable; 0 leaves all compiled sources out."""
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
_PATIENCE = 120.0
_reasons: dict[str, str] = {}


@cache
def library(name: str) -> ctypes.CDLL | None:
    """The shared library of ``name.c`` in this package, or None where there can be none; `reason` says why."""
    if os.environ.get(SWITCH, "1").strip().lower() in {"0", "false", "no", "off"}:
        return _note(name, f"off: {SWITCH}=0")
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return _note(name, "off: no C compiler (cc, gcc, clang, or the one named by CC)")
    source = _source(name)
    try:
        folder = _folder()
        key = hashlib.sha256("\0".join((source, compiler, *_FLAGS, _processor())).encode()).hexdigest()[:24]
        path = folder / f"{name}-{key}.so"
        if not path.exists():
            _compile(compiler, source, path)
        found = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        return _note(name, f"off: {error}")
    return _note(name, "on", found)


def _source(name: str) -> str:
    """A source as one text, what it shares with others put in its place: so a change of either compiles it anew."""
    place = files("naica.nn")
    return place.joinpath(f"{name}.c").read_text().replace('#include "vectors.h"', place.joinpath("vectors.h").read_text())


def reason(name: str) -> str:
    """Whether a source is in use: ``on``, or why not."""
    library(name)
    return _reasons[name]


def _note(name: str, why: str, found: ctypes.CDLL | None = None) -> ctypes.CDLL | None:
    _reasons[name] = why
    return found


def _folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "naica" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="naica-kernels-"))
    return folder


@cache
def _processor() -> str:
    """What the code is compiled for: a cache on a shared disk may be read by other machines."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.system()} {platform.machine()} {flags}"


def _compile(compiler: str, source: str, path: Path) -> None:
    """Compile beside the target and move it there, as several processes may do so at once. Threads are left out where OpenMP is missing."""
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        text, made = Path(place) / "source.c", Path(place) / "made.so"
        text.write_text(source)
        for threads in (("-fopenmp",), ()):
            command = [compiler, *_FLAGS, *threads, "-o", str(made), str(text), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
            if done.returncode == 0:
                made.replace(path)
                return
        raise OSError(f"{compiler} failed: {done.stderr.strip()[:500]}")
