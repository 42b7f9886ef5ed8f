"""Phonons by finite displacements: phonopy does the lattice dynamics, any potential the forces, all displaced cells in batches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError, MissingPart
from naica.potential.single_points import computed, relaxed, repeats_for, whole
from naica.structure import Crystal

Array = NDArray[np.float64]

# THz; the sum rule holds the acoustic branches at Γ to about a tenth of it
SOFT = 0.1
_KJ_PER_MOL = 96.48533212331


@dataclass(frozen=True, eq=False)
class Bands:
    """Frequencies along a path.

    Parameters
    ----------
    distance : (P) along the path, 1/Å
    frequency : (P, branches) THz; below 0 stands for imaginary
    q : (P, 3) in units of the primitive cell's reciprocal vectors
    ticks : labels of the special points by their places on `distance`, in order
    """

    distance: Array
    frequency: Array
    q: Array
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, eq=False)
class Phonons:
    """Harmonic lattice dynamics of a crystal.

    Parameters
    ----------
    crystal : the one that was displaced
    primitive : the cell that bands and energies count for
    supercell : repeats of `crystal`
    displacements : how many displaced cells were computed
    bands : along the path of the Bravais lattice
    dos_frequency, dos : (D) THz and states per THz of the primitive cell; its integral is 3 n
    thermal : per temperature (K): ``temperature``, ``free_energy`` (eV, with the zero-point energy), ``entropy`` and ``heat_capacity``
        (eV/K), of the primitive cell
    lowest : THz, on the mesh and along the path; below 0 stands for imaginary
    lowest_at : its q
    force_constants : (n, n, 3, 3) eV/Å², of the supercell
    """

    crystal: Crystal
    primitive: Crystal
    supercell: tuple[int, int, int]
    displacements: int
    bands: Bands
    dos_frequency: Array
    dos: Array
    thermal: Mapping[str, Array]
    lowest: float
    lowest_at: tuple[float, float, float]
    force_constants: Array

    @property
    def stable(self) -> bool:
        """Whether no mode is imaginary beyond what the numbers can tell."""
        return self.lowest > -SOFT

    @property
    def verdict(self) -> str:
        """In words."""
        if self.stable:
            return f"dynamically stable: no imaginary mode (lowest {round(self.lowest, 3) + 0.0:.3f} THz)"
        where = ", ".join(f"{x:.3g}" for x in self.lowest_at)
        return f"dynamically unstable: imaginary mode of {abs(self.lowest):.2f}i THz at q = ({where})"


def phonons(
    crystal: Crystal,
    model: Any,
    *,
    width: float = 10.0,
    displacement: float = 0.01,
    mesh: float = 60.0,
    relax: bool = True,
    fmax: float = 1e-3,
    temperatures: Array | None = None,
    points: int = 60,
) -> Phonons:
    """Phonons with a potential.

    Parameters
    ----------
    model : a name, a folder, a potential, an ASE calculator
    width : Å, between opposite faces of the supercell: twice the reach of the forces is enough
    displacement : Å
    mesh : Å, length that sets the density of q points for states and thermal properties
    relax : relax cell and atoms before
    fmax : eV/Å, of that relaxation
    temperatures : K, of the thermal properties; None: 0 to 1000 in steps of 10
    points : on each segment of the path

    Raises
    ------
    MissingPart
        Without phonopy.
    InputError
        For what is no crystal, or numbers out of range.
    RunError
        If the relaxation does not converge or a displaced cell cannot be computed.
    """
    phonopy, atoms_class = _phonopy()
    whole(crystal)
    if not displacement > 0 or not width > 0 or not mesh > 0 or points < 2:
        raise InputError(f"displacement {displacement} Å, width {width} Å, mesh {mesh} Å, {points} points; expected numbers above 0")
    start = relaxed(crystal, model, fmax) if relax else crystal
    repeats = repeats_for(start, width)
    unit = atoms_class(symbols=start.symbols, cell=start.cell, scaled_positions=start.fractional)
    with warnings.catch_warnings():
        # version 4 remarks that it takes the primitive cell, which is what is wanted
        warnings.simplefilter("ignore")
        dynamics = phonopy(unit, supercell_matrix=np.diag(repeats), primitive_matrix="auto", log_level=0)
    dynamics.generate_displacements(distance=displacement)
    cells = dynamics.supercells_with_displacements
    dynamics.forces = [point.forces for point in computed([_crystal(cell) for cell in cells], model)]
    dynamics.produce_force_constants()
    dynamics.symmetrize_force_constants()
    bands = _bands(dynamics, points)
    dynamics.run_mesh(mesh, with_eigenvectors=False)
    grid = dynamics.get_mesh_dict()
    dynamics.run_total_dos()
    dos = dynamics.get_total_dos_dict()
    kelvin = np.arange(0, 1001, 10.0) if temperatures is None else np.asarray(temperatures, dtype=np.float64)
    dynamics.run_thermal_properties(temperatures=kelvin, exclude_gamma_acoustic=True)
    told = dynamics.get_thermal_properties_dict()
    thermal = {
        "temperature": np.asarray(told["temperatures"]),
        "free_energy": np.asarray(told["free_energy"]) / _KJ_PER_MOL,
        "entropy": np.asarray(told["entropy"]) / 1000 / _KJ_PER_MOL,
        "heat_capacity": np.asarray(told["heat_capacity"]) / 1000 / _KJ_PER_MOL,
    }
    every = np.concatenate([grid["frequencies"].min(1), bands.frequency.min(1)])
    at = np.concatenate([grid["qpoints"], bands.q])
    x, y, z = (float(value) for value in at[every.argmin()])
    return Phonons(
        start,
        _crystal(dynamics.primitive),
        repeats,
        len(cells),
        bands,
        np.asarray(dos["frequency_points"]),
        np.asarray(dos["total_dos"]),
        thermal,
        float(every.min()),
        (x, y, z),
        np.asarray(dynamics.force_constants),
    )


def _phonopy() -> tuple[Any, Any]:
    try:
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms
    except ModuleNotFoundError as error:
        raise MissingPart(f"phonopy is not installed ({error}); pip install 'naica[phonons]'") from error
    return Phonopy, PhonopyAtoms


def _crystal(cell: Any) -> Crystal:
    return Crystal.from_fractional(np.asarray(cell.numbers), np.asarray(cell.scaled_positions), np.asarray(cell.cell))


def _bands(dynamics: Any, points: int) -> Bands:
    """Along the special points of the primitive cell's Bravais lattice, as ASE names them."""
    from ase.cell import Cell

    box = Cell(np.asarray(dynamics.primitive.cell))
    path = box.bandpath()
    segments: list[Array] = []
    labels: list[tuple[str, str]] = []
    joined: list[bool] = []
    for part in path.path.split(","):
        names = _names(part)
        for a, b in pairwise(names):
            segments.append(np.linspace(path.special_points[a], path.special_points[b], points))
            labels.append((a, b))
            joined.append(len(labels) > 1 and labels[-2][1] == a)
    dynamics.run_band_structure(segments)
    told = dynamics.get_band_structure_dict()
    distance, frequency = (np.concatenate([np.asarray(part) for part in told[name]]) for name in ("distances", "frequencies"))
    ticks: list[tuple[float, str]] = []
    for part, (a, b), together in zip(told["distances"], labels, joined, strict=True):
        if not ticks:
            ticks.append((float(part[0]), a))
        elif not together:
            # the path jumps: both names stand at one place
            ticks[-1] = (ticks[-1][0], f"{ticks[-1][1]}|{a}")
        ticks.append((float(part[-1]), b))
    pretty = tuple((at, name.replace("G", "Γ")) for at, name in ticks)
    return Bands(distance, frequency, np.concatenate(segments), pretty)


def _names(text: str) -> list[str]:
    """``GXW1K`` → G, X, W1, K."""
    names: list[str] = []
    for letter in text:
        if letter.isdigit():
            names[-1] += letter
        else:
            names.append(letter)
    return names
