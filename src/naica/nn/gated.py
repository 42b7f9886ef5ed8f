"""Gated networks: ``φ(x) ⊙ σ(ψ(x))``, two small networks of one input, computed as one.

The input is often a concatenation of atom and edge features. Its first layer is split (`GatedNetwork.split`), so that what belongs to an
atom is multiplied once per atom and not once per edge or triplet, and both networks share each matrix product.

Where derivatives by positions alone are wanted (energies, forces and stress of a finished potential), on a CPU and in 32 bits, the steps of
an edge run in one compiled function (``gated.c``), a few edges at a time within the cache. The plain version gives the same and serves all
else.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.nn.activations import gate, normalised, silu
from naica.nn.compiled import library
from naica.nn.edge_product import Tabled

_MOST_WIDTH = 128
_LANES = 16
_MOST_ROWS, _MOST_PARTS = 3, 8


@dataclass(frozen=True, eq=False)
class Rows:
    """A piece of the input that belongs to atoms or bonds: features (n, k), weight (2H, k), and the row of each edge (E); −1 is none."""

    features: Tensor
    weight: Tensor
    index: Tensor


@dataclass(frozen=True, eq=False)
class Factor:
    """A factor made of a few functions (E, R) of each edge: ``W h``, with a silu after it if `silu`; weight (C, R)."""

    functions: Tensor
    weight: Tensor
    silu: bool = False

    def values(self) -> Tensor:
        """(E, C)."""
        made = F.linear(self.functions, self.weight)
        return silu(made) if self.silu else made


class GatedNetwork(nn.Module):
    """``φ(x) ⊙ σ(ψ(x))`` with φ and ψ of the same layers, silu between them.

    Weights are kept as one tensor per layer: rows of φ first, then rows of ψ.

    Parameters
    ----------
    parts : widths of the pieces of the input
    layers : widths of the layers, the result's last
    bias : whether layers have one
    value : whether φ ends in a silu; without one its last layer is linear
    norm : whether the last layers of both are normalised (layer norm) before their activations
    glorot : start from Glorot's uniform weights and no bias (Keras), else from torch's own
    """

    def __init__(
        self, parts: Sequence[int], layers: Sequence[int], bias: bool = True, value: bool = True, norm: bool = False, glorot: bool = True
    ) -> None:
        super().__init__()
        self.parts, self.layers, self.value = tuple(parts), tuple(layers), value
        pairs = [[_layer(a, b, bias, glorot) for _ in range(2)] for a, b in pairwise((sum(parts), *layers))]
        self.first = nn.Parameter(torch.cat([one.weight for one in pairs[0]]))
        self.first_bias = nn.Parameter(torch.cat([one.bias for one in pairs[0]])) if bias else None
        # (2, in, out), as products of batches of matrices want them
        self.later = nn.ParameterList(nn.Parameter(torch.stack([one.weight.T for one in pair])) for pair in pairs[1:])
        self.later_bias = nn.ParameterList(nn.Parameter(torch.stack([one.bias for one in pair])[:, None]) for pair in pairs[1:] if bias)
        self.norm = nn.ModuleList(nn.LayerNorm(layers[-1]) for _ in range(2)) if norm else None

    def split(self) -> tuple[Tensor, ...]:
        """The first layer's weights (2H, ·) by part of the input."""
        return self.first.split(self.parts, dim=1)

    def after_first(self, x: Tensor) -> Tensor:
        """What the first layer made (E, 2H), bias included → (E, C)."""
        parts: Sequence[Tensor] = x.chunk(2, dim=1)
        for k, weight in enumerate(self.later):
            # at first one call for both halves, which still lie side by side
            hidden = silu(x).chunk(2, dim=1) if k == 0 else [silu(z) for z in parts]
            if len(self.later_bias):
                parts = [torch.addmm(b, h, w) for b, h, w in zip(self.later_bias[k], hidden, weight, strict=True)]
            else:
                parts = [h @ w for h, w in zip(hidden, weight, strict=True)]
        if self.norm is not None:
            parts = [normalised(z, one) for z, one in zip(parts, self.norm, strict=True)]  # type: ignore[arg-type]
        values, gates = parts
        return gate(values, gates, self.value)

    def forward(self, x: Tensor) -> Tensor:
        """(E, parts joined) → (E, C)."""
        return self.after_first(F.linear(x, self.first, self.first_bias))

    def on_edges(
        self,
        x: Tensor | Tabled,
        weight: Tensor | None,
        rows: Sequence[Rows] = (),
        factor: Tensor | Factor | Tabled | None = None,
        summed: bool = False,
        residual: bool = False,
    ) -> Tensor:
        """The network of ``W x + b + Σ_s W_s f_s[i_s]``, the first layer in pieces, times a factor.

        Parameters
        ----------
        x, weight : of each edge, (E, K) and (2H, K); or a table whose columns are ``W x`` (2H) and the factor (C), and None for both others
        rows : the other pieces; the indices of the first never decrease
        factor : (E, C) the result is multiplied by, or a table of it
        summed : whether to sum the results on the rows of the first piece
        residual : whether to add it to x, or where it is summed to the features of the first piece

        Returns
        -------
        (E, C), or with `summed` (n, C).
        """
        if summed and not rows:
            raise ValueError("a sum needs the rows it is made on")
        if isinstance(x, Tabled):
            if weight is not None or factor is not None or (residual and not summed):
                raise ValueError("a table gives both W x and the factor, and has no features to add the result to")
            args = _Args(self, None, tuple(rows), x, summed, residual)
            return args.fused(None) if self._compiled(None, args) else args.plain(None)
        args = _Args(self, weight, tuple(rows), factor, summed, residual)
        return args.fused(x) if self._compiled(x, args) else args.plain(x)

    def _compiled(self, x: Tensor | None, args: _Args) -> bool:
        """Whether the compiled function serves: no gradients of weights, and a shape it knows."""
        like = x if x is not None else args.rows[0].features
        if like.dtype != torch.float32 or like.device.type != "cpu" or not args.size(x)[0] or torch.compiler.is_compiling():
            return False
        if torch.is_grad_enabled() and (self.first.requires_grad or any(one.requires_grad for one in args.weights())):
            return False
        width, hidden = self.layers[-1], self.layers[0]
        shaped = len(self.layers) <= 2 and width % _LANES == 0 and hidden % _LANES == 0 and max(width, hidden) <= _MOST_WIDTH
        widths = (0 if x is None else x.shape[1], *(one.features.shape[1] for one in args.rows))
        parts = args.factor.functions.shape[1] if isinstance(args.factor, Factor) else 0
        small = max(widths) <= 2 * _MOST_WIDTH and len(args.rows) <= _MOST_ROWS and parts <= _MOST_PARTS
        return shaped and small and (self.first_bias is not None or len(self.layers) == 1) and _functions() is not None


