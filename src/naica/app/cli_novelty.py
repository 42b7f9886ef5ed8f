"""Commands about what is new and what is the same: novelty, polymorphs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from naica.app.cli_options import Files, Json, answer, complete_set, examples
from naica.app.requests_novelty import NoveltyRequest, PolymorphsRequest

_PANEL = "Discover"


def novelty(
    files: Files,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", "-a", help="Known structures: a set, or a Parquet table; may be given again.", autocompletion=complete_set
        ),
    ] = None,
    formulas: Annotated[
        list[Path] | None, typer.Option("--formulas", "-f", help="CSV with a column formula: compounds reported without a structure.")
    ] = None,
    depth: Annotated[
        Literal["formula", "label"], typer.Option(help="Match every known structure of the formula, or those of the same symmetry label.")
    ] = "formula",
    disorder: Annotated[bool, typer.Option(help="Test whether two elements may be disordered over one sublattice.")] = True,
    json: Json = False,
) -> None:
    """Is it new? Formula, prototype and geometry against what is known, a test for disorder, and the evidence."""
    from naica.app.actions_novelty import novelty as action

    request = NoveltyRequest(tuple(files), tuple(against or ()), tuple(formulas or ()), depth, disorder)
    answer(action, request, json)


def polymorphs(
    files: Files,
    cut: Annotated[float, typer.Option(min=0.01, max=0.5, help="Largest displacement within a cluster, in units of (V/N)^(1/3).")] = 0.3,
    most: Annotated[int, typer.Option(min=2, help="Structures of one formula that are compared at most.")] = 100,
    json: Json = False,
) -> None:
    """Which structures of a formula are really different? Clusters by the matcher's distances, and one that stands for each."""
    from naica.app.actions_novelty import polymorphs as action

    answer(action, PolymorphsRequest(tuple(files), cut, most), json)


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    app.command(
        "novelty",
        rich_help_panel=_PANEL,
        epilog=examples(
            "naica novelty my.cif --against mp20",
            "naica novelty finds/ --against mp20 --against start.parquet --formulas reported.csv --json",
        ),
    )(novelty)
    app.command("polymorphs", rich_help_panel=_PANEL, epilog=examples("naica polymorphs relaxed/ --cut 0.2 --json"))(polymorphs)
