"""The verbs `load` and `predict`: models that ship with naica, and saved ones."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from naica.errors import InputError
from naica.training.checkpoint import CARD, read
from naica.training.correction_file import TENSORS
from naica.training.correction_file import read as read_corrected
from naica.training.ensemble import Ensemble
from naica.training.prediction import Prediction
from naica.training.published import PUBLISHED, load_published
from naica.training.stream import Source


def shipped() -> dict[str, Path]:
    """Names and folders of the models inside the package."""
    root = Path(str(files("naica.training"))) / "weights"
    return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / CARD).exists()} if root.is_dir() else {}


def load(name_or_path: str | Path) -> Any:
    """A model (an `Ensemble`, or a `Corrected` one) by name (``formation-energy`` ships with naica) or from its folder.

    Published models of other codes have names too: those of `naica.training.published.PUBLISHED`.

    Raises
    ------
    InputError
        If there is no such model; or if its files are damaged or of a newer format.
    """
    known = shipped()
    path = Path(name_or_path)
    if str(name_or_path) in known and not (path / CARD).exists():
        return _shipped(str(name_or_path))
    if str(name_or_path) in PUBLISHED and not (path / CARD).exists():
        return load_published(str(name_or_path))
    if path.is_file() and path.name == CARD:
        path = path.parent
    if not path.is_dir():
        near = get_close_matches(str(name_or_path), [*known, *PUBLISHED], n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"no model {str(name_or_path)!r}; {hint}models that ship with naica: {', '.join(known) or 'none'}; "
            "or give the folder of a saved one"
        )
    if (path / TENSORS).exists():
        return read_corrected(path)
    members, card = read(path)
    return Ensemble(tuple(members), card)


@cache
def _shipped(name: str) -> Ensemble:
    members, card = read(shipped()[name])
    return Ensemble(tuple(members), card)


def predict(crystals: Source, model: Any = "formation-energy", **options: Any) -> Prediction:
    """Predict a property of one crystal or many, with error bars.

    Parameters
    ----------
    crystals : a Crystal, several, a table …
    model : a name, a folder, or anything `load` and `fit_correction` return
    options : passed to `Ensemble.predict` (`volume_factors`, `members`, `progress`)
    """
    return (load(model) if isinstance(model, str | Path) else model).predict(crystals, **options)
