"""Molecular dynamics on flat batches: `init` makes a `State`, `step` makes the next one; both are functions of what they are given.

A system alone is a batch of one, and what happens to a system does not depend on the others in its batch: each has its own temperature,
pressure and stream of random numbers, and a random number is a function of (seed, step, atom). Integrators work in 64 bits, whatever the
potential does.

Ensembles, one a class: `NVE` (velocity Verlet), `Langevin` (BAOAB: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34),
`NoseHoover` (chains: Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996)), `NPT` (the barostat of Martyna, Tobias, Klein, J.
Chem. Phys. 101, 4177 (1994), in the reversible form of Tuckerman et al., J. Phys. A 39, 5629 (2006)), `CellRescaling` (Bernetti and Bussi,
J. Chem. Phys. 153, 114107 (2020), with Langevin's thermostat).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from naica.errors import ConfigError, InputError
from naica.potential.evaluator import Evaluated, Evaluator
from naica.potential.systems import Systems

# CODATA 2018: one eV/(Å·amu) in Å/fs², and Boltzmann's constant in eV/K
ACCELERATION = 9.648533212e-3
BOLTZMANN = 8.617333262e-5
GPA = 160.21766208  # of one eV/Å³

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class State:
    """Systems on their way (B systems, N atoms); every real number has 64 bits.

    Parameters
    ----------
    systems : positions are never wrapped, so displacements are plain differences
    velocities : (N, 3) Å/fs
    mass : (N) amu
    mobile : (N) whether an atom may move
    energy, forces, stress : of the potential at these positions: (B) eV, (N, 3) eV/Å, (B, 3, 3) eV/Å³
    step : how many steps were made
    seed : (B) of each system's random numbers
    schedule : (B, 3) temperatures (K) at the start and at the end of a ramp, and its length in steps
    pressure : (B) eV/Å³ that a barostat aims at
    bath : what the ensemble's thermostats and barostats remember, (B, …) each
    complaints : by system, why its last evaluation failed
    nearest : (B) shortest distance, Å
    """

    systems: Systems
    velocities: Tensor
    mass: Tensor
    mobile: Tensor
    energy: Tensor
    forces: Tensor
    stress: Tensor
    step: int
    seed: Tensor
    schedule: Tensor
    pressure: Tensor
    bath: Mapping[str, Tensor] = field(default_factory=dict)
    complaints: Mapping[int, str] = field(default_factory=dict)
    nearest: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __len__(self) -> int:
        return len(self.systems)

    def replace(self, **changes: Any) -> State:
        """The same with some parts replaced."""
        made = replace(self, **changes)
        if "mobile" not in changes:
            # they depend on nothing else, and every step asks for them
            made.__dict__.update((name, self.__dict__[name]) for name in ("anchored", "freedom") if name in self.__dict__)
        return made

    def take(self, rows: Sequence[int]) -> State:
        """Some of the systems, in the order asked for."""
        rows = list(rows)
        atoms = self.systems.atoms_of(rows)
        by_atom = {name: getattr(self, name)[atoms] for name in ("velocities", "mass", "mobile", "forces")}
        names = ("energy", "stress", "seed", "schedule", "pressure", "nearest")
        by_system = {name: getattr(self, name)[rows] for name in names}
        bath = {name: value[rows] for name, value in self.bath.items()}
        complaints = {k: self.complaints[row] for k, row in enumerate(rows) if row in self.complaints}
        return replace(self, systems=self.systems.take(rows), **by_atom, **by_system, bath=bath, complaints=complaints)

    # --- what is observed ----------------------------------------------------------------------------------------------------------------
    @cached_property
    def anchored(self) -> Tensor:
        """(B) whether a system's centre of mass may move: one with fixed atoms, or of one atom alone."""
        return (per_system(self, (~self.mobile).double()) > 0) | (self.systems.n_atoms == 1)

    @cached_property
    def freedom(self) -> Tensor:
        """(B) degrees of freedom: three for each mobile atom, less three where the centre of mass rests."""
        return 3 * per_system(self, self.mobile.double()) - 3 * (~self.anchored).double()

    @property
    def kinetic(self) -> Tensor:
        """(B) kinetic energy, eV."""
        return per_system(self, self.mass * (self.velocities * self.velocities).sum(1)) / (2 * ACCELERATION)

    @property
    def temperature(self) -> Tensor:
        """(B) K, from the kinetic energy and the degrees of freedom."""
        return 2 * self.kinetic / (self.freedom * BOLTZMANN)

    @property
    def target(self) -> Tensor:
        """(B) K: where the thermostat is, on its way along the ramp."""
        return self.target_at(self.step)

    def target_at(self, step: int) -> Tensor:
        """(B) K at a step."""
        start, end, steps = self.schedule.unbind(1)
        return torch.where(step >= steps, end, start + (end - start) * (step / steps.clamp(min=1)))

    @property
    def pressure_tensor(self) -> Tensor:
        """(B, 3, 3) eV/Å³: kinetic part and virial, positive under compression; zero for what does not repeat in three directions."""
        weighted = self.velocities * self.mass[:, None]
        flow = per_system(self, (weighted[:, :, None] * self.velocities[:, None, :]).view(-1, 9)).view(-1, 3, 3) / ACCELERATION
        return flow / self.systems.volume[:, None, None] - self.stress

    @property
    def momentum(self) -> Tensor:
        """(B, 3) amu Å/fs."""
        return per_system(self, self.velocities * self.mass[:, None])


