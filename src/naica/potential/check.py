"""The physics contract of potentials: symmetry, forces and stress that are slopes of the energy, smoothness, conservation, short range.

`naica check MODEL` prints the table; `naica.check(model)` returns it. Every potential is asked through the same door (`naica.potential.
evaluator`), so networks of ours, published ones and ASE calculators obey the same laws. Errors of energies are per atom in eV, of forces in
eV/Å, of stress σ V/N in eV, each over the largest force where that is more than 1 eV/Å.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.errors import InputError, NaicaError
from naica.potential import evaluator, md
from naica.potential.calculators import CALCULATORS
from naica.potential.evaluator import LENNARD_JONES, Batched, Evaluator
from naica.potential.learned import LearnedPotential
from naica.potential.model import PotentialModel
from naica.potential.saved import Potential, PotentialCard, folder_of, is_potential, read_potential
from naica.potential.systems import Systems
from naica.runtime import tune
from naica.structure import Crystal
from naica.structure.elements import element, symbol, table
from naica.training.check import Report, Row
from naica.training.property import PropertyModel

Array = NDArray[np.float64]
UNIT = "eV/atom, eV/Å; over the largest force beyond 1 eV/Å"

# of potentials of ours in 64 bits, and of others, which may compute in 32
_EXACT, _ROUGH = 1e-7, 2e-3
_SLOPE, _ROUGH_SLOPE = 1e-5, 3e-2
_PRECISION = 1e-3
_STEP = 1e-3  # eV a step of the scan may miss
_JUMP = 1e-6
_HOLE = 1e-3
_DRIFT = 1.0  # eV per atom and nanosecond
_KELVIN, _DT, _STEPS = 300.0, 1.0, 100
# shares of the sum of two covalent radii: two atoms that come nearer than the first must repel each other down to the second
_NEAR, _NEAREST = 0.7, 0.3
_FAR = 40.0
_PAIRED = 4


def check(model: Any, crystals: Sequence[Crystal] | None = None, seed: int = 0) -> Report:
    """Try a model against the physics contract: of potentials if it gives forces, of properties if it does not.

    Parameters
    ----------
    model : a potential (`Potential`, `PotentialModel`, `LearnedPotential`, a run or model folder, a name such as ``emt``, ``chgnet`` or
        ``m3gnet-mp-2021``, an ASE calculator), or a model of a property
    crystals : to try it on; default: six small ones of elements the potential knows
    seed : of random permutations, rotations, directions

    Raises
    ------
    InputError
        If the model refuses every structure.
    """
    tune()
    if not is_of_forces(model):
        from naica.training.check import check as check_property

        return check_property(model, crystals, seed)
    subject = _Subject.of(model)
    structures, left_out = subject.usable(list(crystals) if crystals is not None else samples(subject.elements, seed))
    draw = np.random.default_rng(seed)
    rows = []
    for law in _LAWS:
        try:
            rows.append(law(subject, structures, draw))
        except _Refused as refused:
            left_out = (*left_out, f"left out: {law.__name__.strip('_').replace('_', ' ')}, which the potential refuses: {refused}")
    return Report(subject.name, tuple(row for row in rows if row is not None), left_out, UNIT)


def is_of_forces(model: Any) -> bool:
    """Whether a name, folder or object is a potential rather than a model of a property."""
    if isinstance(model, str | Path):
        text = str(model)
        if text in CALCULATORS or text == LENNARD_JONES or (":" in text and not Path(text).exists()):
            return True
        folder = folder_of(text) or folder_of(text.rpartition("@")[0] or text)
        return folder is not None and is_potential(folder)
    if isinstance(model, Potential | PotentialModel | LearnedPotential):
        return True
    return not isinstance(model, PropertyModel) and (hasattr(model, "get_potential_energy") or hasattr(model, "evaluate"))


class _Refused(Exception):
    """The potential refuses the structures of a law."""


@dataclass(frozen=True, eq=False)
class _Told:
    """Of one crystal: eV, eV/Å (n, 3), eV/Å³ (3, 3; NaN where there is none), and what is said per atom."""

    energy: float
    forces: Array
    stress: Array
    atoms: dict[str, Array]


@dataclass(frozen=True, eq=False)
class _Subject:
    """A potential seen as a function of crystals."""

    name: str
    asked: Any
    members: tuple[PotentialModel, ...]
    potential: Potential | None
    elements: tuple[str, ...]

    @classmethod
    def of(cls, model: Any) -> _Subject:
        potential = model if isinstance(model, Potential) else None
        if isinstance(model, str | Path) and (text := str(model)) not in CALCULATORS:
            folder = folder_of(text) or folder_of(text.rpartition("@")[0] or text)
            potential = read_potential(text) if folder is not None else None
        name = str(model) if isinstance(model, str | Path) else type(model).__name__
        asked = model if potential is None else potential.learned()
        found: Sequence[Any] = (model,) if isinstance(model, PotentialModel) else getattr(potential or model, "members", ())
        members = tuple(m for m in found if isinstance(m, PotentialModel))
        if members:
            name = members[0].architecture if potential is None else potential.card.name or name
        known = evaluator.of(asked).elements
        if potential is not None and potential.card.elements:
            known = potential.card.elements
        elif members:
            own = getattr(members[0].backbone.config, "elements", ()) or ()
            # some networks count their elements from hydrogen on
            own = range(1, own + 1) if isinstance(own, int) else own
            known = tuple(e if isinstance(e, str) else symbol(e) for e in own) or known
        return cls(name, asked, members, potential, tuple(known) if known else ("Na", "Cl", "O"))

    def evaluator(self, dtype: torch.dtype = torch.float64) -> Evaluator:
        found = evaluator.of(self.asked, dtype)
        found.forget()
        return found

    @property
    def exact(self) -> bool:
        """Whether it computes in batches and in 64 bits; published universal potentials have 32, whatever they are given."""
        found = evaluator.of(self.asked)
        if not isinstance(found, Batched):
            return False
        inner = getattr(found.potential, "single", found.potential)
        return getattr(inner, "dtype", torch.float64) == torch.float64

    @property
    def cutoff(self) -> float | None:
        found = evaluator.of(self.asked)
        return float(found.potential.cutoff) if isinstance(found, Batched) else None

    @property
    def parts(self) -> Any:
        return self.members[0].parts if self.members else None

    @property
    def tolerance(self) -> float:
        return _EXACT if self.exact else _ROUGH

    def usable(self, crystals: Sequence[Crystal]) -> tuple[list[Crystal], tuple[str, ...]]:
        """Those it computes, and what is left out, with the reason."""
        kept, left, reason = [], [], ""
        for crystal in crystals:
            found = self.evaluator().evaluate(Systems.of(crystal))
            if found.complaints or not bool(torch.isfinite(found.energy).all()):
                reason = found.complaints.get(0, "its energy is no finite number")
                left.append(f"left out: {crystal!r}, which the potential refuses: {reason}")
            else:
                kept.append(crystal)
        if not kept:
            raise InputError(f"the potential refuses every structure it was to be tried on, the last because: {reason}")
        return kept, tuple(left)

    def tell(self, crystals: Sequence[Crystal], dtype: torch.dtype = torch.float64) -> list[_Told]:
        """All crystals in one batch, where the potential has batches."""
        systems = Systems.of(list(crystals))
        found = self.evaluator(dtype).evaluate(systems)
        if found.complaints:
            raise _Refused(next(iter(found.complaints.values())))
        sizes = systems.n_atoms.tolist()
        forces = [f.numpy() for f in found.forces.split(sizes)]
        atoms = {name: [v.numpy() for v in value.split(sizes)] for name, value in found.atoms.items()}
        stress = found.stress.numpy()
        return [
            _Told(float(found.energy[k]), forces[k], stress[k], {name: parts[k] for name, parts in atoms.items()})
            for k in range(len(sizes))
        ]

    def energies(self, crystals: Sequence[Crystal]) -> Array:
        return np.array([one.energy for one in self.tell(crystals)])


def _apart(a: _Told, b: _Told, crystal: Crystal) -> float:
    """How far two answers about the same atoms are apart."""
    scale = max(1.0, float(np.abs(a.forces).max()))
    errors = [abs(a.energy - b.energy) / len(crystal), float(np.abs(a.forces - b.forces).max())]
    if crystal.pbc.all() and np.isfinite(a.stress).all():
        errors.append(float(np.abs(a.stress - b.stress).max()) * crystal.volume / len(crystal))
    worst = max(errors) / scale
    return worst if np.isfinite(worst) else float("inf")


def _same(
    s: _Subject,
    law: str,
    what: str,
    before: Sequence[Crystal],
    after: Sequence[Crystal],
    back: Callable[[int, _Told], _Told] = lambda k, told: told,
) -> Row:
    """A row that compares two lists of crystals, the answers about the second ones brought back to the first."""
    pairs = zip(before, s.tell(before), s.tell(after), strict=True)
    errors = [_apart(a, back(k, b), crystal) for k, (crystal, a, b) in enumerate(pairs)]
    worst = int(np.argmax(errors))
    note = "" if errors[worst] <= s.tolerance else f"worst: {before[worst]!r}"
    return Row(law, what, errors[worst], s.tolerance, note)


# --- symmetry --------------------------------------------------------------------------------------------------------------------------
def _permutation(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    orders = [draw.permutation(len(c)) for c in crystals]
    after = [c.replace(numbers=c.numbers[o], positions=c.positions[o]) for c, o in zip(crystals, orders, strict=True)]

    def back(k: int, told: _Told) -> _Told:
        forces = np.empty_like(told.forces)
        forces[orders[k]] = told.forces
        return _Told(told.energy, forces, told.stress, {})

    return _same(s, "permutation", "atoms numbered differently", crystals, after, back)


def _translation(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    moved = [c.replace(positions=c.positions + draw.normal(size=3)) for c in crystals]
    return _same(s, "translation", "everything moved by a random vector", crystals, moved)


def _wrapping(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    after = [c.replace(positions=c.positions + (draw.integers(-2, 3, (len(c), 3)) * c.pbc) @ c.cell) for c in crystals]
    return _same(s, "wrapping", "single atoms moved by whole lattice vectors", crystals, after)


def _rotation(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    turns = [_turn(draw) for _ in crystals]
    after = [c.replace(positions=c.positions @ r.T, cell=c.cell @ r.T) for c, r in zip(crystals, turns, strict=True)]

    def back(k: int, told: _Told) -> _Told:
        return _Told(told.energy, told.forces @ turns[k], turns[k].T @ told.stress @ turns[k], {})

    return _same(s, "rotation", "turned at random: forces and stress turn along", crystals, after, back)


def _inversion(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    after = [c.replace(positions=-c.positions, cell=-c.cell) for c in crystals]
    return _same(
        s, "inversion", "mirrored at the origin: forces too", crystals, after, lambda k, t: _Told(t.energy, -t.forces, t.stress, {})
    )


def _supercell(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    whole = [c for c in crystals if c.pbc.all()]
    if not whole:
        return None
    errors = []
    for c, a, b in zip(whole, s.tell(whole), s.tell([c.supercell((2, 1, 2)) for c in whole]), strict=True):
        stress = np.abs(a.stress - b.stress).max() * c.volume / len(c)
        errors.append(max(abs(4 * a.energy - b.energy) / (4 * len(c)), float(stress)) / max(1.0, float(np.abs(a.forces).max())))
    return Row("supercell", "cell repeated 2 × 1 × 2: four times the energy, the same stress", max(errors), s.tolerance)


def _lattice(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    whole = [c for c in crystals if c.pbc.all()]
    if not whole:
        return None
    other = np.array([[1, 1, 0], [0, 1, 0], [-1, 0, 1]])
    return _same(s, "lattice", "other lattice vectors for the same crystal", whole, [c.replace(cell=other @ c.cell) for c in whole])


def _batch(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    errors = [_apart(a, s.tell([c])[0], c) for c, a in zip(crystals, s.tell(crystals), strict=True)]
    return Row("batch = single", "all in one batch against one by one", max(errors), s.tolerance)


def _dtype(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    if not s.members:
        return None
    pairs = zip(crystals, s.tell(crystals), s.tell(crystals, torch.float32), strict=True)
    return Row("dtype", "32 against 64 bits", max(_apart(a, b, c) for c, a, b in pairs), _PRECISION)


# --- slopes ----------------------------------------------------------------------------------------------------------------------------
def _forces(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    h = 1e-4 if s.exact else 5e-3
    errors = []
    for c, told in zip(crystals, s.tell(crystals), strict=True):
        ways = draw.normal(size=(3, len(c), 3))
        ways /= np.linalg.norm(ways, axis=(1, 2), keepdims=True)
        energies = s.energies([c.replace(positions=c.positions + sign * h * way) for way in ways for sign in (1, -1)])
        slopes = (energies[::2] - energies[1::2]) / (2 * h)
        expected = -np.einsum("na,wna->w", told.forces, ways)
        errors.append(float(np.abs(slopes - expected).max()) / max(1.0, float(np.abs(told.forces).max())))
    what = f"slopes of the energy by finite differences of {h:g} Å, three random directions each"
    return Row("forces", what, max(errors), _SLOPE if s.exact else _ROUGH_SLOPE)


def _stress(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    whole = [c for c in crystals if c.pbc.all()]
    told = s.tell(whole) if whole else []
    if not told or not all(np.isfinite(one.stress).all() for one in told):
        return None
    h, errors = 1e-5 if s.exact else 1e-3, []
    for c, one in zip(whole, told, strict=True):
        way = draw.normal(size=(3, 3))
        way = (way + way.T) / np.linalg.norm(way + way.T)
        stretched = [np.eye(3) + sign * h * way for sign in (1, -1)]
        up, down = s.energies([c.replace(positions=c.positions @ m, cell=c.cell @ m) for m in stretched])
        error = abs((up - down) / (2 * h) - c.volume * float((one.stress * way).sum())) / len(c)
        errors.append(error / max(1.0, float(np.abs(one.forces).max())))
    return Row("stress", f"slopes of the energy by finite strains of {h:g}, σ V/N", max(errors), _SLOPE if s.exact else _ROUGH_SLOPE)


def _balance(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    told = s.tell(crystals)
    return Row("net force", "forces sum to zero", max(float(np.abs(t.forces.sum(0)).max()) for t in told), s.tolerance)


def _torque(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    free = [c for c in crystals if not c.pbc.any()]
    if not free:
        return None
    torques = [np.cross(c.positions - c.positions.mean(0), t.forces).sum(0) for c, t in zip(free, s.tell(free), strict=True)]
    return Row("torque", "forces do not turn a free molecule", float(np.abs(torques).max()), 10 * s.tolerance)


# --- smoothness and limits ----------------------------------------------------------------------------------------------------------------
def _cutoff(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    if s.cutoff is None:
        return None
    d = 1e-5
    told = s.tell([_two_pairs(s, s.cutoff + k * d) for k in (-3, -1, 1)])
    # what is left of the step across the cut-off after the step before it: a smooth function leaves next to nothing
    worst = abs(told[2].energy - 2 * told[1].energy + told[0].energy)
    jump = float(np.abs(told[2].forces - 2 * told[1].forces + told[0].forces).max())
    note = f"jump of the energy {worst:.1e} eV, of forces {jump:.1e} eV/Å"
    return Row("cut-off", f"an atom crosses the cut-off of {s.cutoff:g} Å", max(worst, jump), _JUMP if s.exact else _ROUGH, note)


def _path(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    first, second = _two(s)
    bond = _bond(first, second)
    h = 0.01 if s.exact else 0.02
    r = np.arange(0.85 * bond, (s.cutoff or 6.5) + 0.3, h)
    told = s.tell([_two_pairs(s, x) for x in r])
    energy, pull = np.array([t.energy for t in told]), np.array([t.forces[[1, 3], 0].sum() for t in told])
    missed = np.abs(np.diff(energy) + h * (pull[1:] + pull[:-1]) / 2)
    error = float(missed.max()) / max(1.0, float(np.abs(pull).max()))
    note = "" if error <= _STEP else f"worst near {r[int(missed.argmax())]:.2f} Å"
    return Row("path", f"energy differences along a bond are the work of the forces, steps of {h:g} Å", error, _STEP, note)


def _alone(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    first, second = _two(s)
    one, other = (_atoms([e], [[0, 0, 0]]) for e in (first, second))
    far = [_atoms(pair, [[0, 0, 0], [0, 0, _FAR]]) for pair in ((first, second), (second, first))]
    told = s.tell([one, other, *far])
    apart = told[2].energy - told[0].energy - told[1].energy
    errors = [abs(apart), abs(told[2].energy - told[3].energy), *(float(np.abs(t.forces).max()) for t in told)]
    # a sum over one level of charges for all atoms knows no distance; the others must
    coupled = bool(s.parts) and s.parts.electrostatics != "none"
    note = f"{first} and {second} at {_FAR:g} Å: {apart:+.2e} eV"
    if coupled:
        note += f"; {s.parts.electrostatics} balances charges over the whole system, whatever the distance"
    return Row("far atoms", "two atoms far apart are two lone atoms, with no force", max(errors), 10 * s.tolerance, note, fatal=not coupled)


def _two_atoms(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    known = list(s.elements[:_PAIRED]) if len(s.elements) <= 2 * _PAIRED else list(_chosen(s.elements))
    pairs = [(a, b) for k, a in enumerate(known) for b in known[k:]]
    shares = np.linspace(_NEAR, _NEAREST, 41)
    depth: dict[str, float] = {}
    for a, b in pairs:
        energy = s.energies([_atoms([a, b], [[0, 0, 0], [0, 0, share * _bond(a, b)]]) for share in shares])
        hole = float((np.maximum.accumulate(energy) - energy).max())
        depth[f"{a}–{b}"] = hole if np.isfinite(hole) else float("inf")
    worst = max(depth.values())
    bad = [f"{pair} {hole:.2g} eV" for pair, hole in depth.items() if not hole <= _HOLE]
    promised = bool(s.parts) and s.parts.zbl
    note = f"holes: {', '.join(bad)}" + ("" if promised else "; parts.zbl = true adds the repulsion of nuclei") if bad else ""
    what = f"two atoms repel each other more the closer they are, from {_NEAR} to {_NEAREST} of the sum of their radii"
    return Row("short range", what, worst, _HOLE, note, fatal=promised)


def _conservation(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    solid = _salt(s, 0.0, draw).supercell((2, 2, 2))
    systems = Systems.of(solid)
    ensemble = md.NVE(_DT)
    engine = s.evaluator()
    state = md.init(systems, engine, ensemble, _KELVIN, seed=int(draw.integers(2**31)))
    total = []
    for _ in range(_STEPS):
        state = md.step(state, engine, ensemble)
        total.append(float(ensemble.conserved(state)[0]) / len(solid))
    quarter = _STEPS // 4
    drift = (np.mean(total[-quarter:]) - np.mean(total[:quarter])) / ((_STEPS - quarter) * _DT * 1e-6)
    error = abs(float(drift)) if np.isfinite(drift) else float("inf")
    note = f"{len(solid)} atoms, {_STEPS * _DT:g} fs at {_KELVIN:g} K; the energy wavers by {np.std(total):.1e} eV/atom"
    return Row("conservation", "drift of the total energy in free dynamics, eV per atom and ns", error, _DRIFT, note)


# --- what stands beside the network -------------------------------------------------------------------------------------------------------
def _charges(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    if not s.parts or s.parts.electrostatics == "none":
        return None
    wanted = [float(k % 3 - 1) for k in range(len(crystals))]
    told = s.tell([c.replace(info={**c.info, "total_charge": q}) for c, q in zip(crystals, wanted, strict=True)])
    worst = max(abs(float(t.atoms["charge"].sum()) - q) for t, q in zip(told, wanted, strict=True))
    return Row("charge", "charges sum to the given total charge, e", worst, 1e-10)


def _spins(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    if not s.parts or s.parts.spin == "none":
        return None
    errors, h = [], 1e-4
    for c in crystals:
        m, way = draw.normal(size=len(c)), draw.normal(size=len(c))
        sets = (m, -m, m + h * way, m - h * way)
        told = s.tell([c.replace(info={**c.info, "moments": each}) for each in sets])
        slope = (told[2].energy - told[3].energy) / (2 * h) + float(told[0].atoms["moment_field"] @ way)
        errors += [abs(told[0].energy - told[1].energy), abs(slope)]
    return Row("spins", "all moments turned over: the same energy; fields are its slopes, eV/μ_B", max(errors), _SLOPE)


def _saved(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    if not s.members or (s.potential is None and len(s.members) > 1):
        return None
    model = s.members[0]
    config = dict(model.architecture_config)
    made = s.potential or Potential(s.members, PotentialCard("check", model.architecture, config, model.parts.to_dict(), 1))
    try:
        with tempfile.TemporaryDirectory() as folder:
            again = read_potential(made.save(Path(folder) / "model"))
            pairs = zip(crystals, made.learned().compute(list(crystals)), again.learned().compute(list(crystals)), strict=True)
            worst = max(max(abs(a.energy - b.energy), float(np.abs(a.forces - b.forces).max())) for _, a, b in pairs)
    except NaicaError as error:
        return Row("save and load", "written, read, compared", float("inf"), 0.0, str(error))
    return Row("save and load", "written, read, compared", worst, 0.0)


def _unseen(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    if s.potential is None or not s.potential.card.elements:
        return None
    foreign = next(e.symbol for e in table() if e.symbol not in s.potential.card.elements)
    try:
        s.potential.compute(_atoms([foreign], [[0, 0, 0]]))
    except InputError:
        return Row("unseen elements", f"{foreign}, which training had not, is refused", 0.0, 0.0)
    return Row("unseen elements", f"{foreign}, which training had not, is refused", float("inf"), 0.0)


_LAWS: tuple[Callable[[_Subject, Sequence[Crystal], np.random.Generator], Row | None], ...] = (
    _permutation,
    _translation,
    _wrapping,
    _rotation,
    _inversion,
    _supercell,
    _lattice,
    _batch,
    _dtype,
    _forces,
    _stress,
    _balance,
    _torque,
    _cutoff,
    _path,
    _alone,
    _two_atoms,
    _conservation,
    _charges,
    _spins,
    _saved,
    _unseen,
)


# --- what it is tried on ------------------------------------------------------------------------------------------------------------------
def samples(elements: Sequence[str], seed: int = 0) -> list[Crystal]:
    """Six small structures of some elements: one atom in a cell, a shaken salt, a crowd, a slab, a molecule, a lone atom."""
    a, b, c = _three(elements)
    draw = np.random.default_rng(seed + 1)
    fcc = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    edge = _bond(a, b)
    skewed = np.array([[1, 0, 0], [0.5, 0.9, 0], [-0.3, 0.4, 1.3]])
    flat = np.array([[0, 0, 0], [0.5, 0.5, 0.05], [0, 0.5, 0.11]])
    bent: list[list[float]] = [[0, 0, 0], [1.05 * edge, 0, 0], [-0.3 * _bond(a, c), 0.95 * _bond(a, c), 0.1]]
    return [
        Crystal.from_fractional([a], np.zeros((1, 3)), 1.15 * 2**0.5 * _bond(a, a) * fcc),
        _shaken_salt(a, b, 0.03, draw),
        _crowd([a, b, c, b, a], skewed, draw),
        Crystal.from_fractional([a, b, c], flat, np.diag([1.7 * edge, 1.7 * edge, 8 * edge]), [True, True, False]),
        _atoms([a, b, c], bent),
        _atoms([a], [[0, 0, 0]]),
    ]


def _atoms(symbols: Sequence[str], positions: Sequence[Sequence[float]]) -> Crystal:
    """Atoms in free space."""
    return Crystal(np.array([element(e).number for e in symbols]), np.asarray(positions, dtype=np.float64))


def _three(elements: Sequence[str]) -> tuple[str, str, str]:
    known = _chosen(elements)
    return known[0], known[1 % len(known)], known[2 % len(known)]


def _chosen(elements: Sequence[str]) -> tuple[str, ...]:
    """Elements the rest is tried on: of a universal potential a salt's and an oxide's."""
    usual = [e for e in ("Na", "Cl", "O", "Si") if e in elements]
    return tuple(usual) if len(elements) > 2 * _PAIRED and len(usual) > 1 else tuple(elements[:_PAIRED])


def _two(s: _Subject) -> tuple[str, str]:
    return _three(s.elements)[:2]


def _bond(a: str, b: str) -> float:
    """Å, the sum of both covalent radii."""
    return element(a).covalent_radius + element(b).covalent_radius


def _two_pairs(s: _Subject, distance: float) -> Crystal:
    """Two atoms at some distance along x, each with a third one at its side, so that nobody is ever alone."""
    a, b, c = _three(s.elements)
    first, second = (-0.4 * _bond(a, c), 0.95 * _bond(a, c), 0.2), (distance + 0.3 * _bond(b, c), -0.9 * _bond(b, c), 0.1)
    return _atoms([a, b, c, c], [[0, 0, 0], [distance, 0, 0], first, second])


def _salt(s: _Subject, shake: float, draw: np.random.Generator) -> Crystal:
    return _shaken_salt(*_two(s), shake, draw)


def _shaken_salt(a: str, b: str, shake: float, draw: np.random.Generator) -> Crystal:
    fcc = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    made = Crystal.from_fractional([a, b], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), 2.2 * _bond(a, b) * fcc)
    return made.replace(positions=made.positions + shake * draw.normal(size=(2, 3)))


def _crowd(symbols: Sequence[str], shape: Array, draw: np.random.Generator) -> Crystal:
    """Atoms at random in a cell, none too near another: the best of many draws."""
    size = 2.3 * np.mean([element(e).covalent_radius for e in symbols])
    cell = shape * (len(symbols) / np.linalg.det(shape)) ** (1 / 3) * size
    drawn = [Crystal.from_fractional(list(symbols), draw.random((len(symbols), 3)), cell) for _ in range(60)]
    return max(drawn, key=lambda c: c.min_distance())


def _turn(draw: np.random.Generator) -> Array:
    q, r = np.linalg.qr(draw.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.sign(np.linalg.det(q)))
