"""Products of neighbours with harmonics of their directions, summed on every atom: the message of equivariant networks.

Atoms j have features h of several degrees, edges have weights R per path and channel. A path couples one input with one degree of harmonics
to one output::

    A_i[m₃, k] = Σ_{e: j → i} R_e[k] Σ_{m₁} T_e[m₁, m₃] h_j[m₁, k],      T_e[m₁, m₃] = Σ_{m₂} C[m₁, m₂, m₃] Y_e[m₂]

The turns T do not depend on the channel: one small matrix product gives those of all paths from the harmonics, and what is left is linear
in each of R, T, h and the cotangent of A. So every derivative, of any order, is again such a sum over edges.

On a CPU these sums run in compiled functions (``edge_product.c``) that store nothing of the size edges × channels × components; the plain
version here gives the same and serves all else. R may also come from a table over the lengths of edges (`Tabled`) and is then never stored.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from naica.errors import ConfigError, InputError
from naica.nn.compiled import library
from naica.nn.so3 import coupling

# as in the C source: most inputs or outputs, most components
_MOST, _DIM = 24, 13


class Path(NamedTuple):
    """Input (its place), degree of the harmonics, output (its place), place in the output's stack. Paths on one place are summed."""

    source: int
    degree: int
    target: int
    slot: int


@dataclass(frozen=True, eq=False)
class Tabled:
    """Functions of the distance as cubic pieces, and the lengths to read them at.

    Parameters
    ----------
    table : (nodes, 2, paths, K) values, and slopes times `step`, at 0, step, 2·step …; after the last node stands what is there
    step : Å
    length : (E) Å
    """

    table: Tensor
    step: float
    length: Tensor

    def read(self) -> Tensor:
        """(E, paths, K) by operations of torch."""
        place = (self.length / self.step).clamp(max=len(self.table) - 1)
        node = place.detach().floor().clamp(0, len(self.table) - 2)
        s = (place - node)[:, None, None]
        o = 1 - s
        low, high = self.table[node.long()], self.table[node.long() + 1]
        return (1 + 2 * s) * o * o * low[:, 0] + s * o * o * low[:, 1] + s * s * (3 - 2 * s) * high[:, 0] - s * s * o * high[:, 1]


@dataclass(frozen=True)
class EdgeProduct:
    """Which products are made.

    Parameters
    ----------
    inputs : degrees of the features of senders
    outputs : degree of each output, and how many results are stacked in it
    paths : what is multiplied; degree 0 takes the input as it is, weighted
    """

    inputs: tuple[int, ...]
    outputs: tuple[tuple[int, int], ...]
    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        for path in self.paths:
            first, (result, slots) = self.inputs[path.source], self.outputs[path.target]
            if not abs(first - path.degree) <= result <= first + path.degree or not 0 <= path.slot < slots:
                raise ConfigError(f"{path} does not lead from degree {first} to place {path.slot} of {slots} of degree {result}")

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where the turns of each path begin in a row of T; the last number is the length of a row."""
        found = [0]
        for path in self.paths:
            found.append(found[-1] + self.size(path))
        return tuple(found)

    def size(self, path: Path) -> int:
        """Numbers of T: (2l₁ + 1)(2l₃ + 1), or none where the input is taken as it is."""
        return (2 * self.inputs[path.source] + 1) * (2 * self.outputs[path.target][0] + 1) if path.degree else 0

    def turns(self, harmonics: Tensor) -> Tensor:
        """Harmonics of edges (E, (L + 1)²) → T (E, numbers), path by path, m₁ before m₃."""
        return harmonics @ _couplings(self, harmonics.shape[1], harmonics.dtype, harmonics.device)

    def __call__(self, weights: Tensor | Tabled, turns: Tensor, inputs: Sequence[Tensor], receiver: Tensor, sender: Tensor) -> list[Tensor]:
        """The sums on every atom.

        Parameters
        ----------
        weights : R (E, paths, K), or where to read it; from a table the sums are differentiable once
        turns : T (E, numbers)
        inputs : h, each (N, 2l + 1, K)
        receiver, sender : (E); receivers never decrease

        Returns
        -------
        (N, 2l + 1, stacked, K) for each output.

        Raises
        ------
        InputError
            If edges are not sorted by receiver or name atoms that are not there (found out where the compiled functions serve).
        """
        numbers = weights.table if isinstance(weights, Tabled) else weights
        if not _serves(self, numbers, inputs):
            return plain(self, weights.read() if isinstance(weights, Tabled) else weights, turns, inputs, receiver, sender)
        call = _Call(self, receiver.long().contiguous(), sender.long().contiguous())
        call.check(len(inputs[0]))
        if isinstance(weights, Tabled):
            return list(_FromTable.apply(call, weights.table, weights.step, weights.length, turns, *inputs))
        return list(_Sums.apply(call, weights, turns, *inputs))


@cache
def _couplings(product: EdgeProduct, components: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(components, numbers) from harmonics to turns."""
    found = torch.zeros(components, product.starts[-1], dtype=torch.float64)
    for path, start in zip(product.paths, product.starts, strict=False):
        if path.degree:
            block = coupling(product.inputs[path.source], path.degree, product.outputs[path.target][0]).transpose(0, 1).flatten(1)
            found[path.degree**2 : (path.degree + 1) ** 2, start : start + block.shape[1]] = block
    return found.to(dtype=dtype, device=device)


