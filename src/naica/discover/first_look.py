"""The first look at ten million candidates: a formation energy from two numbers per pair of elements, looked up in tables.

For atomic fractions x and elements z the energy per atom is a sum over pairs (a Redlich–Kister expansion to second order)::

    E = Σ_{i<j} 4 x_i x_j [ T0(z_i, z_j) + (x_i − x_j) T1(z_i, z_j) + (x_i − x_j)² T2(z_i, z_j) ]

T0 and T2 are symmetric, T1 changes sign when its elements are exchanged; pure elements have E = 0 by construction. The tables are fitted in
two steps of ridge regression: what smooth functions of the elements' properties can say, so that rarely seen pairs have an estimate, then
what each pair deviates from it. It knows nothing of structure and sees three elements only by their pairs, so it is there to throw away
nine candidates of ten, not to judge the tenth; ``benchmarks/campaign_scale.py`` measures what it costs and what it loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from naica.discover.compositions import Formulas, OxidationRule
from naica.discover.hull import Hull
from naica.discover.proportions import amounts_table
from naica.discover.volume import electronegativities
from naica.errors import InputError
from naica.structure.elements import element, table

Array = NDArray[np.float64]

_N = 104
_TERMS = 3
_SMOOTH_RIDGE = 1e-5  # of the mean square of a feature, per row
_PAIR_RIDGE = 0.3
_ITERATIONS = 60
_LEAST_SEEN = 2  # formulas with a pair, below which it is taken not to bind


@dataclass(frozen=True, eq=False)
class PairEnergies:
    """Tables (3, 104, 104) in eV/atom by atomic number; index 0 stands for an empty place and is zero.

    `error` is the mean absolute error on formulas held out of the fit (NaN if none were), `rows` the formulas fitted.
    """

    tables: NDArray[np.float32]
    error: float = float("nan")
    rows: int = 0

    def __post_init__(self) -> None:
        if self.tables.shape != (_TERMS, _N, _N):
            raise InputError(f"pair tables of shape {self.tables.shape}; expected ({_TERMS}, {_N}, {_N})")

    def energy(self, numbers: NDArray[np.integer], fractions: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n,) eV/atom for elements (n, k), 0 where a formula has fewer, and their atomic fractions (n, k)."""
        flat = self.tables.reshape(_TERMS, -1)
        z, x = numbers.astype(np.int32), fractions.astype(np.float32)
        out = np.zeros(len(z), dtype=np.float32)
        for i, j in combinations(range(z.shape[1]), 2):
            place, apart = z[:, i] * _N + z[:, j], x[:, i] - x[:, j]
            out += 4 * x[:, i] * x[:, j] * (flat[0][place] + apart * (flat[1][place] + apart * flat[2][place]))
        return out

    def of(self, formulas: Sequence[str]) -> NDArray[np.float32]:
        """(n,) eV/atom of formulas."""
        numbers, fractions = _as_pairs(formulas)
        return self.energy(numbers, fractions)

    @classmethod
    def fit(cls, formulas: Sequence[str], energies: Array, held_out: NDArray[np.bool_] | None = None) -> PairEnergies:
        """Fit to formation energies per atom (n,); `held_out` rows (n,) are left out and judge the fit.

        Raises
        ------
        InputError
            If there is nothing to fit, or an energy is not finite.
        """
        from scipy.sparse.linalg import lsqr

        values = np.asarray(energies, dtype=np.float64)
        aside = np.zeros(len(values), dtype=bool) if held_out is None else np.asarray(held_out, dtype=bool)
        if len(values) != len(formulas) or not np.isfinite(values).all() or not (~aside).any():
            raise InputError(
                f"{len(formulas)} formulas and {np.isfinite(values).sum()} finite energies to fit; expected as many, at least one"
            )
        numbers, fractions = _as_pairs(formulas)
        pairs = _design(numbers[~aside], fractions[~aside])
        smooth = pairs @ _smooth()
        gram = smooth.T @ smooth
        ridge = _SMOOTH_RIDGE * len(smooth) * np.eye(len(gram)) * max(float(np.diag(gram).mean()) / len(smooth), 1e-12)
        weights = np.linalg.solve(gram + ridge, smooth.T @ values[~aside])
        own = lsqr(pairs, values[~aside] - smooth @ weights, damp=_PAIR_RIDGE, iter_lim=_ITERATIONS)[0]
        entries = (_smooth() @ weights + own).reshape(_TERMS, -1)
        # what smooth functions say of pairs that no compound holds (K–Kr) is extrapolation; such pairs are taken not to bind
        seen = np.bincount(pairs[:, : entries.shape[1]].indices, minlength=entries.shape[1])
        entries[:, seen < _LEAST_SEEN] = 0
        made = cls(_unfolded(entries), rows=int((~aside).sum()))
        if aside.any():
            error = float(np.abs(made.energy(numbers[aside], fractions[aside]) - values[aside]).mean())
            made = cls(made.tables, error, made.rows)
        return made


