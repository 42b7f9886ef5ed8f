"""Whatever a user hands to `predict`, as a stream of graph batches of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data import CrystalTable
from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.graphs.build import columns_of
from naica.graphs.graphset import GraphSet
from naica.graphs.spec import GraphSpec
from naica.structure import Crystal
from naica.training.batches import edges_of, plan

Source = Crystal | Iterable[Crystal] | CrystalTable | GraphSet | Batch

CHUNK_CRYSTALS = 4096
MAX_EDGES = 60_000
MAX_SYSTEMS = 1024


@dataclass(frozen=True)
class Portion:
    """A batch, the volume per atom (Å³; NaN where unknown, infinite without a cell) and the ids of its systems."""

    batch: Batch
    volumes: NDArray[np.float64]
    ids: list[str]


def portions(source: Any, spec: GraphSpec, ready: Callable[[CrystalTable], CrystalTable] = lambda table: table) -> Iterator[Portion]:
    """The source cut into portions, in its order; `ready` makes a table what the graphs are built from.

    Raises
    ------
    InputError
        If the source is of no known type, was built with other edges than the model needs, or a crystal can have no graph.
    """
    if isinstance(source, Batch):
        yield Portion(source, np.full(source.n_systems, np.nan), [""] * source.n_systems)
    elif isinstance(source, GraphSet):
        if source.spec != spec:
            raise InputError(f"these graphs were built with {source.spec}, the model needs {spec}; build them with the model's own spec")
        yield from _of_graphs(source, np.full(len(source), np.nan))
    elif isinstance(source, Crystal):
        yield from _of_table(ready(_table([source], spec)), spec)
    elif isinstance(source, CrystalTable):
        for start in range(0, len(source), CHUNK_CRYSTALS):
            yield from _of_table(ready(source.take(np.arange(start, min(start + CHUNK_CRYSTALS, len(source))))), spec)
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes | dict):
        items = iter(source)
        while chunk := list(islice(items, CHUNK_CRYSTALS)):
            yield from _of_table(ready(_table(chunk, spec)), spec)
    else:
        raise InputError(f"cannot predict for {type(source).__name__}; expected a Crystal, several, a CrystalTable, a GraphSet or a Batch")


def count(source: Any) -> int | None:
    """How many systems a source holds, if that can be known."""
    if isinstance(source, Crystal):
        return 1
    if isinstance(source, Batch):
        return source.n_systems
    return len(source) if isinstance(source, Sequence | CrystalTable | GraphSet) else None


def _table(chunk: list[Any], spec: GraphSpec) -> CrystalTable:
    """Crystals as a table, with the columns that graphs of this spec are made from."""
    wrong = next((item for item in chunk if not isinstance(item, Crystal)), None)
    if wrong is not None:
        raise InputError(f"cannot predict for a {type(wrong).__name__}; expected Crystals (naica.read makes them from files)")
    columns = {name: [c.info.get(name) for c in chunk] for name in columns_of(spec) if any(name in c.info for c in chunk)}
    return CrystalTable.from_crystals(chunk, columns, ids=[str(c.info.get("id", "")) or c.formula for c in chunk])


def _of_table(table: CrystalTable, spec: GraphSpec) -> Iterator[Portion]:
    if lacking := [name for name in spec.state if name not in table.columns]:
        raise InputError(
            f"this model needs {lacking[0]!r} of every system: a column of the table, a key of Crystal.info, or for all of them "
            f"state={{{lacking[0]!r}: …}}"
        )
    graphs = GraphSet.build(table, spec)
    yield from _of_graphs(graphs, volumes_per_atom(table))


def _of_graphs(graphs: GraphSet, volumes: NDArray[np.float64]) -> Iterator[Portion]:
    rows = np.arange(len(graphs))
    for part in plan(edges_of(graphs, rows), MAX_SYSTEMS, MAX_EDGES):
        yield Portion(graphs.batch(rows[part]), volumes[part], [graphs.ids[k] for k in part])


def volumes_per_atom(table: CrystalTable) -> NDArray[np.float64]:
    """(B,) Å³ per atom; infinite for what is not periodic in three directions."""
    counts, _, _, cells, pbc = table.flat()
    if not len(counts):
        return np.zeros(0)
    return np.where(pbc.all(1), np.abs(np.linalg.det(cells)) / counts, np.inf)