def plain(product: EdgeProduct, weights: Tensor, turns: Tensor, inputs: Sequence[Tensor], receiver: Tensor, sender: Tensor) -> list[Tensor]:
    """The same sums by operations of torch, one path after the other."""
    n, k = inputs[0].shape[0], inputs[0].shape[2]
    at_edges = [torch.index_select(h, 0, sender) for h in inputs]
    stacks: list[list[Tensor | None]] = [[None] * slots for _, slots in product.outputs]
    for p, (path, start) in enumerate(zip(product.paths, product.starts, strict=False)):
        rows, columns = 2 * product.inputs[path.source] + 1, 2 * product.outputs[path.target][0] + 1
        message = at_edges[path.source]
        if path.degree:
            turn = turns[:, start : start + rows * columns].view(-1, rows, columns)
            message = torch.bmm(turn.transpose(1, 2), message)
        message = message * weights[:, p, None]
        before = stacks[path.target][path.slot]
        base = message.new_zeros(n, columns, k) if before is None else before
        stacks[path.target][path.slot] = base.index_add(0, receiver, message)
    results = []
    for (degree, _), stack in zip(product.outputs, stacks, strict=True):
        filled = [inputs[0].new_zeros(n, 2 * degree + 1, k) if part is None else part for part in stack]
        results.append(torch.stack(filled, dim=2))
    return results


# --- compiled ----------------------------------------------------------------------------------------------------------------------------
class _Work(ctypes.Structure):
    """The argument of the compiled functions, see ``edge_product.c``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("edges", "atoms", "channels", "paths", "turns", "threads", "inputs", "outputs")),
        *((name, ctypes.c_void_p) for name in ("receiver", "sender", "path", "r", "t")),
        *((name, ctypes.c_void_p * _MOST) for name in ("h", "g")),
        *((name, ctypes.c_void_p) for name in ("r2", "t2")),
        *((name, ctypes.c_void_p * _MOST) for name in ("h2", "a")),
        *((name, ctypes.c_void_p) for name in ("g_r", "g_t")),
        ("g_h", ctypes.c_void_p * _MOST),
        *((name, ctypes.c_void_p) for name in ("table", "length", "g_length")),
        ("nodes", ctypes.c_int64),
        ("step", ctypes.c_double),
    ]


@cache
def _functions() -> ctypes.CDLL | None:
    found = library("edge_product")
    if found is not None:
        for name in ("edge_sums", "edge_slopes", "edge_second"):
            function = getattr(found, name)
            function.argtypes, function.restype = (ctypes.POINTER(_Work), ctypes.c_int64), None
        found.edge_sound.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        found.edge_sound.restype = ctypes.c_int64
    return found


def _serves(product: EdgeProduct, weights: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether the compiled functions do."""
    if weights.device.type != "cpu" or weights.dtype not in (torch.float32, torch.float64) or torch.compiler.is_compiling():
        return False
    if any(h.dtype != weights.dtype for h in inputs) or max(len(product.inputs), len(product.outputs)) > _MOST:
        return False
    return 2 * max(*product.inputs, *(degree for degree, _ in product.outputs)) + 1 <= _DIM and _functions() is not None


@cache
def _path_table(product: EdgeProduct) -> np.ndarray[Any, np.dtype[np.int32]]:
    rows = []
    for path, start in zip(product.paths, product.starts, strict=False):
        degree, slots = product.outputs[path.target]
        rows.append(
            (path.source, 2 * product.inputs[path.source] + 1, 2 * degree + 1, path.target, path.slot, slots, start, not path.degree)
        )
    return np.array(rows, dtype=np.int32).reshape(-1, 8)


