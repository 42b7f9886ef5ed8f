"""Ten million candidates of one campaign on this machine: generated, made distinct, given the first look, ranked; what each stage costs.

    python benchmarks/campaign_scale.py [--folder runs/scale] [--least 10000000] [--json]
    python benchmarks/campaign_scale.py --fit       # fit the tables of the first look and write them into the package

Parents are the crystals of mp20 and mp_formation with up to four elements and 40 atoms, and the prototype library; elements are all that
have an oxidation state and a reference. Formulas with an MD5 residue from 85 are hidden: neither the tables nor the hull nor the list of
known formulas holds them. How many of the hidden compounds that lie on the hull are found again, and how high they stand, is the recall.

CPU seconds of one thread (process time). A killed run goes on where it stopped: same command. The structural network's rate is measured in
the same run on a sample of the best; node-hours for 10^9 candidates are products of these rates and say so.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from naica.data import dataset
from naica.data.registry import load_set
from naica.data.splits import md5_part
from naica.discover.first_look import PairEnergies, complete_hull, shipped
from naica.discover.mass import BYTES, Best, MassRun, binary_distance, formula_codes, hull_distance, prototype_blocks, substitution_blocks
from naica.discover.recipes import realise
from naica.structure.composition import parse_formula, reduced
from naica.structure.elements import element, table
from naica.structure.prototypes import PROTOTYPES

HIDDEN_FROM = 85
CORES_PER_NODE = 64


def compositions() -> list[dict[str, str]]:
    """The rows of the composition table that have a formation energy."""
    path = dataset("compositions").path("mp_formation_decomposition.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [row for row in csv.DictReader(handle) if row["Ef"]]


def fit() -> None:
    """Fit the tables and write them into the package."""
    rows = compositions()
    hidden = np.array([md5_part(r["formula"]) >= HIDDEN_FROM for r in rows])
    began = time.process_time()
    pairs = PairEnergies.fit([r["formula"] for r in rows], np.array([float(r["Ef"]) for r in rows]), hidden)
    target = Path(__file__).parents[1] / "src/naica/discover/pair_energies.npz"
    np.savez_compressed(target, tables=pairs.tables.astype(np.float16), error=pairs.error, rows=pairs.rows)
    print(f"{pairs.rows} formulas fitted, {pairs.error:.3f} eV/atom on {hidden.sum()} hidden ones, {time.process_time() - began:.1f} CPU s")


def crystals(at_most: int | None) -> Iterator[Any]:
    """Parents, one at a time: hidden formulas are no parents."""
    given = 0
    for name in ("mp20", "mp_formation"):
        data = load_set(name)
        for at in range(len(data)):
            crystal = data[at]
            if md5_part(crystal.formula) < HIDDEN_FROM:
                given += 1
                yield crystal
                if at_most is not None and given == at_most:
                    return


def recall(best: list[Best], hidden_stable: set[str]) -> dict[str, float]:
    """How many hidden stable formulas are among the ranked ones, and among the first parts of the ranking."""
    place: dict[str, int] = {}
    for at, one in enumerate(best):
        place.setdefault(one.formula, at)
    ranks = [place[f] for f in hidden_stable if f in place]
    return {f"within_first_{n}": float(sum(r < n for r in ranks)) for n in (100, 1_000, 10_000) if n <= len(best)}


def network_rate(best: list[Best], parents: dict[str, Any], sample: int = 400) -> dict[str, float]:
    """Structures per CPU second of making atoms, and of the shipped network's quick look at them."""
    from naica.training.zoo import load

    chosen = [b for b in best if b.recipe.is_prototype or b.recipe.parent in parents][:sample]
    began = time.process_time()
    made = [realise(b.recipe, parents) for b in chosen]
    seconds = time.process_time() - began
    model = load("formation-energy")
    model.predict(made[:20], volume_factors=(1.0,), members=1)
    began = time.process_time()
    model.predict(made, volume_factors=(1.0,), members=1)
    quick = time.process_time() - began
    return {
        "sample": len(made),
        "atoms_mean": float(np.mean([len(c) for c in made])),
        "realise_s": seconds / len(made),
        "quick_s": quick / len(made),
    }


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/scale"))
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--parents", type=int, default=None, help="at most this many crystals as parents")
    parser.add_argument("--least", type=int, default=10_000_000, help="stop making candidates at the first block after so many")
    parser.add_argument("--rank", action="store_true", help="make nothing: rank what an earlier call made in the folder")
    parser.add_argument("--keep", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.fit:
        fit()
        return
    rows = compositions()
    hidden = np.array([md5_part(r["formula"]) >= HIDDEN_FROM for r in rows])
    named = [r["formula"] for r in rows]
    energies = np.array([float(r["Ef"]) for r in rows])
    elements = [e.symbol for e in table() if e.oxidation_states and e.number < 95 and e.group != 18]
    seen = [f for f, h in zip(named, hidden, strict=True) if not h]
    hull = complete_hull(seen, energies[~hidden], shipped(), elements)
    dropped: Counter[str] = Counter()

    made = 0

    def tick(stage: str, done: int) -> None:
        nonlocal made
        made = done if stage == "generate" else made
        print(f"{stage}: {done:,} candidates, {time.process_time():.0f} CPU s", flush=True)

    run = MassRun(options.folder, binary_distance(hull), hull_distance(hull), keep=options.keep, known=frozenset(seen), tick=tick)
    blocks = chain(
        prototype_blocks(PROTOTYPES.values(), elements),
        substitution_blocks(crystals(options.parents), elements, dropped),
        # intermetallic types have no charges to balance: every decoration
        prototype_blocks([p for p in PROTOTYPES.values() if p.charges is None], elements, balanced=False),
    )
    generated = run.reload() if options.rank else run.generate(takewhile(lambda block: made < options.least, blocks))
    best, ranked = run.rank()
    stable = {
        r["formula"]
        for r, h in zip(rows, hidden, strict=True)
        if h and r["Ed"] and float(r["Ed"]) < 0 and len(parse_formula(r["formula"])) in (2, 3)
    }
    found = recall(best, stable)
    reached = reachable(run, stable)
    wanted = {b.recipe.parent for b in best[:2000]}
    # the crystals of mp20 come first; their children and those of prototypes are sample enough
    parents = {c.hash: c for c in islice(crystals(options.parents), 11_000) if c.hash in wanted}
    network = network_rate(best[:2000], parents)
    report = told(generated, ranked, network, options.keep)
    report["hidden stable compounds"] = {"all": len(stable), "among the candidates": reached, **found}
    report["parents dropped"] = dict(dropped)
    report["memory"] = {"peak_GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "bytes_per_candidate": BYTES,
                        "disk_GB": sum(p.stat().st_size for p in (options.folder / "runs").iterdir()) / 1e9}  # fmt: skip
    report["first"] = {f"{b.formula} ({b.recipe.parent[:24]})": b.distance for b in best[:10]}
    (options.folder / "report.json").write_text(json.dumps(report, indent=1))
    if options.json:
        print(json.dumps(report, indent=1))
        return
    for title, values in report.items():
        print(title)
        for name, value in values.items():
            print(f"  {name.replace('_', ' '):34s} {value:,.6g}")
    print(f"free disk {shutil.disk_usage(options.folder).free / 1e9:.0f} GB")


def reachable(run: MassRun, formulas: set[str]) -> int:
    """How many of some formulas are among the candidates at all."""
    from naica.discover.mass import _REST, _mapped, elements_of

    codes = {}
    for formula in formulas:
        counts = reduced(parse_formula(formula))
        z = np.array([[element(s).number for s in counts]], dtype=np.uint8)
        codes[int(formula_codes(z, np.array([list(counts.values())]))[0])] = formula
    wanted = np.array(sorted(codes), dtype=np.uint64)
    amounts = run._amounts()
    hit: set[int] = set()
    for path in sorted((run.folder / "runs").glob("*.keys")):
        key, rest = _mapped(path, np.uint64), _mapped(path.with_suffix(".rest"), _REST)
        for at in range(0, len(key), 250_000):
            found = formula_codes(elements_of(np.asarray(key[at : at + 250_000])), amounts[rest["frame"][at : at + 250_000]])
            hit.update(np.unique(found[np.isin(found, wanted)]).tolist())
    return len(hit)


def told(generated: dict[str, float], ranked: dict[str, float], network: dict[str, float], keep: int) -> dict[str, Any]:
    """Rates per core and costs per candidate of every stage, and what 10^9 would take."""
    made, distinct = generated["made"], ranked["distinct"]
    seconds = {
        "generate": generated["seconds"], "make distinct": ranked["merge_seconds"], "first look": ranked["look_seconds"],
        "exact hull of the best": ranked["hull_seconds"], "rank": ranked["rank_seconds"],
    }  # fmt: skip
    counts = {
        "generate": made,
        "make distinct": ranked["records"],
        "first look": distinct,
        "exact hull of the best": ranked["hull"],
        "rank": distinct,
    }
    stages = {}
    for name, spent in seconds.items():
        stages[f"{name}: candidates"] = counts[name]
        stages[f"{name}: CPU s"] = spent
        stages[f"{name}: per s and core"] = counts[name] / max(spent, 1e-9)
    per_candidate = sum(seconds.values()) / max(made, 1)
    share = keep / max(made, 1)
    node = 3600 * CORES_PER_NODE
    return {
        "candidates": {"made": made, "records after runs": ranked["records"], "distinct": distinct, "left out as known": ranked["known"]},
        "stages": stages,
        "network on the best": {
            "sample": network["sample"], "atoms, mean": network["atoms_mean"], "made per s and core": 1 / network["realise_s"],
            "quick looks per s and core": 1 / network["quick_s"],
        },
        "cost": {
            "CPU microseconds per candidate, all stages": 1e6 * per_candidate,
            "CPU ms per network look": 1e3 * (network["quick_s"] + network["realise_s"]),
        },
        f"10^9 by arithmetic, nodes of {CORES_PER_NODE} cores": {
            "node-hours, first look": 1e9 * per_candidate / node,
            "node-hours, network on the same share": 1e9 * share * (network["quick_s"] + network["realise_s"]) / node,
            "node-hours, network on all": 1e9 * (network["quick_s"] + network["realise_s"]) / node,
            "disk, GB": BYTES,
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
