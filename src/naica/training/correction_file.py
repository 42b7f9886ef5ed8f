"""A corrected model on disk: the prior's folder, one safetensors file with the correction, and the card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from naica.errors import InputError, RunError
from naica.training.card import read_card
from naica.training.ridge import Ridge

if TYPE_CHECKING:
    from naica.training.correction import Corrected

TENSORS = "correction.safetensors"
_PARTS = ("centre", "scale", "elements", "weights", "covariance", "noise", "scales")


def write(model: Corrected, folder: Path) -> Path:
    """Write a corrected model; RunError if the folder cannot be written."""
    from safetensors.numpy import save_file

    tensors: dict[str, Any] = {"stretch": np.array([model.stretch])}
    for k, (scaler, ridge) in enumerate(zip(model.scalers, model.ridges, strict=True)):
        values = (scaler.centre, scaler.scale, scaler.elements, ridge.weights, ridge.covariance, [ridge.noise], ridge.scales)
        tensors |= {f"member{k}.{name}": np.ascontiguousarray(value) for name, value in zip(_PARTS, values, strict=True)}
    try:
        model.prior.save(folder / "prior")
        save_file(tensors, str(folder / f"{TENSORS}.tmp"))
        os.replace(folder / f"{TENSORS}.tmp", folder / TENSORS)
        (folder / "card.json.tmp").write_text(model.card.to_json(), encoding="utf-8")
        os.replace(folder / "card.json.tmp", folder / "card.json")
    except OSError as error:
        raise RunError(f"cannot write the model to {folder}: {error}; free some space or choose another folder") from error
    return folder


def read(folder: Path) -> Corrected:
    """Read what `write` wrote; InputError if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from naica.training.correction import Corrected, Scaler
    from naica.training.zoo import load

    prior = load(folder / "prior")
    card = read_card(folder / "card.json")
    try:
        tensors = load_file(str(folder / TENSORS))
        scalers, ridges = [], []
        for k in range(len(prior.members)):
            centre, scale, elements, weights, covariance, noise, scales = (tensors[f"member{k}.{name}"] for name in _PARTS)
            scalers.append(Scaler(centre, scale, elements))
            ridges.append(Ridge(weights, covariance, float(noise[0]), tuple(float(s) for s in scales)))
        return Corrected(prior, tuple(scalers), tuple(ridges), float(tensors["stretch"][0]), card)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder / TENSORS} is damaged ({error!r}); copy the model again, or fit the correction again") from error
