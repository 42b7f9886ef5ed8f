"""Named sets of structures to make matrices for: what the published claims are tried on, at the size of two cores.

Every structure is distorted, because a model that has seen ideal crystals alone knows nothing of what moves. All draws have fixed seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data.registry import dataset, load_set, user_cache
from naica.errors import ConfigError
from naica.structure import Crystal

Array = NDArray[np.float64]
# C–C in graphene by PBE, Å
_GRAPHENE = 2.467


@dataclass(frozen=True)
class NamedSet:
    """A set by name: what it is, its source with settings, and how its structures are made (names and crystals)."""

    name: str
    title: str
    source: str
    settings: Mapping[str, Any]
    structures: Callable[[], list[tuple[str, Crystal]]]


def named(name: str) -> NamedSet:
    """A set by name (ConfigError if there is none)."""
    if name not in SETS:
        raise ConfigError(f"unknown set {name!r}; known: {', '.join(SETS)}")
    return SETS[name]


def folder_of(name: str) -> Path:
    """Where a named set is kept: beside the other data of the user, outside every repository."""
    return user_cache() / "hamiltonian-sets" / name


def _water() -> list[tuple[str, Crystal]]:
    """1,200 water molecules: bonds 0.96 ± 0.05 Å, angles 104.5 ± 8°, turned at random."""
    draw, found = np.random.default_rng(11), []
    for k in range(1200):
        a, b = 0.96 + 0.05 * draw.normal(size=2)
        angle = np.deg2rad(104.5 + 8 * draw.normal())
        places = np.array([[0, 0, 0], [a, 0, 0], [b * np.cos(angle), b * np.sin(angle), 0]])
        found.append((f"water-{k:04d}", Crystal(np.array([8, 1, 1]), places @ _turn(draw).T)))
    return found


def _ethanol() -> list[tuple[str, Crystal]]:
    """1,000 frames of ethanol from molecular dynamics at 500 K (rMD17, training part)."""
    from ase.io import read

    frames = read(dataset("rmd17").path("ethanol_train.extxyz.gz"), ":")
    return [(f"ethanol-{k:04d}", Crystal(a.numbers, a.positions)) for k, a in enumerate(frames)]


def graphene(repeats: int, draw: np.random.Generator, strain: float = 0.02, displacement: float = 0.05) -> Crystal:
    """A sheet of `repeats` × `repeats` cells, strained and rippled at random."""
    cell = np.array([[_GRAPHENE, 0, 0], [-_GRAPHENE / 2, _GRAPHENE * np.sqrt(3) / 2, 0], [0, 0, 12.0]])
    flat = Crystal.from_fractional([6, 6], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]], cell, (True, True, False))
    whole = flat.supercell((repeats, repeats, 1))
    stretch = np.eye(3)
    stretch[:2, :2] += _symmetric(strain * draw.normal(size=(2, 2)))
    moved = whole.positions @ stretch + displacement * draw.normal(size=whole.positions.shape)
    return Crystal(whole.numbers, moved, whole.cell @ stretch, whole.pbc)


def bilayer(draw: np.random.Generator, strain: float = 0.02, displacement: float = 0.05) -> Crystal:
    """Two sheets of two atoms each, slid over one another anywhere, 3.35 ± 0.1 Å apart, strained and rippled at random."""
    sheet = graphene(1, draw, 0.0, 0.0)
    slide = draw.random(2) @ sheet.cell[:2]
    upper = sheet.positions + slide + np.array([0.0, 0.0, 3.35 + 0.1 * draw.normal()])
    both = Crystal(np.full(4, 6), np.concatenate([sheet.positions, upper]), sheet.cell, sheet.pbc)
    return distorted(both, draw, strain, displacement)


def twisted(m: int, n: int, draw: np.random.Generator | None = None, displacement: float = 0.02) -> Crystal:
    """Two sheets turned against each other by the angle of the commensurate cell (m, n): 4 (m² + m n + n²) atoms; (1, 2) is 21.8°.

    Parameters
    ----------
    draw : displaces the atoms at random (by `displacement`, Å); None leaves both sheets flat
    """
    even = _GRAPHENE * np.array([[1.0, 0.0], [0.5, np.sqrt(3) / 2]])

    def sheet(first: int, second: int) -> tuple[Array, Array]:
        """Fractional places of one sheet's atoms in its commensurate cell, and the cell."""
        cell = np.array([[first, second], [-second, first + second]]) @ even
        span = np.arange(-2 * (m + n), 2 * (m + n) + 1)
        points = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2) @ even
        atoms = np.concatenate([points, points + (even[0] + even[1]) / 3]) @ np.linalg.inv(cell)
        inside = np.all((atoms > -1e-6) & (atoms < 1 - 1e-6), axis=1)
        return atoms[inside], cell

    (lower, cell), (upper, _) = sheet(m, n), sheet(n, m)
    flat = np.concatenate([lower, upper]) @ cell
    height = np.repeat([6.0, 9.35], [len(lower), len(upper)])
    whole = np.zeros((3, 3))
    whole[:2, :2], whole[2, 2] = cell, 16.0
    positions = np.column_stack([flat, height])
    if draw is not None:
        positions = positions + displacement * draw.normal(size=positions.shape)
    return Crystal(np.full(len(positions), 6), positions, whole, np.array([True, True, False]))


