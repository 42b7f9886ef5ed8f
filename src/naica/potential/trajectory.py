"""Trajectories in one file that a kill cannot spoil.

The file is a row of records, each with its length and checksum::

    magic · { kind (1) · length (8) · crc32 (4) · payload } …

``H`` the header (JSON), ``F`` a block of frames, ``S`` a state to go on from, ``X`` a system that was stopped, and why. Records are only
ever appended; what a kill left half-written is seen by its length or checksum and cut off by the next writer. (HDF5, the obvious choice,
may be unreadable after a kill while it writes.) Within a block positions are whole multiples of `precision` (1e-4 Å by default), stored as
differences from frame to frame, byte by byte, and deflated: about four bytes per atom and frame at room temperature.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError, RunError
from naica.structure import Crystal

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

SUFFIX = ".ntr"
_MAGIC = b"naica trajectory 1\n"
_HEAD = struct.Struct("<cQI")
# per system and frame, 64 bits each
SERIES = ("energy", "kinetic", "temperature", "pressure", "volume", "conserved")


@dataclass(frozen=True)
class Header:
    """What holds for all frames.

    Parameters
    ----------
    numbers : (N) atomic numbers of all systems in one row
    n_atoms : (B) atoms of each system
    pbc : (B, 3)
    dt : fs between steps
    every : steps between frames
    precision : Å, of stored positions
    names : (B) what the systems are called
    settings : how the run was made (model, ensemble, temperatures …), plain JSON
    velocities : whether frames hold velocities
    """

    numbers: NDArray[np.int64]
    n_atoms: NDArray[np.int64]
    pbc: NDArray[np.bool_]
    dt: float
    every: int
    precision: float
    names: tuple[str, ...]
    settings: Mapping[str, Any]
    velocities: bool = False

    def to_json(self) -> bytes:
        """As JSON."""
        plain = {
            "numbers": self.numbers.tolist(),
            "n_atoms": self.n_atoms.tolist(),
            "pbc": self.pbc.astype(int).tolist(),
            "dt": self.dt,
            "every": self.every,
            "precision": self.precision,
            "names": list(self.names),
            "settings": dict(self.settings),
            "velocities": self.velocities,
        }
        return json.dumps(plain).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Header:
        """From JSON."""
        plain = json.loads(text)
        return cls(
            np.array(plain["numbers"], dtype=np.int64),
            np.array(plain["n_atoms"], dtype=np.int64),
            np.array(plain["pbc"], dtype=bool).reshape(-1, 3),
            plain["dt"],
            plain["every"],
            plain["precision"],
            tuple(plain["names"]),
            plain["settings"],
            plain["velocities"],
        )


@dataclass(frozen=True)
class Stopped:
    """A system that was stopped: its index, the step of its last sound state, and why."""

    system: int
    step: int
    reason: str


@dataclass(frozen=True)
class _Record:
    """Where a record's payload lies."""

    kind: bytes
    start: int
    length: int
    crc: int

    @property
    def end(self) -> int:
        return self.start + self.length


