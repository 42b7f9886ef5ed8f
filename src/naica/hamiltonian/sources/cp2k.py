"""Crystals by CP2K: Gaussian orbitals on plane waves, whose H(R) and S(R) the program writes in real space.

The program is found on the path (``cp2k.psmp`` …, or NAICA_CP2K) and runs as a separate process in a folder of its own. What bit others:
lattice vectors count from positions wrapped to [−½, ½); tables of images past 999 print stars, so lines are counted; meshes are
Monkhorst–Pack, for ``GAMMA n n n`` silently means Γ alone. A second run of one step gives the Hamiltonian of superposed atomic densities.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.data.labels import Level
from naica.errors import InputError, MissingPart, RunError
from naica.hamiltonian.basis import HARTREE, Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices, Reference
from naica.hamiltonian.sources.settings import checked
from naica.structure import Crystal

Array = NDArray[np.float64]

DEFAULTS: Mapping[str, Any] = {
    "functional": "PBE",
    "basis": "DZVP-MOLOPT-SR-GTH",
    "cutoff": 400.0,  # Ry; 200 leaves noise of 0.5 eV in MgO
    "spacing": 0.5,  # of k points, 1/Å
    "temperature": 500.0,  # K
    "convergence": 1e-7,
    "steps": 80,
    "mixing": 0.3,  # of densities; a retry halves it
    "threshold": 1e-9,  # Hartree; smaller elements are not written
    "h0": True,
    "vacuum": 12.0,  # Å along directions that do not repeat
    "seconds": 600.0,
}
_PROGRAMS = ("cp2k.psmp", "cp2k.ssmp", "cp2k.popt", "cp2k.sopt", "cp2k")
_FORCE = HARTREE / 0.529177210903


def program() -> str:
    """The executable (MissingPart if there is none, with how to get it)."""
    for name in (os.environ.get("NAICA_CP2K", ""), *_PROGRAMS):
        if name and (found := shutil.which(name)):
            return found
    raise MissingPart("CP2K is not installed (no cp2k.psmp on the path); on Debian: apt install cp2k cp2k-data; elsewhere set NAICA_CP2K")


def data_folder() -> Path:
    """Where its basis sets and potentials lie (MissingPart if nowhere)."""
    for place in (os.environ.get("CP2K_DATA_DIR", ""), "/usr/share/cp2k", str(Path(program()).parent.parent / "share" / "cp2k" / "data")):
        if place and (Path(place) / "BASIS_MOLOPT").is_file():
            return Path(place)
    raise MissingPart("the data of CP2K were not found (BASIS_MOLOPT); install cp2k-data, or set CP2K_DATA_DIR")


def make(crystal: Crystal, settings: Mapping[str, Any]) -> OrbitalMatrices:
    """H, S, H0 and the code's own bands of a crystal, slab or molecule; spins are paired.

    Parameters
    ----------
    settings : see ``DEFAULTS``: functional, basis, cutoff (Ry), spacing of k points (1/Å), temperature (K) …

    Raises
    ------
    MissingPart
        If CP2K or its data are not there.
    InputError
        If there is no basis for an element.
    RunError
        If it does not converge, or not in time.
    """
    told = checked(settings, DEFAULTS, "cp2k")
    basis = {int(z): basis_of(int(z), told["basis"]) for z in sorted({int(z) for z in crystal.numbers})}
    boxed, whole = _placed(crystal, float(told["vacuum"]))
    mesh = _mesh(boxed, crystal, float(told["spacing"]))
    points = np.random.default_rng(7).random((3, 3)) * crystal.pbc if crystal.pbc.any() else np.zeros((1, 3))
    with tempfile.TemporaryDirectory(prefix="naica-cp2k-") as folder:
        full = _run(Path(folder) / "full", boxed, basis, told, mesh, points)
        first = _run(Path(folder) / "first", boxed, basis, told, (1, 1, 1), None) if told["h0"] else None
    kinds = {"H": full.matrices["KS"], "S": full.matrices["S"]}
    if first is not None:
        kinds["H0"] = first.matrices["KS"]
    found = _assembled(crystal, basis, whole, kinds)
    return found.replace(
        fermi=full.fermi,
        electrons=sum(basis[int(z)].electrons for z in crystal.numbers),
        reference=full.reference,
        energy=full.energy,
        level=Level(told["functional"], pseudo=f"GTH, {told['basis']}", code="cp2k", version=full.version),
        info={"source": "cp2k", **told, "mesh": list(mesh)},
    )


def superposed(crystal: Crystal, settings: Mapping[str, Any]) -> OrbitalMatrices:
    """S and H0 alone: one step at Γ from superposed atomic densities, some seconds even for large cells. Raises what `make` raises."""
    told = checked(settings, DEFAULTS, "cp2k")
    basis = {int(z): basis_of(int(z), told["basis"]) for z in sorted({int(z) for z in crystal.numbers})}
    boxed, whole = _placed(crystal, float(told["vacuum"]))
    with tempfile.TemporaryDirectory(prefix="naica-cp2k-") as folder:
        first = _run(Path(folder) / "first", boxed, basis, told, (1, 1, 1), None)
    found = _assembled(crystal, basis, whole, {"H0": first.matrices["KS"], "S": first.matrices["S"]})
    return found.replace(electrons=sum(basis[int(z)].electrons for z in crystal.numbers), info={"source": "cp2k", **told})


# --- input -------------------------------------------------------------------------------------------------------------
@cache
def basis_of(number: int, name: str) -> Basis:
    """The shells of an element in CP2K's basis sets (InputError if it has none of this name)."""
    from naica.structure.elements import symbol

    lines = (data_folder() / "BASIS_MOLOPT").read_text().splitlines()
    for k, line in enumerate(lines):
        words = line.split()
        if len(words) >= 2 and words[0] == symbol(number) and name in words[1:]:
            electrons = next((float(w.rpartition("-q")[2]) for w in words[1:] if "-q" in w), 0.0)
            shells: list[int] = []
            place = k + 2
            for _ in range(int(lines[k + 1].split()[0])):
                _, low, high, exponents, *counts = (int(w) for w in lines[place].split())
                shells += [shell for shell, count in zip(range(low, high + 1), counts, strict=True) for _ in range(count)]
                place += 1 + exponents
            return Basis(number, tuple(shells), name, electrons)
    raise InputError(f"CP2K has no basis {name} for {symbol(number)}; choose another basis, or leave structures with it out")


