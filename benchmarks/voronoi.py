"""Voronoi faces: naica beside pymatgen's VoronoiNN, same crystals, one run, CPU seconds on one thread.

    python benchmarks/voronoi.py
    python benchmarks/voronoi.py --json out.json

The peer gives solid angle, area and volume of each face of a pymatgen Structure, as `naica.graphs.voronoi` does (within 20 Å), in two ways:
site by site (`get_voronoi_polyhedra`), and all sites of a crystal at once (`get_all_voronoi_polyhedra`), which is faster, but refuses some
crystals and has other faces in some more. Both with its default cut-off of 13 Å, without adjacent neighbours. Solid angles are compared
before ratios are printed; naica's edges for the graph (8 Å, threshold, cap) and its orbital fields are timed besides.
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


def peer_faces(structures, at_once: bool) -> tuple[dict[int, list[np.ndarray]], float]:
    """Solid angles of all faces of every site by crystal, without those the peer refuses, and the CPU seconds spent on these crystals."""
    from pymatgen.analysis.local_env import VoronoiNN

    peer = VoronoiNN(tol=0.0, compute_adj_neighbors=False)
    found, seconds = {}, 0.0
    for row, structure in enumerate(structures):
        start = time.process_time()
        try:
            if at_once:
                sites = peer.get_all_voronoi_polyhedra(structure)
            else:
                sites = [peer.get_voronoi_polyhedra(structure, site) for site in range(len(structure))]
        except ValueError:
            continue
        seconds += time.process_time() - start
        found[row] = [np.array([face["solid_angle"] for face in site.values()]) for site in sites]
    return found, seconds


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
    rates: dict[str, float] = {"crystals": count, "atoms": float(np.mean([len(c) for c in crystals]))}
    for name, at_once in (("peer, site by site", False), ("peer, at once", True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer, seconds = peer_faces(structures, at_once)
        same = [systems[row] for row in peer]
        worst, unequal = difference(list(peer.values()), ours(same, CUTOFF))
        own = best(lambda same=same: ours(same, CUTOFF), repeats)
        rates |= {
            name: len(same) / seconds,
            f"{name}: ratio": seconds / own,
            f"{name}: refused": len(structures) - len(same),
            f"{name}: sites with other faces": unequal,
            f"{name}: largest difference, sr": worst,
        }
    spec = GraphSpec("voronoi", 8.0, 12)
    rates["naica, all faces"] = count / best(lambda: ours(systems, CUTOFF), repeats)
    rates["naica, edges"] = count / best(lambda: [faces(s, spec) for s in systems], repeats)
    rates["naica, orbital fields"] = count / best(lambda: [orbital_field(s, spec) for s in systems], repeats)
    sums = [np.bincount(f.receiver, f.solid_angle, minlength=len(s.numbers)) for f, s in zip(ours(systems, CUTOFF), systems, strict=True)]
    rates["largest |sum - 4 pi|, sr"] = float(np.abs(np.concatenate(sums) - 4 * np.pi).max())
    return rates


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--peer-count", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="file for the numbers")
    args = parser.parse_args()
    rates = measure(args.count, args.peer_count, args.repeats)
    print(f"{args.count} crystals, {rates['atoms']:.1f} atoms on average; crystals per CPU second, load {os.getloadavg()[0]:.1f}")
    for name, value in rates.items():
        if name not in ("crystals", "atoms"):
            print(f"{name:44}{value:12.1e}" if name.endswith("sr") else f"{name:44}{value:12.1f}")
    if args.json:
        with open(args.json, "w") as handle:
            json.dump(rates, handle, indent=1)


if __name__ == "__main__":
    main()
