"""What electrostatics are worth beside a network of short reach, at equal CPU time; figures in docs/results.md, section "Long range".

    python benchmarks/long_range.py salt --minutes 3        # labels are an Ewald sum and a repulsion: the answer is known
    python benchmarks/long_range.py mapbi3 --minutes 6      # hybrid perovskite
    python benchmarks/long_range.py water --minutes 6
    python benchmarks/long_range.py speed                   # what the sums cost, from 64 to 4,096 ions

Minutes are CPU minutes of one thread per potential. Every arm has the same frames, network, seed and time.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from naica.data import CrystalTable, Label
from naica.nn.ewald import Coulomb
from naica.potential.fit import fit
from naica.potential.frames import Frames, frames
from naica.potential.model import PotentialParts
from naica.potential.settings import FitConfig, Weights
from naica.potential.systems import Systems
from naica.structure import Crystal

KINDS = ("none", "latent", "qeq", "qet")
FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def salt(number: int, seed: int) -> Frames:
    """Rock salt of 32 ions, hot and with some pairs of ions exchanged, in cells of various volumes: point charges ±1 and A exp(−r/ρ)."""
    draw = np.random.default_rng(seed)
    conventional = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], FCC * 5.64).supercell(
        np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    )
    ideal = conventional.supercell((2, 2, 1))
    made, energies, forces = [], [], []
    for _ in range(number):
        crystal = ideal.scaled(draw.uniform(0.92, 1.15))
        numbers = crystal.numbers.copy()
        for _ in range(draw.integers(0, 4)):
            a, b = draw.choice(np.flatnonzero(numbers == 11)), draw.choice(np.flatnonzero(numbers == 17))
            numbers[[a, b]] = numbers[[b, a]]
        crystal = crystal.replace(numbers=numbers, positions=crystal.positions + 0.12 * draw.normal(size=(len(numbers), 3)))
        energy, force = _of_salt(crystal)
        made.append(crystal)
        energies.append(energy)
        forces.append(force.ravel().tolist())
    table = CrystalTable.from_crystals(made)
    table = table.with_column("energy", energies, Label.of("energy")).with_column("forces", forces, Label.of("forces"))
    return frames(table)


def _of_salt(crystal: Crystal) -> tuple[float, np.ndarray]:
    batch = Systems.of(crystal).batch(8.0)
    positions = batch["positions"].requires_grad_()
    charge = torch.where(batch["number"] == 11, 1.0, -1.0).double()
    electrostatic = Coulomb.of(batch).energy(charge).sum()
    i, j = batch["edge_receiver"], batch["edge_sender"]
    length = torch.linalg.vector_norm(positions[j] - positions[i] + batch["edge_shift"] @ batch["cell"][0], dim=1)
    # 1200 eV and 0.32 Å keep ions apart as in NaCl; at 8 Å nothing is left of it
    energy = electrostatic + 0.5 * (1200.0 * torch.exp(-length / 0.32)).sum()
    slope = torch.autograd.grad(energy, positions)[0]
    return float(energy.detach()), -slope.numpy()


def study(name: str, given: Frames, minutes: float, cutoff: float, kinds: list[str], network: dict[str, Any], test: float) -> None:
    """One line for each kind of electrostatics."""
    print(f"{name}: {len(given)} frames, painn {network}, cut-off {cutoff} Å, {minutes:g} CPU minutes each", flush=True)
    for kind in kinds:
        config = FitConfig(
            architecture="painn",
            architecture_config={**network, "cutoff": cutoff},
            parts=PotentialParts(electrostatics=kind),
            epochs=1_000_000,
            max_cpu_seconds=60 * minutes,
            batch_size=2,
            learning_rate=3e-3,
            weights=Weights(energy=2.0, forces=1.0, stress=0.0),
            test=test,
            tensorboard=False,
        )
        found = fit(given, config)
        told = found.card.metrics["test"]
        steps = found.card.training["members"][0]["steps"]
        print(
            f"  {kind:7} steps {steps:6d}  energy RMSE {1e3 * told['energy_rmse']:8.2f} meV/atom  "
            f"force RMSE {1e3 * told['forces_rmse']:8.1f}  MAE {1e3 * told['forces_mae']:8.1f} meV/Å",
            flush=True,
        )


def speed() -> None:
    """CPU milliseconds of energy and forces of point charges, best of three, and how the error of the splitting stays."""
    draw = np.random.default_rng(0)
    cube = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], FCC * 5.64).supercell(
        np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    )
    print("ions  CPU ms  pairs  waves  split error (eV)")
    for repeats in ((2, 2, 2), (4, 4, 4), (6, 6, 6), (8, 8, 8)):
        crystal = cube.supercell(repeats)
        crystal = crystal.replace(positions=crystal.positions + 0.05 * draw.normal(size=crystal.positions.shape))
        batch = Systems.of(crystal).batch(1.0)
        charge = torch.where(batch["number"] == 11, 1.0, -1.0).double()
        positions = batch["positions"].requires_grad_()
        spent = []
        for _ in range(3):
            start = time.process_time()
            sums = Coulomb.of(batch)
            torch.autograd.grad(sums.energy(charge).sum(), positions)
            spent.append(time.process_time() - start)
        error = float((Coulomb.of(batch, splitting=1.2).energy(charge) - sums.energy(charge)).detach().abs())
        waves = sum(int(group.weight.count_nonzero()) for group in sums.groups)
        print(f"{len(crystal):5d} {1e3 * min(spent):8.1f} {sums.pairs.shape[1]:8d} {waves:7d}  {error:.1e}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("salt", "mapbi3", "water", "speed"))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    asked = parser.parse_args()
    if asked.what == "speed":
        speed()
    elif asked.what == "salt":
        study("salt", salt(260, 0), asked.minutes, 4.0, asked.kinds, {"width": 32, "layers": 2}, 0.25)
    else:
        given = frames(asked.what)
        keep = np.sort(np.random.default_rng(0).permutation(len(given))[: 400 if asked.what == "mapbi3" else 200])
        study(asked.what, given.take(keep), asked.minutes, 4.5, asked.kinds, {"width": 48, "layers": 2}, 0.25)


if __name__ == "__main__":
    main()
