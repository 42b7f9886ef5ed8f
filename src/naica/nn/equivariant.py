"""Layers on features of several degrees, each (N, 2l + 1, C): linear maps of channels, the same for all atoms or by element; the gate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError, InputError
from naica.nn.atoms import N_ELEMENTS
from naica.structure.elements import element, symbol


class ElementRows(nn.Module):
    """Which row of a table an element has.

    Parameters
    ----------
    elements : symbols, a row each; empty for all 103
    """

    row_of: Tensor

    def __init__(self, elements: Sequence[str]) -> None:
        super().__init__()
        numbers = [element(name).number for name in elements] or list(range(1, N_ELEMENTS))
        if len(set(numbers)) != len(numbers):
            raise ConfigError(f"elements {', '.join(elements)}; expected each once")
        rows = torch.full((N_ELEMENTS,), -1)
        rows[numbers] = torch.arange(len(numbers))
        self.register_buffer("row_of", rows, persistent=False)
        self.numbers = tuple(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def forward(self, number: Tensor) -> Tensor:
        """Atomic numbers (N) → rows (N).

        Raises
        ------
        InputError
            If an element has none; the message names those.
        """
        rows = torch.index_select(self.row_of, 0, number)
        # an exported program can not refuse: it says beside itself what elements it is for
        if not torch.compiler.is_compiling() and len(rows) and int(rows.min()) < 0:
            unknown = sorted({int(z) for z in number[rows < 0]})
            known = ", ".join(symbol(z) for z in self.numbers[:20]) + (" …" if len(self) > 20 else "")
            raise InputError(f"the network does not know {', '.join(symbol(z) for z in unknown)}; it was made for {known}")
        return rows


class Kinds:
    """Atoms by element.

    Parameters
    ----------
    rows : (N) row of each atom's element
    elements : how many rows there are; in an exported program, where nothing may depend on what occurs, all of them count as present

    Attributes
    ----------
    present, place : rows that occur, and where in `present` each atom's is
    """

    def __init__(self, rows: Tensor, elements: int = 0) -> None:
        self.rows, self.traced = rows, torch.compiler.is_compiling()
        if self.traced:
            self.present, self.place, self.alone, self.members = torch.arange(elements, device=rows.device), rows, None, {}
            return
        self.present, self.place = torch.unique(rows, return_inverse=True)
        present = self.present.tolist()
        self.alone = present[0] if len(present) == 1 else None
        self.members = {} if self.alone is not None else {int(z): (rows == z).nonzero()[:, 0] for z in present}

    def mixed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Features (N, M, C) times a matrix for each element (elements, C, C') → (N, M, C')."""
        if self.alone is not None:
            return mapped(x, weight[self.alone])
        if self.traced:
            return torch.bmm(x, torch.index_select(weight, 0, self.rows))
        found = x.new_zeros(*x.shape[:2], weight.shape[2])
        for z, members in self.members.items():
            found = found.index_copy(0, members, mapped(torch.index_select(x, 0, members), weight[z]))
        return found


class Mix(nn.Module):
    """A linear map of channels for one degree and parity; the weight is of variance 1, and what comes out too.

    Parameters
    ----------
    inputs, out : channels
    """

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.scale = inputs**-0.5
        self.weight = nn.Parameter(torch.randn(inputs, out))

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) → (…, out)."""
        return mapped(x, self.weight if self.scale == 1.0 else self.weight * self.scale)

    def fold(self) -> None:
        """Take the factor into the weight, for good: the network is to learn no more."""
        self.weight, self.scale = nn.Parameter(self.weight.detach() * self.scale, requires_grad=False), 1.0


def mapped(x: Tensor, weight: Tensor) -> Tensor:
    """(…, C) times (C, C') as one product of two matrices, forward and backward."""
    return torch.mm(x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[1])


def gain(activation: str) -> float:
    """What an activation (silu, tanh, sigmoid) is multiplied by so that normal numbers of variance 1 have mean square 1 after it."""
    return _gain(activation)


@cache
def _gain(activation: str) -> float:
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    values = {"silu": points / (1 + np.exp(-points)), "tanh": np.tanh(points), "sigmoid": 1 / (1 + np.exp(-points))}[activation]
    return float((weights @ values**2 / weights.sum()) ** -0.5)


class RadialNetwork(nn.Module):
    """Functions of the distance (E, B) → weights (E, out): linear maps without biases, so that all is zero at the cut-off; silu between.

    Parameters
    ----------
    widths : of the input, the hidden layers, the result
    first, later : what the first layer and the others are multiplied by, times inputs^−½
    normed : whether a silu is normalised (`gain`)
    """

    def __init__(self, widths: Sequence[int], first: float = 1.0, later: float = 1.0, normed: bool = True) -> None:
        super().__init__()
        self.layers = nn.ParameterList(nn.Parameter(torch.randn(a, b)) for a, b in pairwise(widths))
        self.scales = [(later if k else first) * a**-0.5 for k, a in enumerate(widths[:-1])]
        self.gain = gain("silu") if normed else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """(E, inputs) → (E, out)."""
        for k, (weight, scale) in enumerate(zip(self.layers, self.scales, strict=True)):
            # the gain goes to the weights of the next layer, which are fewer than the numbers at the edges
            x = x @ (weight * (scale * (self.gain if k else 1.0)))
            if k < len(self.layers) - 1:
                x = F.silu(x)
        return x
