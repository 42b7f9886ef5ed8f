"""`PotentialModel`: a network of atoms as a potential energy surface, in electronvolts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from naica.errors import ConfigError, InputError
from naica.graphs.batch import Batch
from naica.graphs.spec import GraphSpec
from naica.nn.atoms import N_ELEMENTS
from naica.potential.derivatives import Evaluation, differentiated
from naica.training.property import config_dict


@dataclass(frozen=True)
class PotentialParts:
    """What stands beside the network.

    Parameters
    ----------
    hidden : width of the readout, for networks without an energy of their own
    """

    hidden: int = 64

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


class PotentialModel(nn.Module):
    """``E = Σ_i (scale · ε_i + E0[Z_i])``: ε from the network, scale and references E0 from the training set.

    The network is any smooth backbone of ``naica.models``. One that reads out energies itself says so by ``reads_energy = True`` and returns
    them as ``energy`` (N) in units of `scale`; the others get a small network on their atom features. References are kept and summed in 64 bits.

    Parameters
    ----------
    architecture, architecture_config : the backbone
    parts : what stands beside it
    scale : eV per unit of the network
    references : energies of the elements in eV by atomic number; 0 where not given

    Raises
    ------
    ConfigError
        If the architecture or a setting is unknown.
    InputError
        If the architecture's energy jumps when atoms cross the cut-off: it has no forces.
    """

    references: Tensor
    scale: Tensor

    def __init__(
        self,
        architecture: str,
        architecture_config: Mapping[str, Any] | None = None,
        parts: PotentialParts | None = None,
        scale: float = 1.0,
        references: Mapping[int, float] | None = None,
    ) -> None:
        from naica.models import backbone

        super().__init__()
        self.architecture, self.parts = architecture, parts or PotentialParts()
        self.backbone = backbone(architecture, **(architecture_config or {}))
        self.architecture_config = config_dict(self.backbone.config)
        check_smooth(architecture, self.backbone)
        width = cast(Mapping[str, int], self.backbone.widths)["atom"]
        self.readout = None if getattr(self.backbone, "reads_energy", False) else _Readout(width, self.parts.hidden)
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))
        self.register_buffer("references", torch.zeros(N_ELEMENTS, dtype=torch.float64))
        for number, energy in (references or {}).items():
            self.references[number] = float(energy)

    def _apply(self, fn: Any, recurse: bool = True) -> PotentialModel:
        """References and scale follow to a device, but keep their 64 bits."""
        exact = {name: getattr(self, name) for name in ("references", "scale")}
        super()._apply(fn, recurse)
        for name, value in exact.items():
            setattr(self, name, value.to(device=getattr(self, name).device))
        return self

    @property
    def needs(self) -> GraphSpec:
        """The graphs it reads."""
        return cast(GraphSpec, self.backbone.needs)

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.needs.cutoff

    @property
    def long_range(self) -> bool:
        """Whether positions and cells enter by another way than edges."""
        return False

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the network."""
        return next((p.dtype for p in self.backbone.parameters()), torch.float64)

    def energies(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(B) energies of whole systems in eV and 64 bits; and per atom (N) ``energy`` in eV and what else the network says."""
        features = cast(dict[str, Tensor], self.backbone(batch))
        own = features["energy"] if self.readout is None else self.readout(features["atom"])
        sites = own.double() * self.scale + torch.index_select(self.references, 0, batch["number"])
        total = sites.new_zeros(batch.n_systems).index_add(0, batch["system"], sites)
        atoms = {"energy": sites}
        atoms.update((name, features[name]) for name in ("magmom", "charge") if name in features)
        return total, atoms

    def forward(self, batch: Batch) -> Tensor:
        """(B) energies of whole systems, eV."""
        return self.energies(batch)[0]

    def compute(self, batch: Batch, twice: bool = False) -> Evaluation:
        """Energy, forces and stress of a batch made by `Systems.batch`; `twice` keeps the graph for a loss on them."""
        return differentiated(self.energies, batch, self.long_range, twice)


class _Readout(nn.Module):
    """Atom features (N, C) → energies (N)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) → (N)."""
        return self.network(features)[:, 0]


def check_smooth(architecture: str, backbone: nn.Module) -> None:
    """Refuse a backbone whose energy has no derivative everywhere (InputError, ConfigError)."""
    needs = cast(GraphSpec, backbone.needs)
    if needs.kind != "radius":
        raise InputError(
            f"{architecture} joins atoms by {needs.kind!r}, so its energy jumps when an atom's neighbours change and has no forces; "
            "train a smooth network (painn, nequip, mace, m3gnet, chgnet, ace, schnet)"
        )
    if needs.levels or needs.state:
        needed = ", ".join((*needs.levels, *needs.state))
        raise InputError(
            f"{architecture} needs {needed}, which does not follow the atoms smoothly; train a smooth network (painn, schnet …)"
        )
    if not getattr(backbone, "smooth", False):
        raise InputError(
            f"{architecture} as configured is not smooth: its energy jumps when an atom crosses the cut-off of {needs.cutoff:g} Å; "
            "train a smooth network (painn, schnet with cut = cosine …)"
        )
    if "atom" not in cast(Mapping[str, int], backbone.widths):
        raise ConfigError(f"{architecture} has no features of atoms; a potential sums energies of atoms")
