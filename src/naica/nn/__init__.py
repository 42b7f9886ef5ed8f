"""Parts with weights that several models share; they know no one model."""

from naica.graphs import Batch as Batch  # tunes the runtime before torch is loaded
from naica.nn.head import Head as Head
from naica.nn.linear import SplitLinear as SplitLinear
from naica.nn.radial import Gaussians as Gaussians
from naica.nn.segment import mean_systems as mean_systems
from naica.nn.segment import sum_edges as sum_edges
from naica.nn.segment import sum_systems as sum_systems
