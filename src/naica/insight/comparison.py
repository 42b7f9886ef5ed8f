"""The comparison of networks: every chosen network on every chosen real task, the same splits, the same budget of CPU seconds.

A run is one network on one task with one seed. Its result is one JSON file that appears in one step; a run whose file is there is never
done again, and one that is under way is locked, so that several processes can work on one folder and a kill costs only what was under way.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError, NaicaError, RunError
from naica.insight import tasks as library
from naica.insight.tasks import Recipe, Task

if TYPE_CHECKING:
    from naica.training.config import TrainConfig
    from naica.training.property import PropertyModel
    from naica.training.run import Material

Array = NDArray[np.float64]
BASELINES = ("mean", "composition-ridge")
_FORMAT = 1
_PROBE_STEPS, _PROBE_EPOCHS = 2, 3
_INFERENCE_SECONDS = 0.3


@dataclass(frozen=True)
class Run:
    """One network on one task with one seed."""

    task: Task
    model: str
    seed: int

    def path(self, out: Path) -> Path:
        """Its result below the folder of the comparison."""
        return out / "runs" / self.task.name / f"{self.model}-s{self.seed}.json"


@dataclass(frozen=True)
class Plan:
    """What is compared: tasks, networks, seeds, CPU minutes of training per run. Runs go seed by seed, so that early reports are whole."""

    tasks: tuple[Task, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    minutes: float

    def runs(self) -> list[Run]:
        """All runs, baselines first; networks only on tasks of a kind of system that they can learn from."""
        able = {model: library.recipe(model).systems for model in self.models}
        found = [Run(task, name, seed) for seed in self.seeds for task in self.tasks for name in BASELINES]
        for seed in self.seeds:
            found += [Run(task, model, seed) for task in self.tasks for model in self.models if task.system in able[model]]
        return found


def claim(plan: Plan, out: Path) -> None:
    """Write down budget and rows of each task in the folder, or refuse if it holds runs of another budget.

    Raises
    ------
    RunError
        If a task was begun in this folder with other minutes or rows, or the folder cannot be written.
    """
    path = out / "zoo.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out / "zoo.lock"):
            known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"format": _FORMAT, "tasks": {}}
            for task in plan.tasks:
                mine = {"minutes": plan.minutes, "rows": task.rows}
                theirs = known["tasks"].setdefault(task.name, mine)
                if theirs != mine:
                    raise RunError(
                        f"{out} holds runs of {task.name} with {theirs['minutes']:g} minutes and rows = {theirs['rows']}, not "
                        f"{plan.minutes:g} and {task.rows}; results of different budgets do not compare: choose another folder"
                    )
            _write(path, known)
    except OSError as error:
        raise RunError(f"cannot write the comparison's folder {out}: {error}") from error


def work(plan: Plan, out: Path, report: Callable[[dict[str, Any]], None] = lambda result: None, retry: bool = False) -> int:
    """Do every run of the plan that is neither there nor under way elsewhere; returns how many.

    Parameters
    ----------
    plan : what is compared
    out : folder of the comparison
    report : called with each result
    retry : do failed runs again
    """
    from naica.runtime import threads

    threads(1)
    done = 0
    for run in plan.runs():
        path = run.path(out)
        if _there(path, retry) or _orphaned():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock"), wait=False) as mine:
            if not mine or _there(path, retry):
                continue
            result = do(run, plan.minutes, out)
            _write(path, result)
            done += 1
        report(result)
    return done


def _orphaned() -> bool:
    """Whether this is a worker process whose driver is gone; a command that outlives its shell is none."""
    driver = parent_process()
    return driver is not None and not driver.is_alive()


def _there(path: Path, retry: bool) -> bool:
    if not path.exists():
        return False
    return not retry or json.loads(path.read_text())["status"] != "failed"


def do(run: Run, minutes: float, out: Path) -> dict[str, Any]:
    """One run to its result; what goes wrong is a result as well, with the reason."""
    head = {"format": _FORMAT, "task": run.task.name, "model": run.model, "seed": run.seed, "minutes": minutes}
    start = time.process_time()
    try:
        found = _baseline(run) if run.model in BASELINES else _trained(run, library.recipe(run.model), minutes, out)
        return {**head, "status": "ok", **found}
    except NaicaError as error:
        reason = str(error)
    except (RuntimeError, ValueError, ArithmeticError, MemoryError, LookupError, TypeError) as error:
        # a network's bug must not stop the comparison of the others; it stands in the report
        reason = f"{type(error).__name__}: {error}"
    return {**head, "status": "failed", "reason": reason, "cpu_seconds": round(time.process_time() - start, 2)}


# --- a network -----------------------------------------------------------------------------------------------------------------
def _trained(run: Run, recipe: Recipe, minutes: float, out: Path) -> dict[str, Any]:
    import torch

    from naica.training.loop import Watch, fit
    from naica.training.property import PropertyModel

    task = run.task
    table = library.load(task)
    split = library.parts(task, table, run.seed)
    config = recipe.config(len(split.train), run.seed, task.kind)
    material, graph_seconds = _material(task, table, config, split, out)
    epoch_seconds = _epoch_seconds(material, config)
    epochs = max(1, min(recipe.max_epochs, int(60 * minutes / epoch_seconds)))
    config = replace(config, epochs=epochs, max_cpu_seconds=60 * minutes)
    torch.manual_seed(run.seed)
    model = PropertyModel(config.architecture, config.architecture_config, config.head, material.targets)
    start = time.process_time()
    progress = fit(model, config, run.seed, material.part("train"), material.part("val"), None, Watch(), False)
    spent = time.process_time() - start
    rows = material.test
    predicted, rate = _predictions(model, material, rows)
    asked = _asked(task, table, split.test)
    return {
        "rows": {"train": len(material.train), "val": len(material.val), "test": len(rows)},
        "missing": {"test": len(np.setdiff1d(asked, rows)), "train": len(np.setdiff1d(split.train, material.train))},
        "rejected": _reasons(material),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "cpu_seconds": round(spent, 2),
        "epochs": {"planned": epochs, "done": progress.epoch, "best": progress.best_epoch},
        "validation": progress.best,
        "graph_cpu_seconds": graph_seconds,
        "train_per_second": len(material.train) / epoch_seconds,
        "infer_per_second": rate,
        "recipe": {**recipe.settings, "batch_size": config.batch_size, "max_epochs": recipe.max_epochs},
        "settings": config.to_dict(),
        "data": _digest(table, task),
        "test": _judged(table, task, rows, predicted),
    }


def _material(task: Task, table: Any, config: TrainConfig, split: Any, out: Path) -> tuple[Material, float]:
    """Graphs, read from the folder where another run left them; with the CPU seconds that making them took whoever made them."""
    from naica.models import backbone
    from naica.training.run import prepare

    needs: Any = backbone(config.architecture, **config.architecture_config).needs
    spec = json.dumps(needs.to_dict(), sort_keys=True)
    name = hashlib.sha256(f"{spec} {task.rows}".encode()).hexdigest()[:12]
    folder = out / "graphs"
    folder.mkdir(parents=True, exist_ok=True)
    cache, clock = folder / f"{task.name}-{name}.graphs", folder / f"{task.name}-{name}.seconds"
    with _locked(cache.with_suffix(".lock")):
        fresh = not cache.exists()
        start = _all_cpu()
        material = prepare(table, library.learned(task), config, split, cache)
        if fresh:
            _write(clock, {"seconds": round(_all_cpu() - start, 2), "crystals": len(table)})
        return material, float(json.loads(clock.read_text())["seconds"]) if clock.exists() else float("nan")


def _all_cpu() -> float:
    """CPU seconds of this process and of the pools it has ended."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def _epoch_seconds(material: Material, config: TrainConfig) -> float:
    """CPU seconds of an epoch with its validation, from a small share of the rows: the fastest of some short epochs after the first."""
    from naica.training.loop import Watch, fit
    from naica.training.property import PropertyModel

    random = np.random.default_rng(config.seed)
    share = min(1.0, _PROBE_STEPS * config.batch_size / len(material.train))
    some = random.permutation(material.train)[: max(2, round(share * len(material.train)))]
    judged = random.permutation(material.val)[: max(1, round(share * len(material.val)))]
    marks: list[float] = []
    probe = replace(config, epochs=_PROBE_EPOCHS)
    model = PropertyModel(config.architecture, config.architecture_config, config.head, material.targets)
    watch = Watch(epoch=lambda row: marks.append(time.process_time()))
    fit(model, probe, config.seed, material.labelled.part(some), material.labelled.part(judged), None, watch, False)
    return float(np.min(np.diff(marks))) * len(material.train) / len(some)


