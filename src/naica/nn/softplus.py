"""``ln(1 + eˣ)`` in a fraction of the time: on a CPU half of a graph network's time goes into it.

Compiled (``passes.c``) it is one pass over memory, ``max(x, 0) + ln(1 + e^(−|x|))``, and its derivative another, ``1 − e^(−y)`` from the
result y alone. Without a compiler: ``ln 2 · log₂(1 + 2^(x / ln 2))`` with numpy's vector code for powers and logarithms of two, and the
derivative ``1 − 1 / (1 + eˣ)`` from what is kept of it. The absolute error of both is that of 32-bit sums, 3e-7, as torch's own.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from naica.nn import passes

_LN2 = log(2.0)
# beyond this eˣ leaves the range of 32-bit numbers
_LARGEST = 80.0
# below this the calls cost more than they save
_SMALLEST_SIZE = 4096


def softplus(x: Tensor, twice: bool = False) -> Tensor:
    """``ln(1 + eˣ)`` of 32-bit numbers on a CPU; torch's own for others.

    Parameters
    ----------
    twice : whether the result must be differentiable more than once (forces that are trained on)
    """
    plain = x.dtype != torch.float32 or x.device.type != "cpu" or x.numel() < _SMALLEST_SIZE or torch.compiler.is_compiling()
    if plain or twice:
        return F.softplus(x)
    if passes.compiled(x):
        return _Compiled.apply(x) if torch.is_grad_enabled() and x.requires_grad else passes.softplus_forward(x)
    if not float(x.detach().max()) < _LARGEST:
        return F.softplus(x)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Softplus.apply(x)
    y = _one_and_power(x.detach())
    return _logarithm(y, y)


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = passes.softplus_forward(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return passes.softplus_backward(ctx.saved_tensors[0], gradients[0])


def _one_and_power(x: Tensor) -> Tensor:
    y = torch.mul(x, 1 / _LN2)
    raw = y.numpy()
    np.exp2(raw, out=raw)
    return y.add_(1)


def _logarithm(y: Tensor, out: Tensor) -> Tensor:
    np.log2(y.numpy(), out=out.numpy())
    return out.mul_(_LN2)


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _one_and_power(x)
        ctx.save_for_backward(y)
        return _logarithm(y, torch.empty_like(y))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.addcdiv(gradients[0], gradients[0], ctx.saved_tensors[0], value=-1)
