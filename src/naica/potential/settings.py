"""How to learn a potential: one frozen table of settings, the same in Python, in TOML and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from naica.errors import ConfigError
from naica.potential.model import PotentialParts
from naica.training.config import from_mapping, inside, one_of

Loss = Literal["mse", "huber", "conditional-huber"]
Optimizer = Literal["adam", "adamw", "amsgrad"]
Schedule = Literal["one-cycle", "cosine", "constant", "plateau"]
Precision = Literal["32", "64"]
References = Literal["least-squares", "isolated", "zero"]
Balance = Literal["atoms", "frames"]
Together = Literal["auto", "nothing", "trajectory", "group"]


@dataclass(frozen=True)
class Weights:
    """What each field weighs in the loss.

    Errors are taken as energies in eV/atom, forces in eV/Å, stress times the volume per atom in eV (the strain derivative of the energy per
    atom, so that it compares with the others), moments in μ_B, charges in e.
    """

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 0.1
    magmom: float = 0.1
    charge: float = 0.1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            inside(f"weight of {name}", value, 0.0, 1e9)
        if not self.energy + self.forces:
            raise ConfigError("the weights of energy and forces are both 0: nothing to learn")


@dataclass(frozen=True)
class FitConfig:
    """Settings of a potential's training.

    Parameters
    ----------
    architecture, architecture_config, parts : what is trained; fields ``elements`` and ``average_neighbours`` of a network's settings are
        taken from the training part where they are not given
    weights : of the fields in the loss
    stage_two : weights from the share `stage_two_from` of the run on (0 and None: no second stage). Energies weigh more there as a rule
    loss : ``mse``; ``huber``, quadratic below `delta`; ``conditional-huber``, whose `delta` for forces shrinks by 0.7, 0.4, 0.1 where the
        label is beyond 100, 200, 300 eV/Å (universal potentials)
    delta : eV/atom, eV/Å …
    references : energies of the elements by ``least-squares`` over the training part, of ``isolated`` atoms among the frames, or ``zero``
    epochs : passes over the training part
    max_seconds, max_cpu_seconds : time budget of a member; the schedule comes to its end within it
    batch_size, balance : frames of a step; ``atoms`` makes steps of as many forces as so many frames of mean size, ``frames`` counts frames
    max_edges : a step holds at most so many edges, or one frame
    optimizer, learning_rate, weight_decay, clip : weight matrices decay, vectors do not; `clip` is the largest gradient norm, 0 for none
    schedule, warm_up : see `naica.training.schedule.rate`; ``plateau`` multiplies by 0.8 after `plateau_patience` epochs without a better
        validation error
    ema : decay per step of the running mean of the weights that is judged and kept
    test : share of the frames held out to judge, where the source has no published split
    validation : share of the training frames that choose the weights; 0 keeps the last
    keep_together : frames that stay on one side of that cut: of one ``trajectory``, of one ``group``; ``auto`` takes trajectories if there
        are at least ten
    patience : stop after so many epochs without a better validation error; None never does
    checkpoint_steps : the state is written every so many steps
    validate_every : epochs between two validations
    members, seed : of a committee; seeds count up
    freeze : when going on from a model, what stays: see `naica.training.transfer`
    fidelity_share : with several levels, frames of the further ones are repeated until they are this share of an epoch
    difference_decay : weight decay of the networks that tell further levels from the first: few labels should make them small
    replay_share : when old frames are replayed beside new ones, their share of the frames of an epoch
    """

    architecture: str = "painn"
    architecture_config: Mapping[str, Any] = field(default_factory=dict)
    parts: PotentialParts = field(default_factory=PotentialParts)
    weights: Weights = field(default_factory=Weights)
    stage_two: Weights | None = None
    stage_two_from: float = 0.75
    loss: Loss = "mse"
    delta: float = 0.05
    references: References = "least-squares"
    epochs: int = 100
    max_seconds: float | None = None
    max_cpu_seconds: float | None = None
    batch_size: int = 5
    balance: Balance = "atoms"
    max_edges: int = 100_000
    optimizer: Optimizer = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-6
    clip: float = 10.0
    schedule: Schedule = "one-cycle"
    warm_up: float = 0.05
    plateau_patience: int = 25
    ema: float = 0.99
    test: float = 0.1
    validation: float = 0.1
    keep_together: Together = "auto"
    patience: int | None = None
    checkpoint_steps: int = 500
    validate_every: int = 1
    members: int = 1
    seed: int = 0
    precision: Precision = "32"
    device: str | None = None
    tensorboard: bool = True
    freeze: str | int = "nothing"
    fidelity_share: float = 0.3
    difference_decay: float = 0.1
    replay_share: float = 0.3

    def __post_init__(self) -> None:
        for name, kind in (("parts", PotentialParts), ("weights", Weights), ("stage_two", Weights)):
            if isinstance(given := getattr(self, name), Mapping):
                object.__setattr__(self, name, from_mapping(kind, given, name))
        chosen = {"loss": Loss, "optimizer": Optimizer, "schedule": Schedule, "precision": Precision, "references": References}
        for name, options in {**chosen, "balance": Balance, "keep_together": Together}.items():
            one_of(name, getattr(self, name), get_args(options))
        for name in ("epochs", "batch_size", "max_edges", "members", "checkpoint_steps", "validate_every", "plateau_patience"):
            inside(name, getattr(self, name), 0 if name == "epochs" else 1, 10**9)
        inside("learning_rate", self.learning_rate, 1e-9, 10.0)
        inside("delta", self.delta, 1e-6, 1e6)
        inside("ema", self.ema, 0.0, 0.999999)
        inside("validation", self.validation, 0.0, 0.9)
        inside("test", self.test, 0.0, 0.9)
        for name in ("warm_up", "stage_two_from", "replay_share", "fidelity_share"):
            inside(name, getattr(self, name), 0.0, 1.0)
        inside("weight_decay", self.weight_decay, 0.0, 10.0)
        inside("difference_decay", self.difference_decay, 0.0, 100.0)
        for name in ("max_seconds", "max_cpu_seconds", "patience"):
            if getattr(self, name) is not None:
                inside(name, getattr(self, name), 1e-3, 1e9)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FitConfig:
        """From plain data (TOML, JSON, a card); ConfigError for unknown keys and values out of range."""
        return from_mapping(cls, settings, "potential")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "architecture_config": dict(self.architecture_config), "parts": self.parts.to_dict()}

    def replace(self, **changes: Any) -> FitConfig:
        """The same with some settings changed."""
        return replace(self, **changes)
