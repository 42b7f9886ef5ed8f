"""Networks of a distance as tables of cubic pieces, for potentials that no longer learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from naica.nn.edge_product import Tabled

# the functions are even in the distance or finite at 0; there they are taken this far beside it, in steps
_BESIDE = 1e-4


class Tables(nn.Module):
    """Values and slopes at equally spaced nodes from 0 to the cut-off.

    Parameters
    ----------
    functions : lengths (n) in 64 bits → weights of several products, each (n, paths, K), zero from the cut-off on
    cutoff : Å
    pieces : between 0 and the cut-off
    """

    def __init__(self, functions: Callable[[Tensor], list[Tensor]], cutoff: float, pieces: int) -> None:
        super().__init__()
        self.step = cutoff / pieces
        nodes = torch.arange(pieces + 1, dtype=torch.float64) * self.step
        nodes[0] = _BESIDE * self.step
        told: tuple[Any, ...] = torch.func.jvp(lambda d: tuple(functions(d)), (nodes,), (torch.ones_like(nodes),))
        values, slopes = told
        self.count = len(values)
        for k, (value, slope) in enumerate(zip(values, slopes, strict=True)):
            self.register_buffer(f"table_{k}", torch.stack([value, slope * self.step], dim=1).detach().contiguous())

    def forward(self, length: Tensor) -> list[Tabled]:
        """Lengths (E) → weights of each product."""
        return [Tabled(self.get_buffer(f"table_{k}"), self.step, length) for k in range(self.count)]
