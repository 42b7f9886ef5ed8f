"""Commands that explain: explain, sites map, sites study."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from naica.app import requests
from naica.app.cli_options import Files, Json, answer, complete_model, complete_set, examples

_PANEL = "Use models"

Model = Annotated[str, typer.Option("--model", "-m", help="A shipped model's name or a model folder.", autocompletion=complete_model)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures and tables.")]


class How(StrEnum):
    """How a prediction is shared out among the sites."""

    auto = "auto"
    exact = "exact"
    gradients = "integrated-gradients"
    left_out = "leave-one-out"

    @property
    def method(self) -> str:
        """The name `naica.insight.attribution` has for it."""
        return self.value.replace("-", " ")


Method = Annotated[
    How, typer.Option("--method", help="auto: exact where the network pools one number per site, else integrated gradients.")
]


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    app.command(
        "explain",
        rich_help_panel=_PANEL,
        epilog=examples("naica explain my.cif --model runs/sites", "naica explain structures/ --model runs/gap --deletion-test --json"),
    )(explain)
    group = typer.Typer(help="What elements are worth on the sites of crystals.", no_args_is_help=True)
    group.command(
        "map",
        epilog=examples(
            "naica sites map mp_formation --rows 2000 --out maps", "naica sites map perovskites --model runs/p --sites A,B --out maps"
        ),
    )(site_map)
    group.command("study", epilog=examples("naica sites study perovskites --column e_form --out runs/perovskite-sites"))(site_study)
    app.add_typer(group, name="sites", rich_help_panel=_PANEL)


def explain(
    files: Files,
    model: Model = requests.DEFAULT_MODEL,
    method: Method = How.auto,
    deletion_test: Annotated[
        bool, typer.Option("--deletion-test", help="Replace sites in the order found and in random order: is the explanation faithful?")
    ] = False,
    json: Json = False,
) -> None:
    """Show how much each site adds to a prediction, exactly or by attribution."""
    from naica.app.actions_explain import explain as action

    answer(action, requests.ExplainRequest(tuple(files), model, method.method, deletion_test), json, bar="Explaining")


def site_map(
    source: Annotated[
        str, typer.Argument(help="A Parquet table, a registered set, or a folder of structures.", autocompletion=complete_set)
    ],
    out: Out,
    model: Model = requests.DEFAULT_MODEL,
    sites: Annotated[str | None, typer.Option("--sites", help="Columns that name the elements on kinds of site, for example A,B.")] = None,
    method: Method = How.auto,
    rows: Annotated[int | None, typer.Option(min=1, help="Only so many crystals, drawn at random.")] = None,
    json: Json = False,
) -> None:
    """Draw the mean contribution of each element on the periodic table, for any model."""
    from naica.app.actions_explain import site_map as action

    answer(action, requests.SiteMapRequest(source, model, out, _names(sites), method.method, rows), json)


def site_study(
    source: Annotated[str, typer.Argument(help="A Parquet table or a registered set.", autocompletion=complete_set)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the networks, pictures and tables; a second run goes on there.")],
    column: Annotated[str | None, typer.Option(help="The label; needed where the source has several.")] = None,
    sites: Annotated[str, typer.Option("--sites", help="Two columns that name the elements on the sites, the roomier site first.")] = "A,B",
    threshold: Annotated[float, typer.Option(help="Labels up to here are hits, in the label's unit.")] = 0.2,
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", help='A rule to compare with: "groups 13-15; groups 4-6". Default for A,B: that of the CGCNN paper.'),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 40,
    members: Annotated[int, typer.Option(min=1, help="Networks; with two or more it is told how far they agree.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the weights.")] = 0,
    min_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="A rule covers at least this share of the training rows.")] = 0.01,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Look at this model instead of training; it must have learned from the same rows.")
    ] = None,
    json: Json = False,
) -> None:
    """Find what elements are worth on each kind of site, and the design rule it leads to.

    Trains networks whose predictions are means of one number per site, averages these over held-out crystals, and mines a rule for low
    values from the training rows; held-out rows say how much it enriches them.
    """
    from naica.app.actions_explain import site_study as action

    columns = _names(sites)
    if len(columns) != 2:
        raise typer.BadParameter(f"--sites {sites}: expected two columns, for example A,B")
    where = requests.SourceRequest(source, column)
    rules = _rules(beside, columns)
    answer(action, requests.SiteStudyRequest(where, out, columns, threshold, epochs, members, seed, min_share, model, rules), json)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _rules(texts: list[str] | None, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
    if texts is None:
        if columns != ("A", "B"):
            return {}
        # the paper names groups only; its count of 378 crystals is that of the elements of periods 5 and 6 on A
        return {
            "CGCNN paper, as counted": {"A": "groups 13-15 periods 5-6", "B": "groups 4-6"},
            "CGCNN paper, as worded": {"A": "groups 13-15", "B": "groups 4-6"},
        }
    rules = {}
    for text in texts:
        parts = [part.strip() for part in text.split(";")]
        if len(parts) != len(columns):
            raise typer.BadParameter(f"--beside {text!r}: expected a condition for each of {', '.join(columns)}, with ; between them")
        rules[text] = dict(zip(columns, parts, strict=True))
    return rules
