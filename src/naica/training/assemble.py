"""The end of a training run: members become an ensemble with calibrated error bars, metrics and a card."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import NaicaError
from naica.structure.elements import symbol
from naica.training.calibration import calibrate
from naica.training.card import Calibration, Card, versions
from naica.training.config import TrainConfig
from naica.training.ensemble import Ensemble
from naica.training.evaluation import judge
from naica.training.property import PropertyModel, config_dict
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
        head=config_dict(first.head_config),
        target=first.target.to_dict(),
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
    calibration = _calibration(plain, material)
    calibrated = Ensemble(plain.members, _replaced(card, calibration=calibration))
    metrics = {part: judge(calibrated, material.part(part)).to_dict() for part in ("val", "test") if len(material.part(part))}
    return Ensemble(plain.members, _replaced(calibrated.card, metrics=metrics))


def _replaced(card: Card, **changes: Any) -> Card:
    from dataclasses import replace

    return replace(card, **changes)


def _calibration(ensemble: Ensemble, material: Material) -> Calibration:
    part = material.part("val")
    if ensemble.target.kind == "class" or not len(part):
        return Calibration()
    from naica.training.evaluation import members_on

    return calibrate(members_on(ensemble, part), part.labels)


def elements_of(material: Material) -> tuple[str, ...]:
    """Symbols in the training part, by atomic number."""
    rows = np.zeros(len(material.labelled.graphs), dtype=bool)
    rows[material.train] = True
    graphs = material.labelled.graphs
    return tuple(symbol(int(z)) for z in np.unique(graphs.numbers[np.repeat(rows, graphs.counts)]))


def ranges_of(material: Material) -> dict[str, tuple[float, float]]:
    """What the training part covers: labels and volumes per atom without their outermost thousandths, atoms from least to most."""
    labels = material.labelled.values[material.train]
    atoms = material.labelled.graphs.counts[material.train]
    volumes = volumes_per_atom(material.table)[material.train]
    found = {"label": _middle(labels), "atoms": (float(atoms.min()), float(atoms.max()))}
    if np.isfinite(volumes).any():
        found["volume_per_atom"] = _middle(volumes[np.isfinite(volumes)])
    return found


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    return (float(np.quantile(values, _TAIL)), float(np.quantile(values, 1 - _TAIL)))


def _data_of(material: Material) -> dict[str, Any]:
    rows = {part: len(getattr(material, part)) for part in ("train", "val", "test")}
    return {
        "column": material.column,
        "rows": rows,
        "hash": material.fingerprint,
        "left_out": {k: n for k, n in material.rejected.items() if n},
    }


def _fields_of(model: PropertyModel) -> tuple[str, ...]:
    if model.needs.kind == "composition":
        return ("number", "fraction", "system", "n_atoms")
    return ("number", "system", "n_atoms", "edge_receiver", "edge_sender", "edge_vector", "edge_length")


def with_facts(ensemble: Ensemble, **facts: Any) -> Ensemble:
    """The ensemble with some entries of its card replaced (licence, citation, note, …); NaicaError for unknown ones."""
    try:
        return Ensemble(ensemble.members, _replaced(ensemble.card, **facts))
    except TypeError as error:
        raise NaicaError(str(error)) from error
