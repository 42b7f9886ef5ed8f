"""ACE: the atomic cluster expansion as a local, linear potential.

Drautz, Phys. Rev. B 99, 014104 (2019). The energy of an atom is linear in invariants of its neighbours::

    A_znlm = Σ_j R_n(r_ij) Y_lm(r̂_ij) [z_j = z],   E_i = Σ_zn p_n Σ_j U_n(r_ij) [z_j = z] + Σ_b c_b B_b(A),   c, p by the element of i

B are all independent products of 2, 3 … of the A that do not change under rotations and mirrors (`naica.nn.ace_basis`); U are the radial
functions of the pair potential, which stands for the products of one. Close to r = 0, where no data lie, a screened Coulomb repulsion
(``core``) takes over: it is added, and what was learned fades out for an atom whose repulsion exceeds an energy (Lysogorskiy et al., npj
Comput. Mater. 7, 97 (2021)), so that products of many close neighbours can not win over it.

The energy is evaluated as the polynomial it is: ``∂E/∂A_k = Σ_x D_kx X_x`` with monomials X of lower order, as one matrix product per
mirror class, and E from that by Euler's theorem on homogeneous functions. No invariant is formed unless it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function

from naica.errors import ConfigError, InputError
from naica.graphs import Batch, GraphSpec
from naica.nn.ace_basis import STEEPNESS, Invariants, Radial, invariants, radial, transform
from naica.nn.solid import harmonics
from naica.structure.elements import element

# atoms worked on at a time: what belongs to them stays in the cache
_CHUNK = 64


class ACE(nn.Module):
    """Radial functions, densities, invariants, coefficients. ``coefficients`` (elements, invariants) are its only weights."""

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        elements : symbols; others are refused
        cutoff : Å
        degrees : largest total degree ``Σ (n + 1 + l_weight · l)`` of products of 2, 3 (and 4) densities
        l_weight, l_max : price of an angular momentum against that of a radial function; the largest one
        pair_functions, pair_cutoff : radial functions of the pair potential; its cut-off in Å (None: `cutoff`)
        sizes : half of the distance of nearest neighbours in Å, one per element; () stands for covalent radii
        envelope : functions go to zero like ``(1 − (r/r_c)²)^envelope``; 2 for continuous forces, 3 for continuous force constants
        core : what repels at short range
        core_range : where the repulsion has faded out, as a share of r0
        core_energy : eV, repulsion of an atom at which nothing of what was learned is left
        """

        elements: tuple[str, ...] = ("Si",)
        cutoff: float = 5.5
        degrees: tuple[float, ...] = (18.0, 14.0)
        l_weight: float = 1.5
        l_max: int = 8
        pair_functions: int = 14
        pair_cutoff: float | None = None
        sizes: tuple[float, ...] = ()
        envelope: int = 2
        core: Literal["zbl", "none"] = "zbl"
        core_range: float = 0.7
        core_energy: float = 1.0

        def __post_init__(self) -> None:
            for name in ("elements", "degrees", "sizes"):  # lists are what JSON gives back
                object.__setattr__(self, name, tuple(getattr(self, name)))
            if not self.elements or len(set(self.elements)) != len(self.elements):
                raise ConfigError(f"elements {', '.join(self.elements) or '(none)'}; expected at least one, each once")
            if not 1 <= len(self.degrees) <= 3:
                raise ConfigError(f"{len(self.degrees)} degrees; expected those of products of 2, 3 and 4: one to three numbers")
            if self.sizes and len(self.sizes) != len(self.elements):
                raise ConfigError(f"{len(self.sizes)} sizes for {len(self.elements)} elements; expected one each, or none")
            if self.core not in ("zbl", "none") or self.envelope < 2 or self.pair_functions < 1 or self.l_max < 0:
                raise ConfigError(
                    f"core {self.core!r}, envelope {self.envelope}, {self.pair_functions} pair functions, l_max {self.l_max}; "
                    "expected zbl or none, at least 2, at least 1, at least 0"
                )
            if not 0 < self.cutoff <= 20 or not 0 < (self.pair_cutoff or self.cutoff) <= 20:
                raise ConfigError(f"cut-offs {self.cutoff} and {self.pair_cutoff} Å; expected more than 0 and at most 20 Å")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        numbers = [element(symbol).number for symbol in c.elements]
        place = torch.full((119,), -1, dtype=torch.long)
        place[numbers] = torch.arange(len(numbers))
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("numbers", torch.tensor(numbers), persistent=False)
        sizes = np.array(c.sizes or [element(symbol).covalent_radius for symbol in c.elements])
        self.register_buffer("nearest", torch.from_numpy(sizes[:, None] + sizes[None, :]), persistent=False)
        self.mean_nearest = float(2 * sizes.mean())
        self.invariants = invariants(len(numbers), c.degrees, c.l_weight, c.l_max)
        channels = self.invariants.channels
        self.radial_count = 1 + max((channel.n for channel in channels), default=0)
        self.l_max = max((channel.l for channel in channels), default=0)
        self.radial = radial(self.radial_count, self.mean_nearest, c.cutoff, c.envelope)
        self.pair_cutoff = c.pair_cutoff or c.cutoff
        self.pair_radial = radial(c.pair_functions, self.mean_nearest, self.pair_cutoff, c.envelope)
        self.pairs = len(numbers) * c.pair_functions
        self.polynomial = Polynomial(self.invariants, self.radial_count, self.l_max)
        self.coefficients = nn.Parameter(0.1 * torch.randn(len(numbers), self.width) / torch.from_numpy(self.costs).float() ** 2)

    @property
    def width(self) -> int:
        """Invariants of one atom, those of the pair potential first."""
        return self.pairs + len(self.invariants)

    @property
    def costs(self) -> np.ndarray:
        """(width) total degree of each invariant."""
        pair = np.tile(np.arange(1.0, self.config.pair_functions + 1), len(self.config.elements))
        return np.concatenate([pair, self.invariants.degree])

    @property
    def orders(self) -> np.ndarray:
        """(width) how many densities each invariant multiplies; 1 for the pair potential."""
        return np.concatenate([np.ones(self.pairs, dtype=np.int64), self.invariants.order])

    @property
    def needs(self) -> GraphSpec:
        """The graph it reads."""
        return GraphSpec("radius", max(self.config.cutoff, self.pair_cutoff))

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.width}

    @property
    def smooth(self) -> bool:
        """Continuous with the first derivative: always."""
        return True

    @property
    def reads_energy(self) -> bool:
        """Energies of atoms come with the features."""
        return True

    def forward(self, batch: Batch) -> Features:
        """A batch of graphs → ``energy`` (N) and, where asked for, ``atom`` (N, width), the invariants.

        Raises
        ------
        InputError
            If an element is not among those of the configuration.
        """
        kinds = self.kinds_of(batch)
        around = Surroundings.of(batch, kinds, self.needs.cutoff)
        pair, density = self.sums(around)
        core = self.core_energy(around)
        energy = torch.zeros_like(core)
        tracked = self.coefficients.requires_grad and torch.is_grad_enabled()
        for kind, atoms in self.by_kind(kinds):
            row = self.coefficients[kind]
            part = (pair if atoms is None else pair[atoms]) @ row[: self.pairs]
            part = part + self.polynomial(density if atoms is None else density[atoms], row[self.pairs :], kind, tracked)
            energy = energy + part if atoms is None else energy.index_add(0, atoms, part)
        energy = energy * self.gate(core) + core
        return Features(energy, lambda: torch.cat([pair, self.polynomial.invariants(density)], dim=1))

    def kinds_of(self, batch: Batch) -> Tensor:
        """(N) the place of each atom's element in the list of elements."""
        kinds = cast(Tensor, self.place)[batch["number"]]
        if len(kinds) and int(kinds.min()) < 0:
            from naica.structure.elements import symbol

            strange = sorted({symbol(int(z)) for z in batch["number"][kinds < 0]})
            raise InputError(f"{', '.join(strange)}: not among this potential's elements ({', '.join(self.config.elements)})")
        return kinds

    def by_kind(self, kinds: Tensor) -> list[tuple[int, Tensor | None]]:
        """The atoms of each element that occurs; None stands for all."""
        if len(self.config.elements) == 1:
            return [(0, None)]
        found = [(kind, torch.nonzero(kinds == kind)[:, 0]) for kind in range(len(self.config.elements))]
        return [(kind, atoms) for kind, atoms in found if len(atoms)]

    def sums(self, around: Surroundings) -> tuple[Tensor, Tensor]:
        """Sums over neighbours: pair functions (N, elements · pair functions), densities (N, elements · radial functions, lm)."""
        n, slots = around.shape
        unit = around.vectors / around.length
        r0 = self.r0(around)
        if self.pair_cutoff == self.config.cutoff:
            # the same functions, only of different number
            longer = max(self.pair_radial, self.radial, key=lambda recurrence: len(recurrence.slope))
            functions = radial_functions(around.length, r0, longer, self)
            pair, radials = functions[: self.config.pair_functions], functions[: self.radial_count]
        else:
            pair = radial_functions(around.length, r0, self.pair_radial, self, pair=True)
            radials = radial_functions(around.length, r0, self.radial, self)
        pair_sums = self.by_element(pair, around).reshape(-1, n, slots).sum(2).T
        radials = self.by_element(radials, around)
        angular = harmonics(unit, self.l_max)
        density = torch.bmm(radials.view(-1, n, slots).permute(1, 0, 2), angular.view(-1, n, slots).permute(1, 2, 0))
        return pair_sums, density

    def radial_pair(self, length: Tensor, r0: Tensor | float, pair: bool = False) -> tuple[Tensor, Tensor]:
        """Radial functions (n, M) and their slopes, without a graph."""
        with torch.enable_grad():
            leaf = length.detach().requires_grad_()
            values = radial_functions(leaf, r0, self.pair_radial if pair else self.radial, self, pair)
            # the adjoint is linear in its weight, and its slope by the weight is what is wanted: two passes for all functions
            weight = torch.ones_like(values).requires_grad_()
            (adjoint,) = torch.autograd.grad(values, leaf, weight, create_graph=True)
            (slopes,) = torch.autograd.grad(adjoint.sum(), weight)
        return values.detach(), slopes

    def r0(self, around: Surroundings) -> Tensor | float:
        """Distance of nearest neighbours, of each pair of atoms or of all."""
        if len(self.config.elements) == 1:
            return self.mean_nearest
        return cast(Tensor, self.nearest).to(around.length)[around.receiver_kind, around.sender_kind]

    def by_element(self, functions: Tensor, around: Surroundings) -> Tensor:
        """Radial functions (n, M) → (elements · n, M), zero for neighbours of another element."""
        if len(self.config.elements) == 1:
            return functions
        return torch.cat([functions * (around.sender_kind == kind) for kind in range(len(self.config.elements))])

    def core_energy(self, around: Surroundings) -> Tensor:
        """(N) half of the repulsion of each atom's pairs, eV."""
        n, slots = around.shape
        none = around.length.new_zeros(n)
        if self.config.core == "none":
            return none
        outer = self.r0(around) * self.config.core_range
        near = torch.nonzero(around.length < outer)[:, 0]
        if not len(near):
            return none
        numbers = cast(Tensor, self.numbers)
        first, second = (numbers[kind[near]] for kind in (around.receiver_kind, around.sender_kind))
        outer = outer[near] if isinstance(outer, Tensor) else outer
        return none.index_add(0, near // slots, 0.5 * zbl_energy(around.length[near], first, second, 0.5 * outer, outer))

    def gate(self, core: Tensor) -> Tensor:
        """What is left of the learned energy of atoms with some repulsion (N): from 1 to 0 with two derivatives."""
        t = (core / self.config.core_energy).clamp(0.0, 1.0)
        return 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t * t)


