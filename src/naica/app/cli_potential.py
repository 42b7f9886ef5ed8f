"""Commands about potentials that are learned: potential train | evaluate | show | sample | learn."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from naica.app import requests_potential as requests
from naica.app.cli_options import Json, answer, complete_set, examples

_PANEL = "Make and judge models"


def _complete_architecture(incomplete: str) -> list[str]:
    """Networks that can be potentials and begin so."""
    from naica.potential.networks import smooth_networks

    return [name for name in smooth_networks() if name.startswith(incomplete)]


def _complete_frames(incomplete: str) -> list[str]:
    """Registered sets of energies and forces that begin so, with their parts behind a colon."""
    from naica.data.registry import sets

    if ":" not in incomplete:
        return [s.name for s in sets() if s.kind == "trajectory" and s.name.startswith(incomplete)] or complete_set(incomplete)
    name = incomplete.partition(":")[0]
    parts = {Path(f.path).name.split("_")[0].split(".")[0] for s in sets() if s.name == name for f in s.files}
    return [text for text in sorted(f"{name}:{part}" for part in parts) if text.startswith(incomplete)]


def _complete_oracle(incomplete: str) -> list[str]:
    from naica.app.cli_options import complete_potential

    return complete_potential(incomplete)


Sources = Annotated[
    list[str],
    typer.Argument(
        help="Frames: extended XYZ, Parquet, vasprun.xml, OUTCAR, trajectories, or SET:PART (mlearn:Cu); @LEVEL behind each.",
        autocompletion=_complete_frames,
        show_default=False,
    ),
]
Level = Annotated[str | None, typer.Option(help='Level of theory of the labels where the source does not say, for example "PBE".')]
Fidelity = Annotated[bool, typer.Option("--fidelity", help="Allow several levels of theory; the potential then speaks them all.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="An unusual name: energy=E_hi, forces=dft_forces … (several times if needed).")
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with any of the settings.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="One setting: weights.energy=10, architecture_config.width=64, loss=huber …")
]


class Part(StrEnum):
    """A part of a published split."""

    train = "train"
    test = "test"


potential = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Learn interatomic potentials from energies, forces and stresses.",
    epilog=examples(
        "naica potential train mlearn:Cu --architecture painn --out runs/copper",
        "naica potential evaluate runs/copper mlearn:Cu --part test --plot parity.png",
        "naica potential sample frames.extxyz --n 100 --out chosen.extxyz",
        "naica potential learn start.extxyz --oracle emt --target-error 0.1 --out runs/active",
        "naica relax my.cif --model runs/copper",
    ),
)


def train(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; training resumes if it holds a started one.")],
    architecture: Annotated[
        str | None, typer.Option("--architecture", "-a", help="The network.", autocompletion=_complete_architecture)
    ] = None,
    config: Config = None,
    settings: Settings = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Passes over the training part.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.001, help="Minutes of training, per member; the schedule ends within.")] = None,
    cpu_minutes: Annotated[float | None, typer.Option(min=0.001, help="The same in CPU minutes of this process.")] = None,
    members: Annotated[int | None, typer.Option(min=1, help="Potentials in the committee.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, parts and order.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Go on from this potential's folder; it brings its own network.")] = None,
    freeze: Annotated[str | None, typer.Option(help="With --from: elements, backbone, or how many first layers stay as they are.")] = None,
    replay: Annotated[
        str | None, typer.Option(help="With --from: old frames to mix in, against forgetting.", autocompletion=_complete_frames)
    ] = None,
    level: Level = None,
    fidelity: Fidelity = False,
    column: Columns = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew even if the folder holds a started training.")] = False,
    json: Json = False,
) -> None:
    """Train a potential, or a committee of them."""
    from naica.app.actions_fit import train as action

    given: dict[str, Any] = {
        "architecture": architecture,
        "epochs": epochs,
        "max_seconds": None if minutes is None else 60 * minutes,
        "max_cpu_seconds": None if cpu_minutes is None else 60 * cpu_minutes,
        "members": members,
        "seed": seed,
        "freeze": freeze,
    }
    timed = epochs is None and (minutes is not None or cpu_minutes is not None)
    chosen = {k: v for k, v in given.items() if v is not None} | ({"epochs": 1_000_000} if timed else {})
    where = requests.FramesRequest(tuple(sources), level, fidelity, _pairs(column, "--column"))
    answer(action, requests.FitRequest(where, out, config, _nested(settings) | chosen, start, replay, not fresh), json)


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a potential, or of its run; FOLDER@LEVEL for one of several levels.")],
    sources: Sources,
    part: Annotated[Part | None, typer.Option(help="Only this part of a published split.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write labels against predictions here (.png, .svg, .pdf).")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Of a committee: write spread against error here.")] = None,
    level: Level = None,
    fidelity: Annotated[bool, typer.Option("--fidelity", help="Compare with labels of another level of theory all the same.")] = False,
    column: Columns = None,
    json: Json = False,
) -> None:
    """Measure a potential on labelled frames: errors by field, element and group."""
    from naica.app.actions_fit import evaluate as action

    where = requests.FramesRequest(tuple(sources), level, fidelity, _pairs(column, "--column"))
    answer(action, requests.JudgeRequest(model, where, part.value if part else None, plot, calibration), json)


def show(
    model: Annotated[str, typer.Argument(help="Folder of a potential, or of its run.")],
    json: Json = False,
) -> None:
    """Show the card of a potential: what it is, what it learned from, what it promises."""
    from naica.app.actions_fit import show as action

    answer(action, model, json)


def sample(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the chosen frames here (extended XYZ or Parquet).")],
    n: Annotated[int | None, typer.Option("--n", min=1, help="Clusters wanted; without it what the threshold gives.")] = None,
    per_cluster: Annotated[int, typer.Option("--per-cluster", "-k", min=1, help="Frames of each cluster.")] = 1,
    threshold: Annotated[float, typer.Option(min=1e-9, help="Size of a cluster, in weighted principal components.")] = 0.5,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Features of this potential's atoms; without it compositions.")] = None,
    column: Columns = None,
    json: Json = False,
) -> None:
    """Choose frames that cover all others (DIRECT sampling)."""
    from naica.app.actions_fit import sample as action

    where = requests.FramesRequest(tuple(sources), None, True, _pairs(column, "--column"))
    answer(action, requests.SampleRequest(where, out, n, per_cluster, threshold, model), json)


def learn(
    sources: Sources,
    oracle: Annotated[str, typer.Option(help="What labels new frames: a calculator's name.", autocompletion=_complete_oracle)],
    target_error: Annotated[float, typer.Option("--target-error", min=1e-6, help="Force error to reach, eV/Å (90 % of atoms).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; a started run goes on.")],
    config: Config = None,
    settings: Settings = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew even if the folder holds a started run.")] = False,
    json: Json = False,
) -> None:
    """Learn actively: simulate, label what the committee doubts, retrain, until the promised error is met."""
    from naica.app.actions_fit import learn as action

    where = requests.FramesRequest(tuple(sources), None, False)
    answer(action, requests.LearnRequest(where, out, oracle, target_error, config, _nested(settings), not fresh), json, bar="Learning")


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """``name=value`` texts."""
    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise typer.BadParameter(f"{option} {text}: expected name=value")
        found[name.strip()] = value.strip()
    return found


def _nested(texts: list[str] | None) -> dict[str, Any]:
    """``a.b=value`` texts as nested settings; values as TOML writes them, anything else as text."""
    import tomllib

    found: dict[str, Any] = {}
    for name, text in _pairs(texts, "--set").items():
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text
        *path, last = name.split(".")
        place = found
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return found


_COMMANDS = (
    (
        train,
        "train",
        examples(
            "naica potential train mlearn:Cu --architecture painn --cpu-minutes 10 --out runs/copper",
            "naica potential train md.extxyz@PBE --epochs 200 --members 4 --out runs/mine",
            "naica potential train vasp/*/vasprun.xml --level PBE --set weights.energy=10 --out runs/vasp",
            "naica potential train low.extxyz@PBE high.extxyz@r2SCAN --fidelity --out runs/both",
            "naica potential train new.extxyz --from runs/copper --replay mlearn:Cu --out runs/tuned",
            "naica potential train mlearn:Si --architecture ace --out runs/silicon-ace",
        ),
    ),
    (
        evaluate,
        "evaluate",
        examples(
            "naica potential evaluate runs/copper mlearn:Cu --part test --plot parity.png",
            "naica potential evaluate runs/mine test.extxyz --calibration spread.png --json",
        ),
    ),
    (show, "show", examples("naica potential show runs/copper", "naica potential show runs/copper --json")),
    (sample, "sample", examples("naica potential sample md.extxyz --n 100 --model runs/copper --out chosen.extxyz")),
    (learn, "learn", examples("naica potential learn start.extxyz --oracle emt --target-error 0.1 --out runs/active")),
)
for _function, _name, _epilog in _COMMANDS:
    potential.command(_name, epilog=_epilog)(_function)


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    app.add_typer(potential, name="potential", rich_help_panel=_PANEL)
