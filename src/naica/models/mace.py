"""MACE: messages of higher body order by products of each atom's own sums.

Batatia et al., NeurIPS 2022. In layer t, with K channels of every degree::

    A_i = W [ Σ_j R(d_ij) ⊙ (W_up h_j ⊗ Y(r̂_ij)) ] / N̄ ,     h_i ← W' B(A_i; w_{z_i}) + W_{z_i} h_i

R is a radial network of Bessel functions, one weight per path (l of h, l of Y, l of A) and channel; N̄ the mean number of neighbours; B
the symmetric products of up to `correlation` components of A (`naica.nn.product_basis`). The energy of an atom is read from the scalars of
every layer, linearly, and by a small network from the last, whose features are scalars only. Parity is (−1)^l throughout. Both interactions
are the residual ones: W_z h is taken of what comes in. Initial weights, norms and numbers of parameters are those of the reference code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn.edge_product import EdgeProduct, Path, Tabled
from naica.nn.equivariant import ElementRows, Kinds, Mix, RadialNetwork, gain
from naica.nn.product_basis import MOST_CORRELATION, ProductBasis
from naica.nn.radial import bessel_functions
from naica.nn.so3 import edge_harmonics, natural
from naica.nn.tables import Tables


class Layer(nn.Module):
    """One interaction and its products."""

    def __init__(self, config: MACE.Config, elements: int, inputs: int, results: int) -> None:
        super().__init__()
        c, k = config, config.channels
        self.neighbours, self.channels = c.average_neighbours, k
        self.product = message_paths(inputs, c.l_max, c.l_max)
        self.up = nn.ModuleList(Mix(k, k) for _ in range(inputs + 1))
        self.radial = RadialNetwork([c.bessels, *c.radial, len(self.product.paths) * k])
        self.down = nn.ModuleList(Mix(slots * k, k) for _, slots in self.product.outputs)
        # degrees of what comes in that also go out
        self.residual = nn.ParameterList(nn.Parameter(torch.randn(elements, k, k)) for _ in range(min(inputs, results) + 1))
        # 1 / sqrt(inputs): the one-hot element counts as so many elements for the reference's norm
        self.scale = (k * elements) ** -0.5
        self.basis = ProductBasis(c.l_max, range(results + 1), c.correlation, elements, k)
        self.after = nn.ModuleList(Mix(k, k) for _ in range(results + 1))

    def fold(self) -> None:
        """Take factors into weights, for good: the network is to learn no more."""
        for weight in self.residual:
            weight.data.mul_(self.scale)
        for mix in self.down:
            cast(Mix, mix).weight.data.div_(self.neighbours)
        self.scale = self.neighbours = 1.0

    def weights(self, radial: Tensor) -> Tensor:
        """Bessel functions of the edges (E, ·) → weights (E, paths, K)."""
        return self.radial(radial).view(radial.shape[0], len(self.product.paths), self.channels)

    def forward(self, h: list[Tensor], weights: Tensor | Tabled, harmonics: Tensor, kinds: Kinds, batch: Batch) -> list[Tensor]:
        """Features by degree, each (N, 2l + 1, K); weights of the paths and harmonics of the edges."""
        n, k = h[0].shape[0], self.channels
        up = [mix(x) for mix, x in zip(self.up, h, strict=True)]
        sums = self.product(weights, self.product.turns(harmonics), up, batch["edge_receiver"], batch["edge_sender"])
        down = [mix(x.flatten(2)) for mix, x in zip(self.down, sums, strict=True)]
        a = torch.cat(down, dim=1)
        products = self.basis(a if self.neighbours == 1.0 else a / self.neighbours, kinds)
        found = [mix(b) for mix, b in zip(self.after, products, strict=True)]
        for degree, weight in enumerate(self.residual):
            found[degree] = found[degree] + kinds.mixed(h[degree], weight if self.scale == 1.0 else weight * self.scale)
        assert found[0].shape == (n, 1, k)
        return found


def message_paths(inputs: int, harmonics: int, results: int) -> EdgeProduct:
    """Every path from degrees 0 … `inputs` with harmonics up to a degree to results up to a degree, all of parity (−1)^l."""
    stacks: list[list[tuple[int, int]]] = [[] for _ in range(results + 1)]
    for source in range(inputs + 1):
        for degree in range(harmonics + 1):
            for result in natural(source).times(natural(degree)):
                if result == natural(result.degree) and result.degree <= results:
                    stacks[result.degree].append((source, degree))
    paths = [Path(s, d, target, slot) for target, stack in enumerate(stacks) for slot, (s, d) in enumerate(stack)]
    outputs = tuple((degree, len(stack)) for degree, stack in enumerate(stacks))
    return EdgeProduct(tuple(range(inputs + 1)), outputs, tuple(paths))


class MACE(nn.Module):
    """4,688,656 parameters with 89 elements, 10 Bessel functions and 128 channels of degrees 0 and 1."""

    smooth = True
    reads_energy = True

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        channels : K, of every degree
        l_hidden : highest degree of the features between layers
        l_max : highest degree of harmonics and of the sums A
        correlation : most factors of a product, 1 to 3
        layers : interactions
        cutoff, bessels, envelope : Å, number of radial functions, power of what brings them to zero
        radial : hidden widths of the radial networks
        readout : hidden width of the last readout
        average_neighbours : N̄, mean number of neighbours in the training set
        elements : symbols; empty for all 103. Weights are per element, so a short list makes a small network
        """

        channels: int = 128
        l_hidden: int = 1
        l_max: int = 3
        correlation: int = 3
        layers: int = 2
        cutoff: float = 5.0
        bessels: int = 8
        envelope: int = 5
        radial: tuple[int, ...] = (64, 64, 64)
        readout: int = 16
        average_neighbours: float = 20.0
        elements: tuple[str, ...] = ()

        def __post_init__(self) -> None:
            object.__setattr__(self, "radial", tuple(self.radial))  # JSON gives lists
            object.__setattr__(self, "elements", tuple(self.elements))
            if self.channels < 1 or self.layers < 1 or self.bessels < 1 or self.readout < 1:
                raise ConfigError(
                    f"{self.channels} channels, {self.layers} layers, {self.bessels} Bessel functions, readout {self.readout}; "
                    "expected at least 1 each"
                )
            if not 0 <= self.l_hidden <= self.l_max or not 1 <= self.correlation <= MOST_CORRELATION:
                raise ConfigError(
                    f"l_hidden {self.l_hidden}, l_max {self.l_max}, correlation {self.correlation}; expected 0 ≤ l_hidden ≤ l_max "
                    f"and a correlation of 1 to {MOST_CORRELATION}"
                )
            if self.average_neighbours <= 0 or self.cutoff <= 0 or self.envelope < 2:
                raise ConfigError(
                    f"average_neighbours {self.average_neighbours}, cutoff {self.cutoff} Å, envelope {self.envelope}; "
                    "expected more than 0, more than 0, at least 2"
                )

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.rows = ElementRows(c.elements)
        elements = len(self.rows)
        self.embedding = nn.Parameter(torch.randn(elements, c.channels))
        degrees = [0, *[c.l_hidden] * (c.layers - 1), 0]
        self.layers = nn.ModuleList(Layer(c, elements, degrees[k], degrees[k + 1]) for k in range(c.layers))
        self.readouts = nn.ModuleList(Mix(c.channels, 1) for _ in range(c.layers - 1))
        self.last_hidden, self.last = Mix(c.channels, c.readout), Mix(c.readout, 1)
        self.tables: Tables | None = None

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("radius", self.config.cutoff)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level: the scalars of every layer."""
        return {"atom": self.config.layers * self.config.channels}

    def edge_functions(self, length: Tensor) -> list[Tensor]:
        """What depends on the lengths (E) of edges alone: weights (E, paths, K) of each layer."""
        c = self.config
        radial = bessel_functions(length, c.bessels, c.cutoff, c.envelope) * sqrt(2 / c.cutoff)
        return [layer.weights(radial) for layer in cast(Iterable[Layer], self.layers)]

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
        weights = self.edge_functions(length) if self.tables is None else self.tables(length)
        harmonics = edge_harmonics(batch["edge_vector"], length, c.l_max)
        h = [torch.index_select(self.embedding * len(self.rows) ** -0.5, 0, rows)[:, None]]
        scalars = []
        for layer, weight in zip(self.layers, weights, strict=True):
            h = layer(h, weight, harmonics, kinds, batch)
            scalars.append(h[0][:, 0])
        energy = self.last(F.silu(self.last_hidden(scalars[-1])) * gain("silu"))
        for readout, x in zip(self.readouts, scalars, strict=False):
            energy = energy + readout(x)
        return {"atom": torch.cat(scalars, dim=1), "energy": energy[:, 0]}
