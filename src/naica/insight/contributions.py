"""What each element contributes where: site values of linearly pooled models, averaged per element and site (Xie & Grossman 2018).

In such a model the prediction of a crystal is the mean of one number per site; the mean of that number over all crystals in which an
element sits on a site is what the element is worth there (Phys. Rev. Lett. 120, 145301, Fig. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.structure.elements import symbol

if TYPE_CHECKING:
    from naica.data import CrystalTable
    from naica.training.ensemble import Ensemble


@dataclass(frozen=True)
class SiteValues:
    """Contributions of all usable sites.

    Value (N,) in the quantity's unit (median over members), atomic number (N,), row of the table (N,), place of the site in its crystal
    (N,); and the rows that could have no graph, with the reason.
    """

    value: NDArray[np.float64]
    number: NDArray[np.int64]
    row: NDArray[np.int64]
    place: NDArray[np.int64]
    rejected: dict[int, str]


@dataclass(frozen=True)
class Contribution:
    """An element on a kind of site: mean contribution, its standard error, and from how many sites of how many crystals it comes."""

    element: str
    site: str
    mean: float
    standard_error: float
    sites: int
    crystals: int


def site_values(ensemble: Ensemble, table: CrystalTable, batch_size: int = 256) -> SiteValues:
    """The contribution of every site of every crystal.

    Raises
    ------
    InputError
        If the model does not pool per-site numbers, or no crystal of the table can have a graph.
    """
    from naica.graphs.graphset import GraphSet

    graphs = GraphSet.build(table, ensemble.needs)
    rows = graphs.usable
    if not len(rows):
        raise InputError("no crystal of the table can have a graph: there are no sites to look at")
    parts = [
        np.median(ensemble.sites(graphs.batch(rows[at : at + batch_size])), axis=0).reshape(-1) for at in range(0, len(rows), batch_size)
    ]
    counts, numbers, _, _, _ = table.flat()
    owner = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    usable = np.isin(owner, rows)
    return SiteValues(np.concatenate(parts), numbers[usable].astype(np.int64), owner[usable], place[usable], dict(graphs.rejected))


def by_element(values: SiteValues, sites: Sequence[str] | NDArray[Any] | None = None, min_crystals: int = 1) -> list[Contribution]:
    """Mean contribution per element (and kind of site), lowest first.

    Parameters
    ----------
    values : of `site_values`
    sites : kind of each site (N,), for example "A", "B" and "X" of perovskites; default: all sites alike
    min_crystals : combinations seen in fewer crystals are left out

    Standard errors count crystals, not sites, as independent (cluster-robust: sites of one crystal are alike); NaN for a single crystal.

    Raises
    ------
    InputError
        If `sites` has another length than the values.
    """
    kinds = np.full(len(values.value), "") if sites is None else np.asarray(sites, dtype=str)
    if len(kinds) != len(values.value):
        raise InputError(f"{len(kinds)} kinds of site for {len(values.value)} sites; expected one for each site of the usable crystals")
    found = []
    for number, kind in sorted(set(zip(values.number.tolist(), kinds.tolist(), strict=True))):
        chosen = (values.number == number) & (kinds == kind)
        mean, error, crystals = _mean_of_clusters(values.value[chosen], values.row[chosen])
        if crystals >= min_crystals:
            found.append(Contribution(symbol(number), str(kind), mean, error, int(chosen.sum()), crystals))
    return sorted(found, key=lambda c: c.mean)


def _mean_of_clusters(values: NDArray[np.float64], cluster: NDArray[np.int64]) -> tuple[float, float, int]:
    """Mean of all values, its cluster-robust standard error with the small-sample factor G/(G−1), and the number G of clusters."""
    names, member = np.unique(cluster, return_inverse=True)
    mean, groups = float(values.mean()), len(names)
    if groups < 2:
        return mean, float("nan"), groups
    sums = np.bincount(member.ravel(), weights=values - mean)
    return mean, float(np.sqrt(groups / (groups - 1) * np.sum(sums**2)) / len(values)), groups


def as_rows(contributions: Sequence[Contribution]) -> list[dict[str, Any]]:
    """Plain rows for a table or a page."""
    return [asdict(c) for c in contributions]
