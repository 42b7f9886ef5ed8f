"""How answers, progress and errors look in a terminal. Answers go to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, to_json

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 160
_WHOLE_WORD = 24
Report = Callable[[int, int], None]
"""Called with (done, total) by whatever takes long."""


def stderr() -> Console:
    """The console for messages and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def note(text: str) -> None:
    """A remark on stderr, dimmed."""
    from rich.text import Text

    stderr().print(Text(text, style="dim"))


def show(answer: Answer, as_json: bool) -> None:
    """Print an answer: JSON alone, or tables with their notes on stderr."""
    if as_json:
        sys.stdout.write(to_json(answer.data) + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    # a pipe has no width: do not fold what another program will read
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for block in answer.blocks:
        out.print(_rich_table(block) if isinstance(block, Table) else Text(block))
    for text in answer.notes:
        note(text)


def _rich_table(table: Table) -> Any:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(box=box.SIMPLE_HEAD, title=Text(table.title) if table.title else None, title_justify="left", pad_edge=False)
    for at, name in enumerate(table.columns):
        # words and numbers stay whole; only the last column, which holds remarks, gives way
        longest = max([len(word) for row in table.rows for word in row[at].split()] + [len(word) for word in name.split()], default=1)
        least = None if at == len(table.columns) - 1 else min(longest, _WHOLE_WORD)
        # text comes from files and users: Text is never read as markup
        rich.add_column(Text(name), justify="right" if name in table.right else "left", overflow="fold", min_width=least)
    for row in table.rows:
        rich.add_row(*(Text(cell) for cell in row))
    return rich


def complain(error: Exception, as_json: bool = False) -> None:
    """One red line on stderr; with --json also an object `{"error": …}` on stdout, so that a reader always gets JSON."""
    from rich.text import Text

    line = Text.assemble(("Error: ", "bold red"), (str(error), "red"))
    stderr().print(line, soft_wrap=True)
    if as_json:
        sys.stdout.write(to_json({"error": {"kind": type(error).__name__, "message": str(error)}}) + "\n")


@contextmanager
def progress(text: str) -> Iterator[Callable[..., None]]:
    """A bar on stderr with time spent and time left (none where stderr is no terminal); yields the function that moves it.

    It takes (done, total), and if wanted a text instead of the bar's first one.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(text, total=None)
        yield lambda done, total, told="": bars.update(task, completed=done, total=total, description=told or text)


@contextmanager
def byte_progress(text: str) -> Iterator[Callable[[str, int, int], None]]:
    """A download bar on stderr; yields a function of (file, bytes so far, bytes in all)."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(text, total=None)
        yield lambda file, done, total: bars.update(task, completed=done, total=total, description=f"{text}: {file}")


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send what libraries print to stderr: stdout belongs to the answer."""
    with redirect_stdout(sys.stderr):
        yield


def debugging() -> bool:
    """True if NAICA_DEBUG asks for tracebacks."""
    return os.environ.get("NAICA_DEBUG", "") not in ("", "0")