class Ensemble(Protocol):
    """A way of making the next state; frozen settings only, what changes is in the state."""

    @property
    def dt(self) -> float:
        """Time step, fs."""
        ...

    @property
    def rests(self) -> bool:
        """Whether a centre of mass that rests stays where it is."""
        ...

    def begin(self, state: State) -> Mapping[str, Tensor]:
        """What its baths remember at the start."""
        ...

    def step(self, state: State, evaluator: Evaluator) -> State:
        """One time step."""
        ...

    def conserved(self, state: State) -> Tensor:
        """(B) eV: what an exact integration would keep constant."""
        ...


def init(
    systems: Systems,
    evaluator: Evaluator,
    ensemble: Ensemble,
    temperature: ArrayLike | Tensor = 300.0,
    *,
    ramp_to: ArrayLike | Tensor | None = None,
    ramp_steps: ArrayLike | Tensor = 0,
    pressure: ArrayLike | Tensor = 0.0,
    seed: ArrayLike | Tensor = 0,
    velocities: Tensor | None = None,
    fixed: Tensor | None = None,
    mass: Tensor | None = None,
) -> State:
    """The state before the first step: forces computed, velocities drawn.

    Parameters
    ----------
    temperature : K, for all or (B); also that of the first velocities
    ramp_to, ramp_steps : the thermostat's temperature after so many steps, on a straight line; None: it stays
    pressure : eV/Å³ for barostats, for all or (B)
    seed : for all or (B). One number stands for seed, seed + 1, … of the systems, so that equal systems part ways
    velocities : (N, 3) Å/fs instead of drawn ones
    fixed : (N) atoms that never move
    mass : (N) amu; None: those of the natural elements

    Raises
    ------
    InputError
        For temperatures below 0 K, a barostat on what does not repeat in three directions, or shapes that do not fit.
    """
    n, b = len(systems.number), len(systems)
    systems = systems.replace(positions=systems.positions.double(), cell=systems.cell.double())
    start = _each(temperature, b, "temperature")
    end = start if ramp_to is None else _each(ramp_to, b, "ramp_to")
    schedule = torch.stack([start, end, _each(ramp_steps, b, "ramp_steps")], dim=1)
    if bool((schedule < 0).any()) or not bool(torch.isfinite(schedule).all()):
        raise InputError("temperatures and lengths of ramps must be finite and at least 0")
    seeds = torch.as_tensor(seed, dtype=torch.int64)
    seeds = seeds + torch.arange(b) if seeds.ndim == 0 else seeds
    if seeds.shape != (b,):
        raise InputError(f"{tuple(seeds.shape)} seeds for {b} systems; expected one, or one per system")
    mobile = torch.ones(n, dtype=torch.bool) if fixed is None else ~torch.as_tensor(fixed, dtype=torch.bool)
    if mobile.shape != (n,):
        raise InputError(f"{tuple(mobile.shape)} flags of fixed atoms for {n} atoms")
    found = evaluator.evaluate(systems)
    state = State(
        systems,
        torch.zeros(n, 3, dtype=torch.float64),
        masses(systems) if mass is None else torch.as_tensor(mass, dtype=torch.float64),
        mobile,
        found.energy,
        found.forces,
        found.stress,
        0,
        seeds,
        schedule,
        _each(pressure, b, "pressure"),
        {},
        found.complaints,
        found.nearest,
    )
    state = state.replace(velocities=thermal_velocities(state) if velocities is None else velocities.double() * mobile[:, None])
    return state.replace(bath=ensemble.begin(state))


