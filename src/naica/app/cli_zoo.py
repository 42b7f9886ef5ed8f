"""Commands about networks against each other: zoo run | report | tasks, recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from naica.app import requests_zoo as requests
from naica.app.cli_options import Json, answer, examples

_PANEL = "Make and judge models"
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the comparison; a started one goes on.")]

zoo = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Compare the networks on real sets: same splits, same CPU budget.",
    epilog=examples(
        "naica zoo --set phonons --set dielectric --model cgcnn --model megnet --minutes 1 --seeds 3 --out zoo/",
        "naica zoo --jobs 2 --out zoo/",
        "naica zoo report zoo/",
        "naica zoo report zoo/ --join package",
        "naica zoo tasks",
    ),
)


@zoo.callback()
def run(
    context: typer.Context,
    sets: Annotated[list[str] | None, typer.Option("--set", help="A task or a set, see naica zoo tasks; default: all on crystals.")] = None,
    models: Annotated[list[str] | None, typer.Option("--model", "-m", help="A network; default: all.")] = None,
    minutes: Annotated[float, typer.Option(help="CPU minutes of training per run, on one thread.", min=0.01)] = 1.0,
    seeds: Annotated[int, typer.Option(help="How many seeds of split and weights.", min=1)] = 3,
    first_seed: Annotated[
        int, typer.Option("--first-seed", help="The first seed; later ones can join a table measured before.", min=0)
    ] = 0,
    rows: Annotated[int | None, typer.Option(help="Rows to take of each set instead of the table's number; 0: all.", min=0)] = None,
    jobs: Annotated[int, typer.Option(help="Processes; each uses one thread.", min=1)] = 1,
    retry: Annotated[bool, typer.Option("--retry", help="Do failed runs again.")] = False,
    out: Out = Path("zoo"),
    json: Json = False,
) -> None:
    """Train every chosen network on every chosen real task and rank them."""
    if context.invoked_subcommand is not None:
        return
    from naica.app.actions_zoo import compare as action

    request = requests.ZooRequest(tuple(sets or ()), tuple(models or ()), minutes, seeds, out, rows, jobs, retry, first_seed)
    answer(action, request, json, bar="Comparing")


@zoo.command("report")
def report(
    out: Annotated[Path, typer.Argument(help="Folder of a comparison.")],
    ship: Annotated[
        Path | None, typer.Option("--ship", help="Also write the table that naica recommend reads; 'package' is the one in the package.")
    ] = None,
    join: Annotated[
        Path | None, typer.Option("--join", help="A table measured before, whose tasks and seeds come in; 'package' is the shipped one.")
    ] = None,
    json: Json = False,
) -> None:
    """Make tables and picture of a comparison again, without training."""
    from naica.app.actions_zoo import report as action

    answer(action, requests.ZooReportRequest(out, ship, join), json)


@zoo.command("tasks")
def tasks(json: Json = False) -> None:
    """List the tasks of the comparison."""
    from naica.app.actions_zoo import list_tasks as action

    answer(lambda _: action(), None, json)


def recommend(
    source: Annotated[str | None, typer.Argument(help="A table or set with your labels; or say --rows, --kind and --target.")] = None,
    column: Annotated[str | None, typer.Option(help="The column to learn, where the source has several.")] = None,
    rows: Annotated[int | None, typer.Option(help="Labelled rows you have.", min=1)] = None,
    kind: Annotated[str, typer.Option(help="crystal or molecule.")] = "crystal",
    target: Annotated[str | None, typer.Option(help="The quantity, for example band_gap.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Write the settings for naica train here (TOML).")] = None,
    table: Annotated[Path | None, typer.Option(help="A measured table instead of the shipped one.")] = None,
    json: Json = False,
) -> None:
    """Say which network to take for so much data of this kind, from the measured comparison."""
    from naica.app.actions_zoo import recommend as action

    answer(action, requests.RecommendRequest(source, column, rows, kind, target, config, table), json)


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    app.add_typer(zoo, name="zoo", rich_help_panel=_PANEL)
    lines = examples(
        "naica recommend --rows 800 --kind crystal --target band_gap", "naica recommend mine.parquet --column gap --config gap.toml"
    )
    app.command("recommend", rich_help_panel=_PANEL, epilog=lines)(recommend)
