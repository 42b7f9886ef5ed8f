"""What each element is worth on each kind of site, and the rule that follows (Xie & Grossman, Phys. Rev. Lett. 120, 145301, 2018).

A network that predicts the mean of one number per site is trained on a part of a table. On crystals it has not seen, the numbers are
averaged per element and kind of site. From the training rows alone, a rule for low values is mined; the held-out rows say how much it
enriches them.

Two things such a map cannot say by itself are measured: whether another network would say the same (a number moved from all A to all B
sites changes no prediction), and whether the map follows the labels (mean label of the held-out crystals with that element there).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.data.splits import Split, split
from naica.errors import InputError
from naica.insight.contributions import Contribution, SiteValues, by_element, site_values
from naica.insight.rules import Judged, Kinds, Mined, Rule, judge, mine
from naica.insight.sites import kinds_of_sites
from naica.training.config import TrainConfig

if TYPE_CHECKING:
    from naica.training.ensemble import Ensemble


@dataclass(frozen=True)
class StudySettings:
    """How the study is made.

    Parameters
    ----------
    columns : columns of the table that name the element on a kind of site, the roomiest kind first
    rest : name of the other sites
    threshold : values up to this one are hits (unit of the column)
    fractions : of training, validation and held-out rows, whole compositions on one side
    seed : of the split
    min_share, price : of `naica.insight.rules.mine`
    """

    columns: tuple[str, str] = ("A", "B")
    rest: str = "X"
    threshold: float = 0.2
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    seed: int = 0
    min_share: float = 0.01
    price: float = 0.1


@dataclass(frozen=True)
class SiteMap:
    """One kind of site: what each element is worth there, and what to make of it.

    Parameters
    ----------
    kind : of site
    contributions : lowest first
    spread : by element, standard deviation between the networks once each one's mean over elements is taken off; empty for one network
    labels : by element, mean label times atoms of the held-out crystals that have it there, over that of all: a map without a network
    between_networks : lowest correlation of two networks' maps (NaN for one network)
    with_labels : correlation of the map with `labels`
    """

    kind: str
    contributions: tuple[Contribution, ...]
    spread: Mapping[str, float]
    labels: Mapping[str, float]
    between_networks: float
    with_labels: float

    @property
    def centre(self) -> float:
        """Mean over the elements."""
        return float(np.mean([c.mean for c in self.contributions]))


@dataclass(frozen=True)
class Study:
    """All that was found; `rules` are the mined one and those it is compared with, on training and on held-out rows."""

    unit: str
    quantity: str
    maps: tuple[SiteMap, ...]
    mined: Mined
    rules: Mapping[str, tuple[Judged, Judged]]
    rows: Mapping[str, int]
    metrics: Mapping[str, Any]
    exactness: float
    networks: int
    settings: StudySettings = field(default_factory=StudySettings)


def default_training(epochs: int = 40, members: int = 2, seed: int = 0) -> TrainConfig:
    """CGCNN with per-site numbers, as trained for the perovskites: two networks of 40 epochs take about 5 minutes on one core."""
    return TrainConfig.from_dict(
        {
            "architecture": "cgcnn",
            "architecture_config": {"width": 64, "layers": 3, "atoms": "described"},
            "head": {"pooling": "sites"},
            "epochs": epochs,
            "members": members,
            "seed": seed,
            "batch_size": 64,
            "learning_rate": 4e-3,
            "weight_decay": 1e-3,
            "loss": "l1",
            "ema": 0.999,
            "tensorboard": False,
        }
    )


def study(
    table: CrystalTable,
    column: str,
    out: Path,
    settings: StudySettings | None = None,
    training: TrainConfig | None = None,
    model: Ensemble | None = None,
    beside: Mapping[str, Rule] | None = None,
    progress: bool = True,
) -> Study:
    """Train (or take a model that was trained on just these rows), look at the held-out sites, mine a rule and judge it.

    Parameters
    ----------
    table, column : crystals with the columns that name the elements on the sites, and the label
    out : run folder; a started training goes on, a finished one is read
    settings, training : default `StudySettings()`, `default_training()`
    model : a model to look at instead of training one
    beside : further rules to judge, by name
    progress : show a progress bar of the training

    Raises
    ------
    InputError
        If a site column is missing, `model` has no exact contributions or learned from other rows, or no row is a hit.
    """
    settings = settings or StudySettings()
    training = training or default_training()
    kinds_of_sites(table, settings.columns, settings.rest)  # a table that cannot be studied is refused before hours of training
    parts = split(table, "composition", settings.fractions, settings.seed)
    ensemble = _trained(table, column, out, training, parts, progress) if model is None else _checked(model, table, column, parts)
    values = np.asarray(table.column(column), dtype=float)
    held, learned = parts.test[np.isfinite(values[parts.test])], parts.train[np.isfinite(values[parts.train])]
    maps, exactness = _maps(ensemble, table.take(held), values[held], settings)
    on_training = _maps(ensemble, table.take(learned), values[learned], settings)[0]
    rankings = {m.kind: [c.element for c in m.contributions] for m in on_training}
    sites = {name: table.column(name).astype(str) for name in settings.columns}
    hit = values <= settings.threshold
    mined = mine(_on(sites, learned), hit[learned], rankings, settings.min_share, settings.price)
    rules = {"mined": mined.best.rule, **(beside or {})}
    judged = {name: tuple(judge(rule, _on(sites, rows), hit[rows]) for rows in (learned, held)) for name, rule in rules.items()}
    return Study(
        ensemble.target.unit,
        ensemble.target.quantity,
        maps,
        mined,
        judged,  # type: ignore[arg-type]
        {"training": len(learned), "validation": len(parts.val), "held out": len(held)},
        dict(ensemble.card.metrics),
        exactness,
        len(ensemble.members),
        settings,
    )


def _on(sites: Kinds, rows: NDArray[np.int64]) -> Kinds:
    return {name: elements[rows] for name, elements in sites.items()}


def _trained(table: CrystalTable, column: str, out: Path, training: TrainConfig, parts: Split, progress: bool) -> Ensemble:
    from naica.training.run import train

    if training.head.pooling != "sites":
        raise InputError(
            f"head.pooling is {training.head.pooling!r}; a study of sites needs 'sites', whose predictions are means over sites"
        )
    out.mkdir(parents=True, exist_ok=True)
    return train(table, column, training, parts, out, progress=progress, name=f"sites {column}", cache=out / "graphs")


def _checked(model: Ensemble, table: CrystalTable, column: str, parts: Split) -> Ensemble:
    from naica.insight.attribution import method_for
    from naica.training.run import prepare

    method_for(model, "exact")
    first = model.members[0]
    same = TrainConfig(architecture=first.architecture, architecture_config=first.architecture_config, head=first.head_config)
    expected = prepare(table, column, same, parts).fingerprint
    if model.card.data.get("hash") != expected:
        raise InputError(
            "this model learned from other rows than the training part of this study, so that the held-out rows may not be new to it; "
            "leave --model out to train one, or give the seed and fractions it was trained with"
        )
    return model


# --- maps ---------------------------------------------------------------------------------------------------------------------------
def _maps(
    ensemble: Ensemble, table: CrystalTable, labels: NDArray[np.float64], settings: StudySettings
) -> tuple[tuple[SiteMap, ...], float]:
    """Maps of all kinds of site, and by how much predictions miss the mean over the sites at most."""
    found = site_values(ensemble, table, method="exact")
    kinds = kinds_of_sites(table, settings.columns, settings.rest)
    counts = table.flat()[0]
    start = np.cumsum(counts) - counts
    kinds = kinds[start[found.row] + found.place]
    return tuple(element_maps(found, kinds, labels * counts, (*settings.columns, settings.rest))), found.gap


def element_maps(values: SiteValues, kinds: NDArray[np.str_], totals: NDArray[np.float64] | None, order: tuple[str, ...]) -> list[SiteMap]:
    """A map for each kind of site in `order`; `totals` (rows of the table) are the labels times the atoms, None if there are none."""
    contributions = by_element(values, kinds)
    return [_map(kind, [c for c in contributions if c.site == kind], values, kinds, totals) for kind in order if (kinds == kind).any()]


def _map(
    kind: str, contributions: list[Contribution], values: SiteValues, kinds: NDArray[np.str_], totals: NDArray[np.float64] | None
) -> SiteMap:
    from naica.structure.elements import element

    names = [c.element for c in contributions]
    chosen = [(kinds == kind) & (values.number == element(n).number) for n in names]
    worth: dict[str, float] = {}
    if totals is not None:
        overall = float(np.mean(totals[np.unique(values.row)]))
        worth = {n: float(np.mean(totals[np.unique(values.row[c])])) - overall for n, c in zip(names, chosen, strict=True)}
    members = values.members if values.members is not None else values.value[None]
    means = np.array([[m[c].mean() for c in chosen] for m in members])
    centred = means - means.mean(axis=1, keepdims=True)
    several = len(means) > 1
    spread = dict(zip(names, centred.std(axis=0, ddof=1).tolist(), strict=True)) if several else {}
    agreement = _lowest_correlation(means) if several else float("nan")
    follows = _correlation(means.mean(axis=0), np.array(list(worth.values()))) if worth else float("nan")
    return SiteMap(kind, tuple(contributions), spread, worth, agreement, follows)


def _lowest_correlation(means: NDArray[np.float64]) -> float:
    return min(_correlation(a, b) for k, a in enumerate(means) for b in means[k + 1 :])


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Pearson's correlation; NaN for fewer than three elements, of which none can be told."""
    if len(first) < 3 or not np.std(first) or not np.std(second):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
