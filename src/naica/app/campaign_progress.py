"""A campaign's events as live lines on stderr: a bar for the running stage, one line for each that is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SAID = {
    "learn": "learning from labels",
    "propose": "proposing candidates",
    "judge": "judging candidates",
    "pick": "picking",
    "compute": "computing",
}


@contextmanager
def campaign_progress(folder: Path) -> Iterator[Callable[[Any], None]]:
    """Yield a listener for `naica.discover.campaign.Event`; says on an interrupt that nothing is lost."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    from naica.app.terminal import stderr

    console = stderr()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False, style="dim"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        listener = _Listener(bars)
        try:
            yield listener.hear
        except KeyboardInterrupt:
            console.print(Text(f"stopped; everything so far is kept in {folder}: give the same command again to go on", style="yellow"))
            raise
        finally:
            listener.close()


class _Listener:
    """Keeps one bar for the stage that runs, and prints a line when the next one begins."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars
        self.task: Any = None
        self.stage: tuple[int, str] | None = None
        self.text = ""
        self.began = 0.0

    def hear(self, event: Any) -> None:
        """Show one event."""
        stage = (event.round, event.stage)
        if stage != self.stage:
            self.close()
            self.stage, self.began = stage, time.monotonic()
            self.task = self.bars.add_task(_title(*stage), total=None, count="", text="")
        self.text = event.text or self.text
        count = f"{event.done}/{event.total}" if event.total > 1 else ""
        self.bars.update(self.task, completed=event.done, total=event.total or None, count=count, text=event.text)

    def close(self) -> None:
        """Turn the running stage's bar into a line."""
        from rich.text import Text

        if self.stage is None:
            return
        self.bars.remove_task(self.task)
        seconds = time.monotonic() - self.began
        line = Text.assemble((_title(*self.stage).ljust(34), "bold"), (f"{seconds:6.1f} s  ", "dim"), self.text)
        self.bars.console.print(line)
        self.stage, self.text = None, ""


def _title(number: int, stage: str) -> str:
    where = "start" if number == 0 else f"round {number}"
    return f"{where} · {_SAID.get(stage, stage)}"
