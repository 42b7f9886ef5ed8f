"""From features to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch
from naica.nn.segment import mean_systems, sum_systems

Pooling = Literal["mean", "sum", "system", "sites"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"softplus": nn.Softplus, "silu": nn.SiLU, "relu": nn.ReLU, "tanh": nn.Tanh}


class Head(nn.Module):
    """Pooled features through a small network: (B, n_out).

    ``mean`` and ``sum`` pool the atoms first, then comes the network (CGCNN: activation, then `hidden` layers, then a linear map).
    ``sites`` applies the network to every atom and averages the results: the prediction is then the mean of per-site contributions
    (the linear-pooling variant of Xie & Grossman, Phys. Rev. Lett. 120, 145301, 2018), which `sites` returns.
    ``system`` takes features a backbone has already pooled.

    Parameters
    ----------
    width : features that come in
    hidden : widths of the hidden layers; none means one linear map
    n_out : numbers that come out; for classes their logits
    dropout : share of the first hidden layer's outputs dropped in training
    activation : ``softplus``, ``silu``, ``relu`` or ``tanh``
    """

    def __init__(
        self,
        width: int,
        hidden: Sequence[int] = (128,),
        n_out: int = 1,
        pooling: Pooling = "mean",
        dropout: float = 0.0,
        activation: str = "softplus",
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ConfigError(f"pooling {pooling!r} is unknown; expected one of {', '.join(get_args(Pooling))}")
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation {activation!r} is unknown; expected one of {', '.join(ACTIVATIONS)}")
        self.pooling = pooling
        act = ACTIVATIONS[activation]
        # what a backbone has pooled itself is already activated
        layers: list[nn.Module] = [] if pooling == "system" else [act()]
        for depth, size in enumerate(hidden):
            layers += [nn.Linear(width, size), act()]
            if dropout and depth == 0:
                layers.append(nn.Dropout(dropout))
            width = size
        self.network = nn.Sequential(*layers, nn.Linear(width, n_out))

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Features by level, ``atom`` (N, C) or ``system`` (B, C) → (B, n_out).

        Raises
        ------
        ConfigError
            If the features of the level this pooling needs are not there.
        """
        level = "system" if self.pooling == "system" else "atom"
        if level not in features:
            raise ConfigError(f"pooling {self.pooling!r} needs {level} features; the model gives {', '.join(features)}")
        x = features[level]
        if self.pooling == "sites":
            return mean_systems(self.network(x), batch)
        if self.pooling == "mean":
            x = mean_systems(x, batch)
        elif self.pooling == "sum":
            x = sum_systems(x, batch)
        return self.network(x)

    def sites(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Contribution of every atom (N, n_out); their mean over a system is its prediction.

        Raises
        ------
        ConfigError
            If this head does not pool sites: its prediction is then no mean of contributions.
        """
        if self.pooling != "sites":
            raise ConfigError(f"site contributions exist only for pooling 'sites', this head pools {self.pooling!r}; train one with it")
        return self.network(features["atom"])
