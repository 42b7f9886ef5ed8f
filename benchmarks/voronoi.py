"""Voronoi faces: naica beside pymatgen's VoronoiNN, same crystals, one run, CPU seconds on one thread.

    python benchmarks/voronoi.py
    python benchmarks/voronoi.py --json out.json

The peer tessellates a pymatgen Structure at once (`get_all_voronoi_polyhedra` with its default cut-off of 13 Å, without adjacent
neighbours), which gives solid angle, area and volume of each face, as `naica.graphs.voronoi` does (within 20 Å). The solid angles are
compared before the ratio is printed; naica's edges for the graph (8 Å, threshold, cap) and its orbital fields are timed besides.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from crystals import sample

CUTOFF = 20.0


def best(work, repeats: int) -> float:
    """Best CPU time of one call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def peer_faces(structures) -> list[list[np.ndarray]]:
    """Solid angles of all faces of every site, crystal by crystal."""
    from pymatgen.analysis.local_env import VoronoiNN

    peer = VoronoiNN(tol=0.0, compute_adj_neighbors=False)
    return [[np.array([face["solid_angle"] for face in site.values()]) for site in peer.get_all_voronoi_polyhedra(s)] for s in structures]


def difference(peer: list[list[np.ndarray]], ours) -> tuple[float, int]:
    """Largest difference of the sorted solid angles (sr) where both have as many faces, and sites where they do not.

    Faces below 1e-5 sr are rounding at degenerate vertices and do not count.
    """
    worst, unequal = 0.0, 0
    for sites, found in zip(peer, ours, strict=True):
        for k, theirs in enumerate(sites):
            a, b = (np.sort(x[x > 1e-5]) for x in (theirs, found.solid_angle[found.receiver == k]))
            if len(a) != len(b):
                unequal += 1
            else:
                worst = max(worst, float(np.abs(a - b).max(initial=0.0)))
    return worst, unequal


def measure(count: int, peer_count: int, repeats: int) -> dict[str, float]:
    """Rates of both in crystals per CPU second."""
    from naica.graphs import GraphSpec
    from naica.graphs.levels import System
    from naica.graphs.orbital_field import orbital_field
    from naica.graphs.voronoi import faces, voronoi

    crystals = list(sample(count, max_atoms=16))
    systems = [System("", c.numbers.astype(int), c.positions, c.cell, c.pbc) for c in crystals]
    structures = [c.to_pymatgen() for c in crystals[:peer_count]]

    def ours(some, cutoff):
        return [voronoi(s.positions, s.cell, s.pbc, cutoff) for s in some]

    ours(systems[:5], 8.0)
    found = ours(systems[:peer_count], CUTOFF)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        peer = peer_faces(structures)
        peer_time = time.process_time() - start
    worst, unequal = difference(peer, found)
    same_time = best(lambda: ours(systems[:peer_count], CUTOFF), repeats)
    spec = GraphSpec("voronoi", 8.0, 12)
    total = [
        np.abs(np.bincount(f.receiver, f.solid_angle, minlength=len(s.numbers)) - 4 * np.pi).max()
        for f, s in zip(found, systems[:peer_count], strict=True)
    ]
    return {
        "crystals": count,
        "atoms": float(np.mean([len(c) for c in crystals])),
        "peer": peer_count / peer_time,
        "naica, the same crystals": peer_count / same_time,
        "naica, edges": count / best(lambda: [faces(s, spec) for s in systems], repeats),
        "naica, orbital fields": count / best(lambda: [orbital_field(s, spec) for s in systems], repeats),
        "ratio": peer_time / same_time,
        "largest difference, sr": worst,
        "sites with other faces": unequal,
        "largest |sum - 4 pi|": float(np.max(total)),
    }


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--peer-count", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="file for the numbers")
    args = parser.parse_args()
    rates = measure(args.count, args.peer_count, args.repeats)
    print(f"{args.count} crystals, {rates['atoms']:.1f} atoms on average; crystals per CPU second, load {os.getloadavg()[0]:.1f}")
    for name in ("peer", "naica, the same crystals", "naica, edges", "naica, orbital fields"):
        print(f"{name:26}{rates[name]:10.1f}")
    print(f"ratio on the same crystals{rates['ratio']:10.0f}")
    for name in ("largest difference, sr", "sites with other faces", "largest |sum - 4 pi|"):
        print(f"{name:26}{rates[name]:10.1e}" if name != "sites with other faces" else f"{name:26}{rates[name]:10.0f}")
    if args.json:
        with open(args.json, "w") as handle:
            json.dump(rates, handle, indent=1)


if __name__ == "__main__":
    main()
