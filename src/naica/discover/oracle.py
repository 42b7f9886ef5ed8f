"""Oracles: whoever tells the truth a campaign learns from. Each call ends in a status, a reason and a level of theory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from naica.data.labels import Level
from naica.errors import ConfigError, InputError
from naica.potential.calculators import CALCULATORS, calculator, elements_of, factory, is_learned, level_of
from naica.potential.relax import LEAST_DISTANCE, Relaxed, relax
from naica.structure import Crystal

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from naica.data import CrystalTable

Array = NDArray[np.float64]

CODES = ("gpaw", "cp2k", "espresso", "abinit")
_GAMMA_ONLY = ("tblite", "xtb", "dxtb", "gfn1-xtb", "gfn2-xtb", "gfn1", "gfn2")
# energies per atom by tblite 0.8 (GFN1): Si in cells of 2, 8 and 64 atoms −43.2, −48.9, −49.9 eV; Al in cells of 1 and 32 +36.1, −33.3
_NOT_FOR_CRYSTALS = (
    "{name!r} samples Γ alone, so the energy of a crystal depends on the cell it is written in: GFN1 by tblite 0.8 puts the 2-atom cell of "
    "Si 6.7 eV/atom above its 64-atom cell, that of MgO 5.4, Al's 1-atom cell 69 above 32 atoms, with forces and stresses that look sound. "
    "No hull can stand on that: use gpaw, another DFT code, or a potential. For molecules, use tblite outside a campaign"
)
Status = Literal["converged", "failed", "timed out", "crashed"]


@dataclass(frozen=True)
class OracleResult:
    """The outcome of one oracle call.

    `crystal` is the relaxed structure, `energy` in eV for the whole cell (for a table: its label times the number of atoms where the label
    is per atom), `forces` (n, 3) eV/Å, `stress` (3, 3) eV/Å³, `seconds` of computing in all attempts. `retryable` says that the same call
    may well succeed when repeated.
    """

    key: str
    status: Status
    reason: str
    crystal: Crystal | None
    energy: float | None
    forces: Array | None
    stress: Array | None
    seconds: float
    level: Level
    attempts: int = 1
    retryable: bool = False


@runtime_checkable
class Oracle(Protocol):
    """What the engine asks of an oracle. Oracles travel to worker processes by pickle.

    An oracle may also have a method ``warm()``, which each worker calls once, before the first call's clock starts.
    """

    name: str
    level: Level

    def evaluate(self, crystals: Sequence[Crystal]) -> list[OracleResult]:
        """One result per crystal, in order; `key` is the crystal's content hash."""


def make_oracle(name: str, **options: Any) -> Oracle:
    """An oracle by name.

    Parameters
    ----------
    name : a DFT code (``gpaw``, ``cp2k``, ``espresso``, ``abinit``, ``vasp``), a potential (``chgnet``, ``m3gnet-mp-2021``, ``emt``, the
        folder of a learned one), ``table`` (options `table`, `column`), or ``package.module:factory``; a factory is called with the
        options and returns an oracle or an ASE calculator
    options : of `naica.discover.dft.DftOracle` (protocol, elements, cache …), of `CalculatorOracle` (fmax, steps, cell, max_seconds), of
        `TableOracle`, or of the factory

    Raises
    ------
    ConfigError
        For unknown names and options, and for tight binding at Γ alone, which is no level of theory for crystals.
    MissingPart
        If a code or a package is not installed.
    """
    if name in _GAMMA_ONLY:
        raise ConfigError(_NOT_FOR_CRYSTALS.format(name=name))
    if name in CALCULATORS or is_learned(name):
        return _with_options(CalculatorOracle, name, {"calculator": name, **options})
    if name == "vasp":
        from naica.discover.dft.vasp import VaspOracle

        return _with_options(VaspOracle, name, options)
    if name in CODES:
        from naica.discover.dft.oracle import DftOracle

        return _with_options(DftOracle, name, {"code_name": name, **options})
    if name == "table":
        return _with_options(TableOracle, name, options)
    if ":" not in name:
        raise ConfigError(
            f"unknown oracle {name!r}; known: {', '.join((*CODES, 'vasp', *CALCULATORS))}, table, a model folder, or package.module:factory"
        )
    made = _with_options(factory(name), name, options)
    if isinstance(made, Oracle):
        return made
    if hasattr(made, "get_potential_energy"):
        return CalculatorOracle(calculator=_Factory(name, tuple(options.items())), name=name)
    raise ConfigError(f"{name!r} returned a {type(made).__name__}; expected an oracle (name, level, evaluate) or an ASE calculator")


def _with_options(make: Callable[..., Any], name: str, options: dict[str, Any]) -> Any:
    from inspect import signature

    try:
        signature(make).bind(**options)
    except TypeError as error:
        raise ConfigError(f"oracle {name!r}: {error}; its options: {', '.join(signature(make).parameters)}") from error
    return make(**options)


@dataclass(frozen=True)
class _Factory:
    """A calculator factory by name, so that it travels between processes as text."""

    name: str
    options: tuple[tuple[str, Any], ...]

    def __call__(self) -> Calculator:
        return factory(self.name)(**dict(self.options))  # type: ignore[return-value]


