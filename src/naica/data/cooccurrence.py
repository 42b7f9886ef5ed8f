"""Vectors of things from what they occur with: a sparse matrix of counts, and its largest singular values.

Two things are alike if they stand in the same environments. With X the matrix of things × environments, X = U Σ Vᵀ, the vector of a thing
is its row of U_d Σ_d: the d numbers that say most about where it occurs. There are few things and very many environments, so the singular
values come from the small matrix X Xᵀ, exactly and the same every time; an iterative solver would start from random numbers.

Signs of components are arbitrary (the largest is made positive here), and where singular values are equal so are the directions: compare
inner products or cosines of vectors, never components.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import ConfigError, InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Vectors:
    """Vectors of named things.

    Parameters
    ----------
    names : n
    values : (n, d)
    singular : all singular values of the matrix they come from, largest first (empty for vectors that were read from a file)
    """

    names: tuple[str, ...]
    values: Floats
    singular: Floats

    @property
    def residual(self) -> float:
        """‖X − U_d Σ_d Vᵀ‖ (Frobenius): what d numbers leave unsaid."""
        return float(np.sqrt((self.singular[self.values.shape[1] :] ** 2).sum()))

    @cached_property
    def directions(self) -> Floats:
        """(n, d) the vectors at length 1 (zero where a vector is): rare things have short ones."""
        length = np.linalg.norm(self.values, axis=1, keepdims=True)
        return self.values / np.where(length > 0, length, 1.0)

    def cosines(self) -> Floats:
        """(n, n) how alike any two are: 1 alike, 0 nothing in common."""
        return np.clip(self.directions @ self.directions.T, -1.0, 1.0)

    def cosine(self, a: str, b: str) -> float:
        """How alike two are."""
        return float(np.clip(self.directions[self._row(a)] @ self.directions[self._row(b)], -1.0, 1.0))

    def nearest(self, name: str, count: int = 5) -> list[tuple[str, float]]:
        """The others most like one, with their cosines; ties in order of names."""
        row = self._row(name)
        alike = self.directions @ self.directions[row]
        order = sorted((-float(alike[k]), k) for k in range(len(self.names)) if k != row)
        return [(self.names[k], -value) for value, k in order[:count]]

    def _row(self, name: str) -> int:
        if name not in self.names:
            near = get_close_matches(name, self.names, n=3, cutoff=0.4)
            raise InputError(f"no vector of {name!r}; {'did you mean ' + ' or '.join(near) if near else 'it did not occur'}")
        return self.names.index(name)

    def write(self, path: str | Path) -> None:
        """As CSV: the name, then the components."""
        with Path(path).open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(["name", *(f"v{k + 1}" for k in range(self.values.shape[1]))])
            writer.writerows([name, *(f"{v:.6g}" for v in row)] for name, row in zip(self.names, self.values.tolist(), strict=True))

    @classmethod
    def read(cls, path: Any) -> Vectors:
        """From such a file.

        Raises
        ------
        InputError
            If it is none.
        """
        with (path if hasattr(path, "open") else Path(path)).open(encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
        try:
            values = np.array([[float(v) for v in row[1:]] for row in rows[1:]])
            if not rows or rows[0][:1] != ["name"] or values.ndim != 2 or not np.isfinite(values).all():
                raise ValueError
        except ValueError:
            raise InputError(f"{path} holds no vectors; expected CSV with columns name, v1, v2 … and finite numbers") from None
        return cls(tuple(row[0] for row in rows[1:]), values, np.zeros(0))


@dataclass(frozen=True)
class Cooccurrence:
    """How often things stand in environments.

    Parameters
    ----------
    names : n things
    environments : m environments
    matrix : (n, m) sparse counts
    """

    names: tuple[str, ...]
    environments: tuple[str, ...]
    matrix: csr_matrix

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]], binary: bool = False, order: Callable[[str], Any] = str) -> Cooccurrence:
        """Counted from pairs (thing, environment), one for each time; with `binary` once for all times. Things are sorted by `order`."""
        from scipy.sparse import csr_matrix

        listed = list(pairs)
        things = {name: k for k, name in enumerate(sorted({a for a, _ in listed}, key=order))}
        around = {name: k for k, name in enumerate(sorted({b for _, b in listed}))}
        rows, columns = [things[a] for a, _ in listed], [around[b] for _, b in listed]
        matrix = csr_matrix((np.ones(len(listed)), (rows, columns)), shape=(len(things), len(around)))
        matrix.sum_duplicates()
        if binary:
            matrix.data[:] = 1.0
        return cls(tuple(things), tuple(around), matrix)

    def vectors(self, size: int = 20, rows: str = "normalised") -> Vectors:
        """The `size` numbers of each thing that say most about where it occurs.

        Parameters
        ----------
        size : d; at most the number of things
        rows : ``normalised``: every thing counts alike, however often it occurs; ``raw``: the counts as they are

        Raises
        ------
        ConfigError
            For a size that does not fit, or another word for `rows`.
        """
        if rows not in ("normalised", "raw"):
            raise ConfigError(f"rows {rows!r} are unknown; expected 'normalised' or 'raw'")
        if not 1 <= size <= min(self.matrix.shape):
            raise ConfigError(f"vectors of {size} numbers from a matrix {self.matrix.shape}; expected 1 to {min(self.matrix.shape)}")
        gram = np.asarray((self.matrix @ self.matrix.T).todense(), dtype=np.float64)
        if rows == "normalised":
            length = np.sqrt(gram.diagonal())
            gram = gram / length[:, None] / length
        square, left = np.linalg.eigh(gram)
        singular = np.sqrt(np.maximum(square[::-1], 0.0))
        left = left[:, ::-1][:, :size]
        sign = np.sign(left[np.abs(left).argmax(axis=0), np.arange(size)])
        return Vectors(self.names, left * sign * singular[:size], singular[: min(self.matrix.shape)])


def without_rare(found: Cooccurrence, least: int) -> Cooccurrence:
    """Only the things that occur in at least `least` environments (times)."""
    often = np.flatnonzero(np.asarray(found.matrix.sum(axis=1)).ravel() >= least)
    return _rows(found, often)


def _rows(found: Cooccurrence, keep: Sequence[int] | NDArray[Any]) -> Cooccurrence:
    matrix = found.matrix[keep]
    used = np.flatnonzero(np.asarray(matrix.sum(axis=0)).ravel() > 0)
    return Cooccurrence(tuple(found.names[k] for k in keep), tuple(found.environments[k] for k in used), matrix[:, used])
