"""A potential of copper in a minute: frames, training, errors, relaxation. The teacher here is ASE's effective-medium potential.

python examples/potential.py
"""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from naica import Crystal, CrystalTable, relax
from naica.data import Label, Level
from naica.potential.fit import fit
from naica.potential.settings import FitConfig


def labelled(n: int, seed: int) -> CrystalTable:
    """Strained and rattled cells with energies, forces and stresses."""
    draw = np.random.default_rng(seed)
    crystals, labels = [], {"energy": [], "forces": [], "stress": []}
    for _ in range(n):
        atoms: Atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) * draw.uniform(0.97, 1.06) + 0.02 * draw.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.12 * draw.normal(size=(4, 3))
        atoms.calc = EMT()
        crystals.append(Crystal(atoms.numbers, atoms.positions, atoms.cell.array))
        labels["energy"].append(atoms.get_potential_energy())
        labels["forces"].append(atoms.get_forces().ravel())
        labels["stress"].append(atoms.get_stress(voigt=False).ravel())
    return CrystalTable.from_crystals(crystals, labels, {name: Label.of(name, Level("EMT")) for name in labels})


def main() -> None:
    """Fit, judge, use."""
    network = {"width": 32, "interactions": 2, "cutoff": 5.0}
    config = FitConfig(
        architecture="schnet", architecture_config=network, max_cpu_seconds=30, epochs=10_000, learning_rate=5e-3, tensorboard=False
    )
    potential = fit(labelled(80, seed=0), config, progress=True)
    test = potential.card.metrics["test"]
    print(f"test: {1e3 * test['energy_mae']:.1f} meV/atom, {1e3 * test['forces_mae']:.0f} meV/Å")
    stretched = Crystal(np.full(4, 29), bulk("Cu", cubic=True).positions * 1.03, bulk("Cu", cubic=True).cell.array * 1.03)
    relaxed = relax(stretched, potential.calculator(), fmax=0.01)[0]
    assert relaxed.crystal is not None
    print(f"copper relaxes to a = {relaxed.crystal.volume ** (1 / 3):.3f} Å (EMT: 3.590 Å)")


if __name__ == "__main__":
    main()
