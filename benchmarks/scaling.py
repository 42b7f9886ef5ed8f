"""Test error against the number of labels, as a power law: GNoME's networks on formation energies of the Materials Project.

    python benchmarks/scaling.py --out runs/scaling            # trains; goes on where it stopped
    python benchmarks/scaling.py --out runs/scaling --report   # only the table, the exponents and the picture

Test and validation rows are the same for all sizes (split by composition); the training parts are nested. Each size has its own number
of epochs, more for few labels, so that no size is cut short.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import pairwise
from pathlib import Path
from time import process_time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from naica.data.registry import load_set
from naica.data.splits import split
from naica.insight.scaling import scaling_plot
from naica.training import TrainConfig, train
from naica.training.evaluation import evaluate

SIZES = {500: 80, 1000: 60, 2000: 45, 4000: 32, 8000: 22, 16000: 15, 32000: 12}
TEST, VALIDATION = 3000, 1500


class Parts:
    """Nested training parts beside fixed validation and test rows."""

    def __init__(self, seed: int, size: int) -> None:
        draw = np.random.default_rng(seed)
        self.train = draw.permutation(DIVIDED.train)[:size]
        self.val = np.random.default_rng(0).permutation(DIVIDED.val)[:VALIDATION]
        self.test = np.random.default_rng(0).permutation(DIVIDED.test)[:TEST]


def run(architecture: str, size: int, seed: int, out: Path) -> None:
    path = out / f"{architecture}-{size}-{seed}.json"
    if path.exists():
        return
    parts = Parts(seed, size)
    used = np.concatenate([parts.train, parts.val, parts.test])
    # only the rows in use become graphs; row numbers move with them
    places = np.cumsum([0, len(parts.train), len(parts.val), len(parts.test)])
    table = TABLE.take(used)
    parts.train, parts.val, parts.test = (np.arange(a, b) for a, b in pairwise(places))
    start = process_time()
    config = TrainConfig(architecture, epochs=SIZES[size], batch_size=32, learning_rate=2e-3, seed=seed)
    model = train(table, "e_form", config, parts, progress=False, out=out / "runs" / path.stem)
    mae = evaluate(model, table, "e_form", rows=parts.test).metrics.mae
    record = {"architecture": architecture, "size": size, "seed": seed, "mae": mae, "cpu_s": round(process_time() - start, 1)}
    path.write_text(json.dumps(record))
    print(record, flush=True)


def report(out: Path) -> None:
    records = [json.loads(p.read_text()) for p in sorted(out.glob("*.json"))]
    curves = {}
    for name in sorted({r["architecture"] for r in records}):
        mine = sorted((r["size"], r["mae"]) for r in records if r["architecture"] == name)
        curves[name] = ([m[0] for m in mine], [m[1] for m in mine])
        for size, mae in mine:
            print(f"{name:20} {size:6d} {mae:.4f} eV/atom")
    # a line through two points proves nothing
    curves = {name: curve for name, curve in curves.items() if len(set(curve[0])) > 2}
    for name, law in scaling_plot(curves, "formation_energy_per_atom", out / "scaling.png").items():
        print(f"{name}: error ~ n^-({law.exponent:.3f} ± {law.exponent_error:.3f}), R² {law.r2:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architectures", nargs="*", default=["gnome-composition", "gnome"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--largest", type=int, default=max(SIZES))
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if not asked.report:
        TABLE = load_set("mp_formation")
        DIVIDED = split(TABLE, by="composition", seed=0)
        for size in (s for s in SIZES if s <= asked.largest):
            for seed in asked.seeds:
                for architecture in asked.architectures:
                    run(architecture, size, seed, asked.out)
    report(asked.out)
