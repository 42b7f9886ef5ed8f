"""Models on disk: safetensors and a card. No pickle is ever read from a user's file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from naica.errors import InputError, NaicaError, RunError
from naica.training.card import Card, read_card
from naica.training.config import HeadConfig, from_mapping
from naica.training.property import PropertyModel
from naica.training.target import Target

WEIGHTS = "weights.safetensors"
CARD = "card.json"


def save(folder: Path, members: list[PropertyModel], card: Card, half: bool = False) -> None:
    """Write weights and card, each in one atomic step, the card last.

    Parameters
    ----------
    folder : made if it is not there
    members, card : the model
    half : store weights in 16 bits (half the size, about three digits)

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {
        f"member{k}.{name}": _stored(tensor, half) for k, member in enumerate(members) for name, tensor in member.state_dict().items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(folder / f"{WEIGHTS}.tmp"), metadata={"naica": card.name})
        os.replace(folder / f"{WEIGHTS}.tmp", folder / WEIGHTS)
        (folder / f"{CARD}.tmp").write_text(card.to_json(), encoding="utf-8")
        os.replace(folder / f"{CARD}.tmp", folder / CARD)
    except Exception as error:
        if isinstance(error, OSError) or "I/O error" in str(error):
            raise RunError(f"cannot write the model to {folder}: {error}; free some space or choose another folder") from error
        raise


def read(folder: Path) -> tuple[list[PropertyModel], Card]:
    """Read members and card.

    Raises
    ------
    InputError
        If files are missing, damaged, of a newer format, or do not fit each other.
    """
    card = read_card(folder / CARD)
    tensors = _tensors(folder / WEIGHTS)
    members = []
    for k in range(card.members):
        prefix = f"member{k}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        members.append(_member(card, own, folder, k))
    return members, card


def _member(card: Card, tensors: dict[str, Tensor], folder: Path, k: int) -> PropertyModel:
    targets = [Target.from_dict(dict(one)) for one in card.targets]
    head = from_mapping(HeadConfig, dict(card.head), "head")
    try:
        model = PropertyModel(card.architecture, dict(card.architecture_config), head, targets)
    except NaicaError as error:
        raise InputError(f"{folder / CARD}: this naica cannot build the model: {error}") from error
    wanted = model.state_dict()
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    wrong = [n for n in wanted if n in tensors and wanted[n].shape != tensors[n].shape]
    if missing or extra or wrong:
        found = [
            f"{what} {', '.join(names[:3])}" for what, names in (("missing", missing), ("unknown", extra), ("wrong shape", wrong)) if names
        ]
        raise InputError(
            f"{folder / WEIGHTS} does not fit its card (member {k}: {'; '.join(found)}); copy both files again from where you got them"
        )
    bad = next((name for name, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()), None)
    if bad is not None:
        raise InputError(f"{folder / WEIGHTS} holds numbers that are not finite (member {k}, {bad})")
    model.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})
    return model.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise InputError(f"no weights {path}; a model is a folder with {CARD} and {WEIGHTS}")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}); copy it again from where you got it") from error


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous().clone()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def describe(folder: Path) -> dict[str, Any]:
    """Name, quantity, unit, level and metrics of a saved model, without its weights."""
    card = read_card(folder / CARD)
    return {
        "name": card.name,
        "quantity": card.quantity,
        "level": str(card.level or "unknown"),
        "members": card.members,
        "metrics": dict(card.metrics),
    }
