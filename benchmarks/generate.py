"""How fast candidates are made and how many bytes each takes; substitution beside pymatgen's predictor on the same ions in the same run.

    python benchmarks/generate.py [--json]

CPU seconds of one thread. The original model (no change of GNoME's) is timed against pymatgen, because that is what pymatgen implements;
the ions must come out the same, or the run stops.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from naica.data import dataset
from naica.data.registry import load_set
from naica.discover.compositions import Formulas, OxidationRule
from naica.discover.random_search import Search, random_crystals
from naica.discover.recipes import Recipe, realise
from naica.discover.saps import PartialSubstitutions, count_orbits, orbits, restricted
from naica.discover.substitution import Substitutions, SubstitutionStream, SubstitutionTable, ion
from naica.structure.crystal import Crystal
from naica.structure.prototypes import PROTOTYPES
from naica.structure.symmetry import site_permutations

SETS = tuple(tuple(t.split()) for t in ("Na+ Cl-", "Li+ Co3+ O2-", "Ca2+ Ti4+ O2-", "Ba2+ Zr4+ S2-", "Ac3+ N3-", "Li+ Fe2+ P5+ O2-"))


def timed(action: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Least CPU seconds of some repeats, and the result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        started = time.process_time()
        result = action()
        best = min(best, time.process_time() - started)
    return best, result


def against_pymatgen() -> dict[str, Any]:
    """Predictions of the original model for the ions of `SETS`, tables loaded beforehand."""
    from pymatgen.core.structure_prediction.substitution_probability import SubstitutionPredictor

    table, predictor = SubstitutionTable(differences_only=False, floor=None), SubstitutionPredictor(threshold=1e-3)
    table.predict(SETS[0])
    ours, found = timed(lambda: [table.predict(s) for s in SETS], 5)
    theirs, peer = timed(lambda: [predictor.list_prediction(list(s)) for s in SETS])
    for a, b in zip(found, peer, strict=True):
        if {tuple(map(ion, new)) for new, _ in a} != {tuple(ion(str(s)) for s in entry["substitutions"]) for entry in b}:
            raise SystemExit("pymatgen and naica disagree on the substitutions")
    count = sum(map(len, found))
    return {"substitutions": count, "naica_s": ours, "pymatgen_s": theirs, "ratio": theirs / ours}


def parents(at_most: int = 60) -> dict[str, Crystal]:
    """Example compounds of the prototype library of up to 20 atoms."""
    crystals = [PROTOTYPES[name].crystal() for name in PROTOTYPES]
    chosen = [c for c in crystals if c.pbc.all() and len(c) <= 20 and len(c.composition) > 1][:at_most]
    return {c.hash: c for c in chosen}


def stream(make: Callable[[], Any], known: dict[str, Crystal], at_most: int) -> dict[str, float]:
    """Rate of recipes, their packed size, and the rate of turning a sample of them into atoms."""
    seconds, recipes = timed(lambda: [r for r, _ in islice(make(), at_most)])
    sample: list[Recipe] = [recipes[k] for k in np.random.default_rng(0).permutation(len(recipes))[:2000]]
    building, crystals = timed(lambda: [realise(r, known) for r in sample])
    packed = [len(r.pack()) for r in recipes]
    atoms = float(np.mean([len(c) for c in crystals]))
    return {
        "recipes": len(recipes),
        "recipes_per_s": len(recipes) / seconds,
        "bytes_mean": float(np.mean(packed)),
        "bytes_largest": max(packed),
        "bytes_as_float32_atoms": 36 + 13 * atoms,
        "realised_per_s": len(sample) / building,
        "atoms_mean": atoms,
    }


def patterns() -> dict[str, float]:
    """All patterns of the B sites in a 2 × 2 × 3 perovskite, beside the canonical form of each of the 4,096 subsets."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    big = Crystal.from_fractional(["Sr", "Ti", "O", "O", "O"], sites, 3.9 * np.eye(3)).supercell((2, 2, 3))
    group = restricted(site_permutations(big), np.flatnonzero(big.numbers == 22))
    n = group.shape[1]
    seconds, found = timed(lambda: [s for k in range(n + 1) for s in orbits(group, k)], 3)

    def naive() -> int:
        bits = 1 << np.arange(n)
        return len({int(bits[group[:, [i for i in range(n) if m >> i & 1]]].sum(axis=1).min()) for m in range(1 << n)})

    slow, count = timed(naive)
    if not len(found) == count == sum(count_orbits(group)):
        raise SystemExit(f"{len(found)} patterns, naively {count}, by Burnside {sum(count_orbits(group))}")
    return {"patterns": count, "orderly_s": seconds, "naive_s": slow, "ratio": slow / seconds}


