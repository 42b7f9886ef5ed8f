"""Commands about Hamiltonians: hamiltonian make, import, info, noise, train, evaluate; and bands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from naica.app import requests_hamiltonian as requests
from naica.app.cli_options import Json, answer, examples

_PANEL = "Electrons"


def _complete(incomplete: str) -> list[str]:
    from naica.app.actions_hamiltonian import set_names

    return [name for name in set_names() if name.startswith(incomplete)]


SetName = Annotated[str, typer.Argument(help="A named set, or the folder of one.", autocompletion=_complete)]
Options = Annotated[
    list[str] | None, typer.Option("--set", help="A setting as NAME=VALUE, for example cutoff=300 or epochs=100; may be repeated.")
]


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    group = typer.Typer(help="Learn DFT Hamiltonians: sets of matrices, networks, errors.", no_args_is_help=True)
    group.command(
        "make",
        epilog=examples(
            "naica hamiltonian make water --most 200", "naica hamiltonian make structures/ --source cp2k --set cutoff=400 --out sets/mine"
        ),
    )(make)
    group.command(
        "import", epilog=examples("naica hamiltonian import silicon.HSX --out sets/si", "naica hamiltonian import deeph/* --out sets/x")
    )(bring_in)
    group.command("info", epilog=examples("naica hamiltonian info water"))(info)
    group.command("noise", epilog=examples("naica hamiltonian noise water --most 10"))(noise)
    group.command(
        "train",
        epilog=examples(
            "naica hamiltonian train graphene --out runs/graphene --set epochs=200 --set on_h0=true",
            "naica hamiltonian train carbon --from runs/universal --out runs/carbon",
        ),
    )(train)
    group.command("evaluate", epilog=examples("naica hamiltonian evaluate runs/graphene graphene --match '*3x3*'"))(evaluate)
    app.add_typer(group, name="hamiltonian", rich_help_panel=_PANEL)
    app.command(
        "bands",
        rich_help_panel=_PANEL,
        epilog=examples(
            "naica bands graphene.cif --model runs/graphene",
            "naica bands graphene:0 --path GMKG --out graphene.png",
            "naica bands graphene:0 --model runs/graphene --path GMKG",
        ),
    )(bands)


def make(
    what: Annotated[list[str], typer.Argument(help="A named set, or structure files and folders.", autocompletion=_complete)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the set; named sets are kept in the user's cache.")] = None,
    source: Annotated[str, typer.Option(help="The code: cp2k, pyscf, tblite, slater-koster.")] = "cp2k",
    settings: Options = None,
    most: Annotated[int | None, typer.Option(min=1, help="Only the first so many structures.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed structure is tried again, more patiently each time.")] = 1,
    seconds: Annotated[float, typer.Option(min=1.0, help="Of the clock after which a structure is given up.")] = 3600.0,
    engine: Annotated[str, typer.Option(help="Where to run: pool, or aiida (aiida:PROFILE, aiida:slurm) with provenance.")] = "pool",
    json: Json = False,
) -> None:
    """Compute H(R) and S(R) of many structures; goes on where it was interrupted. A set can be used while it grows."""
    from naica.app.actions_hamiltonian import make as action

    request = requests.MakeRequest(tuple(what), out, source, _settings(settings), most, workers, retries, seconds, engine)
    answer(action, request, json, bar="Computing")


def bring_in(
    paths: Annotated[
        list[Path],
        typer.Argument(help="SIESTA .HSX, OpenMX .scfout, Wannier90 _hr.dat, folders of ABACUS, FHI-aims and DeepH, published .npz."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new set.")],
    reader: Annotated[
        str | None, typer.Option(help="openmx, abacus, fhi-aims, siesta, deeph, deeph-dock, wannier90 or arrays; default: found out.")
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Take matrices that fail a test as they are.")] = False,
    json: Json = False,
) -> None:
    """Read matrices that another code wrote, and test them: orbitals along bonds, bands, positive overlaps."""
    from naica.app.actions_hamiltonian import bring_in as action

    answer(action, requests.ImportRequest(tuple(paths), out, reader, not no_check), json)


def info(source: SetName, json: Json = False) -> None:
    """Show what a set holds, and try every structure against the tests of an import."""
    from naica.app.actions_hamiltonian import info as action

    answer(action, requests.InfoRequest(source), json)


def noise(
    source: SetName,
    most: Annotated[int, typer.Option(min=1, help="Structures to compute again.")] = 4,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    json: Json = False,
) -> None:
    """Measure the noise of a set's labels: some structures computed again, turned or shifted against the grid. `evaluate` shows it."""
    from naica.app.actions_hamiltonian import noise as action

    answer(action, requests.NoiseRequest(source, most, workers), json, bar="Computing")


