"""Where the numbers are crunched. Asked for and not there is an error, never a silent fall-back."""

from __future__ import annotations

import os

import torch

from naica.errors import ConfigError, MissingPart

ENVIRONMENT = "NAICA_DEVICE"
"""Environment variable that names the default device."""


def device_of(name: str | None = None) -> torch.device:
    """The device called `name`; None takes NAICA_DEVICE, and the CPU where that is not set.

    Raises
    ------
    ConfigError
        If the name is no device.
    MissingPart
        If that device is not on this machine (or this torch cannot drive it).
    """
    asked = name or os.environ.get(ENVIRONMENT) or "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise ConfigError(f"device {asked!r} is unknown; expected cpu, cuda or cuda:0") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if device.type not in available:
        raise ConfigError(f"device {asked!r} is not supported; expected cpu, cuda or mps")
    if not available[device.type]:
        raise MissingPart(
            f"device {asked!r} was asked for ({ENVIRONMENT} or device=), but torch {torch.__version__} finds none here; "
            "install a torch build for it, or ask for cpu"
        )
    return device
