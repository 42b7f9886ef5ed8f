"""What a person sees while a potential is fitted: one bar over all members, with the errors on the validation part and the time left."""

from __future__ import annotations

import math
import time
from typing import Any

from naica.potential.loop import Watch

_REFRESH_SECONDS = 0.1


class Display:
    """A Rich progress bar; shows nothing if not `shown`."""

    def __init__(self, members: int, shown: bool) -> None:
        self.members, self.shown = members, shown
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0

    def __enter__(self) -> Display:
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("fitting"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeElapsedColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("{task.fields[news]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("fitting", total=float(self.members), news="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, member: int) -> Watch:
        """The callbacks for one member."""
        if self._bar is None:
            return Watch()

        def step(share: float) -> None:
            now = time.monotonic()
            if now - self._last > _REFRESH_SECONDS or share >= 1.0:
                self._last = now
                self._bar.update(self._task, completed=member + share)

        def epoch(row: dict[str, float]) -> None:
            whose = f"{member + 1}/{self.members}, " if self.members > 1 else ""
            self._bar.update(self._task, news=f"{whose}epoch {row['epoch']:.0f}: {news_of(row)}")

        return Watch(step, epoch)


def news_of(row: dict[str, float]) -> str:
    """Errors of an epoch for a person."""
    parts = []
    for key, label, factor, unit in (("forces_mae", "F", 1e3, "meV/Å"), ("energy_mae", "E", 1e3, "meV/atom")):
        value = row.get(key, math.nan)
        if math.isfinite(value):
            parts.append(f"{label} {factor * value:.3g} {unit}")
    return ", ".join(parts) or f"loss {row['loss']:.3g}"
