"""What a wheel must carry beside the code."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_data_file_of_the_package_is_packaged():
    """Templates, scripts, tables and weights are of kinds that pyproject.toml lists as package data."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["naica"]
    package = ROOT / "src" / "naica"
    carried = {path for pattern in patterns for path in package.glob(pattern)}
    present = {p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert sorted(str(p.relative_to(package)) for p in present - carried) == []


def test_vendored_code_carries_its_licence():
    static = ROOT / "src" / "naica" / "app" / "static"
    assert "BSD-3-Clause" in (static / "3Dmol-LICENSE.txt").read_text()
    assert "3Dmol" in (static / "3Dmol-min.js").read_text(encoding="utf-8")
