"""What a user can ask about networks against each other, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ZooRequest:
    """Compare `models` (none: all) on `sets` (tasks or sets; none: all tasks on crystals) with so many seeds and CPU minutes per run.

    `first_seed` is the first of the seeds.
    """

    sets: tuple[str, ...]
    models: tuple[str, ...]
    minutes: float
    seeds: int
    out: Path
    rows: int | None = None
    jobs: int = 1
    retry: bool = False
    first_seed: int = 0


@dataclass(frozen=True)
class ZooReportRequest:
    """Report the comparison in `out`; `ship` writes the measured table there, ``package`` into the package.

    `join` is a table measured before, whose tasks and seeds come in as well; ``package`` is the shipped one.
    """

    out: Path
    ship: Path | None = None
    join: Path | None = None


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
