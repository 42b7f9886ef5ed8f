"""Train the model that ships with naica: formation energy per atom of Materials Project crystals.

    python benchmarks/train_formation_energy.py --out runs/formation-energy --epochs 40 --minutes 70 --seeds 0 1 2

Training rows: those of the published MEGNet split that are in the set, and rows outside that split whose reduced formula is in neither
its validation nor its test part. Validation and test: the published parts. A killed run goes on where it stopped: same command.

Members may be trained one by one (one core each) and joined afterwards:

    python benchmarks/train_formation_energy.py --out runs/a --seeds 3 --epochs 62 --minutes 85
    python benchmarks/train_formation_energy.py --out runs/b --seeds 4 --epochs 62 --minutes 85
    python benchmarks/train_formation_energy.py --join runs/a runs/b --save src/naica/training/weights/formation-energy

A model from before cards kept scores for intervals gets them from the published validation part; its weights stay as they are:

    python benchmarks/train_formation_energy.py --scores src/naica/training/weights/formation-energy
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAME = "formation-energy"
LICENCE = "weights: MIT; trained on Materials Project data (CC BY 4.0)"
CITATION = (
    "Data: Jain et al., APL Mater. 1, 011002 (2013); split: Chen et al., Chem. Mater. 31, 3564 (2019). "
    "Architecture: Xie & Grossman, Phys. Rev. Lett. 120, 145301 (2018)"
)
NOTE = (
    "Published test errors for Materials Project formation energies, eV/atom: CGCNN 0.039 (28,046 training crystals), "
    "MEGNet 0.028 (60,000 training crystals). "
    "Relaxed structures; validation and test part as published for MEGNet, as far as they are in the set."
)


@dataclass(frozen=True)
class Published:
    """Rows of the published split."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def published(table) -> Published:
    """The MEGNet split, its training part widened by rows outside it that share no formula with validation or test."""
    part, formula = table.column("split").astype(str), table.column("formula").astype(str)
    judged = np.isin(part, ["val", "test"])
    outside = ~np.isin(part, ["train", "val", "test"]) & ~np.isin(formula, np.unique(formula[judged]))
    rows = {name: np.flatnonzero(part == name) for name in ("train", "val", "test")}
    return Published(np.flatnonzero((part == "train") | outside), rows["val"], rows["test"])


def settings(args: argparse.Namespace):
    """What is trained, and how."""
    from naica.training.config import HeadConfig, TrainConfig

    return TrainConfig(
        architecture="cgcnn",
        architecture_config={"layers": 4, "width": 64},
        head=HeadConfig(hidden=(128,)),
        epochs=args.epochs,
        batch_size=args.batch,
        learning_rate=args.rate,
        weight_decay=1e-3,
        loss="l1",
        ema=0.999,
        warm_up=0.15,
        members=len(args.seeds),
        chain=args.chain,
        seed=args.seeds[0],
        max_seconds=args.minutes * 60 / len(args.seeds) if args.minutes else None,
        precision=args.precision,
        compile=args.compile,
        tensorboard=False,
    )


def main() -> None:
    """Train, judge, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/formation-energy"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=None, help="time budget of all members together; the schedule ends within it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="consecutive seeds, one member each")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--compile", action="store_true", help="fuse the network with torch.compile (needs a C++ compiler)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--chain", action="store_true", help="each member starts from the one before (snapshot ensemble): for little time")
    parser.add_argument("--join", type=Path, nargs="+", help="train nothing: make one ensemble of the members in these run folders")
    parser.add_argument("--save", type=Path, help="folder of the finished model; default: OUT/model")
    parser.add_argument("--scores", type=Path, help="train nothing: put scores for intervals into the card in this model folder")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    if args.seeds != list(range(args.seeds[0], args.seeds[0] + len(args.seeds))):
        parser.error("--seeds must be consecutive: 0 1 2")

    from naica.data.registry import load_set
    from naica.training.assemble import with_facts
    from naica.training.gather import gather
    from naica.training.run import train

    table, started = load_set("mp_formation"), time.time()
    if args.scores:
        add_scores(args.scores, table)
        return
    cache = (args.join[0] if args.join else args.out) / "mp_formation.graphs"
    if args.join:
        ensemble = gather(args.join, table, "e_form", published(table), NAME, cache)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        ensemble = train(table, "e_form", settings(args), published(table), args.out, progress=not args.quiet, name=NAME, cache=cache)
    unseen = {"test_unseen_formulas": judged_unseen(ensemble, table)}
    data = {**ensemble.card.data, "set": "mp_formation", "split": "published MEGNet split, training part widened by formulas outside it"}
    ensemble = with_facts(ensemble, licence=LICENCE, citation=CITATION, note=NOTE, data=data, metrics={**ensemble.card.metrics, **unseen})
    folder = ensemble.save(args.save or args.out / "model")
    for part, numbers in ensemble.card.metrics.items():
        print(f"{part}: {numbers}")
    print(f"{time.time() - started:.0f} s; calibration {ensemble.card.calibration}; saved in {folder}")


def add_scores(folder: Path, table) -> None:
    """Scores from the published validation rows, and the coverage of intervals on the test rows, into the card; the weights stay."""
    from dataclasses import replace

    from naica.training import load
    from naica.training.batches import Labelled
    from naica.training.calibration import calibrate
    from naica.training.ensemble import Ensemble
    from naica.training.evaluation import evaluate, members_on
    from naica.training.target import read_labels

    ensemble, parts = load(folder), published(table)
    chosen = table.take(parts.val)
    labels, graphs = read_labels(chosen, "e_form"), ensemble.graphs(chosen)
    rows = np.array([r for r in np.flatnonzero(labels.known) if r not in graphs.rejected], dtype=np.int64)
    part = Labelled(graphs, (labels,), rows)
    found, old = calibrate(members_on(ensemble, part)[0], part.of(0)), ensemble.card.calibration
    if found.n != old.n or not np.allclose([found.factor, found.floor], [old.factor, old.floor], rtol=1e-2):
        raise SystemExit(
            f"the card was calibrated otherwise: {old.factor}, {old.floor}, {old.n}; now {found.factor}, {found.floor}, {found.n}"
        )
    scored = Ensemble(ensemble.members, replace(ensemble.card, calibration=found))
    metrics = dict(ensemble.card.metrics)
    for name, judged in (("test", parts.test), ("test_unseen_formulas", unseen(table, parts))):
        measured = evaluate(scored, table, "e_form", judged).to_dict()
        metrics[name] = {**metrics[name], "intervals": measured["intervals"]}
        print(name, measured["intervals"])
    (folder / "card.json").write_text(replace(scored.card, metrics=metrics).to_json(), encoding="utf-8")
    print(f"calibration: factor {old.factor} → {found.factor}, floor {old.floor} → {found.floor}, {len(found.scores)} scores kept")


def unseen(table, parts: Published) -> np.ndarray:
    """Test rows whose formula is in no training row."""
    formula = table.column("formula").astype(str)
    return parts.test[~np.isin(formula[parts.test], np.unique(formula[parts.train]))]


def judged_unseen(ensemble, table) -> dict:
    """Metrics on the test rows whose formula is in no training row."""
    from naica.training.evaluation import evaluate

    return evaluate(ensemble, table, "e_form", unseen(table, published(table))).to_dict()


if __name__ == "__main__":
    main()
