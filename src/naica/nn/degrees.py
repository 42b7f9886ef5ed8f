"""Layers for features of every degree and both parities, (n, (L + 1)², 2, C): see `naica.nn.so2` for the layout."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def degree_of(degree: int) -> Tensor:
    """((degree + 1)²) the degree of each component."""
    return torch.repeat_interleave(torch.arange(degree + 1), torch.tensor([2 * one + 1 for one in range(degree + 1)]))


class Gate(nn.Module):
    """Scalars through a SiLU, everything else times sigmoids of scalars; (n, (L + 1)², 2, C) → the same."""

    degree_of: Tensor

    def __init__(self, degree: int, channels: int) -> None:
        super().__init__()
        self.degree, self.channels = degree, channels
        self.gates = nn.Linear(channels, 2 * (degree + 1) * channels)
        self.register_buffer("degree_of", degree_of(degree), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, (L + 1)², 2, C) → the same shape."""
        scalars = x[:, 0, 0]
        gates = torch.sigmoid(self.gates(scalars)).view(len(x), self.degree + 1, 2, self.channels)
        gated = x * gates[:, self.degree_of]
        first = torch.cat([torch.nn.functional.silu(scalars)[:, None, None], gated[:, :1, 1:]], dim=2)
        return torch.cat([first, gated[:, 1:]], dim=1)


class DegreeNorm(nn.Module):
    """Each degree and parity divided by its root mean square over components and channels, times a learned factor."""

    def __init__(self, degree: int, channels: int) -> None:
        super().__init__()
        self.degree = degree
        self.scale = nn.Parameter(torch.ones(degree + 1, 2, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, (L + 1)², 2, C) → the same shape."""
        parts = []
        for degree in range(self.degree + 1):
            own = x[:, degree**2 : (degree + 1) ** 2]
            size = own.square().mean(dim=(1, 3), keepdim=True)
            parts.append(own * torch.rsqrt(size + 1e-4) * self.scale[degree])
        return torch.cat(parts, dim=1)


class DegreeLinear(nn.Module):
    """One matrix per degree and parity; a bias on ordinary scalars."""

    degree_of: Tensor

    def __init__(self, degree: int, inputs: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(inputs**-0.5 * torch.randn(degree + 1, 2, inputs, out))
        self.bias = nn.Parameter(torch.zeros(out))
        self.register_buffer("degree_of", degree_of(degree), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, (L + 1)², 2, inputs) → (n, (L + 1)², 2, out)."""
        n, components = x.shape[:2]
        weight = self.weight[self.degree_of].reshape(2 * components, x.shape[3], -1)
        y = torch.bmm(x.reshape(n, 2 * components, -1).transpose(0, 1), weight).transpose(0, 1).reshape(n, components, 2, -1)
        bias = y.new_zeros(components, 2, y.shape[3])
        bias[0, 0] = 1.0
        return y + bias * self.bias
