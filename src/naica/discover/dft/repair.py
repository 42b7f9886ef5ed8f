"""What to change when a calculation fails: a table of patterns, each with changed input, tried in order within a budget.

A repair may help a calculation to the end (mixing, iterations, bands, symmetry, more steps); none may change what its energy means, so
nothing here touches functional, cut-off, k points, smearing or U. What was done is told in the result's reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Repair:
    """One row of the table.

    Parameters
    ----------
    name : what is told of it
    pattern : regular expression on the error and on the end of the code's output, upper and lower case alike
    changes : by code (``*`` for the others) the keys of input that change; `from_last` starts from the last geometry
    fatal : nothing helps; the reason for the user
    """

    name: str
    pattern: str
    changes: Mapping[str, Mapping[str, Any]]
    fatal: str = ""


_UNCONVERGED = r"did not converge|convergence NOT achieved|SCF run NOT converged|scf_cycle.*not converged|scprqt:.*not enough|KohnShamConv"
_MEMORY = r"MemoryError|out of memory|cannot allocate|std::bad_alloc"

# order matters: the first row that matches and was not used yet is taken
REPAIRS: tuple[Repair, ...] = (
    Repair("code missing", r"no such file or directory: '?(cp2k|pw\.x|abinit|vasp)|command not found", {}, "the program is not installed"),
    Repair("no PAW data", r"could not find required PAW|no pseudopotential", {}, "no data for an element"),
    Repair("smaller moments", r"odd number of electrons|multiplicity|hund", {"*": {"moments_scale": 0.5}}),
    Repair("gentler mixing", _UNCONVERGED, {
        "gpaw": {"mixer": {"beta": 0.03, "nmaxold": 8, "weight": 100.0}, "maxiter": 500},
        "espresso": {"mixing_beta": 0.2, "electron_maxstep": 200},
        "abinit": {"diemix": 0.2, "nstep": 150},
        "cp2k": {"alpha": 0.1, "max_scf": 150},
        "vasp": {"ALGO": "All", "NELM": 200},
    }),
    Repair("another eigensolver, more bands", _UNCONVERGED, {
        "gpaw": {"eigensolver": {"name": "rmm-diis"}, "nbands": "200%", "mixer": {"beta": 0.02, "nmaxold": 5, "weight": 100.0}},
        "espresso": {"diagonalization": "cg", "mixing_mode": "local-TF", "mixing_beta": 0.1},
        "abinit": {"iprcel": 45, "nstep": 200},
        "cp2k": {"alpha": 0.05, "max_scf": 300},
        "vasp": {"ALGO": "Damped", "TIME": 0.4, "NELM": 300},
    }),
    Repair("more bands", r"too ?few ?bands|nband.*too small", {"gpaw": {"nbands": "200%"}, "vasp": {"NBANDS": "+20%"}}),
    Repair("symmetry given up", r"broken ?symmetry|SymmetryBroken|POSMAP|SGRCON|RHOSYG|PRICEL|chkdpr|symrel|sym_rho", {
        "gpaw": {"symmetry": "off"}, "espresso": {"nosym": True}, "abinit": {"nsym": 1}, "vasp": {"ISYM": 0, "SYMPREC": 1e-8},
    }),
    Repair("more steps from the last geometry", r"not converged in \d+ steps", {"*": {"from_last": True}}),
    Repair("orthogonality of bands lost", r"Sub-Space-Matrix is not hermitian|EDDDAV|S matrix not positive definite|cdiaghg", {
        "vasp": {"ALGO": "All"}, "espresso": {"diagonalization": "cg"},
    }),
    Repair("density runs away", r"BRMIX: very serious problems", {"vasp": {"AMIX": 0.1, "BMIX": 0.0001, "ISTART": 0}}),
    Repair("line search lost", r"ZBRENT: fatal", {"vasp": {"IBRION": 1, "from_last": True}}),
    Repair("real-space projectors", r"REAL_OPTLAY|LREAL", {"vasp": {"LREAL": False}}),
    Repair("less memory", _MEMORY, {
        "gpaw": {"eigensolver": {"name": "davidson", "niter": 1}}, "espresso": {"disk_io": "nowf"}, "vasp": {"LWAVE": False, "NPAR": 1},
    }),
)  # fmt: skip


def repair_for(code: str, trouble: str, used: Sequence[str]) -> Repair | None:
    """The next row for this trouble; None if there is none left."""
    for row in REPAIRS:
        if row.name in used or not re.search(row.pattern, trouble, re.IGNORECASE | re.DOTALL):
            continue
        if row.fatal or code in row.changes or "*" in row.changes:
            return row
    return None


def changes_of(row: Repair, code: str) -> dict[str, Any]:
    """What a row changes in a code's input."""
    return dict(row.changes.get(code, row.changes.get("*", {})))


def why_hopeless(row: Repair, trouble: str) -> str:
    """What a fatal row says."""
    return f"{row.fatal}: {trouble}"