def _predictions(model: PropertyModel, material: Material, rows: NDArray[np.int64]) -> tuple[Array, float]:
    """Predictions for rows, and structures per CPU second, making batches included."""
    import torch

    from naica.training.batches import edges_of, plan

    graphs = material.labelled.graphs
    steps = plan(edges_of(graphs, rows), 256, 60_000)
    rounds, start = 0, time.process_time()
    with torch.inference_mode():
        while True:
            found = [model(graphs.batch(rows[step])).double().numpy() for step in steps]
            rounds += 1
            spent = time.process_time() - start
            if spent > _INFERENCE_SECONDS:
                break
    return np.concatenate(found), rounds * len(rows) / spent


def _reasons(material: Material) -> dict[str, int]:
    """How many rows were left out for which reason; numbers and names in a reason are what differs, so its beginning counts."""
    found: dict[str, int] = {}
    for reason in material.labelled.graphs.rejected.values():
        short = reason.split(";")[0].split(":")[-1].strip()[:80]
        found[short] = found.get(short, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1])[:5])


# --- baselines -----------------------------------------------------------------------------------------------------------------
def _baseline(run: Run) -> dict[str, Any]:
    """The mean of the training part, or a ridge regression on the composition, on every test row."""
    from naica.insight.composition_ridge import predict

    task = run.task
    table = library.load(task)
    split = library.parts(task, table, run.seed)
    values = labels(table, task)
    start = time.process_time()
    predicted = np.full((len(split.test), values.shape[1]), np.nan)
    # the validation part has nothing to choose here, so it is learned from as well
    known = np.concatenate([split.train, split.val])
    for k in range(values.shape[1]):
        rows = known[np.isfinite(values[known, k])]
        if run.model == "mean":
            predicted[:, k] = values[rows, k].mean()
        else:
            predicted[:, k] = predict(table, rows, values[rows, k], split.test)
    spent = time.process_time() - start
    rows = _asked(task, table, split.test)
    found = predicted[np.isin(split.test, rows)]
    return {
        "rows": {"train": len(known), "val": 0, "test": len(rows)},
        "missing": {"test": 0, "train": 0},
        "cpu_seconds": round(spent, 2),
        "data": _digest(table, task),
        "test": _judged(table, task, rows, found),
    }


