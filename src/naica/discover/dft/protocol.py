"""The protocol of a campaign's DFT: everything that decides an energy, written down once, with a hash that every result carries.

A cut-off ``"auto"`` is found per element before the first call: the element's own crystal (molecular ones: its rocksalt compound with
aluminium) at two volumes, up a ladder of cut-offs, until the energy difference and the stress of two rungs in a row agree with those at its
top. Energy differences converge long before total energies, and a stress tells of a poor basis earlier than either: MgO at 400 eV has its
total energy wrong by little, and a false stress of 59 GPa.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from naica.errors import ConfigError, InputError
from naica.structure import Crystal
from naica.structure.elements import element

GPA = 160.21766208  # GPa in an eV/Å³

# eV; below these a plane-wave PAW calculation of the element's compounds has false stresses of tens of GPa (MgO at 400 eV: 59 GPa,
# at 600 eV 4.5, at 800 eV −0.4; LiF, NiO, FeO, TiN at 450 eV: −17 to −35)
LEAST_CUTOFF = {"O": 700.0, "F": 700.0, "N": 700.0}
LADDER = (250.0, 300.0, 350.0, 400.0, 450.0, 500.0, 600.0, 700.0, 800.0)
_COMPRESSED = 0.94
_TEST_SPACING = 0.55  # 1/Å; the error of a basis hardly depends on k points
_GASES = frozenset({"H", "N", "O", "F", "Cl", "He", "Ne", "Ar", "Kr", "Xe", "Br", "I", "S", "P"})

# elements that start with a moment when spin is "auto"
MAGNETIC = frozenset({"V", "Cr", "Mn", "Fe", "Co", "Ni", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb"})
_FIRST_MOMENT = 3.0  # μ_B


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DftProtocol:
    """What is the same in all calculations of a campaign; the fields are those of section ``[protocol]`` of a campaign file."""

    functional: str = Field(default="PBE", description="exchange and correlation, as the code calls it")
    cutoff: float | Literal["auto"] = Field(default="auto", description="eV, or auto: found per element before the first call")
    cutoff_energy: float = Field(default=0.002, gt=0, description="auto: eV/atom of the energy of compression")
    cutoff_stress: float = Field(default=1.0, gt=0, description="auto: GPa")
    k_spacing: float = Field(default=0.3, gt=0, description="of meshes around Γ, 1/Å with the factor 2π")
    smearing: Literal["fermi-dirac", "gaussian", "methfessel-paxton"] = "fermi-dirac"
    width: float = Field(default=0.1, gt=0, description="of occupations, eV")
    scf_energy: float = Field(default=5e-4, gt=0, description="eV/atom by which the last steps of self-consistency may differ")
    hubbard_u: dict[str, float] = Field(default_factory=dict, description="eV by element, on d (f of lanthanides and actinides)")
    spin: Literal["auto", "none", "ferromagnetic"] = Field(default="auto", description="auto: ferromagnetic start with a magnetic element")
    moments: dict[str, float] = Field(default_factory=dict, description="μ_B to start with, by element")
    cell: bool = Field(default=True, description="whether cells relax")
    fmax: float = Field(default=0.05, gt=0, description="eV/Å")
    steps: int = Field(default=30, ge=0, description="of relaxation; 0 computes the structure as it comes")
    symmetry: bool = Field(default=True, description="keep the space group")
    unfinished: Literal["fail", "keep"] = Field(default="fail", description="keep: take the last step, if no force exceeds kept_fmax")
    kept_fmax: float = Field(default=0.3, gt=0, description="eV/Å")
    prerelax: str = Field(default="", description="a potential that relaxes first, m3gnet-mp-2021 for example")
    prerelax_fmax: float = Field(default=0.05, gt=0, description="eV/Å")
    prerelax_steps: int = Field(default=200, ge=0)
    repairs: int = Field(default=3, ge=0, description="restarts with changed input at most, per structure")
    corrections: Literal["none", "mp2020"] = Field(default="none", description="energy corrections; mp2020 for MP's own settings only")

    def __post_init__(self) -> None:
        for name in ("hubbard_u", "moments"):
            object.__setattr__(self, name, {element(s).symbol: v for s, v in sorted(getattr(self, name).items())})
        if self.cutoff != "auto" and not self.cutoff > 0:
            raise ConfigError(f"cutoff = {self.cutoff!r}; expected eV, or 'auto'")
        if self.functional != "PBE" and self.corrections == "mp2020":
            raise ConfigError(f"corrections = 'mp2020' were fitted to PBE and PBE+U, not to {self.functional}; take them out")

    def settings(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def changed(self, **changes: Any) -> DftProtocol:
        """The same with other values."""
        return DftProtocol(**{**self.settings(), **changes})

    def hash(self, code: str, data: str) -> str:
        """Twelve hex digits that change with any setting, the code, and its pseudopotentials or PAW data."""
        decisive = {k: v for k, v in self.settings().items() if k not in ("repairs", "cutoff_energy", "cutoff_stress", "corrections")}
        return hashlib.sha256(json.dumps([code, data, decisive], sort_keys=True).encode()).hexdigest()[:12]

    @property
    def u(self) -> str:
        """Hubbard U as a level writes it."""
        return ", ".join(f"{s}: {v:g}" for s, v in self.hubbard_u.items())

    def mesh(self, crystal: Crystal) -> tuple[int, int, int]:
        """Γ-centred mesh of k points."""
        lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(crystal.cell), axis=0)
        # a mesh must not jump between cells that differ by rounding
        a, b, c = (max(1, int(np.ceil(x / self.k_spacing - 1e-6))) if p else 1 for x, p in zip(lengths, crystal.pbc, strict=True))
        return a, b, c

    def first_moments(self, crystal: Crystal) -> list[float] | None:
        """Moments (μ_B) to start with; None where spins are paired."""
        moments = [self.moments.get(s, _FIRST_MOMENT if s in MAGNETIC else 0.0) for s in crystal.symbols]
        if self.spin == "ferromagnetic":
            return [m or 0.6 for m in moments]
        return moments if self.spin == "auto" and any(moments) else None

    def cheap(self) -> DftProtocol:
        """The same for the search of a cut-off: coarse k points, nothing moves."""
        return self.changed(k_spacing=max(self.k_spacing, _TEST_SPACING), steps=0, prerelax="", unfinished="fail")


def refuse_low_cutoff(cutoff: float, elements: Sequence[str]) -> None:
    """ConfigError if a plane-wave cut-off is known to be too low for an element."""
    for symbol in elements:
        least = LEAST_CUTOFF.get(symbol, 0.0)
        if cutoff < least:
            raise ConfigError(
                f"[protocol] cutoff = {cutoff:g} eV is too low for {symbol}: MgO has a false stress of 59 GPa at 400 eV, 18 at 500, 4.5 at "
                f"600; give at least {least:g}, or cutoff = 'auto'"
            )


# --- the cut-off -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Trial:
    """One rung for one element: errors against the top of the ladder."""

    symbol: str
    structure: str
    cutoff: float
    energy_error: float
    stress_error: float
    good: bool

    def __str__(self) -> str:
        return (
            f"{self.symbol} ({self.structure}) at {self.cutoff:g} eV: energy difference off by {1000 * self.energy_error:.2f} meV/atom, "
            f"stress by {self.stress_error:.2f} GPa: {'enough' if self.good else 'too low'}"
        )


Energies = Callable[[Crystal, float], tuple[float, float]]
"""(crystal, cut-off in eV) → energy in eV and mean of the stress's diagonal in eV/Å³."""


