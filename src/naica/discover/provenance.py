"""What ran: versions of naica and of the packages that decide its numbers."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("naica", "torch", "numpy", "scipy", "ase", "pymatgen-core", "moyopy", "chgnet", "gpaw", "gpaw-data")


def versions() -> dict[str, str]:
    """Versions of the installed packages that matter, and of Python."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
