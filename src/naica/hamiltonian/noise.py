"""The noise of labels: the same structures computed once more in another place, where physics says that nothing changes.

Codes integrate on grids and stop when they are nearly converged. A molecule turned, or a crystal shifted against the grid, has other
rounding and the same Hamiltonian; what differs after turning back is noise, and no model can be told from the truth below it. The copies
are a small set of their own in ``noise/`` of the set's folder, made by the same source with the same settings, resumable; what they differ
by is kept in ``noise/errors.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import ConfigError, InputError
from naica.hamiltonian import checks
from naica.hamiltonian.evaluate import Errors, errors
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.store import HamiltonianSet
from naica.hamiltonian.workflow import Progress, make
from naica.structure import Crystal

Array = NDArray[np.float64]
FOLDER, FILE = "noise", "errors.json"


def moved(crystal: Crystal, seed: int) -> tuple[Crystal, Array]:
    """A molecule turned at random, or a crystal shifted at random along the directions that repeat; and the rotation (3, 3)."""
    from scipy.spatial.transform import Rotation

    if not crystal.pbc.any():
        turn = np.asarray(Rotation.random(random_state=seed).as_matrix())
        return crystal.replace(positions=crystal.positions @ turn.T), turn
    shift = (np.random.default_rng(seed).random(3) * crystal.pbc) @ crystal.cell
    return crystal.replace(positions=crystal.positions + shift), np.eye(3)


def measure(
    folder: str | Path, most: int = 4, workers: int | None = None, progress: Callable[[Progress], None] | None = None
) -> tuple[Errors, list[str]]:
    """Compute some structures of a set again and compare; their names come along.

    Parameters
    ----------
    folder : of a set that `naica.hamiltonian.workflow.make` made
    most : structures, drawn at random

    Raises
    ------
    ConfigError
        If the folder does not say which code made the set.
    InputError
        If no structure could be computed again.
    """
    place = Path(folder)
    try:
        told = json.loads((place / "set.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{place} does not say which code made it ({error}); noise is measured on sets of naica hamiltonian make"
        ) from error
    found = HamiltonianSet(place)
    rows = sorted(np.random.default_rng(5).permutation(len(found))[:most].tolist())
    names = [found.names[k] for k in rows]
    copies = [moved(found[k].crystal, 17 + k) for k in rows]
    again = make([c for c, _ in copies], place / FOLDER, told["source"], told["settings"], names=names, workers=workers, progress=progress)
    places = {name: k for k, name in enumerate(again.names)}
    pairs = []
    for row, name, (_, turn) in zip(rows, names, copies, strict=True):
        if name in places:
            true = found[row]
            pairs.append((true, on_pairs_of(true, checks.rotated(again[places[name]], turn.T))))
    if not pairs:
        raise InputError(f"none of {', '.join(names)} could be computed again; the reasons are in {place / FOLDER / 'failed.jsonl'}")
    judged = errors(pairs)
    _write(place / FOLDER / FILE, {"errors": asdict(judged), "structures": [n for n in names if n in places]})
    return judged, [n for n in names if n in places]


def known(folder: str | Path) -> Errors | None:
    """The noise measured for a set; None if it was not."""
    path = Path(folder) / FOLDER / FILE
    return Errors(**json.loads(path.read_text())["errors"]) if path.exists() else None


def on_pairs_of(true: OrbitalMatrices, other: OrbitalMatrices) -> OrbitalMatrices:
    """Matrices of the same structure on the pairs of another calculation of it; blocks that it did not write are 0.

    A code drops elements below a threshold, so two runs may keep different far pairs.
    """
    place = {(*p, *r): k for k, (p, r) in enumerate(zip(other.pairs.tolist(), other.images.tolist(), strict=True))}
    blocks: dict[str, Any] = {kind: np.zeros_like(values, shape=int(true.starts[-1])) for kind, values in other.blocks.items()}
    for k, (p, r) in enumerate(zip(true.pairs.tolist(), true.images.tolist(), strict=True)):
        row = place.get((*p, *r))
        if row is not None:
            for kind, values in blocks.items():
                values[true.starts[k] : true.starts[k + 1]] = other.block(kind, row).ravel()
    return other.replace(crystal=true.crystal, pairs=true.pairs, images=true.images, blocks=blocks)


def _write(path: Path, told: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(told, indent=1))
    os.replace(temporary, path)
