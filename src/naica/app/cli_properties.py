"""Commands about materials: transport, conductivity, eos, elastic, phonons, rdf, melt; and the export of potentials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from naica.app import requests, requests_properties
from naica.app.cli_options import Files, Json, answer, complete_potential, examples
from naica.app.cli_potential import potential

_PANEL = "Properties from potentials"

Potential = Annotated[str, typer.Option("--model", "-m", help="The interatomic potential.", autocompletion=complete_potential)]
File = Annotated[Path, typer.Argument(help="A structure file.", show_default=False)]
Trajectories = Annotated[list[Path], typer.Argument(help="Trajectories: .ntr of naica md, .npz, or any format of ASE.", show_default=False)]
Plot = Annotated[Path | None, typer.Option(help="Write a picture here (.png, .svg, .pdf).")]
Relax = Annotated[bool, typer.Option("--relax/--as-is", help="Relax cell and atoms first, or take the structure as it is.")]


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    for function, name, epilog in _COMMANDS:
        app.command(name, rich_help_panel=_PANEL, epilog=epilog)(function)
    potential.command("export", epilog=_EXPORT)(export)


def transport(
    files: Trajectories,
    species: Annotated[str, typer.Option("--species", "-s", help="The mobile element.")],
    charge: Annotated[float | None, typer.Option(help="Charge of the ion in e: gives conductivities.")] = None,
    temperature: Annotated[
        list[float] | None, typer.Option("--temperature", "-T", help="K, where files do not say: once for all, or once per file.")
    ] = None,
    begin: Annotated[float | None, typer.Option(help="Shortest lag of the fit, fs. Default: found from the data.")] = None,
    end: Annotated[float | None, typer.Option(help="Longest lag, fs. Default: half of the trajectory.")] = None,
    drop: Annotated[float, typer.Option(help="Leave out the first so many ps.", min=0)] = 0.0,
    interval: Annotated[float | None, typer.Option(help="fs between frames, where files do not say.")] = None,
    at: Annotated[float | None, typer.Option(help="Extrapolate to this temperature, K.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for pictures: msd.png, arrhenius.png.")] = None,
    json: Json = False,
) -> None:
    """Diffusivity of a species with error bars; with several temperatures the activation energy."""
    from naica.app.actions_properties import transport as action

    given = requests_properties.TransportRequest(
        tuple(files), species, charge, tuple(temperature or ()), begin, end, drop * 1e3, interval, at, plot
    )
    answer(action, given, json, bar="Reading")


def conductivity(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="Trajectory to write (.ntr); the run resumes if it is there.")],
    model: Potential = requests.DEFAULT_POTENTIAL,
    species: Annotated[str | None, typer.Option("--species", "-s", help="The mobile element. Default: Li, Na, K, Mg or Ca.")] = None,
    charge: Annotated[float | None, typer.Option(help="Its charge, e.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", "-T", help="K.", min=1)] = 1000.0,
    duration: Annotated[float, typer.Option(help="ps.", min=0.01)] = 50.0,
    drop: Annotated[float, typer.Option(help="ps to leave out at the start.", min=0)] = 10.0,
    dt: Annotated[float, typer.Option(help="Time step, fs.", min=0.01)] = 2.0,
    width: Annotated[float, typer.Option(help="Å, at least between faces of the simulated cell.", min=0)] = 9.0,
    relax: Relax = True,
    seed: Annotated[int, typer.Option(help="Of the first velocities.")] = 0,
    fast: Annotated[bool, typer.Option("--fast", help="Networks in 32 bits.")] = False,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Ionic conductivity by molecular dynamics at 1000 K, and whether that is superionic (GNoME's protocol)."""
    from naica.app.actions_properties import conductivity as action

    given = requests_properties.ConductivityRequest(
        file, out, model, species, charge, temperature, duration, drop, dt, width, relax, seed, fast, plot
    )
    answer(action, given, json, bar="Dynamics")


def eos(
    files: Files,
    model: Potential = requests.DEFAULT_POTENTIAL,
    span: Annotated[float, typer.Option(help="Volumes from 1 − span to 1 + span.", min=0.001, max=0.49)] = 0.06,
    points: Annotated[int, typer.Option(help="How many volumes.", min=5)] = 11,
    relax: Relax = True,
    plot: Annotated[Path | None, typer.Option(help="Write a picture here, or one each into this folder.")] = None,
    json: Json = False,
) -> None:
    """Equation of state: volume, bulk modulus and its slope, with errors."""
    from naica.app.actions_properties import eos as action

    answer(action, requests_properties.EosRequest(tuple(files), model, span, points, relax, plot), json, bar="Compressing")


