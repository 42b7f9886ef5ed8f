"""OpenMX's ``.scfout`` of version 3.9: binary, with structure, H and S; spins paired, or spinors with spin–orbit coupling.

The file ends with the run's input, line by line, where the orbitals of each species and the species of each atom stand; where it does not,
the run's ``.out`` beside it is read. Hartree and Bohr as OpenMX has them. Tested on files written in this format, not on OpenMX's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data.labels import Level
from naica.errors import InputError
from naica.hamiltonian.basis import SHELL_NAMES, Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.structure import Crystal
from naica.structure.elements import element

_VERSION = 3  # of the file: OpenMX 3.9
_LINE = 256


def recognises(path: Path) -> bool:
    """Files called ``.scfout``."""
    return path.is_file() and path.suffix == ".scfout"


def read(path: Path) -> list[OrbitalMatrices]:
    """The one structure of the file.

    Raises
    ------
    InputError
        If the file is of another version, ends before it should, has collinear spins, or does not say its orbitals.
    """
    file = _Binary(path)
    atoms, flags, *_, cells, orders = file.ints(7).tolist()
    if flags // 4 != _VERSION:
        raise InputError(f"{path} has format {flags // 4}; {_VERSION} is read, which OpenMX 3.9 writes")
    if (spin := flags % 4) == 1:
        raise InputError(f"{path} has two spin channels; matrices with paired spins or of spinors are read")
    if spin not in (0, 3) or atoms < 1 or cells < 0:
        raise InputError(f"{path} is no .scfout file: {atoms} atoms, spin {spin}, {cells} cells")
    file.reals(4 * (cells + 1))
    images = file.ints(4 * (cells + 1)).reshape(-1, 4)[:, 1:]
    sizes, neighbours = file.ints(atoms), file.ints(atoms) + 1
    other, cell_of = ([file.ints(int(n)) for n in neighbours] for _ in range(2))
    convert = convention("openmx")
    lattice = file.reals(12).reshape(3, 4)[:, 1:] * convert.length
    file.reals(12)
    positions = file.reals(4 * atoms).reshape(-1, 4)[:, 1:] * convert.length
    pairs = np.array([(i, j - 1) for i, row in enumerate(other) for j in row])
    shifts = np.array([images[c] for row in cell_of for c in row])
    count = np.array([sizes[i] * sizes[j] for i, j in pairs])
    ends = np.concatenate([[0], np.cumsum(count)])
    h = [file.reals(int(ends[-1])) for _ in range(spin + 1)]
    imaginary = [file.reals(int(ends[-1])) for _ in range(3)] if spin else []
    s = file.reals(int(ends[-1]))
    # positions, momenta, density matrices
    file.skip(8 * int(ends[-1]) * (3 * orders + 3 + spin + 1 + 2) + 4)
    fermi, _, *_, electrons, _ = file.reals(10).tolist()
    text = file.lines() + _beside(path)
    basis, numbers = _orbitals(path, text, atoms)
    crystal = Crystal(numbers, positions, lattice)
    wrong = [k for k, z in enumerate(numbers) if basis[int(z)].size != sizes[k]]
    if wrong:
        raise InputError(f"{path}: atom {wrong[0] + 1} has {sizes[wrong[0]]} orbitals, its species {basis[int(numbers[wrong[0]])].size}")

    def blocks(flat: NDArray[Any]) -> list[NDArray[Any]]:
        return [
            convert.to_std(flat[a:b].reshape(sizes[i], sizes[j]), basis[int(numbers[i])], basis[int(numbers[j])])
            for (i, j), a, b in zip(pairs, ends[:-1], ends[1:], strict=True)
        ]

    overlaps = blocks(s)
    if spin:
        flat = (h[0] + 1j * imaginary[0], h[2] + 1j * (h[3] + imaginary[2]), h[1] + 1j * imaginary[1])
        up, mixed, down = (blocks(x * convert.energy) for x in flat)
        found = _spinors(path, pairs, shifts, up, mixed, down)
        overlaps = [np.kron(np.eye(2), one) for one in overlaps]
    else:
        found = blocks(h[0] * convert.energy)
    level = Level("unknown functional (OpenMX)", code="openmx", version="3.9")
    return [
        OrbitalMatrices.from_pairs(
            crystal,
            basis,
            pairs,
            shifts,
            {"H": found, "S": overlaps},
            fermi=fermi * convert.energy,
            electrons=electrons,
            level=level,
            info={"file": path.name},
            spin=bool(spin),
        )
    ]


class _Binary:
    """Little-endian numbers, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.place = path, path.read_bytes(), 0

    def _next(self, size: int) -> bytes:
        part = self.data[self.place : self.place + size]
        if len(part) < size:
            raise InputError(f"{self.path} ends in the middle; was OpenMX still writing, or is it no .scfout file?")
        self.place += size
        return part

    def ints(self, count: int) -> NDArray[np.int64]:
        """So many of 32 bits."""
        return np.frombuffer(self._next(4 * count), "<i4").astype(np.int64)

    def reals(self, count: int) -> NDArray[np.float64]:
        """So many of 64 bits."""
        return np.frombuffer(self._next(8 * count), "<f8").astype(np.float64)

    def skip(self, size: int) -> None:
        """Leave bytes out."""
        self._next(size)

    def lines(self) -> str:
        """The text at the end: a number of lines, each in a field of its own, and what may follow."""
        if self.place + 4 > len(self.data):
            return ""
        count = int(self.ints(1)[0])
        fields = [self.data[self.place + k * _LINE : self.place + (k + 1) * _LINE] for k in range(max(count, 0))]
        rest = self.data[self.place + max(count, 0) * _LINE :]
        return "\n".join(f.split(b"\0")[0].decode(errors="replace").rstrip("\n") for f in [*fields, rest])


