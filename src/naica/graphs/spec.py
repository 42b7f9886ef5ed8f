"""What a model asks of the graph builder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from naica.errors import ConfigError

Kind = Literal["nearest", "radius", "composition", "voronoi", "bonds", "pairs"]


@dataclass(frozen=True)
class GraphSpec:
    """Which edges a graph has, and which further levels of matter.

    Parameters
    ----------
    kind : ``nearest`` keeps the `neighbours` nearest atoms within `cutoff` (fewer if there are fewer); ``radius`` keeps all within
        `cutoff`; ``composition`` has one node per element and no edges; ``voronoi`` joins atoms whose Voronoi cells share a face;
        ``bonds`` joins bonded atoms of a molecule, ``pairs`` all its atoms; bonds are those of its SMILES (column or info key
        ``smiles``), or without one are perceived from the geometry, see `naica.graphs.bonds`
    cutoff : Å
    neighbours : edges per atom at most; only for ``nearest``
    levels : further levels, by the names in ``naica.graphs.levels.LEVEL_MAKERS`` (motifs, orbitals …)
    max_bonds : only for ``pairs``: leave out atoms more bonds apart than this
    state : table columns (or keys of ``Crystal.info``) that describe the system as a whole, for example ``("temperature",)``

    Raises
    ------
    ConfigError
        For unknown kinds and cut-offs or counts that make no sense.
    """

    kind: Kind = "nearest"
    cutoff: float = 8.0
    neighbours: int = 12
    levels: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    max_bonds: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"graph kind {self.kind!r} is unknown; expected one of {', '.join(get_args(Kind))}")
        # lists are what JSON gives back
        object.__setattr__(self, "levels", tuple(self.levels))
        object.__setattr__(self, "state", tuple(self.state))
        if self.kind == "composition" and self.levels:
            raise ConfigError(f"a composition has no {', '.join(self.levels)}: further levels need a graph of atoms")
        if self.max_bonds is not None and (self.kind != "pairs" or self.max_bonds < 1):
            raise ConfigError(f"max_bonds {self.max_bonds} with kind {self.kind!r}; expected at least 1, and kind 'pairs'")
        if not 0 < self.cutoff <= 20:
            raise ConfigError(f"cut-off {self.cutoff} Å; expected more than 0 and at most 20 Å")
        if not 1 <= self.neighbours <= 1000:
            raise ConfigError(f"{self.neighbours} neighbours per atom; expected 1 to 1000")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain = {**asdict(self), "levels": list(self.levels), "state": list(self.state)}
        if self.max_bonds is None:
            # graphs cached before there was this setting stay valid
            del plain["max_bonds"]
        return plain
