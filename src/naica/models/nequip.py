"""NequIP: an equivariant network of tensor products with harmonics of the edges.

Batzner et al., Nat. Commun. 13, 2453 (2022)::

    h_i ← gate( W_{z_i} h_i + W₂ Σ_j R(d_ij) ⊙ ( (W₁ h_j) N̄^−½ ⊗ Y(r̂_ij) ) )

R is a radial network of Bessel functions, one weight per path and channel; N̄ the mean number of neighbours. The gate passes even scalars
through silu, odd ones through tanh, and multiplies everything else by silus of further scalars; activations are normalised. The first layer
has no W_z, so a lone atom has the energy of its element and nothing else; the last keeps scalars only. With ``parity`` features of both
parities are kept, else only (−1)^l. As in the present reference code, the element enters W_z by the same learned vector that the atoms
start from, not one-hot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn.edge_product import EdgeProduct, Path, Tabled
from naica.nn.equivariant import ElementRows, Kinds, Mix, RadialNetwork, gain
from naica.nn.radial import bessel_functions
from naica.nn.so3 import Irrep, edge_harmonics, natural
from naica.nn.tables import Tables

Features = dict[Irrep, Tensor]
"""By degree and parity: (N, 2l + 1, C)."""
_SCALAR = Irrep(0, 1)


class Messages(nn.Module):
    """``Σ_j R ⊙ (h_j ⊗ Y)`` from features to irreps that are wanted; results of several paths are stacked along the channels.

    Parameters
    ----------
    inputs : channels by irrep
    wanted : irreps to be made
    harmonics : highest degree of Y
    """

    def __init__(self, inputs: dict[Irrep, int], wanted: Sequence[Irrep], harmonics: int) -> None:
        super().__init__()
        # features of as many channels are multiplied at once
        self.groups: list[tuple[int, list[Irrep], list[Irrep], EdgeProduct]] = []
        self.stacked: dict[Irrep, int] = {}
        for channels in sorted(set(inputs.values()), reverse=True):
            sources = [irrep for irrep, width in inputs.items() if width == channels]
            stacks: dict[Irrep, list[tuple[int, int]]] = {}
            for place, source in enumerate(sources):
                for degree in range(harmonics + 1):
                    for result in source.times(natural(degree)):
                        if result in wanted:
                            stacks.setdefault(result, []).append((place, degree))
            targets = [irrep for irrep in wanted if irrep in stacks]
            paths = [Path(s, d, t, slot) for t, irrep in enumerate(targets) for slot, (s, d) in enumerate(stacks[irrep])]
            if not paths:
                continue
            outputs = tuple((irrep.degree, len(stacks[irrep])) for irrep in targets)
            self.groups.append((channels, sources, targets, EdgeProduct(tuple(s.degree for s in sources), outputs, tuple(paths))))
            for irrep in targets:
                self.stacked[irrep] = self.stacked.get(irrep, 0) + channels * len(stacks[irrep])
        self.weights = sum(channels * len(product.paths) for channels, _, _, product in self.groups)

    def split(self, weights: Tensor) -> list[Tensor]:
        """Weights (E, `self.weights`) → (E, paths, C) of each group."""
        parts = weights.split([channels * len(product.paths) for channels, _, _, product in self.groups], dim=1)
        return [
            part.unflatten(1, (len(product.paths), channels)) for part, (channels, _, _, product) in zip(parts, self.groups, strict=True)
        ]

    def forward(self, h: Features, weights: Sequence[Tensor | Tabled], harmonics: Tensor, batch: Batch) -> Features:
        """Features, weights of each group, harmonics (E, (L + 1)²) → stacked sums by irrep."""
        found: dict[Irrep, list[Tensor]] = {}
        for (_, sources, targets, product), part in zip(self.groups, weights, strict=True):
            inputs = [h[irrep] for irrep in sources]
            sums = product(part, product.turns(harmonics), inputs, batch["edge_receiver"], batch["edge_sender"])
            for irrep, value in zip(targets, sums, strict=True):
                found.setdefault(irrep, []).append(value.flatten(2))
        return {irrep: values[0] if len(values) == 1 else torch.cat(values, dim=2) for irrep, values in found.items()}


class Layer(nn.Module):
    """One round of messages and the gate."""

    def __init__(self, config: NequIP.Config, inputs: dict[Irrep, int], hidden: dict[Irrep, int], first: bool) -> None:
        super().__init__()
        c = config
        self.hidden = dict(hidden)
        self.neighbours = c.average_neighbours
        gates = sum(width for irrep, width in hidden.items() if irrep.degree)
        self.before = {irrep: width + (gates if irrep == _SCALAR else 0) for irrep, width in hidden.items()}
        self.messages = Messages(inputs, list(self.before), c.l_max)
        self.up = nn.ModuleDict({str(irrep): Mix(width, width) for irrep, width in inputs.items()})
        self.radial = RadialNetwork([c.bessels, *[c.radial_width] * c.radial_depth, self.messages.weights], later=2**0.5, normed=False)
        self.down = nn.ModuleDict({str(irrep): Mix(self.messages.stacked[irrep], width) for irrep, width in self.before.items()})
        self.folded = nn.ParameterDict()
        # (channels, element's vector, out): a matrix for each element, linear in its vector
        kept = {} if first else {irrep: width for irrep, width in inputs.items() if irrep in self.before}
        self.own = nn.ParameterDict(
            {str(irrep): nn.Parameter(torch.randn(width, c.start_width, self.before[irrep])) for irrep, width in kept.items()}
        )

    @property
    def parts(self) -> int:
        """Groups of paths, each with weights of its own."""
        return len(self.messages.groups)

    def weights(self, radial: Tensor) -> list[Tensor]:
        """Bessel functions of the edges (E, ·) → weights (E, paths, C) of each group of paths."""
        return self.messages.split(self.radial(radial))

    def forward(
        self, h: Features, weights: Sequence[Tensor | Tabled], harmonics: Tensor, vectors: Tensor, kinds: Kinds, batch: Batch
    ) -> Features:
        """Features; weights of each group of paths and harmonics of the edges; vectors of the elements (elements, ·)."""
        up = {irrep: self.up[str(irrep)](x) for irrep, x in h.items()}
        if self.neighbours != 1.0:
            up = {irrep: x * self.neighbours**-0.5 for irrep, x in up.items()}
        sums = self.messages(up, weights, harmonics, batch)
        found = {irrep: self.down[str(irrep)](sums[irrep]) for irrep in self.before}
        for irrep, value in found.items():
            if str(irrep) in self.own:
                found[irrep] = value + kinds.mixed(h[irrep], self._of_elements(str(irrep), vectors))
        return self._gated(found)

    def _of_elements(self, name: str, vectors: Tensor) -> Tensor:
        """(elements, C, C'): the map of features of one irrep for every element."""
        if name in self.folded:
            return self.folded[name]
        weight = self.own[name]
        flat = weight.permute(1, 0, 2).reshape(weight.shape[1], -1)
        return (vectors @ flat * (weight.shape[0] * weight.shape[1]) ** -0.5).view(-1, weight.shape[0], weight.shape[2])

    def fold_elements(self, vectors: Tensor) -> None:
        """Keep what depends on weights alone, for good: the network is to learn no more."""
        for mix in self.up.values():
            cast(Mix, mix).weight.data.mul_(self.neighbours**-0.5)
        self.neighbours = 1.0
        self.folded.update({name: nn.Parameter(self._of_elements(name, vectors), requires_grad=False) for name in self.own})

    def _gated(self, x: Features) -> Features:
        widths = [self.hidden.get(_SCALAR, 0), *(width for irrep, width in self.hidden.items() if irrep.degree)]
        scalars, *gates = (F.silu(x[_SCALAR]) * gain("silu")).split(widths, dim=2)
        found, left = {}, iter(gates)
        for irrep in self.hidden:
            if irrep == _SCALAR:
                found[irrep] = scalars
            elif irrep.degree == 0:
                found[irrep] = torch.tanh(x[irrep]) * gain("tanh")
            else:
                found[irrep] = x[irrep] * next(left)
        return found


class NequIP(nn.Module):
    """438,432 parameters with the default settings and four elements."""

    smooth = True
    reads_energy = True

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        channels : of every degree and parity, or one number for each degree 0 … l_max
        l_max : highest degree of harmonics and features
        parity : whether both parities of each degree are kept
        layers : rounds of messages
        cutoff, bessels, envelope : Å, number of radial functions, power of what brings them to zero
        radial_depth, radial_width : hidden layers of the radial networks
        average_neighbours : N̄, mean number of neighbours in the training set
        elements : symbols; empty for all 103
        """

        channels: int | tuple[int, ...] = 32
        l_max: int = 1
        parity: bool = True
        layers: int = 4
        cutoff: float = 5.0
        bessels: int = 8
        envelope: int = 6
        radial_depth: int = 1
        radial_width: int = 128
        average_neighbours: float = 20.0
        elements: tuple[str, ...] = ()

        def __post_init__(self) -> None:
            if not isinstance(self.channels, int):
                object.__setattr__(self, "channels", tuple(self.channels))  # JSON gives lists
            object.__setattr__(self, "elements", tuple(self.elements))
            if self.l_max < 0 or len(self.widths) != self.l_max + 1 or min(self.widths) < 1:
                raise ConfigError(
                    f"l_max {self.l_max} with channels {self.channels}; expected a number of at least 1, or one for each degree"
                )
            if self.layers < 1 or self.bessels < 1 or self.radial_depth < 0 or self.radial_width < 1:
                raise ConfigError(
                    f"{self.layers} layers, {self.bessels} Bessel functions, radial networks {self.radial_depth} × {self.radial_width}; "
                    "expected at least 1, 1, 0 and 1"
                )
            if self.average_neighbours <= 0 or self.cutoff <= 0 or self.envelope < 2:
                raise ConfigError(
                    f"average_neighbours {self.average_neighbours}, cutoff {self.cutoff} Å, envelope {self.envelope}; "
                    "expected more than 0, more than 0, at least 2"
                )

        @property
        def widths(self) -> tuple[int, ...]:
            """Channels by degree."""
            return (self.channels,) * (self.l_max + 1) if isinstance(self.channels, int) else self.channels

        @property
        def start_width(self) -> int:
            """Channels atoms start with."""
            return self.widths[0]

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.rows = ElementRows(c.elements)
        self.embedding = nn.Parameter(torch.randn(len(self.rows), c.start_width))
        wanted = [Irrep(degree, p) for degree in range(c.l_max + 1) for p in ((1, -1) if c.parity else ((-1) ** degree,))]
        self.layers = nn.ModuleList()
        have = {_SCALAR: c.start_width}
        for k in range(c.layers):
            last = k == c.layers - 1
            reachable = {result for irrep in have for degree in range(c.l_max + 1) for result in irrep.times(natural(degree))}
            kept = [_SCALAR] if last else [irrep for irrep in wanted if irrep in reachable]
            hidden = {irrep: c.widths[irrep.degree] for irrep in kept}
            self.layers.append(Layer(c, have, hidden, first=k == 0))
            have = hidden
        self.readout = Mix(c.start_width, 1)
        self.tables: Tables | None = None

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.start_width}

    def edge_functions(self, length: Tensor) -> list[Tensor]:
        """What depends on the lengths (E) of edges alone: weights (E, paths, C) of each group of each layer."""
        c = self.config
        radial = bessel_functions(length, c.bessels, c.cutoff, c.envelope) * (2 / c.cutoff)
        return [part for layer in self.layers for part in cast(Layer, layer).weights(radial)]

    def fold(self) -> None:
        """Keep what depends on weights alone, for good: the network is to learn no more."""
        for layer in self.layers:
            cast(Layer, layer).fold_elements(self.embedding.detach())

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of graphs → atom features (N, width) and energies of the atoms (N) in units of the network.

        Raises
        ------
        InputError
            If an element is not among those the network was made for.
        """
        c = self.config
        rows = self.rows(batch["number"])
        kinds = Kinds(rows, len(self.rows))
        length = batch["edge_length"]
        weights = iter(self.edge_functions(length) if self.tables is None else self.tables(length))
        harmonics = edge_harmonics(batch["edge_vector"], length, c.l_max)
        h: Features = {_SCALAR: torch.index_select(self.embedding, 0, rows)[:, None]}
        for layer in self.layers:
            h = layer(h, list(islice(weights, cast(Layer, layer).parts)), harmonics, self.embedding, kinds, batch)
        scalars = h[_SCALAR][:, 0]
        return {"atom": scalars, "energy": self.readout(scalars)[:, 0]}
