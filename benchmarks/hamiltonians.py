"""Hamiltonian networks on real matrices: errors of H by range, of bands and gaps, beside superposed atoms and two-centre tables.

    naica hamiltonian make water                                        # once: the set (kept in the user's cache)
    python benchmarks/hamiltonians.py water --minutes 6 --out runs/h    # trains (goes on where it was) and prints
    python benchmarks/hamiltonians.py graphene --minutes 15 --larger '*-2x2-*' --out runs/h
    python benchmarks/hamiltonians.py carbon --from runs/h/universal-full-0 --sizes 10,20,40 --out runs/h

CPU minutes are of one thread. A fifth of the structures (of the small cells, where --larger names the others) is held out by a fixed
draw; --sizes trains on parts of the rest and gives the learning curve. Each line says whether the network was added to H0 (--h0) or to
two-centre tables.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Train what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of each training")
    parser.add_argument("--sizes", default="", help="training sizes, for example 10,20,40; default: all there are")
    parser.add_argument("--larger", default="", help="structures whose names match are tested on and not trained on")
    parser.add_argument("--architecture", default="deeph2")
    parser.add_argument("--network", default="{}", help="settings of the network as JSON")
    parser.add_argument("--h0", action="store_true", help="add the network to the Hamiltonian of superposed atoms")
    parser.add_argument("--from", dest="start", type=Path, help="fine-tune this model")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-bands", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    from naica.runtime import threads

    threads(1)
    from naica.app.actions_hamiltonian import opened
    from naica.hamiltonian.learn import HamiltonianConfig, fit, load

    found = opened(args.set)
    small = [k for k, name in enumerate(found.names) if not (args.larger and fnmatch(name, args.larger))]
    large = [k for k in range(len(found)) if k not in set(small)]
    order = np.random.default_rng(1234).permutation(small).tolist()
    test, train = order[: max(1, len(order) // 5)], order[max(1, len(order) // 5) :]
    sizes = [int(n) for n in args.sizes.split(",") if n] or [len(train)]
    start = load(args.start)[0] if args.start else None
    results: dict[str, Any] = {}
    for size in sizes:
        kind = "from" if start is not None else ("h0" if args.h0 else "tables")
        folder = args.out / f"{args.set}-{args.architecture}-{kind}-{size}-{args.seed}"
        config = HamiltonianConfig(
            architecture=args.architecture,
            architecture_config=json.loads(args.network),
            on_h0=args.h0,
            epochs=100_000,
            batch_size=args.batch,
            learning_rate=args.rate,
            max_cpu_seconds=60 * args.minutes,
            seed=args.seed,
        )
        items = [found[k] for k in train[:size]]
        result = fit(items, config, folder, start=start)
        print(f"{folder.name}: {size} structures, {len(result.rows)} epochs, {result.rows[-1]['seconds'] / 60:.1f} CPU minutes")
        parts = {"held out": test[:30]} | ({"larger cells": large[:10]} if large else {})
        results[folder.name] = {
            name: shown(result.model, [found[k] for k in rows], name, not args.no_bands) for name, rows in parts.items()
        }
        (folder / "errors.json").write_text(json.dumps(results[folder.name], indent=1))


def shown(model: Any, truth: list[Any], name: str, bands: bool) -> dict[str, Any]:
    """Print one table (meV) and return it."""
    from naica.hamiltonian.evaluate import compared

    judged = compared(model, truth, bands)
    print(f"  {name}: {len(truth)} structures, meV" + " " * 10 + "".join(f"{n:>20}" for n in judged))
    first = next(iter(judged.values()))
    for key in first.ranges:
        print(f"    {'H, ' + key:32}" + "".join(f"{1e3 * e.ranges[key]:20.2f}" for e in judged.values()))
    for key in ("occupied", "empty", "gap"):
        print(f"    {'bands, ' + key:32}" + "".join(f"{1e3 * getattr(e, key):20.1f}" for e in judged.values()))
    return {n: asdict(e) for n, e in judged.items()}


if __name__ == "__main__":
    main()
