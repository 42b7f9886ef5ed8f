"""From one model to the next: which weights go on, what the labels' reference becomes, and which weights stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import nn

from naica.errors import ConfigError, InputError
from naica.models.selenite import ElementStart
from naica.nn.atoms import N_ELEMENTS, DescribedElements, OccurringElements
from naica.training.property import PropertyModel
from naica.training.target import Target

if TYPE_CHECKING:
    from naica.training.ensemble import Ensemble
    from naica.training.run import Material

Freeze = Literal["nothing", "elements", "backbone"] | int
"""What stays as it is: ``nothing``; ``elements``, the first vectors of the atoms; a number of layers, with all that comes before them;
``backbone``, everything but the head and the vectors of state variables."""

_LISTS = ("convolutions", "layers", "steps", "blocks", "interactions")
_READERS = ("writers",)  # lists that read after each layer, wherever the network declares them


# --- which weights go on ---------------------------------------------------------------------------------------------------------
def same_tasks(old: Sequence[Target], new: Sequence[Target]) -> bool:
    """Whether a head that was made for `old` can go on with `new`: the same quantities of the same kind in the same order."""
    return [(t.quantity, t.kind) for t in old] == [(t.quantity, t.kind) for t in new]


def continued(model: PropertyModel, targets: Target | Sequence[Target], seed: int) -> PropertyModel:
    """A copy of `model` for other targets; where the quantities differ its head is fresh, drawn from `seed`."""
    targets = (targets,) if isinstance(targets, Target) else tuple(targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = PropertyModel(model.architecture, model.architecture_config, model.head_config, targets)
    weights = model.state_dict()
    if not same_tasks(model.targets, targets):
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
    missing, unknown = copy.load_state_dict(weights, strict=False)
    assert not unknown
    assert all(name.startswith("head.") for name in missing)
    return copy


# --- the reference of the labels -------------------------------------------------------------------------------------------------
def moved(ensemble: Ensemble, material: Material) -> tuple[Target, ...]:
    """The targets of new labels for an ensemble of old ones; see `fine_tune`."""
    if not same_tasks(ensemble.targets, material.targets):
        return material.targets
    found = []
    for k, (old, new) in enumerate(zip(ensemble.targets, material.targets, strict=True)):
        known = old.level is not None and new.level is not None
        if known and cast(Any, old.level).same(new.level):
            found.append(replace(old, name=new.name))
        elif known and old.kind == "regression":
            found.append(replace(old, name=new.name, level=new.level, mean=old.mean + _shift(ensemble, material, k)))
        else:
            found.append(new)
    return tuple(found)


def _shift(ensemble: Ensemble, material: Material, task: int) -> float:
    """Mean of label − prediction over the training part, per atom for extensive quantities."""
    from naica.training.evaluation import members_on

    part = material.part("train")
    actual = part.of(task)
    known = np.isfinite(actual)
    difference = (actual - np.median(members_on(ensemble, part)[task], axis=0))[known]
    atoms = np.repeat(part.graphs.counts[part.rows], part.tasks[task].counts(part.rows))[known]
    return float(np.mean(difference / atoms if ensemble.targets[task].extensive else difference))


# --- which weights stay ----------------------------------------------------------------------------------------------------------
def checked_freeze(freeze: str | int) -> Freeze:
    """What to freeze, from text or a number of layers; ConfigError for anything else."""
    if isinstance(freeze, str) and freeze.isdigit():
        freeze = int(freeze)
    if (isinstance(freeze, int) and not isinstance(freeze, bool) and freeze >= 1) or freeze in ("nothing", "elements", "backbone"):
        return cast(Freeze, freeze)
    raise ConfigError(f"freeze = {freeze!r}; expected 'nothing', 'elements', 'backbone' or a number of layers from 1 on")


def hold(model: PropertyModel, freeze: Freeze) -> PropertyModel:
    """Mark what is not to be trained (its parameters need no gradient any more); returns the model.

    Raises
    ------
    ConfigError
        If the architecture has no vectors of elements, or not so many layers.
    """
    for kept in _kept(model, freeze):
        kept.requires_grad_(False)
    return model


def release(model: nn.Module) -> None:
    """All parameters can be trained again."""
    model.requires_grad_(True)


def start_training(model: nn.Module) -> None:
    """Training mode, except for modules that stay: their batch norms keep the running statistics and their dropout drops nothing."""
    model.train()
    for module in model.modules():
        held = [not p.requires_grad for p in module.parameters()]
        if held and all(held):
            module.eval()


def trained_parameters(model: nn.Module) -> dict[str, int]:
    """How many numbers the model has, and how many of them are trained."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def _kept(model: PropertyModel, freeze: Freeze) -> list[nn.Module | nn.Parameter]:
    network = model.backbone
    if freeze == "nothing":
        return []
    if freeze == "backbone":
        return [network]
    if freeze == "elements":
        found: list[nn.Module | nn.Parameter] = [m for m in network.modules() if _of_elements(m)]
        if not found:
            raise ConfigError(f"{model.architecture} has no vectors of elements to freeze; freeze 'backbone' or a number of layers")
        return found
    children = dict(network.named_children())
    name = next((n for n in _LISTS if isinstance(children.get(n), nn.ModuleList)), None)
    if name is None:
        raise ConfigError(f"{model.architecture} has no layers one after the other; freeze 'nothing', 'elements' or 'backbone'")
    layers = cast(nn.ModuleList, children[name])
    if freeze > len(layers):
        raise ConfigError(f"freeze = {freeze}, but this {model.architecture} has {len(layers)} layers")
    before = list(children)[: list(children).index(name)]
    own = list(network.parameters(recurse=False))
    return [*own, *(children[n] for n in before if n not in _READERS), *layers[:freeze]]


def _of_elements(module: nn.Module) -> bool:
    """Whether it turns atomic numbers into vectors."""
    if isinstance(module, nn.Embedding):
        return module.num_embeddings == N_ELEMENTS
    return isinstance(module, DescribedElements | OccurringElements | ElementStart)


def check_steps(ensemble: Ensemble, targets: Sequence[Target], epochs: int) -> None:
    """InputError if a fresh head would get no training at all."""
    if not epochs and not same_tasks(ensemble.targets, targets):
        new, old = (", ".join(t.quantity for t in some) for some in (targets, ensemble.targets))
        raise InputError(f"the model predicts {old}; for {new} it gets a fresh head, which needs at least one epoch of training")