def _placed(crystal: Crystal, vacuum: float) -> tuple[Crystal, NDArray[np.int64]]:
    """A fully periodic crystal with atoms wrapped to [−½, ½), none near the border, and the whole lattice vectors each was moved by."""
    cell = crystal.cell.copy()
    positions = crystal.positions.copy()
    for axis in np.flatnonzero(~crystal.pbc):
        others = [cell[a] for a in range(3) if a != axis and np.any(cell[a])]
        direction = np.eye(3)[axis] if len(others) < 2 else np.cross(others[0], others[1])
        direction /= np.linalg.norm(direction)
        height = positions @ direction
        cell[axis] = direction * (np.ptp(height) + vacuum)
        positions = positions - direction * (height.max() + height.min()) / 2
    fractional = positions @ np.linalg.inv(cell)
    # all atoms moved a little where one would lie on the border, at which rounding decides
    for k in range(20):
        moved = fractional + k * np.array([0.0137, 0.0171, 0.0193]) * crystal.pbc
        if np.abs(np.abs(moved - np.rint(moved)) - 0.5).min() > 2e-3:
            break
    whole = np.rint(moved).astype(np.int64)
    return Crystal(crystal.numbers, (moved - whole) @ cell, cell, np.ones(3, dtype=bool)), whole


def _mesh(boxed: Crystal, crystal: Crystal, spacing: float) -> tuple[int, int, int]:
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(boxed.cell), axis=0)
    a, b, c = (int(np.ceil(length / spacing)) | 1 if repeats else 1 for length, repeats in zip(lengths, crystal.pbc, strict=True))
    return a, b, c


