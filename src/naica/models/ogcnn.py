"""OGCNN: CGCNN whose atoms know the orbitals around them.

Karamad et al., Phys. Rev. Materials 4, 093801 (2020). Every atom starts from what the periodic table says of its element, joined with its
orbital field matrix; a small network encodes both, and CGCNN's gated convolutions follow (their edges are the nearest atoms; the orbital
information is in the atoms, as in the released code).

The matrix of a site is an outer product of its own valence bits O and the field f of its neighbours' bits (`graphs.orbital_field`), so all
it says beyond the element are 32 numbers. The default (``field="vector"``) reads [O ⊕ f]; ``field="matrix"`` reads all 32 × 33 entries, as
released; ``field="none"`` reads zeros in their place, which is CGCNN with an encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.models.cgcnn import GatedConvolution
from naica.nn import Gaussians
from naica.nn.atoms import descriptors
from naica.structure.configurations import Configuration, configuration, orbital_bits
from naica.structure.elements import table

Field = Literal["vector", "matrix", "none"]
Weight = Literal["1", "2", "4"]
_LEVELS = {"1": "orbital_field", "2": "orbital_field_square", "4": "orbital_field_released"}
# fields of ordinary sites: eight faces at 2.5 Å
_TYPICAL = {"1": 2.0, "2": 0.8, "4": 0.15}


def cgcnn_bits() -> Tensor:
    """(104, 92) Bits per element in the layout of CGCNN's; row 0 is zero.

    Group (19, the first for lanthanides and actinides), period (7), and by ranges: electronegativity 0.5 to 4 (10), covalent radius 25 to
    250 pm (10), valence electrons 1 to 12 (12), ionisation energy e^1.3 to e^3.3 eV (10), electron affinity −3 to 3.7 eV (10), block (4),
    molar volume e^1.5 to e^4.3 cm³/mol (10). A property nobody measured is a block of zeros. Values are those of naica's own tables, so
    single bits differ from the released file.
    """
    rows = torch.zeros(len(orbital_bits()), 92)
    for element in table():
        electrons = configuration(element.number)
        blocks = [
            _one(0 if element.block == "f" else element.group, 19),
            _one(element.period - 1, 7),
            _bin(element.electronegativity, 0.5, 4.0),
            _bin(100 * element.covalent_radius, 25.0, 250.0),
            _one(min(_outer(electrons), 12) - 1, 12),
            _bin(_log(electrons.ionisation_energy), 1.3, 3.3),
            _bin(electrons.electron_affinity, -3.0, 3.7),
            _one("spdf".index(element.block), 4),
            _bin(_log(electrons.molar_volume), 1.5, 4.3),
        ]
        rows[element.number] = torch.cat(blocks)
    return rows


def _outer(electrons: Configuration) -> int:
    """Valence electrons without the filled d and f subshells below a p subshell or below another d."""
    last = max(n for n, _, _ in electrons.valence)
    letters = {letter for n, letter, _ in electrons.valence if n == last}
    return sum(count for n, letter, count in electrons.valence if n == last or ("p" not in letters and not (letter == "f" and count == 14)))


def _log(value: float | None) -> float | None:
    return None if value is None else float(torch.log(torch.tensor(value, dtype=torch.float64)))


def _one(place: int, size: int) -> Tensor:
    return torch.eye(size)[place]


def _bin(value: float | None, low: float, high: float, number: int = 10) -> Tensor:
    if value is None:
        return torch.zeros(number)
    return _one(min(max(int((value - low) / (high - low) * number), 0), number - 1), number)


class OGCNN(nn.Module):
    """The encoder and the convolutions; pooling and the layers after it are the head's.

    ``OGCNN.Config.released()`` is the network of the released code, 31 million parameters with its head.
    """

    known: Tensor
    own: Tensor

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        width, layers : features of an atom, convolutions
        encoder : width of the encoder's hidden layer
        field : ``vector``, ``matrix`` or ``none``: what is read of the orbital field matrix
        power : of the distance in the weight of a neighbour, ``1`` as in the paper of the matrix, ``2``, or ``4`` as in the released code
        elements : ``described`` (soft bins) or ``bits`` (CGCNN's layout)
        cutoff, neighbours, gaussians : the graph and its distances
        """

        width: int = 64
        layers: int = 3
        encoder: int = 128
        field: Field = "vector"
        power: Weight = "1"
        elements: Literal["described", "bits"] = "described"
        cutoff: float = 8.0
        neighbours: int = 12
        gaussians: int = 41

        def __post_init__(self) -> None:
            if self.field not in get_args(Field):
                raise ConfigError(f"field {self.field!r} is unknown; expected one of {', '.join(get_args(Field))}")
            if self.power not in _LEVELS:
                raise ConfigError(f"power {self.power!r} is unknown; expected one of {', '.join(_LEVELS)}")
            if self.elements not in ("described", "bits"):
                raise ConfigError(f"elements {self.elements!r} is unknown; expected 'described' or 'bits'")
            if self.width < 1 or self.encoder < 1 or self.layers < 0:
                raise ConfigError(f"width {self.width}, encoder {self.encoder}, {self.layers} layers; expected at least 1, 1 and 0")

        @classmethod
        def released(cls) -> OGCNN.Config:
            """The sizes of the released code; its head has one hidden layer of 128."""
            return cls(width=1536, encoder=768, field="matrix", power="4", elements="bits")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.register_buffer("known", descriptors() if c.elements == "described" else cgcnn_bits(), persistent=False)
        self.register_buffer("own", torch.from_numpy(orbital_bits().copy()), persistent=False)
        columns = self.known.shape[1] + (32 * 33 if c.field == "matrix" else 64)
        self.encoder = nn.Sequential(nn.Linear(columns, c.encoder), nn.Softplus(), nn.Linear(c.encoder, c.width))
        self.radial = Gaussians(0.0, c.cutoff, c.gaussians)
        self.convolutions = nn.ModuleList(GatedConvolution(c.width, c.gaussians) for _ in range(c.layers))

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        levels = () if self.config.field == "none" else (_LEVELS[self.config.power],)
        return GraphSpec("nearest", self.config.cutoff, self.config.neighbours, levels=levels)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width}

    def atom_features(self, batch: Batch) -> Tensor:
        """(N, columns) What is known of the element, joined with what is read of its orbital field matrix."""
        numbers = batch["number"]
        known, own = self.known[numbers], self.own[numbers]
        if self.config.field == "none":
            return torch.cat([known, torch.zeros_like(own), torch.zeros_like(own)], dim=1)
        around = batch[_LEVELS[self.config.power]].to(known.dtype)
        if self.config.field == "vector":
            return torch.cat([known, own, around / _TYPICAL[self.config.power]], dim=1)
        matrix = torch.cat([own[:, :, None] * around[:, None], own[:, :, None]], dim=2)
        return torch.cat([known, matrix.flatten(1)], dim=1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of crystal graphs with their orbital fields → atom features (N, width)."""
        atoms = self.encoder(self.atom_features(batch))
        edges = self.radial(batch["edge_length"]).to(atoms.dtype)
        for convolution in self.convolutions:
            atoms = convolution(atoms, edges, batch)
        return {"atom": atoms}
