"""Distances as smooth vectors."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.nn.bessel import envelope

# Far tails are cut at e^-60 = 1e-26: below e^-87 numbers are denormal in f32, and those cost eight times as much to compute
_SMALLEST = -60.0


class Gaussians(nn.Module):
    """``exp(−(d − μ)² / w²)`` on equally spaced centres μ (no factor ½ in the exponent).

    Parameters
    ----------
    start, stop : first and last centre, Å
    number : how many centres, both ends included
    width : w in Å; default: the spacing of the centres
    """

    centres: Tensor

    def __init__(self, start: float, stop: float, number: int, width: float | None = None) -> None:
        super().__init__()
        if number < 2 or stop <= start:
            raise ConfigError(f"{number} Gaussians from {start} to {stop} Å; expected at least 2 and a growing range")
        self.width = float(width) if width is not None else (stop - start) / (number - 1)
        # linspace, because counting up by the step may miss the last centre
        self.register_buffer("centres", torch.linspace(start, stop, number, dtype=torch.float64).float(), persistent=False)

    def __len__(self) -> int:
        return len(self.centres)

    def forward(self, length: Tensor) -> Tensor:
        """Lengths (E) in Å → (E, number)."""
        difference = (length[:, None] - self.centres.to(length.dtype)) / self.width
        return torch.exp(torch.clamp(-difference * difference, min=_SMALLEST))


def bessel_functions(length: Tensor, number: int, cutoff: float, power: int) -> Tensor:
    """``sin(nπd / r_c) / d`` times an `envelope`, n = 1 … `number`: lengths (E) in Å → (E, number)."""
    waves = torch.arange(1, number + 1, dtype=length.dtype, device=length.device) * (pi / cutoff)
    return torch.sin(length[:, None] * waves) * (envelope(length, cutoff, power) / length)[:, None]
