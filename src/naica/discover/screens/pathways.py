"""Can an ion move through a crystal? The widest endless paths through the framework of the other atoms, and in how many directions.

The framework is everything but the mobile ion, as spheres of ionic radii. φ(r) is the distance from a point to the nearest sphere's
surface: the radius of the largest ball that fits there. Paths run along the edges of the framework's Voronoi diagram, which keep as far
from atoms as they can; an edge is as wide as φ is on its narrowest point. For d = 1, 2, 3 the bottleneck R_d is the largest R at which the
edges of at least that width, together with a site of the ion, are endless in at least d directions: edges are added from the widest on,
and the dimension is a rank, so no supercell is made. This is what Zeo++ calls the largest free sphere (Willems et al., Micropor. Mesopor.
Mater. 149, 134, 2012), asked of the regions where the ion sits. With one kind of anion it is exact; beside ions of other sizes the
diagram's edges lie a little off the widest line, so that R_d is a lower bound.

Radii are crystal radii (Shannon's with 1.26 Å for O²⁻), anions and cations alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naica.discover.screens.networks import Network
from naica.errors import InputError
from naica.structure.crystal import Crystal
from naica.structure.elements import element
from naica.structure.oxidation import guess_oxidation

Floats = NDArray[np.float64]

PASSABLE = 0.47
"""Å a window must leave free for Li⁺: 0.479 in the layers of LiCoO2, but 0.458 across the chains of LiFePO4 and 0.456 in LiF."""
_REACH = 7.0
_SAMPLES = 17
_NEAR = 2.2
_SAME = 1e-4


@dataclass(frozen=True)
class Paths:
    """The widest paths of an ion.

    Parameters
    ----------
    ion : its symbol
    site : Å, φ at its widest site
    bottleneck : Å, R_1, R_2, R_3; −inf where there is no path at all
    n_sites : of the ion in the cell
    """

    ion: str
    site: float
    bottleneck: tuple[float, float, float]
    n_sites: int

    def dimension(self, radius: float) -> int:
        """Directions in which a ball of `radius` Å can leave for ever."""
        return sum(r >= radius for r in self.bottleneck)


def framework_radii(crystal: Crystal, ion: str, states: Mapping[str, float] | None = None) -> dict[str, float]:
    """Radius in Å of each element of the framework, by its likely oxidation state (or by `states`).

    Raises
    ------
    InputError
        If the composition has no balanced oxidation states, the ion is not positive in it, there is nothing beside the ion, or an element
        has no radius in its state (hydrides, phosphides and the like).
    """
    states = states or guess_oxidation(crystal.composition)
    if states is None or len(states) < 2:
        raise InputError(f"{crystal.formula} has no balanced oxidation states, so its spheres have no ionic radii")
    if ion not in states:
        raise InputError(f"{crystal.formula} has no {ion}")
    if states[ion] <= 0:
        raise InputError(f"{ion} is no cation in {crystal.formula} (state {states[ion]:+g})")
    return {name: _radius(name, q) for name, q in states.items() if name != ion}


def _radius(name: str, state: float) -> float:
    """The tabulated radius of the nearest state of the same sign."""
    known = {q: r for q, r in element(name).ionic_radii.items() if q * state > 0}
    if not known:
        raise InputError(f"no ionic radius is tabulated for {name} in state {state:+g}, so its sphere has no size")
    nearest = min(known, key=lambda q: (abs(q - state), abs(q)))
    return float(known[nearest])


def ion_paths(crystal: Crystal, ion: str = "Li", states: Mapping[str, float] | None = None) -> Paths:
    """The widest paths of an ion through a crystal; `states` are oxidation states, by default those the composition suggests.

    Raises
    ------
    InputError
        Without three periodic directions, oxidation states, radii or the ion.
    """
    if not crystal.pbc.all():
        raise InputError(f"{crystal.formula} repeats in {int(crystal.pbc.sum())} directions; paths are sought in crystals")
    radii = framework_radii(crystal, ion, states)
    framework = _Framework(crystal, radii)
    sites = crystal.positions[np.array(crystal.symbols) == ion]
    nodes, edges = _diagram(framework)
    width, joins = _widths(framework, sites, nodes, edges)
    own = framework.free(sites)
    network = Network(len(sites) + len(nodes))
    found = [-np.inf] * 3
    for k in np.argsort(-width, kind="stable").tolist():
        a, b, *image = joins[k].tolist()
        if not network.join(a, b, image):
            continue
        most = max(network.dimension(site) for site in range(len(sites)))
        for d in range(most):
            if not np.isfinite(found[d]):
                found[d] = float(width[k])
        if most == 3:
            break
    return Paths(ion, float(own.max()), (found[0], found[1], found[2]), len(sites))


class _Framework:
    """The atoms around the ion with their images, and φ anywhere in the cell."""

    def __init__(self, crystal: Crystal, radii: Mapping[str, float]) -> None:
        from scipy.spatial import cKDTree

        self.cell, self.inverse = crystal.cell, np.linalg.inv(crystal.cell)
        repeats = np.ceil(_REACH / (1 / np.linalg.norm(self.inverse, axis=0))).astype(int)
        shifts = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in repeats), indexing="ij"), axis=-1).reshape(-1, 3) @ self.cell
        symbols = np.array(crystal.symbols)
        home = crystal.wrapped().positions
        self.points = np.concatenate([(home[symbols == name][:, None] + shifts).reshape(-1, 3) for name in radii])
        self._trees = [
            (cKDTree((home[symbols == name][:, None] + shifts).reshape(-1, 3)), radius) for name, radius in radii.items()
        ]  # fmt: skip

    def free(self, points: Floats) -> Floats:
        """φ in Å at points (n, 3), which are moved into the cell first."""
        frac = points @ self.inverse
        inside = (frac - np.floor(frac)) @ self.cell
        return np.min([tree.query(inside)[0] - radius for tree, radius in self._trees], axis=0)


def _diagram(framework: _Framework) -> tuple[Floats, NDArray[np.int64]]:
    """Vertices of the Voronoi diagram in the cell (n, 3) Å, and its edges (E, 5): vertex, vertex, cell of the second."""
    from scipy.spatial import Voronoi

    found = Voronoi(framework.points)
    pairs = np.concatenate([np.stack([np.array(r), np.roll(r, -1)], axis=1) for r in found.ridge_vertices if -1 not in r])
    frac = found.vertices @ framework.inverse
    # a vertex on a face of the cell may fall on either side of it by rounding: both belong to one home vertex
    image = np.floor(frac + _SAME).astype(np.int64)
    touched = (image[pairs] == 0).all(axis=2).any(axis=1)
    pairs = pairs[touched]
    used, flat = np.unique(pairs, return_inverse=True)
    inside = (frac - image)[used]
    _, first, home = np.unique(np.round(inside / _SAME).astype(np.int64) % round(1 / _SAME), axis=0, return_index=True, return_inverse=True)
    home, flat = home.reshape(-1), flat.reshape(-1, 2)
    # images of one vertex differ by whole cells exactly once rounding is taken out
    cells = np.rint(frac[used] - inside[first][home]).astype(np.int64)
    a, b = flat.T
    edges = np.column_stack([home[a], home[b], cells[b] - cells[a]])
    edges = np.unique(edges[(edges[:, 0] != edges[:, 1]) | edges[:, 2:].any(axis=1)], axis=0)
    return inside[first] @ framework.cell, edges


def _widths(framework: _Framework, sites: Floats, nodes: Floats, edges: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Width of every edge, and of the straight ways from each site to the vertices near it; and what each of them joins (sites first)."""
    from scipy.spatial import cKDTree

    n = len(sites)
    ends = [nodes[edges[:, 0]], nodes[edges[:, 1]] + edges[:, 2:] @ framework.cell]
    span = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    frac = sites @ framework.inverse
    home = np.floor(frac).astype(np.int64)
    copies = (nodes[:, None] + span @ framework.cell).reshape(-1, 3)
    near = cKDTree((frac - home) @ framework.cell).query_ball_tree(cKDTree(copies), _NEAR)
    site = np.repeat(np.arange(n), [len(found) for found in near])
    copy = np.array([k for found in near for k in found], dtype=np.int64)
    node, cell = copy // len(span), span[copy % len(span)]
    starts = np.concatenate([ends[0], ((frac - home) @ framework.cell)[site]])
    stops = np.concatenate([ends[1], copies[copy]])
    t = np.linspace(0, 1, _SAMPLES)[None, :, None]
    along = starts[:, None] + t * (stops - starts)[:, None]
    width = framework.free(along.reshape(-1, 3)).reshape(len(starts), _SAMPLES).min(axis=1)
    of_edges = np.column_stack([edges[:, 0] + n, edges[:, 1] + n, edges[:, 2:]])
    of_sites = np.column_stack([site, node + n, cell])
    return width, np.concatenate([of_edges, of_sites])
