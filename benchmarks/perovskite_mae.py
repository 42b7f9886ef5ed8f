"""How well does CGCNN learn the perovskite set? MAE on a composition split.

    python benchmarks/perovskite_mae.py --out runs/perovskite-mae --epochs 50

80 / 10 / 10 split by composition (both ABX3 and BAX3 of a formula fall on one side), three members with seeds 0, 1, 2; prints each
member's and the ensemble's test error. A killed run goes on: same command.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/perovskite-mae"))
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=None, help="time budget of all members together")
    args = parser.parse_args()

    from naica.data.registry import load_set
    from naica.data.splits import split
    from naica.training.config import TrainConfig
    from naica.training.run import train

    table, began, cpu = load_set("perovskites"), time.time(), time.process_time()
    parts = split(table, by="composition", fractions=(0.8, 0.1, 0.1), seed=0)
    config = TrainConfig(
        architecture="cgcnn",
        architecture_config={"width": 64, "layers": 3, "atoms": "described"},
        epochs=args.epochs,
        batch_size=64,
        learning_rate=4e-3,
        weight_decay=1e-3,
        loss="l1",
        ema=0.999,
        members=3,
        seed=0,
        max_seconds=args.minutes * 60 / 3 if args.minutes else None,
        tensorboard=False,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    ensemble = train(table, "e_form", config, parts, args.out, progress=False, name="perovskites", cache=args.out / "perovskites.graphs")
    print(f"train {len(parts.train)}, validation {len(parts.val)}, test {len(parts.test)} (split by composition, seed 0)")
    for part, numbers in ensemble.card.metrics.items():
        print(part, numbers)
    print(f"{time.process_time() - cpu:.0f} CPU s, {time.time() - began:.0f} s in all")


if __name__ == "__main__":
    main()