def _layer(inputs: int, out: int, bias: bool, glorot: bool) -> nn.Linear:
    layer = nn.Linear(inputs, out, bias=bias)
    if glorot:
        nn.init.xavier_uniform_(layer.weight)
        if bias:
            nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True, eq=False)
class _Args:
    """One call of a gated network: all but the inputs of the edges."""

    net: GatedNetwork
    weight: Tensor | None
    rows: tuple[Rows, ...]
    factor: Tensor | Factor | Tabled | None
    summed: bool
    residual: bool

    @property
    def first(self) -> int:
        """Columns of a table that stand for ``W x``."""
        return 2 * self.net.layers[0] if self.weight is None else 0

    def size(self, x: Tensor | None) -> tuple[int, int]:
        """How many edges, and the width of x."""
        return (len(self.rows[0].index), 0) if x is None else (x.shape[0], x.shape[1])

    def weights(self) -> tuple[Tensor, ...]:
        """Every weight that is not the network's own."""
        own = self.factor.weight if isinstance(self.factor, Factor) else self.factor.table if isinstance(self.factor, Tabled) else None
        return tuple(t for t in (self.weight, *(one.weight for one in self.rows), own) if t is not None)

    def plain(self, x: Tensor | None) -> Tensor:
        """In torch, differentiable in everything any number of times."""
        factor = self.factor.values() if isinstance(self.factor, Factor) else self.factor
        if isinstance(factor, Tabled):
            made, factor = factor.read()[:, 0].tensor_split([self.first], dim=1)
        if x is None:
            z = made if self.net.first_bias is None else made + self.net.first_bias
        else:
            assert self.weight is not None
            z = F.linear(x, self.weight, self.net.first_bias)
        for one in self.rows:
            made = F.linear(one.features, one.weight)
            if torch.compiler.is_compiling():
                z = z + torch.index_select(made, 0, one.index.clamp(min=0)) * (one.index >= 0)[:, None]
            elif len(one.index) and int(one.index.min()) < 0:
                chosen = (one.index >= 0).nonzero()[:, 0]
                z = z.index_add(0, chosen, torch.index_select(made, 0, one.index[chosen]))
            else:
                z = z + torch.index_select(made, 0, one.index)
        y = self.net.after_first(z)
        if factor is not None:
            y = y * factor
        if not self.summed:
            return x + y if self.residual and x is not None else y
        first = self.rows[0]
        base = first.features if self.residual else y.new_zeros(first.features.shape[0], y.shape[1])
        return base.index_add(0, first.index, y)

    def fused(self, x: Tensor | None) -> Tensor:
        """Compiled; differentiable in what belongs to edges and rows, not in weights."""
        given = self.factor
        if not isinstance(given, Tensor) and given is not None:
            given = given.functions if isinstance(given, Factor) else given.length
        return _Fused.apply(self, x, given, *(one.features for one in self.rows))

    def replaced(self, given: Tensor | None, features: Sequence[Tensor]) -> _Args:
        """The same with other tensors in it."""
        factor: Tensor | Factor | Tabled | None = given
        if given is not None and isinstance(self.factor, Factor):
            factor = Factor(given, self.factor.weight, self.factor.silu)
        elif given is not None and isinstance(self.factor, Tabled):
            factor = Tabled(self.factor.table, self.factor.step, given)
        rows = tuple(Rows(f, one.weight, one.index) for f, one in zip(features, self.rows, strict=True))
        return _Args(self.net, self.weight, rows, factor, self.summed, self.residual)


