"""Molecular graphs: kinds ``bonds`` (bonded atoms) and ``pairs`` (all atoms, each with itself too), with what chemistry says of both.

Chemistry comes from the table column ``smiles`` (or ``Crystal.info["smiles"]``) where there is one. Where there is none it is
perceived from the three-dimensional geometry (`naica.structure.molecule.chemistry`), which needs all hydrogens and takes the total charge
from the column ``charge``, by default 0; a molecule whose bonds cannot be perceived is a rejected row.

Both fields hold small whole numbers, not the vectors networks read: those are one-hot codes of these (`naica.nn.molecules`) and ten times
larger. A property of the graph's own atoms: hydrogens that are atoms count in the degree, hydrogens that are not in the implicit valence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.graphs.levels import Made, System
from naica.graphs.spec import GraphSpec
from naica.structure.molecule import chemistry, rdkit

if TYPE_CHECKING:
    from rdkit.Chem import Mol

# the atom symbols of Duvenaud et al. (2015); anything else is the last, 43
_TEXT = "C N O S F Si P Cl Br Mg Na Ca Fe As Al I B V K Tl Yb Sb Sn Ag Pd Co Se Ti Zn H Li Ge Cu Au Ni Cd In Mn Zr Cr Pt Hg Pb"
SYMBOLS = tuple(_TEXT.split())
ATOM_CODES = (
    "symbol", "degree", "hydrogens", "valence", "charge", "radicals", "hybridisation", "aromatic", "ring", "donor", "acceptor"
)  # fmt: skip
PAIR_CODES = ("bond", "conjugated", "ring", "same_ring", "distance")
FAR = 8
"""Code of a graph distance of more than seven bonds, or of none at all."""
_HYBRIDISATIONS = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
_BOND_TYPES = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "AROMATIC": 4}
_DONOR = "[$([N,O,S;!H0]),$([n;H1])]"
_ACCEPTOR = "[$([O;v2]),$([O,S;-1]),$([N;v3;!$(N-*=[O,N,P,S]);!$(N-a)]),$([nX2]),$([S;v2;X2,X1]),$([o,s])]"


def bonds(system: System, spec: GraphSpec) -> Made:
    """Both directions of every bond."""
    molecule = _molecule(system)
    ends = np.array([[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] for bond in molecule.GetBonds()], np.int64).reshape(-1, 2)
    receiver, sender = np.concatenate([ends[:, 0], ends[:, 1]]), np.concatenate([ends[:, 1], ends[:, 0]])
    order = np.lexsort((sender, receiver))
    return _made(system, molecule, receiver[order], sender[order])


def pairs(system: System, spec: GraphSpec) -> Made:
    """All ordered pairs of atoms, an atom with itself among them; with ``spec.max_bonds`` only those at most so many bonds apart."""
    molecule = _molecule(system)
    near = np.ones((len(system.numbers),) * 2, bool)
    if spec.max_bonds is not None:
        near = rdkit().GetDistanceMatrix(molecule) <= spec.max_bonds
    receiver, sender = np.nonzero(near)
    return _made(system, molecule, receiver, sender)


def _molecule(system: System) -> Mol:
    if system.pbc.any():
        raise InputError(
            "a periodic crystal has no molecular graph; this network takes molecules (use a SMILES, or a structure without cell)"
        )
    smiles, charge = system.columns.get("smiles"), system.columns.get("charge")
    if smiles is not None and not isinstance(smiles, str):
        raise InputError(f"smiles is {smiles!r}; expected text")
    try:
        whole = 0 if charge is None or charge == "" else int(float(charge))
    except (TypeError, ValueError):
        raise InputError(f"charge is {charge!r}; expected a whole number of elementary charges") from None
    return chemistry(system.numbers, system.positions, smiles, whole)


def _made(system: System, molecule: Mol, receiver: NDArray[np.int64], sender: NDArray[np.int64]) -> Made:
    return {
        "edge_receiver": receiver,
        "edge_sender": sender,
        "edge_vector": system.positions[sender] - system.positions[receiver],
        "atom_chemistry": atom_codes(molecule),
        "edge_chemistry": pair_codes(molecule)[receiver, sender],
    }


def atom_codes(molecule: Mol) -> NDArray[np.int64]:
    """(n, 11) whole numbers, in the order of `ATOM_CODES`."""
    chem = rdkit()
    implicit = chem.ValenceType.IMPLICIT
    donors, acceptors = (_having(molecule, pattern) for pattern in (_DONOR, _ACCEPTOR))
    rows = [
        (
            SYMBOLS.index(atom.GetSymbol()) if atom.GetSymbol() in SYMBOLS else len(SYMBOLS),
            atom.GetDegree(),
            atom.GetTotalNumHs(includeNeighbors=True),
            atom.GetValence(implicit),
            atom.GetFormalCharge(),
            atom.GetNumRadicalElectrons(),
            _place(str(atom.GetHybridization())),
            atom.GetIsAromatic(),
            atom.IsInRing(),
            atom.GetIdx() in donors,
            atom.GetIdx() in acceptors,
        )
        for atom in molecule.GetAtoms()
    ]
    return np.array(rows, np.int64).reshape(-1, len(ATOM_CODES))


def _place(hybridisation: str) -> int:
    return _HYBRIDISATIONS.index(hybridisation) if hybridisation in _HYBRIDISATIONS else len(_HYBRIDISATIONS)


def _having(molecule: Mol, pattern: str) -> set[int]:
    return {match[0] for match in molecule.GetSubstructMatches(_pattern(pattern), maxMatches=100_000)}


_PATTERNS: dict[str, Any] = {}


def _pattern(text: str) -> Any:
    return _PATTERNS.setdefault(text, rdkit().MolFromSmarts(text)) if text not in _PATTERNS else _PATTERNS[text]


def pair_codes(molecule: Mol) -> NDArray[np.int64]:
    """(n, n, 5) whole numbers, in the order of `PAIR_CODES`; ``same_ring`` and ``distance`` are 0 for an atom with itself."""
    n = molecule.GetNumAtoms()
    codes = np.zeros((n, n, len(PAIR_CODES)), np.int64)
    for bond in molecule.GetBonds():
        a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        # a dative or other bond counts as single: it is a bond
        kind = _BOND_TYPES.get(str(bond.GetBondType()), 1)
        codes[a, b, :3] = codes[b, a, :3] = (kind, bond.GetIsConjugated(), bond.IsInRing())
    for ring in molecule.GetRingInfo().AtomRings():
        codes[np.ix_(ring, ring, [3])] = 1
    codes[np.arange(n), np.arange(n), 3] = 0
    codes[:, :, 4] = np.minimum(rdkit().GetDistanceMatrix(molecule), FAR).astype(np.int64)
    return codes
