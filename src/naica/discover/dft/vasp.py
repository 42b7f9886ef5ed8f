"""VASP, which runs elsewhere: a folder of inputs per candidate, results read back when they are there.

Inputs are those of Materials Project (pymatgen's MPRelaxSet and MPStaticSet), so that results compare with its database and may carry its
corrections. A campaign writes the inputs of a whole round, says where they are and stops; once VASP has run in them, the same command goes
on. With `command` the program is started here, folder by folder.

POTCAR files are licensed: they are written where pymatgen knows the library (PMG_VASP_PSP_DIR), else POTCAR.spec tells which to take.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from naica.data.labels import Level
from naica.discover.dft.corrections import LEAST_CUTOFF, NAME, mismatch, mp2020, refuse_unless_mp
from naica.discover.dft.protocol import GPA, DftProtocol, protocol_of
from naica.discover.dft.repair import changes_of, repair_for
from naica.discover.oracle import OracleResult, checked
from naica.errors import ConfigError, InputError, LevelError, MissingPart, RunError
from naica.potential.relax import relax
from naica.structure import Crystal

_OUTPUTS = ("vasprun.xml", "vasprun.xml.gz")
_LOGS = ("vasp.out", "OUTCAR", "stdout", "std_err.txt")
_LOG_END = 6000
_NOTES = "naica.json"


@dataclass(frozen=True)
class VaspRun:
    """What a ``vasprun.xml`` tells.

    `energy` in eV for the cell (extrapolated to zero width), `forces` (n, 3) eV/Å, `stress` (3, 3) eV/Å³, `gap` eV; `electronic` and
    `ionic` say what converged, `steps` how often atoms moved; `hubbard_u` in eV by element, `potentials` as named in the file.
    """

    crystal: Crystal
    energy: float
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    gap: float | None
    electronic: bool
    ionic: bool
    steps: int
    functional: str
    cutoff: float
    hubbard_u: Mapping[str, float]
    potentials: tuple[str, ...]
    version: str


def read_vasp(path: str | Path) -> VaspRun:
    """Read a ``vasprun.xml`` (also gzipped) or the folder that holds it.

    Raises
    ------
    InputError
        If there is none, or it is cut off before an energy was written.
    """
    from pymatgen.io.vasp.outputs import Vasprun

    file = Path(path)
    if file.is_dir():
        found = next((file / name for name in _OUTPUTS if (file / name).is_file()), None)
        if found is None:
            raise InputError(f"no vasprun.xml in {file}; run VASP there first")
        file = found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run: Any = Vasprun(str(file), parse_potcar_file=False, parse_dos=False, parse_eigen=True, exception_on_bad_xml=True)
            last = run.ionic_steps[-1]
            gap = _gap(run)
    except Exception as error:  # pymatgen raises whatever the XML parser does
        raise InputError(f"{file} cannot be read ({type(error).__name__}: {error}); was the run cut off?") from error
    u = {s: float(v) for s, v in run.hubbards.items() if v}
    forces, stress = last.get("forces"), last.get("stress")
    return VaspRun(
        Crystal.from_pymatgen(run.final_structure),
        float(last.get("e_0_energy", run.final_energy)),
        None if forces is None else np.array(forces, dtype=np.float64),
        # VASP: kbar, positive under compression
        None if stress is None else -np.array(stress, dtype=np.float64) * 0.1 / GPA,
        gap,
        bool(run.converged_electronic),
        bool(run.converged_ionic),
        len(run.ionic_steps),
        _functional(run),
        float(run.parameters.get("ENMAX", run.incar.get("ENCUT", np.nan))),
        u,
        tuple(run.potcar_symbols),
        str(run.vasp_version),
    )


def _gap(run: Any) -> float | None:
    try:
        return float(run.eigenvalue_band_properties[0])
    except Exception:  # runs without eigenvalues
        return None


def _functional(run: Any) -> str:
    """PBE, PBEsol, SCAN, … from what decided it; LDA where nothing says otherwise."""
    for key, off in (("METAGGA", ("NONE", "--", "")), ("GGA", ("--", ""))):
        value = str(run.incar.get(key, run.parameters.get(key, ""))).strip().upper()
        if value not in off and value != "NONE":
            return {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE"}.get(value, value)
    return "PBE" if any("PBE" in text for text in run.potcar_symbols) else "LDA"


class VaspOracle:
    """VASP as an oracle.

    Parameters
    ----------
    folder : where inputs are written and results looked for, one folder per structure
    protocol : `DftProtocol`; functional PBE, and cut-off "auto" is Materials Project's 520 eV
    elements : of the campaign
    command : starts VASP in a folder ("mpirun -n 8 vasp_std"); empty: somebody else runs it
    kind : "relax" or "static"
    """

    name = "vasp"

    def __init__(
        self,
        folder: str,
        protocol: DftProtocol | dict[str, Any] | None = None,
        elements: Sequence[str] = (),
        *,
        command: str = "",
        kind: Literal["relax", "static"] = "relax",
    ) -> None:
        if kind not in ("relax", "static"):
            raise ConfigError(f"vasp: kind = {kind!r}; expected relax or static")
        given = protocol_of(protocol)
        if given.functional != "PBE":
            raise ConfigError(
                f"vasp: inputs are those of Materials Project, PBE and PBE+U; functional {given.functional!r} is not among them"
            )
        refuse_unless_mp(given.corrections, self.name, given)
        self.protocol = given.changed(cutoff=LEAST_CUTOFF) if given.cutoff == "auto" else given
        self.folder, self.command, self.kind, self.elements = str(folder), command, kind, tuple(elements)
        self.level = self._level()

    @property
    def settings(self) -> dict[str, Any]:
        """What must agree for an old result to answer."""
        return {"kind": self.kind, **self.protocol.settings()}

    def _level(self) -> Level:
        """PBE with Materials Project's potentials and U."""
        p = self.protocol
        corrections = NAME if p.corrections == "mp2020" else ""
        u = p.u or "Materials Project's, with O or F"
        return Level("PBE", u, f"MPRelaxSet, {p.cutoff:g} eV, protocol {p.hash(self.name, self.kind)}", corrections, "vasp", "")

    # --- inputs ----------------------------------------------------------------------------------------------------------------
    def place(self, crystal: Crystal) -> Path:
        """The folder of a structure."""
        return Path(self.folder) / f"{crystal.formula}-{crystal.hash[:16]}"

    def write(self, crystal: Crystal, changes: Mapping[str, Any] | None = None) -> Path:
        """Write INCAR, KPOINTS, POSCAR and POTCAR (or POTCAR.spec); returns the folder.

        Raises
        ------
        InputError
            If Materials Project has no potential for an element.
        """
        from pymatgen.io.vasp.sets import MPRelaxSet, MPStaticSet

        p = self.protocol
        start = crystal
        if p.prerelax:
            done = relax(crystal, p.prerelax, p.prerelax_fmax, p.prerelax_steps, p.cell, symmetry=p.symmetry)[0]
            start = done.crystal if done.crystal is not None and done.status != "failed" else crystal
        incar: dict[str, Any] = {"ENCUT": p.cutoff, "NSW": p.steps if self.kind == "relax" else 0, "SYSTEM": crystal.formula}
        if not p.cell and self.kind == "relax":
            incar["ISIF"] = 2
        if p.hubbard_u:
            incar |= {"LDAU": True, "LDAUTYPE": 2, "LDAUU": {s: p.hubbard_u.get(s, 0.0) for s in crystal.composition}}
        incar |= {k: v for k, v in (changes or {}).items() if k.isupper()}
        kind = MPRelaxSet if self.kind == "relax" else MPStaticSet
        place = self.place(crystal)
        place.mkdir(parents=True, exist_ok=True)
        structure: Any = start.to_pymatgen()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made = kind(structure, user_incar_settings=incar, user_potcar_functional="PBE")
                try:
                    made.write_input(str(place), potcar_spec=False)
                except Exception:  # pymatgen has no library of POTCAR files, or not this one
                    made.write_input(str(place), potcar_spec=True)
            except KeyError as error:
                raise InputError(f"Materials Project has no VASP potential for {error}; leave {crystal.formula} out") from error
        self._note(place, crystal=crystal.hash, changes=dict(changes or {}))
        return place

    def _note(self, place: Path, **facts: Any) -> None:
        notes = _notes(place) | facts
        (place / _NOTES).write_text(json.dumps(notes, sort_keys=True, default=str), encoding="utf-8")

    def await_inputs(self, jobs: Mapping[str, Crystal]) -> None:
        """Write the inputs of all jobs that have neither inputs nor results yet.

        Raises
        ------
        RunError
            If nobody here runs VASP and results are missing: it says how many and where.
        """
        missing = []
        for crystal in jobs.values():
            place = self.place(crystal)
            if not (place / "POSCAR").is_file():
                try:
                    self.write(crystal)
                except InputError:
                    continue  # told as the result of its call
            if not _has_output(place):
                missing.append(place)
        if missing and not self.command:
            raise RunError(
                f"{len(missing)} of {len(jobs)} structures wait for VASP in {self.folder} (for example {missing[0].name}); run VASP in "
                "each of these folders and give the same command again, or set oracle.options.command. Nothing is lost meanwhile"
            )

    # --- results ---------------------------------------------------------------------------------------------------------------
    def evaluate(self, crystals: Sequence[Crystal]) -> list[OracleResult]:
        """Read what VASP left, running it first where a command is given."""
        return [self._evaluate(one) for one in crystals]

    def _evaluate(self, crystal: Crystal) -> OracleResult:
        began = time.perf_counter()

        def failed(reason: str) -> OracleResult:
            return OracleResult(crystal.hash, "failed", reason, None, None, None, None, time.perf_counter() - began, self.level)

        place = self.place(crystal)
        used: list[str] = list(_notes(place).get("repairs", []))
        changes: dict[str, Any] = dict(_notes(place).get("changes", {}))
        try:
            if not (place / "POSCAR").is_file():
                self.write(crystal)
            while True:
                if self.command and not _has_output(place):
                    _run(self.command, place)
                trouble = ""
                run = None
                try:
                    run = read_vasp(place)
                    trouble = _unfinished(run, self.kind)
                except InputError as error:
                    trouble = str(error)
                if not trouble and run is not None:
                    return self._told(crystal, run, used, began)
                row = repair_for("vasp", f"{trouble}\n{_ends(place)}", used) if self.command and len(used) < self.protocol.repairs else None
                if row is None or row.fatal:
                    return failed("; ".join(filter(None, (trouble, f"repaired: {', '.join(used)}" if used else ""))))
                used.append(row.name)
                changes |= _with_bands(changes_of(row, "vasp"), _ends(place))
                self._again(crystal, place, run, changes, used)
        except (InputError, LevelError, MissingPart) as error:
            return failed(str(error))

    def _again(self, crystal: Crystal, place: Path, run: VaspRun | None, changes: dict[str, Any], used: list[str]) -> None:
        """Put the failed run aside and write changed inputs."""
        aside = place / f"attempt-{len(used)}"
        aside.mkdir(exist_ok=True)
        for file in list(place.iterdir()):
            if file.is_file() and file.name != _NOTES:
                file.replace(aside / file.name)
        self.write(crystal, changes)
        if changes.get("from_last") and run is not None:
            run.crystal.to_pymatgen().to(str(place / "POSCAR"), fmt="poscar")  # type: ignore[union-attr]
        self._note(place, repairs=used, changes=changes)

    def _told(self, crystal: Crystal, run: VaspRun, used: Sequence[str], began: float) -> OracleResult:
        why = mismatch(
            crystal.composition, functional=run.functional, cutoff=run.cutoff, hubbard_u=run.hubbard_u, potentials=run.potentials
        )
        energy, reason = run.energy, f"repaired: {', '.join(used)}" if used else ""
        if self.protocol.corrections == "mp2020":
            done = mp2020(
                run.crystal, run.energy, functional=run.functional, cutoff=run.cutoff, hubbard_u=run.hubbard_u, potentials=run.potentials
            )
            energy = done.energy
            parts = ", ".join(f"{name} {value:+.3f} eV" for name, value in done.parts.items()) or "none applies"
            reason = "; ".join(filter(None, (reason, f"{done.version}: {parts}")))
        elif why and not self.protocol.hubbard_u:
            raise LevelError(f"the run in {self.place(crystal)} is not at the campaign's level: {why}")
        result = OracleResult(
            crystal.hash, "converged", reason, run.crystal, energy, run.forces, run.stress, time.perf_counter() - began,
            replace(self.level, version=run.version),
        )  # fmt: skip
        return checked(crystal, result)


