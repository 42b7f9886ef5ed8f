"""Transfer: is a network that learned formation energies first better at small sets of other quantities?

    python benchmarks/transfer.py --out runs/transfer
    python benchmarks/transfer.py --out runs/transfer --tasks phonons log_bulk_modulus --seeds 0 1 2

One network is trained on formation energies of mp_formation, none of whose formulas is in any of the small sets. On each small set it
goes on with all its weights, with its elements frozen, and with its whole backbone frozen; beside it the same network starts from
random weights. All runs of a task have the same rows (split by composition), the same CPU seconds and the same settings; the ways
differ in where they start and what they train. Every run leaves a JSON file in `--out`; started again, the command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

SOURCE, COLUMN = "mp_formation", "e_form"
WAYS = ("scratch", "nothing", "elements", "backbone")
TOLD = {"scratch": "from scratch", "nothing": "all weights go on", "elements": "elements frozen", "backbone": "backbone frozen"}
SETTINGS = {"tensorboard": False, "loss": "l1", "weight_decay": 1e-3, "ema": 0.99}


def small_tasks(names):
    """The small sets: task and table."""
    from naica.insight.tasks import chosen_tasks, load

    return {task.name: (task, load(task)) for task in chosen_tasks(names)}


def source(architecture, rows, seconds, avoid, out):
    """The network trained on formation energies; read again if it is there."""
    from naica.data.registry import load_set
    from naica.data.splits import Split
    from naica.structure.composition import reduced_formula
    from naica.training import TrainConfig, load, train

    if (out / "source" / "model" / "card.json").exists():
        return load(out / "source" / "model")
    table = load_set(SOURCE)
    order = np.random.default_rng(0).permutation(len(table))[: 2 * rows]
    kept = [row for row in order.tolist() if reduced_formula(table[row].formula) not in avoid][: rows + rows // 10]
    chosen = table.take(np.array(kept))
    split = Split(np.arange(rows), np.arange(rows, len(kept)), np.zeros(0, np.int64))
    config = TrainConfig(**SETTINGS, architecture=architecture, batch_size=64, learning_rate=2e-3, epochs=200, max_cpu_seconds=seconds)
    return train(chosen, COLUMN, config, split, out / "source", progress=False)


def rows_of(table, count, seed):
    """Training rows (`count`), 150 of validation and the test rows, by composition."""
    from naica.data.splits import Split, split

    parts = split(table, by="composition", fractions=(0.6, 0.2, 0.2), seed=seed)
    draw = np.random.default_rng(seed)
    return Split(draw.permutation(parts.train)[:count], draw.permutation(parts.val)[:150], parts.test)


def one(way, start, table, column, parts, seed, seconds, architecture):
    """One run: its test error and what it cost."""
    from naica.training import TrainConfig, fine_tune, train

    settings = {**SETTINGS, "batch_size": 25, "seed": seed, "max_cpu_seconds": seconds}
    if way == "scratch":
        config = TrainConfig(**settings, architecture=architecture, learning_rate=2e-3, epochs=200)
        model = train(table, column, config, parts, progress=False)
    else:
        model = fine_tune(start, table, column, 200, 2e-3, parts, progress=False, freeze=way, members=1, **settings)
    test, labels = model.card.metrics["test"], np.asarray(table.column(column), dtype=np.float64)
    guess = float(np.abs(labels[parts.test] - np.median(labels[parts.train])).mean())
    return {"mae": test["mae"], "n_test": test["n"], "unit": model.target.unit, "guess": guess} | model.card.training["members"][0]


def told(out, names, seeds):
    """The table: mean over the seeds ± its standard error, and the gain over scratch, seed by seed."""
    print(f"{'task':20s} {'way':20s} {'MAE':>9s} {'± s.e.':>8s} {'gain':>7s} {'± s.e.':>7s} {'trained':>9s} {'epochs':>6s} {'seeds':>5s}")
    for name in names:
        found = {w: {s: json.loads(p.read_text()) for s in seeds if (p := out / f"{name}-{w}-{s}.json").exists()} for w in WAYS}
        for way, runs in found.items():
            if not runs:
                continue
            errors = np.array([r["mae"] for r in runs.values()])
            base = [s for s in runs if s in found["scratch"]]
            gains = np.array([1 - runs[s]["mae"] / found["scratch"][s]["mae"] for s in base]) if way != "scratch" else np.zeros(0)
            gain = f"{np.mean(gains):7.1%} {_error(gains):7.1%}" if len(gains) else " " * 15
            first = next(iter(runs.values()))
            epochs = np.mean([r["epochs"] for r in runs.values()])
            print(
                f"{name:20s} {TOLD[way]:20s} {errors.mean():9.4g} {_error(errors):8.2g} {gain} {first['trained_parameters']:9,d}"
                f" {epochs:6.0f} {len(runs):5d}"
            )
        if any(found.values()):
            guesses = [r["guess"] for runs in found.values() for r in runs.values()]
            print(f"{name:20s} {'median of training':20s} {np.mean(guesses):9.4g}   (unit: {first['unit']}, {first['n_test']} test rows)")


def _error(values):
    """Standard error of the mean; NaN for one value."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--tasks", nargs="+", default=["phonons", "log_bulk_modulus", "dielectric", "half_heusler_gap"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--architecture", default="selenite")
    parser.add_argument("--rows", type=int, default=8000, help="rows of formation energies")
    parser.add_argument("--small", type=int, default=500, help="training rows of each small set, at most")
    parser.add_argument("--source-seconds", type=float, default=150.0, help="CPU seconds of the training on formation energies")
    parser.add_argument("--seconds", type=float, default=6.0, help="CPU seconds of each run on a small set")
    args = parser.parse_args()
    from naica.insight.tasks import learned
    from naica.structure.composition import reduced_formula

    args.out.mkdir(parents=True, exist_ok=True)
    small = small_tasks(args.tasks)
    avoid = {reduced_formula(crystal.formula) for _, table in small.values() for crystal in table}
    start = source(args.architecture, args.rows, args.source_seconds, avoid, args.out)
    print(f"source: {start.card.data['rows']}, validation MAE {start.card.metrics['val']['mae']:.3f} eV/atom", flush=True)
    for seed in args.seeds:
        for name, (task, table) in small.items():
            parts = rows_of(table, args.small, seed)
            for way in WAYS:
                path = args.out / f"{name}-{way}-{seed}.json"
                if not path.exists():
                    found = one(way, start, table, learned(task)[0], parts, seed, args.seconds, args.architecture)
                    path.with_suffix(".tmp").write_text(json.dumps(found, indent=1))
                    path.with_suffix(".tmp").rename(path)
                    print(f"{name} {TOLD[way]} seed {seed}: {found['mae']:.4g} {found['unit']}", flush=True)
    told(args.out, small, args.seeds)


if __name__ == "__main__":
    main()
