"""Options that several commands share, what completes them, and the way from a request to a shown answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from naica.app.answer import Answer

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON on stdout; messages stay on stderr.")]
Files = Annotated[list[Path], typer.Argument(help="Structure files (CIF, POSCAR, xyz, … also .gz) or folders of them.", show_default=False)]


def examples(*lines: str) -> str:
    """The epilog of a command's help: one example a line."""
    return "\n".join(("[bold]Examples[/bold]", *(f"  [cyan]{line}[/cyan]" for line in lines)))


def answer(action: Callable[..., Answer], request: Any, as_json: bool, bar: str | None = None) -> None:
    """Let `action` answer `request` (with a progress bar called `bar`), show the answer, and leave with its exit code."""
    from naica.app.terminal import progress, quiet_stdout, show

    with quiet_stdout():
        if bar is None:
            result = action(request)
        else:
            with progress(bar) as report:
                result = action(request, report)
    show(result, as_json)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def complete_model(incomplete: str) -> list[str]:
    """Names of shipped models that begin so."""
    from naica.app.actions_model import shipped_models

    return [name for name in shipped_models() if name.startswith(incomplete)]


def complete_set(incomplete: str) -> list[str]:
    """Names of registered data sets that begin so."""
    from naica.data.registry import sets

    return [s.name for s in sets() if s.name.startswith(incomplete)]


def complete_architecture(incomplete: str) -> list[str]:
    """Names of networks that learn properties and begin so."""
    from naica.insight.tasks import compared

    return [name for name in compared() if name.startswith(incomplete)]


def complete_potential(incomplete: str) -> list[str]:
    """Names of interatomic potentials that begin so."""
    from naica.app.actions_model import potential_names

    return [name for name in potential_names() if name.startswith(incomplete)]