def _input(crystal: Crystal, basis: Mapping[int, Basis], told: Mapping[str, Any], mesh: Sequence[int], points: Array | None) -> str:
    rows = "\n".join(f"      {s} {x:.12f} {y:.12f} {z:.12f}" for s, (x, y, z) in zip(crystal.symbols, crystal.positions, strict=True))
    cell = "\n".join(f"      {name} {v[0]:.12f} {v[1]:.12f} {v[2]:.12f}" for name, v in zip("ABC", crystal.cell, strict=True))
    kinds = "\n".join(
        f"    &KIND {b.symbol}\n      BASIS_SET {b.name}\n      POTENTIAL GTH-{told['functional']}-q{b.electrons:.0f}\n    &END KIND"
        for b in basis.values()
    )
    empty = max(4, sum(basis[int(z)].size for z in crystal.numbers) // 8)
    bands = ""
    if points is not None:
        special = "\n".join(f"          SPECIAL_POINT P{k} {p[0]:.10f} {p[1]:.10f} {p[2]:.10f}" for k, p in enumerate(points))
        bands = f"""
      &BAND_STRUCTURE
        FILE_NAME bands.bs
        ADDED_MOS {empty}
        &KPOINT_SET
          UNITS B_VECTOR
{special}
          NPOINTS 1
        &END KPOINT_SET
      &END BAND_STRUCTURE"""
    one = points is None
    return f"""&GLOBAL
  PROJECT run
  RUN_TYPE ENERGY
  PRINT_LEVEL LOW
&END GLOBAL
&FORCE_EVAL
  METHOD Quickstep
  &DFT
    BASIS_SET_FILE_NAME {data_folder()}/BASIS_MOLOPT
    POTENTIAL_FILE_NAME {data_folder()}/GTH_POTENTIALS
    &MGRID
      CUTOFF {told["cutoff"]}
      REL_CUTOFF 60
    &END MGRID
    &QS
      EPS_DEFAULT 1e-10
    &END QS
    &KPOINTS
      SCHEME MONKHORST-PACK {" ".join(map(str, mesh))}
    &END KPOINTS
    &SCF
      EPS_SCF {told["convergence"]}
      MAX_SCF {1 if one else told["steps"]}
      ADDED_MOS {empty}
      &SMEAR ON
        METHOD FERMI_DIRAC
        ELECTRONIC_TEMPERATURE [K] {told["temperature"]}
      &END SMEAR
      &MIXING
        METHOD BROYDEN_MIXING
        ALPHA {told["mixing"]}
      &END MIXING
    &END SCF
    &XC
      &XC_FUNCTIONAL {told["functional"]}
      &END XC_FUNCTIONAL
    &END XC
    &PRINT
      &KS_CSR_WRITE
        REAL_SPACE T
        THRESHOLD {told["threshold"]}
        UPPER_TRIANGULAR F
      &END KS_CSR_WRITE
      &S_CSR_WRITE
        REAL_SPACE T
        THRESHOLD {told["threshold"]}
        UPPER_TRIANGULAR F
      &END S_CSR_WRITE{bands}
    &END PRINT
  &END DFT
  &SUBSYS
    &CELL
{cell}
      PERIODIC XYZ
    &END CELL
    &COORD
{rows}
    &END COORD
{kinds}
  &END SUBSYS
&END FORCE_EVAL
"""


# --- running and reading -----------------------------------------------------------------------------------------------
class _Told:
    """What one run left: matrices by name and image, Fermi level, energy, bands."""

    def __init__(self, folder: Path, size: int, points: Array | None) -> None:
        text = (folder / "out.txt").read_text(errors="replace")
        version = re.search(r"CP2K version\s+(\S+)", text) or re.search(r"CP2K\|\s*version string:\s*CP2K version (\S+)", text)
        self.version = version.group(1) if version else ""
        self.energy = _last_number(text, r"Total energy:\s*(\S+)") * HARTREE
        self.fermi = _last_number(text, r"Fermi energy:\s*(\S+)") * HARTREE
        self.matrices = {"KS": _matrices(folder, text, "KS", size), "S": _matrices(folder, text, "S", size)}
        self.reference = None if points is None else _bands(folder / "bands.bs", points)


def _run(
    folder: Path, crystal: Crystal, basis: Mapping[int, Basis], told: Mapping[str, Any], mesh: Sequence[int], points: Array | None
) -> _Told:
    folder.mkdir()
    (folder / "run.inp").write_text(_input(crystal, basis, told, mesh, points))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            [program(), "-i", "run.inp", "-o", "out.txt"],
            cwd=folder,
            env=environment,
            timeout=told["seconds"],
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"CP2K did not finish {crystal.formula} within {told['seconds']:g} s") from error
    out = (folder / "out.txt").read_text(errors="replace") if (folder / "out.txt").exists() else ""
    if ended.returncode or "PROGRAM ENDED" not in out:
        raise RunError(f"CP2K stopped on {crystal.formula} (exit code {ended.returncode}): {_complaint(out, ended.stderr)}")
    if points is not None and "SCF run converged" not in out:
        raise RunError(f"CP2K did not converge {crystal.formula} in {told['steps']} steps")
    return _Told(folder, sum(basis[int(z)].size for z in crystal.numbers), points)


