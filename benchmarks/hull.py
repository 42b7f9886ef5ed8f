"""Hull distances: pymatgen and naica on the same entries, one after the other, CPU time of one process.

    python benchmarks/hull.py [--entries 5000] [--elements 4] [--json]     # one quaternary system with thousands of entries
    python benchmarks/hull.py --set mp20 [--json]                          # a whole set: 12,904 crystals over some 85 elements
    python benchmarks/hull.py --queries [--json]                           # hull energies per second at two to five elements

Both start from formulas and energies per atom and end with the distance of every entry to the hull. In the first, compositions are random
(amounts up to 8); energies follow a smooth bowl with scatter, so that a few per cent of the entries are stable, as in databases. In the
second, the elements enter at 0 and pymatgen's side is its hull of many systems (PatchedPhaseDiagram); the set also grows, one crystal at a
time, and must end where the hull made at once ends. The set lacks phases of its source, so distances to its hull are at most the source's.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ELEMENTS = ("Li", "Mg", "Al", "O", "F")
QUERIES = 1_000_000


def entries(n: int, k: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Formulas and total energies per atom of n entries over k elements; the pure elements come first."""
    rng = np.random.default_rng(seed)
    reference = rng.uniform(-6, -1, k)
    amounts = np.vstack([np.eye(k, dtype=int), rng.integers(0, 9, (2 * n, k))])
    amounts = amounts[amounts.sum(axis=1) > 0][:n]
    x = amounts / amounts.sum(axis=1, keepdims=True)
    mixing = -2.0 * (1 - (x**2).sum(axis=1)) + rng.gamma(2.0, 0.08, n)
    mixing[np.count_nonzero(amounts, axis=1) == 1] = 0.0
    formulas = ["".join(f"{s}{a}" for s, a in zip(ELEMENTS, row, strict=False) if a) for row in amounts]
    return formulas, x @ reference + mixing


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and its CPU seconds."""
    start = time.process_time()
    answer = work()
    return answer, time.process_time() - start


def by_pymatgen(formulas: list[str], energies: np.ndarray) -> np.ndarray:
    """All distances by pymatgen's ``PhaseDiagram``."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    compositions = [Composition(f) for f in formulas]
    parts = [PDEntry(c, e * c.num_atoms) for c, e in zip(compositions, energies, strict=True)]
    diagram = PhaseDiagram(parts)
    return np.array([diagram.get_e_above_hull(p) for p in parts])


def by_naica(formulas: list[str], energies: np.ndarray) -> np.ndarray:
    """All distances by naica."""
    from naica.discover.hull import Hull

    return Hull(formulas, energies).above_hull


def queries_per_second(formulas: list[str], energies: np.ndarray) -> float:
    """Hull energies of a million compositions on a finished hull, arrays in and out."""
    from naica.discover.hull import Hull

    hull = Hull(formulas, energies)
    amounts = np.random.default_rng(1).integers(1, 9, (QUERIES, len(hull.elements)))
    hull.energy(amounts[:1])
    return QUERIES / timed(lambda: hull.energy(amounts))[1]


def best_queries(k: int, entries_: int) -> dict[str, Any]:
    """Hull energies per second at k elements: best of five, arrays in and out, and what the table of boxes costs once."""
    from naica.discover.hull import Hull

    hull = Hull(*entries(entries_, k))
    amounts = np.random.default_rng(1).integers(1, 9, (QUERIES, k))
    first = timed(lambda: hull.energy(amounts))[1]
    best = min(timed(lambda: hull.energy(amounts))[1] for _ in range(5))
    facets = hull._face(np.arange(k))[1]
    assert facets is not None
    # the exactness of the short cut: all planes on a sample
    sample = hull.fractions_of(amounts[:20_000])
    plain = (sample @ facets.planes.T).max(axis=1) + sample @ hull.references
    return {
        "elements": k,
        "planes": len(facets.planes),
        "queries_per_s": round(QUERIES / best),
        "first_million_s": round(first, 2),
        "largest_difference_eV_per_atom": float(np.abs(hull.energy(amounts)[:20_000] - plain).max()),
    }