class Features(dict[str, Tensor]):
    """``energy`` (N) is there; ``atom``, the invariants (N, width), are formed when first asked for."""

    def __init__(self, energy: Tensor, form: Any) -> None:
        super().__init__(energy=energy)
        self._form = form

    def __missing__(self, key: str) -> Tensor:
        if key != "atom":
            raise KeyError(key)
        self["atom"] = self._form()
        return self["atom"]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Neighbours in a rectangle of atoms × slots (M = N · slots); in an empty slot is one at the cut-off, where all functions are zero.

    Parameters
    ----------
    shape : atoms, slots
    vectors, length : (3, M) and (M), Å
    receiver_kind, sender_kind : (M) places in the list of elements
    slot : (E) where each edge went
    """

    shape: tuple[int, int]
    vectors: Tensor
    length: Tensor
    receiver_kind: Tensor
    sender_kind: Tensor
    slot: Tensor

    @classmethod
    def of(cls, batch: Batch, kinds: Tensor, cutoff: float) -> Surroundings:
        """Of a batch whose edges are sorted by receiver."""
        n, receiver, vector = len(kinds), batch["edge_receiver"], batch["edge_vector"]
        counts = torch.bincount(receiver, minlength=n)
        slots = max(int(counts.max()) if n else 0, 1)
        first = torch.cumsum(counts, 0) - counts
        slot = torch.arange(len(receiver), device=receiver.device) + receiver * slots - torch.index_select(first, 0, receiver)
        empty = vector.new_zeros(n * slots, 3)
        empty[:, 0] = cutoff
        vectors = empty.index_copy(0, slot, vector).T.contiguous()
        sender_kind = torch.zeros(n * slots, dtype=torch.long, device=receiver.device)
        sender_kind[slot] = torch.index_select(kinds, 0, batch["edge_sender"])
        length = vectors.square().sum(0).sqrt()
        return cls((n, slots), vectors, length, kinds.repeat_interleave(slots), sender_kind, slot)


# --- radial functions --------------------------------------------------------------------------------------------------------------------
class _Recurrence(Function):
    """Derivative of some order of all polynomials of a recurrence at x (M): (n, M)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, recurrence: Radial, order: int) -> Tensor:
        ctx.recurrence, ctx.order = recurrence, order
        ctx.save_for_backward(x)
        return _polynomials(x, recurrence, order)[order]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return (grad * _Recurrence.apply(x, ctx.recurrence, ctx.order + 1)).sum(0), None, None


