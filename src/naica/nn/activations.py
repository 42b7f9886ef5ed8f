"""Activations and layer norms for networks that are trained on forces: twice differentiable, each derivative in one pass over memory.

torch writes the second derivative of a silu as a dozen operations on whole tensors. On a CPU, in 32 bits and on one thread, the compiled
functions of ``gated.c`` take their place; elsewhere torch's own run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from naica.nn.compiled import library

_LANES = 16
# numbers below which a call costs more than it saves
_SMALLEST = 4096


def silu(x: Tensor) -> Tensor:
    """``x σ(x)``."""
    return _Silu.apply(x.contiguous()) if _worth(x) else F.silu(x)


def gate(values: Tensor, gates: Tensor, activated: bool = True) -> Tensor:
    """``φ(a) σ(b)``, φ a silu, or nothing if not `activated`."""
    if _worth(values):
        return _Gate.apply(values.contiguous(), gates.contiguous(), activated)
    return (F.silu(values) if activated else values) * torch.sigmoid(gates)


def normalised(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The layer norm of x (E, C)."""
    if not _worth(x) or x.shape[1] % _LANES:
        return norm(x)
    return torch.addcmul(norm.bias, _Normalise.apply(x.contiguous()), norm.weight)


def _worth(x: Tensor) -> bool:
    there = x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() >= _SMALLEST and not torch.compiler.is_compiling()
    return there and torch.is_grad_enabled() and x.requires_grad and torch.get_num_threads() == 1 and library("gated") is not None


def _run(name: str, numbers: Sequence[int], tensors: Sequence[Tensor]) -> None:
    function = getattr(library("gated"), name)
    function.restype = None
    function(*(ctypes.c_int64(n) for n in numbers), *(ctypes.c_void_p(t.data_ptr()) for t in tensors))


class _Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        _run("silu_forward", [x.numel()], [x, y])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SiluSlope.apply(*ctx.saved_tensors, gradients[0].contiguous())


class _SiluSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(x, g)
        out = torch.empty_like(x)
        _run("silu_slope", [x.numel()], [x, g, out])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, g = ctx.saved_tensors
        found = torch.empty_like(x), torch.empty_like(x)
        _run("silu_curve", [x.numel()], [x, g, gradients[0].contiguous(), *found])
        return found


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, activated: bool) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.activated = activated
        y = torch.empty_like(a)
        _run("gate_forward", [a.numel(), activated], [a, b, y])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *_GateSlope.apply(*ctx.saved_tensors, gradients[0].contiguous(), ctx.activated), None


class _GateSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, g: Tensor, activated: bool) -> tuple[Tensor, ...]:
        ctx.save_for_backward(a, b, g)
        ctx.activated = activated
        found = torch.empty_like(a), torch.empty_like(a)
        _run("gate_slope", [a.numel(), activated], [a, b, g, *found])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, b, g = ctx.saved_tensors
        found = tuple(torch.empty_like(a) for _ in range(3))
        _run("gate_curve", [a.numel(), ctx.activated], [a, b, g, *(v.contiguous() for v in gradients), *found])
        return *found, None


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, inverse = torch.empty_like(x), x.new_empty(len(x))
        _run("normalise_forward", x.shape, [x, y, inverse])
        ctx.save_for_backward(x, y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, y, inverse = ctx.saved_tensors
        return _NormaliseSlope.apply(x, y.detach(), inverse, gradients[0].contiguous())


class _NormaliseSlope(torch.autograd.Function):
    """Depends on x by y and the deviation, whose derivatives it takes itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, inverse: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(y, inverse, g)
        out = torch.empty_like(g)
        _run("normalise_slope", y.shape, [y, inverse, g, out])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, inverse, g = ctx.saved_tensors
        by_x, by_g = torch.empty_like(g), torch.empty_like(g)
        _run("normalise_curve", y.shape, [y, inverse, g, gradients[0].contiguous(), by_x, by_g])
        return by_x, None, None, by_g