def step(state: State, evaluator: Evaluator, ensemble: Ensemble) -> State:
    """The state one time step later."""
    return ensemble.step(state, evaluator)


def masses(systems: Systems) -> Tensor:
    """(N) amu."""
    from ase.data import atomic_masses

    return torch.from_numpy(np.asarray(atomic_masses, dtype=np.float64))[systems.number]


def thermal_velocities(state: State) -> Tensor:
    """(N, 3) Å/fs drawn from the Maxwell–Boltzmann distribution at the schedule's first temperature, fixed atoms and centres of mass at
    rest.
    """
    width = (BOLTZMANN * state.schedule[:, 0][state.systems.system] * ACCELERATION / state.mass).sqrt()
    return _at_rest(state, _noise(state, _START) * width[:, None] * state.mobile[:, None])


# --- the ensembles ----------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class NVE:
    """Newton's equations by velocity Verlet, `dt` in fs."""

    dt: float = 1.0
    rests = True

    def __post_init__(self) -> None:
        _positive(self, "dt")

    def begin(self, state: State) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

    def step(self, state: State, evaluator: Evaluator) -> State:
        """Half a kick, a drift, half a kick."""
        velocities = state.velocities + _kick(state, state.forces, self.dt / 2)
        systems = state.systems.replace(positions=state.systems.positions + self.dt * velocities)
        return _arrived(state, systems, velocities, evaluator, self.dt, state.bath)

    def conserved(self, state: State) -> Tensor:
        """The total energy."""
        return state.energy + state.kinetic


@dataclass(frozen=True)
class Langevin:
    """Canonical by friction and noise, `dt` in fs, `friction` in 1/fs; centres of mass at rest stay at rest."""

    dt: float = 1.0
    friction: float = 0.01
    rests = True

    def __post_init__(self) -> None:
        _positive(self, "dt", "friction")

    def begin(self, state: State) -> Mapping[str, Tensor]:
        """The heat given to the systems so far."""
        return {"heat": torch.zeros(len(state), dtype=torch.float64)}

    def step(self, state: State, evaluator: Evaluator) -> State:
        """BAOAB."""
        velocities, systems, bath = self._drift(state)
        return _arrived(state, systems, velocities, evaluator, self.dt, bath)

    def _drift(self, state: State) -> tuple[Tensor, Systems, dict[str, Tensor]]:
        """Half a kick, half a drift, friction and noise, half a drift."""
        velocities = state.velocities + _kick(state, state.forces, self.dt / 2)
        positions = state.systems.positions + (self.dt / 2) * velocities
        keep = float(np.exp(-self.friction * self.dt))
        width = ((1 - keep * keep) * BOLTZMANN * state.target[state.systems.system] * ACCELERATION / state.mass).sqrt()
        before = per_system(state, state.mass * (velocities * velocities).sum(1))
        velocities = _at_rest(state, keep * velocities + (width * state.mobile)[:, None] * _noise(state, _THERMOSTAT))
        after = per_system(state, state.mass * (velocities * velocities).sum(1))
        heat = state.bath["heat"] + (after - before) / (2 * ACCELERATION)
        systems = state.systems.replace(positions=positions + (self.dt / 2) * velocities)
        return velocities, systems, {**state.bath, "heat": heat}

    def conserved(self, state: State) -> Tensor:
        """The total energy less the heat given: it drifts as the integrator's error does."""
        return state.energy + state.kinetic - state.bath["heat"]