def formulas() -> dict[str, float]:
    """Ternary formulas of 24 elements under the oxidation rule: how many pass each form of it, and how fast."""
    names = tuple("Li Na K Mg Ca Sr Ba Ti Zr Fe Co Ni Cu Zn Al Ga Si Ge O S F Cl N P".split())  # noqa: SIM905
    told: dict[str, float] = {}
    for title, rule in {
        "strict": OxidationRule(relaxed=0, zero="none"),
        "one relaxed": OxidationRule(relaxed=1, zero="none"),
        "two relaxed": OxidationRule(relaxed=2, zero="none"),
        "two relaxed, metals may be neutral": OxidationRule(),
    }.items():
        found = Formulas(names, (3,), rule)
        seconds, _ = timed(lambda found=found: sum(1 for _ in found))
        told["possible"] = found.counts["possible"]
        told[f"share accepted, {title}"] = found.counts["accepted"] / found.counts["possible"]
        told[f"possible per s, {title}"] = found.counts["possible"] / seconds
    return told


def random_structures() -> dict[str, float]:
    """Random crystals that keep symmetry, volume and distances, per second."""
    told = {}
    for formula in ("CuAu", "TiO2", "MgAl2O4"):
        seconds, found = timed(lambda formula=formula: random_crystals(formula, Search(structures=100)))
        told[f"{formula}, atoms in the mean"] = float(np.mean([len(c) for c in found]))
        told[f"{formula}, structures per s"] = len(found) / seconds
        told[f"{formula}, share with symmetry"] = float(np.mean([c.info["spacegroup"] > 1 for c in found]))
    return told


def stream_of_parents(at_most: int) -> dict[str, float]:
    """Substitution and SAPS with the crystals of mp20 as parents, one at a time; memory that the streams add."""
    data = load_set("mp20")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told: dict[str, float] = {"parents": min(at_most, len(data))}
    crystals = [data[row] for row in np.random.default_rng(0).permutation(len(data))[:at_most]]
    for title, make in (
        ("substitution", lambda: SubstitutionStream(iter(crystals))),
        ("saps, 50 of a parent", lambda: PartialSubstitutions(iter(crystals), max_atoms=24, max_index=2, limit=50, window=64)),
    ):
        seconds, count = timed(lambda make=make: sum(1 for _ in make()))
        told[f"{title}: recipes"] = count
        told[f"{title}: recipes per s"] = count / seconds
    told["memory added, MB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    return told


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--recipes", type=int, default=50_000)
    parser.add_argument("--parents", type=int, default=300, help="crystals of mp20 as parents")
    options = parser.parse_args()
    known = parents()
    report: dict[str, Any] = {
        "substitution against pymatgen": against_pymatgen(),
        "substitutions": stream(lambda: iter(Substitutions(known)), known, options.recipes),
        "partial substitutions": stream(lambda: iter(PartialSubstitutions(known, max_atoms=24, max_index=2)), known, options.recipes),
        "patterns": patterns(),
        "formulas": formulas(),
        "random structures": random_structures(),
    }
    if dataset("mp20").present:
        report["parents of mp20"] = stream_of_parents(options.parents)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for title, values in report.items():
        print(title)
        for name, value in values.items():
            print(f"  {name.replace('_', ' '):24s} {value:,.4g}")


if __name__ == "__main__":
    main()
