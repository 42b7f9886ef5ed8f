"""CIF text to crystals by way of pymatgen's parser, and back by our own few lines.

The parser is chosen for what real files need: it mends special positions rounded to 0.3333, knows the settings of space groups, and reports
occupancies; it takes 2 to 10 ms a file, as ASE's does. What it does silently is undone or refused here: sites sorted by element, P1 put in
place of a symmetry it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from naica.errors import InputError
from naica.structure.convert import from_pymatgen
from naica.structure.crystal import Crystal

EXPECTED = "a CIF with cell lengths and angles, symmetry and an _atom_site loop. Check the file, or write it anew from its source"
_CELL = tuple(f"_cell_{name}" for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"))


def read_blocks(text: str) -> list[Crystal]:
    """All structures of a CIF, with the atoms in the order of the file; blocks without atoms are passed over.

    Raises
    ------
    InputError
        If it is no CIF, lacks a cell or atoms, names a symmetry nobody knows, or has partly occupied sites. Errors of the parser below
        (KeyError, ValueError and others) pass through.
    """
    blocks = re.split(r"^\s*(?=data_)", text, flags=re.MULTILINE | re.IGNORECASE)[1:]
    if not blocks:
        raise InputError("not a CIF: no data_ block found; expected text starting with a line like 'data_NaCl'")
    # many CIFs carry blocks of nothing but bibliography
    with_atoms = [block for block in blocks if "_atom_site" in block.lower()]
    if not with_atoms:
        raise InputError(f"no _atom_site loop in this CIF; expected {EXPECTED}")
    return [_read_block(block) for block in with_atoms]


def _read_block(block: str) -> Crystal:
    from pymatgen.io.cif import CifParser

    missing = [key for key in _CELL if key not in block.lower()]
    if missing:
        raise InputError(f"no {', '.join(missing)} in this CIF; expected {EXPECTED}")
    parser: Any = CifParser.from_str(block)
    (structure,) = parser.parse_structures(primitive=False, on_error="raise")
    (content,) = parser.as_dict().values()
    _refuse_lost_symmetry(content, parser.warnings)
    crystal = from_pymatgen(structure).replace(info={})
    # the parser sorts sites by element; users and per-site results expect the order of the file
    labels: list[Any] = content.get("_atom_site_label", [])
    place: dict[Any, int] = {label: k for k, label in reversed(list(enumerate(labels)))}
    order = np.argsort([place.get(label, len(labels)) for label in structure.labels], kind="stable")
    return crystal.replace(numbers=crystal.numbers[order], positions=crystal.positions[order])


def _refuse_lost_symmetry(content: Mapping[str, Any], notes: Sequence[str]) -> None:
    """The parser takes symmetry it does not know for P1, which loses atoms; only a file that names none may be read so."""
    if not any("P1" in note for note in notes):
        return
    named = {k: str(v).strip() for k, v in content.items() if ("space_group" in k or "Int_Tables" in k) and not isinstance(v, list)}
    unknown = [v for v in named.values() if v.replace(" ", "").upper() not in ("P1", "1", "?", ".", "TRICLINIC", "")]
    if unknown:
        raise InputError(
            f"symmetry {' / '.join(map(repr, unknown))} is not understood; expected a space group symbol or number, or operations"
        )


def write_blocks(crystals: Sequence[Crystal]) -> str:
    """CIF text with one block per crystal, in P1, named by formula (and counted if there are several).

    Raises
    ------
    InputError
        If one of them lacks three periodic directions.
    """
    single = len(crystals) == 1
    return "\n".join(_block(c, c.formula if single else f"{c.formula}_{k}") for k, c in enumerate(crystals))


def _block(crystal: Crystal, name: str) -> str:
    """A CIF block in P1 with the atoms in their order; pymatgen's writer sorts them and names every block by its formula."""
    if not crystal.pbc.all():
        raise InputError(f"a CIF needs three periodic directions; {crystal!r} has pbc {crystal.pbc.tolist()}. Use .xyz or .json")
    # lengths and angles are read back as a right-handed cell; of a left-handed one they would give the mirror image, so turn it first
    hand = np.sign(np.linalg.det(crystal.cell))
    lengths = np.linalg.norm(crystal.cell, axis=1)
    a, b, c = crystal.cell / lengths[:, None]
    angles = [float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) for cosine in (b @ c, a @ c, a @ b)]
    frac = hand * crystal.fractional
    sites = [
        f"{symbol}{k} {symbol} {x:.12f} {y:.12f} {z:.12f} 1"
        for k, (symbol, (x, y, z)) in enumerate(zip(crystal.symbols, frac - np.floor(frac), strict=True))
    ]
    full_formula = " ".join(f"{s}{n}" for s, n in crystal.composition.items())
    return "\n".join(
        [
            f"data_{name}",
            *(f"_cell_length_{axis} {value:.10f}" for axis, value in zip("abc", lengths, strict=True)),
            *(f"_cell_angle_{angle} {value:.10f}" for angle, value in zip(("alpha", "beta", "gamma"), angles, strict=True)),
            "_symmetry_space_group_name_H-M 'P 1'",
            "_symmetry_Int_Tables_number 1",
            f"_chemical_formula_sum '{full_formula}'",
            "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'",
            "loop_",
            *(f"_atom_site_{column}" for column in ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")),
            *sites,
            "",
        ]
    )
