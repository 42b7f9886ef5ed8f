"""Answers from models: predict, and the list of what there is. Each takes a request and returns an `Answer`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, number
from naica.app.requests import PredictRequest
from naica.app.structures import Named, Unreadable, read_structures
from naica.errors import InputError, NaicaError

if TYPE_CHECKING:
    from naica.training import Ensemble, Prediction

Report = Callable[[int, int], None]
_CHUNK = 256


def _silent(done: int, total: int) -> None:
    """For callers that need no progress."""


def load_model(name: str) -> Ensemble:
    """A shipped model, a model folder, or the run folder of a training, whose model lies in ``model``."""
    from naica.training import load

    inner = Path(name) / "model"
    return load(str(inner) if (inner / "card.json").is_file() else name)


# --- predict -----------------------------------------------------------------------------------------------------------------
def predict(request: PredictRequest, progress: Report = _silent) -> Answer:
    """Predict for each structure; a structure that cannot be judged is a row with its reason.

    The exit code is 2 if nothing could be predicted, or if `strict` and anything could not.
    """
    good, bad = read_structures(request.files)
    ensemble = load_model(request.model)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(good), _CHUNK):
        rows += _predict_chunk(ensemble, good[start : start + _CHUNK], request)
        progress(min(start + _CHUNK, len(good)), len(good))
    rows += [_bad_row(b) for b in bad]
    failed = [r for r in rows if "error" in r]
    failing = len(failed) == len(rows) or (request.strict and bool(failed))
    data = {"model": request.model, "predictions": rows, "failed": len(failed)}
    notes = _prediction_notes(ensemble, rows)
    blocks: tuple[Table | str, ...] = (*_prediction_table(rows), *(f"{r['file']}: not predicted: {r['error']}" for r in failed))
    return Answer(data, blocks, notes, exit_code=2 if failing else 0)


def _predict_chunk(ensemble: Ensemble, named: Sequence[Named], request: PredictRequest) -> list[dict[str, Any]]:
    from naica.training import Ensemble as Plain

    crystals = [n.crystal for n in named]
    try:
        if isinstance(ensemble, Plain):
            found = ensemble.predict_tasks(crystals, state=request.state)
        elif request.state:
            raise InputError("this model is a corrected one, which has no state variables; leave --state out")
        else:
            found = {"": ensemble.predict(crystals)}
        return [
            row for name, one in found.items() for row in _prediction_rows(one, named, name if len(found) > 1 else "", request.interval)
        ]
    except NaicaError as error:
        if len(named) == 1:
            return [_bad_row(Unreadable(named[0].name, str(error)))]
    # one of them is to blame: find out which
    return [row for one in named for row in _predict_chunk(ensemble, [one], request)]


def _prediction_rows(prediction: Prediction, named: Sequence[Named], task: str, interval: float | None) -> list[dict[str, Any]]:
    found = prediction.to_dicts(interval)
    kept = ("quantity", "value", "sigma", "entropy", "low", "high", "unit", "warnings")
    return [
        {"file": one.name, "formula": one.crystal.formula} | ({"task": task} if task else {}) | {k: row[k] for k in kept if k in row}
        for one, row in zip(named, found, strict=True)
    ]


def _bad_row(bad: Unreadable) -> dict[str, Any]:
    return {"file": bad.name, "error": bad.reason}


def _prediction_table(rows: Sequence[dict[str, Any]]) -> tuple[Table, ...]:
    """Those predicted, a table for each task; nothing if none is."""
    good = [r for r in rows if "error" not in r]
    tasks = dict.fromkeys(r.get("task", "") for r in good)
    return tuple(_task_table(task, [r for r in good if r.get("task", "") == task]) for task in tasks)


def _task_table(task: str, rows: Sequence[dict[str, Any]]) -> Table:
    from naica.fields import FIELDS

    good = rows[0]
    known = FIELDS.get(good.get("quantity", ""))
    heading = (known.label if known else good.get("quantity", "value")) + (f" ({good['unit']})" if good.get("unit") else "")
    spread = "entropy (bits)" if "entropy" in good else "1 σ"
    between = ("between",) if "low" in good else ()
    cells = tuple(
        (r["file"], r["formula"], _shown(r["value"]), _spread(r), *(_ends(r) for _ in between), "; ".join(r["warnings"])) for r in rows
    )
    return Table(("file", "formula", heading, spread, *between, "remarks"), cells, task, right=(heading, spread, *between))


def _shown(value: float | list[float]) -> str:
    """A number, or those of all sites."""
    return " ".join(number(v) for v in value) if isinstance(value, list) else number(value)


def _ends(row: dict[str, Any]) -> str:
    """The interval that was asked for; without end where too few labels were there to promise one."""
    if isinstance(row["low"], list):
        return " ".join(_ends({"low": low, "high": high}) for low, high in zip(row["low"], row["high"], strict=True))
    low, high = ("∞" if end is None else number(end) for end in (row["low"], row["high"]))
    return f"{'−' if low == '∞' else ''}{low} … {high}"


def _spread(row: dict[str, Any]) -> str:
    return _shown(row["entropy"]) if "entropy" in row else f"± {_shown(row['sigma'])}"


def _prediction_notes(ensemble: Ensemble, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    if all("error" in r for r in rows):
        return ()
    bars = "calibrated" if ensemble.calibrated else "not calibrated: the plain spread of the members"
    targets = getattr(ensemble, "targets", None) or (ensemble.target,)
    levels = ", ".join(dict.fromkeys(str(t.level or "unknown") for t in targets))
    return (f"level of theory: {levels}; error bars (1 standard deviation) are {bars}",)


# --- what there is -------------------------------------------------------------------------------------------------------------
def shipped_models() -> dict[str, dict[str, Any]]:
    """The cards of the models inside the package, by name; read without loading any network."""
    folder = files("naica") / "training" / "weights"
    found = sorted((p for p in folder.iterdir() if (p / "card.json").is_file()), key=lambda p: p.name) if folder.is_dir() else []
    return {p.name: json.loads((p / "card.json").read_text(encoding="utf-8")) for p in found}


def potential_names() -> list[str]:
    """Names of the interatomic potentials."""
    from naica.potential.calculators import CALCULATORS

    return list(CALCULATORS)


def models() -> Answer:
    """Shipped and published models with their units and test errors, architectures that can be trained, potentials."""
    from naica.fields import field
    from naica.models import ARCHITECTURES
    from naica.training.published import PUBLISHED

    shipped = shipped_models()
    data: dict[str, list[Any]] = {
        "models": [
            {"name": n, "quantity": c["target"]["quantity"], "members": c["members"], "metrics": c["metrics"]} for n, c in shipped.items()
        ],
        "published": [{"name": n, "quantity": p.quantity, "unit": field(p.quantity).unit, "data": p.data} for n, p in PUBLISHED.items()],
        "architectures": list(ARCHITECTURES),
        "potentials": potential_names(),
    }
    rows = tuple((n, c["target"]["quantity"], c["architecture"], str(c["members"]), _test_error(c)) for n, c in shipped.items())
    table = Table(("model", "quantity", "architecture", "members", "test error"), rows, right=("members",))
    others = tuple((n, p.quantity, _unit(p.quantity), p.data) for n, p in PUBLISHED.items())
    published = Table(("published model", "quantity", "unit", "weights from the set"), others)
    told = (*_networks(data["architectures"]), f"potentials: {', '.join(data['potentials'])}")
    return Answer(data, (table if rows else "no model is shipped with this copy", published, *told))


def _networks(names: Sequence[str]) -> tuple[str, ...]:
    """Which networks learn properties, and of what; which energies and forces."""
    from naica.insight.tasks import compared, recipe
    from naica.potential.networks import smooth_networks

    learned = {name: " and ".join(f"{system}s" for system in recipe(name).systems) for name in compared()}
    kinds = [f"of {kind}: {', '.join(n for n, k in learned.items() if k == kind)}" for kind in dict.fromkeys(learned.values())]
    forces = [name for name in names if name in smooth_networks()]
    others = [name for name in names if name not in learned and name not in forces]
    return (
        "\n  ".join(("networks for properties (naica train --architecture)", *kinds)),
        f"networks for energies and forces (naica potential train): {', '.join(forces)}",
        *([f"networks for Hamiltonians: {', '.join(others)}"] if others else []),
    )


def _unit(quantity: str) -> str:
    from naica.fields import field

    known = field(quantity)
    return "probability" if known.kind == "class" else known.unit


def _test_error(card: dict[str, Any]) -> str:
    from naica.fields import FIELDS

    mae = (card["metrics"].get("test") or {}).get("mae")
    known = FIELDS.get(card["target"]["quantity"])
    return "–" if mae is None else f"{mae:.3f} {known.unit if known else ''}".strip()
