"""MEGNet: graph networks with a global state.

Chen, Ye, Zuo, Zheng & Ong, Chem. Mater. 31, 3564 (2019); multi-fidelity: Chen, Zuo, Ye, Li & Ong, Nat. Comput. Sci. 1, 46 (2021). A
block updates bonds, then atoms, then the state, each from what is already new; ``i`` receives::

    e' = φ_e(v_i ⊕ v_j ⊕ e ⊕ u);   v' = φ_v(⟨e'⟩_i ⊕ v_i ⊕ u);   u' = φ_u(⟨e'⟩ ⊕ ⟨v'⟩ ⊕ u)

with means over the edges of an atom, and over the edges and atoms of a system. From the second block on, two dense layers come before
that (in the first they belong to the input); what came into the block is added to what leaves it. Atoms and bonds are read by a
`Set2Set` each; with the state behind them they are the features of the system.

The published weights want some peculiarities of the TensorFlow code of their time: ``gates="hard"``, ``carry=False`` (see `Set2Set`).
`naica.training.import_megnet` sets them. All activations are softplus − ln 2; the constant is moved into the next layer's bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError, InputError
from naica.graphs import Batch, GraphSpec
from naica.nn.atoms import N_ELEMENTS
from naica.nn.chain import Path, along, serves
from naica.nn.linear import linear_after_softplus, plain_linear
from naica.nn.radial import Gaussians
from naica.nn.segment import mean_systems, sum_edges, sum_systems
from naica.nn.set2set import Gates, Set2Set
from naica.nn.softplus import softplus
from naica.nn.tabulated import Grid

_LN2 = log(2.0)
# equal edges are found by one integer: the two atoms, and the length on a grid
_LENGTH_BITS, _PER_ANGSTROM = 24, 2**19
_FARTHEST = 31.0
_WORTH = 0.9


class Dense(nn.Module):
    """Two layers, both activated: inputs → hidden → width."""

    def __init__(self, inputs: int, hidden: int, width: int) -> None:
        super().__init__()
        self.first, self.second = plain_linear(inputs, hidden), plain_linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) → (n, width)."""
        return softplus(linear_after_softplus(self.second, softplus(self.first(x)))) - _LN2


class Phi(nn.Module):
    """Three layers over joined parts: sum of the parts' widths → hidden → hidden → width; the last one activated or not."""

    def __init__(self, parts: tuple[int, ...], hidden: int, width: int, activated: bool) -> None:
        super().__init__()
        self.parts, self.activated = parts, activated
        self.first, self.second, self.third = plain_linear(sum(parts), hidden), plain_linear(hidden, hidden), plain_linear(hidden, width)

    def split(self) -> tuple[Tensor, ...]:
        """The first layer's weights of each part."""
        return self.first.weight.split(self.parts, dim=1)

    def rest(self, x: Tensor) -> Tensor:
        """What follows the first linear map."""
        x = linear_after_softplus(self.third, softplus(linear_after_softplus(self.second, softplus(x))))
        return softplus(x) - _LN2 if self.activated else x