@dataclass(frozen=True, eq=False)
class _Call:
    """What does not carry gradients."""

    product: EdgeProduct
    receiver: Tensor
    sender: Tensor

    def run(self, name: str, atoms: int, channels: int, double: bool, threads: int = 1, step: float = 1.0, **tensors: Any) -> None:
        """Fill the argument from tensors (or lists of them) by name, and call."""
        work = _Work(edges=len(self.receiver), atoms=atoms, channels=channels, paths=len(self.product.paths), turns=self.product.starts[-1])
        work.threads, work.inputs, work.outputs = threads, len(self.product.inputs), len(self.product.outputs)
        work.receiver, work.sender, work.step = self.receiver.data_ptr(), self.sender.data_ptr(), step
        work.path = _path_table(self.product).ctypes.data
        for key, value in tensors.items():
            if isinstance(value, Tensor):
                setattr(work, key, value.data_ptr())
            elif value is not None:
                setattr(work, key, (ctypes.c_void_p * _MOST)(*(None if one is None else one.data_ptr() for one in value)))
        if tensors.get("table") is not None:
            work.nodes = len(tensors["table"])
        found = _functions()
        assert found is not None
        getattr(found, name)(ctypes.byref(work), int(double))

    def check(self, atoms: int) -> None:
        """Refuse edges that would be summed wrongly (InputError)."""
        found = _functions()
        assert found is not None
        if not found.edge_sound(len(self.receiver), atoms, self.receiver.data_ptr(), self.sender.data_ptr()):
            raise InputError(
                f"edges are not sorted by receiver, or lead to atoms that are not there; expected numbers below {atoms}, sorted"
            )

    def threads(self) -> int:
        return max(1, min(torch.get_num_threads(), len(self.receiver) // 256))

    def outputs(self, like: Tensor, atoms: int, channels: int) -> list[Tensor]:
        """Room for the sums."""
        return [like.new_zeros(atoms, 2 * degree + 1, slots, channels) for degree, slots in self.product.outputs]


def _room(h: Sequence[Tensor], wanted: Sequence[bool], threads: int) -> list[Tensor | None]:
    """Room for derivatives by the inputs, one for each thread."""
    return [one.new_zeros(threads, *one.shape) if want else None for one, want in zip(h, wanted, strict=True)]


def _joined(rooms: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [room if room is None else room[0] if len(room) == 1 else room.sum(0) for room in rooms]


def _all_contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [one.contiguous() for one in tensors]


class _Sums(Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, r: Tensor, t: Tensor, *h: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(r, t, *h)  # not the copies below: those have no history
        ctx.call = call
        r, t, *inputs = _all_contiguous((r, t, *h))
        (atoms, _, channels), double = inputs[0].shape, r.dtype == torch.float64
        found = call.outputs(r, atoms, channels)
        call.run("edge_sums", atoms, channels, double, call.threads(), r=r, t=t, h=inputs, a=found)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        r, t, *h = ctx.saved_tensors
        wanted = tuple(ctx.needs_input_grad[1:])
        if torch.is_grad_enabled():
            return None, *_Slopes.apply(ctx.call, wanted, r, t, *h, *g)
        return None, *_slopes(ctx.call, wanted, r, t, h, g)


def _slopes(call: _Call, wanted: Sequence[bool], r: Tensor, t: Tensor, h: Sequence[Tensor], g: Sequence[Tensor]) -> list[Tensor | None]:
    r, t, *both = _all_contiguous((r, t, *h, *g))
    inputs, upstream = both[: len(h)], both[len(h) :]
    (atoms, _, channels), threads = inputs[0].shape, call.threads()
    g_r, g_t = torch.empty_like(r) if wanted[0] else None, torch.zeros_like(t) if wanted[1] else None
    rooms = _room(inputs, wanted[2:], threads)
    tensors: dict[str, Any] = {"r": r, "t": t, "h": inputs, "g": upstream, "g_r": g_r, "g_t": g_t, "g_h": rooms}
    call.run("edge_slopes", atoms, channels, r.dtype == torch.float64, threads, **tensors)
    return [g_r, g_t, *_joined(rooms)]


class _Slopes(Function):
    """Derivatives of ``Σ A·G`` by weights, turns and inputs, as functions of those and of G."""

    @staticmethod
    def forward(ctx: Any, call: _Call, wanted: tuple[bool, ...], r: Tensor, t: Tensor, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.call, ctx.wanted, ctx.inputs = call, wanted, len(call.product.inputs)
        ctx.save_for_backward(r, t, *tensors)
        return tuple(_slopes(call, wanted, r, t, tensors[: ctx.inputs], tensors[ctx.inputs :]))

    @staticmethod
    def backward(ctx: Any, *changes: Tensor | None) -> tuple[Tensor | None, ...]:
        call, (r, t, *tensors) = ctx.call, ctx.saved_tensors
        h, g = tensors[: ctx.inputs], tensors[ctx.inputs :]
        changed = [torch.zeros_like(one) if change is None else change for one, change in zip((r, t, *h), changes, strict=True)]
        r2, t2, h2 = changed[0], changed[1], changed[2:]
        if torch.is_grad_enabled():
            return None, None, *_again(call, (r, t, h, g), (r2, t2, h2))
        r2, t2, *rest = _all_contiguous((r2, t2, *h2, *g, r, t, *h))
        h2, g, (r, t), h = rest[: len(h)], rest[len(h) : len(h) + len(g)], rest[-len(h) - 2 : -len(h)], rest[-len(h) :]
        (atoms, _, channels), threads = h[0].shape, call.threads()
        g_r, g_t, rooms, g_g = (
            torch.empty_like(r),
            torch.zeros_like(t),
            _room(h, [True] * len(h), threads),
            call.outputs(r, atoms, channels),
        )
        named = {"r": r, "t": t, "h": h, "g": g, "r2": r2, "t2": t2, "h2": h2, "a": g_g, "g_r": g_r, "g_t": g_t, "g_h": rooms}
        call.run("edge_second", atoms, channels, r.dtype == torch.float64, threads, **named)
        return None, None, g_r, g_t, *_joined(rooms), *g_g


def _again(
    call: _Call, point: tuple[Tensor, Tensor, list[Tensor], list[Tensor]], change: tuple[Tensor, Tensor, list[Tensor]]
) -> list[Tensor]:
    """What `_Slopes.backward` gives, differentiable again: derivatives of ``S(R₂, T, h, G) + S(R, T₂, h, G) + S(R, T, h₂, G)``."""
    (r, t, h, g), (r2, t2, h2) = point, change
    everything = (True,) * (2 + len(h))
    # paths that take the input as it is have no turns, and no part in the second term
    turning = r.new_tensor([float(path.degree > 0) for path in call.product.paths])[:, None]
    by_r = _Slopes.apply(call, everything, r2, t, *h, *g)
    by_t = _Slopes.apply(call, everything, r * turning, t2, *h, *g)
    by_h = _Slopes.apply(call, everything, r, t, *h2, *g)
    sums = [_Sums.apply(call, *some) for some in ((r2, t, *h), (r * turning, t2, *h), (r, t, *h2))]
    g_h = [a + b for a, b in zip(by_r[2:], by_t[2:], strict=True)]
    return [by_t[0] * turning + by_h[0], by_r[1] + by_h[1], *g_h, *(a + b + c for a, b, c in zip(*sums, strict=True))]


class _FromTable(Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, table: Tensor, step: float, length: Tensor, t: Tensor, *h: Tensor) -> tuple[Tensor, ...]:
        table, length, t, *inputs = _all_contiguous((table, length, t, *h))
        (atoms, _, channels), double = inputs[0].shape, t.dtype == torch.float64
        found = call.outputs(t, atoms, channels)
        call.run("edge_sums", atoms, channels, double, call.threads(), step, table=table, length=length, t=t, h=inputs, a=found)
        ctx.save_for_backward(table, length, t, *inputs)
        ctx.call, ctx.step = call, step
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        call, (table, length, t, *h) = ctx.call, ctx.saved_tensors
        (atoms, _, channels), threads = h[0].shape, call.threads()
        wanted = ctx.needs_input_grad[4:]
        g_t, rooms, g_length = torch.zeros_like(t) if wanted[0] else None, _room(h, wanted[1:], threads), torch.zeros_like(length)
        named: dict[str, Any] = {"table": table, "length": length, "t": t, "h": h, "g": _all_contiguous(g)}
        double = t.dtype == torch.float64
        call.run("edge_slopes", atoms, channels, double, threads, ctx.step, **named, g_t=g_t, g_h=rooms, g_length=g_length)
        return None, None, None, g_length, g_t, *_joined(rooms)
