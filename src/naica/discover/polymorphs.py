"""Polymorphs: which of many structures of one composition are really different, and which stands for each group.

The matcher's verdict is not transitive, so components of its graph chain through intermediates (Merchant et al. 2023 use them) and grow
with the number of structures. Here the distances are clustered: complete linkage, cut where the matcher's tolerance ends, so that *all*
pairs of a cluster match each other. The whole matrix of distances is kept; another cut needs no new matching.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.match import MATCH, structure_distance

Floats = NDArray[np.float64]
REACH = 0.5


@dataclass(frozen=True)
class Polymorph:
    """One structure type among those of a formula.

    `representative` is the row of lowest energy (without energies: the row nearest to the others), `members` all rows, `spread` the largest
    displacement between two of them, in units of (V/N)^(1/3).
    """

    formula: str
    representative: int
    members: tuple[int, ...]
    spread: float


@dataclass(frozen=True, eq=False)
class Polymorphs:
    """Clusters of crystals, those of lowest energy first within a formula.

    Attributes
    ----------
    clusters : in order of formula, then energy (without energies: of first member)
    rows, distances : for each formula the rows compared (n) and the largest displacements between them (n, n), infinite beyond 0.5
    """

    clusters: tuple[Polymorph, ...]
    rows: dict[str, tuple[int, ...]]
    distances: dict[str, Floats]

    @property
    def representatives(self) -> tuple[int, ...]:
        """One row for each cluster."""
        return tuple(c.representative for c in self.clusters)


def polymorphs(crystals: Sequence[Crystal], energies: Sequence[float] | None = None, cut: float = MATCH, most: int = 100) -> Polymorphs:
    """Cluster crystals of equal formula by how far apart the matcher finds them.

    Parameters
    ----------
    crystals : of any formulas; only equal ones are compared
    energies : eV/atom, one each; the lowest of a cluster represents it
    cut : largest displacement within a cluster, in units of (V/N)^(1/3); 0.3 is the matcher's own tolerance
    most : structures of one formula that are compared at most, lowest energies first (else in their order): n of them are n²/2 matches, at
        some hundred a second. The others are in no cluster

    Raises
    ------
    InputError
        If energies are not one finite number for each crystal, or `cut` lies outside of (0, 0.5].
    """
    if not 0 < cut <= REACH:
        raise InputError(f"cut = {cut}; expected above 0 and at most {REACH}, beyond which the matcher does not look")
    values = np.zeros(len(crystals)) if energies is None else np.asarray(energies, dtype=np.float64)
    if values.shape != (len(crystals),) or not np.isfinite(values).all():
        raise InputError(f"{values.size} energies for {len(crystals)} crystals; expected one finite number in eV/atom for each")
    by_formula: dict[str, list[int]] = defaultdict(list)
    for row in np.argsort(values, kind="stable").tolist():
        by_formula[crystals[row].formula].append(row)
    clusters: list[Polymorph] = []
    chosen, matrices = {}, {}
    for formula, every in sorted(by_formula.items()):
        rows = every[:most]
        far = _distances([crystals[r] for r in rows])
        chosen[formula], matrices[formula] = tuple(rows), far
        for members in _linked(far, cut):
            best = min(members) if energies is not None else min(members, key=lambda k: (far[k, members].sum(), k))
            spread = float(far[np.ix_(members, members)].max())
            clusters.append(Polymorph(formula, rows[best], tuple(sorted(rows[k] for k in members)), spread))
    return Polymorphs(tuple(clusters), chosen, matrices)


def _distances(crystals: Sequence[Crystal]) -> Floats:
    n = len(crystals)
    far = np.full((n, n), np.inf)
    np.fill_diagonal(far, 0.0)
    for i in range(n):
        for j in range(i + 1, n):
            found = structure_distance(crystals[i], crystals[j], REACH)
            if found is not None:
                far[i, j] = far[j, i] = found[1]
    return far


def _linked(far: Floats, cut: float) -> list[list[int]]:
    """Members of each cluster, clusters in order of their first member (rows come in order of energy)."""
    if len(far) == 1:
        return [[0]]
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    finite = np.where(np.isfinite(far), far, 10.0)
    labels = fcluster(linkage(squareform(finite, checks=False), "complete"), cut, "distance")
    found: dict[int, list[int]] = {}
    for k, label in enumerate(labels.tolist()):
        found.setdefault(label, []).append(k)
    return list(found.values())
