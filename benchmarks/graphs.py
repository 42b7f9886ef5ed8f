"""Graphs from parsed structures: naica beside the original CGCNN path, in one run, CPU seconds on one thread.

    python benchmarks/graphs.py
    python benchmarks/graphs.py --json out.json

Both make 12 nearest neighbours within 8 Å. The peer goes from a pymatgen Structure through `get_all_neighbors`, sorts each atom's list by
distance and builds lists of indices and distances, as the released data loader does (its Gaussian expansion is left out). naica goes from
`Crystal` objects, or from a table, to tensors of one batch. The distances are compared before the ratio is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from crystals import sample


def peer_graph(structure, radius: float = 8.0, neighbours: int = 12):
    """Indices and distances (n, 12) of one pymatgen Structure, the original way."""
    index, distance = [], []
    for found in structure.get_all_neighbors(radius, include_index=True):
        ordered = sorted(found, key=lambda neighbour: neighbour[1])
        if len(ordered) < neighbours:
            missing = neighbours - len(ordered)
            index.append([neighbour[2] for neighbour in ordered] + [0] * missing)
            distance.append([neighbour[1] for neighbour in ordered] + [radius + 1.0] * missing)
        else:
            index.append([neighbour[2] for neighbour in ordered[:neighbours]])
            distance.append([neighbour[1] for neighbour in ordered[:neighbours]])
    return np.array(index), np.array(distance)


def best(work, repeats: int) -> float:
    """Best CPU time of one call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(count: int, peer_count: int, repeats: int) -> dict[str, float]:
    """Rates of both in crystals per CPU second."""
    from naica.graphs import GraphSet, GraphSpec
    from naica.runtime import threads

    threads(1)
    table = sample(count)
    crystals = list(table)
    graphs = GraphSet.build(table)
    structures = [c.to_pymatgen() for c in crystals[:peer_count]]
    peer = np.concatenate([peer_graph(s)[1].ravel() for s in structures])
    ours = graphs.batch(range(peer_count))["edge_length"].numpy()
    if len(ours) == len(peer):
        assert abs(np.sort(ours.reshape(-1, 12)) - np.sort(peer.reshape(-1, 12))).max() < 1e-4, "the two find different neighbours"
    rates = {
        "crystals": count,
        "atoms": float(graphs.counts.mean()),
        "peer": peer_count / best(lambda: [peer_graph(s) for s in structures], 2),
        "naica from crystals": count / best(lambda: GraphSet.build(crystals).batch(range(count)), repeats),
        "naica from a table": count / best(lambda: GraphSet.build(table).batch(range(count)), repeats),
        "naica, all within 5 Å": count / best(lambda: GraphSet.build(table, GraphSpec("radius", 5.0)).batch(range(count)), repeats),
    }
    rates["ratio"] = rates["naica from crystals"] / rates["peer"]
    return rates


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--peer-count", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="file for the numbers")
    args = parser.parse_args()
    rates = measure(args.count, args.peer_count, args.repeats)
    print(
        f"{args.count} crystals, {rates['atoms']:.1f} atoms on average; crystals per CPU second, one thread, load {os.getloadavg()[0]:.1f}"
    )
    for name in ("peer", "naica from crystals", "naica from a table", "naica, all within 5 Å"):
        print(f"{name:24}{rates[name]:10.0f}{rates[name] / rates['peer']:8.0f} x")
    if args.json:
        with open(args.json, "w") as handle:
            json.dump(rates, handle, indent=1)


if __name__ == "__main__":
    main()
