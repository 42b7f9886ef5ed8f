"""Potentials: energy, forces and stress, and a training step; naica beside the package that has the same network, CPU ms on one thread.

    python benchmarks/potential_environments.py FOLDER       # once: the peers' environments
    python benchmarks/potentials.py --peers FOLDER           # all networks
    python benchmarks/potentials.py --peers FOLDER mace painn
    python benchmarks/potentials.py growth                   # naica alone: 64 to 8,000 atoms, time and memory

Si 64 and Si 512 are rattled diamond, LiPS is Li24P8S32 at random. Every call moves the atoms and makes the neighbour list anew, as the
peers' ASE calculators do; `baked` is the same network after `bake` (functions of distance tabulated, its error printed). A training
step is four cells of 64 atoms, a loss on energies, forces and stresses, Adam. Architecture, widths and cut-off are the peer's; the
numbers of parameters are printed beside each other. Both run in one call of this program, in turns, each in its own process; the least
of all turns counts. Peers run as a user gets them, without naica's tuning of the runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from timing import best_of

ELEMENTS = ("Li", "Si", "P", "S")
MACE = {"elements": ELEMENTS, "cutoff": 5.0}
# by name: environment of the peer, naica's architecture and settings
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "schnet": ("schnetpack", "schnet", {}),
    "painn": ("schnetpack", "painn", {}),
    "nequip": ("nequip", "nequip", {"elements": ELEMENTS}),
    "nequip-l2": ("nequip", "nequip", {"elements": ELEMENTS, "l_max": 2, "parity": False, "channels": 64}),
    "mace": ("mace", "mace", {**MACE, "channels": 128, "l_hidden": 1}),
    "mace-128": ("mace", "mace", {**MACE, "channels": 128, "l_hidden": 0}),
    "mace-64": ("mace", "mace", {**MACE, "channels": 64, "l_hidden": 0}),
    "m3gnet": ("matgl", "m3gnet", {}),
    "matgl-chgnet": ("matgl", "chgnet", {}),
    "chgnet": ("matgl", "chgnet", {}),
}
TARGETS = {"painn": 2.5, "mace Si512": 6.0}


def systems() -> dict[str, Any]:
    """The systems by name, as ASE atoms."""
    from ase import Atoms
    from ase.build import bulk

    draw = np.random.default_rng(0)

    def silicon(repeats: int) -> Atoms:
        atoms = bulk("Si", cubic=True).repeat(repeats)
        atoms.positions += 0.05 * draw.normal(size=atoms.positions.shape)
        return atoms

    return {"Si64": silicon(2), "Si512": silicon(4), "LiPS64": lips(draw), **{f"train{k}": silicon(2) for k in range(4)}}


def lips(draw: np.random.Generator) -> Any:
    """Li24P8S32 in 1,331 Å³, no two atoms nearer than 2 Å."""
    from ase import Atoms

    edge, places = 11.0, np.zeros((0, 3))
    while len(places) < 64:
        new = edge * draw.random(3)
        apart = places - new
        apart -= edge * np.rint(apart / edge)
        if not len(places) or np.linalg.norm(apart, axis=1).min() > 2.0:
            places = np.vstack([places, new])
    return Atoms("Li24P8S32", places, cell=[edge] * 3, pbc=True)


def ours(name: str, given: Any) -> dict[str, float]:
    """Naica's times of one network, in this process."""
    from naica.runtime import threads

    threads(1)
    import torch

    from naica.potential.learned import LearnedPotential
    from naica.potential.model import PotentialModel
    from naica.potential.systems import Systems
    from naica.structure import Crystal

    torch.manual_seed(0)
    _, architecture, config = NETWORKS[name]
    model = PotentialModel(architecture, config)
    model.eval()
    draw = np.random.default_rng(0)
    result = {"parameters": float(sum(p.numel() for p in model.parameters()))}
    cells = {n: Crystal(a.numbers, a.positions, a.cell.array, a.pbc) for n, a in given.items()}

    def moved(crystal: Crystal) -> Crystal:
        return crystal.replace(positions=crystal.positions + 0.01 * draw.normal(size=crystal.positions.shape))

    plain = LearnedPotential([model], torch.float32)
    variants = {"": plain, "baked ": baked(plain, cells["Si64"], result)}
    for variant, potential in variants.items():
        if potential is None:
            continue
        for n, crystal in cells.items():
            if not n.startswith("train"):
                result[variant + n] = best_of(lambda c=crystal, p=potential: p.compute(moved(c)))
    ready = Systems.of([c for n, c in cells.items() if n.startswith("train")], torch.float32).batch(model.cutoff)
    step = torch.optim.Adam(model.parameters(), 1e-6)

    def train() -> None:
        step.zero_grad()
        told = model.compute(ready, twice=True)
        (told.energy.square().sum() + told.forces.square().sum() + told.stress.square().sum()).backward()
        step.step()

    result["training step"] = best_of(train, 4, 10.0)
    return result


