"""Screening of ThCr2Si2-type compounds: every decoration of the prototype, a network that never saw the type, what is known to be stable.

    python benchmarks/thcr2si2.py [--out runs/thcr2si2] [--rows 16000] [--epochs 6] [--json]

The example of the review of structure networks for iCGCNN (Park & Wolverton, Phys. Rev. Materials 4, 063801 (2020)): a network chooses
among the decorations of this one prototype, and its choice is compared with an undirected one.

Candidates: the 52 × 51 × 50 = 132,600 ordered triples of elements on the sites 2a, 4d and 4e. All that are known to be stable are scored,
and a random sample that stands for the others: by pair tables, and by a CGCNN at the volume guessed for each, nothing relaxed. Both are
fitted to data without any formula that occurs in this structure type, and so is the hull that distances refer to.

Truth: rows of mp_formation, mp20 and mpts52 that have this structure type (label of symmetry and Wyckoff sites) and lie on the hull or up
to 0.05 eV/atom above it: by the table for mp20 and mpts52, against the hull of all formulas of the composition table for mp_formation
(one level of theory). Decorations that nobody computed count as not stable, so shares of stable ones are lower bounds. The enrichment is
the share among the chosen over the share in all; what had been computed was itself chosen by chemists, so part of the enrichment is
agreement with their choice.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from campaign_scale import compositions

from naica.data import CrystalTable
from naica.data.registry import load_set
from naica.discover.first_look import PairEnergies, complete_hull
from naica.discover.hull import Hull
from naica.discover.mass import hull_distance
from naica.discover.recipes import Recipe, realise
from naica.structure.composition import format_formula
from naica.structure.elements import element, symbol, table
from naica.structure.prototypes import prototype
from naica.structure.symmetry import prototype_label, prototype_orders

NAME = "thorium-chromium-silicide"
NEAR = 0.05
AMOUNTS = (1, 2, 2)
ELEMENTS = 52
SHARES = (0.01, 0.03, 0.1)
_SYMBOLS = re.compile(r"[A-Z][a-z]?")
_COUNTS = re.compile(r"[A-Z][a-z]?(\d*)")


def of_type(data: CrystalTable, label: str) -> dict[int, tuple[int, int, int]]:
    """Rows of a table that have the structure type: atomic numbers on 2a, 4d, 4e."""
    sizes, found = data.flat()[0], {}
    for row, (size, formula) in enumerate(zip(sizes, data.formulas, strict=True)):
        if size in (5, 10) and sorted(int(n or 1) for n in _COUNTS.findall(formula)) == [1, 2, 2]:
            try:
                name, orders = prototype_orders(data[row])
            except Exception:  # moyo finds no symmetry in a few distorted cells; those are not of the type
                continue
            if name == label:
                found[row] = orders[0]
    return found


def formula_of(decoration: tuple[int, ...]) -> str:
    """The formula of elements on 2a, 4d, 4e."""
    return format_formula({symbol(z): n for z, n in zip(decoration, AMOUNTS, strict=True)})


def truth(whole: Hull, label: str) -> tuple[dict[tuple[int, ...], float], set[str], dict[str, Any]]:
    """Least distance from the hull of each known decoration, all formulas of the type, and the rows of mp_formation of the type."""
    distances: dict[tuple[int, ...], float] = {}
    told: dict[str, Any] = {}
    for name in ("mp_formation", "mp20", "mpts52"):
        data = load_set(name)
        rows = of_type(data, label)
        told[f"rows of the type in {name}"] = len(rows)
        for row, decoration in rows.items():
            if name == "mp_formation":
                above = float(data.column("e_form")[row]) - float(whole.energy([formula_of(decoration)])[0])
            else:
                above = float(data.column("e_above_hull")[row])
            if np.isfinite(above):
                distances[decoration] = min(above, distances.get(decoration, np.inf))
    return distances, {formula_of(d) for d in distances}, told


def common_elements(hidden: set[str]) -> list[str]:
    """The elements most frequent in formulas of mp_formation without the type, without those of salts and molecules."""
    left_out = {"H", "C", "N", "O", "F", "Cl", "Br", "I", "S"}
    counts: Counter[str] = Counter()
    for formula in load_set("mp_formation").formulas:
        symbols = set(_SYMBOLS.findall(formula))
        if formula not in hidden and not symbols & left_out:
            counts.update(symbols)
    return sorted(s for s, _ in counts.most_common(ELEMENTS))


def network(hidden: set[str], rows: int, epochs: int, out: Path) -> Any:
    """A CGCNN of small cells of mp_formation without the hidden formulas."""
    from naica.data.splits import Split
    from naica.training.config import TrainConfig
    from naica.training.run import train
    from naica.training.zoo import load

    if (out / "model").exists():
        return load(out / "model")
    data = load_set("mp_formation")
    formulas = np.array(data.formulas)
    usable = np.flatnonzero((data.flat()[0] <= 12) & ~np.isin(formulas, sorted(hidden)) & np.isfinite(data.column("e_form")))
    chosen = data.take(np.sort(np.random.default_rng(0).permutation(usable)[:rows]))
    part = np.arange(len(chosen)) % 20 == 0
    parts = Split(np.flatnonzero(~part), np.flatnonzero(part), np.zeros(0, dtype=np.int64))
    config = TrainConfig(
        architecture="cgcnn", architecture_config={"width": 64, "layers": 3, "atoms": "described"}, epochs=epochs, batch_size=64,
        learning_rate=4e-3, weight_decay=1e-3, loss="huber", ema=0.99, tensorboard=False, members=1,
    )  # fmt: skip
    return train(chosen, "e_form", config, parts, out, progress=False, name="without ThCr2Si2")


def enrichment(score: np.ndarray, positive: np.ndarray, weight: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Share of the positives among the best 1, 3 and 10 % of all candidates, over that share: what a choice gains over a random one.

    `weight` is how many candidates a scored one stands for. Intervals: 95 %, by drawing positives and others anew a thousand times.
    """
    rows, others = np.flatnonzero(positive), np.flatnonzero(~positive)

    def gains(chosen: np.ndarray) -> list[float]:
        order = chosen[np.argsort(score[chosen], kind="stable")]
        reached = np.cumsum(weight[order]) / weight[order].sum()
        found = np.cumsum(positive[order]) / positive[order].sum()
        return [float(np.interp(share, reached, found)) / share for share in SHARES]

    drawn = [gains(np.concatenate([rng.choice(rows, len(rows)), rng.choice(others, len(others))])) for _ in range(1000)]
    low, high = np.quantile(drawn, 0.025, axis=0), np.quantile(drawn, 0.975, axis=0)
    best = gains(np.arange(len(score)))
    return {
        f"best {s:.0%}": {"enrichment": e, "low": float(a), "high": float(b)} for s, e, a, b in zip(SHARES, best, low, high, strict=True)
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/thcr2si2"))
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--sample", type=int, default=10_000, help="decorations drawn at random that stand for all others")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.process_time()
    label = prototype_label(prototype(NAME).crystal())
    rows = compositions()
    names, energies = [r["formula"] for r in rows], np.array([float(r["Ef"]) for r in rows])
    every = [e.symbol for e in table()]
    whole = Hull([*names, *every], [*energies, *np.zeros(len(every))])
    known, hidden, told = truth(whole, label)
    seen = ~np.isin(names, sorted(hidden))
    pairs = PairEnergies.fit(np.array(names)[seen].tolist(), energies[seen])
    hull = complete_hull(np.array(names)[seen].tolist(), energies[seen], pairs, every)
    elements = common_elements(hidden)
    numbers = np.array([element(s).number for s in elements])
    inside = {d: above for d, above in known.items() if set(d) <= set(numbers.tolist())}
    stable = sorted(d for d, above in inside.items() if above <= NEAR)
    total = len(numbers) * (len(numbers) - 1) * (len(numbers) - 2)
    rng = np.random.default_rng(0)
    drawn = {tuple(rng.choice(numbers, 3, replace=False).tolist()) for _ in range(options.sample)} - set(stable)
    grid = np.array([*stable, *sorted(drawn)], dtype=np.uint8)
    positive = np.arange(len(grid)) < len(stable)
    weight = np.where(positive, 1.0, (total - len(stable)) / len(drawn))
    amounts = np.tile(np.array(AMOUNTS), (len(grid), 1))
    distance = hull_distance(hull)
    first = distance(grid, amounts, pairs.energy(grid, amounts / 5.0))
    made = [realise(Recipe(f"prototype:{NAME}", tuple(enumerate(row, start=1))), {}) for row in grid.tolist()]
    fitted = time.process_time()
    model = network(hidden, options.rows, options.epochs, options.out)
    trained = time.process_time()
    value = np.asarray(model.predict(made, volume_factors=(1.0,), members=1).value, dtype=np.float32)
    looked = time.process_time()
    second = distance(grid, amounts, value)
    report: dict[str, Any] = {
        "truth": {
            **told, "decorations known": len(known), "of the chosen elements": len(inside), f"within {NEAR} eV/atom": len(stable),
            "on the hull": sum(a <= 1e-3 for a in inside.values()),
        },
        "candidates": {"elements": len(elements), "decorations": total, "share stable": len(stable) / total, "scored": len(grid)},
        "pair tables": enrichment(first, positive, weight, rng),
        "network": enrichment(second, positive, weight, rng),
        "mean of both": enrichment(first + second, positive, weight, rng),
        "network trained": {"rows": options.rows, "validation MAE": _mae(model), "CPU s": trained - fitted},
        "CPU s": {"all": looked - started, "truth, hulls, pair tables": fitted - started, "looks": looked - trained},
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.json").write_text(json.dumps(report, indent=1))
    if options.json:
        print(json.dumps(report, indent=1))
        return
    for title, values in report.items():
        print(title)
        for name, value_ in values.items():
            if isinstance(value_, dict):
                print(f"  {name:28s} " + ", ".join(f"{k} {v:.4g}" for k, v in value_.items()))
            else:
                print(f"  {name:28s} {value_:,.6g}")


def _mae(model: Any) -> float:
    metrics = model.card.metrics
    return float(metrics.get("val", {}).get("mae", float("nan"))) if isinstance(metrics.get("val"), dict) else float("nan")


if __name__ == "__main__":
    main()
