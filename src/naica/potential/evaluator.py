"""`Evaluator`: moving systems in, energies, forces and stresses out, whatever computes them.

Two kinds: potentials of ours, which see all systems in one batch and keep a list of neighbours with a skin, and ASE calculators, which see
one system after the other. What goes wrong with one system (atoms on one place, a calculator that raises) is its complaint and NaN in its
numbers; the others are computed all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from naica.errors import InputError
from naica.graphs.batch import Batch
from naica.potential.calculators import calculator, elements_of
from naica.potential.derivatives import Evaluation
from naica.potential.systems import Systems
from naica.potential.verlet import SKIN, Neighbours
from naica.structure import Crystal

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

# extra vacuum (Å) for ASE calculators that want a full cell around molecules and slabs
_VACUUM = 8.0
# Å: nearer ones than this are found for ASE calculators, which do not say
_NEAR = 1.2
LENNARD_JONES = "lennard-jones"


@dataclass(frozen=True, eq=False)
class Evaluated(Evaluation):
    """An `Evaluation` in 64 bits (B systems, N atoms), and what went wrong.

    Parameters
    ----------
    complaints : by system, why it could not be computed; its numbers are NaN
    nearest : (B) the shortest distance in Å; infinite where nobody is within the cut-off (1.2 Å for ASE calculators)
    """

    complaints: Mapping[int, str] = field(default_factory=dict)
    nearest: Tensor = field(default_factory=lambda: torch.zeros(0))


class Evaluator(Protocol):
    """What relaxation and dynamics ask of a potential."""

    @property
    def elements(self) -> tuple[str, ...] | None:
        """Symbols it knows; None where it does not say."""
        ...

    @property
    def calls(self) -> int:
        """Evaluations of one system so far."""
        ...

    def evaluate(self, systems: Systems) -> Evaluated:
        """Energies, forces and stresses; never an exception for a single bad system."""
        ...

    def select(self, rows: Sequence[int], added: int = 0) -> None:
        """Say that the next systems are these of the last ones and `added` new ones: what is remembered of them stays useful."""
        ...

    def forget(self) -> None:
        """Drop whatever is remembered of the systems, so that the next numbers depend on nothing but positions and cells."""
        ...


class BatchPotential(Protocol):
    """A potential that reads edges: `LearnedPotential`, `LennardJones` and whatever looks like them."""

    @property
    def cutoff(self) -> float:
        """Å."""
        ...

    def evaluate(self, batch: Batch) -> Evaluation:
        """Of a batch made by `Systems.batch`."""
        ...


class Batched:
    """An evaluator of a potential that reads edges.

    Parameters
    ----------
    potential : what computes
    dtype : precision it is fed with
    skin : Å, of the list of neighbours
    elements : symbols it knows
    """

    def __init__(
        self, potential: BatchPotential, dtype: torch.dtype = torch.float64, skin: float = SKIN, elements: tuple[str, ...] | None = None
    ) -> None:
        self.potential, self.dtype, self.elements = potential, dtype, elements
        self.neighbours = Neighbours(potential.cutoff, skin)
        self.calls = 0

    def evaluate(self, systems: Systems) -> Evaluated:
        """All systems in one batch; one by one if the batch is refused."""
        self.calls += len(systems)
        batch, complaints = self.neighbours.batch(systems, self.dtype)
        try:
            found = self.potential.evaluate(batch)
        except (InputError, RuntimeError) as error:
            # the potential refuses the batch: look who is to blame, unless it stands alone
            if len(systems) == 1:
                return _nothing(systems, {0: f"{type(error).__name__}: {error}"})
            return self._one_by_one(systems)
        atoms = {name: value.double() for name, value in found.atoms.items()}
        result = Evaluated(found.energy.double(), found.forces.double(), found.stress.double(), atoms, complaints, _nearest(batch))
        return _without(result, systems, complaints) if complaints else result

    def _one_by_one(self, systems: Systems) -> Evaluated:
        parts = []
        for k in range(len(systems)):
            lone = Batched(self.potential, self.dtype, self.neighbours.skin)
            parts.append(lone.evaluate(systems.take([k])))
        return _joined(parts)

    def select(self, rows: Sequence[int], added: int = 0) -> None:
        """Keep the lists of neighbours of these systems."""
        self.neighbours.select(rows, added)

    def forget(self) -> None:
        """Make every list of neighbours anew."""
        self.neighbours.forget()


class Looped:
    """An evaluator of an ASE calculator, one system after the other.

    Calculators remember (neighbour lists, charge densities), so what they say may depend on what they were asked before. With several
    systems they are reset between them. A calculator without stresses says NaN.
    """

    def __init__(self, calc: Calculator, elements: tuple[str, ...] | None = None) -> None:
        self.calc, self.elements, self.calls = calc, elements, 0
        self.near = Neighbours(_NEAR)

    def evaluate(self, systems: Systems) -> Evaluated:
        """Each system on its own; an exception is its complaint."""
        self.calls += len(systems)
        batch, complaints = self.near.batch(systems)
        nearest = _nearest(batch)
        return _joined(
            [self._one(systems.take([k]), nearest[k : k + 1], complaints.get(k), len(systems) == 1) for k in range(len(systems))]
        )

    def _one(self, system: Systems, nearest: Tensor, complaint: str | None, alone: bool) -> Evaluated:
        if complaint is not None:
            return _nothing(system, {0: complaint})
        try:
            atoms = boxed(system.crystals()[0])
            if not alone:
                self.calc.reset()  # type: ignore[no-untyped-call]
            atoms.calc = self.calc
            energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=np.float64)
            stress = np.zeros((3, 3))
            if bool(system.pbc.all()):
                known = "stress" in self.calc.implemented_properties
                stress = np.array(atoms.get_stress(voigt=False), dtype=np.float64) if known else np.full((3, 3), np.nan)
        except Exception as error:  # whatever a foreign calculator throws is this system's failure
            self.calc.reset()  # type: ignore[no-untyped-call]
            return _nothing(system, {0: f"{type(error).__name__}: {error}"})
        return Evaluated(
            torch.tensor([energy], dtype=torch.float64), torch.from_numpy(forces), torch.from_numpy(stress)[None], {}, {}, nearest
        )

    def select(self, rows: Sequence[int], added: int = 0) -> None:
        """Keep what is known of who is near."""
        self.near.select(rows, added)

    def forget(self) -> None:
        """Reset the calculator, and look anew who is near."""
        self.near.forget()
        self.calc.reset()  # type: ignore[no-untyped-call]


class Biased:
    """An evaluator with a bias added, for example one that drives dynamics to where a committee disagrees.

    Parameters
    ----------
    inner : what is biased
    bias : from systems and their evaluation to further energies (B) in eV and forces (N, 3) in eV/Å; the stress stays unbiased
    """

    def __init__(self, inner: Evaluator, bias: Callable[[Systems, Evaluated], tuple[Tensor, Tensor]]) -> None:
        self.inner, self.bias = inner, bias

    @property
    def elements(self) -> tuple[str, ...] | None:
        """Those of the inner one."""
        return self.inner.elements

    @property
    def calls(self) -> int:
        """Those of the inner one."""
        return self.inner.calls

    def evaluate(self, systems: Systems) -> Evaluated:
        """With the bias; what the potential itself says is kept per atom as ``bias`` (eV, the system's bias shared among its atoms)."""
        plain = self.inner.evaluate(systems)
        energy, forces = self.bias(systems, plain)
        share = (energy / systems.n_atoms)[systems.system]
        return Evaluated(
            plain.energy + energy,
            plain.forces + forces,
            plain.stress,
            {**plain.atoms, "bias": share},
            plain.complaints,
            plain.nearest,
        )

    def select(self, rows: Sequence[int], added: int = 0) -> None:
        """As the inner one."""
        self.inner.select(rows, added)

    def forget(self) -> None:
        """As the inner one."""
        self.inner.forget()


def of(model: Any, dtype: torch.dtype = torch.float64, skin: float = SKIN) -> Evaluator:
    """The evaluator of a potential.

    Parameters
    ----------
    model : a name (``emt``, ``chgnet``, ``lennard-jones``, a model folder, ``package.module:factory``), a model or a committee of ours,
    whatever has
        ``cutoff`` and ``evaluate(batch)``, or an ASE calculator
    dtype : precision of our networks; ASE calculators have their own
    skin : Å, of the neighbour lists of our networks

    Raises
    ------
    ConfigError, MissingPart
        If a name is unknown or its package not installed.
    InputError
        If the model gives no forces.
    """
    from naica.potential.learned import LearnedPotential, potential

    if isinstance(model, Batched | Looped | Biased):
        return model
    known = elements_of(str(model)) if isinstance(model, str | Path) and str(model) != LENNARD_JONES else None
    found = _named(str(model)) if isinstance(model, str | Path) else model
    # an ASE calculator of one of our potentials: the potential itself is faster
    found = getattr(found, "potential", found)
    if hasattr(found, "get_potential_energy"):
        return Looped(found, known)
    if not (hasattr(found, "cutoff") and hasattr(found, "evaluate")):
        found = potential(found, dtype)
    if isinstance(found, LearnedPotential) and found.dtype != dtype:
        found = LearnedPotential(found.members, dtype)
    return Batched(cast(BatchPotential, found), dtype, skin, known)


def _named(name: str) -> Any:
    """What a name stands for: one of our potentials, or an ASE calculator."""
    if name == LENNARD_JONES:
        from naica.potential.lennard_jones import LennardJones

        return LennardJones()
    from naica.potential.learned import is_model

    return Path(name) if is_model(name) else calculator(name)


def boxed(crystal: Crystal) -> Any:
    """ASE atoms for any calculator: directions without periodicity get a box with vacuum, as some potentials want a full cell."""
    from ase import Atoms

    atoms = Atoms(numbers=crystal.numbers, positions=crystal.positions, cell=crystal.cell, pbc=crystal.pbc)
    open_axes = [axis for axis in range(3) if not crystal.pbc[axis]]
    if open_axes:
        atoms.center(vacuum=_VACUUM, axis=open_axes)
        atoms.pbc = True
    return atoms


def _nearest(batch: Batch) -> Tensor:
    """(B) the shortest edge."""
    far = torch.full((batch.n_systems,), torch.inf, dtype=batch["edge_length"].dtype)
    if not batch.n_edges:
        return far.double()
    if batch.n_systems == 1:
        return batch["edge_length"].amin()[None].double()
    return far.scatter_reduce_(0, batch.system_of("edge"), batch["edge_length"], "amin").double()


def _nothing(systems: Systems, complaints: Mapping[int, str]) -> Evaluated:
    nan = torch.full((len(systems),), torch.nan, dtype=torch.float64)
    forces = torch.full((len(systems.number), 3), torch.nan, dtype=torch.float64)
    return Evaluated(nan, forces, torch.full((len(systems), 3, 3), torch.nan, dtype=torch.float64), {}, complaints, nan)


def _without(found: Evaluated, systems: Systems, complaints: Mapping[int, str]) -> Evaluated:
    """NaN where there are complaints."""
    bad = torch.zeros(len(systems), dtype=torch.bool)
    bad[list(complaints)] = True
    gone = bad[systems.system]
    return Evaluated(
        found.energy.masked_fill(bad, torch.nan),
        found.forces.masked_fill(gone[:, None], torch.nan),
        found.stress.masked_fill(bad[:, None, None], torch.nan),
        found.atoms,
        complaints,
        found.nearest.masked_fill(bad, torch.nan),
    )


def _joined(parts: Sequence[Evaluated]) -> Evaluated:
    names = set.intersection(*(set(part.atoms) for part in parts))
    return Evaluated(
        torch.cat([part.energy for part in parts]),
        torch.cat([part.forces for part in parts]),
        torch.cat([part.stress for part in parts]),
        {name: torch.cat([part.atoms[name] for part in parts]) for name in names},
        {k: part.complaints[0] for k, part in enumerate(parts) if part.complaints},
        torch.cat([part.nearest for part in parts]),
    )
