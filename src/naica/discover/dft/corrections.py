"""Materials Project's energy corrections of 2020, for results of its own settings and for no others.

They were fitted (Wang et al., Sci. Rep. 11, 15496 (2021)) to VASP's PBE and PBE+U with MP's pseudopotentials and U: so much per atom of
an anion, so much per transition metal that had a U. The same numbers on another code's PBE would be wrong by whatever differs between the
data sets, and would not be noticed; so the level is compared first, part by part, and the reason for a refusal is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from naica.discover.dft.protocol import DftProtocol
from naica.errors import ConfigError, LevelError
from naica.structure import Crystal

NAME = "MP2020"
LEAST_CUTOFF = 520.0  # eV, of MPRelaxSet


@dataclass(frozen=True)
class Corrected:
    """A corrected energy in eV for the whole cell, and what it consists of: name of each correction → eV."""

    energy: float
    correction: float
    parts: Mapping[str, float]
    version: str


def refuse_unless_mp(corrections: str, code: str, protocol: DftProtocol) -> None:
    """ConfigError if corrections are asked for at a level they were not made for."""
    if corrections == "none":
        return
    if code != "vasp":
        raise ConfigError(
            f"corrections = 'mp2020' were fitted to VASP's PBE with Materials Project's potentials; {code}'s energies have another zero "
            "per element. Without them the hull is consistent in itself, as elements and compounds are computed alike: set "
            "corrections = 'none'"
        )
    if protocol.functional != "PBE":
        raise ConfigError(f"corrections = 'mp2020' were fitted to PBE and PBE+U, not to {protocol.functional}")


def mp_u(composition: Mapping[str, int]) -> dict[str, float]:
    """The U (eV) that Materials Project gives the metals of a composition: only beside oxygen or fluorine."""
    table = _mp_settings()["INCAR"]["LDAUU"]
    anion = next((s for s in ("F", "O") if s in composition), None)
    return {s: float(table[anion][s]) for s in composition if anion and s in table.get(anion, {}) and table[anion][s]}


def mp_potentials(composition: Mapping[str, int]) -> dict[str, str]:
    """POTCAR names of Materials Project by element."""
    table = _mp_settings()["POTCAR"]
    return {s: table[s] for s in composition if s in table}


def _mp_settings() -> Mapping[str, Any]:
    from pymatgen.io.vasp.sets import MPRelaxSet

    settings: Mapping[str, Any] = MPRelaxSet.CONFIG
    return settings


def mismatch(
    composition: Mapping[str, int], *, functional: str, cutoff: float | None, hubbard_u: Mapping[str, float], potentials: Sequence[str]
) -> str:
    """Why a VASP run is not at Materials Project's level; empty if it is.

    Parameters
    ----------
    potentials : POTCAR names as ``PAW_PBE Fe_pv 06Sep2000`` or ``Fe_pv``
    """
    if functional not in ("PBE", "PE", "GGA", "GGA+U"):
        return f"its functional is {functional}, not PBE"
    want = mp_u(composition)
    have = {s: u for s, u in hubbard_u.items() if s in composition and u}
    if {s: round(u, 3) for s, u in have.items()} != {s: round(u, 3) for s, u in want.items()}:
        return f"its U is {have or 'none'}, Materials Project's {want or 'none'}"
    if cutoff is not None and cutoff < LEAST_CUTOFF - 1e-6:
        return f"its cut-off is {cutoff:g} eV, below Materials Project's {LEAST_CUTOFF:g}"
    names = mp_potentials(composition)
    words = {word for text in potentials for word in text.split()}
    strange = {s: name for s, name in names.items() if name not in words}
    if strange:
        return f"its potentials {sorted(potentials)} are not Materials Project's {sorted(strange.values())}"
    return ""


def mp2020(
    crystal: Crystal,
    energy: float,
    *,
    functional: str,
    cutoff: float | None,
    hubbard_u: Mapping[str, float],
    potentials: Sequence[str],
) -> Corrected:
    """An energy (eV for the cell) of Materials Project's own settings, corrected.

    Raises
    ------
    LevelError
        If the settings are others, or pymatgen's scheme excludes the entry; the message says what differs.
    """
    why = mismatch(crystal.composition, functional=functional, cutoff=cutoff, hubbard_u=hubbard_u, potentials=potentials)
    if why:
        raise LevelError(f"no MP2020 corrections for {crystal.formula}: {why}; keep its energies to themselves, or compute it again")
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    used = {s: u for s, u in hubbard_u.items() if s in crystal.composition and u}
    structure: Any = crystal.to_pymatgen()
    entry = ComputedStructureEntry(
        structure,
        energy,
        parameters={
            "run_type": "GGA+U" if used else "GGA",
            "hubbards": used,
            "is_hubbard": bool(used),
            "potcar_symbols": [f"PAW_PBE {name}" for name in mp_potentials(crystal.composition).values()],
        },
    )
    done = MaterialsProject2020Compatibility(check_potcar=False).process_entry(entry)
    if done is None:
        raise LevelError(f"no MP2020 corrections for {crystal.formula}: pymatgen's scheme excludes it at these settings")
    parts = {a.name: float(a.value) for a in done.energy_adjustments}
    return Corrected(float(done.energy), float(done.correction), parts, f"{NAME}, pymatgen {version('pymatgen')}")