@cache
def shipped() -> PairEnergies:
    """The tables that come with naica: fitted by ``benchmarks/campaign_scale.py --fit`` to formulas of the Materials Project (PBE)."""
    with (files("naica.discover") / "pair_energies.npz").open("rb") as handle, np.load(handle) as raw:
        return PairEnergies(raw["tables"].astype(np.float32), float(raw["error"]), int(raw["rows"]))


def complete_hull(formulas: Sequence[str], energies: Array, pairs: PairEnergies, elements: Sequence[str], margin: float = 0.1) -> Hull:
    """A hull of known formation energies (eV/atom) whose gaps are filled: what to measure a first look against.

    A table of known phases that lacks GdF3 puts every fluoride of gadolinium far below its hull; a ranking by distance would be made of
    such gaps. So each binary formula that balances strictly and is not in the table stands in it at its predicted energy plus `margin`,
    about the error of the prediction. Elements are at zero.
    """
    have = set(formulas)
    absent = list(Formulas(tuple(elements), (2,), OxidationRule(relaxed=0, zero="none"), known=frozenset(have)))
    guessed = pairs.of(absent).astype(np.float64) + margin if absent else np.zeros(0)
    below = guessed < 0
    names = [*formulas, *elements, *(f for f, b in zip(absent, below, strict=True) if b)]
    return Hull(names, np.concatenate([np.asarray(energies, dtype=np.float64), np.zeros(len(elements)), guessed[below]]))


@dataclass(frozen=True, eq=False)
class BinaryHulls:
    """What the binary systems alone allow: hull energies (104, 104, GRID + 1) in eV/atom of each pair at evenly spaced fractions of the
    second element. An upper bound of the hull for any formula, by table look-up.
    """

    tables: NDArray[np.float32]

    @classmethod
    def of(cls, hull: Hull) -> BinaryHulls:
        """From the binary entries of a hull of formation energies."""
        numbers = np.array([element(s).number for s in hull.elements])
        energies = hull.formation_energies()
        points: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for row in np.flatnonzero(((hull.counts > 0).sum(axis=1) == 2) & (energies < 0)).tolist():
            i, j = np.flatnonzero(hull.counts[row])
            x = float(hull.counts[row, j] / hull.counts[row].sum())
            points.setdefault((int(numbers[i]), int(numbers[j])), []).append((x, float(energies[row])))
        grid = np.linspace(0, 1, GRID + 1)
        tables = np.zeros((_N, _N, GRID + 1), dtype=np.float32)
        for (a, b), own in points.items():
            corners = np.array(_lower(sorted([(0.0, 0.0), *own, (1.0, 0.0)])))
            tables[a, b] = np.interp(grid, corners[:, 0], corners[:, 1])
            tables[b, a] = tables[a, b, ::-1]
        return cls(tables)

    def bound(self, numbers: NDArray[np.integer], fractions: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n,) eV/atom that a formula reaches as a mixture of binaries: its most electronegative element is shared out among the others in
        proportion to their amounts and highest states. Elements (n, k), 0 for none, and fractions (n, k).
        """
        z, x = numbers.astype(np.int64), fractions.astype(np.float32)
        rows = np.arange(len(z))
        anion = np.where(x > 0, _negativity()[z], -np.inf).argmax(axis=1)
        share = x * _highest_state()[z]
        share[rows, anion] = 0
        share *= (x[rows, anion] / np.maximum(share.sum(axis=1), 1e-9))[:, None]
        out = np.zeros(len(z), dtype=np.float32)
        flat, partner = self.tables.reshape(-1), z[rows, anion]
        for k in range(z.shape[1]):
            amount = np.where(share[:, k] > 0, x[:, k] + share[:, k], 1)
            place = share[:, k] / amount * GRID
            low = np.minimum(place.astype(np.int64), GRID - 1)
            at = (z[:, k] * _N + partner) * (GRID + 1) + low
            # between two points of the grid the chord lies above the hull, so this is a bound still
            out += np.where(share[:, k] > 0, amount * (flat[at] + (place - low) * (flat[at + 1] - flat[at])), 0)
        return out


GRID = 60


def _lower(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the lower convex hull of points sorted by x (Andrew's chain)."""
    chain: list[tuple[float, float]] = []
    for x, y in points:
        while len(chain) > 1 and (chain[-1][1] - chain[-2][1]) * (x - chain[-2][0]) >= (y - chain[-2][1]) * (chain[-1][0] - chain[-2][0]):
            chain.pop()
        if chain and chain[-1][0] == x:
            if y >= chain[-1][1]:
                continue
            chain.pop()
        chain.append((x, y))
    return chain


