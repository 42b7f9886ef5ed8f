"""What a person sees while training: one bar over all members, with the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from naica.fields import field
from naica.training.target import Target

if TYPE_CHECKING:
    from naica.training.loop import Watch

_REFRESH_SECONDS = 0.1


class Display:
    """A Rich progress bar over the members of an ensemble; shows nothing if not `shown`."""

    def __init__(self, members: int, targets: Sequence[Target], shown: bool) -> None:
        self.members, self.targets, self.shown = members, tuple(targets), shown
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0

    def __enter__(self) -> Display:
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeElapsedColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("{task.fields[news]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            what = ", ".join(dict.fromkeys(field(t.quantity).symbol for t in self.targets))
            self._task = self._bar.add_task(f"training {what}", total=float(self.members), news="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, member: int) -> Watch:
        """The callbacks for one member."""
        from naica.training.loop import Watch

        if self._bar is None:
            return Watch()

        def step(share: float) -> None:
            now = time.monotonic()
            if now - self._last > _REFRESH_SECONDS or share >= 1.0:
                self._last = now
                self._bar.update(self._task, completed=member + share)

        def epoch(row: dict[str, float]) -> None:
            unit = (self.targets[0].unit or "nats") if len(self.targets) == 1 else "(mean over the tasks)"
            news = f"{member + 1}/{self.members}, epoch {row['epoch']:.0f}: {row['validation']:.3g} {unit}"
            self._bar.update(self._task, news=news)

        return Watch(step, epoch)
