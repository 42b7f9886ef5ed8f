"""Many-body features: symmetric products of one atom's components, channel by channel, with weights of its element.

The product basis of MACE (Batatia et al., NeurIPS 2022, eqs. 10 and 11)::

    B_LM[k] = Σ_ν Σ_η w_ν[z, η, k] Σ_{m₁…m_ν} U_ν[η, M; m₁ … m_ν] Π_ξ A[m_ξ, k],      ν = 1 … correlation

U are the couplings of ν components to degree L and its natural parity, one for each way to couple them one after the other. Ways that
differ may give the same polynomial; all have a weight, as published. Factors commute, so the sum over η is done first, on the weights: what
is left is one sparse polynomial of the components for each output, whose coefficients depend on element and channel. On a CPU it runs in a
compiled function (``product_basis.c``); the plain version here gives the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import Function

from naica.errors import ConfigError
from naica.nn.compiled import library
from naica.nn.equivariant import Kinds
from naica.nn.so3 import Irrep, coupling, natural

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_CORRELATION = 3


@cache
def _coupled(most: int, order: int) -> list[tuple[Irrep, Floats]]:
    """All ways to couple `order` factors, each with the components of degrees 0 … `most`: what comes out, and (2l + 1, M, … M)."""
    size = (most + 1) ** 2
    if order == 1:
        found = []
        for degree in range(most + 1):
            rows = np.zeros((2 * degree + 1, size))
            rows[:, degree**2 : (degree + 1) ** 2] = np.eye(2 * degree + 1)
            found.append((natural(degree), rows))
        return found
    found = []
    for left, tensor in _coupled(most, order - 1):
        for degree in range(most + 1):
            for result in left.times(natural(degree)):
                block = coupling(left.degree, degree, result.degree).numpy()
                full = np.zeros((result.dim, *tensor.shape[1:], size))
                full[..., degree**2 : (degree + 1) ** 2] = np.einsum("a...,abc->c...b", tensor, block)
                found.append((result, full))
    # degrees in turn, odd parity first; ways of one kind keep their order
    return sorted(found, key=lambda one: one[0])


@dataclass(frozen=True, eq=False)
class Terms:
    """Monomials of one order ν that go to the components of one degree L, with the weights' part in their coefficients.

    Parameters
    ----------
    component : (t) M of each term, 0 … 2L
    factors : (t, ν) components of A, never decreasing
    paths : (t, η) coefficients are ``paths @ w``
    """

    component: Ints
    factors: Ints
    paths: Floats


@cache
def terms(most: int, degree: int, order: int) -> Terms:
    """The terms of products of `order` components of degrees 0 … `most`, coupled to `degree`."""
    ways = [tensor for irrep, tensor in _coupled(most, order) if irrep == natural(degree)]
    size = (most + 1) ** 2
    stack = np.stack(ways, axis=-1).reshape(-1, len(ways))
    used = np.flatnonzero(np.abs(stack).max(axis=1) > 1e-12)
    places = np.stack(np.unravel_index(used, (2 * degree + 1,) + (size,) * order), axis=1)
    places[:, 1:].sort(axis=1)
    names, row = np.unique(places, axis=0, return_inverse=True)
    paths = np.zeros((len(names), len(ways)))
    np.add.at(paths, row.reshape(-1), stack[used])
    paths[np.abs(paths) < 1e-12] = 0.0
    kept = np.abs(paths).max(axis=1) > 0
    return Terms(names[kept, 0], names[kept, 1:], paths[kept])


@dataclass(frozen=True)
class Polynomials:
    """Which terms are summed: components of degrees 0 … `most` to results of some degrees, up to `correlation` factors."""

    most: int
    results: tuple[int, ...]
    correlation: int

    @cached_property
    def blocks(self) -> tuple[tuple[str, Terms], ...]:
        """Name of the weights, and terms they belong to, for each result's degree and each order that has any."""
        orders = range(1, self.correlation + 1)
        found = [(f"{degree}_{order}", degree, order) for degree in self.results for order in orders if order > 1 or degree <= self.most]
        return tuple((name, terms(self.most, degree, order)) for name, degree, order in found)

    @cached_property
    def places(self) -> Ints:
        """(t, 4) result and three factors of every term; a factor that is not there is the component after the last, which is one."""
        size, starts, rows = (self.most + 1) ** 2, dict(zip(self.results, self._starts, strict=True)), []
        for name, some in self.blocks:
            count, order = some.factors.shape
            ones = np.full((count, MOST_CORRELATION - order), size)
            # the last place is the innermost loop of the compiled functions, so it holds a factor always
            rows.append(np.concatenate([some.component[:, None] + starts[int(name.split("_")[0])], ones, some.factors], axis=1))
        found: Ints = np.concatenate(rows)
        return found

    @cached_property
    def _starts(self) -> list[int]:
        return np.cumsum([0, *(2 * degree + 1 for degree in self.results)])[:-1].tolist()  # type: ignore[no-any-return]

    @property
    def width(self) -> int:
        """Components of all results."""
        return sum(2 * degree + 1 for degree in self.results)


