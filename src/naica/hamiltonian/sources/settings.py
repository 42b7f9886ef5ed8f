"""Settings of sources: plain values with defaults, refused where a name or a type is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from naica.errors import ConfigError


def checked(settings: Mapping[str, Any], defaults: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The defaults with the settings over them.

    Raises
    ------
    ConfigError
        For names that the source does not have, and values of another type.
    """
    for name, value in settings.items():
        if name not in defaults:
            near = get_close_matches(name, defaults, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(defaults)}"
            raise ConfigError(f"the source {source} has no setting {name!r}; {hint}")
        wanted = type(defaults[name])
        if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
            raise ConfigError(f"{name} = {value!r} of the source {source}; expected {wanted.__name__}")
    return {**defaults, **settings}
