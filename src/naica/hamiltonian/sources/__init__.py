"""Codes that make matrices: each a function from a structure to `OrbitalMatrices`, named in ``SOURCES``.

A source is ``make(crystal, settings) -> OrbitalMatrices``; it raises `RunError` for a run that did not converge, `MissingPart` where the
code is not installed. Plug-ins come by the entry point group ``naica.hamiltonian.sources``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from naica.errors import ConfigError
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.structure import Crystal

Source = Callable[[Crystal, Mapping[str, Any]], OrbitalMatrices]

SOURCES: Mapping[str, str] = {
    "cp2k": "naica.hamiltonian.sources.cp2k:make",
    "pyscf": "naica.hamiltonian.sources.pyscf:make",
    "tblite": "naica.hamiltonian.sources.tblite:make",
    "slater-koster": "naica.hamiltonian.sources.slater_koster:make",
}


def superposed(crystal: Crystal, told: Mapping[str, Any]) -> OrbitalMatrices:
    """S and H0 of a new structure as a set was made: `told` is the `info` of its matrices, source and settings.

    Raises
    ------
    ConfigError
        If the source makes no H0 (it is named in the message).
    MissingPart
        If its code is not installed.
    """
    name = str(told.get("source", ""))
    module = import_module(SOURCES[name].partition(":")[0]) if name in SOURCES else None
    if module is None or not hasattr(module, "superposed"):
        raise ConfigError(f"the source {name or 'of this model'} makes no H0 of superposed atoms; train a model without on_h0")
    found: OrbitalMatrices = module.superposed(crystal, {k: v for k, v in told.items() if k in module.DEFAULTS})
    return found


def with_patience(name: str, settings: Mapping[str, Any], tries: int) -> dict[str, Any]:
    """Settings of a source after some failed tries: half the mixing of densities and half as many steps more with each.

    Sources without such settings are given theirs unchanged.
    """
    told = dict(settings)
    module = import_module(SOURCES[name].partition(":")[0]) if name in SOURCES and tries else None
    known = getattr(module, "DEFAULTS", {})
    if "mixing" in known:
        told["mixing"] = float(told.get("mixing", known["mixing"])) * 0.5**tries
    if "steps" in known:
        told["steps"] = int(told.get("steps", known["steps"]) * 1.5**tries)
    return told


def source(name: str) -> Source:
    """A source by name (ConfigError if there is none)."""
    known = {**{point.name: point.value for point in entry_points(group="naica.hamiltonian.sources")}, **SOURCES}
    if name not in known:
        raise ConfigError(f"unknown source {name!r}; known: {', '.join(known)}")
    module, _, attribute = known[name].partition(":")
    found: Source = getattr(import_module(module), attribute)
    return found
