"""What the elements are worth: the part of energies that is a sum over atoms, found by least squares or from isolated atoms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.potential.frames import Frames
from naica.structure.elements import symbol

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
_CUT = 1e-8
_EMPTY = 400.0  # Å³


def amounts(frames: Frames, rows: Rows, elements: tuple[int, ...]) -> Array:
    """(rows, elements) How many atoms of each element the frames have."""
    numbers = frames.table.flat()[1]
    place = np.full(128, -1)
    place[list(elements)] = np.arange(len(elements))
    table = np.zeros((len(frames), len(elements)))
    known = place[numbers] >= 0
    np.add.at(table, (frames.owner[known], place[numbers][known]), 1.0)
    return table[rows]


def least_squares(frames: Frames, rows: Rows, energies: Array | None = None) -> dict[int, float]:
    """Energies of the elements (eV) that come closest to the energies per atom of some frames.

    Parameters
    ----------
    frames, rows : the training part
    energies : (B) eV to be fitted instead of the labels (what a potential leaves over, for example)

    Where compositions do not tell elements apart (one molecule in many shapes), the smallest energies that fit are taken.
    """
    known = rows[np.isfinite(frames.labels["energy"][rows])] if "energy" in frames.labels else rows[:0]
    elements = frames.elements
    if not len(known):
        return dict.fromkeys(elements, 0.0)
    table, counts = amounts(frames, known, elements), frames.counts[known]
    values = (frames.labels["energy"] if energies is None else energies)[known]
    found, *_ = np.linalg.lstsq(table / counts[:, None], values / counts, rcond=_CUT)
    return {z: float(e) for z, e in zip(elements, found, strict=True)}


def isolated(frames: Frames, rows: Rows) -> dict[int, float]:
    """Energies of single atoms among the frames (eV).

    Raises
    ------
    InputError
        If an element has none.
    """
    numbers = frames.table.flat()[1]
    found = {}
    # files put isolated atoms into no cell or into a large one
    for row in rows[(frames.counts[rows] == 1) & (frames.volumes[rows] > _EMPTY)]:
        found[int(numbers[frames.starts[row]])] = float(frames.labels["energy"][row])
    missing = [symbol(z) for z in np.unique(numbers[np.isin(frames.owner, rows)]).tolist() if z not in found]
    if missing:
        raise InputError(f"references = isolated needs a frame of a single atom without periodicity of {', '.join(missing)}; add them")
    return found


def force_scale(frames: Frames, rows: Rows) -> float:
    """Root mean square of the force components of some frames, eV/Å; where there are no forces, spread of the energies per atom (eV)."""
    if "forces" in frames.labels:
        chosen = np.isin(frames.owner, rows)
        values = frames.labels["forces"][chosen]
        values = values[np.isfinite(values)]
        if values.size and (rms := float(np.sqrt((values**2).mean()))) > 1e-6:
            return rms
    per_atom = frames.labels["energy"][rows] / frames.counts[rows] if "energy" in frames.labels else np.zeros(1)
    spread = float(np.nanstd(per_atom)) if np.isfinite(per_atom).any() else 0.0
    return spread if spread > 1e-6 else 1.0
