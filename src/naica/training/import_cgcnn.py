"""The published CGCNN checkpoints as naica models.

Xie & Grossman, Phys. Rev. Lett. 120, 145301 (2018); released code and weights: github.com/txie-93/cgcnn. The files are old pickles; they
are read with torch's safe unpickler, which builds tensors and plain numbers and calls nothing else. The released 92 features per element
(``atom_init.json``) and the linear map after them fold into naica's table over the elements, which is exact: predictions need no such file.

The released code fills an atom's missing neighbours (fewer than 12 within 8 Å) with messages from the crystal's first atom at 9 Å:
``padding="original"`` repeats that to compare numbers, the default leaves them out. Ties at the twelfth neighbour, which the released code
cuts in the order its neighbour list happens to have, are cut by naica's own rule (`naica.graphs.neighbours.nearest`) in both cases: of 600
Materials Project crystals 3 % change by more than 1 meV/atom, on average by 0.8 and at most by 95 meV/atom, and the error against DFT
stays the same (32.6 against 32.7 meV/atom). The ten reference crystals agree with the released code to 5e-5 either way.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from naica.data.labels import Level
from naica.errors import InputError
from naica.fields import field
from naica.runtime import tune
from naica.structure.elements import symbol
from naica.training.card import Calibration, Card, versions
from naica.training.config import HeadConfig
from naica.training.ensemble import Ensemble
from naica.training.property import PropertyModel, config_dict
from naica.training.target import Target

# what the released files call a quantity, and what naica does
_QUANTITIES = {
    "formation_energy_per_atom": "formation_energy_per_atom",
    "final_energy_per_atom": "energy_per_atom",
    "band_gap": "band_gap",
    "efermi": "fermi_energy",
    "bulk_moduli": "log_bulk_modulus",
    "shear_moduli": "log_shear_modulus",
    "poisson_ratio": "poisson_ratio",
    "metal_semi": "is_metal",
}
# Materials Project of 2017: its corrections of that time are inside the energies, and nothing is corrected in the others
_PUBLISHED_LEVEL = Level("PBE", "MP", "PAW (MP)", "", "VASP")
_ENERGY_LEVEL = Level("PBE", "MP", "PAW (MP)", "MP legacy (before 2021)", "VASP")
_STEP = 0.2
_SIGMA_OF_MAE = 1.2533  # of a Gaussian
_CITATION = "Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018)"


def import_cgcnn(
    path: str | Path,
    name: str | None = None,
    padding: Literal["correct", "original"] = "correct",
    quantity: str | None = None,
    level: Level | None = None,
    atom_features: str | Path | None = None,
) -> Ensemble:
    """A checkpoint of the released CGCNN code as an ensemble of one; `Ensemble.save` writes it as safetensors and card.

    Parameters
    ----------
    path : the ``.pth.tar`` file
    name : for the card; default: the file's name
    padding : ``original`` repeats the released code's treatment of missing neighbours (see above)
    quantity : what it predicts (a name of ``naica.fields``); known by itself for the eight published files
    level : level of theory of its labels; known by itself for the published files
    atom_features : the ``atom_init.json`` it was trained with; default: the one beside the file, else that of the set ``cgcnn_pretrained``

    Raises
    ------
    InputError
        If the file is no such checkpoint, holds anything but numbers, or something in it is missing or unknown.
    MissingPart
        If no file of element features can be found.
    """
    tune()
    file = Path(path)
    raw = _unpickled(file)
    weights, args = raw["state_dict"], dict(raw.get("args") or {})
    shape = _Shape.of(weights, file)
    table, elements = _element_table(weights, _features_file(file, atom_features))
    target = _target(raw, args, shape.n_out, quantity, level, file)
    config = {"layers": shape.layers, "width": shape.width, "gaussians": shape.gaussians, "cutoff": shape.cutoff, "padding": padding}
    head = HeadConfig(hidden=(shape.hidden,) * shape.hidden_layers, pooling="mean")
    model = PropertyModel("cgcnn", config, head, target)
    _fill(model, weights, table, shape, file)
    published = raw.get("best_mae_error")
    return Ensemble(
        (model.eval(),), _card(model, name or file.name.removesuffix(".tar").removesuffix(".pth"), elements, published, raw, file)
    )


def _unpickled(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"no such file: {file}; expected a CGCNN checkpoint (.pth.tar)")
    # the classifier keeps its score as a numpy scalar, under the name numpy had for it in 2018
    scalars: list[Any] = [(np._core.multiarray.scalar, "numpy.core.multiarray.scalar"), np.dtype]  # type: ignore[attr-defined]
    scalars += [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
    try:
        with torch.serialization.safe_globals(scalars):
            raw = torch.load(file, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        if "Unsupported" not in str(error):
            raise InputError(f"{file} is damaged or no PyTorch file; expected a CGCNN checkpoint (.pth.tar)") from error
        what = next((line.strip() for line in str(error).splitlines() if "Unsupported" in line), "").split(" was not ")[0]
        raise InputError(f"{file} holds more than numbers, so it is not opened ({what}); expected a plain CGCNN checkpoint") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged or no PyTorch file ({error}); expected a CGCNN checkpoint (.pth.tar)") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("state_dict"), Mapping):
        raise InputError(f"{file} has no state_dict; expected a checkpoint written by the CGCNN training script")
    return raw


class _Shape:
    """Sizes of the network, read from the weights themselves."""

    def __init__(self, width: int, features: int, gaussians: int, layers: int, hidden: int, hidden_layers: int, n_out: int) -> None:
        self.width, self.features, self.gaussians, self.layers = width, features, gaussians, layers
        self.hidden, self.hidden_layers, self.n_out = hidden, hidden_layers, n_out
        self.cutoff = round((gaussians - 1) * _STEP, 6)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], file: Path) -> _Shape:
        """From the state dict; InputError names what is not there."""
        needed = ("embedding.weight", "embedding.bias", "convs.0.fc_full.weight", "conv_to_fc.weight", "fc_out.weight")
        missing = [key for key in needed if key not in weights]
        if missing:
            raise InputError(f"{file} is no CGCNN checkpoint: {', '.join(missing)} missing; it has {', '.join(list(weights)[:4])} …")
        width, features = weights["embedding.weight"].shape
        gaussians = weights["convs.0.fc_full.weight"].shape[1] - 2 * width
        layers = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("convs."))
        more = len({key.split(".")[1] for key in weights if key.startswith("fcs.")})
        return cls(width, features, gaussians, layers, weights["conv_to_fc.weight"].shape[0], 1 + more, weights["fc_out.weight"].shape[0])


def _features_file(file: Path, given: str | Path | None) -> Path:
    if given is not None:
        return Path(given)
    beside = file.parent / "atom_init.json"
    if beside.exists():
        return beside
    from naica.data.registry import dataset

    return dataset("cgcnn_pretrained").path("atom_init.json")


def _element_table(weights: Mapping[str, Tensor], features: Path) -> tuple[Tensor, tuple[str, ...]]:
    """(104, width) rows ``W_e x_Z + b_e``, and the symbols of the elements that have features x_Z."""
    weight, bias = weights["embedding.weight"].double(), weights["embedding.bias"].double()
    try:
        raw = {int(z): [float(x) for x in vector] for z, vector in json.loads(features.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{features} is no file of element features ({error}); expected atom_init.json of the CGCNN code") from error
    wrong = next((z for z, vector in raw.items() if len(vector) != weight.shape[1] or not 1 <= z <= 103), None)
    if wrong is not None:
        raise InputError(f"{features}: element {wrong} has {len(raw[wrong])} features; the checkpoint was trained with {weight.shape[1]}")
    # an element without features was not seen; its row is the bias alone, and predictions for it carry a warning
    table = bias.repeat(104, 1)
    for z, vector in raw.items():
        table[z] = weight @ torch.tensor(vector, dtype=torch.float64) + bias
    return table.float(), tuple(symbol(z) for z in sorted(raw))


def _target(raw: Mapping[str, Any], args: Mapping[str, Any], n_out: int, quantity: str | None, level: Level | None, file: Path) -> Target:
    called = next((str(option) for option in args.get("data_options", ()) if str(option) in _QUANTITIES), None)
    chosen = quantity or (_QUANTITIES[called] if called else None)
    if chosen is None:
        raise InputError(f"{file} does not say what it predicts; pass quantity=, for example {', '.join(sorted(_QUANTITIES.values())[:3])}")
    field(chosen)
    if called and level is None:
        level = _ENERGY_LEVEL if "energy" in called else _PUBLISHED_LEVEL
    if n_out == 2:
        return Target(chosen, "class", 0.0, 1.0, level)
    scale = raw.get("normalizer") or {}
    if not {"mean", "std"} <= set(scale):
        raise InputError(f"{file} has no normalizer with mean and std; without it its outputs have no unit")
    return Target(chosen, "regression", float(scale["mean"]), float(scale["std"]), level)


def _fill(model: PropertyModel, weights: Mapping[str, Tensor], table: Tensor, shape: _Shape, file: Path) -> None:
    """Put every tensor in its place; nothing may be left over or missing but the counters old batch norms do not have."""
    places = {"embedding.weight": "", "embedding.bias": ""}
    for k in range(shape.layers):
        for theirs, ours in (("fc_full", "linear"), ("bn1", "norm_edges"), ("bn2", "norm_atoms")):
            parts = ("weight", "bias") if theirs == "fc_full" else ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            places.update({f"convs.{k}.{theirs}.{part}": f"backbone.convolutions.{k}.{ours}.{part}" for part in parts})
    linear = [name for name, part in model.head.network.named_modules() if isinstance(part, torch.nn.Linear)]
    inner = ["conv_to_fc", *(f"fcs.{k}" for k in range(shape.hidden_layers - 1)), "fc_out"]
    for theirs, ours in zip(inner, linear, strict=True):
        places.update({f"{theirs}.{part}": f"head.network.{ours}.{part}" for part in ("weight", "bias")})
    missing = [key for key in places if key not in weights and not key.endswith("num_batches_tracked")]
    unknown = [key for key in weights if key not in places]
    if missing or unknown:
        found = "; ".join(f"{what} {', '.join(keys[:4])}" for what, keys in (("missing", missing), ("unknown", unknown)) if keys)
        raise InputError(f"{file} does not fit the CGCNN of the released code: {found}")
    state = model.state_dict()
    state["backbone.embedding.weight"] = table
    for theirs, ours in places.items():
        if ours and theirs in weights:
            if state[ours].shape != weights[theirs].shape:
                raise InputError(f"{file}: {theirs} is {tuple(weights[theirs].shape)}; expected {tuple(state[ours].shape)}")
            state[ours] = weights[theirs]
    bad = next((key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()), None)
    if bad is not None:
        raise InputError(f"{file} holds numbers that are not finite ({bad})")
    model.load_state_dict(state)


def _card(model: PropertyModel, name: str, elements: tuple[str, ...], published: Any, raw: Mapping[str, Any], file: Path) -> Card:
    target = model.target
    score = float(published) if published is not None else None
    metrics = {} if score is None else {"val": {"roc_auc" if target.kind == "class" else "mae": score}}
    known = score is not None and target.kind == "regression"
    return Card(
        name=name,
        architecture=model.architecture,
        architecture_config=model.architecture_config,
        head=config_dict(model.head_config),
        target=target.to_dict(),
        members=1,
        elements=elements,
        calibration=Calibration(1.0, _SIGMA_OF_MAE * score if known and score is not None else 0.0, 0),
        metrics=metrics,
        fields=("number", "system", "n_atoms", "edge_receiver", "edge_sender", "edge_vector", "edge_length"),
        training={"code": "CGCNN as released", "epoch": int(raw.get("epoch", 0)), "file": file.name},
        citation=_CITATION,
        note="Imported. The error bar is the validation error the file records, the same for every crystal.",
        versions=versions(),
    )
