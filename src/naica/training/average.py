"""A running mean of the weights: what is evaluated and kept (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RunningMean:
    """Exponential mean of all real weights and buffers of a model; early steps count more, so that a short run is not held back.

    Parameters
    ----------
    model : whose weights are followed
    decay : per step; 0 follows the last weights
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.live = model.state_dict()
        self.mean = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        self._real = [name for name, tensor in self.live.items() if tensor.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """After an optimiser step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.decay else 0.0
        torch._foreach_lerp_([self.mean[n] for n in self._real], [self.live[n] for n in self._real], 1.0 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the mean weights, for the length of a block."""
        kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.mean)
        try:
            yield
        finally:
            model.load_state_dict(kept)

    def state(self) -> dict[str, Tensor]:
        """A copy of the mean."""
        return {name: tensor.clone() for name, tensor in self.mean.items()}

    def restore(self, mean: dict[str, Tensor], steps: int) -> None:
        """Back to a state taken by `state`."""
        self.steps = steps
        for name, tensor in mean.items():
            self.mean[name].copy_(tensor)
