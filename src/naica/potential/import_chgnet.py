"""The published CHGNet potentials as naica models: the weights that the package ``chgnet`` brings, read without importing it.

Deng et al., Nat. Mach. Intell. 5, 1031 (2023); github.com/CederGroupHub/chgnet. Versions ``0.3.0`` (Materials Project energies), ``r2scan``
(the same, trained further on r²SCAN) and ``0.2.0`` (its energy jumps where a crystal gets its first angle, so it gives no forces here).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from naica.errors import InputError, MissingPart
from naica.models.chgnet import CHGNet
from naica.potential.model import PotentialModel

VERSIONS = ("0.3.0", "r2scan", "0.2.0")
State = Mapping[str, Tensor]


def import_chgnet(source: str | Path = "0.3.0") -> PotentialModel:
    """A published potential, or one that the package trained.

    Parameters
    ----------
    source : a version the installed package brings, or a checkpoint file it has written (``.pth.tar``)

    Raises
    ------
    MissingPart
        If the package is not installed.
    InputError
        If the file is no such checkpoint, or the network in it has parts that naica's has not.
    """
    settings, state = _read(_file(source))
    config = _config(settings, biased=source == "0.2.0")
    references = {z + 1: float(energy) for z, energy in enumerate(state["composition_model.fc.weight"].double().flatten())}
    model = PotentialModel("chgnet", config, references=references)
    model.backbone.load_state_dict(_converted(state, settings, source))
    return model.eval()


def import_network(source: str | Path = "0.3.0") -> CHGNet:
    """The network alone, without references; any version."""
    settings, state = _read(_file(source))
    network = CHGNet(CHGNet.Config(**_config(settings, biased=source == "0.2.0")))
    network.load_state_dict(_converted(state, settings, source))
    return network.eval()


def _file(source: str | Path) -> Path:
    if str(source) not in VERSIONS:
        return Path(source)
    package = find_spec("chgnet")
    if package is None or not package.submodule_search_locations:
        raise MissingPart("the weights of CHGNet come with its package, which is not installed; pip install 'naica[chgnet]'")
    found = sorted((Path(package.submodule_search_locations[0]) / "pretrained" / str(source)).glob("*.pth.tar"))
    if not found:
        raise MissingPart(f"the installed package chgnet has no weights of version {source}; pip install --upgrade chgnet")
    return found[-1]


def _read(path: Path) -> tuple[dict[str, Any], State]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["model"]
        return dict(stored["model_args"]), stored["state_dict"]
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; expected a checkpoint of chgnet or one of {', '.join(VERSIONS)}"
        ) from error
    except Exception as error:  # torch names its reasons by many types
        raise InputError(f"{path} is not a checkpoint of chgnet: {error}") from error


def _config(settings: Mapping[str, Any], biased: bool) -> dict[str, Any]:
    widths = {settings.get(f"{kind}_fea_dim", 64) for kind in ("atom", "bond", "angle")} | {
        settings.get(f"{kind}_conv_hidden_dim", 64) for kind in ("atom", "bond")
    }
    wanted = {
        "conv_norm": None,
        "update_bond": True,
        "update_angle": True,
        "angle_layer_hidden_dim": 0,
        "mlp_first": True,
        "non_linearity": "silu",
        "is_intensive": True,
    }
    strange = [f"{key} = {settings[key]!r}" for key, value in wanted.items() if settings.get(key, value) != value]
    if strange or len(widths) != 1:
        raise InputError(f"the checkpoint's network has {', '.join(strange) or f'different widths {widths}'}; expected the published kind")
    norms = {key: settings.get(key, "layer") for key in ("gMLP_norm", "readout_norm")}
    if any(norm not in (None, "layer") for norm in norms.values()):
        raise InputError(f"the checkpoint's network has the norms {norms}; expected layer norms or none")
    hidden = settings.get("mlp_hidden_dims", (64, 64, 64))
    return {
        "width": widths.pop(),
        "steps": settings["n_conv"],
        "radial": settings["num_radial"],
        "angular": settings["num_angular"],
        "cutoff": float(settings["atom_graph_cutoff"]),
        "bond_cutoff": float(settings["bond_graph_cutoff"]),
        "envelope": settings["cutoff_coeff"],
        "hidden": (hidden,) if isinstance(hidden, int) else tuple(hidden),
        "gate_norm": norms["gMLP_norm"] == "layer",
        "readout_norm": norms["readout_norm"] == "layer",
        "output_bias": bool(settings.get("mlp_out_bias", biased)),
    }


# --- names -------------------------------------------------------------------------------------------------------------------------------
_PLAIN = {
    "embedding.weight": "atom_embedding.embedding.weight",
    "radial.frequencies": "bond_basis_expansion.rbf_expansion_ag.frequencies",
    "bond_radial.frequencies": "bond_basis_expansion.rbf_expansion_bg.frequencies",
    "frequencies": "angle_basis_expansion.fourier_expansion.frequencies",
    "bond_start.weight": "bond_embedding.weight",
    "atom_weight.weight": "bond_weights_ag.weight",
    "bond_weight.weight": "bond_weights_bg.weight",
    "angle_start.weight": "angle_embedding.weight",
    "moment.weight": "site_wise.weight",
    "moment.bias": "site_wise.bias",
}
# theirs: atom, bond, neighbour; ours: atom, neighbour, bond
_ATOM_ORDER, _ANGLE_ORDER = (0, 2, 1), (0, 1, 2, 3)


def _converted(state: State, settings: Mapping[str, Any], source: str | Path) -> dict[str, Tensor]:
    steps = settings["n_conv"]
    try:
        ours = {name: state[theirs] for name, theirs in _PLAIN.items()}
        for k in range(steps):
            ours.update(_gated(state, f"atom_conv_layers.{k}.twoBody_atom", f"atom_steps.{k}.gate", _ATOM_ORDER))
            ours.update(_last(state, f"atom_conv_layers.{k}", f"atom_steps.{k}"))
        for k in range(steps - 1):
            ours.update(_gated(state, f"bond_conv_layers.{k}.twoBody_bond", f"bond_steps.{k}.gate", _ANGLE_ORDER))
            ours.update(_last(state, f"bond_conv_layers.{k}", f"bond_steps.{k}"))
            ours.update(_gated(state, f"angle_layers.{k}.twoBody_bond", f"angle_steps.{k}.gate", _ANGLE_ORDER))
        ours.update({name: value for name, value in state.items() if name.startswith("readout_norm.")})
        for k, layer in enumerate(_numbers(state, "mlp.layers.")):
            ours.update({f"readout.{k}.{part}": state[f"mlp.layers.{layer}.{part}"] for part in ("weight", "bias")})
    except KeyError as error:
        raise InputError(f"the checkpoint {source} has no {error}; expected the published kind of network") from error
    return ours


def _last(state: State, theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.out.{part}": state[key] for part in ("weight", "bias") if (key := f"{theirs}.mlp_out.layers.1.{part}") in state}


def _gated(state: State, theirs: str, ours: str, order: tuple[int, ...]) -> dict[str, Tensor]:
    """Both halves of a gated network, stacked, the parts of the input in our order."""
    found: dict[str, Tensor] = {}
    halves = [f"{theirs}.mlp_{half}.layers." for half in ("core", "gate")]
    for k, layer in enumerate(_numbers(state, halves[0])):
        weights, biases = ([state[f"{half}{layer}.{part}"] for half in halves] for part in ("weight", "bias"))
        if k == 0:
            parts = torch.cat(weights).chunk(len(order), dim=1)
            found[f"{ours}.first"] = torch.cat([parts[p] for p in order], dim=1)
            found[f"{ours}.first_bias"] = torch.cat(biases)
        else:
            found[f"{ours}.later.{k - 1}"] = torch.stack([w.T for w in weights])
            found[f"{ours}.later_bias.{k - 1}"] = torch.stack(biases)[:, None]
    for k, norm in enumerate(("bn1", "bn2")):
        found.update({f"{ours}.norm.{k}.{part}": state[key] for part in ("weight", "bias") if (key := f"{theirs}.{norm}.{part}") in state})
    return found


def _numbers(state: State, prefix: str) -> list[int]:
    """The numbers of the layers below a prefix that have weights."""
    return sorted({int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix) and name.endswith("weight")})
