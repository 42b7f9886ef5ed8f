"""Molecules by tblite (GFN1-xTB): matrices in milliseconds, for tests and demonstrations.

What tblite exports as its Hamiltonian is not the self-consistent one; that is put together here from its orbitals, ``S C ε Cᵀ S``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from naica.data.labels import Level
from naica.errors import InputError, MissingPart, RunError
from naica.hamiltonian.basis import BOHR, HARTREE, Basis
from naica.hamiltonian.matrices import OrbitalMatrices, Reference
from naica.hamiltonian.sources.settings import checked
from naica.structure import Crystal

DEFAULTS: Mapping[str, Any] = {"method": "GFN1-xTB", "accuracy": 0.1}


def make(crystal: Crystal, settings: Mapping[str, Any]) -> OrbitalMatrices:
    """H and S of a molecule.

    Raises
    ------
    InputError
        For structures that repeat: tblite knows Γ alone there, and its numbers mean nothing for crystals.
    MissingPart, RunError
        If tblite is not installed, or its iterations do not converge.
    """
    try:
        from tblite.interface import Calculator
    except ImportError as error:
        raise MissingPart(f"tblite is not installed ({error}); pip install 'naica[orbitals]'") from error
    told = checked(settings, DEFAULTS, "tblite")
    if crystal.pbc.any():
        raise InputError(f"{crystal.formula} repeats in space; tblite samples Γ alone there, which is wrong by eV. Use the source cp2k")
    run = Calculator(told["method"], crystal.numbers, crystal.positions / BOHR)
    run.set("verbosity", 0)
    run.set("accuracy", told["accuracy"])
    run.set("save-integrals", 1)
    try:
        found = run.singlepoint()
    except RuntimeError as error:
        raise RunError(f"tblite did not converge {crystal.formula}: {error}") from error
    s, c = np.asarray(found.get("overlap-matrix")), np.asarray(found.get("orbital-coefficients"))
    energies, filled = np.asarray(found.get("orbital-energies")), np.asarray(found.get("orbital-occupations"))
    h = s @ c @ np.diag(energies) @ c.T @ s
    shells: dict[int, list[list[int]]] = {}
    angular, atom_of = np.asarray(run.get("angular-momenta")), np.asarray(run.get("shell-map"))
    for atom, z in enumerate(crystal.numbers):
        shells.setdefault(int(z), []).append(angular[atom_of == atom].astype(int).tolist())
    valence = {int(z): 0.0 for z in crystal.numbers}
    basis = {z: Basis(z, tuple(own[0]), told["method"], valence[z]) for z, own in shells.items()}
    electrons = float(filled.sum())
    count = round(electrons / 2)
    orbital = energies * HARTREE
    return OrbitalMatrices.from_dense(
        crystal,
        basis,
        {"H": h * HARTREE, "S": s},
        fermi=float(orbital[count - 1] + orbital[min(count, len(orbital) - 1)]) / 2,
        electrons=electrons,
        reference=Reference(np.zeros((1, 3)), orbital[None]),
        energy=float(found.get("energy")) * HARTREE,
        forces=-np.asarray(found.get("gradient")) * HARTREE / BOHR,
        level=Level(told["method"], code="tblite", version=version("tblite")),
        info={"source": "tblite", **told},
    )
