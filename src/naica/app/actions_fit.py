"""Answers about potentials that are learned: train, evaluate, sample, learn."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, number
from naica.app.requests_potential import FitRequest, FramesRequest, JudgeRequest, LearnRequest, SampleRequest
from naica.app.sources import parse_level
from naica.errors import ConfigError, InputError, RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from naica.potential.frames import Frames
    from naica.potential.settings import FitConfig

Report = Callable[[int, int], None]
_GPA = 160.21766208
# what a person reads of errors: key, heading, factor, digits
_SHOWN = (
    ("energy_mae", "E MAE (meV/atom)", 1e3, 2),
    ("energy_rmse", "E RMSE", 1e3, 2),
    ("forces_mae", "F MAE (meV/Å)", 1e3, 1),
    ("forces_rmse", "F RMSE", 1e3, 1),
    ("stress_mae", "S MAE (GPa)", _GPA, 3),
    ("stress_rmse", "S RMSE", _GPA, 3),
    ("magmom_mae", "M MAE (μ_B)", 1.0, 3),
    ("charge_mae", "Q MAE (e)", 1.0, 3),
)


def frames_of(request: FramesRequest) -> Frames:
    """Labelled frames of a request."""
    from naica.potential.frames import frames

    level = parse_level(request.level) if request.level else None
    return frames(list(request.sources), level, request.fidelity, request.names)


# --- train -------------------------------------------------------------------------------------------------------------------------------
def train(request: FitRequest) -> Answer:
    """A potential in the folder `model` of the run folder."""
    from naica.potential.fit import fit
    from naica.potential.saved import read_potential

    config = settings_of(request.config, request.settings)
    start = None if request.start is None else read_potential(request.start)
    if start is None and (request.replay is not None or config.freeze != "nothing"):
        raise InputError("--replay and --freeze say how to go on from a potential: add --from FOLDER")
    given = frames_of(request.frames)
    found = fit(
        given,
        config,
        out=request.out,
        resume=request.resume,
        progress=sys.stderr.isatty(),
        start=start,
        replay=request.replay,
        fidelity=request.frames.fidelity,
    )
    card = found.card
    data = {
        "model": str(request.out / "model"),
        "architecture": card.architecture,
        "level": card.speaking,
        "levels": list(card.levels),
        "elements": list(card.elements),
        "rows": card.data["rows"],
        "left_out": card.data["left_out"],
        "metrics": card.metrics,
        "promise": card.error,
        "members": card.training["members"],
    }
    left = tuple(f"left out: {r['id']}: {r['reason']}" for r in card.data["left_out"][:5])
    promise = _promise(card.error)
    notes = (given.report(), *left, *promise, f"potential: {request.out / 'model'}; use it with naica relax FILES --model {request.out}")
    return Answer(data, (errors_table(card.metrics, "part"),), notes)


def settings_of(path: Path | None, settings: Mapping[str, Any]) -> FitConfig:
    """Settings of a TOML file with others over it."""
    from naica.potential.settings import FitConfig

    return _settings(FitConfig, path, settings)


def _settings(kind: Any, path: Path | None, settings: Mapping[str, Any]) -> Any:
    try:
        raw = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no settings {path}; expected a TOML file with keys such as architecture = 'painn'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for key, value in settings.items():
        raw[key] = {**raw[key], **value} if isinstance(value, Mapping) and isinstance(raw.get(key), Mapping) else value
    try:
        return kind.from_dict(raw)
    except ConfigError as error:
        raise error if path is None else ConfigError(f"{path}: {error}") from error


def errors_table(metrics: Mapping[str, Mapping[str, Any]], head: str) -> Table:
    """Errors by part, group or element, of the fields that have any."""
    shown = [one for one in _SHOWN if any(one[0] in errors for errors in metrics.values())]
    heads = (head, *(text for _, text, _, _ in shown), "frames")
    rows = tuple(
        (
            name,
            *(number(None if (v := errors.get(key)) is None else v * factor, digits) for key, _, factor, digits in shown),
            str(int(errors["n_frames"])) if "n_frames" in errors else "–",
        )
        for name, errors in metrics.items()
    )
    return Table(heads, rows, right=heads[1:])


def _promise(error: Mapping[str, float]) -> tuple[str, ...]:
    if not error:
        return ()
    parts = [f"energy {1e3 * error['energy']:.2g} meV/atom"] if "energy" in error else []
    parts += [f"force {1e3 * error['force']:.3g} meV/Å"] if "force" in error else []
    return (f"90 % of held-out labels lie within: {', '.join(parts)}",)


# --- evaluate ----------------------------------------------------------------------------------------------------------------------------
def evaluate(request: JudgeRequest) -> Answer:
    """Errors of a potential on labelled frames, and pictures if asked for."""
    from naica.potential.evaluate import evaluate as measure

    found = measure(request.model, frames_of(request.frames), request.part, fidelity=request.frames.fidelity)
    if request.plot is not None:
        from naica.insight.potential_plots import parity_panels

        _save(parity_panels(found.told, request.model), request.plot)
    if request.calibration is not None:
        from naica.insight.potential_plots import spread_plot

        _save(spread_plot(found.told), request.calibration)
    plain = found.to_dict()
    data = {"model": request.model, "part": request.part, **plain, "plot": request.plot, "calibration": request.calibration}
    blocks: list[Table | str] = [errors_table({request.part or "all": found.errors}, "part")]
    if len(found.elements) > 1:
        heads = ("element", "F MAE (meV/Å)", "F RMSE", "atoms")
        rows = tuple(
            (name, number(1e3 * e["forces_mae"], 1), number(1e3 * e["forces_rmse"], 1), f"{e['n_atoms']:.0f}")
            for name, e in found.elements.items()
        )
        blocks.append(Table(heads, rows, right=heads[1:]))
    if found.groups:
        blocks.append(errors_table(found.groups, "group"))
    if found.cosine:
        blocks.append(
            f"directions of forces: mean cosine {found.cosine['mean']:.4f}, {found.cosine['within_10_degrees']:.1%} within 10 degrees"
        )
    if found.spread:
        s = found.spread
        blocks.append(
            f"spread of the committee: rank correlation with the error {s['rank']:.2f}, error / spread {s['factor']:.2f}, "
            f"{s['within_1']:.0%} within one spread, {s['within_2']:.0%} within two"
        )
    wrote = tuple(f"wrote {path}" for path in (request.plot, request.calibration) if path)
    left = (f"{len(found.rejected)} frames left out; first: {found.rejected[0].reason}",) if found.rejected else ()
    return Answer(data, tuple(blocks), (*left, *wrote))


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


# --- show --------------------------------------------------------------------------------------------------------------------------------
def show(model: str) -> Answer:
    """The card of a potential."""
    from dataclasses import asdict

    from naica.potential.saved import read_potential

    card = read_potential(model).card
    members = card.training.get("members", [])
    spent = sum(m.get("cpu_seconds", 0.0) for m in members) / 60
    size = members[0].get("parameters", "unknown") if members else "unknown"
    ranges = ", ".join(f"{name.replace('_', ' ')} {low:g} to {high:g}" for name, (low, high) in card.ranges.items())
    lines = (
        f"{card.name}: {card.architecture}, {card.members} member{'s' if card.members > 1 else ''}, {size} parameters each, "
        f"trained for {spent:.1f} CPU minutes",
        f"elements: {', '.join(card.elements) or 'unknown'}",
        f"level of theory: {card.speaking}"
        + (f"; it also speaks {', '.join(n for n in card.levels if n != card.speaking)}" if card.levels else ""),
        f"frames: {', '.join(f'{name} {n}' for name, n in card.data.get('rows', {}).items())}; left out: {card.data.get('n_left_out', 0)}",
        *((f"training covered {ranges}",) if ranges else ()),
        *((f"goes on from {', '.join(str(one['name']) for one in card.lineage)}",) if card.lineage else ()),
        *((card.note,) if card.note else ()),
    )
    return Answer(asdict(card), (*lines, errors_table(card.metrics, "part")), _promise(card.error))


# --- sample ------------------------------------------------------------------------------------------------------------------------------
def sample(request: SampleRequest) -> Answer:
    """Frames chosen by DIRECT sampling, in a file of their own."""
    from naica.potential.direct import composition_features, direct, model_features
    from naica.potential.frame_files import write_frames
    from naica.potential.saved import read_potential

    given = frames_of(request.frames)
    features = composition_features(given) if request.model is None else model_features(read_potential(request.model), given)
    found = direct(features, request.n, request.per_cluster, request.threshold)
    write_frames(given.take(found.rows).table, request.out)
    data = {
        "frames": len(given),
        "chosen": found.rows.tolist(),
        "ids": [given.table.ids[row] for row in found.rows],
        "clusters": found.clusters,
        "components": found.components,
        "variance": found.variance,
        "threshold": found.threshold,
        "coverage": found.coverage,
        "random_coverage": found.random_coverage,
        "out": str(request.out),
    }
    told = (
        f"{len(found.rows)} of {len(given)} frames from {found.clusters} clusters; {found.components} components hold "
        f"{found.variance:.1%} of the variance; coverage {found.coverage:.3f} (as many at random: {found.random_coverage:.3f})"
    )
    return Answer(data, (told,), (f"wrote {request.out}",))


# --- learn -------------------------------------------------------------------------------------------------------------------------------
def learn(request: LearnRequest, progress: Report = lambda done, total: None) -> Answer:
    """A committee learned actively; the potential lies in the folder `model` of the run folder."""
    from naica.potential.active import LearnConfig
    from naica.potential.active import learn as actively

    settings: LearnConfig = _settings(LearnConfig, request.config, request.settings)
    found = actively(
        frames_of(request.start),
        request.oracle,
        request.target_error,
        out=request.out,
        config=settings,
        resume=request.resume,
        progress=progress,
    )
    heads = ("round", "frames", "new", "promised F (meV/Å)", "F MAE (meV/Å)", "oracle calls")
    rows = tuple(
        (
            str(r["round"]),
            str(r["frames"]),
            str(r["new"]),
            number(1e3 * r["promise"], 1),
            number(1e3 * r["forces_mae"], 1),
            str(r["oracle_calls"]),
        )
        for r in found.rounds
    )
    data = {"model": str(request.out / "model"), "met": found.met, "reason": found.reason, "rounds": found.rounds}
    return Answer(data, (Table(heads, rows, right=heads), found.reason), (f"potential: {request.out / 'model'}",), 0 if found.met else 1)
