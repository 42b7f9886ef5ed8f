"""Readers of matrices that other codes wrote. Each says what it recognises and gives blocks in naica's convention; none permutes by itself.

A reader is a module with ``recognises(path) -> bool`` and ``read(path) -> list[OrbitalMatrices]``. Plug-ins come by the entry point group
``naica.hamiltonian.readers``. Everything read is tested before it is believed (`naica.hamiltonian.checks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from naica.errors import ConfigError, InputError
from naica.hamiltonian import checks
from naica.hamiltonian.matrices import OrbitalMatrices

READERS: Mapping[str, str] = {
    "deeph": "naica.hamiltonian.readers.deeph",
    "deeph-dock": "naica.hamiltonian.readers.deeph_dock",
    "openmx": "naica.hamiltonian.readers.openmx",
    "abacus": "naica.hamiltonian.readers.abacus",
    "fhi-aims": "naica.hamiltonian.readers.fhi_aims",
    "siesta": "naica.hamiltonian.readers.siesta",
    "wannier90": "naica.hamiltonian.readers.wannier90",
    "arrays": "naica.hamiltonian.readers.arrays",
}
# codes that integrate overlaps on grids: the bond test finds their grid's error
_BOND_LIMIT: Mapping[str, float] = {"siesta": 1e-3, "arrays": 1e-3, "fhi-aims": 5e-3}


def reader(name: str) -> ModuleType:
    """A reader by name (ConfigError if there is none)."""
    known = {**{p.name: p.value for p in entry_points(group="naica.hamiltonian.readers")}, **READERS}
    if name not in known:
        raise ConfigError(f"unknown reader {name!r}; known: {', '.join(known)}")
    return import_module(known[name])


def read(path: str | Path, name: str | None = None, check: bool = True) -> list[OrbitalMatrices]:
    """All structures of a file or folder.

    Parameters
    ----------
    name : of the reader; None: the first that recognises the path
    check : refuse matrices that fail a test; False takes them as they are

    Raises
    ------
    InputError
        If nothing recognises the path, the file is damaged or half-written, or a test fails.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(f"no such file or folder: {place}")
    chosen = name or next((n for n in READERS if reader(n).recognises(place)), None)
    if chosen is None:
        raise InputError(f"{place}: no reader recognises it; name one of {', '.join(READERS)} (--reader)")
    found: list[OrbitalMatrices] = reader(chosen).read(place)
    if not found:
        raise InputError(f"{place} holds no structures")
    if check:
        for k, one in enumerate(found):
            checks.accept(one, f"{place}, structure {k}", bond_limit=_BOND_LIMIT.get(chosen, 1e-5))
    return found