def _records(file: BinaryIO) -> Iterator[_Record]:
    """Whole records, without reading what is in frames; the last one is checked when it is used."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    at = len(_MAGIC)
    while at + _HEAD.size <= size:
        file.seek(at)
        kind, length, crc = _HEAD.unpack(file.read(_HEAD.size))
        record = _Record(kind, at + _HEAD.size, length, crc)
        if record.end > size or kind not in (b"H", b"F", b"S", b"X"):
            return
        yield record
        at = record.end


def _payload(file: BinaryIO, record: _Record) -> bytes | None:
    """What is in a record; None if it is spoilt."""
    file.seek(record.start)
    data = file.read(record.length)
    return data if len(data) == record.length and zlib.crc32(data) == record.crc else None


class Writer:
    """Appends frames; keeps them in memory until `flush`.

    Parameters
    ----------
    path : of the file
    header : of a new file; None: go on with the file that is there, after the last state it holds

    Raises
    ------
    InputError
        If the file to go on with is none of ours or holds no state.
    RunError
        If it cannot be written, or another process writes it.
    """

    def __init__(self, path: str | Path, header: Header | None = None) -> None:
        self.path = Path(path)
        self._frames: list[dict[str, Any]] = []
        self.state: dict[str, Any] | None = None
        try:
            if header is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb+" if header is not None else "rb+")
        except FileExistsError as error:
            raise RunError(f"{path} is there already; go on with it, or name another file") from error
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error
        _lock(self._file, self.path)
        if header is not None:
            self.header = header
            self._file.write(_MAGIC)
            self._append(b"H", header.to_json())
        else:
            self.header, self.state = self._reopen()

    def _reopen(self) -> tuple[Header, dict[str, Any]]:
        """Cut off what follows the last whole state."""
        self._file.seek(0)
        if self._file.read(len(_MAGIC)) != _MAGIC:
            raise InputError(f"{self.path} is no trajectory of naica")
        records = list(_records(self._file))
        whole = [record for record in records if record.kind in (b"H", b"S")]
        header = next((data for r in whole if r.kind == b"H" and (data := _payload(self._file, r)) is not None), None)
        if header is None:
            raise InputError(f"{self.path}: its header is spoilt; the run cannot be resumed")
        for record in reversed(whole):
            if record.kind == b"S" and (data := _payload(self._file, record)) is not None:
                self._file.seek(record.end)
                self._file.truncate()
                return Header.from_json(header), _unpack(data)
        raise InputError(f"{self.path} holds no state to go on from; remove it and start anew")

    def frame(
        self, step: int, members: Sequence[int], positions: Array, cell: Array, series: Mapping[str, Array], **further: Array
    ) -> None:
        """Keep a frame for the next block.

        Parameters
        ----------
        members : which systems of the header are in it, in order
        positions, cell : of all their atoms in one row, (n, 3) and (b, 3, 3), Å
        series : the quantities of `SERIES`, (b) each
        further : ``velocities`` (n, 3) in Å/fs
        """
        if self._frames and self._frames[0]["members"] != tuple(members):
            self.flush()
        self._frames.append(
            {"step": step, "members": tuple(members), "positions": positions, "cell": cell, "series": dict(series), **further}
        )

    def flush(self) -> None:
        """Write the frames kept so far as one block."""
        if self._frames:
            self._append(b"F", _pack_frames(self._frames, self.header))
            self._frames = []

    def save(self, arrays: Mapping[str, Any]) -> None:
        """Write all frames, then a state to go on from, and make sure both are on the disk."""
        self.flush()
        self._append(b"S", _pack(arrays))
        self._file.flush()
        os.fsync(self._file.fileno())

    def stopped(self, what: Stopped) -> None:
        """Write that a system was stopped."""
        self.flush()
        self._append(b"X", json.dumps({"system": what.system, "step": what.step, "reason": what.reason}).encode())

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._file.close()

    def _append(self, kind: bytes, payload: bytes) -> None:
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(_HEAD.pack(kind, len(payload), zlib.crc32(payload)) + payload)
            self._file.flush()
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}; the run can be resumed from it") from error


def _lock(file: BinaryIO, path: Path) -> None:
    """One writer at a time, where the system knows locks."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RunError(f"another process writes {path}; wait for it or stop it") from error


@dataclass(frozen=True)
class Frames:
    """Frames of one system (K frames, n atoms).

    `step` (K), `time` (K) fs, `positions` (K, n, 3) Å and not wrapped, `cell` (K, 3, 3) Å; (K) each: `energy`, `kinetic`, `conserved` eV,
    `temperature` K, `pressure` eV/Å³, `volume` Å³. `velocities` (K, n, 3) Å/fs where they were kept.
    """

    step: NDArray[np.int64]
    time: Array
    positions: Array
    cell: Array
    energy: Array
    kinetic: Array
    temperature: Array
    pressure: Array
    volume: Array
    conserved: Array
    velocities: Array | None

    def __len__(self) -> int:
        return len(self.step)


