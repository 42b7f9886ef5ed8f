"""The basis of the atomic cluster expansion: radial functions, channels, invariants of products of channels.

Drautz, Phys. Rev. B 99, 014104 (2019); Dusson et al., J. Comput. Phys. 454, 110946 (2022); real harmonics as in `naica.nn.solid`.

An atom's neighbours are summed into channels ``A_k = Σ_j R_n(r_ij) Y_lm(r̂_ij) [z_j = z]``, k = (z n l m). Invariants are polynomials of
them, ``B_b = Σ w A_k1 ⋯ A_kν``, one block per multiset of (z n l): the products couple to total angular momentum 0 and even parity.
Products of one channel commute, so couplings that differ may be the same polynomial, or vanish: each block is reduced to a basis by its
rank.

Every use of the invariants needs the same table, that of their derivatives: ``∂B_b/∂A_k = Σ_x w X_x`` with monomials ``X`` of one order
less. Polynomials of one order are homogeneous, so ``B_b = (1/ν) Σ_k A_k ∂B_b/∂A_k`` (Euler) gives values from derivatives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from naica.nn.solid import harmonics, three_j

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_RANK_TOLERANCE = 1e-9


# --- radial functions --------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Radial:
    """Polynomials p_n(x) that are orthonormal with their envelope: ``∫ p_m p_n f² dr = δ_mn`` over 0.6 r0 … r_c.

    Parameters
    ----------
    slope, offset : (n) of ``p_n = (slope_n x + offset_n) p_{n−1} − back_n p_{n−2}``, p_0 = start
    back : (n)
    start : the constant p_0
    """

    slope: tuple[float, ...]
    offset: tuple[float, ...]
    back: tuple[float, ...]
    start: float


# exponents of the transform: flat like (r/r0)^4 towards r = 0, so that functions do not run away where no data lie; r^−2 far out
STEEPNESS = 20.0 / 26.0


def transform(reduced: float) -> float:
    """``y(s) = 1 / (1 + a s⁴ / (1 + s²))``, s = r / r0, steepest at s = 1."""
    return 1.0 / (1.0 + STEEPNESS * reduced**4 / (1.0 + reduced**2))


@lru_cache(maxsize=64)
def radial(count: int, nearest: float, cutoff: float, envelope: int) -> Radial:
    """The recurrence of `count` orthonormal radial functions (Stieltjes' procedure on 2000 points).

    Parameters
    ----------
    nearest : r0 in Å, where the functions resolve most
    cutoff : Å
    envelope : f = (1 − (r/r_c)²)^envelope
    """
    r = np.linspace(0.6 * nearest, cutoff, 2000)
    y = np.array([transform(s) for s in r / nearest])
    far = transform(cutoff / nearest)
    x = 2.0 * (y - far) / (1.0 - far) - 1.0
    weight = (1.0 - (r / cutoff) ** 2) ** (2 * envelope) * (r[1] - r[0])
    start = float(1.0 / np.sqrt(weight.sum()))
    before, now = np.zeros_like(x), np.full_like(x, start)
    slope, offset, back, last = [], [], [], 0.0
    for _ in range(1, count):
        middle = float((weight * x * now * now).sum())
        raw = (x - middle) * now - last * before
        norm = float(np.sqrt((weight * raw * raw).sum()))
        slope.append(1.0 / norm)
        offset.append(-middle / norm)
        back.append(last / norm)
        before, now, last = now, raw / norm, norm
    return Radial(tuple(slope), tuple(offset), tuple(back), start)


# --- channels and couplings --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Channel:
    """Neighbours of one element (its place in the list of elements), radial function n = 0, 1 …, angular momentum l."""

    element: int
    n: int
    l: int  # noqa: E741

    def degree(self, l_weight: float) -> float:
        """``n + 1 + w l``: what a factor of this channel costs."""
        return self.n + 1 + l_weight * self.l


@cache
def couplings(momenta: tuple[int, ...], same: tuple[int, ...]) -> tuple[Ints, Floats]:
    """Independent invariants of a product of channels.

    Parameters
    ----------
    momenta : l of each factor
    same : for each factor the first factor with the same channel (its own place if there is none before it)

    Returns
    -------
    (t, ν) components m = 0 … 2l of each monomial, and (q, t) weights of the q invariants; monomials are sorted within equal channels
    """
    tensors = [t for t in _invariant_tensors(momenta) if np.abs(t).max() > _RANK_TOLERANCE]
    monomials: dict[tuple[int, ...], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for q, tensor in enumerate(tensors):
        for place in zip(*np.nonzero(np.abs(tensor) > 1e-12), strict=True):
            monomials[_sorted_within(tuple(int(m) for m in place), same)][q] += float(tensor[place])
    if not tensors:
        return np.zeros((0, len(momenta)), np.int64), np.zeros((0, 0))
    names = sorted(monomials)
    weights = np.array([[monomials[name].get(q, 0.0) for name in names] for q in range(len(tensors))])
    if len(tensors) > 1:
        _, sizes, rows = np.linalg.svd(weights, full_matrices=False)
        weights = rows[sizes > _RANK_TOLERANCE * max(sizes[0], 1e-300)] if sizes[0] > _RANK_TOLERANCE else rows[:0]
    weights[np.abs(weights) < 1e-12] = 0.0
    kept = np.abs(weights).max(axis=0, initial=0.0) > 0
    weights = weights[np.abs(weights).max(axis=1, initial=0.0) > _RANK_TOLERANCE]
    return np.array(names, dtype=np.int64).reshape(-1, len(momenta))[kept], weights[:, kept]


def _sorted_within(place: tuple[int, ...], same: tuple[int, ...]) -> tuple[int, ...]:
    groups: dict[int, list[int]] = defaultdict(list)
    for m, first in zip(place, same, strict=True):
        groups[first].append(m)
    queues = {first: iter(sorted(values)) for first, values in groups.items()}
    return tuple(next(queues[first]) for first in same)


def _invariant_tensors(momenta: tuple[int, ...]) -> Iterator[Floats]:
    """Tensors (2l₁+1, 2l₂+1 …) that contract a product of harmonics to a scalar of even parity."""
    if sum(momenta) % 2:
        return
    if len(momenta) == 1:
        if momenta[0] == 0:
            yield np.ones(1)
    elif len(momenta) == 2:
        if momenta[0] == momenta[1]:
            yield np.eye(2 * momenta[0] + 1) / np.sqrt(2 * momenta[0] + 1)
    elif len(momenta) == 3:
        if abs(momenta[0] - momenta[1]) <= momenta[2] <= momenta[0] + momenta[1]:
            yield three_j(*momenta)
    else:
        # the first two couple to L, which couples with the others
        for middle in range(abs(momenta[0] - momenta[1]), momenta[0] + momenta[1] + 1):
            for rest in _tensors_of_any_parity((middle, *momenta[2:])):
                yield np.tensordot(three_j(momenta[0], momenta[1], middle), rest, axes=([2], [0])) * np.sqrt(2 * middle + 1)


def _tensors_of_any_parity(momenta: tuple[int, ...]) -> Iterator[Floats]:
    a, b, c = momenta
    if abs(a - b) <= c <= a + b:
        yield three_j(a, b, c)


@cache
def mirror_classes(l_max: int) -> Ints:
    """(lm) of every harmonic: three bits, whether it changes sign under x → −x, y → −y, z → −z.

    An invariant holds only products that change sign under none: derivatives by a channel hold only monomials of the channel's class.
    """
    point = torch.tensor([0.31, 0.47, 0.83], dtype=torch.float64)
    values = _harmonics(l_max, point)
    bits = np.zeros(len(values), dtype=np.int64)
    for axis in range(3):
        mirrored = point.clone()
        mirrored[axis] *= -1
        bits += (_harmonics(l_max, mirrored) * values < 0).astype(np.int64) << axis
    return bits


def _harmonics(l_max: int, point: torch.Tensor) -> Floats:
    return np.asarray(harmonics(point[:, None] / point.norm(), l_max)[:, 0])


# --- the table ---------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Invariants:
    """All invariants of a set of channels, as derivatives (K components, B invariants).

    Parameters
    ----------
    channels : in the order of their components
    channel_start : (channels) first component of each
    order, degree : (B) correlation order ν and total degree of each invariant
    pairs : (P, 2) components of the monomials of order 2
    triples : (T, 2) monomial of order 2 and component of the monomials of order 3
    entries : for each order ν from 2: (b, k, x, w), ``∂B_b/∂A_k += w X_x``, x counted within the monomials of order ν − 1
    component_class, pair_class, triple_class : mirror class of each
    members : (B) the channels of each invariant
    """

    channels: tuple[Channel, ...]
    channel_start: Ints
    order: Ints
    degree: Floats
    pairs: Ints
    triples: Ints
    entries: dict[int, tuple[Ints, Ints, Ints, Floats]]
    component_class: Ints
    pair_class: Ints
    triple_class: Ints
    members: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.order)

    @property
    def components(self) -> int:
        """K."""
        return len(self.component_class)


@lru_cache(maxsize=16)
def invariants(elements: int, degrees: tuple[float, ...], l_weight: float, l_max: int) -> Invariants:
    """The invariants of orders 2, 3 … whose total degree ``Σ (n + 1 + w l)`` is at most ``degrees[0], degrees[1] …``.

    Order 1 is not among them: it is the pair potential, which has radial functions of its own.
    """
    largest = max(d - order + 1 for order, d in enumerate(degrees, start=2))
    channels = sorted(
        (Channel(e, n, l) for e in range(elements) for l in range(l_max + 1) for n in range(int(max(largest, 0)))),  # noqa: E741
        key=lambda c: (c.degree(l_weight), c.element, c.n, c.l),
    )
    costs = [c.degree(l_weight) for c in channels]
    chosen: dict[int, list[tuple[int, ...]]] = {}
    for order, limit in enumerate(degrees, start=2):
        chosen[order] = [m for m in _multisets(costs, order, limit + 1e-9) if _closes([channels[c].l for c in m])]
    used = sorted({c for found in chosen.values() for m in found for c in m})
    place = {c: i for i, c in enumerate(used)}
    kept = tuple(channels[c] for c in used)
    start = np.concatenate([[0], np.cumsum([2 * c.l + 1 for c in kept])]).astype(np.int64)
    by_l = mirror_classes(max([c.l for c in kept], default=0))
    classes = np.concatenate([by_l[c.l**2 : (c.l + 1) ** 2] for c in kept]) if kept else np.zeros(0, np.int64)
    builder = _Table(kept, start[:-1], classes)
    for order, found in chosen.items():
        builder.add(order, [tuple(place[c] for c in m) for m in found], l_weight)
    return builder.finish()


def _multisets(costs: list[float], order: int, limit: float, first: int = 0) -> Iterator[tuple[int, ...]]:
    """Non-decreasing tuples of channels (sorted by cost) within a total cost."""
    for c in range(first, len(costs)):
        if costs[c] * order > limit:
            return
        if order == 1:
            yield (c,)
        else:
            for rest in _multisets(costs, order - 1, limit - costs[c], c):
                yield (c, *rest)


def _closes(momenta: list[int]) -> bool:
    return sum(momenta) % 2 == 0 and 2 * max(momenta) <= sum(momenta)


class _Table:
    """Collects invariants order by order."""

    def __init__(self, channels: tuple[Channel, ...], start: Ints, classes: Ints) -> None:
        self.channels, self.start, self.classes = channels, start, classes
        self.order: list[int] = []
        self.degree: list[float] = []
        self.members: list[tuple[int, ...]] = []
        self.monomials: dict[int, tuple[Ints, Ints, Floats]] = {}

    def add(self, order: int, blocks: list[tuple[int, ...]], l_weight: float) -> None:
        """Blocks (multisets of channels) of one order; those of one pattern share their couplings."""
        patterns: dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, ...]]] = defaultdict(list)
        for block in blocks:
            momenta = tuple(self.channels[c].l for c in block)
            patterns[momenta, tuple(block.index(c) for c in block)].append(block)
        invariant, components, weight = [], [], []
        for (momenta, same), found in patterns.items():
            places, weights = couplings(momenta, same)
            many = np.array(found)
            for row in weights:
                first = len(self.order)
                self.order += [order] * len(found)
                self.degree += [sum(self.channels[c].degree(l_weight) for c in block) for block in found]
                self.members += found
                some = np.flatnonzero(row)
                ks = self.start[many][:, None, :] + places[some][None]
                invariant.append(np.repeat(np.arange(first, first + len(found)), len(some)))
                components.append(np.sort(ks.reshape(-1, order), axis=1))
                weight.append(np.tile(row[some], len(found)))
        if invariant:
            self.monomials[order] = (np.concatenate(invariant), np.concatenate(components), np.concatenate(weight))

    def finish(self) -> Invariants:
        """Number the monomials of lower order and list the derivatives."""
        size = max(len(self.classes), 1)
        pair_codes: list[Ints] = []
        triple_codes: list[Ints] = []
        raw: dict[int, tuple[Ints, Ints, Ints, Floats]] = {}
        for order, (b, ks, w) in self.monomials.items():
            left = [np.delete(ks, t, axis=1) for t in range(order)]
            code = np.concatenate([_encode(rest, size) for rest in left])
            raw[order] = (np.tile(b, order), ks.T.reshape(-1), code, np.tile(w, order))
            if order == 3:
                pair_codes.append(code)
            if order == 4:
                triple_codes.append(code)
                pair_codes.append(code // size)
        triples = np.unique(np.concatenate(triple_codes)) if triple_codes else np.zeros(0, np.int64)
        pairs = np.unique(np.concatenate(pair_codes)) if pair_codes else np.zeros(0, np.int64)
        pair_class = self.classes[pairs // size] ^ self.classes[pairs % size] if len(pairs) else pairs
        # by class, so that the products with one class's derivatives are one matrix product
        by_class = np.lexsort((pairs, pair_class))
        pairs, pair_class = pairs[by_class], pair_class[by_class]
        parent = _find(pairs, triples // size)
        triple_class = pair_class[parent] ^ self.classes[triples % size] if len(triples) else triples
        order_of_triples = np.lexsort((triples, triple_class))
        triples, triple_class, parent = triples[order_of_triples], triple_class[order_of_triples], parent[order_of_triples]
        lists = {2: np.arange(size), 3: pairs, 4: triples}
        entries = {order: _merged(b, k, _find(lists[order], code), w) for order, (b, k, code, w) in raw.items()}
        return Invariants(
            self.channels,
            self.start,
            np.array(self.order, dtype=np.int64),
            np.array(self.degree),
            np.stack([pairs // size, pairs % size], axis=1),
            np.stack([parent, triples % size], axis=1),
            entries,
            self.classes,
            pair_class,
            triple_class,
            tuple(self.members),
        )


def _encode(ks: Ints, size: int) -> Ints:
    code = np.zeros(len(ks), dtype=np.int64)
    for column in ks.T:
        code = code * size + column
    return code


def _find(known: Ints, wanted: Ints) -> Ints:
    """Places of `wanted` in an unsorted list of distinct numbers."""
    order = np.argsort(known, kind="stable")
    return order[np.searchsorted(known[order], wanted)] if len(known) else np.zeros(len(wanted), np.int64)


def _merged(b: Ints, k: Ints, x: Ints, w: Floats) -> tuple[Ints, Ints, Ints, Floats]:
    """Equal (b, k, x) added up, sorted."""
    order = np.lexsort((x, k, b))
    b, k, x, w = b[order], k[order], x[order], w[order]
    new = np.ones(len(b), dtype=bool)
    new[1:] = (b[1:] != b[:-1]) | (k[1:] != k[:-1]) | (x[1:] != x[:-1])
    starts = np.flatnonzero(new)
    return b[starts], k[starts], x[starts], np.add.reduceat(w, starts) if len(starts) else w
