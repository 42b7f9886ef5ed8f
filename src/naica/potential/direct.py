"""DIRECT sampling: frames that cover a set evenly in the space of their features.

Qi et al., npj Comput. Mater. 10, 43 (2024): standardise, principal components with an eigenvalue above 1 (Kaiser's rule), each weighted
with its share of the variance, BIRCH clusters, some frames of each cluster. How well a choice covers the set is measured by the share of
the bins of each component's histogram that the choice also occupies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from naica.errors import InputError, MissingPart
from naica.potential.examples import Examples, steps
from naica.potential.frames import Frames
from naica.potential.references import amounts

if TYPE_CHECKING:
    from naica.potential.saved import Potential

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Selection = Literal["center", "random", "smallest"]
_CONSTANT = 1e-10
_BINS = 100
_RANDOM_DRAWS = 20
_MOST_FITS = 60


@dataclass(frozen=True, eq=False)
class Sample:
    """What was chosen.

    Parameters
    ----------
    rows : chosen rows, in increasing order
    labels : (B) cluster of every row
    components : principal components kept
    variance : share of the variance in them
    threshold : of BIRCH, as it was in the end
    coverage, random_coverage : of this choice, and the mean of 20 random ones of the same size
    """

    rows: Rows
    labels: Rows
    components: int
    variance: float
    threshold: float
    coverage: float
    random_coverage: float

    @property
    def clusters(self) -> int:
        """How many clusters have members."""
        return len(np.unique(self.labels))


def direct(
    features: Array,
    n: int | None = None,
    per_cluster: int = 1,
    threshold: float = 0.5,
    weighted: bool = True,
    select: Selection = "center",
    sizes: Rows | None = None,
    seed: int = 0,
) -> Sample:
    """Choose rows that cover all rows.

    Parameters
    ----------
    features : (B, F) numbers
    n : clusters; None takes what BIRCH finds at the threshold
    per_cluster : rows of each cluster (fewer where it has fewer)
    threshold : radius below which BIRCH merges; lowered until there are n clusters
    weighted : multiply each component by its share of the variance
    select : ``center`` takes rows at evenly spaced ranks of the distance from the cluster's centre, beginning with the nearest;
        ``random``; ``smallest`` the frames with the fewest atoms (`sizes`)
    sizes : (B) atoms, for ``smallest``
    seed : of ``random``, and of the random choices that coverage is compared with

    Raises
    ------
    InputError
        If features are not finite, or more clusters are wanted than there are different rows.
    MissingPart
        If scikit-learn is not installed.
    """
    if select not in get_args(Selection) or (select == "smallest" and sizes is None):
        raise InputError(f"select {select!r}; expected {', '.join(get_args(Selection))}, and sizes for smallest")
    space, components, variance = principal(features, weighted)
    if n is not None and n > len(np.unique(space, axis=0)):
        raise InputError(f"{n} clusters wanted of {len(np.unique(space, axis=0))} different frames; ask for fewer")
    labels, used = _clusters(space, n, threshold)
    draw = np.random.default_rng(seed)
    chosen = np.sort(
        np.concatenate([_picked(space, np.flatnonzero(labels == c), per_cluster, select, sizes, draw) for c in np.unique(labels)])
    )
    by_chance = [coverage(space, draw.permutation(len(space))[: len(chosen)]) for _ in range(_RANDOM_DRAWS)]
    return Sample(chosen, labels, components, variance, used, coverage(space, chosen), float(np.mean(by_chance)))


def principal(features: Array, weighted: bool = True) -> tuple[Array, int, float]:
    """Features in their principal components with an eigenvalue above 1: (B, m), m, and the share of the variance they hold."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise InputError(f"features of shape {features.shape}; expected finite numbers for at least two frames")
    spread = features.std(axis=0)
    varies = spread > _CONSTANT * np.maximum(np.abs(features).max(axis=0), 1.0)
    if not varies.any():
        raise InputError("all frames have the same features; give a potential to take features from (--model), or other frames")
    standard = (features[:, varies] - features[:, varies].mean(axis=0)) / spread[varies]
    _, singular, right = np.linalg.svd(standard, full_matrices=False)
    eigenvalues = singular**2 / (len(features) - 1)
    kept = max(int((eigenvalues > 1).sum()), 1)
    ratio = eigenvalues / eigenvalues.sum()
    # the sign of a component is a choice of the decomposition; the first large loading is made positive, so that scaling changes nothing
    signs = np.sign(right[np.arange(kept), np.abs(right[:kept]).argmax(axis=1)])
    space = standard @ (right[:kept] * signs[:, None]).T
    return (space * ratio[:kept] if weighted else space), kept, float(ratio[:kept].sum())


