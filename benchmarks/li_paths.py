"""How well does the width of Li paths tell conductors from insulators? Measured conductivities of OBELiX (official train part, with CIFs).

Disordered sites count as their most frequent species, and every site that holds Li as Li. Run: python benchmarks/li_paths.py
"""

from __future__ import annotations

import csv
import io
import time
import warnings
import zipfile

import numpy as np

from naica.data.registry import dataset
from naica.discover.screens.pathways import PASSABLE, ion_paths
from naica.errors import InputError
from naica.insight.roc import roc_curve
from naica.structure import Crystal
from naica.structure.elements import element

_ANIONS = frozenset({"O", "S", "Se", "F", "Cl", "Br", "I", "N", "H"})
_CONDUCTS = 1e-4  # S/cm at room temperature


def _ordered(text: str) -> Crystal:
    from pymatgen.io.cif import CifParser

    structure = CifParser(io.StringIO(text), occupancy_tolerance=2.0).parse_structures(primitive=False, on_error="ignore")[0]
    numbers, positions = [], []
    for site in structure:
        shares = {s.symbol if hasattr(s, "symbol") else s.element.symbol: x for s, x in site.species.items()}
        name = "Li" if "Li" in shares else max(shares, key=lambda s: shares[s])
        numbers.append(element(name).number)
        positions.append(site.coords)
    return Crystal(np.array(numbers), np.array(positions), structure.lattice.matrix, True)


def _states(crystal: Crystal) -> dict[str, float]:
    """The most frequent state of each element: negative for anions, positive for the others."""
    found = {}
    for name in crystal.composition:
        sign = -1 if name in _ANIONS else 1
        counts = {q: n for q, n in element(name).icsd_counts.items() if q * sign > 0}
        found[name] = float(max(counts, key=lambda q: counts[q])) if counts else sign * 1.0
    return found


def main() -> None:
    """Print the area under the curve and what the shipped limit does."""
    warnings.simplefilter("ignore")
    found = dataset("obelix")
    rows = list(csv.DictReader(found.path("obelix_train.csv").open(encoding="utf-8-sig")))
    width, conducts, refused = [], [], 0
    began = time.process_time()
    with zipfile.ZipFile(found.path("obelix_train_cifs.zip")) as archive:
        names = {name.rsplit("/", 1)[-1].removesuffix(".cif"): name for name in archive.namelist() if name.endswith(".cif")}
        for row in rows:
            if row["ID"] not in names:
                continue
            try:
                crystal = _ordered(archive.read(names[row["ID"]]).decode())
                paths = ion_paths(crystal, states=_states(crystal))
            except (InputError, ValueError, IndexError):
                refused += 1
                continue
            width.append(paths.bottleneck)
            conducts.append(float(row["Ionic conductivity (S cm-1)"].strip().lstrip("<")) >= _CONDUCTS)
    seconds = time.process_time() - began
    widths, labels = np.array(width), np.array(conducts)
    print(f"{len(labels)} structures with a measured conductivity ({refused} refused), {labels.sum()} of them at least {_CONDUCTS:g} S/cm")
    print(f"{seconds / len(labels):.2f} s of CPU each")
    for d in range(3):
        score = np.where(np.isfinite(widths[:, d]), widths[:, d], -9.0)
        print(f"area under the curve, bottleneck in {d + 1} directions: {roc_curve(score, labels).area:.3f}")
    for limit in (0.35, 0.40, PASSABLE, 0.5, 0.55, 0.6):
        passed = widths[:, 0] >= limit
        print(
            f"R_1 ≥ {limit:.2f} Å: keeps {passed.mean():.0%} of all, {passed[labels].mean():.0%} of conductors, "
            f"{passed[~labels].mean():.0%} of the others"
        )
    passed = widths[:, 2] >= PASSABLE
    ours, others = passed[labels].mean(), passed[~labels].mean()
    print(f"R_3 ≥ {PASSABLE:.2f} Å: keeps {passed.mean():.0%} of all, {ours:.0%} of conductors, {others:.0%} of the others")


if __name__ == "__main__":
    main()
