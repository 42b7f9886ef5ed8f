"""FHI-aims: the folder of a run with ``output_rs_matrices plain``: sparse H and S in real space, one triangle, R with the opposite sign.

``rs_indices.out``, ``rs_hamiltonian.out``, ``rs_overlap.out``, ``geometry.in`` and ``basis-indices.out``; Hartree. Lattice vectors count
from atoms wrapped to [−½, ½). The Fermi level comes from ``aims.out`` where it is there. All electrons are in the basis: its lowest
orbitals lie hundreds of eV below the rest. Tested on files written in this format, not on FHI-aims' own.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from naica.data.labels import Level
from naica.errors import InputError
from naica.hamiltonian.basis import Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.structure import Crystal

_NEEDED = ("rs_indices.out", "rs_hamiltonian.out", "rs_overlap.out", "geometry.in", "basis-indices.out")
_WRAP = 1e-8


def recognises(path: Path) -> bool:
    """Folders with ``rs_indices.out``."""
    return path.is_dir() and (path / "rs_indices.out").is_file()


def read(path: Path) -> list[OrbitalMatrices]:
    """The one structure of a folder.

    Raises
    ------
    InputError
        If a file is missing or cut off, spins are collinear, or files disagree.
    """
    if any(path.glob("rs_hamiltonian_up.*")):
        raise InputError(f"{path} has two spin channels; matrices with paired spins are read")
    if missing := [name for name in _NEEDED if not (path / name).is_file()]:
        raise InputError(f"{path} has no {', '.join(missing)}; run FHI-aims with output_rs_matrices plain")
    crystal = _structure(path)
    basis = _basis(path, crystal)
    bases = [basis[int(z)] for z in crystal.numbers]
    images, first, last, columns = _indices(path, sum(b.size for b in bases))
    convert = convention("fhi-aims")
    values = {kind: _values(path / f"rs_{name}.out", len(columns)) for kind, name in (("H", "hamiltonian"), ("S", "overlap"))}
    full = {kind: _whole(images, first, last, columns, v) for kind, v in values.items()}
    wrapped = _whole_vectors(crystal)
    ends = np.cumsum([b.size for b in bases])
    starts = ends - np.array([b.size for b in bases])
    pairs, shifts = [], []
    blocks: dict[str, list[NDArray[np.float64]]] = {"H": [], "S": []}
    for image in sorted(full["H"]):
        there = np.add.reduceat(np.add.reduceat(sum(np.abs(m[image]) for m in full.values()), starts, axis=0), starts, axis=1) > 0
        for i, j in np.argwhere(there).tolist():
            pairs.append((i, j))
            shifts.append(convert.phase * np.array(image) - wrapped[j] + wrapped[i])
            for kind, unit in (("H", convert.energy), ("S", 1.0)):
                block = full[kind][image][starts[i] : ends[i], starts[j] : ends[j]]
                blocks[kind].append(convert.to_std(block, bases[i], bases[j]) * unit)
    log = (path / "aims.out").read_text(errors="replace") if (path / "aims.out").is_file() else ""
    levels = re.findall(r"Chemical potential \(Fermi level\):\s*(\S+)\s*eV", log)
    return [
        OrbitalMatrices.from_pairs(
            crystal,
            basis,
            np.array(pairs),
            np.array(shifts),
            blocks,
            fermi=float(levels[-1]) if levels else None,
            electrons=float(crystal.numbers.sum()),
            level=Level("unknown functional (FHI-aims)", code="fhi-aims"),
            info={"folder": path.name},
        )
    ]


def _structure(path: Path) -> Crystal:
    from ase.io import read as read_atoms

    return Crystal.from_ase(read_atoms(path / "geometry.in", index=-1, format="aims"))  # type: ignore[arg-type]


def _whole_vectors(crystal: Crystal) -> NDArray[np.int64]:
    """(n, 3) the lattice vectors by which each atom lies outside of the cell around the origin that the code wraps it into."""
    if not crystal.pbc.any():
        return np.zeros((len(crystal), 3), dtype=np.int64)
    return np.rint(crystal.fractional - _WRAP).astype(np.int64) * crystal.pbc


def _basis(path: Path, crystal: Crystal) -> dict[int, Basis]:
    """Shells of each element from the list of basis functions: number, type, atom, n, l, m."""
    rows = [line.split() for line in (path / "basis-indices.out").read_text().splitlines()]
    rows = [row for row in rows if row and row[0].isdigit()]
    shells: dict[int, list[int]] = {}
    k = 0
    while k < len(rows):
        try:
            atom, degree = int(rows[k][2]) - 1, int(rows[k][4])
            orders = [int(row[5]) for row in rows[k : k + 2 * degree + 1]]
        except (ValueError, IndexError) as error:
            raise InputError(f"{path / 'basis-indices.out'}: line of function {rows[k][0]} is not understood ({error})") from error
        if orders != list(range(-degree, degree + 1)):
            raise InputError(f"{path / 'basis-indices.out'}: m of the functions from {rows[k][0]} on is {orders}; expected −l … l in order")
        shells.setdefault(atom, []).append(degree)
        k += 2 * degree + 1
    if sorted(shells) != list(range(len(crystal))):
        raise InputError(f"{path}: basis functions of {len(shells)} atoms and {len(crystal)} atoms in geometry.in; expected the same")
    basis: dict[int, Basis] = {}
    for atom, z in enumerate(crystal.numbers):
        own = Basis(int(z), tuple(shells[atom]), "FHI-aims", float(z))
        if basis.setdefault(int(z), own) != own:
            raise InputError(f"{path}: two atoms of {own.symbol} have different functions; naica keeps one basis per element")
    return basis


def _indices(path: Path, orbitals: int) -> tuple[NDArray[np.int64], ...]:
    """Lattice vectors (C, 3), first and last place of each row of each cell (C, n), and the columns; the last of each is a dummy."""
    words = (path / "rs_indices.out").read_text().split()
    told: dict[str, int] = {}
    place = 0
    while len(told) < 3 and place + 1 < len(words):
        told[words[place].rstrip(":")] = int(words[place + 1])
        place += 2
    try:
        size, cells, functions = (told[k] for k in ("n_hamiltonian_matrix_size", "n_cells_in_hamiltonian", "n_basis"))
    except KeyError as error:
        raise InputError(f"{path / 'rs_indices.out'} does not begin with sizes ({error} is missing)") from error
    if functions != orbitals:
        raise InputError(f"{path}: {functions} functions in rs_indices.out, {orbitals} in basis-indices.out; expected the same")
    numbers = np.array([int(w) for w in words[place:] if w.lstrip("+-").isdigit()], dtype=np.int64)
    counts = np.cumsum([3 * cells, cells * functions, cells * functions, size])
    if len(numbers) < counts[-1]:
        raise InputError(f"{path / 'rs_indices.out'} ends in the middle; was FHI-aims still writing?")
    images, first, last, columns = np.split(numbers[: counts[-1]], counts[:-1])
    shape = (cells, functions)
    return images.reshape(-1, 3)[:-1], first.reshape(shape)[:-1], last.reshape(shape)[:-1], columns[:-1]


def _values(path: Path, count: int) -> NDArray[np.float64]:
    """The numbers of a file; exponents of three digits lack their letter in Fortran, and such numbers are 0."""
    words = path.read_text().split()
    found = np.array([0.0 if re.fullmatch(r"[-+]?\d*\.\d+[-+]\d{3}", w) else float(w) for w in words])
    if len(found) < count:
        raise InputError(f"{path} has {len(found)} numbers; rs_indices.out announces {count}: it is cut off")
    return found[:count]


def _whole(
    images: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float64]
) -> dict[tuple[int, ...], NDArray[np.float64]]:
    """Full matrices by the code's R; what is not stored is the transpose of what −R stores."""
    n = first.shape[1]
    stored: dict[tuple[int, ...], tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}
    for c, image in enumerate(images.tolist()):
        counts = np.where((first[c] > 0) & (last[c] >= first[c]), last[c] - first[c] + 1, 0)
        rows = np.repeat(np.arange(n), counts)
        runs = [np.arange(a - 1, a - 1 + k, dtype=np.int64) for a, k in zip(first[c], counts, strict=True)]
        places = np.concatenate([np.zeros(0, dtype=np.int64), *runs])
        where = (rows, columns[places] - 1)
        matrix = sparse.csr_matrix((values[places], where), shape=(n, n)).toarray()
        mask = np.zeros((n, n), dtype=bool)
        mask[where] = True
        stored[tuple(image)] = (matrix, mask)
    found = {}
    for image, (matrix, mask) in stored.items():
        reverse = stored.get(tuple(-x for x in image))
        found[image] = matrix if reverse is None else np.where(mask, matrix, reverse[0].T)
    return found
