"""`PotentialModel`: a network of atoms as a potential energy surface, in electronvolts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from naica.errors import ConfigError, InputError
from naica.graphs.batch import Batch
from naica.graphs.spec import GraphSpec
from naica.nn.atoms import N_ELEMENTS
from naica.nn.equilibration import KINDS, Charges, charges_of
from naica.nn.spin import Spins
from naica.nn.zbl import ZBL
from naica.potential.derivatives import Evaluation, differentiated
from naica.training.property import config_dict

SITES = ("magmom", "charge")
"""What can be read out per atom beside the energy."""
SPINS = ("none", "collinear")


@dataclass(frozen=True)
class PotentialParts:
    """What stands beside the network.

    Parameters
    ----------
    hidden : width of the readouts: of energies for networks without their own, of sites, of further levels
    levels : levels of theory the potential speaks; the first is the network's own, each further one adds a difference to it. Empty for one
    sites : what is read out per atom beside the energy, where the network does not say it itself: ``magmom`` (its size, μ_B),
        ``charge`` (e)
    electrostatics : ``none``; ``qeq``, charges that equilibrate over the whole system, with Ewald sums; ``qet``, its cheap form within the
        cut-off; ``latent``, charges that are learned from energies alone, with Ewald sums. See `naica.nn.equilibration`. What repeats in
        one or two directions has no Ewald sum. A charged system says ``total_charge`` (e) in its `info` or a column
    screening : Å, of ``qeq``: below it charges do not act on each other, so that the network alone describes near pairs; 0: they do
    zbl : add the universal repulsion of nuclei at short range
    spin : ``none``, or ``collinear``: the energy depends on the signed moments (``moments``, μ_B, in the `info` or a column)
    """

    hidden: int = 64
    levels: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    electrostatics: str = "none"
    screening: float = 0.0
    zbl: bool = False
    spin: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))  # JSON gives lists
        object.__setattr__(self, "sites", tuple(self.sites))
        unknown = [name for name in self.sites if name not in SITES]
        if unknown:
            raise ConfigError(f"parts.sites has {unknown[0]!r}; expected some of {', '.join(SITES)}")
        if self.electrostatics not in KINDS or self.spin not in SPINS:
            raise ConfigError(
                f"parts: electrostatics {self.electrostatics!r}, spin {self.spin!r}; expected one of {', '.join(KINDS)}, "
                f"and one of {', '.join(SPINS)}"
            )
        if self.screening < 0 or (self.screening and self.electrostatics != "qeq"):
            raise ConfigError(f"parts.screening = {self.screening} with electrostatics {self.electrostatics}; it is a length, of qeq alone")
        if "charge" in self.sites and self.electrostatics != "none":
            raise ConfigError(f"parts: electrostatics {self.electrostatics} gives the charges; leave charge out of sites")
        if self.hidden < 1 or len(set(self.levels)) != len(self.levels):
            raise ConfigError(
                f"parts: hidden {self.hidden}, levels {', '.join(self.levels)}; expected a width of at least 1, each level once"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


class PotentialModel(nn.Module):
    """``E = Σ_i (scale · ε_i + E0[Z_i])``: ε from the network, scale and references E0 from the training set.

    The network is any smooth backbone of ``naica.models``. One that reads out energies itself says so by ``reads_energy = True`` and
    returns them as ``energy`` (N) in units of `scale`; the others get a small network on their atom features. References are kept and
    summed in 64 bits.

    A potential of several levels of theory (`PotentialParts.levels`) has ``E_k = E_0 + Σ_i scale · (g_k ε_i + δ_k(x_i))`` with references
    of its own for the level k: a factor, and a small network on the atom features x, both 0 before training. A batch says per system with
    ``level`` (B) which one it wants; where it does not, `level` counts.

    `PotentialParts` adds electrostatics, the repulsion of nuclei and an energy of spins; they are part of E, so a training fits the network
    to what they leave.

    Parameters
    ----------
    architecture, architecture_config : the backbone
    parts : what stands beside it
    scale : eV per unit of the network
    references : energies of the elements in eV by atomic number; 0 where not given. For several levels a sequence, one for each

    Raises
    ------
    ConfigError
        If the architecture or a setting is unknown.
    InputError
        If the architecture's energy jumps when atoms cross the cut-off: it has no forces.
    """

    references: Tensor
    further_references: Tensor | None
    scale: Tensor

    def __init__(
        self,
        architecture: str,
        architecture_config: Mapping[str, Any] | None = None,
        parts: PotentialParts | None = None,
        scale: float = 1.0,
        references: Mapping[int, float] | Sequence[Mapping[int, float]] | None = None,
    ) -> None:
        from naica.models import backbone

        super().__init__()
        self.architecture, self.parts = architecture, parts or PotentialParts()
        self.backbone = backbone(architecture, **(architecture_config or {}))
        self.architecture_config = config_dict(self.backbone.config)
        check_smooth(architecture, self.backbone)
        width = cast(Mapping[str, int], self.backbone.widths)["atom"]
        self.readout = None if getattr(self.backbone, "reads_energy", False) else _Readout(width, self.parts.hidden)
        self.level = 0
        further = len(self.parts.levels[1:])
        self.differences = nn.ModuleList(_Difference(width, self.parts.hidden) for _ in range(further))
        self.sites = nn.ModuleDict({name: _Readout(width, self.parts.hidden) for name in self.parts.sites})
        cutoff = cast(GraphSpec, self.backbone.needs).cutoff
        if self.parts.screening > cutoff:
            raise ConfigError(f"parts.screening = {self.parts.screening} Å is beyond the network's cut-off of {cutoff} Å")
        self.charges = charges_of(self.parts.electrostatics, width, self.parts.hidden, cutoff, self.parts.screening)
        told = cast(int, getattr(self.charges, "known", 0))
        self.response = _Readout(width + told, self.parts.hidden) if told else None
        self.repulsion = ZBL(cutoff) if self.parts.zbl else None
        self.spins = Spins(width, self.parts.hidden, cutoff) if self.parts.spin == "collinear" else None
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))
        self.register_buffer("references", torch.zeros(N_ELEMENTS, dtype=torch.float64))
        self.register_buffer("further_references", torch.zeros(further, N_ELEMENTS, dtype=torch.float64) if further else None)
        for k, given in enumerate([references or {}] if isinstance(references or {}, Mapping) else cast(Sequence[Any], references)):
            self.set_references(given, k)

    def _apply(self, fn: Any, recurse: bool = True) -> PotentialModel:
        """References and scale follow to a device, but keep their 64 bits."""
        exact = {name: getattr(self, name) for name in ("references", "scale", "further_references") if getattr(self, name) is not None}
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
        return bool(getattr(self.charges, "long_range", False))

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the network."""
        return next((p.dtype for p in self.backbone.parameters()), torch.float64)

    def set_references(self, energies: Mapping[int, float], level: int = 0) -> None:
        """Energies of the elements in eV by atomic number, for one level; those not given stay as they are."""
        table = self.references if level == 0 or self.further_references is None else self.further_references[level - 1]
        for number, energy in energies.items():
            table[number] = float(energy)

    def references_of(self, level: int = 0) -> Tensor:
        """(elements) eV by atomic number, of one level."""
        return self.references if level == 0 or self.further_references is None else self.further_references[level - 1]

    def at_level(self, level: int | str) -> PotentialModel:
        """The model itself, speaking one of its levels from now on where a batch does not ask for one.

        Raises
        ------
        ConfigError
            If it has no such level.
        """
        names = self.parts.levels or ("",)
        place = names.index(level) if level in names else level
        if not isinstance(place, int) or not 0 <= place < len(names):
            raise ConfigError(f"no level {level!r}; the potential speaks {', '.join(names) or 'one level'}")
        self.level = place
        return self

    def energies(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(B) energies of whole systems in eV and 64 bits; and per atom (N) ``energy`` in eV and what else the network says."""
        features = cast(dict[str, Tensor], self.backbone(batch))
        own = features["energy"] if self.readout is None else self.readout(features["atom"])
        reference = torch.index_select(self.references, 0, batch["number"])
        if self.differences:
            own, reference = self._at_levels(own, reference, features["atom"], batch)
        told: dict[str, Tensor] = {}
        extra = reference
        if self.charges is not None:
            found = cast(Charges, self.charges(features["atom"], batch))
            extra, told["charge"] = extra + found.energy, found.charge.to(own.dtype)
            if self.response is not None:
                own = own + self.response(torch.cat([features["atom"], found.known], dim=1))
        if self.spins is not None and "moments" in batch:
            own = own + self.spins(features["atom"], batch["moments"], batch)
        if self.repulsion is not None:
            extra = extra + self.repulsion(batch)
        sites = own.double() * self.scale + extra
        total = sites.new_zeros(batch.n_systems).index_add(0, batch["system"], sites)
        atoms = {"energy": sites, **told}
        for name in SITES:
            if name in self.sites:
                value = self.sites[name](features["atom"])
                atoms[name] = value.abs() if name == "magmom" else value
            elif name in features and name not in atoms:
                atoms[name] = features[name]
        return total, atoms

    def _at_levels(self, own: Tensor, reference: Tensor, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Energies and references (N) of the atoms, each of the level that its system is asked at."""
        assert self.further_references is not None
        given = batch.get("level")
        asked = torch.full_like(batch["n_atoms"], self.level) if given is None else given
        level = torch.index_select(asked, 0, batch["system"])
        for k, difference in enumerate(self.differences, 1):
            there = torch.nonzero(level == k)[:, 0]
            if len(there):
                own = own.index_add(0, there, difference(own[there], features[there]))
                table = self.further_references[k - 1]
                reference = reference.index_copy(0, there, torch.index_select(table, 0, batch["number"][there]))
        return own, reference

    def forward(self, batch: Batch) -> Tensor:
        """(B) energies of whole systems, eV."""
        return self.energies(batch)[0]

    def compute(self, batch: Batch, twice: bool = False) -> Evaluation:
        """Energy, forces and stress of a batch made by `Systems.batch`; `twice` keeps the graph for a loss on them."""
        return differentiated(self.energies, batch, self.long_range, twice, spins=self.spins is not None)


class _Readout(nn.Module):
    """Atom features (N, C) → energies (N)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) → (N)."""
        return self.network(features)[:, 0]


class _Difference(nn.Module):
    """What a further level adds to the first one: a share of its energy, and a small network on the atom features; 0 before training."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(()))
        self.network = _Readout(width, hidden)
        last = cast(nn.Linear, self.network.network[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, own: Tensor, features: Tensor) -> Tensor:
        """Energies (n) and features (n, C) → differences (n)."""
        return self.share * own + self.network(features)


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
