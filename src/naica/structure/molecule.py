"""Molecules from SMILES, and the chemistry (bonds, rings, hybridisation) of molecules that have only a geometry. RDKit does the work.

SMILES → geometry: hydrogens are added, one conformer is embedded with ETKDG (Riniker & Landrum, J. Chem. Inf. Model. 55, 2562, 2015) from a
fixed seed, and the hydrogens are taken away again unless they are asked for. Atoms stand in the order of the SMILES.

Geometry → chemistry: connectivity from distances and covalent radii, bond orders from valences (``rdDetermineBonds``; the method of
Kim & Kim, Bull. Korean Chem. Soc. 36, 1769, 2015). This needs the hydrogens and the total charge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError, MissingPart
from naica.pool import in_processes
from naica.structure.crystal import Crystal

if TYPE_CHECKING:
    from rdkit.Chem import Mol

SEED = 7
"""Seed of the conformers."""
# room between the fragments of a salt, Å: RDKit puts each at the origin
_FRAGMENT_GAP = 3.0
_ATTEMPTS = 10
_BOND_ORDER_STEPS = 20_000
# atoms nearer than this many times the sum of their covalent radii are bonded; the first that leads to valid bond orders counts. RDKit's
# own 1.3 joins atoms across three-membered rings and lone contacts in 5 % of QM9; 1.15 in none of 310 tried
_COVALENT_FACTORS = (1.15, 1.2, 1.3)
# cos 130°: strained alkynes in rings of QM9 are straighter, atoms that lack a hydrogen are not
_BENT = -0.643
# a bond of the SMILES may be this many times longer than the covalent radii say before the geometry is held for another molecule's
_STRETCHED = 1.7
_POOL_FROM = 64

Placed = tuple[NDArray[np.int64], NDArray[np.float64]]


def rdkit() -> Any:
    """The module ``rdkit.Chem``.

    Raises
    ------
    MissingPart
        If RDKit is not installed.
    """
    try:
        from rdkit import Chem
    except ImportError:
        raise MissingPart("molecules need RDKit, which is not installed; run `pip install 'naica[molecules]'`") from None
    return Chem


def parse(smiles: str) -> Mol:
    """A sanitised RDKit molecule without explicit hydrogens.

    Raises
    ------
    InputError
        If the text is no SMILES or no possible molecule; the message says what is wrong with it.
    """
    chem = rdkit()
    from rdkit import rdBase

    text = smiles.strip()
    with rdBase.BlockLogs():
        found = chem.MolFromSmiles(text) if text else None
        if found is None:
            raw = chem.MolFromSmiles(text, sanitize=False) if text else None
            faults = [] if raw is None else [problem.Message() for problem in chem.DetectChemistryProblems(raw)]
            raise InputError(f"SMILES {text!r}: {faults[0] if faults else 'not a SMILES text'}")
    if found.GetNumAtoms() == 0:
        raise InputError(f"SMILES {text!r} has no atoms")
    if unknown := [atom.GetIdx() for atom in found.GetAtoms() if not 1 <= atom.GetAtomicNum() <= 103]:
        raise InputError(f"SMILES {text!r}: atom {unknown[0]} is a placeholder (*), not an element")
    return found


def from_smiles(smiles: str, hydrogens: bool = False, seed: int = SEED) -> Crystal:
    """A molecule as a `Crystal` without periodicity, its SMILES in `info`.

    Parameters
    ----------
    smiles : for example ``CCO``
    hydrogens : keep the hydrogens; they stand after the heavy atoms
    seed : of the conformer; the same seed gives the same positions

    Raises
    ------
    InputError
        If the SMILES cannot be read, or no conformer be found.
    """
    numbers, positions = place(smiles, hydrogens, seed)
    return Crystal(numbers, positions, info={"smiles": smiles.strip()})


def place(smiles: str, hydrogens: bool = False, seed: int = SEED) -> Placed:
    """Atomic numbers (n) and positions (n, 3) in Å of one conformer; see `from_smiles`."""
    chem = rdkit()
    from rdkit import rdBase
    from rdkit.Chem import rdDistGeom

    heavy = parse(smiles)
    whole = chem.AddHs(heavy)
    settings: Any = rdDistGeom.ETKDGv3()
    settings.randomSeed = seed
    settings.maxIterations = _ATTEMPTS
    with rdBase.BlockLogs():
        found = rdDistGeom.EmbedMolecule(whole, settings)
        if found < 0:
            # large, caged and strained molecules start better from random places
            settings.useRandomCoords = True
            found = rdDistGeom.EmbedMolecule(whole, settings)
    if found < 0:
        raise InputError(f"SMILES {smiles.strip()!r}: no conformer found in {2 * _ATTEMPTS} attempts; give the molecule with its geometry")
    positions = _apart(chem.GetMolFrags(whole), np.array(whole.GetConformer().GetPositions(), dtype=np.float64))
    keep = whole.GetNumAtoms() if hydrogens else heavy.GetNumAtoms()
    numbers = np.array([atom.GetAtomicNum() for atom in whole.GetAtoms()][:keep], dtype=np.int64)
    return numbers, positions[:keep]


def _apart(fragments: Sequence[Sequence[int]], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fragments in a row along x, so that no two overlap."""
    if len(fragments) == 1:
        return positions
    placed, edge = positions.copy(), 0.0
    for members in fragments:
        part = positions[list(members)]
        low, high = part[:, 0].min(), part[:, 0].max()
        placed[list(members)] = part + np.array([edge - low, 0.0, 0.0])
        edge += high - low + _FRAGMENT_GAP
    return placed


