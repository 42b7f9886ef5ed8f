"""Accuracy of learned potentials on real sets; every figure in docs/results.md, section "Potentials: accuracy", comes from here.

    python benchmarks/potential_accuracy.py look Mo --minutes 1.5              # which network and width, quickly
    python benchmarks/potential_accuracy.py mlearn Cu Ni Li Mo Si Ge --minutes 8
    python benchmarks/potential_accuracy.py rmd17 ethanol --minutes 12
    python benchmarks/potential_accuracy.py water --minutes 8
    python benchmarks/potential_accuracy.py curve ethanol --minutes 3          # error against the number of training frames
    python benchmarks/potential_accuracy.py fidelity                           # what cheap labels beside few dear ones are worth
    python benchmarks/potential_accuracy.py forgetting                         # replay and frozen layers after a change of data
    python benchmarks/potential_accuracy.py active                             # from six frames to a promised error
    python benchmarks/potential_accuracy.py report                             # tables of what lies in the folder

Minutes are CPU minutes of one thread per potential. Runs go on where they stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from naica.data import Label, Level
from naica.potential.evaluate import evaluate
from naica.potential.fit import fit
from naica.potential.frames import frames
from naica.potential.saved import Potential
from naica.potential.settings import FitConfig, Weights

GPA = 160.21766208
TIMED = 1_000_000  # epochs: the minutes decide

# the networks that were looked at; the first is the one of the tables
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "painn": ("painn", {"width": 48, "layers": 2, "cutoff": 5.0}),
    "nequip-l2": ("nequip", {"channels": 16, "l_max": 2, "layers": 2, "parity": False, "cutoff": 4.8}),
    "nequip-l1": ("nequip", {"channels": 16, "l_max": 1, "layers": 2, "parity": False, "cutoff": 4.8}),
    "nequip-l2-wide": ("nequip", {"channels": [32, 16, 8], "l_max": 2, "layers": 3, "parity": False, "cutoff": 4.8}),
    "mace-1": ("mace", {"channels": 16, "l_hidden": 0, "l_max": 3, "layers": 1, "correlation": 3, "cutoff": 5.0, "radial": [32, 32]}),
    "mace-2": ("mace", {"channels": 16, "l_hidden": 0, "l_max": 3, "layers": 2, "correlation": 3, "cutoff": 4.8, "radial": [32, 32]}),
}
# highest learning rates, from a few hundred steps on molybdenum
RATES = {"painn": 5e-3, "nequip": 8e-3, "mace": 1e-2}
# Å: a little beyond the second shell of neighbours
CUTOFFS = {"Cu": 4.0, "Ni": 4.0, "Li": 5.0, "Mo": 4.6, "Si": 4.6, "Ge": 4.8}
BASE = FitConfig(
    epochs=TIMED,
    batch_size=1,
    learning_rate=8e-3,
    warm_up=0.02,
    ema=0.99,
    # no stress: that of the labels has a constant part (Pulay) that energies know nothing of, see the section on ACE
    weights=Weights(energy=2.0, forces=1.0, stress=0.0),
    validation=0.1,
    tensorboard=False,
    checkpoint_steps=200,
)


def run(name: str, source: Any, config: FitConfig, out: Path, **options: Any) -> Potential:
    """One potential, from where it stopped; its errors beside it."""
    began = time.time()
    potential = fit(source, config, out=out / name, name=name, **options)
    card = potential.card
    record = {
        "name": name,
        "architecture": card.architecture,
        "config": card.architecture_config,
        "metrics": card.metrics,
        "members": card.training["members"],
        "rows": card.data["rows"],
        "wall": time.time() - began,
    }
    (out / name / "result.json").write_text(json.dumps(record, indent=1, default=list))
    print(line(record), flush=True)
    return potential


def line(record: dict[str, Any]) -> str:
    """One result for a person."""
    m = record["metrics"].get("test") or record["metrics"].get("validation")
    k = record["members"][0]
    forces = f", F MAE {1e3 * m['forces_mae']:.1f} RMSE {1e3 * m['forces_rmse']:.1f} meV/Å" if "forces_mae" in m else ""
    stress = f", S {m['stress_mae'] * GPA:.3f} GPa" if "stress_mae" in m else ""
    return (
        f"{record['name']}: E MAE {1e3 * m['energy_mae']:.2f} RMSE {1e3 * m['energy_rmse']:.2f} meV/atom{forces}{stress}; "
        f"{k['parameters']} parameters, {k['epochs']} epochs, {k['steps']} steps, {k['cpu_seconds'] / 60:.1f} CPU min"
    )


def network(name: str, **changes: Any) -> dict[str, Any]:
    """Settings of one of `NETWORKS`."""
    architecture, config = NETWORKS[name]
    return {"architecture": architecture, "architecture_config": {**config, **changes}, "learning_rate": RATES[architecture]}


def look(arguments: argparse.Namespace) -> None:
    for element in arguments.which:
        for name in arguments.network or NETWORKS:
            config = BASE.replace(**network(name, cutoff=CUTOFFS[element]), max_cpu_seconds=60 * arguments.minutes)
            run(f"look-{element}-{name}", f"mlearn:{element}", config, arguments.out)


def mlearn(arguments: argparse.Namespace) -> None:
    for element in arguments.which or ("Cu", "Ni", "Li", "Mo", "Si", "Ge"):
        name = (arguments.network or [next(iter(NETWORKS))])[0]
        config = BASE.replace(**network(name, cutoff=CUTOFFS[element]), max_cpu_seconds=60 * arguments.minutes)
        run(f"mlearn-{element}-{name}", f"mlearn:{element}", config, arguments.out)


def rmd17(arguments: argparse.Namespace) -> None:
    for molecule in arguments.which or ("ethanol",):
        name = (arguments.network or ["painn"])[0]
        config = BASE.replace(
            **network(name, cutoff=4.0),
            max_cpu_seconds=60 * arguments.minutes,
            validation=0.05,
            batch_size=5,
        )
        run(f"rmd17-{molecule}-{name}", f"rmd17:{molecule}", config, arguments.out)


def water(arguments: argparse.Namespace) -> None:
    name = (arguments.network or ["painn"])[0]
    config = BASE.replace(**network(name, cutoff=4.5), max_cpu_seconds=60 * arguments.minutes, test=0.2)
    run(f"water-{name}", "water", config, arguments.out)


def curve(arguments: argparse.Namespace) -> None:
    """Errors of the same minutes on fewer frames, and of more minutes on all of them."""
    import numpy as np

    molecule = (arguments.which or ["ethanol"])[0]
    whole = frames(f"rmd17:{molecule}")
    parts = np.array(whole.text("split"))
    train, test = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test")
    for n in (50, 100, 200, 400, 950):
        chosen = np.concatenate([np.random.default_rng(0).permutation(train)[: n + 50], test])
        config = BASE.replace(
            **network("painn", cutoff=4.0), max_cpu_seconds=60 * arguments.minutes, validation=50 / (n + 50), batch_size=5
        )
        run(f"curve-{molecule}-{n}", whole.take(chosen), config, arguments.out)


def fidelity(arguments: argparse.Namespace) -> None:
    """Atomisation energies of QM7: 4,000 cheap labels (DFTB) and 200 dear ones (PBE0), against the 200 alone; judged on 1,000 others."""
    import numpy as np

    from naica.data import CrystalTable, load_set

    whole = load_set("qm7")
    rows = np.random.default_rng(0).permutation(len(whole))
    high, test, low = rows[:200], rows[200:1200], rows[1200:5200]
    level = whole.labels["atomization_energy"].level, whole.labels["atomization_energy_dftb"].level

    def part(chosen: Any, column: str, which: int, split: str) -> CrystalTable:
        table = whole.take(chosen)
        bare = CrystalTable(table.arrow.select(["id", "numbers", "positions", "cell", "pbc"]))
        label = Label.of("energy", level[which])
        return bare.with_column("energy", table.column(column), label).with_column("split", [split] * len(bare))

    dear = CrystalTable.concat([part(high, "atomization_energy", 0, "train"), part(test, "atomization_energy", 0, "test")])
    cheap = part(low, "atomization_energy_dftb", 1, "train")
    base = BASE.replace(
        architecture="schnet",
        architecture_config={"width": 48, "interactions": 2, "gaussians": 24, "cutoff": 5.0},
        batch_size=16,
        balance="frames",
        learning_rate=3e-3,
        validation=0.1,
    )
    seconds = 60 * arguments.minutes
    alone = run("fidelity-dear-alone", dear, base.replace(max_cpu_seconds=seconds / 3), arguments.out)
    both = run(
        "fidelity-both",
        frames(CrystalTable.concat([cheap, dear], fidelity=True), fidelity=True),
        base.replace(max_cpu_seconds=seconds, validation=0.0),
        arguments.out,
        fidelity=True,
    )
    # the cheap labels themselves, shifted by what elements are worth, are the bar to beat
    for name, potential in (("alone", alone), ("both", both)):
        found = evaluate(potential, dear, "test")
        n = found.told.counts
        error = np.abs(found.told.said["energy"] - found.told.wanted["energy"])
        print(f"{name}: MAE {error.mean():.3f} eV a molecule, {1e3 * (error / n).mean():.1f} meV/atom")


def forgetting(arguments: argparse.Namespace) -> None:
    """A potential of silicon goes on with germanium: what becomes of silicon, with replay, with frozen layers, with neither."""
    base = BASE.replace(
        architecture="schnet",
        architecture_config={"width": 48, "interactions": 2, "gaussians": 24, "cutoff": 5.0},
        learning_rate=3e-3,
        batch_size=2,
        max_cpu_seconds=60 * arguments.minutes,
    )
    silicon = frames("mlearn:Si")
    old = run("forgetting-0-silicon", silicon, base, arguments.out)
    tune = base.replace(learning_rate=1e-3)
    variants: dict[str, tuple[FitConfig, Any]] = {
        "plain": (tune, None),
        "replay": (tune.replace(replay_share=0.5), silicon.part("train")),
        "frozen": (tune.replace(freeze=1), None),
    }
    for name, (config, replay) in variants.items():
        new = run(f"forgetting-{name}", "mlearn:Ge", config, arguments.out, start=old, replay=replay)
        for element in ("Si", "Ge"):
            errors = evaluate(new, f"mlearn:{element}", "test").errors
            print(f"  {name}, {element}: F MAE {1e3 * errors['forces_mae']:.0f} meV/Å, E MAE {1e3 * errors['energy_mae']:.1f} meV/atom")
    errors = evaluate(old, silicon, "test").errors
    print(f"  before, Si: F MAE {1e3 * errors['forces_mae']:.0f} meV/Å, E MAE {1e3 * errors['energy_mae']:.1f} meV/atom")


def active(arguments: argparse.Namespace) -> None:
    """From six frames of copper to a promised force error, the effective-medium potential as oracle; then the promise is tested."""
    import numpy as np
    from ase.build import bulk

    from naica.data import CrystalTable
    from naica.potential import evaluator as evaluators
    from naica.potential import md
    from naica.potential.active import LearnConfig, learn
    from naica.potential.systems import Systems
    from naica.structure import Crystal

    start = []
    for seed in range(6):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.rattle(0.05, seed=seed)
        start.append(Crystal(atoms.numbers, atoms.positions, atoms.cell.array))
    settings = {
        "fit": {
            "architecture": "schnet",
            "architecture_config": {"width": 24, "interactions": 2, "gaussians": 16, "cutoff": 5.0},
            "members": 3,
            "epochs": 60,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "validation": 0.0,
        },
        "further_epochs": 15,
        "temperatures": [600.0, 1200.0],
        "systems": 10,
        "steps": 200,
        "dt": 4.0,
        "rounds": 6,
    }
    table = CrystalTable.from_crystals(start, {"energy": [0.0] * 6}, {"energy": Label.of("energy", Level("none"))})
    out = arguments.out / "active"
    found = learn(table, "emt", 0.12, out=out, config=LearnConfig.from_dict(settings))
    for r in found.rounds:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()})
    print(found.reason)
    # new dynamics with other seeds, labelled by the oracle: how many frames keep the promise?
    learned, oracle = found.potential.learned(torch.float32), evaluators.of("emt")
    walker, ensemble = evaluators.Batched(learned, torch.float32), md.Langevin(4.0, 0.02)
    state = md.init(Systems.of(start), walker, ensemble, np.resize([600.0, 1200.0], 6), seed=99_991)
    errors = []
    for step in range(1, 301):
        state = md.step(state, walker, ensemble)
        if step % 50 == 0:
            truth = oracle.evaluate(state.systems).forces
            error = (state.forces - truth).square().sum(1)
            sums = torch.zeros(6, dtype=torch.float64).index_add(0, state.systems.system, error)
            errors += (sums / (3 * state.systems.n_atoms)).sqrt().tolist()
    kept = np.mean(np.array(errors) <= found.rounds[-1]["promise"])
    print(f"{len(errors)} new frames: {kept:.0%} keep the promise; median force error {np.median(errors):.3f} eV/Å")


def report(arguments: argparse.Namespace) -> None:
    for path in sorted(arguments.out.glob("*/result.json")):
        print(line(json.loads(path.read_text())))


def judge(arguments: argparse.Namespace) -> None:
    """A saved potential on a set, by group."""
    found = evaluate(arguments.which[0], arguments.which[1], "test")
    print(json.dumps(found.to_dict(), indent=1))


COMMANDS = {
    "active": active,
    "fidelity": fidelity,
    "forgetting": forgetting,
    "look": look,
    "mlearn": mlearn,
    "rmd17": rmd17,
    "water": water,
    "curve": curve,
    "report": report,
    "judge": judge,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("which", nargs="*")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    main()