def _polynomials(x: Tensor, recurrence: Radial, order: int) -> list[Tensor]:
    """Values and derivatives up to `order`, (n, M) each."""
    found = [x.new_zeros(1 + len(recurrence.slope), len(x)) for _ in range(order + 1)]
    found[0][0] = recurrence.start
    for n, (slope, offset, back) in enumerate(zip(recurrence.slope, recurrence.offset, recurrence.back, strict=True), start=1):
        factor = slope * x + offset
        for k, rows in enumerate(found):
            torch.mul(factor, rows[n - 1], out=rows[n])
            if k:
                rows[n].add_(found[k - 1][n - 1], alpha=slope * k)
            if n > 1:
                rows[n].sub_(rows[n - 2], alpha=back)
    return found


def radial_functions(length: Tensor, r0: Tensor | float, recurrence: Radial, model: ACE, pair: bool = False) -> Tensor:
    """(n, M): polynomials of the transformed distance times the envelope; zero beyond the cut-off."""
    cutoff = model.pair_cutoff if pair else model.config.cutoff
    square = (length / r0).square()
    far = transform(cutoff / model.mean_nearest)
    y = 1.0 / (1.0 + STEEPNESS * square * square / (1.0 + square))
    x = (y - far) * (2.0 / (1.0 - far)) - 1.0
    inside = (1.0 - (length / cutoff).square()).clamp(min=0.0)
    return _Recurrence.apply(x, recurrence, 0) * inside**model.config.envelope


