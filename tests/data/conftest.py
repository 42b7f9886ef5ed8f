"""Small crystals made on the spot; sets of the registry where they are on this machine."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from naica.data import CrystalTable, Label, Level, dataset, load_set
from naica.structure import Crystal

PBE = Level("PBE", code="test")


def rock_salt(a: str = "Na", b: str = "Cl", length: float = 5.64, **info: object) -> Crystal:
    """Primitive rock salt."""
    cell = length / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal.from_fractional([a, b], [[0, 0, 0], [0.5, 0.5, 0.5]], cell, info=info)


@pytest.fixture
def salts() -> CrystalTable:
    """Twelve rock salts with a formation energy."""
    pairs = [(a, b) for a in ("Li", "Na", "K", "Rb") for b in ("F", "Cl", "Br")]
    crystals = [rock_salt(a, b, 4.0 + 0.2 * k, id=f"{a}{b}") for k, (a, b) in enumerate(pairs)]
    energies = np.linspace(-3, -1, len(crystals))
    label = Label.of("formation_energy_per_atom", PBE)
    return CrystalTable.from_crystals(crystals, {"e_form": energies}, {"e_form": label}, [a + b for a, b in pairs])


@pytest.fixture
def published() -> Callable[..., CrystalTable]:
    """Loads a set of the registry, or skips where its files are absent."""

    def load(name: str, **arguments: object) -> CrystalTable:
        if not dataset(name).present:
            pytest.skip(f"data set {name} is not on this machine (naica data pull {name})")
        return load_set(name, **arguments) if arguments else _whole(name)

    return load


@cache
def _whole(name: str) -> CrystalTable:
    return load_set(name)