def converged_cutoff(
    symbols: Sequence[str],
    compute: Energies,
    protocol: DftProtocol,
    store: Path | None = None,
    told: Callable[[Trial], None] = lambda trial: None,
    ladder: Sequence[float] = LADDER,
    floors: bool = True,
) -> tuple[float, list[Trial]]:
    """The lowest rung of the ladder that is enough for every element, and what was tried.

    Parameters
    ----------
    compute : energy and pressure of a crystal at a cut-off
    store : folder where each element's trials are kept; found ones are not computed again
    told : called with each trial
    ladder : cut-offs in eV
    floors : never below `LEAST_CUTOFF`

    Raises
    ------
    InputError
        If an element's structure is unknown.
    """
    trials: list[Trial] = []
    for symbol in sorted(set(symbols)):
        kept = _kept(store, symbol, protocol, ladder)
        found: list[Trial] = []
        for trial in _climb(symbol, compute, protocol, ladder) if kept is None else kept:
            told(trial)
            found.append(trial)
        if kept is None:
            _keep(store, symbol, protocol, ladder, found)
        trials += found
    enough = [_lowest([t for t in trials if t.symbol == s]) for s in {t.symbol for t in trials}]
    return max([*enough, *(LEAST_CUTOFF.get(s, 0.0) for s in symbols if floors)]), trials


