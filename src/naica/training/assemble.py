"""The end of a training run: members become an ensemble with calibrated error bars, metrics and a card."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import NaicaError
from naica.graphs.levels import EDGE_FIELDS, fields_of
from naica.structure.elements import symbol
from naica.training.calibration import calibrate
from naica.training.card import Calibration, Card, versions
from naica.training.config import TrainConfig
from naica.training.ensemble import Ensemble
from naica.training.evaluation import judge, members_on, summary
from naica.training.property import PropertyModel
from naica.training.run import Material
from naica.training.stream import volumes_per_atom

_TAIL = 0.001


def assemble(
    members: list[PropertyModel],
    records: list[dict[str, Any]],
    material: Material,
    config: TrainConfig,
    name: str,
    parent: Card | None = None,
) -> Ensemble:
    """An ensemble of trained members: calibrated on the validation part, measured on validation and test.

    Parameters
    ----------
    members : trained models
    records : what `fit_members` says about their training
    material : what they learned from
    config : how
    name : for the card
    parent : card of the model they were fine-tuned from
    """
    first = members[0]
    card = Card(
        name=name,
        architecture=first.architecture,
        architecture_config=first.architecture_config,
        head=first.head_config.to_dict(),
        target=first.targets[0].to_dict(),
        members=len(members),
        elements=elements_of(material),
        ranges=ranges_of(material),
        data=_data_of(material),
        fields=_fields_of(first),
        training={"config": config.to_dict(), "members": records},
        lineage=(*parent.lineage, {"name": parent.name, "level": str(parent.level or "unknown"), "data": dict(parent.data)})
        if parent
        else (),
        versions=versions(),
    )
    plain = Ensemble(tuple(members), card)
    calibrations = _calibrations(plain, material)
    tasks = [
        {"target": t.to_dict(), "calibration": asdict(calibration), "label": _label_range(material, k)}
        for k, (t, calibration) in enumerate(zip(first.targets, calibrations, strict=True))
    ]
    card = replace(card, calibration=calibrations[0], tasks=tuple(tasks) if len(tasks) > 1 else ())
    calibrated = Ensemble(plain.members, card)
    parts = [part for part in ("val", "test") if len(material.part(part))]
    found = {part: judge(calibrated, material.part(part)) for part in parts}
    # intervals hold what they promise on the labels they were made from; only other labels can measure them
    found |= {"val": {task: replace(one, calibration=None) for task, one in found["val"].items()}} if "val" in found else {}
    metrics = {part: summary(of_part, first.targets) for part, of_part in found.items()}
    return Ensemble(plain.members, replace(card, metrics=metrics))


def _calibrations(ensemble: Ensemble, material: Material) -> list[Calibration]:
    """Of every task, on the validation part."""
    part = material.part("val")
    if not len(part):
        return [Calibration() for _ in ensemble.targets]
    found = []
    for k, (target, members) in enumerate(zip(ensemble.targets, members_on(ensemble, part), strict=True)):
        known = np.isfinite(part.of(k))
        found.append(calibrate(members[:, known], part.of(k)[known]) if known.any() and target.kind != "class" else Calibration())
    return found


def elements_of(material: Material) -> tuple[str, ...]:
    """Symbols in the training part, by atomic number."""
    rows = np.zeros(len(material.labelled.graphs), dtype=bool)
    rows[material.train] = True
    graphs = material.labelled.graphs
    return tuple(symbol(int(z)) for z in np.unique(graphs.numbers[np.repeat(rows, graphs.counts)]))


def ranges_of(material: Material) -> dict[str, tuple[float, float]]:
    """What the training part covers: labels and volumes per atom without their outermost thousandths, atoms from least to most.

    ``periodic`` is 1 for what is periodic in three directions, 0 for what is not.
    """
    atoms = material.labelled.graphs.counts[material.train]
    volumes = volumes_per_atom(material.table)[material.train]
    found = {"label": _label_range(material, 0), "atoms": (float(atoms.min()), float(atoms.max()))}
    solid = np.isfinite(volumes)
    found["periodic"] = (float(solid.all()), float(solid.any()))
    if solid.any():
        found["volume_per_atom"] = _middle(volumes[solid])
    return found


def _label_range(material: Material, task: int) -> tuple[float, float]:
    labels = material.part("train").of(task)
    return _middle(labels[np.isfinite(labels)])


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    return (float(np.quantile(values, _TAIL)), float(np.quantile(values, 1 - _TAIL)))


def _data_of(material: Material) -> dict[str, Any]:
    rows = {part: len(getattr(material, part)) for part in ("train", "val", "test")}
    return {
        "column": ", ".join(material.columns),
        "rows": rows,
        "hash": material.fingerprint,
        "left_out": {k: n for k, n in material.rejected.items() if n},
    }


def _fields_of(model: PropertyModel) -> tuple[str, ...]:
    needs = model.needs
    state = ("state",) if needs.state else ()
    if needs.kind == "composition":
        return ("number", "fraction", "system", "n_atoms", *state)
    further = tuple(name for name in fields_of(needs) if name not in EDGE_FIELDS)
    return ("number", "system", "n_atoms", *EDGE_FIELDS, "edge_length", *further, *state)


def with_facts(ensemble: Ensemble, **facts: Any) -> Ensemble:
    """The ensemble with some entries of its card replaced (licence, citation, note, …); NaicaError for unknown ones."""
    try:
        return Ensemble(ensemble.members, replace(ensemble.card, **facts))
    except TypeError as error:
        raise NaicaError(str(error)) from error