@dataclass(frozen=True)
class NoseHoover:
    """Canonical and deterministic: a chain of thermostats.

    Parameters
    ----------
    dt : fs
    relaxation : fs, the thermostat's period; 40 time steps are usual
    chain : how many thermostats hang on each other
    """

    dt: float = 1.0
    relaxation: float = 80.0
    chain: int = 3
    rests = True

    def __post_init__(self) -> None:
        _positive(self, "dt", "relaxation", "chain")

    def begin(self, state: State) -> Mapping[str, Tensor]:
        """Rates (1/fs) and energies of the chain, (B, chain) each."""
        return _fresh_chain(len(state), self.chain, "chain")

    def step(self, state: State, evaluator: Evaluator) -> State:
        """The chain for half a step, Verlet, the chain for half a step."""
        state = _warmed(state, "chain", self.chain)
        scale, bath = _chain_half(state, "chain", self.relaxation, self.dt, 2 * state.kinetic, state.freedom)
        velocities = state.velocities * scale[state.systems.system][:, None] + _kick(state, state.forces, self.dt / 2)
        systems = state.systems.replace(positions=state.systems.positions + self.dt * velocities)
        after = _arrived(state, systems, velocities, evaluator, self.dt, bath)
        # the second half still belongs to this step's temperature
        scale, bath = _chain_half(after, "chain", self.relaxation, self.dt, 2 * after.kinetic, after.freedom, state.target)
        return after.replace(velocities=after.velocities * scale[after.systems.system][:, None], bath=bath)

    def conserved(self, state: State) -> Tensor:
        """The total energy and the chain's."""
        return state.energy + state.kinetic + _chain_energy(state, "chain", self.relaxation, state.freedom)


Shape = Literal["isotropic", "axes", "full"]
_SHAPES = {"isotropic": 1, "axes": 3, "full": 6}


