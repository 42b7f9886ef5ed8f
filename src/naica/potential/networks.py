"""Which networks can be potentials."""

from __future__ import annotations

from functools import cache

from naica.errors import NaicaError


@cache
def smooth_networks() -> tuple[str, ...]:
    """Names of the architectures whose energy has forces everywhere, with their default settings."""
    from naica.models import ARCHITECTURES, backbone
    from naica.potential.model import check_smooth

    found = []
    for name in ARCHITECTURES:
        try:
            check_smooth(name, backbone(name))
        except (NaicaError, ImportError, TypeError):
            continue
        found.append(name)
    return tuple(found)
