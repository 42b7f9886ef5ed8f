"""Commands that harvest: screen, and what a campaign's results have to stand: campaign opinion | audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from naica.app.cli_discover import campaign
from naica.app.cli_options import Json, answer, complete_potential, examples
from naica.app.requests_screen import AuditRequest, OpinionRequest, ScreenRequest
from naica.errors import InputError


def _screens(incomplete: str) -> list[str]:
    from naica.discover.screens import builtin_screens

    return [name for name in builtin_screens() if name.startswith(incomplete)]


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    app.command(
        "screen",
        rich_help_panel="Discover",
        epilog=examples(
            "naica screen",
            "naica screen layered mp20",
            "naica screen li-conductors mp20 --compute 3 --out conductors/",
            "naica screen perovskites perovskites --column energy_above_hull=heat_all",
            "naica screen my-screen.toml campaigns/mg-al-o --where 'band_gap >= 2' --json",
        ),
    )(screen)


def screen(
    name: Annotated[
        str | None, typer.Argument(help="A shipped screen or a .toml file; without it all are listed.", autocompletion=_screens)
    ] = None,
    source: Annotated[
        str | None, typer.Argument(help="A .parquet, a registered set, structure files, or a campaign's folder.", metavar="TABLE|CAMPAIGN")
    ] = None,
    where: Annotated[list[str] | None, typer.Option(help="A further condition: 'VALUE >= 2', 'VALUE = text', 'VALUE in a,b'.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="QUANTITY=COLUMN: the column that holds a quantity.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="FAMILY.KEY=VALUE: a descriptor's setting.")] = None,
    compute: Annotated[int, typer.Option(min=0, help="Rows that may go through conditions that need a potential, best first.")] = 0,
    known: Annotated[
        list[str] | None, typer.Option(help="Compare what is left with a set, a .parquet, or a .csv of formulas; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for all results, or one .csv, .parquet or .json.")] = None,
    json: Json = False,
) -> None:
    """Filter a table or a campaign by declared conditions: layers, ion conductors, cathodes, perovskites, or your own."""
    from naica.app.actions_screen import screen as action

    request = ScreenRequest(
        name, source, tuple(where or ()), _pairs("--column", column), _pairs("--set", set_), compute, tuple(known or ()), out
    )
    answer(action, request, json, bar="screening" if source else None)


@campaign.command("opinion", epilog=examples("naica campaign opinion campaigns/mg-al-o --oracle chgnet-r2scan"))
def opinion(
    folder: Annotated[Path, typer.Argument(help="The campaign's run folder.")],
    oracle: Annotated[str, typer.Option(help="The second potential.", autocompletion=complete_potential)] = "chgnet-r2scan",
    reach: Annotated[float, typer.Option(min=0, help="Everything so near the hull is computed too, eV/atom: finds need rivals.")] = 0.1,
    fmax: Annotated[float, typer.Option(help="Largest force left, eV/Å.")] = 0.05,
    steps: Annotated[int, typer.Option(min=0, help="Relaxation steps at most.")] = 300,
    json: Json = False,
) -> None:
    """A second opinion on a campaign's finds, at another level of theory: where both agree and where not."""
    from naica.app.actions_audit import opinion as action

    answer(action, OpinionRequest(folder, oracle, reach, fmax, steps), json, bar="second opinion")


@campaign.command(
    "audit", epilog=examples("naica campaign audit campaigns/mg-al-o", "naica campaign audit campaigns/mg-al-o --recompute 0")
)
def audit(
    folder: Annotated[Path, typer.Argument(help="The campaign's run folder.")],
    recompute: Annotated[int, typer.Option(min=0, help="Entries whose energy is computed again.")] = 3,
    seed: Annotated[int, typer.Option(help="Which entries those are.")] = 0,
    json: Json = False,
) -> None:
    """Check a campaign's ledger as a referee would: structures, lineage, calls, energies and the hull, each verified anew."""
    from naica.app.actions_audit import audit as action

    answer(action, AuditRequest(folder, recompute, seed), json)


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    found = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise InputError(f"{option} {text}: expected NAME=VALUE")
        found[name.strip()] = value.strip()
    return found
