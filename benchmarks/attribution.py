"""Are the explanations faithful? Deletion tests of every method on held-out perovskites, for one or more trained models.

    python benchmarks/attribution.py --model runs/perovskite-sites --model runs/perovskite-mean --crystals 500

Models must come from the split of ``naica sites study`` (by composition, 70/10/20, seed 0), so that the crystals are new to them. With
--train FOLDER a network that pools means (no exact contributions) is trained there first; a second run reads it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="model or run folder")
    parser.add_argument("--train", type=Path, help="run folder of a network with mean pooling")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--crystals", type=int, default=500)
    args = parser.parse_args()

    import numpy as np

    from naica.app.actions_model import load_model
    from naica.data.registry import load_set
    from naica.data.splits import split
    from naica.graphs.graphset import GraphSet
    from naica.insight.attribution import shares
    from naica.insight.deletion import deletion_test
    from naica.insight.study import default_training
    from naica.training.config import HeadConfig
    from naica.training.run import train

    table = load_set("perovskites")
    parts = split(table, by="composition", fractions=(0.7, 0.1, 0.2), seed=0)
    if args.train:
        config = replace(default_training(args.epochs, 1), head=HeadConfig(pooling="mean"))
        args.train.mkdir(parents=True, exist_ok=True)
        train(table, "e_form", config, parts, args.train, progress=False, cache=args.train / "graphs")
        args.model.append(str(args.train))
    held = table.take(np.sort(np.random.default_rng(0).choice(parts.test, args.crystals, replace=False)))
    print(f"{len(held)} held-out crystals; areas in the model's unit, ± standard error over crystals")
    for name in args.model:
        ensemble = load_model(name)
        graphs = GraphSet.build(held, ensemble.needs)
        pooling = ensemble.members[0].pooling
        print(f"{name}: {ensemble.members[0].architecture}, pooling {pooling}, test {ensemble.card.metrics.get('test', {}).get('mae')}")
        for method in (*(("exact",) if pooling == "sites" else ()), "integrated gradients", "leave one out"):
            began = time.process_time()
            gap = shares(ensemble, graphs.batch(np.arange(min(128, len(held)))), method).gap
            seconds = time.process_time() - began
            test = deletion_test(ensemble, graphs, method=method)
            print(
                f"  {method:21s} highest first {test.highest:.3f} ± {test.highest_error:.3f} below random (in {test.won:.1%}), lowest first"
                f" {test.lowest:.3f} ± {test.lowest_error:.3f} above, between {test.between:.3f} ± {test.between_error:.3f};"
                f" unshared {gap:.1e}; {1e3 * seconds / min(128, len(held)) / len(ensemble.members):.1f} CPU ms per crystal and network"
            )


if __name__ == "__main__":
    main()