def _clusters(space: Array, n: int | None, threshold: float) -> tuple[Rows, float]:
    birch = _birch()
    if n is None:
        return np.asarray(birch(threshold=threshold, n_clusters=None).fit_predict(space), dtype=np.int64), threshold
    if n == 1:
        return np.zeros(len(space), np.int64), threshold
    for _ in range(_MOST_FITS):
        found = len(birch(threshold=threshold, n_clusters=None).fit(space).subcluster_centers_)
        if found >= n:
            return np.asarray(birch(threshold=threshold, n_clusters=n).fit_predict(space), dtype=np.int64), threshold
        threshold *= min(found / n, 0.9)
    raise InputError(f"BIRCH finds only {found} of {n} clusters; ask for fewer")


def _birch() -> Any:
    try:
        from sklearn.cluster import Birch
    except ModuleNotFoundError as error:
        raise MissingPart(
            f"DIRECT sampling clusters with scikit-learn, which is not installed ({error}); pip install 'naica[sampling]'"
        ) from error
    return Birch


def _picked(space: Array, members: Rows, k: int, select: Selection, sizes: Rows | None, draw: np.random.Generator) -> Rows:
    if k >= len(members):
        return members
    if select == "random":
        return draw.choice(members, k, replace=False)
    if select == "smallest":
        assert sizes is not None
        return members[np.argsort(sizes[members], kind="stable")[:k]]
    distance = np.linalg.norm(space[members] - space[members].mean(axis=0), axis=1)
    order = np.argsort(np.round(distance, 10), kind="stable")
    return members[order[np.linspace(0, len(members) - 1, k).astype(np.int64)]]


def coverage(space: Array, chosen: Rows, bins: int = _BINS) -> float:
    """Share of the bins of each component's histogram that the chosen rows occupy too, averaged over the components; 1 is complete."""
    shares = []
    for values in np.asarray(space, dtype=np.float64).T:
        edges = np.linspace(values.min(), values.max(), bins + 1)
        place = np.clip(np.digitize(values, edges) - 1, 0, bins - 1)
        shares.append(len(np.unique(place[chosen])) / len(np.unique(place)))
    return float(np.mean(shares))


# --- features ----------------------------------------------------------------------------------------------------------------------------
def composition_features(frames: Frames) -> Array:
    """(B, F) Shares of the elements, and the logarithm of the volume per atom where all frames are periodic."""
    table = amounts(frames, np.arange(len(frames)), frames.elements)
    shares = table / table.sum(axis=1, keepdims=True)
    volumes = frames.volumes / frames.counts
    return np.column_stack([shares, np.log(volumes)]) if np.isfinite(volumes).all() else shares


@torch.no_grad()
def model_features(potential: Potential, frames: Frames) -> Array:
    """(B, F) Mean and spread of the atom features that a potential's network makes of each frame."""
    model = potential.members[0].float().eval()
    examples = Examples.build(frames, model.needs)
    if len(examples) < len(frames):
        raise InputError(f"{len(frames) - len(examples)} frames can have no graph; first: {examples.rejected[0].reason}")
    rows, found = examples.rows, []
    for part in steps(examples.cost(rows), frames.counts[rows], 64, 100_000, balanced=False):
        batch, _ = examples.batch(rows[part])
        features: torch.Tensor = model.backbone(batch)["atom"].double()
        n = batch["n_atoms"][:, None].double()
        empty = features.new_zeros(batch.n_systems, features.shape[1])
        mean = empty.index_add(0, batch["system"], features) / n
        square = empty.index_add(0, batch["system"], (features - mean[batch["system"]]) ** 2) / n
        found.append(torch.cat([mean, square.sqrt()], dim=1).numpy())
    return np.concatenate(found)
