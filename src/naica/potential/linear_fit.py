"""The verb `fit` for a potential that is linear in its weights: solved, not trained."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from naica.errors import InputError
from naica.potential.examples import Examples
from naica.potential.linear import LinearConfig, search
from naica.potential.saved import Potential

if TYPE_CHECKING:
    from naica.potential.fit import Material

_SECONDS = 300.0


def fit_ace(material: Material, name: str, progress: bool) -> Potential:
    """ACE with what its settings leave open (cut-off, degrees) chosen by cross-validation, as a potential with its card.

    Weights of the fields and the prior are cross-validated as well, so the frames of the validation part are learned from like the others.
    More than one member means draws from the posterior around the best coefficients, which are the first member.

    Raises
    ------
    InputError
        If the frames are of several levels of theory.
    """
    from naica.potential.fit import concluded

    frames, config = material.frames, material.config
    if len(frames.levels) > 1:
        raise InputError(f"ACE learns one level of theory; these frames are of {len(frames.levels)}: {', '.join(frames.levels)}")
    rows = np.union1d(material.cut.train, material.cut.validation)
    fixed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in config.architecture_config.items()}
    budget = config.max_cpu_seconds or config.max_seconds or _SECONDS
    fit, tried = search(frames.take(rows), LinearConfig(seed=config.seed), budget, progress=progress, **fixed)
    members = [fit.model, *fit.committee(config.members - 1, config.seed)] if config.members > 1 else [fit.model]
    settings = config.replace(architecture_config=dict(fit.model.architecture_config), precision="64")
    examples = Examples.build(frames, fit.model.needs)
    record: dict[str, Any] = {
        **fit.report(),
        "parameters": sum(p.numel() for p in fit.model.parameters()),
        "tried": [{"cutoff": t.architecture.cutoff, "degrees": list(t.architecture.degrees), **asdict(t.choice)} for t in tried],
    }
    return concluded(replace(material, examples=examples, config=settings), members, [record] * len(members), name)
