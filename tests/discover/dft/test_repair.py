"""The table of repairs: real messages find their row, rows are used once, and none changes what an energy means."""

from __future__ import annotations

import re

import pytest

from naica.discover.dft.repair import REPAIRS, changes_of, repair_for

# keys of inputs that decide the level of theory; MAXITER and the like do not
DECISIVE = {
    "xc", "mode", "kpts", "occupations", "setups", "ecutwfc", "ecutrho", "degauss", "smearing", "input_dft", "ecut", "ngkpt", "tsmear",
    "occopt", "ixc", "ENCUT", "GGA", "METAGGA", "ISMEAR", "SIGMA", "LDAUU", "KSPACING", "PREC", "cutoff", "basis_set",
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "message", "name"),
    [
        ("gpaw", "KohnShamConvergenceError: Did not converge!  See text output for help.", "gentler mixing"),
        ("espresso", "     convergence NOT achieved after 100 iterations: stopping", "gentler mixing"),
        ("abinit", "scprqt:  WARNING - nstep= 30 was not enough SCF cycles to converge", "gentler mixing"),
        ("cp2k", "*** WARNING SCF run NOT converged ***", "gentler mixing"),
        ("gpaw", "RuntimeError: Broken symmetry!", "symmetry given up"),
        ("vasp", "VERY BAD NEWS! internal error in subroutine SGRCON:", "symmetry given up"),
        ("vasp", "BRMIX: very serious problems", "density runs away"),
        ("vasp", "WARNING: Sub-Space-Matrix is not hermitian in DAV            4", "orthogonality of bands lost"),
        ("vasp", "ZBRENT: fatal error in bracketing", "line search lost"),
        ("vasp", "TOO FEW BANDS!!", "more bands"),
        ("gpaw", "TooFewBandsError: 4 bands", "more bands"),
        ("gpaw", "MemoryError: Unable to allocate 3.1 GiB", "less memory"),
        ("gpaw", "not converged in 30 steps: largest force 0.081 eV/Å, wanted 0.05", "more steps from the last geometry"),
        ("cp2k", "the number of electrons and the multiplicity do not fit: odd number of electrons", "smaller moments"),
    ],
)
def test_messages_find_their_row(code: str, message: str, name: str) -> None:
    row = repair_for(code, message, ())
    assert row is not None
    assert row.name == name
    assert changes_of(row, code)


def test_rows_are_used_once_and_then_the_next_one_is() -> None:
    message = "KohnShamConvergenceError: Did not converge!"
    used: list[str] = []
    while (row := repair_for("gpaw", message, used)) is not None:
        used.append(row.name)
    assert used == ["gentler mixing", "another eigensolver, more bands"]


def test_what_nobody_knows_is_left_alone() -> None:
    assert repair_for("gpaw", "ValueError: something new", ()) is None
    # a row without anything for this code is none for it
    assert repair_for("gpaw", "BRMIX: very serious problems", ()) is None


def test_hopeless_cases_say_so() -> None:
    row = repair_for("espresso", "FileNotFoundError: [Errno 2] No such file or directory: 'pw.x'", ())
    assert row is not None
    assert row.fatal


def test_no_repair_changes_the_level() -> None:
    for row in REPAIRS:
        re.compile(row.pattern)
        assert row.changes or row.fatal, row.name
        for code, changes in row.changes.items():
            assert not DECISIVE & set(changes), (row.name, code)
    assert len({row.name for row in REPAIRS}) == len(REPAIRS)
