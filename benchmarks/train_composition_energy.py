"""Train the network that ranks formulas and ships with naica: formation energy per atom of the lowest structure known of a formula.

    python benchmarks/train_composition_energy.py --out runs/composition --save src/naica/training/weights/composition-formation-energy

Rows: formulas of the Materials Project with the energy of their lowest entry (Bartel et al. 2020). Parts by GNoME's residue of the formula:
below 85 training, 85 to 89 validation, 90 to 99 test.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAME = "composition-formation-energy"
FACTS = {
    "licence": "weights: MIT; trained on Materials Project data (CC BY 4.0)",
    "citation": "Data: Bartel et al., npj Comput. Mater. 6, 97 (2020); Jain et al., APL Mater. 1, 011002 (2013). "
    "Architecture: Merchant et al., Nature 624, 80 (2023)",
    "note": "Sees the formula alone: the energy of the lowest known structure. GNoME's own composition network: 0.060 eV/atom. "
    "Split by the MD5 residue of the formula: training below 85, validation to 89, test from 90.",
}


@dataclass(frozen=True)
class Parts:
    """Rows of the three parts."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def rows() -> list[tuple[str, float]]:
    """Formula and formation energy (eV/atom) of the lowest entry."""
    from naica.data import dataset

    path = dataset("compositions").path("mp_formation_decomposition.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [(r["formula"], float(r["Ef"])) for r in csv.DictReader(handle) if r["Ef"]]


def main() -> None:
    """Train, judge, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/composition"))
    parser.add_argument("--save", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--members", type=int, default=2)
    args = parser.parse_args()

    from naica.data import CrystalTable, Label, Level
    from naica.data.splits import md5_part
    from naica.discover.compositions import stand_in
    from naica.training.assemble import with_facts
    from naica.training.config import HeadConfig, TrainConfig
    from naica.training.run import train

    started = time.process_time()
    known = rows()
    level = Level("PBE", hubbard_u="MP", pseudo="PAW (MP)", corrections="MP legacy (before 2021)", code="VASP")
    label = Label.of("formation_energy_per_atom", level)
    table = CrystalTable.from_crystals(
        [stand_in(f) for f, _ in known],
        {"e_form": np.array([e for _, e in known])},
        {"e_form": label},
        [f"row-{k}" for k in range(len(known))],
    )
    part = np.array([md5_part(f) for f, _ in known])
    parts = Parts(np.flatnonzero(part < 85), np.flatnonzero((part >= 85) & (part < 90)), np.flatnonzero(part >= 90))
    config = TrainConfig(
        architecture="gnome-composition", architecture_config={"width": args.width, "steps": 3}, head=HeadConfig(hidden=(64,)),
        epochs=args.epochs, batch_size=64, learning_rate=2e-3, weight_decay=1e-4, loss="l1", ema=0.99, warm_up=0.1, members=args.members,
        max_seconds=args.minutes * 60 / args.members if args.minutes else None, tensorboard=False,
    )  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    ensemble = train(table, "e_form", config, parts, args.out, progress=False, name=NAME)
    data = {**ensemble.card.data, "set": "compositions", "split": "MD5 residue of the formula: below 85, 85 to 89, from 90"}
    folder = with_facts(ensemble, **FACTS, data=data).save(args.save or args.out / "model")
    for name, numbers in ensemble.card.metrics.items():
        print(f"{name}: {numbers}")
    print(f"{time.process_time() - started:.0f} CPU s; saved in {folder}")


if __name__ == "__main__":
    main()
