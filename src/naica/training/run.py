"""The verb `train`: from a labelled table to an ensemble with a card; and `fine_tune`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
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
from naica.training.conditions import encoded, groups_of, leaked, settled
from naica.training.config import TrainConfig
from naica.training.device import device_of
from naica.training.property import PropertyModel, kind_of, only
from naica.training.target import Labels, Target, read_labels
from naica.training.transfer import Freeze, check_steps, checked_freeze, continued, hold, moved, release, trained_parameters

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
    """A table made ready: labelled graphs, the three parts (rows), what the labels are, rows left out with the reason, settled settings."""

    table: CrystalTable
    columns: tuple[str, ...]
    labelled: Labelled
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    targets: tuple[Target, ...]
    rejected: dict[str, int]
    config: TrainConfig

    @property
    def target(self) -> Target:
        """The only task; InputError if there are several."""
        return only(self.targets)

    def part(self, name: str) -> Labelled:
        """One part: train, val or test."""
        return self.labelled.part(getattr(self, name))

    @property
    def fingerprint(self) -> str:
        """Hash of what is learned from: ids, labels and rows of the parts."""
        digest = hashlib.sha256("\n".join(self.table.ids).encode())
        for array in (*(task.values for task in self.labelled.tasks), self.train, self.val):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]


def prepare(
    table: CrystalTable,
    column: str | Sequence[str],
    config: TrainConfig,
    split: Parts | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Material:
    """Labels checked, graphs built, rows parted, targets fitted on the training part alone.

    A row is used if it has any label. The settings come back with the names that state variables can have (`HeadConfig.names`).

    Raises
    ------
    InputError
        If a column is missing or no label, no row can be used, a part is empty that may not be, or a structure is in the training part
        at one level of theory and outside of it at another.
    """
    columns = (column,) if isinstance(column, str) else tuple(column)
    labels = tuple(read_labels(table, name) for name in columns)
    known = np.any([one.known for one in labels], axis=0)
    if split is None:
        from naica.data.splits import split as divide

        split = divide(table, by="composition", seed=config.seed)
    parts = {name: np.asarray(getattr(split, name), dtype=np.int64) for name in ("train", "val", "test")}
    rest = np.concatenate([parts["val"], parts["test"]])
    _disjoint(parts["train"], rest)
    plain = _network(config, labels)
    head = settled(config.head, table, parts["train"][known[parts["train"]]], plain.needs.state)
    if (row := leaked(table, head, parts["train"], rest)) is not None:
        raise InputError(
            f"row {row} (id {table.ids[row]}) is outside of the training part, but its structure is in it at another {head.state[-1]}: "
            "errors would come out too small. Keep them together, for example with a split by composition"
        )
    config = replace(config, head=head)
    graphs = GraphSet.build(encoded(table, head), _network(config, labels).needs, cache, progress)
    if graphs.spec.kind == "composition" and any(one.starts is not None for one in labels):
        raise InputError(f"{config.architecture} sees the composition alone: it has no sites to learn {columns[0]} of")
    good, rejected = _usable(labels, known, graphs)
    parts = {name: rows[good[rows]] for name, rows in parts.items()}
    if not len(parts["train"]):
        raise InputError("the training part holds no row with a label; give a split with more training rows")
    labelled = Labelled(graphs, labels, parts["train"], groups_of(table, head))
    targets = tuple(_fitted(one, config, graphs, parts["train"], columns) for one in labels)
    return Material(table, columns, labelled, parts["train"], parts["val"], parts["test"], targets, rejected, config)


def _network(config: TrainConfig, labels: Sequence[Labels]) -> PropertyModel:
    """An untrained network for these labels, to ask it what it needs."""
    targets = [Target(one.quantity, kind_of(one.quantity, config.kind), name=one.column) for one in labels]  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        return PropertyModel(config.architecture, config.architecture_config, config.head, targets)


def _disjoint(train: NDArray[np.int64], rest: NDArray[np.int64]) -> None:
    shared = np.intersect1d(train, rest)
    if len(shared):
        raise InputError(f"{len(shared)} rows of the training part are also in the validation or test part (first: row {shared[0]})")


def _usable(labels: Sequence[Labels], known: NDArray[np.bool_], graphs: GraphSet) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """(B) Rows with a label and a graph, and how many are not for which reason."""
    bad = {row for one in labels for row in one.bad}
    rejected = {"no label": int((~known).sum()) - sum(not known[row] for row in bad)}
    rejected |= {"labels that do not fit the atoms": len(bad)} if bad else {}
    rejected |= {"no graph": len(graphs.rejected)} if graphs.rejected else {}
    good = known.copy()
    good[[*bad, *graphs.rejected]] = False
    if not good.any():
        first = next(iter(graphs.rejected.values()), "")
        why = ", ".join(f"{n} with {reason}" for reason, n in rejected.items() if n)
        raise InputError(f"no row of {len(good)} can be used: {why}{f' ({first})' if first else ''}")
    return good, rejected


def _fitted(labels: Labels, config: TrainConfig, graphs: GraphSet, train: NDArray[np.int64], columns: tuple[str, ...]) -> Target:
    """The target of one task, from its labels in the training part."""
    values = labels.of(train)
    there = np.isfinite(values)
    atoms = np.repeat(graphs.counts[train].astype(np.int64), labels.counts(train))
    kind, name = kind_of(labels.quantity, config.kind), labels.column if len(columns) > 1 else ""
    return Target.fit(labels.quantity, kind, values[there], atoms[there], labels.level, name)


def fit_members(
    material: Material,
    config: TrainConfig,
    out: Path | None,
    resume: bool,
    progress: bool,
    start: list[PropertyModel] | None = None,
    freeze: Freeze = "nothing",
) -> tuple[list[PropertyModel], list[dict[str, Any]]]:
    """Train the members one after the other; finished ones are read from their state. `freeze`: see `fine_tune`.

    Returns
    -------
    the members, and for each a record of its training (epochs, seconds, best validation error, numbers of parameters)
    """
    from naica.training.display import Display
    from naica.training.loop import fit

    members: list[PropertyModel] = []
    records: list[dict[str, Any]] = []
    state = material.labelled.graphs.extras.get("state")
    with Display(config.members, material.targets, progress) as display:
        for k in range(config.members):
            seed = config.seed + k
            folder = _member_folder(out, k)
            before = members[-1] if config.chain and members else start[k % len(start)] if start else None
            model = _initial(material.targets, config, seed) if before is None else continued(before, material.targets, seed)
            if before is None and model.conditions is not None and state is not None:
                model.conditions.fit(state[material.train])
            sizes = trained_parameters(hold(model, freeze))
            done = fit(model, config, seed, material.part("train"), material.part("val"), folder, display.watch(k), resume)
            release(model)
            members.append(model)
            records.append(
                {"seed": seed, "epochs": done.epoch, "best_epoch": done.best_epoch, "best": done.best}
                | {"seconds": round(done.seconds, 2), "cpu_seconds": round(done.cpu_seconds, 2)}
                | sizes
            )
    return members, records


def _initial(targets: Target | Sequence[Target], config: TrainConfig, seed: int) -> PropertyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PropertyModel(config.architecture, config.architecture_config, config.head, targets)


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
    column: str | Sequence[str],
    config: TrainConfig | None = None,
    split: Parts | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    name: str = "",
    cache: Path | None = None,
    start: Ensemble | None = None,
) -> Ensemble:
    """Train an ensemble on label columns, calibrate its error bars on the validation part and measure it on the test part.

    Parameters
    ----------
    table : crystals and labels
    column : the label to learn, or several that one network learns at once: a row is used for the labels it has. Each must carry a unit
        (`naica.data.Label`). Quantities of atoms (`naica.fields`) come as one list per row
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
    config = material.config
    if folder is not None:
        _claim(folder, material, config, resume, start)
    members, records = fit_members(material, config, folder, resume, progress, list(start.members) if start else None)
    told = ", ".join(dict.fromkeys(t.quantity for t in material.targets))
    ensemble = assemble(members, records, material, config, name or f"{config.architecture} {told}")
    if folder is not None:
        ensemble.save(folder / "model")
    return ensemble


