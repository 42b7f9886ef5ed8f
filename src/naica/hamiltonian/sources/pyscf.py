"""Molecules by PySCF: Kohn–Sham in Gaussian orbitals, with the Hamiltonian of superposed atomic densities beside it.

With ``spin_orbit`` the exact two-component Hamiltonian (X2C, one-electron) takes the place of the non-relativistic one, and matrices are
those of spinors.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from naica.data.labels import Level
from naica.errors import InputError, MissingPart, RunError
from naica.hamiltonian.basis import HARTREE, Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices, Reference
from naica.hamiltonian.sources.settings import checked
from naica.structure import Crystal

DEFAULTS: Mapping[str, Any] = {
    "functional": "pbe",
    "basis": "def2-svp",
    "grid": 3,  # level of the integration grid
    "convergence": 1e-9,  # Hartree
    "forces": False,
    "steps": 100,
    "spin_orbit": False,
}
_FORCE = HARTREE / 0.529177210903


def superposed(crystal: Crystal, settings: Mapping[str, Any]) -> OrbitalMatrices:
    """S and H0 alone: one Fock build from superposed atomic densities. Raises what `make` raises."""
    return make(crystal, settings, first_only=True)


def make(crystal: Crystal, settings: Mapping[str, Any], first_only: bool = False) -> OrbitalMatrices:
    """H, S, H0 (one Fock build from the superposed atomic densities, ``minao``), energies and orbital energies of a closed-shell molecule.

    Parameters
    ----------
    first_only : stop after H0
    settings : functional, basis, grid (level of the integration grid), convergence (Hartree), forces, steps, spin_orbit: see ``DEFAULTS``

    Raises
    ------
    InputError
        For structures that repeat, or an odd number of electrons.
    MissingPart
        If PySCF is not installed.
    RunError
        If the iterations do not converge.
    """
    try:
        from pyscf import dft, gto, lib
    except ImportError as error:
        raise MissingPart(f"PySCF is not installed ({error}); pip install 'naica[hamiltonians]'") from error
    told = checked(settings, DEFAULTS, "pyscf")
    if crystal.pbc.any():
        raise InputError(f"{crystal.formula} repeats in space; the source pyscf takes molecules, cp2k takes crystals")
    lib.num_threads(1)
    atoms = [(symbol, tuple(r)) for symbol, r in zip(crystal.symbols, crystal.positions, strict=True)]
    if int(crystal.numbers.sum()) % 2:
        raise InputError(f"{crystal.formula} has an odd number of electrons; only closed shells are made here")
    molecule = gto.M(atom=atoms, basis=told["basis"], unit="Angstrom", verbose=0, cart=False)
    spin = bool(told["spin_orbit"])
    if spin and told["forces"]:
        raise InputError("PySCF has no forces with spin–orbit coupling; leave forces or spin_orbit out")
    run = dft.GKS(molecule).x2c1e() if spin else dft.RKS(molecule)
    run.xc, run.grids.level, run.conv_tol, run.max_cycle = told["functional"], told["grid"], told["convergence"], told["steps"]
    start = run.get_init_guess(key="minao")
    h0 = run.get_fock(dm=start)
    convert = convention("pyscf")
    basis = {int(z): _basis(molecule, int(np.flatnonzero(crystal.numbers == z)[0]), int(z), told["basis"]) for z in set(crystal.numbers)}
    whole = Basis(1, tuple(shell for z in crystal.numbers for shell in basis[int(z)].shells) * (2 if spin else 1))
    info = {"source": "pyscf", **told}

    def std(dense: Mapping[str, Any]) -> dict[str, Any]:
        found = {kind: convert.to_std(np.asarray(m), whole, whole) * (1.0 if kind == "S" else HARTREE) for kind, m in dense.items()}
        return {kind: m.real if kind == "S" else m for kind, m in found.items()}

    if first_only:
        dense = std({"H0": h0, "S": run.get_ovlp()})
        return OrbitalMatrices.from_dense(crystal, basis, dense, electrons=float(molecule.nelectron), info=info, spin=spin)
    energy = run.kernel(dm0=start)
    if not run.converged:
        raise RunError(f"PySCF did not converge {crystal.formula} in {told['steps']} steps")
    forces = None
    if told["forces"]:
        forces = -run.nuc_grad_method().set(verbose=0).kernel() * _FORCE
    occupied = run.mo_occ > 0
    orbital = np.asarray(run.mo_energy) * HARTREE
    return OrbitalMatrices.from_dense(
        crystal,
        basis,
        std({"H": run.get_fock(), "S": run.get_ovlp(), "H0": h0}),
        fermi=float(orbital[occupied].max() + orbital[~occupied].min()) / 2,
        electrons=float(molecule.nelectron),
        reference=Reference(np.zeros((1, 3)), orbital[None]),
        energy=float(energy) * HARTREE,
        forces=forces,
        level=Level(told["functional"] + (" X2C" if spin else ""), pseudo=told["basis"], code="pyscf", version=version("pyscf")),
        info=info,
        spin=spin,
    )


def _basis(molecule: Any, atom: int, number: int, name: str) -> Basis:
    shells: list[int] = []
    for k in range(molecule.nbas):
        if molecule.bas_atom(k) == atom:
            shells += [int(molecule.bas_angular(k))] * int(molecule.bas_nctr(k))
    return Basis(number, tuple(shells), name, float(molecule.atom_charge(atom)))