def zbl_energy(length: Tensor, number_i: Tensor, number_j: Tensor, inner: Tensor | float, outer: Tensor | float) -> Tensor:
    """(M) eV: the universal screened repulsion of two nuclei, faded out between two distances with two derivatives."""
    a, b = number_i.to(length.dtype), number_j.to(length.dtype)
    reduced = length * (a.pow(0.23) + b.pow(0.23)) / 0.46850
    screening = sum(weight * torch.exp(-rate * reduced) for weight, rate in _SCREENING)
    t = ((length - inner) / (outer - inner)).clamp(0.0, 1.0)
    fade = 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t * t)
    return 14.399645 * a * b / length * screening * fade


_SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


# --- the polynomial ----------------------------------------------------------------------------------------------------------------------
class Polynomial(nn.Module):
    """``Σ_b c_b B_b`` of densities, and what it needs: monomials, and their weights as matrices between mirror classes."""

    def __init__(self, table: Invariants, radial_count: int, l_max: int) -> None:
        super().__init__()
        self.table = table
        width = (l_max + 1) ** 2
        component = [(c.element * radial_count + c.n) * width + c.l**2 + m for c in table.channels for m in range(2 * c.l + 1)]
        # components in the order of their classes, like the monomials
        by_class = np.argsort(table.component_class, kind="stable")
        rank = np.argsort(by_class)
        self._index("select", np.array(component, dtype=np.int64)[by_class])
        self._index("first", rank[table.pairs[:, 0]])
        self._index("second", rank[table.pairs[:, 1]])
        self._index("parent", table.triples[:, 0])
        self._index("third", rank[table.triples[:, 1]])
        self.ends = [_ends(c) for c in (table.component_class[by_class], table.pair_class, table.triple_class)]
        self.orders = tuple(sorted(table.entries))
        self.blocks: list[tuple[int, int, int, int]] = []  # order, class, rows, columns
        self.count = table.components
        self._weights(rank)
        self._cache: dict[tuple[int, torch.dtype], tuple[int, int, list[Tensor]]] = {}

    def _index(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)), persistent=False)

    def _weights(self, rank: np.ndarray) -> None:
        """Where each term of a derivative stands in the matrices, written one after the other."""
        places, owners, weights, size = [], [], [], 0
        of_rank = np.zeros(self.count, dtype=np.int64)
        of_rank[rank] = self.table.component_class
        for order in self.orders:
            b, k, x, w = self.table.entries[order]
            row, column = rank[k], rank[x] if order == 2 else x
            for mirror in range(8):
                rows, columns = self.ends[0][mirror], self.ends[order - 2][mirror]
                here = np.flatnonzero(of_rank[row] == mirror)
                if not len(here):
                    continue
                many = columns[1] - columns[0]
                places.append(size + (row[here] - rows[0]) * many + column[here] - columns[0])
                owners.append(b[here])
                weights.append(w[here])
                self.blocks.append((order, mirror, rows[1] - rows[0], many))
                size += (rows[1] - rows[0]) * many
        self.size = size
        empty = [np.zeros(0, np.int64)]
        self._index("places", np.concatenate(places or empty))
        self._index("owners", np.concatenate(owners or empty))
        self.register_buffer("weights", torch.from_numpy(np.concatenate(weights or [np.zeros(0)])), persistent=False)

    def forward(self, density: Tensor, coefficients: Tensor, kind: int, tracked: bool) -> Tensor:
        """Densities (N, n, lm) → energies (N); `tracked` where the coefficients are to be learned by gradients."""
        flat = density.reshape(len(density), -1)
        if not self.orders:
            return flat.new_zeros(len(flat))
        if tracked:
            return self._value(torch.index_select(flat, 1, self.select).T, self._matrices(coefficients))  # type: ignore[arg-type]
        return _Value.apply(flat, self, self._kept_matrices(coefficients, kind))  # type: ignore[no-any-return]

    def _matrices(self, coefficients: Tensor) -> list[Tensor]:
        """The matrix of each block."""
        terms = cast(Tensor, self.weights).to(coefficients) * torch.index_select(coefficients, 0, cast(Tensor, self.owners))
        flat = coefficients.new_zeros(self.size).index_add(0, cast(Tensor, self.places), terms)
        parts = flat.split([rows * columns for _, _, rows, columns in self.blocks])
        return [part.view(rows, columns) for part, (_, _, rows, columns) in zip(parts, self.blocks, strict=True)]

    def _kept_matrices(self, coefficients: Tensor, kind: int) -> list[Tensor]:
        key = (kind, coefficients.dtype)
        state = (coefficients.data_ptr(), coefficients._version)
        if key not in self._cache or self._cache[key][:2] != state:
            with torch.no_grad():
                self._cache[key] = (*state, self._matrices(coefficients.detach()))
        return self._cache[key][2]

    def monomials(self, a: Tensor) -> dict[int, Tensor]:
        """Components (K, N) by class → monomials of one order less, by the order of the invariants they are in."""
        found = {2: a}
        if self.orders[-1] > 2:
            found[3] = torch.index_select(a, 0, cast(Tensor, self.first)) * torch.index_select(a, 0, cast(Tensor, self.second))
        if self.orders[-1] > 3:
            found[4] = torch.index_select(found[3], 0, cast(Tensor, self.parent)) * torch.index_select(a, 0, cast(Tensor, self.third))
        return found

    def slopes(self, a: Tensor, matrices: list[Tensor]) -> dict[int, Tensor]:
        """Components (K, N) by class → derivative by each of them (K, N), by order."""
        known = self.monomials(a)
        found: dict[int, list[Tensor]] = {order: [a.new_zeros(r[1] - r[0], a.shape[1]) for r in self.ends[0]] for order in self.orders}
        for matrix, (order, mirror, _, _) in zip(matrices, self.blocks, strict=True):
            start, stop = self.ends[order - 2][mirror]
            found[order][mirror] = matrix @ known[order][start:stop]
        return {order: torch.cat(parts) for order, parts in found.items()}

    def _value(self, a: Tensor, matrices: list[Tensor]) -> Tensor:
        by_order = self.slopes(a, matrices)
        return sum(((a * slope).sum(0) / order for order, slope in by_order.items()), start=a.new_zeros(a.shape[1]))

    def invariants(self, density: Tensor) -> Tensor:
        """Densities (N, n, lm) → all invariants (N, B)."""
        a = torch.index_select(density.reshape(len(density), -1), 1, cast(Tensor, self.select)).T
        if not self.orders:
            return a.new_zeros(a.shape[1], 0)
        values = a.new_zeros(len(self.table), a.shape[1])
        known = self.monomials(a)
        for order, terms in self.derivatives().items():
            b, k, x, w = (torch.from_numpy(t).to(a.device) for t in terms)
            parts = torch.index_select(known[order], 0, x) * torch.index_select(a, 0, k) * (w.to(a.dtype) / order)[:, None]
            values = values.index_add(0, b, parts)
        return values.T

    def derivatives(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """By order: invariant, component and monomial (both by class) and weight of every term of a derivative."""
        rank = np.argsort(np.argsort(self.table.component_class, kind="stable"))
        return {order: (b, rank[k], rank[x] if order == 2 else x, w) for order, (b, k, x, w) in sorted(self.table.entries.items())}


class _Value(Function):
    """The polynomial at fixed coefficients; its derivative is at hand when its value is."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, polynomial: Polynomial, matrices: list[Tensor]) -> Tensor:
        values, slopes = [], []
        for part in flat.split(_CHUNK):
            a = torch.index_select(part, 1, cast(Tensor, polynomial.select)).T.contiguous()
            by_order = polynomial.slopes(a, matrices)
            values.append(sum((torch.linalg.vecdot(a, s, dim=0) / order for order, s in by_order.items()), start=a.new_zeros(a.shape[1])))
            slopes.append(sum(by_order.values(), start=torch.zeros_like(a)))
        ctx.polynomial, ctx.matrices = polynomial, matrices
        ctx.slope = torch.cat(slopes, dim=1)
        ctx.save_for_backward(flat)
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (flat,) = ctx.saved_tensors
        select, slope = ctx.polynomial.select, ctx.slope
        if torch.is_grad_enabled():
            a = torch.index_select(flat, 1, select).T
            slope = sum(ctx.polynomial.slopes(a, ctx.matrices).values(), start=torch.zeros_like(a))
        return torch.zeros_like(flat).index_copy(1, select, slope.T * grad[:, None]), None, None


def _ends(classes: np.ndarray) -> list[tuple[int, int]]:
    """First and last place of each mirror class in a list sorted by them."""
    edges = np.searchsorted(classes, np.arange(9))
    return [(int(a), int(b)) for a, b in pairwise(edges)]
