"""`OrbitalMatrices`: H(R), S(R) and more of one structure, as blocks between atoms.

A block is ``H_ij(R) = ⟨φ_i in cell 0 | H | φ_j in cell R⟩`` (eV), R relative to the positions as they are stored. Only half of the pairs
are kept, the other half follows from ``H_ij(R) = H_ji(−R)†``: i < j, or i = j with R not below zero in the order of its numbers.
``H(k) = Σ_R exp(2πi k·R) H(R)``.

With spin–orbit coupling every block is complex and twice as large, spin outside: [[↑↑, ↑↓], [↓↑, ↓↓]], so orbitals are numbered spin by
spin within an atom. S has the same shape (the plain overlap for both spins).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from naica.data.labels import Level
from naica.errors import InputError
from naica.hamiltonian.basis import Basis
from naica.structure import Crystal

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# what may be stored: the Hamiltonian, the overlap, the Hamiltonian of superposed atomic densities, the density matrix
KINDS = ("H", "S", "H0", "D")


@dataclass(frozen=True)
class Reference:
    """Eigenvalues of the code itself: (K, 3) fractional k points and (K, n) eV."""

    kpoints: Array
    eigenvalues: Array


@dataclass(frozen=True, eq=False)
class OrbitalMatrices:
    """Matrices of one structure (P pairs of atoms).

    Parameters
    ----------
    crystal : the structure; a molecule has only pairs with R = 0
    basis : by atomic number
    pairs : (P, 2) receiver i and j; and `images` (P, 3) whole numbers R; the canonical half, each pair once
    blocks : by kind of ``KINDS``, the blocks one after the other, row by row (flat, eV; S without unit); all kinds have the same pairs
    fermi : eV; None if unknown
    electrons : of the cell
    reference : the code's own eigenvalues, if it told
    energy, forces : of the same calculation, eV and eV/Å, if it told
    level : of theory
    info : provenance: code, basis sets, cut-offs, meshes, noise …
    spin : whether blocks are those of spinors
    """

    crystal: Crystal
    basis: Mapping[int, Basis]
    pairs: Ints
    images: Ints
    blocks: Mapping[str, NDArray[Any]]
    fermi: float | None = None
    electrons: float | None = None
    reference: Reference | None = None
    energy: float | None = None
    forces: Array | None = None
    level: Level | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    spin: bool = False

    def __post_init__(self) -> None:
        missing = sorted({int(z) for z in self.crystal.numbers} - set(self.basis))
        if missing:
            from naica.structure.elements import symbol

            known = ", ".join(b.symbol for b in self.basis.values())
            raise InputError(f"no basis for {', '.join(symbol(z) for z in missing)}; there is one for {known or 'no element'}")
        if self.pairs.shape != (len(self.images), 2) or self.images.shape[1:] != (3,):
            raise InputError(f"pairs {self.pairs.shape} and images {self.images.shape}; expected (P, 2) and (P, 3)")
        for kind, values in self.blocks.items():
            if kind not in KINDS or values.shape != (int(self.starts[-1]),):
                raise InputError(
                    f"blocks {kind!r} of shape {values.shape}; expected one of {', '.join(KINDS)} with {self.starts[-1]} numbers"
                )

    # --- shapes ----------------------------------------------------------------------------------------------------------
    @cached_property
    def sizes(self) -> Ints:
        """(n) orbitals of each atom, both spins counted where there are spinors."""
        return np.array([self.basis[int(z)].size for z in self.crystal.numbers], dtype=np.int64) * (2 if self.spin else 1)

    @property
    def per_state(self) -> int:
        """Electrons that one state holds."""
        return 1 if self.spin else 2

    @cached_property
    def first(self) -> Ints:
        """(n) first orbital of each atom."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def n_orbitals(self) -> int:
        """Orbitals of the cell."""
        return int(self.sizes.sum())

    @cached_property
    def starts(self) -> Ints:
        """(P + 1) where each pair's numbers start in `blocks`."""
        return np.concatenate([[0], np.cumsum(self.sizes[self.pairs[:, 0]] * self.sizes[self.pairs[:, 1]])])

    @property
    def orthogonal(self) -> bool:
        """Whether there is no overlap matrix: the orbitals are orthonormal."""
        return "S" not in self.blocks

    @cached_property
    def vectors(self) -> Array:
        """(P, 3) Å from i to j."""
        r = self.crystal.positions
        return np.asarray(r[self.pairs[:, 1]] - r[self.pairs[:, 0]] + self.images @ self.crystal.cell)

    @cached_property
    def distances(self) -> Array:
        """(P) Å; 0 for an atom with itself."""
        return np.linalg.norm(self.vectors, axis=1)

    @property
    def on_site(self) -> NDArray[np.bool_]:
        """(P) true for the block of an atom with itself."""
        return np.asarray((self.pairs[:, 0] == self.pairs[:, 1]) & ~self.images.any(axis=1))

    def block(self, kind: str, pair: int) -> NDArray[Any]:
        """One block (n_i, n_j)."""
        i, j = self.pairs[pair]
        return self.blocks[kind][self.starts[pair] : self.starts[pair + 1]].reshape(self.sizes[i], self.sizes[j])

    def replace(self, **changes: Any) -> OrbitalMatrices:
        """The same with some parts replaced."""
        return replace(self, **changes)

    def with_blocks(self, **blocks: NDArray[Any]) -> OrbitalMatrices:
        """The same with some kinds of blocks replaced or added."""
        return replace(self, blocks={**self.blocks, **blocks})

    # --- ways in -----------------------------------------------------------------------------------------------------------
    @classmethod
    def from_pairs(
        cls,
        crystal: Crystal,
        basis: Mapping[int, Basis],
        pairs: NDArray[Any],
        images: NDArray[Any],
        matrices: Mapping[str, Sequence[NDArray[Any]]],
        tolerance: float = 1e-3,
        **rest: Any,
    ) -> OrbitalMatrices:
        """From a list of blocks in any order, one direction or both.

        Parameters
        ----------
        pairs, images : (Q, 2), (Q, 3) of the blocks
        matrices : by kind a list of Q blocks (n_i, n_j)
        tolerance : by how much two directions of one pair may differ (eV); they are averaged

        Raises
        ------
        InputError
            If both directions are given and are not each other's conjugate, or an on-site block is missing.
        """
        pairs, images = np.asarray(pairs, dtype=np.int64), np.asarray(images, dtype=np.int64)
        flip = (pairs[:, 0] > pairs[:, 1]) | ((pairs[:, 0] == pairs[:, 1]) & _below_zero(images))
        home = np.where(flip[:, None], pairs[:, ::-1], pairs)
        image = np.where(flip[:, None], -images, images)
        keys, places = np.unique(np.concatenate([home, image], axis=1), axis=0, return_inverse=True)
        places = places.ravel()
        found: dict[str, NDArray[Any]] = {}
        for kind, blocks in matrices.items():
            total: list[Any] = [None] * len(keys)
            for k, (place, flipped) in enumerate(zip(places, flip, strict=True)):
                block = np.asarray(blocks[k])
                block = block.conj().T if flipped else block
                if total[place] is None:
                    total[place] = block
                elif np.abs(total[place] - block).max() > tolerance:
                    i, j, *r = keys[place]
                    raise InputError(
                        f"{kind} of atoms {i} and {j}, R = {tuple(int(x) for x in r)}, is not hermitian: its two directions differ by "
                        f"{np.abs(total[place] - block).max():.2g}; expected H_ij(R) = H_ji(−R)†. "
                        "Is the order of the orbitals or the sign of R right?"
                    )
                else:
                    total[place] = (total[place] + block) / 2
            found[kind] = np.concatenate([np.asarray(b).ravel() for b in total]) if total else np.zeros(0)
        own = {int(i) for i, j, *r in keys if i == j and not any(r)}
        if own != set(range(len(crystal))):
            missing = sorted(set(range(len(crystal))) - own)
            raise InputError(f"no block of atom {missing[0]} with itself ({len(missing)} missing); expected one for every atom")
        return cls(crystal, dict(basis), keys[:, :2], keys[:, 2:], found, **rest)

    @classmethod
    def from_dense(cls, crystal: Crystal, basis: Mapping[int, Basis], dense: Mapping[str, NDArray[Any]], **rest: Any) -> OrbitalMatrices:
        """Of a molecule, from full matrices (n, n) by kind; with ``spin=True`` (2n, 2n), all of spin up before all of spin down."""
        if rest.get("spin"):
            order = _atoms_outside([basis[int(z)].size for z in crystal.numbers])
            dense = {kind: m[np.ix_(order, order)] if m.shape == (len(order),) * 2 else m for kind, m in dense.items()}
        sizes = np.array([basis[int(z)].size for z in crystal.numbers]) * (2 if rest.get("spin") else 1)
        ends = np.cumsum(sizes)
        for kind, matrix in dense.items():
            if matrix.shape != (ends[-1], ends[-1]):
                raise InputError(f"{kind} has shape {matrix.shape}; the basis of {crystal.formula} has {ends[-1]} orbitals")
        i, j = np.triu_indices(len(crystal))
        cut = [slice(e - s, e) for e, s in zip(ends, sizes, strict=True)]
        blocks = {kind: np.concatenate([m[cut[a], cut[b]].ravel() for a, b in zip(i, j, strict=True)]) for kind, m in dense.items()}
        pairs = np.stack([i, j], axis=1)
        return cls(crystal, dict(basis), pairs, np.zeros((len(pairs), 3), dtype=np.int64), blocks, **rest)

    # --- both halves -------------------------------------------------------------------------------------------------------
    @cached_property
    def elements(self) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """Of every number in `blocks`: its row and column in H(k), its pair, and whether its conjugate is another element."""
        counts = np.diff(self.starts)
        pair = np.repeat(np.arange(len(self.pairs)), counts)
        within = np.arange(int(self.starts[-1])) - np.repeat(self.starts[:-1], counts)
        columns = self.sizes[self.pairs[pair, 1]]
        row = self.first[self.pairs[pair, 0]] + within // columns
        column = self.first[self.pairs[pair, 1]] + within % columns
        return row, column, pair, ~self.on_site[pair]

    def at(self, kind: str, k: Sequence[float] | Array) -> sparse.csr_matrix:
        """(n, n) sparse matrix at a fractional k point."""
        row, column, pair, twice = self.elements
        phase = np.exp(2j * np.pi * (self.images @ np.asarray(k, dtype=np.float64)))[pair]
        values = self.blocks[kind] * phase
        rows = np.concatenate([row, column[twice]])
        columns = np.concatenate([column, row[twice]])
        return sparse.csr_matrix((np.concatenate([values, values[twice].conj()]), (rows, columns)), shape=(self.n_orbitals,) * 2)

    def dense(self, kind: str, k: Sequence[float] | Array = (0.0, 0.0, 0.0)) -> NDArray[Any]:
        """(n, n) full matrix at a fractional k point, real where everything is."""
        full = self.at(kind, k).toarray()
        return full.real if not np.any(k) and not np.iscomplexobj(self.blocks[kind]) else full

    # --- gauge ---------------------------------------------------------------------------------------------------------------
    def gauge(self, kind: str = "H", against: str | None = None) -> float:
        """The μ (eV) that makes kind − against − μ S as small as can be: ⟨X, S⟩ / ⟨S, S⟩ over all elements."""
        if self.orthogonal:
            x = self.blocks[kind] - (self.blocks[against] if against else 0)
            row, column, pair, _ = self.elements
            diagonal = (row == column) & self.on_site[pair]
            return float(np.mean(x[diagonal]).real)
        x = self.blocks[kind] - (self.blocks[against] if against else 0)
        weight = np.where(self.elements[3], 2.0, 1.0)
        s = self.blocks["S"]
        return float(np.sum(weight * (x * s.conj()).real) / np.sum(weight * np.abs(s) ** 2))

    def shifted(self, mu: float) -> OrbitalMatrices:
        """The same with H − μ S, H0 untouched, and all energies on the new scale."""
        if self.orthogonal:
            row, column, pair, _ = self.elements
            change = mu * ((row == column) & self.on_site[pair])
        else:
            change = mu * self.blocks["S"]
        reference = None if self.reference is None else Reference(self.reference.kpoints, self.reference.eigenvalues - mu)
        fermi = None if self.fermi is None else self.fermi - mu
        return self.with_blocks(H=self.blocks["H"] - change).replace(reference=reference, fermi=fermi)


def _atoms_outside(sizes: Sequence[int]) -> Ints:
    """Places in a list of all orbitals of spin up, then all of spin down, of the same orbitals atom by atom."""
    starts = np.cumsum([0, *sizes[:-1]])
    total = sum(sizes)
    return np.concatenate([start + spin * total + np.arange(size) for start, size in zip(starts, sizes, strict=True) for spin in (0, 1)])


def _below_zero(images: Ints) -> NDArray[np.bool_]:
    """(Q) whether the first number of R that is not 0 is negative."""
    nonzero = images != 0
    place = nonzero.argmax(axis=1)
    return np.asarray(nonzero.any(axis=1) & (images[np.arange(len(images)), place] < 0))
