"""Hamiltonian networks on real matrices: errors of H by range and orbital, of bands, gaps and densities of states, beside the baselines.

    naica hamiltonian make water && naica hamiltonian noise water       # once: the set and its noise (kept in the user's cache)
    python benchmarks/hamiltonians.py water --minutes 6 --h0 --out runs/h
    python benchmarks/hamiltonians.py graphene --minutes 15 --larger '*-[23]x[23]-*|*-twisted-*' --sizes 20,40,80,160 --out runs/h
    python benchmarks/hamiltonians.py carbon --from runs/h/universal-deeph2-tables-291-0 --sizes 10,20,40,80 --out runs/h
    python benchmarks/hamiltonians.py growth graphene --model runs/h/graphene-deeph2-tables-160-0 --atoms 98,200,512,1058 --scf 2,8,18,32

CPU minutes are of one thread; trainings go on where they were. A fifth of the structures is held out by a draw on their names, which the
models' cards keep; --larger names others (patterns, | between) that are only tested on. --sizes trains on parts of the rest and gives the
learning curve; --from fine-tunes a model on each of them and trains from scratch beside it. Each line says whether the network was added
to H0 (--h0) or to two-centre tables. The whole of it, orbital by orbital, is in errors.json of each model.

`growth` takes a model without --h0 and times, for cells of so many atoms: H and S predicted, 24 states around the middle of the gap by
shift and invert at Γ; and, with --scf, the code's self-consistent run (CP2K, with the model's own settings) on cells of so many atoms.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Train what is asked for and print the tables, or time how cost grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", help="a set, or the word growth")
    parser.add_argument("matter", nargs="?", choices=("graphene", "silicon"), help="of growth")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of each training")
    parser.add_argument("--sizes", default="", help="training sizes, for example 10,20,40; default: all there are")
    parser.add_argument("--larger", default="", help="structures whose names match are tested on and not trained on")
    parser.add_argument("--by-formula", action="store_true", help="hold out whole formulas")
    parser.add_argument("--architecture", default="deeph2")
    parser.add_argument("--network", default="{}", help="settings of the network as JSON")
    parser.add_argument("--h0", action="store_true", help="add the network to the Hamiltonian of superposed atoms")
    parser.add_argument("--from", dest="start", type=Path, help="fine-tune this model, and train from scratch beside it")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=30, help="held out structures to judge on")
    parser.add_argument("--no-bands", action="store_true")
    parser.add_argument("--out", type=Path, help="folder of the models")
    parser.add_argument("--model", type=Path, help="of growth")
    parser.add_argument("--atoms", default="98,200,512,1058", help="of growth: sizes of predicted cells")
    parser.add_argument("--scf", default="", help="of growth: sizes of cells for a self-consistent run")
    args = parser.parse_args()
    from naica.runtime import threads

    threads(1)
    if args.set == "growth":
        if args.matter is None or args.model is None:
            parser.error("growth needs graphene or silicon, and --model FOLDER")
        growth(args)
    elif args.out is None:
        parser.error("--out FOLDER is missing")
    else:
        learning(args)


# --- learning ----------------------------------------------------------------------------------------------------------
def learning(args: Any) -> None:
    """Train for every size and judge; then the curve."""
    from naica.app.actions_hamiltonian import opened
    from naica.hamiltonian import noise, parts
    from naica.hamiltonian.learn import load

    found = opened(args.set)
    names = found.names
    apart = {n for n in names if any(fnmatch(n, p) for p in args.larger.split("|") if p)}
    formulas = [m.crystal.formula for n, m in zip(names, found, strict=True) if n not in apart] if args.by_formula else None
    split = parts.split([n for n in names if n not in apart], 0.2, 0, "", formulas)
    split = replace(split, larger=tuple(n for n in names if n in apart), recipe={**split.recipe, "larger": args.larger})
    # parts of the training part are drawn, not the first by name
    order = np.random.default_rng(args.seed).permutation(len(split.train)).tolist()
    start = load(args.start)[0] if args.start else None
    floor = noise.known(found.folder)
    if floor is None:
        print(f"the noise of this set is not known: naica hamiltonian noise {args.set}")
    sizes = [int(n) for n in args.sizes.split(",") if n] or [len(split.train)]
    curve: dict[str, dict[int, Any]] = {}
    for size in sizes:
        own = replace(split, train=tuple(split.train[k] for k in sorted(order[:size])))
        for kind, begun in ({"fine-tuned": start, "scratch": None} if start is not None else {"h0" if args.h0 else "tables": None}).items():
            curve.setdefault(kind, {})[len(own.train)] = trained(args, found, own, kind, begun, floor)
    summary(args, curve)


def trained(args: Any, found: Any, split: Any, kind: str, start: Any, floor: Any) -> dict[str, Any]:
    """Train one model, print its tables, keep them with it."""
    from naica.hamiltonian import parts
    from naica.hamiltonian.learn import HamiltonianConfig, fit

    folder = args.out / f"{args.set}-{args.architecture}-{kind}-{len(split.train)}-{args.seed}"
    on_h0 = args.h0 if start is None else start.on_h0
    config = HamiltonianConfig(
        architecture=args.architecture if start is None else start.architecture,
        architecture_config=json.loads(args.network) if start is None else start.architecture_config,
        on_h0=on_h0,
        epochs=100_000,
        batch_size=args.batch,
        learning_rate=args.rate,
        max_cpu_seconds=60 * args.minutes,
        augment=args.architecture == "schnorb",
        seed=args.seed,
    )
    items = [found[k] for k in parts.rows(found.names, split.train, args.set)]
    result = fit(items, config, folder, start=start, told={"set": args.set, "split": split.to_dict()})
    print(
        f"{folder.name}: {len(items)} structures, {len(result.rows)} epochs, {result.rows[-1]['seconds'] / 60:.1f} CPU minutes", flush=True
    )
    told = {"held out": split.test[: args.most], "larger cells": split.larger[:10]}
    judged = {
        name: shown(result.model, [found[k] for k in parts.rows(found.names, chosen, args.set)], name, not args.no_bands, floor)
        for name, chosen in told.items()
        if chosen
    }
    (folder / "errors.json").write_text(json.dumps(judged, indent=1))
    return judged


def shown(model: Any, truth: list[Any], name: str, bands: bool, floor: Any) -> dict[str, Any]:
    """Print one table (meV) and return it."""
    from naica.hamiltonian.evaluate import compared

    judged = compared(model, truth, bands, floor)
    print(f"  {name}: {len(truth)} structures, meV" + " " * 10 + "".join(f"{n:>20}" for n in judged))
    first = next(iter(judged.values()))
    for key in first.ranges:
        print(f"    {'H, ' + key:32}" + "".join(f"{1e3 * e.ranges[key]:20.2f}" for e in judged.values()))
    for key in first.shells:
        print(f"    {'H, ' + key:32}" + "".join(f"{1e3 * e.shells.get(key, np.nan):20.2f}" for e in judged.values()))
    for key in ("occupied", "empty", "gap"):
        print(f"    {'bands, ' + key:32}" + "".join(f"{1e3 * getattr(e, key):20.1f}" for e in judged.values()))
    print(f"    {'states in the wrong place, %':32}" + "".join(f"{1e2 * e.density:20.2f}" for e in judged.values()), flush=True)
    return {n: asdict(e) for n, e in judged.items()}


def summary(args: Any, curve: dict[str, dict[int, Any]]) -> None:
    """The learning curve, its slope, and what fine-tuning saves."""
    for part in ("held out", "larger cells"):
        rows = {kind: {n: one[part]["model"] for n, one in own.items() if part in one} for kind, own in curve.items()}
        if not any(rows.values()):
            continue
        print(f"learning curve, {args.set}, {part}: structures, H all / occupied bands / four lowest empty, meV")
        for n in sorted({n for own in rows.values() for n in own}):
            told = [
                f"{kind} {1e3 * own[n]['ranges']['all']:8.2f} {1e3 * own[n]['occupied']:8.1f} {1e3 * own[n]['empty']:8.1f}"
                for kind, own in rows.items()
                if n in own
            ]
            print(f"  {n:5d}   " + "   |   ".join(told))
        for kind, own in rows.items():
            if len(own) > 1:
                x, y = np.log(list(own)), np.log([e["ranges"]["all"] for e in own.values()])
                print(f"  {kind}: error of H falls as structures to the power {np.polyfit(x, y, 1)[0]:.2f}")
        if {"fine-tuned", "scratch"} <= set(rows) and rows["scratch"]:
            last = max(rows["scratch"])
            goal = rows["scratch"][last]["ranges"]["all"]
            enough = [n for n in sorted(rows["fine-tuned"]) if rows["fine-tuned"][n]["ranges"]["all"] <= goal]
            told = f"{enough[0]} ({100 * enough[0] / last:.0f} %)" if enough else "none of the sizes tried"
            print(f"  structures that fine-tuning needs for the error of {last} from scratch: {told}")
    (args.out / f"{args.set}-curve.json").write_text(json.dumps(curve, indent=1))


# --- growth ------------------------------------------------------------------------------------------------------------
def growth(args: Any) -> None:
    """Print CPU seconds of prediction and solution against those of a self-consistent run, by the number of atoms."""
    from naica.hamiltonian import bands
    from naica.hamiltonian.learn import load
    from naica.hamiltonian.sets import graphene, silicon
    from naica.hamiltonian.sources import source

    model, card = load(args.model)
    draw = np.random.default_rng(3)

    def cell(atoms: int) -> Any:
        if args.matter == "graphene":
            return graphene(round((atoms / 2) ** 0.5), draw, 0.0, 0.02)
        return silicon(round((atoms / 2) ** (1 / 3)), draw)

    small = model.predict(cell(2))
    points = bands.mesh_for(small, 0.25)
    electrons = float(small.electrons or 0)
    middle = bands.filling(bands.all_energies(small, points), points, electrons).fermi
    print(
        f"{args.matter}, {args.model}, cut-off of the network {model.cutoff:g} Å, of the tables {model.baseline.reach:.1f} Å; CPU seconds"
    )
    print(f"{'atoms':>6} {'orbitals':>9} {'pairs':>9} {'H and S':>9} {'24 states':>10} {'together':>9} {'memory GB':>10}", flush=True)
    told = []
    for atoms in (int(n) for n in args.atoms.split(",") if n):
        crystal = cell(atoms)
        begun = time.process_time()
        found = model.predict(crystal)
        predicted = time.process_time() - begun
        bands.solve(found, (0, 0, 0), 24, around=middle)
        whole = time.process_time() - begun
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        told.append((len(crystal), whole))
        line = f"{len(crystal):6d} {found.n_orbitals:9d} {len(found.pairs):9d} {predicted:9.1f} {whole - predicted:10.1f} {whole:9.1f}"
        print(f"{line} {memory:10.1f}", flush=True)
    _power(told, "prediction and solution")
    settings = {k: card["source"][k] for k in ("functional", "basis", "cutoff", "spacing", "temperature") if k in card["source"]}
    runs = []
    for atoms in (int(n) for n in args.scf.split(",") if n):
        crystal = cell(atoms)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        source("cp2k")(crystal, settings | {"h0": False, "seconds": 3000.0})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        runs.append((len(crystal), spent))
        print(f"{len(crystal):6d} atoms, self-consistent by CP2K: {spent:.1f} CPU seconds", flush=True)
    _power(runs, "self-consistent run")


def _power(rows: list[tuple[int, float]], what: str) -> None:
    if len(rows) > 1:
        x, y = np.log(np.array(rows, dtype=float).T)
        print(f"  {what}: from {rows[-2][0]} to {rows[-1][0]} atoms with the power {(y[-1] - y[-2]) / (x[-1] - x[-2]):.1f} of the atoms")


if __name__ == "__main__":
    main()