def _complaint(out: str, errors: str) -> str:
    """CP2K's own words: what stands beside its picture of a man who hangs."""
    picture = r"^ \*\s*(?:\[ABORT\]|\\___/|O/\||/\| \||/ \\|/   \\|___|\|)?(.*?)\*$"
    words = " ".join(m.strip() for m in re.findall(picture, out[out.rfind("[ABORT]") - 300 :], re.MULTILINE) if m.strip(" *"))
    return (words or errors.strip() or "no message")[-300:]


def _last_number(text: str, pattern: str) -> float:
    found = re.findall(pattern, text)
    if not found:
        raise RunError(f"CP2K's output has no line like {pattern!r}; is this version known? 2023.1 was tried")
    return float(found[-1])


def _matrices(folder: Path, text: str, which: str, size: int) -> dict[tuple[int, int, int], Array]:
    """(size, size) of each image; the last table of images in the output is that of the run's end."""
    head = rf"{which} CSR write\|\s*(\d+) periodic images\s*\n\s*Number\s+X\s+Y\s+Z\s*\n((?:\s+(?:\d+|\*+)\s+-?\d+\s+-?\d+\s+-?\d+\s*\n)+)"
    tables = re.findall(head, text)
    if not tables:
        raise RunError(f"CP2K wrote no table of images for {which}; is this version known? 2023.1 was tried")
    count, table = int(tables[-1][0]), tables[-1][1].strip().splitlines()
    if len(table) != count:
        raise RunError(f"CP2K's table of images has {len(table)} lines, announced were {count}: its output is cut off")
    found = {}
    for number, line in enumerate(table, start=1):
        image = tuple(int(w) for w in line.split()[-3:])
        path = folder / f"run-{which}_SPIN_1_R_{number}-1_0.csr"
        if not path.exists():
            raise RunError(f"CP2K announced image {number} of {which} but did not write {path.name}")
        found[image] = _sparse(path, size)
    return found  # type: ignore[return-value]


def _sparse(path: Path, size: int) -> Array:
    matrix = np.zeros((size, size))
    if path.stat().st_size:
        rows = np.loadtxt(path, ndmin=2)
        matrix[rows[:, 0].astype(int) - 1, rows[:, 1].astype(int) - 1] = rows[:, 2]
    return matrix


def _bands(path: Path, points: Array) -> Reference:
    """Eigenvalues (eV) at the special points, in their order."""
    blocks = re.split(r"#\s+Point \d+\s+Spin 1:", path.read_text())[1:]
    found: dict[int, Array] = {}
    for block in blocks:
        head, *lines = block.strip().splitlines()
        k = np.array([float(w) for w in head.split()[:3]])
        row = int(np.argmin(np.abs(points - k).sum(1)))
        if np.abs(points[row] - k).max() < 1e-6:
            found[row] = np.array([float(line.split()[1]) for line in lines if line.strip() and not line.strip().startswith("#")])
    rows = sorted(found)
    if not rows:
        raise RunError("CP2K wrote no bands at the points asked for; is this version known? 2023.1 was tried")
    return Reference(points[rows], np.stack([found[r] for r in rows]))


def _assembled(
    crystal: Crystal, basis: Mapping[int, Basis], whole: NDArray[np.int64], kinds: Mapping[str, Mapping[tuple[int, int, int], Array]]
) -> OrbitalMatrices:
    """Blocks of all images with anything in them; R counts from the positions as the caller has them."""
    convert = convention("cp2k")
    bases = [basis[int(z)] for z in crystal.numbers]
    ends = np.cumsum([b.size for b in bases])
    cut = [slice(e - b.size, e) for e, b in zip(ends, bases, strict=True)]
    images = sorted(set().union(*(set(m) for m in kinds.values())))
    zero = np.zeros((int(ends[-1]),) * 2)
    pairs, shifts = [], []
    blocks: dict[str, list[Array]] = {kind: [] for kind in kinds}
    for image in images:
        matrices = {kind: found.get(image, zero) for kind, found in kinds.items()}
        for i in range(len(bases)):
            for j in range(len(bases)):
                own = {kind: m[cut[i], cut[j]] for kind, m in matrices.items()}
                if not any(np.any(b) for b in own.values()):
                    continue
                pairs.append((i, j))
                # r_j + R of the caller's atoms: both were moved by whole lattice vectors
                shifts.append(np.array(image) - whole[j] + whole[i])
                for kind, block in own.items():
                    unit = 1.0 if kind == "S" else HARTREE
                    blocks[kind].append(convert.to_std(block, bases[i], bases[j]) * unit)
    return OrbitalMatrices.from_pairs(crystal, basis, np.array(pairs), np.array(shifts), blocks)