def _beside(path: Path) -> str:
    """The run's own protocol, where it lies beside."""
    for name in (path.with_suffix(".out"), path.with_name("openmx.out")):
        if name.is_file():
            return "\n" + name.read_text(errors="replace")
    return ""


def _orbitals(path: Path, text: str, atoms: int) -> tuple[dict[int, Basis], NDArray[np.int64]]:
    """The basis of every element, and the element of every atom, from a run's input."""

    def block(title: str) -> list[list[str]]:
        found = re.search(rf"<{re.escape(title)}\s*\n(.*?)\n\s*{re.escape(title)}>", text, re.DOTALL | re.IGNORECASE)
        if found is None:
            raise InputError(f"{path} does not hold its input ({title} is missing); put the run's .out beside it, under the same name")
        return [line.split("#")[0].split() for line in found.group(1).splitlines() if line.split("#")[0].strip()]

    species: dict[str, Basis] = {}
    for label, orbitals, *_ in block("Definition.of.Atomic.Species"):
        words = re.fullmatch(r"(?:[spdf]\d+)+", name := orbitals.rpartition("-")[2])
        if words is None:
            raise InputError(f"{path}: orbitals {orbitals!r} of {label}; expected a name such as C6.0-s2p2d1")
        shells = [SHELL_NAMES.index(letter) for letter, count in re.findall(r"([spdf])(\d+)", name) for _ in range(int(count))]
        species[label] = Basis(_element(path, label), tuple(shells), orbitals)
    rows = block("Atoms.SpeciesAndCoordinates")
    if len(rows) != atoms:
        raise InputError(f"{path}: {len(rows)} atoms in the input and {atoms} in the matrices; expected the same")
    basis: dict[int, Basis] = {}
    for row in rows:
        own = species[row[1]]
        if basis.setdefault(own.number, own) != own:
            raise InputError(f"{path}: two species of {own.symbol} have different orbitals; naica keeps one basis per element")
    return basis, np.array([species[row[1]].number for row in rows])


def _element(path: Path, label: str) -> int:
    """Of a species' label: an element's symbol, perhaps with something behind."""
    letters = re.match(r"[A-Za-z]+", label)
    for size in (2, 1):
        try:
            return element(letters.group()[:size].capitalize()).number if letters else 0
        except InputError:
            continue
    raise InputError(f"{path}: species {label!r} is called after no element")


def _spinors(path: Path, pairs: Any, shifts: Any, up: Any, mixed: Any, down: Any) -> list[NDArray[Any]]:
    """Blocks of spinors; the lower left one of a pair is the conjugate of the upper right one of its reverse."""
    place = {(*p, *r): k for k, (p, r) in enumerate(zip(pairs.tolist(), shifts.tolist(), strict=True))}
    found = []
    for k, ((i, j), r) in enumerate(zip(pairs.tolist(), shifts.tolist(), strict=True)):
        reverse = place.get((j, i, *(-x for x in r)))
        if reverse is None:
            raise InputError(f"{path}: atoms {i + 1} and {j + 1}, R = {tuple(r)}, have no reverse; a block is missing")
        found.append(np.block([[up[k], mixed[k]], [mixed[reverse].conj().T, down[k]]]))
    return found
