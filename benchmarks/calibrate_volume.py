"""Fits the radii of ``naica.discover.volume`` to the volumes of known crystals and writes ``volume_radii.json``.

    python benchmarks/calibrate_volume.py [--rows 30000] [--epochs 30] [--write]

Held out: formulas whose MD5 modulo 100 is 80 or more. Printed: relative volume error, median and 90th percentile, when a held-out
crystal is scaled away and predicted back, beside what plain covalent radii give. Then, with the radii in the package, for pairs of
held-out crystals of one prototype that differ in one element: the volume of the one made from the other by a recipe, against its own.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

import naica.discover.volume as volume
from naica.data.registry import load_set
from naica.data.table import CrystalTable
from naica.discover.recipes import Recipe, realise
from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import symbol, table
from naica.structure.match import same_structure
from naica.structure.symmetry import prototype_label

TARGET = Path(volume.__file__).parent / "volume_radii.json"
COVALENT = torch.tensor([0.5] + [e.covalent_radius for e in table()], dtype=torch.float32)


class Pairs:
    """Contacts of many crystals as flat arrays, sliced by crystal. `origin` says which set each came from: its level of theory has its own
    lattice constants (RPBE cells are larger than PBE ones), so each set but the first gets a free factor on the volume.
    """

    def __init__(self, sources: list[tuple[CrystalTable, np.ndarray]]) -> None:
        chi = volume.electronegativities()
        parts, self.formulas = [], []
        self.origin = torch.as_tensor(np.repeat(np.arange(len(sources)), [len(rows) for _, rows in sources]))
        for crystals, row in ((table_, row) for table_, rows in sources for row in rows):
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
    a, b, c, n, _ = parameters
    i, j, d, z, x, owner, sizes = batch
    radius = a[z] + x * (b[z] + x * c[z])
    ratio = (radius[i] + radius[j]).clamp(min=volume._SHORTEST_CONTACT) / d
    total = torch.zeros(len(sizes)).index_add(0, owner[i], torch.exp(n * torch.log(ratio)))
    return 3 * torch.log(total / sizes / volume._TYPICAL_NEIGHBOURS) / n


def shifted(parameters: tuple[torch.Tensor, ...], pairs: Pairs, rows: np.ndarray) -> torch.Tensor:
    """`log_factor` of some crystals with the volume factor of their set taken out."""
    offset = torch.cat([torch.zeros(1), parameters[4]])
    return log_factor(parameters, pairs.batch(rows)) + offset[pairs.origin[rows]]


def fit(pairs: Pairs, epochs: int, size: int = 256) -> tuple[torch.Tensor, ...]:
    """Radii and hardness by Adam on a Huber loss of the log volume; a weak pull to covalent radii decides for rare elements."""
    torch.manual_seed(0)
    a, b, c = COVALENT.clone(), torch.zeros(104), torch.zeros(104)
    n, shift = torch.tensor(8.0), torch.zeros(int(pairs.origin.max()))
    parameters = tuple(p.requires_grad_(True) for p in (a, b, c, n, shift))
    train = np.flatnonzero(~pairs.test)
    optimiser = torch.optim.Adam([{"params": [a, b, c, shift]}, {"params": [n]}], lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [0.02, 0.1], total_steps=epochs * (len(train) // size) + 1)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(train)
        for at in range(0, len(order) - size + 1, size):
            error = shifted(parameters, pairs, order[at : at + size])
            loss = torch.nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.05)
            loss = loss + 1e-4 * (((a - COVALENT) ** 2).mean() + (b**2).mean() + (c**2).mean())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return tuple(p.detach() for p in parameters)


def errors(parameters: tuple[torch.Tensor, ...], pairs: Pairs, origin: int) -> np.ndarray:
    """Relative volume errors on the held-out crystals of one set."""
    rows = np.flatnonzero(pairs.test & (pairs.origin.numpy() == origin))
    chunks = np.array_split(rows, max(1, len(rows) // 500))
    return np.concatenate([np.abs(np.expm1(shifted(parameters, pairs, c).numpy())) for c in chunks])


def as_rows(parameters: tuple[torch.Tensor, ...], pairs: Pairs) -> dict[str, list[float]]:
    """Per element: a, b, c, lowest and highest x of the training crystals (1st and 99th percentile), number of atoms seen."""
    z = np.concatenate([pairs.parts[r][3] for r in np.flatnonzero(~pairs.test)])
    x = np.concatenate([pairs.parts[r][4] for r in np.flatnonzero(~pairs.test)])
    a, b, c = (p.numpy() for p in parameters[:3])
    rows = {}
    for number in np.unique(z):
        low, high = np.quantile(x[z == number], [0.01, 0.99])
        values = [float(v) for v in (a[number], b[number], c[number], low, high)]
        rows[symbol(int(number))] = [*(round(v, 4) for v in values), int((z == number).sum())]
    return rows


def pair_errors(crystals: CrystalTable, rows: np.ndarray, at_most: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Relative volume errors over pairs that differ in one element: by recipe, and if the parent's volume were kept."""
    families: dict[tuple, list[Crystal]] = defaultdict(list)
    for row in rows:
        crystal = crystals[int(row)]
        try:
            label = prototype_label(crystal)
        except InputError:
            continue
        for s, n in crystal.composition.items():
            rest = tuple(sorted((other, k) for other, k in crystal.composition.items() if other != s))
            families[label, n, rest].append(crystal)
    recipe, kept = [], []
    for members in (members for _, members in sorted(families.items())):
        for parent, child in itertools.permutations(members[:6], 2):
            if parent.formula == child.formula or len(parent) != len(child) or len(recipe) == at_most:
                continue
            (old,), (new,) = (set(a.numbers.tolist()) - set(b.numbers.tolist()) for a, b in ((parent, child), (child, parent)))
            made = realise(Recipe(parent.hash, ((old, new),)), {parent.hash: parent})
            # one label and one composition still leave two ways to share out the sites of A and B
            if same_structure(made, child) is not None:
                recipe.append(abs(made.volume / child.volume - 1))
                kept.append(abs(parent.volume / child.volume - 1))
    return np.array(recipe), np.array(kept)


