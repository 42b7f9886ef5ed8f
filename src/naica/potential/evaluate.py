"""Measuring a potential on labelled frames: by field, element and group; directions of forces; what a committee's spread is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from naica.data import CrystalTable, Level
from naica.errors import InputError, LevelError
from naica.graphs.spec import GraphSpec
from naica.potential.derivatives import Evaluation as Evaluated
from naica.potential.examples import Examples
from naica.potential.frames import UNKNOWN, Frames, frames
from naica.potential.measure import Told, errors_of, tell
from naica.potential.saved import Potential, read_potential
from naica.structure.elements import symbol

Array = NDArray[np.float64]
_LEAST_FORCE = 0.05  # eV/Å; the direction of a smaller force is noise
_MOST_COSINES = 1e-12


@dataclass(frozen=True, eq=False)
class Judgement:
    """How good a potential is on some frames.

    Parameters
    ----------
    errors : over all frames; see `naica.potential.measure.errors_of`
    elements : errors of forces (mae, rmse; eV/Å) and number of atoms by symbol
    groups : errors by the frames' group, where they have one
    cosine : mean cosine between predicted and labelled forces beyond 0.05 eV/Å, and the share of them within 10 degrees
    spread : of a committee: ``rank`` (Spearman's correlation of an atom's force spread with its force error), ``factor`` (root mean square
        error over root mean square spread: 1 where the spread is as large as the error), ``within_1``, ``within_2`` (share of force
        components within one and two spreads, each component having a third of the variance; 0.68 and 0.95 if it were Gaussian and right)
    told : everything, for pictures
    rejected : frames left out, and why
    """

    errors: Mapping[str, float]
    elements: Mapping[str, Mapping[str, float]]
    groups: Mapping[str, Mapping[str, float]]
    cosine: Mapping[str, float]
    spread: Mapping[str, float]
    told: Told
    rejected: tuple[Any, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without the single predictions."""
        names = ("errors", "elements", "groups", "cosine", "spread")
        return {name: dict(getattr(self, name)) for name in names} | {"left_out": len(self.rejected)}


