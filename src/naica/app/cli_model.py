"""Commands about models: predict, relax, train, evaluate, check, models, import-weights."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from naica.app import requests
from naica.app.cli_options import (
    Files,
    Json,
    answer,
    complete_architecture,
    complete_model,
    complete_potential,
    complete_set,
    examples,
)

_USE, _MAKE = "Use models", "Make and judge models"

Model = Annotated[str, typer.Option("--model", "-m", help="A shipped model's name or a model folder.", autocompletion=complete_model)]
Potential = Annotated[str, typer.Option("--model", "-m", help="The interatomic potential.", autocompletion=complete_potential)]
Source = Annotated[
    str,
    typer.Argument(help="A Parquet table, a CSV, a folder of CIFs (with --csv), or a registered set's name.", autocompletion=complete_set),
]
Column = Annotated[
    list[str] | None,
    typer.Option(help="The column to learn or compare; needed where the source has several labels. Several, or a,b: one task each."),
]
Quantity = Annotated[str | None, typer.Option(help="What the column holds, for example band_gap; default: its name. a,b for several.")]
Unit = Annotated[str | None, typer.Option(help="The column's unit, for sources that do not say.")]
Level = Annotated[str | None, typer.Option(help='The column\'s level of theory, for example "PBE+U" or "functional=PBE,code=VASP".')]
HeldOut = Annotated[str | None, typer.Option("--element", help="With --split element: the element to hold out and test on.")]
Csv = Annotated[Path | None, typer.Option(help="For a folder of CIFs: the CSV of id and value.")]


class SplitBy(StrEnum):
    """How a table is cut into training, validation and test parts."""

    published = "published"
    random = "random"
    composition = "composition"
    prototype = "prototype"
    element = "element"


class Part(StrEnum):
    """A part of a split."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


class Optimiser(StrEnum):
    """How structures are relaxed."""

    auto = "auto"
    lbfgs = "lbfgs"
    fire = "fire"


class Precision(StrEnum):
    """Precision of networks."""

    float32 = "float32"
    float64 = "float64"


class Padding(StrEnum):
    """How missing neighbours were treated by the original CGCNN code."""

    correct = "correct"
    original = "original"


def add_to(app: typer.Typer) -> None:
    """Register this file's commands."""
    for function, name, panel, epilog in _COMMANDS:
        app.command(name, rich_help_panel=panel, epilog=epilog)(function)


def predict(
    files: Files,
    model: Model = requests.DEFAULT_MODEL,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if any file cannot be used (default: only if none can).")] = False,
    state: Annotated[
        list[str] | None, typer.Option(help="A state variable of all structures, for example temperature=300 or fidelity=PBE.")
    ] = None,
    interval: Annotated[
        float | None, typer.Option(help="Also an interval that holds the true value with this probability, for example 0.9.", min=0, max=1)
    ] = None,
    json: Json = False,
) -> None:
    """Predict a property of structures, with an error bar."""
    from naica.app.actions_model import predict as action

    answer(action, requests.PredictRequest(tuple(files), model, strict, _pairs(state), interval), json, bar="Predicting")


def relax(
    files: Files,
    model: Potential = requests.DEFAULT_POTENTIAL,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write relaxed structures: a file, or a folder with one CIF each.")
    ] = None,
    fmax: Annotated[float, typer.Option(help="Converged below this force, eV/Å.", min=0)] = 0.05,
    steps: Annotated[int, typer.Option(help="Give up after so many steps.", min=1)] = 300,
    cell: Annotated[bool, typer.Option("--cell/--fixed-cell", help="Relax the cell with the positions, or keep it.")] = True,
    volume: Annotated[bool, typer.Option("--volume/--fixed-volume", help="Let volumes change, or only shapes.")] = True,
    pressure: Annotated[float, typer.Option(help="From outside, GPa.")] = 0.0,
    symmetry: Annotated[bool, typer.Option("--symmetry", help="Keep the space group each structure has.")] = False,
    optimiser: Annotated[Optimiser, typer.Option(help="L-BFGS, FIRE, or the one, then the other where it goes astray.")] = Optimiser.auto,
    batch: Annotated[int, typer.Option(min=1, help="Atoms relaxed at once by networks of ours.")] = 200,
    precision: Annotated[Precision, typer.Option(help="Precision of networks of ours.")] = Precision.float64,
    moments: Annotated[bool, typer.Option("--moments", help="Relax magnetic moments too, of a potential that depends on them.")] = False,
    still: Annotated[bool, typer.Option("--still", help="With --moments: keep atoms and cell.")] = False,
    tries: Annotated[int, typer.Option(min=0, help="With --moments: further starts with random signs; the lowest counts.")] = 0,
    json: Json = False,
) -> None:
    """Relax structures with an interatomic potential."""
    from naica.app.actions_potential import relax as action

    request = requests.RelaxRequest(
        tuple(files),
        model,
        out,
        fmax,
        steps,
        cell,
        pressure,
        volume,
        symmetry,
        optimiser.value,  # type: ignore[arg-type]
        batch,
        precision.value,  # type: ignore[arg-type]
        moments,
        still,
        tries,
    )
    answer(action, request, json, bar="Relaxing")


