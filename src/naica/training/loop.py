"""The training loop of one member: a Lightning module, its state on disk, and the way back after a kill.

Epochs are the unit of resumption: the order of an epoch depends on (seed, epoch) alone, random numbers are seeded per epoch, and the
state after each epoch is on disk in one atomic step. An interrupted run that is started again ends where an undisturbed one ends.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from naica.errors import RunError
from naica.training.average import RunningMean
from naica.training.batches import Labelled, Loader, Step
from naica.training.config import TrainConfig
from naica.training.device import device_of
from naica.training.history import History
from naica.training.losses import joint_loss, mean_error, weights_of
from naica.training.property import PropertyModel
from naica.training.schedule import rate
from naica.training.transfer import start_training

DTYPES = {"32": torch.float32, "64": torch.float64, "bf16": torch.float32}


class Clocks(NamedTuple):
    """Seconds on the wall, and CPU seconds of this process with all its threads."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Clocks:
        """What they show; only differences mean something."""
        return cls(time.monotonic(), time.process_time())


@dataclass
class Progress:
    """Where a member's training stands; all of it is in its state file."""

    epoch: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best: float = float("inf")
    best_epoch: int = -1
    stale: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Watch:
    """What the outside wants to hear: `step(share of this member done)` after steps, `epoch(row)` after epochs."""

    step: Callable[[float], None] = lambda share: None
    epoch: Callable[[dict[str, float]], None] = lambda row: None