def train(
    source: SetName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model; a second run goes on there.")],
    settings: Options = None,
    start: Annotated[Path | None, typer.Option("--from", help="Fine-tune this model.")] = None,
    most: Annotated[int | None, typer.Option(min=1, help="Train on so many structures only.")] = None,
    test: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of the set that is held out and judged.")] = 0.2,
    larger: Annotated[
        str, typer.Option(help="Structures whose names match, for example '*-3x3-*', are neither trained on nor held out.")
    ] = "",
    by_formula: Annotated[bool, typer.Option("--by-formula", help="Hold out whole formulas.")] = False,
    json: Json = False,
) -> None:
    """Train a network that predicts Hamiltonians."""
    from naica.app.actions_hamiltonian import train as action

    request = requests.TrainHamiltonianRequest(source, out, _nested(_settings(settings)), start, most, test, larger, by_formula)
    answer(action, request, json, bar="Training")


def evaluate(
    model: Annotated[Path, typer.Argument(help="The folder of a model.")],
    source: SetName,
    match: Annotated[str, typer.Option(help="Only structures whose names match, for example '*3x3*'.")] = "*",
    most: Annotated[int | None, typer.Option(min=1, help="Only so many.")] = None,
    part: Annotated[str, typer.Option(help="all; or train, test, larger: the parts that the model's card names.")] = "all",
    without_bands: Annotated[bool, typer.Option("--no-bands", help="Errors of H only; solving for bands takes longest.")] = False,
    json: Json = False,
) -> None:
    """Errors of H by range, of bands and gaps, beside superposed atoms and two-centre tables."""
    from naica.app.actions_hamiltonian import evaluate as action

    answer(action, requests.EvaluateHamiltonianRequest(model, source, match, most, not without_bands, part), json)


def bands(
    file: Annotated[
        str, typer.Argument(help="A structure file with --model; or SET:NAME, a structure of a set as its code had it, or by --model.")
    ],
    model: Annotated[Path | None, typer.Option("--model", "-m", help="The folder of a model of Hamiltonians.")] = None,
    path: Annotated[str | None, typer.Option(help="Special points, for example GMKG; default: the usual path of the lattice.")] = None,
    points: Annotated[int, typer.Option(min=2, help="k points along the path.")] = 120,
    supercell: Annotated[str, typer.Option(help="Repeat the structure first, for example 4,4,1.")] = "1,1,1",
    states: Annotated[int | None, typer.Option(min=1, help="Large cells: how many states.")] = None,
    around: Annotated[float | None, typer.Option(help="Large cells: look around this energy (eV).")] = None,
    no_dos: Annotated[bool, typer.Option("--no-dos", help="Leave the density of states out.")] = False,
    window: Annotated[float, typer.Option(min=0.1, help="Energies shown around the Fermi level, eV.")] = 8.0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The picture (png, pdf, svg).")] = None,
    json: Json = False,
) -> None:
    """Bands, Fermi level, gap and density of states of a structure, without a DFT run."""
    from naica.app.actions_hamiltonian import bands as action

    try:
        a, b, c = (int(n) for n in supercell.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--supercell {supercell}: expected three whole numbers such as 2,2,1") from error
    request = requests.BandsRequest(file, model, path, points, states, around, not no_dos, window, out, (a, b, c))
    answer(action, request, json, bar="Solving")


def _settings(given: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE pairs as a mapping; values as JSON where they are, else as text."""
    import json

    found: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {text}: expected NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Names with a dot (network.channels=8) belong to the network."""
    own = {k: v for k, v in settings.items() if not k.startswith("network.")}
    network = {k.removeprefix("network."): v for k, v in settings.items() if k.startswith("network.")}
    return own | ({"architecture_config": network} if network else {})
