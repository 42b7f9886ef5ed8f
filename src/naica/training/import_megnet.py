"""The published MEGNet models as naica models.

Chen et al., Chem. Mater. 31, 3564 (2019) and Nat. Comput. Sci. 1, 46 (2021); released weights: github.com/materialsvirtuallab/megnet. A
model is a Keras file (HDF5: numbers and text, nothing that could run) and a JSON file beside it, which says how its graphs are made and
how its target was scaled. Which tensor belongs where is read from the network's own description inside the HDF5 file.

The weights want what the TensorFlow code of their time did: hard gates and an empty cell state in every pass of Set2Set. The head's
shifted softplus becomes naica's softplus by moving the shift into the next bias. The classifier gives the probability of a gap; naica's
class is the metal, so its two logits are (z, 0). Crystals with an isolated atom were left out in training and are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.data.labels import Level
from naica.errors import InputError
from naica.fields import field
from naica.models.megnet import MEGNet
from naica.nn.atoms import N_ELEMENTS
from naica.runtime import tune
from naica.structure.elements import symbol
from naica.training.card import Calibration, Card, versions
from naica.training.config import HeadConfig
from naica.training.ensemble import Ensemble
from naica.training.property import PropertyModel, config_dict
from naica.training.target import Target

_MP = Level("PBE", "MP", "PAW (MP)", "", "VASP")
_MP_ENERGY = Level("PBE", "MP", "PAW (MP)", "MP legacy (before 2021)", "VASP")
_QM9 = Level("B3LYP", "", "6-31G(2df,p)", "", "Gaussian")
FIDELITIES = (Level("PBE", "", "", "", "VASP"), Level("GLLB-SC", "", "", "", "GPAW"), Level("HSE", "", "", "", "VASP"), Level("experiment"))
"""Levels of theory of the multi-fidelity models, in the order of their state."""

# file → quantity, level of theory, and what its unit is multiplied by
_FILES: Mapping[str, tuple[str, Level, float]] = {
    "formation_energy": ("formation_energy_per_atom", _MP_ENERGY, 1.0),
    "band_gap_regression": ("band_gap", _MP, 1.0),
    "band_classification": ("is_metal", _MP, 1.0),
    "log10K": ("log_bulk_modulus", _MP, 1.0),
    "log10G": ("log_shear_modulus", _MP, 1.0),
    "efermi": ("fermi_energy", _MP, 1.0),
    "HOMO": ("homo_energy", _QM9, 1.0),
    "LUMO": ("lumo_energy", _QM9, 1.0),
    "gap": ("band_gap", _QM9, 1.0),
    "U0": ("atomization_energy", _QM9, 1.0),
    "Cv": ("heat_capacity", _QM9, 4.184),
}
_SIGMA_OF_MAE = 1.2533  # of a Gaussian
_FARTHEST_PAIR = 20.0
_CITATION = "Chen, Ye, Zuo, Zheng and Ong, Chem. Mater. 31, 3564 (2019)"
_CITATION_LEVELS = "Chen, Zuo, Ye, Li and Ong, Nat. Comput. Sci. 1, 46 (2021)"
Arrays = Mapping[str, NDArray[np.float32]]


def import_megnet(path: str | Path, name: str | None = None, quantity: str | None = None, fidelity: int | None = None) -> Ensemble:
    """A released MEGNet model as an ensemble of one; `Ensemble.save` writes it as safetensors and card.

    Parameters
    ----------
    path : the ``.hdf5`` file; the ``.hdf5.json`` file must lie beside it
    name : for the card; default: the file's name
    quantity : what it predicts (a name of ``naica.fields``); known by itself for the published files
    fidelity : for multi-fidelity models, the one level of theory it shall predict (0 PBE, 1 GLLB-SC, 2 HSE, 3 experiment); None reads
        it from the column (or key of ``Crystal.info``) ``fidelity`` of each structure

    Raises
    ------
    InputError
        If the files are no such model, or something in them is missing or unknown.
    """
    tune()
    file = Path(path)
    network, side = _Network.read(file), _side(file)
    config = _config(network, side, fidelity, file)
    target = _target(network, side, quantity, fidelity, file)
    hidden = tuple(int(network.arrays[layer]["bias"].size) for layer in network.head[:-1])
    model = PropertyModel("megnet", config, HeadConfig(hidden=hidden, pooling="system"), target)
    rows = _rows(network, side)
    model.load_state_dict(_state(model, network, rows, file))
    elements = tuple(symbol(z) for z in sorted(rows))
    return Ensemble((model.eval(),), _card(model, name or file.stem, elements, side, network, file))


# --- the files ---------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Network:
    """A Keras network: arrays by layer and name, the layers' settings, and who feeds whom."""

    arrays: Mapping[str, Arrays]
    settings: Mapping[str, Mapping[str, Any]]
    kinds: Mapping[str, str]
    inputs: Mapping[str, list[str]]

    @classmethod
    def read(cls, file: Path) -> _Network:
        """From an HDF5 file; InputError if it is none, or not of a MEGNet."""
        import h5py

        if not file.is_file():
            raise InputError(f"no such file: {file}; expected a MEGNet model (.hdf5)")
        try:
            with h5py.File(file, "r") as stored:
                text = stored.attrs["model_config"]
                layers = json.loads(text if isinstance(text, str) else text.decode())["config"]["layers"]
                arrays = {layer["name"]: _arrays(stored["model_weights"][layer["name"]]) for layer in layers}
            inputs = {layer["name"]: [source[0] for node in layer["inbound_nodes"] for source in node] for layer in layers}
            kinds = {layer["name"]: layer["class_name"] for layer in layers}
            network = cls(arrays, {layer["name"]: layer["config"] for layer in layers}, kinds, inputs)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"{file} is damaged or no Keras model ({error}); expected a MEGNet model (.hdf5)") from error
        if not network.of_kind("MEGNetLayer") or len(network.of_kind("Set2Set")) != 2 or len(network.of_kind("Concatenate")) != 1:
            raise InputError(f"{file} is no MEGNet: it has {', '.join(sorted(set(kinds.values())))}")
        return network

    def of_kind(self, kind: str) -> list[str]:
        """Layers of one class, in order."""
        return [name for name, known in self.kinds.items() if known == kind]

    @property
    def head(self) -> list[str]:
        """The dense layers behind the readout."""
        found, last = [], self.of_kind("Concatenate")[0]
        while following := [name for name, sources in self.inputs.items() if sources == [last]]:
            last = following[0]
            found.append(last)
        return found

    def stacks(self, block: str) -> list[tuple[str, str]]:
        """The two dense layers before a block, for atoms, bonds and state."""
        seconds = self.inputs[block][:3]
        return [(self.inputs[second][0], second) for second in seconds]

    @property
    def sources(self) -> list[str]:
        """What feeds the first dense layers of atoms, bonds and state: an embedding, or the input itself."""
        return [self.inputs[first][0] for first, _ in self.stacks(self.of_kind("MEGNetLayer")[0])]

    @property
    def levels(self) -> int:
        """Rows of the table of fidelities; 0 without one."""
        state = self.sources[2]
        return int(self.settings[state]["input_dim"]) if self.kinds[state] == "Embedding" else 0


