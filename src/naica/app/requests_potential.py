"""What a user can ask about potentials, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FramesRequest:
    """Labelled frames: files, sets (``SET`` or ``SET:PART``), ``@LEVEL`` behind each; `level` for all; `names` of unusual columns.

    `fidelity`: several levels of theory are allowed.
    """

    sources: tuple[str, ...]
    level: str | None = None
    fidelity: bool = False
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FitRequest:
    """Fit a potential; `config` is a TOML file, `settings` go over it. `start`: a potential to go on from; `replay`: its old frames."""

    frames: FramesRequest
    out: Path
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    replay: str | None = None
    resume: bool = True


@dataclass(frozen=True)
class JudgeRequest:
    """Measure a potential on labelled frames, of a part of a published split if one is named; pictures where asked for."""

    model: str
    frames: FramesRequest
    part: str | None = None
    plot: Path | None = None
    calibration: Path | None = None


@dataclass(frozen=True)
class SampleRequest:
    """Choose frames that cover the others: `n` clusters, `per_cluster` of each; features of `model`, or of compositions."""

    frames: FramesRequest
    out: Path
    n: int | None = None
    per_cluster: int = 1
    threshold: float = 0.5
    model: str | None = None


@dataclass(frozen=True)
class LearnRequest:
    """Active learning: from some frames and an oracle to a potential that keeps its promise."""

    start: FramesRequest
    out: Path
    oracle: str
    target_error: float
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = True


@dataclass(frozen=True)
class BakeRequest:
    """Tabulate the functions of distance of the potential `model`, its error measured on `files`, into the folder `out`."""

    model: Path
    files: tuple[Path, ...]
    out: Path
    tolerance: float = 1e-4
