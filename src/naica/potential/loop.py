"""The training loop of one potential: steps, validation, the state on disk, and the way back after a kill.

Steps are the unit of resumption: the order of an epoch depends on (seed, epoch) alone, random numbers are seeded per step, and the state is
written in one atomic move every so many steps. A run that was killed and is started again ends where an undisturbed one ends.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from naica import runtime
from naica.errors import RunError
from naica.graphs.batch import Batch
from naica.potential.derivatives import Evaluation
from naica.potential.examples import Examples, Rows, steps
from naica.potential.losses import loss_of, one_number
from naica.potential.measure import errors_of, tell
from naica.potential.model import PotentialModel
from naica.potential.settings import FitConfig, Weights
from naica.training.average import RunningMean
from naica.training.device import device_of
from naica.training.history import History
from naica.training.schedule import rate
from naica.training.transfer import start_training

STATE = "state.pt"
DTYPES = {"32": torch.float32, "64": torch.float64}
_PLATEAU = 0.8
_SECOND_RATE = 0.1  # of the learning rate in the second stage of a schedule that does not fall by itself
_HOPELESS = 1e4  # times the best loss of an epoch
_LOGGED = ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse", "stress_mae", "magmom_mae", "charge_mae")


@dataclass
class Progress:
    """Where a training stands; all of it is in its state file. `step` counts within the epoch, `steps` in all."""

    epoch: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    loss_sum: float = 0.0
    least_loss: float = math.inf
    best: float = math.inf
    best_epoch: int = -1
    stale: int = 0
    factor: float = 1.0
    second: bool = False
    rows: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Watch:
    """What the outside wants to hear: `step(share of the run done)` after steps, `epoch(row)` after epochs."""

    step: Callable[[float], None] = lambda share: None
    epoch: Callable[[dict[str, float]], None] = lambda row: None


@dataclass(frozen=True, eq=False)
class Data:
    """What a training learns from and is judged by; `replayed` are rows of an older set, of which each epoch takes a share."""

    examples: Examples
    train: Rows
    validation: Rows
    replayed: Rows = field(default_factory=lambda: np.zeros(0, np.int64))


class Training:
    """One potential in training, in place.

    Parameters
    ----------
    model : to be trained
    config : settings
    seed : of the order of the frames
    data : frames
    folder : for state and logs; None keeps nothing
    watch : who looks on
    """

    def __init__(self, model: PotentialModel, config: FitConfig, seed: int, data: Data, folder: Path | None, watch: Watch) -> None:
        self.model, self.config, self.seed, self.data, self.folder, self.watch = model, config, seed, data, folder, watch
        self.device, self.dtype = device_of(config.device), DTYPES[config.precision]
        model.to(device=self.device, dtype=self.dtype)
        self.progress = Progress()
        self.kept = {name: t.detach().clone() for name, t in model.state_dict().items()}
        self.average = RunningMean(model, config.ema)
        self.optimizer = _optimizer(model, config)
        self.history = History(folder, config.tensorboard)
        labels = data.examples.frames.labels
        self.slopes = ("forces" in labels and config.weights.forces > 0) or ("stress" in labels and config.weights.stress > 0)
        self._plan: list[Rows] = []
        self._since = 0
        self._clock = (time.monotonic(), time.process_time())

    # --- the walk -------------------------------------------------------------------------------------------------------------
    def run(self) -> Progress:
        """Train until epochs, time or patience are over; the kept weights are in the model afterwards."""
        if self.folder is not None and (self.folder / STATE).exists():
            self.resume(self.folder / STATE)
        start_training(self.model)
        while not self.finished:
            self._epoch()
        self.model.load_state_dict(self.kept)
        self.history.close()
        self.model.to(device="cpu").eval()
        return self.progress

    def _epoch(self) -> None:
        p = self.progress
        self._plan = self._steps_of(p.epoch)
        while p.step < len(self._plan):
            self._enter_second_stage()
            loss = self._step(self._plan[p.step])
            p.loss_sum += loss
            p.step, p.steps = p.step + 1, p.steps + 1
            self._spend()
            self.watch.step(self.share)
            self._since += 1
            if self._since >= self.config.checkpoint_steps and p.step < len(self._plan):
                self.save()
            if self._out_of_time:
                break
        self._end_of_epoch()

    def _step(self, rows: Rows) -> float:
        """One step; returns its loss."""
        p = self.progress
        torch.manual_seed(self.seed * 1_000_003 + p.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        batch, wanted = self.data.examples.batch(rows, self.dtype)
        if self.device.type != "cpu":
            batch, wanted = batch.to(self.device), wanted.to(self.device)
        found = self.model.compute(batch, twice=True) if self.slopes else _energies_alone(self.model, batch)
        loss = loss_of(found, wanted, batch, self.weights, self.config.loss, self.config.delta)
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        norm = nn.utils.clip_grad_norm_((q for q in self.model.parameters() if q.grad is not None), self.config.clip or math.inf)
        value = float(loss.detach())
        if not math.isfinite(value) or not bool(torch.isfinite(norm)):
            self._give_up(f"the loss became {value:g} (gradient {float(norm):g})")
        self.optimizer.step()
        self.average.update()
        return value

    def _end_of_epoch(self) -> None:
        p, c = self.progress, self.config
        loss = p.loss_sum / max(p.step, 1)
        if loss > _HOPELESS * p.least_loss:
            self._give_up(f"the mean loss rose from {p.least_loss:.3g} to {loss:.3g}")
        p.least_loss = min(p.least_loss, loss)
        p.epoch, p.step, p.loss_sum = p.epoch + 1, 0, 0.0
        self._spend()
        last = self.finished
        row = {"epoch": float(p.epoch), "loss": loss, "learning_rate": self.learning_rate}
        if last or p.epoch % c.validate_every == 0:
            row |= self._judge()
            self._spend()
        row |= {"seconds": p.seconds, "cpu_seconds": p.cpu_seconds}
        p.rows.append(row)
        if "best" in row:
            self.history.write(row)
            self.watch.epoch(row)
        if self._since >= c.checkpoint_steps or self.finished:
            self.save()

    def _judge(self) -> dict[str, float]:
        """Errors of the mean weights on the validation part; the best weights are kept."""
        p = self.progress
        if not len(self.data.validation):
            self.kept, p.best_epoch = self.average.state(), p.epoch
            return {"validation": math.nan, "best": math.nan}
        examples = self.data.examples.of(self.data.validation)
        with self.average.applied(self.model):
            self.model.eval()
            errors = errors_of(tell(self._computed, examples, self.config.max_edges, self.dtype))
            start_training(self.model)
        error = one_number(errors, self.weights, self.config.loss)
        if error < p.best:
            p.best, p.best_epoch, p.stale = error, p.epoch, 0
            self.kept = self.average.state()
        else:
            p.stale += self.config.validate_every
            if self.config.schedule == "plateau" and p.stale % self.config.plateau_patience < self.config.validate_every:
                p.factor *= _PLATEAU
        known = {name: errors.get(name, math.nan) for name in _LOGGED if name in errors or name[:5] in ("energ", "force")}
        return {"validation": error, "best": p.best, **known}

    def _computed(self, batch: Batch) -> Evaluation:
        """What the model says, with slopes only if they are learned."""
        batch = batch.to(self.device)
        if self.slopes:
            return self.model.compute(batch)
        with torch.no_grad():
            return _energies_alone(self.model, batch)

    def _give_up(self, what: str) -> None:
        """Stop with the reason; the best weights so far are in the state file.

        Raises
        ------
        RunError
            Always.
        """
        p = self.progress
        kept = ""
        if self.folder is not None:
            self.model.load_state_dict(self.kept)
            self.save()
            kept = f"; the weights of epoch {p.best_epoch} are kept in {self.folder / STATE}" if p.best_epoch > 0 else ""
        raise RunError(
            f"the training diverged in epoch {p.epoch + 1}, step {p.step + 1}: {what}. Lower learning_rate ({self.config.learning_rate:g}) "
            f"or clip ({self.config.clip:g}), and look at the largest forces of the frames{kept}"
        )

    # --- where we stand -------------------------------------------------------------------------------------------------------
    def _steps_of(self, epoch: int) -> list[Rows]:
        """Rows of each step of an epoch: a new order each time, and another share of the replayed frames."""
        draw = np.random.default_rng([self.seed, epoch])
        rows = self.data.train
        if len(self.data.replayed):
            share = self.config.replay_share
            wanted = len(self.data.replayed) if share >= 1 else round(len(rows) * share / (1 - share))
            rows = np.concatenate([rows, draw.choice(self.data.replayed, min(wanted, len(self.data.replayed)), replace=False)])
        rows = draw.permutation(np.concatenate([rows, self._repeated(rows, draw)]))
        examples, c = self.data.examples, self.config
        plan = steps(examples.cost(rows), examples.frames.counts[rows], c.batch_size, c.max_edges, c.balance == "atoms")
        return [rows[part] for part in plan]

    def _repeated(self, rows: Rows, draw: np.random.Generator) -> Rows:
        """Frames of the further levels once more, so often that they are `FitConfig.fidelity_share` of an epoch."""
        further = rows[self.data.examples.frames.level[rows] > 0]
        share = min(self.config.fidelity_share, 0.9)
        wanted = round((len(rows) - len(further)) * share / (1 - share)) - len(further)
        if wanted <= 0 or not len(further):
            return rows[:0]
        whole, rest = divmod(wanted, len(further))
        return np.concatenate([np.tile(further, whole), draw.permutation(further)[:rest]])

    @property
    def share(self) -> float:
        """Share of the run that is done: by epochs, or by time if that is further."""
        p, c = self.progress, self.config
        by_epochs = (p.epoch + p.step / max(len(self._plan), 1)) / max(c.epochs, 1)
        limits = ((p.seconds, c.max_seconds), (p.cpu_seconds, c.max_cpu_seconds))
        return min(1.0, max(by_epochs, *(spent / limit for spent, limit in limits if limit is not None), 0.0))

    @property
    def learning_rate(self) -> float:
        """At the present step."""
        c, p = self.config, self.progress
        falls = c.schedule in ("one-cycle", "cosine")
        factor = rate(self.share, "constant" if c.schedule == "plateau" else c.schedule, c.warm_up)
        return c.learning_rate * factor * p.factor * (_SECOND_RATE if p.second and not falls else 1.0)

    @property
    def weights(self) -> Weights:
        """Those of the present stage."""
        second = self.config.stage_two
        return second if second is not None and self.progress.second else self.config.weights

    def _enter_second_stage(self) -> None:
        p = self.progress
        if self.config.stage_two is not None and not p.second and self.share >= self.config.stage_two_from:
            # the two stages weigh errors differently: what was best in the first does not count in the second
            p.second, p.best, p.stale = True, math.inf, 0

    def _spend(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.progress.seconds += wall - self._clock[0]
        self.progress.cpu_seconds += cpu - self._clock[1]
        self._clock = (wall, cpu)

    @property
    def _out_of_time(self) -> bool:
        p, c = self.progress, self.config
        return any(
            limit is not None and spent >= limit for spent, limit in ((p.seconds, c.max_seconds), (p.cpu_seconds, c.max_cpu_seconds))
        )

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, the time is up, or nothing got better for too long."""
        p, c = self.progress, self.config
        return p.epoch >= c.epochs or self._out_of_time or (c.patience is not None and p.stale >= c.patience)

    # --- on disk -------------------------------------------------------------------------------------------------------------
    def save(self) -> None:
        """Write the state in one atomic step; RunError if that cannot be done."""
        self._since = 0
        if self.folder is None:
            return
        state: Mapping[str, Any] = {
            "model": self.model.state_dict(),
            "average": self.average.mean,
            "average_steps": self.average.steps,
            "kept": self.kept,
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
        }
        path = self.folder / STATE
        try:
            torch.save(state, path.with_suffix(".tmp"))
            os.replace(path.with_suffix(".tmp"), path)
        except OSError as error:
            raise RunError(f"cannot write the training state {path}: {error}; free some space or choose another folder") from error

    def resume(self, path: Path) -> None:
        """Back to the last written state; RunError if the file is damaged."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.restore(state["average"], state["average_steps"])
            self.kept, self.progress = state["kept"], Progress(**state["progress"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:
            raise RunError(f"{path} cannot be resumed ({error}); delete it, or pass resume=False (--fresh) to start again") from error
        self.history.rewind([row for row in self.progress.rows if "best" in row])
        self._clock = (time.monotonic(), time.process_time())


def _energies_alone(model: PotentialModel, batch: Batch) -> Evaluation:
    """Without slopes, where no label needs them."""
    energy, atoms = model.energies(batch)
    none: Tensor = energy.new_zeros(len(batch["number"]), 3)
    return Evaluation(energy, none, energy.new_zeros(batch.n_systems, 3, 3), atoms)


def _optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    trained = [(name.startswith("differences."), p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for further, p in trained if p.ndim > 1 and not further], "weight_decay": config.weight_decay},
        {"params": [p for further, p in trained if p.ndim > 1 and further], "weight_decay": config.difference_decay},
        {"params": [p for _, p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    runtime.tune()
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.learning_rate)
    return torch.optim.AdamW(groups, lr=config.learning_rate, amsgrad=config.optimizer == "amsgrad")