def _arrays(group: Any) -> dict[str, NDArray[np.float32]]:
    """The arrays below a group by the last part of their names."""
    found: dict[str, NDArray[np.float32]] = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            found[name.rsplit("/", 1)[-1].split(":", maxsplit=1)[0]] = np.asarray(item, dtype=np.float32)

    group.visititems(visit)
    return found


def _side(file: Path) -> dict[str, Any]:
    beside = file.with_name(file.name + ".json")
    try:
        side = json.loads(beside.read_text(encoding="utf-8"))
        bonds = side["graph_converter"]["bond_converter"]
        centres = np.asarray(bonds["centers"]["data"] if isinstance(bonds["centers"], dict) else bonds["centers"], dtype=np.float64)
        if not np.allclose(centres, np.linspace(0.0, centres[-1], len(centres))):
            raise ValueError("the Gaussians are not equally spaced from 0")
        return {**side, "centres": centres, "spread": float(bonds["width"])}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{beside} does not say how the graphs are made ({error!r}); expected the JSON file of the release") from error


# --- what they mean ----------------------------------------------------------------------------------------------------------------------
def _config(network: _Network, side: Mapping[str, Any], fidelity: int | None, file: Path) -> dict[str, Any]:
    block, atoms = network.of_kind("MEGNetLayer")[0], network.of_kind("Set2Set")[0]
    hidden, again, width = network.settings[block]["units_e"]
    if (
        hidden != again
        or network.settings[block]["pool_method"] != "mean"
        or network.settings[atoms]["recurrent_activation"] != "hard_sigmoid"
    ):
        raise InputError(f"{file} is a MEGNet of another kind than the released ones: {network.settings[block]}")
    cutoff = side["graph_converter"].get("cutoff")
    levels = network.levels
    if fidelity is not None and not 0 <= fidelity < levels:
        raise InputError(f"fidelity = {fidelity}; {file} has {f'fidelities 0 to {levels - 1}' if levels else 'one level of theory only'}")
    state: dict[str, Any] = {"constant": (0.0, 0.0)}
    if levels:
        state = {"state": ("fidelity",)} if fidelity is None else {"constant": (float(fidelity),)}
    return {
        "blocks": len(network.of_kind("MEGNetLayer")),
        "width": width,
        "hidden": hidden,
        "elements": network.arrays[network.sources[0]]["embeddings"].shape[1],
        # graphs of molecules have no cut-off: all pairs of atoms. The molecules of QM9 are at most 14 Å long
        "graph": "radius" if cutoff else "complete",
        "cutoff": float(cutoff or _FARTHEST_PAIR),
        "gaussians": len(side["centres"]),
        "reach": float(side["centres"][-1]),
        "spread": side["spread"],
        "levels": levels,
        "passes": int(network.settings[atoms]["T"]),
        "pool": int(network.settings[atoms]["n_hidden"]),
        "gates": "hard",
        "carry": False,
        "lone": "refused",
        **state,
    }


