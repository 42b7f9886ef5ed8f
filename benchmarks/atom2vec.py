"""Does it help to start from Atom2Vec where labels are few? Networks that start from learned, described and Atom2Vec elements, in one run.

    python benchmarks/atom2vec.py elpasolites
    python benchmarks/atom2vec.py perovskites

Elpasolites: the elements of the four sites of A B C2 D6, in the order the set writes them, through a small network, as in the paper.
Perovskites: CGCNN on the crystals. Every start gets the same rows, steps and seeds; the error is that on rows (elpasolites) or compositions
(perovskites: either order of A and B counts as one) never trained on. The vectors know the formulas of the Materials Project, no energies.
"""

from __future__ import annotations

import argparse
import os
import re
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

STARTS = ("learned", "described", "atom2vec")


def fit(model: nn.Module, batches, steps: int, rate: float) -> None:
    """Adam with a falling rate on mean absolute errors."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        inputs, wanted = batches(step)
        loss = (model(inputs) - wanted).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


class Sites(nn.Module):
    """Elements of four sites → one number."""

    def __init__(self, start: str) -> None:
        super().__init__()
        from naica.nn.atoms import element_vectors

        self.elements = element_vectors(start, 16)
        self.network = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, sites: torch.Tensor) -> torch.Tensor:
        """Atomic numbers (B, 4) → (B)."""
        return self.network(self.elements(sites.reshape(-1)).view(len(sites), -1))[:, 0]


def elpasolites(labels: int, seed: int) -> dict[str, float]:
    """Test MAE (eV/atom) by start."""
    import csv
    import gzip

    from naica.data.registry import dataset
    from naica.structure.elements import element

    with gzip.open(dataset("compositions").path("elpasolite.csv.gz"), "rt") as handle:
        rows = list(csv.DictReader(handle))
    sites = torch.tensor([[element(s).number for s in re.findall(r"([A-Z][a-z]?)\d+", row["Composition"])] for row in rows])
    values = torch.tensor([float(row["Energy"]) for row in rows])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    train, test = order[:labels], order[-4000:]
    mean, std = values[train].mean(), values[train].std()
    found = {}
    for start in STARTS:
        torch.manual_seed(seed)
        model = Sites(start)
        draw = torch.Generator().manual_seed(seed)

        def batch(step: int, draw=draw):
            rows = train[torch.randint(len(train), (64,), generator=draw)]
            return sites[rows], (values[rows] - mean) / std

        fit(model, batch, 2500, 3e-3)
        with torch.no_grad():
            found[start] = float((model(sites[test]) * std + mean - values[test]).abs().mean())
    return found


def perovskites(labels: int, seed: int) -> dict[str, float]:
    """Test MAE (eV/atom) by start."""
    from naica.data.registry import load_set
    from naica.graphs import GraphSet
    from naica.models import backbone
    from naica.nn import Head

    table = load_set("perovskites")
    formulas = table.formulas
    rng = np.random.default_rng(seed)
    groups = rng.permutation(sorted(set(formulas)))
    place = {name: k for k, name in enumerate(groups)}
    rank = np.array([place[f] for f in formulas])
    order = np.argsort(rank, kind="stable")
    train, test = order[:labels], order[rank[order] > rank[order[labels]]][-2000:]
    graphs = GraphSet.build(table.take(np.concatenate([train, test])))
    values = torch.from_numpy(table.column("e_form")[np.concatenate([train, test])]).float()
    mean, std = values[:labels].mean(), values[:labels].std()
    found = {}
    for start in STARTS:
        torch.manual_seed(seed)
        model, head = backbone("cgcnn", atoms=start, layers=2), Head(64, (64,))
        both = nn.ModuleList([model, head])
        both.forward = lambda batch, model=model, head=head: head(model(batch), batch)[:, 0]  # type: ignore[method-assign]
        draw = np.random.default_rng(seed)

        def batch(step: int, draw=draw):
            rows = draw.choice(labels, 48, replace=False)
            return graphs.batch(rows), (values[rows] - mean) / std

        both.train()
        fit(both, batch, 500, 5e-3)
        both.eval()
        with torch.no_grad():
            out = torch.cat([both(graphs.batch(rows)) for rows in np.array_split(np.arange(labels, len(graphs)), 20)])
        found[start] = float((out * std + mean - values[labels:]).abs().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("elpasolites", "perovskites"))
    parser.add_argument("--labels", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    work = elpasolites if asked.task == "elpasolites" else perovskites
    print(f"{asked.task}: test MAE, eV/atom (mean of {asked.seeds} seeds)")
    print(f"{'labels':>8}" + "".join(f"{s:>12}" for s in STARTS))
    for labels in asked.labels or ((250, 1000, 4000) if asked.task == "elpasolites" else (200, 800)):
        begun = time.process_time()
        all_seeds = [work(labels, seed) for seed in range(asked.seeds)]
        means = "".join(f"{np.mean([r[s] for r in all_seeds]):12.3f}" for s in STARTS)
        print(f"{labels:8d}{means}    ({time.process_time() - begun:.0f} CPU s)", flush=True)


if __name__ == "__main__":
    main()
