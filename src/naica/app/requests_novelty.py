"""Requests about what is new and what is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class NoveltyRequest:
    """Compare structures with what is known.

    `against`: tables (registered sets or Parquet files); `formulas`: CSV files of compositions without structures; `depth`: compare within
    one symmetry label, or with every known structure of the formula; `disorder`: test for disordered sublattices.
    """

    files: tuple[Path, ...]
    against: tuple[str, ...] = ()
    formulas: tuple[Path, ...] = ()
    depth: Literal["label", "formula"] = "formula"
    disorder: bool = True


@dataclass(frozen=True)
class PolymorphsRequest:
    """Cluster structures of equal formula; `cut` is the largest displacement within a cluster, in units of (V/N)^(1/3)."""

    files: tuple[Path, ...]
    cut: float = 0.3
    most: int = 100