def _unfinished(run: VaspRun, kind: str) -> str:
    if not run.electronic:
        return "SCF run NOT converged: the last electronic loop used all its steps"
    if not run.ionic and kind == "relax":
        return f"not converged in {run.steps} steps: the ionic steps are used up"
    return ""


def _has_output(place: Path) -> bool:
    return any((place / name).is_file() for name in _OUTPUTS)


def _notes(place: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((place / _NOTES).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def _ends(place: Path) -> str:
    """The ends of what VASP printed."""
    texts = [(place / name).read_text(encoding="utf-8", errors="replace")[-_LOG_END:] for name in _LOGS if (place / name).is_file()]
    return "\n".join(texts)


def _with_bands(changes: dict[str, Any], told: str) -> dict[str, Any]:
    """The changes with "NBANDS = +20%" counted from what VASP used."""
    if not str(changes.get("NBANDS", "")).startswith("+"):
        return changes
    found = re.findall(r"NBANDS\s*=\s*(\d+)", told)
    more = {"NBANDS": int(np.ceil(1.2 * int(found[-1])))} if found else {}
    return {k: v for k, v in changes.items() if k != "NBANDS"} | more


def _run(command: str, place: Path) -> None:
    if not (place / "POTCAR").is_file():
        raise MissingPart(f"there is no POTCAR in {place}; tell pymatgen where the library is (PMG_VASP_PSP_DIR), or run VASP yourself")
    with (place / "vasp.out").open("w", encoding="utf-8") as out:
        try:
            subprocess.run(shlex.split(command), cwd=place, stdout=out, stderr=subprocess.STDOUT, check=False)
        except FileNotFoundError as error:
            raise MissingPart(f"VASP cannot be started: {error}; set oracle.options.command to how it is started here") from error
