"""The codes behind DFT oracles: whether they are installed, which elements they have data for, and an ASE calculator for a protocol.

GPAW runs inside the process (plane waves, PAW data from its own package); CP2K, Quantum ESPRESSO and ABINIT are programs that ASE starts.
`changes` are the keys a repair changes in a code's input (`naica.discover.dft.repair`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from naica.discover.dft.protocol import LADDER, DftProtocol
from naica.errors import ConfigError, InputError, MissingPart
from naica.structure import Crystal
from naica.structure.elements import element, symbol

RYDBERG = 13.605693122994  # eV

# ASE calculators; those that run programs have no base class in common with the others
Make = Callable[[Crystal, DftProtocol, float, Mapping[str, Any], Path], Any]


@dataclass(frozen=True)
class Code:
    """One code.

    Parameters
    ----------
    name : of the oracle
    version, data : what is installed, and which pseudopotentials (both MissingPart where something is not there)
    elements : symbols it has data for
    make : an ASE calculator of (crystal, protocol, cut-off in eV, changes, folder)
    log : the file in the folder whose end tells of errors
    functionals : that the adapter translates; empty for all
    u : whether the adapter does Hubbard U
    ladder : cut-offs in eV that "auto" tries
    least_cutoff : whether the cut-offs known to be too low for PAW plane waves apply
    """

    name: str
    version: Callable[[], str]
    data: Callable[[], str]
    elements: Callable[[], frozenset[str]]
    make: Make
    log: str
    functionals: tuple[str, ...] = ()
    u: bool = False
    least_cutoff: bool = False
    ladder: tuple[float, ...] = LADDER

    def check(self, protocol: DftProtocol) -> None:
        """ConfigError if the adapter cannot do what a protocol asks."""
        if self.functionals and protocol.functional not in self.functionals:
            raise ConfigError(
                f"{self.name}: functional {protocol.functional!r} is not among those known here: {', '.join(self.functionals)}"
            )
        if protocol.hubbard_u and not self.u:
            raise ConfigError(f"{self.name}: this adapter has no Hubbard U; use gpaw or vasp, or take hubbard_u out")


def code(name: str) -> Code:
    """A code by the name of its oracle."""
    return CODES[name]


# --- GPAW ----------------------------------------------------------------------------------------------------------------------
def _gpaw_version() -> str:
    try:
        return version("gpaw")
    except PackageNotFoundError:
        raise MissingPart(
            "GPAW is not installed; in a checkout of naica: make dft (builds it with g++ alone); or see docs/dft.md"
        ) from None


def _gpaw_data() -> str:
    _gpaw_version()
    given = os.environ.get("GPAW_SETUP_PATH", "")
    try:
        packaged = f"gpaw-data {version('gpaw-data')}"
    except PackageNotFoundError:
        if not given:
            raise MissingPart("GPAW has no PAW data; pip install gpaw-data, or set GPAW_SETUP_PATH") from None
        packaged = "own"
    return f"GPAW PAW, {packaged}" + (f", then {Path(given).name}" if given and packaged != "own" else "")


@cache
def _gpaw_elements() -> frozenset[str]:
    _gpaw_version()
    from gpaw import setup_paths

    found = set()
    for folder in map(Path, list(setup_paths)):
        found |= {file.name.split(".")[0] for file in folder.glob("*.PBE.gz")} | {file.name.split(".")[0] for file in folder.glob("*.PBE")}
    return frozenset(s for s in found if _is_element(s))


def _gpaw(crystal: Crystal, protocol: DftProtocol, cutoff: float, changes: Mapping[str, Any], folder: Path) -> Any:
    from gpaw import GPAW, PW

    smearing: dict[str, Any] = {"name": protocol.smearing, "width": protocol.width}
    if protocol.smearing == "gaussian":
        smearing = {"name": "methfessel-paxton", "order": 0, "width": protocol.width}
    settings: dict[str, Any] = {
        "mode": PW(cutoff),
        "xc": protocol.functional,
        "kpts": {"size": protocol.mesh(crystal), "gamma": True},
        "occupations": smearing,
        # per electron there; atoms here have some four electrons
        "convergence": {"energy": protocol.scf_energy / 4},
        # relaxed structures keep their symmetry to some 1e-5 only
        "symmetry": {"tolerance": 1e-3},
        "setups": {s: f":{_shell(s)},{u:g}" for s, u in protocol.hubbard_u.items() if s in crystal.composition},
        "maxiter": 150,
        # empty ones; by default there are no more bands than atomic orbitals, which for calcium leaves none at all
        "nbands": -(3 + len(crystal)),
        "spinpol": protocol.first_moments(crystal) is not None,
        "txt": str(folder / "gpaw.txt"),
    }
    for key in ("maxiter", "eigensolver", "nbands", "symmetry"):
        if key in changes:
            settings[key] = changes[key]
    if "mixer" in changes:
        settings["mixer"] = changes["mixer"]
    return GPAW(**settings)


def _shell(name: str) -> str:
    number = element(name).number
    return "f" if 57 <= number <= 71 or 89 <= number <= 103 else "d"


# --- programs ------------------------------------------------------------------------------------------------------------------
def _program(names: Sequence[str], variable: str, hint: str) -> str:
    for name in (os.environ.get(variable, ""), *names):
        if name and (found := shutil.which(name)):
            return found
    raise MissingPart(f"{names[0]} is not installed (not on the path); {hint}; or set {variable}")


@cache
def _said(program: str, *arguments: str) -> str:
    """What a program prints about itself."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _is_element(text: str) -> bool:
    return text in _SYMBOLS