@dataclass(frozen=True)
class NPT:
    """Constant temperature and pressure, deterministic: a Nosé–Hoover chain on the atoms, a barostat with a chain of its own on the cell.

    Parameters
    ----------
    dt : fs
    relaxation : fs, of the atoms' thermostat
    barostat : fs, of the cell; in a cold and stiff crystal it must be longer, as the cell's mass goes with the temperature
    chain : thermostats that hang on each other
    shape : what of the cell may change: its volume (``isotropic``), its stretch along x, y, z (``axes``), or all but its turns (``full``)
    """

    dt: float = 1.0
    relaxation: float = 80.0
    barostat: float = 1000.0
    chain: int = 3
    shape: Shape = "isotropic"
    rests = True

    def __post_init__(self) -> None:
        _positive(self, "dt", "relaxation", "barostat", "chain")
        if self.shape not in _SHAPES:
            raise ConfigError(f"shape {self.shape!r} of a barostat; expected one of {', '.join(_SHAPES)}")

    def begin(self, state: State) -> Mapping[str, Tensor]:
        """Both chains, and the cell's rate of strain (B, 3, 3) in 1/fs."""
        _whole(state)
        b = len(state)
        rate = torch.zeros(b, 3, 3, dtype=torch.float64)
        return {**_fresh_chain(b, self.chain, "chain"), **_fresh_chain(b, self.chain, "cell_chain"), "strain_rate": rate}

    def step(self, state: State, evaluator: Evaluator) -> State:
        """Chains, the cell's kick, the atoms' kick, both drift, and back."""
        kelvin = state.target
        state = self._warmed(state)
        state = self._chains(state, kelvin)
        rate = state.bath["strain_rate"] + self._cell_kick(state, kelvin)
        velocities = self._kicked(state, rate, state.velocities)
        system = state.systems.system
        # drift: dr/dt = v + rate·r and dh/dt = h·rate, solved exactly for a rate and a velocity that stay
        grow, mean = _exponentials(rate, self.dt, self.shape)
        positions = _times(state.systems.positions, grow, system) + self.dt * _times(velocities, mean, system)
        cell = state.systems.cell
        systems = state.systems.replace(positions=positions, cell=cell @ grow if grow.ndim == 3 else cell * grow[:, None, :])
        found = evaluator.evaluate(systems)
        state = _with(state, systems, velocities, found, {**state.bath, "strain_rate": rate})
        state = state.replace(velocities=self._kicked(state, rate, state.velocities))
        state = state.replace(bath={**state.bath, "strain_rate": rate + self._cell_kick(state, kelvin)})
        return self._chains(state, kelvin)

    def _mass(self, state: State, kelvin: Tensor) -> Tensor:
        """(B) of the cell, eV fs²."""
        return (state.freedom + 3) / 3 * BOLTZMANN * kelvin * self.barostat**2

    def _warmed(self, state: State) -> State:
        for name in ("chain", "cell_chain"):
            state = _warmed(state, name, self.chain)
        ratio = _warming(state)
        return (
            state if ratio is None else state.replace(bath={**state.bath, "strain_rate": state.bath["strain_rate"] * ratio[:, None, None]})
        )

    def _chains(self, state: State, kelvin: Tensor) -> State:
        """Half a step of both chains."""
        scale, bath = _chain_half(state, "chain", self.relaxation, self.dt, 2 * state.kinetic, state.freedom, kelvin)
        state = state.replace(velocities=state.velocities * scale[state.systems.system][:, None], bath=bath)
        rate = state.bath["strain_rate"]
        twice = self._mass(state, kelvin) * (rate * rate).sum((1, 2))
        freedom = torch.full_like(twice, _SHAPES[self.shape])
        scale, bath = _chain_half(state, "cell_chain", self.barostat, self.dt, twice, freedom, kelvin)
        return state.replace(bath={**bath, "strain_rate": rate * scale[:, None, None]})

    def _cell_kick(self, state: State, kelvin: Tensor) -> Tensor:
        """What half a step of pressure does to the rate of strain."""
        eye = torch.eye(3, dtype=torch.float64)
        push = state.systems.volume[:, None, None] * (state.pressure_tensor - state.pressure[:, None, None] * eye)
        push = push + (2 * state.kinetic / state.freedom)[:, None, None] * eye
        return _of_shape(push, self.shape) * (self.dt / 2 / self._mass(state, kelvin))[:, None, None]

    def _kicked(self, state: State, rate: Tensor, velocities: Tensor) -> Tensor:
        """Half a step of forces and of the cell's drag on velocities, solved exactly for a rate that stays."""
        eye = torch.eye(3, dtype=torch.float64)
        drag = rate + (rate.diagonal(dim1=1, dim2=2).sum(1) / state.freedom)[:, None, None] * eye
        slow, mean = _exponentials(-drag, self.dt / 2, self.shape)
        system = state.systems.system
        return _times(velocities, slow, system) + _times(_kick(state, state.forces, self.dt / 2), mean, system)

    def conserved(self, state: State) -> Tensor:
        """The enthalpy, and the energies of the cell's motion and of both chains."""
        kelvin = state.target_at(max(state.step - 1, 0))
        rate = state.bath["strain_rate"]
        total = state.energy + state.kinetic + state.pressure * state.systems.volume
        total = total + 0.5 * self._mass(state, kelvin) * (rate * rate).sum((1, 2))
        total = total + _chain_energy(state, "chain", self.relaxation, state.freedom)
        return total + _chain_energy(state, "cell_chain", self.barostat, torch.full_like(total, _SHAPES[self.shape]))