class ProductBasis(nn.Module):
    """Components of degrees 0 … `most` (N, (most + 1)², K) → for each result's degree (N, 2L + 1, K), with natural parity.

    Parameters
    ----------
    most : highest degree that comes in
    results : degrees that go out
    correlation : most factors of a product, 1 to 3
    elements : how many, each with weights of its own
    channels : K
    """

    folded: Tensor | None

    def __init__(self, most: int, results: Sequence[int], correlation: int, elements: int, channels: int) -> None:
        super().__init__()
        if not 1 <= correlation <= MOST_CORRELATION:
            raise ConfigError(f"correlation {correlation}; expected 1 to {MOST_CORRELATION}")
        self.polynomials = Polynomials(most, tuple(results), correlation)
        self.weights = nn.ParameterDict()
        for name, some in self.polynomials.blocks:
            paths = some.paths.shape[1]
            self.weights[name] = nn.Parameter(torch.randn(elements, paths, channels) / paths)
        self.register_buffer("folded", None, persistent=False)

    def coefficients(self, present: Tensor) -> Tensor:
        """Rows of elements (Z) → (Z, terms, K)."""
        if self.folded is not None:
            return torch.index_select(self.folded, 0, present)
        rows = []
        for name, _ in self.polynomials.blocks:
            weight = self.weights[name]
            rows.append(_paths(self.polynomials, name, weight.dtype, weight.device) @ torch.index_select(weight, 0, present))
        return torch.cat(rows, dim=1)

    def fold(self) -> None:
        """Keep the coefficients of all elements, for good: the network is to learn no more."""
        weight = next(iter(self.weights.values()))
        self.folded = self.coefficients(torch.arange(len(weight), device=weight.device)).detach()

    def forward(self, x: Tensor, kinds: Kinds) -> list[Tensor]:
        """(N, (most + 1)², K) and the atoms' elements → (N, 2L + 1, K) for each result."""
        found = products(self.polynomials, x, self.coefficients(kinds.present), kinds.place)
        return list(found.split([2 * degree + 1 for degree in self.polynomials.results], dim=1))


