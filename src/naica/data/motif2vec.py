"""Motif2Vec: vectors of structure motifs from how they are joined, as Atom2Vec does for elements from formulas.

After Banjade et al., Sci. Adv. 7, eabf1754 (2021). A thing is an element in a shape (``Ti octahedron``). Its environments are what it
shares with the motifs next to it, each neighbour by itself: what is shared, over which anions, and the neighbour's shape (``edge in O:
octahedron``) or its element too (``edge in O: Mg octahedron``). With shapes, motifs of one shape come out alike; with elements, so do
motifs of one element, and more crystals are needed. Each crystal counts once for each environment, however many copies its cell holds.

Whole surroundings as one environment (all neighbours at once) would be nearer to Atom2Vec, but hardly two crystals have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, get_args

from naica.data.cooccurrence import Cooccurrence
from naica.errors import ConfigError, InputError
from naica.structure import Crystal
from naica.structure.elements import symbol
from naica.structure.motifs import SHARINGS, motif_pairs, motifs
from naica.structure.polyhedra import SHAPES

Neighbours = Literal["shapes", "motifs"]


def joints(crystal: Crystal, neighbours: Neighbours = "shapes") -> set[tuple[str, str]]:
    """Each kind of motif of a crystal with each of its environments; neighbours named by their shapes, or by element and shape.

    Raises
    ------
    InputError
        If the crystal has no motifs around cations.
    """
    if neighbours not in get_args(Neighbours):
        raise ConfigError(f"neighbours {neighbours!r} are unknown; expected one of {', '.join(get_args(Neighbours))}")
    found = motifs(crystal, "cations")
    names = found.names(crystal)
    around = names if neighbours == "motifs" else [SHAPES[s] for s in found.shape]
    pairs = motif_pairs(crystal, found, reach=0)
    anions = "".join(sorted({symbol(int(z)) for z in crystal.numbers[found.ligand_atom]}))
    return {
        (names[a], f"{SHARINGS[s]} in {anions}: {around[b]}")
        for a, b, s in zip(pairs.receiver.tolist(), pairs.sender.tolist(), pairs.sharing.tolist(), strict=True)
    }


def motif_cooccurrence(
    crystals: Iterable[Crystal], neighbours: Neighbours = "shapes", progress: Callable[[int], None] | None = None
) -> tuple[Cooccurrence, dict[int, str]]:
    """How often each kind of motif stands in each environment; and the rows without motifs, with the reason.

    Raises
    ------
    InputError
        If no crystal has joined motifs.
    """
    refused: dict[int, str] = {}

    def pairs() -> Iterator[tuple[str, str]]:
        for row, crystal in enumerate(crystals):
            try:
                yield from sorted(joints(crystal, neighbours))
            except InputError as error:
                refused[row] = str(error)
            if progress:
                progress(row + 1)

    found = Cooccurrence.of(pairs())
    if not found.names:
        raise InputError(
            f"no joined motifs in any of the crystals; the first was refused because {next(iter(refused.values()), 'nothing')}"
        )
    return found, refused