class Block(nn.Module):
    """One update of bonds, atoms and state."""

    def __init__(self, width: int, hidden: int, dense: bool, activated: bool) -> None:
        super().__init__()
        self.dense = nn.ModuleList(Dense(width, hidden, width) for _ in range(3)) if dense else None
        self.bonds = Phi((width,) * 4, hidden, width, activated)
        self.atoms = Phi((width,) * 3, hidden, width, activated)
        self.state = Phi((width,) * 3, hidden, width, activated)

    def forward(self, v: Tensor, e: Tensor, u: Tensor, links: Links) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms (N, C), edges (E, C), systems (B, C) → the same, updated."""
        came = (v, u)
        if self.dense is not None:
            v, u = self.dense[0](v), self.dense[2](u)
        system = links.batch["system"]
        at_receiver, at_sender, on_edge, on_state = self.bonds.split()
        of_receivers = F.linear(v, at_receiver, self.bonds.first.bias) + torch.index_select(F.linear(u, on_state), 0, system)
        e, of_atoms = self._along(e, of_receivers, F.linear(v, at_sender), on_edge, links)
        from_bonds, from_atoms, from_state = self.atoms.split()
        v = self.atoms.rest(
            F.linear(of_atoms / links.edges_of_atom, from_bonds, self.atoms.first.bias)
            + F.linear(v, from_atoms)
            + torch.index_select(F.linear(u, from_state), 0, system)
        )
        # all edges of a system end at its atoms: the sums over them are already there
        of_system = sum_systems(of_atoms, links.batch) / links.edges_of_system
        joined = torch.cat([of_system, mean_systems(v, links.batch), u], dim=1)
        u = self.state.rest(self.state.first(joined))
        return v + came[0], e, u + came[1]

    def _along(self, e: Tensor, of_receivers: Tensor, of_senders: Tensor, on_edge: Tensor, links: Links) -> tuple[Tensor, Tensor]:
        """Bonds (E, C) and what belongs to their ends (N, hidden) → bonds after the block (E, C), their updates summed on atoms (N, C)."""
        dense, phi = (None if self.dense is None else cast(Dense, self.dense[1])), self.bonds
        layers = [(on_edge, None), *(_after_softplus(layer) for layer in (phi.second, phi.third))]
        if dense is not None:
            layers = [(dense.first.weight, dense.first.bias), _after_softplus(dense.second), *layers]
        weights = [weight for weight, _ in layers]
        if not links.once or not serves(e, weights):
            x = e if dense is None else dense(e)
            x = phi.rest(torch.addmm(links.ends(of_receivers, of_senders), x, on_edge.t()))
            return e + x, sum_edges(x if links.times is None else x * links.times, links.batch)
        if dense is not None:
            # its result comes out of a softplus too: the shift goes into what belongs to the receivers
            of_receivers = of_receivers - _LN2 * on_edge.sum(1)
        path = Path(links.batch["edge_receiver"], links.batch["edge_sender"], len(layers) - 3, _LN2 if phi.activated else None, links.times)
        return along(path, e, of_receivers, of_senders, weights, [bias for _, bias in layers])


def _after_softplus(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer for the softplus that comes in without its shift by ln 2."""
    return layer.weight, layer.bias - _LN2 * layer.weight.sum(1)


@dataclass(frozen=True)
class Links:
    """A batch's edges: each stands for `times` (E, 1) equal ones (None: for itself); how many end at each atom and in each system.

    `once`: nothing is differentiated twice, so that bonds may go through compiled layers (`naica.nn.chain`).
    """

    batch: Batch
    times: Tensor | None
    edges_of_atom: Tensor
    edges_of_system: Tensor
    once: bool

    @classmethod
    def of(cls, batch: Batch, dtype: torch.dtype) -> Links:
        """Made once for all blocks. Means over nothing are zero: numbers of edges are at least 1."""
        n, length = len(batch["number"]), batch["edge_length"]
        short_cuts = dtype == torch.float32 and not length.requires_grad and not torch.compiler.is_compiling()
        times = None
        if short_cuts:
            batch, times = merged(batch)
        receiver = batch["edge_receiver"]
        degree = torch.bincount(receiver, minlength=n) if times is None else torch.bincount(receiver, times, minlength=n)
        degree = degree.to(dtype)[:, None]
        of_system = sum_systems(degree, batch).clamp(min=1)
        return cls(batch, None if times is None else times.to(dtype)[:, None], degree.clamp(min=1), of_system, short_cuts)

    def ends(self, of_receivers: Tensor, of_senders: Tensor) -> Tensor:
        """Sum of what belongs to the two ends (N, C) of every edge: (E, C)."""
        of_senders = torch.index_select(of_senders, 0, self.batch["edge_sender"])
        return of_senders + torch.index_select(of_receivers, 0, self.batch["edge_receiver"])