def place_all(
    smiles: Sequence[str], hydrogens: bool = False, seed: int = SEED, progress: Callable[[int, int], None] | None = None
) -> list[Placed | str]:
    """`place` for many molecules, big numbers in several processes; a bad one gives the reason instead."""
    rdkit()
    return in_processes(partial(_place_some, hydrogens=hydrogens, seed=seed), smiles, _POOL_FROM, progress)


def _place_some(smiles: Sequence[str], hydrogens: bool, seed: int) -> list[Placed | str]:
    def one(text: str) -> Placed | str:
        try:
            return place(text, hydrogens, seed)
        except InputError as error:
            return str(error)

    return [one(text) for text in smiles]


def chemistry(numbers: NDArray[np.int64], positions: NDArray[np.float64], smiles: str | None = None, charge: int = 0) -> Mol:
    """The RDKit molecule whose atoms are these, in this order.

    With a SMILES its atoms must be these: all of them, or the heavy ones alone, in its order (hydrogens last). Without one, bonds are
    perceived from the geometry, for which all hydrogens must be there.

    Parameters
    ----------
    numbers, positions : (n), (n, 3) Å
    smiles : what the molecule is, if known
    charge : total charge, for perception

    Raises
    ------
    InputError
        If SMILES and geometry are not the same molecule, or no valid set of bonds fits the geometry.
    """
    return _perceived(numbers, positions, charge) if not smiles else _matched(smiles, numbers, positions)


def _matched(smiles: str, numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Mol:
    chem = rdkit()
    found = parse(smiles)
    if found.GetNumAtoms() != len(numbers):
        found = chem.AddHs(found)
    own = [atom.GetAtomicNum() for atom in found.GetAtoms()]
    advice = "put the atoms in the order of the SMILES, or drop it so that bonds are perceived from the geometry"
    if own != numbers.tolist():
        raise InputError(f"the atoms are not those of the SMILES {smiles!r}, or stand in another order; {advice}")
    table = chem.GetPeriodicTable()
    radii = [table.GetRcovalent(number) for number in own]
    for bond in found.GetBonds():
        a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        length = float(np.linalg.norm(positions[a] - positions[b]))
        if length > _STRETCHED * (radii[a] + radii[b]):
            raise InputError(f"atoms {a} and {b} are bonded in the SMILES {smiles!r} but {length:.2f} Å apart; {advice}")
    return found


def _perceived(numbers: NDArray[np.int64], positions: NDArray[np.float64], charge: int) -> Mol:
    chem = rdkit()
    from rdkit import rdBase
    from rdkit.Chem import rdDetermineBonds

    atoms = _bare(numbers, positions)
    reason = ""
    with rdBase.BlockLogs():
        for factor in _COVALENT_FACTORS:
            found = chem.RWMol(atoms)
            try:
                rdDetermineBonds.DetermineBonds(
                    found, charge=charge, covFactor=factor, embedChiral=False, useVdw=True, maxIterations=_BOND_ORDER_STEPS
                )
                chem.SanitizeMol(found)
            except (ValueError, RuntimeError) as error:
                reason = reason or str(error).strip().splitlines()[0]
                continue
            fault = _fault(found, positions)
            if not fault:
                return found
            reason = reason or fault
    raise InputError(f"no valid bonds fit this geometry with charge {charge} ({reason}); are all hydrogens there? Else give a SMILES")


def _fault(molecule: Mol, positions: NDArray[np.float64]) -> str:
    """What tells that perceived bonds are not those of the molecule; empty if nothing does."""
    for atom in molecule.GetAtoms():
        if atom.GetNumRadicalElectrons():
            return f"atom {atom.GetIdx()} keeps a free valence"
        ends = [other.GetIdx() for other in atom.GetNeighbors()]
        if str(atom.GetHybridization()) != "SP" or len(ends) != 2:
            continue
        # benzene without its hydrogens fits a ring of cumulated double bonds: only its angles say that it is none
        first, second = (positions[end] - positions[atom.GetIdx()] for end in ends)
        cosine = float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
        if cosine > _BENT:
            return f"atom {atom.GetIdx()} has the bonds of a linear atom at an angle of {np.degrees(np.arccos(cosine)):.0f}°"
    return ""


def _bare(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Mol:
    """Atoms with a geometry and no bonds."""
    chem = rdkit()
    found = chem.RWMol()
    conformer = chem.Conformer(len(numbers))
    for index, (number, position) in enumerate(zip(numbers.tolist(), positions.tolist(), strict=True)):
        atom = chem.Atom(number)
        atom.SetNoImplicit(True)
        found.AddAtom(atom)
        conformer.SetAtomPosition(index, position)
    found.AddConformer(conformer)
    return found
