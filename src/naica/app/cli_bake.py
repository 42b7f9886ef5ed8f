"""The command bake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from naica.app.cli_options import Json, answer, examples
from naica.app.requests_potential import BakeRequest


def add_to(app: typer.Typer) -> None:
    """Register this file's command."""
    app.command(
        "bake",
        rich_help_panel="Use models",
        epilog=examples("naica bake runs/si si.cif --out runs/si-baked", "naica bake runs/alloy cells/ --tolerance 1e-3 --out runs/fast"),
    )(bake)


def bake(
    model: Annotated[Path, typer.Argument(help="The folder of a trained potential (schnet, painn, nequip, mace, chgnet).")],
    files: Annotated[list[Path], typer.Argument(help="Structures like those to be simulated: the error is measured on them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the baked potential; use it as --model.")],
    tolerance: Annotated[
        float, typer.Option(min=1e-8, help="Largest error allowed, of a force (eV/Å) and of an atom's energy (eV).")
    ] = 1e-4,
    json: Json = False,
) -> None:
    """Tabulate a potential's functions of distance: two to three times faster simulations, with a measured error."""
    from naica.app.actions_bake import bake as action

    answer(action, BakeRequest(model, tuple(files), out, tolerance), json)
