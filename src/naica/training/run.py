"""The verb `train`: from a labelled table to an ensemble with a card; and `fine_tune`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import InputError, RunError
from naica.graphs.graphset import GraphSet
from naica.runtime import tune
from naica.training.batches import Labelled
from naica.training.config import TrainConfig
from naica.training.device import device_of
from naica.training.property import PropertyModel, build, kind_of
from naica.training.target import Target, labels_of

if TYPE_CHECKING:
    from naica.training.ensemble import Ensemble


class Parts(Protocol):
    """Rows of a table by use; `naica.data.splits.Split` is one."""

    @property
    def train(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def val(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def test(self) -> NDArray[np.int64]: ...  # noqa: D102


@dataclass(frozen=True)
class Material:
    """A table made ready: labelled graphs, the three parts (rows), what the label is, and rows left out with the reason."""

    table: CrystalTable
    column: str
    labelled: Labelled
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    target: Target
    rejected: dict[str, int]

    def part(self, name: str) -> Labelled:
        """One part: train, val or test."""
        return self.labelled.part(getattr(self, name))

    @property
    def fingerprint(self) -> str:
        """Hash of what is learned from: ids, labels and rows of the parts."""
        digest = hashlib.sha256("\n".join(self.table.ids).encode())
        for array in (self.labelled.values, self.train, self.val):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]


def prepare(
    table: CrystalTable,
    column: str,
    config: TrainConfig,
    split: Parts | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Material:
    """Labels checked, graphs built, rows parted, target fitted on the training part alone.

    Raises
    ------
    InputError
        If the column is missing or no label, no row can be used, or a part is empty that may not be.
    """
    values, quantity, level = labels_of(table, column)
    with torch.random.fork_rng(devices=[]):
        needs = build(config.architecture, quantity, config.head, config.kind, **config.architecture_config).needs
    graphs = GraphSet.build(table, needs, cache, progress)
    good = np.isfinite(values)
    rejected = {"no label": int((~good).sum()), **({"no graph": len(graphs.rejected)} if graphs.rejected else {})}
    good[list(graphs.rejected)] = False
    if not good.any():
        raise InputError(f"no row of {len(table)} can be used: {', '.join(f'{n} with {reason}' for reason, n in rejected.items() if n)}")
    if split is None:
        from naica.data.splits import split as divide

        split = divide(table, by="composition", seed=config.seed)
    parts = {name: rows[good[rows]] for name in ("train", "val", "test") for rows in [np.asarray(getattr(split, name), dtype=np.int64)]}
    if not len(parts["train"]):
        raise InputError("the training part holds no row with a label; give a split with more training rows")
    shared = np.intersect1d(parts["train"], np.concatenate([parts["val"], parts["test"]]))
    if len(shared):
        raise InputError(f"{len(shared)} rows of the training part are also in the validation or test part (first: row {shared[0]})")
    rows = parts["train"]
    target = Target.fit(quantity, kind_of(quantity, config.kind), values[rows], graphs.counts[rows].astype(np.int64), level)
    labelled = Labelled(graphs, values, rows)
    return Material(table, column, labelled, parts["train"], parts["val"], parts["test"], target, rejected)


def fit_members(
    material: Material, config: TrainConfig, out: Path | None, resume: bool, progress: bool, start: list[PropertyModel] | None = None
) -> tuple[list[PropertyModel], list[dict[str, Any]]]:
    """Train the members one after the other; finished ones are read from their state.

    Returns
    -------
    the members, and for each a record of its training (epochs, seconds, best validation error)
    """
    from naica.training.display import Display
    from naica.training.loop import fit

    members: list[PropertyModel] = []
    records: list[dict[str, Any]] = []
    with Display(config.members, material.target, progress) as display:
        for k in range(config.members):
            seed = config.seed + k
            folder = _member_folder(out, k)
            before = members[-1] if config.chain and members else start[k % len(start)] if start else None
            model = _initial(material.target, config, seed) if before is None else _copy(before, material.target)
            done = fit(model, config, seed, material.part("train"), material.part("val"), folder, display.watch(k), resume)
            members.append(model)
            records.append(
                {"seed": seed, "epochs": done.epoch, "best_epoch": done.best_epoch, "best": done.best, "seconds": round(done.seconds, 2)}
            )
    return members, records


def _initial(target: Target, config: TrainConfig, seed: int) -> PropertyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PropertyModel(config.architecture, config.architecture_config, config.head, target)


def _copy(model: PropertyModel, target: Target) -> PropertyModel:
    fresh = PropertyModel(model.architecture, model.architecture_config, model.head_config, target)
    fresh.load_state_dict(model.state_dict())
    return fresh


def _member_folder(out: Path | None, k: int) -> Path | None:
    if out is None:
        return None
    folder = out / f"member-{k}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the run folder {folder}: {error}") from error
    return folder


def train(
    table: CrystalTable,
    column: str,
    config: TrainConfig | None = None,
    split: Parts | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    name: str = "",
    cache: Path | None = None,
    start: Ensemble | None = None,
) -> Ensemble:
    """Train an ensemble on a label column, calibrate its error bars on the validation part and measure it on the test part.

    Parameters
    ----------
    table : crystals and labels
    column : the label to learn; it must carry a unit (`naica.data.Label`)
    config : settings; default `TrainConfig()`
    split : rows of train, val and test; default: 80/10/10 by composition
    out : run folder for states, logs and the finished model (``out/model``); None keeps everything in memory
    resume : go on where an interrupted run in `out` stopped
    progress : show a progress bar
    name : written into the card
    cache : file that keeps the graphs
    start : begin with the weights of these members (in turn) instead of random ones

    Raises
    ------
    InputError
        For a missing or unit-less column, labels none of which is a number, or parts that overlap.
    RunError
        If `out` holds another run or cannot be written.
    """
    from naica.training.assemble import assemble

    tune()
    config = config or TrainConfig()
    device_of(config.device)
    folder = Path(out) if out is not None else None
    material = prepare(table, column, config, split, cache)
    if folder is not None:
        _claim(folder, material, config, resume, start)
    members, records = fit_members(material, config, folder, resume, progress, list(start.members) if start else None)
    ensemble = assemble(members, records, material, config, name or f"{config.architecture} {material.target.quantity}")
    if folder is not None:
        ensemble.save(folder / "model")
    return ensemble


def fine_tune(
    ensemble: Ensemble,
    table: CrystalTable,
    column: str,
    epochs: int = 30,
    learning_rate: float = 5e-4,
    split: Parts | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    **settings: Any,
) -> Ensemble:
    """Go on training the members of an ensemble on other labels.

    If the new labels have the same quantity and level of theory, the members keep their normalisation; otherwise it is fitted anew on
    the new training part, so that a constant shift between levels costs nothing to learn. The card names both levels.

    Parameters
    ----------
    ensemble : where to start
    table, column, split, out, resume, progress : as in `train`
    epochs, learning_rate : usually few and low
    settings : further fields of `TrainConfig`

    Raises
    ------
    InputError
        If the new labels are of another kind (class against regression), and as `train` does.
    """
    from naica.training.assemble import assemble

    first = ensemble.members[0]
    config = TrainConfig(
        architecture=first.architecture,
        architecture_config=first.architecture_config,
        head=first.head_config,
        kind=first.target.kind,
        epochs=epochs,
        learning_rate=learning_rate,
        members=settings.pop("members", len(ensemble.members)),
        **settings,
    )
    material = prepare(table, column, config, split)
    old, new = first.target, material.target
    if old.quantity == new.quantity and old.level is not None and new.level is not None and old.level.same(new.level):
        material = replace(material, target=old)
    folder = Path(out) if out is not None else None
    if folder is not None:
        _claim(folder, material, config, resume, ensemble)
    members, records = fit_members(material, config, folder, resume, progress, start=list(ensemble.members))
    tuned = assemble(members, records, material, config, f"{ensemble.card.name}, fine-tuned", parent=ensemble.card)
    if folder is not None:
        tuned.save(folder / "model")
    return tuned


def _claim(folder: Path, material: Material, config: TrainConfig, resume: bool, start: Ensemble | None = None) -> None:
    """Write down what this folder is for, or refuse if it is for something else."""
    settings = config.to_dict()
    for free in ("members", "device", "tensorboard", "max_seconds", "compile"):
        settings.pop(free)
    mine: dict[str, Any] = {"data": material.fingerprint, "column": material.column, "settings": settings}
    if start is not None:
        mine["starting weights"] = _weights_digest(start)
    path = folder / "run.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if resume and path.exists():
            theirs = json.loads(path.read_text())
            if theirs != json.loads(json.dumps(mine)):
                different = [key for key in {**theirs, **mine} if key not in mine or theirs.get(key) != json.loads(json.dumps(mine[key]))]
                raise RunError(
                    f"{folder} holds another training run (different {', '.join(different)}); choose another folder or pass resume=False"
                )
            return
        for state in folder.glob("member-*/state.pt"):
            state.unlink()
        path.write_text(json.dumps(mine, indent=1))
    except OSError as error:
        raise RunError(f"cannot write the run folder {folder}: {error}") from error


def _weights_digest(ensemble: Ensemble) -> str:
    digest = hashlib.sha256()
    for member in ensemble.members:
        for name, tensor in sorted(member.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
