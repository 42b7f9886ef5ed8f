"""ABACUS: a folder ``OUT.…`` with its log and the sparse matrices that ``out_mat_hs2 1`` writes, one block of text for each R.

H: ``data-HR-sparse_SPIN0.csr`` (from version 3.9.0.25 on ``hrs1_nao.csr``, with another head), S: ``data-SR-sparse_SPIN0.csr``
(``srs1_nao.csr``); Rydberg. The structure, the shells of each element and the Fermi level come from ``running_scf.log``. Spinors have spin
inside: orbital by orbital, up before down. Tested on files written in this format, not on ABACUS's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from naica.data.labels import Level
from naica.errors import InputError
from naica.hamiltonian.basis import Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.structure import Crystal
from naica.structure.elements import element

_LOG = "running_scf.log"
_NAMES = {"H": ("data-HR-sparse_SPIN0.csr", "hrs1_nao.csr"), "S": ("data-SR-sparse_SPIN0.csr", "srs1_nao.csr")}
_SECOND_SPIN = ("data-HR-sparse_SPIN1.csr", "hrs2_nao.csr")
_NUMBER = r"[-+\d.eE]+"


def recognises(path: Path) -> bool:
    """Folders with ``running_scf.log`` and a sparse H, or with one such ``OUT.…`` inside."""
    return _folder(path) is not None


def read(path: Path) -> list[OrbitalMatrices]:
    """The one structure of a folder.

    Raises
    ------
    InputError
        If a file is missing or cut off, spins are collinear, or the log does not tell what is needed.
    """
    place = _folder(path)
    if place is None:
        raise InputError(f"{path} has no {_LOG} with {_NAMES['H'][0]} beside it; run ABACUS with out_mat_hs2 1")
    if any((place / name).exists() for name in _SECOND_SPIN):
        raise InputError(f"{place} has two spin channels; matrices with paired spins or of spinors are read")
    log = (place / _LOG).read_text(errors="replace")
    crystal, basis = _structure(place, log)
    spin = (_first(log, r"nspin\s*=+\s*(\d)", re.IGNORECASE) or "1") == "4"
    convert, matrices = convention("abacus"), dict[str, dict[tuple[int, ...], NDArray[Any]]]()
    bases = [basis[int(z)] for z in crystal.numbers]
    size = sum(b.size for b in bases) * (2 if spin else 1)
    for kind, names in _NAMES.items():
        found = next((place / n for n in names if (place / n).exists()), None)
        if found is None:
            raise InputError(f"{place} has no {names[0]}; run ABACUS with out_mat_hs2 1")
        matrices[kind] = dict(_matrices(found, size, spin))
    pairs, images, blocks = _cut(bases, matrices, spin)
    for kind, unit in (("H", convert.energy), ("S", 1.0)):
        rows = [convert.to_std(b, bases[i], bases[j]) * unit for b, (i, j) in zip(blocks[kind], pairs, strict=True)]
        blocks[kind] = [b.real for b in rows] if kind == "S" else rows
    fermi = _first(log, rf"EFERMI\s*=\s*({_NUMBER})\s*eV")
    electrons = _first(log, rf"number of electrons:?\s*=\s*({_NUMBER})", re.IGNORECASE)
    return [
        OrbitalMatrices.from_pairs(
            crystal,
            basis,
            np.array(pairs),
            np.array(images),
            blocks,
            fermi=None if fermi is None else float(fermi),
            electrons=None if electrons is None else float(electrons),
            level=Level("unknown functional (ABACUS)", code="abacus"),
            info={"folder": place.name},
            spin=spin,
        )
    ]


def _folder(path: Path) -> Path | None:
    if not path.is_dir():
        return None
    places = [path, *sorted(path.glob("OUT.*"))]
    return next((p for p in places if (p / _LOG).is_file() and any((p / n).is_file() for n in _NAMES["H"])), None)


def _first(text: str, pattern: str, flags: int = 0) -> str | None:
    found = re.search(pattern, text, flags)
    return None if found is None else found.group(1)


def _structure(place: Path, log: str) -> tuple[Crystal, dict[int, Basis]]:
    """The crystal, and shells and valence electrons of each element, from the log."""
    constant = _first(log, rf"lattice constant \(Angstrom\)\s*=\s*({_NUMBER})")
    bohr = _first(log, rf"lattice constant \(Bohr\)\s*=\s*({_NUMBER})")
    vectors = re.findall(r"Lattice vectors[^\n]*\n((?:\s*" + r"\s+".join([_NUMBER] * 3) + r"\s*\n){3})", log)
    rows = re.findall(rf"^\s*tau[cd]_([A-Za-z]+)(\d*)\s+({_NUMBER})\s+({_NUMBER})\s+({_NUMBER})", log, re.MULTILINE)
    if not vectors or not rows or (constant is None and bohr is None):
        raise InputError(f"{place / _LOG} does not tell its structure (lattice constant, lattice vectors, coordinates); is it complete?")
    # after a relaxation all stand there again: the last are those of the matrices
    begins = [k for k, row in enumerate(rows) if row[:2] == rows[0][:2]]
    rows = rows[begins[-1] :]
    # the value in Bohr has more digits
    unit = float(bohr) * convention("abacus").length if bohr is not None else float(constant or 0)
    cell = np.array([[float(w) for w in line.split()] for line in vectors[-1].splitlines()]) * unit
    numbers = np.array([element(label).number for label, *_ in rows])
    places = np.array([[float(x) for x in xyz] for _, _, *xyz in rows])
    direct = re.search(r"DIRECT COORDINATES", log) is not None
    crystal = Crystal.from_fractional(numbers, places, cell) if direct else Crystal(numbers, places * unit, cell)
    valence = dict(re.findall(rf"^\s*electron number of element (\w+)\s*=\s*({_NUMBER})", log, re.MULTILINE))
    basis: dict[int, Basis] = {}
    for label, lines in re.findall(r"atom label\s*=\s*([A-Za-z]+)[^\n]*\n((?:\s*L=\d+,\s*number of zeta\s*=\s*\d+[^\n]*\n)+)", log):
        shells = [int(degree) for degree, count in re.findall(r"L=(\d+),\s*number of zeta\s*=\s*(\d+)", lines) for _ in range(int(count))]
        number = element(label).number
        basis[number] = Basis(number, tuple(shells), "ABACUS orbitals", float(valence.get(label, 0.0)))
    if missing := sorted({int(z) for z in numbers} - set(basis)):
        raise InputError(f"{place / _LOG} does not tell the shells of element {missing[0]} (number of zeta); is it complete?")
    return crystal, basis


def _matrices(path: Path, size: int, spin: bool) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """R and the full matrix of each block of a file, in the form of before version 3.9.0.25 or after."""
    text = path.read_text()
    old = re.search(r"Matrix Dimension of [^\n]*?(\d+)\s*\n\s*Matrix number of [^\n]*?(\d+)\s*\n", text)
    new = [re.search(rf"^\s*(\d+)\s*#\s*number of {what}", text, re.MULTILINE) for what in ("localized basis", "Bravais lattice vector")]
    if old is not None:
        dimension, count, body = int(old.group(1)), int(old.group(2)), text[old.end() :]
    elif new[0] is not None and new[1] is not None:
        dimension, count, body = int(new[0].group(1)), int(new[1].group(1)), text[text.rfind("#---") :]
    else:
        raise InputError(f"{path} has no header with dimension and number of matrices; is it a sparse matrix of ABACUS?")
    if dimension != size:
        raise InputError(f"{path} has matrices of dimension {dimension}; the orbitals in the log are {size}")
    words = [w for line in body.splitlines() if not line.lstrip().startswith("#") for w in line.split()]
    place = 0

    def take(number: int) -> list[str]:
        nonlocal place
        place += number
        if place > len(words):
            raise InputError(f"{path} ends in the middle; was ABACUS still writing?")
        return words[place - number : place]

    for _ in range(count):
        *image, nonzero = (int(w) for w in take(4))
        if nonzero:
            values, columns, ends = take(nonzero), np.array(take(nonzero), dtype=int), np.array(take(size + 1), dtype=int)
            numbers = _complex(values) if spin else np.array(values, dtype=np.float64)
            yield tuple(image), sparse.csr_matrix((numbers, columns, ends), shape=(size, size)).toarray()


def _complex(words: list[str]) -> NDArray[np.complex128]:
    """Numbers written as (real,imaginary)."""
    parts = np.array([[float(x) for x in w.strip("()").split(",")] for w in words])
    return parts[:, 0] + 1j * parts[:, 1]


def _cut(bases: list[Basis], matrices: Any, spin: bool) -> tuple[list[tuple[int, int]], list[tuple[int, ...]], dict[str, list[Any]]]:
    """Blocks of all pairs of atoms that H or S has, spin brought outside."""
    times = 2 if spin else 1
    ends = np.cumsum([b.size for b in bases]) * times
    starts = ends - np.array([b.size for b in bases]) * times
    zero = np.zeros((int(ends[-1]),) * 2)
    pairs, images = list[tuple[int, int]](), list[tuple[int, ...]]()
    blocks: dict[str, list[Any]] = {kind: [] for kind in matrices}
    for image in sorted(set().union(*matrices.values())):
        full = {kind: found.get(image, zero) for kind, found in matrices.items()}
        there = np.add.reduceat(np.add.reduceat(sum(np.abs(m) for m in full.values()), starts, axis=0), starts, axis=1) > 0
        for i, j in np.argwhere(there).tolist():
            pairs.append((i, j))
            images.append(image)
            for kind, matrix in full.items():
                block = matrix[starts[i] : ends[i], starts[j] : ends[j]]
                if spin:
                    a, b = bases[i].size, bases[j].size
                    block = block.reshape(a, 2, b, 2).transpose(1, 0, 3, 2).reshape(2 * a, 2 * b)
                blocks[kind].append(block)
    return pairs, images, blocks
