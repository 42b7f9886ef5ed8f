"""The command ``naica``. Commands mirror the public verbs; each fills in a request, lets an action answer it, and shows the answer.

Exit codes: 0 answered, 2 bad input or configuration, 3 a part is not installed, 4 the run could not go on, 130 interrupted.
Nothing heavy is imported before a command runs: ``naica --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from naica.app import (
    cli_bake,
    cli_data,
    cli_discover,
    cli_explain,
    cli_hamiltonian,
    cli_md,
    cli_model,
    cli_novelty,
    cli_potential,
    cli_properties,
    cli_screen,
    cli_zoo,
)
from naica.errors import NaicaError

app = typer.Typer(
    name="naica",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\n".join(
        (
            "[bold]Examples[/bold]",
            "  [cyan]naica predict my.cif[/cyan]                        formation energy with its error bar",
            "  [cyan]naica discover examples/mg-al-o.toml[/cyan]        a discovery campaign, to its report",
            "  [cyan]naica campaign report campaigns/mg-al-o[/cyan]     the report again, from the ledger",
            "",
            "Every command that answers takes [cyan]--json[/cyan].",
            "Exit codes: 0 answered, 2 bad input, 3 a part is missing, 4 the run could not go on, 130 interrupted.",
        )
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"naica {version('naica')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors (also: NAICA_DEBUG=1).")] = False,
) -> None:
    """Learn from structures, and discover new stable materials."""
    if debug:
        os.environ["NAICA_DEBUG"] = "1"


cli_model.add_to(app)
cli_potential.add_to(app)
cli_md.add_to(app)
cli_bake.add_to(app)
cli_properties.add_to(app)
cli_explain.add_to(app)
cli_discover.add_to(app)
cli_screen.add_to(app)
cli_novelty.add_to(app)
cli_data.add_to(app)
cli_zoo.add_to(app)
cli_hamiltonian.add_to(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; errors a user can cure become one red line."""
    from naica.app.terminal import complain, debugging

    try:
        app(args=None if arguments is None else list(arguments), prog_name="naica")
    except NaicaError as error:
        if debugging():
            raise
        complain(error, as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
        sys.exit(error.exit_code)
    except OSError as error:
        if debugging():
            raise
        complain(error)
        sys.exit(4)


if __name__ == "__main__":
    main()
