"""Lithium in argyrodites: diffusivities with error bars from published ab initio trajectories, and a picture.

    naica data pull li_ion_md
    python examples/argyrodites.py pictures

The same from the command line: ``naica transport FILES --species Li --charge 1 --temperature 500 --plot pictures``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from naica.data.registry import dataset
from naica.insight.property_plots import msd_plot
from naica.potential.conductivity import judged
from naica.potential.walk import read_walk

found = dataset("li_ion_md")
runs, names = [], []
for file in found.files:
    walk = read_walk(found.path(file.path), temperature=500.0)
    verdict = judged(walk, "Li", charge=1.0)
    run, name = verdict.diffusion, Path(file.path).stem.removesuffix("_run1")
    print(
        f"{name:<22} D = {run.tracer.value:.2e} ± {run.tracer.sigma:.0e} cm²/s, σ(500 K) = {verdict.conductivity.value:6.0f} ± "
        f"{verdict.conductivity.sigma:3.0f} mS/cm, lags from {run.fit[0] / 1e3:.1f} ps"
    )
    runs.append(run)
    names.append(name)
out = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
out.mkdir(parents=True, exist_ok=True)
msd_plot(runs, names).savefig(out / "argyrodites.png")
