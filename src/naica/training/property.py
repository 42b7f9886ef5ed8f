"""`PropertyModel`: a backbone, a head and a target; and the verb `build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from torch import Tensor, nn

from naica.errors import ConfigError, InputError
from naica.fields import field
from naica.graphs.batch import Batch
from naica.graphs.spec import GraphSpec
from naica.nn.head import Head
from naica.nn.segment import mean_systems
from naica.training.config import HeadConfig
from naica.training.target import Target


class PropertyModel(nn.Module):
    """A network that predicts one quantity in physical units.

    Parameters
    ----------
    architecture : name among ``naica.models.ARCHITECTURES``
    architecture_config : its settings
    head : the layers after it
    target : quantity, normalisation and level of theory
    """

    def __init__(self, architecture: str, architecture_config: Mapping[str, Any], head: HeadConfig, target: Target) -> None:
        from naica.models import backbone

        super().__init__()
        self.architecture, self.head_config, self.target = architecture, head, target
        self.backbone = backbone(architecture, **architecture_config)
        self.architecture_config = config_dict(self.backbone.config)
        widths = cast(Mapping[str, int], self.backbone.widths)
        self.pooling = _pooling(head.pooling, widths, target)
        width = widths["system" if self.pooling == "system" else "atom"]
        self.head = Head(width, head.hidden, target.n_out, cast(Any, self.pooling), head.dropout)

    @property
    def needs(self) -> GraphSpec:
        """The graphs it reads."""
        return cast(GraphSpec, self.backbone.needs)

    def raw(self, batch: Batch) -> Tensor:
        """(B, n_out) outputs before they get a unit: what the loss sees."""
        return cast(Tensor, self.head(self.backbone(batch), batch))

    def forward(self, batch: Batch) -> Tensor:
        """(B,) values in the quantity's unit; probabilities of class 1 for a class target."""
        return self.target.to_physical(self.raw(batch), batch["n_atoms"])

    def with_features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values (B) as `forward` gives them, and the features (B, C) before the head: the mean over atoms, or the system's own."""
        features = self.backbone(batch)
        values = self.target.to_physical(self.head(features, batch), batch["n_atoms"])
        return values, mean_systems(features["atom"], batch) if "atom" in features else features["system"]

    def sites(self, batch: Batch) -> Tensor:
        """(N,) contributions of the sites in the quantity's unit; their mean over a system is its prediction (extensive: sum).

        Raises
        ------
        InputError
            If the head does not pool per-site numbers.
        """
        if self.pooling != "sites" or self.target.kind == "class":
            raise InputError(
                f"this model pools by {self.pooling!r}; site contributions need a regression trained with head.pooling='sites'"
            )
        return self.target.mean + self.target.std * self.head.sites(self.backbone(batch), batch)[:, 0]


def build(
    architecture: str = "cgcnn",
    quantity: str = "formation_energy_per_atom",
    head: HeadConfig | Mapping[str, Any] | None = None,
    kind: str = "auto",
    **architecture_config: Any,
) -> PropertyModel:
    """An untrained model.

    Parameters
    ----------
    architecture : for example ``cgcnn`` or ``gnome``
    quantity : what it predicts: a name of ``naica.fields.FIELDS``
    head : the layers after the backbone (`HeadConfig` or a mapping of its fields)
    kind : ``regression``, ``class`` or ``auto``
    architecture_config : settings of the architecture, for example ``width=64``

    Raises
    ------
    ConfigError
        For an unknown architecture or setting.
    InputError
        For an unknown quantity.
    """
    settings = head if isinstance(head, HeadConfig) else HeadConfig(**(head or {}))
    return PropertyModel(architecture, architecture_config, settings, Target(quantity, kind_of(quantity, kind)))  # type: ignore[arg-type]


def kind_of(quantity: str, kind: str = "auto") -> str:
    """Regression or class: as asked, or as fields.py has it."""
    known = field(quantity)
    return kind if kind != "auto" else ("class" if known.kind == "class" else "regression")


def config_dict(config: Any) -> dict[str, Any]:
    """A backbone's frozen config as plain data."""
    plain = asdict(config) if is_dataclass(config) and not isinstance(config, type) else dict(config)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def _pooling(asked: str, widths: Mapping[str, int], target: Target) -> str:
    if asked == "auto":
        if "atom" not in widths:
            return "system"
        return "mean"
    if ("system" if asked == "system" else "atom") not in widths:
        raise ConfigError(f"head.pooling = {asked!r}, but this architecture gives features per {', '.join(widths)} only")
    if target.extensive and asked == "sum":
        raise ConfigError(f"{target.quantity} is learned per atom and multiplied by their number; head.pooling must not be 'sum' as well")
    return asked