@cache
def _paths(polynomials: Polynomials, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(dict(polynomials.blocks)[name].paths).to(dtype=dtype, device=device)


def products(polynomials: Polynomials, x: Tensor, coefficients: Tensor, place: Tensor) -> Tensor:
    """The polynomials of every atom.

    Parameters
    ----------
    x : (N, (most + 1)², K)
    coefficients : (rows, terms, K)
    place : (N) which row an atom has

    Returns
    -------
    (N, components of all results, K).
    """
    if _serves(polynomials, x, coefficients):
        return _Values.apply(polynomials, place, x, coefficients)
    return plain(polynomials, x, coefficients, place)


def plain(polynomials: Polynomials, x: Tensor, coefficients: Tensor, place: Tensor) -> Tensor:
    """The same by operations of torch, every term of every atom."""
    result, a, b, c = torch.from_numpy(polynomials.places).to(x.device).T
    with_one = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    monomials = torch.index_select(with_one, 1, a) * torch.index_select(with_one, 1, b) * torch.index_select(with_one, 1, c)
    weighted = monomials * torch.index_select(coefficients, 0, place)
    return x.new_zeros(x.shape[0], polynomials.width, x.shape[2]).index_add(1, result, weighted)


# --- compiled ----------------------------------------------------------------------------------------------------------------------------
# as in the C source
_MOST = 64


class _Work(ctypes.Structure):
    """The argument of the compiled functions, see ``product_basis.c``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("atoms", "components", "results", "terms", "channels", "threads")),
        *((name, ctypes.c_void_p) for name in ("row", "term", "x", "coefficients", "g", "x2", "c2", "values", "g_x", "g_c", "g_g")),
    ]


@cache
def _functions() -> ctypes.CDLL | None:
    found = library("product_basis")
    if found is not None:
        for name in ("basis_values", "basis_slopes", "basis_second"):
            function = getattr(found, name)
            function.argtypes, function.restype = (ctypes.POINTER(_Work), ctypes.c_int64), None
    return found


def _serves(polynomials: Polynomials, x: Tensor, coefficients: Tensor) -> bool:
    """Whether the compiled functions do."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or x.dtype != coefficients.dtype:
        return False
    return not torch.compiler.is_compiling() and max(polynomials.width, x.shape[1]) <= _MOST and _functions() is not None


@cache
def _term_table(polynomials: Polynomials) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.ascontiguousarray(polynomials.places, dtype=np.int32)


def _run(name: str, polynomials: Polynomials, place: Tensor, **tensors: Tensor | None) -> None:
    x = tensors["x"]
    assert x is not None
    atoms, components, channels = x.shape
    terms_ = _term_table(polynomials)
    work = _Work(atoms, components, polynomials.width, len(terms_), channels, torch.get_num_threads())
    work.row, work.term = place.data_ptr(), terms_.ctypes.data
    for key, value in tensors.items():
        setattr(work, key, None if value is None else value.data_ptr())
    found = _functions()
    assert found is not None
    getattr(found, name)(ctypes.byref(work), int(x.dtype == torch.float64))


class _Values(Function):
    @staticmethod
    def forward(ctx: Any, polynomials: Polynomials, place: Tensor, x: Tensor, coefficients: Tensor) -> Tensor:
        ctx.save_for_backward(x, coefficients)  # not the copies below: those have no history
        ctx.polynomials, ctx.place = polynomials, place.contiguous()
        x, coefficients, place = x.contiguous(), coefficients.contiguous(), place.contiguous()
        found = x.new_empty(len(x), polynomials.width, x.shape[2])
        _run("basis_values", polynomials, place, x=x, coefficients=coefficients, values=found)
        return found

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        x, coefficients = ctx.saved_tensors
        wanted = tuple(ctx.needs_input_grad[2:])
        if torch.is_grad_enabled():
            return None, None, *_Slopes.apply(ctx.polynomials, ctx.place, wanted, x, coefficients, g[0])
        return None, None, *_slopes(ctx.polynomials, ctx.place, wanted, x, coefficients, g[0])


def _slopes(polynomials: Polynomials, place: Tensor, wanted: Sequence[bool], x: Tensor, c: Tensor, g: Tensor) -> list[Tensor | None]:
    x, c, g = x.contiguous(), c.contiguous(), g.contiguous()
    g_x, g_c = torch.empty_like(x) if wanted[0] else None, torch.zeros_like(c) if wanted[1] else None
    _run("basis_slopes", polynomials, place, x=x, coefficients=c, g=g, g_x=g_x, g_c=g_c)
    return [g_x, g_c]


class _Slopes(Function):
    """Derivatives of ``Σ B·G`` by components and coefficients, as functions of those and of G."""

    @staticmethod
    def forward(ctx: Any, polynomials: Polynomials, place: Tensor, wanted: tuple[bool, ...], *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.polynomials, ctx.place = polynomials, place
        return tuple(_slopes(polynomials, place, wanted, *tensors))

    @staticmethod
    def backward(ctx: Any, *changes: Tensor | None) -> tuple[Tensor | None, ...]:
        x, c, g = ctx.saved_tensors
        x2, c2 = changes
        if torch.is_grad_enabled():
            return None, None, None, *_again(ctx.polynomials, ctx.place, (x, c, g), (x2, c2))
        x, c, g, c2 = x.contiguous(), c.contiguous(), g.contiguous(), None if c2 is None else c2.contiguous()
        x2 = torch.zeros_like(x) if x2 is None else x2.contiguous()
        g_x, g_c, g_g = torch.empty_like(x), torch.zeros_like(c) if ctx.needs_input_grad[4] else None, torch.empty_like(g)
        named = {"x": x, "coefficients": c, "g": g, "x2": x2, "c2": c2, "g_x": g_x, "g_c": g_c, "g_g": g_g}
        _run("basis_second", ctx.polynomials, ctx.place, **named)
        return None, None, None, g_x, g_c, g_g


def _again(
    polynomials: Polynomials, place: Tensor, point: tuple[Tensor, Tensor, Tensor], change: tuple[Tensor | None, Tensor | None]
) -> list[Tensor | None]:
    """What `_Slopes.backward` gives, differentiable again, by way of the plain version."""
    x, c, g = (one if one.requires_grad else one.detach().requires_grad_() for one in point)
    slopes = torch.autograd.grad((plain(polynomials, x, c, place) * g).sum(), (x, c), create_graph=True)
    total = sum((s * d).sum() for s, d in zip(slopes, change, strict=True) if d is not None)
    return list(torch.autograd.grad(total, (x, c, g), create_graph=True, allow_unused=True))  # type: ignore[arg-type]