def _target(network: _Network, side: Mapping[str, Any], quantity: str | None, fidelity: int | None, file: Path) -> Target:
    known = ("band_gap", FIDELITIES[fidelity] if fidelity is not None else None, 1.0) if network.levels else _FILES.get(file.stem)
    if quantity is None and known is None:
        raise InputError(f"{file} does not say what it predicts; pass quantity=, for example formation_energy_per_atom")
    chosen, level, factor = known if known and quantity in (None, known[0]) else (str(quantity), None, 1.0)
    is_class = network.settings[network.head[-1]]["activation"] == "sigmoid"
    if is_class:
        return Target(chosen, "class", 0.0, 1.0, level)
    scaler = side.get("target_scaler") or {}
    extensive = not scaler.get("is_intensive", not field(chosen).extensive)
    if extensive != field(chosen).extensive:
        raise InputError(f"{file} was scaled {'per atom' if extensive else 'as a whole'}; {chosen} is not")
    return Target(chosen, "regression", factor * float(scaler.get("mean", 0.0)), factor * float(scaler.get("std", 1.0)), level)


def _rows(network: _Network, side: Mapping[str, Any]) -> dict[int, int]:
    """Row of the file's table of elements by atomic number."""
    mapping = side["graph_converter"]["atom_converter"].get("mapping")
    if mapping:
        return {int(z): int(row) for z, row in mapping.items()}
    return {z: z for z in range(1, network.arrays[network.sources[0]]["embeddings"].shape[0])}


