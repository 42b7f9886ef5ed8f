"""ACE on further published sets: the alloy Nb-Mo-Ta-W, copper of the ACE paper, Li3N, liquid water, a molecule of rMD17.

    python benchmarks/ace_sets.py nbmotaw cu_ace li3n water rmd17:ethanol

Each set has one fixed basis (`SETS`); weights and prior are cross-validated on the training frames. Sets with a published split keep it,
the others give every fifth frame to the test. Processor seconds on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """Settings of ACE; how many frames train and test at most; balances and powers of the prior that are cross-validated."""

    settings: dict[str, Any] = field(default_factory=dict)
    train: int = 10_000
    test: int = 400
    balances: tuple[float, ...] = (1.0, 0.3)
    powers: tuple[float, ...] = (1.0, 3.0)


SETS = {
    "nbmotaw": Case(
        {"cutoff": 4.8, "degrees": (7.0, 5.0), "l_weight": 1.0, "pair_functions": 10}, train=600, balances=(0.3,), powers=(2.0,)
    ),
    "cu_ace": Case({"cutoff": 6.0, "degrees": (15.0, 12.0, 10.0), "l_weight": 1.0, "pair_functions": 16}),
    "li3n": Case({"cutoff": 5.0, "degrees": (7.0, 6.0), "l_weight": 1.0, "pair_functions": 8}),
    "water": Case(
        {"cutoff": 5.0, "degrees": (10.0, 8.0), "l_weight": 1.0, "pair_functions": 14}, train=40, test=30, balances=(0.3,), powers=(2.0,)
    ),
    "rmd17:ethanol": Case(
        {"cutoff": 4.5, "degrees": (8.0, 7.0), "l_weight": 1.0, "pair_functions": 12}, train=950, test=300, balances=(1.0,), powers=(2.0,)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=list(SETS))
    args = parser.parse_args()

    from naica import runtime

    runtime.threads(1)
    for name in args.sets:
        print(json.dumps(one(name, SETS[name])), flush=True)


def one(name: str, case: Case) -> dict[str, Any]:
    """Fit one set and measure it."""
    from naica.data.registry import load_set
    from naica.models.ace import ACE
    from naica.potential.frames import frames
    from naica.potential.linear import LinearConfig, elements_of, examples_of, fit_linear, sizes_of
    from naica.potential.systems import Systems

    source, _, part = name.partition(":")
    whole = frames(load_set(source, part=part) if part else load_set(source))
    splits = whole.text("split")
    if "test" in splits:
        train, test = examples_of(whole.part("train")), examples_of(whole.part("test"))
    else:
        everything = examples_of(whole)
        train, test = [e for i, e in enumerate(everything) if i % 5], everything[::5]
    train, test = train[:: -(-len(train) // case.train)], test[:: -(-len(test) // case.test)]
    began = time.process_time()
    elements = elements_of(train)
    architecture = ACE.Config(elements=elements, sizes=sizes_of(train, elements), **case.settings)
    fit = fit_linear(train, architecture, LinearConfig(balances=case.balances, prior_powers=case.powers))
    seconds = time.process_time() - began
    energy, forces = [], []
    for e in test:
        found = fit.model.compute(Systems.of(e.crystal).batch(fit.model.cutoff))
        energy.append((float(found.energy[0]) - e.energy) / len(e.crystal) * 1000)
        forces.append((found.forces.numpy() - e.forces).ravel())
    shift, slope = np.array(energy), np.concatenate(forces)
    return {
        "set": name,
        "train": len(train),
        "test": len(test),
        "columns": len(fit.posterior.mean),
        "energy_mae": float(np.abs(shift).mean()),
        "energy_rmse": float(np.sqrt((shift**2).mean())),
        "energy_rmse_without_constant": float(np.std(shift)),
        "forces_mae": float(np.abs(slope).mean()),
        "forces_rmse": float(np.sqrt((slope**2).mean())),
        "forces_std": float(np.concatenate([e.forces.ravel() for e in test]).std()),
        "cross_validated": fit.choice.errors,
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
