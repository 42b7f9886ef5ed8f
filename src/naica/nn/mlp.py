"""Two-layer networks with a swish whose slope is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# keeps the second moment of a swish of normal numbers at about one
_SWISH_GAIN = 2.75**0.5


class Swish(nn.Module):
    """``x · σ(β x)`` with one β per feature, learned, 1 at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        return x * torch.sigmoid(self.beta * x)


def init_hidden(layer: nn.Module) -> None:
    """Orthogonal weights with the swish's gain, biases zero."""
    nn.init.orthogonal_(layer.weight, gain=_SWISH_GAIN)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def init_last(layer: nn.Linear) -> None:
    """Normal weights of variance 1 / inputs, biases zero."""
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    nn.init.zeros_(layer.bias)


class SwishNetwork(nn.Module):
    """Linear → swish → linear, or with `last=False` only the first two."""

    def __init__(self, inputs: int, width: int, last: bool = True) -> None:
        super().__init__()
        first = nn.Linear(inputs, width)
        init_hidden(first)
        layers: list[nn.Module] = [first, Swish(width)]
        if last:
            layers.append(nn.Linear(width, width))
            init_last(layers[-1])  # type: ignore[arg-type]
        self.network = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) → (…, width)."""
        return self.network(x)
