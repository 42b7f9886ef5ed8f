"""The verb `fit`: from labelled frames to a potential with its card."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray

from naica import runtime
from naica.data import CrystalTable, Level
from naica.errors import ConfigError, InputError, RunError
from naica.potential import starting
from naica.potential.display import Display
from naica.potential.examples import Examples
from naica.potential.frames import Frames, frames
from naica.potential.loop import DTYPES, STATE, Data, Progress, Training
from naica.potential.measure import errors_of, promise, tell
from naica.potential.model import PotentialModel
from naica.potential.parts import Cut, cut
from naica.potential.references import force_scale, isolated, least_squares
from naica.potential.saved import Potential, PotentialCard, read_potential
from naica.potential.settings import FitConfig
from naica.structure.elements import element, symbol
from naica.training.card import versions
from naica.training.transfer import trained_parameters

Rows = NDArray[np.int64]
RUN = "run.json"
GRAPHS = "graphs.bin"
_BUDGET = ("epochs", "max_seconds", "max_cpu_seconds", "patience", "checkpoint_steps", "tensorboard", "device", "members")


@dataclass(frozen=True, eq=False)
class Material:
    """What a potential is fitted to: frames with graphs, their parts, and the network it starts as."""

    examples: Examples
    cut: Cut
    config: FitConfig
    start: Potential | None

    @property
    def frames(self) -> Frames:
        """All frames, replayed ones included."""
        return self.examples.frames


def fit(
    source: str | Path | Sequence[str | Path] | CrystalTable | Frames,
    config: FitConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = False,
    start: Potential | str | Path | None = None,
    replay: str | Path | CrystalTable | Frames | None = None,
    fidelity: bool = False,
    level: Level | None = None,
    name: str = "",
) -> Potential:
    """Fit a potential.

    Parameters
    ----------
    source : frames, or what `frames` reads: files, registered sets (``mlearn:Cu``), a table
    config : settings
    out : run folder: graphs, logs, states of the members, and the potential in ``model``; a started run goes on
    resume : False starts anew whatever the folder holds
    progress : show a bar
    start : a potential to go on from. References of the elements are fitted first: before any step its forces are the old ones, and its
        energies too but for a sum over the elements. It brings its own network
    replay : older frames mixed into every epoch (`FitConfig.replay_share`), so that they are not forgotten. If they are of another level of
        theory than `source`, the potential speaks both from then on
    fidelity : frames of several levels of theory are allowed; the potential speaks them all. The first level is the one with most frames
    level : of theory, where the source does not say
    name : of the potential

    Raises
    ------
    InputError, LevelError, ConfigError
        If frames, levels or settings do not fit.
    RunError
        If the training diverges, the folder cannot be written or belongs to another run.
    """
    runtime.tune()
    config = config or FitConfig()
    folder = None if out is None else Path(out)
    given = source if isinstance(source, Frames) else frames(source, level, fidelity)
    older = None if replay is None else replay if isinstance(replay, Frames) else frames(replay)
    begun = read_potential(start) if isinstance(start, str | Path) else start
    if folder is not None:
        _open_folder(folder, _digest(given, older), resume)
    material = prepare(given, config, begun, older, folder, fidelity)
    if config.architecture == "ace" and begun is None:
        from naica.potential.linear_fit import fit_ace

        found = fit_ace(material, name or _name(folder), progress, folder)
    else:
        if folder is not None:
            _claim(folder, _digest(given, older), material.config)
        members, records = _train(material, folder, progress)
        found = concluded(material, members, records, name or _name(folder))
    if folder is not None:
        found.save(folder / "model")
    return found


def prepare(
    given: Frames, config: FitConfig, start: Potential | None, older: Frames | None, folder: Path | None, fidelity: bool
) -> Material:
    """Frames joined and cut, graphs made, settings completed from the training part."""
    whole, replayed = starting.joined(given, older)
    if len(whole.levels) > 1:
        if older is None and not fidelity:
            raise InputError(f"frames of several levels ({', '.join(whole.levels)}); pass fidelity=True (--fidelity)")
        whole = whole.ordered(starting.order_of_levels(whole, start))
    if start is not None:
        config = starting.taken_over(config, start)
    parts = replace(config.parts, levels=whole.levels if len(whole.levels) > 1 else config.parts.levels)
    config = config.replace(parts=parts)
    if config.architecture != "ace":
        probe = _probe(config, whole)
        cache = None if folder is None else _made(folder) / GRAPHS
        examples = Examples.build(whole, probe.needs, cache)
    else:
        examples = Examples.build(whole, starting.near(whole))
    chosen = cut(examples, config, np.intersect1d(replayed, examples.rows))
    if start is None and config.architecture != "ace":
        config = config.replace(architecture_config=completed(config, examples.of(chosen.train)))
    elif start is not None:
        starting.check_elements(start, whole)
    return Material(examples, chosen, config, start)


def _probe(config: FitConfig, whole: Frames) -> PotentialModel:
    """An untrained network, to ask it for its graph."""
    with torch.random.fork_rng(devices=[]):
        settings = _with_elements(config, whole.elements)
        return PotentialModel(config.architecture, settings, config.parts)


def _with_elements(config: FitConfig, elements: tuple[int, ...]) -> dict[str, Any]:
    from naica.models import config_of

    settings = dict(config.architecture_config)
    kind = config_of(config.architecture)
    if "elements" in {f.name for f in fields(kind)} and "elements" not in settings:
        numbers = "int" in str(get_type_hints(kind).get("elements", "str"))
        settings["elements"] = tuple(elements if numbers else (symbol(z) for z in elements))
    return settings


def completed(config: FitConfig, train: Examples) -> dict[str, Any]:
    """The network's settings with ``elements`` and ``average_neighbours`` of the training part, where it has them."""
    from naica.models import config_of

    settings = _with_elements(config, train.frames.elements)
    known = {f.name for f in fields(config_of(config.architecture))}
    for name in ("average_neighbours", "average_neighbors"):
        if name in known and name not in settings:
            settings[name] = round(train.neighbours, 4)
    return settings


