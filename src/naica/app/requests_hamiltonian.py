"""What can be asked about Hamiltonians."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MakeRequest:
    """Make a set: a named one (`what` is its name), or of structure files with a source; into `out` (default: the user's cache)."""

    what: tuple[str, ...]
    out: Path | None = None
    source: str = "cp2k"
    settings: Mapping[str, Any] = field(default_factory=dict)
    most: int | None = None
    workers: int | None = None
    retries: int = 1
    seconds: float = 3600.0
    engine: str = "pool"


@dataclass(frozen=True)
class NoiseRequest:
    """Compute some structures of a set again where nothing should change, to know the noise of its labels."""

    source: str
    most: int = 4
    workers: int | None = None


@dataclass(frozen=True)
class TrainHamiltonianRequest:
    """Train on a set (a folder or a name), into `out`; a share `test` of its structures is held out, and names like `larger` set apart."""

    source: str
    out: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: Path | None = None
    most: int | None = None
    test: float = 0.2
    larger: str = ""
    by_formula: bool = False


@dataclass(frozen=True)
class EvaluateHamiltonianRequest:
    """Errors of a model on the structures of a set; only those whose names match a pattern, only so many.

    `part` is ``all``, or a part of the split in the model's card: ``train``, ``test``, ``larger``.
    """

    model: Path
    source: str
    match: str = "*"
    most: int | None = None
    bands: bool = True
    part: str = "all"


@dataclass(frozen=True)
class ImportRequest:
    """Read matrices that another code wrote (files and folders) into a set at `out`."""

    paths: tuple[Path, ...]
    out: Path
    reader: str | None = None
    check: bool = True


@dataclass(frozen=True)
class InfoRequest:
    """What a set holds, and whether it passes the tests of every import."""

    source: str


@dataclass(frozen=True)
class BandsRequest:
    """Bands of a structure file by a model, or of a set's structure as its code had them."""

    file: str
    model: Path | None = None
    path: str | None = None
    points: int = 120
    states: int | None = None
    around: float | None = None
    density: bool = True
    window: float = 8.0
    out: Path | None = None
    supercell: tuple[int, int, int] = (1, 1, 1)
