"""The folders of DeepH-pack, read and written.

``lat.dat`` (lattice vectors as columns), ``site_positions.dat``, ``element.dat``, ``orbital_types.dat``, ``info.json``, ``hamiltonians.h5``
and ``overlaps.h5``, whose keys are "[R1, R2, R3, i, j]" with atoms counted from 1. Spinors: H complex, spin outside; S of orbitals alone.
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

_NEEDED = ("lat.dat", "site_positions.dat", "element.dat", "orbital_types.dat", "hamiltonians.h5")


def recognises(path: Path) -> bool:
    """Folders with ``lat.dat`` and ``hamiltonians.h5``."""
    return path.is_dir() and (path / "lat.dat").exists() and (path / "hamiltonians.h5").exists()


def read(path: Path) -> list[OrbitalMatrices]:
    """The one structure of a folder.

    Raises
    ------
    InputError
        If a file is missing, or blocks and orbitals do not fit.
    """
    import h5py

    missing = [name for name in _NEEDED if not (path / name).exists()]
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}; expected a folder of DeepH-pack")
    info = json.loads((path / "info.json").read_text()) if (path / "info.json").exists() else {}
    spin = bool(info.get("isspinful"))
    cell = np.loadtxt(path / "lat.dat", ndmin=2).T
    positions = np.loadtxt(path / "site_positions.dat", ndmin=2).T
    numbers = np.loadtxt(path / "element.dat", ndmin=1).astype(int)
    shells = [tuple(int(w) for w in line.split()) for line in (path / "orbital_types.dat").read_text().splitlines() if line.strip()]
    basis: dict[int, Basis] = {}
    for z, own in zip(numbers, shells, strict=True):
        if basis.setdefault(int(z), Basis(int(z), own)).shells != own:
            raise InputError(f"{path}: two atoms of one element have different orbitals; naica keeps one basis per element")
    crystal = Crystal(numbers, positions, cell)
    matrices: dict[str, list[Any]] = {}
    keys: list[str] = []
    for kind, name in (("H", "hamiltonians.h5"), ("S", "overlaps.h5")):
        if not (path / name).exists():
            continue
        with h5py.File(path / name, "r") as file:
            keys = keys or list(file)
            matrices[kind] = [np.array(file[k]) if k in file else None for k in keys]
    places = np.array([json.loads(k) for k in keys])
    pairs, images = places[:, 3:] - 1, places[:, :3]
    convert = convention("deeph")
    for kind, blocks in matrices.items():
        for k, block in enumerate(blocks):
            left, right = (basis[int(numbers[a])] for a in pairs[k])
            times = 2 if spin and kind == "H" else 1
            given = np.zeros((times * left.size, times * right.size)) if block is None else block
            size = (times * left.size, times * right.size)
            if given.shape != size:
                raise InputError(f"{path}: block {keys[k]} of {kind} is {given.shape}; its atoms have {size[0]} and {size[1]} orbitals")
            standard = convert.to_std(given, left, right)
            matrices[kind][k] = np.kron(np.eye(2), standard) if spin and times == 1 else standard
    fermi = info.get("fermi_level")
    return [OrbitalMatrices.from_pairs(crystal, basis, pairs, images, matrices, fermi=fermi, info={"folder": path.name}, spin=spin)]


def write(matrices: OrbitalMatrices, folder: str | Path) -> Path:
    """A folder that DeepH-pack reads, both directions of every pair; eV and Å."""
    import h5py

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    c, convert = matrices.crystal, convention("deeph")
    np.savetxt(place / "lat.dat", c.cell.T)
    np.savetxt(place / "rlat.dat", 2 * np.pi * np.linalg.inv(c.cell))
    np.savetxt(place / "site_positions.dat", c.positions.T)
    np.savetxt(place / "element.dat", c.numbers, fmt="%d")
    lines = [" ".join(map(str, matrices.basis[int(z)].shells)) for z in c.numbers]
    (place / "orbital_types.dat").write_text("\n".join(lines) + "\n")
    told = {
        "nsites": len(c),
        "isorthogonal": matrices.orthogonal,
        "isspinful": matrices.spin,
        "norbits": matrices.n_orbitals // (2 if matrices.spin else 1),
        "fermi_level": matrices.fermi,
    }
    (place / "info.json").write_text(json.dumps(told))
    for kind, name in (("H", "hamiltonians.h5"), ("S", "overlaps.h5")):
        if kind not in matrices.blocks:
            continue
        with h5py.File(place / name, "w") as file:
            for p, (i, j) in enumerate(matrices.pairs):
                left, right = (matrices.basis[int(c.numbers[a])] for a in (i, j))
                own = matrices.block(kind, p)
                own = own[: left.size, : right.size] if kind == "S" else own
                block = convert.from_std(own, left, right)
                file[json.dumps([*matrices.images[p].tolist(), int(i) + 1, int(j) + 1])] = block
                if not matrices.on_site[p]:
                    file[json.dumps([*(-matrices.images[p]).tolist(), int(j) + 1, int(i) + 1])] = block.conj().T
    return place
