"""Small labelled frames: rattled copper and gold cells with energies, forces and stresses of ASE's effective-medium potential."""

from __future__ import annotations

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

from naica.data import CrystalTable, Label, Level
from naica.potential.frames import Frames, frames
from naica.structure import Crystal

EMT_LEVEL = Level("EMT")


def crystals(n: int, seed: int = 0, elements: tuple[str, ...] = ("Cu",), rattle: float = 0.15) -> list[Crystal]:
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[:] = draw.choice(elements, 4)
        strain = np.eye(3) * draw.uniform(0.97, 1.06) + 0.02 * draw.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += rattle * draw.normal(size=(4, 3))
        found.append(Crystal(atoms.numbers, atoms.positions, atoms.cell.array))
    return found


def computed(crystal: Crystal) -> tuple[float, list[float], list[float]]:
    from ase import Atoms

    atoms = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=True, calculator=EMT())
    return float(atoms.get_potential_energy()), atoms.get_forces().ravel().tolist(), atoms.get_stress(voigt=False).ravel().tolist()


def table(n: int, seed: int = 0, elements: tuple[str, ...] = ("Cu",), level: Level = EMT_LEVEL) -> CrystalTable:
    items = crystals(n, seed, elements)
    energy, forces, stress = zip(*(computed(c) for c in items), strict=True)
    labels = {name: Label.of(name, level) for name in ("energy", "forces", "stress")}
    ids = [f"s{seed}-{k}" for k in range(n)]
    return CrystalTable.from_crystals(items, {"energy": energy, "forces": forces, "stress": stress}, labels, ids)


def emt_frames(n: int, seed: int = 0, elements: tuple[str, ...] = ("Cu",)) -> Frames:
    return frames(table(n, seed, elements))