class Trajectory:
    """A trajectory file, read: whole blocks only, so a file that is being written can be read as well.

    Parameters
    ----------
    path : of the file

    Raises
    ------
    InputError
        If it is no trajectory of ours.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise InputError(f"{path} is no trajectory of naica (*{SUFFIX}); expected what `naica md` writes")
                self._blocks = list(_records(file))
                head = _payload(file, self._blocks[0]) if self._blocks and self._blocks[0].kind == b"H" else None
                if head is None:
                    raise InputError(f"{path}: its header is spoilt")
                self.header = Header.from_json(head)
                told = [json.loads(data) for r in self._blocks if r.kind == b"X" and (data := _payload(file, r)) is not None]
                self.stopped = tuple(Stopped(one["system"], one["step"], one["reason"]) for one in told)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error

    @classmethod
    def begun(cls, path: str | Path) -> bool:
        """Whether there is a run to go on with; a file that was killed before its first state is removed, as it holds nothing.

        Raises
        ------
        InputError
            If the file is none of ours.
        """
        path = Path(path)
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
            if head == _MAGIC and any(r.kind == b"S" and _payload(file, r) is not None for r in _records(file)):
                return True
        if not _MAGIC.startswith(head):
            raise InputError(f"{path} is no trajectory of naica; name another file")
        path.unlink()
        return False

    def __len__(self) -> int:
        """Systems."""
        return len(self.header.n_atoms)

    @property
    def settings(self) -> Mapping[str, Any]:
        """How the run was made."""
        return self.header.settings

    def state(self) -> dict[str, Any] | None:
        """The last state a run can go on from; None if there is none."""
        with self.path.open("rb") as file:
            for record in reversed(self._blocks):
                if record.kind == b"S" and (data := _payload(file, record)) is not None:
                    return _unpack(data)
        return None

    def holds(self, system: int) -> bool:
        """Whether there are frames of a system: one that was stopped before the first step has none."""
        return any(system in told["members"] for told in self._told())

    def numbers(self, system: int = 0) -> NDArray[np.int64]:
        """(n) atomic numbers of a system."""
        start = int(self.header.n_atoms[:system].sum())
        return self.header.numbers[start : start + int(self.header.n_atoms[system])]

    def frames(self, system: int = 0, first: int = 0, stride: int = 1) -> Frames:
        """All frames of a system, or every `stride`-th of those from step `first` on.

        Raises
        ------
        InputError
            If there is no such system, or a block is spoilt.
        """
        self._known(system)
        kept: list[dict[str, Any]] = []
        for block in self._read():
            if system not in block["members"]:
                continue
            at = block["members"].index(system)
            begin = int(self.header.n_atoms[list(block["members"][:at])].sum())
            atoms = slice(begin, begin + int(self.header.n_atoms[system]))
            part = {"step": block["step"], "positions": block["positions"][:, atoms], "cell": block["cell"][:, at]}
            part.update((name, block["series"][name][:, at]) for name in SERIES)
            if "velocities" in block:
                part["velocities"] = block["velocities"][:, atoms]
            kept.append(part)
        if not kept:
            raise InputError(f"{self.path} holds no frames of system {system}")
        whole = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
        rows = np.flatnonzero(whole["step"] >= first)[::stride]
        whole = {name: values[rows] for name, values in whole.items()}
        return Frames(time=whole["step"] * self.header.dt, velocities=whole.pop("velocities", None), **whole)

    def crystals(self, system: int = 0, first: int = 0, stride: int = 1) -> Iterator[Crystal]:
        """The frames of a system as crystals; ``info`` holds step, time (fs), energy (eV) and temperature (K)."""
        frames, numbers, pbc = self.frames(system, first, stride), self.numbers(system), self.header.pbc[system]
        for k in range(len(frames)):
            info = {
                "step": int(frames.step[k]),
                "time": float(frames.time[k]),
                "energy": float(frames.energy[k]),
                "temperature": float(frames.temperature[k]),
            }
            yield Crystal(numbers, frames.positions[k], frames.cell[k], pbc, info)

    def atoms(self, system: int = 0, first: int = 0, stride: int = 1) -> Iterator[Atoms]:
        """The frames of a system as ASE atoms, with energy and, where kept, velocities."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.units import fs

        frames, numbers, pbc = self.frames(system, first, stride), self.numbers(system), self.header.pbc[system]
        for k in range(len(frames)):
            made = Atoms(numbers=numbers, positions=frames.positions[k], cell=frames.cell[k], pbc=pbc)
            made.info.update(step=int(frames.step[k]), time_fs=float(frames.time[k]), temperature_K=float(frames.temperature[k]))
            if frames.velocities is not None:
                made.set_velocities(frames.velocities[k] / fs)
            made.calc = SinglePointCalculator(made, energy=float(frames.energy[k]))
            yield made

    def export(self, out: str | Path, system: int = 0, first: int = 0, stride: int = 1) -> int:
        """Write the frames of a system to any format ASE knows by its suffix (extxyz, traj …), or as arrays (``.npz``); how many they
        were.
        """
        out = Path(out)
        try:
            if out.suffix == ".npz":
                frames = self.frames(system, first, stride)
                arrays: dict[str, Any] = {name: value for name, value in vars(frames).items() if value is not None}
                np.savez_compressed(out, numbers=self.numbers(system), pbc=self.header.pbc[system], **arrays)  # type: ignore[arg-type]
                return len(frames)
            from ase.io import write

            every = list(self.atoms(system, first, stride))
            write(out, every, format="extxyz" if out.suffix == ".xyz" else None)
        except OSError as error:
            raise RunError(f"cannot write {out}: {error.strerror or error}") from error
        return len(every)

    def _known(self, system: int) -> None:
        if not 0 <= system < len(self):
            raise InputError(f"{self.path} holds systems 0 to {len(self) - 1}; asked for {system}")

    def _told(self) -> Iterator[dict[str, Any]]:
        """What blocks of frames say of themselves, without reading the frames."""
        with self.path.open("rb") as file:
            for record in self._blocks:
                if record.kind == b"F":
                    file.seek(record.start)
                    (length,) = struct.unpack("<I", file.read(4))
                    yield json.loads(file.read(length))

    def _read(self) -> Iterator[dict[str, Any]]:
        frames = [record for record in self._blocks if record.kind == b"F"]
        with self.path.open("rb") as file:
            for record in frames:
                data = _payload(file, record)
                if data is None:
                    if record is frames[-1] and record is self._blocks[-1]:
                        return  # it is being written
                    raise InputError(f"{self.path}: a block of frames at byte {record.start} is spoilt")
                yield _unpack_frames(data, self.header)