# --- the members -----------------------------------------------------------------------------------------------------------------------
def _train(material: Material, folder: Path | None, progress: bool) -> tuple[list[PotentialModel], list[dict[str, Any]]]:
    config, members, records = material.config, [], []
    data = Data(material.examples, material.cut.train, material.cut.validation, material.cut.replayed)
    with Display(config.members, progress) as display, torch.random.fork_rng(devices=[]):
        for k in range(config.members):
            model = initial(material, k)
            held = starting.hold(model, config.freeze)
            sizes = trained_parameters(held)
            own = None if folder is None else _made(folder / f"member-{k}")
            done = Training(model, config, config.seed + k, data, own, display.watch(k)).run()
            model.requires_grad_(True)
            members.append(model)
            records.append(_record(done, config.seed + k) | sizes)
    return members, records


def initial(material: Material, member: int) -> PotentialModel:
    """The network of a member before its first step, references and scale in place."""
    config, frames_, train = material.config, material.frames, material.cut.train
    if material.start is not None:
        return starting.continued(material.start, member, material.examples, material.cut, config)
    torch.manual_seed(config.seed + member)
    scale = force_scale(frames_, train)
    return PotentialModel(config.architecture, config.architecture_config, config.parts, scale, references_of(frames_, train, config))


def references_of(given: Frames, train: Rows, config: FitConfig) -> list[dict[int, float]]:
    """Energies of the elements for each level; those of a further level are the first one's plus a fitted difference."""
    if config.references == "zero":
        return [{}]
    first = train[given.level[train] == 0]
    found = [isolated(given, first) if config.references == "isolated" else least_squares(given, first)]
    for k in range(1, len(given.levels)):
        own = train[given.level[train] == k]
        if config.references == "isolated":
            found.append(isolated(given, own))
            continue
        left = given.labels["energy"] - starting.summed(given, found[0])
        further = least_squares(given, own, left)
        found.append({z: e + further.get(z, 0.0) for z, e in found[0].items()})
    return found


def _record(done: Progress, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "epochs": done.epoch,
        "steps": done.steps,
        "best_epoch": done.best_epoch,
        "best": done.best,
        "seconds": round(done.seconds, 2),
        "cpu_seconds": round(done.cpu_seconds, 2),
    }


# --- the card ----------------------------------------------------------------------------------------------------------------------------
def concluded(material: Material, members: Sequence[PotentialModel], records: list[dict[str, Any]], name: str) -> Potential:
    """Members measured on all parts, and the card written."""
    config, frames_ = material.config, material.frames
    speaks = len(frames_.levels) - 1 if len(frames_.levels) > 1 else 0
    for member in members:
        member.level = speaks
    empty = PotentialCard(name, config.architecture, config.architecture_config, config.parts.to_dict(), len(members))
    potential = Potential(tuple(members), empty)
    metrics, error = measured(potential, material)
    level = asdict(frames_.level_of_theory) if frames_.level_of_theory is not None else None
    if len(frames_.levels) > 1:
        level = asdict(Level(frames_.levels[speaks]))
    start = material.start
    lineage = () if start is None else (*start.card.lineage, {"name": start.card.name, "level": start.card.speaking})
    return Potential(
        tuple(members),
        replace(
            empty,
            elements=_elements(material),
            level=level,
            levels=frames_.levels if len(frames_.levels) > 1 else (),
            speaks=speaks,
            ranges=_ranges(material),
            metrics=metrics,
            error=error,
            data={
                "rows": material.cut.sizes,
                "hash": frames_.digest(),
                "left_out": [asdict(r) for r in material.examples.rejected[:50]],
                "n_left_out": len(material.examples.rejected),
            },
            training={"settings": config.to_dict(), "members": records},
            lineage=lineage,
            versions=versions(),
        ),
    )


