"""The learning rate as a function of how much of the run is done."""

from __future__ import annotations

import math

_LOWEST = 1e-3
_START = 0.04
_SHORT_WARM_UP = 0.02


def rate(fraction: float, schedule: str, warm_up: float) -> float:
    """Learning rate relative to its highest value at a share `fraction` (0 to 1) of the run.

    ``one-cycle``: from 0.04 up by a cosine over `warm_up`, then down by a cosine to 0.001 (Smith & Topin, arXiv:1708.07120).
    ``cosine``: the same with a warm-up of 2 %. ``constant``: 1.
    """
    if schedule == "constant":
        return 1.0
    rising = warm_up if schedule == "one-cycle" else _SHORT_WARM_UP
    fraction = min(max(fraction, 0.0), 1.0)
    if fraction < rising:
        return _START + (1 - _START) * 0.5 * (1 - math.cos(math.pi * fraction / rising))
    falling = (fraction - rising) / (1 - rising) if rising < 1 else 1.0
    return _LOWEST + (1 - _LOWEST) * 0.5 * (1 + math.cos(math.pi * falling))