@cache
def _negativity() -> NDArray[np.float32]:
    return np.nan_to_num(electronegativities(), nan=0.0).astype(np.float32)


@cache
def _highest_state() -> NDArray[np.float32]:
    return np.array([1.0, *(max([*e.oxidation_states, 1]) for e in table())], dtype=np.float32)


def _as_pairs(formulas: Sequence[str]) -> tuple[NDArray[np.int64], Array]:
    """Atomic numbers (n, k), zero where a formula has fewer than k elements, and atomic fractions (n, k)."""
    _, counts = amounts_table(list(formulas), [e.symbol for e in table()])
    most = int((counts > 0).sum(axis=1).max(initial=1))
    # elements of a formula in order of their number, empty places last
    order = np.argsort(counts == 0, axis=1, kind="stable")[:, :most]
    amounts = np.take_along_axis(counts, order, axis=1)
    return np.where(amounts > 0, order + 1, 0), amounts / amounts.sum(axis=1, keepdims=True)


@cache
def _pair_places() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Elements of each pair (lower number first), and the number of the pair (104, 104) of two elements."""
    low, high = np.triu_indices(_N, 1)
    place = np.zeros((_N, _N), dtype=np.int64)
    place[low, high] = np.arange(len(low))
    return low, high, place


def _design(numbers: NDArray[np.int64], fractions: Array):  # type: ignore[no-untyped-def]
    """(n, 3 pairs) sparse: what the entries of the tables count with in each formula."""
    from scipy.sparse import csr_matrix

    low, _, place = _pair_places()
    rows, columns, values = [], [], []
    for i, j in combinations(range(numbers.shape[1]), 2):
        there = np.flatnonzero((numbers[:, i] > 0) & (numbers[:, j] > 0))
        a, b = numbers[there, i], numbers[there, j]
        sign = np.where(a < b, 1.0, -1.0)
        apart = sign * (fractions[there, i] - fractions[there, j])
        weight = 4 * fractions[there, i] * fractions[there, j]
        at = place[np.minimum(a, b), np.maximum(a, b)]
        for term in range(_TERMS):
            rows.append(there)
            columns.append(at + term * len(low))
            values.append(weight * apart**term)
    if not rows:
        return csr_matrix((len(numbers), _TERMS * len(low)))
    return csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(numbers), _TERMS * len(low)))


@cache
def _smooth() -> Array:
    """(3 pairs, f) smooth functions of the elements' properties: symmetric for T0 and T2, antisymmetric for T1."""
    low, high, _ = _pair_places()
    u = _properties()
    a, b = u[low], u[high]
    both = [(p, q) for p in range(u.shape[1]) for q in range(p, u.shape[1])]
    even = [a[:, p] * b[:, q] + a[:, q] * b[:, p] for p, q in both] + [np.abs(a[:, p] - b[:, p]) for p in range(u.shape[1])]
    even += [np.abs(a[:, p] - b[:, p]) ** 3 for p in range(3)] + [np.ones(len(low))]
    odd = [a[:, p] - b[:, p] for p in range(u.shape[1])] + [a[:, p] * b[:, q] - a[:, q] * b[:, p] for p, q in both if p != q]
    odd += [(a[:, 0] - b[:, 0]) * np.abs(a[:, 0] - b[:, 0])]
    symmetric, turned = np.stack(even, axis=1), np.stack(odd, axis=1)
    out = np.zeros((_TERMS * len(low), 2 * symmetric.shape[1] + turned.shape[1]))
    s, t = symmetric.shape[1], turned.shape[1]
    out[: len(low), :s] = symmetric
    out[len(low) : 2 * len(low), s : s + t] = turned
    out[2 * len(low) :, s + t :] = symmetric
    return out


def _properties() -> Array:
    """(104, 10) electronegativity, size, place in the table and states of each element, with mean 0 and width 1."""
    rows = [
        (
            e.covalent_radius, e.group, e.period, e.is_metal, e.block == "d", e.block == "f", e.block == "p",
            max(e.oxidation_states, default=0), min(e.oxidation_states, default=0),
        )
        for e in table()
    ]  # fmt: skip
    values = np.column_stack([electronegativities()[1:], np.array(rows, dtype=np.float64)])
    return np.vstack([np.zeros(values.shape[1]), (values - values.mean(axis=0)) / values.std(axis=0)])


def _unfolded(entries: Array) -> NDArray[np.float32]:
    """The tables of the entries of all pairs, one term after the other."""
    low, high, _ = _pair_places()
    tables = np.zeros((_TERMS, _N, _N), dtype=np.float32)
    for term, (values, sign) in enumerate(zip(entries.reshape(_TERMS, -1), (1, -1, 1), strict=True)):
        tables[term, low, high], tables[term, high, low] = values, sign * values
    tables[:, 0], tables[:, :, 0] = 0, 0
    return tables
