"""Structure motifs: how fast, beside pymatgen in the same run; what Motif2Vec finds; what the motif tower of AMDNet adds to MEGNet.

    python benchmarks/motifs.py speed
    python benchmarks/motifs.py vectors --picture motifs.png
    python benchmarks/motifs.py learn

`speed` times shells, shapes and sharing of all cations; the peer finds neighbours by CrystalNN, and shapes, of the shells found
here, by the continuous measures of ChemEnv, on fewer crystals. `learn` trains on the band gaps of oxides with two cations or
more, the published task, for the same number of steps each; it is short, so it says what is learned first and not where it ends.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

_CHEMENV = {"octahedron": "O:6", "tetrahedron": "T:4", "trigonal prism": "T:6", "cube": "C:8", "square": "S:4"}


def oxides(most_atoms: int, count: int, cations: int = 1):
    """A random part of the oxides of mp_formation, as a table."""
    from naica.data.formulas import contains
    from naica.data.registry import load_set

    table = load_set("mp_formation")
    sizes, numbers = table.flat()[:2]
    owner = np.repeat(np.arange(len(table)), sizes)
    kinds = np.bincount(np.unique(owner * 128 + numbers) // 128, minlength=len(table))
    rows = np.flatnonzero(contains(table, "O") & (sizes <= most_atoms) & (kinds > cations))
    return table.take(np.random.default_rng(0).permutation(rows)[:count])


def speed(count: int = 300, peer_count: int = 30) -> None:
    """Crystals per CPU second, and how often the numbers of ligands agree."""
    from pymatgen.analysis.chemenv.coordination_environments.coordination_geometry_finder import AbstractGeometry, LocalGeometryFinder
    from pymatgen.analysis.local_env import CrystalNN

    from naica.structure.motifs import motif_pairs, motifs
    from naica.structure.polyhedra import SHAPES, ideals

    warnings.filterwarnings("ignore")
    for n in range(1, 17):
        ideals(n)  # tables made once per process
    crystals = list(oxides(40, count))
    start = time.process_time()
    found = [motifs(c, "cations") for c in crystals]
    middle = time.process_time()
    pairs = sum(len(motif_pairs(c, m)) for c, m in zip(crystals, found, strict=True))
    end = time.process_time()
    centres = sum(map(len, found))
    print(f"{count} oxides, {np.mean([len(c) for c in crystals]):.1f} atoms, {centres} motifs, {pairs} pairs within 11 Å")
    print(f"naica      shells and shapes {count / (middle - start):8.1f} crystals/s")
    print(f"naica      with all pairs    {count / (end - start):8.1f} crystals/s")
    peer = crystals[:peer_count]
    same, total, begun = 0, 0, time.process_time()
    neighbours = CrystalNN(cation_anion=False, weighted_cn=False)
    for crystal, motif in zip(peer, found, strict=False):
        structure = crystal.to_pymatgen()
        for atom, n in zip(motif.centre.tolist(), motif.coordination.tolist(), strict=True):
            same += neighbours.get_cn(structure, atom) == n
            total += 1
    rate, ours = total / (time.process_time() - begun), centres / (middle - start)
    print(f"naica      shells and shapes {ours:8.1f} motifs/s")
    print(
        f"CrystalNN  shells only       {rate:8.1f} motifs/s (ratio {ours / rate:.0f}); {same / total:.0%} of {total} shells of equal size"
    )
    finder = LocalGeometryFinder()
    finder.setup_parameters(centering_type="centroid", include_central_site_in_centroid=True)
    sites, begun, agree, named = 0, time.process_time(), 0, 0
    for motif in found[:10]:
        for k in range(len(motif)):
            mine = motif.ligand_motif == k
            if not 4 <= mine.sum() <= 8:
                continue
            finder.local_geometry = AbstractGeometry(
                np.zeros(3), list(motif.ligand_vector[mine]), centering_type="centroid", include_central_site_in_centroid=True
            )
            measures = finder.get_coordination_symmetry_measures(only_minimum=True)
            best = min(measures, key=lambda name: measures[name]["csm"])
            shape = SHAPES[motif.shape[k]]
            if shape in _CHEMENV and motif.measure[k] < 3:
                named += 1
                agree += _CHEMENV[shape] == best
            sites += 1
    rate = sites / (time.process_time() - begun)
    print(f"ChemEnv    shapes only       {rate:8.1f} motifs/s (ratio {ours / rate:.0f}); {agree} of {named} shapes of the same name")


def vectors(count: int = 4000, picture: str = "") -> None:
    """Motif2Vec on oxides: whether the motif most alike has the same shape."""
    from naica.data.cooccurrence import without_rare
    from naica.data.motif2vec import motif_cooccurrence

    table = oxides(30, count)
    for neighbours in ("shapes", "motifs"):
        whole, refused = motif_cooccurrence((table[k] for k in range(len(table))), neighbours)
        kept = without_rare(whole, 40)
        found = kept.vectors(20)
        elements, shapes = (np.array(part) for part in zip(*(n.split(" ", 1) for n in found.names), strict=True))
        cosines = found.cosines()
        np.fill_diagonal(cosines, -2)
        near = cosines.argmax(axis=1)
        numbers = np.unique(shapes, return_counts=True)[1]
        chance = (numbers * (numbers - 1)).sum() / (len(shapes) * (len(shapes) - 1))
        print(
            f"neighbours by {neighbours}: {len(table)} oxides ({len(refused)} refused), {len(shapes)} motifs in {len(kept.environments)} "
            f"environments; most alike has the same shape {np.mean(shapes == shapes[near]):.0%} (chance {chance:.0%}), "
            f"the same element {np.mean(elements == elements[near]):.0%}"
        )
        if picture and neighbours == "shapes":
            from naica.insight.vectors import plane

            often = {s for s, _ in Counter(shapes.tolist()).most_common(9)}
            groups = [s if s in often else "rarer shapes" for s in shapes.tolist()]
            plane(found, groups, picture, {n: n.split()[0] for n in found.names})


def learn(train: int = 1000, test: int = 500, steps: int = 200) -> None:
    """Test MAE of the band gap, eV, after a short training."""
    import torch
    from torch import nn

    from naica.graphs import GraphSet
    from naica.models import backbone
    from naica.nn import Head

    torch.set_num_threads(1)
    table = oxides(16, train + test, cations=2)
    values = torch.tensor(table.column("band_gap"), dtype=torch.float32)
    mean, std = values[:train].mean(), values[:train].std()
    print(f"band gap of {train} oxides, {test} for test; always the mean: {float((values[train:] - mean).abs().mean()):.3f} eV")
    cases = (
        ("megnet", {"cutoff": 4.0}),
        ("amdnet, atoms", {"towers": "atoms", "cutoff": 4.0}),
        ("amdnet, motifs", {"towers": "motifs", "reach": "near"}),
        ("amdnet, both", {"reach": "near", "cutoff": 4.0}),
        ("amdnet, both, distances only", {"reach": "near", "cutoff": 4.0, "joints": "distance"}),
    )
    for name, config in cases:
        torch.manual_seed(0)
        model = backbone(name.split(",")[0], **config)
        head = Head(model.widths["system"], (32,), pooling="system")
        graphs = GraphSet.build(table, model.needs)
        rng, begun = np.random.default_rng(0), time.process_time()
        optimiser = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=3e-3)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = 3e-3 * 0.5 * (1 + np.cos(np.pi * step / steps))
            rows = rng.choice(train, 32, replace=False)
            batch = graphs.batch(rows)
            loss = (head(model(batch), batch)[:, 0] - (values[rows] - mean) / std).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 3.0)
            optimiser.step()
        took = time.process_time() - begun
        with torch.no_grad():
            parts = [graphs.batch(rows) for rows in np.array_split(np.arange(train, train + test), 10)]
            out = torch.cat([head(model(part), part)[:, 0] for part in parts]) * std + mean
        print(f"{name:30s} {float((out - values[train:]).abs().mean()):.3f} eV after {steps} steps ({took:.0f} CPU s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("speed", "vectors", "learn"))
    parser.add_argument("--picture", default="", help="where to draw the plane of motifs")
    asked = parser.parse_args()
    if asked.task == "vectors":
        vectors(picture=asked.picture)
    else:
        {"speed": speed, "learn": learn}[asked.task]()


if __name__ == "__main__":
    main()