def train(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model; training resumes if it holds a started one.")],
    column: Column = None,
    quantity: Quantity = None,
    unit: Unit = None,
    level: Level = None,
    csv: Csv = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with any of the training settings.")] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", "-a", help="The network; see naica models.", autocompletion=complete_architecture)
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Go on from this model: fine-tuning. It brings its own network.", autocompletion=complete_model),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(help="With --from: what is not trained: elements, backbone (all but the head), or how many first layers."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training part.")] = None,
    members: Annotated[int | None, typer.Option(min=1, help="Networks in the ensemble.")] = None,
    split: Annotated[SplitBy, typer.Option(help="How to cut training, validation and test parts.")] = SplitBy.random,
    element: HeldOut = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the weights.")] = 0,
    state: Annotated[
        list[str] | None, typer.Option(help="A column that is an input beside the structure: temperature, pressure …; several are a,b.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew even if the folder holds a started training.")] = False,
    json: Json = False,
) -> None:
    """Train an ensemble on one column of labelled crystals, or on several at once."""
    from naica.app.actions_train import train as action

    settings = {k: v for k, v in (("architecture", architecture), ("epochs", epochs), ("members", members)) if v is not None}
    where = requests.SourceRequest(source, _joined(column), quantity, unit, level, csv)
    inputs = tuple((_joined(state) or "").split(",")) if state else ()
    answer(action, requests.TrainRequest(where, out, config, settings, split.value, seed, not fresh, start, element, inputs, freeze), json)


def _joined(names: list[str] | None) -> str | None:
    """An option that was given several times, with commas between."""
    return ",".join(names) if names else None


def _pairs(texts: list[str] | None) -> dict[str, float | str]:
    """``name=value`` texts; a value that is a number is one."""
    found: dict[str, float | str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"--state {text}: expected name=value, for example temperature=300")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = value.strip()
    return found


def evaluate(
    model: Annotated[str, typer.Argument(help="A shipped model's name or a model folder.", autocompletion=complete_model)],
    source: Source,
    column: Column = None,
    quantity: Quantity = None,
    unit: Unit = None,
    level: Level = None,
    csv: Csv = None,
    part: Annotated[Part, typer.Option("--part", help="Which part of the split to judge on.")] = Part.test,
    split: Annotated[
        SplitBy | None, typer.Option(help="The split the part belongs to; default: the model's own, else the published one.")
    ] = None,
    element: HeldOut = None,
    seed: Annotated[int, typer.Option(help="Seed of that split.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture here (.png, .svg or .pdf): labels against predictions, for classes the ROC curve.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Write a picture here: promised against observed coverage, and error bars against errors. Not for classes."),
    ] = None,
    fidelity: Annotated[bool, typer.Option("--fidelity", help="Compare with labels of another level of theory all the same.")] = False,
    json: Json = False,
) -> None:
    """Measure a model on labelled crystals."""
    from naica.app.actions_train import evaluate as action

    where = requests.SourceRequest(source, _joined(column), quantity, unit, level, csv)
    answer(
        action,
        requests.EvaluateRequest(model, where, part.value, split.value if split else None, seed, plot, fidelity, element, calibration),
        json,
    )


def check(
    model: Annotated[
        str, typer.Argument(help="A shipped model's or a potential's name, or a model folder.", autocompletion=complete_model)
    ],
    json: Json = False,
) -> None:
    """Test a model against physics: symmetries, supercells, batching, saving; of potentials forces, smoothness, conservation."""
    from naica.app.actions_train import check as action

    answer(action, model, json)


def models(json: Json = False) -> None:
    """List shipped models, architectures and potentials."""
    from naica.app.actions_model import models as action

    answer(lambda _: action(), None, json)


def import_weights(
    architecture: Annotated[str, typer.Argument(help="Whose weights: cgcnn or megnet.")],
    file: Annotated[Path, typer.Argument(help="The published file (.pth.tar of CGCNN, .hdf5 of MEGNet).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the naica model.")],
    padding: Annotated[
        Padding, typer.Option(help="cgcnn: 'original' repeats the quirk of the original code to compare with it.")
    ] = Padding.correct,
    json: Json = False,
) -> None:
    """Turn published weights of another code into a naica model."""
    from naica.app.actions_train import import_weights as action

    answer(action, requests.ImportRequest(architecture, file, out, padding.value), json)


_COMMANDS = (
    (
        predict,
        "predict",
        _USE,
        examples("naica predict my.cif", "naica predict structures/ --json", "naica predict a.cif b.vasp --model runs/gap"),
    ),
    (relax, "relax", _USE, examples("naica relax my.cif --out relaxed.cif", "naica relax structures/ --model emt --fixed-cell --json")),
    (
        train,
        "train",
        _MAKE,
        examples(
            "naica train perovskites --column e_form --split composition --out runs/perovskites",
            "naica train cifs/ --csv id_prop.csv --column band_gap --unit eV --level PBE --config gap.toml --out runs/gap",
            "naica train mine.parquet --from formation-energy --epochs 20 --out runs/tuned",
            "naica train perovskites --column e_form --split element --element Li --out runs/no-li",
            "naica train mine.parquet --column band_gap,is_metal --out runs/both",
            "naica train measured.csv --column heat_capacity --unit 'J/(mol K)' --state temperature --out runs/heat",
        ),
    ),
    (evaluate, "evaluate", _MAKE, examples("naica evaluate formation-energy mp_formation --plot parity.png --calibration calibration.png")),
    (check, "check", _MAKE, examples("naica check formation-energy", "naica check chgnet", "naica check runs/gap --json")),
    (models, "models", _MAKE, examples("naica models --json")),
    (import_weights, "import-weights", _MAKE, examples("naica import-weights cgcnn band-gap.pth.tar --out runs/cgcnn-gap")),
)
