"""Teaching networks: targets, loop, ensembles, error bars, models on disk, evaluation. Names are loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from naica.training.config import HeadConfig as HeadConfig
    from naica.training.config import TrainConfig as TrainConfig
    from naica.training.correction import fit_correction as fit_correction
    from naica.training.ensemble import Ensemble as Ensemble
    from naica.training.evaluation import evaluate as evaluate
    from naica.training.learner import fit_learner as fit_learner
    from naica.training.prediction import Prediction as Prediction
    from naica.training.property import PropertyModel as PropertyModel
    from naica.training.property import build as build
    from naica.training.run import fine_tune as fine_tune
    from naica.training.run import train as train
    from naica.training.target import Target as Target
    from naica.training.zoo import load as load
    from naica.training.zoo import predict as predict

_HOMES = {
    "HeadConfig": "config",
    "TrainConfig": "config",
    "Ensemble": "ensemble",
    "evaluate": "evaluation",
    "Prediction": "prediction",
    "PropertyModel": "property",
    "build": "property",
    "fit_correction": "correction",
    "fit_learner": "learner",
    "fine_tune": "run",
    "train": "run",
    "Target": "target",
    "load": "zoo",
    "predict": "zoo",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'naica.training' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    value = getattr(import_module(f"naica.training.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
