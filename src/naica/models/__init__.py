"""Architectures, one file each: a paper, an equation, a `Config`, `forward(batch)` → features by level.

A plug-in names its class under the entry point group ``naica.models`` and is then treated the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from naica.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

_BUILT_IN = {
    "ace": "naica.models.ace:ACE",
    "amdnet": "naica.models.amdnet:AMDNet",
    "cgcnn": "naica.models.cgcnn:CGCNN",
    "icgcnn": "naica.models.icgcnn:ICGCNN",
    "ogcnn": "naica.models.ogcnn:OGCNN",
    "fingerprint": "naica.models.fingerprint:Fingerprint",
    "weave": "naica.models.weave:Weave",
    "mpnn": "naica.models.mpnn:MPNN",
    "gnome": "naica.models.gnome:GNoME",
    "megnet": "naica.models.megnet:MEGNet",
    "schnet": "naica.models.schnet:SchNet",
    "mace": "naica.models.mace:MACE",
    "nequip": "naica.models.nequip:NequIP",
    "painn": "naica.models.painn:PaiNN",
    "m3gnet": "naica.models.m3gnet:M3GNet",
    "chgnet": "naica.models.chgnet:CHGNet",
    "orbnet": "naica.models.orbnet:OrbNet",
    "orbital-graph": "naica.models.orbital_graph:OrbitalGraph",
    "gnome-composition": "naica.models.gnome:GNoMEComposition",
    "selenite": "naica.models.selenite:Selenite",
}


@cache
def _known() -> dict[str, str]:
    return {**{point.name: point.value for point in entry_points(group="naica.models")}, **_BUILT_IN}


ARCHITECTURES: Mapping[str, str] = _known()

BLOCK_ARCHITECTURES: Mapping[str, str] = {
    "deeph": "naica.models.deeph:DeepH",
    "deeph-e3": "naica.models.deeph_e3:DeepHE3",
    "deeph2": "naica.models.deeph2:DeepH2",
    "schnorb": "naica.models.schnorb:SchNOrb",
}
"""Networks that give tensors of atoms and of pairs for the blocks of a Hamiltonian; they are no property networks."""


def architecture(name: str) -> type[nn.Module]:
    """The class of an architecture.

    Raises
    ------
    ConfigError
        If there is no such architecture; the message proposes near names.
    """
    known = {**ARCHITECTURES, **BLOCK_ARCHITECTURES}
    if name not in known:
        near = get_close_matches(name, known, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"unknown architecture {name!r}; {hint}")
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)


def config_of(name: str) -> type[Any]:
    """The `Config` dataclass of an architecture."""
    return architecture(name).Config  # type: ignore[attr-defined]


def backbone(name: str, **config: Any) -> nn.Module:
    """An untrained backbone; `config` are the fields of its `Config`.

    Raises
    ------
    ConfigError
        If the architecture or a field is unknown, or a value out of range.
    """
    kind = config_of(name)
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(config) - set(known))
    if unknown:
        near = get_close_matches(unknown[0], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
        raise ConfigError(f"{name} has no setting {unknown[0]!r}; {hint}")
    return architecture(name)(kind(**config))
