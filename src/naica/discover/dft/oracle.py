"""DFT as an oracle: a potential relaxes first, the code finishes, failures are repaired by the table, results are kept for others.

A call walks: cache → elements known? → prerelax → code, relaxed by naica's own optimiser → repair and again, within the budget → a result
whose level names functional, U, data, cut-off and the protocol's hash. The cache lies in the user's own folder, one folder per protocol, so
a second campaign at the same protocol does not pay for elements and competing phases again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from naica.data.labels import Level
from naica.discover.dft.codes import Code, code
from naica.discover.dft.corrections import refuse_unless_mp
from naica.discover.dft.protocol import DftProtocol, Trial, converged_cutoff, protocol_of, refuse_low_cutoff
from naica.discover.dft.repair import changes_of, repair_for, why_hopeless
from naica.discover.engines.spool import Spool, fingerprint
from naica.discover.oracle import OracleResult, checked
from naica.errors import ConfigError, InputError, RunError
from naica.potential.relax import relax
from naica.structure import Crystal

_LOG_END = 3000  # characters of a code's output looked at for reasons


def cache_folder() -> Path:
    """Where DFT results of all campaigns lie: NAICA_DFT_CACHE, else the user's cache."""
    if given := os.environ.get("NAICA_DFT_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "naica" / "dft"


class DftOracle:
    """A DFT code as an oracle, at one protocol.

    Parameters
    ----------
    code : ``gpaw``, ``cp2k``, ``espresso`` or ``abinit``
    protocol : a `DftProtocol`, or its fields as a dictionary
    elements : of the campaign; an "auto" cut-off is chosen for all of them together
    cache : True for the user's cache, False for none, or a folder
    max_seconds : a relaxation gives up after this time (looked at between steps)
    scratch : folder for the codes' files, kept; by default a temporary one that goes

    Raises
    ------
    ConfigError
        If the code cannot do what the protocol asks, or a cut-off is known to be too low.
    MissingPart
        If the code or its data are not installed.
    """

    def __init__(
        self,
        code_name: str,
        protocol: DftProtocol | dict[str, Any] | None = None,
        elements: Sequence[str] = (),
        *,
        cache: bool | str = True,
        max_seconds: float | None = None,
        scratch: str | None = None,
    ) -> None:
        self.name: str = code_name
        self.protocol = protocol_of(protocol)
        self.elements = tuple(elements)
        self.max_seconds, self.scratch = max_seconds, scratch
        self.cache = (cache_folder() if cache is True else Path(cache)) if cache else None
        found = code(code_name)
        found.check(self.protocol)
        self.version, self.data = found.version(), found.data()
        known = found.elements()
        foreign = [s for s in self.elements if s not in known]
        if foreign:
            raise ConfigError(f"{self.name} has no data ({self.data}) for {', '.join(foreign)}")
        refuse_unless_mp(self.protocol.corrections, self.name, self.protocol)
        self.trials: tuple[Trial, ...] = ()
        self.level = self._level()
        if self.protocol.cutoff != "auto":
            self._least(self.protocol.cutoff, self.elements)

    @property
    def _code(self) -> Code:
        return code(self.name)

    def _least(self, cutoff: float, elements: Sequence[str]) -> None:
        if self._code.least_cutoff:
            refuse_low_cutoff(cutoff, elements)

    # --- the protocol ----------------------------------------------------------------------------------------------------------
    @property
    def settings(self) -> dict[str, Any]:
        """What the spool and the cache compare."""
        return {"code": self.name, "data": self.data, **self.protocol.settings()}

    @property
    def hash(self) -> str:
        """Of the protocol, the code and its data."""
        return self.protocol.hash(self.name, self.data)

    def _level(self) -> Level:
        """Functional, U, data, cut-off and the protocol's hash."""
        cutoff = self.protocol.cutoff
        basis = "cut-off not chosen yet" if cutoff == "auto" else f"{cutoff:g} eV, protocol {self.hash}"
        return Level(self.protocol.functional, self.protocol.u, f"{self.data}, {basis}", "", self.name, self.version)

    def prepare(self, kept: Mapping[str, Any] | None = None, told: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
        """Freeze the protocol: find an "auto" cut-off, or take what a campaign has used so far.

        Parameters
        ----------
        kept : what an earlier call returned
        told : called with a line per trial of the convergence check

        Returns
        -------
        The frozen protocol as plain data, with hash, code, data and the trials.

        Raises
        ------
        ConfigError
            If code or data have changed since `kept`.
        """
        if kept is not None:
            self.protocol = protocol_of(dict(kept["settings"]))
            self.level = self._level()
            if kept["data"] != self.data:
                raise ConfigError(
                    f"the campaign was computed with {kept['data']}, here is {self.data}: their energies do not compare; "
                    "install the former again, or start another campaign"
                )
        elif self.protocol.cutoff == "auto":
            self.freeze_cutoff(self.elements, told)
        return {
            "hash": self.hash,
            "code": self.name,
            "version": self.version,
            "data": self.data,
            "settings": self.protocol.settings(),
            "cutoff_check": [str(t) for t in self.trials] or (list(kept["cutoff_check"]) if kept else []),
        }

    def freeze_cutoff(self, elements: Sequence[str], told: Callable[[str], None] = lambda text: None) -> None:
        """Choose the cut-off for these elements.

        Raises
        ------
        RunError
            If a trial fails.
        """
        if not elements:
            raise InputError("cutoff = 'auto' needs to know the elements; name them, or give the cut-off in eV")
        cheap = self.protocol.cheap()

        def compute(crystal: Crystal, cutoff: float) -> tuple[float, float]:
            done = self._attempts(crystal, cheap.changed(cutoff=cutoff), time.perf_counter())
            if done.status != "converged" or done.energy is None or done.stress is None:
                raise RunError(f"the convergence check of the cut-off failed on {crystal.formula} at {cutoff:g} eV: {done.reason}")
            return done.energy, float(np.trace(done.stress) / 3)

        store = self.cache / f"{self.name}-{_safe(self.data)}" if self.cache else None
        ladder = self._code.ladder
        chosen, trials = converged_cutoff(elements, compute, cheap, store, lambda t: told(str(t)), ladder, self._code.least_cutoff)
        self.trials = tuple(trials)
        self.protocol = self.protocol.changed(cutoff=chosen)
        self.level = self._level()

    # --- calls -------------------------------------------------------------------------------------------------------------------
    def warm(self) -> None:
        """Load the potential that relaxes first."""
        if self.protocol.prerelax:
            from naica.potential.calculators import calculator

            calculator(self.protocol.prerelax)

    def evaluate(self, crystals: Sequence[Crystal]) -> list[OracleResult]:
        """Compute each crystal, or find it in the cache."""
        return [self._evaluate(one) for one in crystals]

    def _evaluate(self, crystal: Crystal) -> OracleResult:
        began = time.perf_counter()
        unknown = [s for s in crystal.composition if s not in self._code.elements()]
        if unknown:
            return self._failed(crystal, f"{self.name} has no data for {', '.join(unknown)}", began)
        if self.protocol.cutoff == "auto":
            self.freeze_cutoff(self.elements or tuple(crystal.composition))
        assert self.protocol.cutoff != "auto"
        try:
            self._least(self.protocol.cutoff, tuple(crystal.composition))
        except ConfigError as error:
            return self._failed(crystal, str(error), began)
        place = Spool(self.cache / self.hash, fingerprint(self)) if self.cache else None
        if place is not None and (kept := place.get(crystal.hash, crystal)) is not None:
            return replace(kept, seconds=0.0, reason="; ".join(filter(None, (kept.reason, f"from the cache ({kept.seconds:.0f} s saved)"))))
        start, told = self._prerelaxed(crystal)
        start = _reduced(start)
        result = checked(crystal, replace(self._attempts(start, self.protocol, began), key=crystal.hash))
        result = replace(result, reason="; ".join(filter(None, (told, result.reason))))
        if place is not None and result.status == "converged":
            # a cache that cannot be written costs time, not results
            try:
                place.put(crystal.hash, crystal, result)
            except OSError as error:
                result = replace(result, reason="; ".join(filter(None, (result.reason, f"not kept in the cache: {error}"))))
        return result

    def _prerelaxed(self, crystal: Crystal) -> tuple[Crystal, str]:
        """The crystal as the potential leaves it; as it was, with the reason, where the potential fails."""
        p = self.protocol
        if not p.prerelax:
            return crystal, ""
        done = relax(crystal, p.prerelax, p.prerelax_fmax, p.prerelax_steps, p.cell, symmetry=p.symmetry)[0]
        if done.crystal is None or done.status == "failed":
            return crystal, f"{p.prerelax} could not relax it first ({done.reason})"
        return done.crystal, ""

    def _attempts(self, crystal: Crystal, protocol: DftProtocol, began: float) -> OracleResult:
        """Run, repair, run again."""
        changes: dict[str, Any] = {}
        used: list[str] = []
        start = crystal
        while True:
            one = self._once(start, protocol, changes)
            if one.status == "converged":
                break
            row = repair_for(self.name, one.trouble, used) if len(used) < protocol.repairs else None
            if row is None or row.fatal:
                reason = why_hopeless(row, one.reason) if row is not None else one.reason
                return self._failed(crystal, _lineage(reason, used), began)
            used.append(row.name)
            more = changes_of(row, self.name)
            if more.pop("from_last", False) and one.crystal is not None:
                start = one.crystal
            changes |= more
        return OracleResult(
            crystal.hash, "converged", _lineage(one.reason, used), one.crystal, one.energy, one.forces, one.stress,
            time.perf_counter() - began, self.level, retryable=False,
        )  # fmt: skip

    def _once(self, crystal: Crystal, protocol: DftProtocol, changes: Mapping[str, Any]) -> _Attempt:
        assert protocol.cutoff != "auto"
        with tempfile.TemporaryDirectory(prefix="naica-dft-") as temporary:
            folder = Path(self.scratch) / crystal.hash[:16] if self.scratch else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            calc = _calculator(self._code, crystal, protocol, protocol.cutoff, changes, folder)
            keep = protocol.symmetry and changes.get("symmetry") != "off"
            done = relax(
                crystal, calc, protocol.fmax, protocol.steps, protocol.cell, symmetry=keep, optimiser="lbfgs", max_seconds=self.max_seconds
            )[0]
            log = _end_of(folder / self._code.log)
        status, reason = done.status, done.reason
        if status == "not converged" and protocol.unfinished == "keep" and done.forces is not None:
            largest = float(np.linalg.norm(done.forces, axis=1).max(initial=0.0))
            if largest <= protocol.kept_fmax:
                status, reason = "converged", f"the last of {done.steps} steps was kept, largest force {largest:.3f} eV/Å"
        return _Attempt(status, reason, f"{done.reason}\n{log}", done.crystal, done.energy, done.forces, done.stress)

    def _failed(self, crystal: Crystal, reason: str, began: float) -> OracleResult:
        return OracleResult(crystal.hash, "failed", reason, None, None, None, None, time.perf_counter() - began, self.level)


@dataclass(frozen=True)
class _Attempt:
    """One run of the code: `trouble` is what the table of repairs is searched with."""

    status: str
    reason: str
    trouble: str
    crystal: Crystal | None
    energy: float | None
    forces: Any
    stress: Any


def _reduced(crystal: Crystal) -> Crystal:
    """The same crystal in the cell with the shortest vectors: grids and meshes of flat cells are poor (GPAW warns of wrong results)."""
    if not crystal.pbc.all():
        return crystal
    from ase.geometry import minkowski_reduce

    cell, turn = minkowski_reduce(crystal.cell)
    if np.array_equal(np.abs(turn), np.eye(3)):
        return crystal
    return crystal.replace(cell=np.asarray(cell)).wrapped()


def _lineage(reason: str, used: Sequence[str]) -> str:
    told = f"repaired: {', '.join(used)}" if used else ""
    return "; ".join(filter(None, (reason, told)))


def _end_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")[-_LOG_END:]
    except OSError:
        return ""


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)


def _calculator(found: Code, crystal: Crystal, protocol: DftProtocol, cutoff: float, changes: Mapping[str, Any], folder: Path) -> Any:
    """The code's calculator behind one that sets the first moments: a relaxation hands over plain atoms."""
    from ase.calculators.calculator import Calculator, all_changes

    scale = float(changes.get("moments_scale", 1.0))
    moments = protocol.first_moments(crystal)
    inner = found.make(crystal, protocol, cutoff, changes, folder)

    class Started(Calculator):
        """Energy, forces and stress of the inner calculator."""

        implemented_properties = ("energy", "forces", "stress")  # type: ignore[assignment]

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties or ["energy"], system_changes)
            assert self.atoms is not None
            one = self.atoms.copy()  # type: ignore[no-untyped-call]
            if moments is not None:
                one.set_initial_magnetic_moments([scale * m for m in moments])
            one.calc = inner
            # the energy to zero width, which ASE calls energy; forces belong to the free energy and differ by the width's error
            self.results = {"energy": one.get_potential_energy(), "forces": one.get_forces(), "stress": one.get_stress()}

    return Started()
