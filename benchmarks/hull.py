"""Hull distances of 5,000 quaternary entries: pymatgen and naica on the same entries, one after the other, CPU time.

    python benchmarks/hull.py [--entries 5000] [--elements 4] [--json]

Both start from formulas and energies per atom and end with the distance of every entry to the hull. Compositions are random
(amounts up to 8); energies follow a smooth bowl with scatter, so that a few per cent of the entries are stable, as in databases.
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


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=5000)
    parser.add_argument("--elements", type=int, default=4, choices=(2, 3, 4, 5))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
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