def fine_tune(
    ensemble: Ensemble,
    table: CrystalTable,
    column: str | Sequence[str],
    epochs: int = 30,
    learning_rate: float = 5e-4,
    split: Parts | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    freeze: str | int = "nothing",
    **settings: Any,
) -> Ensemble:
    """Go on training the members of an ensemble on other labels.

    Labels of the same quantity and level of theory keep the normalisation. For another level of theory it moves by the mean difference
    between the labels and what the ensemble predicts for them, so that a constant shift between levels costs nothing to learn. For
    another quantity (or kind, or other tasks) it is fitted anew on the new training part, and the head is fresh: the network before it
    goes on. The card names both levels, and how many parameters were trained.

    Parameters
    ----------
    ensemble : where to start
    table, column, split, out, resume, progress : as in `train`
    epochs, learning_rate : usually few and low; 0 epochs move the reference and leave the weights alone
    freeze : what is not trained: ``nothing``, ``elements`` (the first vectors of the atoms), ``backbone`` (all but the head and the vectors
        of state variables), or a number of first layers with all that comes before them. Frozen batch norms keep their statistics
    settings : further fields of `TrainConfig`

    Raises
    ------
    InputError
        If a fresh head would get no epoch, and as `train` does.
    ConfigError
        If the architecture has no such part to freeze.
    """
    from naica.training.assemble import assemble

    first, kept = ensemble.members[0], checked_freeze(freeze)
    hold(continued(first, first.targets, 0), kept)  # refuses here what it cannot freeze, before graphs are made
    config = TrainConfig(
        architecture=first.architecture,
        architecture_config=first.architecture_config,
        head=first.head_config,
        kind=first.target.kind if _of_one(ensemble, table, column) else "auto",
        epochs=max(epochs, 1),
        learning_rate=learning_rate,
        members=settings.pop("members", len(ensemble.members)),
        **settings,
    )
    material = prepare(table, column, config, split)
    check_steps(ensemble, material.targets, epochs)
    config, start = material.config, list(ensemble.members)
    material = replace(material, targets=moved(ensemble, material))
    folder = Path(out) if out is not None else None
    if folder is not None:
        _claim(folder, material, config, resume, ensemble, kept)
    if epochs:
        members, records = fit_members(material, config, folder, resume, progress, start, kept)
    else:
        members = [continued(start[k % len(start)], material.targets, config.seed).eval() for k in range(config.members)]
        records = [{"epochs": 0} for _ in members]
    records = [{**record, "frozen": kept} for record in records]
    tuned = assemble(members, records, material, config, f"{ensemble.card.name}, fine-tuned", parent=ensemble.card)
    if folder is not None:
        tuned.save(folder / "model")
    return tuned


def _of_one(ensemble: Ensemble, table: CrystalTable, column: str | Sequence[str]) -> bool:
    """Whether an ensemble of one task and one column are of the same quantity."""
    names = (column,) if isinstance(column, str) else tuple(column)
    labels = [table.labels.get(name) for name in names]
    return [t.quantity for t in ensemble.targets] == [one.quantity for one in labels if one is not None] and len(names) == 1


def _claim(
    folder: Path, material: Material, config: TrainConfig, resume: bool, start: Ensemble | None = None, freeze: Freeze = "nothing"
) -> None:
    """Write down what this folder is for, or refuse if it is for something else."""
    settings = config.to_dict()
    for free in ("members", "device", "tensorboard", "max_seconds", "max_cpu_seconds", "compile"):
        settings.pop(free)
    mine: dict[str, Any] = {"data": material.fingerprint, "column": ", ".join(material.columns), "settings": settings}
    if start is not None:
        mine["starting weights"] = _weights_digest(start)
    if freeze != "nothing":
        mine["frozen"] = freeze
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
