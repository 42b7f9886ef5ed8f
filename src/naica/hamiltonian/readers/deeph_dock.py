"""The folders of DeepH-dock, read and written: ``POSCAR``, ``info.json``, and ``hamiltonian.h5``, ``overlap.h5`` with flat entries.

Spinors: H complex, spin outside; S of orbitals alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from naica.errors import InputError
from naica.hamiltonian.basis import Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.structure import Crystal
from naica.structure.elements import element


def recognises(path: Path) -> bool:
    """Folders with ``POSCAR`` and ``hamiltonian.h5``."""
    return path.is_dir() and (path / "POSCAR").exists() and (path / "hamiltonian.h5").exists()


def read(path: Path) -> list[OrbitalMatrices]:
    """The one structure of a folder.

    Raises
    ------
    InputError
        If the files disagree about their pairs, or blocks and orbitals do not fit.
    """
    import h5py

    from naica.structure.io import read as read_structure

    crystal = read_structure(path / "POSCAR")
    if not isinstance(crystal, Crystal):
        raise InputError(f"{path / 'POSCAR'} holds several structures; expected one")
    info = json.loads((path / "info.json").read_text())
    spin = bool(info.get("spinful"))
    basis = {element(s).number: Basis(element(s).number, tuple(shells)) for s, shells in info["elements_orbital_map"].items()}
    convert, matrices = convention("deeph-dock"), dict[str, list[Any]]()
    pairs: Any = None
    for kind, name in (("H", "hamiltonian.h5"), ("S", "overlap.h5")):
        if not (path / name).exists():
            continue
        with h5py.File(path / name, "r") as file:
            own, shapes, ends, flat = (file[k][:] for k in ("atom_pairs", "chunk_shapes", "chunk_boundaries", "entries"))
        if pairs is not None and not np.array_equal(pairs, own):
            raise InputError(f"{path}: {name} has other pairs of atoms than hamiltonian.h5; expected the same")
        pairs = own
        blocks = []
        for k, (row, shape) in enumerate(zip(own, shapes, strict=True)):
            left, right = (basis[int(crystal.numbers[a])] for a in row[3:])
            expected = tuple((2 if spin and kind == "H" else 1) * b.size for b in (left, right))
            if tuple(shape) != expected:
                raise InputError(f"{path}: block {row.tolist()} of {name} is {tuple(shape)}; its atoms have {expected} orbitals")
            block = convert.to_std(flat[ends[k] : ends[k + 1]].reshape(shape), left, right)
            blocks.append(np.kron(np.eye(2), block) if spin and kind == "S" else block)
        matrices[kind] = blocks
    fermi = info.get("fermi_energy_eV")
    return [
        OrbitalMatrices.from_pairs(crystal, basis, pairs[:, 3:], pairs[:, :3], matrices, fermi=fermi, info={"folder": path.name}, spin=spin)
    ]


def write(matrices: OrbitalMatrices, folder: str | Path) -> Path:
    """A folder that DeepH-dock reads, both directions of every pair; eV and Å."""
    import h5py

    from naica.structure.io import write as write_structure

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    # a POSCAR keeps atoms of one element together
    order = np.argsort(matrices.crystal.numbers, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        raise InputError("a POSCAR keeps atoms of one element together: sort the atoms of this structure by element first")
    write_structure(matrices.crystal, place / "POSCAR", format="vasp")
    info = {
        "atoms_quantity": len(order),
        "orbits_quantity": matrices.n_orbitals // (2 if matrices.spin else 1),
        "orthogonal_basis": matrices.orthogonal,
        "spinful": matrices.spin,
        "fermi_energy_eV": matrices.fermi,
        "elements_orbital_map": {b.symbol: list(b.shells) for b in matrices.basis.values()},
    }
    (place / "info.json").write_text(json.dumps(info))
    apart = ~matrices.on_site
    pairs = np.concatenate(
        [np.concatenate([matrices.images, matrices.pairs], 1), np.concatenate([-matrices.images, matrices.pairs[:, ::-1]], 1)[apart]]
    )
    for kind, name in (("H", "hamiltonian.h5"), ("S", "overlap.h5")):
        if kind not in matrices.blocks:
            continue
        own = [matrices.block(kind, p) for p in range(len(matrices.pairs))]
        if matrices.spin and kind == "S":
            own = [b[: len(b) // 2, : b.shape[1] // 2] for b in own]
        blocks = own + [b.conj().T for b, a in zip(own, apart, strict=True) if a]
        with h5py.File(place / name, "w") as file:
            file["atom_pairs"] = pairs
            file["chunk_shapes"] = np.array([b.shape for b in blocks])
            file["chunk_boundaries"] = np.concatenate([[0], np.cumsum([b.size for b in blocks])])
            file["entries"] = np.concatenate([np.ascontiguousarray(b).ravel() for b in blocks])
    return place
