"""What a user can ask of screens, second opinions and the audit of a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ScreenRequest:
    """Run a screen over a table, a registered set, structure files or a campaign; without `name` tell which screens there are, without
    `source` what the screen asks.

    `where`: further conditions. `columns`: column of a quantity. `compute`: most rows that may go through a potential.
    `known`: sets, tables and lists of formulas the rows that stay are compared with. `options`: ``family.key`` → value.
    """

    name: str | None = None
    source: str | None = None
    where: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    compute: int = 0
    known: tuple[str, ...] = ()
    out: Path | None = None


@dataclass(frozen=True)
class OpinionRequest:
    """Ask a second potential about the finds of the campaign in `folder`, and about everything within `reach` eV/atom of the hull."""

    folder: Path
    oracle: str
    reach: float = 0.1
    fmax: float = 0.05
    steps: int = 300


@dataclass(frozen=True)
class AuditRequest:
    """Check the ledger of the campaign in `folder`; `recompute` entries have their energy computed again."""

    folder: Path
    recompute: int = 3
    seed: int = 0
