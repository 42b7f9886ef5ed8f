"""A baseline that sees the composition alone: ridge regression on fractions of the elements and on statistics of what is known of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def features(table: Any) -> Array:
    """(n, d) of a table: the fraction of each element, and mean, spread, least and largest of five element properties.

    The properties: group, period, electronegativity (Pauling's; the mean of the known ones where he gave none), covalent radius, mass.
    """
    from naica.structure.elements import table as elements

    counts, numbers, _, _, _ = table.flat()
    owner = np.repeat(np.arange(len(counts)), counts)
    known = np.zeros((104, 5))
    negativities = [e.electronegativity for e in elements() if e.electronegativity is not None]
    for e in elements():
        negativity = np.mean(negativities) if e.electronegativity is None else e.electronegativity
        known[e.number] = (e.group, e.period, negativity, e.covalent_radius, e.mass)
    fractions = np.zeros((len(counts), 104))
    np.add.at(fractions, (owner, numbers), 1.0 / counts[owner])
    values = known[numbers]
    mean = fractions @ known
    spread = np.sqrt(np.maximum(fractions @ known**2 - mean**2, 0.0))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    least, largest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return np.concatenate([fractions[:, fractions.any(axis=0)], mean, spread, least, largest], axis=1)


def predict(table: Any, rows: NDArray[np.int64], values: Array, wanted: NDArray[np.int64]) -> Array:
    """Learn from `rows` with `values`, predict `wanted`; scales of the two groups of features and the noise by the evidence."""
    from naica.training.ridge import fit_ridge

    everything = features(table)
    centre, scale = everything[rows].mean(axis=0), everything[rows].std(axis=0)
    # an element that no training row has tells nothing
    alive = scale > 1e-9
    scaled = (everything[:, alive] - centre[alive]) / scale[alive]
    groups = np.where(np.arange(alive.sum()) < alive.sum() - alive[-20:].sum(), 0, 1).astype(np.int64)
    middle = float(values.mean())
    ridge, _ = fit_ridge(scaled[rows], values - middle, groups, float(values.std()) or 1.0)
    return middle + ridge.mean(scaled[wanted])
