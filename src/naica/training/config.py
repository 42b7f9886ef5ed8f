"""How to train: one frozen table of settings, the same in Python, in TOML and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from naica.errors import ConfigError

Pooling = Literal["auto", "mean", "sum", "system", "sites"]
Loss = Literal["l1", "huber", "mse"]
Schedule = Literal["one-cycle", "cosine", "constant"]
Precision = Literal["32", "64", "bf16"]
Kind = Literal["auto", "regression", "class"]
Weights = Literal["none", "balanced"]
Share = Literal["labels", "tasks"]


@dataclass(frozen=True)
class HeadConfig:
    """The layers after the backbone.

    Parameters
    ----------
    hidden : widths of the hidden layers
    pooling : how atoms become one system; ``auto`` takes the network's own readout where it has one, else ``mean``; ``sites``
        predicts the mean of one number per site, so that sites can be read; labels of sites need it, and ``auto`` takes it for them
    dropout : share of hidden units dropped in training
    state : columns (or keys of ``Crystal.info``) that describe a system as a whole, for example ``("temperature", "pressure")``; they
        are joined to the features before these layers, whatever the network. Text, for example a column ``fidelity``, is a name: each
        name has a learned vector
    names : for each state variable the names it can have, none for a number; found in the training part when empty
    """

    hidden: tuple[int, ...] = (128,)
    pooling: Pooling = "auto"
    dropout: float = 0.0
    state: tuple[str, ...] = ()
    names: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(width) for width in self.hidden))
        # TOML and JSON give lists, the command line a single name
        object.__setattr__(self, "state", (self.state,) if isinstance(self.state, str) else tuple(self.state))
        object.__setattr__(self, "names", tuple(tuple(known) for known in self.names))
        if len(set(self.state)) != len(self.state):
            raise ConfigError(f"head.state = {', '.join(self.state)}; expected each variable once")
        if self.names and len(self.names) != len(self.state):
            raise ConfigError(f"head.names has {len(self.names)} entries for {len(self.state)} state variables; leave it out, it is filled")
        one_of("pooling", self.pooling, get_args(Pooling))
        inside("dropout", self.dropout, 0.0, 0.95)
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"hidden = {self.hidden}; expected widths of at least 1")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; what a head without state variables does not have is left out."""
        plain = {"hidden": list(self.hidden), "pooling": self.pooling, "dropout": self.dropout}
        return plain | ({"state": list(self.state), "names": [list(known) for known in self.names]} if self.state else {})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Parameters
    ----------
    architecture, architecture_config, head : what is trained; see ``naica.models.ARCHITECTURES`` and `HeadConfig`
    kind : ``auto`` is a class for quantities that fields.py calls classes, else a regression
    epochs : passes over the training part
    batch_size : systems per step
    max_edges : a step holds at most this many edges (or one system), whatever `batch_size` says
    learning_rate, weight_decay : of AdamW; the rate is the highest one of the schedule
    loss : ``l1``, ``huber`` (quadratic below 0.1 standard deviations) or ``mse``, on the normalised target
    ema : decay per step of the running mean of the weights that is evaluated and kept; 0 keeps the last weights
    schedule : ``one-cycle`` (warm-up, then half a cosine down to 1/1000), ``cosine`` (2 % warm-up) or ``constant``
    warm_up : share of the run in which a one-cycle rate rises
    clip : largest gradient norm; 0 does not clip
    patience : stop after so many epochs without a better validation error; None never does
    members : models of the ensemble, with seeds `seed`, `seed` + 1, …
    chain : each member starts from the weights of the one before, its rate rising again (snapshot ensemble, Huang et al., ICLR 2017):
        better members for the same time, less different from each other
    max_seconds : time budget of one member; the schedule comes to its end within it, at the price that the run depends on the
        machine's speed. None: only `epochs` counts, and the run is reproducible
    max_cpu_seconds : the same in CPU seconds of this process (all its threads), which other work on the machine does not use up
    class_weights : ``balanced`` gives both classes of a task the same weight in the loss, however rare one is
    task_weights : of several tasks: ``labels`` weighs every label the same, ``tasks`` every task, however few labels it has
    device : ``cpu``, ``cuda`` …; None takes NAICA_DEVICE, and the CPU without it. Never falls back silently
    precision : ``32``, ``64`` or ``bf16`` (mixed)
    compile : fuse the network with torch.compile (needs a C++ compiler; pays in runs of many minutes)
    tensorboard : write TensorBoard logs beside the CSV
    volume_augmentation : standard deviation of a random change of volume of each training crystal (0.02: 2 %); 0 for none
    """

    architecture: str = "cgcnn"
    architecture_config: Mapping[str, Any] = field(default_factory=dict)
    head: HeadConfig = field(default_factory=HeadConfig)
    kind: Kind = "auto"
    epochs: int = 100
    batch_size: int = 64
    max_edges: int = 60_000
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    loss: Loss = "huber"
    ema: float = 0.995
    schedule: Schedule = "one-cycle"
    warm_up: float = 0.15
    clip: float = 2.0
    patience: int | None = None
    members: int = 1
    chain: bool = False
    seed: int = 0
    max_seconds: float | None = None
    max_cpu_seconds: float | None = None
    class_weights: Weights = "none"
    task_weights: Share = "labels"
    device: str | None = None
    precision: Precision = "32"
    compile: bool = False
    tensorboard: bool = True
    volume_augmentation: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.head, Mapping):
            object.__setattr__(self, "head", from_mapping(HeadConfig, self.head, "head"))
        chosen = {"kind": Kind, "loss": Loss, "schedule": Schedule, "precision": Precision, "class_weights": Weights, "task_weights": Share}
        for name, options in chosen.items():
            one_of(name, getattr(self, name), get_args(options))
        for name in ("epochs", "batch_size", "members", "max_edges"):
            inside(name, getattr(self, name), 1, 10**9)
        inside("learning_rate", self.learning_rate, 1e-9, 10.0)
        inside("weight_decay", self.weight_decay, 0.0, 10.0)
        inside("ema", self.ema, 0.0, 0.999999)
        inside("warm_up", self.warm_up, 0.0, 1.0)
        inside("clip", self.clip, 0.0, 1e9)
        inside("volume_augmentation", self.volume_augmentation, 0.0, 0.5)
        for name in ("max_seconds", "max_cpu_seconds"):
            if getattr(self, name) is not None:
                inside(name, getattr(self, name), 1e-3, 1e9)
        if self.patience is not None:
            inside("patience", self.patience, 1, 10**9)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """From plain data (TOML, JSON, a card).

        Raises
        ------
        ConfigError
            For unknown keys (the message proposes the nearest) and values out of range.
        """
        return from_mapping(cls, settings, "training")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain = asdict(self)
        plain["architecture_config"] = dict(self.architecture_config)
        plain["head"] = self.head.to_dict()
        return plain


def from_mapping(kind: type, settings: Mapping[str, Any], where: str) -> Any:
    """A frozen settings class from plain data, with errors that name the key.

    Raises
    ------
    ConfigError
        For unknown keys and for values of the wrong type.
    """
    known = [f.name for f in fields(kind)]
    for key in settings:
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"unknown key {key!r} in the {where} settings; {hint}")
    hints = get_type_hints(kind)
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
    for key, value in values.items():
        _typed(key, value, hints[key], where)
    return kind(**values)


def _typed(key: str, value: Any, hint: Any, where: str) -> None:
    wanted = next((t for t in (bool, int, float) if hint is t), None)
    right = {bool: (bool,), int: (int,), float: (int, float)}
    if wanted and (not isinstance(value, right[wanted]) or (wanted is not bool and isinstance(value, bool))):
        raise ConfigError(f"{key} = {value!r} in the {where} settings; expected {wanted.__name__}")


def one_of(name: str, value: Any, options: tuple[Any, ...]) -> None:
    """Refuse a value that is not among the options (ConfigError)."""
    if value not in options:
        raise ConfigError(f"{name} = {value!r}; expected one of {', '.join(map(str, options))}")


def inside(name: str, value: Any, low: float, high: float) -> None:
    """Refuse a number outside low … high (ConfigError)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{name} = {value!r}; expected a number from {low:g} to {high:g}")
