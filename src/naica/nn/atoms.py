"""How an atom starts: a vector for its element."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from naica.data.atom2vec import shipped
from naica.structure.elements import Element, element, table

N_ELEMENTS = 104  # rows: atomic numbers 1 to 103; row 0 stays unused
Start = Literal["learned", "described", "atom2vec"]

_OXIDATION = range(-4, 9)


class DescribedElements(nn.Module):
    """A vector per element that is a linear map of what the periodic table says (`descriptors`).

    Elements alike start alike: that helps where labels are few (800 perovskites: test error 0.13 instead of 0.165 eV/atom), and gives
    elements without labels a meaning. A free table, ``nn.Embedding``, is the alternative: a linear map of the one-hot element.

    Parameters
    ----------
    width : length of the vectors
    """

    described: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        known = descriptors()
        self.register_buffer("described", known, persistent=False)
        self.linear = nn.Linear(known.shape[1], width)

    def forward(self, numbers: Tensor) -> Tensor:
        """Atomic numbers (N) → (N, width)."""
        return torch.index_select(self.linear(self.described), 0, numbers)


class OccurringElements(nn.Module):
    """A vector per element that is a linear map of where it occurs among known compounds (`naica.data.atom2vec`): no table of properties.

    Elements that none of those compounds holds start from zero, and so alike.

    Parameters
    ----------
    width : length of the vectors
    """

    occurring: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        known = occurrences()
        self.register_buffer("occurring", known, persistent=False)
        self.linear = nn.Linear(known.shape[1], width)

    def forward(self, numbers: Tensor) -> Tensor:
        """Atomic numbers (N) → (N, width)."""
        return torch.index_select(self.linear(self.occurring), 0, numbers)


def element_vectors(kind: Start, width: int) -> nn.Module:
    """The module that gives every atom its first vector."""
    if kind == "learned":
        return nn.Embedding(N_ELEMENTS, width)
    return DescribedElements(width) if kind == "described" else OccurringElements(width)


def occurrences() -> Tensor:
    """(104, 20) the shipped Atom2Vec directions, of mean square 1; zero for elements without one."""
    found = shipped()
    rows = torch.zeros(N_ELEMENTS, found.values.shape[1])
    places = [element(name).number for name in found.names]
    rows[places] = torch.from_numpy(found.directions).float() * found.values.shape[1] ** 0.5
    return rows


def descriptors() -> Tensor:
    """(104, 64) what the periodic table says of each element; row 0 is zero.

    Group (18, and one for lanthanides and actinides), period (7), block (4), Pauling electronegativity (11 soft bins from 0.5 to 4.0),
    covalent radius (10 soft bins from 0.3 to 2.6 Å), common oxidation states (−4 to +8). A property nobody knows is a block of zeros.
    """
    rows = torch.zeros(N_ELEMENTS, 64)
    for one in table():
        rows[one.number] = torch.cat(_blocks(one))
    return rows


def _blocks(one: Element) -> list[Tensor]:
    no_group = one.block == "f"
    negativity = one.electronegativity
    states = torch.tensor([float(state in one.oxidation_states) for state in _OXIDATION])
    return [
        _one_hot(0 if no_group else one.group, 19),
        _one_hot(one.period - 1, 7),
        _one_hot("spdf".index(one.block), 4),
        torch.zeros(11) if negativity is None else _soft_bins(negativity, 0.5, 4.0, 11),
        _soft_bins(one.covalent_radius, 0.3, 2.6, 10),
        states,
    ]


def _one_hot(place: int, size: int) -> Tensor:
    return torch.eye(size)[place]


def _soft_bins(value: float, low: float, high: float, number: int) -> Tensor:
    """Gaussians one spacing wide, so that near values share bins and no two differ in nothing."""
    centres = torch.linspace(low, high, number)
    return torch.exp(-(((value - centres) / (centres[1] - centres[0])) ** 2))