def measured(potential: Potential, material: Material) -> tuple[dict[str, Any], dict[str, float]]:
    """Errors by part (and by level, where there are several), and what the potential promises: see `naica.potential.measure.promise`."""
    config = material.config
    dtype = DTYPES[config.precision]
    learned = potential.learned(dtype)
    parts = {name: getattr(material.cut, name) for name in material.cut.sizes}
    metrics: dict[str, Any] = {}
    error: dict[str, float] = {}
    for name, rows in parts.items():
        told = tell(learned.evaluate, material.examples.of(rows), config.max_edges, dtype)
        metrics[name] = errors_of(told)
        levels = material.frames.level[rows]
        if len(np.unique(levels)) > 1:
            names = material.frames.levels
            metrics[name]["levels"] = {names[k]: errors_of(told.frames(levels == k)) for k in np.unique(levels).tolist()}
        if name == "test" or (name == "validation" and "test" not in parts):
            error = promise(told)
    return metrics, error


def _elements(material: Material) -> tuple[str, ...]:
    """Symbols seen in training, by this potential or the one it goes on from."""
    given, numbers = material.frames, material.frames.table.flat()[1]
    rows = np.concatenate([material.cut.train, material.cut.replayed])
    seen = {int(z) for z in np.unique(numbers[np.isin(given.owner, rows)])}
    before = () if material.start is None else material.start.card.elements
    return tuple(symbol(z) for z in sorted(seen | {element(name).number for name in before}))


def _ranges(material: Material) -> dict[str, tuple[float, float]]:
    given, rows = material.frames, material.cut.train
    counts, volumes = given.counts[rows], given.volumes[rows]
    found = {"atoms": (float(counts.min()), float(counts.max()))}
    whole = np.isfinite(volumes)
    if whole.any():
        per_atom = volumes[whole] / counts[whole]
        found["volume_per_atom"] = (round(float(per_atom.min()), 4), round(float(per_atom.max()), 4))
    if "forces" in given.labels:
        largest = np.linalg.norm(given.labels["forces"][np.isin(given.owner, rows)], axis=1)
        if np.isfinite(largest).any():
            found["force"] = (0.0, round(float(np.nanmax(largest)), 4))
    return found


# --- the run folder --------------------------------------------------------------------------------------------------------------------
def _name(folder: Path | None) -> str:
    return "potential" if folder is None else folder.resolve().name


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    return folder


def _digest(given: Frames, older: Frames | None) -> str:
    return given.digest() + ("" if older is None else older.digest())


def _open_folder(folder: Path, digest: str, resume: bool) -> None:
    """Make the run folder, empty it if the run is to start anew, and refuse one that holds a run on other frames (ConfigError)."""
    _made(folder)
    if not resume:
        for old in (folder / GRAPHS, folder / RUN, *folder.glob(f"member-*/{STATE}"), *folder.glob("member-*/log.csv")):
            old.unlink(missing_ok=True)
        return
    held = _held(folder)
    if held is not None and held.get("digest") != digest:
        raise ConfigError(f"{folder} holds a run on other frames; take another folder, or resume=False (--fresh) to start again there")


def _held(folder: Path) -> Mapping[str, Any] | None:
    """What the run in a folder was started with; None if there is none."""
    path = folder / RUN
    if not path.exists():
        return None
    try:
        return cast(Mapping[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is damaged ({error}); start again with resume=False (--fresh)") from error


def _claim(folder: Path, digest: str, config: FitConfig) -> None:
    """Make the run folder this run's own, or go on with what it holds; ConfigError if that has other settings."""
    mine: dict[str, Any] = {"digest": digest, "settings": _comparable(config)}
    held = _held(folder)
    if held is not None and any(folder.glob(f"member-*/{STATE}")):
        differing = [key for key, value in mine["settings"].items() if held.get("settings", {}).get(key) != value]
        if differing:
            raise ConfigError(f"{folder} holds a run with other {', '.join(differing)}; take another folder, or resume=False (--fresh)")
    path = folder / RUN
    try:
        path.with_suffix(".tmp").write_text(json.dumps(mine, indent=1, default=list), encoding="utf-8")
        os.replace(path.with_suffix(".tmp"), path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def _comparable(config: FitConfig) -> dict[str, Any]:
    """Settings that must be the same to go on, as JSON gives them back."""
    plain = {key: value for key, value in config.to_dict().items() if key not in _BUDGET}
    return cast(dict[str, Any], json.loads(json.dumps(plain, default=list)))
