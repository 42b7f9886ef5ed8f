"""Commands about discovery: discover, campaign status | report | export, hull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from naica.app import requests
from naica.app.cli_options import Json, answer, examples

_PANEL = "Discover"
Folder = Annotated[Path, typer.Argument(help="The campaign's run folder.")]

campaign = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="A campaign's status, report page and exports.")


def discover(
    config: Annotated[Path, typer.Argument(help="The campaign file (TOML).")],
    rounds: Annotated[int | None, typer.Option(min=1, help="Stop after so many rounds in all (default: as the file says).")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Stop after so many oracle calls in all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and say what would be done; compute nothing.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Run folder (default: as the file says).")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Where to compute: here, pool, dask, dask:ADDRESS, dask:slurm, dask:pbs, aiida, aiida:PROFILE, …")
    ] = None,
    json: Json = False,
) -> None:
    """Run a discovery campaign; started again, it goes on where it stopped."""
    from naica.app.actions_discover import discover as action

    answer(action, requests.DiscoverRequest(config, folder, rounds, budget, dry_run, engine), json)


@campaign.command("status", epilog=examples("naica campaign status campaigns/mg-al-o --json"))
def status(folder: Folder, json: Json = False) -> None:
    """Rounds, hit rates and finds so far."""
    from naica.app.actions_discover import status as action

    answer(action, requests.CampaignRequest(folder), json)


@campaign.command("report", epilog=examples("naica campaign report campaigns/mg-al-o --out page.html"))
def report(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write the page; default: report.html in the folder.")] = None,
    json: Json = False,
) -> None:
    """Write the campaign's report page (one file, opens with no network)."""
    from naica.app.actions_discover import report as action

    answer(action, requests.CampaignRequest(folder, out), json)


@campaign.command("export", epilog=examples("naica campaign export campaigns/mg-al-o --out finds/"))
def export(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the files; default: export in the run folder.")] = None,
    json: Json = False,
) -> None:
    """Write what was found: CSV, Parquet, extended xyz and one CIF each."""
    from naica.app.actions_discover import export as action

    answer(action, requests.CampaignRequest(folder, out), json)


def hull(
    file: Annotated[
        Path, typer.Argument(help="CSV with columns formula and energy (eV/atom), optional id; a Parquet table of crystals; or a set.")
    ],
    formula: Annotated[str | None, typer.Option(help="Ask about one composition: window of chemical potentials, reactions.")] = None,
    chempot: Annotated[list[str] | None, typer.Option(help="Δμ of a reservoir in eV/atom from the element, as O=-1.2; repeat.")] = None,
    grow: Annotated[Path | None, typer.Option(help="Further entries: the first hull stays, a second one grows.")] = None,
    byproduct: Annotated[list[str] | None, typer.Option(help="Phase that may leave in a reaction, for example CO2; repeat.")] = None,
    reactants: Annotated[int, typer.Option(min=1, max=4, help="Most reactants of a reaction.")] = 2,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the hull of two or three elements (.png, .pdf, .svg).")] = None,
    plot_mu: Annotated[Path | None, typer.Option(help="Write the chemical-potential diagram of three elements.")] = None,
    elements: Annotated[str, typer.Option(help="Only entries of these elements, as Mg,Al,O; the pictures keep their order.")] = "",
    column: Annotated[str, typer.Option(help="Column of formation energies in a table of crystals (default: the only one).")] = "",
    total: Annotated[bool, typer.Option("--total", help="The energies are eV per formula as written, not per atom.")] = False,
    tolerance: Annotated[float, typer.Option(min=0, help="Stable up to this distance above the hull, eV/atom.")] = 1e-8,
    json: Json = False,
) -> None:
    """Judge entries by the convex hull; windows of chemical potentials, open systems, reactions that make a phase, pictures."""
    from naica.app.actions_hull import hull as action

    pots, gone = tuple(chempot or ()), tuple(byproduct or ())
    answer(
        action, requests.HullRequest(file, tolerance, total, formula, pots, grow, gone, reactants, plot, plot_mu, elements, column), json
    )


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    app.command(
        "discover",
        rich_help_panel=_PANEL,
        epilog=examples(
            "naica discover examples/mg-al-o.toml",
            "naica discover examples/mg-al-o.toml --dry-run",
            "naica discover my.toml --rounds 5 --budget 100 --folder runs/my",
            "naica discover my.toml --engine dask:slurm",
        ),
    )(discover)
    app.add_typer(campaign, name="campaign", rich_help_panel=_PANEL)
    app.command(
        "hull",
        rich_help_panel=_PANEL,
        epilog=examples(
            "naica hull energies.csv --json",
            "naica hull energies.csv --formula MgAl2O4 --plot hull.png --plot-mu potentials.png",
            "naica hull energies.csv --formula BaTiO3 --byproduct CO2 --reactants 3",
            "naica hull energies.csv --chempot O=-1.2",
            "naica hull known.csv --grow found.csv",
            "naica hull mp20 --elements Mg,Al,O --plot hull.pdf",
        ),
    )(hull)
