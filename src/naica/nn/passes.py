"""Single passes over the memory of edges, compiled (``passes.c``): what torch does in several, each as long as the arithmetic.

`compiled` says whether they serve for some tensors; callers have a plain version that gives the same. None of them knows autograd.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from naica.nn.compiled import library

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_SIGNATURES = {
    "softplus_forward": (_POINTER,) * 2 + (_NUMBER,) * 2,
    "softplus_backward": (_POINTER,) * 3 + (_NUMBER,) * 2,
    "gated_sum_forward": (_POINTER,) * 6 + (_NUMBER,) * 3,
    "gated_sum_backward": (_POINTER,) * 4 + (_NUMBER,) * 3,
}
_SMALLEST = 1024


@cache
def _functions() -> Any | None:
    found = library("passes")
    if found is not None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(found, name)
            function.argtypes, function.restype = arguments, None
    return found


def compiled(*tensors: Tensor) -> bool:
    """Whether the compiled passes serve for these: 32-bit numbers on a CPU, enough of the first to be worth a call, and nobody tracing."""
    if tensors[0].numel() < _SMALLEST or torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors) and _functions() is not None


def softplus_forward(x: Tensor, out: Tensor | None = None) -> Tensor:
    """``ln(1 + eˣ)`` of any shape, written to `out` if given, which may be x itself."""
    x = x.detach().contiguous()
    y = torch.empty_like(x) if out is None else out
    _call("softplus_forward", x, y, x.numel())
    return y


def softplus_backward(y: Tensor, gradient: Tensor) -> Tensor:
    """The gradient before a softplus, from what came out of it and the gradient behind it."""
    gradient = gradient.contiguous()
    result = torch.empty_like(gradient)
    _call("softplus_backward", y, gradient, result, y.numel())
    return result


def gated_sum_forward(
    values: Tensor,
    receiver: Tensor,
    n: int,
    of_receivers: Tensor | None = None,
    of_senders: Tensor | None = None,
    sender: Tensor | None = None,
) -> Tensor:
    """``Σ_j σ(a) ⊙ softplus(c)`` of [a ⊕ c] = values (E, 2C), to which rows of the two ends (N, 2C) can be added: (n, C)."""
    values = values.detach().contiguous()
    edges, width = len(values), values.shape[1] // 2
    result = values.new_zeros(n, width)
    ends = [None if x is None else x.detach().contiguous() for x in (of_receivers, of_senders)]
    _call("gated_sum_forward", values, *ends, receiver, sender, result, edges, width)
    return result


def gated_sum_backward(values: Tensor, gradient: Tensor, receiver: Tensor) -> Tensor:
    """The gradient at the edge values (E, 2C) from that at the atoms (N, C)."""
    gradient = gradient.contiguous()
    result = torch.empty_like(values)
    _call("gated_sum_backward", values, gradient, receiver, result, len(values), gradient.shape[1])
    return result


def _call(name: str, *arguments: Tensor | int | None) -> None:
    """Tensors become addresses; the number of threads comes last."""
    # indices come as whole columns: a view with steps would be read wrong
    assert all(x.is_contiguous() for x in arguments if isinstance(x, Tensor)), "compiled passes read contiguous tensors"
    given = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    getattr(_functions(), name)(*given, torch.get_num_threads())
