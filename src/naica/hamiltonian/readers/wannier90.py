"""Wannier90's ``seedname_hr.dat``: H(R) between orthonormal Wannier functions, with the structure from ``seedname.win``.

Wannier functions are no orbitals of atoms: all are put on the first atom as so many s shells, so bands are right and rotations mean
nothing.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np

from naica.errors import InputError
from naica.hamiltonian.basis import BOHR, Basis
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.structure import Crystal
from naica.structure.elements import element


def recognises(path: Path) -> bool:
    """Files called ``…_hr.dat`` or ``…_hr.dat.gz``."""
    return path.is_file() and path.name.removesuffix(".gz").endswith("_hr.dat")


def _text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.name.endswith(".gz") else path.read_text()


def read(path: Path) -> list[OrbitalMatrices]:
    """The one structure of the file; matrix elements divided by the degeneracy of their lattice vector.

    Raises
    ------
    InputError
        If the file ends too early, or there is no ``.win`` with the cell beside it.
    """
    words = _text(path).split("\n", 1)[1].split()
    orbitals, vectors = int(words[0]), int(words[1])
    degeneracy = np.array([int(w) for w in words[2 : 2 + vectors]])
    rows = np.array([float(w) for w in words[2 + vectors :]])
    if len(rows) != 7 * vectors * orbitals**2:
        raise InputError(f"{path} has {len(rows) // 7} matrix elements; expected {vectors * orbitals**2}: it is cut off")
    rows = rows.reshape(vectors, orbitals, orbitals, 7)  # the first index runs fastest
    values = (rows[..., 5] + 1j * rows[..., 6]).transpose(0, 2, 1) / degeneracy[:, None, None]
    if np.abs(values.imag).max() < 1e-5 * np.abs(values).max():
        values = values.real
    images, values = _shared(path, rows[:, 0, 0, :3].astype(int), values)
    crystal = _structure(path)
    z = int(crystal.numbers[0])
    alone = Crystal(crystal.numbers[:1], crystal.positions[:1], crystal.cell)
    pairs = np.zeros((len(images), 2), dtype=int)
    return [
        OrbitalMatrices.from_pairs(
            alone, {z: Basis(z, (0,) * orbitals, "Wannier functions")}, pairs, images, {"H": list(values)}, info={"file": path.name}
        )
    ]


def _shared(path: Path, images: Any, values: Any) -> tuple[Any, Any]:
    """Elements shared among the images of equal least distance, as the run's ``_wsvec.dat`` says; as they are where there is none."""
    name = path.name.removesuffix(".gz").removesuffix("_hr.dat") + "_wsvec.dat"
    place = next((p for p in (path.with_name(name), path.with_name(name + ".gz")) if p.exists()), None)
    if place is None:
        return images, values
    words = [int(w) for w in _text(place).split("\n", 1)[1].split()]
    row = {tuple(r): k for k, r in enumerate(images.tolist())}
    found: dict[tuple[int, ...], Any] = {}
    at = 0
    while at < len(words):
        r, (m, n), count = tuple(words[at : at + 3]), words[at + 3 : at + 5], words[at + 5]
        for k in range(count):
            shift = words[at + 6 + 3 * k : at + 9 + 3 * k]
            target = tuple(int(a + b) for a, b in zip(r, shift, strict=True))
            block = found.setdefault(target, np.zeros_like(values[0]))
            block[m - 1, n - 1] += values[row[r]][m - 1, n - 1] / count
        at += 6 + 3 * count
    return np.array(list(found)), np.array(list(found.values()))


def _structure(path: Path) -> Crystal:
    name = path.name.removesuffix(".gz").removesuffix("_hr.dat") + ".win"
    place = next((p for p in (path.with_name(name), path.with_name(name + ".gz")) if p.exists()), None)
    if place is None:
        raise InputError(f"{path}: no {name} beside it; expected the run's input, which has the cell")
    text = _text(place).lower()

    def block(title: str) -> tuple[list[str], float]:
        found = re.search(rf"begin\s+{title}\s*\n(.*?)\n\s*end\s+{title}", text, re.DOTALL)
        if found is None:
            raise InputError(f"{place}: no block {title}")
        lines = [line.split("!")[0].strip() for line in found.group(1).splitlines()]
        lines = [line for line in lines if line]
        unit = BOHR if lines[0].startswith("bohr") else 1.0
        return (lines[1:] if lines[0][:3] in ("boh", "ang") else lines), unit

    rows, unit = block("unit_cell_cart")
    cell = np.array([[float(w) for w in r.split()] for r in rows]) * unit
    cartesian = "begin atoms_cart" in text or "begin  atoms_cart" in text
    rows, unit = block("atoms_cart" if cartesian else "atoms_frac")
    numbers = np.array([element(re.sub(r"[^a-z]", "", r.split()[0]).capitalize()).number for r in rows])
    places = np.array([[float(w) for w in r.split()[1:4]] for r in rows])
    return Crystal(numbers, places * unit, cell) if cartesian else Crystal.from_fractional(numbers, places, cell)