@dataclass(frozen=True)
class CellRescaling:
    """Constant temperature and pressure, stochastic: Langevin on the atoms, a volume that follows the pressure with the right noise.

    Parameters
    ----------
    dt : fs
    friction : 1/fs
    barostat : fs, the relaxation time of the volume if `compressibility` is right
    compressibility : Å³/eV; it sets only how fast the volume follows. 2 stands for a bulk modulus of 80 GPa
    """

    dt: float = 1.0
    friction: float = 0.01
    barostat: float = 1000.0
    compressibility: float = 2.0
    rests = True

    def __post_init__(self) -> None:
        _positive(self, "dt", "friction", "barostat", "compressibility")

    def begin(self, state: State) -> Mapping[str, Tensor]:
        """The heat and the work given to the systems so far."""
        _whole(state)
        return {"heat": torch.zeros(len(state), dtype=torch.float64)}

    def step(self, state: State, evaluator: Evaluator) -> State:
        """BAOA of Langevin, the volume's step with the last virial, the forces, B."""
        pressure = state.pressure_tensor.diagonal(dim1=1, dim2=2).mean(1)
        volume, pace = state.systems.volume, self.compressibility * self.dt / self.barostat
        velocities, systems, bath = Langevin(self.dt, self.friction)._drift(state)
        noise = (2 * BOLTZMANN * state.target * pace / volume).sqrt() * _noise_of_systems(state, _BAROSTAT)
        # no step of the volume is larger than a tenth: far from equilibrium the pressure would overshoot
        growth = (-pace * (state.pressure - pressure) + noise).clamp(-0.1, 0.1)
        stretch = torch.exp(growth / 3)
        each = stretch[state.systems.system][:, None]
        systems = systems.replace(positions=systems.positions * each, cell=systems.cell * stretch[:, None, None])
        return _arrived(state, systems, velocities / each, evaluator, self.dt, bath)

    def conserved(self, state: State) -> Tensor:
        """Enthalpy; nothing is conserved here, it fluctuates around its mean."""
        return state.energy + state.kinetic + state.pressure * state.systems.volume


ENSEMBLES: Mapping[str, type] = {"nve": NVE, "langevin": Langevin, "nvt": NoseHoover, "npt": NPT, "npt-rescale": CellRescaling}


def ensemble_of(name: str, **settings: Any) -> Ensemble:
    """An ensemble by name.

    Raises
    ------
    ConfigError
        If the name or a setting is unknown, or a setting out of range.
    """
    if name not in ENSEMBLES:
        raise ConfigError(f"unknown ensemble {name!r}; expected one of {', '.join(ENSEMBLES)}")
    known = [f.name for f in fields(ENSEMBLES[name])]
    foreign = [key for key in settings if key not in known]
    if foreign:
        raise ConfigError(f"ensemble {name} has no setting {', '.join(foreign)}; it has {', '.join(known)}")
    made: Ensemble = ENSEMBLES[name](**settings)
    return made


# --- parts of them ----------------------------------------------------------------------------------------------------------------------
def per_system(state: State, values: Tensor) -> Tensor:
    """(N, …) summed to (B, …). The sum of a system does not depend on its batch."""
    return torch.zeros(len(state), *values.shape[1:], dtype=values.dtype).index_add_(0, state.systems.system, values)


def _kick(state: State, forces: Tensor, dt: float) -> Tensor:
    """(N, 3) change of velocities by forces in a time; none for fixed atoms."""
    return forces * (state.mobile * (dt * ACCELERATION) / state.mass)[:, None]


def _arrived(state: State, systems: Systems, velocities: Tensor, evaluator: Evaluator, dt: float, bath: Mapping[str, Tensor]) -> State:
    """New forces at new positions, and the second half of the kick."""
    after = _with(state, systems, velocities, evaluator.evaluate(systems), bath)
    return after.replace(velocities=velocities + _kick(after, after.forces, dt / 2))


def _with(state: State, systems: Systems, velocities: Tensor, found: Evaluated, bath: Mapping[str, Tensor]) -> State:
    return state.replace(
        systems=systems,
        velocities=velocities,
        energy=found.energy,
        forces=found.forces,
        stress=found.stress,
        step=state.step + 1,
        bath=bath,
        complaints=found.complaints,
        nearest=found.nearest,
    )


def _at_rest(state: State, velocities: Tensor) -> Tensor:
    """Centres of mass brought to rest, but for anchored systems. With noise this is its projection: what is left is exactly canonical."""
    drift = per_system(state, velocities * state.mass[:, None]) / per_system(state, state.mass)[:, None]
    return velocities - (drift * (~state.anchored)[:, None])[state.systems.system] * state.mobile[:, None]


# streams of random numbers that never meet
_START, _THERMOSTAT, _BAROSTAT = 0, 1, 2