def _graphene() -> list[tuple[str, Crystal]]:
    """200 cells of two atoms, 60 of eight, six of eighteen; 60 bilayers of four atoms, and two twisted ones of 28.

    In an order in which a part of the set is a fair sample of the whole.
    """
    draw, groups = np.random.default_rng(12), []
    for repeats, count in ((1, 200), (2, 60), (3, 6)):
        groups.append([(f"graphene-{repeats}x{repeats}-{k:03d}", graphene(repeats, draw)) for k in range(count)])
    draw = np.random.default_rng(15)
    groups.append([(f"graphene-bilayer-{k:03d}", bilayer(draw)) for k in range(60)])
    groups.append([(f"graphene-twisted-{k:03d}", twisted(1, 2, draw)) for k in range(2)])
    return interleaved(groups)


def interleaved(groups: Sequence[Sequence[tuple[str, Crystal]]]) -> list[tuple[str, Crystal]]:
    """All members of some groups, each group spread evenly over the whole."""
    placed = [((k + 0.5) / len(group), g, k) for g, group in enumerate(groups) for k in range(len(group))]
    return [groups[g][k] for _, g, k in sorted(placed)]


def silicon(repeats: int, draw: np.random.Generator | None = None) -> Crystal:
    """Silicon, `repeats`³ cells of two atoms, strained and displaced at random if something draws."""
    flat = Crystal.from_fractional([14, 14], np.array([[0.0] * 3, [0.25] * 3]), 2.7345 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]))
    whole = flat.supercell((repeats,) * 3)
    return whole if draw is None else distorted(whole, draw, 0.015, 0.06)


def _silicon() -> list[tuple[str, Crystal]]:
    """60 distorted cells of silicon with two atoms, four with sixteen."""
    draw = np.random.default_rng(16)
    groups = [[(f"silicon-{n}-{k:03d}", silicon(n, draw)) for k in range(count)] for n, count in ((1, 60), (2, 4))]
    return interleaved(groups)


def _carbon() -> list[tuple[str, Crystal]]:
    """120 polymorphs of carbon of six or eight atoms from Carbon-24, 20 larger ones of ten to sixteen; names tell the number of atoms."""
    table, draw = load_set("carbon24"), np.random.default_rng(13)
    sizes = np.array([len(n) for n in table.arrow["numbers"].to_pylist()])
    ids = table.arrow["id"].to_pylist()
    small, large = np.flatnonzero(sizes <= 8), np.flatnonzero((sizes >= 10) & (sizes <= 16))
    rows = [*draw.choice(small, 120, replace=False), *draw.choice(large, 20, replace=False)]
    chosen = load_set("carbon24", ids=[ids[r] for r in rows])
    rows_of = zip(chosen.arrow["id"].to_pylist(), chosen, strict=True)
    found = [(f"carbon-{len(c)}-{name}", distorted(c, draw, 0.015, 0.03)) for name, c in rows_of]
    return interleaved([[one for one in found if len(one[1]) <= 8], [one for one in found if len(one[1]) > 8]])


