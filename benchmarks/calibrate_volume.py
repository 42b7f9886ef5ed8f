"""Fits the radii of ``naica.discover.volume`` to the volumes of known crystals and writes ``volume_radii.json``.

    python benchmarks/calibrate_volume.py [--rows 30000] [--epochs 30] [--write]

Held out: formulas whose MD5 modulo 100 is 80 or more. Printed: relative volume error, median and 90th percentile, when a held-out crystal
is scaled away and predicted back, beside what plain covalent radii give; and, for pairs of held-out crystals of one prototype that differ in
elements, when the volume of one is predicted from the volume of the other by the ratio of predictions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch

import naica.discover.volume as volume
from naica.data.registry import load_set
from naica.data.table import CrystalTable
from naica.structure.elements import symbol, table

TARGET = Path(volume.__file__).parent / "volume_radii.json"
COVALENT = torch.tensor([0.5] + [e.covalent_radius for e in table()], dtype=torch.float32)


class Pairs:
    """Contacts of many crystals as flat arrays, sliced by crystal."""

    def __init__(self, crystals: CrystalTable, rows: np.ndarray) -> None:
        chi = volume.electronegativities()
        parts, self.formulas = [], []
        for row in rows:
            crystal = crystals[int(row)]
            pairs = volume.contacts(crystal)
            x = chi[crystal.numbers].mean() - chi[crystal.numbers]
            parts.append((pairs.i, pairs.j, pairs.d.astype(np.float32), crystal.numbers, x.astype(np.float32)))
            self.formulas.append(crystal.formula)
        self.parts = parts
        self.test = np.array([int(hashlib.md5(f.encode()).hexdigest(), 16) % 100 >= 80 for f in self.formulas])

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Receivers, senders, distances, numbers, x, crystal of each atom, atoms per crystal."""
        chosen = [self.parts[r] for r in rows]
        sizes = np.array([len(p[3]) for p in chosen])
        start = np.cumsum(sizes) - sizes
        i = np.concatenate([p[0] + s for p, s in zip(chosen, start, strict=True)])
        j = np.concatenate([p[1] + s for p, s in zip(chosen, start, strict=True)])
        d, z, x = (np.concatenate([p[k] for p in chosen]) for k in (2, 3, 4))
        return tuple(torch.as_tensor(v) for v in (i, j, d, z, x, np.repeat(np.arange(len(rows)), sizes), sizes))


def log_factor(parameters: tuple[torch.Tensor, ...], batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Logarithm of the contact factor of each crystal of a batch; zero is right for a relaxed crystal."""
    a, b, c, n = parameters
    i, j, d, z, x, owner, sizes = batch
    radius = a[z] + x * (b[z] + x * c[z])
    ratio = (radius[i] + radius[j]).clamp(min=volume._SHORTEST_CONTACT) / d
    total = torch.zeros(len(sizes)).index_add(0, owner[i], torch.exp(n * torch.log(ratio)))
    return 3 * torch.log(total / sizes / volume._TYPICAL_NEIGHBOURS) / n


def fit(pairs: Pairs, epochs: int, size: int = 256) -> tuple[torch.Tensor, ...]:
    """Radii and hardness by Adam on a Huber loss of the log volume; a weak pull to covalent radii decides for rare elements."""
    torch.manual_seed(0)
    a, b, c = COVALENT.clone(), torch.zeros(104), torch.zeros(104)
    n = torch.tensor(8.0)
    parameters = tuple(p.requires_grad_(True) for p in (a, b, c, n))
    train = np.flatnonzero(~pairs.test)
    optimiser = torch.optim.Adam([{"params": [a, b, c]}, {"params": [n]}], lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [0.02, 0.1], total_steps=epochs * (len(train) // size) + 1)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(train)
        for at in range(0, len(order) - size + 1, size):
            error = log_factor(parameters, pairs.batch(order[at : at + size]))
            loss = torch.nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.05)
            loss = loss + 1e-4 * (((a - COVALENT) ** 2).mean() + (b**2).mean() + (c**2).mean())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return tuple(p.detach() for p in parameters)


def errors(parameters: tuple[torch.Tensor, ...], pairs: Pairs) -> np.ndarray:
    """Relative volume errors on the held-out crystals."""
    rows = np.flatnonzero(pairs.test)
    chunks = np.array_split(rows, max(1, len(rows) // 500))
    return np.concatenate([np.abs(np.expm1(log_factor(parameters, pairs.batch(c)).numpy())) for c in chunks])


def as_rows(parameters: tuple[torch.Tensor, ...], pairs: Pairs) -> dict[str, list[float]]:
    """Per element: a, b, c, lowest and highest x of the training crystals (1st and 99th percentile), number of atoms seen."""
    z = np.concatenate([pairs.parts[r][3] for r in np.flatnonzero(~pairs.test)])
    x = np.concatenate([pairs.parts[r][4] for r in np.flatnonzero(~pairs.test)])
    a, b, c, _ = (p.numpy() for p in parameters)
    rows = {}
    for number in np.unique(z):
        low, high = np.quantile(x[z == number], [0.01, 0.99])
        values = [float(v) for v in (a[number], b[number], c[number], low, high)]
        rows[symbol(int(number))] = [*(round(v, 4) for v in values), int((z == number).sum())]
    return rows


def main() -> None:
    """Fit, report, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.name} into the package")
    options = parser.parse_args()
    torch.set_num_threads(1)
    crystals = load_set("mp_formation")
    started = time.time()
    pairs = Pairs(crystals, np.random.default_rng(0).permutation(len(crystals))[: options.rows])
    print(f"{len(pairs.parts)} crystals, {int(pairs.test.sum())} held out; contacts in {time.time() - started:.1f} s")
    report = {}
    plain = (COVALENT, torch.zeros(104), torch.zeros(104), torch.tensor(8.0))
    for name, parameters in (("covalent radii", plain), ("fitted", fit(pairs, options.epochs))):
        e = errors(parameters, pairs)
        report[name] = {"median": round(float(np.median(e)), 4), "p90": round(float(np.quantile(e, 0.9)), 4), "n": len(e)}
        print(f"{name}: relative volume error on held-out formulas, median {np.median(e):.4f}, 90th percentile {np.quantile(e, 0.9):.4f}")
    if options.write:
        head = {
            "source": "volumes of mp_formation (Materials Project, CC BY 4.0; Jain et al., APL Mater. 1, 011002 (2013))",
            "command": f"python benchmarks/calibrate_volume.py --rows {options.rows} --epochs {options.epochs} --write",
            "held_out_error": report["fitted"],
            "columns": "a, b, c (Å), lowest and highest x, atoms seen",
            "hardness": round(float(parameters[3]), 4),
        }
        lines = ",\n".join(f'    "{s}": {json.dumps(row)}' for s, row in as_rows(parameters, pairs).items())
        TARGET.write_text(json.dumps(head, indent=2, ensure_ascii=False)[:-2] + ',\n  "radii": {\n' + lines + "\n  }\n}\n")
        print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
