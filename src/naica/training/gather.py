"""One ensemble of members that were trained in separate runs, for example on several machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from naica.data import CrystalTable
from naica.errors import InputError
from naica.training.assemble import assemble
from naica.training.config import TrainConfig
from naica.training.ensemble import Ensemble
from naica.training.property import PropertyModel
from naica.training.run import Parts, prepare

_MUST_AGREE = ("architecture", "architecture_config", "head", "kind")


def gather(
    folders: Sequence[str | Path],
    table: CrystalTable,
    column: str | Sequence[str],
    split: Parts | None = None,
    name: str = "",
    cache: Path | None = None,
) -> Ensemble:
    """Put the members of several run folders of `train` together, calibrate and measure them as one ensemble.

    Unfinished members come with their best weights so far; the card's training record says how many epochs each has seen.

    Parameters
    ----------
    folders : run folders (the `out` of `train`)
    table, column, split : the same as in those runs
    name : for the card
    cache : file that keeps the graphs

    Raises
    ------
    InputError
        If a folder is no run, holds no member, learned from other data or with another architecture.
    """
    runs = [_run(Path(folder)) for folder in folders]
    if not runs:
        raise InputError("no run folders given; expected at least one")
    for folder, run in zip(folders, runs, strict=True):
        different = [key for key in _MUST_AGREE if run["settings"].get(key) != runs[0]["settings"].get(key)]
        if different:
            raise InputError(f"{folder} and {folders[0]} do not go together: different {', '.join(different)}")
    config = TrainConfig.from_dict(runs[0]["settings"])
    material = prepare(table, column, config, split, cache)
    config = material.config
    members, records = [], []
    for folder, run in zip(folders, runs, strict=True):
        if run["data"] != material.fingerprint:
            raise InputError(f"{folder} learned from other rows or labels than this table and split")
        for path in sorted(Path(folder).glob("member-*/state.pt"), key=lambda p: int(p.parent.name.split("-")[1])):
            model = PropertyModel(config.architecture, config.architecture_config, config.head, material.targets)
            records.append(_restore(model, path, run["settings"]["seed"] + int(path.parent.name.split("-")[1])))
            members.append(model)
    if not members:
        raise InputError(f"no trained member in {', '.join(map(str, folders))}")
    return assemble(members, records, material, config, name or f"{config.architecture} {', '.join(t.quantity for t in material.targets)}")


def _run(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "run.json").read_text())
        return {"data": found["data"], "settings": found["settings"]}
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{folder} is no run folder of naica train ({error!r})") from error


def _restore(model: PropertyModel, path: Path, seed: int) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["kept"])
        progress = state["progress"]
    except Exception as error:
        raise InputError(f"{path} is damaged or of another architecture: {error}") from error
    model.float().eval()
    return {"seed": seed, **{key: progress[key] for key in ("best_epoch", "best", "seconds")}, "epochs": progress["epoch"]}