class Member(pl.LightningModule):
    """One member in training.

    Parameters
    ----------
    model : to be trained in place
    config : settings
    train, validation : parts of one labelled set; validation may be empty, then the last weights are kept
    folder : for state and logs; None keeps nothing
    watch : progress
    """

    def __init__(
        self, model: PropertyModel, config: TrainConfig, seed: int, train: Labelled, validation: Labelled, folder: Path | None, watch: Watch
    ) -> None:
        super().__init__()
        self.model, self.config, self.seed, self.folder, self.watch = model, config, seed, folder, watch
        dtype = DTYPES[config.precision]
        self.loader = Loader(train, config.batch_size, config.max_edges, seed, dtype, config.volume_augmentation)
        self.validation = Loader(validation, 4 * config.batch_size, 4 * config.max_edges, None, dtype)
        self.progress, self.kept = Progress(), {name: t.detach().clone() for name, t in model.state_dict().items()}
        self.average = RunningMean(model, config.ema)
        self.raw = torch.compile(model.raw, dynamic=True) if config.compile else model.raw
        self.optimizer = torch.optim.AdamW(_groups(model, config.weight_decay), lr=config.learning_rate)
        self.history = History(folder, config.tensorboard)
        self.weights = weights_of(train, model.targets, config)
        self._loss_sum, self._seen, self._steps, self._started = 0.0, 0, 1, Clocks.now()

    # --- Lightning's hooks ------------------------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, weight matrices decayed, vectors not."""
        return self.optimizer

    def train_dataloader(self) -> Iterator[Step]:
        """The steps of the current epoch, cut short when the time is up."""
        return _Steps(self)  # type: ignore[return-value]

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        """To the device; Lightning's own way would forget the batch's degree."""
        return batch if device.type == "cpu" else (batch[0].to(device), tuple(labels.to(device) for labels in batch[1]))

    def on_train_epoch_start(self) -> None:
        """Seed whatever is random in this epoch; frozen parts behave as they will in use."""
        start_training(self.model)
        torch.manual_seed(self.seed * 100_003 + self.progress.epoch)
        self._loss_sum, self._seen, self._started = 0.0, 0, Clocks.now()

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Set the learning rate."""
        factor = rate(self.share(batch_idx), self.config.schedule, self.config.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor

    def training_step(self, step: Step, batch_idx: int) -> Tensor:
        """The loss of one step."""
        batch, labels = step
        with torch.autocast(batch["n_atoms"].device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            raw = self.raw(batch)
        outputs = self.model.parted(raw.to(labels[0].dtype), batch)
        loss = joint_loss(outputs, labels, batch["n_atoms"], self.model.targets, self.weights, self.config.loss)
        self._loss_sum += float(loss.detach()) * batch.n_systems
        self._seen += batch.n_systems
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Step, batch_idx: int) -> None:
        """Follow the weights, tell how far we are."""
        self.average.update()
        self.watch.step(self.share(batch_idx + 1))

    def on_train_epoch_end(self) -> None:
        """Judge the mean weights, keep the best, write the state."""
        p = self.progress
        p.epoch += 1
        train_seconds = Clocks.now().wall - self._started.wall
        error = self._validated()
        p.seconds, p.cpu_seconds = self.spent()
        better = error < p.best if len(self.validation.data) else True
        p.best, p.best_epoch, p.stale = (error, p.epoch, 0) if better else (p.best, p.best_epoch, p.stale + 1)
        if better:
            self.kept = self.average.state()
        row = {
            "epoch": float(p.epoch),
            "loss": self._loss_sum / max(self._seen, 1),
            "validation": error,
            "best": p.best,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": p.seconds,
            "systems_per_second": self._seen / max(train_seconds, 1e-9),
        }
        if not torch.isfinite(torch.tensor(row["loss"])):
            raise RunError(
                f"the loss became {row['loss']} in epoch {p.epoch}; lower learning_rate "
                f"({self.config.learning_rate:g}) or look at the labels"
            )
        p.rows.append(row)
        self.history.write(row)
        if self.folder is not None:
            self._save(self.folder / "state.pt")
        self.watch.epoch(row)
        if self.finished:
            self.trainer.should_stop = True

    # --- where we stand ----------------------------------------------------------------------------------------------------
    def share(self, step: int) -> float:
        """Share of the run that is done before a step of the current epoch: by epochs, or by time if that is further."""
        by_epochs = (self.progress.epoch + step / self._steps) / self.config.epochs
        return min(1.0, max(by_epochs, self.budget_used()))

    def spent(self) -> Clocks:
        """Seconds of training so far, those before an interruption included."""
        now, p = Clocks.now(), self.progress
        return Clocks(p.seconds + now.wall - self._started.wall, p.cpu_seconds + now.cpu - self._started.cpu)

    def budget_used(self) -> float:
        """Share of the time budget that is spent, of the one that is further; 0 without one."""
        limits = Clocks(*(limit or float("inf") for limit in (self.config.max_seconds, self.config.max_cpu_seconds)))
        return max(one / limit for one, limit in zip(self.spent(), limits, strict=True))

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, the time is up, or nothing got better for too long."""
        p, c = self.progress, self.config
        limits = ((p.seconds, c.max_seconds), (p.cpu_seconds, c.max_cpu_seconds))
        out_of_time = any(limit is not None and spent >= limit for spent, limit in limits)
        return p.epoch >= c.epochs or out_of_time or (c.patience is not None and p.stale >= c.patience)

    def _validated(self) -> float:
        if not len(self.validation.data):
            return float("nan")
        with self.average.applied(self.model):
            return mean_error(self.model, self.validation, device_of(self.config.device))

    # --- on disk -------------------------------------------------------------------------------------------------------------
    def _save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.mean,
            "average_steps": self.average.steps,
            "kept": self.kept,
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
        }
        temporary = path.with_suffix(".tmp")
        try:
            torch.save(state, temporary)
            os.replace(temporary, path)
        except OSError as error:
            raise RunError(
                f"cannot write the training state {path}: {error}; free some space or choose another folder, then start again"
            ) from error

    def resume(self, path: Path) -> None:
        """Back to the state after the last whole epoch; RunError if the file is damaged."""
        try:
            state = torch.load(path, map_location=device_of(self.config.device), weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.restore(state["average"], state["average_steps"])
            self.kept, self.progress = state["kept"], Progress(**state["progress"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:
            raise RunError(
                f"{path} cannot be resumed ({error}); delete that folder, or pass resume=False to start this member again"
            ) from error
        self.history.rewind(self.progress.rows)


class _Steps:
    """An epoch's steps for Lightning, ending early (after at least one) when the time budget is spent."""

    def __init__(self, member: Member) -> None:
        self.member = member

    def __iter__(self) -> Iterator[Step]:
        member = self.member
        member.loader.epoch = member.progress.epoch
        member._steps = len(member.loader.steps(member.progress.epoch))
        for step in member.loader:
            yield step
            if member.budget_used() >= 1.0:
                return


def fit(
    model: PropertyModel,
    config: TrainConfig,
    seed: int,
    train: Labelled,
    validation: Labelled,
    folder: Path | None,
    watch: Watch,
    resume: bool,
) -> Progress:
    """Train one member in place (its best mean weights are left in `model`) and return how it went."""
    with torch.random.fork_rng(devices=[]):
        # the mean of the weights and the optimiser hold on to tensors, so the model moves before they see it
        model.to(device=device_of(config.device), dtype=DTYPES[config.precision])
        member = Member(model, config, seed, train, validation, folder, watch)
        if resume and folder is not None and (folder / "state.pt").exists():
            member.resume(folder / "state.pt")
        if not member.finished:
            with _quiet():
                _trainer(config, config.epochs - member.progress.epoch).fit(member)
        model.load_state_dict(member.kept)
        member.history.close()
    model.to(device="cpu", dtype=torch.float32).eval()
    return member.progress


def _trainer(config: TrainConfig, epochs: int) -> pl.Trainer:
    device = device_of(config.device)
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        max_epochs=epochs,
        gradient_clip_val=config.clip or None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


class _quiet:
    """Lightning without its adverts and its advice on data loaders, which do not concern our loader."""

    def __enter__(self) -> None:
        self._levels = {
            name: logging.getLogger(name).level
            for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
        }
        for name in self._levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._filters = warnings.catch_warnings()
        self._filters.__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")

    def __exit__(self, *error: object) -> None:
        self._filters.__exit__(None, None, None)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