def _state(model: PropertyModel, network: _Network, rows: Mapping[int, int], file: Path) -> dict[str, Tensor]:
    """Every tensor in its place; nothing may be missing, left over, of another shape or not finite."""
    found: dict[str, NDArray[np.float32]] = {}

    def dense(ours: str, theirs: str) -> None:
        found[f"{ours}.weight"], found[f"{ours}.bias"] = network.arrays[theirs]["kernel"].T, network.arrays[theirs]["bias"]

    table = network.arrays[network.sources[0]]["embeddings"]
    embedding = np.zeros((N_ELEMENTS, table.shape[1]), np.float32)
    for z, row in rows.items():
        embedding[z] = table[row]
    found["backbone.embedding.weight"] = embedding
    if network.levels:
        found["backbone.levels.weight"] = network.arrays[network.sources[2]]["embeddings"]
    try:
        for k, block in enumerate(network.of_kind("MEGNetLayer")):
            for part, pair in enumerate(network.stacks(block)):
                place = f"backbone.blocks.{k}.dense.{part}" if k else f"backbone.start.{part}"
                dense(f"{place}.first", pair[0])
                dense(f"{place}.second", pair[1])
            for ours, letter in (("bonds", "e"), ("atoms", "v"), ("state", "u")):
                for n, layer in enumerate(("first", "second", "third")):
                    place = f"backbone.blocks.{k}.{ours}.{layer}"
                    found[f"{place}.weight"] = network.arrays[block][f"weight_{letter}_{n}"].T
                    found[f"{place}.bias"] = network.arrays[block][f"bias_{letter}_{n}"]
        for ours, theirs in zip(("read_atoms", "read_bonds"), network.inputs[network.of_kind("Concatenate")[0]], strict=False):
            stored = network.arrays[theirs]
            found[f"backbone.{ours}.project.weight"], found[f"backbone.{ours}.project.bias"] = (
                stored["x_to_m_weight"].T,
                stored["x_to_m_bias"],
            )
            found[f"backbone.{ours}.recurrent.weight"] = stored["recurrent_kernel"].T
            found[f"backbone.{ours}.recurrent.bias"] = stored["recurrent_bias"]
    except KeyError as error:
        raise InputError(f"{file} does not fit the MEGNet of the released code: {error} missing") from error
    found.update(_head(model, network))
    wanted = model.state_dict()
    wrong = [key for key in wanted.keys() | found.keys() if key not in found or key not in wanted or found[key].shape != wanted[key].shape]
    if wrong:
        raise InputError(f"{file} does not fit the MEGNet of the released code: {', '.join(sorted(wrong)[:4])}")
    bad = next((key for key, value in found.items() if not np.isfinite(value).all()), None)
    if bad is not None:
        raise InputError(f"{file} holds numbers that are not finite ({bad})")
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in found.items()}


def _head(model: PropertyModel, network: _Network) -> dict[str, NDArray[np.float32]]:
    """The dense layers behind the readout: ``W (softplus(x) − ln 2) + b = W softplus(x) + (b − ln 2 · ΣW)``."""
    places = [name for name, part in model.head.network.named_modules() if isinstance(part, torch.nn.Linear)]
    found = {}
    for depth, (place, layer) in enumerate(zip(places, network.head, strict=True)):
        weight = network.arrays[layer]["kernel"].T.astype(np.float64)
        bias = network.arrays[layer]["bias"].astype(np.float64)
        if depth:
            bias = bias - log(2.0) * weight.sum(axis=1)
        if depth == len(places) - 1 and model.target.kind == "class":
            # P(metal) = 1 / (1 + e^z) is the softmax of (z, 0)
            weight, bias = np.vstack([weight, np.zeros_like(weight)]), np.append(bias, 0.0)
        found[f"head.network.{place}.weight"], found[f"head.network.{place}.bias"] = weight.astype(np.float32), bias.astype(np.float32)
    return found


def _card(model: PropertyModel, name: str, elements: tuple[str, ...], side: Mapping[str, Any], network: _Network, file: Path) -> Card:
    told = side.get("metadata") or {}
    score = told.get("metric value")
    config = cast(MEGNet, model.backbone).config
    if isinstance(score, list):
        # one error for each level of theory
        score = None if config.state else float(score[int(config.constant[0])])
    is_class = model.target.kind == "class"
    error = float(score) * (model.target.std / float((side.get("target_scaler") or {}).get("std", 1.0))) if score and not is_class else 0.0
    return Card(
        name=name,
        architecture=model.architecture,
        architecture_config=model.architecture_config,
        head=config_dict(model.head_config),
        target=model.target.to_dict(),
        members=1,
        elements=elements,
        calibration=Calibration(1.0, _SIGMA_OF_MAE * error, 0),
        metrics={"test": {"accuracy": float(score)} if is_class and score else {"mae": error}} if score else {},
        fields=("number", "system", "n_atoms", "edge_receiver", "edge_sender", "edge_vector", "edge_length"),
        training={
            "code": "MEGNet as released",
            "data": str(told.get("training data") or told.get("training dataset") or ""),
            "file": file.name,
        },
        citation=_CITATION_LEVELS if network.levels else _CITATION,
        note="Imported. The error bar is the test error the file records, the same for every structure.",
        versions=versions(),
    )