_SYMBOLS = frozenset(symbol(z) for z in range(1, 104))


def _pseudo_files(folder: Path, pattern: str) -> dict[str, str]:
    """Element → file name; the first in alphabetical order of a pattern like ``*.UPF``."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob(pattern), key=lambda f: f.name.lower()):
        head = re.split(r"[._-]", file.name)[0].capitalize()
        if _is_element(head):
            found.setdefault(head, file.name)
    return found


def _lacking(crystal: Crystal, have: Mapping[str, str], where: Path, who: str) -> None:
    missing = [s for s in crystal.composition if s not in have]
    if missing:
        raise InputError(f"{who} has no pseudopotential for {', '.join(missing)} in {where}")


# CP2K
def _cp2k_program() -> str:
    return _program(("cp2k_shell.psmp", "cp2k_shell", "cp2k_shell.ssmp"), "NAICA_CP2K_SHELL", "on Debian: apt install cp2k cp2k-data")


def _cp2k_version() -> str:
    text = _said(_cp2k_program().replace("cp2k_shell", "cp2k"), "--version")
    found = re.search(r"CP2K version\s+(\S+)", text)
    return found.group(1) if found else ""


def _cp2k_folder() -> Path:
    for place in (
        os.environ.get("CP2K_DATA_DIR", ""),
        "/usr/share/cp2k",
        str(Path(_cp2k_program()).parent.parent / "share" / "cp2k" / "data"),
    ):
        if place and (Path(place) / "BASIS_MOLOPT").is_file() and (Path(place) / "GTH_POTENTIALS").is_file():
            return Path(place)
    raise MissingPart("the data of CP2K were not found (BASIS_MOLOPT, GTH_POTENTIALS); install cp2k-data, or set CP2K_DATA_DIR")


_CP2K_BASIS = "DZVP-MOLOPT-SR-GTH"


@cache
def _cp2k_charges() -> dict[str, int]:
    """Element → valence electrons of the first basis set of the kind used here whose potential exists too."""
    folder = _cp2k_folder()
    potentials = {tuple(line.split()[:2]) for line in (folder / "GTH_POTENTIALS").read_text().splitlines() if "GTH-PBE-q" in line}
    found: dict[str, int] = {}
    for line in (folder / "BASIS_MOLOPT").read_text().splitlines():
        words = line.split()
        if len(words) > 1 and _is_element(words[0]) and (named := [w for w in words[1:] if re.fullmatch(rf"{_CP2K_BASIS}-q\d+", w)]):
            charge = int(named[0].rpartition("-q")[2])
            if (words[0], f"GTH-PBE-q{charge}") in potentials:
                found.setdefault(words[0], charge)
    return found


def _cp2k(crystal: Crystal, protocol: DftProtocol, cutoff: float, changes: Mapping[str, Any], folder: Path) -> Any:
    from ase.calculators.cp2k import CP2K

    charges, place = _cp2k_charges(), _cp2k_folder()
    _lacking(crystal, {s: str(q) for s, q in charges.items()}, place, "CP2K")
    a, b, c = protocol.mesh(crystal)
    kinds = "\n".join(
        f"&KIND {s}\n BASIS_SET {_CP2K_BASIS}-q{charges[s]}\n POTENTIAL GTH-PBE-q{charges[s]}\n&END KIND" for s in crystal.composition
    )
    smear = "FERMI_DIRAC"
    # the temperature whose kT is the width
    kelvin = protocol.width / 8.617333262e-5
    electrons = sum(charges[s] for s in crystal.symbols)
    text = f"""
