"""Heat a crystal at constant pressure until it melts, and say where it did.

    python examples/melting.py                                        argon as Lennard-Jones atoms, half a minute
    python examples/melting.py my.cif --model runs/copper --from 300 --to 2000 --steps 50000 --supercell 4,4,4

The melting point of a crystal without surface lies some percent above the true one (superheating), and the more so the faster it is
heated. The run is kept in a trajectory and can be interrupted and started again.
"""

from __future__ import annotations

import argparse

import numpy as np
from ase.build import bulk

import naica


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--model", default="lennard-jones")
    parser.add_argument("--from", dest="low", type=float, default=30.0, help="K")
    parser.add_argument("--to", dest="high", type=float, default=120.0, help="K")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--dt", type=float, default=8.0, help="fs; 1 to 2 for most solids")
    parser.add_argument("--supercell", default="4,4,4")
    parser.add_argument("--out", default="melting.ntr")
    asked = parser.parse_args()
    start = naica.read(asked.file) if asked.file else naica.Crystal.from_ase(bulk("Ar", a=5.3, cubic=True))
    crystal = start.supercell([int(k) for k in asked.supercell.split(",")])
    times = {"dt": asked.dt, "relaxation": 40 * asked.dt, "barostat": 200 * asked.dt}
    done = naica.md(
        crystal,
        asked.model,
        "npt",
        asked.low,
        asked.steps,
        ramp_to=asked.high,
        ramp_steps=asked.steps,
        path=asked.out,
        every=50,
        progress=lambda pace: print(f"\r{pace.done}/{pace.total} steps, {pace.ns_per_day:.1f} ns/day", end="", flush=True),
        **times,
    )
    frames, n = done.trajectory.frames(), len(crystal)
    inside = np.einsum("kna,kab->knb", frames.positions, np.linalg.inv(frames.cell))
    moved = np.einsum("kna,kab->knb", inside - inside[0], frames.cell)
    travelled = (moved**2).sum(2).mean(1)
    kelvin = asked.low + (asked.high - asked.low) * frames.step / asked.steps
    print(f"\n{'T (K)':>8s}{'V (Å³/atom)':>14s}{'E (eV/atom)':>14s}{'MSD (Å²)':>11s}")
    for k in range(0, len(frames), max(len(frames) // 15, 1)):
        print(f"{kelvin[k]:8.0f}{frames.volume[k] / n:14.3f}{frames.energy[k] / n:14.4f}{travelled[k]:11.2f}")
    # Lindemann: a solid does not shake its atoms by more than about a seventh of their distance
    limit = (0.2 * (frames.volume / n) ** (1 / 3)) ** 2
    melted = np.flatnonzero(travelled > limit)
    print(f"melted at about {kelvin[melted[0]]:.0f} K" if len(melted) else "still solid")


if __name__ == "__main__":
    main()