class CalculatorOracle:
    """Relaxes with an ASE calculator and tells the energy of what came out.

    Parameters
    ----------
    calculator : ``emt``, ``chgnet``, ``package.module:factory``, or a picklable function without arguments that makes an ASE calculator
    fmax, steps, cell, max_seconds : as in `naica.relax`
    name, level : what results are filed under; by default those of the calculator
    """

    def __init__(
        self,
        calculator: str | Callable[[], Calculator],
        fmax: float = 0.05,
        steps: int = 300,
        cell: bool = True,
        max_seconds: float | None = None,
        *,
        name: str | None = None,
        level: Level | None = None,
    ) -> None:
        if not fmax > 0 or steps < 0:
            raise ConfigError(f"fmax = {fmax}, steps = {steps}; expected fmax > 0 (eV/Å) and steps ≥ 0")
        self.source = calculator
        self.fmax, self.steps, self.cell, self.max_seconds = fmax, steps, cell, max_seconds
        self.name: str = name or (calculator if isinstance(calculator, str) else str(getattr(calculator, "__name__", "calculator")))
        self.level = level or (level_of(calculator) if isinstance(calculator, str) else Level(functional=self.name))
        self.settings = {"calculator": str(calculator), "fmax": fmax, "steps": steps, "cell": cell, "max_seconds": max_seconds}
        self._made: Calculator | None = None

    def __getstate__(self) -> dict[str, Any]:
        # the calculator itself stays: each process makes its own
        return {**self.__dict__, "_made": None}

    def warm(self) -> None:
        """Load the calculator."""
        if self._made is None:
            self._made = calculator(self.source) if isinstance(self.source, str) else self.source()

    def evaluate(self, crystals: Sequence[Crystal]) -> list[OracleResult]:
        """Relax each crystal; only converged, sane results count as converged."""
        self.warm()
        assert self._made is not None
        known = elements_of(self.source) if isinstance(self.source, str) else None
        results = []
        for one in crystals:
            foreign = [s for s in one.composition if known is not None and s not in known]
            if foreign:
                results.append(_failed(one, self.level, f"{self.name} does not know {', '.join(foreign)}"))
            else:
                done = relax(one, self._made, self.fmax, self.steps, self.cell, max_seconds=self.max_seconds)[0]
                results.append(self._judge(one, done))
        return results

    def _judge(self, asked: Crystal, done: Relaxed) -> OracleResult:
        status: Status = "converged" if done.status == "converged" else "failed"
        result = OracleResult(
            asked.hash, status, done.reason, done.crystal, done.energy, done.forces, done.stress, done.seconds, self.level
        )
        return checked(asked, result)


class TableOracle:
    """Known results as an oracle: a campaign after the fact. It tells the label of a row; nothing is computed.

    A crystal is looked up by ``info["id"]``, then by its content hash. What is not in the table, or has no label there, fails.

    Parameters
    ----------
    table : a `CrystalTable`, the path of one, or the name of a registered data set
    column : label column; per-atom quantities become `energy` = label × number of atoms, others are told as they are
    """

    name = "table"

    def __init__(self, table: CrystalTable | str, column: str) -> None:
        rows = _table(table)
        values = np.asarray(rows.column(column), dtype=np.float64)
        label = rows.labels.get(column)
        self.column = column
        self.per_atom = label is not None and label.unit == "eV/atom"
        self.level = (label.level if label else None) or Level(functional=f"unknown (column {column})", code="table")
        self._value = dict(zip(rows.ids, values.tolist(), strict=True))
        self._id_of_hash = {crystal.hash: name for crystal, name in zip(rows, rows.ids, strict=True)}
        if len(self._value) != len(rows):
            raise InputError(f"the table has {len(rows)} rows but only {len(self._value)} different ids; an oracle needs them distinct")

    def evaluate(self, crystals: Sequence[Crystal]) -> list[OracleResult]:
        """Look up each crystal."""
        return [self._look_up(one) for one in crystals]

    def _look_up(self, crystal: Crystal) -> OracleResult:
        start = time.perf_counter()
        name = crystal.info.get("id")
        if name not in self._value:
            name = self._id_of_hash.get(crystal.hash)
        if name is None:
            return _failed(crystal, self.level, f"{crystal.formula} (id {crystal.info.get('id')!r}) is not in the table")
        value = self._value[name]
        if not math.isfinite(value):
            return _failed(crystal, self.level, f"row {name!r} has no {self.column} ({value})")
        energy = value * len(crystal) if self.per_atom else value
        return OracleResult(crystal.hash, "converged", "", crystal, energy, None, None, time.perf_counter() - start, self.level)


def _table(source: CrystalTable | str) -> CrystalTable:
    if not isinstance(source, str):
        return source
    from pathlib import Path

    from naica.data import CrystalTable

    if source.endswith(".parquet") or Path(source).exists():
        return CrystalTable.read(source)
    from naica.data.registry import load_set

    return load_set(source)


def _failed(asked: Crystal, level: Level, reason: str) -> OracleResult:
    return OracleResult(asked.hash, "failed", reason, None, None, None, None, 0.0, level)


def checked(asked: Crystal, result: OracleResult) -> OracleResult:
    """The result, or a failed one saying why it cannot be believed: energy not finite, other atoms, atoms on top of each other."""
    from dataclasses import replace

    if result.status != "converged":
        return result
    why = _doubt(asked, result)
    return replace(result, status="failed", reason=why, energy=None, forces=None, stress=None, crystal=None) if why else result


def _doubt(asked: Crystal, result: OracleResult) -> str:
    if result.energy is None or not math.isfinite(result.energy):
        return f"the energy is {result.energy}, not a finite number"
    if result.crystal is None:
        return "no structure came back"
    if result.crystal.composition != asked.composition:
        return f"asked for {asked.composition}, got {result.crystal.composition}"
    for name, array in (("forces", result.forces), ("stress", result.stress)):
        if array is not None and not np.all(np.isfinite(array)):
            return f"the {name} are not finite numbers"
    if len(result.crystal) > 1 and result.crystal.min_distance() < LEAST_DISTANCE:
        return f"atoms came within {result.crystal.min_distance():.2f} Å of each other"
    return ""