&FORCE_EVAL
 &DFT
  &KPOINTS
   SCHEME MACDONALD {a} {b} {c} {_gamma_shift(a)} {_gamma_shift(b)} {_gamma_shift(c)}
   SYMMETRY OFF
  &END KPOINTS
  &SCF
   EPS_SCF 1e-6
   ADDED_MOS {max(6, electrons // 2)}
   &MIXING
    METHOD BROYDEN_MIXING
    ALPHA {changes.get("alpha", 0.3)}
   &END MIXING
   &SMEAR ON
    METHOD {smear}
    ELECTRONIC_TEMPERATURE [K] {kelvin:.3f}
   &END SMEAR
  &END SCF
 &END DFT
 &SUBSYS
{kinds}
 &END SUBSYS
&END FORCE_EVAL
"""
    return CP2K(
        label=str(folder / "cp2k"),
        command=f"env CP2K_DATA_DIR={place} {_cp2k_program()}",
        cutoff=cutoff,
        xc=protocol.functional,
        basis_set=None,
        basis_set_file="BASIS_MOLOPT",
        potential_file="GTH_POTENTIALS",
        pseudo_potential=None,
        max_scf=int(changes.get("max_scf", 80)),
        inp=text,
    )


def _gamma_shift(n: int) -> float:
    """CP2K's MacDonald shift that puts Γ into a mesh of n points."""
    return 0.0 if n % 2 else 0.5 / n


# Quantum ESPRESSO
def _espresso_program() -> str:
    return _program(("pw.x",), "NAICA_PWX", "on Debian: apt install quantum-espresso")


def _espresso_folder() -> Path:
    for place in (os.environ.get("ESPRESSO_PSEUDO", ""), "/usr/share/espresso/pseudo"):
        if place and any(Path(place).glob("*.[Uu][Pp][Ff]")):
            return Path(place)
    raise MissingPart(
        "no UPF files for Quantum ESPRESSO; set ESPRESSO_PSEUDO to a folder of one consistent family (SSSP or PseudoDojo, PBE)"
    )


def _espresso_version() -> str:
    found = re.search(r"PWSCF v\.(\S+)", _said(_espresso_program(), "-in", os.devnull))
    return found.group(1) if found else ""


def _espresso_data() -> str:
    folder = _espresso_folder()
    names = ",".join(f"{s}={f}" for s, f in sorted(_pseudo_files(folder, "*.[Uu][Pp][Ff]").items()))
    return f"UPF {folder.name} {_digest(names)}"


def _espresso(crystal: Crystal, protocol: DftProtocol, cutoff: float, changes: Mapping[str, Any], folder: Path) -> Any:
    from ase.calculators.espresso import Espresso, EspressoProfile

    place = _espresso_folder()
    have = _pseudo_files(place, "*.[Uu][Pp][Ff]")
    _lacking(crystal, have, place, "Quantum ESPRESSO")
    names = {"fermi-dirac": "fd", "gaussian": "gaussian", "methfessel-paxton": "mp"}
    electrons: dict[str, Any] = {"conv_thr": protocol.scf_energy * len(crystal) / RYDBERG / 10, "mixing_beta": 0.4}
    system: dict[str, Any] = {
        "ecutwfc": cutoff / RYDBERG,
        # ultrasoft and PAW densities need more than four times the cut-off
        "ecutrho": 8 * cutoff / RYDBERG,
        "input_dft": protocol.functional,
        "occupations": "smearing",
        "smearing": names[protocol.smearing],
        "degauss": protocol.width / RYDBERG,
        "nspin": 2 if protocol.first_moments(crystal) else 1,
    }
    control: dict[str, Any] = {"calculation": "scf", "tprnfor": True, "tstress": True}
    for key, value in changes.items():
        if key in ("mixing_beta", "mixing_mode", "electron_maxstep", "diagonalization"):
            electrons[key] = value
        elif key == "nosym":
            system[key] = value
        elif key == "disk_io":
            control[key] = value
    return Espresso(
        profile=EspressoProfile(command=_espresso_program(), pseudo_dir=str(place)),
        directory=str(folder),
        input_data={"control": control, "system": system, "electrons": electrons},
        pseudopotentials={s: have[s] for s in crystal.composition},
        kpts=protocol.mesh(crystal),
        koffset=(0, 0, 0),
    )


# ABINIT
def _abinit_program() -> str:
    return _program(("abinit",), "NAICA_ABINIT", "on Debian: apt install abinit abinit-data")


def _abinit_folder() -> Path:
    for place in (os.environ.get("ABINIT_PP_PATH", "").split(":")[0], "/usr/share/abinit/psp"):
        if place and any(Path(place).rglob("*.xml")):
            return next(iter(sorted({f.parent for f in Path(place).rglob("*.xml")})))
    raise MissingPart("no PAW data (*.xml) for ABINIT; install abinit-data, or set ABINIT_PP_PATH to a folder of JTH data, PBE")


def _abinit_data() -> str:
    folder = _abinit_folder()
    return f"PAW XML {folder.name} {_digest(','.join(sorted(_pseudo_files(folder, '*.xml').values())))}"


def _abinit(crystal: Crystal, protocol: DftProtocol, cutoff: float, changes: Mapping[str, Any], folder: Path) -> Any:
    from ase.calculators.abinit import Abinit, AbinitProfile

    place = _abinit_folder()
    _lacking(crystal, _pseudo_files(place, "*.xml"), place, "ABINIT")
    # ASE writes energies with their unit, eV
    settings: dict[str, Any] = {
        "ecut": cutoff,
        "pawecutdg": 2 * cutoff,
        "ixc": 11,  # PBE
        "occopt": {"fermi-dirac": 3, "gaussian": 7, "methfessel-paxton": 6}[protocol.smearing],
        "tsmear": protocol.width,
        "toldfe": protocol.scf_energy * len(crystal) / 10,
        "ngkpt": " ".join(map(str, protocol.mesh(crystal))),
        "nshiftk": 1,
        "shiftk": "0 0 0",
        "nsppol": 2 if protocol.first_moments(crystal) else 1,
        "nstep": 60,
        "optforces": 1,
        "optstress": 1,
        "chksymbreak": 0,
        "pps": "pawxml",
        "xc": "GGA",
    }
    settings.update({k: v for k, v in changes.items() if k in ("diemix", "iprcel", "nstep", "nsym")})
    return Abinit(profile=AbinitProfile(_abinit_program(), pp_paths=[str(place)]), directory=str(folder), **settings)


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]


CODES: Mapping[str, Code] = {
    "gpaw": Code("gpaw", _gpaw_version, _gpaw_data, _gpaw_elements, _gpaw, "gpaw.txt", u=True, least_cutoff=True),
    "cp2k": Code(
        "cp2k",
        _cp2k_version,
        lambda: f"GTH-PBE, {_CP2K_BASIS}" if _cp2k_folder() else "",
        lambda: frozenset(_cp2k_charges()),
        _cp2k,
        "cp2k.out",
        functionals=("PBE",),
        # of the grid of densities, which must be far finer than that of wave functions
        ladder=tuple(RYDBERG * ry for ry in (200, 300, 400, 500, 600, 800)),
    ),
    "espresso": Code(
        "espresso",
        _espresso_version,
        _espresso_data,
        lambda: frozenset(_pseudo_files(_espresso_folder(), "*.[Uu][Pp][Ff]")),
        _espresso,
        "espresso.pwo",
        functionals=("PBE", "PBEsol"),
    ),
    "abinit": Code(
        "abinit",
        lambda: _said(_abinit_program(), "--version").strip(),
        _abinit_data,
        lambda: frozenset(_pseudo_files(_abinit_folder(), "*.xml")),
        _abinit,
        "abinit.abo",
        functionals=("PBE",),
    ),
}