# --- compiled ----------------------------------------------------------------------------------------------------------------------------
_Three = ctypes.c_void_p * _MOST_ROWS
_ThreeNumbers = ctypes.c_int64 * _MOST_ROWS


class _Work(ctypes.Structure):
    """The argument of the compiled functions, see ``gated.c``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("edges", "inputs", "hidden", "width", "row")),
        *((name, ctypes.c_int64) for name in ("later", "norm", "value", "summed", "residual", "threads", "parts", "silu")),
        *((name, _ThreeNumbers) for name in ("n", "k", "row_of")),
        *((name, _Three) for name in ("index", "f", "w_of", "p", "g_f")),
        *((name, ctypes.c_void_p) for name in ("x", "w", "b1", "w2", "b2")),
        *((name, ctypes.c_void_p * 2) for name in ("scale", "shift")),
        *((name, ctypes.c_void_p) for name in ("factor", "w_factor")),
        *((name, ctypes.c_void_p) for name in ("x1", "x2", "out", "g", "g_x", "g_factor", "table", "length", "g_length")),
        *((name, ctypes.c_int64) for name in ("nodes", "columns", "first")),
        ("per_step", ctypes.c_double),
        ("space", ctypes.c_void_p),
    ]


@cache
def _functions() -> tuple[Any, Any] | None:
    """The compiled functions, if there are any."""
    found = library("gated")
    if found is None:
        return None
    for name in ("gated_forward", "gated_backward"):
        function = getattr(found, name)
        function.argtypes, function.restype = (ctypes.POINTER(_Work),), None
    return found.gated_forward, found.gated_backward


class _Call:
    """The argument of a compiled function, and the tensors whose memory it points to. The way back uses it again."""

    def __init__(self, args: _Args, x: Tensor | None, given: Tensor | None, features: Sequence[Tensor], p: Sequence[Tensor]) -> None:
        net, factor, self.held = args.net, args.factor, [*features]
        edges, inputs = args.size(x)
        self.work = work = _Work(edges=edges, inputs=inputs, hidden=net.layers[0], width=net.layers[-1])
        work.later, work.norm, work.value = len(net.layers) - 1, net.norm is not None, net.value
        work.summed, work.residual, work.threads = args.summed, args.residual, _threads(edges)
        if x is not None and args.weight is not None:
            work.x, (work.w, work.row) = self.pointer(x), self.matrix(args.weight)
        for q, (one, f) in enumerate(zip(args.rows, features, strict=True)):
            work.n[q], work.k[q] = f.shape
            work.f[q], work.index[q], work.p[q] = f.data_ptr(), self.pointer(one.index), p[q].data_ptr()
            work.w_of[q], work.row_of[q] = self.matrix(one.weight)
        if net.first_bias is not None:
            work.b1 = net.first_bias.data_ptr()
        if len(net.layers) > 1:
            work.w2, work.b2 = net.later[0].data_ptr(), net.later_bias[0].data_ptr()
        if net.norm is not None:
            for half, norm in enumerate(net.norm):
                work.scale[half], work.shift[half] = norm.weight.data_ptr(), norm.bias.data_ptr()  # type: ignore[operator, union-attr]
        if given is None:
            return
        if isinstance(factor, Tabled):
            work.table, work.length, work.per_step = self.pointer(factor.table), self.pointer(given), 1 / factor.step
            work.nodes, work.columns, work.first = len(factor.table), factor.table[0, 0].numel(), args.first
            return
        work.factor = self.pointer(given)
        if isinstance(factor, Factor):
            work.parts, work.silu, work.w_factor = given.shape[1], factor.silu, self.pointer(factor.weight)

    def pointer(self, tensor: Tensor) -> int:
        """Where its numbers begin, row after row."""
        self.held.append(tensor.contiguous())
        return self.held[-1].data_ptr()

    def matrix(self, weight: Tensor) -> tuple[int, int]:
        """Where it begins, and the numbers from one row to the next: parts of a wider matrix need no copy."""
        whole = weight if weight.stride(1) == 1 else weight.contiguous()
        self.held.append(whole)
        return whole.data_ptr(), whole.stride(0)


def _threads(edges: int) -> int:
    return max(1, min(torch.get_num_threads(), edges // 512))


def _padded(n: int) -> int:
    return (n + _LANES - 1) // _LANES * _LANES


class _Fused(torch.autograd.Function):
    """Keeps what the first and the second layer made; where it is differentiated twice, it goes through the plain version."""

    @staticmethod
    def forward(ctx: Any, args: _Args, x: Tensor | None, given: Tensor | None, *features: Tensor) -> Tensor:
        net, keep, like = args.net, any(ctx.needs_input_grad), features[0] if x is None else x
        edges, inputs = args.size(x)
        hidden, width = 2 * net.layers[0], net.layers[-1]
        rows = [f.contiguous() for f in features]
        made = [like.new_empty(f.shape[0], hidden) for f in features]
        call = _Call(args, x, given, rows, made)
        x1 = like.new_empty(edges, hidden) if keep else None
        x2 = like.new_empty(edges, 2 * width) if keep and len(net.layers) > 1 else None
        base = (rows[0].clone() if args.residual else like.new_zeros(rows[0].shape[0], width)) if args.summed else None
        out = like.new_empty(edges, width) if base is None else base
        space = like.new_empty(max(inputs, *(f.shape[1] for f in features), 0) * hidden + _MOST_PARTS * width)
        work = call.work
        work.out, work.space = out.data_ptr(), space.data_ptr()
        work.x1, work.x2 = (None if t is None else t.data_ptr() for t in (x1, x2))
        functions = _functions()
        assert functions is not None
        functions[0](ctypes.byref(work))
        ctx.save_for_backward(x, given, x1, x2, *features)
        ctx.args, ctx.call = args, call
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        args: _Args = ctx.args
        x, given, x1, x2, *features = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_again(args, x, given, features, gradients[0])
        edges, inputs = args.size(x)
        net, threads, upstream = args.net, _threads(edges), gradients[0].contiguous()
        hidden, width = 2 * net.layers[0], net.layers[-1]
        work = ctx.call.work
        sums = [upstream.new_empty(threads if q else 1, f.shape[0], hidden) for q, f in enumerate(features)]
        for q, one in enumerate(sums):
            work.p[q] = one.data_ptr()
        g_x, g_given = (None if t is None else upstream.new_empty(t.shape) for t in (x, given))
        # the gradient of features that are there twice is summed in one place
        g_rows: list[Tensor | None] = []
        for q, f in enumerate(features):
            before = next((k for k in range(q) if features[k] is f), None)
            g_rows.append(upstream.new_zeros(f.shape) if before is None else None)
            work.g_f[q] = work.g_f[before] if before is not None else g_rows[q].data_ptr()  # type: ignore[union-attr]
        widest = _padded(max((inputs, *(f.shape[1] for f in features))))
        longest = max((f.shape[0] for f in features), default=0)
        space = upstream.new_empty(hidden * (widest + width) + _MOST_PARTS * width + longest * widest)
        work.x1, work.x2, work.g = x1.data_ptr(), None if x2 is None else x2.data_ptr(), upstream.data_ptr()
        work.g_x, work.space = None if g_x is None else g_x.data_ptr(), space.data_ptr()
        if g_given is not None:
            setattr(work, "g_length" if isinstance(args.factor, Tabled) else "g_factor", g_given.data_ptr())
        functions = _functions()
        assert functions is not None
        functions[1](ctypes.byref(work))
        return None, g_x, g_given, *g_rows


def _again(args: _Args, x: Tensor | None, given: Tensor | None, features: Sequence[Tensor], upstream: Tensor) -> list[Tensor | None]:
    """Differentiable gradients, by way of the plain version."""
    y = args.replaced(given, features).plain(x)
    inputs = [x, given, *features]
    wanted = list({id(t): t for t in inputs if t is not None and t.requires_grad}.values())
    found = torch.autograd.grad(y, wanted, upstream, create_graph=True, allow_unused=True)
    left = {id(t): g for t, g in zip(wanted, found, strict=True)}
    return [None if t is None else left.pop(id(t), None) for t in inputs]
