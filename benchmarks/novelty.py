"""Verdicts of novelty on cases whose answer is known.

    python benchmarks/novelty.py [--copies 150] [--flags 400]

copies: crystals of mp20 in another cell (a supercell with other axes), strained by up to 2 % and shaken by 0.05 Å: how many are found
again, and how long one verdict takes; as controls, other structures of the same formula.

mixed: pairs of elements found on one site in the lithium conductors of OBELiX (partial occupancies, as refined): how many are alike enough
to be called possible or likely.

flags: compounds of mp20, most of them ordered: how many are flagged. Some of these are orderings of real solid solutions, so this is an
upper bound on false alarms.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
import zipfile
from itertools import combinations, islice
from typing import Any

import numpy as np

from naica.data.registry import dataset, load_set
from naica.discover.disorder import likeness, sharings
from naica.discover.novelty import Known
from naica.insight.intervals import wilson
from naica.structure.composition import parse_formula
from naica.structure.crystal import Crystal
from naica.structure.elements import element


def disguised(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """The same structure in other words: doubled cell with sheared axes, strained and shaken."""
    big = crystal.supercell([[1, 0, 0], [0, 1, 1], [0, 0, 2]])
    strain = np.eye(3) + rng.uniform(-0.04, 0.04, (3, 3)) / 2
    strain = (strain + strain.T) / 2
    order = rng.permutation(len(big))
    moved = big.positions @ strain + rng.normal(0, 0.05, big.positions.shape)
    return Crystal(big.numbers[order], moved[order], big.cell @ strain)


def copies(count: int, seed: int = 0) -> dict[str, Any]:
    """Disguised crystals against the whole set; and crystals of a formula that has others, with their own row taken away."""
    rng = np.random.default_rng(seed)
    table = load_set("mp20")
    formulas = np.array(table.formulas)
    started = time.process_time()
    known = Known()
    known.add_table(table)
    indexed = time.process_time() - started
    found = {"label": 0, "formula": 0}
    seconds = {"label": 0.0, "formula": 0.0}
    rows = rng.permutation(len(table))[:count]
    for row in rows:
        crystal = disguised(table[int(row)], rng)
        for depth in found:
            started = time.process_time()
            found[depth] += known.novelty(crystal, depth).verdict == "known"  # type: ignore[arg-type]
            seconds[depth] += time.process_time() - started
    names, counts = np.unique(formulas, return_counts=True)
    several = set(names[counts > 1])
    kept = robust = 0
    others = [int(r) for r in rng.permutation(len(table)) if formulas[r] in several][:count]
    for row in others:
        rest = np.flatnonzero(formulas == formulas[row])
        rivals = Known()
        rivals.add_table(table.take(rest[rest != row]))
        verdict = rivals.novelty(table[row], "formula")
        kept += verdict.is_new
        robust += verdict.robust
    return {
        "rows_indexed": len(known), "index_cpu_s": indexed, "copies": len(rows),
        "found": {d: wilson(n, len(rows)).to_dict() for d, n in found.items()},
        "cpu_ms_per_verdict": {d: 1000 * s / len(rows) for d, s in seconds.items()},
        "other_rows_of_a_formula": len(others), "told_apart": wilson(kept, len(others)).to_dict(), "robust": robust / max(len(others), 1),
    }  # fmt: skip


# states of elements on the mixed sites where the usual choice (highest of what is not an anion) is not theirs
_STATES = {"Mn": 2, "Co": 2, "Pb": 2, "Sm": 3, "Ce": 3, "Pr": 3, "Fe": 2}
_ANIONS = frozenset(("F", "Cl", "Br", "I", "O", "S", "Se", "N"))


def mixed() -> dict[str, Any]:
    """Pairs of elements on one site of OBELiX, weighted by compounds."""
    import io

    from pymatgen.io.cif import CifParser

    archive = zipfile.ZipFile(dataset("obelix").path("obelix/obelix_train_cifs.zip"))
    pairs: dict[tuple[str, str], int] = {}
    for name in archive.namelist():
        if not name.endswith(".cif"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                text = io.StringIO(archive.read(name).decode())
                structure = CifParser(text, occupancy_tolerance=1.05).parse_structures(primitive=False)[0]
            except ValueError:
                continue
        here = {p for site in structure for p in combinations(sorted({e.symbol for e in site.species.elements}), 2)}
        for pair in here:
            pairs[pair] = pairs.get(pair, 0) + 1
    alike = {pair: likeness(element(pair[0]), element(pair[1]), {s: _state(s) for s in pair}) for pair in pairs}
    near = {p: a is not None and a[0] <= 0.15 and (a[1] or 0) <= 1 for p, a in alike.items()}
    total = sum(pairs.values())
    return {
        "pairs": len(pairs), "occurrences": total,
        "alike_pairs": wilson(sum(a is not None for a in alike.values()), len(pairs)).to_dict(),
        "alike_occurrences": wilson(sum(n for p, n in pairs.items() if alike[p] is not None), total).to_dict(),
        "within_15_percent_and_one_charge": wilson(sum(n for p, n in pairs.items() if near[p]), total).to_dict(),
        "missed": sorted((f"{a}/{b}" for (a, b), v in alike.items() if v is None)),
    }  # fmt: skip


def _state(symbol: str) -> int:
    known = element(symbol).oxidation_states
    return _STATES.get(symbol, min(known) if symbol in _ANIONS else max(known))


def flags(count: int, seed: int = 0) -> dict[str, Any]:
    """Share of mp20 that is flagged, with the whole set as relatives."""
    rng = np.random.default_rng(seed)
    table = load_set("mp20")
    known = Known()
    known.add_table(table)
    told = {"likely": 0, "possible": 0}
    examples: list[str] = []
    formulas = table.formulas
    rows = list(islice((int(r) for r in rng.permutation(len(table)) if len(parse_formula(formulas[r])) > 2), count))
    started = time.process_time()
    for row in rows:
        found = sharings(table[row], known.find)
        if found:
            told[found[0].verdict] += 1
            if found[0].verdict == "likely" and len(examples) < 10:
                examples.append(f"{table[row].formula}: {found[0]}")
    spent = time.process_time() - started
    return {"ternaries": len(rows), **{k: wilson(n, len(rows)).to_dict() for k, n in told.items()}, "cpu_ms": 1000 * spent / len(rows),
            "examples": examples}  # fmt: skip


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=150)
    parser.add_argument("--flags", type=int, default=400)
    args = parser.parse_args()
    print(json.dumps({"copies": copies(args.copies), "mixed": mixed(), "flags": flags(args.flags)}, indent=1, default=float))


if __name__ == "__main__":
    main()
