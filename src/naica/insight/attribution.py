"""What each site adds to a prediction, for every network that looks up what it knows of its atoms.

Networks that pool one number per site say it themselves, exactly. For the others, let w_i blend the start of atom i between the average
element (0) and its own (1), and F(w) be the prediction. Integrated gradients (Sundararajan, Taly & Yan, ICML 2017) go straight from the
crystal of average elements to the real one::

    a_i = ∫₀¹ ∂F/∂w_i (t, …, t) dt,     Σ_i a_i = F(1) − F(0)

Leave one out says a_i = F(1) − F(1 without i); it does not add up. Both are compared with chance by `naica.insight.deletion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import ConfigError, InputError
from naica.graphs.batch import Batch
from naica.insight.blend import Predict, blended

if TYPE_CHECKING:
    from naica.training.ensemble import Ensemble
    from naica.training.property import PropertyModel

Method = Literal["auto", "exact", "integrated gradients", "leave one out"]
METHODS: tuple[str, ...] = get_args(Method)
_NODES = (8, 16, 32, 64, 128)
_TOLERANCE = 1e-3
"""Integrated gradients are refined until their sum misses the change of prediction by at most this share of the largest change."""


@dataclass(frozen=True)
class Shares:
    """Predictions of B systems shared out among their N sites, by M members.

    Parameters
    ----------
    method : how
    value : (M, N) in the quantity's unit per site: prediction = reference + mean over the sites (extensive quantities: + sum)
    reference : (M, B) prediction for the same structure made of average elements; 0 for exact contributions
    prediction : (M, B); for classes the log odds
    gap : largest |reference + mean or sum − prediction|; what "leave one out" leaves unshared
    """

    method: str
    value: NDArray[np.float64]
    reference: NDArray[np.float64]
    prediction: NDArray[np.float64]
    gap: float


def method_for(ensemble: Ensemble, method: Method = "auto") -> str:
    """The method that `auto` means for a model: exact contributions where there are any, else integrated gradients.

    Raises
    ------
    ConfigError
        If there is no such method.
    InputError
        If exact contributions are asked of a model that has none.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; expected one of {', '.join(METHODS)}")
    exact = ensemble.members[0].pooling == "sites" and ensemble.target.kind == "regression"
    if method == "exact" and not exact:
        raise InputError(
            f"this model pools by {ensemble.members[0].pooling!r} and has no exact site contributions; "
            "train a regression with head.pooling = 'sites', or ask for integrated gradients"
        )
    return ("exact" if exact else "integrated gradients") if method == "auto" else method


def shares(ensemble: Ensemble, batch: Batch, method: Method = "auto") -> Shares:
    """Share the predictions for a batch out among its sites.

    Raises
    ------
    ConfigError
        If there is no such method.
    InputError
        If exact contributions are asked of a model without them, or the network looks up nothing by its atoms.
    """
    how = method_for(ensemble, method)
    found = [_of_member(member.eval(), batch, how, ensemble.card.elements) for member in ensemble.members]
    value, reference, prediction = (np.stack([one[k] for one in found]) for k in range(3))
    pooled = np.stack([_pooled(v, batch, ensemble.target.extensive) for v in value])
    return Shares(how, value, reference, prediction, float(np.abs(reference + pooled - prediction).max()))


def _of_member(model: PropertyModel, batch: Batch, how: str, elements: tuple[str, ...]) -> tuple[NDArray[np.float64], ...]:
    if how == "exact":
        with torch.no_grad():
            value, whole = _plain(model.sites(batch)), _plain(model(batch))
        return value, np.zeros_like(whole), whole
    with blended(model, batch, elements) as predict:
        ones = torch.ones(len(batch["number"]), device=batch["number"].device)
        with torch.no_grad():
            prediction, reference = predict(ones), predict(0 * ones)
        left_out = how == "leave one out"
        share = _left_out(predict, batch, prediction) if left_out else _integrated(predict, batch, prediction - reference)
    # shares of the whole become values per site, so that their mean (not sum) is what an intensive prediction has over its reference
    if not model.target.extensive:
        share = share * batch["n_atoms"][batch["system"]]
    return _plain(share), _plain(reference), _plain(prediction)


def _plain(values: Tensor) -> NDArray[np.float64]:
    return values.detach().double().cpu().numpy()


def _pooled(value: NDArray[np.float64], batch: Batch, extensive: bool) -> NDArray[np.float64]:
    sums = np.zeros(batch.n_systems)
    np.add.at(sums, batch["system"].cpu().numpy(), value)
    return sums if extensive else sums / batch["n_atoms"].cpu().numpy()


# --- the two ways ---------------------------------------------------------------------------------------------------------------------
def _integrated(predict: Predict, batch: Batch, change: Tensor) -> Tensor:
    """Integrate the slope by Gauss–Legendre nodes, doubled until the sum agrees; `Shares.gap` says how well the last attempt does."""
    value = torch.zeros(0)
    allowed = _TOLERANCE * max(float(change.abs().max()), 1e-6)
    for nodes in _NODES:
        places, weights = np.polynomial.legendre.leggauss(nodes)
        value = torch.zeros(len(batch["number"]), device=change.device)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            w = torch.full_like(value, float(place)).requires_grad_()
            (slope,) = torch.autograd.grad(predict(w).sum(), w)
            value = value + float(weight) * slope
        missing = change - torch.zeros_like(change).index_add(0, batch["system"], value.to(change.dtype))
        if float(missing.abs().max()) <= allowed:
            break
    return value


@torch.no_grad()
def _left_out(predict: Predict, batch: Batch, prediction: Tensor) -> Tensor:
    """F(1) − F(1 without i): one pass for the first atoms of all systems, one for the second, and so on."""
    place = places(batch)
    value = torch.zeros(len(place), device=prediction.device)
    for k in range(int(place.max()) + 1):
        here = place == k
        without = predict((~here).to(value.dtype))
        value[here] = (prediction - without)[batch["system"][here]].to(value.dtype)
    return value


def places(batch: Batch) -> Tensor:
    """Place of every atom (N) in its system, from 0."""
    first = torch.cumsum(batch["n_atoms"], 0) - batch["n_atoms"]
    return torch.arange(len(batch["number"]), device=first.device) - first[batch["system"]]
