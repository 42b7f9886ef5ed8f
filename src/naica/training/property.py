"""`PropertyModel`: a backbone, a head and a target or several; and the verb `build`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from naica.errors import ConfigError, InputError
from naica.fields import field
from naica.graphs.batch import Batch
from naica.graphs.spec import GraphSpec
from naica.nn.head import Head
from naica.nn.segment import mean_systems
from naica.training.conditions import Conditions
from naica.training.config import HeadConfig
from naica.training.target import Target


class PropertyModel(nn.Module):
    """A network that predicts one quantity, or several at once, in physical units.

    Parameters
    ----------
    architecture : name among ``naica.models.ARCHITECTURES``
    architecture_config : its settings
    head : the layers after it; the tasks share them up to the last one
    target : quantity, normalisation and level of theory of the task, or of each task
    """

    def __init__(
        self, architecture: str, architecture_config: Mapping[str, Any], head: HeadConfig, target: Target | Sequence[Target]
    ) -> None:
        from naica.models import backbone

        super().__init__()
        self.architecture, self.head_config = architecture, head
        self.targets = checked_tasks((target,) if isinstance(target, Target) else target)
        self.backbone = backbone(architecture, **architecture_config)
        self.architecture_config = config_dict(self.backbone.config)
        widths = cast(Mapping[str, int], self.backbone.widths)
        self.pooling = _pooling(head.pooling, widths, self.targets)
        self.conditions = Conditions(head.state, head.names) if head.state else None
        width = widths["system" if self.pooling == "system" else "atom"] + (self.conditions.width if self.conditions else 0)
        n_out = sum(one.n_out for one in self.targets)
        self.head = Head(width, head.hidden, n_out, cast(Any, self.pooling), head.dropout)

    @property
    def target(self) -> Target:
        """The only task.

        Raises
        ------
        InputError
            If there are several.
        """
        return only(self.targets)

    @target.setter
    def target(self, target: Target) -> None:
        self.targets = (target,)

    @property
    def needs(self) -> GraphSpec:
        """The graphs it reads: those of the network, with the state variables of the head behind its own."""
        own = cast(GraphSpec, self.backbone.needs)
        return replace(own, state=(*own.state, *self.head_config.state)) if self.head_config.state else own

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """What the head reads: the features of the network by level, with the state variables joined to them."""
        if self.conditions is None:
            return cast(dict[str, Tensor], self.backbone(batch))
        level = "system" if self.pooling == "system" else "atom"
        given = self.conditions(batch)
        found = cast(dict[str, Tensor], self.backbone(self._own(batch)))
        if level == "atom":
            # each atom brings its share where the atoms are summed
            given = given / batch["n_atoms"][:, None] if self.pooling == "sum" else given
            given = torch.index_select(given, 0, batch["system"])
        return {**found, level: torch.cat([found[level], given.to(found[level].dtype)], dim=1)}

    def _own(self, batch: Batch) -> Batch:
        """The batch with the state the network reads itself, and no more."""
        own = len(cast(GraphSpec, self.backbone.needs).state)
        rest = {key: tensor for key, tensor in batch.items() if key != "state"}
        return Batch(rest | ({"state": batch["state"][:, :own]} if own else {}), batch.degree)

    def raw(self, batch: Batch) -> Tensor:
        """(B, n_out) outputs of all tasks before they get a unit; (N, n_out) where a task has labels of sites."""
        features = self.features(batch)
        per_site = any(one.per_site for one in self.targets)
        return self.head.sites(features, batch) if per_site else cast(Tensor, self.head(features, batch))

    def outputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the loss sees of each task: (B, its outputs), or (N, its outputs) for labels of sites."""
        return self.parted(self.raw(batch), batch)

    def parted(self, raw: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """The outputs `raw` by task; those of systems are means over their sites where another task has labels of sites."""
        pieces = torch.split(raw, [one.n_out for one in self.targets], dim=1)
        if not any(one.per_site for one in self.targets):
            return pieces
        return tuple(p if t.per_site else mean_systems(p, batch) for p, t in zip(pieces, self.targets, strict=True))

    def values(self, batch: Batch) -> tuple[Tensor, ...]:
        """Values of each task in its unit, (B) or for sites (N); probabilities of class 1 for classes."""
        return tuple(t.to_physical(raw, batch["n_atoms"]) for t, raw in zip(self.targets, self.outputs(batch), strict=True))

    def forward(self, batch: Batch) -> Tensor:
        """(B,) values in the quantity's unit (probabilities of class 1 for a class); (N,) for sites; (B, T) for T tasks of systems.

        Raises
        ------
        InputError
            If some tasks are of systems and others of sites: their values fit no one tensor, see `values`.
        """
        found = self.values(batch)
        if len(found) == 1:
            return found[0]
        if len({t.per_site for t in self.targets}) > 1:
            raise InputError("this model has tasks of systems and of sites, whose values fit no one tensor; ask for values(batch)")
        return torch.stack(found, dim=1)

    def with_features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values (B) as `forward` gives them, and the features (B, C) before the head: the mean over atoms, or the system's own."""
        features = self.features(batch)
        values = self.target.to_physical(self.head(features, batch), batch["n_atoms"])
        return values, mean_systems(features["atom"], batch) if "atom" in features else features["system"]

    def sites(self, batch: Batch) -> Tensor:
        """(N,) contributions of the sites in the quantity's unit; their mean over a system is its prediction (extensive: sum).

        Raises
        ------
        InputError
            If the head does not pool per-site numbers.
        """
        if self.pooling != "sites" or self.target.kind == "class" or self.target.per_site:
            raise InputError(
                f"this model pools by {self.pooling!r}; site contributions need a regression trained with head.pooling='sites'"
                if not self.target.per_site
                else f"this model predicts {self.target.quantity} of every site; there is no whole that sites could contribute to"
            )
        return self.target.mean + self.target.std * self.head.sites(self.features(batch), batch)[:, 0]

    def task(self, name: str) -> PropertyModel:
        """The same network for one of its tasks alone (weights are copied).

        Raises
        ------
        InputError
            If there is no such task.
        """
        place = place_of(self.targets, name)
        if len(self.targets) == 1:
            return self
        with torch.random.fork_rng(devices=[]):
            head = replace(self.head_config, pooling=cast(Any, self.pooling))
            alone = PropertyModel(self.architecture, self.architecture_config, head, self.targets[place])
        start = sum(t.n_out for t in self.targets[:place])
        last = f"head.network.{len(self.head.network) - 1}."
        weights = {k: v[start : start + alone.target.n_out] if k.startswith(last) else v for k, v in self.state_dict().items()}
        alone.load_state_dict(weights)
        return alone.train(self.training)


def only(targets: Sequence[Target]) -> Target:
    """The only one of some tasks; InputError if there are several."""
    if len(targets) != 1:
        named = ", ".join(t.task for t in targets)
        raise InputError(f"this model has several tasks ({named}) and one is needed here; take one: model.task({targets[0].task!r})")
    return targets[0]


def place_of(targets: Sequence[Target], name: str) -> int:
    """Which of some tasks is called `name`; InputError if none is."""
    found = next((k for k, one in enumerate(targets) if one.task == name), None)
    if found is None:
        raise InputError(f"this model has no task {name!r}; it has {', '.join(t.task for t in targets)}")
    return found


def checked_tasks(targets: Sequence[Target]) -> tuple[Target, ...]:
    """At least one task, each with a name of its own (ConfigError)."""
    names = [t.task for t in targets]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"tasks {', '.join(names) or 'none'}; expected at least one, each with its own name")
    return tuple(targets)


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


def _pooling(asked: str, widths: Mapping[str, int], targets: Sequence[Target]) -> str:
    if of_sites := [t.task for t in targets if t.per_site]:
        if asked not in ("auto", "sites") or "atom" not in widths:
            raise ConfigError(f"{of_sites[0]} has a value for every atom; that needs head.pooling = 'sites' and a network with atoms")
        return "sites"
    if asked == "auto":
        # a network names its own readout first where it has one
        return "system" if next(iter(widths)) == "system" else "mean"
    if ("system" if asked == "system" else "atom") not in widths:
        raise ConfigError(f"head.pooling = {asked!r}, but this architecture gives features per {', '.join(widths)} only")
    extensive = next((t.quantity for t in targets if t.extensive), None)
    if extensive is not None and asked == "sum":
        raise ConfigError(f"{extensive} is learned per atom and multiplied by their number; head.pooling must not be 'sum' as well")
    return asked