# --- labels --------------------------------------------------------------------------------------------------------------------
def labels(table: Any, task: Task) -> Array:
    """(n, columns) labels of a task; NaN where missing."""
    return np.stack([np.asarray(table.column(c), dtype=np.float64) for c in library.learned(task)], axis=1)


def _asked(task: Task, table: Any, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows that have a label."""
    return rows[np.isfinite(labels(table, task)[rows]).any(axis=1)]


def _judged(table: Any, task: Task, rows: NDArray[np.int64], predicted: Array) -> dict[str, Any]:
    """Test rows with labels and predictions, to seven digits."""
    actual = labels(table, task)[rows]
    predicted = predicted.reshape(len(rows), -1)
    return {"rows": rows.tolist(), "actual": _short(actual), "predicted": _short(predicted)}


def _short(values: Array) -> list[list[float | None]]:
    return [[float(f"{x:.7g}") if np.isfinite(x) else None for x in row] for row in values.tolist()]


def _digest(table: Any, task: Task) -> str:
    """Hash of ids and labels: runs that compare have the same."""
    digest = hashlib.sha256("\n".join(table.ids).encode())
    digest.update(np.ascontiguousarray(labels(table, task)).tobytes())
    return digest.hexdigest()[:16]


# --- files ---------------------------------------------------------------------------------------------------------------------
def _write(path: Path, content: dict[str, Any]) -> None:
    """A JSON file that is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(content))
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space, then start again: finished runs are kept"
        ) from error


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that the system frees when the process ends, however it ends; yields whether we hold it."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def read_runs(out: Path) -> list[dict[str, Any]]:
    """All results of a folder.

    Raises
    ------
    InputError
        If there are none, or one is damaged.
    """
    found = []
    for path in sorted(out.glob("runs/*/*.json")):
        try:
            found.append(json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is damaged ({error}); delete it, and naica zoo does that run again") from error
    if not found:
        raise InputError(f"no results in {out}; expected the folder of a naica zoo run")
    return found


def start_workers(plan: Plan, out: Path, jobs: int, retry: bool = False) -> Sequence[Any]:
    """Start `jobs` processes that do the plan's runs; each gets one thread."""
    from multiprocessing import get_context

    context = get_context("spawn")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    processes = [context.Process(target=work, args=(plan, out), kwargs={"retry": retry}) for _ in range(jobs)]
    for process in processes:
        process.start()
    return processes