def main() -> None:
    """Fit, report, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.name} into the package")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, rng = time.time(), np.random.default_rng(0)
    tables = [load_set("mp_formation"), load_set("perovskites")]
    sources = [(t, rng.permutation(len(t))[:n]) for t, n in zip(tables, (options.rows, options.rows // 8), strict=True)]
    pairs = Pairs(sources)
    print(f"{len(pairs.parts)} crystals, {int(pairs.test.sum())} held out; contacts in {time.time() - started:.1f} s")
    parameters = fit(pairs, options.epochs)
    plain = (COVALENT, torch.zeros(104), torch.zeros(104), torch.tensor(8.0), torch.zeros(1))
    report = {}
    for origin, name in enumerate(("mp_formation", "perovskites")):
        e, before = errors(parameters, pairs, origin), errors(plain, pairs, origin)
        report[name] = {"median": round(float(np.median(e)), 4), "p90": round(float(np.quantile(e, 0.9)), 4), "n": len(e)}
        print(f"{name}: relative volume error on held-out formulas {report[name]}; covalent radii: median {np.median(before):.4f}")
    print(f"volumes of perovskites (RPBE) over those of mp_formation: {float(torch.exp(parameters[4][0])):.3f}")
    if options.write:
        head = {
            "source": "volumes of mp_formation (Materials Project, CC BY 4.0; Jain et al., APL Mater. 1, 011002 (2013)) and,"
            " with a free factor for their functional, of perovskites (Castelli et al., Energy Environ. Sci. 5, 5814 (2012))",
            "command": f"python benchmarks/calibrate_volume.py --rows {options.rows} --epochs {options.epochs} --write",
            "held_out_error": report,
            "columns": "a, b, c (Å), lowest and highest x, atoms seen",
            "hardness": round(float(parameters[3]), 4),
        }
        lines = ",\n".join(f'    "{s}": {json.dumps(row)}' for s, row in as_rows(parameters, pairs).items())
        TARGET.write_text(json.dumps(head, indent=2, ensure_ascii=False)[:-2] + ',\n  "radii": {\n' + lines + "\n  }\n}\n")
        print(f"wrote {TARGET.name}")
    for origin, (crystals, rows) in enumerate(sources):
        held_out = rows[pairs.test[pairs.origin.numpy() == origin]]
        for name, e in zip(("by recipe", "parent's volume kept"), pair_errors(crystals, held_out), strict=True):
            print(f"set {origin}, {len(e)} substituted pairs, {name}: median {np.median(e):.4f}, 90th percentile {np.quantile(e, 0.9):.4f}")


if __name__ == "__main__":
    main()
