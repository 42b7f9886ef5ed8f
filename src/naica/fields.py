"""Every quantity naica speaks of, named once.

Units, plot labels, collation and error messages read this table; nothing else knows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from naica.errors import InputError

Level = Literal["system", "atom", "edge", "triplet", "motif", "motif_edge", "orbital", "orbital_edge"]

_LENGTH_POWERS = {"Å": 1, "Å²": 2, "Å³": 3, "": 0, "1": 0, "rad": 0, "sr": 0, "Å⁻¹": -1, "Å⁻²": -2, "Å⁻⁴": -4}


@dataclass(frozen=True)
class Field:
    """One quantity: its level of matter, unit, symbol, plot label, shape per item and whether it grows with the system.

    `of` is for indices: the level whose items they count.
    """

    name: str
    level: Level
    unit: str
    symbol: str
    label: str
    shape: tuple[int, ...] = ()
    extensive: bool = False
    kind: Literal["real", "class", "index"] = "real"
    of: Level | None = None

    @property
    def length_power(self) -> int | None:
        """How it grows when all lengths grow: as length to this power; None where that takes more than a power (an energy, say)."""
        return 0 if self.kind != "real" else _LENGTH_POWERS.get(self.unit)

    @property
    def axis(self) -> str:
        """Text for an axis: label and unit."""
        return f"{self.label} ({self.unit})" if self.unit not in ("", "1") else self.label


_TABLE = (
    # what a batch is made of
    Field("number", "atom", "", "Z", "atomic number", kind="index"),
    Field("fraction", "atom", "1", "x", "atomic fraction"),
    Field("system", "atom", "", "b", "index of the system an atom belongs to", kind="index", of="system"),
    Field("n_atoms", "system", "1", "N", "number of atoms", extensive=True, kind="index"),
    Field("edge_receiver", "edge", "", "i", "atom that receives the message", kind="index", of="atom"),
    Field("edge_sender", "edge", "", "j", "atom that sends the message", kind="index", of="atom"),
    Field("edge_vector", "edge", "Å", "r_ij", "vector from receiver to sender", (3,)),
    Field("edge_length", "edge", "Å", "d_ij", "bond length"),
    Field("edge_shift", "edge", "", "S", "periodic image of the sender", (3,), kind="class"),
    Field("volume", "system", "Å³", "V", "volume", extensive=True),
    Field("state", "system", "1", "u", "state variables (temperature, pressure, fidelity …)"),
    # the system of every item of the further levels
    Field("motif_system", "motif", "", "b", "index of the system a motif belongs to", kind="index", of="system"),
    Field("motif_edge_system", "motif_edge", "", "b", "index of the system a pair of motifs belongs to", kind="index", of="system"),
    Field("orbital_system", "orbital", "", "b", "index of the system an orbital belongs to", kind="index", of="system"),
    Field("orbital_edge_system", "orbital_edge", "", "b", "index of the system a pair of orbitals belongs to", kind="index", of="system"),
    # orbitals
    Field("orbital_atom", "orbital", "", "i", "atom an orbital belongs to", kind="index", of="atom"),
    Field("orbital_shell", "orbital", "", "nl", "kind of shell", kind="index"),
    Field("orbital_energy", "orbital", "eV", "ε", "level of an orbital against the mean of its crystal"),
    Field("orbital_filling", "orbital", "1", "f", "electrons of the free atom over the room in the shell"),
    Field("orbital_edge_receiver", "orbital_edge", "", "a", "orbital that receives the message", kind="index", of="orbital"),
    Field("orbital_edge_sender", "orbital_edge", "", "b", "orbital that sends the message", kind="index", of="orbital"),
    Field("orbital_edge_coupling", "orbital_edge", "eV", "|V|", "size of the coupling: σ, π, δ", (3,)),
    Field("saao_diagonal", "orbital", "a.u.", "X_uu", "Fock, density and core values of a symmetry-adapted orbital", (3,)),
    Field("saao_coupling", "orbital_edge", "a.u.", "|X_uv|", "sizes of Fock, density, core and overlap values of two orbitals", (4,)),
    Field("orbital_edge_gap", "orbital_edge", "eV", "Δε", "difference of two levels"),
    # geometry
    Field("positions", "atom", "Å", "r", "position", (3,)),
    Field("cell", "system", "Å", "L", "lattice vectors as rows", (3, 3)),
    Field("volume_per_atom", "system", "Å³/atom", "V/N", "volume per atom"),
    # energies
    Field("energy", "system", "eV", "E", "total energy", extensive=True),
    Field("energy_per_atom", "system", "eV/atom", "E/N", "energy per atom"),
    Field("formation_energy_per_atom", "system", "eV/atom", "E_f", "formation energy"),
    Field("energy_above_hull", "system", "eV/atom", "E_hull", "energy above hull"),
    Field("decomposition_energy", "system", "eV/atom", "E_d", "decomposition energy"),
    Field("exfoliation_energy", "system", "meV/atom", "E_exf", "exfoliation energy"),
    # electrons
    Field("band_gap", "system", "eV", "E_g", "band gap"),
    Field("fermi_energy", "system", "eV", "E_F", "Fermi energy"),
    Field("is_metal", "system", "", "metal", "metal", kind="class"),
    # response
    Field("bulk_modulus", "system", "GPa", "K", "bulk modulus"),
    Field("shear_modulus", "system", "GPa", "G", "shear modulus"),
    Field("log_bulk_modulus", "system", "log10(GPa)", "log K", "bulk modulus, logarithm"),
    Field("log_shear_modulus", "system", "log10(GPa)", "log G", "shear modulus, logarithm"),
    Field("poisson_ratio", "system", "1", "ν", "Poisson ratio"),
    Field("refractive_index", "system", "1", "n", "refractive index"),
    Field("last_phonon_peak", "system", "1/cm", "ω", "highest phonon DOS peak"),
    Field("debye_temperature", "system", "K", "θ_D", "Debye temperature"),
    Field("thermal_conductivity", "system", "W/(m K)", "κ", "thermal conductivity"),
    Field("thermal_expansion", "system", "1/K", "α", "thermal expansion"),
    Field("heat_capacity", "system", "J/(mol K)", "C_V", "heat capacity of the cell", extensive=True),
    Field("phonon_dos", "system", "1", "g", "phonon density of states, maximum 1", (51,)),
    Field("dielectric_constant", "system", "1", "ε", "dielectric constant"),
    Field("dielectric_tensor", "system", "1", "ε_ij", "dielectric tensor", (3, 3)),
    Field("piezoelectric_modulus", "system", "C/m²", "e_max", "largest piezoelectric modulus"),
    Field("piezoelectric_tensor", "system", "C/m²", "e_ij", "piezoelectric tensor", (3, 6)),
    Field("critical_temperature", "system", "K", "T_c", "superconducting critical temperature"),
    Field("log_conductivity", "system", "log10(S/cm)", "log σ", "ionic conductivity, logarithm"),
    # molecules
    Field("atomization_energy", "system", "eV", "E_at", "atomisation energy", extensive=True),
    Field("zero_point_energy", "system", "eV", "E_0", "zero-point vibrational energy", extensive=True),
    Field("homo_energy", "system", "eV", "E_HOMO", "energy of the highest occupied orbital"),
    Field("lumo_energy", "system", "eV", "E_LUMO", "energy of the lowest unoccupied orbital"),
    Field("dipole_moment", "system", "D", "μ", "dipole moment"),
    Field("polarizability", "system", "a0³", "α", "polarisability", extensive=True),
    Field("log_solubility", "system", "log10(mol/L)", "log S", "solubility in water, logarithm"),
    Field("hydration_energy", "system", "eV", "ΔG_hyd", "free energy of hydration"),
    Field("is_active", "system", "", "active", "active in an assay", kind="class"),
    Field("spatial_extent", "system", "a0²", "⟨R²⟩", "electronic spatial extent", extensive=True),
    # Voronoi faces and the orbitals behind them
    Field("edge_solid_angle", "edge", "sr", "Ω_ij", "solid angle of the Voronoi face"),
    Field("edge_face_area", "edge", "Å²", "A_ij", "area of the Voronoi face"),
    Field("edge_face_volume", "edge", "Å³", "V_ij", "volume of the pyramid under the Voronoi face"),
    Field("orbital_field", "atom", "Å⁻¹", "X", "orbital field", (32,)),
    Field("orbital_field_square", "atom", "Å⁻²", "X", "orbital field, weights 1/r²", (32,)),
    Field("orbital_field_released", "atom", "Å⁻⁴", "X", "orbital field, weights 1/r⁴", (32,)),
    # molecules as graphs
    Field("atom_chemistry", "atom", "", "a", "symbol, degree, hydrogens … of an atom, as codes", (11,), kind="class"),
    Field("edge_chemistry", "edge", "", "p", "bond, ring, graph distance … of a pair, as codes", (5,), kind="class"),
    # motifs and how they are joined
    Field("motif_atom", "motif", "", "i", "atom in the middle of a motif", kind="index", of="atom"),
    Field("motif_shape", "motif", "", "shape", "shape of a motif", kind="index"),
    Field("motif_measure", "motif", "1", "S", "continuous shape measure of a motif"),
    Field("motif_order", "motif", "1", "q_l", "order parameters of a motif", (5,)),
    Field("motif_coordination", "motif", "1", "CN", "ligands of a motif"),
    Field("motif_bond_length", "motif", "Å", "d", "mean bond length of a motif"),
    Field("motif_bond_spread", "motif", "1", "Δd/d", "relative spread of the bond lengths of a motif"),
    Field("motif_edge_receiver", "motif_edge", "", "i", "motif that receives the message", kind="index", of="motif"),
    Field("motif_edge_sender", "motif_edge", "", "j", "motif that sends the message", kind="index", of="motif"),
    Field("motif_edge_length", "motif_edge", "Å", "d_ij", "distance of the centres of two motifs"),
    Field("motif_edge_sharing", "motif_edge", "", "sharing", "what two motifs share (corner, edge, face, nothing)", kind="index"),
    Field("motif_edge_angle", "motif_edge", "rad", "θ", "angle at the ligand two motifs share"),
    # potentials
    Field("forces", "atom", "eV/Å", "F", "force", (3,)),
    Field("stress", "system", "eV/Å³", "σ", "stress, positive under tension", (3, 3)),
    Field("magmom", "atom", "μ_B", "m", "magnetic moment"),
    Field("partial_charge", "atom", "e", "q", "partial charge"),
    Field("site_energy", "atom", "eV/atom", "v_i", "site contribution"),
)

FIELDS: dict[str, Field] = {f.name: f for f in _TABLE}


def field(name: str) -> Field:
    """The field called `name`.

    Raises
    ------
    InputError
        If no such field exists; the message proposes the nearest names.
    """
    try:
        return FIELDS[name]
    except KeyError:
        near = get_close_matches(name, FIELDS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(FIELDS)}"
        raise InputError(f"unknown quantity {name!r}; {hint}") from None