def _lowest(trials: Sequence[Trial]) -> float:
    """The first rung after the last bad one."""
    bad = max((k for k, t in enumerate(trials) if not t.good), default=-1)
    return trials[bad + 1].cutoff


def _climb(symbol: str, compute: Energies, protocol: DftProtocol, ladder: Sequence[float]) -> Iterator[Trial]:
    name, crystal = test_crystal(symbol)

    def at(cutoff: float) -> tuple[float, float]:
        whole, pressure = compute(crystal, cutoff)
        squeezed, _ = compute(crystal.scaled(_COMPRESSED), cutoff)
        return (squeezed - whole) / len(crystal), pressure * GPA

    best = at(ladder[-1])
    good: list[bool] = []
    for cutoff in ladder[:-1]:
        found = at(cutoff)
        energy, stress = abs(found[0] - best[0]), abs(found[1] - best[1])
        good = [*good, _good(protocol, energy, stress)]
        yield Trial(symbol, name, cutoff, energy, stress, good[-1])
        # errors change sign on their way down: one small one may be luck
        if good[-2:] == [True, True]:
            return
    yield Trial(symbol, name, ladder[-1], 0.0, 0.0, True)


def test_crystal(symbol: str) -> tuple[str, Crystal]:
    """A small crystal in which an element's basis can be judged, and its formula."""
    from naica.discover.volume import guess_volume
    from naica.structure.prototypes import prototype, reference_structure

    if symbol not in _GASES:
        try:
            crystal = reference_structure(symbol)
            if len(crystal) <= 4:
                return symbol, crystal
        except InputError:
            pass
    # aluminium is enough for itself at 250 eV, so what the check finds is the other's
    partner = "Al"
    crystal = prototype("rocksalt").crystal([partner, symbol])
    return crystal.formula, crystal.scaled(guess_volume(crystal))


def _file(store: Path | None, symbol: str, protocol: DftProtocol, ladder: Sequence[float]) -> Path | None:
    if store is None:
        return None
    decisive = json.dumps([protocol.functional, protocol.hubbard_u, protocol.spin, protocol.moments, list(ladder)])
    return store / f"cutoff-{symbol}-{hashlib.sha256(decisive.encode()).hexdigest()[:10]}.json"


def _kept(store: Path | None, symbol: str, protocol: DftProtocol, ladder: Sequence[float]) -> list[Trial] | None:
    """Earlier trials as this protocol judges them; None if they do not reach two good ones in a row, or the top of the ladder."""
    file = _file(store, symbol, protocol, ladder)
    try:
        raw = json.loads(file.read_text(encoding="utf-8")) if file else []
        errors = [(t["structure"], t["cutoff"], t["energy_error"], t["stress_error"]) for t in raw]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    trials = []
    for name, cutoff, energy, stress in errors:
        trials.append(Trial(symbol, name, cutoff, energy, stress, _good(protocol, energy, stress)))
        if trials[-1].good and (cutoff == ladder[-1] or (len(trials) > 1 and trials[-2].good)):
            return trials
    return None


def _good(protocol: DftProtocol, energy: float, stress: float) -> bool:
    return energy <= protocol.cutoff_energy and stress <= protocol.cutoff_stress


def _keep(store: Path | None, symbol: str, protocol: DftProtocol, ladder: Sequence[float], trials: Sequence[Trial]) -> None:
    file = _file(store, symbol, protocol, ladder)
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(json.dumps([t.__dict__ for t in trials]), encoding="utf-8")
    aside.replace(file)


def protocol_of(given: DftProtocol | dict[str, Any] | None) -> DftProtocol:
    """A protocol from plain data (ConfigError for unknown keys and values out of range)."""
    if given is None or isinstance(given, DftProtocol):
        return given or DftProtocol()
    try:
        return TypeAdapter(DftProtocol).validate_python(given)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors())
        raise ConfigError(f"[protocol] {told}; known: {', '.join(DftProtocol.__dataclass_fields__)}") from error
