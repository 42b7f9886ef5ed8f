"""All pictures in one place: still ones (matplotlib) from here, interactive ones (Plotly) from `figures`."""

from __future__ import annotations

from naica.insight.figures import calibration_figure as calibration_figure
from naica.insight.figures import hit_rate_figure as hit_rate_figure
from naica.insight.figures import hull_figure as hull_figure
from naica.insight.figures import learning_figure as learning_figure