def merged(batch: Batch) -> tuple[Batch, Tensor | None]:
    """The batch with equal edges merged into one, and how many each stands for (E); None where too few are equal to be worth it.

    Edges between the same two atoms that are equally long (to 2e-6 Å, the rounding of 32-bit positions) are the same for a network that
    knows nothing but distances, through all its layers: a fifth of all edges of common crystals, two thirds of those of perovskites.
    """
    length, receiver = batch["edge_length"], batch["edge_receiver"]
    if not len(length) or float(length.max()) >= _FARTHEST:
        return batch, None
    key = ((receiver * len(batch["number"]) + batch["edge_sender"]) << _LENGTH_BITS) | (length * _PER_ANGSTROM).round().long()
    # numpy sorts integers several times faster than torch, and the order is not needed where nothing is merged
    if 1 + int(np.count_nonzero(np.diff(np.sort(key.cpu().numpy())))) > _WORTH * len(length):
        return batch, None
    key, order = torch.sort(key)
    _, times = torch.unique_consecutive(key, return_counts=True)
    first = order[torch.cumsum(times, 0) - times]
    edges = {name: value[first] for name, value in batch.items() if name.startswith("edge_")}
    return Batch({**batch, **edges}), times


class MEGNet(nn.Module):
    """The blocks of MEGNet and its Set2Set readout; the dense layers after it are the head's."""

    @dataclass(frozen=True)
    class Config:
        """Settings; the defaults are the network of the paper with an ordinary LSTM in its readout.

        Parameters
        ----------
        blocks, width, hidden : number of blocks, their width (32) and that of the layers inside (64)
        elements : length of the learned vector of each element
        graph : ``radius`` joins all atoms within `cutoff`; ``complete`` all atoms of a molecule, and refuses larger ones than `cutoff`
        cutoff : Å
        gaussians, reach, spread : how many, last centre in Å (0: `cutoff` + 1), and w in exp(−(d − μ)² / w²)
        state : names of state variables (columns, or keys of ``Crystal.info``); without any the state is `constant`
        constant : the state of every system where no variables are named
        scale : what each state variable is divided by (300 for kelvins, say); empty: 1
        levels : if not 0, the state is one integer below it, the level of theory, and each has a learned vector of length `level_width`
        passes, pool, gates, carry : of `Set2Set`, see there; `pool` is the length it maps to
        bonds : read the set of bonds too, not the atoms alone
        last : whether the last layer of each φ is activated
        lone : what to do with atoms without neighbours: ``allowed`` (means over nothing are zero) or ``refused``
        """

        blocks: int = 3
        width: int = 32
        hidden: int = 64
        elements: int = 16
        graph: Literal["radius", "complete"] = "radius"
        cutoff: float = 5.0
        gaussians: int = 100
        reach: float = 0.0
        spread: float = 0.5
        state: tuple[str, ...] = ()
        constant: tuple[float, ...] = (0.0, 0.0)
        scale: tuple[float, ...] = ()
        levels: int = 0
        level_width: int = 16
        passes: int = 3
        pool: int = 16
        gates: Gates = "logistic"
        carry: bool = True
        bonds: bool = True
        last: Literal["linear", "activated"] = "linear"
        lone: Literal["allowed", "refused"] = "allowed"

        def __post_init__(self) -> None:
            for name in ("state", "constant", "scale"):
                value = getattr(self, name)
                # lists are what JSON and TOML give back, a single value what the command line does
                object.__setattr__(self, name, (value,) if isinstance(value, str | float | int) else tuple(value))
            for name, options in (("graph", ("radius", "complete")), ("last", ("linear", "activated")), ("lone", ("allowed", "refused"))):
                if getattr(self, name) not in options:
                    raise ConfigError(f"{name} {getattr(self, name)!r} is unknown; expected {' or '.join(options)}")
            if self.gates not in get_args(Gates):
                raise ConfigError(f"gates {self.gates!r} is unknown; expected {' or '.join(get_args(Gates))}")
            sizes = (self.blocks, self.width, self.hidden, self.elements, self.passes, self.pool, self.level_width)
            if min(sizes) < 1 or self.levels < 0 or not self.inputs:
                raise ConfigError(f"sizes {sizes}, {self.levels} levels, {self.inputs} state variables; expected at least 1, 0 and 1")
            if self.levels and self.inputs != 1:
                raise ConfigError(f"with levels = {self.levels} the state is one integer; got {self.inputs} state variables")
            if self.levels and not self.state and not (self.constant[0] == int(self.constant[0]) and 0 <= self.constant[0] < self.levels):
                raise ConfigError(f"constant = {self.constant[0]:g} is no level; expected an integer from 0 to {self.levels - 1}")
            if self.scale and (len(self.scale) != self.inputs or min(self.scale) <= 0 or self.levels):
                raise ConfigError(f"scale = {self.scale}; expected one positive number for each of {self.inputs} real state variables")

        @property
        def inputs(self) -> int:
            """How many state variables there are."""
            return len(self.state or self.constant)

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = nn.Embedding(N_ELEMENTS, c.elements)
        self.levels = nn.Embedding(c.levels, c.level_width) if c.levels else None
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.radial = Gaussians(0.0, c.reach or c.cutoff + 1.0, c.gaussians, c.spread)
        inputs = (c.elements, c.gaussians, c.level_width if c.levels else c.inputs)
        self.start = nn.ModuleList(Dense(n, c.hidden, c.width) for n in inputs)
        self.blocks = nn.ModuleList(Block(c.width, c.hidden, k > 0, c.last == "activated") for k in range(c.blocks))
        self.read_atoms = Set2Set(c.width, c.pool, c.passes, c.gates, c.carry)
        self.read_bonds = Set2Set(c.width, c.pool, c.passes, c.gates, c.carry) if c.bonds else None

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        c = self.config
        levels = (*(("connected",) if c.lone == "refused" else ()), *(("complete",) if c.graph == "complete" else ()))
        return GraphSpec("radius", c.cutoff, levels=levels, state=c.state)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level; the system's are the network's own readout."""
        return {"system": 2 * self.config.pool * (2 if self.config.bonds else 1) + self.config.width, "atom": self.config.width}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of graphs → system features (B, 4 · pool + width) and atom features (N, width)."""
        v_in, e_in, u_in = self.start
        v = torch.index_select(v_in(self.embedding.weight), 0, batch["number"])
        links = Links.of(batch, v.dtype)
        e = self._bonds(e_in, links.batch["edge_length"], v.dtype)
        u = u_in(self._state(batch, v))
        for block in self.blocks:
            v, e, u = block(v, e, u, links)
        read = [self.read_atoms(v, batch["system"], batch.n_systems)]
        if self.read_bonds is not None:
            times = None if links.times is None else links.times[:, 0]
            read.append(self.read_bonds(e, links.batch.system_of("edge"), batch.n_systems, times))
        return {"system": torch.cat([*read, u], dim=1), "atom": v}

    def _bonds(self, dense: nn.Module, length: Tensor, dtype: torch.dtype) -> Tensor:
        """(E, width) what comes in for bonds of some length."""
        grid = Grid.of(length, self.config.spread / 2**0.5)
        return dense(self.radial(length).to(dtype)) if grid is None else grid(dense(self.radial(grid.points).to(dtype)))

    def _state(self, batch: Batch, like: Tensor) -> Tensor:
        """(B, ·) the state that comes in."""
        c = self.config
        if not c.state:
            state = like.new_tensor(c.constant).expand(batch.n_systems, -1)
        elif "state" in batch:
            state = batch["state"].to(like.dtype)
        else:
            raise InputError(f"this network reads the state variables {', '.join(c.state)}, which the batch does not have")
        if self.levels is None:
            return state / like.new_tensor(c.scale) if c.scale else state
        level = state[:, 0].round().long()
        if bool(((level < 0) | (level >= c.levels) | (level != state[:, 0])).any()):
            raise InputError(f"{c.state[0]} must be an integer from 0 to {c.levels - 1}; found {sorted(set(state[:, 0].tolist()))[:5]}")
        return self.levels(level)
