"""Published matrices as NumPy archives (set ``hamiltonians``): molecules as whole matrices or triangles, crystals as blocks by R.

Orbitals of an atom are 1s 2s 2px 2py 2pz (H: 1s; Si: s px py pz). Molecules and graphene come in Hartree, silicon in eV.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from naica.data.labels import Level
from naica.errors import InputError
from naica.hamiltonian.basis import HARTREE, Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.structure import Crystal

_BASES = {1: Basis(1, (0,), "STO-3G", 1.0), 6: Basis(6, (0, 0, 1), "STO-3G", 6.0), 8: Basis(8, (0, 0, 1), "STO-3G", 8.0)}
_SILICON = {14: Basis(14, (0, 1), "sp", 4.0)}


def recognises(path: Path) -> bool:
    """Archives ``.npz`` that hold numbers, positions and some H."""
    if not (path.is_file() and path.suffix == ".npz"):
        return False
    with np.load(path) as file:
        return {"numbers", "positions"} <= set(file.files) and any(k == "H" or k.startswith("H_") for k in file.files)


def read(path: Path) -> list[OrbitalMatrices]:
    """All structures of an archive; where it has several levels of theory, the first one (`levels` names them).

    Raises
    ------
    InputError
        If the archive's shapes are none of the known ones.
    """
    return list(_read(path, levels(path)[0]))


def levels(path: Path) -> list[str]:
    """Names of the Hamiltonians in an archive, for example ``H_hf``, ``H_b3lyp``."""
    with np.load(path) as file:
        return sorted(k for k in file.files if k == "H" or (k.startswith("H_") and k != "H_"))


def read_level(path: Path, name: str) -> list[OrbitalMatrices]:
    """The structures with one of the archive's Hamiltonians (InputError if it has none of this name)."""
    if name not in levels(path):
        raise InputError(f"{path} has no {name!r}; it has {', '.join(levels(path))}")
    return list(_read(path, name))


def _read(path: Path, name: str) -> Iterator[OrbitalMatrices]:
    with np.load(path) as file:
        data = {k: file[k] for k in file.files}
    level = Level(f"{path.stem} {name.removeprefix('H').strip('_')}".strip(), pseudo="STO-3G")
    if "pairs_H" in data:
        yield _silicon(data, level)
    elif "R" in data:
        yield from _graphene(data, level)
    else:
        yield from _molecules(data, name, level)


def _whole(crystal: Crystal) -> Basis:
    return Basis(1, tuple(shell for z in crystal.numbers for shell in _BASES[int(z)].shells))


def _molecules(data: dict[str, Any], name: str, level: Level) -> Iterator[OrbitalMatrices]:
    convert = convention("cartesian-p")
    for k, positions in enumerate(data["positions"]):
        crystal = Crystal(data["numbers"].astype(int), positions)
        whole = _whole(crystal)
        dense = {"H": _square(data[name][k], whole.size) * HARTREE, "S": _square(data["S"][k], whole.size)}
        std = {kind: convert.to_std(m.astype(np.float64), whole, whole) for kind, m in dense.items()}
        yield OrbitalMatrices.from_dense(crystal, _own(crystal), std, electrons=float(crystal.numbers.sum()), level=level)


def _square(values: Any, size: int) -> Any:
    """A full matrix, from itself or from its upper triangle."""
    if values.ndim == 2:
        return values
    if values.size != size * (size + 1) // 2:
        raise InputError(f"a triangle of {values.size} numbers; {size} orbitals have {size * (size + 1) // 2}")
    full = np.zeros((size, size))
    full[np.triu_indices(size)] = values
    return full + np.triu(full, 1).T


def _own(crystal: Crystal) -> dict[int, Basis]:
    return {int(z): _BASES[int(z)] for z in crystal.numbers}


def _graphene(data: dict[str, Any], level: Level) -> Iterator[OrbitalMatrices]:
    convert, basis = convention("cartesian-p"), _BASES[6]
    flat = "ptr" in data
    for k, positions in enumerate(data["positions"]):
        rows = slice(data["ptr"][k], data["ptr"][k + 1]) if flat else slice(None)
        vectors = data["R"][rows]
        pairs, images, blocks = [], [], {"H": list[Any](), "S": list[Any]()}
        for r, vector in enumerate(vectors):
            for i in range(2):
                for j in range(2):
                    pairs.append((i, j))
                    images.append(vector)
                    cut = (slice(5 * i, 5 * i + 5), slice(5 * j, 5 * j + 5))
                    for kind, unit in (("H", HARTREE), ("S", 1.0)):
                        matrix = (data[kind][rows] if flat else data[kind][k])[r]
                        blocks[kind].append(convert.to_std(matrix[cut].astype(np.float64), basis, basis) * unit)
        crystal = Crystal(data["numbers"].astype(int), positions, data["cell"][k])
        yield OrbitalMatrices.from_pairs(crystal, {6: basis}, np.array(pairs), np.array(images), blocks, electrons=12.0, level=level)


def _silicon(data: dict[str, Any], level: Level) -> OrbitalMatrices:
    """H and S have supports of their own: blocks that only one of them has are zero in the other."""
    convert, basis = convention("cartesian-p"), _SILICON[14]
    keys = np.unique(np.concatenate([data["pairs_H"], data["pairs_S"]]), axis=0).astype(int)
    place = {tuple(key): k for k, key in enumerate(keys.tolist())}
    blocks = {kind: [np.zeros((4, 4)) for _ in keys] for kind in ("H", "S")}
    for kind in ("H", "S"):
        for key, block in zip(data[f"pairs_{kind}"].tolist(), data[kind], strict=True):
            blocks[kind][place[tuple(key)]] = convert.to_std(block.astype(np.float64), basis, basis)
    crystal = Crystal(data["numbers"].astype(int), data["positions"], data["cell"])
    electrons = 4.0 * len(crystal)
    return OrbitalMatrices.from_pairs(crystal, {14: basis}, keys[:, :2], keys[:, 2:], blocks, electrons=electrons, level=level)
