"""Argon melts: solid and liquid side by side at constant energy find the melting point of their potential. Five minutes on one core.

    python examples/melting_argon.py runs/argon

The same from the command line: ``naica melt Ar.cif --model lennard-jones --guess 80 --dt 5 --out runs/argon --plot melt.png``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ase.build import bulk

from naica.insight.property_plots import coexistence_plot
from naica.potential.melting import coexistence
from naica.structure import Crystal

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/argon")
crystal = Crystal.from_ase(bulk("Ar", cubic=True, a=5.45))
found = coexistence(crystal, "lennard-jones", 80.0, folder, dt=5.0, steps=4000, settle=600)
kelvin, pressure = found.temperature, found.pressure * 1000
told = f"{kelvin.value:.1f} ± {kelvin.sigma:.1f} K at {pressure.value:.0f} ± {pressure.sigma:.0f} MPa"
print(f"both phases {'are' if found.both else 'are not'} there at the end: {told}")
coexistence_plot(found).savefig(folder / "melt.png")
