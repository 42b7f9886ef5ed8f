"""naica: learn properties, potentials and Hamiltonians from structure, and discover new stable materials.

The names below are the public verbs and nouns. Each is loaded from its home when first used, so `import naica` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from naica.data import CrystalTable as CrystalTable
    from naica.discover.campaign import Campaign as Campaign
    from naica.discover.hull import Hull as Hull
    from naica.graphs import graph as graph
    from naica.potential.check import check as check
    from naica.potential.relax import relax as relax
    from naica.potential.saved import load as load
    from naica.potential.simulate import md as md
    from naica.structure import Crystal as Crystal
    from naica.structure.io import read as read
    from naica.structure.io import write as write
    from naica.training import build as build
    from naica.training import predict as predict
    from naica.training import train as train

    __version__: str

_HOMES = {
    "read": "naica.structure.io",
    "write": "naica.structure.io",
    "Crystal": "naica.structure",
    "CrystalTable": "naica.data",
    "graph": "naica.graphs",
    "build": "naica.training",
    "train": "naica.training",
    "load": "naica.potential.saved",
    "predict": "naica.training",
    "check": "naica.potential.check",
    "relax": "naica.potential.relax",
    "md": "naica.potential.simulate",
    "Hull": "naica.discover.hull",
    "Campaign": "naica.discover.campaign",
}

__all__ = [  # noqa: RUF022  the order of the work, not of the alphabet
    "read",
    "write",
    "Crystal",
    "CrystalTable",
    "graph",
    "build",
    "train",
    "load",
    "predict",
    "relax",
    "md",
    "Hull",
    "Campaign",
    "check",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home; later look-ups find it in the module itself."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("naica")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'naica' has no attribute {name!r}; public names: {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
