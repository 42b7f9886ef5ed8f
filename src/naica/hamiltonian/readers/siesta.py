"""SIESTA's ``.HSX``, version 1 (SIESTA 5): Fortran records with structure, orbitals, H and S. Ry and Bohr; the Fermi level comes along.

Eigenvalues beside it (``.EIG`` with ``.KP``) become the reference that the matrices are tested against.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data.labels import Level
from naica.errors import InputError
from naica.hamiltonian.basis import BOHR, RYDBERG, Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices, Reference
from naica.structure import Crystal
from naica.structure.elements import element


def recognises(path: Path) -> bool:
    """Files called ``.HSX`` or ``.HSX.gz``."""
    return path.is_file() and path.name.removesuffix(".gz").lower().endswith(".hsx")


def read(path: Path) -> list[OrbitalMatrices]:
    """The one structure of the file.

    Raises
    ------
    InputError
        If the file is of an older version, has spins, or ends before it should.
    """
    records = _Records(path)
    version = int(records.ints()[0])
    if version != 1:
        raise InputError(f"{path} has HSX version {version}; version 1 (SIESTA 5) is read: write it again with a newer SIESTA")
    real = "<f8" if int(records.ints()[0]) else "<f4"  # Fortran's .true. is any number but 0
    atoms, orbitals, spins, kinds, *cells = records.ints().tolist()
    if spins != 1:
        raise InputError(f"{path} has {spins} spin components; only matrices without spin are read")
    reals = np.frombuffer(records.next(), "<f8")
    cell, fermi, electrons = reals[:9].reshape(3, 3) * BOHR, float(reals[9]) * RYDBERG, float(reals[10])
    many = int(np.prod(cells))
    block = records.next()
    offsets = np.frombuffer(block, "<i4", 3 * many).reshape(many, 3)
    positions = np.frombuffer(block, "<f8", 3 * atoms, 12 * many).reshape(atoms, 3) * BOHR
    kind_of = np.frombuffer(block, "<i4", atoms, 12 * many + 24 * atoms) - 1
    species = [_species(records.next()) for _ in range(kinds)]
    shells = [_shells(records.ints().reshape(-1, 3)) for _ in range(kinds)]
    basis = {z: Basis(z, s, "PAO", charge) for (z, charge, _), s in zip(species, shells, strict=True)}
    numbers = np.array([species[k][0] for k in kind_of])
    crystal = Crystal(numbers, positions, cell)
    counts = records.ints()
    columns = [records.ints() - 1 for _ in range(orbitals)]
    h = [np.frombuffer(records.next(), real) for _ in range(orbitals)]
    s = [np.frombuffer(records.next(), real) for _ in range(orbitals)]
    if [len(c) for c in columns] != counts.tolist():
        raise InputError(f"{path}: rows and their announced lengths differ; the file is damaged")
    found = _blocks(crystal, basis, offsets, columns, h, s)
    level = Level("unknown functional (SIESTA)", code="siesta")
    return [found.replace(fermi=fermi, electrons=electrons, reference=_reference(path, cell), level=level, info={"file": path.name})]


class _Records:
    """Fortran's unformatted records, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
        self.place = 0

    def next(self) -> bytes:
        """The bytes of the next record (InputError where the file ends before it)."""
        head = self.data[self.place : self.place + 4]
        size = int.from_bytes(head, "little")
        body = self.data[self.place + 4 : self.place + 4 + size]
        if len(head) < 4 or len(body) < size or self.data[self.place + 4 + size : self.place + 8 + size] != head:
            raise InputError(f"{self.path} ends in the middle, or is no HSX file; was SIESTA still writing?")
        self.place += size + 8
        return body

    def ints(self) -> NDArray[np.int32]:
        """The next record as integers."""
        return np.frombuffer(self.next(), "<i4")


def _species(record: bytes) -> tuple[int, float, int]:
    """Atomic number, valence electrons, orbitals of a species; its label is the element's symbol, perhaps with something behind."""
    label = record[:20].decode(errors="replace").strip()
    letters = "".join(c for c in label if c.isalpha())[:2]
    try:
        number = element(letters.capitalize()).number
    except InputError:
        number = element(letters[:1].upper()).number
    return number, float(np.frombuffer(record, "<f8", 1, 20)[0]), int(np.frombuffer(record, "<i4", 1, 28)[0])


def _shells(quantum: NDArray[Any]) -> tuple[int, ...]:
    """L of each shell from (n, l, zeta) of each orbital."""
    found, k = [], 0
    while k < len(quantum):
        found.append(int(quantum[k, 1]))
        k += 2 * found[-1] + 1
    return tuple(found)


def _blocks(crystal: Crystal, basis: dict[int, Basis], offsets: Any, columns: Any, h: Any, s: Any) -> OrbitalMatrices:
    convert = convention("siesta")
    bases = [basis[int(z)] for z in crystal.numbers]
    ends = np.cumsum([b.size for b in bases])
    size = int(ends[-1])
    atom_of = np.repeat(np.arange(len(bases)), [b.size for b in bases])
    full: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for row, (column, values, overlaps) in enumerate(zip(columns, h, s, strict=True)):
        for image in np.unique(column // size):
            here = column // size == image
            matrix = full.setdefault(tuple(int(x) for x in offsets[image]), np.zeros((2, size, size)))
            matrix[0, row, column[here] % size] = values[here]
            matrix[1, row, column[here] % size] = overlaps[here]
    pairs, images, blocks = [], [], {"H": list[Any](), "S": list[Any]()}
    for shift, matrix in full.items():
        rows, columns_here = np.nonzero(np.abs(matrix).sum(axis=0))
        for i, j in sorted(set(zip(atom_of[rows].tolist(), atom_of[columns_here].tolist(), strict=True))):
            cut = (slice(ends[i] - bases[i].size, ends[i]), slice(ends[j] - bases[j].size, ends[j]))
            pairs.append((i, j))
            images.append(shift)
            blocks["H"].append(convert.to_std(matrix[0][cut], bases[i], bases[j]) * RYDBERG)
            blocks["S"].append(convert.to_std(matrix[1][cut], bases[i], bases[j]))
    return OrbitalMatrices.from_pairs(crystal, basis, np.array(pairs), np.array(images), blocks)


def _reference(path: Path, cell: NDArray[np.float64]) -> Reference | None:
    """Eigenvalues of the same run, where its files lie beside."""
    stem = path.name.removesuffix(".gz")[: -len(".HSX")]
    files = [next((p for p in (path.with_name(stem + e), path.with_name(stem + e + ".gz")) if p.exists()), None) for e in (".EIG", ".KP")]
    if files[0] is None or files[1] is None:
        return None
    eig, kp = (gzip.decompress(f.read_bytes()).decode() if f.name.endswith(".gz") else f.read_text() for f in files if f is not None)
    words = eig.split()
    bands, spins, points = (int(w) for w in words[1:4])
    values = np.array([float(w) for w in words[4:]]).reshape(points, bands * spins + 1)[:, 1:]
    cartesian = np.array([[float(w) for w in line.split()[1:4]] for line in kp.splitlines()[1:] if line.strip()])
    # k in 1/Bohr with its 2π
    return Reference(cartesian @ (cell / BOHR).T / (2 * np.pi), values[:, :bands])
