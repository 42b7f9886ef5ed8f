"""Molecular networks on the sets of SMILES and on QM9: error on a random test part (80/10/10), some seeds, a short budget each.

    python benchmarks/molecules.py esol freesolv            # RMSE
    python benchmarks/molecules.py tox21 --seeds 1          # mean ROC-AUC over the twelve assays, one network for all
    python benchmarks/molecules.py qm9 --rows 4000 --networks mpnn-distances

Published numbers beside ours are those of Duvenaud et al. (2015), whose solubility set has 1,144 molecules, and of MoleculeNet (Wu et al.,
Chem. Sci. 9, 513, 2018; random split, whole sets), the latter quoted from memory; the sets here are 89 % of MoleculeNet's.
"""

import argparse
import statistics
import time

import numpy as np

from naica.data.registry import load_set
from naica.data.splits import split
from naica.training import train
from naica.training.config import TrainConfig

EV_PER_KCAL = 0.0433641042418005
NETWORKS = {
    "fingerprint": ("fingerprint", {}),
    "weave": ("weave", {"max_bonds": 3}),
    "mpnn": ("mpnn", {"steps": 4, "passes": 4}),
    "mpnn-gated-sum": ("mpnn", {"readout": "gated-sum", "steps": 4}),
    "mpnn-ggnn": ("mpnn", {"message": "ggnn", "readout": "gated-sum", "steps": 4}),
    "mpnn-attention-virtual": ("mpnn", {"attention": True, "virtual": True, "steps": 4, "passes": 4}),
    "mpnn-distances": ("mpnn", {"edges": "pairs", "width": 32, "edge_width": 16, "edge_layers": 1, "steps": 3, "passes": 3}),
}
# column(s), metric, factor to the unit printed, unit, published
SETS = {
    "esol": (["measured log solubility in mols per litre"], "rmse", 1.0, "log10(mol/L)", "fingerprint 0.52, Weave 0.61, MPNN 0.58"),
    "freesolv": (["expt"], "rmse", 1 / EV_PER_KCAL, "kcal/mol", "Weave 1.22, MPNN 1.15"),
    "tox21": ([], "mean_roc_auc", 1.0, "mean ROC-AUC", "Weave 0.820, graph convolution 0.829"),
    "qm9": (["gap"], "mae", 1000.0, "meV", "SchNet 63 with 110,000 molecules"),
}


def one(table, names, metric, network, seed, epochs, batch):
    """Metric of the test part and CPU seconds of the training."""
    architecture, config = NETWORKS[network]
    settings = TrainConfig(
        architecture=architecture,
        architecture_config=config,
        epochs=epochs,
        batch_size=batch,
        seed=seed,
        learning_rate=2e-3,
        tensorboard=False,
    )
    start = time.process_time()
    ensemble = train(table, names[0] if len(names) == 1 else names, settings, split(table, "random", seed=seed), progress=False)
    return ensemble.card.metrics["test"][metric], time.process_time() - start


def main():
    """Print a line per set and network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+", choices=list(SETS))
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["fingerprint", "weave", "mpnn"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rows", type=int, default=None, help="so many random rows of the set")
    given = parser.parse_args()
    for name in given.sets:
        names, metric, factor, unit, published = SETS[name]
        table = load_set(name)
        if given.rows is not None:
            table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[: given.rows]))
        names = names or list(table.labels)
        values = np.asarray(table.column(names[0]), dtype=float)
        print(f"{name}: {len(table)} molecules, standard deviation {np.nanstd(values) * factor:.3g}; published: {published}", flush=True)
        for network in given.networks:
            found = [one(table, names, metric, network, seed, given.epochs, given.batch) for seed in range(given.seeds)]
            errors = [value * factor for value, _ in found]
            spread = f" ± {statistics.stdev(errors):.3f}" if len(errors) > 1 else ""
            cpu = statistics.mean(seconds for _, seconds in found)
            print(f"  {network:24} {metric} {statistics.mean(errors):.3f}{spread} {unit}; {cpu:.0f} CPU s a run", flush=True)


if __name__ == "__main__":
    main()
