"""How well a model tells stable from unstable: the measures of Matbench Discovery, and which rows they are taken over.

A row counts as stable if its true distance to the hull is at most the threshold, and is called stable if the predicted one is (Riebesell
et al., Nat. Mach. Intell. 7, 836 (2025)). The hull is that of reference calculations and stays as it is: a model's error in formation
energy is its error in the distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naica.errors import InputError
from naica.structure.crystal import Crystal


@dataclass(frozen=True)
class Stability:
    """Scores over n rows; shares are NaN where nothing is there to take a share of.

    `prevalence` is the share of stable rows; `precision` the share of true ones among those called stable, `daf` (discovery acceleration
    factor) precision over prevalence; `recall` the share of stable rows called stable; `f1` their harmonic mean. `mae`, `rmse` (eV/atom)
    and `r2` are of the distances. Rows without a prediction (`missing`) count as called unstable and have no part in the last three.
    """

    n: int
    missing: int
    prevalence: float
    f1: float
    daf: float
    precision: float
    recall: float
    accuracy: float
    mae: float
    rmse: float
    r2: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)


def stability(true: ArrayLike, predicted: ArrayLike, threshold: float = 0.0) -> Stability:
    """Score predictions of distances to the hull.

    Parameters
    ----------
    true, predicted : (n,) eV/atom; a prediction may be NaN
    threshold : eV/atom up to which a row counts as stable

    Raises
    ------
    InputError
        For lengths that differ, no rows, or true distances that are not finite.
    """
    t, p = np.asarray(true, dtype=np.float64).reshape(-1), np.asarray(predicted, dtype=np.float64).reshape(-1)
    if len(t) != len(p) or not len(t) or not np.all(np.isfinite(t)):
        raise InputError(f"{len(t)} true and {len(p)} predicted distances; expected as many of both, at least one, the true ones finite")
    there = np.isfinite(p)
    stable, called = t <= threshold, there & (np.where(there, p, np.inf) <= threshold)
    hits = int((stable & called).sum())
    precision, recall = _share(hits, int(called.sum())), _share(hits, int(stable.sum()))
    prevalence = _share(int(stable.sum()), len(t))
    wrong = int(called.sum()) + int(stable.sum())
    error = (p - t)[there]
    spread = float(((t[there] - t[there].mean()) ** 2).sum()) if there.any() else 0.0
    return Stability(
        n=len(t),
        missing=int((~there).sum()),
        prevalence=prevalence,
        f1=_share(2 * hits, wrong),
        daf=precision / prevalence if prevalence else float("nan"),
        precision=precision,
        recall=recall,
        accuracy=_share(int((stable == called).sum()), len(t)),
        mae=float(np.abs(error).mean()) if len(error) else float("nan"),
        rmse=float(np.sqrt((error**2).mean())) if len(error) else float("nan"),
        r2=1 - float((error**2).sum()) / spread if spread else float("nan"),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def unique_prototypes(crystals: Sequence[Crystal], energies: ArrayLike, known: Sequence[Crystal] = ()) -> NDArray[np.bool_]:
    """Which rows are the lowest of their prototype: Matbench Discovery's subset of unique prototypes.

    Rows are one prototype if they share formula, space group and the Wyckoff letters of every element (`structure.symmetry.labels`, with
    the elements named); of those the lowest in energy is kept, and none if a `known` crystal is of that prototype too. Symmetry is looked
    for only where a formula occurs more than once. A row whose symmetry cannot be found stands for itself.

    Parameters
    ----------
    crystals, energies : n rows, eV/atom
    known : crystals of the reference set

    Raises
    ------
    InputError
        If the numbers of crystals and energies differ.
    """
    e = np.asarray(energies, dtype=np.float64)
    if len(e) != len(crystals):
        raise InputError(f"{len(crystals)} crystals and {len(e)} energies; their numbers must agree")
    formulas = [c.formula for c in crystals]
    mine = set(formulas)
    rivals: dict[str, list[Crystal]] = {}
    for crystal in known:
        if (formula := crystal.formula) in mine:
            rivals.setdefault(formula, []).append(crystal)
    rows: dict[str, list[int]] = {}
    for row, formula in enumerate(formulas):
        rows.setdefault(formula, []).append(row)
    kept = np.zeros(len(crystals), dtype=bool)
    for formula, members in rows.items():
        if len(members) == 1 and formula not in rivals:
            kept[members] = True
            continue
        taken = {_label(crystal) for crystal in rivals.get(formula, [])}
        for row in sorted(members, key=lambda r: (e[r], r)):
            label = _label(crystals[row])
            if label is None or label not in taken:
                kept[row] = True
                taken.add(label)
    return kept


def _label(crystal: Crystal) -> str | None:
    from naica.structure.symmetry import labels

    try:
        return labels(crystal)[1]
    except InputError:
        return None
