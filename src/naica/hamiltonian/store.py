"""A set of matrices on disk: a folder of HDF5 shards whose arrays are flat, with offsets, so that one structure is a few slices.

Layout of a shard (B structures, N atoms, P pairs), conventions as in `naica.hamiltonian.matrices`, eV and Å::

    /                     attributes: format, conventions (in words)
    /structures/          atoms (B+1), numbers (N), positions (N, 3), cell (B, 3, 3), pbc (B, 3), name (B)
    /pairs/               start (B+1), atoms (P, 2), images (P, 3)
    /blocks/              start (B+1), H, S, H0, D: all numbers of all pairs, row by row (those kinds every structure of the shard has);
                          complex where spinors are: [[up up, up down], [down up, down down]]
    /labels/              fermi (B), electrons (B), energy (B), forces (N, 3); NaN where unknown
    /check/<row>/         kpoints (K, 3), eigenvalues (K, n)
    /provenance           (B) JSON: basis by element, level of theory, whether blocks are of spinors, and what the source tells of its run

Shards are written whole under another name and renamed, so that a kill leaves no half of one. The reader needs h5py and numpy only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data.labels import Level
from naica.errors import InputError
from naica.hamiltonian.basis import Basis
from naica.hamiltonian.matrices import KINDS, OrbitalMatrices, Reference
from naica.structure import Crystal

FORMAT = 1
_WORDS = (
    "orbitals: shells in the order of the basis, m = -l..l, real spherical harmonics (p: y z x; d: xy yz z2 xz x2-y2); "
    "block = <i, cell 0 | X | j, cell R>; H(k) = sum_R exp(2 pi i k.R) H(R); "
    "one of each pair is kept (i < j, or i = j and R >= 0); eV, Angstrom"
)


class HamiltonianSet:
    """Matrices of many structures in one folder.

    Parameters
    ----------
    folder : with shards ``*.h5``

    Raises
    ------
    InputError
        If there are none, or one is of another format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.shards = _shards(self.folder) if self.folder.is_dir() else [self.folder]
        if not self.shards or not all(p.is_file() for p in self.shards):
            raise InputError(f"no matrices in {self.folder}; expected a folder of .h5 shards (naica hamiltonian make, or import)")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"<HamiltonianSet of {len(self)} structures in {self.folder}>"

    @cached_property
    def _files(self) -> list[Any]:
        import h5py

        files = []
        for shard in self.shards:
            try:
                file = h5py.File(shard, "r")
            except OSError as error:
                raise InputError(f"{shard} is no readable HDF5 file ({error}); remove it and make its structures again") from error
            if int(file.attrs.get("format", 0)) != FORMAT:
                raise InputError(f"{shard} has format {file.attrs.get('format')}; expected {FORMAT}")
            files.append(file)
        return files

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(len(f["provenance"]) for f in self._files)])

    @cached_property
    def names(self) -> list[str]:
        """Of all structures."""
        return [n.decode() for f in self._files for n in f["structures/name"][:]]

    def told(self, what: str) -> list[Any]:
        """One entry of every structure's provenance, for example ``info``, without reading matrices."""
        return [json.loads(text).get(what) for f in self._files for text in f["provenance"][:]]

    @cached_property
    def basis(self) -> dict[int, Basis]:
        """By atomic number, of all structures together.

        Raises
        ------
        InputError
            If two structures have different bases for one element.
        """
        found: dict[int, Basis] = {}
        for file in self._files:
            for text in set(file["provenance"][:]):
                for one in json.loads(text)["basis"]:
                    basis = Basis(one["number"], tuple(one["shells"]), one["name"], one["electrons"])
                    if found.setdefault(basis.number, basis) != basis:
                        raise InputError(f"{self.folder} has two bases for {basis.symbol}: {found[basis.number].text} and {basis.text}")
        return found

    def __iter__(self) -> Iterator[OrbitalMatrices]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, row: int) -> OrbitalMatrices:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        shard = int(np.searchsorted(self._ends, row, side="right")) - 1
        return _read(self._files[shard], row - int(self._ends[shard]))

    @classmethod
    def write(
        cls, folder: str | Path, items: Iterable[OrbitalMatrices], names: Sequence[str] | None = None, per_shard: int = 64
    ) -> HamiltonianSet:
        """Write a new set; see `add`."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        buffer: list[OrbitalMatrices] = []
        done = 0
        for item in items:
            buffer.append(item)
            if len(buffer) == per_shard:
                cls._shard(place, buffer, names, done)
                done, buffer = done + len(buffer), []
        if buffer:
            cls._shard(place, buffer, names, done)
        return cls(place)

    @classmethod
    def _shard(cls, place: Path, items: Sequence[OrbitalMatrices], names: Sequence[str] | None, done: int) -> None:
        own = None if names is None else names[done : done + len(items)]
        write_shard(place / f"shard-{len(list(place.glob('*.h5'))):04d}.h5", items, own)


def packed_names(folder: Path) -> set[str]:
    """Names of all structures in the shards of a folder, its single parts apart."""
    return {name for path in folder.glob("*.h5") for name in HamiltonianSet(path).names}


def _shards(folder: Path) -> list[Path]:
    """The shards of a folder, and the parts of a set in the making that are in none of them yet."""
    whole, parts = sorted(folder.glob("*.h5")), sorted((folder / "parts").glob("*.h5"))
    packed = packed_names(folder) if parts else set()
    return whole + [p for p in parts if p.stem not in packed]


def write_shard(path: Path, items: Sequence[OrbitalMatrices], names: Sequence[str] | None = None) -> None:
    """One file of some structures, whole or not at all.

    Raises
    ------
    InputError
        If a structure lacks a kind of matrix that others have.
    """
    import h5py

    kinds = [k for k in KINDS if any(k in m.blocks for m in items)]
    for k, m in enumerate(items):
        if missing := [kind for kind in kinds if kind not in m.blocks]:
            raise InputError(f"structure {k} ({m.crystal.formula}) has no {', '.join(missing)}, which others of this shard have")
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    names = list(names) if names is not None else [m.crystal.hash for m in items]
    with h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["conventions"] = FORMAT, _WORDS
        s = file.create_group("structures")
        s["atoms"] = _ends(len(m.crystal) for m in items)
        s["numbers"] = np.concatenate([m.crystal.numbers for m in items]).astype(np.uint8)
        s["positions"] = np.concatenate([m.crystal.positions for m in items])
        s["cell"] = np.stack([m.crystal.cell for m in items])
        s["pbc"] = np.stack([m.crystal.pbc for m in items])
        s["name"] = np.array([n.encode() for n in names])
        p = file.create_group("pairs")
        p["start"] = _ends(len(m.pairs) for m in items)
        p["atoms"] = np.concatenate([m.pairs for m in items]).astype(np.int32)
        p["images"] = np.concatenate([m.images for m in items]).astype(np.int16)
        b = file.create_group("blocks")
        b["start"] = _ends(int(m.starts[-1]) for m in items)
        for kind in kinds:
            b.create_dataset(kind, data=np.concatenate([m.blocks[kind] for m in items]), chunks=None)
        labels = file.create_group("labels")
        for name in ("fermi", "electrons", "energy"):
            labels[name] = np.array([np.nan if getattr(m, name) is None else getattr(m, name) for m in items], dtype=np.float64)
        labels["forces"] = np.concatenate([np.full((len(m.crystal), 3), np.nan) if m.forces is None else m.forces for m in items])
        for row, m in enumerate(items):
            if m.reference is not None:
                file[f"check/{row}/kpoints"], file[f"check/{row}/eigenvalues"] = m.reference.kpoints, m.reference.eigenvalues
        file["provenance"] = np.array([_provenance(m).encode() for m in items])
    os.replace(temporary, path)


def _provenance(m: OrbitalMatrices) -> str:
    own = [m.basis[z].to_dict() for z in sorted({int(z) for z in m.crystal.numbers})]
    return json.dumps(
        {"basis": own, "level": None if m.level is None else asdict(m.level), "spin": m.spin, "info": dict(m.info)},
        sort_keys=True,
        default=_plain,
    )


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _ends(counts: Iterable[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(list(counts))]).astype(np.int64)


def _read(file: Any, row: int) -> OrbitalMatrices:
    s, p, b, labels = file["structures"], file["pairs"], file["blocks"], file["labels"]
    a0, a1 = s["atoms"][row : row + 2]
    p0, p1 = p["start"][row : row + 2]
    b0, b1 = b["start"][row : row + 2]
    told: Mapping[str, Any] = json.loads(file["provenance"][row])
    check = file.get(f"check/{row}")
    forces = labels["forces"][a0:a1]
    one = {name: float(labels[name][row]) for name in ("fermi", "electrons", "energy")}
    return OrbitalMatrices(
        Crystal(s["numbers"][a0:a1].astype(np.int64), s["positions"][a0:a1], s["cell"][row], s["pbc"][row]),
        {e["number"]: Basis(e["number"], tuple(e["shells"]), e["name"], e["electrons"]) for e in told["basis"]},
        p["atoms"][p0:p1].astype(np.int64),
        p["images"][p0:p1].astype(np.int64),
        {kind: b[kind][b0:b1] for kind in KINDS if kind in b},
        fermi=None if np.isnan(one["fermi"]) else one["fermi"],
        electrons=None if np.isnan(one["electrons"]) else one["electrons"],
        reference=None if check is None else Reference(check["kpoints"][:], check["eigenvalues"][:]),
        energy=None if np.isnan(one["energy"]) else one["energy"],
        forces=None if np.isnan(forces).any() else forces,
        level=None if told["level"] is None else Level(**told["level"]),
        info=told["info"],
        spin=told.get("spin", False),
    )
