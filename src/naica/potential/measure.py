"""What a potential says of labelled frames, and how far it is off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from naica.graphs.batch import Batch
from naica.potential.derivatives import Evaluation
from naica.potential.examples import Examples, Rows, steps

Array = NDArray[np.float64]
GPA = 160.21766208
"""GPa in one eV/Å³."""
_PER_SYSTEM = ("energy", "stress")


@dataclass(frozen=True, eq=False)
class Told:
    """Predictions (what `Evaluation` holds, as flat arrays) beside the labels of the same rows; only fields that have labels.

    Parameters
    ----------
    rows : of the examples
    counts : atoms of each
    numbers : (N) atomic numbers
    volume_per_atom : (B) Å³
    said, wanted : by field, of the same shapes; NaN in `wanted` where there is no label
    sigma : (N) eV/Å spread of a committee's forces, if there is a committee
    """

    rows: Rows
    counts: Rows
    numbers: Rows
    volume_per_atom: Array
    said: Mapping[str, Array]
    wanted: Mapping[str, Array]
    sigma: Array | None = None

    @property
    def owner(self) -> Rows:
        """(N) place of each atom's frame."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def frames(self, chosen: NDArray[np.bool_]) -> Told:
        """Some of the frames, by a mask."""
        atoms = chosen[self.owner]

        def part(values: Mapping[str, Array]) -> dict[str, Array]:
            return {name: value[chosen if name in _PER_SYSTEM else atoms] for name, value in values.items()}

        sigma = None if self.sigma is None else self.sigma[atoms]
        return Told(
            self.rows[chosen],
            self.counts[chosen],
            self.numbers[atoms],
            self.volume_per_atom[chosen],
            part(self.said),
            part(self.wanted),
            sigma,
        )


def tell(compute: Callable[[Batch], Evaluation], examples: Examples, max_edges: int = 100_000, dtype: torch.dtype = torch.float32) -> Told:
    """Evaluate a potential on the rows in use of some examples, so many edges at a time."""
    rows, frames = examples.rows, examples.frames
    counts = frames.counts[rows]
    fields = list(frames.labels)
    said: dict[str, list[Array]] = {name: [] for name in fields}
    wanted: dict[str, list[Array]] = {name: [] for name in fields}
    sigma: list[Array] = []
    numbers = []
    for part in steps(examples.cost(rows), counts, 64, max_edges, balanced=False):
        batch, labels = examples.batch(rows[part], dtype)
        found = compute(batch)
        numbers.append(batch["number"].numpy())
        if "force_sigma" in found.atoms:
            sigma.append(found.atoms["force_sigma"].double().numpy())
        for name in fields:
            value = found.atoms.get(name) if name in ("magmom", "charge") else getattr(found, name)
            label = getattr(labels, name).double().numpy()
            said[name].append(np.full(label.shape, np.nan) if value is None else value.double().cpu().numpy())
            wanted[name].append(np.abs(label) if name == "magmom" else label)
    joined = {name: np.concatenate(values) for name, values in said.items()}
    labelled = {name: np.concatenate(values) for name, values in wanted.items()}
    spread = np.concatenate(sigma) if sigma else None
    per_atom = frames.volumes[rows] / counts
    return Told(rows, counts, np.concatenate(numbers).astype(np.int64), per_atom, joined, labelled, spread)


def errors_of(told: Told) -> dict[str, float]:
    """Mean absolute and root-mean-square errors by field: energy (eV/atom), forces (eV/Å, over components), stress (eV/Å³), virial per
    atom (eV), magmom (μ_B), charge (e); fields without labels are not there. `n_frames` and `n_atoms` say over how many.
    """
    found: dict[str, float] = {"n_frames": float(len(told.rows)), "n_atoms": float(told.counts.sum())}
    for name, wanted in told.wanted.items():
        error = told.said[name] - wanted
        if name == "energy":
            error = error / told.counts
        if name == "stress":
            with np.errstate(invalid="ignore"):
                found |= _both("virial", error * told.volume_per_atom[:, None, None])
        found |= _both(name, error)
    return found


def _both(name: str, error: Array) -> dict[str, float]:
    known = error[np.isfinite(error)]
    if not known.size:
        return {}
    return {f"{name}_mae": float(np.abs(known).mean()), f"{name}_rmse": float(np.sqrt((known**2).mean()))}


def promise(told: Told, share: float = 0.9) -> dict[str, float]:
    """Half-widths that hold so many of held-out labels, by split conformal prediction: ``energy`` (eV/atom) and ``force`` (length, eV/Å).

    The rank is that of `n` scores, ⌈(n + 1) · share⌉, so that the promise is kept for one more frame of the same kind. With too few frames
    for the rank there is none.
    """
    found: dict[str, float] = {}
    scores = {}
    if "energy" in told.wanted:
        scores["energy"] = np.abs(told.said["energy"] - told.wanted["energy"]) / told.counts
    if "forces" in told.wanted:
        scores["force"] = np.linalg.norm(told.said["forces"] - told.wanted["forces"], axis=1)
    for name, values in scores.items():
        known = np.sort(values[np.isfinite(values)])
        rank = int(np.ceil((len(known) + 1) * share))
        if 1 <= rank <= len(known):
            found[name] = float(known[rank - 1])
    return found
