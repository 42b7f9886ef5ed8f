"""The levels of matter beyond atoms and near neighbours, made crystal by crystal: Voronoi faces, bonds, motifs, orbitals.

A *maker* is a plain function of one system; it is named here with the fields it supplies, and imported when somebody asks for it. An
edge maker makes the edges themselves (and fields on them); a level maker adds fields of any level to a graph that has its edges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import ConfigError, InputError
from naica.fields import field as quantity
from naica.graphs.spec import GraphSpec
from naica.pool import in_processes

# below this many systems a pool costs more than it gives
_POOL_FROM = 256
EDGE_FIELDS = ("edge_receiver", "edge_sender", "edge_vector")


@dataclass(frozen=True)
class System:
    """What a maker sees: one crystal or molecule, and for level makers its edges.

    Parameters
    ----------
    id : its name
    numbers, positions, cell, pbc : (n), (n, 3) Å, (3, 3) Å lattice vectors as rows, (3)
    columns : table columns (or keys of ``Crystal.info``) the maker asked for; None where missing
    receiver, sender, vector, length : edges (E), (E), (E, 3) Å, (E) Å in order of receiver; empty for edge makers
    """

    id: str
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    columns: Mapping[str, Any] = field(default_factory=dict)
    receiver: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    sender: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    vector: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    length: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


Made = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Maker:
    """Where a maker lives (``module:function``), the fields it supplies and the table columns it reads.

    `version` goes into the fingerprint of cached graphs: raise it when the function returns other numbers.
    """

    place: str
    fields: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    version: int = 1

    def load(self) -> Callable[[System, GraphSpec], Made]:
        """The function."""
        return _function(self.place)


@cache
def _function(place: str) -> Callable[[System, GraphSpec], Made]:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


# kinds of edges made for many crystals at once, by a neighbour library
LIBRARY_KINDS = ("nearest", "radius", "composition")
_CHEMISTRY = (("atom_chemistry", "edge_chemistry"), ("smiles", "charge"))
EDGE_MAKERS: dict[str, Maker] = {
    "voronoi": Maker("naica.graphs.voronoi:faces", ("edge_solid_angle", "edge_face_area", "edge_face_volume")),
    "bonds": Maker("naica.graphs.bonds:bonds", *_CHEMISTRY),
    "pairs": Maker("naica.graphs.bonds:pairs", *_CHEMISTRY),
}
_MOTIF = (
    *("motif_atom", "motif_shape", "motif_measure", "motif_order", "motif_coordination", "motif_bond_length", "motif_bond_spread"),
    *(f"motif_edge_{name}" for name in ("receiver", "sender", "length", "sharing", "angle")),
)
_ORBITAL = ("orbital_atom", "orbital_shell", "orbital_edge_receiver", "orbital_edge_sender")
LEVEL_MAKERS: dict[str, Maker] = {
    # conditions on a graph, which add nothing to it
    "connected": Maker("naica.graphs.connected:connected"),
    "complete": Maker("naica.graphs.connected:complete"),
    "orbital_field": Maker("naica.graphs.orbital_field:orbital_field", ("orbital_field",)),
    "orbital_field_square": Maker("naica.graphs.orbital_field:orbital_field_square", ("orbital_field_square",)),
    "orbital_field_released": Maker("naica.graphs.orbital_field:orbital_field_released", ("orbital_field_released",)),
    "orbitals": Maker(
        "naica.graphs.orbitals:orbitals", (*_ORBITAL, "orbital_energy", "orbital_filling", "orbital_edge_coupling", "orbital_edge_gap")
    ),
    "saao": Maker("naica.graphs.saao:saao", (*_ORBITAL, "saao_diagonal", "saao_coupling")),
    "motifs": Maker("naica.graphs.motifs:motifs", _MOTIF),
    "motifs_near": Maker("naica.graphs.motifs:near_motifs", _MOTIF),
}


def makers_of(spec: GraphSpec) -> list[Maker]:
    """The makers a spec needs, that of the edges first.

    Raises
    ------
    ConfigError
        For a level nobody makes.
    """
    unknown = [name for name in spec.levels if name not in LEVEL_MAKERS]
    if unknown:
        raise ConfigError(f"nothing makes the level {unknown[0]!r}; known: {', '.join(LEVEL_MAKERS) or 'none'}")
    edges = [] if spec.kind in LIBRARY_KINDS else [EDGE_MAKERS[spec.kind]]
    return edges + [LEVEL_MAKERS[name] for name in spec.levels]


def fields_of(spec: GraphSpec) -> list[str]:
    """Names of the fields the makers of a spec supply beyond the edges themselves, in order."""
    return list(dict.fromkeys(name for maker in makers_of(spec) for name in maker.fields))


def versions(spec: GraphSpec) -> dict[str, int]:
    """Version of each maker of a spec: part of what a cached graph must match."""
    return {maker.place: maker.version for maker in makers_of(spec)}


def make_all(
    systems: list[System], makers: list[Maker], spec: GraphSpec, progress: Callable[[int, int], None] | None = None
) -> list[Made | str]:
    """What the makers make of each system, or the reason why one of them refused it; big sets are shared among processes."""
    return in_processes(partial(_make_some, makers=makers, spec=spec), systems, _POOL_FROM, progress)


def _make_some(systems: Sequence[System], makers: list[Maker], spec: GraphSpec) -> list[Made | str]:
    return [_make(system, makers, spec) for system in systems]


def _make(system: System, makers: list[Maker], spec: GraphSpec) -> Made | str:
    made: Made = {}
    try:
        for maker in makers:
            found = maker.load()(system, spec)
            _check(system, maker, found)
            made.update(found)
            if "edge_receiver" in found:
                system = replace(
                    system,
                    receiver=found["edge_receiver"],
                    sender=found["edge_sender"],
                    vector=found["edge_vector"],
                    length=np.linalg.norm(found["edge_vector"], axis=1),
                )
    except InputError as error:
        return str(error)
    return made


def _check(system: System, maker: Maker, made: Made) -> None:
    """A maker that breaks its promise is a defect of the maker, not of the crystal."""
    promised = set(maker.fields) | (set(EDGE_FIELDS) if "edge_receiver" in made else set())
    if set(made) != promised:
        raise RuntimeError(f"{maker.place} made {sorted(made)} of {system.id}; it promised {sorted(promised)}")
    if "edge_receiver" in made and (np.diff(made["edge_receiver"]) < 0).any():
        raise RuntimeError(f"{maker.place} made edges of {system.id} that are not in order of receiver")
    counts: dict[str, int] = {"system": 1, "atom": len(system.numbers), "edge": len(made.get("edge_receiver", system.receiver))}
    for name, values in made.items():
        known = quantity(name)
        if values.shape[1:] != known.shape:
            raise RuntimeError(f"{maker.place} made {name} of shape {values.shape}; fields.py says (n, {known.shape})")
        if counts.setdefault(known.level, len(values)) != len(values):
            raise RuntimeError(f"{maker.place} made {len(values)} {name} of {system.id}; its level {known.level} has {counts[known.level]}")