# prototypes of binaries (cells of one formula unit, wurtzite of two) and which pairs of light elements form them; Å from covalent radii,
# scaled to near equilibrium by the sum of radii
_Prototype = tuple[str, list[list[float]], Array | None, float]
_ROCKSALT: _Prototype = ("rocksalt", [[0, 0, 0], [0.5, 0.5, 0.5]], 0.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), 2.0)
_ZINCBLENDE: _Prototype = ("zincblende", [[0, 0, 0], [0.25, 0.25, 0.25]], 0.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), 4 / np.sqrt(3))
_CSCL: _Prototype = ("cscl", [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3), 2 / np.sqrt(3))
_FLAT: _Prototype = ("bn-sheet", [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]], None, np.sqrt(3))
_LIGHT = ("H", "Be", "B", "C", "N", "O", "F", "Mg", "Al", "Si", "P", "S", "Cl")


def _universal() -> list[tuple[str, Crystal]]:
    """Elements and binaries of thirteen light elements in four prototypes, near the distance of their covalent radii, distorted."""
    from naica.structure.elements import element

    draw, found = np.random.default_rng(14), []
    radius = {s: element(s).covalent_radius for s in _LIGHT}
    even = {s: element(s).number for s in _LIGHT}
    for a, first in enumerate(_LIGHT):
        for second in _LIGHT[a:]:
            for name, places, cell, factor in (_ROCKSALT, _ZINCBLENDE, _CSCL, _FLAT):
                bond = (radius[first] + radius[second]) * (1.08 if name in ("rocksalt", "cscl") else 1.0)
                edge = bond * factor
                flat = np.array([[1, 0, 0], [-0.5, np.sqrt(3) / 2, 0], [0, 0, 12.0 / edge]])
                lattice = edge * (flat if cell is None else cell)
                pbc = (True, True, cell is not None)
                crystal = Crystal.from_fractional([even[first], even[second]], places, lattice, pbc)
                found.append((f"{first}{second}-{name}", distorted(crystal, draw, 0.015, 0.05)))
    # shuffled, so that a part of the set is a fair sample of the whole
    return [found[k] for k in draw.permutation(len(found))]


def distorted(crystal: Crystal, draw: np.random.Generator, strain: float, displacement: float) -> Crystal:
    """A crystal strained (symmetric, standard deviation `strain`) with atoms displaced (`displacement`, Å)."""
    stretch = np.eye(3) + _symmetric(strain * draw.normal(size=(3, 3)))
    stretch[~crystal.pbc] = np.eye(3)[~crystal.pbc]
    stretch[:, ~crystal.pbc] = np.eye(3)[:, ~crystal.pbc]
    moved = crystal.positions @ stretch + displacement * draw.normal(size=crystal.positions.shape)
    return Crystal(crystal.numbers, moved, crystal.cell @ stretch, crystal.pbc)


def _symmetric(matrix: Array) -> Array:
    return (matrix + matrix.T) / 2


def _turn(draw: np.random.Generator) -> Array:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.random(random_state=draw).as_matrix())


SETS: Mapping[str, NamedSet] = {
    "water": NamedSet("water", "water molecules, PBE/def2-SVP by PySCF", "pyscf", {"forces": True}, _water),
    "ethanol": NamedSet("ethanol", "ethanol at 500 K, PBE/def2-SVP by PySCF", "pyscf", {}, _ethanol),
    "graphene": NamedSet("graphene", "distorted graphene, PBE/DZVP-MOLOPT-SR by CP2K", "cp2k", {}, _graphene),
    "silicon": NamedSet("silicon", "distorted silicon, PBE/DZVP-MOLOPT-SR by CP2K", "cp2k", {}, _silicon),
    "carbon": NamedSet("carbon", "polymorphs of carbon, PBE/DZVP-MOLOPT-SR by CP2K", "cp2k", {}, _carbon),
    "universal": NamedSet("universal", "elements and binaries of 13 light elements, PBE/DZVP-MOLOPT-SR by CP2K", "cp2k", {}, _universal),
}
