"""Structures become graphs in flat arrays, once, and are kept."""

from naica.runtime import tune

# before anything else here loads torch: how threads wait is fixed when torch is loaded
tune()

from naica.graphs.batch import Batch as Batch  # noqa: E402
from naica.graphs.build import composition_graph as composition_graph  # noqa: E402
from naica.graphs.build import graph as graph  # noqa: E402
from naica.graphs.graphset import GraphSet as GraphSet  # noqa: E402
from naica.graphs.spec import GraphSpec as GraphSpec  # noqa: E402
