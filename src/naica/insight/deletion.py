"""Whether attributions are faithful: replacing sites in their order must move predictions sooner than replacing them by chance.

Sites are replaced by the average element one after the other: highest contribution first, lowest first, and in random orders. The
prediction runs from that of the crystal to that of the same structure of average elements on every way; if attributions say what the
network goes by, it falls soonest when the highest go first and latest when they go last. The areas between the curves measure it,
crystal by crystal (after Samek et al., IEEE Trans. Neural Netw. Learn. Syst. 28, 2660 (2017)).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.insight.attribution import Method, method_for, shares
from naica.insight.blend import Predict, blended

if TYPE_CHECKING:
    from naica.graphs.graphset import GraphSet
    from naica.training.ensemble import Ensemble

_GRID = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class Faithfulness:
    """Result of a deletion test over crystals with at least two sites.

    Parameters
    ----------
    method : of the attributions
    unit : of the areas
    crystals : how many
    highest, highest_error : mean area between random order and highest first, standard error over crystals; above 0 is better than chance
    lowest, lowest_error : the same between lowest first and random order
    between : highest + lowest: the whole area between the two orders, and its standard error
    won : share of crystals in which highest first lies below random order
    grid, curves : share of sites replaced (K) and the mean prediction there for each order
    """

    method: str
    unit: str
    crystals: int
    highest: float
    highest_error: float
    lowest: float
    lowest_error: float
    between: float
    between_error: float
    won: float
    grid: NDArray[np.float64]
    curves: dict[str, NDArray[np.float64]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def deletion_test(
    ensemble: Ensemble, graphs: GraphSet, rows: NDArray[np.int64] | None = None, method: Method = "auto", orders: int = 8, seed: int = 0
) -> Faithfulness:
    """Run the test with the first member of an ensemble.

    Parameters
    ----------
    ensemble : the model; attributions and predictions are those of its first member
    graphs : of its kind
    rows : which; default: all usable
    method : of the attributions
    orders : random orders per crystal
    seed : of them

    Raises
    ------
    InputError
        If fewer than two crystals have two sites or more, and as `shares` does.
    """
    how = method_for(ensemble, method)
    chosen = graphs.usable if rows is None else np.asarray(rows)
    chosen = chosen[graphs.counts[chosen] >= 2]
    if len(chosen) < 2:
        raise InputError(f"{len(chosen)} crystals with at least two sites; a deletion test needs two or more to say how sure it is")
    rng = np.random.default_rng(seed)
    parts = [_tested(ensemble, graphs.batch(chosen[at : at + 128]), how, orders, rng) for at in range(0, len(chosen), 128)]
    curves = {name: np.concatenate([p[name] for p in parts]) for name in ("highest first", "random", "lowest first")}
    area = {name: np.trapezoid(c, _GRID, axis=1) for name, c in curves.items()}
    high, low = area["random"] - area["highest first"], area["lowest first"] - area["random"]
    unit = "log odds" if ensemble.target.kind == "class" else ensemble.target.unit
    means = {name: curve.mean(axis=0) for name, curve in curves.items()}
    won = float((high > 0).mean())
    return Faithfulness(how, unit, len(chosen), *_sure(high), *_sure(low), *_sure(high + low), won, _GRID, means)


def _sure(gain: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))


def _tested(ensemble: Ensemble, batch: Batch, how: str, orders: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Curves (B, K) on the common grid."""
    from dataclasses import replace

    one = type(ensemble)(ensemble.members[:1], replace(ensemble.card, members=1))
    value = shares(one, batch, how).value[0]  # type: ignore[arg-type]
    with blended(one.members[0].eval(), batch, ensemble.card.elements) as predict:
        highest, lowest = (_curve(predict, batch, key) for key in (-value, value))
        random = np.mean([_curve(predict, batch, rng.random(len(value))) for _ in range(orders)], axis=0)
    return {"highest first": highest, "random": random, "lowest first": lowest}


@torch.no_grad()
def _curve(predict: Predict, batch: Batch, key: NDArray[np.float64]) -> NDArray[np.float64]:
    """Predictions (B, K) as the sites are replaced in the order of `key`, lowest first."""
    counts = batch["n_atoms"].cpu().numpy()
    rank = _ranks(key, batch["system"].cpu().numpy(), counts)
    steps = np.stack([predict(_kept(rank >= k, batch["n_atoms"])).double().cpu().numpy() for k in range(counts.max() + 1)], axis=1)
    return np.stack([np.interp(_GRID, np.arange(n + 1) / n, row[: n + 1]) for n, row in zip(counts, steps, strict=True)])


def _kept(mask: NDArray[np.bool_], like: Tensor) -> Tensor:
    return torch.from_numpy(mask.astype(np.float32)).to(like.device)


def _ranks(key: NDArray[np.float64], system: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank (N) of every atom within its system."""
    order = np.lexsort((key, system))
    rank = np.empty(len(key), dtype=np.int64)
    rank[order] = np.arange(len(key)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
