"""Commands of dynamics: md, trajectory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from naica.app import requests_md as requests
from naica.app.cli_options import Files, Json, answer, complete_potential, examples
from naica.app.requests import DEFAULT_POTENTIAL
from naica.errors import InputError

_PANEL = "Use models"


class Precision(StrEnum):
    """Precision of networks."""

    float32 = "float32"
    float64 = "float64"


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    app.command("md", rich_help_panel=_PANEL, epilog=_MD)(md)
    app.command("trajectory", rich_help_panel=_PANEL, epilog=_TRAJECTORY)(trajectory)


_MD = examples(
    "naica md my.cif --model runs/copper --temperature 1000 --steps 25000 --dt 2 --supercell 2,2,2 --out run.ntr",
    "naica md my.cif --model emt --ensemble npt --temperature 300 --pressure 1 --out npt.ntr",
    "naica md my.cif … --out run.ntr                  the same command again goes on where it stopped",
)
_TRAJECTORY = examples("naica trajectory run.ntr", "naica trajectory run.ntr --first 1000 --stride 10 --out run.extxyz")


def md(
    files: Files,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The interatomic potential.", autocompletion=complete_potential)
    ] = DEFAULT_POTENTIAL,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The trajectory; a run goes on if it is there (default: the file's name with .ntr).")
    ] = None,
    ensemble: Annotated[str, typer.Option("--ensemble", "-e", help="nve, langevin, nvt (Nosé–Hoover chain), npt or npt-rescale.")] = "nvt",
    temperature: Annotated[float, typer.Option("--temperature", "-T", min=0, help="K, of the start and of the thermostat.")] = 300.0,
    steps: Annotated[int, typer.Option(min=0, help="Steps in all, those made earlier included.")] = 1000,
    dt: Annotated[float, typer.Option(help="Time step, fs.")] = 1.0,
    supercell: Annotated[str, typer.Option(help="Repeat each structure, for example 2,2,2.")] = "1,1,1",
    ramp_to: Annotated[float | None, typer.Option(min=0, help="The thermostat goes to this temperature, K …")] = None,
    ramp_steps: Annotated[int, typer.Option(min=0, help="… within so many steps, and stays.")] = 0,
    pressure: Annotated[float, typer.Option(help="GPa, for npt and npt-rescale.")] = 0.0,
    shape: Annotated[str | None, typer.Option(help="What of the cell npt may change: isotropic, axes or full.")] = None,
    relaxation: Annotated[float | None, typer.Option(help="Relaxation time of the thermostat of nvt and npt, fs.")] = None,
    barostat: Annotated[float | None, typer.Option(help="Relaxation time of the barostat, fs.")] = None,
    friction: Annotated[float | None, typer.Option(help="Friction of langevin and npt-rescale, 1/fs.")] = None,
    seed: Annotated[int, typer.Option(help="Of velocities and noise; the next system has the next.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Steps between frames.")] = 10,
    checkpoint: Annotated[int, typer.Option(min=1, help="Steps between states that a killed run resumes from.")] = 1000,
    velocities: Annotated[bool, typer.Option("--velocities", help="Keep velocities in the frames.")] = False,
    precision: Annotated[Precision, typer.Option(help="Precision of networks; the integrator has 64 bits.")] = Precision.float32,
    json: Json = False,
) -> None:
    """Molecular dynamics with an interatomic potential; the same command again goes on where it stopped."""
    from naica.app.actions_md import md as action

    given = {"shape": shape, "relaxation": relaxation, "barostat": barostat, "friction": friction}
    request = requests.MdRequest(
        tuple(files),
        model,
        out or Path(f"{files[0].name.split('.')[0]}.ntr"),
        ensemble,
        temperature,
        steps,
        dt,
        _three(supercell),
        ramp_to,
        ramp_steps,
        pressure,
        seed,
        every,
        checkpoint,
        velocities,
        precision.value,  # type: ignore[arg-type]
        {name: value for name, value in given.items() if value is not None},
    )
    answer(action, request, json, bar="Simulating")


def trajectory(
    file: Annotated[Path, typer.Argument(help="A trajectory that `naica md` wrote.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write frames here: extxyz, traj and what else ASE knows, or npz.")
    ] = None,
    system: Annotated[int | None, typer.Option(min=0, help="Which system to write, where there are several.")] = None,
    first: Annotated[int, typer.Option(min=0, help="Look at frames from this step on.")] = 0,
    stride: Annotated[int, typer.Option(min=1, help="Write every so many frames.")] = 1,
    json: Json = False,
) -> None:
    """Look at a trajectory, and write its frames in other formats."""
    from naica.app.actions_md import trajectory as action

    answer(action, requests.TrajectoryRequest(file, out, system, first, stride), json)


def _three(text: str) -> tuple[int, int, int]:
    try:
        a, b, c = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise InputError(f"supercell {text!r}; expected three whole numbers, for example 2,2,2") from error
    return a, b, c