def evaluate(
    model: Potential | str | Path,
    source: str | Path | Sequence[str | Path] | CrystalTable | Frames,
    part: str | None = None,
    level: Level | None = None,
    fidelity: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Judgement:
    """Measure a potential on labelled frames.

    Parameters
    ----------
    model : a potential or its folder
    source : frames, or what `naica.potential.frames.frames` reads
    part : ``train`` or ``test`` of a published split; None: all frames
    level : of theory, where the source does not say
    fidelity : compare with labels of another level of theory all the same
    dtype : precision of the computation

    Raises
    ------
    LevelError
        If the labels are of another level than the potential's.
    InputError
        If no frame is left, or frames have elements the potential never saw.
    """
    potential = read_potential(model) if isinstance(model, str | Path) else model
    given = source if isinstance(source, Frames) else frames(source, level, fidelity=True)
    if part is not None:
        given = given.part(part)
        if not len(given):
            raise InputError(f"the source has no frames in a part {part!r}; drop --part, or name a set with a published split")
    _check(potential, given, fidelity)
    learned = potential.learned(dtype)
    needs = max((member.needs for member in potential.members), key=lambda spec: spec.cutoff)
    return judged(learned.evaluate, _at_the_models_levels(potential, given), needs, dtype)


def judged(compute: Callable[[Any], Evaluated], given: Frames, needs: GraphSpec, dtype: torch.dtype = torch.float32) -> Judgement:
    """The same for anything that computes batches, without looking at cards."""
    examples = Examples.build(given, needs)
    told = tell(compute, examples, dtype=dtype)
    return Judgement(
        errors_of(told),
        _by_element(told),
        _by_group(told, given),
        _cosines(told),
        _spread(told),
        told,
        examples.rejected,
    )


def _check(potential: Potential, given: Frames, fidelity: bool) -> None:
    unseen = [symbol(z) for z in given.elements if potential.card.elements and symbol(z) not in potential.card.elements]
    if unseen:
        raise InputError(f"frames hold {', '.join(unseen)}, which the potential never saw; it knows {', '.join(potential.card.elements)}")
    spoken = potential.card.levels or (potential.card.speaking,)
    foreign = [name for name in given.levels if name != UNKNOWN and name not in spoken and not _alike(name, potential)]
    if foreign and not fidelity and UNKNOWN not in spoken:
        raise LevelError(
            f"the labels are of level {', '.join(foreign)}, the potential speaks {', '.join(spoken)}; energies do not compare. "
            "Pass fidelity=True (--fidelity) to compare all the same"
        )


def _alike(name: str, potential: Potential) -> bool:
    """Levels that differ in the code alone are one method."""
    own = potential.card.level_of_theory
    return own is not None and name.partition(" [")[0] == str(own).partition(" [")[0]


def _at_the_models_levels(potential: Potential, given: Frames) -> Frames:
    """Frames whose level numbers are the potential's; those it does not speak are asked at its default level."""
    names = potential.card.levels or (potential.card.speaking,)
    place = np.array([names.index(n) if n in names else potential.card.speaks for n in given.levels], dtype=np.int64)
    return Frames(given.table, given.labels, given.levels, place[given.level], given.level_of_theory, given.rejected)


def _force_errors(told: Told) -> tuple[Array, Array, NDArray[np.int64]] | None:
    """Labels (n, 3), errors (n, 3) and atomic numbers (n) of the atoms with a labelled force."""
    if "forces" not in told.wanted:
        return None
    known = np.isfinite(told.wanted["forces"]).all(axis=1)
    if not known.any():
        return None
    label = told.wanted["forces"][known]
    return label, told.said["forces"][known] - label, told.numbers[known]


def _by_element(told: Told) -> dict[str, dict[str, float]]:
    found = _force_errors(told)
    if found is None:
        return {}
    _, error, numbers = found
    return {
        symbol(int(z)): {
            "forces_mae": float(np.abs(error[numbers == z]).mean()),
            "forces_rmse": float(np.sqrt((error[numbers == z] ** 2).mean())),
            "n_atoms": float((numbers == z).sum()),
        }
        for z in np.unique(numbers)
    }


def _by_group(told: Told, given: Frames) -> dict[str, dict[str, float]]:
    names = np.array(given.text("group"))[told.rows]
    if not any(names) or len(set(names)) < 2:
        return {}
    return {str(name) or "no group": errors_of(told.frames(names == name)) for name in np.unique(names)}


def _cosines(told: Told) -> dict[str, float]:
    found = _force_errors(told)
    if found is None:
        return {}
    label, error, _ = found
    size = np.linalg.norm(label, axis=1)
    large = size > _LEAST_FORCE
    if not large.any():
        return {}
    said = (label + error)[large]
    cosine = (said * label[large]).sum(1) / np.maximum(np.linalg.norm(said, axis=1) * size[large], _MOST_COSINES)
    return {"mean": float(cosine.mean()), "within_10_degrees": float((cosine > np.cos(np.radians(10))).mean()), "n": float(large.sum())}


def _spread(told: Told) -> dict[str, float]:
    if told.sigma is None or "forces" not in told.wanted:
        return {}
    known = np.isfinite(told.wanted["forces"]).all(axis=1)
    error = (told.said["forces"] - told.wanted["forces"])[known]
    size, sigma = np.linalg.norm(error, axis=1), told.sigma[known]
    if len(size) < 3 or not sigma.any():
        return {}
    each = sigma[:, None] / np.sqrt(3)
    inside = [float((np.abs(error) <= k * each).mean()) for k in (1, 2)]
    rank = float(spearmanr(sigma, size).statistic)
    factor = float(np.sqrt((size**2).mean() / (sigma**2).mean()))
    return {"rank": rank, "factor": factor, "within_1": inside[0], "within_2": inside[1], "n": float(len(size))}