def _generator(seed: int, purpose: int, step: int) -> np.random.Generator:
    """Random numbers as a function of seed, purpose and step: nothing has to be remembered, and nobody else's numbers shift them."""
    key = np.array([seed % 2**64, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, step, 0], dtype=np.uint64)))


def _noise(state: State, purpose: int) -> Tensor:
    """(N, 3) normal numbers."""
    seeds, sizes = state.seed.tolist(), state.systems.n_atoms.tolist()
    parts = [_generator(seed, purpose, state.step).standard_normal((n, 3)) for seed, n in zip(seeds, sizes, strict=True)]
    return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))


def _noise_of_systems(state: State, purpose: int) -> Tensor:
    """(B) normal numbers."""
    return torch.tensor([_generator(seed, purpose, state.step).standard_normal() for seed in state.seed.tolist()], dtype=torch.float64)


# Suzuki's and Yoshida's fourth-order splitting of a step
_YOSHIDA = (1 / (2 - 2 ** (1 / 3)), 1 - 2 / (2 - 2 ** (1 / 3)), 1 / (2 - 2 ** (1 / 3)))


def _fresh_chain(systems: int, length: int, name: str) -> dict[str, Tensor]:
    """A chain at rest: rates (1/fs) and energies taken up (eV), (B, length) each."""
    zero = torch.zeros(systems, length, dtype=torch.float64)
    return {f"{name}_rate": zero, f"{name}_energy": zero.clone()}


def _warming(state: State) -> Tensor | None:
    """(B) factor that keeps the kinetic energy of baths whose masses grow with the temperature; None where it stays."""
    if not state.step or not bool((state.step <= state.schedule[:, 2]).any()):
        return None
    before, now = state.target_at(state.step - 1), state.target
    return torch.where((before > 0) & (now > 0), (before / now).sqrt(), torch.ones_like(now))


def _warmed(state: State, name: str, length: int) -> State:
    ratio = _warming(state)
    if ratio is None:
        return state
    return state.replace(bath={**state.bath, f"{name}_rate": state.bath[f"{name}_rate"] * ratio[:, None]})


def _chain_masses(kelvin: Array, freedom: Array, relaxation: float, length: int) -> tuple[Array, Array]:
    """(B, length) degrees of freedom that each link holds, and the links' masses in eV fs²."""
    held = np.ones((len(kelvin), length))
    held[:, 0] = freedom
    # at 0 K a chain would have no mass; it then holds on to a hundredth of a kelvin
    return held, held * np.maximum(BOLTZMANN * kelvin, BOLTZMANN * 1e-2)[:, None] * relaxation**2


