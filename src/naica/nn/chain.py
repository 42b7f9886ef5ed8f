"""Dense layers with softplus between them, along the edges of a batch: compiled (``chain.c``), a few edges at a time within the caches.

One layer over all edges of a batch moves more memory than the caches hold, and then memory is what it costs. This serves 32-bit numbers on
a CPU, once differentiable; `serves` says whether, and the caller computes plainly where it does not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from naica.nn import passes
from naica.nn.compiled import library

# as in chain.c
_LAYERS, _MOST, _LANES = 6, 128, 16


@dataclass(frozen=True)
class Path:
    """How edge features go: where the rows of their two ends come in, and where the results go.

    Parameters
    ----------
    receiver, sender : (E) atoms of the edges, the receivers never decreasing
    joins : to the result of which layer the rows of the ends are added; that layer has no bias of its own
    lift : the last layer is activated too, and `lift` is subtracted from it; None leaves it linear
    times : (E, 1) how often an edge counts in the sums on atoms; None counts each once
    """

    receiver: Tensor
    sender: Tensor
    joins: int
    lift: float | None
    times: Tensor | None


def serves(edges: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether `along` can take these edge features and layers."""
    widths = [edges.shape[1], *(len(w) for w in weights)]
    shaped = len(weights) <= _LAYERS and max(widths) <= _MOST and all(w % _LANES == 0 for w in widths)
    return shaped and widths[0] == widths[-1] and passes.compiled(edges, *weights) and _functions() is not None


def along(
    path: Path, edges: Tensor, of_receivers: Tensor, of_senders: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Edge features after layers, and what the layers made of them summed on atoms.

    Parameters
    ----------
    edges : (E, C)
    of_receivers, of_senders : (N, H) rows of the ends
    weights, biases : of each layer, (out, in) and (out); no bias where the ends join

    Returns
    -------
    (E, C) the features and what was made of them, added; (N, C) the sums of the latter.
    """
    return _Along.apply(path, edges, of_receivers, of_senders, len(weights), *weights, *biases)


_Pointers = ctypes.c_void_p * _LAYERS


class _Chain(ctypes.Structure):
    """The argument of the compiled functions, see ``chain.c``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("edges", "atoms", "layers", "joins", "activated", "threads")),
        ("width", ctypes.c_int64 * (_LAYERS + 1)),
        *((name, ctypes.c_void_p) for name in ("receiver", "sender", "e", "times")),
        *((name, _Pointers) for name in ("w", "b")),
        *((name, ctypes.c_void_p) for name in ("of_receivers", "of_senders")),
        ("x", _Pointers),
        *((name, ctypes.c_void_p) for name in ("out", "total")),
        ("lift", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("g_out", "g_total", "g_e", "g_receivers", "g_senders")),
        *((name, _Pointers) for name in ("g_w", "g_b")),
        ("space", ctypes.c_void_p),
    ]


@cache
def _functions() -> tuple[Any, Any] | None:
    """The compiled functions, if there are any."""
    found = library("chain")
    if found is None:
        return None
    for name in ("chain_forward", "chain_backward"):
        function = getattr(found, name)
        function.argtypes, function.restype = (ctypes.POINTER(_Chain),), None
    return found.chain_forward, found.chain_backward


class _Along(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, path: Path, edges: Tensor, of_receivers: Tensor, of_senders: Tensor, layers: int, *given: Tensor | None) -> Any:
        edges, of_receivers, of_senders = (x.contiguous() for x in (edges, of_receivers, of_senders))
        tensors = [None if x is None else x.contiguous() for x in given]
        weights, biases = tensors[:layers], tensors[layers:]
        activated = layers if path.lift is not None else layers - 1
        keep = any(ctx.needs_input_grad)
        kept = [edges.new_empty(len(edges), len(w)) for w in weights[:activated] if w is not None] if keep else []
        out, total = torch.empty_like(edges), edges.new_zeros(len(of_receivers), edges.shape[1])
        space = edges.new_empty(sum(w.numel() for w in weights if w is not None))
        named = {"of_receivers": of_receivers, "of_senders": of_senders, "out": out, "total": total, "space": space}
        work = _call(path, edges, len(of_receivers), weights, kept, **named)
        work.b = _addresses(biases)
        _functions()[0](work)  # type: ignore[index]
        ctx.path, ctx.layers = path, layers
        ctx.save_for_backward(edges, of_receivers, *weights, *kept)
        return out, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (edges, of_receivers, *rest), path, layers = ctx.saved_tensors, ctx.path, ctx.layers
        weights, kept = rest[:layers], rest[layers:]
        g_out, g_total = (g.contiguous() for g in gradients)
        g_edges, ends = torch.empty_like(edges), (torch.zeros_like(of_receivers), torch.zeros_like(of_receivers))
        g_weights = [torch.zeros_like(w) for w in weights]
        g_biases = [None if k == path.joins else w.new_zeros(len(w)) for k, w in enumerate(weights)]
        named = {"g_out": g_out, "g_total": g_total, "g_e": g_edges, "g_receivers": ends[0], "g_senders": ends[1]}
        work = _call(path, edges, len(of_receivers), weights, kept, **named)
        work.g_w, work.g_b = _addresses(g_weights), _addresses(g_biases)
        _functions()[1](work)  # type: ignore[index]
        return None, g_edges, *ends, None, *g_weights, *g_biases


def _call(path: Path, edges: Tensor, atoms: int, weights: Sequence[Tensor | None], kept: Sequence[Tensor], **named: Tensor) -> _Chain:
    """The argument of a call, without biases and gradients of weights."""
    widths = [edges.shape[1], *(len(w) for w in weights if w is not None)]
    work = _Chain(len(edges), atoms, len(weights), path.joins, int(path.lift is not None), torch.get_num_threads())
    work.width = (ctypes.c_int64 * (_LAYERS + 1))(*widths)
    work.receiver, work.sender = path.receiver.data_ptr(), path.sender.data_ptr()
    work.e, work.times = edges.data_ptr(), None if path.times is None else path.times.data_ptr()
    work.w, work.x, work.lift = _addresses(weights), _addresses(kept), path.lift or 0.0
    for name, value in named.items():
        setattr(work, name, value.data_ptr())
    return work


def _addresses(tensors: Sequence[Tensor | None]) -> Any:
    return _Pointers(*(None if x is None else x.data_ptr() for x in tensors))
