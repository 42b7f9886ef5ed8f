"""What a user can ask about networks against each other, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ZooRequest:
    """Compare `models` (none: all) on `sets` (tasks or sets; none: all tasks on crystals) with so many seeds and CPU minutes per run."""

    sets: tuple[str, ...]
    models: tuple[str, ...]
    minutes: float
    seeds: int
    out: Path
    rows: int | None = None
    jobs: int = 1
    retry: bool = False


@dataclass(frozen=True)
class ZooReportRequest:
    """Report the comparison in `out`; `ship` writes the measured table there, ``package`` into the package."""

    out: Path
    ship: Path | None = None


@dataclass(frozen=True)
class RecommendRequest:
    """Which network for the labels in `source` (or for `rows` rows of `target`), from the measured table."""

    source: str | None = None
    column: str | None = None
    rows: int | None = None
    kind: str = "crystal"
    target: str | None = None
    config: Path | None = None
    table: Path | None = None