def _chain_half(
    state: State, name: str, relaxation: float, dt: float, twice_kinetic: Tensor, freedom: Tensor, kelvin: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Half a step of a chain: the factor (B) on the velocities it holds, and the bath after it.

    The numbers are few, and NumPy's calls on them take a fifth of torch's.
    """
    target = (state.target if kelvin is None else kelvin).numpy()
    kt = np.maximum(BOLTZMANN * target, BOLTZMANN * 1e-2)
    rate, taken = state.bath[f"{name}_rate"].numpy().copy(), state.bath[f"{name}_energy"].numpy().copy()
    length = rate.shape[1]
    held, mass = _chain_masses(target, freedom.numpy(), relaxation, length)
    kinetic, scale = twice_kinetic.numpy().copy(), np.ones(len(kt))
    last = length - 1

    def push(k: int) -> Array:
        drive = kinetic if k == 0 else mass[:, k - 1] * rate[:, k - 1] ** 2
        return (drive - held[:, k] * kt) / mass[:, k]

    def links(part: float, order: Sequence[int]) -> None:
        for k in order:
            slow = np.exp(-part / 4 * rate[:, k + 1])
            rate[:, k] = (rate[:, k] * slow + part / 2 * push(k)) * slow

    # what explodes here is seen by whoever looks at the state
    with np.errstate(over="ignore", invalid="ignore"):
        for weight in _YOSHIDA:
            part = weight * dt / 2
            rate[:, last] += part / 2 * push(last)
            links(part, range(last - 1, -1, -1))
            factor = np.exp(-part * rate[:, 0])
            scale *= factor
            kinetic *= factor * factor
            taken += part * rate * held * kt[:, None]
            links(part, range(last))
            rate[:, last] += part / 2 * push(last)
    bath = {**state.bath, f"{name}_rate": torch.from_numpy(rate), f"{name}_energy": torch.from_numpy(taken)}
    return torch.from_numpy(scale), bath


def _chain_energy(state: State, name: str, relaxation: float, freedom: Tensor) -> Tensor:
    """(B) eV: of the chain's motion, and what it took up at the temperature of the moment."""
    rate = state.bath[f"{name}_rate"]
    kelvin = state.target_at(max(state.step - 1, 0))
    _, mass = _chain_masses(kelvin.numpy(), freedom.numpy(), relaxation, rate.shape[1])
    return (0.5 * torch.from_numpy(mass) * rate * rate + state.bath[f"{name}_energy"]).sum(1)


def _of_shape(push: Tensor, shape: Shape) -> Tensor:
    """(B, 3, 3) what of a push on the cell its shape allows."""
    if shape == "full":
        return (push + push.transpose(1, 2)) / 2
    straight = push.diagonal(dim1=1, dim2=2)
    if shape == "isotropic":
        straight = straight.mean(1, keepdim=True).expand(-1, 3)
    return torch.diag_embed(straight)


def _exponentials(rate: Tensor, dt: float, shape: Shape) -> tuple[Tensor, Tensor]:
    """exp(A dt) and (1/dt) ∫₀^dt exp(A s) ds of symmetric matrices (B, 3, 3); their diagonals (B, 3) where the shape allows no others."""
    if shape != "full":
        return _exponential_and_mean(rate.diagonal(dim1=1, dim2=2) * dt)
    sound = torch.isfinite(rate).flatten(1).all(dim=1)[:, None]
    # a system that exploded must not take the others with it: it gets NaN
    values, axes = torch.linalg.eigh(torch.where(sound[:, :, None], rate, torch.zeros_like(rate)))
    x = torch.where(sound, values * dt, torch.full_like(values, torch.nan))
    both = _exponential_and_mean(x)
    return tuple((axes * f[:, None, :]) @ axes.transpose(1, 2) for f in both)  # type: ignore[return-value]


def _exponential_and_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """eˣ and (eˣ − 1)/x."""
    small = x.abs() < 1e-4
    mean = torch.where(small, 1 + x / 2 + x * x / 6, torch.expm1(x) / torch.where(small, torch.ones_like(x), x))
    return torch.exp(x), mean


def _times(rows: Tensor, matrices: Tensor, system: Tensor) -> Tensor:
    """(N, 3) rows times their systems' matrices (B, 3, 3) or diagonals (B, 3), summed in the same order however many there are."""
    if matrices.ndim == 2:
        return rows * torch.index_select(matrices, 0, system)
    return (rows[:, :, None] * matrices[system]).sum(1)


def _each(value: ArrayLike | Tensor, systems: int, what: str) -> Tensor:
    given = torch.as_tensor(value, dtype=torch.float64)
    if given.ndim and given.shape != (systems,):
        raise InputError(f"{what}: {tuple(given.shape)} values for {systems} systems; expected one, or one per system")
    return given.expand(systems).clone()


def _positive(settings: Any, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:
            raise ConfigError(f"{type(settings).__name__}: {name} = {getattr(settings, name)}; expected a number above 0")


def _whole(state: State) -> None:
    """Refuse to put a barostat on what has no volume, or on fixed atoms."""
    open_ones = torch.nonzero(~state.systems.pbc.all(dim=1))[:, 0].tolist()
    if open_ones:
        raise InputError(
            f"system {open_ones[0]} does not repeat in three directions, so it has no pressure; take nve, langevin or nvt for it"
        )
    if not bool(torch.isfinite(state.stress).all()):
        raise InputError("the potential gives no stress, so there is no pressure to hold; take nve, langevin or nvt")
    if not bool(state.mobile.all()):
        raise InputError("atoms cannot be fixed in space while the cell changes; take nve, langevin or nvt, or free them")