def baked(plain: Any, crystal: Any, result: dict[str, float]) -> Any:
    """The potential with its functions of distance tabulated, or None where it has none to tabulate; its error goes to `result`."""
    from naica.potential.bake import bake, can_bake

    if not can_bake(plain):
        return None
    faster = bake(plain, [crystal])
    result["bake error"] = faster.force_error
    return faster.potential


def growth(name: str) -> None:
    """Time and memory of one call against the number of atoms."""
    import resource

    from ase.build import bulk

    from naica.runtime import threads

    threads(1)
    import torch

    from naica.potential.learned import LearnedPotential
    from naica.potential.model import PotentialModel
    from naica.structure import Crystal

    _, architecture, config = NETWORKS[name]
    potential = LearnedPotential([PotentialModel(architecture, config)], torch.float32)
    print(f"{name}: CPU ms of energy, forces and stress, one thread")
    print(f"{'atoms':>8}{'ms':>10}{'µs/atom':>10}{'memory (MB)':>13}")
    for repeats in (2, 3, 4, 5, 6, 8, 10):
        atoms = bulk("Si", cubic=True).repeat(repeats)
        crystal = Crystal(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        seconds = best_of(lambda c=crystal: potential.compute(c), 3)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{len(atoms):8d}{1e3 * seconds:10.1f}{1e6 * seconds / len(atoms):10.1f}{memory:13.0f}")


def turn(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """One process's answer."""
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(told.splitlines()[-1])


def compare(name: str, peers: Path | None, file: Path, turns: int) -> dict[str, dict[str, float]]:
    """Naica and the peer in turns; the least seconds of each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    here = Path(__file__)
    found: dict[str, dict[str, float]] = {"naica": {}, "peer": {}}
    for _ in range(turns):
        rounds = {"naica": [sys.executable, str(here), "--inner", name, "--file", str(file)]}
        if peers is not None:
            python = peers / NETWORKS[name][0] / "bin" / "python"
            rounds["peer"] = [str(python), str(here.with_name("potential_peers.py")), name, str(file)]
        for who, command in rounds.items():
            for key, value in turn(command, environment).items():
                found[who][key] = min(found[who].get(key, float("inf")), value)
    return found


def show(name: str, found: dict[str, dict[str, float]]) -> None:
    """The lines of one network."""
    us, peer = found["naica"], found["peer"]
    for what in ("Si64", "Si512", "LiPS64", "training step"):
        best = min(us[key] for key in (what, f"baked {what}") if key in us)
        cells = [f"{1e3 * us[what]:9.1f}", f"{1e3 * us[f'baked {what}']:9.1f}" if f"baked {what}" in us else f"{'–':>9}"]
        other = f"{1e3 * peer[what]:9.1f}" if what in peer else f"{'–':>9}"
        ratio = f"{peer[what] / best:8.1f}" if what in peer else f"{'–':>8}"
        print(f"{name:14}{what:15}{other}{''.join(cells)}{ratio}")
    error = f", bake error {us['bake error']:.1e} eV/Å" if "bake error" in us else ""
    print(f"{'':14}parameters: peer {peer.get('parameters', 0):,.0f}, naica {us['parameters']:,.0f}{error}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}; or growth")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments; without it naica runs alone")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        from ase import Atoms

        given = np.load(args.file)
        names = sorted({key.split(".")[0] for key in given.files})
        atoms = {n: Atoms(given[f"{n}.numbers"], given[f"{n}.positions"], cell=given[f"{n}.cell"], pbc=True) for n in names}
        print(json.dumps(ours(args.inner, atoms)))
        return
    if args.names[:1] == ["growth"]:
        for name in args.names[1:] or ("painn", "mace"):
            growth(name)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "systems.npz"
        np.savez(
            file,
            **{
                f"{n}.{k}": v
                for n, a in systems().items()
                for k, v in (("numbers", a.numbers), ("positions", a.positions), ("cell", a.cell.array))
            },
        )
        print(f"CPU ms, one thread; load average {os.getloadavg()[0]:.1f}")
        print(f"{'network':14}{'':15}{'peer':>9}{'naica':>9}{'baked':>9}{'ratio':>8}")
        for name in args.names or NETWORKS:
            results[name] = compare(name, args.peers, file, args.turns)
            show(name, results[name])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