def elastic(
    files: Files,
    model: Potential = requests.DEFAULT_POTENTIAL,
    strain: Annotated[float, typer.Option(help="Largest strain.", min=1e-5, max=0.05)] = 0.005,
    relax: Relax = True,
    clamped: Annotated[bool, typer.Option("--clamped", help="Keep the atoms where the strain puts them.")] = False,
    conventional: Annotated[
        bool, typer.Option("--conventional/--as-given", help="Axes of the standard conventional cell, or of the cell as it is in the file.")
    ] = True,
    json: Json = False,
) -> None:
    """Elastic tensor, moduli, mechanical stability."""
    from naica.app.actions_properties import elastic as action

    answer(action, requests_properties.ElasticRequest(tuple(files), model, strain, relax, clamped, conventional), json, bar="Straining")


def phonons(
    file: File,
    model: Potential = requests.DEFAULT_POTENTIAL,
    width: Annotated[float, typer.Option(help="Å, at least between faces of the supercell.", min=1)] = 10.0,
    displacement: Annotated[float, typer.Option(help="Å.", min=1e-4)] = 0.01,
    relax: Relax = True,
    plot: Plot = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write force constants, bands and states here (.npz).")] = None,
    json: Json = False,
) -> None:
    """Phonon bands and states, dynamical stability, thermal properties."""
    from naica.app.actions_properties import phonons as action

    answer(action, requests_properties.PhononRequest(file, model, width, displacement, relax, plot, out), json, bar="Displacing")


def rdf(
    file: Annotated[Path, typer.Argument(help="A trajectory.", show_default=False)],
    radius: Annotated[float, typer.Option(help="Å.", min=0.5)] = 8.0,
    drop: Annotated[float, typer.Option(help="Leave out the first so many ps.", min=0)] = 0.0,
    interval: Annotated[float | None, typer.Option(help="fs between frames, where the file does not say.")] = None,
    vibrations: Annotated[bool, typer.Option("--vibrations", help="Also vibrational states; needs velocities in the trajectory.")] = False,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Radial distribution functions, coordination numbers, Lindemann's index."""
    from naica.app.actions_properties import rdf as action

    answer(action, requests_properties.StructureRequest(file, radius, drop * 1e3, interval, vibrations, plot), json, bar="Counting")


def melt(
    file: File,
    guess: Annotated[float, typer.Option(help="Guess of the melting point, K.", min=1)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the trajectories; the run resumes if they are there.")],
    model: Potential = requests.DEFAULT_POTENTIAL,
    repeats: Annotated[tuple[int, int, int], typer.Option(help="Of the cell; the long axis last.")] = (3, 3, 8),
    steps: Annotated[int, typer.Option(help="Steps at constant energy.", min=100)] = 4000,
    settle: Annotated[int, typer.Option(help="Steps of each of the three stages before.", min=100)] = 1000,
    dt: Annotated[float, typer.Option(help="Time step, fs.", min=0.01)] = 2.0,
    seed: Annotated[int, typer.Option(help="Of velocities and noise.")] = 0,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Melting point from solid and liquid side by side."""
    from naica.app.actions_properties import melt as action

    given = requests_properties.MeltRequest(file, out, guess, model, repeats, steps, settle, dt, seed, plot)
    answer(action, given, json, bar="Dynamics")


def export(
    model: Annotated[str, typer.Argument(help="A potential: a model folder or a name.", autocompletion=complete_potential)],
    structure: Annotated[Path, typer.Option("--structure", help="A structure to write for and to try it with.")],
    lammps: Annotated[Path | None, typer.Option(help="Write a Python driver for LAMMPS here.")] = None,
    program: Annotated[Path | None, typer.Option(help="Write a torch.export program here (.pt2).")] = None,
    json: Json = False,
) -> None:
    """Take a potential to LAMMPS or to torch.export, and check that it says the same there."""
    from naica.app.actions_properties import export as action

    answer(action, requests_properties.ExportRequest(model, structure, lammps, program), json)


_COMMANDS = (
    (
        transport,
        "transport",
        examples(
            "naica transport run.ntr --species Li --charge 1 --drop 5 --plot pictures",
            "naica transport 600K.ntr 800K.ntr 1000K.ntr -s Li --charge 1 --at 300",
        ),
    ),
    (conductivity, "conductivity", examples("naica conductivity Li3YCl6.cif --model chgnet --out runs/Li3YCl6.ntr --plot msd.png")),
    (eos, "eos", examples("naica eos Cu.cif --model emt --plot eos.png")),
    (elastic, "elastic", examples("naica elastic Cu.cif --model emt --json")),
    (phonons, "phonons", examples("naica phonons Al.cif --model emt --plot phonons.png --out al.npz")),
    (rdf, "rdf", examples("naica rdf run.ntr --drop 5 --vibrations --plot rdf.png")),
    (melt, "melt", examples("naica melt Ar.cif --model lennard-jones --guess 82 --dt 5 --out runs/argon --plot melt.png")),
)
_EXPORT = examples(
    "naica potential export runs/copper --structure Cu.cif --lammps driver.py",
    "naica potential export runs/copper --structure Cu.cif --program copper.pt2",
)
