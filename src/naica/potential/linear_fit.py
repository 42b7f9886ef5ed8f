"""ACE through the same door as the networks: frames in, a potential with its card out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from naica.potential.examples import Examples
from naica.potential.linear import examples_of, search
from naica.potential.saved import Potential

if TYPE_CHECKING:
    from naica.potential.fit import Material

POSTERIOR = "posterior.npz"
_SECONDS = 120.0


def fit_ace(material: Material, name: str, progress: bool, folder: Path | None = None) -> Potential:
    """Fit ACE to the training and validation frames; what they are worth is judged by cross-validation inside.

    Settings of the architecture that are given stay; cut-off and degrees that are not are searched for within `max_cpu_seconds` (120 s
    where there is none). Several members are draws from the posterior, the first is its mean. In a folder the posterior lies beside the
    potential.
    """
    from naica.potential.fit import concluded

    config, began = material.config, time.process_time()
    rows = np.union1d(material.cut.train, material.cut.validation)
    fixed: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in config.architecture_config.items()}
    fixed.pop("elements", None)
    found, tried = search(examples_of(material.frames.take(rows)), seconds=config.max_cpu_seconds or _SECONDS, progress=progress, **fixed)
    if folder is not None:
        found.save(folder / POSTERIOR)
    members = [found.model, *found.committee(config.members - 1, config.seed)] if config.members > 1 else [found.model]
    record = {"seed": config.seed, "cpu_seconds": round(time.process_time() - began, 2), "tried": len(tried), **found.report()}
    settled = config.replace(architecture_config=dict(found.model.architecture_config), parts=found.model.parts, precision="64")
    examples = Examples.build(material.frames, found.model.needs)
    whole = replace(material, config=settled, examples=replace(examples, rejected=material.examples.rejected))
    return concluded(whole, members, [record] * len(members), name)
