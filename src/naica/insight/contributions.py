"""What each element contributes where: site values, averaged per element and site (Xie & Grossman, Phys. Rev. Lett. 120, 145301, 2018).

In a linearly pooled model the prediction of a crystal is the mean of one number per site; the mean of that number over all crystals in
which an element sits on a site is what the element is worth there. Other models' predictions are shared out by `naica.insight.attribution`.
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
    from naica.insight.attribution import Method
    from naica.training.ensemble import Ensemble


@dataclass(frozen=True)
class SiteValues:
    """Contributions of all usable sites.

    Value (N,) in the quantity's unit per site (mean over members: the shares of a median would not add up), atomic number (N,), row of the
    table (N,), place of the site in its crystal (N,); the rows that could have no graph, with the reason; the values of each member (M, N);
    how they were found; and by how much (largest, quantity's unit) predictions miss reference + mean over the sites.
    """

    value: NDArray[np.float64]
    number: NDArray[np.int64]
    row: NDArray[np.int64]
    place: NDArray[np.int64]
    rejected: dict[int, str]
    members: NDArray[np.float64] | None = None
    method: str = "exact"
    gap: float = 0.0


@dataclass(frozen=True)
class Contribution:
    """An element on a kind of site: mean contribution, its standard error, and from how many sites of how many crystals it comes."""

    element: str
    site: str
    mean: float
    standard_error: float
    sites: int
    crystals: int


def site_values(ensemble: Ensemble, table: CrystalTable, batch_size: int = 256, method: Method = "auto") -> SiteValues:
    """The contribution of every site of every crystal, by the method `naica.insight.attribution.method_for` picks or the one asked for.

    Models of the composition alone have a node for each element of a crystal where others have its atoms.

    Raises
    ------
    InputError
        If no crystal of the table can have a graph, and as `naica.insight.attribution.shares` does.
    """
    from naica.graphs.graphset import GraphSet
    from naica.insight.attribution import places, shares

    graphs = GraphSet.build(table, ensemble.needs)
    rows = graphs.usable
    if not len(rows):
        raise InputError("no crystal of the table can have a graph: there are no sites to look at")
    found, number, row, place = [], [], [], []
    for at in range(0, len(rows), batch_size):
        some = rows[at : at + batch_size]
        batch = graphs.batch(some)
        found.append(shares(ensemble, batch, method))
        number.append(batch["number"].numpy())
        row.append(some[batch["system"].numpy()])
        place.append(places(batch).numpy())
    members = np.concatenate([one.value for one in found], axis=1)
    numbers, rows, places_ = (np.concatenate(part) for part in (number, row, place))
    gap = max(one.gap for one in found)
    return SiteValues(members.mean(axis=0), numbers, rows, places_, dict(graphs.rejected), members, found[0].method, gap)


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