def whole_set(name: str, limit: int | None) -> dict[str, Any]:
    """A registered set with columns e_form and e_above_hull: all distances at once by both, then grown crystal by crystal."""
    from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry
    from pymatgen.core import Composition

    from naica.data.registry import load_set
    from naica.discover.hull import Hull

    table = load_set(name)
    if limit is not None:
        table = table.take(np.random.default_rng(0).permutation(len(table))[:limit])
    elements = sorted({s for crystal in table for s in crystal.composition})
    formulas = [*elements, *table.formulas]
    energies = np.concatenate([np.zeros(len(elements)), np.asarray(table.column("e_form"), dtype=float)])
    told = np.asarray(table.column("e_above_hull"), dtype=float)

    def mine() -> np.ndarray:
        return Hull(formulas, energies).above_hull

    def theirs() -> np.ndarray:
        compositions = [Composition(f) for f in formulas]
        parts = [PDEntry(c, e * c.num_atoms) for c, e in zip(compositions, energies, strict=True)]
        diagram = PatchedPhaseDiagram(parts)
        return np.array([diagram.get_e_above_hull(p) for p in parts])

    runs = [timed(mine) for _ in range(3)]
    ours, fast = runs[0][0], min(seconds for _, seconds in runs)
    steps = 200
    known = len(formulas) - steps
    hull = Hull(formulas[:known], energies[:known])
    hull.above_hull  # noqa: B018  the planes to start from

    def grow() -> Hull:
        grown = hull
        for row in range(known, known + steps):
            grown = grown.with_entries([formulas[row]], energies[row : row + 1], [f"new {row}"])
            grown.above([formulas[row]], energies[row : row + 1])
        return grown

    grown, growing = timed(grow)
    answer = {
        "set": name,
        "entries": len(formulas),
        "elements": len(elements),
        "systems": len({tuple(sorted(c.composition)) for c in table}),
        "stable": int((ours <= 1e-8).sum()),
        "naica_s": round(fast, 3),
        "growing_ms_per_entry": round(1000 * growing / steps, 2),
        "grown_differs_by_eV_per_atom": float(np.abs(grown.above_hull - ours).max()),
        "above_the_sources_distance": int((ours[len(elements) :] > told + 1e-5).sum()),
        "median_missing_depth_eV_per_atom": float(np.median(told - ours[len(elements) :])),
    }
    print(json.dumps(answer), flush=True)
    reference, slow = timed(theirs)
    return {
        **answer,
        "pymatgen_s": round(slow, 2),
        "ratio": round(slow / fast, 1),
        "largest_difference_eV_per_atom": float(np.abs(reference - ours).max()),
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=5000)
    parser.add_argument("--elements", type=int, default=4, choices=(2, 3, 4, 5))
    parser.add_argument("--set", default="", help="a registered set with e_form and e_above_hull, for example mp20")
    parser.add_argument("--limit", type=int, default=None, help="only so many crystals of the set, drawn at random")
    parser.add_argument("--queries", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.set or asked.queries:
        found = [whole_set(asked.set, asked.limit)] if asked.set else [best_queries(k, asked.entries) for k in (2, 3, 4, 5)]
        for one in found:
            print(json.dumps(one) if asked.json else "\n".join(f"{name:>32}  {value}" for name, value in one.items()) + "\n")
        return
    formulas, energies = entries(asked.entries, asked.elements)
    small = entries(50, asked.elements, seed=1)
    by_pymatgen(*small), by_naica(*small)  # imports and first calls are not what is compared
    theirs, slow = timed(lambda: by_pymatgen(formulas, energies))
    runs = [timed(lambda: by_naica(formulas, energies)) for _ in range(5)]
    ours, fast = runs[0][0], float(np.median([seconds for _, seconds in runs]))
    answer = {
        "entries": len(formulas),
        "elements": asked.elements,
        "stable": int((ours <= 1e-8).sum()),
        "pymatgen_s": round(slow, 3),
        "naica_s": round(fast, 4),
        "ratio": round(slow / fast, 1),
        "largest_difference_eV_per_atom": float(np.abs(theirs - ours).max()),
        "queries_per_s": round(queries_per_second(formulas, energies)),
        "load_average": round(os.getloadavg()[0], 2),
    }
    if asked.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{name:>32}  {value}" for name, value in answer.items()))


if __name__ == "__main__":
    main()
