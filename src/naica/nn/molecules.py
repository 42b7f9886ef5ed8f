"""What chemistry says of atoms and bonds, as vectors: one-hot codes of the fields ``atom_chemistry`` and ``edge_chemistry``.

A code beyond the last of its group counts as the last ("six or more").
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from naica.graphs import Batch
from naica.graphs.bonds import ATOM_CODES, PAIR_CODES, SYMBOLS

# name and places of every one-hot group; one place means the number itself
_DUVENAUD = (("symbol", len(SYMBOLS) + 1), ("degree", 6), ("hydrogens", 5), ("valence", 6), ("aromatic", 1))
_WEAVE = (
    ("symbol", len(SYMBOLS) + 1),
    ("degree", 11),
    ("valence", 7),
    ("charge", 1),
    ("radicals", 1),
    ("hybridisation", 5),
    ("aromatic", 1),
    ("hydrogens", 5),
)
_MESSAGE = (*_WEAVE, ("ring", 1), ("donor", 1), ("acceptor", 1))
# a hybridisation that is none of the five is five zeros
_NONE_AFTER = ("hybridisation",)
N_BONDS = 4
N_DISTANCES = 7


def atoms_duvenaud(batch: Batch) -> Tensor:
    """(N, 62): symbol (44), degree (6), hydrogens (5), implicit valence (6), aromatic. Duvenaud et al. (2015)."""
    return _atoms(batch, _DUVENAUD)


def atoms_weave(batch: Batch) -> Tensor:
    """(N, 75): symbol (44), degree (11), valence (7), charge, radicals, hybridisation (5), aromatic, hydrogens (5).

    DeepChem's vector for the networks of Kearnes et al. (2016).
    """
    return _atoms(batch, _WEAVE)


def atoms_message(batch: Batch) -> Tensor:
    """(N, 78): those of Weave, and whether the atom is in a ring, a donor, an acceptor of hydrogen bonds. Gilmer et al. (2017)."""
    return _atoms(batch, _MESSAGE)


def bonds(batch: Batch) -> Tensor:
    """(E, 6): single, double, triple, aromatic, conjugated, in a ring; all zero for atoms that are not bonded."""
    codes = batch["edge_chemistry"]
    kind = F.one_hot(codes[:, 0], N_BONDS + 1)[:, 1:]
    return torch.cat([kind, codes[:, 1:3]], dim=1).to(_dtype(batch))


def pairs(batch: Batch) -> Tensor:
    """(E, 14): `bonds`, in the same ring, and graph distance 1 to 7 (all zero for an atom with itself and for more)."""
    codes = batch["edge_chemistry"]
    same, distance = codes[:, PAIR_CODES.index("same_ring")], codes[:, PAIR_CODES.index("distance")]
    steps = F.one_hot(distance, N_DISTANCES + 2)[:, 1:-1].to(_dtype(batch))
    return torch.cat([bonds(batch), same[:, None].to(steps.dtype), steps], dim=1)


def _atoms(batch: Batch, groups: tuple[tuple[str, int], ...]) -> Tensor:
    codes = batch["atom_chemistry"]
    parts = []
    for name, places in groups:
        code = codes[:, ATOM_CODES.index(name)]
        if places == 1:
            parts.append(code[:, None])
        elif name in _NONE_AFTER:
            parts.append(F.one_hot(code.clamp(0, places), places + 1)[:, :-1])
        else:
            parts.append(F.one_hot(code.clamp(0, places - 1), places))
    return torch.cat(parts, dim=1).to(_dtype(batch))


def _dtype(batch: Batch) -> torch.dtype:
    return batch["fraction"].dtype


def widths() -> dict[str, int]:
    """Lengths of the vectors: ``duvenaud`` 62, ``weave`` 75, ``message`` 78, ``bonds`` 6, ``pairs`` 14."""
    atoms = {"duvenaud": _DUVENAUD, "weave": _WEAVE, "message": _MESSAGE}
    return {**{k: sum(n for _, n in v) for k, v in atoms.items()}, "bonds": N_BONDS + 2, "pairs": N_BONDS + 3 + N_DISTANCES}
