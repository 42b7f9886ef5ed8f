"""Relaxation of many small crystals: naica's batches beside ASE's BFGS, one by one, with the same potential in the same run.

    python benchmarks/relaxation.py [--model chgnet] [--crystals 24] [--fmax 0.05]
    python benchmarks/relaxation.py --neighbours            edges of 64 to 8,000 atoms: made, and refreshed in a step

CPU seconds of one thread. ASE runs ``BFGS(FrechetCellFilter(atoms))`` and ``FIRE`` with the ASE calculator of the same network, so that
the difference is batching, the list with a skin and the optimiser.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def crystals(many: int, seed: int = 0) -> list[Any]:
    """Ordered binaries and elements of 1 to 12 atoms, strained by some percent and shaken."""
    from ase.build import bulk
    from ase.spacegroup import crystal

    from naica.structure import Crystal

    draw = np.random.default_rng(seed)
    kinds: list[Callable[[], Any]] = [
        lambda: bulk("MgO", "rocksalt", a=4.25),
        lambda: bulk("GaAs", "zincblende", a=5.75),
        lambda: bulk("CsCl", "cesiumchloride", a=4.15),
        lambda: bulk("CaF2", "fluorite", a=5.5),
        lambda: bulk("Si", "diamond", a=5.45, cubic=True),
        lambda: bulk("Ti", "hcp", a=2.95, c=4.7),
        lambda: bulk("Fe", "bcc", a=2.86, cubic=True),
        lambda: bulk("LiF", "rocksalt", a=4.05, cubic=True),
        lambda: crystal(["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.64, 4.64, 2.97, 90, 90, 90]),
        lambda: crystal(["Sr", "Ti", "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.94] * 3 + [90] * 3),
        lambda: crystal(["Zn", "O"], [(1 / 3, 2 / 3, 0), (1 / 3, 2 / 3, 0.382)], spacegroup=186, cellpar=[3.27, 3.27, 5.28, 90, 90, 120]),
        lambda: bulk("Al", "fcc", a=4.05, cubic=True),
    ]
    made = []
    for k in range(many):
        atoms = kinds[k % len(kinds)]()
        strain = np.eye(3) * (1 + 0.03 * draw.normal()) + 0.02 * draw.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ ((strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(0.08, rng=draw)
        made.append(Crystal.from_ase(atoms))
    return made


def by_ase(items: list[Any], model: str, fmax: float, method: str) -> tuple[list[float], int]:
    """Energies and calls of ASE's optimiser, one crystal after the other."""
    from ase import optimize
    from ase.filters import FrechetCellFilter

    from naica.potential.calculators import calculator

    calc = calculator(model)
    energies, calls = [], 0
    for one in items:
        atoms = one.to_ase()
        atoms.calc = calc
        optimiser = getattr(optimize, method)(FrechetCellFilter(atoms), logfile=None)
        optimiser.run(fmax=fmax, steps=500)
        energies.append(atoms.get_potential_energy())
        calls += optimiser.nsteps + 1
    return energies, calls


def ours(items: list[Any], model: str, fmax: float, batch: int, dtype: str) -> tuple[list[float], int]:
    """Energies and calls of naica's batches."""
    import torch

    from naica.potential.evaluator import Looped, of
    from naica.potential.optimise import Goal, optimise

    evaluator = of(model, getattr(torch, dtype))
    goal = Goal(fmax=fmax, steps=500, batch_atoms=batch)
    done = optimise(items, evaluator, goal.alone() if isinstance(evaluator, Looped) else goal)
    return [np.nan if r.energy is None else r.energy for r in done], evaluator.calls


def relaxation(model: str, many: int, fmax: float) -> None:
    """The table."""
    items = crystals(many)
    n_atoms = np.array([len(c) for c in items])
    print(f"{many} crystals, {n_atoms.sum()} atoms, model {model}, fmax {fmax} eV/Å")
    print(f"{'':34s}{'CPU s':>8s}{'calls':>8s}{'ms/call':>9s}{'ratio':>7s}  largest difference (meV/atom)")
    by_ase(items[:1], model, fmax, "BFGS")  # loads the model, warms the caches
    runs: list[tuple[str, Callable[[], tuple[list[float], int]]]] = [
        ("ASE BFGS, one by one", lambda: by_ase(items, model, fmax, "BFGS")),
        ("ASE FIRE, one by one", lambda: by_ase(items, model, fmax, "FIRE")),
        ("naica, one by one", lambda: ours(items, model, fmax, 1, "float64")),
        ("naica, batches of 60 atoms", lambda: ours(items, model, fmax, 60, "float64")),
        ("naica, batches of 200 atoms", lambda: ours(items, model, fmax, 200, "float64")),
        ("naica, batches of 200 atoms, f32", lambda: ours(items, model, fmax, 200, "float32")),
    ]
    reference: tuple[float, Any] | None = None
    for name, go in runs:
        begun = time.process_time()
        energies, calls = go()
        spent = time.process_time() - begun
        reference = reference or (spent, np.array(energies))
        worst = np.nanmax(np.abs(np.array(energies) - reference[1]) / n_atoms) * 1e3
        print(f"{name:34s}{spent:8.2f}{calls:8d}{1e3 * spent / calls:9.1f}{reference[0] / spent:7.2f}  {worst:.2f}", flush=True)


def neighbours() -> None:
    """Edges within 5 Å of copper, with the skin of 0.8 Å: made anew, and refreshed as a step of dynamics does."""
    import torch
    from ase.build import bulk

    from naica.potential.systems import Systems
    from naica.potential.verlet import Neighbours
    from naica.structure import Crystal

    print(f"{'atoms':>7s}{'edges':>9s}{'made, ms':>10s}{'refreshed, ms':>15s}{'µs/atom':>9s}")
    for n in (1, 2, 4, 6, 8, 12):
        systems = Systems.of(Crystal.from_ase(bulk("Cu", cubic=True) * (n, n, n)))
        made, refreshed, edges = [], [], 0
        for _ in range(3):
            lists = Neighbours(5.0)
            begun = time.process_time()
            lists.batch(systems, torch.float32)
            made.append(time.process_time() - begun)
            for _ in range(3):
                moved = systems.replace(positions=systems.positions + 0.001 * torch.randn_like(systems.positions))
                begun = time.process_time()
                edges = lists.batch(moved, torch.float32)[0].n_edges
                refreshed.append(time.process_time() - begun)
        atoms, quick = len(systems.number), min(refreshed)
        print(f"{atoms:7d}{edges:9d}{1e3 * min(made):10.2f}{1e3 * quick:15.3f}{1e6 * quick / atoms:9.2f}", flush=True)


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="chgnet")
    parser.add_argument("--crystals", type=int, default=24)
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--neighbours", action="store_true")
    asked = parser.parse_args()
    from naica import runtime

    runtime.tune()
    import torch

    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f}")
    if asked.neighbours:
        neighbours()
    else:
        relaxation(asked.model, asked.crystals, asked.fmax)


if __name__ == "__main__":
    main()
