"""One file per graph set: a JSON header, then the arrays, memory-mapped when read.

Layout: 8 bytes magic, 8 bytes header length (little-endian), header, padding to 64 bytes, arrays one after the other, each aligned to
64 bytes. The header holds spec, content hash of the crystals, versions of the makers of further levels, and a checksum of
the arrays. Fields of further levels are called ``extra.NAME``, the items of each level per crystal ``count.LEVEL``.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from naica.errors import RunError
from naica.graphs.levels import versions
from naica.graphs.spec import GraphSpec

if TYPE_CHECKING:
    from naica.graphs.graphset import GraphSet

_MAGIC = b"NAICAgr1"
_ALIGN = 64
# raise when the neighbour search changes what it returns: older files are then stale
_VERSION = 2
_ARRAYS = ("counts", "numbers", "degrees", "senders", "vectors")


def read(path: Path, spec: GraphSpec, digest: str) -> GraphSet | None:
    """The graphs kept in `path`, or None if there is no such file or it must be built again (then with a warning)."""
    from naica.graphs.graphset import GraphSet

    if not path.exists():
        return None
    try:
        header, arrays = _open(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"graph cache {path} is damaged ({error}); building it again", UserWarning, stacklevel=3)
        return None
    mine = (_VERSION, spec.to_dict(), digest, versions(spec))
    if (header["version"], header["spec"], header["digest"], header.get("makers")) != mine:
        warnings.warn(f"graph cache {path} belongs to other crystals or another graph; building it again", UserWarning, stacklevel=3)
        return None
    rejected = {int(row): reason for row, reason in header["rejected"].items()}
    extras = {name.removeprefix("extra."): array for name, array in arrays.items() if name.startswith("extra.")}
    counts = {name.removeprefix("count."): array for name, array in arrays.items() if name.startswith("count.")}
    base = {name: arrays[name] for name in _ARRAYS}
    return GraphSet(spec, header["ids"], rejected=rejected, extras=extras, level_counts=counts, **base)


def _open(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with path.open("rb") as handle:
        if handle.read(8) != _MAGIC:
            raise ValueError("not a graph file")
        length = int.from_bytes(handle.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("its header is cut off")
        header = json.loads(handle.read(length))
    begin = _aligned(16 + length)
    if path.stat().st_size != begin + header["bytes"]:
        raise ValueError(f"{path.stat().st_size} bytes; its header promises {begin + header['bytes']}")
    whole = np.memmap(path, dtype=np.uint8, mode="r", offset=begin, shape=(header["bytes"],)) if header["bytes"] else np.zeros(0, np.uint8)
    if zlib.crc32(_bytes(whole)) != header["crc32"]:
        raise ValueError("its checksum does not fit")
    arrays = {}
    for name, part in header["arrays"].items():
        size = int(np.prod(part["shape"])) * np.dtype(part["dtype"]).itemsize
        arrays[name] = np.asarray(whole[part["offset"] : part["offset"] + size]).view(part["dtype"]).reshape(part["shape"])
    return header, arrays


def write(path: Path, graphs: GraphSet, digest: str) -> None:
    """Write the graphs; the file appears only when it is complete.

    Raises
    ------
    RunError
        If the disk is full or the folder cannot be written.
    """
    arrays = {name: np.ascontiguousarray(getattr(graphs, name)) for name in _ARRAYS}
    arrays.update({f"extra.{name}": np.ascontiguousarray(values) for name, values in graphs.extras.items()})
    arrays.update({f"count.{level}": np.ascontiguousarray(counts) for level, counts in graphs.level_counts.items()})
    parts, offset, crc = {}, 0, 0
    for name, array in arrays.items():
        parts[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "offset": offset}
        for piece in _pieces(array):
            crc = zlib.crc32(piece, crc)
        offset = _aligned(offset + array.nbytes)
    header = {
        "version": _VERSION,
        "spec": graphs.spec.to_dict(),
        "digest": digest,
        "makers": versions(graphs.spec),
        "bytes": offset,
        "crc32": crc,
        "arrays": parts,
        "ids": graphs.ids,
        "rejected": {str(row): reason for row, reason in graphs.rejected.items()},
    }
    text = json.dumps(header).encode()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as handle:
            temporary = Path(handle.name)
            handle.write(_MAGIC + len(text).to_bytes(8, "little") + text)
            handle.write(b"\0" * (_aligned(16 + len(text)) - 16 - len(text)))
            for array in arrays.values():
                for piece in _pieces(array):
                    handle.write(piece)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write the graph cache {path}: {error.strerror or error}; free space or choose another folder") from error


def _pieces(array: NDArray[Any]) -> tuple[memoryview, bytes]:
    """The bytes of an array and the zeros that align the next one."""
    return _bytes(array.reshape(-1).view(np.uint8)), b"\0" * (_aligned(array.nbytes) - array.nbytes)


def _bytes(array: NDArray[np.uint8]) -> memoryview:
    """The memory of an array, not copied."""
    return memoryview(cast(Any, array))


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
