"""Commands about data: data list | show | pull, graph, convert, vectors."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from naica.app import requests
from naica.app.cli_options import Files, Json, answer, complete_set, examples

_PANEL = "Look at data"
SetName = Annotated[str, typer.Argument(help="The set's name; see naica data list.", autocompletion=complete_set)]


class Kind(StrEnum):
    """Which atoms are neighbours."""

    nearest = "nearest"
    radius = "radius"


class Format(StrEnum):
    """What the files in a folder are written as."""

    cif = "cif"
    poscar = "poscar"
    extxyz = "extxyz"
    json = "json"


data = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Public data sets: list, show, pull.")


@data.command("list", epilog=examples("naica data list", "naica data list --json"))
def list_sets(json: Json = False) -> None:
    """List the registered data sets and whether they are here."""
    from naica.app.actions_data import list_sets as action

    answer(lambda _: action(), None, json)


@data.command("show", epilog=examples("naica data show perovskites"))
def show_set(name: SetName, json: Json = False) -> None:
    """Show one set: labels with unit and level of theory, size, licence, how to cite it."""
    from naica.app.actions_data import show_set as action

    answer(action, name, json)


@data.command("pull", epilog=examples("naica data pull perovskites", "naica data pull mp20 --to ~/data"))
def pull_set(
    name: SetName,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to put it in; default: where naica keeps data.")] = None,
    json: Json = False,
) -> None:
    """Fetch a set's files and check their sums."""
    from naica.app.actions_data import pull_set as action

    answer(lambda request: action(*request), (name, to), json)


def graph(
    file: Annotated[Path, typer.Argument(help="A structure file.")],
    kind: Annotated[Kind, typer.Option(help="The nearest k atoms, or all within the cut-off.")] = Kind.nearest,
    cutoff: Annotated[float, typer.Option(min=0.1, help="Longest edge, Å.")] = 8.0,
    neighbours: Annotated[int, typer.Option("--neighbours", "-k", min=1, help="Edges per atom of kind nearest.")] = 12,
    json: Json = False,
) -> None:
    """Describe the graph that naica makes of a structure."""
    from naica.app.actions_data import graph as action

    answer(action, requests.GraphRequest(file, kind.value, cutoff, neighbours), json)


def convert(
    files: Files,
    out: Annotated[
        str, typer.Option("--out", "-o", help="A file (format by name: .cif, POSCAR, .extxyz, …), or a folder/ for one file per input.")
    ],
    format: Annotated[Format | None, typer.Option(help="Format of the files in a folder; default: cif.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if any file cannot be used (default: only if none can).")] = False,
    json: Json = False,
) -> None:
    """Read structure files and write them in another format."""
    from naica.app.actions_convert import convert as action

    answer(action, requests.ConvertRequest(tuple(files), out, format.value if format else None, strict), json, bar="Converting")


def vectors(
    formulas: Annotated[
        Path | None, typer.Argument(help="CSV with a column formula or composition (.gz too); default: the set compositions.")
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Numbers per element.")] = 20,
    binary: Annotated[bool, typer.Option("--binary", help="Count a formula once, however often it is listed.")] = False,
    amounts: Annotated[bool, typer.Option(help="Keep the element's own amount in its environment.")] = True,
    near: Annotated[list[str] | None, typer.Option(help="Show what is most like this element; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the vectors as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a map of similarities here, and a plane beside it.")] = None,
    json: Json = False,
) -> None:
    """Learn vectors of elements from formulas alone (Atom2Vec), and show which elements are alike."""
    from naica.app.actions_vectors import VectorsRequest
    from naica.app.actions_vectors import vectors as action

    answer(action, VectorsRequest(formulas, size, binary, amounts, tuple(near or ()), out, plot), json)


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    app.add_typer(data, name="data", rich_help_panel=_PANEL)
    app.command(
        "graph", rich_help_panel=_PANEL, epilog=examples("naica graph my.cif", "naica graph my.cif --kind radius --cutoff 5 --json")
    )(graph)
    app.command(
        "convert",
        rich_help_panel=_PANEL,
        epilog=examples("naica convert a.cif b.vasp --out all.extxyz", "naica convert structures/ --out cifs/ --format cif --json"),
    )(convert)
    app.command(
        "vectors",
        rich_help_panel=_PANEL,
        epilog=examples("naica vectors --near K --near Fe", "naica vectors formulas.csv --out vectors.csv --plot alike.png"),
    )(vectors)
