"""Answers about models: predict, explain, train, evaluate, check, relax, import, list. Each takes a request and returns an `Answer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, number
from naica.app.requests import EvaluateRequest, ExplainRequest, ImportRequest, PredictRequest, RelaxRequest, TrainRequest
from naica.app.structures import Named, Unreadable, read_structures
from naica.errors import InputError, NaicaError

if TYPE_CHECKING:
    from naica.training import Ensemble, Prediction

Report = Callable[[int, int], None]
_CHUNK = 256


def _silent(done: int, total: int) -> None:
    """For callers that need no progress."""


# --- predict -----------------------------------------------------------------------------------------------------------------
def predict(request: PredictRequest, progress: Report = _silent) -> Answer:
    """Predict for each structure; a structure that cannot be judged is a row with its reason.

    The exit code is 2 if nothing could be predicted, or if `strict` and anything could not.
    """
    from naica.training import load

    good, bad = read_structures(request.files)
    ensemble = load(request.model)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(good), _CHUNK):
        rows += _predict_chunk(ensemble, good[start : start + _CHUNK])
        progress(min(start + _CHUNK, len(good)), len(good))
    rows += [_bad_row(b) for b in bad]
    failed = [r for r in rows if "error" in r]
    failing = len(failed) == len(rows) or (request.strict and bool(failed))
    data = {"model": request.model, "predictions": rows, "failed": len(failed)}
    notes = _prediction_notes(ensemble, rows)
    return Answer(data, (_prediction_table(rows),), notes, exit_code=2 if failing else 0)


def _predict_chunk(ensemble: Ensemble, named: Sequence[Named]) -> list[dict[str, Any]]:
    try:
        return _prediction_rows(ensemble.predict([n.crystal for n in named]), named)
    except NaicaError as error:
        if len(named) == 1:
            return [_bad_row(Unreadable(named[0].name, str(error)))]
    # one of them is to blame: find out which
    return [row for one in named for row in _predict_chunk(ensemble, [one])]


def _prediction_rows(prediction: Prediction, named: Sequence[Named]) -> list[dict[str, Any]]:
    return [
        {
            "file": one.name,
            "formula": one.crystal.formula,
            "quantity": prediction.quantity,
            "value": float(prediction.value[k]),
            "sigma": float(prediction.sigma[k]),
            "unit": prediction.unit,
            "warnings": list(prediction.warnings[k]),
        }
        for k, one in enumerate(named)
    ]


def _bad_row(bad: Unreadable) -> dict[str, Any]:
    return {"file": bad.name, "error": bad.reason}


def _prediction_table(rows: Sequence[dict[str, Any]]) -> Table:
    from naica.fields import FIELDS

    good = next((r for r in rows if "error" not in r), None)
    heading = "value"
    if good:
        known = FIELDS.get(good["quantity"])
        heading = (known.label if known else good["quantity"]) + (f" ({good['unit']})" if good["unit"] else "")
    cells = tuple(
        (r["file"], "", "", "", f"not predicted: {r['error']}")
        if "error" in r
        else (r["file"], r["formula"], number(r["value"]), f"± {number(r['sigma'])}", "; ".join(r["warnings"]))
        for r in rows
    )
    return Table(("file", "formula", heading, "1 σ", "remarks"), cells, right=(heading, "1 σ"))


def _prediction_notes(ensemble: Ensemble, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    if all("error" in r for r in rows):
        return ()
    level = getattr(ensemble.members[0].target, "level", None)
    return (f"level of theory: {level or 'unknown'}; ± is one calibrated standard deviation of the ensemble",)


# --- explain -----------------------------------------------------------------------------------------------------------------
def explain(request: ExplainRequest, progress: Report = _silent) -> Answer:
    """Site contributions; their mean is the prediction.

    Raises
    ------
    InputError
        If the model has no per-site head; the message says how to train one.
    """
    from naica.graphs import graph
    from naica.training import load

    good, bad = read_structures(request.files)
    ensemble = load(request.model)
    structures: list[dict[str, Any]] = []
    for k, one in enumerate(good):
        try:
            sites = _site_contributions(ensemble, graph([one.crystal], ensemble.members[0].backbone.needs))
        except NaicaError as error:
            if isinstance(error, InputError) and "sites" in str(error):
                raise
            bad.append(Unreadable(one.name, str(error)))
            continue
        symbols = one.crystal.symbols
        structures.append(
            {
                "file": one.name,
                "formula": one.crystal.formula,
                "value": float(sites.mean()),
                "sites": [{"index": i, "element": symbols[i], "contribution": float(v)} for i, v in enumerate(sites)],
            }
        )
        progress(k + 1, len(good))
    blocks = tuple(_site_table(s) for s in structures) + tuple(f"{b.name}: {b.reason}" for b in bad)
    data = {"model": request.model, "structures": structures, "failed": [_bad_row(b) for b in bad]}
    return Answer(data, blocks, exit_code=0 if structures else 2)


def _site_contributions(ensemble: Ensemble, batch: Any) -> Any:
    """(N,) contributions in the model's unit, mean over members."""
    import torch

    if getattr(ensemble.members[0].head, "pooling", None) != "sites":
        raise InputError(
            "this model has no contributions of sites: its head pools before the last layer. "
            'Train one with head pooling "sites" ([head] pooling = "sites" in the config), then explain that'
        )
    with torch.no_grad():
        parts = [member.sites(batch).reshape(-1) for member in ensemble.members]
    return torch.stack(parts).mean(0).double().cpu().numpy()


def _site_table(structure: dict[str, Any]) -> Table:
    rows = tuple((str(s["index"]), s["element"], f"{s['contribution']:+.3f}") for s in structure["sites"])
    title = f"{structure['file']}  {structure['formula']}  mean {structure['value']:.3f}"
    return Table(("site", "element", "contribution"), rows, title, right=("site", "contribution"))
