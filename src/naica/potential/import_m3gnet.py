"""The published M3GNet potential as a naica model: a TensorFlow checkpoint read without TensorFlow.

Chen and Ong, Nat. Comput. Sci. 2, 718 (2022); weights MP-2021.2.8-EFS: github.com/materialsvirtuallab/m3gnet. The checkpoint is a sorted
table (``m3gnet.index``, blocks of the LevelDB kind) of name → type, shape, place and checksum, and a file of raw numbers. ``m3gnet.json``
beside it holds the settings, the scale and the element references.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.data.registry import dataset
from naica.errors import InputError
from naica.potential.model import PotentialModel

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_FLOAT = 1
_SET = "m3gnet_pretrained"
Arrays = Mapping[str, NDArray[np.float32]]


def import_m3gnet(folder: str | Path | None = None) -> PotentialModel:
    """The published universal potential; elements hydrogen to plutonium.

    Parameters
    ----------
    folder : where ``m3gnet.index``, its data file and ``m3gnet.json`` lie; default: the data set ``m3gnet_pretrained``

    Raises
    ------
    MissingPart
        If the data set is not on this machine; the message says how to get it.
    InputError
        If the files are no such checkpoint, damaged, or of another network.
    """
    place = dataset(_SET).path("m3gnet.index").parent if folder is None else Path(folder)
    settings = _settings(place / "m3gnet.json")
    arrays = read_checkpoint(place / "m3gnet.index")
    config: dict[str, Any] = {
        "width": int(settings["units"]),
        "blocks": int(settings["n_blocks"]),
        "radial": int(settings["max_n"]),
        "angular": int(settings["max_l"]),
        "cutoff": float(settings["cutoff"]),
        "three_body_cutoff": float(settings["threebody_cutoff"]),
        "elements": int(settings["n_atom_types"]),
    }
    if settings.get("include_states") or settings.get("is_intensive"):
        raise InputError(f"{place} holds a network of states or of an intensive property; expected a potential")
    references = {z: float(energy) for z, energy in enumerate(settings["element_refs"]) if z}
    model = PotentialModel("m3gnet", config, scale=float(settings["std"]), references=references)
    try:
        model.backbone.load_state_dict(_state(arrays, config["blocks"]))
    except (KeyError, RuntimeError) as error:
        raise InputError(f"the checkpoint in {place} is not of the network its settings describe: {error}") from error
    return model.eval()


def _settings(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text())
        # JSON within JSON
        config = (json.loads(stored) if isinstance(stored, str) else stored)["config"]
        mean = float(config["mean"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read the settings {path}: {error}; expected the JSON file published with M3GNet") from error
    if mean:
        raise InputError(f"{path} adds a mean of {mean} to every energy; expected 0 as in the published potential")
    return dict(config)


# --- names -------------------------------------------------------------------------------------------------------------------------------
def _state(arrays: Arrays, blocks: int) -> dict[str, Tensor]:
    state = {
        "embedding.weight": torch.from_numpy(arrays["featurizer/atom_network/embedding/embeddings"]),
        "bond_start.weight": torch.from_numpy(arrays["feature_adjust/update_func/pipe/layers/0/kernel"]).T,
    }
    for k in range(blocks):
        three, layer, own = f"three_interactions/{k}", f"graph_layers/{k}", f"blocks.{k}"
        state[f"{own}.partner.weight"] = torch.from_numpy(arrays[f"{three}/update_network/pipe/layers/0/kernel"]).T
        state[f"{own}.partner.bias"] = torch.from_numpy(arrays[f"{three}/update_network/pipe/layers/0/bias"])
        state[f"{own}.bond_weight.weight"] = torch.from_numpy(arrays[f"{layer}/bond_network/weight_func/kernel"]).T
        state[f"{own}.atom_weight.weight"] = torch.from_numpy(arrays[f"{layer}/atom_network/weight_update/kernel"]).T
        state.update(_gated(arrays, f"{three}/update_network2", f"{own}.three_body", 1, bias=False))
        state.update(_gated(arrays, f"{layer}/bond_network/update_func", f"{own}.bond", 2))
        state.update(_gated(arrays, f"{layer}/atom_network/bond_dense", f"{own}.atom", 2))
    state.update(_gated(arrays, "final/layers/0/atom_network/update_func", "readout", 3))
    return state


def _gated(arrays: Arrays, theirs: str, ours: str, layers: int, bias: bool = True) -> dict[str, Tensor]:
    """Both halves of a gated network: their kernels are (in, out), ours are stacked."""
    state = {}
    for k in range(layers):
        kernels, biases = (
            [torch.from_numpy(arrays[f"{theirs}/{half}/layers/{k}/{part}"]) for half in ("pipe", "gate") if bias or part == "kernel"]
            for part in ("kernel", "bias")
        )
        if k == 0:
            state[f"{ours}.first"] = torch.cat(kernels, dim=1).T
        else:
            state[f"{ours}.later.{k - 1}"] = torch.stack(kernels)
        if bias:
            state[f"{ours}.first_bias" if k == 0 else f"{ours}.later_bias.{k - 1}"] = (
                torch.cat(biases) if k == 0 else torch.stack(biases)[:, None]
            )
    return state


# --- the checkpoint ----------------------------------------------------------------------------------------------------------------------
def read_checkpoint(index: str | Path) -> dict[str, NDArray[np.float32]]:
    """Every real-valued variable of a TensorFlow checkpoint of one data file, by name.

    Raises
    ------
    InputError
        If a file is missing or cut short, is not such a checkpoint, or a checksum does not fit.
    """
    path = Path(index)
    data_path = path.with_name(f"{path.stem}.data-00000-of-00001")
    try:
        table, data = path.read_bytes(), data_path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename}: {error.strerror}; expected a TensorFlow checkpoint (index and one data file)"
        ) from error
    found = {}
    try:
        for name, entry in _entries(table):
            if name.endswith(_SUFFIX) and entry.get(1) == _FLOAT:
                found[name.removesuffix(_SUFFIX)] = _array(entry, data)
    except (IndexError, KeyError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable TensorFlow checkpoint: {error}") from error
    if not found:
        raise InputError(f"{path} holds no real-valued variables")
    return found


def _array(entry: Mapping[int, Any], data: bytes) -> NDArray[np.float32]:
    shape = tuple(_fields(dimension).get(1, 0) for dimension in _repeated(entry.get(2, b""), 2))
    start, size = entry.get(4, 0), entry[5]
    raw = data[start : start + size]
    if len(raw) != size or size != 4 * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{size} bytes at {start} for the shape {shape} in a file of {len(data)} bytes")
    if _masked_crc32c(raw) != entry[6]:
        raise ValueError(f"the checksum of the {size} bytes at {start} does not fit: the data file is damaged")
    return np.frombuffer(raw, dtype="<f4").reshape(shape).copy()


def _entries(table: bytes) -> Iterator[tuple[str, dict[int, Any]]]:
    """Keys of the sorted table and their messages (the header, whose key is empty, left out)."""
    if len(table) < _FOOTER or table[-8:] != _MAGIC:
        raise ValueError("it does not end as a sorted table does")
    place = _varint(table, len(table) - _FOOTER)[1]
    start, place = _varint(table, _varint(table, place)[1])
    for _, handle in _block(table, start, _varint(table, place)[0]):
        at, place = _varint(handle, 0)
        for key, value in _block(table, at, _varint(handle, place)[0]):
            if key:
                yield key.decode(), _fields(value)


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; a key says how much of it is the key before."""
    if table[start + size] != 0:
        raise ValueError("its blocks are compressed")
    block = table[start : start + size]
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + own]
        yield key, block[place + own : place + own + length]
        place += own + length


def _fields(message: bytes) -> dict[int, Any]:
    """The fields of a protocol-buffer message by number; of repeated ones the last."""
    return dict(_numbered(message))


def _repeated(message: bytes, number: int) -> list[Any]:
    return [value for field, value in _numbered(message) if field == number]


def _numbered(message: bytes) -> Iterator[tuple[int, Any]]:
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value: Any
            value, place = _varint(message, place)
        elif kind == 2:
            size, place = _varint(message, place)
            value, place = message[place : place + size], place + size
        elif kind == 5:
            value, place = struct.unpack("<I", message[place : place + 4])[0], place + 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        yield tag >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits to a byte, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def _masked_crc32c(raw: bytes) -> int:
    """The checksum as TensorFlow keeps it: Castagnoli's CRC, rotated by 15 bits and shifted."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()