# --- payloads ---------------------------------------------------------------------------------------------------------------------------
def _pack(arrays: Mapping[str, Any]) -> bytes:
    """Arrays exactly as they are; what is no array as JSON."""
    held = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in arrays.items() if name not in held}
    out = io.BytesIO()
    held["__plain__"] = np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8)
    np.savez_compressed(out, allow_pickle=False, **held)
    return out.getvalue()


def _unpack(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        arrays: dict[str, Any] = {name: held[name] for name in held.files if name != "__plain__"}
        arrays.update(json.loads(held["__plain__"].tobytes()))
    return arrays


def _pack_frames(frames: Sequence[Mapping[str, Any]], header: Header) -> bytes:
    positions = np.stack([frame["positions"] for frame in frames])
    parts = [
        np.array([frame["step"] for frame in frames], dtype="<i8").tobytes(),
        np.stack([frame["cell"] for frame in frames]).astype("<f8").tobytes(),
        *(np.stack([frame["series"][name] for frame in frames]).astype("<f8").tobytes() for name in SERIES),
        _deflated(positions, header.precision),
    ]
    if header.velocities:
        parts.append(zlib.compress(_by_byte(np.stack([frame["velocities"] for frame in frames]).astype("<f4")), 1))
    parts[1] = zlib.compress(parts[1], 1)
    told = {"frames": len(frames), "members": list(frames[0]["members"]), "sizes": [len(part) for part in parts]}
    head = json.dumps(told).encode()
    return struct.pack("<I", len(head)) + head + b"".join(parts)


def _unpack_frames(data: bytes, header: Header) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", data)
    told = json.loads(data[4 : 4 + length])
    k, members = told["frames"], told["members"]
    b, n = len(members), int(header.n_atoms[members].sum())
    parts, at = [], 4 + length
    for size in told["sizes"]:
        parts.append(data[at : at + size])
        at += size
    block: dict[str, Any] = {
        "members": members,
        "step": np.frombuffer(parts[0], dtype="<i8").astype(np.int64),
        "cell": np.frombuffer(zlib.decompress(parts[1]), dtype="<f8").reshape(k, b, 3, 3),
        "series": {name: np.frombuffer(part, dtype="<f8").reshape(k, b) for name, part in zip(SERIES, parts[2:], strict=False)},
    }
    rest = parts[2 + len(SERIES) :]
    block["positions"] = _inflated(rest[0], (k, n, 3), header.precision)
    if header.velocities:
        block["velocities"] = _from_bytes(zlib.decompress(rest[1]), (k, n, 3), "<f4").astype(np.float64)
    return block


def _deflated(positions: Array, precision: float) -> bytes:
    """Whole multiples of the precision, as differences from frame to frame, byte by byte, deflated. int64, since atoms may diffuse far."""
    whole = np.rint(positions / precision).astype(np.int64)
    steps = np.diff(whole, axis=0, prepend=np.zeros_like(whole[:1]))
    far = int(np.abs(steps).max(initial=0))
    kind = next(name for name, most in (("<i2", 2**15), ("<i4", 2**31), ("<i8", 2**63)) if far < most)
    # the first frame holds places, the others steps: they have widths of their own
    rest = int(np.abs(steps[1:]).max(initial=0))
    small = next(name for name, most in (("<i2", 2**15), ("<i4", 2**31), ("<i8", 2**63)) if rest < most)
    first, others = _by_byte(steps[:1].astype(kind)), _by_byte(steps[1:].astype(small))
    return struct.pack("<BBQ", int(kind[2]), int(small[2]), len(first)) + zlib.compress(first + others, 1)


def _inflated(data: bytes, shape: tuple[int, ...], precision: float) -> Array:
    wide, narrow, length = struct.unpack_from("<BBQ", data)
    plain = zlib.decompress(data[struct.calcsize("<BBQ") :])
    first = _from_bytes(plain[:length], (1, *shape[1:]), f"<i{wide}").astype(np.int64)
    others = _from_bytes(plain[length:], (shape[0] - 1, *shape[1:]), f"<i{narrow}").astype(np.int64)
    return np.cumsum(np.concatenate([first, others]), axis=0) * precision


def _by_byte(values: NDArray[Any]) -> bytes:
    """All first bytes, then all second bytes …: like stands beside like, and deflates better."""
    return np.ascontiguousarray(np.frombuffer(values.tobytes(), dtype=np.uint8).reshape(-1, values.itemsize).T).tobytes()


def _from_bytes(data: bytes, shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    width = np.dtype(kind).itemsize
    return np.frombuffer(np.ascontiguousarray(np.frombuffer(data, dtype=np.uint8).reshape(width, -1).T).tobytes(), dtype=kind).reshape(
        shape
    )
